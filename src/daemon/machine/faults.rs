//! Faults that the simulation switches on, one at a time, to show that it would find them.
//!
//! Each is one that a supervisor has had, or nearly had. Outside of tests none can be switched on, and the compiler leaves
//! them out.

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// One thing that the machine can do wrong.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum Fault {
            $($(#[$doc])* $name,)*
        }

        #[cfg(test)]
        impl Fault {
            /// Every fault.
            pub const ALL: &'static [Fault] = &[$(Fault::$name),*];
        }
    };
}

faults! {
    /// Each death is recorded twice.
    DeathCountedTwice,
    /// A death is taken for that of the slot's present owner, whoever has died.
    DeathOfFormerOwner,
    /// An order that comes while the log file is about to be opened gets no verdict.
    OrderLostAtReopen,
    /// The window of starting children is not told of those that are ready.
    WindowNeverOpens,
    /// A child that was forked after the shutdown began is not told of it.
    ForkedAfterShutdown,
    /// A surplus spare is told to end at once, with the request that it may have just accepted.
    SpareCutOff,
    /// Children that are starting are not counted as such.
    StartingNotCounted,
    /// The bell is lowered after the board was read.
    BellAnsweredLate,
    /// A pool that has become full does not look at the board again after having said so.
    FullNotReviewed,
    /// After a failed fork nothing tries again.
    RetryNotArmed,
    /// One failed fork stops all forks for good.
    FailureForGood,
    /// The slot of a fork that failed stays taken.
    SlotLeaks,
    /// Forks that were taken back are still waited for.
    CancelledStillInFlight,
    /// The request of a fork that failed is forgotten.
    RequestLost,
    /// The request of a fork that failed goes to the end of the queue.
    RequestOvertaken,
    /// The application is not told to go on accepting.
    AcceptNotAnnounced,
    /// Forks in flight are not counted towards `max_children`.
    InFlightNotCounted,
    /// Children that die as soon as they are forked are followed at once.
    CrashLoopNotSlowed,
    /// Children have all the time they want to end.
    GraceNotArmed,
    /// TERM does nothing after QUIT.
    SecondStopIgnored,
    /// Each TERM gives the children the full time again.
    GraceBeginsAnew,
    /// A child that was reaped is signalled.
    DeadSignalled,
    /// A child that is stopped counts as idle.
    StoppedIsIdle,
    /// Idle children are not woken for clients that wait all the same.
    DeafNotWoken,
    /// Spares kept for the next wave are kept for ever.
    HoldNeverEnds,
    /// The babysitter comes once.
    BabysitOnce,
    /// Time in which this process did not run counts against its children.
    SuspensionCounts,
    /// Idle children are not woken after a death, when the dead child alone was told of a client.
    NotWokenAfterDeath,
    /// A superseded order gets a second verdict.
    TwoVerdicts,
    /// An order for a child that has vanished gets none.
    VerdictLost,
    /// TTOU at the smallest size is forgotten on the way back.
    ResizeForgets,
    /// A size that contradicts itself is refused, and one of its numbers is taken all the same.
    SizeSetInPart,
    /// What TTIN and TTOU have done before a size was set is done again by the next of them.
    ShiftOutlivesSet,
    /// A child with too much memory is never replaced.
    LargeNeverGoes,
    /// A child that other code has waited for stays on the table.
    VanishedStays,
    /// Replacements of children that died before they were ready are not rationed.
    EarlyDeathsNotRationed,
    /// The time given to a shutdown is over for children, but they are not killed.
    NotKilled,
    /// The parent ends while a fork is in flight.
    EndsWithForkInFlight,
    /// A reload that is asked for after the file was read has the verdict of the one before.
    ReloadJoinsLate,
    /// A scout that never ends is waited for.
    LoadNotLimited,
    /// A reload that is asked for during another one is forgotten.
    CoalescedReloadLost,
    /// A reload begins to roll while children of the edition before the last one have work in hand.
    ThreeEditions,
    /// Children that die as soon as they are forked do not bring the former edition back.
    ProbationIgnored,
    /// A reload that a shutdown ends gets no verdict.
    ReloadNotSuperseded,
    /// Old children are asked to go before a new one was ready.
    RollsWithoutCanary,
    /// A reload that fails is over before the old children are all there again.
    NotRefilled,
    /// As soon as one new child is ready all old ones are asked to go.
    RollsAllAtOnce,
    /// There is no limit to the children that a roll adds.
    SurgeNotLimited,
    /// A child of a former edition may take any time to end.
    DrainNotLimited,
    /// Children on trial that die as soon as they are forked slow the forks of those that serve.
    CandidatesCount,
    /// What orders have made of the size is forgotten by a reload that changes one of its numbers.
    ReloadForgetsSize,
    /// A number of spares that no file says follows from `max_children` anew, although an order has said it.
    OrderedNumberFollows,
    /// A second upgrade is begun while one is under way.
    TwoAttempts,
    /// What a successor does that was given up is taken for what its follower does.
    FormerAttemptHeard,
    /// A successor that says nothing is waited for.
    GreetingNotLimited,
    /// Children are asked to go when the successor is ready, and not when it has taken over.
    RetiredBeforeTookOver,
    /// A successor that has failed is left alone.
    SuccessorNotEnded,
    /// The names are not taken back from a successor that fails while they change hands.
    NamesNotTakenBack,
    /// The death of a successor on probation is ignored.
    DeathOnProbationIgnored,
    /// The probation of a successor never ends.
    SuccessorOnProbationForEver,
    /// Children are forked while the pool rests.
    ForksWhileResting,
    /// A child that was forked before the pool rested, and is heard of later, is not asked to go.
    ForkedWhileRestingStays,
    /// Requests that wait for a child are forgotten when the successor has taken over.
    QueueDroppedAtRest,
    /// After the successor has failed the pool goes on resting.
    NotRefilledAfterRest,
    /// The end after an upgrade has no limit.
    UpgradeDrainNotLimited,
    /// This process ends as if the names were its own.
    NamesNotLeft,
    /// An upgrade that a shutdown ends gets no verdict.
    UpgradeNotSuperseded,
    /// Nobody can cut short the end after an upgrade.
    FinishIgnored,
    /// The queues are read for growth although a child is idle.
    WeighsWhileIdle,
    /// The queues are looked at several times a second.
    LooksTooOften,
    /// After the last client the queues are looked at each second for ever.
    LooksForEver,
    /// Spares that are too many go although clients wait for them.
    SparesGoWhileClientsWait,
}

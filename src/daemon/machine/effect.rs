//! What the machine wants done. The parent carries it out in this order.

use std::time::Duration;

use super::{
    Attempt, Cause, Edition, Key, OrderId, Reckoning, ReloadNews, Rogue, Shutdown, Status, Step, Thresholds, Timer,
    UpgradeNews, Verdict, Watch, Why,
};

/// One thing to be done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Effect {
    /// Fork a child into this slot when the running state has returned. [`Input::Forked`](super::Input::Forked) follows.
    Fork(Fork),
    /// Take back the forks that were asked for and that were not carried out. Nothing follows for them.
    CancelForks,
    /// Send a signal to a child.
    Signal(Key, Signal),
    /// Kill all children that other code forked: they were told to end, and their time is up.
    KillForeign,
    /// Call the machine with [`Input::Due`](super::Input::Due) when so much time has passed. A timer that runs is moved.
    Arm(Timer, Duration),
    /// Stop a timer.
    Disarm(Timer),
    /// Stop all timers.
    DisarmAll,
    /// Tell the application.
    Announce(Announcement),
    /// Tell the children when to ring. If children may have had news meanwhile, [`Input::Bell`](super::Input::Bell) follows.
    Publish(Published),
    /// Call the machine with [`Input::Bell`](super::Input::Bell), now.
    LookAgain,
    /// Tell the machine of a client in a queue, once: at once if one waits already.
    Await(Watch),
    /// Do not tell it.
    Forget(Watch),
    /// Ask a child to let go of the client that it keeps.
    AskToRelease(Key),
    /// Ask a child whether it accepts. It answers when it is continued.
    Call(Key),
    /// Have at least so many slots on the board.
    GrowBoard(usize),
    /// Leave one record of a child's death in the log. Nothing is sent to it from now on.
    Record(Death),
    /// Let the log know.
    Say(Message),
    /// Tell who asked for something what has become of it.
    Answer(OrderId, Verdict),
    /// Drop the requests that wait for a child: their clients must see the end.
    DropRequests,
    /// Tell the application to open its logs, then open the log file again. [`Input::Reopened`](super::Input::Reopened)
    /// follows.
    Reopen,
    /// Tell the launcher that the daemon is ready.
    TellLauncher,
    /// Tell the launcher that forks fail for the time being.
    DelayLauncher,
    /// Shut the Daemon's session in this process down, and tell the application.
    End(Shutdown),
    /// What `run` returns in the end.
    Fail(Failure),
    /// The Daemon has been shut down and nothing is left to wait for.
    Finish,
    /// Say what keeps this process alive although an operator has asked again.
    TellWhatIsLeft,
    /// Read the file of the configuration, and have a process of its own load it.
    /// [`Input::ScoutBegins`](super::Input::ScoutBegins) and [`Input::Scouted`](super::Input::Scouted) follow.
    Scout(Edition),
    /// End that process, whatever it does.
    EndScout,
    /// Load what was read in this process as well. [`Input::Loaded`](super::Input::Loaded) follows.
    Load(Edition),
    /// Have this edition of the configuration from now on. It was loaded.
    Adopt(Edition),
    /// Forget this edition of the configuration.
    Drop(Edition),
    /// Fork, and execute the program anew, with the listeners and a channel.
    /// [`Input::SuccessorGreeted`](super::Input::SuccessorGreeted) and [`Input::SuccessorReady`](super::Input::SuccessorReady)
    /// follow, or [`Input::SuccessorFailed`](super::Input::SuccessorFailed).
    StartSuccessor(Attempt),
    /// Give the successor the names and the counters. [`Input::SuccessorTookOver`](super::Input::SuccessorTookOver) follows.
    HandOver(Attempt),
    /// End the successor and all that it has forked, whatever it does. It may have ended, or never have been started.
    EndSuccessor(Attempt),
    /// An operator does not want to wait for a successor that was told to end, if there is one.
    HurrySuccessor,
    /// The names are this process's again. Comes only after [`Effect::HandOver`].
    TakeBack,
    /// Accept nothing from now on, with the listeners open; or accept again.
    Rest(bool),
    /// The successor has everything for good: this process unlinks no name any more, and reports nothing in the service's name.
    /// [`Effect::End`] follows, at once or when the requests in hand have their children.
    LeaveAll,
}

/// A fork.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fork {
    /// Which child it will be.
    pub key: Key,
    /// Which settings it is to have.
    pub edition: Edition,
    /// Post-forking: which request it is for.
    pub request: Option<u64>,
    /// It begins with `l`.
    pub is_long: bool,
    /// How many requests it is to handle; `None` for any number.
    pub share: Option<u64>,
    /// Post-forking: it has no request, and shows that a child with its settings can start.
    pub is_probe: bool,
    /// What it says on its standard error may be why a reload fails.
    pub is_watched: bool,
}

/// A signal to a child.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Signal {
    /// Reopen the log.
    Hup,
    /// End now.
    Int,
    /// End now.
    Term,
    /// End after the request in hand.
    Quit,
    /// Go on, and look whether a client waits.
    Cont,
    /// End, whatever it does.
    Kill,
}

/// What the application is told by a signal of the kernel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Announcement {
    /// `daemon_parent`: the first children are there.
    Parent,
    /// `daemon_pause`, at once.
    Pause,
    /// `daemon_accept`, at once.
    Accept,
}

/// What the children go by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Published {
    /// The idle counts at which they ring.
    pub thresholds: Thresholds,
    /// There can't be more children: one that begins to keep a client rings.
    pub is_full: bool,
}

/// How a child has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Death {
    /// Which child.
    pub key: Key,
    /// Why.
    pub cause: Cause,
    /// How old it was.
    pub age: Duration,
    /// How many requests it had begun.
    pub requests: u64,
    /// What else there is to be told.
    pub note: Note,
}

/// What else a death's record tells.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Note {
    /// Nothing.
    None,
    /// There is a core.
    Core,
    /// A process has killed it, and that was neither the Daemon nor the system.
    KilledByOther,
    /// A process has killed it. That may have been the system.
    KilledPerhapsBySystem,
}

/// Why the Daemon can't go on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failure {
    /// A fork has failed for good; the parent knows why.
    Fork,
    /// Children died in their set-up while a launcher waited.
    ChildrenFail {
        /// How many times in a row.
        failures: u32,
        /// The last one.
        key: Key,
        /// How that has ended.
        cause: Cause,
    },
    /// The start was not over in time.
    StartTimeout {
        /// How many children had reported `Wait`.
        ready: usize,
        /// How many were to.
        wanted: usize,
    },
    /// The launcher ended before the daemon was ready. `run` returns in order.
    LauncherGone,
}

/// What the log is told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Message {
    /// A child was forked.
    Forked(Key),
    /// A child is ready for its first request.
    Ready {
        /// The child.
        key: Key,
        /// How long that has taken, from its fork on.
        took: Duration,
    },
    /// A child was asked to go.
    Retired(Key),
    /// No slot is free. That can't be.
    BoardFull {
        /// How many there are.
        slots: usize,
    },
    /// Forks have begun to fail, or fail for another reason; the parent knows the reason.
    ForksFail {
        /// How many children there are.
        children: usize,
        /// How many are missing.
        missing: usize,
        /// When it is tried again.
        next_try: Duration,
    },
    /// All that was missing is there.
    ForksSucceed {
        /// How many children there are.
        children: usize,
    },
    /// Children die as soon as they are forked.
    CrashLoop {
        /// How many in a row.
        deaths: u32,
        /// When the next is forked.
        wait: Duration,
        /// The log has it already.
        is_known: bool,
    },
    /// They do not any more.
    CrashLoopOver {
        /// How many children there are.
        children: usize,
    },
    /// A child has not reported that it waits.
    Unready {
        /// The child.
        key: Key,
        /// For how long.
        since: Duration,
    },
    /// A child breaks a rule and was sent a signal.
    Rogue {
        /// The child.
        key: Key,
        /// Which rule.
        why: Rogue,
        /// What it does.
        status: Option<Status>,
        /// For how long.
        since: Duration,
        /// How much processor time it has used for that.
        cpu: Duration,
        /// What it was sent.
        step: Step,
    },
    /// A child keeps to the rules again.
    RogueCleared(Key),
    /// A child has more memory than it may.
    TooLarge {
        /// The child.
        key: Key,
        /// How many bytes are resident.
        resident: u64,
        /// How many may be.
        limit: u64,
    },
    /// How many children there may be has changed.
    Resized {
        /// The most children.
        max_children: u32,
        /// The fewest spares.
        min_spare: u32,
        /// The most spares.
        max_spare: u32,
    },
    /// How many children there may be can't be changed so.
    NotResized(Why),
    /// The Daemon is shut down.
    ShuttingDown {
        /// How many children there are.
        children: usize,
    },
    /// The Daemon is about to be shut down, and serves for so long before.
    LameDuck(Duration),
    /// A child was killed as its time to end was up.
    NotEnded(Key),
    /// A child was asked to let go of its client.
    AskedToRelease(Key),
    /// Clients ask for more children.
    ClientsWait(Reckoning),
    /// Clients wait for a pool that is full.
    OverloadBegun {
        /// The most children.
        max_children: u32,
        /// How many clients wait.
        waiting: u32,
        /// How many may, if the system says so.
        limit: Option<u32>,
    },
    /// They do not any more.
    OverloadEnded {
        /// For how long they did.
        lasted: Duration,
        /// The most that were seen.
        deepest: u32,
    },
    /// A queue is full.
    QueueFull {
        /// How many clients wait.
        waiting: u32,
        /// How many may.
        limit: u32,
    },
    /// It has room again.
    QueueHasRoom {
        /// For how long it was full.
        lasted: Duration,
        /// The most that were seen.
        deepest: u32,
    },
    /// A child that says it waits is stopped, while clients wait.
    Deaf {
        /// The child.
        key: Key,
        /// How many clients wait.
        waiting: u32,
        /// It was continued, as there can't be another one.
        is_continued: bool,
    },
    /// A child that says it waits runs and does not accept, while clients wait. It is no spare any more.
    Unresponsive {
        /// The child.
        key: Key,
        /// How many clients wait.
        waiting: u32,
        /// It answers, and all its listeners are paused.
        is_paused: bool,
    },
    /// It accepts again, and is a spare.
    Responsive(Key),
    /// A reload has come to this.
    Reload(Edition, ReloadNews),
    /// An upgrade has come to this.
    Upgrade(Attempt, UpgradeNews),
    /// A child that was to go after a reload has not gone in time, and is ended.
    NotGone(Key),
}

//! What the machine is told, and what it may look at while it decides.

use std::time::Duration;

use super::{Attempt, Edition, Key, Meter, Order, OrderId, Rejection, Status, Tunable, UpgradeFault};

/// One thing that has happened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Input {
    /// The application has handled `daemon_start`: children may be forked from now on.
    Begin,
    /// A child has rung, or a child may have meant to.
    Bell,
    /// A fork that the machine asked for was carried out, or it failed.
    Forked(Key, Result<(), Refusal>),
    /// A child has ended.
    Reaped(Key, End),
    /// A timer that the machine armed is due.
    Due(Timer),
    /// The application of a post-forking server hands over a request, which gets this number. Numbers count up.
    Request {
        /// Counts the requests.
        number: u64,
        /// The child begins with `l` and not with `r`.
        is_long: bool,
    },
    /// A client waits in the queue of a listener. The machine asked for this by [`Effect::Await`](super::Effect::Await).
    Client(Watch),
    /// Somebody asks for something: an operator by a signal, or the application.
    Asked(OrderId, Order),
    /// The log file was opened again, as far as that was possible: the end of [`Effect::Reopen`](super::Effect::Reopen).
    Reopened {
        /// The old log file is still in use.
        has_failed: bool,
    },
    /// A launcher waits for the end of the start.
    Launched,
    /// The application has handled the last signal of the start.
    Started,
    /// The launcher has gone without having been told that the daemon is ready, or it was told and has acknowledged.
    LauncherGone {
        /// It knows that the daemon is ready.
        has_acknowledged: bool,
    },
    /// So many children that other code forked are left to be looked after.
    Foreign(usize),
    /// The file of the configuration is about to be read for [`Effect::Scout`](super::Effect::Scout).
    ScoutBegins(Edition),
    /// A process of its own has loaded the configuration, or has not.
    Scouted(Edition, Result<(), Rejection>),
    /// This process has, or has not.
    Loaded(Edition, Result<Tunable, Rejection>),
    /// The successor that [`Effect::StartSuccessor`](super::Effect::StartSuccessor) has started is one that can take over.
    SuccessorGreeted(Attempt),
    /// It is ready to serve.
    SuccessorReady(Attempt),
    /// It has what [`Effect::HandOver`](super::Effect::HandOver) has given it.
    SuccessorTookOver(Attempt),
    /// It has failed.
    SuccessorFailed(Attempt, UpgradeFault),
    /// It was told to end by an operator, after it had taken over.
    SuccessorStops(Attempt),
}

/// Why a fork has failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// It may succeed later. Refusals of different kinds have different numbers.
    ForNow(i32),
    /// It will not get better.
    ForGood,
}

/// What the system says of a child that has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// It left by itself, with this exit code.
    Exited(i32),
    /// A signal ended it.
    Signaled {
        /// The signal's number.
        signal: i32,
        /// The system has written a core.
        has_core: bool,
    },
    /// It is gone, and other code has waited for it.
    Vanished,
}

/// What the machine wants to be called for when some time has passed. There is one of each; arming it again moves it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Timer {
    /// Forks that were rationed may be granted.
    Maintain,
    /// No child is idle: look into the queues again.
    WeighQueue,
    /// Spares that were kept for the next wave may be retired.
    EndHold,
    /// Forks failed, or children died as soon as they were forked: try again.
    RetryForks,
    /// A client has waited for a moment for a child that keeps another client.
    Relieve,
    /// Clients were seen in a queue: look what has become of them.
    LookAtQueue,
    /// Idle children were asked whether they accept: look what they have answered.
    HearAnswers,
    /// No client was seen: ask to be told of the next one.
    WatchQueue,
    /// The babysitter's next round.
    Babysit,
    /// Between two rounds: look which children run.
    LookAtChildren,
    /// The time given to children that are to end.
    Grace,
    /// Clients have had time to hear that the Daemon is about to end.
    LameDuck,
    /// The launcher has waited for long enough.
    StartLate,
    /// The configuration was not loaded in time.
    LoadLate,
    /// A new child is not ready in time.
    RollLate,
    /// The former edition of the settings was kept for long enough.
    Probation,
    /// A child that was to go after a reload has had its time.
    Cut,
    /// The successor has had its time for what comes next, or its probation is over.
    Upgrade,
}

impl Timer {
    /// Every timer.
    #[cfg(test)]
    pub const ALL: [Timer; 18] = [
        Timer::Maintain,
        Timer::WeighQueue,
        Timer::EndHold,
        Timer::RetryForks,
        Timer::Relieve,
        Timer::LookAtQueue,
        Timer::HearAnswers,
        Timer::WatchQueue,
        Timer::Babysit,
        Timer::LookAtChildren,
        Timer::Grace,
        Timer::LameDuck,
        Timer::StartLate,
        Timer::LoadLate,
        Timer::RollLate,
        Timer::Probation,
        Timer::Cut,
        Timer::Upgrade,
    ];
}

/// What a client in a queue is of interest to.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Watch {
    /// Growth, and the log.
    Queue,
    /// A child that keeps a client which has nothing in hand.
    Relief,
}

/// What a child's slot says.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Says {
    /// What the child does; `None` if the slot holds nothing that makes sense.
    pub status: Option<Status>,
    /// Since when it does that, in milliseconds of the machine's time.
    pub since_ms: u64,
    /// When the child claimed its slot, in milliseconds of the machine's time.
    pub started_ms: u64,
    /// How many requests it has begun.
    pub requests: u64,
}

/// What a child has answered since [`Effect::Call`](super::Effect::Call) has asked it whether it accepts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answer {
    /// Nothing: the state that it runs has not returned.
    Missing,
    /// It accepts, or was never asked.
    Accepts,
    /// It does not: all its listeners are paused.
    Paused,
}

/// What the system says of a child that was not reaped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Process {
    /// It runs, or waits for something.
    Runs,
    /// A signal has stopped it.
    Stopped,
    /// It has ended, and the news of that are on their way.
    Ended,
    /// It is not a child of this process any more.
    Gone,
}

/// Which process a KILL may be from that the Daemon has not sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Killer {
    /// The system, as memory had run out.
    System,
    /// Another process: the system has killed nothing in this control group.
    Other,
    /// There is no control group that counts.
    Unknown,
}

/// The queues of all listeners on which the children accept.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Queues {
    /// How many clients wait in all of them.
    pub waiting: u32,
    /// How many may.
    pub limit: u32,
    /// How many wait in a queue that is full, and how many may.
    pub full: Option<(u32, u32)>,
}

/// What the machine may look at, and what it may do to the board at once. Everything else it asks for by an
/// [`Effect`](super::Effect).
///
/// The order of the calls on the board matters. Children write to the board at the same time, and ring for what the machine has
/// not seen. So the bell is lowered before the board is read.
pub trait Outside {
    /// Lowers the bell. The next child with news rings again.
    fn answer_bell(&mut self);

    /// Returns what a child does: one load, which is never torn. This is what to count by.
    fn status(&self, key: Key) -> Option<Status>;

    /// Returns all that a child's slot says; `None` if its writer was stopped or killed half way.
    fn says(&self, key: Key) -> Option<Says>;

    /// Frees the slot of a child that has ended or never came to be, and returns its last words.
    fn reclaim(&mut self, key: Key) -> Says;

    /// Asks the system about a child, without waiting.
    fn process(&mut self, key: Key) -> Process;

    /// Reads the processor time of a child of this `age` that has been `doing` the same for `since`.
    fn meter(&mut self, key: Key, meter: Meter, doing: (u64, bool), age: Duration, since: Duration) -> Meter;

    /// Returns how many bytes of a child are resident; `None` if that can't be read.
    fn resident(&mut self, key: Key) -> Option<u64>;

    /// Finds out which process has killed a child. Each kill of the system explains one child.
    fn killer(&mut self) -> Killer;

    /// The babysitter begins a round: kills that have explained no child are another process's.
    fn forget_kills(&mut self);

    /// Reads the queues; `None` if this system does not tell how many clients wait.
    fn queues(&mut self) -> Option<Queues>;

    /// Tells whether a client waits.
    fn has_client(&mut self) -> bool;

    /// Tells whether a child was asked to let go of its client and has not noticed yet.
    fn is_asked_to_release(&self) -> bool;

    /// Returns what a child has answered since it was last asked whether it accepts.
    fn answer(&self, key: Key) -> Answer;
}

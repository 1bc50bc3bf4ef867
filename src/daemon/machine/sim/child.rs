//! A virtual child: what it is, and the ways in which it can go wrong.

use super::clients::Client;
use crate::daemon::machine::{Answer, Edition, End, Key};

/// One virtual process.
#[derive(Clone, Debug)]
pub struct Child {
    pub key: Key,
    /// Which settings it has.
    pub edition: Edition,
    /// It has no request, and ends when it is ready.
    pub is_probe: bool,
    /// When it was forked.
    pub born: u64,
    /// How it goes wrong.
    pub flaw: Flaw,
    /// How late, in milliseconds.
    pub delay: u32,
    /// How it has ended; `None` while it lives.
    pub end: Option<End>,
    /// Other code has waited for it.
    pub is_gone: bool,
    /// The parent was sent the news of its end.
    pub is_told_of: bool,
    pub is_stopped: bool,
    /// How often it was stopped.
    pub stops: u32,
    /// Since when it is stopped.
    pub stopped_at: u64,
    /// What it does next, and when. While it is stopped: after how long.
    pub next: Option<(u64, Stage)>,
    /// Tells its next stage from those that were called off.
    pub turn: u32,
    /// It was told of a client.
    pub is_woken: bool,
    /// It goes after the request in hand.
    pub is_retiring: bool,
    pub share: Option<u64>,
    pub client: Option<Client>,
    /// What it has answered since it was asked whether it accepts.
    pub answer: Answer,
    /// Signals that wait for it to be continued.
    pub pending: Vec<Sent>,
    /// Which log file it writes to.
    pub log: u32,
    /// It has reported that it waits, or has had a request.
    pub was_ready: bool,
    /// When it began what it does.
    pub since: u64,
    /// How long it has been stopped since then, and how often.
    pub stopped_since: u64,
    pub stops_since: u32,
    /// Processor time it has used by `cpu_at`, and whether it uses any now.
    pub cpu: u64,
    pub cpu_at: u64,
    pub is_hot: bool,
    /// What it had used when its request began.
    pub cpu_before: u64,
}

/// What a child does next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// Finds its slot.
    Claim,
    /// Has handled `daemon_child`.
    Setup,
    /// Reports `Wait` for the first time.
    Ready,
    /// Accepts a client, if one is there.
    Accept,
    /// Has finished the request in hand.
    Done,
    /// The client that it keeps has another request, or leaves.
    KeepOver,
    /// Lets the client go that it keeps.
    LetGo,
    /// Stops itself.
    Stop,
    /// Scribbles over its slot.
    Scribble,
    /// Ends.
    Die,
}

/// A signal, from whomever.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Sent {
    Hup,
    Int,
    Term,
    Quit,
    Cont,
    Kill,
    Stop,
    Segv,
}

macro_rules! flaws {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        /// How a child goes wrong. Its number is its place.
        #[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
        pub enum Flaw {
            #[default]
            None,
            $($(#[$doc])* $name,)*
        }

        impl Flaw {
            pub const ALL: &'static [Flaw] = &[Flaw::None, $(Flaw::$name),*];

            pub fn numbered(number: u32) -> Flaw {
                Flaw::ALL.get(number as usize).copied().unwrap_or_default()
            }
        }
    };
}

flaws! {
    DiesAtOnce;
    DiesInSetup;
    DiesBeforeReady;
    DiesWhenReady;
    DiesBusy;
    DiesOnRetire;
    /// As if the system were out of memory.
    DiesOfMemory;
    CrashesWhenReady;
    LeavesWhenReady;
    HangsInSetup;
    HangsBeforeReady;
    IgnoresEnd;
    IgnoresQuit;
    StartsSlowly;
    StopsInSetup;
    StopsIdle;
    StopsBusy;
    /// It stops while idle, and goes on after a while.
    Pauses;
    RingsLate;
    RingsNever;
    RingsTwice;
    Scribbles;
    /// It says that it waits, and never accepts.
    Wedged;
    /// Other code has waited for it before its parent did.
    Vanishes;
    VanishesBusy;
    Grows;
    Burns;
    ExitsSlowly;
    /// It does not let a client go that it keeps.
    Keeps;
    /// Half of what it writes can't be read.
    Torn;
    /// It says that it waits, and has paused its listener.
    Shut;
}

impl Child {
    pub fn is_alive(&self) -> bool {
        self.end.is_none()
    }

    pub fn was_stopped(&self) -> bool {
        self.stops > 0
    }

    pub fn runs(&self) -> bool {
        self.is_alive() && !self.is_stopped
    }

    /// Tells whether no client can count on it.
    pub fn is_hopeless(&self) -> bool {
        use Flaw::{HangsBeforeReady, HangsInSetup, Scribbles, Shut, Wedged};
        matches!(self.flaw, HangsInSetup | HangsBeforeReady | Wedged | Scribbles | Shut)
    }

    /// Returns how much processor time it has used by `now`.
    pub fn cpu(&self, now: u64) -> u64 {
        self.cpu + if self.is_hot && self.runs() { now - self.cpu_at } else { 0 }
    }

    /// Takes note that what it uses may change now.
    pub fn meter(&mut self, now: u64) {
        self.cpu = self.cpu(now);
        self.cpu_at = now;
    }
}

//! Editions of the settings, and what can become of one: the words that a reload is told in.

use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

use super::resize::Limits;
use super::{Cause, End, Key, UpgradeFault};
use crate::daemon::settings::{Given, Settings};

/// Which settings a child was forked with. The number of the reload that has brought them; 1 for those of the start.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Edition(pub u32);

impl fmt::Display for Edition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What of the settings a reload may change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tunable {
    pub(super) size: Limits,
    /// Which numbers of `size` were given.
    pub(super) given: Given,
    /// How many requests a child handles.
    pub(super) requests: Option<NonZeroU64>,
    pub(super) requests_jitter: u64,
}

impl Tunable {
    /// Takes it out of the settings.
    pub fn of(settings: &Settings) -> Tunable {
        let Settings { given, requests, requests_jitter, .. } = *settings;
        Tunable { size: Limits::of(settings), given, requests, requests_jitter }
    }

    /// Returns the numbers of children: `max_children`, `min_spare`, `max_spare`.
    #[cfg(test)]
    pub fn numbers(&self) -> [u32; 3] {
        let Limits { max_children, min_spare, max_spare } = self.size;
        [max_children, min_spare, max_spare]
    }
}

/// Why a configuration never came to be tried by a child, or a program by its predecessor.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rejection {
    /// The file could not be read.
    Unreadable,
    /// It could not be loaded: the parent knows what the program says about it.
    NotLoaded,
    /// The settings in it contradict each other, or those of the program.
    Settings,
    /// It changes settings that can't change while the Daemon runs, and all or nothing was asked for.
    NeedsRestart,
    /// The process that was to load it has ended.
    ScoutDied(End),
    /// It was not loaded within `load_timeout`.
    TimedOut,
    /// No process could be forked to load it.
    NoScout,
    /// It was loaded by the scout, and not by the parent.
    NotInParent,
    /// The parent can't listen on an address that the file adds.
    NotBound,
    /// The successor has failed before it had greeted.
    Successor(UpgradeFault),
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rejection::Unreadable => f.write_str("the file can't be read"),
            Rejection::NotLoaded => f.write_str("the file can't be loaded"),
            Rejection::Settings => f.write_str("the settings contradict each other"),
            Rejection::NeedsRestart => f.write_str("settings are changed that need a restart"),
            Rejection::ScoutDied(End::Exited(code)) => write!(f, "loading the file ended with exit code {code}"),
            Rejection::ScoutDied(End::Signaled { signal, .. }) => {
                write!(f, "loading the file ended by signal {signal}")
            }
            Rejection::ScoutDied(End::Vanished) => f.write_str("the process that was to load the file has vanished"),
            Rejection::TimedOut => f.write_str("the file was not loaded within load_timeout"),
            Rejection::NoScout => f.write_str("no process could be forked to load the file"),
            Rejection::NotInParent => {
                f.write_str("the file was loaded by a child and could not be loaded by the parent")
            }
            Rejection::NotBound => f.write_str("an address that the file adds can't be listened on"),
            Rejection::Successor(fault) => fault.fmt(f),
        }
    }
}

/// Why children were not given an edition of the settings, or clients to a new program, or not for long.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Setback {
    /// A new child has ended.
    Died(Key, Cause),
    /// A new child was not ready within `start_timeout`.
    Late(Key),
    /// There was no room for a new child within `start_timeout`.
    NoRoom,
    /// The successor has failed after it had greeted.
    Successor(UpgradeFault),
}

impl fmt::Display for Setback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Setback::Died(_, cause) => write!(f, "a new child ended: {cause}"),
            Setback::Late(_) => f.write_str("a new child was not ready within start_timeout"),
            Setback::NoRoom => f.write_str("there was no room for a new child within start_timeout"),
            Setback::Successor(fault) => fault.fmt(f),
        }
    }
}

/// What the log is told of a reload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ReloadNews {
    /// The file is about to be read.
    Begun,
    /// It was loaded. The first new child is forked as soon as the children of the edition before the current one are gone.
    Loaded,
    /// The first new child is ready, and old ones are asked to go.
    Rolling,
    /// All children that stay are new.
    Applied {
        /// How long that has taken.
        took: Duration,
    },
    /// It was loaded, and that was all.
    Checked {
        /// How long that has taken.
        took: Duration,
    },
    /// It was not loaded.
    Rejected {
        /// Why.
        why: Rejection,
        /// How long that has taken.
        took: Duration,
        /// All who asked only wanted it checked.
        is_check: bool,
    },
    /// The new children are asked to go.
    SetBack(Setback),
    /// They have been, and old ones are in their place.
    RolledBack {
        /// Why.
        why: Setback,
        /// How long that has taken.
        took: Duration,
    },
    /// Something ended the reload before its end.
    Superseded,
    /// During the probation children have died as soon as they were forked: the former edition goes on.
    TakenBack {
        /// The former edition.
        to: Edition,
    },
    /// The former edition is forgotten.
    ProbationOver,
}

/// How far a run has come, for those who look.
#[cfg(any(test, feature = "control"))]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ReloadStage {
    /// The file is being loaded.
    Scouting,
    /// Children of the edition before the current one have still work in hand.
    Waiting,
    /// The first new child is on its way.
    Canary,
    /// New children take the place of old ones.
    Rolling,
    /// Old ones take the place of new ones.
    RollingBack,
    /// All is done, and the former edition is kept for a while.
    Probation,
}

#[cfg(feature = "control")]
impl ReloadStage {
    /// Returns the word for it.
    pub fn word(self) -> &'static str {
        match self {
            ReloadStage::Scouting => "scouting",
            ReloadStage::Waiting => "waiting",
            ReloadStage::Canary => "canary",
            ReloadStage::Rolling => "rolling",
            ReloadStage::RollingBack => "rolling-back",
            ReloadStage::Probation => "probation",
        }
    }
}

/// The edition of the start.
pub(super) const FIRST: Edition = Edition(1);

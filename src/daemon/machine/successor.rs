//! Attempts to put a successor in this process's place, and what can become of one: the words that an upgrade is told in.

use std::fmt;
use std::time::Duration;

use super::End;

/// One attempt to upgrade: the successor that it has started. They are counted from 1.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Attempt(pub u32);

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a successor did not take this process's place, or not for long.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum UpgradeFault {
    /// It could not be forked, or the program could not be executed.
    NotStarted,
    /// It has not greeted in time.
    NotGreeted,
    /// What it has greeted with is another version's, or nothing that can be read.
    WrongGreeting,
    /// It has ended.
    Died(End),
    /// It was not ready within `upgrade_timeout`.
    Late,
    /// Its children die as soon as they are forked.
    CrashLoop,
    /// It was ready, and has not taken what it was given.
    NotTaken,
}

impl fmt::Display for UpgradeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UpgradeFault::NotStarted => f.write_str("the new program could not be started"),
            UpgradeFault::NotGreeted => {
                f.write_str("the new program has not greeted in time: it may not be one that can take over")
            }
            UpgradeFault::WrongGreeting => {
                f.write_str("the new program speaks another version of the hand-over protocol")
            }
            UpgradeFault::Died(End::Exited(code)) => write!(f, "the new program ended with exit code {code}"),
            UpgradeFault::Died(End::Signaled { signal, .. }) => write!(f, "the new program ended by signal {signal}"),
            UpgradeFault::Died(End::Vanished) => f.write_str("the new program has vanished"),
            UpgradeFault::Late => f.write_str("the new program was not ready within upgrade_timeout"),
            UpgradeFault::CrashLoop => f.write_str("the new program's children die as soon as they are forked"),
            UpgradeFault::NotTaken => f.write_str("the new program has not taken over the names"),
        }
    }
}

/// What the log is told of an upgrade.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum UpgradeNews {
    /// The successor is about to be started.
    Begun,
    /// It has greeted.
    Greeted,
    /// It is ready, and is given the names.
    Ready,
    /// It has the names. From now on this process accepts nothing.
    TookOver {
        /// How long that has taken.
        took: Duration,
    },
    /// It has them for good, and this process ends.
    Applied {
        /// How long that has taken.
        took: Duration,
    },
    /// It never greeted. Nothing has changed.
    Rejected {
        /// Why.
        why: UpgradeFault,
        /// How long that has taken.
        took: Duration,
    },
    /// It greeted, and has failed. This process serves as before.
    RolledBack {
        /// Why.
        why: UpgradeFault,
        /// How long that has taken.
        took: Duration,
    },
    /// This process, or the successor on probation, was told to end.
    Superseded,
}

/// How far an upgrade has come, for those who look.
#[cfg(any(test, feature = "control"))]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum UpgradeStage {
    /// The successor is started, and has not greeted.
    Spawned,
    /// It has greeted, and is not ready.
    Loading,
    /// It is ready, and the names change hands.
    Ready,
    /// It has the names, and this process can take them back.
    Probation,
    /// It has them for good, and this process ends.
    Draining,
}

#[cfg(feature = "control")]
impl UpgradeStage {
    /// Returns the word for it.
    pub fn word(self) -> &'static str {
        match self {
            UpgradeStage::Spawned => "spawned",
            UpgradeStage::Loading => "loading",
            UpgradeStage::Ready => "ready",
            UpgradeStage::Probation => "probation",
            UpgradeStage::Draining => "draining",
        }
    }
}

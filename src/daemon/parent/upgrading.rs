//! What the parent has of an upgrade: who takes over from it, whom it takes over from, and what has become of the last one.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
#[cfg(feature = "control")]
use std::time::{Duration, SystemTime};

#[cfg(feature = "control")]
use crate::daemon::control::StateFile;
#[cfg(feature = "control")]
use crate::daemon::machine::UpgradeNews;
use crate::daemon::notify::Manager;
use crate::daemon::parent::candidate::Told;
use crate::daemon::parent::channel::Channel;
use crate::daemon::parent::successor::Successor;
#[cfg(feature = "control")]
use crate::daemon::view::Carried;
use crate::kernel::Handle;

/// What the parent has of an upgrade.
#[derive(Default)]
pub(super) struct Upgrading {
    /// The program that was asked for, until the upgrade begins.
    pub(super) asked: Option<PathBuf>,
    /// The process that is to take over, or has.
    pub(super) successor: Option<Successor>,
    /// It has the names, though perhaps not for good.
    pub(super) is_handed_over: bool,
    /// What an operator is told besides the verdict.
    pub(super) told: Told,
    /// What is kept for the case that it has to be taken back.
    pub(super) kept: Kept,
    /// The process from which this one takes over, as long as it is there.
    pub(super) predecessor: Option<Predecessor>,
    /// What that has counted.
    #[cfg(feature = "control")]
    pub(super) carried: Option<Box<Carried>>,
    #[cfg(feature = "control")]
    pub(super) counts: Counts,
    /// The last upgrade that has ended.
    #[cfg(feature = "control")]
    pub(super) last: Option<Last>,
}

/// What a parent had before it handed over.
#[derive(Default)]
pub(super) struct Kept {
    /// Paths, each with the other name that leads to what this process has made.
    pub(super) paths: Vec<(PathBuf, PathBuf)>,
    #[cfg(feature = "control")]
    pub(super) state_file: Option<StateFile>,
}

/// The process from which this one takes over.
pub(super) struct Predecessor {
    pub(super) pid: u32,
    pub(super) channel: Channel,
    /// Where standard error goes from the moment on at which this process serves.
    pub(super) stderr: Option<OwnedFd>,
    /// Told nothing before that.
    pub(super) manager: Option<Box<Manager>>,
    /// The names are this process's.
    pub(super) has_handed_over: bool,
    /// It can't take them back any more.
    pub(super) is_draining: bool,
    /// It has asked this process to end.
    pub(super) is_withdrawn: bool,
    /// It knows that an operator ends this process.
    pub(super) knows_of_end: bool,
}

impl Predecessor {
    pub(super) fn new(pid: u32, channel: OwnedFd, stderr: Option<OwnedFd>, manager: Option<Box<Manager>>) -> Self {
        Predecessor {
            pid,
            channel: Channel::new(Handle::new(channel)),
            stderr,
            manager,
            has_handed_over: false,
            is_draining: false,
            is_withdrawn: false,
            knows_of_end: false,
        }
    }
}

impl Upgrading {
    /// Tells whether this process waits for the names.
    pub(super) fn waits(&self) -> bool {
        self.predecessor.as_ref().is_some_and(|predecessor| !predecessor.has_handed_over)
    }

    /// Returns the ends that a forked process must not have, and where its standard error is to go.
    pub(super) fn into_handles(self) -> (Vec<Handle>, Option<OwnedFd>) {
        let Upgrading { successor, predecessor, .. } = self;
        let mut handles = Vec::new();
        if let Some(Successor { channel, words, .. }) = successor {
            handles.extend([channel.handle, words.end]);
        }
        let mut stderr = None;
        if let Some(predecessor) = predecessor {
            handles.push(predecessor.channel.handle);
            stderr = predecessor.stderr;
        }
        (handles, stderr)
    }
}

/// How many upgrades have ended how.
#[cfg(feature = "control")]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    applied: u64,
    rejected: u64,
    rolled_back: u64,
    superseded: u64,
}

/// An upgrade that has ended.
#[cfg(feature = "control")]
#[derive(Clone, Debug)]
pub(super) struct Last {
    pub(super) verdict: &'static str,
    pub(super) cause: String,
    pub(super) took: Duration,
    pub(super) at: SystemTime,
}

#[cfg(feature = "control")]
impl Upgrading {
    pub(super) fn count(&mut self, news: &UpgradeNews, at: SystemTime) {
        let counts = &mut self.counts;
        let (count, verdict, took) = match *news {
            UpgradeNews::Applied { took } => (&mut counts.applied, "applied", took),
            UpgradeNews::Rejected { took, .. } => (&mut counts.rejected, "rejected", took),
            UpgradeNews::RolledBack { took, .. } => (&mut counts.rolled_back, "rolled_back", took),
            UpgradeNews::Superseded => (&mut counts.superseded, "superseded", Duration::ZERO),
            _ => return,
        };
        *count += 1;
        let cause = match *news {
            UpgradeNews::Rejected { why, .. } | UpgradeNews::RolledBack { why, .. } => self.told.upgrade_fault(why),
            _ => String::new(),
        };
        self.last = Some(Last { verdict, cause, took, at });
    }
}

#[cfg(feature = "control")]
impl Counts {
    /// Returns the word for each verdict, and how many there were.
    pub(super) fn by_name(&self) -> [(&'static str, u64); 4] {
        let Counts { applied, rejected, rolled_back, superseded } = *self;
        [("applied", applied), ("rejected", rejected), ("rolled_back", rolled_back), ("superseded", superseded)]
    }
}

//! `status` and `peek`: what a Daemon says about itself.

use std::fmt;

use crate::daemon::board::{PeerLabel, Status};
use crate::daemon::machine::{Backlog, Deaths};
use crate::daemon::settings::Forking;
use crate::kernel::Snapshot;

/// What a Daemon is doing. [`Daemon::status`](crate::Daemon::status) returns it.
///
/// `Display` writes it in the layout that tools for POE::Component::Daemon parse.
///
/// POE: the text that `Daemon->status` returns.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DaemonStatus {
    /// The alias of the Daemon session.
    pub alias: String,
    /// The pid of this process.
    pub pid: u32,
    /// Whether the server is pre-forking, post-forking or non-forking.
    pub forking: Forking,
    /// Whether this process is one of the children.
    pub is_child: bool,
    /// In the parent: the children, oldest first.
    pub children: Vec<ChildStatus>,
    /// In a child: the child's slot on the scoreboard. `None` in the parent.
    pub slot: Option<usize>,
    /// The scoreboard, with one letter for each slot. Empty for a server that does not fork.
    pub board: String,
    /// How many slots are empty.
    pub free: usize,
    /// In a post-forking parent: how many requests wait for a child.
    pub queued: usize,
    /// In the parent: how many children have ended, and why.
    pub deaths: Deaths,
    /// In the parent of a pre-forking server: what the parent last saw of the clients that wait to be accepted.
    pub backlog: Backlog,
}

/// One child, as its slot on the scoreboard shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChildStatus {
    /// The pid of the child.
    pub pid: i32,
    /// What the child is doing.
    pub status: Status,
    /// How many requests the child has begun.
    pub requests: u64,
    /// The client that the child serves or served last, if the application has named it. `Display` escapes control characters.
    pub peer: PeerLabel,
}

impl DaemonStatus {
    fn role(&self) -> &'static str {
        if self.is_child { "the child" } else { "the parent" }
    }

    fn write_board(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Scoreboard")?;
        writeln!(f, "    {} slots in the scoreboard", self.board.chars().count())?;
        writeln!(f, "    Slots [{}]", self.board)?;
        writeln!(f, "    {} slots free", self.free)?;
        if let Some(slot) = self.slot {
            writeln!(f, "    Our slot is {slot}")?;
        }
        Ok(())
    }
}

impl fmt::Display for DaemonStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, process {}", self.alias, self.pid)?;
        match self.forking {
            Forking::Pre if self.is_child => writeln!(f, "    Pre-forking server, we are a child")?,
            Forking::Post if self.is_child => writeln!(f, "    Forking server, we are a child")?,
            Forking::Pre => writeln!(f, "    Pre-forking server, we are {}", self.role())?,
            Forking::Post => writeln!(f, "    Forking server, we are {}", self.role())?,
            Forking::None => writeln!(f, "    Daemon server")?,
        }
        if self.forking == Forking::None {
            return Ok(());
        }
        if !self.is_child {
            writeln!(f, "    {} children", self.children.len())?;
            for child in &self.children {
                writeln!(f, "        {}: {}", child.pid, child.status.letter())?;
            }
        }
        self.write_board(f)?;
        if self.queued > 0 {
            writeln!(f, "    {} requests wait for a child", self.queued)?;
        }
        if self.deaths.total() > 0 {
            writeln!(f, "    {} children have ended: {}", self.deaths.total(), self.deaths)?;
        }
        match self.backlog {
            Backlog::Unseen => {}
            Backlog::Unreadable => writeln!(f, "    Waiting clients can't be counted")?,
            Backlog::Seen(reckoning) => writeln!(f, "    Last look at waiting clients: {reckoning}")?,
        }
        Ok(())
    }
}

/// A picture of the kernel and of the Daemon in it. [`Daemon::peek`](crate::Daemon::peek) returns it.
///
/// POE: the text that `Daemon->peek` returns.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Peek {
    /// The kernel.
    pub kernel: Snapshot,
    /// The Daemon.
    pub daemon: DaemonStatus,
    /// Whether `Display` writes everything: sessions, alarms, watchers and the Daemon. Otherwise it writes the event queue only.
    pub verbose: bool,
}

impl fmt::Display for Peek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.verbose { write!(f, "{:#}{}", self.kernel, self.daemon) } else { self.kernel.fmt(f) }
    }
}

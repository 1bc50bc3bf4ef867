//! What the machine can be asked for, and what becomes of it: every order ends in exactly one verdict.

use std::fmt;

use super::{Effect, Fault, Key, Machine, Message, Moment, Rejection, Setback, Signal, Told};
use crate::daemon::settings::MOST_SLOTS;

/// The number of an order. The code that passes the order on chooses it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct OrderId(pub u64);

/// What an operator or the application asks for.
#[cfg_attr(
    not(any(test, feature = "control")),
    expect(dead_code, reason = "no signal asks for a single child or a size")
)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Order {
    /// Shut down.
    Stop(Shutdown),
    /// Shut down as the setting `term` says; at once if the Daemon ends already.
    Terminate,
    /// Open the log file again.
    Reopen,
    /// Allow so many children more, or fewer.
    Resize(i32),
    /// Have this size: all of it, or nothing changes.
    SetSize(NewSize),
    /// Have the size of the settings.
    ResetSize,
    /// Have a child leave, after the request in hand.
    Retire(Key),
    /// Kill a child.
    Kill(Key),
    /// Read the configuration again, and replace the children by such that have it.
    Reload,
    /// Load the configuration as for a reload, and do no more.
    Check,
    /// Start the program anew, and have it take this process's place.
    Upgrade,
    /// Do not wait any longer for those that have been replaced.
    Finish,
}

/// A size that a Daemon is to have. What is `None` stays what it is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct NewSize {
    /// The most children.
    pub max_children: Option<u32>,
    /// The fewest spares. Pre-forking only, as the next.
    pub min_spare: Option<u32>,
    /// The most spares.
    pub max_spare: Option<u32>,
}

/// How a Daemon ends: ARG1 of `daemon_shutdown`.
///
/// A server without children needs this to know whether to finish its requests. A child always gets `Immediate`: a child that may
/// finish its requests gets the signal after it has finished them.
///
/// POE: nothing like it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[doc(alias = "Haste")]
pub enum Shutdown {
    /// The server ends without waiting for its requests. Cause: INT, [`Daemon::shutdown`](crate::Daemon::shutdown), or TERM unless
    /// [`DaemonBuilder::term`](crate::daemon::DaemonBuilder::term) is set to `Graceful`.
    Immediate,
    /// The server finishes the requests in hand, and then ends. Cause: QUIT, or TERM if
    /// [`DaemonBuilder::term`](crate::daemon::DaemonBuilder::term) is set to `Graceful`.
    Graceful,
}

/// What has become of an order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It was carried out.
    Applied,
    /// It was not, and nothing has changed.
    Refused(Why),
    /// The configuration could not be loaded, or the successor never greeted, and nothing has changed.
    Rejected(Rejection),
    /// It was loaded, and children with it did not start; or the successor has failed. All is as it was.
    RolledBack(Setback),
    /// A later order took its place.
    Superseded,
}

/// Why an order was refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Why {
    /// The Daemon is shutting down.
    ShuttingDown,
    /// The server does not fork.
    NoChildren,
    /// There is no such child, or it has ended.
    NoSuchChild,
    /// One child has to be left.
    Smallest,
    /// The board can't have more slots.
    Largest,
    /// `max_spare` would be less than `min_spare`.
    SpareLimits { max_spare: u32, min_spare: u32 },
    /// No spare would be kept.
    NoSpare,
    /// The server keeps no spares.
    NotAPool,
    /// The log file could not be opened.
    LogFile,
    /// The program has no configuration that could be loaded again.
    NoConfiguration,
    /// The first children are not there yet, or a launcher waits for them.
    StartingUp,
    /// A reload is under way.
    Reloading,
    /// An upgrade is under way.
    Upgrading,
    /// No children of a former program or configuration are left, and the Daemon does not end.
    NothingToFinish,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Why::SpareLimits { max_spare, min_spare } => {
                return write!(f, "max_spare ({max_spare}) would be less than min_spare ({min_spare})");
            }
            Why::Largest => return write!(f, "the scoreboard has {MOST_SLOTS} slots at most"),
            Why::ShuttingDown => "the Daemon is shutting down",
            Why::NoChildren => "the server does not fork",
            Why::NoSuchChild => "there is no such child",
            Why::Smallest => "one child has to be left",
            Why::NoSpare => "min_spare has to be at least 1",
            Why::NotAPool => "only a pre-forking server has min_spare and max_spare",
            Why::LogFile => "the log file could not be opened",
            Why::NoConfiguration => "the program has no configuration to reload",
            Why::StartingUp => "the Daemon is still starting up",
            Why::Reloading => "a reload is under way",
            Why::Upgrading => "an upgrade is under way",
            Why::NothingToFinish => "there is nothing to finish: no replaced child is left",
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Applied => f.write_str("applied"),
            Verdict::Refused(why) => write!(f, "refused: {why}"),
            Verdict::Rejected(why) => write!(f, "rejected: {why}"),
            Verdict::RolledBack(why) => write!(f, "rolled back: {why}"),
            Verdict::Superseded => f.write_str("superseded"),
        }
    }
}

/// The orders that have no verdict yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Pending {
    /// Shutdowns, with how they were asked for.
    stops: Vec<(OrderId, Shutdown)>,
    /// Waiting for the log file.
    reopens: Vec<OrderId>,
    /// Waiting for a child's death.
    deaths: Vec<(OrderId, Key)>,
}

impl Pending {
    pub(super) fn stop(&mut self, id: OrderId, how: Shutdown) {
        self.stops.push((id, how));
    }

    pub(super) fn reopen(&mut self, id: OrderId) {
        self.reopens.push(id);
    }

    pub(super) fn death(&mut self, id: OrderId, key: Key) {
        self.deaths.push((id, key));
    }

    /// Takes the shutdowns that a faster one replaces.
    pub(super) fn take_slower_stops(&mut self) -> Vec<OrderId> {
        take(&mut self.stops, |(_, how)| *how == Shutdown::Graceful)
    }

    pub(super) fn take_stops(&mut self) -> Vec<OrderId> {
        take(&mut self.stops, |_| true)
    }

    pub(super) fn take_reopens(&mut self) -> Vec<OrderId> {
        std::mem::take(&mut self.reopens)
    }

    /// Takes the orders that waited for the death of this child.
    pub(super) fn take_deaths(&mut self, of: Key) -> Vec<OrderId> {
        take(&mut self.deaths, |(_, key)| *key == of)
    }
}

fn take<T: Copy>(orders: &mut Vec<(OrderId, T)>, is_meant: impl Fn(&(OrderId, T)) -> bool) -> Vec<OrderId> {
    let (taken, left) = orders.iter().partition(|order| is_meant(order));
    let taken: Vec<(OrderId, T)> = taken;
    *orders = left;
    taken.into_iter().map(|(id, _)| id).collect()
}

impl Machine {
    /// Somebody asks for something.
    pub(super) fn take_order(&mut self, at: &mut Moment<'_>, id: OrderId, order: Order) {
        if self.has(Fault::OrderLostAtReopen) && !self.pending.reopens.is_empty() {
            return;
        }
        match order {
            Order::Stop(how) => self.stop(at, id, how),
            Order::Terminate => self.stop(at, id, self.shutdown_on_term()),
            Order::Finish => self.finish_by_order(at, id),
            _ if self.is_shutting_down() && order != Order::Reopen => {
                self.answer(id, Verdict::Refused(Why::ShuttingDown));
            }
            Order::Reopen => {
                self.pending.reopen(id);
                self.effects.push(Effect::Reopen);
            }
            Order::Upgrade => self.ask_for_upgrade(at, id),
            Order::Resize(_) | Order::SetSize(_) | Order::ResetSize if self.is_resting() => {
                self.resized(id, Err(Why::Upgrading));
            }
            Order::Resize(by) => self.resize(id, by),
            Order::SetSize(size) => self.set_size(id, size),
            Order::ResetSize => self.reset_size(id),
            Order::Retire(key) => self.retire_by_order(id, key),
            Order::Kill(key) => self.kill_by_order(id, key),
            Order::Reload => self.ask_for_reload(at, id, false),
            Order::Check => self.ask_for_reload(at, id, true),
        }
    }

    /// The log file was opened again. Only now are the children told: the file is there when they look for it.
    ///
    /// A child that was forked before this is on the table by now. One that is forked later has the new file.
    pub(super) fn reopened(&mut self, has_failed: bool) {
        self.signal_children(Signal::Hup);
        let verdict = if has_failed { Verdict::Refused(Why::LogFile) } else { Verdict::Applied };
        self.answer_all(Pending::take_reopens, verdict);
    }

    fn retire_by_order(&mut self, id: OrderId, key: Key) {
        let Some(child) = self.table.child_mut(key) else {
            return self.answer(id, Verdict::Refused(Why::NoSuchChild));
        };
        if !child.is_retiring() {
            child.told = Told::Go;
            self.effects.extend([Effect::Say(Message::Retired(key)), Effect::Signal(key, Signal::Quit)]);
        }
        self.pending.death(id, key);
    }

    fn kill_by_order(&mut self, id: OrderId, key: Key) {
        let Some(child) = self.table.child_mut(key) else {
            return self.answer(id, Verdict::Refused(Why::NoSuchChild));
        };
        child.told = Told::Die;
        self.effects.push(Effect::Signal(key, Signal::Kill));
        self.pending.death(id, key);
    }

    pub(super) fn answer(&mut self, id: OrderId, verdict: Verdict) {
        self.effects.push(Effect::Answer(id, verdict));
    }

    pub(super) fn answer_all(&mut self, take: impl FnOnce(&mut Pending) -> Vec<OrderId>, verdict: Verdict) {
        let ids = take(&mut self.pending);
        self.effects.extend(ids.into_iter().map(|id| Effect::Answer(id, verdict)));
    }
}

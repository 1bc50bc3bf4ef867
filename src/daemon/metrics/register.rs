//! The metrics of one Daemon: their names, and where in the blocks their numbers are.

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::error::MetricError;
use super::handles::{Counter, Gauge, Histogram, Place};
use super::memory::{BLOCK, Memory};
use super::names;
use crate::daemon::view::{self, Family, Sample};
use crate::kernel::SessionId;

/// The metrics of a Daemon. [`Daemon::metrics`](crate::Daemon::metrics) returns it.
///
/// The page of the [module](crate::daemon::metrics#how-to-use-them) has an example.
#[derive(Clone)]
pub struct Metrics(pub(in crate::daemon) Option<Rc<Register>>);

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// How the values of a gauge, one from each process, become one value.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Combine {
    /// The values are added up. Use it for the connections that each process has open, for example.
    Sum,
    /// The largest value counts. Use it for the depth of the longest queue, for example. A process that has not set a value does not
    /// count. The gauge is 0 if no process has set a value.
    Max,
}

impl Combine {
    /// Returns the bits in which a kept value differs from the value. Of `Max`, 0 is kept for the least value there is.
    pub(super) fn bias(self) -> u64 {
        match self {
            Combine::Sum => 0,
            Combine::Max => 1 << 63,
        }
    }
}

impl Metrics {
    /// Declares a counter. If the same counter is already declared, this returns a handle to it.
    ///
    /// `name` must end in `_total`. `help` says in a sentence what is counted.
    ///
    /// # Errors
    ///
    /// [`MetricError::Invalid`] if Prometheus does not accept the name, if the name begins with `lenore_` or `process_`, or if `help` is
    /// empty. [`MetricError::Redeclared`] and [`MetricError::Clash`] if another metric already has such a name.
    /// [`MetricError::ChildrenForked`], [`MetricError::NotTheParent`] and [`MetricError::Ended`] if the declaration comes too late, or
    /// in another process. [`MetricError::TooMany`] and [`MetricError::Memory`] if there is no room.
    pub fn counter(&self, name: &str, help: &str) -> Result<Counter, MetricError> {
        Ok(Counter(self.place(name, help, Shape::Counter)?))
    }

    /// Declares a gauge. If the same gauge is already declared, this returns a handle to it.
    ///
    /// `combine` says how the values of all processes become one.
    ///
    /// # Errors
    ///
    /// As [`counter`](Metrics::counter).
    pub fn gauge(&self, name: &str, help: &str, combine: Combine) -> Result<Gauge, MetricError> {
        Ok(Gauge::new(self.place(name, help, Shape::Gauge(combine))?, combine))
    }

    /// Declares a histogram of durations. If the same histogram is already declared, this returns a handle to it.
    ///
    /// `name` should end in `_seconds`.
    ///
    /// # Errors
    ///
    /// As [`counter`](Metrics::counter).
    pub fn histogram(&self, name: &str, help: &str) -> Result<Histogram, MetricError> {
        Ok(Histogram(self.place(name, help, Shape::Histogram)?))
    }

    fn place(&self, name: &str, help: &str, shape: Shape) -> Result<Place, MetricError> {
        match &self.0 {
            Some(register) => register.declare(name, help, shape),
            None => Err(MetricError::Ended { name: name.to_owned() }),
        }
    }
}

/// The kind of a metric.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Shape {
    Counter,
    Gauge(Combine),
    /// The buckets, and then the sum in nanoseconds.
    Histogram,
}

impl Shape {
    /// Returns how many numbers it takes.
    fn words(self) -> usize {
        match self {
            Shape::Counter | Shape::Gauge(_) => 1,
            Shape::Histogram => view::Histogram::BUCKETS + 1,
        }
    }
}

/// A metric that was declared.
struct Declared {
    name: String,
    help: String,
    shape: Shape,
    /// The first of its numbers in each block.
    word: usize,
}

/// The metrics of a Daemon, as its parent knows them. A child has a copy.
pub(in crate::daemon) struct Register {
    /// The parent.
    pid: u32,
    declared: RefCell<Vec<Declared>>,
    /// What the names of the Daemon's own metrics begin with, if that was set.
    prefix: OnceCell<String>,
    /// Made for the first metric: a Daemon without any has no mapping, and its children do nothing about it.
    memory: OnceCell<Arc<Memory>>,
    /// How many slots have had a child, counted up to the highest.
    slots: Cell<usize>,
}

impl Register {
    /// Makes the register of a Daemon whose parent is this process.
    pub(in crate::daemon) fn new() -> Rc<Register> {
        Rc::new(Register {
            pid: std::process::id(),
            declared: RefCell::default(),
            prefix: OnceCell::new(),
            memory: OnceCell::new(),
            slots: Cell::new(0),
        })
    }

    /// Sets what the names of the Daemon's own metrics begin with, before any other is declared.
    pub(in crate::daemon) fn set_prefix(&self, prefix: String) {
        let _ = self.prefix.set(prefix);
    }

    /// Returns what the names of the Daemon's own metrics begin with.
    pub(in crate::daemon) fn prefix(&self) -> &str {
        self.prefix.get().map_or(view::metrics::PREFIX, String::as_str)
    }

    pub(super) fn declare(&self, name: &str, help: &str, shape: Shape) -> Result<Place, MetricError> {
        let own = || name.to_owned();
        let mut all = self.declared.borrow_mut();
        if let Some(present) = all.iter().find(|present| present.name == name) {
            if present.shape != shape || present.help != help {
                return Err(MetricError::Redeclared { name: own() });
            }
            return Ok(Place { memory: self.memory()?, word: present.word });
        }
        names::check(name, shape).map_err(|reason| MetricError::Invalid { name: own(), reason })?;
        if help.trim().is_empty() {
            return Err(MetricError::Invalid { name: own(), reason: "the help text is empty" });
        }
        let shown = names::shown(name, shape);
        let clashes =
            |present: &&Declared| names::shown(&present.name, present.shape).iter().any(|n| shown.contains(n));
        if let Some(present) = all.iter().find(clashes) {
            return Err(MetricError::Clash { name: own(), present: present.name.clone() });
        }
        if let Some(present) = view::metrics::find_own(self.prefix(), &shown) {
            return Err(MetricError::Clash { name: own(), present });
        }
        if std::process::id() != self.pid {
            return Err(MetricError::NotTheParent { name: own() });
        }
        if self.slots.get() > 0 {
            return Err(MetricError::ChildrenForked { name: own() });
        }
        let word = all.last().map_or(0, |last| last.word + last.shape.words());
        if word + shape.words() > BLOCK {
            return Err(MetricError::TooMany { name: own(), limit: BLOCK });
        }
        let memory = self.memory()?;
        all.push(Declared { name: own(), help: help.to_owned(), shape, word });
        Ok(Place { memory, word })
    }

    fn memory(&self) -> Result<Arc<Memory>, MetricError> {
        if let Some(memory) = self.memory.get() {
            return Ok(Arc::clone(memory));
        }
        let memory = Memory::new().map(Arc::new).map_err(MetricError::Memory)?;
        Ok(Arc::clone(self.memory.get_or_init(|| memory)))
    }

    /// A child is about to be forked for `slot`. Parent only.
    pub(in crate::daemon) fn open(&self, slot: usize) {
        self.slots.set(self.slots.get().max(slot + 1));
    }

    /// Takes over what the dead child in `slot` has counted, and forgets its gauges. Parent only, before the slot is used again.
    pub(in crate::daemon) fn reclaim(&self, slot: usize) {
        let Some(memory) = self.memory.get() else { return };
        for metric in self.declared.borrow().iter() {
            for word in metric.word..metric.word + metric.shape.words() {
                let counted = memory.of_child(slot, word);
                // Most are zero, and a load costs less than a swap. A process that other code has forked may still count here.
                // Nothing that it adds between the two is lost.
                if counted.load(Relaxed) == 0 {
                    continue;
                }
                let counted = counted.swap(0, Relaxed);
                if !matches!(metric.shape, Shape::Gauge(_)) {
                    memory.of_parent(word).fetch_add(counted, Relaxed);
                }
            }
        }
    }

    /// This process is the child in `slot`.
    pub(in crate::daemon) fn become_child(&self, slot: usize) {
        if let Some(memory) = self.memory.get() {
            memory.become_child(slot);
        }
    }

    #[cfg(test)]
    pub(super) fn become_parent(&self) {
        self.memory.get().expect("something was declared").become_parent();
    }

    /// This process was just forked, and may not be a child of the Daemon.
    pub(in crate::daemon) fn become_other(&self) {
        if let Some(memory) = self.memory.get() {
            memory.become_other();
        }
    }

    /// Leaves the memory mapped until this process ends. The system unmaps it then, and the call alone takes as long as a dozen others.
    pub(in crate::daemon) fn keep_mapped(&self) {
        if let Some(memory) = self.memory.get() {
            std::mem::forget(Arc::clone(memory));
        }
    }

    /// Returns all metrics, with what all processes have counted, in the order in which they were declared. Parent only.
    pub(in crate::daemon) fn families(&self) -> Vec<Family> {
        let Some(memory) = self.memory.get() else { return Vec::new() };
        let family = |metric: &Declared| {
            Family::new(metric.name.clone(), metric.help.clone(), self.sample(memory, metric.shape, metric.word))
        };
        self.declared.borrow().iter().map(family).collect()
    }

    fn sample(&self, memory: &Memory, shape: Shape, word: usize) -> Sample {
        match shape {
            Shape::Counter => Sample::Counter(self.counted(memory, word)),
            Shape::Gauge(combine) => Sample::Gauge(self.combined(memory, combine, word)),
            Shape::Histogram => {
                let buckets = (word..word + view::Histogram::BUCKETS).map(|word| self.counted(memory, word)).collect();
                let sum = Duration::from_nanos(self.counted(memory, word + view::Histogram::BUCKETS));
                Sample::Histogram(view::Histogram::new(buckets, sum))
            }
        }
    }

    /// Adds up what all processes have counted, living and dead. It reads all slots that ever had a child. A process that other code
    /// has forked may still count in the slot of a dead child.
    fn counted(&self, memory: &Memory, word: usize) -> u64 {
        let by_children = (0..self.slots.get()).map(|slot| memory.of_child(slot, word).load(Relaxed));
        let by_others = [memory.of_parent(word).load(Relaxed), memory.of_others(word).load(Relaxed)];
        by_children.chain(by_others).fold(0, u64::wrapping_add)
    }

    fn combined(&self, memory: &Memory, combine: Combine, word: usize) -> i64 {
        let by_children = (0..self.slots.get()).map(|slot| memory.of_child(slot, word).load(Relaxed));
        let kept = by_children.chain([memory.of_parent(word).load(Relaxed)]);
        let value = |kept: u64| (kept ^ combine.bias()).cast_signed();
        match combine {
            Combine::Sum => kept.map(value).fold(0, i64::saturating_add),
            Combine::Max => kept.filter(|kept| *kept != 0).map(value).max().unwrap_or(0),
        }
    }
}

thread_local! {
    /// The registers of this thread's Daemons. A [`Daemon`](crate::Daemon) is only a number, and finds its metrics here. The list does
    /// not keep a register alive.
    static REGISTERS: RefCell<Vec<(SessionId, Weak<Register>)>> = const { RefCell::new(Vec::new()) };
}

/// Notes the register of a Daemon by its session.
pub(in crate::daemon) fn enter(session: SessionId, register: &Rc<Register>) {
    // A kernel that is dropped ends its sessions without a word.
    let is_kept = |(_, register): &(SessionId, Weak<Register>)| register.strong_count() > 0;
    REGISTERS.with_borrow_mut(|all| {
        all.retain(is_kept);
        all.push((session, Rc::downgrade(register)));
    });
}

/// Forgets the register of a Daemon that has ended.
pub(in crate::daemon) fn leave(session: SessionId) {
    REGISTERS.with_borrow_mut(|all| all.retain(|(own, _)| *own != session));
}

/// Finds the register of a Daemon; `None` if the Daemon has ended.
pub(in crate::daemon) fn find(session: SessionId) -> Option<Rc<Register>> {
    // A destructor of the thread may ask, when this is gone.
    let found = REGISTERS.try_with(|all| all.borrow().iter().find(|(own, _)| *own == session)?.1.upgrade());
    found.ok().flatten()
}

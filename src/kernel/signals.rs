//! Signals: who watches which, sending them, and visiting the sessions one by one.

use std::panic::Location;

use rustc_hash::FxHashMap;

use super::Kernel;
use super::background::Place;
use super::core::{Core, Dest};
use super::os_signals::{Delivery, catchable};
use super::queue::{Event, Kind};
use super::sessions::{Interest, Record, SessionId};
use crate::args::{Args, IntoArgs, Template};
use crate::calls::calls;
use crate::destroy::destroy;
use crate::error::{Died, Error};
use crate::name::Name;

/// One session's interest in one signal.
#[derive(Clone)]
pub(crate) struct SignalWatch {
    pub(crate) event: Name,
    extra: Template,
}

/// A signal on its way.
pub(crate) struct Signal {
    args: Template,
    /// For `DIE`: what `run` returns if no session handles it.
    died: Option<Died>,
    /// The kernel's own `IDLE`, which says that the program can't go on by itself.
    says_idle: bool,
}

impl Signal {
    fn new(args: Template) -> Signal {
        Signal { args, died: None, says_idle: false }
    }
}

/// What the kernel knows about signals.
pub(crate) struct Signals {
    pub(crate) delivery: Delivery,
    /// How many sessions (and, for `CHLD`, `sig_child` registrations) want each signal.
    watchers: FxHashMap<Name, u32>,
    /// The process is about to exit: signals that sessions stop watching are neither counted down nor given back to the
    /// system.
    is_leaving: bool,
    /// Those signals.
    left: Vec<Name>,
    /// Whether some state called `sig_handled` for the signal being dispatched.
    handled: bool,
}

impl Signal {
    /// Logs what is lost if this signal is never dispatched.
    pub(crate) fn log_if_lost(&self) {
        if let Some(died) = &self.died {
            log::error!(target: "lenore::exceptions", "{died} (its session was stopped before it could be told)");
        }
    }
}

impl Signals {
    pub(crate) fn new() -> Result<Signals, Error> {
        let (delivery, watchers) = (Delivery::new()?, FxHashMap::default());
        Ok(Signals { delivery, watchers, is_leaving: false, left: Vec::new(), handled: false })
    }

    pub(crate) fn is_watched(&self, signal: Name) -> bool {
        self.watchers.contains_key(&signal)
    }

    /// Returns how many watchers a signal has.
    pub(crate) fn watchers(&self, signal: Name) -> usize {
        self.watchers.get(&signal).map_or(0, |count| *count as usize)
    }

    /// Counts one more watcher; the first makes the kernel take the signal over from the system.
    pub(crate) fn watch(&mut self, signal: Name) {
        let count = self.watchers.entry(signal).or_default();
        *count += 1;
        if *count == 1 {
            self.delivery.watch(signal);
        }
    }

    /// Counts one watcher less. With the last watcher the signal gets back the disposition that it had before the
    /// first.
    pub(crate) fn unwatch(&mut self, signal: Name) {
        // The count of CHLD decides which children are reaped.
        if self.is_leaving && signal != "CHLD" {
            return self.left.push(signal);
        }
        let Some(count) = self.watchers.get_mut(&signal) else { return };
        *count -= 1;
        if *count == 0 {
            self.watchers.remove(&signal);
            self.delivery.unwatch(signal);
        }
    }

    /// Notes that the process is about to exit: the system forgets its handlers, and a signal that comes on the way out does
    /// no harm.
    pub(super) fn leave(&mut self) {
        self.is_leaving = true;
        self.left.reserve(SIGNALS_LEFT);
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.is_leaving
    }

    /// Notes that the process goes on.
    #[inline]
    pub(super) fn stay(&mut self) {
        if self.is_leaving {
            self.is_leaving = false;
            std::mem::take(&mut self.left).into_iter().for_each(|signal| self.unwatch(signal));
        }
    }
}

/// How many signals the sessions of a process watch as a rule.
const SIGNALS_LEFT: usize = 16;

calls! {
    /// Watching signals.
    for a running session, with self:

    /// Makes the running session get `event` whenever `signal` reaches it.
    ///
    /// The state gets ARG0 = the signal's name, then the signal's own arguments. The name has no `SIG` prefix. It need
    /// not be the name of a system's signal. If it is, the kernel catches that signal as long as any session watches
    /// it. A later call for the same signal replaces the event. Watching does not keep the session alive.
    ///
    /// `HUP`, `INT`, `KILL`, `QUIT`, `TERM`, `DIE` and `IDLE` are terminal. After all sessions that watch such a signal
    /// have got it, the kernel stops every session that the signal was sent to, unless a state has called
    /// [`sig_handled`](crate::Context::sig_handled). The system's signals are sent to all sessions. `ZOMBIE` and
    /// `UIDESTROY` stop the sessions in any case.
    ///
    /// In a process with a controlling terminal, the system's `TTIN` and `TTOU` keep their default action. The terminal
    /// sends them to a background job that reads from it or, after `stty tostop`, writes to it. They stop the job
    /// until it is continued. In a process without a controlling terminal the kernel catches them like other signals.
    ///
    /// While any session watches `CHLD`, the kernel reaps *every* child process, including those that other code
    /// started. [`sig_child`](crate::Context::sig_child) has only the registered pids reaped.
    ///
    /// POE: `sig`.
    pub fn sig(&mut self, signal: impl Into<Name>, event: impl Into<Name>) {
        self.sig_with(signal, event, ());
    }

    /// Does what [`sig`](crate::Context::sig) does; `extra` follows the signal's own arguments, a copy for each delivery.
    ///
    /// POE: `sig` with arguments.
    pub fn sig_with(&mut self, signal: impl Into<Name>, event: impl Into<Name>, extra: impl IntoArgs + Clone + 'static) {
        let (signal, event, extra) = (signal.into(), event.into(), Template::new(extra));
        let interest = Interest { watch: SignalWatch { event, extra }, hold: None };
        let Some(record) = self.sessions.get_mut(self.active.session) else { return };
        if record.id == SessionId::KERNEL {
            return;
        }
        match record.signals.insert(signal, interest) {
            Some(former) => drop(former),
            None => {
                self.signals.watch(signal);
                if let Some(bare) = without_prefix(signal) {
                    let session = self.describe_session(self.active.session);
                    log::warn!(target: "lenore::signals", "{session} watches {signal}, the system's signal is called {bare} here");
                }
                // For a child that has exited already there will be no SIGCHLD.
                self.children.look |= signal == "CHLD";
            }
        }
    }

    /// Ends the running session's watching of `signal`, if it watches it.
    ///
    /// POE: `sig` without an event.
    pub fn sig_clear(&mut self, signal: impl Into<Name>) {
        let signal = signal.into();
        let Some(record) = self.sessions.get_mut(self.active.session) else { return };
        if let Some(former) = record.signals.remove(signal) {
            self.signals.unwatch(signal);
            drop(former);
        }
    }

    /// Does what [`sig`](crate::Context::sig) does, and keeps the running session alive while it watches the signal.
    ///
    /// The session, and the program with it, goes on until [`sig_clear`](crate::Context::sig_clear). Use it for a
    /// session that only waits for a signal.
    ///
    /// POE: nothing like it; such sessions vanish at once there.
    pub fn sig_keep_alive(&mut self, signal: impl Into<Name>, event: impl Into<Name>) {
        let signal = signal.into();
        self.sig(signal, event);
        let Some(record) = self.sessions.get_mut(self.active.session) else { return };
        if let Some(interest) = record.signals.get_mut(signal) {
            interest.hold = Some(record.life.hold());
        }
    }
}

calls! {
    /// The signal that is being dispatched.
    for a state, with self:

    /// Says that the signal being dispatched was handled: a terminal signal then stops no session.
    ///
    /// Outside of a signal it has no effect.
    ///
    /// POE: `sig_handled`.
    pub fn sig_handled(&mut self) {
        self.signals.handled = true;
    }
}

calls! {
    /// Sending signals.
    for a kernel, with self:

    /// Posts `signal` to a session and all its descendants, or to all sessions if `dest` is [`SessionId::KERNEL`].
    ///
    /// The signal waits in the queue like a posted event. Every state that gets it gets ARG0 = the signal's name, then
    /// its own copy of `args`.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchSession`] when `dest` is not the id or an alias of a living session.
    ///
    /// POE: `signal`.
    #[track_caller]
    pub fn signal<'a>(
        &mut self,
        dest: impl Into<Dest<'a>>,
        signal: impl Into<Name>,
        args: impl IntoArgs + Clone + 'static,
    ) -> Result<(), Error> {
        let dest = self.resolve(dest)?;
        let kind = Kind::Signal(Box::new(Signal::new(Template::new(args))));
        self.enqueue(dest, signal.into(), Args::new(), kind, Location::caller());
        Ok(())
    }
}

impl Core {
    /// Tells whether the process had a controlling terminal when it was started, forked or detached.
    pub(crate) fn has_terminal(&self) -> bool {
        self.signals.delivery.has_terminal()
    }

    /// Queues a signal that the kernel itself sends.
    pub(crate) fn signal_from_kernel<A: IntoArgs + Clone + 'static>(&mut self, signal: Name, args: A) {
        let kind = Kind::Signal(Box::new(Signal::new(Template::new(args))));
        self.enqueue_from_kernel(SessionId::KERNEL, signal, Args::new(), kind);
    }

    /// Queues the `IDLE` that tells all sessions that nothing can happen any more.
    pub(super) fn signal_idle(&mut self) {
        let kind = Kind::Signal(Box::new(Signal { says_idle: true, ..Signal::new(Template::new(())) }));
        self.enqueue_from_kernel(SessionId::KERNEL, Name::new("IDLE"), Args::new(), kind);
    }

    /// Queues the `DIE` of a session whose state failed.
    pub(crate) fn signal_die(&mut self, died: Died) {
        // No louder: a session that handles the signal has the record, and if none does, `end_the_run` logs an error.
        log::debug!(target: "lenore::exceptions", "{died} (sent at {})", died.location);
        let args = Template::new((died.clone(),));
        let dest = died.dest_session;
        let kind = Kind::Signal(Box::new(Signal { died: Some(died), ..Signal::new(args) }));
        self.enqueue_from_kernel(dest, Name::new("DIE"), Args::new(), kind);
    }

    /// Makes `run` return a failure that no session has handled, and logs it: in a forked child the program may ignore
    /// what `run` returns, and exit.
    pub(crate) fn end_the_run(&mut self, died: Died) {
        if !died.exception.is_logged() {
            let (text, id) = (died.to_string(), died.dest_session);
            // The text has only the session's id: add its aliases.
            let told = match text.strip_prefix(&id.to_string()) {
                Some(rest) => self.describe_session(id) + rest,
                None => text,
            };
            log::error!(target: "lenore::exceptions", "{told}: unhandled failure, the run ends: pid={}", self.pid);
        }
        match self.pending_exception {
            None => self.pending_exception = Some(died),
            Some(_) => destroy(died),
        }
    }
}

impl Kernel {
    /// Dispatches `signal` at once, before it returns, to a session and all its descendants.
    ///
    /// The states get ARG0 = the signal's name, then `args`. The arguments are not copied: the first state that takes
    /// one has it. Otherwise the signal has the same effects as a posted one; see [`signal`](Kernel::signal).
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchSession`] when `dest` is not the id or an alias of a living session.
    ///
    /// POE: `call`ing what `signal` would post; POE::Component::Daemon does so for `daemon_shutdown`.
    pub fn signal_now<'a>(
        &mut self,
        dest: impl Into<Dest<'a>>,
        signal: impl Into<Name>,
        args: impl IntoArgs,
    ) -> Result<(), Error> {
        let dest = self.core.resolve(dest)?;
        let name = signal.into();
        self.visit(dest, name, None, Args::chain((name.as_str(),).into_args(), args.into_args()));
        Ok(())
    }

    /// Dispatches a queued signal.
    pub(crate) fn dispatch_signal(&mut self, dest: SessionId, name: Name, signal: &Signal) {
        log::trace!(target: "lenore::signals", "{name} to {dest}");
        // Since it was queued, a background session may have answered another one, and that answer must arrive.
        if signal.says_idle && !self.core.is_idle() {
            return;
        }
        self.visit(dest, name, Some(signal), Args::new());
    }

    /// Visits the destination and its descendants, deepest first, then stops them if the signal calls for it.
    pub(crate) fn visit(&mut self, dest: SessionId, name: Name, queued: Option<&Signal>, mut moved: Args) {
        if class(name) == Class::Benign && !self.core.is_watched_by_session(name) {
            return destroy(moved);
        }
        let died = queued.and_then(|signal| signal.died.as_ref());
        let mut visited = self.core.sessions.visiting_order(dest);
        if name == "DIE" {
            self.add_ancestors(dest, &mut visited);
        }
        // Fixed before the first of them runs (K-SG-23).
        let watches: Vec<(SessionId, SignalWatch)> =
            visited.iter().filter_map(|id| Some((*id, self.core.watch_of(*id, name)?))).collect();
        let outer = std::mem::replace(&mut self.core.signals.handled, false);
        let mut second = None;
        for (id, watch) in watches {
            let mut event = Event::from_kernel(id, watch.event, Args::new());
            let copies = queued.map_or(Ok(Args::new()), |signal| signal.args.copy());
            let failed = match copies.and_then(|copy| Ok((copy, watch.extra.copy()?))) {
                Ok((copy, extra)) => {
                    let args = match queued {
                        Some(_) => Args::chain((name.as_str(),).into_args(), copy),
                        // No arguments are left, but each state gets the name.
                        None if moved.is_empty() => (name.as_str(),).into_args(),
                        None => std::mem::take(&mut moved),
                    };
                    let has_extra = !extra.is_empty();
                    event.args = args.chain(extra);
                    let failed = self.dispatch_keeping_args(&mut event);
                    if queued.is_none() {
                        let args = std::mem::take(&mut event.args);
                        moved = if has_extra { args.unchain() } else { args };
                    }
                    failed
                }
                Err(exception) => Some(self.die(&event, exception)),
            };
            destroy(event);
            destroy(watch);
            match failed {
                Some(failed) if died.is_some() && second.is_none() => second = Some(failed),
                failed => destroy(failed),
            }
        }
        destroy(moved);
        let handled = std::mem::replace(&mut self.core.signals.handled, outer);
        // An exception inside a DIE handler is always fatal (K-EX-09).
        let fatal = match died {
            Some(died) if !handled => Some(Died { also: second.map(Box::new), ..died.clone() }),
            _ => second,
        };
        if let Some(fatal) = fatal {
            self.core.end_the_run(fatal);
        }
        self.conclude(dest, name, &visited, handled);
    }

    /// What becomes of the visited sessions, and of the kernel, once all watchers have been called.
    fn conclude(&mut self, dest: SessionId, name: Name, visited: &[SessionId], handled: bool) {
        let stops = match class(name) {
            Class::Benign => false,
            Class::Terminal => !handled,
            Class::Nonmaskable => true,
        };
        if stops {
            self.stop_sessions(visited);
            if dest == SessionId::KERNEL {
                log::debug!(target: "lenore::signals", "{name} ends the kernel");
                self.core.is_alive = false;
            }
        } else if name == "IDLE" && dest == SessionId::KERNEL && self.core.is_idle() {
            // The kernel decides after all sessions: IDLE was handled, and still there is nothing to do.
            self.core.signal_from_kernel(Name::new("ZOMBIE"), ());
        }
        if self.core.pending_exception.is_some() {
            self.stop();
        }
    }

    /// Appends the ancestors of `id`, up to the topmost below the kernel.
    fn add_ancestors(&self, id: SessionId, visited: &mut Vec<SessionId>) {
        let parent = |id| self.core.sessions.get(id).map(Record::parent);
        let mut above = parent(id);
        while let Some(id) = above.filter(|id| *id != SessionId::KERNEL) {
            visited.push(id);
            above = parent(id);
        }
    }
}

impl Core {
    /// Tells whether a session watches a signal. Waiting for a child process counts as a watcher of `CHLD`, but not
    /// here.
    fn is_watched_by_session(&self, signal: Name) -> bool {
        if signal == "CHLD" { self.reaps_everybody() } else { self.signals.is_watched(signal) }
    }

    /// Tells whether a session that is not in the background watches a signal.
    pub(super) fn is_watched_in_foreground(&self, signal: Name) -> bool {
        !self.sessions.has_background()
            || self
                .sessions
                .records()
                .iter()
                .any(|record| record.place == Place::Foreground && record.signals.has(signal))
    }

    fn watch_of(&self, id: SessionId, signal: Name) -> Option<SignalWatch> {
        self.sessions.get(id)?.signals.get(signal).map(|interest| interest.watch.clone())
    }
}

/// Returns the name to watch a system's signal by, if `signal` is its C name, such as `SIGTERM`.
fn without_prefix(signal: Name) -> Option<&'static str> {
    let bare = signal.as_str().strip_prefix("SIG")?;
    catchable(Name::new(bare)).map(|_| bare)
}

/// The tag of the reference by which [`sig_keep_alive`](crate::Context::sig_keep_alive) keeps a session alive.
pub(super) const WAITS_FOR_SIGNAL: &str = "sig";

/// What a signal does to the sessions that it visits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Nothing.
    Benign,
    /// Stops them all, unless one of them called `sig_handled`.
    Terminal,
    /// Stops them all.
    Nonmaskable,
}

fn class(signal: Name) -> Class {
    match signal.as_str() {
        "QUIT" | "INT" | "KILL" | "TERM" | "HUP" | "IDLE" | "DIE" => Class::Terminal,
        "ZOMBIE" | "UIDESTROY" => Class::Nonmaskable,
        _ => Class::Benign,
    }
}

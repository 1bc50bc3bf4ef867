//! Signals of the operating system: one self-pipe for each kernel, made anew in every forked child.

use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mio::{Interest, Registry, Token};
use nix::sys::signal::{SigSet, Signal};
use signal_hook_mio::v1_0::Signals as Pipe;

use crate::error::Error;
use crate::name::Name;
use crate::sys::controlling_terminal::has_controlling_terminal;
use crate::sys::disposition::{self, Disposition};

/// The kernel's own delivery of the signals that its sessions watch.
pub(crate) struct Delivery {
    /// `None` once it is closed.
    pipe: Option<Pipe>,
    watched: Vec<(Signal, Name)>,
    /// Watched by sessions, but not taken over from the system: see [`belongs_to_terminal`].
    left_to_terminal: Vec<Name>,
    /// The process has a controlling terminal, as far as is known.
    has_terminal: bool,
}

impl Delivery {
    /// Makes a pipe for no signals yet. A SIGCHLD that the launcher ignores gets its default action (K-SG-10).
    pub(crate) fn new() -> Result<Delivery, Error> {
        disposition::stop_ignoring(Signal::SIGCHLD).map_err(|errno| Error::os("sigaction", "SIGCHLD", errno))?;
        let pipe =
            Pipe::new(std::iter::empty::<i32>()).map_err(|error| Error::os("socketpair", "for signals", error))?;
        // In a process that has entered a chroot by itself before it made a kernel: no terminal is the usual case there.
        let has_terminal = has_controlling_terminal().unwrap_or(false);
        Ok(Delivery { pipe: Some(pipe), watched: Vec::new(), left_to_terminal: Vec::new(), has_terminal })
    }

    /// Makes a delivery that watches the same signals through a pipe of its own: this process must neither read the
    /// other's bytes nor wake it.
    pub(crate) fn renewed(&self) -> Result<Delivery, Error> {
        let mut delivery = Delivery::new()?;
        delivery.has_terminal = has_controlling_terminal().unwrap_or(self.has_terminal);
        // What was left to a terminal is taken over by a process that has left the terminal.
        for name in self.watched.iter().map(|(_, name)| name).chain(&self.left_to_terminal) {
            delivery.watch(*name);
        }
        Ok(delivery)
    }

    /// Tells whether the process had a controlling terminal when it was started, forked or detached.
    pub(crate) fn has_terminal(&self) -> bool {
        self.has_terminal
    }

    /// Notes, for the delivery that takes this one's place, that the process has left its terminal.
    pub(crate) fn leave_terminal(&mut self) {
        self.has_terminal = false;
    }

    /// Closes the pipe unread. What comes from now on goes nowhere, until [`renewed`](Delivery::renewed) has made another.
    pub(crate) fn close(&mut self) {
        self.pipe = None;
    }

    /// Gives every signal back.
    pub(crate) fn end(&mut self) {
        self.watched.drain(..).for_each(|(signal, _)| give_back(signal));
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> Result<(), Error> {
        let Some(pipe) = &mut self.pipe else { return Ok(()) };
        registry.register(pipe, token, Interest::READABLE).map_err(|error| Error::os("epoll_ctl", "for signals", error))
    }

    /// Takes `signal` over, if it is one of the system's that can be caught.
    pub(crate) fn watch(&mut self, name: Name) {
        let (Some(signal), Some(pipe)) = (catchable(name), &self.pipe) else { return };
        if self.has_terminal && belongs_to_terminal(signal) {
            self.left_to_terminal.push(name);
            return;
        }
        match take_over(signal, pipe) {
            Ok(()) => self.watched.push((signal, name)),
            Err(error) => log::error!(target: "lenore::signals", "can't watch {name}: {error}"),
        }
    }

    /// Gives `signal` the disposition back that it had before, unless another kernel of this process wants it.
    pub(crate) fn unwatch(&mut self, name: Name) {
        if let Some(place) = self.watched.iter().position(|(_, other)| *other == name) {
            give_back(self.watched.remove(place).0);
        }
        self.left_to_terminal.retain(|other| *other != name);
    }

    /// Takes the signals that have arrived since the last time, each at most once.
    pub(crate) fn pending(&mut self) -> Vec<Name> {
        let watched = &self.watched;
        let name = |number: i32| watched.iter().find(|(signal, _)| *signal as i32 == number).map(|(_, name)| *name);
        self.pipe.iter_mut().flat_map(Pipe::pending).filter_map(name).collect()
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        // The pipe goes unread: after a fork it is the parent's, and so is what stands in it.
        self.end();
    }
}

/// Takes out of the thread's mask what its launcher may have blocked and the kernel must hear.
pub(crate) fn unblock_all() -> Result<(), Error> {
    SigSet::all().thread_unblock().map_err(|errno| Error::os("sigprocmask", "", errno))
}

/// Returns the signal behind a name such as `TERM`, unless no process may or should catch it.
pub(crate) fn catchable(name: Name) -> Option<Signal> {
    let signal = Signal::from_str(&format!("SIG{name}")).ok()?;
    let uncatchable = [Signal::SIGKILL, Signal::SIGSTOP, Signal::SIGSEGV, Signal::SIGILL, Signal::SIGFPE];
    (!uncatchable.contains(&signal)).then_some(signal)
}

/// Tells whether a terminal answers a call with `signal`: a read by a job in its background with TTIN, a write with TTOU
/// if `stty tostop` is set.
///
/// The default action stops the job, and the call is made again when the job is continued. A handler would return to the
/// call at once, which would get the same answer again: the process would spin and never look at another signal.
fn belongs_to_terminal(signal: Signal) -> bool {
    matches!(signal, Signal::SIGTTIN | Signal::SIGTTOU)
}

/// What this process has made of one signal's disposition.
#[derive(Clone, Copy)]
struct Taken {
    /// How many kernels watch it.
    kernels: u32,
    /// signal-hook's handler, while it is out of force because nobody watches. signal-hook installs its handler once
    /// and for all, and never takes it out: without this, a signal that was once watched would be ignored for ever.
    handler: Option<Disposition>,
    /// What was in force before a kernel took it over: the default action as a rule, but PIPE is ignored, so are the HUP of
    /// a program that `nohup` has started and the INT of a job in the background of a script, and a program may have a
    /// handler of its own. This is what comes back, so that programs that are started later find it.
    former: Option<Disposition>,
    /// It is to be ignored when nobody watches it any more.
    is_harmless: bool,
}

/// Has the process ignore `signal` from the moment that nobody watches it any more, whatever it was before.
pub(crate) fn ignore_unwatched(signal: Signal) {
    lock()[signal as usize].is_harmless = true;
}

/// Tells whether the launcher of this process had `signal` ignored before a kernel took it over.
pub(crate) fn was_ignored(signal: Signal) -> bool {
    lock()[signal as usize].former.is_some_and(|former| former.is_ignored())
}

fn take_over(signal: Signal, pipe: &Pipe) -> std::io::Result<()> {
    let mut table = lock();
    let taken = &mut table[signal as usize];
    let former = (taken.kernels == 0).then(|| disposition::current(signal)).transpose()?;
    pipe.add_signal(signal as i32)?;
    taken.former = former.or(taken.former);
    if let Some(handler) = taken.handler.take() {
        disposition::restore(signal, &handler)?;
    }
    taken.kernels += 1;
    Ok(())
}

fn give_back(signal: Signal) {
    let mut table = lock();
    let taken = &mut table[signal as usize];
    taken.kernels -= 1;
    if taken.kernels > 0 {
        return;
    }
    let outcome = match &taken.former {
        _ if taken.is_harmless => disposition::ignore(signal),
        Some(former) => disposition::restore(signal, former),
        None => disposition::set_default(signal),
    };
    match outcome {
        Ok(handler) => taken.handler = Some(handler),
        Err(errno) => log::error!(target: "lenore::signals", "can't let go of {signal}: {errno}"),
    }
}

/// Dispositions belong to the process, kernels do not: this is the one place where kernels meet.
fn lock() -> MutexGuard<'static, [Taken; 65]> {
    static TABLE: Mutex<[Taken; 65]> =
        Mutex::new([Taken { kernels: 0, handler: None, former: None, is_harmless: false }; 65]);
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Signals of the operating system: one self-pipe for each kernel, made anew in every forked child.

use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::sys::signal::{SigSet, Signal};

use crate::error::Error;
use crate::name::Name;
use crate::sys::controlling_terminal::has_controlling_terminal;
use crate::sys::disposition::{self, Disposition};
use crate::sys::signal_pipe::SignalPipe;

/// The kernel's own delivery of the signals that its sessions watch.
pub(crate) struct Delivery {
    pipe: SignalPipe,
    watched: Vec<(Signal, Name)>,
    /// Signals that sessions watch, but that the kernel does not catch: see [`belongs_to_terminal`].
    left_to_terminal: Vec<Name>,
    /// The process has a controlling terminal, as far as is known.
    has_terminal: bool,
}

impl Delivery {
    /// Makes a pipe that catches no signals yet. If the launcher ignored SIGCHLD, it gets its default action (K-SG-10).
    pub(crate) fn new() -> Result<Delivery, Error> {
        disposition::stop_ignoring(Signal::SIGCHLD).map_err(|errno| Error::os("sigaction", "SIGCHLD", errno))?;
        let pipe = SignalPipe::new().map_err(|error| Error::os("pipe", "for signals", error))?;
        // Unknown in a process that has entered a chroot before it made a kernel. Such a process usually has no
        // terminal.
        let has_terminal = has_controlling_terminal().unwrap_or(false);
        let (watched, left_to_terminal) = (Vec::new(), Vec::new());
        Ok(Delivery { pipe, watched, left_to_terminal, has_terminal })
    }

    /// Watches the same signals through a new pipe of this process's own. This process must neither read the bytes of
    /// the other process's pipe nor wake the other process, so that pipe is [closed](Delivery::close) before.
    pub(crate) fn renew(&mut self) -> Result<(), Error> {
        // If it is watched, this process has inherited its handler.
        if !self.watched.iter().any(|(signal, _)| *signal == Signal::SIGCHLD) {
            disposition::stop_ignoring(Signal::SIGCHLD).map_err(|errno| Error::os("sigaction", "SIGCHLD", errno))?;
        }
        self.pipe.open().map_err(|error| Error::os("pipe", "for signals", error))?;
        // Neither a fork nor a detachment gives a process a terminal, so one that had none does not ask.
        if self.has_terminal && has_controlling_terminal() == Some(false) {
            self.leave_terminal();
        }
        Ok(())
    }

    /// Catches the signals that were left to the terminal, in a process that has left its terminal.
    fn review_terminal(&mut self) {
        let watched = self.watched.iter().filter(|(signal, _)| belongs_to_terminal(*signal)).map(|(_, name)| *name);
        let names: Vec<Name> = watched.chain(self.left_to_terminal.iter().copied()).collect();
        for name in names {
            self.unwatch(name);
            self.watch(name);
        }
    }

    /// Tells whether the process had a controlling terminal when it was started, forked or detached.
    pub(crate) fn has_terminal(&self) -> bool {
        self.has_terminal
    }

    /// Notes that the process has left its terminal.
    pub(crate) fn leave_terminal(&mut self) {
        self.has_terminal = false;
        self.review_terminal();
    }

    /// Closes the pipe unread. Signals are lost from now on, until [`renew`](Delivery::renew) has made another pipe. To
    /// be called with signals blocked.
    pub(crate) fn close(&mut self) {
        self.pipe.close();
    }

    /// Gives every signal back.
    pub(crate) fn end(&mut self) {
        self.watched.drain(..).for_each(|(signal, _)| give_back(signal));
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> Result<(), Error> {
        let Some(fd) = self.pipe.fd() else { return Ok(()) };
        let registered = registry.register(&mut SourceFd(&fd), token, Interest::READABLE);
        registered.map_err(|error| Error::os("epoll_ctl", "for signals", error))
    }

    /// Catches `signal` from now on, if it is a system's signal that can be caught.
    pub(crate) fn watch(&mut self, name: Name) {
        let Some(signal) = catchable(name) else { return };
        if self.has_terminal && belongs_to_terminal(signal) {
            self.left_to_terminal.push(name);
            return;
        }
        match take_over(signal, &mut self.pipe) {
            Ok(()) => self.watched.push((signal, name)),
            Err(error) => log::error!(target: "lenore::signals", "can't watch {name}: {error}"),
        }
    }

    /// Gives `signal` the disposition back that it had before, unless another kernel of this process watches it.
    pub(crate) fn unwatch(&mut self, name: Name) {
        if let Some(place) = self.watched.iter().position(|(_, other)| *other == name) {
            let (signal, _) = self.watched.remove(place);
            give_back(signal);
        }
        self.left_to_terminal.retain(|other| *other != name);
    }

    /// Takes the signals that have arrived since the last time, each at most once.
    pub(crate) fn pending(&mut self) -> Vec<Name> {
        let watched = &self.watched;
        let name = |number| watched.iter().find(|(signal, _)| *signal as usize == number).map(|(_, name)| *name);
        self.pipe.take().filter_map(name).collect()
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.end();
    }
}

/// Unblocks all signals of this thread: its launcher may have blocked some, and the kernel must get them.
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
    /// signal-hook's handler, while no kernel watches the signal and the handler is not in force. signal-hook installs
    /// its handler once and for all, and never takes it out. Without this field a signal that was once watched would be
    /// ignored for ever.
    handler: Option<Disposition>,
    /// The disposition before a kernel caught the signal. Usually that is the default action. But PIPE is ignored, and
    /// so are the HUP of a program that `nohup` has started and the INT of a background job of a script. A program may
    /// also have a handler of its own. This disposition comes back, so that programs that are started later find it.
    former: Option<Disposition>,
    /// The signal is to be ignored once no kernel watches it any more.
    is_harmless: bool,
}

/// Makes the process ignore `signal` once no kernel watches it any more, whatever its disposition was before.
pub(crate) fn ignore_unwatched(signal: Signal) {
    lock()[signal as usize].is_harmless = true;
}

/// Tells whether `signal` was ignored in this process before a kernel caught it.
pub(crate) fn was_ignored(signal: Signal) -> bool {
    lock()[signal as usize].former.is_some_and(|former| former.is_ignored())
}

fn take_over(signal: Signal, pipe: &mut SignalPipe) -> std::io::Result<()> {
    let mut table = lock();
    let taken = &mut table[signal as usize];
    let former = (taken.kernels == 0).then(|| disposition::current(signal)).transpose()?;
    pipe.add(signal)?;
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

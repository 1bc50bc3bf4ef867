//! Signals of the system as news in a pipe: the handler notes which signal has come, and writes a byte for the poller.
//!
//! signal-hook's registry installs the one handler that a process has for a signal, and calls the action of each pipe. The
//! actions last as long as the pipe, and find its present write end by themselves: a forked child takes a new pipe without
//! registering anything anew.

use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::SeqCst};

use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::signal::Signal;
use signal_hook_registry::{SigId, register, unregister};

/// How many numbers of signals there may be: 0 is none, and 64 the last of Linux.
pub(crate) const SIGNALS: usize = 65;

/// A pipe, and what the handler shares with it.
pub(crate) struct SignalPipe {
    /// `None` while it is closed.
    ends: Option<(PipeReader, PipeWriter)>,
    shared: Arc<Shared>,
    actions: Vec<(Signal, SigId)>,
}

struct Shared {
    /// The number of the write end; negative while there is none.
    write_end: AtomicI32,
    /// Which signals have come, by number.
    arrived: [AtomicBool; SIGNALS],
}

impl Shared {
    /// Called by the handler.
    fn note(&self, signal: Signal) {
        self.arrived[signal as usize].store(true, SeqCst);
        let fd = self.write_end.load(SeqCst);
        if fd >= 0 {
            // A pipe that is full says so already. The registry keeps errno.
            // SAFETY: one byte of a constant is read. `fd` is the write end: it is closed only when this number is not here
            // any more, by the only thread of a new child with its signals blocked, or when no action is left.
            unsafe { libc::write(fd, c"X".as_ptr().cast(), 1) };
        }
    }
}

impl SignalPipe {
    /// Makes a pipe for no signals yet.
    pub(crate) fn new() -> io::Result<SignalPipe> {
        let arrived = [const { AtomicBool::new(false) }; SIGNALS];
        let shared = Arc::new(Shared { write_end: AtomicI32::new(-1), arrived });
        let mut pipe = SignalPipe { ends: None, shared, actions: Vec::new() };
        pipe.open()?;
        Ok(pipe)
    }

    /// Closes the pipe unread, and forgets what has come. What comes from now on is noted, but wakes nobody.
    ///
    /// To be called with signals blocked, in a process with one thread.
    pub(crate) fn close(&mut self) {
        self.shared.write_end.store(-1, SeqCst);
        self.ends = None;
        self.shared.arrived.iter().for_each(|arrived| arrived.store(false, SeqCst));
    }

    /// Makes another pipe for the same signals, when this one is [closed](SignalPipe::close).
    pub(crate) fn open(&mut self) -> io::Result<()> {
        let (reader, writer) = open_pipe()?;
        self.shared.write_end.store(writer.as_raw_fd(), SeqCst);
        self.ends = Some((reader, writer));
        Ok(())
    }

    /// Has the handler of `signal`, which is installed if it is not, note what comes from now on.
    pub(crate) fn add(&mut self, signal: Signal) -> io::Result<()> {
        if self.actions.iter().any(|(other, _)| *other == signal) {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        // SAFETY: `note` uses atomics and write(2), which are async-signal-safe. It takes no lock, does not allocate and can't
        // panic: every `Signal` is less than `SIGNALS`.
        let action = unsafe { register(signal as libc::c_int, move || shared.note(signal)) }?;
        self.actions.push((signal, action));
        Ok(())
    }

    /// The read end, for the poller.
    pub(crate) fn fd(&self) -> Option<RawFd> {
        self.ends.as_ref().map(|(reader, _)| reader.as_raw_fd())
    }

    /// Takes the numbers of the signals that have come since the last time, in ascending order.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = usize> {
        // Empty the pipe first, then take the notes. The other order loses a signal that lands in between.
        if let Some((reader, _)) = &mut self.ends {
            let mut octets = [0; 256];
            // What comes after a read that the pipe could not fill is news to the poller.
            while reader.read(&mut octets).is_ok_and(|count| count == octets.len()) {}
        }
        let shared = &self.shared;
        (1..SIGNALS).filter(|number| shared.arrived[*number].swap(false, SeqCst))
    }
}

impl Drop for SignalPipe {
    fn drop(&mut self) {
        // An action that is running is waited for.
        for (_, action) in self.actions.drain(..) {
            unregister(action);
        }
        self.shared.write_end.store(-1, SeqCst);
    }
}

#[cfg(target_os = "linux")]
fn open_pipe() -> io::Result<(PipeReader, PipeWriter)> {
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    Ok((reader.into(), writer.into()))
}

#[cfg(not(target_os = "linux"))]
fn open_pipe() -> io::Result<(PipeReader, PipeWriter)> {
    let (reader, writer) = io::pipe()?;
    use nix::fcntl::{FcntlArg, fcntl};
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((reader, writer))
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::raise;

    use super::*;

    // Signals that nobody else in this process sends, and that do nothing by themselves.
    #[test] // K-SG-06
    fn signals_that_have_come_are_taken_once_in_the_order_of_their_numbers() {
        let mut pipe = SignalPipe::new().unwrap();
        let (high, low) = (Signal::SIGWINCH, Signal::SIGURG);
        [high, low].into_iter().for_each(|signal| pipe.add(signal).unwrap());
        for signal in [high, low, high] {
            raise(signal).unwrap();
        }
        assert!(has_news(&pipe));
        assert_eq!(pipe.take().collect::<Vec<_>>(), [low as usize, high as usize]);
        assert!(!has_news(&pipe));
        assert_eq!(pipe.take().next(), None);
    }

    #[test] // T2: what came for the parent is not the child's, and the pipe that takes the parent's place needs no new handler
    fn pipe_that_is_opened_again_knows_only_what_comes_from_then_on() {
        let mut pipe = SignalPipe::new().unwrap();
        pipe.add(Signal::SIGCONT).unwrap();
        raise(Signal::SIGCONT).unwrap();
        pipe.close();
        assert!(pipe.fd().is_none());
        pipe.open().unwrap();
        assert!(!has_news(&pipe));
        assert_eq!(pipe.take().next(), None);
        raise(Signal::SIGCONT).unwrap();
        assert!(has_news(&pipe));
        assert_eq!(pipe.take().collect::<Vec<_>>(), [Signal::SIGCONT as usize]);
    }

    fn has_news(pipe: &SignalPipe) -> bool {
        let (reader, _) = pipe.ends.as_ref().unwrap();
        crate::kernel::has_input(reader)
    }
}

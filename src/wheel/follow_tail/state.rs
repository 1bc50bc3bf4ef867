//! What a `FollowTail` shares with the kernel: one look at the file for each turn, and a timer for the next.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;

use super::file::{Followed, News, StreamEnd};
use super::notices::{Notices, Outlook};
use crate::args::{Args, IntoArgs};
use crate::error::Exception;
use crate::filter::{Filter, FilterError};
use crate::kernel::{AfterFork, Kernel, Mailbox, Mode, SessionId, Source, SourceKey, Wanted};
use crate::name::Name;
use crate::wheel::input::{Input, Recipient};
use crate::wheel::{WheelId, error_args};

/// What the wheel shares with the kernel. No borrow lasts while a state runs.
pub(super) struct State<F: Filter> {
    pub(super) id: WheelId,
    pub(super) owner: SessionId,
    /// What its events say they were sent from.
    pub(super) name: Name,
    pub(super) key: SourceKey,
    pub(super) mailbox: Rc<Mailbox>,
    /// `None` for a handle.
    pub(super) path: Option<PathBuf>,
    pub(super) interval: Duration,
    pub(super) on_input: Cell<Option<Name>>,
    pub(super) on_error: Cell<Option<Name>>,
    pub(super) on_reset: Cell<Option<Name>>,
    pub(super) on_idle: Cell<Option<Name>>,
    pub(super) input: Input<F>,
    /// An unfinished last record of a file that was replaced is delivered.
    pub(super) delivers_last: bool,
    /// `None` while there is no such file.
    pub(super) file: RefCell<Option<Followed>>,
    /// What went wrong with the file at the start, and in which operation.
    pub(super) failure: Cell<Option<(&'static str, io::Error)>>,
    /// Neither dropped nor closed.
    pub(super) open: Cell<bool>,
    /// Something has come since the last wait.
    pub(super) busy: Cell<bool>,
    /// Makes the next look come sooner.
    pub(super) notices: Notices,
    /// The name leads to another file; the old one is looked at once more before it is left.
    pub(super) replaced: Cell<bool>,
}

/// A look, without the data that it has fed to the filter.
enum Look {
    Data,
    Nothing,
    Rewritten,
    /// Of a stream only.
    End(StreamEnd),
}

impl<F: Filter> State<F> {
    /// Asks for a turn, as there is something to do that no readiness will announce.
    pub(super) fn wake(&self) {
        if self.open.get() {
            self.mailbox.woken(self.key);
        }
    }

    fn step(&self, kernel: &mut Kernel, key: SourceKey) {
        if !self.takes_more() || !self.input.deliver(kernel, key, self) {
            return;
        }
        if let Some((operation, error)) = self.failure.take() {
            return self.fail(kernel, key, operation, &error);
        }
        if self.file.borrow().is_none() {
            return self.find(kernel, key);
        }
        match self.look(kernel) {
            Ok(Look::Data) => {
                self.busy.set(true);
                if self.input.deliver(kernel, key, self) {
                    kernel.core.sources.requeue(key, Mode::Read);
                }
            }
            Ok(Look::Nothing) => self.rest(kernel, key),
            Ok(Look::Rewritten) => {
                if self.finish(kernel, key) {
                    if let Some(Followed::Regular(file)) = &mut *self.file.borrow_mut() {
                        file.rewind();
                    }
                    self.begin(kernel, key);
                }
            }
            Ok(Look::End(end)) => self.end(kernel, key, end),
            Err(error) => self.fail(kernel, key, "read", &error),
        }
    }

    /// Reads once, into the filter.
    fn look(&self, kernel: &mut Kernel) -> io::Result<Look> {
        let buffer = &mut kernel.core.sources.read_buffer;
        match &mut *self.file.borrow_mut() {
            None => Ok(Look::Nothing),
            Some(Followed::Regular(file)) => Ok(match file.read(buffer)? {
                News::Data(data) => {
                    self.input.feed(data);
                    Look::Data
                }
                News::Nothing => Look::Nothing,
                News::Rewritten => Look::Rewritten,
            }),
            Some(Followed::Stream { fd, end }) => loop {
                match nix::unistd::read(&*fd, buffer) {
                    Ok(0) => return Ok(Look::End(*end)),
                    Ok(count) => {
                        self.input.feed(&buffer[..count]);
                        return Ok(Look::Data);
                    }
                    Err(Errno::EINTR) => {}
                    Err(Errno::EAGAIN) => return Ok(Look::Nothing),
                    Err(errno) => return Err(errno.into()),
                }
            },
        }
    }

    /// There is no more to read for now. Only then is the name looked at: what was written to the old file before it was
    /// replaced has been delivered.
    fn rest(&self, kernel: &mut Kernel, key: SourceKey) {
        let is_this = match (&*self.file.borrow(), &self.path) {
            (Some(Followed::Regular(file)), Some(path)) => std::fs::metadata(path).map(|about| file.is(&about)),
            (Some(Followed::Stream { .. }), _) => return,
            _ => Ok(true),
        };
        match is_this {
            Ok(true) => {
                self.replaced.set(false);
                self.wait(kernel, key);
            }
            // It may have grown between the last read and the look at the name.
            Ok(false) if !self.replaced.replace(true) => kernel.core.sources.requeue(key, Mode::Read),
            Ok(false) => {
                if self.finish(kernel, key) {
                    self.replaced.set(false);
                    self.notices.forget_file();
                    self.file.take();
                    self.find(kernel, key);
                }
            }
            // Removed, or renamed: whoever has it open may still write to it, until there is another one.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.replaced.set(false);
                self.wait(kernel, key);
            }
            Err(error) => self.fail(kernel, key, "stat", &error),
        }
    }

    /// Opens the file if there is one now.
    fn find(&self, kernel: &mut Kernel, key: SourceKey) {
        let Some(path) = &self.path else { return };
        match Followed::open(path) {
            Ok(followed) => {
                self.file.replace(Some(followed));
                // A FIFO is watched from now on.
                self.mailbox.changed(key);
                self.begin(kernel, key);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.wait(kernel, key),
            Err(error) => self.fail(kernel, key, "open", &error),
        }
    }

    /// Ends the input of a file. Returns false if the last record has to wait; then the next turn comes back here.
    fn finish(&self, kernel: &mut Kernel, key: SourceKey) -> bool {
        if self.delivers_last {
            self.input.finish();
            if !self.input.deliver(kernel, key, self) {
                return false;
            }
        }
        self.input.reset();
        true
    }

    /// Tells that a file is read from its start.
    fn begin(&self, kernel: &mut Kernel, key: SourceKey) {
        self.busy.set(true);
        kernel.core.sources.requeue(key, Mode::Read);
        self.send(kernel, self.on_reset.get(), (self.id,).into_args());
    }

    /// Waits for the next look; a poll that has found nothing is worth an event.
    fn wait(&self, kernel: &mut Kernel, key: SourceKey) {
        let interval = match self.watch(kernel, key) {
            Outlook::LookAgain => return kernel.core.sources.requeue(key, Mode::Read),
            Outlook::Told => self.interval.saturating_mul(PATIENCE),
            Outlook::Blind => self.interval,
        };
        kernel.core.wake_source_after(key, interval);
        if !self.busy.replace(false) {
            self.send(kernel, self.on_idle.get(), (self.id,).into_args());
        }
    }

    fn watch(&self, kernel: &mut Kernel, key: SourceKey) -> Outlook {
        match &*self.file.borrow() {
            Some(Followed::Regular(file)) => {
                self.notices.watch(kernel, (key, self.owner), Some(file), self.path.as_deref())
            }
            Some(Followed::Stream { .. }) => Outlook::Blind,
            None => self.notices.watch(kernel, (key, self.owner), None, self.path.as_deref()),
        }
    }

    /// A stream has come to its end.
    fn end(&self, kernel: &mut Kernel, key: SourceKey, end: StreamEnd) {
        if !self.finish(kernel, key) {
            return;
        }
        kernel.core.remove_source(key);
        match end {
            StreamEnd::Idle => self.send(kernel, self.on_idle.get(), (self.id,).into_args()),
            StreamEnd::Error => {
                let args = ("read", 0_i32, String::new(), self.id, self.path()).into_args();
                self.send(kernel, self.on_error.get(), args)
            }
        };
    }

    /// Ends the following: what can't be read or found now needs somebody to look into it.
    fn fail(&self, kernel: &mut Kernel, key: SourceKey, operation: &'static str, error: &io::Error) {
        kernel.core.remove_source(key);
        match self.on_error.get() {
            None => {
                let path = self.path();
                let path = path.display();
                log::error!(target: "lenore::wheels", "{} of {}: {operation} {path}: {error}", self.id, self.owner);
            }
            event => {
                let args = error_args(operation, error, self.id).chain((self.path(),).into_args());
                self.send(kernel, event, args);
            }
        }
    }

    /// Runs a state of the owner; returns whether it came to its end.
    fn send(&self, kernel: &mut Kernel, event: Option<Name>, args: Args) -> bool {
        event.is_none_or(|event| kernel.dispatch_from_source(self.owner, event, Some(self.name), args))
    }

    /// ARG4 of an error event.
    fn path(&self) -> PathBuf {
        self.path.clone().unwrap_or_default()
    }
}

impl<F: Filter> Recipient<F> for State<F> {
    fn takes_more(&self) -> bool {
        self.open.get() && self.on_input.get().is_some()
    }

    fn record(&self, kernel: &mut Kernel, record: F::Input) -> bool {
        self.send(kernel, self.on_input.get(), (record, self.id).into_args())
    }

    fn refused(&self, kernel: &mut Kernel, error: FilterError) {
        let args = ("filter", Errno::EBADMSG as i32, error.to_string(), self.id, self.path()).into_args();
        self.send(kernel, self.on_error.get(), args);
    }

    fn panicked(&self, kernel: &mut Kernel, exception: Exception) {
        kernel.die_in_source(self.owner, self.name, exception);
    }
}

impl<F: Filter> Source for State<F> {
    fn fd(&self) -> RawFd {
        match &*self.file.borrow() {
            Some(Followed::Stream { fd, .. }) => fd.as_raw_fd(),
            Some(Followed::Regular(file)) => file.fd(),
            None => -1,
        }
    }

    /// The poller knows nothing of regular files, and is asked nothing about them.
    fn wanted(&self) -> Option<Wanted> {
        matches!(&*self.file.borrow(), Some(Followed::Stream { .. })).then(|| Wanted::of(true, false, false))?
    }

    fn turn(self: Rc<Self>, kernel: &mut Kernel, key: SourceKey, _: Mode) {
        self.step(kernel, key);
    }

    fn close(&self) {
        self.open.set(false);
        self.notices.close(&self.mailbox);
        self.file.take();
    }

    /// Two processes that follow one file would do everything twice.
    fn fork(&self) -> AfterFork {
        AfterFork::Close
    }

    fn describe(&self) -> String {
        let subject = match (&self.path, &*self.file.borrow()) {
            (None, _) => String::from("a handle"),
            (Some(path), Some(_)) => path.display().to_string(),
            (Some(path), None) => format!("{}, which does not exist", path.display()),
        };
        let event = self.on_input.get().map_or("nothing", Name::as_str);
        format!("FollowTail ({}) of {subject} -> {event}", self.id)
    }
}

/// How many times longer it waits where it is told of changes: not every change is told of, as of a mapped file's.
const PATIENCE: u32 = 10;

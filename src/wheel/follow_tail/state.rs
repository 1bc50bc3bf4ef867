//! What a `FollowTail` shares with the kernel: one look at the file for each turn, and a timer for the next.

use std::cell::{Cell, RefCell};
use std::fs::Metadata;
use std::io::{self, SeekFrom};
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;

use super::file::{FileId, Followed, News, Regular, StreamEnd, WRITE_TAKES, identity};
use super::notices::{Notices, Outlook};
use super::rotation::{Successors, Turn};
use super::trouble::{Trouble, may_pass};
use crate::args::{Args, IntoArgs};
use crate::error::Exception;
use crate::filter::{Filter, FilterError};
use crate::kernel::{AfterFork, Kernel, Mailbox, Mode, SessionId, Source, SourceKey, Wanted};
use crate::name::Name;
use crate::wheel::input::{Input, Recipient};
use crate::wheel::refusals::Refusals;
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
    pub(super) refusals: Refusals,
    pub(super) on_reset: Cell<Option<Name>>,
    pub(super) on_idle: Cell<Option<Name>>,
    pub(super) on_retry: Cell<Option<Name>>,
    pub(super) input: Input<F>,
    /// An unfinished last record of a file that was replaced is delivered.
    pub(super) delivers_last: bool,
    /// `None` while there is no such file.
    pub(super) file: RefCell<Option<Followed>>,
    /// Where to begin in the file that was there at the start, as long as that could not be done.
    pub(super) start: Cell<Option<Start>>,
    /// What went wrong with the file at the start, and in which operation.
    pub(super) failure: Cell<Option<Failure>>,
    /// What keeps the file from being read, and its name from being looked at or opened.
    pub(super) reading: Trouble,
    pub(super) naming: Trouble,
    /// Neither dropped nor closed.
    pub(super) open: Cell<bool>,
    /// Something has come since the last wait.
    pub(super) busy: Cell<bool>,
    /// Makes the next look come sooner.
    pub(super) notices: Notices,
    /// The files that have got the name since.
    pub(super) next: Successors,
    /// How long a file is read on when another one has its name.
    pub(super) rotate_wait: Duration,
}

/// What went wrong, and in which operation.
pub(super) type Failure = (&'static str, io::Error);

/// Where following begins in a file that is there at the start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    /// What the program said.
    pub(super) seek: Option<SeekFrom>,
    /// How long the file was then.
    pub(super) length: u64,
    pub(super) file: FileId,
}

impl Start {
    pub(super) fn of(about: &Metadata, seek: Option<SeekFrom>) -> Start {
        Start { seek, length: about.len(), file: identity(about) }
    }

    /// Goes to where following begins.
    pub(super) fn go<F: Filter>(&self, file: &mut Regular, input: &Input<F>, buffer: &mut [u8]) -> io::Result<()> {
        if let Some(to) = self.seek {
            return file.seek(to, self.length);
        }
        file.seek(SeekFrom::End(-LOOKED_BACK), self.length)?;
        let unread = self.length.saturating_sub(file.offset());
        input.feed(file.read_up_to(unread as usize, buffer)?);
        input.discard();
        Ok(())
    }
}

/// A look, without the data that it has fed to the filter.
enum Look {
    Data,
    Nothing,
    Suspect,
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
            let trouble = if operation == "read" { &self.reading } else { &self.naming };
            return self.fails(kernel, key, trouble, operation, &error);
        }
        if self.file.borrow().is_none() {
            return self.find(kernel, key);
        }
        let look = self.begin_late(kernel).and_then(|()| self.look(kernel));
        if look.is_ok() && self.reading.end() {
            self.log_success();
        }
        match look {
            Ok(Look::Data) => {
                self.busy.set(true);
                if self.input.deliver(kernel, key, self) {
                    kernel.core.sources.requeue(key, Mode::Read);
                }
            }
            Ok(Look::Nothing) => self.rest(kernel, key),
            Ok(Look::Suspect) => drop(self.pause(kernel, key, WRITE_TAKES)),
            Ok(Look::Rewritten) => {
                if self.finish(kernel, key) {
                    if let Some(Followed::Regular(file)) = &mut *self.file.borrow_mut() {
                        file.rewind();
                    }
                    self.begin(kernel, key);
                }
            }
            Ok(Look::End(end)) => self.end(kernel, key, end),
            Err(error) => self.unreadable(kernel, key, &error),
        }
    }

    /// Goes to where following begins, if that could not be done at the start.
    fn begin_late(&self, kernel: &mut Kernel) -> io::Result<()> {
        let (Some(start), Some(Followed::Regular(file))) = (self.start.get(), &mut *self.file.borrow_mut()) else {
            return Ok(());
        };
        start.go(file, &self.input, &mut kernel.core.sources.read_buffer)?;
        self.start.set(None);
        Ok(())
    }

    /// Reads once, into the filter.
    fn look(&self, kernel: &mut Kernel) -> io::Result<Look> {
        let now = kernel.core.clock.now();
        let buffer = &mut kernel.core.sources.read_buffer;
        match &mut *self.file.borrow_mut() {
            None => Ok(Look::Nothing),
            Some(Followed::Regular(file)) => Ok(match file.read(buffer, now)? {
                News::Data(data) => {
                    self.input.feed(data);
                    Look::Data
                }
                News::Nothing => Look::Nothing,
                News::Suspect => Look::Suspect,
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
        if let Some(Followed::Stream { .. }) = &*self.file.borrow() {
            return;
        }
        let named = self.look_at_name();
        match (self.next.turn(kernel.core.clock.now(), self.rotate_wait), named) {
            (Turn::Leave, _) => self.leave(kernel, key),
            // What still comes is read from the file that is open.
            (_, Err((operation, error))) => self.fails(kernel, key, &self.naming, operation, &error),
            (Turn::Stay, Ok(())) => self.wait(kernel, key),
            (Turn::Linger(_), Ok(())) => drop(self.pause(kernel, key, Duration::MAX)),
        }
    }

    /// Looks at which file the name leads to. One that is not known yet is opened, before anybody takes it away again.
    fn look_at_name(&self) -> Result<(), Failure> {
        let (Some(path), Some(Followed::Regular(file))) = (&self.path, &*self.file.borrow()) else { return Ok(()) };
        let found = match std::fs::metadata(path) {
            Ok(about) if file.identity() == identity(&about) => {
                self.next.clear();
                None
            }
            Ok(about) if self.next.end_with(&about) => None,
            Ok(_) => match Followed::open(path) {
                Ok(Followed::Regular(next)) if file.identity() == next.identity() => None,
                Ok(next) => Some(next),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(("open", error)),
            },
            // Removed, or renamed: whoever has it open may still write to it, until there is another one.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(("stat", error)),
        };
        found.into_iter().for_each(|file| self.next.push(file));
        if self.naming.end() {
            self.log_success();
        }
        Ok(())
    }

    /// Goes on with the next file, as the one before has been read for long enough.
    fn leave(&self, kernel: &mut Kernel, key: SourceKey) {
        if self.finish(kernel, key) {
            self.start.set(None);
            self.file.replace(self.next.pop());
            self.notices.next_file();
            // A FIFO is watched from now on.
            self.mailbox.changed(key);
            self.begin(kernel, key);
        }
    }

    /// Opens the file if there is one now.
    fn find(&self, kernel: &mut Kernel, key: SourceKey) {
        let Some(path) = &self.path else { return };
        match Followed::open(path) {
            Ok(followed) => {
                let is_first = match (&followed, self.start.get()) {
                    (Followed::Regular(file), Some(start)) => file.identity() == start.file,
                    _ => false,
                };
                self.file.replace(Some(followed));
                // A FIFO is watched from now on.
                self.mailbox.changed(key);
                if self.naming.end() {
                    self.log_success();
                }
                if is_first {
                    kernel.core.sources.requeue(key, Mode::Read);
                } else {
                    self.start.set(None);
                    self.begin(kernel, key);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.naming.end();
                self.wait(kernel, key);
            }
            Err(error) => self.fails(kernel, key, &self.naming, "open", &error),
        }
    }

    /// The file can't be read. Another one may have its name, or this one may have to be opened again.
    fn unreadable(&self, kernel: &mut Kernel, key: SourceKey, error: &io::Error) {
        let is_named = self.path.is_some() && matches!(&*self.file.borrow(), Some(Followed::Regular(_)));
        if is_named && self.reading.latest().is_some() {
            // What is wrong with the name is told when the file can be read again.
            let _ = self.look_at_name();
            if self.next.turn(kernel.core.clock.now(), self.rotate_wait) == Turn::Leave {
                self.reading.end();
                return self.leave(kernel, key);
            }
            self.open_again();
        }
        self.fails(kernel, key, &self.reading, "read", error);
    }

    /// Replaces a descriptor that can't be read, if its name still leads to the file: that of a file system which was
    /// mounted anew never can again.
    fn open_again(&self) {
        let Some(path) = &self.path else { return };
        if let (Ok(Followed::Regular(again)), Some(Followed::Regular(file))) =
            (Followed::open(path), &mut *self.file.borrow_mut())
            && again.identity() == file.identity()
        {
            file.renew(again);
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
        if self.pause(kernel, key, Duration::MAX) && !self.busy.replace(false) {
            self.send(kernel, self.on_idle.get(), (self.id,).into_args());
        }
    }

    /// Sets the time of the next look, `at_most` so far away. Returns false if that is at once.
    fn pause(&self, kernel: &mut Kernel, key: SourceKey, at_most: Duration) -> bool {
        let interval = match self.watch(kernel, key) {
            Outlook::LookAgain => {
                kernel.core.sources.requeue(key, Mode::Read);
                return false;
            }
            Outlook::Told => self.interval.saturating_mul(PATIENCE),
            Outlook::Blind => self.interval,
        };
        let left = self.next.due().map_or(Duration::MAX, |due| {
            let left = due.saturating_sub(kernel.core.clock.now());
            Duration::from_nanos(left.try_into().unwrap_or(0))
        });
        kernel.core.wake_source_after(key, interval.min(at_most).min(left));
        true
    }

    fn watch(&self, kernel: &mut Kernel, key: SourceKey) -> Outlook {
        let file = match &*self.file.borrow() {
            Some(Followed::Stream { .. }) => return Outlook::Blind,
            Some(Followed::Regular(file)) => Some(file.fd()),
            None => None,
        };
        let next = self.next.with_next(|next| next.map(Regular::fd));
        self.notices.watch(kernel, (key, self.owner), [file, next], self.path.as_deref())
    }

    /// Tries again later what has failed, and tells so when that begins; or ends the following, where no other try can
    /// succeed.
    fn fails(
        &self,
        kernel: &mut Kernel,
        key: SourceKey,
        trouble: &Trouble,
        operation: &'static str,
        error: &io::Error,
    ) {
        let is_stream = matches!(&*self.file.borrow(), Some(Followed::Stream { .. }));
        if !may_pass(operation, error, self.path.is_some() && !is_stream) {
            return self.fail(kernel, key, operation, error);
        }
        // Not every end of a trouble is told of, such as a change of a directory further up.
        let is_over = self.pause(kernel, key, self.interval);
        if trouble.is_news(error) {
            self.tell(kernel, operation, error);
        } else if is_over && !self.busy.replace(false) {
            self.send(kernel, self.on_idle.get(), (self.id,).into_args());
        }
    }

    fn tell(&self, kernel: &mut Kernel, operation: &'static str, error: &io::Error) {
        match self.on_retry.get() {
            None => {
                let (wheel, owner, path) = (self.id, self.owner, self.path());
                let path = path.display();
                log::warn!(target: "lenore::wheels", "{wheel} of {owner}: {operation} {path}: {error}; it is tried again");
            }
            event => {
                let args = error_args(operation, error, self.id).chain((self.path(),).into_args());
                self.send(kernel, event, args);
            }
        }
    }

    fn log_success(&self) {
        let (wheel, owner, path) = (self.id, self.owner, self.path());
        log::info!(target: "lenore::wheels", "{wheel} of {owner}: {} can be read again", path.display());
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

    /// Ends the following: no other try can succeed.
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

    fn refused(&self, kernel: &mut Kernel, error: FilterError) -> bool {
        if !error.is_out_of_step() {
            let event = self.refusals.event(self.id, self.owner, &error);
            return self.send(kernel, event, (error, self.id, self.path()).into_args());
        }
        let args = ("filter", Errno::EBADMSG as i32, error.to_string(), self.id, self.path()).into_args();
        self.send(kernel, self.on_error.get(), args)
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
        self.next.clear();
    }

    /// Two processes that follow one file would do everything twice.
    fn fork(&self) -> AfterFork {
        AfterFork::Close
    }

    fn describe(&self) -> String {
        let subject = match (&self.path, &*self.file.borrow()) {
            (None, _) => String::from("a handle"),
            (Some(path), Some(_)) => path.display().to_string(),
            (Some(path), None) => match self.naming.latest() {
                Some(error) => format!("{}, which can't be opened: {error}", path.display()),
                None => format!("{}, which does not exist", path.display()),
            },
        };
        let event = self.on_input.get().map_or("nothing", Name::as_str);
        format!("FollowTail ({}) of {subject} -> {event}", self.id)
    }
}

/// How many times longer it waits where it is told of changes: not every change is told of, as of a mapped file's.
const PATIENCE: u32 = 10;

/// How far back the beginning of the line is looked for that is being written.
const LOOKED_BACK: i64 = 4096;

//! The part of a `FollowTail` that it shares with the kernel. Each turn looks at the file once, and sets a timer for
//! the next look.

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
use super::rotation::{Decision, Successors};
use super::trouble::{Trouble, may_pass};
use crate::args::{Args, IntoArgs};
use crate::error::Exception;
use crate::filter::FilterError;
use crate::kernel::{AfterFork, Delivery, Mailbox, Next, Readiness, SessionId, Source, SourceKey, Turn, Wanted, nanos};
use crate::name::Name;
use crate::wheel::refusals::Refusals;
use crate::wheel::stream::inbox::{Inbox, Recipient};
use crate::wheel::{Failure, WheelId};

/// The part of the wheel that it shares with the kernel. No borrow lasts while a state runs.
pub(super) struct State {
    pub(super) id: WheelId,
    pub(super) owner: SessionId,
    /// The wheel's events say that they come from it.
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
    pub(super) input: Inbox,
    /// An unfinished last record of a file that was replaced is delivered.
    pub(super) delivers_last: bool,
    /// `None` while there is no file.
    pub(super) file: RefCell<Option<Followed>>,
    /// Where to begin in the file that existed at the start. `None` once the wheel has gone there.
    pub(super) start: Cell<Option<Start>>,
    /// Why the wheel stops.
    pub(super) ending: RefCell<Option<Ending>>,
    /// The error, with its operation, that the file gave at the start.
    pub(super) failure: Cell<Option<Failed>>,
    /// The errors of reading the file. `naming` has those of looking at its name and opening it.
    pub(super) reading: Trouble,
    pub(super) naming: Trouble,
    /// The wheel is neither dropped nor closed.
    pub(super) open: Cell<bool>,
    /// The wheel has found something since it last waited.
    pub(super) busy: Cell<bool>,
    /// Makes the next look come sooner.
    pub(super) notices: Notices,
    /// The files that have got the name since.
    pub(super) next: Successors,
    /// How long the wheel reads a file on after another one has its name.
    pub(super) rotate_wait: Duration,
}

/// An error, with its operation.
pub(super) type Failed = (&'static str, io::Error);

/// Why the wheel stops on its own.
pub(super) enum Ending {
    Stream(StreamEnd),
    /// No other attempt can succeed.
    Failed(&'static str, io::Error),
}

/// Where the wheel begins in a file that exists at the start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    /// The program's setting.
    pub(super) seek: Option<SeekFrom>,
    /// The length of the file at the start.
    pub(super) length: u64,
    pub(super) file: FileId,
}

impl Start {
    pub(super) fn of(about: &Metadata, seek: Option<SeekFrom>) -> Start {
        Start { seek, length: about.len(), file: identity(about) }
    }

    /// Goes to the place where the wheel begins.
    pub(super) fn go(&self, file: &mut Regular, input: &Inbox, buffer: &mut [u8]) -> io::Result<()> {
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

/// The result of a look. The data has gone to the filter.
enum Look {
    Data,
    Nothing,
    Suspect,
    Rewritten,
    /// The end of a stream. A regular file has none.
    End(StreamEnd),
}

impl State {
    /// Asks for a turn without readiness from the poller.
    pub(super) fn wake(&self) {
        if self.open.get() {
            self.mailbox.woken(self.key);
        }
    }

    fn step(&self, cx: &mut Turn<'_>) -> Result<Next, Next> {
        if !self.takes_more() {
            return Ok(Next::Wait);
        }
        self.input.deliver(cx, self)?;
        if let Some((operation, error)) = self.failure.take() {
            let trouble = if operation == "read" { &self.reading } else { &self.naming };
            return Ok(self.fails(cx, trouble, operation, error));
        }
        if self.file.borrow().is_none() {
            return Ok(self.find(cx));
        }
        let look = self.begin_late(cx).and_then(|()| self.look(cx));
        if look.is_ok() && self.reading.end() {
            self.log_success();
        }
        match look {
            Ok(Look::Data) => {
                self.busy.set(true);
                self.input.deliver(cx, self)?;
                Ok(Next::Again(Readiness::Read))
            }
            Ok(Look::Nothing) => self.rest(cx),
            Ok(Look::Suspect) => Ok(self.pause(cx, WRITE_TAKES)),
            Ok(Look::Rewritten) => {
                self.finish(cx)?;
                if let Some(Followed::Regular(file)) = &mut *self.file.borrow_mut() {
                    file.rewind();
                }
                Ok(self.begin(cx))
            }
            Ok(Look::End(end)) => {
                self.finish(cx)?;
                self.ending.replace(Some(Ending::Stream(end)));
                Ok(Next::Close)
            }
            Err(error) => self.unreadable(cx, error),
        }
    }

    /// Goes to the place where the wheel begins, if it could not do so at the start.
    fn begin_late(&self, cx: &mut Turn<'_>) -> io::Result<()> {
        let (Some(start), Some(Followed::Regular(file))) = (self.start.get(), &mut *self.file.borrow_mut()) else {
            return Ok(());
        };
        start.go(file, &self.input, cx.buffer())?;
        self.start.set(None);
        Ok(())
    }

    /// Reads once, into the filter.
    fn look(&self, cx: &mut Turn<'_>) -> io::Result<Look> {
        let now = cx.now();
        let buffer = cx.buffer();
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

    /// Everything in the file is read. Only now does the wheel look at the name. So everything that was written to an
    /// old file before it was replaced has been delivered.
    fn rest(&self, cx: &mut Turn<'_>) -> Result<Next, Next> {
        if let Some(Followed::Stream { .. }) = &*self.file.borrow() {
            return Ok(Next::Wait);
        }
        let named = self.look_at_name();
        match (self.next.turn(cx.now(), self.rotate_wait), named) {
            (Decision::Leave, _) => self.leave(cx),
            // The wheel still reads the open file.
            (_, Err((operation, error))) => Ok(self.fails(cx, &self.naming, operation, error)),
            (Decision::Stay, Ok(())) => Ok(self.wait(cx)),
            (Decision::Linger(_), Ok(())) => Ok(self.pause(cx, Duration::MAX)),
        }
    }

    /// Looks which file the name leads to. Opens an unknown file at once, before another program removes it.
    fn look_at_name(&self) -> Result<(), Failed> {
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
            // The file was removed or renamed. A program that has it open may still write to it, until another file has
            // the name.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(("stat", error)),
        };
        found.into_iter().for_each(|file| self.next.push(file));
        if self.naming.end() {
            self.log_success();
        }
        Ok(())
    }

    /// Goes on with the next file.
    fn leave(&self, cx: &mut Turn<'_>) -> Result<Next, Next> {
        self.finish(cx)?;
        self.start.set(None);
        self.file.replace(self.next.pop());
        self.notices.next_file();
        Ok(self.begin(cx))
    }

    /// Opens the file if there is one now.
    fn find(&self, cx: &mut Turn<'_>) -> Next {
        let Some(path) = &self.path else { return Next::Wait };
        match Followed::open(path) {
            Ok(followed) => {
                let is_first = match (&followed, self.start.get()) {
                    (Followed::Regular(file), Some(start)) => file.identity() == start.file,
                    _ => false,
                };
                self.file.replace(Some(followed));
                if self.naming.end() {
                    self.log_success();
                }
                if is_first {
                    return Next::Again(Readiness::Read);
                }
                self.start.set(None);
                self.begin(cx)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.naming.end();
                self.wait(cx)
            }
            Err(error) => self.fails(cx, &self.naming, "open", error),
        }
    }

    /// The file can't be read. Another file may have its name, or the wheel may have to open it again.
    fn unreadable(&self, cx: &mut Turn<'_>, error: io::Error) -> Result<Next, Next> {
        let is_named = self.path.is_some() && matches!(&*self.file.borrow(), Some(Followed::Regular(_)));
        if is_named && self.reading.latest().is_some() {
            // An error of the name is reported when the file can be read again.
            let _ = self.look_at_name();
            if self.next.turn(cx.now(), self.rotate_wait) == Decision::Leave {
                self.reading.end();
                return self.leave(cx);
            }
            self.open_again();
        }
        Ok(self.fails(cx, &self.reading, "read", error))
    }

    /// Opens the file again if its name still leads to it. After its file system was mounted anew, the old descriptor
    /// can never be read again.
    fn open_again(&self) {
        let Some(path) = &self.path else { return };
        if let (Ok(Followed::Regular(again)), Some(Followed::Regular(file))) =
            (Followed::open(path), &mut *self.file.borrow_mut())
            && again.identity() == file.identity()
        {
            file.renew(again);
        }
    }

    /// Ends the input of a file. If the last record must wait, the next turn comes back here.
    fn finish(&self, cx: &mut Turn<'_>) -> Result<(), Next> {
        if self.delivers_last {
            self.input.finish();
            self.input.deliver(cx, self)?;
        }
        self.input.reset();
        Ok(())
    }

    /// Sends the reset event, as the wheel reads a file from its start.
    fn begin(&self, cx: &mut Turn<'_>) -> Next {
        self.busy.set(true);
        self.send(cx, self.on_reset.get(), (self.id,).into_args());
        Next::Again(Readiness::Read)
    }

    /// Waits for the next look. Sends the idle event if this look has found nothing.
    fn wait(&self, cx: &mut Turn<'_>) -> Next {
        let next = self.pause(cx, Duration::MAX);
        if matches!(next, Next::At(_)) && !self.busy.replace(false) {
            self.send(cx, self.on_idle.get(), (self.id,).into_args());
        }
        next
    }

    /// Returns when the next look comes: after `at_most` at the latest, or at once.
    fn pause(&self, cx: &mut Turn<'_>, at_most: Duration) -> Next {
        let interval = match self.watch(cx) {
            Outlook::LookAgain => return Next::Again(Readiness::Read),
            Outlook::Told => self.interval.saturating_mul(PATIENCE),
            Outlook::Blind => self.interval,
        };
        let look = cx.read_clock().saturating_add(nanos(interval.min(at_most)));
        Next::At(self.next.due().map_or(look, |due| due.min(look)))
    }

    fn watch(&self, cx: &mut Turn<'_>) -> Outlook {
        let file = match &*self.file.borrow() {
            Some(Followed::Stream { .. }) => return Outlook::Blind,
            Some(Followed::Regular(file)) => Some(file.fd()),
            None => None,
        };
        let next = self.next.with_next(|next| next.map(Regular::fd));
        self.notices.watch(cx.core(), (self.key, self.owner), [file, next], self.path.as_deref())
    }

    /// Handles an error. If another attempt may succeed, it reports the error once and tries again later. Otherwise the
    /// wheel stops.
    fn fails(&self, cx: &mut Turn<'_>, trouble: &Trouble, operation: &'static str, error: io::Error) -> Next {
        let is_stream = matches!(&*self.file.borrow(), Some(Followed::Stream { .. }));
        if !may_pass(operation, &error, self.path.is_some() && !is_stream) {
            self.ending.replace(Some(Ending::Failed(operation, error)));
            return Next::Close;
        }
        // The end of an error is not always reported, such as a change of a directory further up.
        let next = self.pause(cx, self.interval);
        if trouble.is_news(&error) {
            self.tell(cx, operation, &error);
        } else if matches!(next, Next::At(_)) && !self.busy.replace(false) {
            self.send(cx, self.on_idle.get(), (self.id,).into_args());
        }
        next
    }

    fn tell(&self, cx: &mut Turn<'_>, operation: &'static str, error: &io::Error) {
        match self.on_retry.get() {
            None => {
                let (wheel, owner, path) = (self.id, self.owner, self.path());
                let path = path.display();
                log::warn!(target: "lenore::wheels", "{wheel} of {owner}: {operation} {path}: {error}; it is tried again");
            }
            event => {
                self.fail(cx, event, Failure::new(operation, error, self.id));
            }
        }
    }

    fn log_success(&self) {
        let (wheel, owner, path) = (self.id, self.owner, self.path());
        log::info!(target: "lenore::wheels", "{wheel} of {owner}: {} can be read again", path.display());
    }

    /// Reports that the wheel stops.
    fn report_end(&self, cx: &mut Turn<'_>, ending: &Ending) {
        match ending {
            Ending::Stream(StreamEnd::Idle) => {
                self.send(cx, self.on_idle.get(), (self.id,).into_args());
            }
            Ending::Stream(StreamEnd::Error) => {
                self.fail(cx, self.on_error.get(), Failure::end_of_input(self.id));
            }
            Ending::Failed(operation, error) if self.on_error.get().is_none() => {
                let path = self.path();
                let path = path.display();
                log::error!(target: "lenore::wheels", "{} of {}: {operation} {path}: {error}", self.id, self.owner);
            }
            Ending::Failed(operation, error) => {
                self.fail(cx, self.on_error.get(), Failure::new(operation, error, self.id));
            }
        }
    }

    /// Runs a state of the owner, if the event has a name.
    fn send(&self, cx: &mut Turn<'_>, event: Option<Name>, args: Args) -> Delivery {
        event.map_or(Delivery::Done, |event| cx.deliver(self.name, event, args))
    }

    /// Sends a retry or an error event.
    fn fail(&self, cx: &mut Turn<'_>, event: Option<Name>, failure: Failure) -> Delivery {
        self.send(cx, event, (failure.about(self.path().to_string_lossy()),).into_args())
    }

    /// Returns the path. It is empty for a handle.
    fn path(&self) -> PathBuf {
        self.path.clone().unwrap_or_default()
    }
}

impl Recipient for State {
    fn takes_more(&self) -> bool {
        self.open.get() && self.on_input.get().is_some()
    }

    fn record(&self, cx: &mut Turn<'_>, args: Args) -> Delivery {
        self.send(cx, self.on_input.get(), args)
    }

    fn refused(&self, cx: &mut Turn<'_>, error: FilterError) -> Delivery {
        if !error.is_out_of_step() {
            let event = self.refusals.event(self.id, self.owner, &error);
            return self.send(cx, event, (error, self.id, self.path()).into_args());
        }
        self.fail(cx, self.on_error.get(), Failure::of_filter(&error, self.id))
    }

    fn panicked(&self, cx: &mut Turn<'_>, exception: Exception) -> Delivery {
        cx.die(self.name, exception)
    }
}

impl Source for State {
    fn fd(&self) -> RawFd {
        match &*self.file.borrow() {
            Some(Followed::Stream { fd, .. }) => fd.as_raw_fd(),
            Some(Followed::Regular(file)) => file.fd(),
            None => -1,
        }
    }

    /// The poller can't watch regular files.
    fn wanted(&self) -> Option<Wanted> {
        matches!(&*self.file.borrow(), Some(Followed::Stream { .. })).then(|| Wanted::of(true, false, false))?
    }

    fn turn(&self, cx: &mut Turn<'_>, _: Readiness) -> Next {
        self.step(cx).unwrap_or_else(|next| next)
    }

    fn closed(&self, cx: &mut Turn<'_>) {
        self.ending.take().inspect(|ending| self.report_end(cx, ending));
    }

    fn close(&self) {
        self.open.set(false);
        self.notices.close(&self.mailbox);
        self.file.take();
        self.next.clear();
    }

    /// If two processes followed one file, everything would be done twice.
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

/// How many times longer the wheel waits if changes are reported. Some are not, such as those through a memory mapping.
const PATIENCE: u32 = 10;

/// How far before the end the wheel looks for the beginning of a line that is being written.
const LOOKED_BACK: i64 = 4096;

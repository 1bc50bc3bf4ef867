//! `FollowTail`: the records that are appended to a file.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::fs::File;
use std::io::{self, SeekFrom};
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use super::WheelId;
use super::stream::check_is_stream;
use super::stream::inbox::Inbox;
use crate::error::Error;
use crate::filter::{Filter, Line};
use crate::kernel::{InState, core_of};
use crate::name::Name;
use crate::wheel::refusals::Refusals;

mod file;
#[cfg_attr(not(all(feature = "inotify", target_os = "linux")), path = "no_notices.rs")]
mod notices;
mod rotation;
mod state;
mod trouble;

use file::Followed;
use state::{Start, State};

/// A wheel that sends its session an event for each record that is appended to a file.
///
/// The file may be rotated, truncated, or not be there yet. Its name is looked at once everything in the file was read:
/// if it leads to another file by then, that one is read next, from its start. A regular file is looked at again and again, after
/// each [`poll_interval`](FollowTailBuilder::poll_interval); a FIFO, socket or terminal is read when it has something.
///
/// | event | arguments |
/// | --- | --- |
/// | input | ARG0 = the record, ARG1 = the [`WheelId`] |
/// | reset | ARG0 = the [`WheelId`]: what comes now is from the start of a file that appeared, replaced the one before, or was written anew |
/// | idle | ARG0 = the [`WheelId`]: a look has found nothing |
/// | retry | the same arguments as error: the wheel can't go on for now, and tries again |
/// | error | ARG0 = a [`Failure`](super::Failure) whose subject is the path, empty for a handle |
///
/// # Errors that pass
///
/// An error that may pass does not end the following. This session's process may not be allowed to read a new file for a moment, or
/// it runs out of file descriptors, or a disk fails to answer. The wheel sends one retry event for each kind of error when the error
/// begins. Then it tries again at each look, and goes on where it was. Without a retry event it logs a warning. A line in the log at
/// level `info` says that the file can be read again. As long as a new file can't be opened, the wheel goes on with the old one. A
/// file that could not be opened at the start is begun where `seek` says, or where it ended at the start. A file that does not exist
/// is not an error.
///
/// For a path every error may pass, as another file can get the name. The exceptions are a name that is too long, or that the file
/// system refuses (`EINVAL`). For a handle, errors of the descriptor itself are final, such as `EBADF` and `ESTALE`.
///
/// After an error event for `"open"`, `"read"` or `"stat"` nothing is followed any more, and the wheel no longer keeps its session
/// alive. A program that ends for this reason should exit with a code other than 0.
///
/// # Files that are replaced
///
/// A program may go on writing to a file after the file was renamed and another one was made in its place. So the wheel reads the
/// old file until there is something in the new one, and for another [`rotate_wait`](FollowTailBuilder::rotate_wait). The session
/// gets all records of the old file, then the reset event, then the records of the new file. If the name gets a third file
/// meanwhile, the wheel leaves the first one at once.
///
/// With the feature `inotify`, on Linux, the system tells of changes of the file and of what happens to its name, and the look
/// at it comes at once; the interval is ten times as long then, for what the system does not tell. On file systems that other
/// machines may write to, on those that are not known, for a name that is a symbolic link, and when there are no inotify
/// descriptors left, the interval stays as it is.
///
/// A record without its end stays in the filter until the rest comes. When the file is replaced, what is left of it
/// is forgotten, unless [`deliver_last`](FollowTailBuilder::deliver_last) says otherwise.
///
/// # Files that are written anew
///
/// A file that is shorter than before was written anew. So was a longer one, if the 256 bytes before the place where reading goes
/// on are others than before. If it is as long as before, and has the same bytes there, its times tell: a write without growth
/// counts as written anew two seconds later. `touch` and `chmod` don't. Three cases can't be told:
///
/// - The file is truncated between two looks, and gets the same content as before and more. Its new records up to the former length
///   are missed.
/// - It gets the same content within the resolution of the file system's clock, a few milliseconds, after the former write or read.
/// - Its earlier part is changed in place. If it does not grow at the same time, it counts as written anew.
///
/// A file that is removed stays open until there is another one of its name: a program may still be writing to it.
///
/// Whoever can't take more for now, because a receiver is slow or away, takes the input event away
/// ([`event_clear`](FollowTail::event_clear)) and gives it back later: the records wait in the file. They come as long as that is
/// there: of a file that is rotated twice meanwhile, the one in between is missed.
///
/// The wheel keeps its session alive. A forked child has no part in it.
///
/// ```
/// use std::fs::{self, File};
/// use std::io::Write;
/// use lenore::filter::Line;
/// use lenore::wheel::FollowTail;
/// use lenore::{Kernel, Session};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let path = std::env::temp_dir().join(format!("{}.log", std::process::id()));
/// let mut log = File::create(&path)?;
/// writeln!(log, "before")?;
/// let followed = path.clone();
/// let mut kernel = Kernel::new()?;
/// Session::new(None::<FollowTail<Line>>)
///     .state("_start", move |cx| {
///         let wheel = FollowTail::path(&followed, Line::new()).on_input("line").start(cx)?;
///         *cx.heap() = Some(wheel);
///         writeln!(&log, "after")?;
///         Ok(())
///     })
///     .state("line", |cx| {
///         assert_eq!(cx.take::<String>(0)?, "after");
///         *cx.heap() = None;
///         Ok(())
///     })
///     .spawn(&mut kernel)?;
/// kernel.run()?;
/// fs::remove_file(path)?;
/// # Ok(())
/// # }
/// ```
///
/// POE: `POE::Wheel::FollowTail`.
#[must_use = "a wheel that is dropped is closed: keep it in the heap"]
pub struct FollowTail<F: Filter = Line>(Rc<State>, PhantomData<F>);

/// Says how a [`FollowTail`] is to work; made by [`FollowTail::path`].
#[must_use = "does nothing until it is started"]
pub struct FollowTailBuilder<F: Filter> {
    subject: Subject,
    filter: F,
    seek: Option<SeekFrom>,
    interval: Option<Duration>,
    delivers_last: bool,
    on_input: Option<Name>,
    on_error: Option<Name>,
    on_refused: Option<Name>,
    on_reset: Option<Name>,
    on_idle: Option<Name>,
    on_retry: Option<Name>,
    rotate_wait: Duration,
}

enum Subject {
    Path(PathBuf),
    Handle(OwnedFd),
}

/// One of the events of a [`FollowTail`], to be changed while it follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TailEvent {
    /// POE: `InputEvent`.
    Input,
    /// POE: `ErrorEvent`.
    Error,
    /// A record that the filter refuses. POE: nothing like it.
    Refused,
    /// POE: `ResetEvent`.
    Reset,
    /// POE: `IdleEvent`.
    Idle,
    /// POE: nothing like it.
    Retry,
}

impl<F: Filter> FollowTail<F> {
    /// Begins a wheel for the file of that name, whether or not there is one.
    ///
    /// POE: `Filename`.
    #[doc(alias = "Filename")]
    pub fn path(path: impl Into<PathBuf>, filter: F) -> FollowTailBuilder<F> {
        FollowTailBuilder::new(Subject::Path(path.into()), filter)
    }

    /// Begins a wheel for an open file, which it takes over. That another file got its name can't be noticed.
    ///
    /// POE: `Handle`.
    #[doc(alias = "Handle")]
    pub fn file(file: impl Into<OwnedFd>, filter: F) -> FollowTailBuilder<F> {
        FollowTailBuilder::new(Subject::Handle(file.into()), filter)
    }

    /// Returns the id that its events carry.
    ///
    /// POE: `ID`.
    pub fn id(&self) -> WheelId {
        self.0.id
    }

    /// Returns how far a regular file has been delivered, for a [`seek`](FollowTailBuilder::seek) of a later run that is to
    /// miss nothing and get nothing twice: the offset of the first byte that is not part of a delivered record, as far
    /// as the filter knows. `None` while there is no file, and for what is no regular one.
    ///
    /// POE: `tell`, which counts the unfinished record as well.
    pub fn tell(&self) -> Option<u64> {
        match &*self.0.file.borrow() {
            Some(Followed::Regular(file)) => Some(file.offset().saturating_sub(self.0.input.pending().len() as u64)),
            _ => None,
        }
    }

    /// Gives one of the events another name from now on, also for records that were read already.
    ///
    /// POE: `event`.
    pub fn event(&self, event: TailEvent, name: impl Into<Name>) {
        self.set_event(event, Some(name.into()));
    }

    /// Sends one of the events no more. Without an input event nothing is read, until there is one again.
    ///
    /// POE: `event` with an undefined name.
    pub fn event_clear(&self, event: TailEvent) {
        self.set_event(event, None);
    }

    fn set_event(&self, event: TailEvent, name: Option<Name>) {
        match event {
            TailEvent::Input => {
                if self.0.on_input.replace(name).is_none() {
                    self.0.wake();
                }
            }
            TailEvent::Error => self.0.on_error.set(name),
            TailEvent::Refused => self.0.refusals.set_event(name),
            TailEvent::Reset => self.0.on_reset.set(name),
            TailEvent::Idle => self.0.on_idle.set(name),
            TailEvent::Retry => self.0.on_retry.set(name),
        }
    }
}

impl<F: Filter> fmt::Debug for FollowTail<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FollowTail").field("id", &self.id()).field("path", &self.0.path).finish_non_exhaustive()
    }
}

impl<F: Filter> fmt::Debug for FollowTailBuilder<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FollowTailBuilder").field("on_input", &self.on_input).finish_non_exhaustive()
    }
}

impl<F: Filter> Drop for FollowTail<F> {
    fn drop(&mut self) {
        if self.0.open.replace(false) {
            self.0.notices.close(&self.0.mailbox);
            self.0.mailbox.dropped(self.0.key);
        }
    }
}

impl<F: Filter> FollowTailBuilder<F> {
    fn new(subject: Subject, filter: F) -> FollowTailBuilder<F> {
        FollowTailBuilder {
            subject,
            filter,
            seek: None,
            interval: None,
            delivers_last: false,
            on_input: None,
            on_error: None,
            on_refused: None,
            on_reset: None,
            on_idle: None,
            on_retry: None,
            rotate_wait: ROTATE_WAIT,
        }
    }

    /// Names the event for each record; required.
    ///
    /// POE: `InputEvent`.
    #[doc(alias = "InputEvent")]
    pub fn on_input(mut self, event: impl Into<Name>) -> Self {
        self.on_input = Some(event.into());
        self
    }

    /// Names the event for a record that the filter refuses, such as one over its limit: ARG0 = the
    /// [`FilterError`](crate::filter::FilterError), ARG1 = the [`WheelId`], ARG2 = the path (`PathBuf`). Without one, the first of
    /// them is logged. The file is followed on.
    ///
    /// POE: nothing like it; the filter's exception is the program's.
    pub fn on_refused(mut self, event: impl Into<Name>) -> Self {
        self.on_refused = Some(event.into());
        self
    }

    /// Names the event for an error that ends the following, and for the end of a socket or terminal; without one, errors are
    /// logged.
    ///
    /// POE: `ErrorEvent`.
    #[doc(alias = "ErrorEvent")]
    pub fn on_error(mut self, event: impl Into<Name>) -> Self {
        self.on_error = Some(event.into());
        self
    }

    /// Names the event that comes before the first record of a file that appeared, replaced another, or was written anew.
    ///
    /// POE: `ResetEvent`.
    #[doc(alias = "ResetEvent")]
    pub fn on_reset(mut self, event: impl Into<Name>) -> Self {
        self.on_reset = Some(event.into());
        self
    }

    /// Names the event for each look that has found neither data nor another file.
    ///
    /// POE: `IdleEvent`.
    #[doc(alias = "IdleEvent")]
    pub fn on_idle(mut self, event: impl Into<Name>) -> Self {
        self.on_idle = Some(event.into());
        self
    }

    /// Names the event for an error that may pass: the wheel tries again by itself. Without one, a warning is logged.
    ///
    /// The event comes once for each kind of error, until a try succeeds. Its arguments are those of the error event.
    ///
    /// POE: nothing like it; every error ends the following.
    pub fn on_retry(mut self, event: impl Into<Name>) -> Self {
        self.on_retry = Some(event.into());
        self
    }

    /// Sets how long the wheel goes on reading a file after another one has got its name and content. Zero leaves the old file at
    /// once, even for one that is empty. Default: 5 s.
    ///
    /// What is written to the old file later is lost. The records of the new file wait so long.
    ///
    /// POE: nothing like it; the old file is left at once.
    pub fn rotate_wait(mut self, wait: Duration) -> Self {
        self.rotate_wait = wait;
        self
    }

    /// Waits so long from one look at a regular file to the next; a second unless set, and more than zero. Where the system
    /// tells of changes (see [`FollowTail`]) it is ten times as long.
    ///
    /// POE: `PollInterval`, in seconds.
    #[doc(alias = "PollInterval")]
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.interval = Some(interval);
        self
    }

    /// Begins at this place in a regular file that is there already, or at its start or end if the place is outside of it.
    ///
    /// Unless set, the last 4096 bytes are read and the records that end there are dropped: following begins at the end,
    /// and a line that is just being written comes whole.
    ///
    /// POE: `Seek` for `SeekFrom::Start`, `SeekBack` for `SeekFrom::End` with the sign turned round.
    #[doc(alias = "Seek")]
    #[doc(alias = "SeekBack")]
    pub fn seek(mut self, to: SeekFrom) -> Self {
        self.seek = Some(to);
        self
    }

    /// Delivers an unfinished last record of a file that is replaced or written anew, and of a stream that ends, if the
    /// filter has a use for it; see [`Filter::get_last`]. Otherwise it is forgotten.
    ///
    /// POE: nothing like it; the unfinished record is joined with the first one of the new file.
    pub fn deliver_last(mut self) -> Self {
        self.delivers_last = true;
        self
    }

    /// Starts to follow, for the running session.
    ///
    /// The file is opened now, so what is appended from here on is not missed. The first look comes in the next slice.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] with `EISDIR` for a directory; [`Error::InvalidSetting`] without an input event, with an interval of
    /// zero, or for a datagram socket; [`Error::NoActiveSession`] once the session has stopped. Whatever else is wrong with the
    /// file is a retry or an error event.
    ///
    /// POE: `new`.
    pub fn start(self, cx: &mut impl InState) -> Result<FollowTail<F>, Error> {
        let core = core_of(cx);
        let owner = core.running()?;
        let invalid = |setting, reason| Err(Error::InvalidSetting { setting, reason });
        if self.on_input.is_none() {
            return invalid("on_input", "is required");
        }
        if self.interval == Some(Duration::ZERO) {
            return invalid("poll_interval", "must be more than zero");
        }
        let (path, opened) = match self.subject {
            Subject::Path(path) => {
                let opened = Followed::open(&path);
                (Some(path), opened)
            }
            Subject::Handle(fd) => {
                check_is_stream(&fd)?;
                (None, Followed::new(File::from(fd)))
            }
        };
        let id = WheelId::next();
        let input = Inbox::new(id, Rc::new(RefCell::new(self.filter)));
        let mut start = None;
        let (file, failure) = match opened {
            Ok(mut followed) => {
                let mut failure = None;
                match &mut followed {
                    Followed::Regular(file) => {
                        let place =
                            Start { seek: self.seek, length: file.length().unwrap_or(0), file: file.identity() };
                        if let Err(error) = place.go(file, &input, &mut core.sources.read_buffer) {
                            (start, failure) = (Some(place), Some(("read", error)));
                        }
                    }
                    Followed::Stream { .. } if self.interval.or(self.seek.map(|_| Duration::ZERO)).is_some() => {
                        log::warn!(target: "lenore::wheels", "a FollowTail of {owner}: no seeking and polling of what is no file");
                    }
                    Followed::Stream { .. } => {}
                }
                (Some(followed), failure)
            }
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
                let subject = path.map_or_else(|| "a handle".to_owned(), |path| path.display().to_string());
                return Err(Error::os("open", subject, error));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.is_some() => (None, None),
            Err(error) => {
                // How long it is can often be seen even so: what is in it now is not to be delivered later.
                let about = path.as_ref().and_then(|path| std::fs::metadata(path).ok());
                start = about.map(|about| Start::of(&about, self.seek));
                (None, Some(("open", error)))
            }
        };
        let mailbox = core.mailbox();
        let make = |key| {
            Rc::new(State {
                id,
                owner,
                name: Name::new("FollowTail"),
                key,
                mailbox: mailbox.clone(),
                path,
                interval: self.interval.unwrap_or(POLL_INTERVAL),
                on_input: Cell::new(self.on_input),
                on_error: Cell::new(self.on_error),
                refusals: Refusals::new(self.on_refused),
                on_reset: Cell::new(self.on_reset),
                on_idle: Cell::new(self.on_idle),
                on_retry: Cell::new(self.on_retry),
                input,
                delivers_last: self.delivers_last,
                file: RefCell::new(file),
                start: Cell::new(start),
                ending: RefCell::default(),
                failure: Cell::new(failure),
                reading: Default::default(),
                naming: Default::default(),
                open: Cell::new(true),
                busy: Cell::new(false),
                notices: Default::default(),
                next: Default::default(),
                rotate_wait: self.rotate_wait,
            })
        };
        let mut state = None;
        core.add_source(owner, |key| state.insert(make(key)).clone())?;
        let state = state.expect("add_source has made it");
        state.wake();
        Ok(FollowTail(state, PhantomData))
    }
}

/// The time from one look to the next.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How long a file is read on when another one has its name: what other programs that follow files wait as well.
const ROTATE_WAIT: Duration = Duration::from_secs(5);

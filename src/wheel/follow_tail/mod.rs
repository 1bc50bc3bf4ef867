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
/// The file may be rotated, truncated, or not exist yet. When the wheel has read everything in the file, it looks at
/// the file's name. If the name then leads to another file, the wheel reads that file next, from its start. The wheel
/// looks at a regular file once per [`poll_interval`](FollowTailBuilder::poll_interval). It reads a FIFO, socket or
/// terminal when data arrives.
///
/// | event | arguments |
/// | --- | --- |
/// | input | ARG0 = the record, ARG1 = the [`WheelId`] |
/// | refused | ARG0 = the [`FilterError`](crate::filter::FilterError), ARG1 = the [`WheelId`], ARG2 = the path |
/// | reset | ARG0 = the [`WheelId`]. The next record begins a file that appeared, replaced another, or was rewritten. |
/// | idle | ARG0 = the [`WheelId`]. A look has found nothing. |
/// | retry | The same arguments as error. The wheel can't go on for now, and tries again. |
/// | error | ARG0 = a [`Failure`](super::Failure). Its subject is the path, or empty for a handle. |
///
/// # Temporary errors
///
/// A temporary error does not end the wheel's work. Examples are a new file that the process may not read yet, a
/// process that runs out of file descriptors, and a disk that fails to answer. When an error begins, the wheel sends
/// one retry event for each kind of error, or logs a warning if it has no retry event. It tries again at each look, and
/// goes on where it was. When the file can be read again, it logs a line at level `info`. A file that does not exist is
/// not an error.
///
/// As long as a new file can't be opened, the wheel goes on with the old one. If it can't open the file at the start,
/// it later begins where [`seek`](FollowTailBuilder::seek) says, or else where the file ended at the start.
///
/// For a path almost every error is temporary, because another file can get the name. The exceptions are a name that is
/// too long, and a name that the file system refuses (`EINVAL`). For a handle, errors of the descriptor itself are
/// final, such as `EBADF` and `ESTALE`.
///
/// After an error event for `"open"`, `"read"` or `"stat"` the wheel follows nothing any more, and no longer keeps its
/// session alive. A program that ends for this reason should exit with a code other than 0.
///
/// # Files that are replaced
///
/// A program may go on writing to a file after the file was renamed and another was made in its place. So the wheel
/// reads the old file until the new one has content, and for another [`rotate_wait`](FollowTailBuilder::rotate_wait).
/// The session gets all records of the old file, then the reset event, then the records of the new file. If a third
/// file gets the name meanwhile, the wheel leaves the first one at once.
///
/// With the feature `inotify`, on Linux, the system reports changes of the file and of its name, and the wheel looks at
/// once. It also looks every ten intervals, for changes that the system does not report. It keeps the plain interval in
/// three cases: other machines may write to the file system or its type is unknown, the name is a symbolic link, or no
/// inotify descriptors are left.
///
/// An incomplete record stays in the filter until the rest comes. When the file is replaced, the wheel discards it,
/// unless [`deliver_last`](FollowTailBuilder::deliver_last) is set.
///
/// # Files that are rewritten
///
/// The wheel takes a file as rewritten, and reads it from its start, in these cases:
///
/// - The file is shorter than before.
/// - The 256 bytes before the place where the wheel goes on reading have changed.
/// - The file was written to without growing, and has not grown two seconds later. `touch` and `chmod` don't count as a
///   write.
///
/// The wheel can't detect three cases:
///
/// - The file is truncated between two looks, and gets the same content as before and more. Its new records up to the
///   former length are missed.
/// - It gets the same content within the resolution of the file system's clock, a few milliseconds, after the former
///   write or read.
/// - An earlier part of it is changed in place. If the file does not grow at the same time, the wheel takes it as
///   rewritten.
///
/// The wheel keeps a removed file open until another file has its name, because a program may still be writing to it.
///
/// If the receiver of the records is slow or away, the session takes the input event away with
/// [`event_clear`](FollowTail::event_clear), and sets it again later. The records wait in the file, as long as the
/// file exists. If the file is rotated twice meanwhile, the wheel misses the file in between.
///
/// The wheel keeps its session alive. A forked child does not keep the wheel.
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

/// Sets how a [`FollowTail`] works. [`FollowTail::path`] makes one.
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

/// One of the events of a [`FollowTail`], for [`FollowTail::event`] and [`FollowTail::event_clear`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TailEvent {
    /// A record has come. POE: `InputEvent`.
    Input,
    /// An error has ended the wheel's work. POE: `ErrorEvent`.
    Error,
    /// The filter has refused a record. POE: nothing like it.
    Refused,
    /// The next record is from the start of a file. POE: `ResetEvent`.
    Reset,
    /// A look has found nothing. POE: `IdleEvent`.
    Idle,
    /// A temporary error has begun. POE: nothing like it.
    Retry,
}

impl<F: Filter> FollowTail<F> {
    /// Returns the builder of a wheel that follows the file with this path. The file need not exist yet.
    ///
    /// POE: `Filename`.
    #[doc(alias = "Filename")]
    pub fn path(path: impl Into<PathBuf>, filter: F) -> FollowTailBuilder<F> {
        FollowTailBuilder::new(Subject::Path(path.into()), filter)
    }

    /// Returns the builder of a wheel that takes over an open file. The wheel can't notice that another file gets the
    /// file's name.
    ///
    /// POE: `Handle`.
    #[doc(alias = "Handle")]
    pub fn file(file: impl Into<OwnedFd>, filter: F) -> FollowTailBuilder<F> {
        FollowTailBuilder::new(Subject::Handle(file.into()), filter)
    }

    /// Returns the id that the wheel's events carry.
    ///
    /// POE: `ID`.
    pub fn id(&self) -> WheelId {
        self.0.id
    }

    /// Returns how far the wheel has delivered a regular file. That is the offset of the first byte that is not part of a
    /// delivered record, as far as the filter knows. A later run that passes it to [`seek`](FollowTailBuilder::seek)
    /// misses no record, and gets none twice. Returns `None` while there is no file, and for anything but a regular
    /// file.
    ///
    /// POE: `tell`, which counts the unfinished record as well.
    pub fn tell(&self) -> Option<u64> {
        match &*self.0.file.borrow() {
            Some(Followed::Regular(file)) => Some(file.offset().saturating_sub(self.0.input.pending().len() as u64)),
            _ => None,
        }
    }

    /// Changes the name of one of the wheel's events, or names an event that had no name. Records that the wheel has
    /// already read come under the new name, too.
    ///
    /// POE: `event`.
    pub fn event(&self, event: TailEvent, name: impl Into<Name>) {
        self.set_event(event, Some(name.into()));
    }

    /// Takes one of the wheel's events away. Without an input event the wheel reads nothing, until it has one again.
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

    /// Names the event for each record. Required.
    ///
    /// POE: `InputEvent`.
    #[doc(alias = "InputEvent")]
    pub fn on_input(mut self, event: impl Into<Name>) -> Self {
        self.on_input = Some(event.into());
        self
    }

    /// Names the event for a record that the filter refuses, such as one over its limit. ARG0 is the
    /// [`FilterError`](crate::filter::FilterError), ARG1 the [`WheelId`], ARG2 the path (`PathBuf`). Without the event
    /// the wheel logs the first refused record. In both cases it goes on with the next record.
    ///
    /// POE: nothing like it. An exception in a filter reaches the program.
    pub fn on_refused(mut self, event: impl Into<Name>) -> Self {
        self.on_refused = Some(event.into());
        self
    }

    /// Names the event for an error that ends the wheel's work, and for the end of a socket or terminal. Without it
    /// errors are logged.
    ///
    /// POE: `ErrorEvent`.
    #[doc(alias = "ErrorEvent")]
    pub fn on_error(mut self, event: impl Into<Name>) -> Self {
        self.on_error = Some(event.into());
        self
    }

    /// Names the event that comes before the first record of a file that appeared, replaced another, or was rewritten.
    ///
    /// POE: `ResetEvent`.
    #[doc(alias = "ResetEvent")]
    pub fn on_reset(mut self, event: impl Into<Name>) -> Self {
        self.on_reset = Some(event.into());
        self
    }

    /// Names the event for each look that finds neither data nor another file.
    ///
    /// POE: `IdleEvent`.
    #[doc(alias = "IdleEvent")]
    pub fn on_idle(mut self, event: impl Into<Name>) -> Self {
        self.on_idle = Some(event.into());
        self
    }

    /// Names the event for a [temporary error](FollowTail#temporary-errors), after which the wheel tries again on its
    /// own. Without it the wheel logs a warning.
    ///
    /// The event comes once for each kind of error, until a try succeeds. Its arguments are those of the error event.
    ///
    /// POE: nothing like it. Every error ends the wheel's work.
    pub fn on_retry(mut self, event: impl Into<Name>) -> Self {
        self.on_retry = Some(event.into());
        self
    }

    /// Sets how long the wheel goes on reading a file after another file has its name and has content. Zero leaves the
    /// old file at once, even for a new file that is empty. Default: 5 s.
    ///
    /// Anything written to the old file after that span is lost. The records of the new file wait for the span.
    ///
    /// POE: nothing like it. POE leaves the old file at once.
    pub fn rotate_wait(mut self, wait: Duration) -> Self {
        self.rotate_wait = wait;
        self
    }

    /// Sets how long the wheel waits from one look at a regular file to the next. It must be more than zero. Where the
    /// system reports changes (see [`FollowTail`]), the wheel waits ten times as long. Default: 1 s.
    ///
    /// POE: `PollInterval`, in seconds.
    #[doc(alias = "PollInterval")]
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.interval = Some(interval);
        self
    }

    /// Sets where the wheel begins in a regular file that exists at the start. A place outside of the file means its
    /// start or its end.
    ///
    /// Without this call, the wheel begins at the end. It first reads the last 4096 bytes and drops the records that
    /// end there, so that a line which is just being written comes whole.
    ///
    /// POE: `Seek` for `SeekFrom::Start`, and `SeekBack` with the opposite sign for `SeekFrom::End`.
    #[doc(alias = "Seek")]
    #[doc(alias = "SeekBack")]
    pub fn seek(mut self, to: SeekFrom) -> Self {
        self.seek = Some(to);
        self
    }

    /// Delivers an unfinished last record when a file is replaced or rewritten, and when a stream ends. The filter must
    /// support it ([`Filter::get_last`]). Otherwise the wheel discards the record.
    ///
    /// POE: nothing like it. POE joins the unfinished record with the first one of the new file.
    pub fn deliver_last(mut self) -> Self {
        self.delivers_last = true;
        self
    }

    /// Starts to follow, for the running session.
    ///
    /// `start` opens the file, so the wheel misses nothing that is appended from now on. The first look comes in the
    /// next slice.
    ///
    /// # Errors
    ///
    /// - [`Error::Os`] with `EISDIR` for a directory
    /// - [`Error::InvalidSetting`] without an input event, with an interval of zero, or for a datagram socket
    /// - [`Error::NoActiveSession`] once the session has stopped
    ///
    /// All other problems with the file are retry or error events.
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
                        log::warn!(target: "lenore::wheels", "a FollowTail of {owner} ignores seek and poll_interval: it does not follow a regular file");
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
                // The length of the file is often known even so. Its present content must not be delivered later.
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

/// Default for `poll_interval`.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Default for `rotate_wait`. Other programs that follow files wait as long.
const ROTATE_WAIT: Duration = Duration::from_secs(5);

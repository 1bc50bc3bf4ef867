//! What can go wrong: `Error` for calls that were not carried out, `Exception` for what escapes from a state.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::Arc;

use crate::args::{ArgError, is_unwritten};
use crate::destroy::destroy_payload;
use crate::kernel::{AlarmId, SessionId};
use crate::name::Name;
use crate::sys::fork::Refused;
use crate::sys::threads::NotAlone;

/// What a state returns when it may fail: any error converts into [`Exception`] by `?`.
pub type Result<T = (), E = Exception> = std::result::Result<T, E>;

/// Why a call to the kernel was not carried out. Nothing was changed, unless the call's documentation says otherwise.
///
/// Its `Debug` form is the same text as its `Display` form, because Rust prints the `Debug` form of an error that
/// `main` returns.
#[non_exhaustive]
pub enum Error {
    /// No session has this id or alias: the session has stopped, or never existed. POE: `ESRCH`.
    NoSuchSession(String),
    /// The alias already names `owner`. POE: `EEXIST`.
    AliasTaken {
        /// The alias asked for.
        alias: Name,
        /// The session that has it.
        owner: SessionId,
    },
    /// No session has this alias. POE: `ESRCH`.
    NoSuchAlias(String),
    /// The alias names another session. Only that session may remove it. POE: `EPERM`.
    NotYourAlias {
        /// The alias.
        alias: Name,
        /// The session that has it.
        owner: SessionId,
    },
    /// No pending alarm has this id: it fired, or was removed. POE: `ESRCH`.
    NoSuchAlarm(AlarmId),
    /// Another session set the alarm. POE: `EPERM`.
    NotYourAlarm(AlarmId),
    /// The session holds no extra reference with this tag. POE: the count would turn negative.
    NoSuchTag {
        /// The session.
        session: SessionId,
        /// The tag.
        tag: Name,
    },
    /// The session to be detached is not a child of the running session. POE: `EPERM`.
    NotYourChild(SessionId),
    /// The session is already a child of the kernel. POE: `EPERM`.
    AlreadyDetached(SessionId),
    /// A session was built without a `_start` state; it was not created.
    NoStartState,
    /// The name `_signal` belongs to the kernel. No state may have it.
    ReservedState(Name),
    /// The call acts on the running session, and no session is running.
    NoActiveSession,
    /// A background session can neither fork nor spawn a Daemon, because the forked child would not have the session.
    InBackground(SessionId),
    /// The kernel has 16,777,215 sessions, or the process has no numbers left for new ones.
    TooManySessions,
    /// A wheel can't use the value that it was given as an address.
    InvalidAddress {
        /// The address as it was given.
        address: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An argument of the running event could not be read.
    Argument {
        /// The session whose state asked.
        session: SessionId,
        /// The state.
        state: Name,
        /// What was asked for and what was found.
        source: ArgError,
    },
    /// An argument could not be read from a list of [`Args`](crate::Args) that the program holds, such as ARG1 of a
    /// postback's event.
    ListedArgument(ArgError),
    /// The value that a call returned is not of the type asked for.
    Value {
        /// The type asked for.
        wanted: &'static str,
        /// The type of the value that was returned, or a text which says that there was none.
        found: &'static str,
        /// The statement that asked.
        caller: &'static Location<'static>,
    },
    /// A process with more than one thread can't be forked: locks that the other threads hold would stay locked in the
    /// child.
    ///
    /// The kernel has already waited some milliseconds for a thread that was about to end. Join threads before the
    /// process forks, or start them in its children.
    Threads {
        /// How many threads the process has.
        count: usize,
        /// The other threads, by name and thread id, as far as the system tells. May be empty.
        others: String,
    },
    /// A [`TestKernel`](crate::testing::TestKernel) can neither be forked nor be moved into another process: its clock
    /// would stand still there.
    #[cfg(feature = "testing")]
    ForkInTest,
    /// A wheel, a filter or a component can't work with this setting.
    InvalidSetting {
        /// The name of the setting.
        setting: &'static str,
        /// What is wrong with its value.
        reason: &'static str,
    },
    /// A launcher such as systemd passed sockets to this process in environment variables, and a variable's value makes
    /// no sense or a socket can't be used.
    InvalidEnvironment {
        /// The name of the variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// This process is to take over from a predecessor, and can't understand what the predecessor sent.
    Handover {
        /// What is wrong.
        reason: String,
    },
    /// The process inherited no socket of this name, or the socket of this name is of another type.
    NotInherited {
        /// The name that was asked for.
        name: String,
        /// What the process inherited instead.
        found: String,
    },
    /// The session called itself and the called state failed; or any called state failed under
    /// [`Exceptions::EndTheRun`](crate::Exceptions::EndTheRun).
    Exception(Exception),
    /// A state failed and no session handled the `DIE` signal: everything was stopped.
    Died(Box<Died>),
    /// The operating system refused `call`.
    Os {
        /// The system call, or what was being attempted.
        call: &'static str,
        /// What the call was about: an address, a descriptor, a path, a pid. May be empty.
        subject: String,
        /// The reason, with its errno.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn os(call: &'static str, subject: impl fmt::Display, source: impl Into<io::Error>) -> Error {
        Error::Os { call, subject: subject.to_string(), source: source.into() }
    }
}

impl From<ArgError> for Error {
    fn from(source: ArgError) -> Error {
        Error::ListedArgument(source)
    }
}

impl From<NotAlone> for Error {
    fn from(why: NotAlone) -> Error {
        match why {
            NotAlone::Threads { count, others } => Error::Threads { count, others },
            NotAlone::Unknown(source) => {
                let subject = "in /proc/self/task, before a fork";
                Error::os("counting threads", subject, source)
            }
        }
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Error {
        match refused {
            Refused::NotAlone(why) => why.into(),
            Refused::BySystem(errno) => Error::os("fork", "", errno),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoSuchSession(dest) => write!(f, "no such session: {dest}"),
            Error::AliasTaken { alias, owner } => {
                write!(f, "alias {alias} already names {owner}, which alone may remove it")
            }
            Error::NoSuchAlias(alias) => write!(f, "no such alias: {alias}"),
            Error::NotYourAlias { alias, owner } => {
                write!(f, "alias {alias} belongs to {owner}, which alone may remove it")
            }
            Error::NoSuchAlarm(id) => write!(f, "no such alarm: {id}"),
            Error::NotYourAlarm(id) => write!(f, "{id} belongs to another session, which alone may change it"),
            Error::NoSuchTag { session, tag } => write!(f, "{session} holds no extra reference {tag}"),
            Error::NotYourChild(id) => {
                write!(f, "{id} is not a child of the running session: only its parent may detach it")
            }
            Error::AlreadyDetached(id) => {
                write!(f, "{id} is already a child of the kernel: it can't be detached again")
            }
            Error::NoStartState => f.write_str("a session needs a _start state"),
            Error::ReservedState(name) => write!(f, "{name} can't be the name of a state"),
            Error::NoActiveSession => f.write_str("no session is running"),
            Error::InBackground(id) => write!(f, "{id} is a background session, which can't fork"),
            Error::TooManySessions => f.write_str("too many sessions"),
            Error::InvalidAddress { address, reason } => write!(f, "invalid address {address:?}: {reason}"),
            Error::Argument { session, state, source } => write!(f, "{session}, state {state}: {source}"),
            Error::ListedArgument(source) => source.fmt(f),
            Error::Value { wanted, found, caller } => {
                write!(f, "the call should return {wanted}, but returned {found}")?;
                if is_unwritten(wanted) && !found.starts_with("nothing") {
                    write!(f, ": write the type, `::<{found}>`")?;
                }
                write!(f, " ({caller})")
            }
            Error::Threads { count, others } if others.is_empty() => {
                write!(f, "can't fork: the process has {count} threads. Start threads in the children, after the fork")
            }
            Error::Threads { count, others } => {
                write!(
                    f,
                    "can't fork: the process has {count} threads, besides this one {others}. Start threads in the children, after the fork"
                )
            }
            #[cfg(feature = "testing")]
            Error::ForkInTest => f.write_str(
                "can't fork: a test moves the clock of this kernel, and could not in the child. \
                 Test forks with a `Kernel` inside of `lenore::testing::in_process`",
            ),
            Error::InvalidSetting { setting, reason } => write!(f, "invalid {setting}: {reason}"),
            Error::InvalidEnvironment { variable, value, reason } => write!(f, "{variable}={value}: {reason}"),
            Error::Handover { reason } => write!(f, "taking over from the predecessor: {reason}"),
            Error::NotInherited { name, found } => {
                write!(f, "no such socket was inherited by the name {name:?}: {found}")
            }
            Error::Exception(exception) => exception.fmt(f),
            Error::Died(died) => died.fmt(f),
            Error::Os { call, subject, source } if subject.is_empty() => write!(f, "{call}: {source}"),
            Error::Os { call, subject, source } => write!(f, "{call} {subject}: {source}"),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Argument { source, .. } => Some(source),
            Error::ListedArgument(source) => Some(source),
            Error::Exception(exception) => Some(exception.error()),
            Error::Died(died) => Some(died.exception.error()),
            Error::Os { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// What escaped from a state: an error it returned, or its panic.
///
/// Any error becomes an exception by `?`. The exception keeps that error, so that a handler of the `DIE` signal, or the
/// caller of [`Kernel::run`](crate::Kernel::run), gets the original error back.
///
/// ```
/// use lenore::Exception;
///
/// let exception = Exception::from(std::io::Error::other("disk on fire"));
/// assert_eq!(exception.to_string(), "disk on fire");
/// assert!(exception.downcast_ref::<std::io::Error>().is_some());
/// ```
///
/// POE: what a handler `die`s with.
#[derive(Clone)]
pub struct Exception {
    error: Arc<dyn std::error::Error + Send + Sync>,
    /// The log has it already.
    is_logged: bool,
}

impl Exception {
    /// Makes an exception of a text.
    pub fn new(text: impl Into<String>) -> Exception {
        Exception::of(Arc::new(Text(text.into())))
    }

    fn of(error: Arc<dyn std::error::Error + Send + Sync>) -> Exception {
        Exception { error, is_logged: false }
    }

    /// Marks the exception as logged, so that it is not logged again when it ends the run.
    pub(crate) fn logged(self) -> Exception {
        Exception { is_logged: true, ..self }
    }

    pub(crate) fn is_logged(&self) -> bool {
        self.is_logged
    }

    /// Makes an exception from the payload that `catch_unwind` caught.
    pub(crate) fn from_panic(payload: Box<dyn std::any::Any + Send>) -> Exception {
        let text = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
            (Some(text), _) => (*text).to_owned(),
            (_, Some(text)) => text.clone(),
            _ => "something that is not text".to_owned(),
        };
        destroy_payload(payload);
        Exception::of(Arc::new(Panicked(text)))
    }

    /// Returns the error inside.
    pub fn error(&self) -> &(dyn std::error::Error + 'static) {
        &*self.error
    }

    /// Returns the error inside if it is an `E`.
    pub fn downcast_ref<E: std::error::Error + 'static>(&self) -> Option<&E> {
        self.error().downcast_ref()
    }

    /// Tells whether the state panicked.
    pub fn is_panic(&self) -> bool {
        self.downcast_ref::<Panicked>().is_some()
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Exception {
    fn from(error: E) -> Exception {
        let boxed: Box<dyn std::error::Error + Send + Sync> = Box::new(error);
        match boxed.downcast::<Error>() {
            // A self-call that failed: its exception is passed on, without one more wrapping at each level.
            Ok(error) => match *error {
                Error::Exception(exception) => exception,
                other => Exception::of(Arc::new(other)),
            },
            Err(other) => Exception::of(Arc::from(other)),
        }
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The kernel logs exceptions outside of any state: a panic of the program's own text must not end the run.
        catch_unwind(AssertUnwindSafe(|| self.error.fmt(f))).unwrap_or_else(|payload| {
            destroy_payload(payload);
            f.write_str("an error whose text panics")
        })
    }
}

impl fmt::Debug for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The record that comes with a `DIE` signal as ARG1, and with [`Error::Died`] from [`Kernel::run`](crate::Kernel::run).
///
/// Its `Debug` form is the same text as its `Display` form, as with [`Error`].
///
/// POE: the hash of `DIE`'s ARG1, with the same names.
#[doc(alias = "DIE")]
#[derive(Clone)]
#[non_exhaustive]
pub struct Died {
    /// The error or panic (POE: `error_str`).
    pub exception: Exception,
    /// The session whose state failed.
    pub dest_session: SessionId,
    /// The event that the state was handling.
    pub event: Name,
    /// The session that had sent the event.
    pub source_session: SessionId,
    /// The state from which it had been sent, if any.
    pub from_state: Option<Name>,
    /// The statement that had sent it (POE: `file` and `line`).
    pub location: &'static Location<'static>,
    /// The failure of a handler of this `DIE` signal, if one failed in its turn. Only
    /// [`Kernel::run`](crate::Kernel::run) sets it.
    pub also: Option<Box<Died>>,
}

impl fmt::Display for Died {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.exception.downcast_ref() {
            // It names them by itself.
            Some(Error::Argument { session, state, .. }) if (*session, *state) == (self.dest_session, self.event) => {
                fmt::Display::fmt(&self.exception, f)?;
            }
            _ => write!(f, "{}, state {}: {}", self.dest_session, self.event, self.exception)?,
        }
        self.also.as_ref().map_or(Ok(()), |also| write!(f, "; then, in a handler of DIE: {also}"))
    }
}

impl fmt::Debug for Died {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Died {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.exception.error())
    }
}

#[derive(Debug)]
struct Text(String);

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Text {}

#[derive(Debug)]
struct Panicked(String);

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "panicked: {}", self.0)
    }
}

impl std::error::Error for Panicked {}

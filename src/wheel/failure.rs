//! The argument of every error event.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use nix::errno::Errno;

use super::WheelId;
use crate::error::Error;
use crate::filter::FilterError;

/// Why a wheel sends an error event: which operation has failed, on what, and for what reason, or that the input has
/// ended.
///
/// It is ARG0 of the error events of all wheels, and the argument of the error callbacks of
/// [components](crate::component). The end of input is a failure of `"read"` with errno 0 and an empty text: see
/// [`is_end_of_input`](Failure::is_end_of_input).
///
/// ```
/// use std::io::Write;
/// use std::os::unix::net::UnixStream;
/// use lenore::filter::Line;
/// use lenore::wheel::{Failure, ReadWrite};
/// use lenore::{Kernel, Session};
///
/// # fn main() -> Result<(), lenore::Error> {
/// let (ours, mut peer) = UnixStream::pair().expect("a pair of sockets");
/// let mut kernel = Kernel::new()?;
/// Session::new(None::<ReadWrite<Line>>)
///     .args((ours,))
///     .state("_start", |cx| {
///         let ours: UnixStream = cx.take(0)?;
///         let wheel = ReadWrite::stream(ours, Line::new()).on_input("line").on_error("failed").start(cx)?;
///         *cx.heap() = Some(wheel);
///         Ok(())
///     })
///     .state("line", |cx| assert_eq!(cx.arg::<String>(0).unwrap(), "hello"))
///     .state("failed", |cx| {
///         let failure: Failure = cx.take(0)?;
///         assert!(failure.is_end_of_input());
///         assert_eq!(failure.to_string(), "read: end of input");
///         assert_eq!(failure.wheel, cx.heap().take().map(|wheel| wheel.id()));
///         Ok(())
///     })
///     .spawn(&mut kernel)?;
/// peer.write_all(b"hello\n").expect("room in the socket");
/// drop(peer);
/// kernel.run()
/// # }
/// ```
///
/// POE: ARG0 to ARG3 of an ErrorEvent or FailureEvent, and ARG4 of `Run`'s.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// The operation that has failed: `"read"`, `"write"`, `"handshake"`, `"connect"`, `"accept"`, `"bind"`, and so on.
    /// `"filter"` stands for a record that can't be put, and for input in which the filter can't find the next record.
    /// POE: ARG0.
    pub operation: &'static str,
    /// The system's error number. 0 at the end of the input. POE: ARG1.
    pub errno: i32,
    /// The reason as text. Empty at the end of the input. POE: ARG2.
    pub text: String,
    /// The wheel that reports it. `None` if a component could not start the wheel. POE: ARG3.
    pub wheel: Option<WheelId>,
    /// What the operation was about: the path of a [`FollowTail`](super::FollowTail), `"STDIN"`, `"STDOUT"` or
    /// `"STDERR"` of a [`Run`](super::Run), or the address of a connection that a component could not start. Otherwise
    /// empty. POE: ARG4 of `Run`.
    pub subject: String,
}

impl Failure {
    /// Makes a failure from an error of the system, for a wheel of your own.
    ///
    /// If the error has no errno, the failure gets one that fits the error's kind, or `EIO`. 0 would look like the end
    /// of the input.
    pub fn new(operation: &'static str, error: &io::Error, wheel: WheelId) -> Failure {
        let errno = error.raw_os_error().unwrap_or_else(|| errno_of(error.kind()) as i32);
        Failure { operation, errno, text: error.to_string(), wheel: Some(wheel), subject: String::new() }
    }

    /// Makes the failure that reports the end of the input.
    pub fn end_of_input(wheel: WheelId) -> Failure {
        Failure { operation: "read", errno: 0, text: String::new(), wheel: Some(wheel), subject: String::new() }
    }

    /// Makes a failure from a filter's error, after which nothing more can be read, or for a record that could not be
    /// put. Its errno is `EBADMSG`.
    pub fn of_filter(error: &FilterError, wheel: WheelId) -> Failure {
        let errno = Errno::EBADMSG as i32;
        Failure { operation: "filter", errno, text: error.to_string(), wheel: Some(wheel), subject: String::new() }
    }

    /// Makes a failure from the error that a wheel's constructor returned.
    pub(crate) fn of_error(operation: &'static str, error: &Error) -> Failure {
        match error {
            Error::Os { call, subject, source } => Failure {
                operation: call,
                // An error without an errno is about a name.
                errno: source.raw_os_error().unwrap_or(Errno::EADDRNOTAVAIL as i32),
                text: source.to_string(),
                wheel: None,
                subject: subject.clone(),
            },
            _ => {
                let (errno, subject) = (Errno::EINVAL as i32, String::new());
                Failure { operation, errno, text: error.to_string(), wheel: None, subject }
            }
        }
    }

    /// Sets the subject.
    #[must_use]
    pub fn about(mut self, subject: impl Into<String>) -> Failure {
        self.subject = subject.into();
        self
    }

    /// Tells whether this is the end of the input, so that the peer has closed its side in the usual way.
    pub fn is_end_of_input(&self) -> bool {
        self.operation == "read" && self.errno == 0
    }

    /// Returns the reason as a kind of the standard library: [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) at the end
    /// of the input, and [`InvalidData`](io::ErrorKind::InvalidData) for a filter's error.
    pub fn kind(&self) -> io::ErrorKind {
        match (self.operation, self.errno) {
            ("filter", _) => io::ErrorKind::InvalidData,
            (_, 0) => io::ErrorKind::UnexpectedEof,
            (_, errno) => io::Error::from_raw_os_error(errno).kind(),
        }
    }

    /// Tells whether the connection still works: at the end of the input, and when the filter has failed.
    pub(crate) fn is_harmless(&self) -> bool {
        self.is_end_of_input() || self.operation == "filter"
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.operation)?;
        if !self.subject.is_empty() {
            write!(f, " {}", self.subject)?;
        }
        write!(f, ": {}", if self.is_end_of_input() { "end of input" } else { &self.text })
    }
}

impl StdError for Failure {}

/// Keeps the failure as the inner error, with its text.
impl From<Failure> for io::Error {
    fn from(failure: Failure) -> io::Error {
        io::Error::new(failure.kind(), failure)
    }
}

/// Returns an errno for a kind of error without one, such as an error that a transport has made.
fn errno_of(kind: io::ErrorKind) -> Errno {
    match kind {
        io::ErrorKind::BrokenPipe => Errno::EPIPE,
        io::ErrorKind::ConnectionAborted => Errno::ECONNABORTED,
        io::ErrorKind::InvalidData => Errno::EPROTO,
        io::ErrorKind::TimedOut => Errno::ETIMEDOUT,
        _ => Errno::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_names_operation_subject_and_reason() {
        let id = WheelId::next();
        let failure = Failure::new("write", &io::Error::from(Errno::EPIPE), id);
        assert_eq!(failure.to_string(), "write: Broken pipe (os error 32)");
        assert_eq!(failure.about("STDIN").to_string(), "write STDIN: Broken pipe (os error 32)");
        assert_eq!(Failure::end_of_input(id).about("STDOUT").to_string(), "read STDOUT: end of input");
    }

    #[test] // K-WH-10: errno 0 is the end of file
    fn an_error_without_an_errno_is_not_the_end_of_input() {
        let failure = Failure::new("read", &io::Error::other("torn"), WheelId::next());
        assert_eq!((failure.errno, failure.text.as_str()), (Errno::EIO as i32, "torn"));
        assert!(!failure.is_end_of_input());
        assert!(Failure::end_of_input(WheelId::next()).is_end_of_input());
    }

    #[test]
    fn an_io_error_made_of_a_failure_keeps_its_kind_and_text() {
        let id = WheelId::next();
        let error = io::Error::from(Failure::new("connect", &io::Error::from(Errno::ECONNREFUSED), id));
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(error.to_string().starts_with("connect: "), "{error}");
        assert_eq!(io::Error::from(Failure::end_of_input(id)).kind(), io::ErrorKind::UnexpectedEof);
    }
}

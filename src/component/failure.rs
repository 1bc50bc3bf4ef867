//! What a callback is told when something went wrong.

use std::fmt;

use nix::errno::Errno;

use crate::error::{Error, Result};
use crate::kernel::Context;
use crate::wheel::WheelId;

/// Why a connection, an attempt to connect, or a listener is in trouble; or that the peer has closed its side.
///
/// POE: the four arguments of an ErrorEvent or FailureEvent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What failed: `"read"`, `"write"`, `"connect"`, `"accept"`, `"bind"`, ..., or `"filter"` for a record that can't be put,
    /// and for input in which the filter finds no record. POE: ARG0.
    pub operation: &'static str,
    /// The system's number for the reason; 0 at the end of the input. POE: ARG1.
    pub errno: i32,
    /// The reason in words; empty at the end of the input. POE: ARG2.
    pub text: String,
    /// The wheel that reports it, if there was one. POE: ARG3.
    pub wheel: Option<WheelId>,
}

impl Failure {
    /// Tells whether this is the end of the input: the peer has closed its side, in good order.
    pub fn is_end_of_input(&self) -> bool {
        self.operation == "read" && self.errno == 0
    }

    /// Tells whether the connection still works: at the end of the input, and when the filter has failed.
    pub(super) fn is_harmless(&self) -> bool {
        self.is_end_of_input() || self.operation == "filter"
    }

    /// Reads the arguments of a wheel's error event.
    pub(super) fn take<H: 'static>(cx: &mut Context<'_, H>) -> Result<Failure> {
        Ok(Failure { operation: cx.take(0)?, errno: cx.take(1)?, text: cx.take(2)?, wheel: cx.take(3).ok() })
    }

    /// Makes a failure of what a wheel's constructor returned.
    pub(super) fn of_error(operation: &'static str, error: &Error) -> Failure {
        match error {
            Error::Os { call, subject, source } => {
                let text = if subject.is_empty() { source.to_string() } else { format!("{subject}: {source}") };
                Failure { operation: call, errno: source.raw_os_error().unwrap_or(0), text, wheel: None }
            }
            _ => Failure { operation, errno: Errno::EINVAL as i32, text: error.to_string(), wheel: None },
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_end_of_input() {
            return f.write_str("read: end of input");
        }
        write!(f, "{}: {}", self.operation, self.text)
    }
}

impl std::error::Error for Failure {}

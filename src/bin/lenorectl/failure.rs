//! Why a command has failed, and the exit code that says so.

use std::fmt;

/// A failure with its exit code.
#[derive(Debug)]
pub struct Failure {
    pub code: u8,
    pub text: String,
    /// What a process wrote to its standard error before it failed.
    pub last_words: Option<String>,
}

/// Exit codes other than 0.
pub mod code {
    pub const FAILED: u8 = 1;
    pub const USAGE: u8 = 2;
    pub const NO_DAEMON: u8 = 3;
    pub const TIMEOUT: u8 = 4;
    pub const DENIED: u8 = 5;
    pub const REFUSED: u8 = 6;
}

impl Failure {
    pub fn new(code: u8, text: impl fmt::Display) -> Failure {
        Failure { code, text: text.to_string(), last_words: None }
    }

    /// Returns the failure for a coded answer of a daemon.
    pub fn answered(word: &str, text: &str) -> Failure {
        let code = match word {
            "usage" | "unknown_command" | "bad_json" | "too_long" => code::USAGE,
            "timeout" => code::TIMEOUT,
            "denied" => code::DENIED,
            "busy" | "refused" | "superseded" | "shutting_down" => code::REFUSED,
            _ => code::FAILED,
        };
        match word {
            "rejected" => Failure::new(code, format_args!("rejected: {text}")),
            "rolled_back" => Failure::new(code, format_args!("rolled back: {text}")),
            _ => Failure::new(code, if text.is_empty() { word } else { text }),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        self.last_words.as_ref().map_or(Ok(()), |words| write!(f, "\nlast words:\n{words}"))
    }
}

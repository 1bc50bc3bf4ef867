//! What the examples share: flags that several of them have, and logging to standard error.
#![allow(dead_code, unused_imports, reason = "each example compiles its own copy and uses a part of it")]

use std::fmt::Display;
use std::time::Duration;

use lenore::logging::Logger;

mod config;
mod output;
mod settings;

pub use config::{Config, ConfigFlags};
pub use output::{say, say_if_read};
pub use settings::{DaemonFlags, PoolFlags, PortFlags, WatchFlags};

/// Logs to standard error from level info on: whole lines, from all processes.
pub fn log_to_stderr() {
    // Fails only if there is a logger already.
    let _ = Logger::new().install();
}

/// Prints where this process listens, and its pid.
pub fn say_listening(address: impl Display) {
    say_if_read(format_args!("listening on {address}, pid {}", std::process::id()));
}

/// Reads a span of time that is written in seconds: `5` or `0.5`.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| String::from("not a number of seconds"))?;
    if seconds < 0.0 {
        return Err("must not be negative".into());
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| "not a span of time".into())
}

/// Reads a span of time that is more than 0, written in seconds.
pub fn some_seconds(text: &str) -> Result<Duration, String> {
    seconds(text).and_then(|span| if span.is_zero() { Err("must be more than 0".into()) } else { Ok(span) })
}

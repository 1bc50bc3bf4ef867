//! The flags for those settings of a Daemon that have nothing to do with the size of its pool.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use lenore::daemon::DaemonBuilder;

use super::{Flags, Usage};

/// The part of the usage that [`daemon_settings`] reads.
pub const DAEMON_FLAGS: &str = "[--detach] [--logfile PATH] [--pid-file PATH] [--user NAME] [--group NAME] \
                                [--request-timeout SECONDS] [--babysit SECONDS] [--verbose]";

/// Gives `daemon` the settings that the command line asks for.
pub fn daemon_settings(flags: &mut Flags, daemon: DaemonBuilder) -> Result<DaemonBuilder, Usage> {
    let daemon = daemon.verbose(flags.has("--verbose")).detach(flags.has("--detach"));
    let daemon = flags.set("--logfile", daemon, |daemon, path: PathBuf| daemon.logfile(path))?;
    let daemon = flags.set("--pid-file", daemon, |daemon, path: PathBuf| daemon.pid_file(path))?;
    let daemon = flags.set("--user", daemon, |daemon, name: String| daemon.user(name))?;
    let daemon = flags.set("--group", daemon, |daemon, name: String| daemon.group(name))?;
    let daemon = flags.set("--request-timeout", daemon, |daemon, Seconds(limit)| daemon.request_timeout(limit))?;
    flags.set("--babysit", daemon, |daemon, Seconds(pause)| daemon.babysit(pause))
}

/// A span of time that is not zero, written in seconds: `5` or `0.5`.
struct Seconds(Duration);

impl FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Seconds, String> {
        let seconds: f64 = text.parse().map_err(|_| String::from("not a number of seconds"))?;
        match Duration::try_from_secs_f64(seconds) {
            Ok(span) if !span.is_zero() => Ok(Seconds(span)),
            _ => Err(String::from("not a span of time")),
        }
    }
}

//! What the log calls the causes of a child's end.

use std::fmt;

use nix::sys::signal::Signal;

use crate::daemon::machine::Cause;

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Cause::Exited(code) => write!(f, "exited:{code}"),
            Cause::Signaled(number) => match Signal::try_from(number) {
                Ok(signal) => write!(f, "signal:{signal}"),
                Err(_) => write!(f, "signal:{number}"),
            },
            Cause::OutOfMemory => f.write_str("oom"),
            Cause::Recycled => f.write_str("recycled"),
            Cause::Retired => f.write_str("retired"),
            Cause::Memory => f.write_str("memory_limit"),
            Cause::Rogue(why) => write!(f, "rogue:{why}"),
            Cause::Shutdown => f.write_str("shutdown"),
            Cause::Cut => f.write_str("cut"),
            Cause::Killed => f.write_str("killed"),
            Cause::Vanished => f.write_str("vanished"),
        }
    }
}

//! Values of unknown types as text, for logs.

use std::any::Any;
use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use crate::args::Args;
use crate::error::{Died, Exception};
use crate::filter::FilterError;
use crate::kernel::{AlarmId, ChildChange, Handle, Readiness, SessionId};
use crate::name::Name;
use crate::wheel::{Failure, WheelId};

/// Returns what shows a value of a common type: of the standard library's, or of those that the library sends.
pub(crate) fn shown(value: &dyn Any) -> Option<&dyn fmt::Debug> {
    macro_rules! any_of {
        ($($type:ty),+ $(,)?) => {
            $(if let Some(value) = value.downcast_ref::<$type>() {
                return Some(value);
            })+
        };
    }
    any_of!(String, &'static str, Name, SessionId, WheelId, AlarmId, Args);
    any_of!(bool, char, i8, i16, i32, i64, i128, isize, u8, u16, u32, u64, u128, usize, f32, f64, ());
    any_of!(Vec<u8>, Vec<String>, &'static [u8], Option<String>, PathBuf, OsString, Duration, Instant, SystemTime);
    any_of!(SocketAddr, IpAddr, std::io::Error, Failure, FilterError, Readiness, ChildChange, Handle, Died, Exception);
    None
}

//! Settings that contradict each other, or can't be used.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Why settings can't be used together.
#[non_exhaustive]
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SettingsError {
    /// `max_spare` is less than `min_spare`, so that spares would be retired as soon as they are forked.
    SpareLimits {
        /// As given, or as filled in.
        max_spare: u32,
        /// As given, or as filled in.
        min_spare: u32,
    },
    /// `start_children` is more than `max_children`.
    StartAboveMax {
        /// As given.
        start_children: u32,
        /// As given.
        max_children: u32,
    },
    /// `max_children` is more than the largest scoreboard can hold.
    TooManyChildren {
        /// As given, or as filled in.
        max_children: u32,
        /// The largest `max_children`.
        limit: usize,
    },
    /// `requests_jitter` is not less than `requests`, so that a child might be replaced before its first request.
    JitterTooLarge {
        /// As given.
        requests_jitter: u64,
        /// As given, or the default.
        requests: u64,
    },
    /// `setting` is a span of time that must not be zero.
    ZeroDuration {
        /// The name of the setting.
        setting: &'static str,
    },
    /// `setting` is a number that must not be zero.
    Zero {
        /// The name of the setting.
        setting: &'static str,
    },
    /// `surge` and `max_unavailable` are both zero, so that a reload could not replace any child.
    NoRoomToReload,
    /// A configuration has an address that is not a TCP address with a port.
    NoAddress {
        /// The address as given.
        address: String,
    },
    /// A new configuration names no address, and the server listens on nothing else.
    NoAddresses,
    /// `config_pool` is set, and `config` is not.
    NoConfiguration,
    /// `config_pool` takes another type than `config` loads.
    OtherConfiguration {
        /// The type that `config` loads.
        type_of_file: &'static str,
        /// The type that `config_pool` takes.
        type_of_pool: &'static str,
    },
    /// There is no user of this name.
    UnknownUser {
        /// As given.
        user: String,
    },
    /// There is no group of this name.
    UnknownGroup {
        /// As given.
        group: String,
    },
    /// The user database does not know this user, so `group` must be set.
    NoGroup {
        /// As given.
        user: String,
    },
    /// `setting` is more than the permissions of a file, `0o777`.
    NotAMode {
        /// The name of the setting.
        setting: &'static str,
        /// As given.
        mode: u32,
    },
    /// A metric's name can't begin with this prefix.
    NotAPrefix {
        /// As given.
        prefix: String,
    },
    /// The niceness is not between -20 and 19.
    Niceness(i32),
    /// `keep_descriptors` names a descriptor that is not open.
    NotOpen {
        /// As given.
        descriptor: i32,
    },
    /// `lame_duck` is not less than `shutdown_timeout`, of which it is a part.
    LameDuck {
        /// As given.
        lame_duck: Duration,
        /// As given, or the default.
        shutdown_timeout: Duration,
    },
    /// `detach` is set, but a service manager has started the program.
    DetachUnderManager,
    /// `detach` is set, but the program is process 1, as in a container. Process 1 would end when the daemon is ready,
    /// and the container with it.
    DetachAsInit,
    /// `setting` is a path that must not be empty.
    EmptyPath {
        /// The name of the setting.
        setting: &'static str,
    },
    /// `setting` is a path that is longer than the address of a socket can be.
    PathTooLong {
        /// The name of the setting.
        setting: &'static str,
        /// As given, made absolute.
        path: PathBuf,
        /// How many bytes it has.
        length: usize,
        /// How many it may have.
        limit: usize,
    },
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SpareLimits { max_spare, min_spare } => {
                write!(f, "max_spare ({max_spare}) is less than min_spare ({min_spare})")
            }
            Self::StartAboveMax { start_children, max_children } => {
                write!(f, "start_children ({start_children}) is more than max_children ({max_children})")
            }
            Self::TooManyChildren { max_children, limit } => {
                write!(f, "max_children ({max_children}) is more than a scoreboard can hold ({limit})")
            }
            Self::JitterTooLarge { requests_jitter, requests } => {
                write!(f, "requests_jitter ({requests_jitter}) is not less than requests ({requests})")
            }
            Self::ZeroDuration { setting } | Self::Zero { setting } => write!(f, "{setting} is zero"),
            Self::NoRoomToReload => {
                f.write_str("surge and max_unavailable are both 0, so that no child could be replaced during a reload")
            }
            Self::NoAddresses => f.write_str("the configuration names no address for the server to listen on"),
            Self::NoAddress { address } => {
                write!(f, "{address:?} is not an address to listen on: IP:PORT, with another port than 0")
            }
            Self::NoConfiguration => f.write_str("config_pool needs a configuration: call config as well"),
            Self::OtherConfiguration { type_of_file, type_of_pool } => {
                write!(f, "the configuration is of the type {type_of_file}, and config_pool takes a {type_of_pool}")
            }
            Self::UnknownUser { user } => write!(f, "there is no user {user}"),
            Self::UnknownGroup { group } => write!(f, "there is no group {group}"),
            Self::NoGroup { user } => write!(f, "user {user} has no group of its own, and none is set"),
            Self::NotAMode { setting, mode } => write!(f, "{setting} ({mode:#o}) is more than 0o777"),
            Self::NotAPrefix { prefix } => {
                write!(f, "metrics_prefix ({prefix:?}) has more than letters, digits and `_`, or a digit first")
            }
            Self::Niceness(nice) => write!(f, "nice ({nice}) is not between -20 and 19"),
            Self::NotOpen { descriptor } => write!(f, "keep_descriptors: descriptor {descriptor} is not open"),
            Self::LameDuck { lame_duck, shutdown_timeout } => {
                write!(f, "lame_duck ({lame_duck:?}) is not less than shutdown_timeout ({shutdown_timeout:?})")
            }
            Self::DetachUnderManager => write!(
                f,
                "detach is set, but a service manager has started the program (NOTIFY_SOCKET is set): a program that detaches can't be \
                 looked after"
            ),
            Self::DetachAsInit => write!(
                f,
                "detach is set, but the program is process 1: the process that was started ends when the daemon is ready, and a container \
                 ends with its process 1"
            ),
            Self::EmptyPath { setting } => write!(f, "{setting} is an empty path"),
            Self::PathTooLong { setting, path, length, limit } => {
                let path = path.display();
                write!(f, "{setting}: {path} has {length} bytes, and the address of a socket can have {limit}")
            }
        }
    }
}

impl Error for SettingsError {}

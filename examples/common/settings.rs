//! Flags that several examples have.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use lenore::daemon::{DaemonBuilder, Shutdown};

use super::some_seconds;

/// How many children a pool has.
#[derive(Args)]
pub struct PoolFlags {
    /// Children to fork at the start [default: 4, or --max-children if that is less]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), allow_negative_numbers = true)]
    start_children: Option<u32>,
    /// Fork children when fewer than this wait for a connection [default: a fifth of --max-children, or --start-children]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    min_spare: Option<u32>,
    /// Retire children when more than this wait for a connection [default: four fifths of --max-children, or twice --min-spare]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_spare: Option<u32>,
    /// Never have more children than this [default: --start-children plus --max-spare]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), allow_negative_numbers = true)]
    max_children: Option<u32>,
    /// Replace at most this many children at once that died before they were ready
    #[arg(long, value_name = "N", default_value_t = 32, allow_negative_numbers = true)]
    fork_burst: u32,
    /// Replace a child after this many connections; 0 means never
    #[arg(long, value_name = "N", default_value_t = 1000, allow_negative_numbers = true)]
    requests: u64,
}

impl PoolFlags {
    /// Gives `daemon` the settings that the command line asks for.
    pub fn apply(&self, daemon: DaemonBuilder) -> DaemonBuilder {
        let start = self.start_children.unwrap_or(self.max_children.map_or(4, |max| max.clamp(1, 4)));
        let daemon = daemon.start_children(start).fork_burst(self.fork_burst).requests(self.requests);
        let daemon = set(daemon, self.min_spare, DaemonBuilder::min_spare);
        let daemon = set(daemon, self.max_spare, DaemonBuilder::max_spare);
        set(daemon, self.max_children, DaemonBuilder::max_children)
    }
}

/// The settings of a Daemon other than the size of its pool.
#[derive(Args)]
pub struct DaemonFlags {
    /// Run in the background; the command returns when the server is ready
    #[arg(long)]
    detach: bool,
    /// Write the log to this file, and open it again on HUP [default: standard error]
    #[arg(long, value_name = "PATH")]
    logfile: Option<PathBuf>,
    /// Write the pid to this file, and lock it [default: none]
    #[arg(long, value_name = "PATH")]
    pid_file: Option<PathBuf>,
    /// Become this user after everything is open [default: the user who starts it]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Become this group after everything is open [default: the group of --user]
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// End a child whose request takes longer than this [default: no limit]
    #[arg(long, value_name = "SECONDS", value_parser = some_seconds, allow_negative_numbers = true)]
    request_timeout: Option<Duration>,
    /// Examine the children this often [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = some_seconds, allow_negative_numbers = true)]
    babysit: Option<Duration>,
    /// On TERM say that the server is not ready, serve for so many milliseconds as before, then finish the requests in hand
    /// [default: TERM ends the server at once]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    lame_duck_ms: Option<u64>,
    /// Log each child that starts or ends
    #[arg(long)]
    verbose: bool,
    #[command(flatten)]
    watch: WatchFlags,
}

impl DaemonFlags {
    /// Gives `daemon` the settings that the command line asks for.
    pub fn apply(&self, daemon: DaemonBuilder) -> DaemonBuilder {
        let daemon = daemon.detach(self.detach).verbose(self.verbose);
        let daemon = set(daemon, self.logfile.clone(), DaemonBuilder::logfile);
        let daemon = set(daemon, self.pid_file.clone(), DaemonBuilder::pid_file);
        let daemon = set(daemon, self.user.clone(), DaemonBuilder::user);
        let daemon = set(daemon, self.group.clone(), DaemonBuilder::group);
        let daemon = self.watch.apply(daemon);
        let daemon = set(daemon, self.lame_duck_ms.map(Duration::from_millis), |daemon, span| {
            daemon.term(Shutdown::Graceful).lame_duck(span)
        });
        let daemon = set(daemon, self.request_timeout, DaemonBuilder::request_timeout);
        set(daemon, self.babysit, DaemonBuilder::babysit)
    }

    /// Prints where the server listens. Call it before the Daemon is spawned. With `--detach` another process will serve, whose pid is in
    /// the pid file.
    pub fn say_listening(&self, address: impl std::fmt::Display) {
        if self.detach {
            super::say_if_read(format_args!("listening on {address}"));
        } else {
            super::say_listening(address);
        }
    }
}

/// How operators see and steer a server.
#[derive(Args)]
pub struct WatchFlags {
    /// Answer operators at this socket: echo help | socat - UNIX-CONNECT:PATH [default: none]
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
    /// Show what the server does at this address: a page, JSON and metrics [default: none]
    #[arg(long, value_name = "ADDR:PORT")]
    status: Option<String>,
}

impl WatchFlags {
    /// Gives `daemon` the settings that the command line asks for.
    pub fn apply(&self, daemon: DaemonBuilder) -> DaemonBuilder {
        let daemon = set(daemon, self.control.clone(), DaemonBuilder::control);
        set(daemon, self.status.clone(), DaemonBuilder::status)
    }
}

/// Calls a method of a builder if the command line has the value.
fn set<B, T>(builder: B, value: Option<T>, method: fn(B, T) -> B) -> B {
    match value {
        Some(value) => method(builder, value),
        None => builder,
    }
}

/// The command line of the ported programs.
#[derive(Args)]
pub struct PortFlags {
    /// Port of 127.0.0.1 to listen on; 0 takes any that is free
    #[arg(allow_negative_numbers = true)]
    pub port: u16,
    /// Write standard error and the log to this file [default: log_ and the program's name, in the temporary directory]
    #[arg(long, value_name = "PATH")]
    logfile: Option<PathBuf>,
}

impl PortFlags {
    /// Returns the absolute path of the log file. Default: `name` in the temporary directory.
    pub fn logfile(&self, name: &str) -> io::Result<PathBuf> {
        match &self.logfile {
            Some(path) => std::path::absolute(path),
            None => Ok(std::env::temp_dir().join(name)),
        }
    }
}

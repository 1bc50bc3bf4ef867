//! Which daemon is meant: its socket, its board, its process.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::cli;
use crate::failure::{Failure, code};
use crate::process::start_time;

/// What is known of a daemon before it is asked.
#[derive(Debug, Default)]
pub struct Target {
    pub socket: Option<PathBuf>,
    pub board: Option<PathBuf>,
    pub pid_file: Option<PathBuf>,
    pub pid: Option<i32>,
    /// When its process was started, in the ticks of `/proc/PID/stat`.
    pub start_time: Option<u64>,
    /// The word of the state file.
    pub state: Option<String>,
    /// When to give up waiting for the daemon, if the command line says so.
    pub deadline: Option<Instant>,
}

impl Target {
    /// Finds the daemon that the command line, or else the environment, names.
    pub fn find(named: &cli::Target) -> Result<Target, Failure> {
        if let Some(socket) = &named.socket {
            return Ok(Target { socket: Some(socket.clone()), ..Target::default() });
        }
        if let Some(pid_file) = &named.pid_file {
            return by_pid_file(pid_file);
        }
        let directories = std::env::var_os("RUNTIME_DIRECTORY").unwrap_or_default();
        let directory = std::env::split_paths(&directories).next().filter(|path| !path.as_os_str().is_empty());
        let Some(directory) = directory else {
            return Err(Failure::new(
                code::USAGE,
                "which daemon? Say --socket PATH or --pid-file PATH, or set RUNTIME_DIRECTORY",
            ));
        };
        Ok(Target {
            socket: Some(directory.join(SOCKET)),
            board: Some(directory.join(BOARD)).filter(|path| path.exists()),
            ..Target::default()
        })
    }

    /// Tells whether the process of the pid file lives, and is the one that has written the file.
    pub fn is_alive(&self) -> bool {
        let Some(pid) = self.pid else { return false };
        let Some(started) = start_time(pid) else { return false };
        self.start_time.is_none_or(|noted| noted == started)
    }
}

fn by_pid_file(path: &Path) -> Result<Target, Failure> {
    let mut target = Target { pid_file: Some(path.to_owned()), ..Target::default() };
    match fs::read_to_string(path) {
        Ok(text) => target.pid = text.trim().parse().ok(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(Failure::new(code::DENIED, format_args!("{}: {error}", path.display()))),
    }
    let mut state_file = path.as_os_str().to_owned();
    state_file.push(".state");
    let state = fs::read_to_string(&state_file).unwrap_or_default();
    for (key, value) in state.lines().filter_map(|line| line.split_once('=')) {
        match key {
            "state" => target.state = Some(value.to_owned()),
            "start_time" => target.start_time = value.parse().ok(),
            "socket" if !value.is_empty() => target.socket = Some(value.into()),
            "board" if !value.is_empty() => target.board = Some(value.into()),
            "pid" => target.pid = target.pid.or_else(|| value.parse().ok()),
            _ => {}
        }
    }
    Ok(target)
}

/// What the socket and the board are called in a `RUNTIME_DIRECTORY`.
pub const SOCKET: &str = "control.sock";
pub const BOARD: &str = "board";

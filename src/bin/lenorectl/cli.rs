//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

/// See and steer a running lenore daemon
///
/// lenorectl talks to the control socket of a daemon that was built with the feature `control` and started with a control path. It
/// finds the socket by --socket, by the state file beside --pid-file, or in $RUNTIME_DIRECTORY.
#[derive(Debug, Parser)]
#[command(name = "lenorectl", version, max_term_width = 100, after_long_help = EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    pub target: Target,
    /// Give up waiting for an answer after this time, with exit code 4
    ///
    /// The time counts from the start of this command. The daemon goes on with what it was told. A daemon that does not answer at all
    /// is given up after 2 s, or earlier if this time is shorter. [default: 5s; none for commands that wait for an order, which ends by
    /// itself, and none for watch]
    #[arg(long, global = true, value_name = "DURATION", value_parser = duration)]
    pub timeout: Option<Duration>,
    #[command(subcommand)]
    pub command: Command,
}

/// Which daemon is meant.
#[derive(Args, Debug)]
pub struct Target {
    /// Control socket of the daemon [default: $RUNTIME_DIRECTORY/control.sock]
    #[arg(long, global = true, value_name = "PATH", conflicts_with = "pid_file")]
    pub socket: Option<PathBuf>,
    /// Pid file of the daemon; the state file PATH.state beside it names the socket and the board
    #[arg(long, global = true, value_name = "PATH")]
    pub pid_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what the daemon is doing: phase, pool, queues, counters, last deaths
    ///
    /// Exit codes as LSB has them for init scripts: 0 running, 1 dead although the pid file exists, 3 not running. Further: 4 hung,
    /// 5 not permitted. A daemon that hangs is shown from its board file.
    Status(Shown),
    /// Tell whether the daemon lives, as /live does: exit code 0, or 1 with the reason if it needs a restart
    ///
    /// For a liveness probe that executes a command. A pool that is busy at its limit lives. Exit code 3 or 4 if no daemon answers.
    Live,
    /// Tell whether the daemon is ready for clients, as /ready does: exit code 0, or 1 with the reason
    ///
    /// For a readiness probe that executes a command. A daemon that has been told to end is not ready. Exit code 3 or 4 if no daemon
    /// answers.
    Ready,
    /// Show every child: what it does, for how long, for whom, and what its process uses
    Children {
        #[command(flatten)]
        shown: Shown,
        /// Show the proportional share of memory (PSS) too: what several processes share counts in part
        ///
        /// This command reads it by itself from /proc, for 0.1 ms and more a child, and the daemon has nothing to do with it. Takes
        /// the rights of the daemon's user, and a Linux.
        #[arg(long)]
        pss: bool,
    },
    /// Dump sessions, alarms, watchers and pending events, and why each session stays alive
    Peek {
        /// Child, as SLOT:GENERATION, slot, or pid; without it, the parent
        ///
        /// A number that is the pid of a child means that child, any other number a slot. A child that does not answer within 1 s is
        /// described from outside.
        #[arg(value_name = "CHILD")]
        child: Option<String>,
    },
    /// Follow what happens, one line an event, until interrupted or until the daemon ends
    Watch {
        /// Print each event as a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Show the children live, the longest request first; q ends it
    ///
    /// Reads the board file, so it also works when the parent is stopped or hangs.
    Top {
        /// Print one picture as text and exit
        #[arg(long)]
        once: bool,
        /// Print one picture as JSON and exit
        #[arg(long)]
        json: bool,
    },
    /// Print the metrics as Prometheus reads them
    Metrics {
        /// In the format of OpenMetrics 1.0
        #[arg(long)]
        openmetrics: bool,
    },
    /// Change how many children there may be, all numbers at once or none
    #[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
    Resize {
        /// Fork children when fewer than this wait for a request
        #[arg(long, value_name = "N", group = "what")]
        min_spare: Option<u32>,
        /// Retire children when more than this wait for a request
        #[arg(long, value_name = "N", group = "what")]
        max_spare: Option<u32>,
        /// Never have more children than this
        #[arg(long, value_name = "N", group = "what")]
        max_children: Option<u32>,
        /// Go back to the numbers of the program, or of the configuration in force
        #[arg(long, group = "what", conflicts_with_all = ["min_spare", "max_spare", "max_children"])]
        reset: bool,
    },
    /// Have a child leave after the request in hand, and wait until it is gone
    Retire(Child),
    /// Kill a child at once, and wait until it is gone
    Kill(Child),
    /// Have the parent and all children open the log file again, and say who did
    Reopen(Waits),
    /// Load the configuration again, replace the children, and wait until that is done
    ///
    /// If the new configuration can't be loaded, or children with it do not start, everything stays as it was.
    Reload(Waits),
    /// Load the configuration as for a reload, and change nothing
    Check,
    /// Have a new program take over without losing a request, and wait until it serves for good
    ///
    /// The daemon executes its program anew, with the same arguments and the same sockets. If the new one does not start, or dies within
    /// the daemon's probation time, the old one goes on.
    Upgrade {
        /// The new program; without it the path by which the daemon was started
        #[arg(long, value_name = "PATH")]
        program: Option<PathBuf>,
        #[command(flatten)]
        waits: Waits,
    },
    /// End at once the processes that still drain after a reload or an upgrade, or end the probation of an upgrade
    Finish,
    /// Set one log level for all targets in the parent and in all children
    LogLevel {
        /// off, error, warn, info, debug or trace; or reset, to go back to what the program has set
        #[arg(value_name = "LEVEL")]
        level: String,
        /// Go back by itself after this time
        #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
        span: Option<Duration>,
        /// For this child only, as SLOT:GENERATION, slot, or pid
        #[arg(long, value_name = "CHILD")]
        child: Option<String>,
    },
    /// Stop the daemon after the requests in hand, and wait until it has ended
    Stop {
        /// Tell children to end at once, and not after their requests
        ///
        /// What a child makes of it is the application's business. Children that go on are killed after `shutdown_timeout`.
        #[arg(long)]
        now: bool,
        #[command(flatten)]
        waits: Waits,
    },
    /// Ask later what has become of an order that was given with --no-wait
    ///
    /// Exits with the code of the order's verdict. Exits with 4 as long as the order has no verdict.
    Verdict {
        /// Number of the order, as it was printed
        #[arg(value_name = "N")]
        number: u64,
    },
    /// Print the versions of protocol and daemon, its pid, phase and board
    Hello,
    /// Print a script that completes lenorectl's command line in a shell
    Completions {
        /// Shell that is to read it
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
}

#[derive(Args, Debug)]
pub struct Shown {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct Child {
    /// Child, as SLOT:GENERATION, slot, or pid
    #[arg(value_name = "CHILD")]
    pub child: String,
    #[command(flatten)]
    pub waits: Waits,
}

#[derive(Args, Debug)]
pub struct Waits {
    /// Do not wait: print the number of the order, for `lenorectl verdict`
    #[arg(long)]
    pub no_wait: bool,
}

/// Reads a span of time: `500ms`, `60s`, `5m`, `2h`, or a number of seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("the unit is not ms, s, m or h".into()),
    };
    let number: f64 = number.parse().map_err(|_| "not a span of time such as 60s".to_owned())?;
    Duration::try_from_secs_f64(number * unit)
        .ok()
        .filter(|span| !span.is_zero())
        .ok_or_else(|| "must be more than 0, and not for ever".to_owned())
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed, or rolled back
  2  the command line is wrong, or the daemon does not know the command
  3  there is no daemon
  4  the daemon did not answer in time
  5  the daemon does not permit it
  6  refused: the daemon is busy, is ending, or was told something else meanwhile";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        for wrong in ["", "s", "5d", "-1", "0s", "1e9h", "1.2.3", "99999999999999999999h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}

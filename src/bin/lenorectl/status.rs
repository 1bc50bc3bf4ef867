//! `status`: what the daemon says, or what can be known of one that says nothing.

use std::time::Duration;

use lenore::daemon::view::{Snapshot, text};
use serde_json::json;

use crate::board;
use crate::client::{Client, Unreachable};
use crate::commands::read;
use crate::failure::{Failure, code};
use crate::output::{say, say_json};
use crate::target::Target;

/// Shows the daemon. Fails with 1 if it is dead and its pid file is left, and with 3 if it is not running.
pub fn status(target: &Target, is_json: bool, limit: Option<Duration>) -> Result<(), Failure> {
    let Some(socket) = &target.socket else { return by_pid(target, "no control socket is known") };
    match Client::connect(socket, target.deadline) {
        Ok(mut client) => {
            let data = client.ask(&json!({"command": "status"}), limit, |_| ())?;
            if is_json {
                say_json(&data)
            } else {
                say(text::status(&read::<Snapshot>(data)?))
            }
            Ok(())
        }
        Err(Unreachable::Dead(why)) => by_pid(target, &why),
        Err(Unreachable::Hung { pid, text }) => {
            // What the board says is better than nothing. That the daemon hangs says more than why there is nothing to be seen.
            let text = match board::snapshot(target, pid) {
                Ok(snapshot) => {
                    if is_json {
                        say_json(&snapshot)
                    } else {
                        say(text::status(&snapshot))
                    }
                    text
                }
                Err(failure) => format!("{text}; {failure}"),
            };
            Err(Failure::new(code::TIMEOUT, text))
        }
        Err(why) => Err(why.into()),
    }
}

/// Judges by the pid file alone.
fn by_pid(target: &Target, why: &str) -> Result<(), Failure> {
    let Some(pid) = target.pid else { return Err(Failure::new(code::NO_DAEMON, format_args!("not running: {why}"))) };
    if target.is_alive() {
        say(format_args!("running: pid={pid}, and {why}"));
        return Ok(());
    }
    let left = target.pid_file.as_ref().filter(|file| file.exists());
    Err(match left {
        Some(file) => Failure::new(
            code::FAILED,
            format_args!("dead, and its pid file is left: pid={pid} pid_file={}", file.display()),
        ),
        None => Failure::new(code::NO_DAEMON, format_args!("not running: {why}")),
    })
}

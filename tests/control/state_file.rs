//! The state file beside the pid file.

use std::fs;
use std::path::Path;

use util::control::Steered;
use util::{DEADLINE, proc, wait_until};

fn field(path: &Path, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(&format!("{name}=")).map(str::to_owned))
}

#[test] // O-CT-22
fn state_file_says_what_the_daemon_does() {
    let mut steered = Steered::pool(2, "--dir DIR");
    let (pid_file, path) = (steered.dir.path().join("pid"), steered.dir.path().join("pid.state"));
    wait_until("the daemon to be ready", DEADLINE, || (field(&path, "state")? == "ready").then_some(()));
    assert!(fs::read_to_string(&path).unwrap().starts_with("state=ready\n"));
    assert_eq!(field(&path, "pid"), Some(steered.pid().to_string()));
    assert_eq!(field(&path, "start_time"), Some(proc::stat(steered.pid()).unwrap().start.to_string()));
    assert_eq!(field(&path, "socket").as_deref(), steered.path.to_str());
    assert!(field(&path, "board").is_some());
    // `kill $(cat pid)` goes on working.
    assert_eq!(fs::read_to_string(&pid_file).unwrap(), format!("{}\n", steered.pid()));
    let (_, mut client) = steered.occupy();
    let mut control = steered.control();
    control.ask("stop no-wait").ok();
    wait_until("the end to begin", DEADLINE, || (field(&path, "state")? == "draining").then_some(()));
    steered.open();
    client.read_line();
    client.finish_sending();
    assert!(steered.running.wait_exit(DEADLINE).success());
    assert!(!path.exists() && !pid_file.exists());
}

#[test] // O-CT-22
fn state_file_is_that_of_the_process_that_goes_on() {
    let steered = Steered::start("--mode prefork:1 --max 1 --dir DIR --detach");
    let path = steered.dir.path().join("pid.state");
    let pid: i32 = wait_until("the state", DEADLINE, || field(&path, "pid")?.parse().ok());
    assert_ne!(pid, steered.pid());
    wait_until("the daemon to be ready", DEADLINE, || (field(&path, "state")? == "ready").then_some(()));
    assert_eq!(field(&path, "start_time"), Some(proc::stat(pid).unwrap().start.to_string()));
    assert_eq!(steered.control().ask_json(r#"{"command":"hello"}"#)["data"]["pid"], pid);
    steered.control().ask("stop").ok();
    wait_until("its end", DEADLINE, || (!proc::is_alive(pid) && !path.exists()).then_some(()));
}

#[test] // O-CT-22
fn there_is_no_state_file_without_a_pid_file() {
    let steered = Steered::pool(1, "");
    assert_eq!(fs::read_dir(steered.dir.path()).unwrap().count(), 1);
}

#[test] // O-CT-22: a user who may not make files there goes on saying what is so
fn state_file_of_another_user_is_written_in_place() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let mut steered = Steered::pool(1, "--dir DIR --user 12345 --group 12345");
    let path = steered.dir.path().join("pid.state");
    wait_until("the daemon to be ready", DEADLINE, || (field(&path, "state")? == "ready").then_some(()));
    assert_eq!(field(&path, "pid"), Some(steered.pid().to_string()));
    steered.control().ask("stop").ok();
    assert!(steered.running.wait_exit(DEADLINE).success());
    assert_eq!(fs::read_to_string(&path).unwrap_or_default(), "");
}

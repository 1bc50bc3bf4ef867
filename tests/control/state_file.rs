//! The state file beside the pid file.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::Signal;

use util::control::{Control, Steered};
use util::{Client, DEADLINE, Over, Program, Running, proc, test_program, wait_until};

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

/// Starts a program with a pid file in a directory, which stops at a point in its life.
fn start_with(dir: &Path, plan: &str) -> Running {
    let program = Program::new(test_program("daemon_control")).args(["--mode", "prefork:1", "--max", "1"]);
    let program = program.args(["--grace-ms", "60000"]).arg("--control").arg(dir.join("control.sock"));
    program.arg("--dir").arg(dir).env("LENORE_INJECT", plan).start()
}

#[test] // O-CT-22: each word in its time, and no reader ever finds half of the file
fn state_file_says_starting_ready_and_stopping() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pid.state");
    // The parent stops before it does anything for its first child.
    let mut running = start_with(dir.path(), "daemon.effect=pause@1");
    let is_over = AtomicBool::new(false);
    let words = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut words: Vec<String> = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                let Ok(text) = fs::read_to_string(&path) else { continue };
                let lines: Vec<&str> = text.lines().collect();
                assert!(lines.len() == 5 && lines[4].starts_with("board=") && text.ends_with('\n'), "{text:?}");
                let word = lines[0].strip_prefix("state=").expect("the word comes first").to_owned();
                if words.last() != Some(&word) {
                    words.push(word);
                }
            }
            words
        });
        let over = Over(&is_over);
        let state = |word: &str| {
            wait_until(word, DEADLINE, || (field(&path, "state").as_deref() == Some(word)).then_some(()));
        };
        wait_until("a stopped parent", DEADLINE, || (proc::state(running.pid()) == Some('T')).then_some(()));
        state("starting");
        assert_eq!(field(&path, "pid"), Some(running.pid().to_string()));
        running.signal(Signal::SIGCONT);
        state("ready");
        // A child that is blocked does not end at once.
        let addr = wait_until("an address", DEADLINE, || {
            let log = fs::read_to_string(dir.path().join("log")).ok()?;
            log.split_once("listening on ")?.1.lines().next()?.parse().ok()
        });
        let gate = dir.path().join("gate");
        fs::write(&gate, "").unwrap();
        let mut client = Client::connect(addr);
        client.send(format!("gate {}\r\n", gate.display()));
        let mut control = Control::of(&running, &dir.path().join("control.sock"));
        control.wait_status("a busy child", |status| (status.pool.states.busy == 1).then_some(()));
        control.ask("stop --now --no-wait").ok();
        state("stopping");
        fs::remove_file(&gate).unwrap();
        drop(client);
        assert!(running.wait_exit(DEADLINE).success());
        drop(over);
        reader.join().expect("whole files")
    });
    // On a busy machine it may have missed one.
    let mut all = ["starting", "ready", "stopping"].into_iter();
    assert!(words.iter().all(|word| all.any(|next| next == word)), "{words:?}");
    assert!(!path.exists());
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

//! `top`, and what is read from a board file.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use lenore::daemon::view::Snapshot;
use nix::sys::signal::Signal;
use util::control::Steered;
use util::{Client, DEADLINE, Program, proc, test_program, wait_until};

use super::unreachable::STRANGER;
use super::{LONG, ask, run, run_as};

/// `top` on a terminal.
struct Screen {
    script: Child,
    written: Receiver<(Instant, String)>,
    /// All that was written so far.
    seen: String,
    /// When something was written.
    times: Vec<Instant>,
}

impl Screen {
    fn start(steered: &Steered) -> Screen {
        let (command, socket) = (test_program("lenorectl"), steered.path.display());
        let command = format!("stty rows 40 cols 120; {} --socket {socket} top", command.display());
        let mut script = Command::new("script")
            .args(["-q", "-e", "-c", &command, "/dev/null"])
            // Nobody can look up what such a terminal understands.
            .env("TERM", "unheard-of")
            .env("TERMINFO", "/nonexistent")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("util-linux has script");
        let mut out = script.stdout.take().expect("it is piped");
        let (sender, written) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = out.read(&mut bytes) {
                let _ = sender.send((Instant::now(), String::from_utf8_lossy(&bytes[..count]).into_owned()));
            }
        });
        Screen { script, written, seen: String::new(), times: Vec::new() }
    }

    fn look(&mut self) {
        for (at, text) in self.written.try_iter() {
            self.seen.push_str(&text);
            self.times.push(at);
        }
    }

    /// Waits until this was written after `from` bytes, and returns how much was written then.
    #[track_caller]
    fn wait_for(&mut self, what: &str, from: usize) -> usize {
        wait_until(what, DEADLINE, || {
            self.look();
            self.seen[from..].contains(what).then_some(self.seen.len())
        })
    }

    #[track_caller]
    fn end(&mut self) {
        self.script.stdin.take().expect("it is piped").write_all(b"q").expect("it reads");
        let status = wait_until("the end of top", LONG, || self.script.try_wait().expect("a child"));
        assert_eq!(status.code(), Some(0));
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // It is ours, and may have ended.
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

/// A child that is busy as long as the file is there.
#[track_caller]
fn occupy(steered: &Steered, label: &str) -> Client {
    let gate = steered.dir.path().join("gate");
    fs::write(&gate, "").expect("a file");
    let mut client = Client::connect(steered.addr);
    client.line(&format!("label {label}"));
    client.send(format!("gate {}\r\n", gate.display()));
    client
}

#[test] // O-CT-21
fn top_has_its_columns() {
    let steered = Steered::pool(2, "");
    let _client = occupy(&steered, "somebody");
    let busy = steered.control().wait_status("a busy child", |status| {
        status.children.iter().find(|child| child.state == 'r' && child.peer == "somebody").cloned()
    });
    // For longer than it takes to round.
    wait_until("a request that is a second old", DEADLINE, || {
        let status = steered.control().status();
        status.oldest_request.is_some_and(|age| age > 1.0).then_some(())
    });
    let out = ask(&steered.path, "top --once").expect(0);
    let mut lines = out.lines().skip_while(|line| !line.starts_with("SLOT"));
    let heads: Vec<&str> = lines.next().expect("heads").split_whitespace().collect();
    assert_eq!(heads.join(" "), "SLOT PID GEN STATE IN STATE REQUESTS CPU % RSS WHAT");
    let row: Vec<&str> = lines.next().expect("the busy child first").split_whitespace().collect();
    assert_eq!(
        &row[..4],
        [busy.slot.to_string(), busy.pid.unwrap().to_string(), busy.generation.to_string(), "busy".to_owned()]
    );
    let text = row.join(" ");
    let [age, "s", requests, cpu, resident, "MiB", "somebody"] = row[4..] else { panic!("{text}") };
    let [age, cpu, resident] = [age, cpu, resident].map(|number| number.parse::<f64>().expect("a number"));
    assert!((1.0..60.0).contains(&age) && (0.0..=110.0).contains(&cpu), "{text}");
    assert_eq!(requests, busy.requests.to_string());
    let read = proc::rss_kib(busy.pid.unwrap()).expect("it lives") as f64 / 1024.0;
    assert!((resident / read - 1.0).abs() < 0.1, "{text}, and {read} MiB");
    assert_eq!(lines.count(), 1, "{out}");
    let json: Snapshot = serde_json::from_str(&ask(&steered.path, "top --json").expect(0)).expect("a snapshot");
    assert_eq!((json.children.len(), json.pool.states.busy), (2, 1));
    fs::remove_file(steered.dir.path().join("gate")).expect("a file");
}

#[test] // O-CT-21: without a key, and when the parent is stopped
fn top_looks_again_each_second() {
    let steered = Steered::pool(2, "");
    let mut screen = Screen::start(&steered);
    for head in ["SLOT", "PID", "GEN", "STATE", "IN STATE", "REQUESTS", "CPU %", "RSS", "WHAT"] {
        screen.wait_for(head, 0);
    }
    let drawn = screen.wait_for("q: quit", 0);
    let client = occupy(&steered, "somebody");
    let drawn = screen.wait_for("somebody", drawn);
    // Only the ages change from now on.
    let begin = Instant::now();
    wait_until("five seconds", DEADLINE, || (begin.elapsed() > Duration::from_secs(5)).then_some(()));
    screen.look();
    let mut times: Vec<Instant> = screen.times.iter().copied().filter(|at| *at > begin).collect();
    // What is written at one time may be read in two.
    times.dedup_by(|later, earlier| *later - *earlier < Duration::from_millis(300));
    assert!((4..=6).contains(&times.len()), "{} times in 5 s", times.len());
    steered.running.signal(Signal::SIGSTOP);
    wait_until("a stopped parent", DEADLINE, || (proc::state(steered.pid()) == Some('T')).then_some(()));
    // Blanks that were there before are not written again.
    let drawn = screen.wait_for("stopped", drawn);
    // The child goes on, and is seen to.
    fs::remove_file(steered.dir.path().join("gate")).expect("a file");
    drop(client);
    screen.wait_for("idle", drawn);
    steered.running.signal(Signal::SIGCONT);
    screen.end();
    let mut sequences = screen.seen.split('\u{1b}').skip(1).peekable();
    assert!(sequences.peek().is_some() && sequences.all(|rest| rest.starts_with('[')), "ANSI: {:?}", screen.seen);
}

/// A copy of the board of a daemon, with another state file that names it.
fn board_copy(steered: &Steered, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut bytes = fs::read(steered.dir.path().join("board")).expect("a board");
    change(&mut bytes);
    let (copy, pid_file) = (steered.dir.path().join("copy"), steered.dir.path().join("other"));
    fs::write(&copy, bytes).expect("a copy");
    let state = steered.dir.path().join("other.state");
    let pid = steered.pid();
    fs::write(&pid_file, format!("{pid}\n")).expect("a pid file");
    let start = proc::stat(pid).expect("it lives").start;
    let text = format!("state=ready\npid={pid}\nstart_time={start}\nsocket=\nboard={}\n", copy.display());
    fs::write(state, text).expect("a state file");
    format!("--pid-file {} top --once", pid_file.display())
}

#[test] // O-ST-15
fn board_of_another_layout_is_refused_with_both_numbers() {
    let steered = Steered::pool(2, "--board DIR/board");
    let whole = board_copy(&steered, |_| ());
    let out = run(&whole).expect(0);
    for child in steered.running.children() {
        assert!(out.contains(&child.to_string()), "{out}");
    }
    let mut known = 0;
    let command = board_copy(&steered, |bytes| {
        let layout: &mut [u8; 4] = (&mut bytes[LAYOUT_AT..LAYOUT_AT + 4]).try_into().expect("four bytes");
        known = u32::from_ne_bytes(*layout);
        *layout = (known + 4711).to_ne_bytes();
    });
    let err = run(&command).expect_error(1);
    assert!(known > 0 && err.contains(&format!("has layout {}", known + 4711)), "{err}");
    assert!(err.contains(&format!("knows layout {known}")), "{err}");
}

#[test] // O-ST-14: known by the start time of its process, and by the boot
fn stale_board_is_said_to_be_so() {
    let mut steered = Steered::pool(2, "--board DIR/board");
    let start = proc::stat(steered.pid()).expect("it lives").start.to_ne_bytes();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a boot").replace('-', "");
    let boot = u64::from_str_radix(&boot[..16], 16).expect("digits").to_ne_bytes();
    let place =
        |bytes: &[u8], wanted: [u8; 8]| bytes.windows(8).position(|window| window == wanted).expect("it is there");
    assert!(!run(&board_copy(&steered, |_| ())).expect(0).contains("this is"));
    let other_start = board_copy(&steered, |bytes| {
        let at = place(bytes, start);
        bytes[at] ^= 1;
    });
    let out = run(&other_start).expect(0);
    assert!(out.contains("the parent is dead"), "{out}");
    let other_boot = board_copy(&steered, |bytes| {
        let at = place(bytes, boot);
        bytes[at] ^= 1;
    });
    let out = run(&other_boot).expect(0);
    assert!(out.contains("the system was booted since"), "{out}");
    // Nobody is left who could tell, and the children are still shown.
    let (children, whole) = (steered.running.children(), board_copy(&steered, |_| ()));
    steered.running.signal(Signal::SIGKILL);
    steered.running.wait_exit(DEADLINE);
    let out = run(&whole).expect(0);
    assert!(out.contains("the parent is dead") && out.contains("2 idle"), "{out}");
    assert!(children.iter().all(|child| out.contains(&child.to_string())), "{out}");
}

#[test] // O-ST-14: for whom its owner lets read it
fn board_is_for_the_group_of_its_file() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not root: no other user to be");
        return;
    }
    let steered = Steered::pool(2, "--board DIR/board");
    let (board, command) = (steered.dir.path().join("board"), board_copy(&steered, |_| ()));
    let state = steered.dir.path().join("other.state");
    let text = fs::read_to_string(&state).expect("a state file").replace("/copy", "/board");
    fs::write(state, text).expect("a state file");
    chown(&board, None, Some(STRANGER)).expect("it is ours");
    fs::set_permissions(steered.dir.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    let program = steered.dir.path().join("lenorectl");
    fs::copy(test_program("lenorectl"), &program).expect("a copy");
    let of_group = |group: u32| run_as(Program::new(&program).user(STRANGER, group), &command);
    let out = of_group(STRANGER).expect(0);
    assert!(out.contains("2 idle") && !out.contains("what follows"), "{out}");
    let err = of_group(STRANGER + 1).expect_error(5);
    assert!(err.contains(board.to_str().expect("UTF-8")), "{err}");
    // Also when there is nobody to ask.
    steered.running.signal(Signal::SIGSTOP);
    let out = wait_until("a stopped parent", DEADLINE, || {
        Some(of_group(STRANGER).expect(0)).filter(|out| out.contains("the parent is stopped"))
    });
    assert!(out.contains("2 idle"), "{out}");
    steered.running.signal(Signal::SIGCONT);
}

#[test] // O-ST-17: what is no letter is shown as `?`
fn unknown_letter_of_a_slot_is_never_printed() {
    let steered = Steered::pool(3, "--board DIR/board");
    let pid = steered.running.children()[1];
    let command = board_copy(&steered, |bytes| {
        // A slot begins with its sequence, its status and its pid.
        let status = u32::from(b'w').to_ne_bytes();
        let slot = [status, pid.to_ne_bytes()].concat();
        let at = bytes.windows(8).position(|window| window == slot).expect("the slot of an idle child");
        bytes[at..at + 4].copy_from_slice(&u32::from(b'X').to_ne_bytes());
    });
    let out = run(&command).expect(0);
    let row = out.lines().find(|line| line.contains(&format!(" {pid} "))).unwrap_or_else(|| panic!("{out}"));
    assert!(row.contains("torn") && out.contains("2 idle, 1 torn"), "{out}");
    let json = run(&command.replace("--once", "--json")).expect(0);
    let seen: Snapshot = serde_json::from_str(&json).expect("a snapshot");
    assert_eq!(seen.board.chars().filter(|letter| *letter == '?').count(), 1, "{}", seen.board);
    assert!(!seen.board.contains('X') && seen.pool.states.torn == 1, "{seen:?}");
}

#[test] // O-ST-17
fn scoreboard_line_is_in_text_and_json_with_its_letters_explained() {
    let steered = Steered::pool(3, "");
    let _client = occupy(&steered, "somebody");
    steered.control().wait_status("a busy child", |status| (status.pool.states.busy == 1).then_some(()));
    let seen: Snapshot = serde_json::from_str(&ask(&steered.path, "status --json").expect(0)).expect("a snapshot");
    let text = ask(&steered.path, "status").expect(0);
    assert!(text.contains(&format!("[{}]", seen.board)), "{text}");
    let mut letters: Vec<char> = seen.board.trim().chars().collect();
    letters.sort_unstable();
    assert_eq!(letters, ['r', 'w', 'w']);
    // Each letter that there can be, with what it means.
    for said in [
        "F is being forked",
        "f was forked",
        ". prepares",
        "w is idle",
        "r handles a request",
        "l handles a long request",
        "k keeps a connection",
        "e is exiting",
        "? can't be read",
        "a blank is a free slot",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
    fs::remove_file(steered.dir.path().join("gate")).expect("a file");
}

/// Where a board says which layout it has: behind eight bytes that say that it is a board.
const LAYOUT_AT: usize = 8;

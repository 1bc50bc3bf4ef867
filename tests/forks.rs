//! Forks at the kernel's level: the traps of spec/fork-traps.md that have to do with the poller, signals, buffers and
//! descriptors. Each test watches a scenario of tests/programs/forks from outside.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::sys::signal::Signal;

use util::{Client, DEADLINE, Program, Running, kill, proc, test_program, wait_until};

fn start(scenario: &str) -> Running {
    start_with(scenario, "")
}

fn start_with(scenario: &str, argument: &str) -> Running {
    Program::new(test_program("forks")).args([scenario, argument]).start()
}

#[track_caller]
fn expect_line(program: &Running, expected: &str) {
    assert_eq!(program.next_line(DEADLINE), expected);
}

/// Reads `count` lines, and returns them by process: what two processes print comes in any order.
#[track_caller]
fn lines(program: &Running, count: usize) -> (Vec<String>, Vec<String>) {
    let (mut parent, mut child) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let line = program.next_line(DEADLINE);
        match line.split_once(": ") {
            Some(("parent", text)) => parent.push(text.to_owned()),
            Some(("child", text)) => child.push(text.to_owned()),
            _ => panic!("whose line is {line:?}?"),
        }
    }
    (parent, child)
}

/// The pid in the line `forked PID`, which is taken out.
#[track_caller]
fn take_pid(parent: &mut Vec<String>) -> i32 {
    let place = parent.iter().position(|line| line.starts_with("forked ")).expect("the parent says whom it forked");
    parent.remove(place)["forked ".len()..].parse().expect("a pid is a number")
}

/// Makes sure that the programs have printed nothing more up to a point that `signal` marks: every process prints its
/// name, one line each.
#[track_caller]
fn expect_nothing_before(program: &Running, pid: i32, signal: Signal, line: &str) {
    kill(pid, signal).unwrap();
    expect_line(program, line);
}

#[track_caller]
fn wait_stopped(pid: i32) {
    wait_until("a stopped process", DEADLINE, || (proc::state(pid) == Some('T')).then_some(()));
}

/// The only child of the program.
#[track_caller]
fn only_child(program: &Running) -> i32 {
    wait_until("a child", DEADLINE, || program.children().first().copied())
}

#[test] // T1: in debug and in release, as mio checks for a second registration in debug builds only
fn a_child_that_tears_down_its_sources_does_not_mute_its_parent() {
    let program = start("tear_down");
    let address = program.listening_addr();
    // Nothing is left that could keep the child alive.
    let (mut parent, child) = lines(&program, 3);
    let pid = take_pid(&mut parent);
    assert_eq!(child, ["torn down", "run returned"]);
    wait_until("the child's end", DEADLINE, || (!proc::is_alive(pid)).then_some(()));
    for _ in 0..3 {
        let _client = Client::connect(address);
        expect_line(&program, "parent: accept");
    }
    expect_nothing_before(&program, program.pid(), Signal::SIGUSR1, "parent: USR1");
}

#[test] // T2
fn each_process_gets_its_own_signals_once_and_none_of_the_others() {
    let program = start("signals");
    let (mut parent, _) = lines(&program, 2);
    let child = take_pid(&mut parent);
    for round in 1..=1000 {
        // Both at once, then one after the other: the wrong one must not wake for it.
        kill(child, Signal::SIGUSR1).unwrap();
        if round % 2 == 0 {
            expect_line(&program, &format!("child: USR1 {round}"));
        }
        program.signal(Signal::SIGUSR1);
        if round % 2 == 0 {
            expect_line(&program, &format!("parent: USR1 {round}"));
        } else {
            let both = lines(&program, 2);
            assert_eq!(both, (vec![format!("USR1 {round}")], vec![format!("USR1 {round}")]));
        }
    }
}

#[test] // T3: sent between the fork and the child's own handlers
fn a_signal_for_a_new_child_waits_until_the_child_can_hear_it() {
    let program = start("stopped_child");
    expect_line(&program, &format!("parent: forked {}", only_child(&program)));
    let child = only_child(&program);
    wait_stopped(child);
    kill(child, Signal::SIGTERM).unwrap();
    kill(child, Signal::SIGCONT).unwrap();
    expect_line(&program, "child: begins");
    expect_line(&program, "child: TERM");
    expect_nothing_before(&program, program.pid(), Signal::SIGUSR1, "parent: USR1");
}

#[test] // T3: sent to the parent just before the fork
fn a_signal_that_the_parent_has_not_seen_yet_is_not_the_childs() {
    let program = start("pending_signal");
    let (mut parent, child) = lines(&program, 3);
    let pid = take_pid(&mut parent);
    assert_eq!((parent, child), (vec!["USR1".to_owned()], vec!["begins".to_owned()]));
    expect_nothing_before(&program, pid, Signal::SIGUSR2, "child: USR2");
    expect_nothing_before(&program, program.pid(), Signal::SIGUSR2, "parent: USR2");
}

#[test] // T3: sent to the parent, and turned into an event that the parent has not dispatched when it forks
fn a_signal_that_stands_in_the_parents_queue_is_not_the_childs() {
    let program = start("queued_signal");
    let (mut parent, child) = lines(&program, 3);
    let pid = take_pid(&mut parent);
    assert_eq!((parent, child), (vec!["USR1".to_owned()], vec!["begins".to_owned()]));
    expect_nothing_before(&program, pid, Signal::SIGUSR2, "child: USR2");
    expect_nothing_before(&program, program.pid(), Signal::SIGUSR2, "parent: USR2");
}

#[test] // K-EX-01: there is nobody who could be told, and both processes go on
fn panics_of_what_a_fork_was_given_end_nobody() {
    let mut program = start("brittle");
    let (parent, child) = lines(&program, 4);
    assert_eq!(parent, ["exited", "run returned"]);
    assert_eq!(child, ["begins", "run returned"]);
    assert!(program.wait_exit(DEADLINE).success());
}

#[test] // T6
fn text_in_buffers_is_written_once_however_the_child_ends() {
    let dir = tempfile::tempdir().unwrap();
    for style in ["return", "panic", "exit", "abort"] {
        let path = dir.path().join(style);
        let mut program = start_with("buffers", &format!("{style}:{}", path.display()));
        let first = program.next_line(DEADLINE);
        assert!(first.starts_with("printed "), "{style}: {first}");
        let mut printed = first;
        // The parent's word is the last: it waits for the child.
        while !printed.ends_with("parent: run returned") {
            printed += &program.next_line(DEADLINE);
        }
        assert!(program.wait_exit(DEADLINE).success(), "{style}");
        assert_eq!(printed.matches("printed").count(), 1, "{style}: {printed:?}");
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.matches("buffered ").count(), 1, "{style}: {text:?}");
        assert_eq!(text.matches("by line ").count(), 1, "{style}: {text:?}");
    }
}

/// A line that names the thread; the test program's own name, as it gave it none.
#[track_caller]
fn expect_refusal(program: &Running) {
    let line = program.next_line(DEADLINE);
    let expected = "parent: not forked: can't fork: the process has 2 threads, besides this one forks (tid ";
    assert!(line.starts_with(expected), "{line}");
}

#[test] // T7: what can't be looked up by its path any more is still looked at, and never passed over
fn process_with_several_threads_refuses_to_fork_in_a_chroot_without_proc() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let jail = tempfile::tempdir().expect("a directory can be made");
    let program = start_with("threads_in_a_jail", jail.path().to_str().expect("a name in UTF-8"));
    for number in 1..=3 {
        expect_refusal(&program);
        expect_line(&program, &format!("parent: Threads, and back came payload {number}"));
    }
    assert!(program.children().is_empty());
}

#[test] // T7: the same of a program that was locked up before it made its kernel; the system says no more than that
fn process_with_several_threads_refuses_to_fork_without_proc_from_the_start() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let jail = tempfile::tempdir().expect("a directory can be made");
    let program = Program::new(test_program("forks")).args(["threads", ""]).arg(jail.path()).start();
    for number in 1..=3 {
        let refused =
            "parent: not forked: can't fork: the process has 2 threads. Start threads in the children, after the fork";
        expect_line(&program, refused);
        expect_line(&program, &format!("parent: Threads, and back came payload {number}"));
    }
    assert!(program.children().is_empty());
}

#[test] // T7: one thread forks, with a kernel from before the chroot or from within
fn process_with_one_thread_forks_in_a_chroot_without_proc() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let jail = tempfile::tempdir().expect("a directory can be made");
    let path = jail.path().to_str().expect("a name in UTF-8");
    for args in [["alone_in_a_jail", path, ""], ["alone_in_a_jail", "/", path]] {
        let args = args.into_iter().filter(|arg| !arg.is_empty());
        let program = Program::new(test_program("forks")).args(args).start();
        let (mut parent, child) = lines(&program, 2);
        take_pid(&mut parent);
        assert_eq!(child, ["begins with 1"]);
    }
}

#[test] // T7
fn a_process_with_several_threads_refuses_to_fork_and_returns_the_payload() {
    let program = start("threads");
    for number in 1..=3 {
        expect_refusal(&program);
        expect_line(&program, &format!("parent: Threads, and back came payload {number}"));
    }
    assert!(program.children().is_empty());
    expect_nothing_before(&program, program.pid(), Signal::SIGUSR1, "parent: USR1");
}

#[test] // T16: the payload comes back, the next fork works, and no signal stays blocked
fn a_fork_that_the_system_refuses_is_reported_with_its_payload_and_may_be_tried_again() {
    let program = start("refused");
    for number in 1..=2 {
        let line = program.next_line(DEADLINE);
        assert!(line.starts_with("parent: not forked: fork: Resource temporarily unavailable"), "{line}");
        expect_line(&program, &format!("parent: Os, and back came payload {number}"));
    }
    let (mut parent, child) = lines(&program, 2);
    let pid = take_pid(&mut parent);
    assert_eq!(child, ["begins with 3"]);
    for pid in [pid, program.pid()] {
        assert_eq!(proc::sig_masks(pid).unwrap().blocked, 0);
    }
    expect_nothing_before(&program, program.pid(), Signal::SIGUSR1, "parent: USR1");
}

/// How many descriptors of each kind a process has: sockets, pipes, pollers, files.
fn kinds_of_fds(pid: i32) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for target in proc::fds(pid).into_values() {
        let kind = target.split_once(":[").map_or(&*target, |(kind, _)| kind).to_owned();
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

#[test] // T11
fn a_child_keeps_none_of_the_parents_connections_open() {
    let program = start("streams");
    let address = program.listening_addr();
    let mut before = kinds_of_fds(program.pid());
    let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(address)).collect();
    let (mut parent, child) = lines(&program, 2);
    let pid = take_pid(&mut parent);
    assert_eq!(child, ["begins beside 19 closed wheels"]);
    // Which client the child has depends on the order of accepting: it is the only one that is not closed.
    let last = clients.pop().expect("there are twenty");
    clients.iter_mut().for_each(Client::expect_eof);
    let mut served = last;
    assert_eq!(served.line("hello"), "hello");
    expect_line(&program, "child: hello");
    // What the parent had before its first client came, each thing once, and the one connection.
    *before.entry("socket".to_owned()).or_default() += 1;
    assert_eq!(kinds_of_fds(pid), before);
    // The parent has let go of the payload: when the child goes, the client sees it.
    kill(pid, Signal::SIGKILL).unwrap();
    served.expect_eof();
}

#[test] // T22, and one of the brief's: the rest of the batch goes on in the parent alone
fn a_batch_of_records_is_finished_by_the_parent_alone() {
    let program = start("batch");
    let mut client = Client::connect(program.listening_addr());
    client.send("fork\n1\n2\n3\n");
    let (mut parent, child) = lines(&program, 7);
    take_pid(&mut parent);
    assert_eq!(parent, ["fork", "1", "2", "3"]);
    assert_eq!(child, ["begins", "settled"]);
    for reply in ["fork", "1", "2", "3"] {
        assert_eq!(client.read_line(), reply, "each reply comes once");
    }
    // And what the parent drops is closed, though the child lives: the child has no copy.
    client.send("drop\n");
    expect_line(&program, "parent: drop");
    client.expect_eof();
}

#[test] // T22: as above, for a wheel that asked to be kept
fn a_kept_wheel_starts_in_the_child_with_nothing_read_and_nothing_to_write() {
    let program = start("kept");
    let mut client = Client::connect(program.listening_addr());
    client.send("fork\n1\n2\ndrop\nunfi");
    let (mut parent, child) = lines(&program, 7);
    take_pid(&mut parent);
    assert_eq!(parent, ["fork", "1", "2", "drop"]);
    assert_eq!(child, ["begins", "settled"]);
    client.send("nished\n");
    expect_line(&program, "child: nished");
    let mut seen = client.read_line();
    // The parent has dropped its wheel with these replies unsent, or not: that is up to it, but none comes twice.
    let mut replies = vec!["nished", "2", "1", "fork"];
    while seen != "nished" {
        assert_eq!(Some(&*seen), replies.pop());
        seen = client.read_line();
    }
    assert_eq!(client.line("more"), "more");
    expect_line(&program, "child: more");
}

#[test] // T22: as above
fn both_processes_hear_of_the_end_of_a_kept_wheel_that_forks_at_its_end() {
    let program = start("kept_at_its_end");
    let (mut parent, child) = lines(&program, 7);
    take_pid(&mut parent);
    assert_eq!(parent, ["last", "read 0", "run returned"]);
    assert_eq!(child, ["begins", "read 0", "run returned"]);
}

#[test] // T22: the wheel is to be shut down after its output, which is the parent's
fn a_child_that_has_nothing_to_write_does_not_shut_a_kept_wheel_down() {
    let program = start("kept_at_the_high_mark");
    let (parent, child) = lines(&program, 5);
    assert_eq!(parent, ["got for the peer", "read 0", "run returned"]);
    assert_eq!(child, ["settled", "run returned"]);
}

/// What the child prints while the parent is stopped.
#[track_caller]
fn expect_from_child(program: &Running, expected: &[&str]) {
    for line in expected {
        expect_line(program, &format!("child: {line}"));
    }
}

#[test] // T22: the child looks for itself, in a slice of its own
fn neither_the_parents_turn_nor_its_ready_list_goes_on_in_the_child() {
    let program = start("accepting");
    let (first, second) = (program.listening_addr(), program.listening_addr());
    wait_stopped(program.pid());
    let _clients = [first, first, second, second].map(Client::connect);
    program.signal(Signal::SIGCONT);
    expect_line(&program, "parent: accept");
    expect_from_child(&program, &["begins", "next slice", "accept", "accept", "accept"]);
}

#[test] // T22
fn the_parents_turn_of_watchers_does_not_go_on_in_the_child() {
    let program = start("watching");
    expect_line(&program, "parent: readable true");
    expect_from_child(&program, &["begins", "next slice", "readable false"]);
}

#[test] // design 5: at the fork point, with no state on the stack and before any other event
fn a_fork_asked_for_outside_of_run_happens_first_thing_in_it() {
    let program = start("order");
    let (parent, child) = lines(&program, 9);
    assert_eq!(parent, ["_start ends", "run begins", "forked", "posted", "alarm"]);
    // Posted events and alarms are inherited, as in POE; and FORKED is sent before anything else happens.
    assert_eq!(child, ["FORKED", "begins", "posted", "alarm"]);
}

#[test]
fn several_forks_asked_for_in_one_state_make_one_child_each() {
    let program = start("several");
    let (mut parent, child) = lines(&program, 6);
    let pids = [(); 3].map(|()| take_pid(&mut parent));
    for (name, pid) in ["a", "b", "c"].into_iter().zip(pids) {
        let expected = format!("begins {name} {pid}");
        assert!(child.contains(&expected), "{expected:?} in {child:?}: its own payload, in order");
    }
    // No child carried out a request that was meant for another one.
    assert_eq!(program.descendants_alive().len(), 3);
}

#[test]
fn a_child_does_not_wait_for_its_brothers_and_a_stopped_session_does_not_fork() {
    let mut program = start("inherited");
    let mut lines: Vec<String> = (0..9).map(|_| program.next_line(DEADLINE)).collect();
    lines.retain(|line| !line.starts_with("parent: forked "));
    let begins = lines.iter().filter(|line| line.starts_with("child: ")).collect::<Vec<_>>();
    assert!(begins.contains(&&"child: begins".to_owned()), "{lines:?}");
    let second = "child: second waits for children: false, has its own id: true".to_owned();
    assert!(begins.contains(&&second), "{lines:?}");
    assert!(program.wait_exit(DEADLINE).success());
    assert!(!lines.iter().any(|line| line.contains("doomed")));
}

#[test] // T1, K-LP-31, for a program that forks without the kernel
fn has_forked_makes_the_kernel_the_childs_own() {
    let program = start("by_itself");
    let address = program.listening_addr();
    let line = program.next_line(DEADLINE);
    assert!(line.starts_with("parent: not forked"), "{line}");
    let (mut parent, child) = lines(&program, 2);
    let pid = take_pid(&mut parent);
    assert_eq!(child, ["torn down"]);
    for _ in 0..3 {
        let _client = Client::connect(address);
        expect_line(&program, "parent: accept");
    }
    expect_nothing_before(&program, program.pid(), Signal::SIGUSR1, "parent: USR1");
    expect_nothing_before(&program, pid, Signal::SIGUSR2, "child: USR2");
    assert!(!proc::sig_masks(pid).unwrap().catches(Signal::SIGUSR1), "the child does not watch it");
    assert!(proc::sig_masks(program.pid()).unwrap().catches(Signal::SIGUSR1));
    wait_until("a quiet child", Duration::from_secs(1), || proc::is_alive(pid).then_some(()));
}

/// The parent of a child that has torn down what it inherited still hears of its clients.
#[track_caller]
fn expect_unharmed_parent(program: &Running, address: std::net::SocketAddr) {
    for _ in 0..3 {
        let _client = Client::connect(address);
        expect_line(program, "parent: accept");
    }
    expect_nothing_before(program, program.pid(), Signal::SIGUSR1, "parent: USR1");
}

#[test] // T1, T2: the child has to have a poller and a signal pipe of its own all the same
fn a_parent_without_descriptors_has_children() {
    let args =
        ["-c", r#"ulimit -n 64; exec "$@""#, "sh", &test_program("forks").display().to_string(), "no_descriptor_left"];
    let program = Program::new("sh").args(args).start();
    let (mut parent, child) = lines(&program, 2);
    let pid = take_pid(&mut parent);
    assert_eq!(child, ["begins"]);
    expect_nothing_before(&program, pid, Signal::SIGUSR1, "child: USR1");
    expect_nothing_before(&program, program.pid(), Signal::SIGUSR1, "parent: USR1");
}

#[test] // K-LP-30, T1
fn stop_in_a_child_that_has_told_nobody_leaves_the_parent_alone() {
    let program = start("stops_by_itself");
    let address = program.listening_addr();
    let line = program.next_line(DEADLINE);
    assert!(line.starts_with("parent: not forked"), "{line}");
    let (mut parent, child) = lines(&program, 3);
    let pid = take_pid(&mut parent);
    assert_eq!(child, ["stopped, knows its pid: true", "run returned"]);
    wait_until("the child's end", DEADLINE, || (!proc::is_alive(pid)).then_some(()));
    expect_unharmed_parent(&program, address);
}

#[test] // K-LP-32, T1
fn run_finds_out_by_itself_that_it_runs_in_a_child() {
    let program = start("runs_by_itself");
    let address = program.listening_addr();
    let line = program.next_line(DEADLINE);
    assert!(line.starts_with("parent: not forked"), "{line}");
    let (mut parent, child) = lines(&program, 2);
    let pid = take_pid(&mut parent);
    assert_eq!(child, ["run returned"]);
    wait_until("the child's end", DEADLINE, || (!proc::is_alive(pid)).then_some(()));
    expect_unharmed_parent(&program, address);
}

#[test] // K-LP-31; but a child can't wait for its parent's children
fn a_child_goes_on_with_the_sessions_events_alarms_aliases_and_watchers_of_its_parent() {
    let program = start("keeps_by_itself");
    let (mut parent, child) = lines(&program, 9);
    let pid = take_pid(&mut parent);
    let rest = ["readable", "posted, sent before", "alarm, set before"];
    assert_eq!(parent, [&["same session: true, waits for children: true"], &rest[..]].concat());
    assert_eq!(child, [&["same session: true, waits for children: false"], &rest[..]].concat());
    expect_nothing_before(&program, pid, Signal::SIGUSR1, "child: USR1");
    expect_nothing_before(&program, program.pid(), Signal::SIGUSR1, "parent: USR1");
}

#[test] // K-LP-33, but for the warning
fn a_signal_that_a_child_gets_before_it_has_told_the_kernel_is_nobodys() {
    let program = start("hears_by_itself");
    let (mut parent, child) = lines(&program, 2);
    let pid = take_pid(&mut parent);
    assert_eq!(child, ["begins"]);
    expect_nothing_before(&program, pid, Signal::SIGUSR2, "child: USR2");
    expect_nothing_before(&program, program.pid(), Signal::SIGUSR2, "parent: USR2");
}

/// The child has had no exception.
const ENDED: &str = "parent: the child has ended: exit status: 0";

/// What the parent and the child of `own_wheel_forked` print, each in its order.
fn own_wheel_forked(what: &str) -> [Vec<String>; 2] {
    let mut running = Program::new(test_program("own_wheel_forked")).arg(what).start();
    let lines: Vec<String> = std::iter::from_fn(|| running.try_next_line(DEADLINE)).collect();
    assert_eq!(running.wait_exit(DEADLINE).code(), Some(0), "{}", running.stderr_text());
    let (parent, child) = lines.into_iter().partition(|line| line.starts_with("parent: "));
    [parent, child]
}

#[test] // K-WH-14: the peer sees the end though the child lives
fn an_own_wheel_is_closed_in_a_child_unless_its_source_keeps_it() {
    for what in ["close", "break"] {
        let [parent, child] = own_wheel_forked(what);
        assert_eq!(parent, ["parent: Done", "parent: the peer reads Ok(0)", ENDED], "{what}");
        assert_eq!(child, ["child: Over", "child: None"], "{what}");
    }
}

#[test] // K-WH-14
fn an_own_wheel_that_is_kept_has_turns_in_the_child() {
    let [parent, child] = own_wheel_forked("keep");
    assert_eq!(parent, ["parent: Done", ENDED]);
    assert_eq!(child, ["child: Over", "child: Some(\"open\")", "b", "child: Over"]);
}

#[test] // K-WH-14
fn a_panic_in_what_is_left_of_the_parents_turn_closes_the_childs_wheel() {
    let [parent, child] = own_wheel_forked("panic");
    assert_eq!(parent, ["parent: Done", ENDED]);
    assert_eq!(child, ["child: Over", "child: None"]);
}

/// The lines that tell what is dropped of a background session at its end.
fn drops_of_job() -> Vec<String> {
    ["job stops", "dropped heap", "dropped what a state has captured", "dropped alarm"].map(str::to_owned).into()
}

#[test] // its listener is closed, and nothing of it is dropped: a destructor may do what is the parent's alone to do
fn background_session_is_left_to_the_parent_by_a_fork() {
    let mut program = start("background");
    let (mut parent, child) = lines(&program, 4 + 1 + 5 + 5);
    take_pid(&mut parent);
    assert_eq!(child[0], "no such session: session 1");
    assert_eq!(
        child[1..],
        ["no such session: alias job", "background sessions: 0, listener is open: false", "run returned"]
    );
    let answers = ["job answers", "job answers", "background sessions: 1, listener is open: true"];
    let last = ["job answers", "job answers"];
    let expected: Vec<String> = answers.into_iter().chain(last).map(str::to_owned).chain(drops_of_job()).collect();
    assert_eq!(parent[..expected.len()], expected);
    assert_eq!(parent[expected.len()..], ["run returned"]);
    assert!(program.wait_exit(DEADLINE).success());
}

#[test]
fn background_session_is_not_in_the_child_of_a_function() {
    let mut program = start("background_functions");
    let (parent, child) = lines(&program, 7);
    assert_eq!(parent[..2], ["job's helper: exit status: 0", "other helper: exit status: 0"]);
    assert_eq!(parent[2..6], drops_of_job());
    assert_eq!((parent[6].as_str(), child), ("run returned", vec![]));
    assert!(program.wait_exit(DEADLINE).success());
}

#[test] // its state goes on to its end there, with its heap, as the state of one that was stopped does
fn background_session_whose_state_forks_by_itself_is_not_in_the_child() {
    let mut program = start("background_by_itself");
    let (mut parent, child) = lines(&program, 8);
    take_pid(&mut parent);
    assert_eq!(child, ["goes on as the kernel, has its heap: true", "run returned"]);
    assert_eq!(parent[..4], drops_of_job());
    assert_eq!(parent[4..], ["run returned"]);
    assert!(program.wait_exit(DEADLINE).success());
}

#[test]
fn arguments_that_the_kernel_keeps_for_a_background_session_are_not_dropped_in_a_child() {
    let program = start("background_possessions");
    let (mut parent, child) = lines(&program, 2 + 2 + 7);
    take_pid(&mut parent);
    assert_eq!(child, ["begins", "run returned"]);
    assert_eq!(parent.pop().as_deref(), Some("run returned"));
    parent.sort_unstable();
    let kept = ["alarm", "event to another", "extra of a child", "extra of a handle", "extra of a signal"];
    let kept = kept.into_iter().chain(["own event", "own signal"]);
    assert_eq!(parent, kept.map(|what| format!("dropped {what}")).collect::<Vec<_>>());
}

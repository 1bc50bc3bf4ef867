//! `component::Resolver`, watched from outside. The program is `tests/programs/resolver.rs`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use util::lab::{Lab, send};
use util::{Client, DEADLINE, stays, wait_until};

/// The program, and the directory that it shares with the test.
struct Names {
    lab: Lab,
    dir: TempDir,
}

impl Names {
    fn start(args: &str) -> Names {
        let dir = tempfile::tempdir().expect("a directory");
        let lab = Lab::start("resolver", &format!("--dir {} {args}", dir.path().display()));
        Names { lab, dir }
    }

    /// With a server, and the gate closed for names that begin with `gate`.
    fn serve(args: &str) -> (Names, SocketAddr) {
        let names = Names::start(args);
        names.shut_gate();
        let addr = names.lab.running.listening_addr();
        (names, addr)
    }

    fn shut_gate(&self) {
        fs::write(self.dir.path().join("gate"), "").expect("a file");
    }

    fn open_gate(&self) {
        fs::remove_file(self.dir.path().join("gate")).expect("it was shut");
    }

    /// What helpers have been asked: by whom each name was looked up.
    fn asked(&self) -> Vec<(i32, String)> {
        let asked = fs::read_to_string(self.dir.path().join("asked")).unwrap_or_default();
        let line = |line: &str| line.split_once(' ').map(|(pid, host)| (pid.parse().expect("a pid"), host.to_owned()));
        asked.lines().filter_map(line).collect()
    }

    #[track_caller]
    fn wait_asked(&self, count: usize) -> Vec<(i32, String)> {
        wait_until(&format!("{count} look-ups"), DEADLINE, || Some(self.asked()).filter(|asked| asked.len() >= count))
    }
}

#[test]
fn slow_look_up_does_not_hold_the_loop() {
    let (names, addr) = Names::serve("");
    let (mut slow, mut quick) = (Client::connect(addr), Client::connect(addr));
    slow.send("ask gate\r\n");
    let (helper, _) = names.wait_asked(1).remove(0);
    assert_eq!(names.lab.running.children(), [helper]);
    assert_eq!(quick.line("pid"), names.lab.pid().to_string());
    assert_eq!(quick.line("ask other"), "other: [127.0.0.1:80]");
    assert_eq!(quick.line("ask 10.0.0.1 25"), "10.0.0.1: [10.0.0.1:25]");
    names.open_gate();
    assert_eq!(slow.read_line(), "gate: [127.0.0.1:80]");
    assert_eq!(names.asked().len(), 2, "a numeric address is not looked up");
}

#[test]
fn equal_questions_are_asked_once_and_the_answer_is_kept() {
    let (names, addr) = Names::serve("");
    let mut clients = [(); 3].map(|()| Client::connect(addr));
    for (client, host) in clients.iter_mut().zip(["gate", "GATE", "Gate"]) {
        client.send(format!("ask {host}\r\n"));
        // It was asked when the next command is answered.
        client.send("pid\r\n");
        client.read_line();
    }
    names.open_gate();
    for (client, host) in clients.iter_mut().zip(["gate", "GATE", "Gate"]) {
        assert_eq!(client.read_line(), format!("{host}: [127.0.0.1:80]"));
    }
    let [client, ..] = &mut clients;
    assert_eq!(client.line("ask gate"), "gate: [127.0.0.1:80]");
    assert_eq!(names.asked().len(), 1);
    assert_eq!(client.line("clear"), "cleared");
    assert_eq!(client.line("ask gate"), "gate: [127.0.0.1:80]");
    assert_eq!(names.asked().len(), 2);
    assert_eq!(client.line("ask gate 81"), "gate: [127.0.0.1:81]");
    assert_eq!(names.asked().len(), 3, "another port is another question");
}

#[test]
fn failure_names_the_host_and_is_kept_as_well() {
    let (names, addr) = Names::serve("");
    let mut client = Client::connect(addr);
    for _ in 0..2 {
        assert_eq!(client.line("ask none"), "none: can't look up \"none\": no such name");
        assert_eq!(client.line("ask empty"), "empty: can't look up \"empty\": the name has no address");
    }
    assert_eq!(names.asked().len(), 2);
    let (uncached, addr) = Names::serve("--cache-ms 0");
    let mut client = Client::connect(addr);
    for count in 1..=2 {
        client.line("ask none");
        assert_eq!(uncached.asked().len(), count);
    }
}

#[test]
fn helper_past_its_limit_is_killed_and_replaced() {
    let (names, addr) = Names::serve("--helpers 1 --limit-ms 200");
    let (mut first, mut second) = (Client::connect(addr), Client::connect(addr));
    first.send("ask hang\r\n");
    let (hung, _) = names.wait_asked(1).remove(0);
    // It waits for the only helper there may be.
    second.send("ask other\r\n");
    assert_eq!(first.read_line(), "hang: can't look up \"hang\": no answer within the time limit of 200ms");
    assert_eq!(second.read_line(), "other: [127.0.0.1:80]");
    let (other, _) = names.asked().remove(1);
    assert_ne!(other, hung);
    names.lab.wait_gone(&[hung]);
    assert_eq!(second.line("ask another"), "another: [127.0.0.1:80]");
    assert_eq!(names.asked().remove(2).0, other, "a helper that waits is used again");
    names.lab.running.wait_for_stderr("a helper that timed out looking up a name: host=\"hang\" limit=200ms", DEADLINE);
}

#[test]
fn questions_wait_when_all_helpers_are_busy() {
    let (names, addr) = Names::serve("--helpers 2");
    let mut client = Client::connect(addr);
    for host in ["gate-1", "gate-2", "gate-3", "gate-4"] {
        client.send(format!("ask {host}\r\n"));
    }
    names.wait_asked(2);
    stays("two helpers", Duration::from_millis(50), || {
        names.asked().len() == 2 && names.lab.running.children().len() == 2
    });
    names.open_gate();
    let mut answers = [(); 4].map(|()| client.read_line());
    answers.sort();
    assert_eq!(answers, ["gate-1", "gate-2", "gate-3", "gate-4"].map(|host| format!("{host}: [127.0.0.1:80]")));
    let mut pids: Vec<i32> = names.asked().into_iter().map(|(pid, _)| pid).collect();
    pids.sort();
    pids.dedup();
    assert_eq!(pids.len(), 2);
}

#[test]
fn helper_ends_when_it_is_idle_and_another_begins_on_demand() {
    let (names, addr) = Names::serve("--idle-ms 50");
    let mut client = Client::connect(addr);
    assert_eq!(names.lab.running.children(), [0; 0], "there is none before the first question");
    for host in ["one", "two"] {
        assert_eq!(client.line(&format!("ask {host}")), format!("{host}: [127.0.0.1:80]"));
        wait_until("no helper", DEADLINE, || names.lab.running.children().is_empty().then_some(()));
    }
    let asked = names.asked();
    assert_ne!(asked[0].0, asked[1].0);
}

#[test]
fn question_whose_helper_dies_is_answered() {
    let (names, addr) = Names::serve("--helpers 1");
    let mut client = Client::connect(addr);
    assert_eq!(client.line("ask die"), "die: can't look up \"die\": the helper has died");
    assert_eq!(client.line("ask other"), "other: [127.0.0.1:80]");
    assert_eq!(client.line("ask die"), "die: can't look up \"die\": the helper has died");
    assert_eq!(names.asked().len(), 3, "that is not kept");
}

#[test]
fn helpers_do_not_outlive_a_process_that_is_killed() {
    let (names, addr) = Names::serve("");
    let mut client = Client::connect(addr);
    client.send("ask hang\r\nask other\r\n");
    assert_eq!(client.read_line(), "other: [127.0.0.1:80]");
    let pids: Vec<i32> = names.wait_asked(2).into_iter().map(|(pid, _)| pid).collect();
    send(names.lab.pid(), Signal::SIGKILL);
    names.lab.wait_gone(&pids);
}

#[test]
fn each_child_of_a_daemon_has_helpers_of_its_own() {
    let (mut names, addr) = Names::serve("--mode prefork:2");
    let mut clients = [(); 2].map(|()| Client::connect(addr));
    for (client, host) in clients.iter_mut().zip(["one", "two"]) {
        let child: i32 = client.line("pid").parse().expect("a pid");
        assert_eq!(client.line(&format!("ask {host}")), format!("{host}: [127.0.0.1:80]"));
        let (helper, _) = names.asked().pop().expect("it was asked");
        assert_eq!(util::proc::ppid(helper), Some(child));
    }
    drop(clients);
    // The helpers would wait for an hour.
    names.lab.end(Signal::SIGTERM);
}

#[test]
fn resolver_does_not_keep_the_program() {
    let mut names = Names::start("--once other");
    names.lab.expect_end();
    let pid = names.lab.pid();
    assert_eq!(names.lab.all(), [format!("{pid} other: [127.0.0.1:80] extra"), format!("{pid} end")]);
    // Such as that child processes are left.
    let log = names.lab.running.stderr_to_end(DEADLINE);
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}

#[test]
fn question_of_the_parent_is_not_answered_in_a_forked_child() {
    let mut names = Names::start("--once hang --fork --limit-ms 1500");
    let (child, _) = names.lab.nth(1, "child begins");
    names.lab.expect(child, "end");
    let pid = names.lab.pid();
    names.lab.expect(pid, "hang: can't look up \"hang\": no answer within the time limit of 1.5s extra");
    names.lab.running.wait_exit(DEADLINE);
}

#[test]
fn question_that_was_asked_just_before_a_fork_is_the_parents() {
    let mut names = Names::start("--once other --fork-at-once");
    let (child, _) = names.lab.nth(1, "child begins");
    let (parent, answer) = names.lab.nth(1, "other:");
    assert_eq!((parent, answer.as_str()), (names.lab.pid(), "[127.0.0.1:80] extra"));
    names.lab.expect_end();
    names.lab.all();
    assert_eq!(names.lab.story(child), "child begins, end");
    assert_eq!(names.asked().len(), 1);
}

#[test]
fn look_up_that_prints_to_standard_output_is_answered() {
    let (names, addr) = Names::serve("--helpers 1");
    let mut client = Client::connect(addr);
    assert_eq!(client.line("ask print"), "print: [127.0.0.1:80]");
    assert_eq!(client.line("ask other"), "other: [127.0.0.1:80]");
    names.lab.running.wait_for_stderr("ok 192.0.2.1:80", DEADLINE);
}

#[test]
fn helper_that_answers_without_a_question_is_replaced() {
    let (names, addr) = Names::serve("--helpers 1");
    let mut client = Client::connect(addr);
    // It has written two answers before its own.
    assert_eq!(client.line("ask stray"), "stray: [192.0.2.1:80]");
    let (stray, _) = names.asked().remove(0);
    names.lab.wait_gone(&[stray]);
    names.lab.running.wait_for_stderr("has killed a helper that answered without a question", DEADLINE);
    assert_eq!(client.line("ask other"), "other: [127.0.0.1:80]");
    assert_ne!(names.asked().remove(1).0, stray);
}

#[test]
fn name_that_is_too_long_is_refused_without_a_look_up() {
    let (names, addr) = Names::serve("");
    let mut client = Client::connect(addr);
    let (longest, longer) = ("x".repeat(255), "x".repeat(256));
    assert_eq!(client.line(&format!("ask {longest}")), format!("{longest}: [127.0.0.1:80]"));
    let reason = "a name has 1 to 255 bytes, and no spaces or control characters";
    assert_eq!(client.line(&format!("ask {longer}")), format!("{longer}: can't look up \"{longer}\": {reason}"));
    assert_eq!(names.asked().len(), 1);
}

#[test]
fn question_behind_a_shutdown_is_answered() {
    let (names, addr) = Names::serve("");
    let mut client = Client::connect(addr);
    assert_eq!(client.line("shutdown-ask other"), "other: can't look up \"other\": the resolver has stopped");
    assert_eq!(names.asked().len(), 0);
    assert!(names.lab.running.children().is_empty());
}

#[test]
fn question_that_waits_is_answered_when_the_resolver_is_shut_down() {
    let (names, addr) = Names::serve("");
    let mut client = Client::connect(addr);
    client.send("ask hang\r\n");
    let (helper, _) = names.wait_asked(1).remove(0);
    client.send("shutdown\r\n");
    assert_eq!(client.read_line(), "hang: can't look up \"hang\": the resolver has stopped");
    names.lab.wait_gone(&[helper]);
}

#[test]
fn wheel_and_client_connect_to_what_the_resolver_finds() {
    let (names, addr) = Names::serve("--limit-ms 5000");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("it listens").port();
    let mut client = Client::connect(addr);
    client.send(format!("connect gate {port}\r\npid\r\n"));
    assert_eq!(client.read_line(), names.lab.pid().to_string(), "the loop goes on meanwhile");
    names.open_gate();
    assert_eq!(client.read_line(), format!("connected to 127.0.0.1:{port}"));
    listener.accept().expect("the wheel's connection");
    client.send(format!("client other {port}\r\n"));
    let mut peer = BufReader::new(listener.accept().expect("the client's connection").0);
    let mut line = String::new();
    peer.read_line(&mut line).expect("a line");
    assert_eq!(line, "hello\r\n");
    let not_found = format!("getaddrinfo {}: can't look up \"none\": no such name", Errno::EADDRNOTAVAIL as i32);
    assert_eq!(client.line("connect none"), not_found);
    assert_eq!(client.line("client none"), not_found);
    assert_eq!(
        client.line("connect 127.0.0.1 1"),
        format!("connect {}: {}", Errno::ECONNREFUSED as i32, std::io::Error::from(Errno::ECONNREFUSED))
    );
}

#[test]
fn wheel_whose_name_takes_too_long_times_out() {
    let (_names, addr) = Names::serve("--limit-ms 200");
    let why = "can't look up \"hang\": no answer within the time limit of 200ms";
    let timed_out = format!("getaddrinfo {}: {why}", Errno::ETIMEDOUT as i32);
    let mut client = Client::connect(addr);
    assert_eq!(client.line("connect hang"), timed_out);
    assert_eq!(client.line("client hang"), timed_out);
}

#[test]
fn wheel_that_is_dropped_hears_of_no_answer() {
    let (names, addr) = Names::serve("");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("it listens").port();
    let mut client = Client::connect(addr);
    client.send(format!("connect gate {port}\r\n"));
    names.wait_asked(1);
    assert_eq!(client.line("drop"), "dropped");
    client.send(format!("ask gate {port}\r\n"));
    names.open_gate();
    assert_eq!(client.read_line(), format!("gate: [127.0.0.1:{port}]"));
    assert_eq!(client.line("pid"), names.lab.pid().to_string());
    assert_eq!(names.asked().len(), 1, "the answer was for both");
}

#[test]
fn wheel_fails_when_the_resolver_has_stopped() {
    let (names, addr) = Names::serve("");
    let mut client = Client::connect(addr);
    client.send("connect hang\r\n");
    names.wait_asked(1);
    client.send("shutdown\r\n");
    let errno = Errno::EADDRNOTAVAIL as i32;
    let stopped = format!("getaddrinfo {errno}: can't look up \"hang\": the resolver has stopped");
    assert_eq!(client.read_line(), stopped);
    assert!(client.line("connect other").starts_with(&format!("getaddrinfo {errno}: no such session")));
}

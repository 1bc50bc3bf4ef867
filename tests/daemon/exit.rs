//! D-SH-14 to 16: what happens in a child after its last session has ended.

use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::site::{Site, terminate, wait_gone};
use util::lab::LONG;
use util::{Client, DEADLINE, Program, Running, at_once, test_program, wait_until};

const MODES: [&str; 2] = ["prefork:1", "fork:5"];

/// The program, in a directory of its own.
struct Exit {
    site: Site,
    running: Running,
    addr: SocketAddr,
}

impl Exit {
    #[track_caller]
    fn start(args: &str) -> Exit {
        Exit::launch(Site::new(), args)
    }

    #[track_caller]
    fn launch(site: Site, args: &str) -> Exit {
        let program = Program::new(test_program("daemon_exit"));
        let program = program.args(site.words("--report @report --buffered @buffered")).args(site.words(args));
        let running = program.start();
        let addr = site.said("listening on").parse().expect("an address");
        Exit { site, running, addr }
    }

    fn client(&self) -> Client {
        Client::connect(self.addr)
    }

    /// Has a child answer, and waits until it is gone.
    #[track_caller]
    fn serve_one(&self) -> i32 {
        let mut client = self.client();
        let pid = client.line("who").parse().expect("a pid");
        client.finish_sending();
        client.expect_eof();
        wait_gone(pid);
        pid
    }

    /// What `pid` has reported.
    fn story(&self, pid: i32) -> Vec<String> {
        let of_pid = |(who, what): (i32, String)| (who == pid).then_some(what);
        self.site.report().into_iter().filter_map(of_pid).collect()
    }

    /// The record that the Daemon leaves of a child's end; the log of this program is written when a child is forked.
    #[track_caller]
    fn record(&self, pid: i32) -> String {
        wait_until("the record of a child's end", LONG, || {
            let _ = self.client().line("who");
            let (log, begin) = (self.running.stderr_text(), format!("child has ended: pid={pid} "));
            log.lines().find(|line| line.contains(&begin)).map(str::to_owned)
        })
    }

    #[track_caller]
    fn end(&mut self) -> Vec<String> {
        self.running.signal(Signal::SIGTERM);
        assert_eq!(self.running.wait_exit(LONG).code(), Some(0));
        self.story(self.running.pid())
    }
}

/// What each child reports, and what a parent does as well.
const RETURNED: [&str; 4] = ["heap dropped", "run returned, failed=false", "main dropped", "at exit"];

#[test] // D-SH-14: the parent alone goes on after `run`, and drops what `main` has
fn nothing_of_the_program_runs_in_a_child_after_its_sessions() {
    at_once(MODES, |mode| {
        let mut exit = Exit::start(&format!("--mode {mode} --temporary @temporary"));
        fs::write(exit.site.path("temporary"), "").expect("our own directory");
        for _ in 0..3 {
            let child = exit.serve_one();
            assert_eq!(exit.story(child), ["heap dropped"]);
            assert!(exit.site.exists("temporary"));
        }
        let story = exit.end();
        assert_eq!(story[1..], RETURNED, "after the address");
        assert!(!exit.site.exists("temporary"));
        // Nor did a child that was ended with the parent.
        assert_eq!(exit.site.count("at exit"), 1);
    });
}

#[test] // D-SH-14: with the loop in the program's hands it is the same
fn child_of_a_program_that_runs_slices_exits_as_well() {
    let mut exit = Exit::start("--mode fork:5 --slices");
    let child = exit.serve_one();
    assert_eq!(exit.story(child), ["heap dropped"]);
    assert_eq!(exit.end()[1..], RETURNED);
}

#[test] // D-SH-14: a pipe, a logger that buffers, and a writer of the program's own
fn what_stands_in_buffers_at_the_end_of_a_child_is_written() {
    at_once(MODES, |mode| {
        let exit = Exit::start(&format!("--mode {mode}"));
        let children = [exit.serve_one(), exit.serve_one()];
        let mut said = String::new();
        for child in children {
            let file = exit.site.read("buffered");
            assert_eq!(file.matches(&format!("{child} last words to a file;")).count(), 1, "{file}");
            let log = exit.running.wait_for_stderr(&format!("{child} last words to the log"), DEADLINE);
            assert!(log.starts_with("[INFO] "), "{log}");
            // Logged by what was registered to flush the file.
            exit.running.wait_for_stderr(&format!("{child} has flushed its file"), DEADLINE);
            said.push_str(&format!("{child} last words to standard output;"));
        }
        // The first line has its end by now; nothing else does, as nobody else writes there.
        let mut exit = exit;
        exit.running.signal(Signal::SIGTERM);
        exit.running.wait_exit(LONG);
        let mut lines = String::new();
        while let Some(line) = exit.running.try_next_line(DEADLINE) {
            lines.push_str(&line);
        }
        assert!(lines.contains(&said), "{lines}");
    });
}

#[test] // D-SH-14: the child waits until the client has taken its answer
fn large_last_answer_reaches_a_client_that_reads_late() {
    const SIZE: usize = 8 << 20;
    at_once(MODES, |mode| {
        let mut exit = Exit::start(&format!("--mode {mode}"));
        let mut client = exit.client();
        client.send(format!("big {SIZE}\n"));
        let mut stream = client.stream();
        let (mut octets, mut buffer) = (0, vec![0; 1 << 20]);
        loop {
            match stream.read(&mut buffer).expect("in time") {
                0 => break,
                count => octets += count,
            }
            // A slow client: this is no synchronisation.
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(octets, SIZE + 2);
        exit.end();
    });
}

#[test] // D-SH-14, K-EX-18
fn child_that_fails_exits_with_1_when_the_log_has_it() {
    at_once(MODES.into_iter().flat_map(|mode| ["fail", "panic"].map(|how| (mode, how))), |(mode, how)| {
        let mut exit = Exit::start(&format!("--mode {mode}"));
        let mut client = exit.client();
        let child: i32 = client.line("who").parse().expect("a pid");
        client.send(format!("{how}\n"));
        client.expect_eof_or_reset();
        let record = exit.record(child);
        assert!(record.contains(" cause=exited:1 "), "{record}");
        let log = exit.running.stderr_text();
        let told = log.lines().filter(|line| line.starts_with("[ERROR] ") && line.contains("as asked")).count();
        assert_eq!(told, 1, "{log}");
        assert_eq!(exit.story(child), ["heap dropped"]);
        exit.end();
    });
}

#[test] // D-SH-14: `main`, which would say it, does not get it
fn failure_is_written_to_standard_error_where_there_is_no_log() {
    let mut exit = Exit::start("--mode fork:5 --no-logger");
    let mut client = exit.client();
    client.send("fail\n");
    client.expect_eof_or_reset();
    exit.running.wait_for_stderr(": as asked", DEADLINE);
    exit.end();
}

#[test] // D-SH-15: as with POE
fn run_returns_in_children_if_the_program_says_so() {
    at_once(MODES, |mode| {
        let mut exit = Exit::start(&format!("--mode {mode} --return"));
        let child = exit.serve_one();
        assert_eq!(exit.story(child), RETURNED);
        let mut client = exit.client();
        let child: i32 = client.line("who").parse().expect("a pid");
        client.send("fail\n");
        client.expect_eof_or_reset();
        wait_gone(child);
        assert_eq!(exit.story(child)[1], "run returned, failed=true");
        assert_eq!(exit.end()[1..], RETURNED);
    });
}

#[test] // D-SH-16: a process that the program forks, and the function of a wheel, have nothing to do with the Daemon
fn run_returns_in_the_children_of_a_child() {
    at_once(["fork", "function"], |what| {
        let mut exit = Exit::start("--mode fork:5");
        let mut client = exit.client();
        client.send(format!("{what}\n"));
        client.read_line();
        let child: i32 = client.line("who").parse().expect("a pid");
        match what {
            "fork" => {
                let own = exit.site.wait_for("own child");
                wait_until("its end", DEADLINE, || exit.story(own).contains(&"at exit".to_owned()).then_some(()));
                assert_eq!(exit.story(own)[1..], RETURNED, "after its state");
            }
            _ => assert_ne!(exit.site.wait_for("run returned in the function"), child),
        }
        client.finish_sending();
        client.expect_eof();
        wait_gone(child);
        assert_eq!(exit.story(child), ["heap dropped"]);
        exit.end();
    });
}

#[test] // D-SH-14, D-DE-06: of a detached server, whose children end by signals as well
fn pid_file_and_temporary_file_survive_the_children_of_a_detached_server() {
    at_once(MODES, |mode| {
        let site = Site::new();
        fs::write(site.path("temporary"), "").expect("our own directory");
        let args = format!("--mode {mode} --detach --pid-file @pid --temporary @temporary");
        let exit = Exit::launch(site, &args);
        let parent = exit.site.wait_for("listening on");
        exit.running.reap_later(parent);
        let mut client = exit.client();
        let child: i32 = client.line("who").parse().expect("a pid");
        util::kill(child, Signal::SIGTERM).expect("a living process of ours");
        client.finish_sending();
        wait_gone(child);
        exit.serve_one();
        assert!(exit.site.exists("temporary"));
        assert_eq!(exit.site.read("pid"), format!("{parent}\n"));
        terminate(parent);
        assert!(!exit.site.exists("temporary") && !exit.site.exists("pid"));
    });
}

//! An end that load balancers hear of before a listener is closed.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use util::http::{get, status_address};
use util::manager::Manager;
use util::{Client, DEADLINE, Program, Running, test_program, wait_until};

const MODES: [&str; 3] = ["prefork:2", "fork:4", "single"];

fn start(mode: &str, args: &str) -> Running {
    let program = Program::new(test_program("daemon_control")).args(["--status", "127.0.0.1:0", "--mode", mode]);
    program.args(args.split_whitespace()).start()
}

#[test] // O-SD-17
fn readiness_ends_before_anything_closes() {
    for mode in MODES {
        let mut running = start(mode, "--lame-duck-ms 800 --grace-ms 3000");
        let (serves, status) = (running.listening_addr(), status_address(&running));
        wait_until("a daemon that is ready", DEADLINE, || (get(status, "/ready").status == 200).then_some(()));
        running.signal(Signal::SIGTERM);
        let begin = Instant::now();
        wait_until("a daemon that is not ready", DEADLINE, || (get(status, "/ready").status == 503).then_some(()));
        assert_eq!(get(status, "/live").status, 200, "{mode}");
        let mut served = 0;
        while begin.elapsed() < Duration::from_millis(500) {
            let mut client = Client::connect(serves);
            assert!(client.line("x").ends_with(" x"), "{mode}");
            served += 1;
        }
        assert!(served > 0);
        assert_eq!(running.wait_exit(DEADLINE).code(), Some(0), "{mode}");
        let took = begin.elapsed();
        assert!((Duration::from_millis(790)..Duration::from_secs(3)).contains(&took), "{mode}: {took:?}");
    }
}

#[test] // O-SD-17: all of it is within shutdown_timeout
fn lame_duck_is_a_part_of_the_time_to_end() {
    let mut running = start("prefork:1", "--lame-duck-ms 700 --grace-ms 1500");
    let serves = running.listening_addr();
    let mut client = Client::connect(serves);
    client.line("x");
    client.send("late 60000\r\n");
    running.signal(Signal::SIGTERM);
    let begin = Instant::now();
    running.wait_exit(DEADLINE);
    let took = begin.elapsed();
    assert!((Duration::from_millis(1400)..Duration::from_millis(2600)).contains(&took), "{took:?}");
}

#[test] // O-SD-17: who asks twice does not want to wait
fn second_term_ends_it_at_once() {
    for mode in MODES {
        let mut running = start(mode, "--lame-duck-ms 20000 --grace-ms 30000");
        running.listening_addr();
        running.signal(Signal::SIGTERM);
        running.wait_for_stderr("shutdown begins in 20 s, and clients are served until then", DEADLINE);
        running.signal(Signal::SIGTERM);
        assert_eq!(running.wait_exit(DEADLINE).code(), Some(0), "{mode}");
    }
}

#[test] // O-SD-12: it can't be undone only when the drain begins
fn manager_hears_of_the_end_when_it_begins() {
    let mut manager = Manager::new();
    let program = Program::new(test_program("daemon_control")).args(["--mode", "prefork:1", "--lame-duck-ms", "700"]);
    let mut running = manager.starts(program).start();
    running.listening_addr();
    manager.wait_for("READY=1");
    running.signal(Signal::SIGTERM);
    let begin = Instant::now();
    let stopping = manager.wait_for("STOPPING=1");
    assert!(stopping.at - begin >= Duration::from_millis(650), "{:?}", stopping.at - begin);
    assert_eq!(running.wait_exit(DEADLINE).code(), Some(0));
}

#[test] // O-SD-17
fn lame_duck_that_leaves_no_time_is_refused() {
    let mut running = start("prefork:1", "--lame-duck-ms 10000");
    assert_eq!(running.wait_exit(DEADLINE).code(), Some(1));
    running.wait_for_stderr("lame_duck (10s) is not less than shutdown_timeout (10s)", DEADLINE);
}

//! The example `isolate`: a fault of the library costs the client that has met it its answer, and no other client anything.

use nix::sys::signal::Signal;

use crate::{LONG, end, expect_lost};
use util::{Client, Program, Running, example, wait_until};

fn start() -> (Running, std::net::SocketAddr) {
    let running = Program::new(example("isolate")).args(["--listen", "127.0.0.1:0"]).start();
    let addr = running.listening_addr();
    (running, addr)
}

#[test]
fn crash_and_hang_cost_their_own_clients_one_answer_each() {
    let (mut running, addr) = start();
    let mut other = Client::connect(addr);
    assert_eq!(other.line("one two three"), "3 words");
    for (text, cause) in [("crash", "cause=signal:SIGABRT"), ("hang", "cause=rogue:request_timeout")] {
        let mut client = Client::connect(addr);
        client.send(format!("{text}\n"));
        running.wait_for_stderr(cause, LONG);
        expect_lost(&mut client);
        // A connection in another child has noticed nothing, and a new one is served.
        assert_eq!(other.line("still here"), "2 words", "after {text}");
        assert_eq!(Client::connect(addr).line("new"), "1 words", "after {text}");
    }
    drop(other);
    end(&mut running, Signal::SIGTERM);
}

#[test]
fn leaking_child_is_replaced_after_its_connection() {
    let (mut running, addr) = start();
    let mut client = Client::connect(addr);
    // Each call leaks 1 MiB, and the limit is 64 MiB. A child that was asked to leave closes a connection without a request in hand.
    let mut answers = 0;
    while answers < 100 && client.try_send("one\n").is_ok() && client.try_read_line().is_ok_and(|line| line.is_some()) {
        answers += 1;
    }
    assert!(answers > 50, "{answers} MiB are less than the limit");
    drop(client);
    running.wait_for_stderr("cause=memory_limit", LONG);
    wait_until("another child in its place", LONG, || (running.children().len() >= 4).then_some(()));
    assert_eq!(Client::connect(addr).line("new one"), "2 words");
    end(&mut running, Signal::SIGTERM);
}

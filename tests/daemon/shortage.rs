//! Servers that run out of file descriptors.

use std::net::SocketAddr;

use nix::sys::signal::Signal;

use util::lab::{LONG, Lab, held};
use util::{Client, DEADLINE, Program, test_program, wait_until};

/// Starts a server that may have so many descriptors.
fn serve_with_descriptors(number: u32, args: &str) -> (Lab, SocketAddr) {
    let limited = format!("ulimit -n {number}; exec \"$0\" \"$@\"");
    let program = Program::new("/bin/sh").args(["-c", limited.as_str()]).arg(test_program("component_server"));
    let lab = Lab::launch(program.args(args.split_whitespace()));
    let addr = lab.running.listening_addr();
    (lab, addr)
}

/// Has 40 clients come to a server that can't serve all of them at a time. Each goes when the next one is to be served. The log
/// has one line that the server at `addr` can't accept and one that it accepts again.
fn expect_one_outage(lab: &Lab, addr: SocketAddr) {
    let mut waiting: Vec<Client> = (0..40).map(|_| Client::connect(addr)).collect();
    waiting.iter_mut().for_each(|client| client.send("hello\r\n"));
    let begin = lab.running.wait_for_stderr("can't accept for now", DEADLINE);
    assert!(begin.contains("[WARN]") && begin.contains("Too many open files"), "{begin}");
    assert!(begin.contains(&format!(": address={addr} errno=EMFILE ")), "{begin}");
    let mut served = Vec::new();
    while !waiting.is_empty() {
        // Whichever it is: a busy system may have queued one that came later in front of another.
        let next = wait_until("an answer to one that waits", LONG, || waiting.iter().position(has_answer));
        served.push(waiting.swap_remove(next));
        if !waiting.iter().any(has_answer) {
            // The server has accepted the last one that it could, and has failed with the next.
            served.pop().expect("one was pushed").read_line();
        }
    }
    served.iter_mut().for_each(|client| drop(client.read_line()));
    drop(served);
    let end = lab.running.wait_for_stderr("listener accepts again", DEADLINE);
    assert!(end.contains("[INFO]") && end.contains(&format!("address={addr} failed=")), "{end}");
    let log = lab.running.stderr_text();
    for text in ["can't accept", "accepts again"] {
        assert_eq!(log.matches(text).count(), 1, "{log}");
    }
}

/// Tells whether an answer is there, without waiting for it.
fn has_answer(client: &Client) -> bool {
    client.stream().set_nonblocking(true).expect("a socket can be non-blocking");
    let got = client.stream().peek(&mut [0]);
    client.stream().set_nonblocking(false).expect("and blocking");
    got.is_ok_and(|count| count > 0)
}

#[test] // K-SF-12, K-SF-29
fn server_without_descriptors_says_so_once() {
    let (mut lab, addr) = serve_with_descriptors(32, "--mode single");
    expect_one_outage(&lab, addr);
    // Another shortage is news again.
    let clients: Vec<Client> = (0..40).map(|_| Client::connect(addr)).collect();
    wait_until("another warning", DEADLINE, || {
        (lab.running.stderr_text().matches("can't accept for now").count() == 2).then_some(())
    });
    drop(clients);
    lab.end(Signal::SIGTERM);
}

#[test] // K-CS-25
fn tcp_server_without_descriptors_says_so_once() {
    let (lab, addr) = serve_with_descriptors(32, "--plain");
    expect_one_outage(&lab, addr);
    assert_eq!(held(addr).1, lab.pid());
}

#[test] // K-CS-06, K-CS-25
fn tcp_server_with_a_callback_tells_it_of_each_accept_that_fails() {
    let (lab, addr) = serve_with_descriptors(32, "--plain --on-error");
    let clients: Vec<Client> = (0..40).map(|_| Client::connect(addr)).collect();
    let failed = format!("failed: accept {}", nix::errno::Errno::EMFILE as i32);
    lab.nth(3, &failed);
    drop(clients);
    assert_eq!(held(addr).1, lab.pid());
    assert!(!lab.running.stderr_text().contains("accept"), "the program has been told");
}

#[test] // K-SF-12, K-SF-29
fn child_of_a_server_without_descriptors_says_so_once() {
    let (mut lab, addr) =
        serve_with_descriptors(32, "--start 1 --max 1 --min-spare 1 --max-spare 1 --connections 100 --grace-ms 5000");
    expect_one_outage(&lab, addr);
    lab.end(Signal::SIGTERM);
}

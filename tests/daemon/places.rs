//! A pool that listens at several places. The program is `tests/programs/component_server.rs`.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::component::{ALL, answers, pool, serve};
use util::lab::{Lab, held, pid_of};
use util::{Client, DEADLINE, wait_until};

fn also_at(lab: &Lab, number: usize) -> String {
    lab.nth(number, "also at").1
}

fn ask_unix(path: &Path) -> i32 {
    let mut client = UnixStream::connect(path).expect("it listens");
    client.write_all(b"hello\r\n").expect("a socket takes that");
    let mut line = String::new();
    BufReader::new(&client).read_line(&mut line).expect("an answer");
    pid_of(line.trim_end())
}

#[test]
fn server_serves_at_all_places_in_every_mode() {
    for args in ALL {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let (mut lab, addr) = serve(&format!("{args} --unix {} --proxy", path.display()));
        let proxied: SocketAddr = also_at(&lab, 2).parse().expect("an address");
        for _ in 0..3 {
            assert_eq!(answers(&mut Client::connect(addr)) == lab.pid(), args == "--mode single", "{args}");
            assert_eq!(ask_unix(&path) == lab.pid(), args == "--mode single", "{args}");
            let mut client = Client::connect(proxied);
            client.send("PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n");
            answers(&mut client);
        }
        lab.end(Signal::SIGTERM);
        assert!(!path.exists(), "{args}");
    }
}

#[test]
fn busy_place_does_not_starve_another_one() {
    for args in ["", "--connections 2"] {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let (mut lab, addr) = pool(1, &format!("{args} --requests 0 --unix {}", path.display()));
        let is_over = Arc::new(AtomicBool::new(false));
        let crowd: Vec<_> = (0..6)
            .map(|_| {
                let is_over = Arc::clone(&is_over);
                thread::spawn(move || {
                    while !is_over.load(Ordering::Relaxed) {
                        answers(&mut Client::connect(addr));
                    }
                })
            })
            .collect();
        for _ in 0..50 {
            ask_unix(&path);
        }
        is_over.store(true, Ordering::Relaxed);
        crowd.into_iter().for_each(|client| client.join().expect("it was served"));
        lab.end(Signal::SIGTERM);
    }
}

#[test]
fn two_busy_places_do_not_starve_a_third_one() {
    for args in ["", "--connections 2"] {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let (mut lab, addr) = pool(1, &format!("{args} --requests 0 --unix {} --proxy", path.display()));
        let proxied: SocketAddr = also_at(&lab, 2).parse().expect("an address");
        let is_over = Arc::new(AtomicBool::new(false));
        let crowd: Vec<_> = (0..8)
            .map(|number| {
                let (is_over, path) = (Arc::clone(&is_over), path.clone());
                thread::spawn(move || {
                    while !is_over.load(Ordering::Relaxed) {
                        match number % 2 {
                            0 => answers(&mut Client::connect(addr)),
                            _ => ask_unix(&path),
                        };
                    }
                })
            })
            .collect();
        for _ in 0..50 {
            let mut client = Client::connect(proxied);
            client.send("PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n");
            answers(&mut client);
        }
        is_over.store(true, Ordering::Relaxed);
        crowd.into_iter().for_each(|client| client.join().expect("it was served"));
        lab.end(Signal::SIGTERM);
    }
}

#[test]
fn idle_connection_is_let_go_for_a_client_that_waits() {
    for args in [
        "--mode single --connections 2",
        "--start 1 --max 1 --min-spare 1 --max-spare 1 --connections 2",
        "--start 2 --max 2 --min-spare 1 --max-spare 2",
        "--mode fork:2",
    ] {
        let (mut lab, addr) = serve(args);
        let kept = [held(addr).0, held(addr).0];
        let mut third = Client::connect(addr);
        answers(&mut third);
        // One of them had to go.
        let is_closed = |client: &Client| {
            client.stream().set_nonblocking(true).expect("a socket can be non-blocking");
            let got = client.stream().peek(&mut [0]);
            client.stream().set_nonblocking(false).expect("and blocking");
            got.is_ok_and(|count| count == 0)
        };
        wait_until("the end of one", DEADLINE, || kept.iter().any(is_closed).then_some(()));
        drop((kept, third));
        lab.end(Signal::SIGTERM);
    }
}

#[test]
fn busy_connections_are_not_let_go_for_a_client_that_waits() {
    let (mut lab, addr) = serve("--mode single --connections 2 --holds");
    let (mut first, _) = held(addr);
    let (mut second, _) = held(addr);
    let mut third = Client::connect(addr);
    third.send("hello\r\n");
    // Twice as long as idle ones are given.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(400) {
        answers(&mut first);
        answers(&mut second);
    }
    drop(first);
    third.read_line();
    drop((second, third));
    lab.end(Signal::SIGTERM);
}

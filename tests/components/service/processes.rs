//! Services in one process and in many, watched from outside. The program is `tests/programs/http_service.rs`.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use nix::sys::signal::Signal;

use util::http::{connect, get};
use util::lab::{LONG, Lab};
use util::{stays, wait_until};

fn serve(args: &str) -> (Lab, SocketAddr) {
    Lab::serve("http_service", args)
}

/// Asks on a connection that stays, and returns head and body of the answer.
#[track_caller]
fn ask(stream: &mut TcpStream, path: &str) -> (String, String) {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n").expect("the server reads");
    read(stream)
}

/// Reads one response, whose body has a length.
#[track_caller]
fn read(stream: &mut TcpStream) -> (String, String) {
    stream.set_read_timeout(Some(LONG)).expect("a deadline");
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        let mut octet = [0];
        stream.read_exact(&mut octet).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&text)));
        text.push(octet[0]);
    }
    let head = String::from_utf8(text).expect("text");
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).expect("a length");
    let mut body = vec![0; length.parse().expect("a number")];
    stream.read_exact(&mut body).expect("the body");
    (head, String::from_utf8(body).expect("text"))
}

#[track_caller]
fn expect_end(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(LONG)).expect("a deadline");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("an orderly end");
    assert_eq!(rest, b"");
}

#[test]
fn each_process_that_serves_makes_its_own_resource_once() {
    for args in ["--mode single", "--mode prefork:2 --children 2 --connections 4", "--mode fork:4"] {
        let (mut lab, addr) = serve(args);
        let mut asked = BTreeMap::new();
        for _ in 0..6 {
            let body = get(addr, "/count").body;
            let (pid, count) = body.split_once(' ').expect("two numbers");
            let (pid, count): (i32, u32) = (pid.parse().unwrap(), count.parse().unwrap());
            let before = asked.insert(pid, count).unwrap_or(0);
            assert_eq!(count, before + 1, "{args}: {asked:?}");
        }
        let parent = lab.pid();
        assert_eq!(asked.contains_key(&parent), args == "--mode single", "{args}: {asked:?}");
        for pid in asked.keys() {
            lab.expect(*pid, "opened");
            assert_eq!(lab.story(*pid).matches("opened").count(), 1, "{args}");
        }
        if args != "--mode single" {
            assert!(!lab.story(parent).contains("opened"), "{args}");
        }
        lab.end(Signal::SIGTERM);
    }
}

#[test]
fn resource_is_made_before_the_first_connection() {
    let (mut lab, _) = serve("--mode prefork:2 --children 2");
    lab.nth(2, "opened");
    lab.end(Signal::SIGTERM);
}

#[test]
fn resource_that_cannot_be_made_ends_the_process_with_its_reason() {
    let (lab, _) = serve("--mode prefork:1 --children 1 --no-database");
    lab.running.wait_for_stderr("no database", LONG);
    let (mut lab, _) = serve("--mode single --no-database");
    let status = lab.running.wait_exit(LONG);
    assert!(!status.success(), "{status}");
    lab.running.wait_for_stderr("no database", LONG);
}

#[test]
fn panic_of_a_handler_spares_the_process_and_its_other_connections() {
    let (mut lab, addr) = serve("--mode prefork:1 --children 1 --connections 3");
    let (mut one, mut other) = (connect(addr), connect(addr));
    let pid = ask(&mut one, "/pid").1;
    assert_eq!(ask(&mut other, "/pid").1, pid);
    assert!(ask(&mut one, "/panic").0.starts_with("HTTP/1.1 500 "));
    assert_eq!((ask(&mut one, "/pid").1, ask(&mut other, "/pid").1), (pid.clone(), pid));
    lab.running.wait_for_stderr("request failed: panicked: on purpose request=\"GET /panic\"", LONG);
    drop((one, other));
    lab.end(Signal::SIGTERM);
}

#[test]
fn graceful_end_closes_idle_connections_and_answers_what_is_in_hand() {
    for args in ["--mode single", "--mode prefork:1 --children 1 --connections 5"] {
        let (mut lab, addr) = serve(args);
        let (mut idle, mut fresh, mut partial, mut busy, mut go) =
            (connect(addr), connect(addr), connect(addr), connect(addr), connect(addr));
        for stream in [&mut idle, &mut partial, &mut busy, &mut go] {
            ask(stream, "/pid");
        }
        write!(busy, "GET /wait HTTP/1.1\r\nHost: a.test\r\n\r\n").unwrap();
        write!(partial, "GET /pid HTTP/1.1\r\n").unwrap();
        lab.nth(1, "waits");
        // It has come before the signal does.
        write!(go, "GET /pid HTTP/1.1\r\nHost: a.test\r\n\r\nGET /g").unwrap();
        read(&mut go);
        wait_until("the beginning of a request to be read", LONG, || {
            // An answer on a connection that was accepted later.
            let pid = ask(&mut idle, "/pid").1;
            (!pid.is_empty()).then_some(())
        });
        lab.running.signal(Signal::SIGTERM);
        expect_end(&mut idle);
        drop(idle);
        // A client that has connected and sent nothing yet may still ask.
        let (head, _) = ask(&mut fresh, "/pid");
        assert!(head.contains("Connection: close\r\n"), "{args}: {head}");
        expect_end(&mut fresh);
        drop(fresh);
        write!(partial, "Host: a.test\r\n\r\n").unwrap();
        assert!(read(&mut partial).0.contains("Connection: close\r\n"), "{args}");
        expect_end(&mut partial);
        drop(partial);
        write!(go, "o HTTP/1.1\r\nHost: a.test\r\n\r\n").unwrap();
        let (head, body) = read(&mut go);
        assert!(head.contains("Connection: close\r\n") && body == "went", "{args}: {head}");
        expect_end(&mut go);
        drop(go);
        let (head, body) = read(&mut busy);
        assert!(head.contains("Connection: close\r\n") && body == "answered", "{args}: {head}");
        expect_end(&mut busy);
        drop(busy);
        let status = lab.running.wait_exit(LONG);
        assert!(status.success(), "{args}: {status}");
    }
}

/// The beginning of a request with a body of four bytes.
const POST: &str = "POST /echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n";

#[test]
fn graceful_end_waits_for_a_request_that_is_on_its_way() {
    for args in ["--mode single", "--mode prefork:1 --children 1 --connections 4"] {
        let (mut lab, addr) = serve(args);
        let (mut fresh, mut first, mut kept, mut idle) = (connect(addr), connect(addr), connect(addr), connect(addr));
        ask(&mut kept, "/pid");
        // All are accepted: this is the last one.
        ask(&mut idle, "/pid");
        write!(kept, "{POST}\r\na").unwrap();
        write!(first, "{POST}\r\na").unwrap();
        // It has come before the signal does.
        ask(&mut idle, "/pid");
        lab.running.signal(Signal::SIGTERM);
        expect_end(&mut idle);
        drop(idle);
        // A client that waits for leave to send its body gets it, and may send the body.
        write!(fresh, "{POST}Expect: 100-continue\r\n\r\n").unwrap();
        let mut leave = [0; 25];
        fresh.read_exact(&mut leave).unwrap();
        assert_eq!(leave, *b"HTTP/1.1 100 Continue\r\n\r\n");
        write!(fresh, "a").unwrap();
        // Longer than a client has for its first request.
        for stream in [&kept, &first, &fresh] {
            stream.set_nonblocking(true).unwrap();
        }
        let is_open =
            |stream: &TcpStream| stream.peek(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        stays("the connections", Duration::from_millis(1300), || [&kept, &first, &fresh].into_iter().all(is_open));
        for mut stream in [kept, first, fresh] {
            stream.set_nonblocking(false).unwrap();
            write!(stream, "bcd").unwrap();
            let (head, body) = read(&mut stream);
            assert!(head.contains("Connection: close\r\n") && body == "abcd", "{args}: {head}");
            expect_end(&mut stream);
        }
        let status = lab.running.wait_exit(LONG);
        assert!(status.success(), "{args}: {status}");
    }
}

#[test] // 5 s
fn request_that_stops_coming_does_not_hold_up_the_end() {
    let (mut lab, addr) = serve("--mode prefork:1 --children 1 --connections 2");
    let (mut partial, mut idle) = (connect(addr), connect(addr));
    ask(&mut idle, "/pid");
    write!(partial, "{POST}\r\na").unwrap();
    ask(&mut idle, "/pid");
    lab.running.signal(Signal::SIGTERM);
    assert!(read(&mut partial).0.starts_with("HTTP/1.1 408 "));
    expect_end(&mut partial);
    drop((idle, partial));
    assert!(lab.running.wait_exit(LONG).success());
}

#[test]
fn client_that_sends_nothing_does_not_hold_up_the_end() {
    let (mut lab, addr) = serve("--mode single");
    let mut fresh = connect(addr);
    assert_eq!(get(addr, "/pid").body, lab.pid().to_string(), "it was accepted before this one");
    lab.running.signal(Signal::SIGTERM);
    expect_end(&mut fresh);
    drop(fresh);
    assert!(lab.running.wait_exit(LONG).success());
}

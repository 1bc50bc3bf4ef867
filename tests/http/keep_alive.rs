//! How long the example `http_prefork` keeps a connection, and for whom it gives one up.

use std::io::{BufRead, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::server::{Browser, end, start};
use util::{DEADLINE, Running, stays, wait_until};

/// A connection is kept for longer than any test waits.
const LONG: [&str; 2] = ["--keep-alive", "600"];

/// A pool of `children` children that can't grow.
fn pool(children: &str, more: &[&str]) -> (Running, SocketAddr) {
    let size = ["--start-children", children, "--min-spare", "1", "--max-spare", children, "--max-children", children];
    start(None, &[&size[..], &LONG, more].concat())
}

/// A client that has had a response and has nothing in hand.
fn idle(addr: SocketAddr) -> Browser {
    let mut browser = Browser::new(addr);
    assert_eq!(browser.get("/hello").status, 200);
    browser
}

/// Waits until the scoreboard has these letters, in whatever order.
fn wait_board(running: &Running, letters: &str) {
    let sorted = |letters: &str| {
        let mut letters: Vec<char> = letters.trim_end().chars().collect();
        letters.sort_unstable();
        letters
    };
    wait_until(letters, DEADLINE, || {
        running.signal(Signal::SIGUSR2);
        let text = running.stderr_text();
        let board =
            text.lines().filter_map(|line| line.trim().strip_prefix("Slots [")?.strip_suffix("]")).next_back()?;
        (sorted(board) == sorted(letters)).then_some(())
    });
}

#[test] // RFC 9112 9.5: twelve is what the pool may be without any setting
fn idle_clients_do_not_stall_the_defaults() {
    let (mut running, addr) = start(None, &LONG);
    let browsers: Vec<Browser> = (0..24).map(|_| idle(addr)).collect();
    for _ in 0..3 {
        assert_eq!(Browser::new(addr).get("/hello").status, 200);
    }
    drop(browsers);
    end(&mut running);
}

#[test]
fn the_longest_idle_client_gives_way() {
    let (mut running, addr) = pool("2", &[]);
    let mut first = idle(addr);
    wait_board(&running, "kw");
    let mut second = idle(addr);
    wait_board(&running, "kk");
    let mut third = idle(addr);
    first.expect_eof();
    assert_eq!([&mut second, &mut third].map(|browser| browser.get("/hello").status), [200; 2]);
    drop((first, second, third));
    end(&mut running);
}

#[test] // such as a browser opens in advance
fn clients_that_have_never_asked_give_way() {
    let (mut running, addr) = pool("2", &[]);
    let mut silent: Vec<Browser> = (0..2).map(|_| Browser::new(addr)).collect();
    wait_board(&running, "kk");
    assert_eq!(Browser::new(addr).get("/hello").status, 200);
    // Without a response that would be taken for that of the next request.
    let closed = |browser: &mut Browser| {
        browser.0.get_ref().set_nonblocking(true).expect("it is open");
        browser.0.fill_buf().is_ok_and(<[u8]>::is_empty)
    };
    wait_until("an end in order", DEADLINE, || silent.iter_mut().any(closed).then_some(()));
    drop(silent);
    end(&mut running);
}

#[test]
fn a_request_that_has_begun_is_not_cut_off() {
    let (mut running, addr) = pool("1", &[]);
    for (begun, rest) in [
        ("G", "ET /hello HTTP/1.1\r\nHost: a.test\r\n\r\n"),
        ("GET /hello HTTP/1.1\r\nHost: a.test\r\n", "\r\n"),
        ("GET /hello HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nab", "c"),
    ] {
        let mut slow = idle(addr);
        wait_board(&running, "k");
        slow.send(begun);
        let mut waiting = Browser::new(addr);
        waiting.ask("GET /hello", "");
        // Asked, it turns out to be busy.
        wait_board(&running, "r");
        stays("kept", Duration::from_millis(200), || {
            slow.0.get_ref().set_nonblocking(true).expect("it is open");
            slow.0.fill_buf().is_err()
        });
        slow.0.get_ref().set_nonblocking(false).expect("it is open");
        slow.send(rest);
        assert_eq!(slow.page().status, 200, "{begun:?}");
        slow.expect_eof();
        assert_eq!(waiting.page().status, 200);
        waiting.ask("GET /hello", "Connection: close\r\n");
        assert_eq!(waiting.page().status, 200);
    }
    end(&mut running);
}

#[test] // RFC 9112 9.6: the connection ends in order, whatever is on its way
fn a_request_that_comes_too_late_meets_an_end_in_order() {
    let (mut running, addr) = pool("1", &[]);
    let mut late = idle(addr);
    wait_board(&running, "k");
    let mut other = idle(addr);
    late.expect_eof_and_stay();
    // A reset could take away what the client has not read yet.
    late.ask("GET /hello", "");
    assert_eq!(late.0.read(&mut [0]).expect("no reset"), 0);
    assert_eq!(other.get("/hello").status, 200);
    drop((late, other));
    end(&mut running);
}

/// Loads a page as browsers do: so many connections, each of which asks for the next resource when it has one.
fn load(addr: SocketAddr, connections: u32, resources: u32) {
    let next = AtomicU32::new(0);
    let connection = || {
        let mut stream: Option<TcpStream> = None;
        while next.fetch_add(1, Ordering::Relaxed) < resources {
            // One that the server has given up is opened anew.
            while !fetch(addr, &mut stream) {}
        }
        stream
    };
    thread::scope(|scope| {
        let open: Vec<_> = (0..connections).map(|_| scope.spawn(connection)).collect();
        open.into_iter().for_each(|thread| drop(thread.join().expect("it loads")));
    });
}

/// Asks once; `false` if the connection was over.
fn fetch(addr: SocketAddr, stream: &mut Option<TcpStream>) -> bool {
    let connection = stream.get_or_insert_with(|| {
        let stream = TcpStream::connect(addr).expect("the server listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("not zero");
        stream
    });
    let mut response = Vec::new();
    let mut some = [0; 1024];
    let is_sent = connection.write_all(b"GET /hello HTTP/1.1\r\nHost: a.test\r\n\r\n").is_ok();
    while is_sent && !response.ends_with(b"\r\n\r\nhello\n") {
        match connection.read(&mut some) {
            Ok(1..) if response.is_empty() && !some.starts_with(b"HTTP/1.1 200 OK\r\n") => panic!("no response"),
            Ok(count @ 1..) => response.extend_from_slice(&some[..count]),
            Ok(0) if response.is_empty() => break,
            end => panic!("{end:?} behind {:?}", String::from_utf8_lossy(&response)),
        }
    }
    if response.is_empty() {
        *stream = None;
    }
    !response.is_empty()
}

#[test]
fn a_page_of_100_resources_loads_whatever_the_number_of_children() {
    for children in ["1", "2", "4"] {
        let (mut running, addr) = start(None, &[&LONG[..], &["--max-children", children]].concat());
        let begin = Instant::now();
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| load(addr, 6, 100));
            }
        });
        assert!(begin.elapsed() < DEADLINE, "{children} children: {:?}", begin.elapsed());
        end(&mut running);
    }
}

#[test]
fn quit_closes_idle_connections() {
    let (mut running, addr) = pool("2", &[]);
    let mut browser = idle(addr);
    wait_board(&running, "kw");
    running.signal(Signal::SIGQUIT);
    browser.expect_eof();
    drop(browser);
    assert_eq!(running.wait_exit(DEADLINE).code(), Some(0));
    assert!(!running.stderr_text().contains("cause=killed"), "{}", running.stderr_text());
}

#[test]
fn keep_alive_0_means_one_request_a_connection() {
    let (mut running, addr) = start(None, &["--keep-alive", "0"]);
    for version in ["1.0\r\nConnection: keep-alive", "1.1"] {
        let mut browser = Browser::new(addr);
        // In two parts: there is time for the request itself.
        let request = format!("GET /hello HTTP/{version}\r\nHost: a.test\r\n\r\n");
        let (begun, rest) = request.split_at(10);
        browser.send(begun);
        stays("waited for", Duration::from_millis(100), || {
            browser.0.get_ref().set_nonblocking(true).expect("it is open");
            browser.0.fill_buf().is_err()
        });
        browser.0.get_ref().set_nonblocking(false).expect("it is open");
        browser.send(format!("{rest}{request}"));
        let page = browser.page();
        assert_eq!((page.status, &page.body[..], page.header("Connection")), (200, &b"hello\n"[..], Some("close")));
        browser.expect_eof();
    }
    end(&mut running);
}

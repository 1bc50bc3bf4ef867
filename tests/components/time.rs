//! Requests in hand, and the time limits of a connection.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use lenore::component::{Protocol, TcpServer};
use lenore::filter::Line;
use lenore::{Context, Kernel, Session};
use nix::sys::socket::{setsockopt, sockopt};

use util::component::{Peer, serve};
use util::in_process::{kernel, run, run_until};

type Cx<'a> = Context<'a, lenore::component::Connection<Line>>;

const SHORT: Duration = Duration::from_millis(60);
const LONG: Duration = Duration::from_secs(60);

fn late(cx: &mut Cx<'_>) {
    cx.heap().put("answer");
}

/// `echo` is answered at once, `late` after three times as long as is short, anything else never. `#` is not a request.
fn protocol() -> Protocol<Line> {
    protocol_of(Line::new())
}

fn protocol_of(line: Line) -> Protocol<Line> {
    Protocol::new(line)
        .on_input(|cx, line: String| match line.as_str() {
            "echo" => drop(cx.heap().put(line)),
            "#" => cx.heap().not_a_request(),
            "late" => cx.delay("late", 3 * SHORT, ()),
            _ => {}
        })
        .on_idle(|cx| cx.heap().put("idle"))
        .on_request_timeout(|cx| cx.heap().put("too late"))
        .on_disconnect(|cx| drop(cx.alarm_remove_all()))
        .state("late", late)
}

fn end(kernel: &mut Kernel) {
    kernel.post("server", "shutdown", ()).unwrap();
    run(kernel);
}

/// Has a server with this protocol talk with a client that sends `text`, and returns all that the client gets, and after how
/// long it was closed.
fn talk(protocol: Protocol<Line>, text: &str) -> (String, Duration) {
    let mut kernel = kernel();
    let address = serve(&mut kernel, TcpServer::new("127.0.0.1:0", protocol));
    let mut peer = Peer::connect(address);
    let begun = Instant::now();
    peer.send(text);
    let got = peer.run_to_end(&mut kernel);
    let lasted = begun.elapsed();
    end(&mut kernel);
    (got, lasted)
}

#[test]
fn idle_connection_is_closed_after_its_timeout() {
    let (got, lasted) = talk(protocol().idle_timeout(SHORT), "echo\r\n");
    assert_eq!(got, "echo\r\nidle\r\n");
    assert!(lasted >= SHORT, "{lasted:?}");
}

#[test]
fn connection_that_says_nothing_is_closed_after_the_idle_timeout() {
    let (got, lasted) = talk(protocol().idle_timeout(SHORT), "");
    assert_eq!(got, "idle\r\n");
    assert!(lasted >= SHORT, "{lasted:?}");
}

#[test]
fn idle_timeout_counts_from_the_answer() {
    let (got, lasted) = talk(protocol().idle_timeout(2 * SHORT), "late\r\n");
    assert_eq!(got, "answer\r\nidle\r\n");
    assert!(lasted >= 5 * SHORT, "{lasted:?}");
}

#[test]
fn request_timeout_is_told_and_ends_the_connection() {
    let (got, lasted) = talk(protocol().request_timeout(SHORT).idle_timeout(LONG), "echo\r\nnever\r\n");
    assert_eq!(got, "echo\r\ntoo late\r\n");
    assert!(lasted >= SHORT, "{lasted:?}");
}

#[test]
fn request_timeout_does_not_count_what_was_answered() {
    // Four requests of which each is answered in time; all of them together are not.
    let mut kernel = kernel();
    let quick = protocol().request_timeout(10 * SHORT);
    let address = serve(&mut kernel, TcpServer::new("127.0.0.1:0", quick));
    let mut peer = Peer::connect(address);
    for number in 1..=4 {
        peer.send("late\r\n");
        peer.run_to(&mut kernel, &"answer\r\n".repeat(number));
    }
    drop(peer);
    end(&mut kernel);
}

#[test]
fn part_of_a_record_that_stays_one_is_a_request_that_is_too_late() {
    let (got, _) = talk(protocol().idle_timeout(SHORT), "ech");
    assert_eq!(got, "too late\r\n");
}

#[test]
fn peer_that_has_closed_its_side_is_ended_by_the_idle_timeout() {
    let mut kernel = kernel();
    let kept = protocol().keep_on_error().on_error(|_, _| ()).idle_timeout(SHORT);
    let address = serve(&mut kernel, TcpServer::new("127.0.0.1:0", kept));
    let mut peer = Peer::connect(address);
    peer.send("echo\r\n");
    peer.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(peer.run_to_end(&mut kernel), "echo\r\nidle\r\n");
    end(&mut kernel);
}

/// Has slices end although nothing happens, until [`end`].
fn tick(kernel: &mut Kernel) {
    Session::new(())
        .state("_start", |cx| {
            cx.alias_set("ticker")?;
            cx.yield_("tick", ());
            Ok(())
        })
        .state("tick", |cx| cx.delay("tick", Duration::from_millis(5), ()))
        .state("stop", |cx| {
            cx.alarm_remove_all();
            Ok(cx.alias_remove("ticker")?)
        })
        .spawn(kernel)
        .unwrap();
}

fn end_with_ticker(kernel: &mut Kernel) {
    kernel.post("ticker", "stop", ()).unwrap();
    end(kernel);
}

/// Sends a byte every now and then, until the server has closed the connection.
fn trickle(protocol: Protocol<Line>, pause: Duration, count: usize) -> (usize, String) {
    let mut kernel = kernel();
    let address = serve(&mut kernel, TcpServer::new("127.0.0.1:0", protocol));
    let mut stream = TcpStream::connect(address).unwrap();
    let writer = thread::spawn(move || {
        let mut sent = 0;
        while sent < count && stream.write_all(b"x").is_ok() {
            sent += 1;
            thread::sleep(pause);
        }
        let _ = stream.write_all(b"\r\n");
        let mut got = String::new();
        let _ = stream.read_to_string(&mut got);
        (sent, got)
    });
    tick(&mut kernel);
    run_until(&mut kernel, || writer.is_finished());
    end_with_ticker(&mut kernel);
    writer.join().unwrap()
}

#[test]
fn record_that_comes_slowly_is_not_cut_by_the_idle_timeout() {
    let echo = Protocol::new(Line::new())
        .on_input(|cx, line: String| {
            cx.heap().put(line);
            cx.yield_("shutdown", ());
        })
        .idle_timeout(5 * SHORT);
    let (sent, got) = trickle(echo, SHORT, 15);
    assert_eq!((sent, got), (15, format!("{}\r\n", "x".repeat(15))));
}

#[test]
fn record_that_comes_too_slowly_meets_the_request_timeout() {
    let (sent, got) = trickle(protocol().idle_timeout(LONG).request_timeout(5 * SHORT), SHORT / 2, 10_000);
    assert_eq!(got, "too late\r\n");
    assert!(sent < 10_000, "{sent}");
}

#[test] // what is given up leaves nothing pending
fn record_that_is_given_up_and_goes_on_meets_the_arrival_timeout() {
    let line = Line::new().max_length(4).and_then(|line| line.max_buffer(8)).unwrap();
    let protocol = protocol_of(line).on_refused(|_, _| ()).idle_timeout(LONG).arrival_timeout(5 * SHORT);
    let (sent, got) = trickle(protocol, SHORT / 2, 10_000);
    assert_eq!(got, "too late\r\n");
    assert!((9..10_000).contains(&sent), "{sent}");
}

#[test]
fn client_that_does_not_read_is_ended_by_the_idle_timeout() {
    let echo = Protocol::new(Line::new())
        .pre_connect(|_, socket| {
            // As little as the system lets: the server has to fill it.
            setsockopt(&socket, sockopt::SndBuf, &1)?;
            Ok(Some(socket))
        })
        .on_input(|cx, line: String| cx.heap().put(line))
        .watermarks(1024, 4096)
        .auto_pause()
        .idle_timeout(SHORT)
        .write_timeout(SHORT);
    let mut kernel = kernel();
    let address = serve(&mut kernel, TcpServer::new("127.0.0.1:0", echo));
    let mut stream = TcpStream::connect(address).unwrap();
    let writer = thread::spawn(move || {
        // Long ones: there are megabytes to echo until all buffers are full.
        let lines = format!("{}\r\n", "x".repeat(1000)).repeat(100);
        while stream.write_all(lines.as_bytes()).is_ok() {}
    });
    tick(&mut kernel);
    run_until(&mut kernel, || writer.is_finished());
    writer.join().unwrap();
    end_with_ticker(&mut kernel);
}

#[test]
fn program_says_itself_when_requests_begin_and_end() {
    let told = Protocol::new(Line::new())
        .on_input(|cx, line: String| {
            cx.heap().request_begins();
            cx.heap().put(line);
            assert_eq!(cx.heap().requests_in_hand(), 1);
            cx.delay("more", 3 * SHORT, ());
        })
        .state("more", |cx| {
            cx.heap().put("more");
            cx.heap().request_ends();
        })
        .idle_timeout(SHORT)
        .on_idle(|cx| cx.heap().put("idle"));
    let (got, lasted) = talk(told, "begin\r\n");
    assert_eq!(got, "begin\r\nmore\r\nidle\r\n");
    assert!(lasted >= 4 * SHORT, "{lasted:?}");
}

#[test]
fn request_that_begins_in_a_state_of_the_program_is_timed_from_there() {
    let pushed = Protocol::new(Line::new())
        .on_connect(|cx| cx.delay("push", SHORT / 2, ()))
        .state("push", |cx| cx.heap().request_begins())
        .request_timeout(SHORT)
        .on_request_timeout(|cx| cx.heap().put("too late"));
    let (got, lasted) = talk(pushed, "");
    assert_eq!(got, "too late\r\n");
    assert!(lasted >= SHORT / 2 + SHORT, "{lasted:?}");
}

#[test]
fn requests_that_end_in_states_of_the_program_leave_an_idle_connection() {
    let two = Protocol::new(Line::new())
        .on_input(|cx, _: String| {
            cx.heap().request_begins();
            cx.heap().request_begins();
            cx.delay("first", 3 * SHORT, ());
        })
        .state("first", |cx| {
            cx.heap().request_ends();
            cx.yield_("second", ());
        })
        .state("second", |cx| cx.heap().request_ends())
        .idle_timeout(SHORT)
        .on_idle(|cx| cx.heap().put("idle"));
    assert_eq!(talk(two, "go\r\n").0, "idle\r\n");
}

#[test]
fn request_behind_one_that_began_and_ended_in_one_state_is_timed() {
    let pushed = Protocol::new(Line::new())
        .on_connect(|cx| cx.yield_("both", ()))
        .state("both", |cx| {
            cx.heap().request_begins();
            cx.heap().request_ends();
            cx.delay("again", 3 * SHORT, ());
        })
        .state("again", |cx| cx.heap().request_begins())
        .request_timeout(SHORT)
        .on_request_timeout(|cx| cx.heap().put("too late"));
    let (got, lasted) = talk(pushed, "");
    assert_eq!(got, "too late\r\n");
    assert!(lasted >= 4 * SHORT, "{lasted:?}");
}

#[test]
fn callback_of_a_timeout_that_panics_ends_the_connection() {
    let panicking = Protocol::new(Line::new())
        .on_connect(|cx| cx.sig("DIE", "failed"))
        .state("failed", |cx| cx.sig_handled())
        .idle_timeout(SHORT)
        .on_idle(|cx| assert!(!cx.heap().is_connected(), "as asked"));
    assert_eq!(talk(panicking, "").0, "");
}

#[test]
fn timeouts_survive_when_the_program_removes_all_its_alarms() {
    let idle = |protocol: Protocol<Line>| protocol.idle_timeout(SHORT).on_idle(|cx| cx.heap().put("idle"));
    let in_callback = Protocol::new(Line::new()).on_input(|cx, line: String| {
        cx.alarm_remove_all();
        cx.heap().put(line);
    });
    let in_state = Protocol::new(Line::new())
        .on_input(|cx, line: String| {
            cx.heap().put(line);
            cx.yield_("forget", ());
        })
        .state("forget", |cx| drop(cx.alarm_remove_all()));
    let when_flushed = Protocol::new(Line::new())
        .on_input(|cx, line: String| cx.heap().put(line))
        .on_flushed(|cx| drop(cx.alarm_remove_all()));
    for protocol in [in_callback, in_state, when_flushed] {
        assert_eq!(talk(idle(protocol), "echo\r\n").0, "echo\r\nidle\r\n");
    }
}

#[test]
fn record_that_is_not_a_request_leaves_its_connection_idle() {
    let (got, lasted) = talk(protocol().idle_timeout(SHORT).request_timeout(LONG), "#\r\n");
    assert_eq!(got, "idle\r\n");
    assert!(lasted >= SHORT, "{lasted:?}");
}

#[test]
fn request_in_hand_stays_when_a_record_is_not_a_request() {
    let (got, lasted) = talk(protocol().idle_timeout(SHORT), "late\r\n#\r\n");
    assert_eq!(got, "answer\r\nidle\r\n");
    assert!(lasted >= 4 * SHORT, "{lasted:?}");
}

#[test]
fn requests_are_counted_after_a_record_that_is_not_a_request() {
    let (got, _) = talk(protocol().request_timeout(SHORT).idle_timeout(LONG), "#\r\necho\r\nnever\r\n");
    assert_eq!(got, "echo\r\ntoo late\r\n");
}

#[test]
fn busy_connection_outlives_its_timeouts() {
    let mut kernel = kernel();
    let address = serve(
        &mut kernel,
        TcpServer::new("127.0.0.1:0", protocol().idle_timeout(10 * SHORT).request_timeout(10 * SHORT)),
    );
    let mut peer = Peer::connect(address);
    let begun = Instant::now();
    let mut rounds = 0;
    while begun.elapsed() < 15 * SHORT {
        peer.send("echo\r\n");
        rounds += 1;
        peer.run_to(&mut kernel, &"echo\r\n".repeat(rounds));
    }
    drop(peer);
    end(&mut kernel);
}

//! `tls::Stream` under a `ReadWrite`, over a pair of sockets.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use lenore::filter::Line;
use lenore::testing::TestKernel;
use lenore::tls::{self, Handshake, Version};
use lenore::wheel::{Failure, ReadWrite, ReadWriteBuilder};
use lenore::{Context, Kernel, Result, Session};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use util::DEADLINE;
use util::in_process::{Log, kernel, run, run_until};

use crate::certificates::Authority;
use crate::peer::{Dripping, connect};

/// A session with one wheel.
struct Owner {
    log: Log,
    wheel: Option<ReadWrite<Line>>,
}

impl Owner {
    fn wheel(&self) -> &ReadWrite<Line> {
        self.wheel.as_ref().expect("it has a wheel")
    }
}

fn lines(stream: tls::Stream) -> ReadWriteBuilder<Line> {
    let wheel = ReadWrite::transport(stream, Line::new()).on_input("input").on_error("error");
    wheel.on_flushed("flushed").on_ready("ready")
}

/// A session that logs what comes of its wheel; an error ends it.
fn owner(log: &Log, wheel: ReadWriteBuilder<Line>) -> Session<Owner> {
    Session::new(Owner { log: log.clone(), wheel: None })
        .args((wheel,))
        .state("_start", |cx| {
            let wheel = cx.take::<ReadWriteBuilder<Line>>(0)?.start(cx)?;
            cx.heap().wheel = Some(wheel);
            cx.yield_("started", ());
            Ok(())
        })
        .state("started", |_| ())
        .state("ready", |cx| cx.heap().log.push("ready"))
        .state("flushed", |cx| cx.heap().log.push("flushed"))
        .state("input", |cx| {
            let line = cx.take::<String>(0)?;
            cx.heap().log.push(line);
            Ok(())
        })
        .state("error", |cx| {
            log_error(cx)?;
            cx.heap().wheel = None;
            Ok(())
        })
        .state("put", |cx| {
            let line = cx.take::<String>(0)?;
            cx.heap().wheel().put(line);
            Ok(())
        })
}

fn log_error(cx: &mut Context<'_, Owner>) -> Result {
    let failure = cx.take::<Failure>(0)?;
    let errno = Errno::from_raw(failure.errno);
    let text = if failure.is_end_of_input() { "end".into() } else { format!("{}:{errno:?}", failure.operation) };
    cx.heap().log.push(text);
    Ok(())
}

fn pair() -> (UnixStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_read_timeout(Some(DEADLINE)).unwrap();
    theirs.set_write_timeout(Some(DEADLINE)).unwrap();
    (ours, theirs)
}

/// A pair whose first end is full after some kilobytes.
fn narrow_pair() -> (UnixStream, UnixStream) {
    let (ours, theirs) = pair();
    setsockopt(&ours, sockopt::SndBuf, &4096).unwrap();
    (ours, theirs)
}

/// A server's wheel, and the other end of its socket.
fn server(authority: &Authority, log: &Log, kernel: &mut Kernel) -> (UnixStream, Handshake) {
    let (ours, theirs) = pair();
    let stream = authority.server().build().unwrap().accept(ours).unwrap();
    let handshake = stream.handshake();
    owner(log, lines(stream)).spawn(kernel).unwrap();
    (theirs, handshake)
}

/// Runs the kernel while `peer` runs in a thread, until both have ended. Returns what the peer does.
fn beside<T: Send + 'static>(kernel: &mut Kernel, peer: impl FnOnce() -> T + Send + 'static) -> T {
    let peer = thread::spawn(peer);
    run(kernel);
    peer.join().unwrap()
}

#[test]
fn ready_event_comes_once_and_before_the_first_record() {
    let (authority, log, mut kernel) = (Authority::new(), Log::default(), kernel());
    let (theirs, handshake) = server(&authority, &log, &mut kernel);
    let config = Arc::new(authority.client());
    assert!(handshake.agreed().is_none());
    beside(&mut kernel, move || {
        // With the last message of the handshake, as a client of TLS 1.3 does.
        let mut peer = connect(&config, theirs);
        peer.write_all(b"one\ntwo\n").unwrap();
        peer.conn.send_close_notify();
        peer.flush().unwrap();
    });
    assert_eq!(log.text(), "ready one two end");
    let agreed = handshake.agreed().unwrap();
    assert_eq!((agreed.version, agreed.is_resumed), (Version::Tls13, false));
    assert_eq!(agreed.server_name.as_deref(), Some("localhost"));
    assert!(agreed.cipher_suite.starts_with("TLS13_"), "{}", agreed.cipher_suite);
}

#[test] // more than one record of TLS at a time, and far more lines than records
fn all_lines_of_one_record_are_delivered() {
    let (authority, log, mut kernel) = (Authority::new(), Log::default(), kernel());
    let (theirs, _) = server(&authority, &log, &mut kernel);
    let config = Arc::new(authority.client());
    beside(&mut kernel, move || {
        let mut peer = connect(&config, theirs);
        peer.write_all("x\n".repeat(30_000).as_bytes()).unwrap();
        peer.conn.send_close_notify();
        peer.flush().unwrap();
    });
    let (lines, other): (Vec<String>, Vec<String>) = log.take().into_iter().partition(|entry| entry == "x");
    assert_eq!((lines.len(), other.join(" ").as_str()), (30_000, "ready end"));
}

/// The two wheels of a pair in one kernel: each puts `count` lines, and ends its output when they are written.
fn exchange(narrow: bool, versions: &[&'static tls::rustls::SupportedProtocolVersion], count: usize) -> (Log, Log) {
    let (authority, mut kernel) = (Authority::new(), kernel());
    let (ours, theirs) = if narrow { narrow_pair() } else { pair() };
    let roots = tls::Client::trusting(authority.ca()).build().unwrap();
    let client = match versions {
        [] => roots,
        versions => {
            let provider = Arc::clone(roots.config().crypto_provider());
            let builder = tls::rustls::ClientConfig::builder_with_provider(provider);
            let builder = builder.with_protocol_versions(versions).unwrap();
            let builder = builder.with_root_certificates(authority.roots());
            tls::Client::from_config(Arc::new(builder.with_no_client_auth()))
        }
    };
    let streams =
        [authority.server().build().unwrap().accept(ours).unwrap(), client.connect(theirs, "localhost").unwrap()];
    let logs = [Log::default(), Log::default()];
    for (stream, log) in streams.into_iter().zip(&logs) {
        let session = owner(log, lines(stream)).state("started", move |cx| {
            for number in 0..count {
                cx.heap().wheel().put(format!("{number:0>100}"));
            }
            cx.heap().wheel().shutdown_output_after_flush();
        });
        let session = session.state("flushed", |_| ()).state("error", |cx| {
            log_error(cx)?;
            // The other direction may not be done.
            cx.heap().wheel.take().into_iter().for_each(ReadWrite::close_after_flush);
            Ok(())
        });
        session.spawn(&mut kernel).unwrap();
    }
    run(&mut kernel);
    let [server, client] = logs;
    (server, client)
}

#[test]
fn megabytes_pass_both_ways_at_once() {
    for (narrow, versions) in [(false, &[][..]), (true, &[][..]), (true, &[&tls::rustls::version::TLS12][..])] {
        let (server, client) = exchange(narrow, versions, 5_000);
        for log in [server, client] {
            let lines = log.take();
            assert_eq!((lines[0].as_str(), lines[5_001].as_str(), lines.len()), ("ready", "end", 5_002));
            let is_right = |(number, line): (usize, &String)| *line == format!("{number:0>100}");
            assert!(lines[1..=5_000].iter().enumerate().all(is_right), "in order, and all of them");
        }
    }
}

#[test]
fn record_is_delivered_though_its_octets_come_one_by_one() {
    let (authority, log, mut kernel) = (Authority::new(), Log::default(), kernel());
    let (ours, theirs) = pair();
    let stream = authority.server().build().unwrap().accept(ours).unwrap();
    let session = owner(&log, lines(stream)).state("input", |cx| {
        let line = cx.take::<String>(0)?;
        cx.heap().wheel().put(line);
        Ok(())
    });
    session.spawn(&mut kernel).unwrap();
    let config = Arc::new(authority.client());
    let seen = beside(&mut kernel, move || {
        let mut peer = connect(&config, Dripping(theirs));
        peer.write_all(b"one\ntwo\n").unwrap();
        let mut seen = [0; 10];
        peer.read_exact(&mut seen).unwrap();
        peer.conn.send_close_notify();
        peer.flush().unwrap();
        seen
    });
    assert_eq!(&seen, b"one\r\ntwo\r\n");
    assert_eq!(log.take().last().unwrap(), "end");
}

#[test]
fn end_without_close_notify_is_an_error() {
    let (authority, log, mut kernel) = (Authority::new(), Log::default(), kernel());
    let (theirs, _) = server(&authority, &log, &mut kernel);
    let config = Arc::new(authority.client());
    beside(&mut kernel, move || {
        let mut peer = connect(&config, theirs);
        peer.write_all(b"one\ntwo").unwrap();
        peer.sock.shutdown(Shutdown::Write).unwrap();
        // A socket that is closed with input left in it is reset.
        let _ = peer.read_to_end(&mut Vec::new());
    });
    assert_eq!(log.text(), "ready one read:ECONNABORTED");
}

#[test]
fn peer_that_closes_in_mid_handshake_is_one_error() {
    for count in [0, 1, 100] {
        let (authority, log, mut kernel) = (Authority::new(), Log::default(), kernel());
        let (mut theirs, _) = server(&authority, &log, &mut kernel);
        let mut hello = Vec::new();
        let mut peer = connect(&Arc::new(authority.client()), std::io::empty());
        peer.conn.write_tls(&mut hello).unwrap();
        theirs.write_all(&hello[..count]).unwrap();
        theirs.shutdown(Shutdown::Write).unwrap();
        run(&mut kernel);
        assert_eq!(log.text(), "handshake:ECONNABORTED", "after {count} octets");
    }
}

#[test]
fn peer_that_speaks_no_tls_gets_an_alert() {
    let (authority, log, mut kernel) = (Authority::new(), Log::default(), kernel());
    let (mut theirs, _) = server(&authority, &log, &mut kernel);
    theirs.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "handshake:EPROTO");
    let mut seen = Vec::new();
    theirs.read_to_end(&mut seen).unwrap();
    // Content type alert, of the level fatal.
    assert_eq!((seen[0], seen[5], seen.len()), (21, 2, 7), "{seen:?}");
}

#[test]
fn handshake_that_takes_too_long_is_one_error() {
    let (authority, log, mut kernel) = (Authority::new(), Log::default(), kernel());
    let (ours, theirs) = pair();
    let stream = authority.server().build().unwrap().accept(ours).unwrap();
    owner(&log, lines(stream).handshake_timeout(Duration::from_millis(20))).spawn(&mut kernel).unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "handshake:ETIMEDOUT");
    drop(theirs);
}

#[test]
fn handshake_timeout_is_over_with_the_handshake() {
    let (authority, log, mut kernel) = (Authority::new(), Log::default(), TestKernel::new());
    let (ours, theirs) = pair();
    theirs.set_nonblocking(true).unwrap();
    let stream = authority.server().build().unwrap().accept(ours).unwrap();
    let limit = Duration::from_secs(2);
    owner(&log, lines(stream).handshake_timeout(limit)).spawn(&mut kernel).unwrap();
    let mut peer = connect(&Arc::new(authority.client()), theirs);
    kernel.settle();
    kernel.advance(limit / 2);
    kernel.wait_for("the handshake", || {
        if let Err(error) = peer.conn.complete_io(&mut peer.sock) {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
        }
        log.count("ready") == 1
    });
    kernel.advance(2 * limit);
    assert_eq!(log.text(), "ready");
    peer.write_all(b"late\n").unwrap();
    peer.conn.send_close_notify();
    peer.flush().unwrap();
    kernel.wait_for("the line and the end", || log.len() == 3);
    assert_eq!(log.text(), "ready late end");
}

#[test]
fn server_writes_on_after_the_end_of_its_input() {
    let (authority, log, mut kernel) = (Authority::new(), Log::default(), kernel());
    let (ours, theirs) = narrow_pair();
    let stream = authority.server().build().unwrap().accept(ours).unwrap();
    let session = owner(&log, lines(stream)).state("error", |cx| {
        log_error(cx)?;
        let wheel = cx.heap().wheel.take().expect("it has a wheel");
        wheel.put("x".repeat(1_000_000));
        wheel.close_after_flush();
        Ok(())
    });
    session.spawn(&mut kernel).unwrap();
    let config = Arc::new(authority.client());
    let seen = beside(&mut kernel, move || {
        let mut peer = connect(&config, theirs);
        peer.write_all(b"no more\n").unwrap();
        peer.conn.send_close_notify();
        peer.flush().unwrap();
        peer.sock.shutdown(Shutdown::Write).unwrap();
        let mut seen = Vec::new();
        // Fails if there is no close_notify.
        peer.read_to_end(&mut seen).unwrap();
        seen.len()
    });
    assert_eq!((seen, log.text().as_str()), (1_000_002, "ready no more end"));
}

#[test]
fn server_reads_on_after_the_end_of_its_output() {
    let (authority, log, mut kernel) = (Authority::new(), Log::default(), kernel());
    let (ours, theirs) = pair();
    let stream = authority.server().build().unwrap().accept(ours).unwrap();
    let session = owner(&log, lines(stream)).state("ready", |cx| {
        cx.heap().wheel().put("last");
        cx.heap().wheel().shutdown_output_after_flush();
    });
    session.spawn(&mut kernel).unwrap();
    let config = Arc::new(authority.client());
    beside(&mut kernel, move || {
        let mut peer = connect(&config, theirs);
        let mut seen = Vec::new();
        peer.read_to_end(&mut seen).unwrap();
        assert_eq!(seen, b"last\r\n");
        peer.write_all(b"more\n").unwrap();
        peer.conn.send_close_notify();
        peer.flush().unwrap();
    });
    assert_eq!(log.text(), "flushed more end");
}

#[test] // what is kept inside has a bound: the rest waits in the wheel, which counts it
fn output_for_a_peer_that_does_not_read_waits_in_the_wheel() {
    let (authority, log, mut kernel) = (Authority::new(), Log::default(), kernel());
    let (ours, theirs) = narrow_pair();
    let stream = authority.server().build().unwrap().accept(ours).unwrap();
    let session = owner(&log, lines(stream)).state("ready", |cx| {
        cx.heap().wheel().put("x".repeat(2_000_000));
        cx.yield_("look", ());
    });
    let session = session.state("look", |cx| {
        let left = cx.heap().wheel().pending_output();
        cx.heap().log.push(if left > 1_800_000 { "waits" } else { "gone" });
    });
    session.spawn(&mut kernel).unwrap();
    let config = Arc::new(authority.client());
    let (told, hear) = std::sync::mpsc::channel::<()>();
    let peer = thread::spawn(move || {
        let mut peer = connect(&config, theirs);
        peer.conn.complete_io(&mut peer.sock).unwrap();
        hear.recv().unwrap();
        let mut seen = vec![0; 2_000_002];
        peer.read_exact(&mut seen).unwrap();
        peer.conn.send_close_notify();
        peer.flush().unwrap();
        peer.read(&mut [0]).map_err(|error| error.kind())
    });
    run_until(&mut kernel, || log.count("waits") + log.count("gone") == 1);
    assert_eq!(log.text(), "waits");
    told.send(()).unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "waits flushed end");
    assert_eq!(peer.join().unwrap(), Err(ErrorKind::UnexpectedEof), "the wheel was dropped");
}

#[test]
fn peer_that_does_not_read_is_not_read_with_auto_pause() {
    let (authority, log, mut kernel) = (Authority::new(), Log::default(), kernel());
    let (ours, theirs) = narrow_pair();
    let stream = authority.server().build().unwrap().accept(ours).unwrap();
    let wheel = lines(stream).watermarks(1000, 100_000).auto_pause();
    let session = owner(&log, wheel).state("flushed", |_| ()).state("input", |cx| {
        let line = cx.take::<String>(0)?;
        cx.heap().log.push("line");
        cx.heap().wheel().put(line.repeat(10));
        assert!(cx.heap().wheel().pending_output() < 200_000);
        Ok(())
    });
    session.spawn(&mut kernel).unwrap();
    let config = Arc::new(authority.client());
    beside(&mut kernel, move || {
        let mut peer = connect(&config, theirs.try_clone().unwrap());
        let line = format!("{}\n", "x".repeat(999));
        peer.conn.complete_io(&mut peer.sock).unwrap();
        theirs.set_nonblocking(true).unwrap();
        // Until nothing more goes in.
        let mut lines = 0;
        while lines < 5_000 && peer.write_all(line.as_bytes()).is_ok() {
            lines += 1;
        }
        assert!(lines < 5_000, "{lines} lines went in");
        // Both at once from here on: what is left to be written waits until the server reads again.
        let (mut octets, mut chunk) = (0, vec![0; 100_000]);
        while octets < lines * (9_990 + 2) {
            let _ = peer.conn.write_tls(&mut peer.sock);
            let _ = peer.conn.read_tls(&mut peer.sock);
            peer.conn.process_new_packets().unwrap();
            match peer.conn.reader().read(&mut chunk) {
                Ok(count) => octets += count,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            thread::yield_now();
        }
    });
    assert_eq!(log.take().last().unwrap(), "read:ECONNABORTED");
}

#[test]
fn put_before_the_handshake_is_written_after_it() {
    let (authority, log, mut kernel) = (Authority::new(), Log::default(), kernel());
    let (ours, theirs) = pair();
    let stream = authority.server().build().unwrap().accept(ours).unwrap();
    let session = owner(&log, lines(stream)).state("started", |cx| _ = cx.heap().wheel().put("early"));
    session.spawn(&mut kernel).unwrap();
    let config = Arc::new(authority.client());
    let seen = beside(&mut kernel, move || {
        let mut peer = connect(&config, theirs);
        let mut seen = [0; 7];
        peer.read_exact(&mut seen).unwrap();
        peer.conn.send_close_notify();
        peer.flush().unwrap();
        seen
    });
    assert_eq!((&seen, log.text().as_str()), (b"early\r\n", "ready flushed end"));
}

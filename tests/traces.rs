//! What is in the log: what POE's `TRACE_*` switches give, as targets, and what is told once.

use std::cell::RefCell;
use std::io::Write;
use std::os::unix::net::UnixStream;

use lenore::component::{Protocol, TcpServer};
use lenore::filter::Line;
use lenore::wheel::{FollowTail, ReadWrite};
use lenore::{Handle, Kernel, Session};
use util::component::{Peer, serve};
use util::in_process::{kernel, run, run_until};

thread_local! {
    static RECORDS: RefCell<Vec<(String, String)>> = const { RefCell::new(Vec::new()) };
}

/// Keeps everything that this thread logs.
struct Recorder;

impl log::Log for Recorder {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let entry = (record.target().to_owned(), record.args().to_string());
        RECORDS.with_borrow_mut(|records| records.push(entry));
    }

    fn flush(&self) {}
}

/// Has everything recorded from here on.
fn record() {
    // Fails when another test has done it.
    let _ = log::set_logger(&Recorder);
    log::set_max_level(log::LevelFilter::Trace);
}

/// Takes the recorded lines of a target in which `text` is.
fn recorded(target: &str, text: &str) -> Vec<String> {
    let is_asked_for = |(its, line): &(String, String)| its == target && line.contains(text);
    RECORDS.take().into_iter().filter(is_asked_for).map(|(_, line)| line).collect()
}

#[test]
fn each_subsystem_traces_under_a_target_of_its_own() {
    record();
    let (near, mut far) = UnixStream::pair().expect("a pair");
    far.write_all(b"x").expect("room for an octet");
    let mut kernel = Kernel::new().expect("a kernel");
    Session::new(Handle::new(near))
        .state("_start", |cx| {
            let handle = cx.heap().clone();
            cx.select_read(&handle, "readable", ())?;
            let me = cx.session();
            Ok(cx.signal(me, "hello", ())?)
        })
        .state("readable", |cx| {
            let handle = cx.heap().clone();
            cx.select_read_clear(&handle);
        })
        .spawn(&mut kernel)
        .expect("a session");
    kernel.run().expect("a clean end");
    let records = RECORDS.take();
    let has = |target: &str, text: &str| records.iter().any(|(t, line)| t == target && line.contains(text));
    for (target, text) in [
        ("lenore::events", "session 1 gets readable"),
        ("lenore::sessions", "session 1 stops"),
        ("lenore::signals", "hello to session 1"),
        ("lenore::refcounts", "session 1 is held: Handle"),
        ("lenore::refcounts", "session 1 is released: Handle"),
        ("lenore::sources", "is closed"),
    ] {
        assert!(has(target, text), "{target}: {text}\n{records:#?}");
    }
}

/// Runs a server that answers three lines, and returns what its connection gets for the three answers.
fn events_for_three_answers(protocol: Protocol<Line>) -> Vec<String> {
    let mut kernel = kernel();
    let address = serve(&mut kernel, TcpServer::new("127.0.0.1:0", protocol));
    let mut peer = Peer::connect(address);
    let mut expected = String::new();
    for line in ["one\r\n", "two\r\n", "three\r\n"] {
        peer.send(line);
        expected += line;
        peer.run_to(&mut kernel, &expected);
    }
    let events = recorded("lenore::events", " gets tcp_got_");
    kernel.post("server", "shutdown", ()).expect("the server is there");
    drop(peer);
    run(&mut kernel);
    events
}

#[test] // each answer would cost another dispatch
fn a_flushed_event_is_dispatched_only_if_it_was_asked_for() {
    record();
    let count = |events: &[String], name: &str| events.iter().filter(|line| line.contains(name)).count();
    let echo = || Protocol::new(Line::new()).on_input(|cx, line: String| cx.heap().put(line));
    let events = events_for_three_answers(echo());
    assert_eq!((count(&events, "tcp_got_input"), count(&events, "tcp_got_flush")), (3, 0), "{events:?}");
    let events = events_for_three_answers(echo().on_flushed(|_| ()));
    assert_eq!((count(&events, "tcp_got_input"), count(&events, "tcp_got_flush")), (3, 3), "{events:?}");
}

#[test] // K-WH-13: without a refused event, in each wheel
fn refused_records_are_logged_once_for_each_wheel() {
    record();
    let mut kernel = kernel();
    let text = b"\xff\none\n\xff\n\xff\ntwo\n";
    let (near, mut far) = UnixStream::pair().expect("a pair");
    far.write_all(text).expect("room for some octets");
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(text).expect("room for some octets");
    let path = file.path().to_owned();
    let seen = util::in_process::Log::default();
    let log = seen.clone();
    Session::new(None)
        .state("_start", move |cx| {
            let stream = ReadWrite::stream(near.try_clone()?, Line::new()).on_input("line").start(cx)?;
            let start = std::io::SeekFrom::Start(0);
            let tail = FollowTail::path(&path, Line::new()).seek(start).on_input("line").start(cx)?;
            *cx.heap() = Some((stream, tail));
            Ok(())
        })
        .state("line", move |cx| {
            log.push(cx.take::<String>(0)?);
            Ok(())
        })
        .state("end", |cx| *cx.heap() = None)
        .spawn(&mut kernel)
        .expect("a session");
    run_until(&mut kernel, || seen.count("two") == 2);
    assert_eq!(seen.count("one"), 2);
    let warnings = recorded("lenore::wheels", "the filter refused a record");
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    kernel.stop();
}

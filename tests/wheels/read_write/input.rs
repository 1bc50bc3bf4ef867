//! Reading: records, pauses, the end of the input, and the life of the wheel.

use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use lenore::filter::Line;
use lenore::wheel::{Failure, ReadWrite, WheelId};
use lenore::{Died, Error, Kernel, Session};
use nix::sys::socket::{ControlMessage, MsgFlags, send, sendmsg};

use super::{log_error, log_input, owner, pair, read_all, tcp_pair};
use util::DEADLINE;
use util::in_process::{Log, kernel, run, run_slices, run_until};

#[test] // K-RW-10, K-RW-11, K-WH-02, K-WH-03
fn every_record_is_an_event_and_a_chunk_goes_ahead_of_what_was_posted() {
    let mut kernel = kernel();
    let log = Log::default();
    let (ours, mut theirs) = pair();
    theirs.write_all(b"one\r\ntwo\nthr").unwrap();
    owner(&log, ours)
        .state("input", |cx| {
            assert_eq!(cx.args().len(), 2);
            let id = cx.heap().wheel().id();
            assert_eq!(*cx.arg::<WheelId>(1)?, id);
            assert_eq!(cx.sender(), cx.session());
            assert_eq!(cx.caller_state().map(|state| state.as_str()), Some("ReadWrite"));
            log_input(cx)
        })
        .state("started", |cx| cx.heap().log.push("posted"))
        .spawn(&mut kernel)
        .unwrap();
    run_slices(&mut kernel, 1);
    assert_eq!(log.text(), "one two posted");
    theirs.write_all(b"ee\n").unwrap();
    drop(theirs);
    run(&mut kernel);
    assert_eq!(log.text(), "one two posted three error:read:0");
}

#[test] // K-RW-10: longer than one read
fn records_of_any_length_arrive_whole_and_in_order() {
    let mut kernel = kernel();
    let log = Log::default();
    let (ours, mut theirs) = pair();
    let lengths = [1, 65_535, 65_536, 300_000, 0, 7];
    let peer = thread::spawn(move || {
        for length in lengths {
            theirs.write_all(("x".repeat(length) + "\n").as_bytes()).unwrap();
        }
    });
    owner(&log, ours)
        .state("input", |cx| {
            let line = cx.take::<String>(0)?;
            cx.heap().log.push(line.len());
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    peer.join().unwrap();
    assert_eq!(log.text(), "1 65535 65536 300000 0 7 error:read:0");
}

#[test] // K-RW-14, K-RW-15
fn the_end_of_file_comes_once_and_without_the_unfinished_record() {
    let mut kernel = kernel();
    let log = Log::default();
    let (ours, mut theirs) = pair();
    theirs.write_all(b"whole\nunfinished").unwrap();
    theirs.shutdown(Shutdown::Write).unwrap();
    let session = owner(&log, ours).state("error", log_error).spawn(&mut kernel).unwrap();
    for _ in 0..3 {
        kernel.post(session, "pass", ()).unwrap();
        run_slices(&mut kernel, 1);
    }
    assert_eq!(log.count("error:read:0"), 1);
    assert_eq!(log.count("whole"), 1);
    assert_eq!(log.len(), 5);
    kernel.stop();
}

#[test] // K-RW-12 with K-RE-20, K-RW-17
fn pausing_the_input_stops_delivery_at_once_and_resuming_delivers_the_rest() {
    let mut kernel = kernel();
    let log = Log::default();
    let (ours, mut theirs) = pair();
    theirs.write_all(b"1\n2\n3\n4\n").unwrap();
    let session = owner(&log, ours)
        .state("input", |cx| {
            log_input(cx)?;
            if cx.heap().log.count("2") == 1 && cx.heap().log.count("3") == 0 {
                cx.heap().wheel().pause_input();
            }
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    run_slices(&mut kernel, 1);
    assert_eq!(log.text(), "1 2");
    theirs.write_all(b"5\n").unwrap();
    drop(theirs);
    for _ in 0..3 {
        kernel.post(session, "pass", ()).unwrap();
        run_slices(&mut kernel, 1);
    }
    assert_eq!(log.text(), "1 2 pass pass pass", "not even the end of file comes through");
    kernel.call(session, "resume", ()).unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "1 2 pass pass pass 3 4 5 error:read:0");
}

#[test] // K-RW-17: the last call counts
fn a_pause_undone_in_the_same_state_loses_nothing() {
    let mut kernel = kernel();
    let log = Log::default();
    let (ours, mut theirs) = pair();
    theirs.write_all(b"1\n2\n").unwrap();
    drop(theirs);
    owner(&log, ours)
        .state("input", |cx| {
            log_input(cx)?;
            cx.heap().wheel().pause_input();
            cx.heap().wheel().resume_input();
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "1 2 error:read:0");
}

#[test] // K-RW-12 with K-RE-20, K-WH-05, K-WH-06
fn a_wheel_dropped_inside_its_input_event_delivers_no_more_and_is_closed() {
    let mut kernel = kernel();
    let log = Log::default();
    let (ours, mut theirs) = pair();
    theirs.write_all(b"1\n2\n3\n").unwrap();
    owner(&log, ours)
        .state("input", |cx| {
            log_input(cx)?;
            cx.heap().wheel = None;
            cx.yield_("pass", ());
            Ok(())
        })
        .state("pass", move |cx| {
            assert_eq!(theirs.try_clone().unwrap().read(&mut [0]).unwrap(), 0, "closed before the next event");
            cx.heap().log.push("pass");
        })
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "1 pass");
}

#[test] // K-RW-19 with K-RE-21: without any new data to announce it
fn after_an_exception_in_the_input_event_the_rest_comes_in_the_next_slice() {
    let mut kernel = kernel();
    let log = Log::default();
    let (ours, mut theirs) = pair();
    theirs.write_all(b"1\n2\n3\n").unwrap();
    owner(&log, ours)
        .state("input", |cx| {
            log_input(cx)?;
            if cx.heap().log.text() == "1" { Err(std::io::Error::other("on purpose").into()) } else { Ok(()) }
        })
        .spawn(&mut kernel)
        .unwrap();
    run_slices(&mut kernel, 1);
    assert_eq!(log.text(), "1");
    run_slices(&mut kernel, 1);
    assert_eq!(log.text(), "1 2 3");
    kernel.stop();
}

#[test] // K-EX-15: the port names the session's own event, and the wheel as the state it came from
fn an_exception_in_the_input_event_is_that_events() {
    let mut kernel = kernel();
    let log = Log::default();
    let (ours, mut theirs) = pair();
    theirs.write_all(b"1\n").unwrap();
    owner(&log, ours)
        .state("input", |_| Err::<(), _>(std::io::Error::other("on purpose").into()))
        .state("die", |cx| {
            cx.sig_handled();
            let died = cx.take::<Died>(1)?;
            assert_eq!((died.dest_session, died.source_session), (cx.session(), cx.session()));
            let from = died.from_state.map_or("nowhere", |state| state.as_str());
            cx.heap().log.push(format!("{} from {from}: {}", died.event, died.exception));
            cx.heap().wheel = None;
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    assert_eq!(log.take(), ["input from ReadWrite: on purpose"]);
}

#[test] // design: a budget for each turn
fn a_peer_that_never_pauses_starves_no_other() {
    let mut kernel = kernel();
    let log = Log::default();
    let (busy, mut busy_peer) = tcp_pair();
    let (quiet, mut quiet_peer) = tcp_pair();
    let answered = Arc::new(AtomicBool::new(false));
    let done = answered.clone();
    let talker = thread::spawn(move || {
        let lines = format!("{:0100}\n", 0).repeat(1024);
        while !done.load(Ordering::Acquire) {
            busy_peer.write_all(lines.as_bytes()).unwrap();
        }
    });
    let counted = Log::default();
    owner(&counted, busy).state("input", |_| ()).spawn(&mut kernel).unwrap();
    owner(&log, quiet)
        .state("input", |cx| {
            let line = cx.take::<String>(0)?;
            cx.heap().wheel().put(line);
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    run_slices(&mut kernel, 10);
    let asker = thread::spawn(move || {
        for _ in 0..10 {
            quiet_peer.write_all(b"hello\n").unwrap();
            let mut answer = [0; 7];
            quiet_peer.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"hello\r\n");
        }
        answered.store(true, Ordering::Release);
    });
    run(&mut kernel);
    talker.join().unwrap();
    asker.join().unwrap();
}

#[test] // K-RE-28: reported once, and the stream goes on
fn a_record_that_the_filter_refuses_is_an_event_of_its_own_and_the_next_one_arrives() {
    let mut kernel = kernel();
    let log = Log::default();
    let (ours, mut theirs) = pair();
    theirs.write_all(b"good\n\xff\xfe\nbetter\n").unwrap();
    drop(theirs);
    owner(&log, ours).spawn(&mut kernel).unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "good refused better error:read:0");
}

#[test] // K-RE-20 holds for the refused event as for the input event
fn a_wheel_dropped_inside_its_refused_event_delivers_no_more() {
    let mut kernel = kernel();
    let log = Log::default();
    let (ours, mut theirs) = pair();
    theirs.write_all(b"\xff\nmore\n").unwrap();
    owner(&log, ours)
        .state("refused", |cx| {
            super::log_refused(cx)?;
            cx.heap().wheel = None;
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "refused");
}

#[test]
fn a_record_that_is_too_long_is_a_refused_event_wherever_the_network_cuts_it() {
    let mut kernel = kernel();
    let log = Log::default();
    let (ours, mut theirs) = pair();
    Session::new((log.clone(), None::<ReadWrite<Line>>))
        .args((ours,))
        .state("_start", |cx| {
            let stream = cx.take::<UnixStream>(0)?;
            let filter = Line::new().max_length(10)?;
            let wheel = ReadWrite::stream(stream, filter)
                .on_input("input")
                .on_error("error")
                .on_refused("refused")
                .start(cx)?;
            cx.heap().1 = Some(wheel);
            Ok(())
        })
        .state("input", |cx| {
            let line = cx.take::<String>(0)?;
            cx.heap().0.push(line);
            Ok(())
        })
        .state("refused", |cx| cx.heap().0.push("refused"))
        .state("error", |cx| {
            let operation = cx.arg::<Failure>(0)?.operation;
            cx.heap().0.push(operation);
            if operation == "read" {
                cx.heap().1 = None;
            }
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    theirs.write_all(b"first\n").unwrap();
    theirs.write_all(&[b'x'; 100_000]).unwrap();
    run_until(&mut kernel, || log.text() == "first");
    theirs.write_all(b"\nlast\n").unwrap();
    drop(theirs);
    run(&mut kernel);
    assert_eq!(log.text(), "first refused last read");
}

#[test] // K-WH-11 with K-RE-26
fn the_events_go_to_the_session_that_made_the_wheel_whoever_uses_it() {
    let mut kernel = kernel();
    let log = Log::default();
    let (ours, mut theirs) = pair();
    Session::new(None::<ReadWrite<Line>>)
        .state("_start", |cx| cx.alias_set("user").map_err(lenore::Exception::from))
        .state("use", |cx| {
            let wheel = cx.take::<ReadWrite<Line>>(0)?;
            wheel.put("from another session");
            *cx.heap() = Some(wheel);
            Ok(())
        })
        .state("end", |cx| {
            *cx.heap() = None;
            Ok(cx.alias_remove("user")?)
        })
        .state("_default", |cx| assert_ne!(*cx.arg::<lenore::Name>(0).unwrap(), "input", "it is not for this session"))
        .spawn(&mut kernel)
        .unwrap();
    owner(&log, ours)
        .state("started", |cx| {
            let wheel = cx.heap().wheel.take().expect("it has a wheel");
            cx.post("user", "use", (wheel,))?;
            Ok(())
        })
        .state("flushed", |cx| cx.heap().log.push("flushed"))
        .state("input", |cx| {
            log_input(cx)?;
            cx.post("user", "end", ())?;
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    run_until(&mut kernel, || log.text() == "flushed");
    theirs.write_all(b"answer\n").unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "flushed answer");
    assert_eq!(read_all(theirs), "from another session\r\n");
}

#[test] // K-WH-05, K-GC: a stopping session's wheels are closed, and a handle that outlives it is inert
fn a_stopping_session_closes_its_wheels() {
    let mut kernel = kernel();
    let log = Log::default();
    let (ours, theirs) = pair();
    let kept = std::rc::Rc::new(std::cell::RefCell::new(None));
    let keeper = kept.clone();
    let session = owner(&log, ours)
        .state("started", move |cx| keeper.replace(cx.heap().wheel.take()))
        .spawn(&mut kernel)
        .unwrap();
    run_slices(&mut kernel, 1);
    kernel.signal_now(session, "KILL", ()).unwrap();
    assert_eq!(read_all(theirs), "");
    let wheel = kept.take().expect("it was kept");
    wheel.put("nobody sends this");
    assert_eq!(wheel.pending_output(), 0);
    run(&mut kernel);
}

#[test]
fn a_pipe_is_as_good_as_a_socket() {
    let mut kernel = kernel();
    let log = Log::default();
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"1\n2\n").unwrap();
    owner(&log, reader).spawn(&mut kernel).unwrap();
    run_until(&mut kernel, || log.text() == "1 2");
    writer.write_all(b"3\n").unwrap();
    drop(writer);
    run(&mut kernel);
    assert_eq!(log.text(), "1 2 3 error:read:0");
}

#[test] // K-IO-21: the poller refuses it
fn a_regular_file_is_read_to_its_end() {
    let mut kernel = kernel();
    let log = Log::default();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let text: String = (0..50_000).map(|number| format!("{number}\n")).collect();
    file.write_all(text.as_bytes()).unwrap();
    owner(&log, file.reopen().unwrap()).spawn(&mut kernel).unwrap();
    run(&mut kernel);
    assert_eq!(log.len(), 50_001);
    assert_eq!(log.take().last().map(String::as_str), Some("error:read:0"));
}

#[test]
fn a_session_that_has_stopped_makes_no_wheel() {
    let mut kernel = kernel();
    let (ours, theirs) = pair();
    let stopped = Session::new(Some(ours)).state("_start", |cx| {
        cx.stop();
        let made = ReadWrite::stream(cx.heap().take().unwrap(), Line::new()).start(cx).map(drop);
        assert!(matches!(made, Err(Error::NoActiveSession)));
    });
    stopped.spawn(&mut kernel).unwrap();
    assert_eq!(read_all(theirs), "", "the descriptor is closed");
}

/// Has `send` done when the poller has been asked already, so that it tells of what it finds but once; returns the records
/// that have come when `last` has, or when it never will.
fn arrive_together(log: &Log, ours: impl Into<OwnedFd>, last: &str, send: impl Fn() + 'static) -> String {
    let mut kernel = kernel();
    let session = owner(log, ours).state("send", move |_| send()).spawn(&mut kernel).unwrap();
    let come = |kernel: &mut Kernel, record: &str| {
        let deadline = Instant::now() + DEADLINE / 2;
        // A slice without an event might wait for ever.
        while log.count(record) == 0 && Instant::now() < deadline {
            kernel.post(session, "pass", ()).unwrap();
            run_slices(kernel, 1);
        }
        log.count(record)
    };
    assert_eq!(come(&mut kernel, "hello"), 1);
    // By then the poller has been asked.
    for event in ["pass", "pass", "send"] {
        kernel.post(session, event, ()).unwrap();
        run_slices(&mut kernel, 1);
    }
    come(&mut kernel, last);
    kernel.stop();
    let records: Vec<String> = log.take().into_iter().filter(|entry| entry != "pass").collect();
    records.join(" ")
}

#[test] // K-RW-10: a read ends in front of urgent data, and the poller tells of all that has come but once
fn what_comes_behind_urgent_data_is_read_as_well() {
    let log = Log::default();
    let (ours, mut theirs) = tcp_pair();
    theirs.write_all(b"hello\n").unwrap();
    let text = arrive_together(&log, ours, "two", move || {
        (&theirs).write_all(b"one\n").unwrap();
        send(theirs.as_raw_fd(), b"!", MsgFlags::MSG_OOB).unwrap();
        (&theirs).write_all(b"two\n").unwrap();
    });
    assert_eq!(text, "hello one two");
}

#[test] // K-RW-10: so it does behind what was sent with descriptors, which nobody takes
fn what_comes_behind_descriptors_is_read_as_well() {
    let log = Log::default();
    let (ours, mut theirs) = pair();
    theirs.write_all(b"hello\n").unwrap();
    let text = arrive_together(&log, ours, "two", move || {
        let fds = [theirs.as_raw_fd()];
        let with = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(theirs.as_raw_fd(), &[IoSlice::new(b"one\n")], &with, MsgFlags::empty(), None).unwrap();
        (&theirs).write_all(b"two\n").unwrap();
    });
    assert_eq!(text, "hello one two");
}

#[test] // K-RW-10: a terminal hands out one line at a time, however many are pasted
fn all_lines_of_a_terminal_are_read() {
    let log = Log::default();
    let terminal = nix::pty::openpty(None, None).unwrap();
    let mut theirs = File::from(terminal.master);
    theirs.write_all(b"hello\n").unwrap();
    let text =
        arrive_together(&log, terminal.slave, "three", move || (&theirs).write_all(b"one\ntwo\nthree\n").unwrap());
    assert_eq!(text, "hello one two three");
}

#[test] // a peer that is always quick enough with the next record keeps nobody waiting
fn short_reads_are_bounded() {
    let mut kernel = kernel();
    let log = Log::default();
    let (ours, theirs) = pair();
    (&theirs).write_all(b"more\n").unwrap();
    owner(&log, ours)
        .state("input", move |cx| {
            (&theirs).write_all(b"more\n").unwrap();
            log_input(cx)
        })
        .spawn(&mut kernel)
        .unwrap();
    run_slices(&mut kernel, 1);
    assert!(log.count("more") < 100, "{} records in one turn", log.count("more"));
    run_slices(&mut kernel, 3);
    assert!(log.count("more") > 3);
    kernel.stop();
}

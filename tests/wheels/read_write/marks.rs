//! Watermarks, and what keeps the output of a slow reader small.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;

use lenore::wheel::Put;
use lenore::{Error, Kernel, SessionId};

use super::{lines, narrow_pair, owner_of, pair, read_all};
use util::in_process::{Log, kernel, run, run_slices, run_until};

const LOW: usize = 10_000;
const HIGH: usize = 50_000;

fn octets(kernel: &mut Kernel, session: SessionId) -> usize {
    kernel.call(session, "octets", ()).unwrap().take().unwrap()
}

/// A session with marks and a narrow socket, and the peer's end of that.
fn marked(kernel: &mut Kernel, log: &Log) -> (SessionId, UnixStream) {
    let (ours, theirs) = narrow_pair();
    let session = owner_of(log, lines(ours).watermarks(LOW, HIGH).on_high("high").on_low("low"))
        .state("put", |cx| {
            let length = cx.take::<usize>(0)?;
            let wheel = cx.heap().wheel();
            let told = wheel.put("x".repeat(length - 2));
            assert_eq!(told.is_high(), wheel.pending_output() >= HIGH);
            assert_eq!(told.is_high(), !told.takes_more());
            Ok(told.is_high())
        })
        .state("is_high", |cx| cx.heap().wheel().is_high())
        .state("octets", |cx| cx.heap().wheel().pending_output())
        .state("set_high", |cx| {
            let octets = cx.take::<usize>(0)?;
            Ok(cx.heap().wheel().set_high_mark(octets)?)
        })
        .state("set_low", |cx| {
            let octets = cx.take::<usize>(0)?;
            Ok(cx.heap().wheel().set_low_mark(octets)?)
        })
        .spawn(kernel)
        .unwrap();
    run_slices(kernel, 1);
    (session, theirs)
}

fn put(kernel: &mut Kernel, session: SessionId, length: usize) -> bool {
    kernel.call(session, "put", (length,)).unwrap().take().unwrap()
}

fn is_high(kernel: &mut Kernel, session: SessionId) -> bool {
    kernel.call(session, "is_high", ()).unwrap().take().unwrap()
}

/// Has the peer read until no more than `most` bytes wait.
fn drain(kernel: &mut Kernel, session: SessionId, theirs: &mut UnixStream, most: usize) {
    loop {
        kernel.post(session, "nothing", ()).unwrap();
        run_slices(kernel, 1);
        if octets(kernel, session) <= most {
            return;
        }
        assert!(theirs.read(&mut [0; 500]).unwrap() > 0);
    }
}

#[test] // K-RW-31, K-RW-45, K-RW-48 with K-RE-22, K-RW-46, K-RW-50
fn put_tells_of_the_high_mark_and_the_events_follow_once_for_each_cycle() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (session, mut theirs) = marked(&mut kernel, &log);
    for _ in 0..2 {
        assert!(!put(&mut kernel, session, HIGH / 2));
        assert!(!is_high(&mut kernel, session));
        assert!(put(&mut kernel, session, HIGH));
        assert!(put(&mut kernel, session, 2), "still at the high mark");
        assert!(is_high(&mut kernel, session));
        assert_eq!(log.text(), "", "no event inside put");
        kernel.post(session, "nothing", ()).unwrap();
        run_slices(&mut kernel, 1);
        assert_eq!(log.take().join(" "), "high");
        drain(&mut kernel, session, &mut theirs, LOW);
        assert_eq!(log.text(), "low");
        assert!(!is_high(&mut kernel, session));
        drain(&mut kernel, session, &mut theirs, 0);
        assert_eq!(log.take().join(" "), "low flushed");
    }
    kernel.stop();
}

#[test] // K-RW-38, K-RW-41: what is lost after the end takes no event from what was written before
fn put_after_the_end_in_the_low_event_hides_no_flushed_event() {
    for ends_at_once in [false, true] {
        let (mut kernel, log) = (kernel(), Log::default());
        let (ours, theirs) = pair();
        let session = owner_of(&log, lines(ours).auto_flush().watermarks(1, 10).on_high("high").on_low("low"))
            .state("started", |cx| _ = cx.heap().wheel().put("x".repeat(20)))
            .state("high", move |cx| {
                cx.heap().log.push("high");
                let wheel = cx.heap().wheel();
                if ends_at_once { wheel.shutdown_output() } else { wheel.shutdown_output_after_flush() }
            })
            .state("low", |cx| {
                cx.heap().log.push("low");
                assert_eq!(cx.heap().wheel().put("y".repeat(20)), Put::Closed);
            })
            .spawn(&mut kernel)
            .unwrap();
        for _ in 0..3 {
            kernel.post(session, "nothing", ()).unwrap();
            run_slices(&mut kernel, 1);
        }
        assert_eq!(log.text(), "high low flushed", "{ends_at_once}");
        assert_eq!(read_all(theirs), "x".repeat(20) + "\r\n");
    }
}

#[test] // K-RW-50, K-RE-22: a put that crosses the mark is told of, though the descriptor takes all of it
fn a_flush_that_reaches_everything_tells_high_low_and_flushed_in_this_order() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, mut theirs) = pair();
    owner_of(&log, lines(ours).watermarks(1, 10).on_high("high").on_low("low"))
        .state("started", |cx| {
            assert_eq!(cx.heap().wheel().put("1234567"), Put::Accepted);
            assert_eq!(cx.heap().wheel().put("8"), Put::High);
        })
        .spawn(&mut kernel)
        .unwrap();
    run_slices(&mut kernel, 1);
    assert_eq!(log.text(), "high low flushed");
    theirs.read_exact(&mut [0; 12]).unwrap();
    kernel.stop();
}

#[test] // K-RW-49 with K-RE-22
fn a_small_put_while_draining_does_not_lose_the_low_event() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (session, mut theirs) = marked(&mut kernel, &log);
    assert!(put(&mut kernel, session, 2 * HIGH));
    drain(&mut kernel, session, &mut theirs, HIGH - 1000);
    assert!(octets(&mut kernel, session) > LOW);
    assert!(!put(&mut kernel, session, 10), "there is less than the high mark");
    assert!(is_high(&mut kernel, session), "and has not been as little as the low one");
    drain(&mut kernel, session, &mut theirs, LOW);
    assert_eq!(log.text(), "high low");
    kernel.stop();
}

#[test] // K-RW-47, K-RW-48, K-RW-51
fn marks_that_pass_what_waits_have_their_event() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (session, theirs) = marked(&mut kernel, &log);
    assert!(!put(&mut kernel, session, HIGH - 1000));
    kernel.post(session, "nothing", ()).unwrap();
    run_slices(&mut kernel, 1);
    assert_eq!(log.text(), "");
    kernel.call(session, "set_high", (LOW + 1,)).unwrap();
    assert_eq!(log.text(), "", "no event inside the call");
    kernel.post(session, "nothing", ()).unwrap();
    run_slices(&mut kernel, 1);
    assert_eq!(log.text(), "high");
    kernel.call(session, "set_high", (2 * HIGH,)).unwrap();
    kernel.call(session, "set_low", (HIGH,)).unwrap();
    kernel.post(session, "nothing", ()).unwrap();
    run_slices(&mut kernel, 1);
    assert_eq!(log.text(), "high low");
    drop(theirs);
    kernel.stop();
}

#[test] // K-RW-51
fn marks_that_make_no_sense_are_refused_and_change_nothing() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, theirs) = pair();
    let (unmarked, _theirs) = pair();
    let refused = |result: Result<(), Error>| result.unwrap_err().to_string();
    owner_of(&log, lines(ours).watermarks(LOW, HIGH).on_low("low"))
        .state("started", move |cx| {
            let wheel = cx.heap().wheel();
            let below = "invalid marks: the low mark must be below the high mark";
            assert_eq!(refused(wheel.set_high_mark(LOW)), below);
            assert_eq!(refused(wheel.set_low_mark(HIGH)), below);
            assert_eq!(refused(wheel.set_low_mark(0)), "invalid marks: the low mark must be above 0");
            wheel.put("x".repeat(LOW));
            assert!(wheel.put("x".repeat(HIGH - LOW - 5)).takes_more(), "one octet less than the high mark");
            assert!(wheel.put("").is_high(), "the high mark is where it was");
            wheel.set_high_mark(HIGH + 1).unwrap();
            wheel.set_low_mark(1).unwrap();
        })
        .spawn(&mut kernel)
        .unwrap();
    owner_of(&log, lines(unmarked))
        .state("started", move |cx| {
            let wheel = cx.heap().wheel();
            assert_eq!(refused(wheel.set_high_mark(10)), "invalid high mark: the wheel has no marks");
            assert_eq!(refused(wheel.set_low_mark(10)), "invalid low mark: the wheel has no marks");
            assert!(wheel.put("x".repeat(10 * HIGH)).takes_more(), "without marks none is reached");
            cx.heap().wheel = None;
            cx.heap().log.push("refused");
        })
        .spawn(&mut kernel)
        .unwrap();
    run_slices(&mut kernel, 1);
    assert_eq!(log.count("refused"), 1);
    drop(theirs);
    kernel.stop();
}

#[test] // K-RW-04
fn a_wheel_with_marks_that_make_no_sense_is_not_made() {
    let (mut kernel, log) = (kernel(), Log::default());
    let wheel = || lines(pair().0);
    let cases = [
        (wheel().watermarks(0, 10).on_low("low"), "invalid marks: the low mark must be above 0"),
        (wheel().watermarks(10, 10).on_low("low"), "invalid marks: the low mark must be below the high mark"),
        (
            wheel().watermarks(1, 10).on_high("high"),
            "invalid marks: need on_low: no other event says that the output has drained",
        ),
        (wheel().on_high("high"), "invalid on_high: needs marks"),
        (wheel().on_low("low"), "invalid on_low: needs marks"),
        (wheel().auto_pause(), "invalid auto_pause: needs marks"),
        (wheel().block_size(0), "invalid block_size: must be at least 1"),
    ];
    let expected: Vec<&str> = cases.iter().map(|(_, text)| *text).collect();
    let wheels: Vec<_> = cases.into_iter().map(|(wheel, _)| wheel).collect();
    let logged = log.clone();
    lenore::Session::new(())
        .args((wheels,))
        .state("_start", move |cx| {
            for wheel in cx.take::<Vec<lenore::wheel::ReadWriteBuilder<lenore::filter::Line>>>(0)? {
                let refused = wheel.start(cx).map(drop).unwrap_err();
                assert!(matches!(refused, Error::InvalidSetting { .. }));
                logged.push(refused);
            }
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    assert_eq!(log.take(), expected);
}

#[test] // a peer that sends and does not read: its replies are bounded, and none is lost
fn an_auto_paused_echo_takes_no_more_than_it_can_give_back() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, mut theirs) = narrow_pair();
    let most = Log::default();
    let seen = most.clone();
    let session = owner_of(&log, lines(ours).watermarks(LOW, HIGH).auto_pause())
        .state("input", move |cx| {
            let line = cx.take::<String>(0)?;
            let wheel = cx.heap().wheel();
            assert!(!wheel.is_high(), "paused at once, in the middle of a chunk");
            wheel.put(line);
            assert!(wheel.pending_output() < HIGH + 1000);
            if wheel.is_high() {
                seen.push("high");
            }
            Ok(())
        })
        .state("flushed", |_| ())
        .state("error", |cx| {
            super::log_error(cx)?;
            cx.heap().wheel.take().expect("it has a wheel").close_after_flush();
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    const LINES: usize = 20_000;
    let mut sender = theirs.try_clone().unwrap();
    let talker = thread::spawn(move || {
        for number in 0..LINES {
            sender.write_all(format!("{number:0100}\n").as_bytes()).unwrap();
        }
        sender.shutdown(std::net::Shutdown::Write).unwrap();
    });
    // Stuck: it waits for the peer to read, and the peer for it.
    run_until(&mut kernel, || most.len() == 1);
    for _ in 0..50 {
        kernel.post(session, "nothing", ()).unwrap();
        run_slices(&mut kernel, 1);
    }
    assert_eq!(most.len(), 1, "nothing is delivered any more");
    let reader = thread::spawn(move || {
        let mut all = vec![0; LINES * 102];
        theirs.read_exact(&mut all).unwrap();
        all
    });
    run(&mut kernel);
    talker.join().unwrap();
    let expected: String = (0..LINES).map(|number| format!("{number:0100}\r\n")).collect();
    assert!(reader.join().unwrap() == expected.as_bytes());
    assert_eq!(log.text(), "error:read:0");
}

#[test] // output that never drains holds nothing back: what the peer says, and that it has gone, is still heard
fn an_auto_paused_wheel_whose_output_has_ended_goes_on_reading() {
    for fails in [true, false] {
        let (mut kernel, log) = (kernel(), Log::default());
        let (ours, mut theirs) = narrow_pair();
        if fails {
            theirs.shutdown(std::net::Shutdown::Read).unwrap();
        }
        let session = owner_of(&log, lines(ours).watermarks(LOW, HIGH).auto_pause())
            .state("started", |cx| cx.heap().wheel().put("x".repeat(100_000)))
            .state("end", |cx| {
                assert!(cx.heap().wheel().is_high());
                cx.heap().wheel().shutdown_output();
            })
            .state("error", super::log_error)
            .spawn(&mut kernel)
            .unwrap();
        run_slices(&mut kernel, 1);
        theirs.write_all(b"heard\n").unwrap();
        if !fails {
            for _ in 0..3 {
                kernel.post(session, "nothing", ()).unwrap();
                run_slices(&mut kernel, 1);
            }
            assert_eq!(log.text(), "", "the input waits");
            kernel.call(session, "end", ()).unwrap();
        }
        let failure = if fails { "error:write:32 " } else { "" };
        run_until(&mut kernel, || log.text() == format!("{failure}heard"));
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        run_until(&mut kernel, || log.text() == format!("{failure}heard error:read:0"));
        run(&mut kernel);
    }
}

#[test] // a budget for each turn: a peer that reads as fast as it can keeps no event waiting until all is written
fn much_output_to_a_fast_reader_lets_others_go_on() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, mut theirs) = pair();
    let length = 64 << 20;
    let reader = thread::spawn(move || {
        let (mut seen, mut chunk) = (0, vec![0; 1 << 20]);
        while seen < length + 2 {
            seen += theirs.read(&mut chunk).unwrap();
        }
        theirs
    });
    owner_of(&log, lines(ours))
        .state("started", move |cx| {
            cx.heap().wheel().put("x".repeat(length));
            cx.yield_("pass", ());
        })
        .spawn(&mut kernel)
        .unwrap();
    run_until(&mut kernel, || log.count("flushed") == 1);
    assert_eq!(log.text(), "pass flushed");
    drop(reader.join().unwrap());
    run(&mut kernel);
}

#[test] // K-RE-20: nothing comes of a wheel that was dropped, not even a failure from before
fn a_wheel_dropped_at_the_high_mark_reports_no_failure() {
    let mut kernel = kernel();
    let log = Log::default();
    let (ours, theirs) = pair();
    let session = owner_of(&log, lines(ours).watermarks(1, 2).on_high("high").on_low("low").auto_flush())
        .state("high", |cx| {
            cx.heap().log.push("high");
            cx.heap().wheel = None;
        })
        .state("error", |cx| cx.heap().log.push("error"))
        .spawn(&mut kernel)
        .unwrap();
    run_slices(&mut kernel, 1);
    theirs.shutdown(std::net::Shutdown::Read).unwrap();
    kernel.post(session, "put", ("to nobody".to_owned(),)).unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "high");
}

//! Peers that send what they should not, or stop where they should not: a clear error event, and the rest unharmed.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use lenore::filter::{ByteLine, Filter, FilterError, Line};
use lenore::wheel::{Failure, ReadWrite, WheelId};
use lenore::{Died, Session};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};

use super::{log_error, log_input, owner, owner_of, pair, tcp_pair};
use util::in_process::{Fragile, Habit, Log, Stubborn, kernel, run, run_slices, run_until};

/// What is logged of a record that the filter refuses.
fn refused() -> String {
    "refused".into()
}

/// What a wheel with `filter` makes of `input`, which ends with the end of file.
fn heard(filter: Line, input: &[u8]) -> Vec<String> {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, mut theirs) = pair();
    owner_of(&log, ReadWrite::stream(ours, filter).on_input("input").on_error("error").on_refused("refused"))
        .spawn(&mut kernel)
        .unwrap();
    let input = input.to_vec();
    let peer = std::thread::spawn(move || theirs.write_all(&input).unwrap());
    run(&mut kernel);
    peer.join().unwrap();
    log.take()
}

fn small(max_buffer: usize) -> Line {
    Line::new().max_length(max_buffer).unwrap().max_buffer(max_buffer).unwrap()
}

#[test] // many records in a chunk that is longer than the filter's buffer
fn a_small_buffer_costs_no_record_of_a_long_chunk() {
    let lines: Vec<String> = (0..5000).map(|number| format!("line {number}")).collect();
    for max_buffer in [12, 13, 100, 65_000] {
        let mut expected = lines.clone();
        expected.push("error:read:0".into());
        assert_eq!(heard(small(max_buffer), (lines.join("\n") + "\n").as_bytes()), expected, "with {max_buffer}");
    }
}

#[test] // K-FL-12 with K-RE-28: in its place, once
fn a_record_longer_than_the_buffer_is_one_error_between_its_neighbours() {
    for length in [101, 150, 1000, 70_000, 200_000] {
        let input = format!("before\n{}\nafter\nlast\n", "x".repeat(length));
        let expected = ["before", &refused(), "after", "last", "error:read:0"];
        assert_eq!(heard(small(100), input.as_bytes()), expected, "with {length} octets");
    }
}

#[test]
fn a_million_octets_without_an_end_are_one_error_and_no_memory() {
    let mut input = vec![b'x'; 1 << 20];
    input.extend_from_slice(b"\nfine\n");
    assert_eq!(heard(small(1000), &input), [&refused(), "fine", "error:read:0"]);
}

/// Lines for a filter that does not say how much room it has.
struct Mute(ByteLine);

impl Filter for Mute {
    type Input = Vec<u8>;
    type Output = [u8];

    fn get_one_start(&mut self, chunk: &[u8]) -> Result<(), FilterError> {
        self.0.get_one_start(chunk)
    }

    fn get_one(&mut self) -> Result<Option<Vec<u8>>, FilterError> {
        self.0.get_one()
    }

    fn put(&mut self, record: &[u8], out: &mut Vec<u8>) -> Result<(), FilterError> {
        self.0.put(record, out)
    }

    fn get_pending(&self) -> &[u8] {
        self.0.get_pending()
    }

    fn clone_config(&self) -> Self {
        Mute(self.0.clone_config())
    }
}

#[test] // its first error tells the wheel of the limit
fn a_filter_that_does_not_tell_its_limit_refuses_once() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, mut theirs) = pair();
    let (logged, errors, refusals) = (log.clone(), log.clone(), log.clone());
    Session::new(None::<ReadWrite<Mute>>)
        .args((ours,))
        .state("_start", |cx| {
            let filter = Mute(small(50).bytes());
            let stream = cx.take::<UnixStream>(0)?;
            let wheel = ReadWrite::stream(stream, filter).on_input("input").on_error("error").on_refused("refused");
            *cx.heap() = Some(wheel.start(cx)?);
            Ok(())
        })
        .state("input", move |cx| {
            logged.push(String::from_utf8(cx.take::<Vec<u8>>(0)?)?);
            Ok(())
        })
        .state("refused", move |_| refusals.push("refused"))
        .state("error", move |cx| {
            errors.push(cx.arg::<Failure>(0)?.operation);
            *cx.heap() = None;
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    let lines: Vec<String> = (0..5000).map(|number| format!("line {number}")).collect();
    let text = lines.join("\n") + "\n";
    let peer = std::thread::spawn(move || theirs.write_all(text.as_bytes()).unwrap());
    run(&mut kernel);
    peer.join().unwrap();
    // The filter refuses the chunk and gives up the record in progress.
    let mut expected = vec![refused()];
    expected.extend_from_slice(&lines[1..]);
    expected.push("read".into());
    assert_eq!(log.take(), expected);
}

#[test]
fn binary_junk_is_an_error_for_each_record_of_it() {
    // Every byte but the newlines, which are records of their own in this order: LF at 10, CR at 13.
    let junk: Vec<u8> = (0..=255).collect();
    let mut input = junk.repeat(300);
    input.extend_from_slice(b"\nfine\n");
    let heard = heard(Line::new(), &input);
    // Up to LF and up to CR it is text; from there to the next LF, round the end, it is not. The first round begins at 0.
    assert_eq!(heard.iter().filter(|entry| **entry == refused()).count(), 300);
    assert_eq!(heard.iter().filter(|entry| **entry == "\u{b}\u{c}").count(), 300);
    assert_eq!(heard[heard.len() - 2..], ["fine", "error:read:0"]);
    assert_eq!(heard.len(), 1 + 2 * 300 + 2);
}

#[test] // K-RW-15, K-DR-02
fn a_reset_in_the_middle_of_a_record_is_one_error_after_what_was_whole() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, mut theirs) = tcp_pair();
    let session =
        owner_of(&log, super::lines(ours).deliver_last()).state("error", log_error).spawn(&mut kernel).unwrap();
    theirs.write_all(b"whole\nunfin").unwrap();
    run_until(&mut kernel, || log.text() == "whole");
    setsockopt(&theirs, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
    drop(theirs);
    run_until(&mut kernel, || log.len() == 2);
    for _ in 0..3 {
        kernel.post(session, "nothing", ()).unwrap();
        run_slices(&mut kernel, 1);
    }
    // Broken off is not the last.
    assert_eq!(log.text(), format!("whole error:read:{}", Errno::ECONNRESET as i32));
    kernel.stop();
}

#[test] // K-RW-14: a peer that sends an octet now and then
fn records_that_come_octet_by_octet_arrive_whole() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, mut theirs) = pair();
    let (other, mut other_theirs) = pair();
    let session = owner(&log, ours).spawn(&mut kernel).unwrap();
    let others = Log::default();
    owner(&others, other).spawn(&mut kernel).unwrap();
    for octet in b"one\r\n\r\nthree\n" {
        theirs.write_all(&[*octet]).unwrap();
        other_theirs.write_all(b"meanwhile\n").unwrap();
        kernel.post(session, "nothing", ()).unwrap();
        let before = others.len();
        run_until(&mut kernel, || others.len() > before);
    }
    theirs.shutdown(Shutdown::Write).unwrap();
    drop(other_theirs);
    run(&mut kernel);
    assert_eq!(log.text(), "one  three error:read:0");
}

#[test] // K-RW-20
fn a_panic_in_the_filter_is_a_die_signal_in_the_wheels_name_and_reading_goes_on() {
    for poison in ["panic\n", "poison\n", "panic\nagain\n"] {
        let (mut kernel, log) = (kernel(), Log::default());
        let (ours, mut theirs) = pair();
        let (logged, dead) = (log.clone(), log.clone());
        Session::new(None::<ReadWrite<Fragile>>)
            .args((ours,))
            .state("_start", |cx| {
                cx.sig("DIE", "die");
                let stream = cx.take::<UnixStream>(0)?;
                *cx.heap() =
                    Some(ReadWrite::stream(stream, Fragile(Line::new())).on_input("input").on_error("gone").start(cx)?);
                Ok(())
            })
            .state("input", move |cx| {
                let id = cx.heap().as_ref().expect("it is kept").id();
                assert_eq!(*cx.arg::<WheelId>(1)?, id);
                logged.push(cx.take::<String>(0)?);
                Ok(())
            })
            .state("die", move |cx| {
                cx.sig_handled();
                let died = cx.take::<Died>(1)?;
                assert_eq!(died.dest_session, cx.session());
                assert!(died.exception.is_panic());
                dead.push(format!("{} died", died.event));
                Ok(())
            })
            .state("gone", |cx| *cx.heap() = None)
            .spawn(&mut kernel)
            .unwrap();
        theirs.write_all(b"fine\n").unwrap();
        run_until(&mut kernel, || log.len() == 1);
        theirs.write_all(poison.as_bytes()).unwrap();
        if !poison.ends_with("again\n") {
            run_until(&mut kernel, || log.len() == 2);
            theirs.write_all(b"again\n").unwrap();
        }
        drop(theirs);
        run(&mut kernel);
        // As behind an `Err` of the input state, the rest of a chunk comes in the next slice.
        assert_eq!(log.take(), ["fine", "ReadWrite died", "again"]);
    }
}

/// A session with a wheel whose filter has such a habit, which logs what it hears, and ends at the end of the input.
fn stubborn(log: &Log, stream: UnixStream, habit: Habit) -> Session<Option<ReadWrite<Stubborn>>> {
    let (logged, refusals, errors, dead) = (log.clone(), log.clone(), log.clone(), log.clone());
    Session::new(None)
        .args((stream,))
        .state("_start", move |cx| {
            cx.sig("DIE", "die");
            let wheel = ReadWrite::stream(cx.take::<UnixStream>(0)?, Stubborn(Vec::new(), habit));
            *cx.heap() = Some(wheel.on_input("input").on_error("error").on_refused("refused").start(cx)?);
            Ok(())
        })
        .state("input", move |_| logged.push("record"))
        .state("refused", move |cx| {
            refusals.push(cx.arg::<FilterError>(0)?);
            Ok(())
        })
        .state("error", move |cx| {
            let failure = cx.take::<Failure>(0)?;
            let is_end = failure.operation == "read";
            errors.push(failure.text);
            if is_end {
                *cx.heap() = None;
            }
            Ok(())
        })
        .state("die", move |cx| {
            cx.sig_handled();
            dead.push("died");
        })
        .state("drop", |cx| *cx.heap() = None)
}

#[test] // K-RW-21: it is told of in each turn, others have theirs, and then its input is dropped
fn a_filter_that_refuses_without_end_keeps_nobody_waiting() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, mut theirs) = pair();
    theirs.write_all(b"stuck").unwrap();
    let session = stubborn(&log, ours, Habit::Refuses).spawn(&mut kernel).unwrap();
    run_slices(&mut kernel, 1);
    assert!((1..10_000).contains(&log.len()), "{} refusals in one turn", log.len());
    let end = "malformed input: the filter refuses without taking input: 5 bytes are dropped";
    let mut slices = 0;
    while log.count(end) == 0 {
        kernel.post(session, "nothing", ()).unwrap();
        run_slices(&mut kernel, 1);
        slices += 1;
        assert!(slices < 1000, "{} refusals", log.len());
    }
    drop(theirs);
    run(&mut kernel);
    assert_eq!(log.take().last().map(String::as_str), Some(""), "the end of file");
}

#[test] // K-RW-20, K-RE-21
fn a_filter_that_panics_without_end_waits_for_more_input() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, mut theirs) = pair();
    let session = stubborn(&log, ours, Habit::Panics).spawn(&mut kernel).unwrap();
    for chunk in 1..=3 {
        theirs.write_all(b"stuck").unwrap();
        run_until(&mut kernel, || log.count("died") >= chunk);
        for _ in 0..5 {
            kernel.post(session, "nothing", ()).unwrap();
            run_slices(&mut kernel, 1);
        }
        assert!(log.count("died") <= 2 * chunk, "{} panics for {chunk} chunks", log.count("died"));
    }
    drop(theirs);
    run(&mut kernel);
    assert_eq!(log.take().last().map(String::as_str), Some(""), "the end of file");
}

#[test] // K-RW-20, K-RW-21: the wheel asks it what is pending after a failure, and makes another in the end
fn a_filter_that_panics_when_it_is_looked_at_does_not_end_the_kernel() {
    for habit in [Habit::Breaks, Habit::Clings] {
        let (mut kernel, log) = (kernel(), Log::default());
        let (ours, mut theirs) = pair();
        let session = stubborn(&log, ours, habit).spawn(&mut kernel).unwrap();
        for chunk in 1..=3 {
            theirs.write_all(b"stuck").unwrap();
            run_until(&mut kernel, || log.count("died") >= chunk);
            for _ in 0..5 {
                kernel.post(session, "nothing", ()).unwrap();
                run_slices(&mut kernel, 1);
            }
            assert!(log.count("died") <= 2 * chunk, "{} panics for {chunk} chunks", log.count("died"));
        }
        drop(theirs);
        run(&mut kernel);
        assert_eq!(log.take().last().map(String::as_str), Some(""), "the end of file");
    }
}

#[test] // K-RW-11, K-RW-21
fn a_filter_that_yields_without_end_keeps_nobody_waiting() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, mut theirs) = pair();
    theirs.write_all(b"x").unwrap();
    let session = stubborn(&log, ours, Habit::Yields).spawn(&mut kernel).unwrap();
    kernel.post(session, "drop", ()).unwrap();
    run(&mut kernel);
    assert!(log.len() > 65_536, "all that a read can hold comes in one turn: {}", log.len());
}

#[test] // K-RE-20, K-RE-21, K-RW-41: a refused event is a state like any other
fn after_a_refused_record_delivery_stops_when_the_wheel_is_paused_or_the_state_fails() {
    for what in ["pause", "drop", "fail"] {
        let (mut kernel, log) = (kernel(), Log::default());
        let (ours, mut theirs) = pair();
        theirs.write_all(b"1\n\xff\n2\n").unwrap();
        let session = owner(&log, ours)
            .state("refused", move |cx| {
                super::log_refused(cx)?;
                match what {
                    "pause" => cx.heap().wheel().pause_input(),
                    "drop" => cx.heap().wheel = None,
                    _ => return Err(std::io::Error::other("on purpose").into()),
                }
                Ok(())
            })
            .state("die", |cx| {
                cx.sig_handled();
                cx.heap().log.push("died");
            })
            .spawn(&mut kernel)
            .unwrap();
        run_slices(&mut kernel, 1);
        let at_once = log.text();
        assert!(at_once.starts_with("1 refused") && !at_once.contains('2'), "{what}: {at_once}");
        match what {
            "pause" => {
                kernel.call(session, "resume", ()).unwrap();
                run_until(&mut kernel, || log.text() == "1 refused 2");
            }
            "fail" => run_until(&mut kernel, || log.text() == "1 refused died 2"),
            _ => {}
        }
        kernel.stop();
    }
}

#[test] // K-RE-39
fn an_unfinished_last_record_is_delivered_if_asked_for() {
    for (input, expected) in [
        (&b"one\ntwo"[..], "one two error:read:0"),
        (b"one\r\n", "one error:read:0"),
        (b"two", "two error:read:0"),
        (b"", "error:read:0"),
        (b"one\n\xff", &format!("one {} error:read:0", refused())),
    ] {
        let (mut kernel, log) = (kernel(), Log::default());
        let (ours, mut theirs) = pair();
        theirs.write_all(input).unwrap();
        drop(theirs);
        let wheel = super::lines(ours).deliver_last();
        owner_of(&log, wheel).spawn(&mut kernel).unwrap();
        run(&mut kernel);
        assert_eq!(log.text(), expected);
    }
}

#[test] // K-RE-39, K-RE-20, K-RE-21: it is a record like any other
fn the_last_record_may_pause_drop_or_fail() {
    for (what, expected) in [
        ("pause", "last pass error:read:0"),
        ("drop", "last pass"),
        ("fail", "last pass error:read:0"),
        ("reply", "last pass flushed error:read:0"),
    ] {
        let (mut kernel, log) = (kernel(), Log::default());
        let (ours, mut theirs) = pair();
        theirs.write_all(b"last").unwrap();
        theirs.shutdown(Shutdown::Write).unwrap();
        owner_of(&log, super::lines(ours).deliver_last())
            .state("input", move |cx| {
                log_input(cx)?;
                cx.delay("pass", Duration::ZERO, ());
                match what {
                    "pause" => {
                        cx.heap().wheel().pause_input();
                        cx.delay("resume", Duration::from_millis(1), ());
                    }
                    "drop" => cx.heap().wheel = None,
                    "reply" => {
                        cx.heap().wheel().put("reply");
                    }
                    _ => return Err(std::io::Error::other("on purpose").into()),
                }
                Ok(())
            })
            .spawn(&mut kernel)
            .unwrap();
        run(&mut kernel);
        let text = log.text();
        // The reply is written, and the end told, in the turn of the record.
        let expected = if what == "reply" { "last flushed error:read:0 pass" } else { expected };
        assert_eq!(text, expected, "when it is to {what}");
    }
}

/// A filter that has written half of a record when it finds out that it does not like it.
struct HalfHearted;

impl Filter for HalfHearted {
    type Input = Vec<u8>;
    type Output = str;

    fn get_one_start(&mut self, _: &[u8]) -> Result<(), FilterError> {
        Ok(())
    }

    fn get_one(&mut self) -> Result<Option<Vec<u8>>, FilterError> {
        Ok(None)
    }

    fn put(&mut self, record: &str, out: &mut Vec<u8>) -> Result<(), FilterError> {
        out.extend_from_slice(&record.as_bytes()[..record.len() / 2]);
        match record {
            "fails" => return Err(FilterError::Malformed { reason: "on purpose".into() }),
            "panics" => panic!("on purpose"),
            _ => {}
        }
        out.extend_from_slice(&record.as_bytes()[record.len() / 2..]);
        Ok(())
    }

    fn get_pending(&self) -> &[u8] {
        &[]
    }

    fn clone_config(&self) -> Self {
        HalfHearted
    }
}

#[test] // K-RW-42
fn a_put_that_fails_or_panics_leaves_nothing_in_the_output() {
    for (bad, has_two) in [("fails", false), ("panics", false), ("fails", true), ("panics", true)] {
        let (mut kernel, log) = (kernel(), Log::default());
        let (ours, theirs) = pair();
        let (idle, _peer) = pair();
        let (errors, dead) = (log.clone(), log.clone());
        let wheel =
            if has_two { ReadWrite::streams(idle, ours, HalfHearted) } else { ReadWrite::stream(ours, HalfHearted) };
        let wheel = wheel.on_input("input").on_error("error").close_timeout(Duration::ZERO);
        Session::new(None::<ReadWrite<HalfHearted>>)
            .args((wheel,))
            .state("_start", |cx| {
                cx.sig("DIE", "die");
                let wheel = cx.take::<lenore::wheel::ReadWriteBuilder<HalfHearted>>(0)?;
                *cx.heap() = Some(wheel.start(cx)?);
                cx.yield_("put", ());
                Ok(())
            })
            .state("put", move |cx| {
                cx.yield_("put more", ());
                let wheel = cx.heap().as_ref().expect("it is kept");
                wheel.put("one ");
                wheel.put(bad);
            })
            .state("put more", |cx| {
                let wheel = cx.heap().take().expect("it is kept");
                assert_eq!((wheel.pending_output(), wheel.driver_out_messages()), (0, 0));
                wheel.put("two");
                wheel.close_after_flush();
            })
            .state("error", move |cx| {
                errors.push(cx.arg::<Failure>(0)?.operation);
                Ok(())
            })
            .state("die", move |cx| {
                cx.sig_handled();
                dead.push("died");
                Ok(())
            })
            .spawn(&mut kernel)
            .unwrap();
        run(&mut kernel);
        assert_eq!(super::read_all(theirs), "one two", "{bad}");
        assert_eq!(log.text(), if bad == "fails" { "filter" } else { "died" });
    }
}

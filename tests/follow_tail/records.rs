//! Records on their way from the file through the filter to the session.

use std::fs;
use std::io::SeekFrom;

use lenore::filter::{Filter, Line, Stream};
use lenore::wheel::{Failure, FollowTail};
use lenore::{Died, Session};

use super::{INTERVAL, Lab, append, session};
use util::in_process::{Fragile, Habit, Log, Stubborn, Watchdog, kernel, run, run_until};

#[test] // K-FT-01: any filter
fn records_are_what_the_filter_makes_of_the_file() {
    let mut kernel = kernel();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    fs::write(&path, [0, 1, 255]).unwrap();
    let log = Log::default();
    let seen = log.clone();
    Session::new(None::<FollowTail<Stream>>)
        .state("_start", move |cx| {
            let builder = FollowTail::path(&path, Stream::new()).seek(SeekFrom::Start(0));
            *cx.heap() = Some(builder.on_input("input").start(cx)?);
            Ok(())
        })
        .state("input", move |cx| {
            seen.push(format!("{:?}", cx.take::<Vec<u8>>(0)?));
            *cx.heap() = None;
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "[0, 1, 255]");
}

#[test] // K-WH-10: a record that is refused
fn a_line_that_is_no_text_is_a_refused_event_and_the_next_one_comes() {
    let mut lab = Lab::new();
    fs::write(lab.path(), b"a\n\xff\nb\n").unwrap();
    lab.follow_with(|builder| builder.seek(SeekFrom::Start(0)));
    assert_eq!(lab.news(), ["a", "refused:log", "b"]);
}

#[test] // K-RE-20, K-RE-21: dropped in the middle of a chunk; failing in the middle of one
fn a_chunk_is_delivered_as_long_as_the_session_goes_along() {
    for fails in [false, true] {
        let mut lab = Lab::new();
        lab.write("1\n2\n3\n");
        let path = lab.path();
        let make = move || FollowTail::path(&path, Line::new()).poll_interval(INTERVAL).seek(SeekFrom::Start(0));
        session(&lab.log, lab.told.clone(), make)
            .state("input", move |cx| {
                let line = cx.take::<String>(0)?;
                cx.heap().log.push(&line);
                match line.as_str() {
                    "2" if fails => return Err(lenore::Exception::new("not this one")),
                    "2" | "3" => cx.heap().wheel = None,
                    _ => {}
                }
                Ok(())
            })
            .spawn(&mut lab.kernel)
            .unwrap();
        run(&mut lab.kernel);
        assert_eq!(lab.log.text(), if fails { "1 2 3 _stop" } else { "1 2 _stop" });
    }
}

#[test] // K-FT-06: a partial line in each of many looks
fn a_line_may_grow_octet_by_octet() {
    let _watchdog = Watchdog::start();
    let mut lab = Lab::new();
    lab.write("");
    lab.follow();
    for octet in ["a", "b", "c", "\n", "d", "\n"] {
        lab.append(octet);
        lab.settle();
    }
    assert_eq!(lab.news(), ["abc", "d"]);
    let mut line = Line::new();
    assert_eq!(line.get(b"abc\nd\n").unwrap(), ["abc", "d"], "as the filter by itself");
}

#[test] // K-FL-12 with K-RE-28: a chunk that is longer than the filter's limit is cut, and not refused
fn a_filter_gets_no_more_than_it_has_room_for() {
    let mut lab = Lab::new();
    lab.write("1\n22\n333\n4444\n55555\n");
    let path = lab.path();
    lab.start(move || {
        let line = Line::new().max_length(8).and_then(|line| line.max_buffer(8)).expect("they fit");
        FollowTail::path(&path, line).poll_interval(INTERVAL).seek(SeekFrom::Start(0))
    });
    assert_eq!(lab.news(), ["1", "22", "333", "4444", "55555"]);
    lab.append("half of it is lo");
    lab.append("nger\nshort\n");
    assert_eq!(lab.news().last().map(String::as_str), Some("short"));
}

#[test] // K-RW-20, for this wheel: a filter's panic is a DIE signal, and the file is followed on
fn a_panic_in_the_filter_ends_nothing() {
    for poison in ["panic\n", "poison\n", "panic\nagain\n"] {
        let _watchdog = Watchdog::start();
        let dir = tempfile::tempdir().expect("a directory can be made");
        let path = dir.path().join("log");
        fs::write(&path, "").expect("the file can be written");
        let (mut kernel, log) = (kernel(), Log::default());
        let (followed, logged, dead) = (path.clone(), log.clone(), log.clone());
        Session::new(None::<FollowTail<Fragile>>)
            .state("_start", move |cx| {
                cx.sig("DIE", "die");
                let tail = FollowTail::path(&followed, Fragile(Line::new())).poll_interval(INTERVAL);
                *cx.heap() = Some(tail.on_input("input").start(cx)?);
                Ok(())
            })
            .state("input", move |cx| {
                logged.push(cx.take::<String>(0)?);
                Ok(())
            })
            .state("die", move |cx| {
                cx.sig_handled();
                assert!(cx.take::<Died>(1)?.exception.is_panic());
                dead.push("died");
                Ok(())
            })
            .spawn(&mut kernel)
            .expect("it starts");
        let after_poison = if poison.ends_with("again\n") { 3 } else { 2 };
        for (text, events) in [("fine\n", 1), (poison, after_poison), ("again\n", 3)] {
            if log.len() < events {
                append(&path, text);
            }
            run_until(&mut kernel, || log.len() >= events);
        }
        // As behind an `Err` of the input state, the rest of a chunk comes in the next slice.
        assert_eq!(log.take(), ["fine", "died", "again"]);
    }
}

#[test] // K-RW-21, for this wheel and for `Run`: its input is dropped, and the file is followed on
fn a_filter_that_refuses_without_end_keeps_nobody_waiting() {
    let _watchdog = Watchdog::start();
    let dir = tempfile::tempdir().expect("a directory can be made");
    let path = dir.path().join("log");
    fs::write(&path, "").expect("the file can be written");
    let (mut kernel, log) = (kernel(), Log::default());
    let (followed, logged, refusals) = (path.clone(), log.clone(), log.clone());
    let session = Session::new(None::<FollowTail<Stubborn>>)
        .state("_start", move |cx| {
            let tail = FollowTail::path(&followed, Stubborn(Vec::new(), Habit::Refuses)).poll_interval(INTERVAL);
            *cx.heap() = Some(tail.on_input("input").on_error("error").on_refused("refused").start(cx)?);
            Ok(())
        })
        .state("refused", move |_| refusals.push("refused"))
        .state("error", move |cx| {
            logged.push(cx.take::<Failure>(0)?.text);
            Ok(())
        })
        .state("nothing", |_| ())
        .spawn(&mut kernel)
        .expect("it starts");
    let end = "malformed input: the filter refuses without taking input: 5 bytes are dropped";
    for times in 1..=2 {
        append(&path, "stuck");
        let mut most = 0;
        while log.count(end) < times {
            let before = log.len();
            kernel.post(session, "nothing", ()).expect("it lives");
            kernel.run_one_timeslice().expect("it goes on");
            most = most.max(log.len() - before);
        }
        assert!(most < 10_000, "{most} refusals in one turn");
    }
}

#[test] // K-RW-20, K-RW-21, for this wheel and for `Run`
fn a_filter_that_panics_when_it_is_looked_at_does_not_end_the_kernel() {
    for habit in [Habit::Breaks, Habit::Clings] {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let path = dir.path().join("log");
        fs::write(&path, "").expect("the file can be written");
        let (mut kernel, log) = (kernel(), Log::default());
        let (followed, dead) = (path.clone(), log.clone());
        let session = Session::new(None::<FollowTail<Stubborn>>)
            .state("_start", move |cx| {
                cx.sig("DIE", "die");
                let tail = FollowTail::path(&followed, Stubborn(Vec::new(), habit)).poll_interval(INTERVAL);
                *cx.heap() = Some(tail.on_input("input").on_refused("refused").start(cx)?);
                Ok(())
            })
            .state("refused", |_| ())
            .state("nothing", |_| ())
            .state("die", move |cx| {
                cx.sig_handled();
                dead.push("died");
            })
            .spawn(&mut kernel)
            .expect("it starts");
        for chunk in 1..=3 {
            append(&path, "stuck");
            run_until(&mut kernel, || log.count("died") >= chunk);
            for _ in 0..5 {
                kernel.post(session, "nothing", ()).expect("it lives");
                kernel.run_one_timeslice().expect("it goes on");
            }
            assert!(log.count("died") <= 2 * chunk, "{} panics for {chunk} chunks", log.count("died"));
        }
        // A truncated file has the filter replaced.
        fs::write(&path, "x").expect("the file can be written");
        let before = log.len();
        run_until(&mut kernel, || log.len() > before);
        kernel.stop();
    }
}

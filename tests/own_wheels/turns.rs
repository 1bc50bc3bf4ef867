//! What a source is promised.

use std::cell::Cell;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use lenore::wheel::WheelId;
use lenore::wheel::own::{Delivery, Next, Wanted, Wheel};
use lenore::{Readiness, Session};
use util::in_process::{Log, kernel, run, run_slices, run_until};

use super::{OnDrop, Probe, byte, deliver_bytes, end, is_closed, owner};

#[test] // K-WH-14, K-WH-02, K-WH-03
fn an_event_of_an_own_wheel_runs_in_its_session_with_what_the_source_says() {
    let (probe, mut peer) = Probe::of_bytes();
    peer.write_all(b"a").unwrap();
    let (log, mut kernel) = (Log::default(), kernel());
    owner(&log, probe)
        .state("byte", |cx| {
            assert_eq!(cx.args().len(), 2);
            let id = cx.heap().wheel.as_ref().map(Wheel::id);
            assert_eq!(Some(*cx.arg::<WheelId>(1)?), id);
            assert_eq!(cx.sender(), cx.session());
            assert_eq!(cx.caller_state().map(|state| state.as_str()), Some("Probe"));
            byte(cx)?;
            end(cx)
        })
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "a");
    assert!(is_closed(&mut peer));
}

#[test] // K-WH-07
fn an_own_wheel_keeps_its_session_until_it_is_closed() {
    let (probe, mut peer) = Probe::new(|probe, _, _| match probe.next_byte() {
        Some(_) => Next::Close,
        None => Next::Wait,
    });
    let (log, mut kernel) = (Log::default(), kernel());
    let writer = peer.try_clone().unwrap();
    owner(&log, probe)
        .state("_start", |cx| {
            let probe: Probe = cx.take(0)?;
            cx.heap().wheel = Some(Wheel::start(probe, cx)?);
            Ok(())
        })
        .state("_stop", |cx| cx.heap().log.push("stop"))
        .spawn(&mut kernel)
        .unwrap();
    Session::new(log.clone())
        .state("_start", |cx| cx.delay("write", Duration::from_millis(20), ()))
        .state("write", move |cx| {
            cx.heap().push("write");
            Ok((&writer).write_all(b"x")?)
        })
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "write stop");
    assert!(is_closed(&mut peer));
}

#[test] // K-WH-06
fn an_own_wheel_may_be_dropped_inside_its_own_event() {
    let over = Rc::new(Cell::new(None));
    let (mut probe, mut peer) = Probe::new({
        let over = over.clone();
        move |probe, cx, _| {
            let byte = probe.next_byte().expect("a byte");
            let first = cx.deliver("byte", (char::from(byte), cx.id()));
            // The descriptor stays open as long as the turn.
            let second = probe.next_byte();
            over.set(Some((first, second, cx.deliver("byte", ('z', cx.id())))));
            Next::Again(Readiness::Read)
        }
    });
    let log = Log::default();
    probe._drop = Some(OnDrop(Box::new({
        let log = log.clone();
        move || log.push("dropped")
    })));
    let turns = probe.turns.clone();
    peer.write_all(b"ab").unwrap();
    let mut kernel = kernel();
    owner(&log, probe)
        .state("byte", |cx| {
            byte(cx)?;
            end(cx)
        })
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    assert_eq!(over.get(), Some((Delivery::Over, Some(b'b'), Delivery::Over)));
    assert_eq!((log.text().as_str(), turns.get()), ("a dropped", 1));
    assert!(is_closed(&mut peer));
}

#[test] // K-WH-14
fn a_source_that_answers_close_is_dropped_though_its_wheel_is_kept() {
    let (probe, mut peer) = Probe::new(|_, cx, _| {
        cx.deliver("note", ());
        Next::Close
    });
    peer.write_all(b"a").unwrap();
    let (log, mut kernel) = (Log::default(), kernel());
    owner(&log, probe)
        .state("look", |cx| {
            let wheel = cx.heap().wheel.take().expect("a wheel");
            assert_eq!(wheel.with(|_| ()), None);
            wheel.wake();
        })
        .spawn(&mut kernel)
        .unwrap();
    run_until(&mut kernel, || is_closed(&mut peer));
    kernel.post("owner", "look", ()).unwrap();
    kernel.post("owner", "end", ()).unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "note");
}

#[test] // K-WH-14
fn peek_shows_an_own_wheel_by_its_type_and_what_it_says() {
    let (mut probe, _peer) = Probe::of_bytes();
    probe.text = Box::new(|| "of bytes".into());
    let fd = probe.socket.as_raw_fd();
    let (log, mut kernel) = (Log::default(), kernel());
    owner(&log, probe)
        .state("look", |cx| {
            let id = cx.heap().wheel.as_ref().map(Wheel::id).expect("a wheel");
            let expected = format!("Probe ({id}) of bytes");
            let snapshot = cx.peek();
            assert!(snapshot.sources.iter().any(|source| *source.description == expected), "{snapshot:?}");
            assert_eq!(format!("{:?}", cx.heap().wheel), format!("Some(Probe({id}))"));
        })
        .spawn(&mut kernel)
        .unwrap();
    assert_eq!(kernel.peek().sources.iter().map(|source| source.fd).collect::<Vec<_>>(), [fd]);
    kernel.post("owner", "look", ()).unwrap();
    kernel.post("owner", "end", ()).unwrap();
    run(&mut kernel);
}

#[test] // K-WH-14: what with() changes counts at once
fn a_paused_source_gets_no_turns_and_a_resumed_one_gets_what_has_come() {
    let (probe, mut peer) = Probe::of_bytes();
    let turns = probe.turns.clone();
    let (log, mut kernel) = (Log::default(), kernel());
    owner(&log, probe)
        .state("want", |cx| {
            let wanted = cx.take::<Option<Wanted>>(0)?;
            assert_eq!(cx.heap().wheel.as_ref().expect("a wheel").with(|probe| probe.wanted.set(wanted)), Some(()));
            cx.delay("note", Duration::from_millis(20), ());
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    kernel.post("owner", "want", (None::<Wanted>,)).unwrap();
    run_slices(&mut kernel, 1);
    peer.write_all(b"ab").unwrap();
    run_until(&mut kernel, || log.count("note") == 1);
    assert_eq!(turns.get(), 0);
    kernel.post("owner", "want", (Some(Wanted::READ),)).unwrap();
    run_until(&mut kernel, || log.count("note") == 2);
    assert_eq!(log.text(), "note a b note");
    kernel.post("owner", "end", ()).unwrap();
    run(&mut kernel);
}

#[test] // K-WH-14
fn a_source_gets_turns_for_writing_while_it_wants_them() {
    let (probe, mut peer) = Probe::new(|probe, cx, readiness| {
        if readiness == Readiness::Write {
            (&probe.socket).write_all(b"out").expect("room");
            probe.wanted.set(Some(Wanted::READ));
        }
        deliver_bytes(probe, cx, readiness)
    });
    let (log, mut kernel) = (Log::default(), kernel());
    owner(&log, probe)
        .state("put", |cx| {
            cx.heap().wheel.as_ref().expect("a wheel").with(|probe| probe.wanted.set(Some(Wanted::BOTH)));
        })
        .spawn(&mut kernel)
        .unwrap();
    kernel.post("owner", "put", ()).unwrap();
    peer.set_nonblocking(true).unwrap();
    let mut out = [0; 8];
    run_until(&mut kernel, || peer.read(&mut out).is_ok_and(|count| count == 3));
    peer.write_all(b"a").unwrap();
    run_until(&mut kernel, || log.len() == 1);
    kernel.post("owner", "end", ()).unwrap();
    run(&mut kernel);
    assert!(is_closed(&mut peer), "it has written once");
}

#[test] // K-WH-14
fn a_source_that_waits_for_a_time_gets_its_turn_then_and_not_before() {
    let due = Rc::new(Cell::new(None));
    let (probe, _peer) = Probe::new({
        let due = due.clone();
        move |_, cx, readiness| {
            assert_eq!(readiness, Readiness::Read);
            match due.get() {
                None => {
                    let time = Instant::now() + Duration::from_millis(20);
                    due.set(Some(time));
                    Next::At(time)
                }
                Some(time) => {
                    assert!(Instant::now() >= time);
                    cx.deliver("note", ());
                    Next::Close
                }
            }
        }
    });
    let turns = probe.turns.clone();
    let (log, mut kernel) = (Log::default(), kernel());
    owner(&log, probe)
        .state("wake", |cx| cx.heap().wheel.iter().for_each(Wheel::wake))
        .state("note", |cx| {
            cx.heap().log.push("note");
            end(cx)
        })
        .spawn(&mut kernel)
        .unwrap();
    kernel.post("owner", "wake", ()).unwrap();
    run(&mut kernel);
    assert_eq!((log.text().as_str(), turns.get()), ("note", 2));
}

#[test] // K-EX-15: the rest comes behind the DIE signal
fn a_state_that_fails_is_handled_before_the_next_event_of_the_wheel() {
    let (probe, mut peer) = Probe::of_bytes();
    peer.write_all(b"abc").unwrap();
    let (log, mut kernel) = (Log::default(), kernel());
    owner(&log, probe)
        .state("byte", |cx| {
            assert_ne!(*cx.arg::<char>(0)?, 'b', "on purpose");
            byte(cx)
        })
        .spawn(&mut kernel)
        .unwrap();
    run_until(&mut kernel, || log.len() == 3);
    let entries = log.take();
    assert!(entries[0] == "a" && entries[1].starts_with("died in byte") && entries[2] == "c", "{entries:?}");
    kernel.post("owner", "end", ()).unwrap();
    run(&mut kernel);
}

#[test] // K-WH-14
fn a_state_may_call_the_source_that_delivers_to_it() {
    let (probe, mut peer) = Probe::of_bytes();
    peer.write_all(b"abc").unwrap();
    let (log, mut kernel) = (Log::default(), kernel());
    owner(&log, probe)
        .state("byte", |cx| {
            byte(cx)?;
            let wheel = cx.heap().wheel.as_ref().expect("a wheel");
            let next = wheel.with(|probe| {
                probe.wanted.set(None);
                probe.next_byte()
            });
            cx.heap().log.push(format!("{next:?}"));
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    run_until(&mut kernel, || log.len() == 4);
    assert_eq!(log.text(), "a Some(Some(98)) c Some(None)");
    peer.write_all(b"d").unwrap();
    kernel.post("owner", "note", ()).unwrap();
    run_until(&mut kernel, || log.count("note") == 1);
    assert_eq!(log.len(), 5, "it wants nothing any more");
    kernel.post("owner", "end", ()).unwrap();
    run(&mut kernel);
}

#[test] // K-WH-05
fn an_own_wheel_is_closed_when_its_session_is_stopped() {
    let (probe, mut peer) = Probe::of_bytes();
    let (log, mut kernel) = (Log::default(), kernel());
    owner(&log, probe).spawn(&mut kernel).unwrap();
    run_slices(&mut kernel, 1);
    kernel.stop();
    assert!(is_closed(&mut peer));
    run(&mut kernel);
}

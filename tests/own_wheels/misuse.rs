//! What a badly written source can't do.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use lenore::wheel::own::{Delivery, Next, Source, Turn, Wanted, Wheel};
use lenore::{Context, Error, Readiness, Result, Session};
use util::in_process::{Log, kernel, run, run_slices, run_until};

use super::{OnDrop, Probe, deliver_bytes, end, is_closed, owner};

#[test] // K-WH-14
fn a_source_that_asks_for_turns_without_end_keeps_no_one_from_running() {
    let (greedy, mut poke) = Probe::new(|_, _, _| Next::Again(Readiness::Read));
    let turns = greedy.turns.clone();
    let (modest, mut peer) = Probe::of_bytes();
    let (log, mut kernel) = (Log::default(), kernel());
    Session::new(None)
        .args((greedy,))
        .state("_start", |cx| {
            let greedy: Probe = cx.take(0)?;
            *cx.heap() = Some(Wheel::start(greedy, cx)?);
            Ok(cx.alias_set("greedy")?)
        })
        .state("end", |cx| {
            *cx.heap() = None::<Wheel<Probe>>;
            Ok(cx.alias_remove("greedy")?)
        })
        .spawn(&mut kernel)
        .unwrap();
    owner(&log, modest)
        .state("alarm", |cx| cx.heap().log.push("alarm"))
        .state("set", |cx| cx.delay("alarm", Duration::from_millis(5), ()))
        .spawn(&mut kernel)
        .unwrap();
    poke.write_all(b"x").unwrap();
    run_until(&mut kernel, || turns.get() > 0);
    let before = turns.get();
    run_slices(&mut kernel, 10);
    assert_eq!(turns.get() - before, 10, "one turn a slice");
    peer.write_all(b"ab").unwrap();
    kernel.post("owner", "note", ()).unwrap();
    kernel.post("owner", "set", ()).unwrap();
    run_until(&mut kernel, || log.count("alarm") == 1);
    assert_eq!(log.text(), "a b note alarm");
    for alias in ["owner", "greedy"] {
        kernel.post(alias, "end", ()).unwrap();
    }
    run(&mut kernel);
}

#[test] // K-WH-14
fn what_a_source_leaves_undrained_waits_for_the_next_news() {
    let (probe, mut peer) = Probe::new(|probe, cx, _| {
        let byte = probe.next_byte().expect("a byte");
        cx.deliver("byte", (char::from(byte), cx.id()));
        Next::Wait
    });
    let (log, mut kernel) = (Log::default(), kernel());
    peer.write_all(b"abc").unwrap();
    owner(&log, probe).state("more", |cx| cx.delay("note", Duration::from_millis(20), ())).spawn(&mut kernel).unwrap();
    run_until(&mut kernel, || !log.is_empty());
    kernel.post("owner", "more", ()).unwrap();
    run_until(&mut kernel, || log.count("note") == 1);
    assert_eq!(log.text(), "a note");
    peer.write_all(b"d").unwrap();
    run_until(&mut kernel, || log.len() == 3);
    assert_eq!(log.text(), "a note b");
    kernel.post("owner", "end", ()).unwrap();
    run(&mut kernel);
}

#[test] // K-WH-14
fn a_panic_in_a_turn_closes_the_wheel_and_is_its_sessions_exception() {
    let (probe, mut peer) = Probe::new(|probe, cx, readiness| {
        let next = deliver_bytes(probe, cx, readiness);
        assert_eq!(next, Next::Close, "on purpose");
        next
    });
    peer.write_all(b"a").unwrap();
    let (log, mut kernel) = (Log::default(), kernel());
    owner(&log, probe).spawn(&mut kernel).unwrap();
    run_until(&mut kernel, || log.len() == 2);
    let [first, second] = &log.take()[..] else { panic!("two entries") };
    assert_eq!(first, "a");
    assert!(second.starts_with("died in Probe: ") && second.contains("on purpose"), "{second}");
    assert!(is_closed(&mut peer));
    kernel.post("owner", "end", ()).unwrap();
    run(&mut kernel);
}

#[test] // K-EX-04: as of any other exception
fn a_panic_in_a_turn_that_no_session_handles_ends_the_run() {
    let (probe, mut peer) = Probe::new(|_, _, _| panic!("on purpose"));
    peer.write_all(b"a").unwrap();
    let (log, mut kernel) = (Log::default(), kernel());
    owner(&log, probe).state("died", |_| ()).spawn(&mut kernel).unwrap();
    let error = kernel.run().unwrap_err();
    assert!(matches!(&error, Error::Died(died) if died.exception.to_string().contains("on purpose")), "{error}");
}

#[test] // K-WH-14
fn a_panic_after_the_wheel_was_dropped_ends_nothing() {
    let (probe, mut peer) = Probe::new(|probe, cx, readiness| {
        deliver_bytes(probe, cx, readiness);
        panic!("too late");
    });
    peer.write_all(b"a").unwrap();
    let (log, mut kernel) = (Log::default(), kernel());
    owner(&log, probe).state("byte", end).spawn(&mut kernel).unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "", "the log has it, as nobody has the wheel any more");
    assert!(is_closed(&mut peer));
}

#[test] // K-WH-14
fn a_panic_while_a_source_is_dropped_or_described_ends_nothing() {
    let (mut probe, mut peer) = Probe::of_bytes();
    probe._drop = Some(OnDrop(Box::new(|| panic!("in the drop"))));
    probe.text = Box::new(|| panic!("no words"));
    peer.write_all(b"a").unwrap();
    let (log, mut kernel) = (Log::default(), kernel());
    owner(&log, probe).spawn(&mut kernel).unwrap();
    run_until(&mut kernel, || log.len() == 1);
    let text = kernel.peek().sources.iter().map(|source| source.description.to_string()).collect::<String>();
    assert!(text.starts_with("Probe (wheel ") && text.contains("no words"), "{text}");
    kernel.post("owner", "end", ()).unwrap();
    run(&mut kernel);
    assert!(is_closed(&mut peer));
}

#[test] // K-WH-14
fn a_call_that_panics_is_its_states_exception_and_what_it_has_changed_counts() {
    let (probe, mut peer) = Probe::of_bytes();
    probe.wanted.set(None);
    let (log, mut kernel) = (Log::default(), kernel());
    owner(&log, probe)
        .state("resume", |cx| {
            let wheel = cx.heap().wheel.as_ref().expect("a wheel");
            wheel.with(|probe| {
                probe.wanted.set(Some(Wanted::READ));
                panic!("on purpose");
            });
        })
        .spawn(&mut kernel)
        .unwrap();
    peer.write_all(b"a").unwrap();
    kernel.post("owner", "resume", ()).unwrap();
    run_until(&mut kernel, || log.len() == 2);
    assert!(log.text().starts_with("a died in resume: "), "{}", log.text());
    kernel.post("owner", "end", ()).unwrap();
    run(&mut kernel);
}

#[test] // K-WH-14: a time that lies behind is a turn in the next slice, and one too far to be counted is none
fn times_that_make_no_sense_do_no_harm() {
    let past = Instant::now();
    let (probe, _peer) = Probe::new(move |probe, _, _| match probe.turns.get() {
        1 => Next::At(past),
        2 => Next::At(past + Duration::from_secs(u32::MAX.into())),
        _ => Next::Close,
    });
    let turns = probe.turns.clone();
    let (log, mut kernel) = (Log::default(), kernel());
    owner(&log, probe)
        .state("wake", |cx| {
            cx.heap().wheel.iter().for_each(Wheel::wake);
            cx.delay("note", Duration::from_millis(20), ());
        })
        .spawn(&mut kernel)
        .unwrap();
    kernel.post("owner", "wake", ()).unwrap();
    run_until(&mut kernel, || log.count("note") == 1);
    assert_eq!(turns.get(), 2);
    kernel.post("owner", "end", ()).unwrap();
    run(&mut kernel);
}

#[test] // K-WH-14
fn a_source_that_delivers_while_it_is_borrowed_has_an_exception_when_its_state_calls_it() {
    let cell = Rc::new(RefCell::new(0));
    let (probe, mut peer) = Probe::new({
        let cell = cell.clone();
        move |_, cx, _| {
            let borrowed = cell.borrow_mut();
            cx.deliver("note", ());
            drop(borrowed);
            Next::Wait
        }
    });
    peer.write_all(b"a").unwrap();
    let (log, mut kernel) = (Log::default(), kernel());
    owner(&log, probe).state("note", move |_| _ = cell.borrow_mut()).spawn(&mut kernel).unwrap();
    run_until(&mut kernel, || log.len() == 1);
    assert!(log.text().starts_with("died in note: "), "{}", log.text());
    kernel.post("owner", "end", ()).unwrap();
    run(&mut kernel);
}

/// Runs one slice from inside of a state.
fn run_one_slice<H: 'static>(cx: &mut Context<'_, H>) -> Result {
    cx.run_one_timeslice()?;
    Ok(())
}

#[test] // K-WH-14
fn a_turn_inside_of_a_turn_of_the_same_source_may_close_it() {
    let deliveries = Rc::new(RefCell::new(Vec::new()));
    let (probe, mut peer) = Probe::new({
        let deliveries = deliveries.clone();
        move |probe, cx, _| {
            if probe.turns.get() == 2 {
                return Next::Close;
            }
            probe.next_byte();
            let delivery = cx.deliver("nest", ());
            deliveries.borrow_mut().push(delivery);
            Next::Again(Readiness::Read)
        }
    });
    let turns = probe.turns.clone();
    peer.write_all(b"a").unwrap();
    let (log, mut kernel) = (Log::default(), kernel());
    owner(&log, probe)
        .state("nest", |cx| {
            cx.heap().wheel.iter().for_each(Wheel::wake);
            run_one_slice(cx)
        })
        .spawn(&mut kernel)
        .unwrap();
    run_until(&mut kernel, || !deliveries.borrow().is_empty());
    assert_eq!((deliveries.take(), turns.get()), (vec![Delivery::Over], 2));
    assert!(is_closed(&mut peer));
    kernel.post("owner", "end", ()).unwrap();
    run(&mut kernel);
}

#[test] // K-WH-14
fn an_own_wheel_that_can_not_be_started_is_an_error_and_its_source_is_dropped() {
    let (log, mut kernel) = (Log::default(), kernel());
    let (probe, mut peer) = Probe::of_bytes();
    let stopped = Session::new(Some(probe)).state("_start", |cx| {
        cx.stop();
        let probe = cx.heap().take().unwrap();
        assert!(matches!(Wheel::start(probe, cx).map(drop), Err(Error::NoActiveSession)));
    });
    stopped.spawn(&mut kernel).unwrap();
    assert!(is_closed(&mut peer));

    /// Has a descriptor with others.
    struct Sharing(Rc<UnixStream>);

    impl AsFd for Sharing {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }

    impl Source for Sharing {
        fn turn(&self, cx: &mut Turn<'_>, _: Readiness) -> Next {
            cx.deliver("ready", (cx.id(),));
            Next::Close
        }
    }

    let (socket, mut peer) = UnixStream::pair().unwrap();
    Session::new(None)
        .state("_start", move |cx| {
            let socket = Rc::new(socket.try_clone()?);
            let first = Wheel::start(Sharing(socket.clone()), cx)?;
            let second = Wheel::start(Sharing(socket.clone()), cx).unwrap_err();
            assert!(matches!(second, Error::Os { call: "epoll_ctl", .. }), "{second}");
            assert_eq!(Rc::strong_count(&socket), 2, "the source that was refused is gone");
            *cx.heap() = Some(first);
            Ok(())
        })
        .state("ready", {
            let log = log.clone();
            move |cx| {
                log.push("ready");
                *cx.heap() = None;
            }
        })
        .spawn(&mut kernel)
        .unwrap();
    peer.write_all(b"a").unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "ready", "the first is still watched");
}

#[test] // K-WH-14
fn a_source_that_changes_its_descriptor_is_watched_by_the_first() {
    /// Says one descriptor when it is asked for the first time, and another from then on.
    struct Fickle([UnixStream; 2], Cell<bool>);

    impl AsFd for Fickle {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0[usize::from(self.1.replace(true))].as_fd()
        }
    }

    impl Source for Fickle {
        fn turn(&self, cx: &mut Turn<'_>, _: Readiness) -> Next {
            cx.deliver("ready", ());
            Next::Wait
        }
    }

    let (one, first) = UnixStream::pair().unwrap();
    let (two, mut second) = UnixStream::pair().unwrap();
    let (log, mut kernel) = (Log::default(), kernel());
    Session::new((log.clone(), None))
        .state("_start", move |cx| {
            let pair = [one.try_clone()?, two.try_clone()?];
            cx.heap().1 = Some(Wheel::start(Fickle(pair, Cell::new(false)), cx)?);
            cx.delay("write", Duration::from_millis(20), ());
            Ok(())
        })
        .state("write", move |cx| {
            cx.heap().0.push("write");
            Ok((&first).write_all(b"a")?)
        })
        .state("ready", |cx| {
            cx.heap().0.push("ready");
            cx.heap().1 = None;
        })
        .spawn(&mut kernel)
        .unwrap();
    second.write_all(b"b").unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "write ready");
}

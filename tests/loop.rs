//! The loop: what a slice does, how `run` ends, `stop` (K-LP).

use std::cell::Cell;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Instant;

use lenore::{Context, Error, Exception, Handle, Kernel, Session, SessionId};
use util::diary::{Diary, Log, lines, millis, new_kernel, note, past, plain, who, witness};

/// A handle that can always be read from, and the end that keeps it so.
fn readable() -> (Handle, UnixStream) {
    let (ours, mut theirs) = UnixStream::pair().expect("a socket pair");
    theirs.write_all(b"x").expect("room for an octet");
    (Handle::new(ours), theirs)
}

/// A session that logs `io` each time its handle is readable, and stops watching after `turns`.
fn reader(log: &Log, turns: u32, act: impl Fn(&mut Context<'_, Diary>) + 'static) -> (Session<Diary>, UnixStream) {
    let (handle, peer) = readable();
    let left = Cell::new(turns);
    let session = plain("r", log)
        .state("_start", move |cx| cx.select_read(&handle, "io", ()).map_err(Exception::from))
        .state("io", move |cx| {
            cx.heap().say("io");
            act(cx);
            left.set(left.get() - 1);
            if left.get() == 0 {
                let handle = cx.arg::<Handle>(0)?.clone();
                cx.select_read_clear(&handle);
            }
            Ok(())
        });
    (session, peer)
}

/// A session that yields name1, name2, ... one after the other.
fn chain(name: &'static str, log: &Log, length: u32) -> Session<Diary> {
    plain(name, log).state("_start", |cx| cx.yield_("link", (1_u32,))).state("link", move |cx| {
        let number = *cx.arg::<u32>(0)?;
        cx.heap().say(number);
        if number < length {
            cx.yield_("link", (number + 1,));
        }
        Ok(())
    })
}

#[test] // K-LP-01, K-LP-04, K-CV-05
fn what_a_queued_event_posts_waits_for_the_next_slice_and_its_poll() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let (reader, _peer) = reader(&log, 3, |_| ());
    reader.spawn(&mut kernel)?;
    chain("a", &log, 3).spawn(&mut kernel)?;
    chain("b", &log, 2).spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["r io", "a 1", "b 1", "r io", "a 2", "b 2", "r io", "a 3"]);
    Ok(())
}

#[test] // K-LP-03, K-LP-05
fn what_an_io_handler_posts_is_dispatched_in_the_same_slice() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let (reader, _peer) = reader(&log, 1, |cx| cx.yield_("posted", ()));
    reader.state("posted", note).spawn(&mut kernel)?;
    assert!(kernel.run_one_timeslice()?);
    assert_eq!(lines(&log), ["r io", "r posted"]);
    Ok(())
}

#[test] // K-LP-06
fn a_session_that_yields_for_ever_starves_neither_alarms_nor_io() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let ticked = Rc::new(Cell::new(false));
    let tell = Rc::clone(&ticked);
    plain("spinner", &log)
        .state("_start", |cx| cx.yield_("spin", ()))
        .state("spin", move |cx| {
            if !ticked.get() {
                cx.yield_("spin", ());
            }
        })
        .spawn(&mut kernel)?;
    plain("timer", &log)
        .state("_start", |cx| cx.delay("tick", millis(2), ()))
        .state("tick", move |cx| {
            tell.set(true);
            note(cx);
        })
        .spawn(&mut kernel)?;
    let (reader, _peer) = reader(&log, 1, |_| ());
    reader.spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["r io", "timer tick"]);
    Ok(())
}

#[test] // K-LP-06: a past alarm is not a way round it
fn an_alarm_that_sets_itself_in_the_past_for_ever_starves_nobody() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let seen = Rc::new(Cell::new(false));
    let tell = Rc::clone(&seen);
    plain("spinner", &log)
        .state("_start", |cx| cx.alarm("spin", past(5), ()))
        .state("spin", move |cx| {
            if !seen.get() {
                cx.alarm("spin", past(5), ());
            }
        })
        .spawn(&mut kernel)?;
    let (reader, _peer) = reader(&log, 1, move |_| tell.set(true));
    reader.spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["r io"]);
    Ok(())
}

#[test] // K-LP-07
fn a_timer_that_becomes_due_during_the_queue_phase_waits_for_the_next_slice() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    plain("s", &log)
        .state("_start", |cx| {
            cx.delay("tick", millis(20), ());
            cx.yield_("slow", (Instant::now() + millis(30),));
            cx.yield_("quick", ());
        })
        .state("slow", |cx| {
            // Work, not synchronisation: the point is a phase that outlasts the delay.
            let until = *cx.arg::<Instant>(0)?;
            while Instant::now() < until {}
            cx.alarm("earlier", past(9), ());
            note(cx);
            Ok(())
        })
        .state("quick", note)
        .state("tick", note)
        .state("earlier", note)
        .spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["s slow", "s quick", "s earlier", "s tick"]);
    Ok(())
}

#[test] // K-LP-09, K-LP-10, K-GC-12
fn idle_ends_a_program_that_can_not_go_on() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    witness("s", &log)
        .state("_start", |cx| {
            cx.sig("IDLE", "idle");
            cx.alias_set("keeper")?;
            Ok(())
        })
        .state("idle", note)
        .spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["s idle", "s _stop"]);
    Ok(())
}

#[test] // K-LP-11
fn run_without_sessions_returns_and_may_be_repeated() -> Result<(), Error> {
    let mut kernel = new_kernel();
    kernel.run()?;
    kernel.run()
}

#[test] // K-LP-13, K-SE-07
fn run_may_be_called_again_and_ids_go_on_counting() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let first = witness("a", &log).spawn(&mut kernel)?;
    kernel.run()?;
    let second = witness("b", &log).spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["a _stop", "b _stop"]);
    assert_eq!((first.number(), second.number()), (1, 2));
    Ok(())
}

#[test] // K-LP-14, K-EV-40, K-EV-41
fn after_run_the_active_session_is_the_kernel() -> Result<(), Error> {
    let mut kernel = new_kernel();
    Session::new(())
        .state("_start", |cx| {
            assert_eq!(cx.session().number(), 1);
            assert!(cx.active_event().is_some_and(|event| event == "_start"));
        })
        .spawn(&mut kernel)?;
    for _ in 0..2 {
        assert_eq!(kernel.session(), SessionId::KERNEL);
        assert_eq!(kernel.active_event(), None);
        kernel.run()?;
    }
    Ok(())
}

#[test] // K-LP-15
fn the_last_slice_dispatches_idle_and_the_next_call_says_so() -> Result<(), Error> {
    let mut kernel = new_kernel();
    assert!(kernel.run_one_timeslice()?, "IDLE was dispatched to the kernel alone");
    assert!(!kernel.run_one_timeslice()?);
    assert!(!kernel.run_one_timeslice()?);
    Session::new(()).state("_start", |_| ()).spawn(&mut kernel)?;
    assert!(kernel.run_one_timeslice()?, "a new session revives the kernel");
    assert!(kernel.run_one_timeslice()?);
    assert!(!kernel.run_one_timeslice()?);
    Ok(())
}

#[test] // K-LP-16
fn a_slice_waits_for_the_first_alarm() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    plain("s", &log).state("_start", |cx| cx.delay("tick", millis(3), ())).state("tick", note).spawn(&mut kernel)?;
    assert!(kernel.run_one_timeslice()?);
    assert!(lines(&log).is_empty(), "the first slice had the start-up event to dispatch");
    assert!(kernel.run_one_timeslice()?);
    assert_eq!(lines(&log), ["s tick"]);
    Ok(())
}

/// A session that handles `IDLE` and `ZOMBIE` and never has anything to do.
fn undead(log: &Log) -> Session<Diary> {
    witness("s", log)
        .state("_start", |cx| {
            cx.sig("IDLE", "idle");
            cx.sig("ZOMBIE", "zombie");
            cx.alias_set("keeper")?;
            Ok(())
        })
        .state("idle", |cx| {
            note(cx);
            cx.sig_handled();
        })
        .state("zombie", |cx| {
            note(cx);
            cx.sig_handled();
        })
}

#[test] // K-LP-19 as K-RE-09 wants it; K-GC-13
fn a_handled_idle_is_followed_by_zombie_however_the_loop_is_driven() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    undead(&log).spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["s idle", "s zombie", "s _stop"]);
    undead(&log).spawn(&mut kernel)?;
    while kernel.run_one_timeslice()? {}
    assert_eq!(lines(&log), ["s idle", "s zombie", "s _stop"]);
    Ok(())
}

/// Runs a slice inside a state.
fn slice(cx: &mut Context<'_, Diary>) -> Result<bool, Error> {
    cx.run_one_timeslice()
}

#[test] // K-LP-20
fn a_state_may_run_a_slice_of_its_own() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    plain("s", &log)
        .state("_start", |cx| {
            cx.yield_("outer", ());
            cx.yield_("queued", ());
        })
        .state("outer", |cx| {
            cx.heap().say("outer begins");
            cx.yield_("inner", ());
            slice(cx)?;
            assert_eq!(cx.state_name(), "outer");
            assert!(cx.active_event().is_some_and(|event| event == "outer"));
            cx.heap().say("outer ends");
            Ok(())
        })
        .state("queued", note)
        .state("inner", note)
        .spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["s outer begins", "s queued", "s inner", "s outer ends"]);
    Ok(())
}

#[test] // K-LP-20: the poller has told the outer slice of it, and tells nobody again
fn a_nested_slice_gives_turns_to_what_was_ready_with_its_own_source() -> Result<(), Error> {
    for sessions in [2, 3] {
        let mut kernel = new_kernel();
        let came = Rc::new(Cell::new(0));
        let mut peers = Vec::new();
        for _ in 0..sessions {
            let (handle, peer) = readable();
            peers.push(peer);
            let came = came.clone();
            Session::new(())
                .state("_start", move |cx| Ok(cx.select_read(&handle, "readable", ())?))
                .state("readable", move |cx| -> lenore::Result {
                    let handle: Handle = cx.take(0)?;
                    cx.select_read_clear(&handle);
                    came.set(came.get() + 1);
                    let end = Instant::now() + millis(10_000);
                    // After the end, so that a test that fails does not hang.
                    cx.delay("over", millis(10_000), ());
                    cx.run_while(|| came.get() < sessions && Instant::now() < end)?;
                    assert_eq!(came.get(), sessions, "they were ready all at once");
                    cx.alarm_remove_all();
                    Ok(())
                })
                .state("over", |_| ())
                .spawn(&mut kernel)?;
        }
        kernel.run()?;
    }
    Ok(())
}

#[test] // K-LP-21 as K-RE-01 wants it
fn a_nested_slice_does_not_stop_the_session_that_runs_it() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    witness("s", &log)
        .state("_start", |cx| {
            cx.sig("IDLE", "idle");
            cx.yield_("outer", ());
        })
        .state("idle", note)
        .state("outer", |cx| {
            slice(cx)?;
            cx.heap().say("outer goes on");
            Ok(())
        })
        .spawn(&mut kernel)?;
    // Keeps the program from being idle: it is the sweep after the outer phase that must stop the session.
    witness("t", &log).state("_start", |cx| cx.delay("tick", millis(2), ())).state("tick", note).spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["s outer goes on", "s _stop", "t tick", "t _stop"]);
    Ok(())
}

#[test] // K-LP-07 with K-LP-20: alarms set on both sides of a nested slice keep their order
fn alarms_set_around_a_nested_slice_keep_their_order() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    plain("s", &log)
        .state("_start", |cx| {
            cx.yield_("outer", ());
            cx.alarm_add("p3", past(3), ());
        })
        .state("outer", |cx| {
            cx.alarm_add("p2", past(2), ());
            slice(cx)?;
            cx.heap().say("back");
            cx.alarm_add("p9", past(9), ());
            cx.alarm_add("p8", past(8), ());
            Ok(())
        })
        .state("p2", note)
        .state("p3", note)
        .state("p8", note)
        .state("p9", note)
        .spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["s p3", "s p2", "s back", "s p9", "s p8"]);
    Ok(())
}

#[test] // K-LP-16 with K-LP-20: the fork has to wait for the state, and its wait is no reason to spin
fn a_nested_slice_waits_although_a_fork_does_too() -> Result<(), Error> {
    let mut kernel = new_kernel();
    kernel.set_fork_hook(|_| Err(std::io::Error::from_raw_os_error(11)));
    Session::new((false, 0))
        .state("_start", |cx| cx.yield_("nest", ()))
        .state("nest", |cx| {
            cx.fork("forked", "never", ());
            cx.delay("tick", millis(50), ());
            while !cx.heap().0 {
                cx.run_one_timeslice()?;
                cx.heap().1 += 1;
            }
            assert!(cx.heap().1 < 20, "{} slices", cx.heap().1);
            Ok(())
        })
        .state("tick", |cx| cx.heap().0 = true)
        .state("forked", |cx| {
            assert!(cx.heap().0 && cx.take::<Result<i32, Error>>(0).is_ok_and(|fork| fork.is_err()));
        })
        .spawn(&mut kernel)?;
    kernel.run()
}

#[test] // K-LP-22
fn run_inside_a_state_runs_everything_to_its_end() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    witness("s", &log)
        .state("_start", |cx| cx.yield_("nest", ()))
        .state("nest", |cx| {
            cx.run()?;
            cx.heap().say("back");
            Ok(())
        })
        .spawn(&mut kernel)?;
    witness("t", &log).state("_start", |cx| cx.delay("tick", millis(2), ())).state("tick", note).spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["t tick", "t _stop", "s _stop", "s back"]);
    Ok(())
}

/// P(C1(G), C2) and Q; all of them write down what happens to them. C2 halts.
fn family(log: &Log, kernel: &mut Kernel, halt: impl Fn(&mut Context<'_, Diary>) -> lenore::Result + 'static) {
    let (for_family, for_c1) = (log.clone(), log.clone());
    let halt = Cell::new(Some(halt));
    witness("P", log)
        .state("_start", move |cx| {
            let for_c1 = for_c1.clone();
            witness("C1", &for_family)
                .state("_start", move |cx| witness("G", &for_c1).spawn(cx).map(drop).map_err(Exception::from))
                .spawn(cx)?;
            let halt = halt.take().expect("one start");
            witness("C2", &for_family).state("_start", |cx| cx.yield_("halt", ())).state("halt", halt).spawn(cx)?;
            Ok(())
        })
        .spawn(kernel)
        .expect("it has a _start");
    witness("Q", log).spawn(kernel).expect("it has a _start");
    let born = ["C1 _child create 3", "P _child create 2", "P _child create 4"];
    assert_eq!(lines(log), born);
}

const FAMILY_STOPS: [&str; 8] =
    ["G _stop", "C1 _child lose 3", "C2 _stop", "P _child lose 4", "C1 _stop", "P _child lose 2", "Q _stop", "P _stop"];

#[test] // K-LP-25, K-LP-27
fn stop_stops_children_before_parents_and_the_caller_goes_on() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    family(&log, &mut kernel, |cx| {
        cx.stop();
        cx.heap().say("goes on");
        Ok(())
    });
    kernel.run()?;
    assert_eq!(lines(&log), [&FAMILY_STOPS[..], &["C2 goes on"]].concat());
    assert!(kernel.peek().sessions.is_empty());
    Ok(())
}

#[test] // K-LP-25, from outside of any state
fn stop_from_outside_stops_everybody() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    family(&log, &mut kernel, |_| Ok(()));
    kernel.stop();
    assert_eq!(lines(&log), FAMILY_STOPS);
    assert_eq!(kernel.event_count(), 0);
    Ok(())
}

#[test] // K-LP-26
fn a_session_created_after_stop_is_the_kernels_and_keeps_run_going() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let for_late = log.clone();
    family(&log, &mut kernel, move |cx| {
        cx.stop();
        assert_eq!(cx.session(), SessionId::KERNEL);
        assert_eq!(cx.active_event(), None);
        witness("late", &for_late)
            .state("_start", |cx| {
                let sender = who(cx.sender());
                cx.heap().say(format_args!("starts, sender {sender}"));
                cx.delay("tick", millis(1), ());
            })
            .state("tick", note)
            .spawn(cx)?;
        Ok(())
    });
    kernel.run()?;
    let after = ["late starts, sender kernel", "late tick", "late _stop"];
    assert_eq!(lines(&log), [&FAMILY_STOPS[..], &after[..]].concat());
    Ok(())
}

#[test] // K-LP-28: also once that session is gone itself
fn during_stop_the_sender_of_stop_is_who_called_it() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let note_sender = |cx: &mut Context<'_, Diary>| {
        let sender = who(cx.sender());
        cx.heap().say(format_args!("_stop from {sender}"));
    };
    let for_child = log.clone();
    witness("P", &log)
        .state("_stop", note_sender)
        .state("_start", move |cx| {
            let child = witness("C", &for_child).state("_stop", note_sender);
            child.state("_start", |cx| cx.yield_("halt", ())).state("halt", |cx| cx.stop()).spawn(cx)?;
            Ok(())
        })
        .spawn(&mut kernel)?;
    plain("Q", &log).state("_stop", note_sender).spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(
        lines(&log),
        ["P _child create 2", "C _stop from 2", "P _child lose 2", "Q _stop from 2", "P _stop from 2"]
    );
    Ok(())
}

#[test] // K-LP-29
fn an_exception_after_stop_is_thrown_from_run() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    family(&log, &mut kernel, |cx| {
        cx.stop();
        Err(Exception::new("too late"))
    });
    let error = kernel.run().expect_err("the exception");
    assert_eq!(error.to_string(), "session 4, state halt: too late");
    assert_eq!(lines(&log), FAMILY_STOPS);
    Ok(())
}

#[test] // K-LP-34
fn every_kernel_has_an_id_of_its_own() {
    assert_ne!(new_kernel().kernel_id(), new_kernel().kernel_id());
}

//! Events and synchronous calls (K-EV, K-CL).

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use lenore::{AlarmId, Context, Error, EventKind, Exception, Name, Session, SessionId};
use util::diary::{Diary, Log, lines, millis, new_kernel, note, note_origin, past, plain, who, witness};

#[path = "events/default.rs"]
mod default;
#[path = "events/replies.rs"]
mod replies;

#[test] // K-EV-01, K-EV-08
fn posted_events_are_first_in_first_out_across_sessions() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    for name in ["1", "2", "3"] {
        witness(name, &log)
            .state("_start", |cx| {
                cx.yield_("a", ());
                cx.yield_("b", ());
            })
            .state("a", |cx| {
                note(cx);
                cx.yield_("c", ());
            })
            .state("b", note)
            .state("c", note)
            .spawn(&mut kernel)?;
    }
    kernel.run()?;
    let events = ["1 a", "1 b", "2 a", "2 b", "3 a", "3 b", "1 c", "2 c", "3 c"];
    assert_eq!(lines(&log), [&events[..], &["3 _stop", "2 _stop", "1 _stop"]].concat());
    Ok(())
}

#[test] // K-EV-02
fn event_ids_come_from_one_increasing_sequence() -> Result<(), Error> {
    let mut kernel = new_kernel();
    Session::new(())
        .state("_start", |cx| {
            cx.yield_("first", ());
            cx.delay("third", Duration::from_secs(60), ());
            cx.yield_("second", ());
            let ids: Vec<u64> = cx.peek().events.iter().map(|event| event.id).collect();
            assert_eq!(ids, [1, 3, 2], "in the order of dispatch");
            cx.alarm_remove_all();
        })
        .spawn(&mut kernel)?;
    kernel.run()
}

#[test] // K-EV-03: however many, and whatever the clock's resolution; K-EV-07: none of them comes a slice later
fn a_burst_of_posts_keeps_its_order() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    plain("s", &log)
        .state("_start", |cx| (0..5000_u32).for_each(|number| cx.yield_("count", (number,))))
        .state("count", |cx| {
            let number = *cx.arg::<u32>(0)?;
            cx.heap().say(number);
            Ok(())
        })
        .spawn(&mut kernel)?;
    assert!(kernel.run_one_timeslice()?);
    let expected: Vec<String> = (0..5000).map(|number| format!("s {number}")).collect();
    assert_eq!(lines(&log), expected);
    Ok(())
}

#[test] // K-EV-05, K-TM-05
fn past_alarms_go_before_posted_events_the_earliest_first() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    plain("s", &log)
        .state("_start", |cx| {
            cx.yield_("p1", ());
            cx.alarm("epoch + 1", SystemTime::UNIX_EPOCH + Duration::from_secs(1), ());
            cx.alarm("now - 1", past(1), ());
            cx.alarm("epoch + 0.5", SystemTime::UNIX_EPOCH + millis(500), ());
            cx.yield_("p2", ());
        })
        .state("_default", |cx| {
            let name = *cx.arg::<Name>(0)?;
            if name != "_stop" {
                cx.heap().say(name);
            }
            Ok(())
        })
        .spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["s epoch + 0.5", "s epoch + 1", "s now - 1", "s p1", "s p2"]);
    Ok(())
}

#[test] // K-EV-05: p1 counts as posted when the clock was last read, before the alarm was due
fn event_that_was_posted_without_an_alarm_goes_before_one_for_a_moment_ago() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    plain("s", &log)
        .state("_start", |cx| cx.yield_("begin", ()))
        .state("begin", |cx| {
            std::thread::sleep(millis(20)); // slow work
            cx.yield_("p1", ());
            cx.alarm("ago", SystemTime::now() - millis(10), ());
            cx.yield_("p2", ());
        })
        .state("p1", note)
        .state("ago", note)
        .state("p2", note)
        .spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["s p1", "s ago", "s p2"]);
    Ok(())
}

#[test] // K-EV-06, K-TM-05
fn a_zero_delay_stands_between_the_posts_around_it() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    plain("s", &log)
        .state("_start", |cx| {
            cx.yield_("before", ());
            cx.delay("zero", Duration::ZERO, ());
            cx.yield_("after", ());
            cx.delay("zero too", Duration::ZERO, ());
        })
        .state("before", note)
        .state("zero", note)
        .state("after", note)
        .state("zero too", note)
        .spawn(&mut kernel)?;
    assert!(kernel.run_one_timeslice()?);
    assert_eq!(lines(&log), ["s before", "s zero", "s after", "s zero too"]);
    Ok(())
}

#[test] // K-EV-04
fn a_burst_of_posts_moves_no_alarm() -> Result<(), Error> {
    let mut kernel = new_kernel();
    Session::new(())
        .state("_start", |cx| {
            let burst = |cx: &mut Context<'_, ()>| (0..1000).for_each(|_| cx.yield_("e", ()));
            // Longer ago than any post can be stamped late: the coarse clock steps by milliseconds.
            let when = SystemTime::now() - millis(100);
            burst(cx);
            cx.alarm_add("alarm", when, ());
            burst(cx);
            cx.alarm_add("alarm", when, ());
            assert_eq!(cx.next_event_time(), Some(when), "they go ahead of all posts");
            let due: Vec<SystemTime> = cx.alarm_remove_all().iter().map(|alarm| alarm.due).collect();
            assert_eq!(due, [when; 2]);
        })
        .spawn(&mut kernel)?;
    kernel.run()
}

#[test] // K-EV-10, K-EV-22, K-CL-03
fn a_stopped_session_can_not_be_reached() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let dead = plain("dead", &log).spawn(&mut kernel)?;
    kernel.run()?;
    // A new session in the same place is somebody else.
    let alive = plain("alive", &log).state("e", note).spawn(&mut kernel)?;
    assert_ne!(dead, alive);
    let gone = |result: Result<(), Error>| assert!(matches!(result, Err(Error::NoSuchSession(_))), "{result:?}");
    gone(kernel.post(dead, "e", ()));
    gone(kernel.call(dead, "e", ()).map(drop));
    gone(kernel.signal(dead, "foo", ()));
    gone(kernel.signal_now(dead, "foo", ()));
    gone(kernel.post("no such alias", "e", ()));
    kernel.run()?;
    assert!(lines(&log).is_empty());
    assert_eq!(dead.number(), 1, "K-SE-16: the id stays readable");
    Ok(())
}

#[test] // K-CV-11: both kernels have a session 1 in the same place, with an alarm of the same number
fn ids_of_another_kernel_are_refused() -> Result<(), Error> {
    let (log, mut kernel, mut other) = (Log::default(), new_kernel(), new_kernel());
    let alarm: Rc<Cell<Option<AlarmId>>> = Rc::default();
    let tell = Rc::clone(&alarm);
    let set_alarm = move |cx: &mut Context<'_, Diary>| {
        tell.set(Some(cx.delay_set("tick", millis(1), ())));
        cx.sig("foo", "foo");
    };
    let [here, there] = [&mut kernel, &mut other].map(|kernel| {
        plain("s", &log)
            .state("_start", set_alarm.clone())
            .state("e", note)
            .state("foo", note)
            .state("tick", note)
            .state("remove", {
                let alarm = Rc::clone(&alarm);
                move |cx| {
                    // The last one that was set is the other kernel's.
                    let alarm = alarm.get().expect("both have set one");
                    assert!(matches!(cx.alarm_remove(alarm), Err(Error::NoSuchAlarm(id)) if id == alarm));
                    assert!(matches!(cx.delay_adjust(alarm, millis(5000)), Err(Error::NoSuchAlarm(_))));
                }
            })
            .spawn(kernel)
    });
    let (here, there) = (here?, there?);
    assert_ne!(here, there);
    assert_eq!((here.to_string(), there.to_string()), ("session 1".into(), "session 1".into()));
    let gone = |result: Result<(), Error>| assert!(matches!(result, Err(Error::NoSuchSession(_))), "{result:?}");
    gone(kernel.post(there, "e", ()));
    gone(kernel.call(there, "e", ()).map(drop));
    gone(kernel.signal(there, "foo", ()));
    gone(kernel.signal_now(there, "foo", ()));
    gone(kernel.alias_resolve(there).map(drop));
    gone(kernel.alias_list(there).map(drop));
    gone(kernel.refcount_increment(there, "tag").map(drop));
    gone(kernel.refcount_decrement(there, "tag").map(drop));
    kernel.call(here, "remove", ())?;
    assert_eq!(kernel.alias_resolve(SessionId::KERNEL)?, SessionId::KERNEL, "any kernel's");
    kernel.run()?;
    assert_eq!(lines(&log), ["s tick"]);
    other.run()?;
    assert_eq!(lines(&log), ["s tick"]);
    Ok(())
}

#[test] // K-EV-12
fn the_destination_is_resolved_when_posting() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    plain("s", &log)
        .state("_start", |cx| {
            cx.alias_set("box")?;
            cx.post("box", "letter", ())?;
            cx.alias_remove("box")?;
            Ok(())
        })
        .state("letter", note)
        .spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["s letter"]);
    Ok(())
}

#[test] // K-EV-13
fn the_state_is_looked_up_when_the_event_is_dispatched() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    plain("s", &log)
        .state("_start", |cx| {
            cx.yield_("replaced", ());
            cx.yield_("removed", ());
            cx.yield_("added", ());
            cx.state("replaced", |cx| cx.heap().say("the new one"))?;
            cx.state_clear("removed");
            cx.state("added", note)?;
            Ok(())
        })
        .state("replaced", note)
        .state("removed", note)
        .spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["s the new one", "s added"]);
    Ok(())
}

#[test] // K-EV-11, K-EV-14, K-EV-19, K-TM-03
fn an_event_knows_its_sender_and_the_state_it_was_sent_from() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let receiver = plain("r", &log).state("e", note_origin).spawn(&mut kernel)?;
    kernel.post(receiver, "e", ())?;
    plain("s", &log)
        .state("_start", move |cx| {
            cx.yield_("go", ());
            cx.post(receiver, "e", ()).map_err(Exception::from)
        })
        .state("go", move |cx| {
            note_origin(cx);
            cx.delay("later", Duration::ZERO, ());
            cx.post(receiver, "e", ()).map_err(Exception::from)
        })
        .state("later", note_origin)
        .spawn(&mut kernel)?;
    kernel.run()?;
    let expected = [
        "r e from kernel, outside",
        "s go from 2, _start",
        "r e from 2, _start",
        "s later from 2, go",
        "r e from 2, go",
    ];
    assert_eq!(lines(&log), expected);
    Ok(())
}

#[test] // K-EV-15
fn an_event_knows_the_statement_that_sent_it() -> Result<(), Error> {
    let mut kernel = new_kernel();
    let (line, other) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let (set, set_other) = (Rc::clone(&line), Rc::clone(&other));
    Session::new(())
        .state("_start", move |cx| {
            set.set(line!() + 1);
            cx.yield_("posted", ());
            set_other.set(line!() + 1);
            cx.delay("delayed", Duration::ZERO, ());
            let me = cx.session();
            let here = line!() + 1;
            let there = cx.call(me, "called", ())?.take::<u32>()?;
            assert_eq!(there, here);
            Ok(())
        })
        .state("called", |cx| cx.caller().line())
        .state("posted", move |cx| {
            assert!(cx.caller().file().ends_with("events.rs"));
            assert_eq!(cx.caller().line(), line.get());
        })
        .state("delayed", move |cx| assert_eq!(cx.caller().line(), other.get()))
        .spawn(&mut kernel)?;
    kernel.run()
}

/// An argument that tells which session was active when it was dropped.
struct Telltale(Log, Rc<Cell<SessionId>>);

impl Drop for Telltale {
    fn drop(&mut self) {
        self.0.borrow_mut().push(format!("dropped in {}", who(self.1.get())));
    }
}

#[test] // K-EV-17: as far as it can be seen: after the state, before any other
fn arguments_are_dropped_when_the_state_returns() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let active = Rc::new(Cell::new(SessionId::KERNEL));
    let seen = Rc::clone(&active);
    let id = plain("s", &log)
        .state("e", move |cx| {
            seen.set(cx.session());
            note(cx);
        })
        .state("f", note)
        .spawn(&mut kernel)?;
    kernel.post(id, "e", (Telltale(log.clone(), active),))?;
    kernel.post(id, "f", ())?;
    kernel.run()?;
    assert_eq!(lines(&log), ["s e", "dropped in 1", "s f"]);
    Ok(())
}

#[test] // K-EV-18, K-CL-02
fn events_for_the_kernel_are_accepted_and_ignored() -> Result<(), Error> {
    let mut kernel = new_kernel();
    kernel.post(SessionId::KERNEL, "anything", (1,))?;
    assert!(!kernel.call(SessionId::KERNEL, "anything", ())?.was_handled());
    kernel.run()
}

#[test] // K-EV-25, K-EV-26
fn a_pending_event_keeps_both_its_ends_alive() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let receiver = witness("receiver", &log).state("e", note).spawn(&mut kernel)?;
    witness("sender", &log)
        .state("_start", move |cx| cx.yield_("go", ()))
        .state("go", move |cx| cx.post(receiver, "e", ()).map_err(Exception::from))
        .spawn(&mut kernel)?;
    // The first slice dispatches the start-up events and `go`; only `e` is left then.
    assert!(kernel.run_one_timeslice()?);
    assert!(kernel.run_one_timeslice()?);
    assert_eq!(lines(&log), ["receiver e", "sender _stop", "receiver _stop"]);
    Ok(())
}

#[test] // K-EV-27
fn a_sender_that_nothing_else_keeps_can_still_be_answered() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let server = witness("server", &log)
        .state("ask", |cx| {
            note(cx);
            let sender = cx.sender();
            cx.post(sender, "answer", ()).map_err(Exception::from)
        })
        .spawn(&mut kernel)?;
    witness("client", &log)
        .state("_start", move |cx| cx.post(server, "ask", ()).map_err(Exception::from))
        .state("answer", note)
        .spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["server ask", "client answer", "server _stop", "client _stop"]);
    Ok(())
}

#[test] // K-EV-28
fn stopping_removes_the_events_to_and_from_a_session() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let other = plain("other", &log).state("from", note).state("mine", note).spawn(&mut kernel)?;
    let doomed = witness("doomed", &log)
        .state("_start", move |cx| {
            cx.delay("alarm", Duration::from_secs(60), ());
            cx.yield_("to", ());
            cx.post(other, "from", ()).map_err(Exception::from)
        })
        .state("to", note)
        .state("alarm", note)
        .spawn(&mut kernel)?;
    kernel.post(doomed, "to", ())?;
    kernel.post(other, "mine", ())?;
    kernel.signal_now(doomed, "KILL", ())?;
    let left: Vec<Name> = kernel.peek().events.iter().map(|event| event.name).collect();
    assert_eq!(left, ["_garbage_collect", "mine"]);
    kernel.run()?;
    assert_eq!(lines(&log), ["doomed _stop", "other mine"]);
    Ok(())
}

#[test] // K-EV-29
fn what_stop_posts_vanishes_but_what_it_calls_runs() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let other = plain("other", &log)
        .state("_start", |cx| cx.delay("done", millis(5), ()))
        .state("done", note)
        .state("posted", note)
        .state("called", note)
        .spawn(&mut kernel)?;
    witness("s", &log)
        .state("_stop", move |cx| {
            note(cx);
            let me = cx.session();
            cx.post(other, "posted", ())?;
            cx.yield_("posted", ());
            cx.delay("posted", Duration::ZERO, ());
            cx.alias_set("ghost")?;
            cx.refcount_increment(me, "ghost")?;
            cx.sig("foo", "posted");
            cx.call(me, "called", ())?;
            cx.call(other, "called", ())?;
            Ok(())
        })
        .state("posted", note)
        .state("called", note)
        .spawn(&mut kernel)?;
    assert!(kernel.run_one_timeslice()?);
    assert!(matches!(kernel.alias_resolve("ghost"), Err(Error::NoSuchSession(_))));
    kernel.signal(SessionId::KERNEL, "foo", ())?;
    kernel.run()?;
    assert_eq!(lines(&log), ["s _stop", "s called", "other called", "other done"]);
    Ok(())
}

#[test] // K-EV-42
fn the_event_count_is_of_all_that_waits() -> Result<(), Error> {
    let mut kernel = new_kernel();
    Session::new(())
        .state("_start", |cx| {
            assert_eq!(cx.event_count(), 0);
            cx.yield_("a", ());
            cx.delay("b", millis(1), ());
        })
        .state("a", |cx| assert_eq!(cx.event_count(), 2, "not itself"))
        .state("b", |cx| assert_eq!(cx.event_count(), 0))
        .spawn(&mut kernel)?;
    assert_eq!(kernel.event_count(), 3, "with the start-up event");
    let internal = kernel.peek().events.iter().filter(|event| event.kind == EventKind::Internal).count();
    assert_eq!(internal, 1);
    kernel.run()?;
    assert_eq!(kernel.event_count(), 0);
    Ok(())
}

#[test] // K-EV-43
fn the_next_event_time_is_that_of_the_first_in_the_queue() -> Result<(), Error> {
    let mut kernel = new_kernel();
    assert_eq!(kernel.next_event_time(), None);
    Session::new(())
        .state("_start", |cx| {
            let (soon, sooner) = (SystemTime::now() + Duration::from_secs(60), past(60));
            cx.alarm("soon", soon, ());
            assert_eq!(cx.next_event_time(), Some(soon));
            cx.alarm("sooner", sooner, ());
            assert_eq!(cx.next_event_time(), Some(sooner));
            cx.alarm_remove_all();
            assert_eq!(cx.next_event_time(), None);
        })
        .spawn(&mut kernel)?;
    kernel.run()
}

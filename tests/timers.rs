//! Alarms and delays (K-TM).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use lenore::{AlarmId, AsKernel, Context, Error, EventKind, Exception, IntoReturn, Kernel, Session, Shift};
use util::diary::{Diary, Log, lines, millis, new_kernel, note, past, plain, witness};

const FAR: Duration = Duration::from_secs(3600);

/// Runs `work` as a state of a session of its own, with an `e` that notes the text in ARG0; whatever the state leaves
/// in the queue is run.
fn in_a_session(work: impl Fn(&mut Context<'_, Diary>) -> lenore::Result + 'static) -> Result<Vec<String>, Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    with_events(plain("s", &log)).state("_start", work).spawn(&mut kernel)?;
    kernel.run()?;
    Ok(lines(&log))
}

fn with_events(session: Session<Diary>) -> Session<Diary> {
    let note_text = |cx: &mut Context<'_, Diary>| -> lenore::Result {
        let text = *cx.arg::<&str>(0)?;
        cx.heap().say(text);
        Ok(())
    };
    session.state("e", note_text).state("f", note_text)
}

/// The events of the alarms that pend, in the order in which they are due.
fn pending(kernel: &impl AsKernel) -> Vec<String> {
    let alarms = kernel.peek().events.into_iter().filter(|event| event.kind == EventKind::Alarm);
    alarms.map(|event| event.name.to_string()).collect()
}

#[test] // K-TM-01, K-TM-22, K-TM-25 as K-RE-07 wants it, K-TM-28
fn a_session_can_not_touch_anothers_alarms() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let id: Rc<Cell<Option<AlarmId>>> = Rc::default();
    let tell = Rc::clone(&id);
    plain("owner", &log)
        .state("_start", move |cx| tell.set(Some(cx.delay_set("tick", millis(2), ()))))
        .state("tick", note)
        .spawn(&mut kernel)?;
    plain("other", &log)
        .state("_start", move |cx| {
            let id = id.get().expect("the owner came first");
            assert!(matches!(cx.alarm_adjust(id, Shift::Later(FAR)), Err(Error::NotYourAlarm(i)) if i == id));
            assert!(matches!(cx.delay_adjust(id, FAR), Err(Error::NotYourAlarm(_))));
            assert!(matches!(cx.alarm_remove(id), Err(Error::NotYourAlarm(_))));
            assert_eq!((cx.alarm_clear("tick"), cx.delay_clear("tick")), (0, 0));
            assert!(cx.alarm_remove_all().is_empty());
        })
        .spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["owner tick"]);
    Ok(())
}

#[test] // K-TM-02
fn alarms_and_delays_are_one_kind() -> Result<(), Error> {
    let all = in_a_session(|cx| {
        cx.delay("e", FAR, ("replaced",));
        cx.alarm("e", past(1), ("by an alarm",));
        cx.alarm("f", SystemTime::now() + FAR, ("replaced",));
        cx.delay("f", Duration::ZERO, ("by a delay",));
        Ok(())
    })?;
    assert_eq!(all, ["s by an alarm", "s by a delay"]);
    Ok(())
}

#[test] // K-TM-04
fn each_pending_alarm_keeps_its_session_alive() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    witness("s", &log)
        .state("_start", |cx| {
            cx.delay_add("first", millis(1), ());
            cx.delay_add("second", millis(3), ());
        })
        .state("first", note)
        .state("second", note)
        .spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["s first", "s second", "s _stop"]);
    Ok(())
}

#[test] // K-TM-06
fn equal_due_times_fire_in_the_order_set() -> Result<(), Error> {
    let texts = ["1", "2", "3", "4", "5", "6", "7", "8", "9"];
    let all = in_a_session(move |cx| {
        let when = SystemTime::now() + millis(2);
        texts.iter().for_each(|text| cx.alarm_add("e", when, (*text,)));
        Ok(())
    })?;
    assert_eq!(all, texts.map(|text| format!("s {text}")));
    Ok(())
}

#[test] // K-TM-10, K-TM-12
fn setting_an_alarm_by_name_replaces_all_of_that_name() -> Result<(), Error> {
    let all = in_a_session(|cx| {
        cx.alarm_add("e", past(3), ("added",));
        cx.delay_add("e", FAR, ("added",));
        cx.alarm_set("e", past(3), ("set",));
        cx.delay_set("f", Duration::ZERO, ("of another name",));
        cx.alarm("e", past(2), ("the last",));
        Ok(())
    })?;
    assert_eq!(all, ["s the last", "s of another name"]);
    Ok(())
}

#[test] // K-TM-11, K-TM-12
fn clearing_removes_all_of_that_name_however_set() -> Result<(), Error> {
    let all = in_a_session(|cx| {
        cx.alarm("e", past(1), ("alarm",));
        cx.alarm_add("e", past(1), ("alarm_add",));
        cx.alarm_set("e", past(1), ("alarm_set",));
        cx.delay_add("e", FAR, ("delay_add",));
        cx.delay_set("e", FAR, ("delay_set",));
        cx.alarm_add("f", past(1), ("kept",));
        assert_eq!(cx.alarm_clear("e"), 5);
        assert_eq!(cx.delay_clear("e"), 0);
        assert_eq!(cx.event_count(), 1);
        Ok(())
    })?;
    assert_eq!(all, ["s kept"]);
    Ok(())
}

#[test] // K-TM-15
fn clearing_leaves_posted_events_of_that_name() -> Result<(), Error> {
    let all = in_a_session(|cx| {
        cx.yield_("e", ("posted",));
        cx.delay("e", Duration::ZERO, ("delayed",));
        cx.alarm_clear("e");
        cx.alarm_remove_all();
        Ok(())
    })?;
    assert_eq!(all, ["s posted"]);
    Ok(())
}

#[test] // K-TM-13, K-TM-16
fn alarm_and_alarm_add_can_be_mixed() -> Result<(), Error> {
    let all = in_a_session(|cx| {
        let when = SystemTime::now() + millis(1);
        cx.alarm("e", when, ("x1",));
        cx.alarm_add("e", when, ("x2",));
        cx.alarm("e", when, ("x3",));
        cx.alarm_add("e", when, ("x4",));
        Ok(())
    })?;
    assert_eq!(all, ["s x3", "s x4"]);
    Ok(())
}

#[test] // K-TM-20
fn alarms_set_by_id_replace_nothing() -> Result<(), Error> {
    let all = in_a_session(|cx| {
        let first = cx.alarm_set("e", past(2), ("1",));
        let second = cx.alarm_set("e", past(1), ("2",));
        let third = cx.delay_set("e", millis(1), ("3",));
        assert!(first != second && second != third);
        Ok(())
    })?;
    assert_eq!(all, ["s 1", "s 2", "s 3"]);
    Ok(())
}

#[test] // K-TM-21, K-TM-26
fn an_adjusted_alarm_tells_its_new_time() -> Result<(), Error> {
    let all = in_a_session(|cx| {
        let when = SystemTime::now() + FAR;
        let alarm = cx.alarm_set("e", when, ("alarm",));
        assert_eq!(cx.alarm_adjust(alarm, Shift::Later(FAR))?, when + FAR);
        assert_eq!(cx.alarm_adjust(alarm, Shift::Later(Duration::ZERO))?, when + FAR);
        assert_eq!(cx.alarm_adjust(alarm, Shift::Earlier(4 * FAR))?, when - 3 * FAR);
        let delay = cx.delay_set("e", FAR, ("delay",));
        let due = cx.alarm_adjust(delay, Shift::Earlier(2 * FAR))?;
        assert!(due <= SystemTime::now() - FAR + millis(1000), "{due:?}");
        assert_eq!(cx.event_count(), 2);
        Ok(())
    })?;
    assert_eq!(all, ["s alarm", "s delay"], "two hours ago, and one");
    Ok(())
}

#[test] // K-TM-23
fn a_moved_alarm_goes_behind_those_that_have_its_new_time() -> Result<(), Error> {
    let all = in_a_session(|cx| {
        let when = past(10);
        let first = cx.alarm_set("e", when, ("first",));
        let moved = cx.alarm_set("e", when - FAR, ("moved",));
        cx.alarm_set("e", when, ("second",));
        cx.alarm_adjust(moved, Shift::Later(FAR))?;
        cx.alarm_adjust(first, Shift::Later(Duration::ZERO))?;
        Ok(())
    })?;
    assert_eq!(all, ["s first", "s second", "s moved"]);
    Ok(())
}

#[test] // K-TM-23: everything that shows or takes the alarms agrees about it
fn a_moved_alarm_is_listed_where_it_will_fire() -> Result<(), Error> {
    let all = in_a_session(|cx| {
        let when = past(10);
        let moved = cx.alarm_set("moved", when - FAR, ());
        cx.alarm_set("stays", when, ());
        assert_eq!(pending(cx), ["moved", "stays"]);
        cx.alarm_adjust(moved, Shift::Later(FAR))?;
        assert_eq!(pending(cx), ["stays", "moved"]);
        let removed: Vec<String> = cx.alarm_remove_all().iter().map(|alarm| alarm.event.to_string()).collect();
        assert_eq!(removed, ["stays", "moved"]);
        Ok(())
    })?;
    assert!(all.is_empty());
    Ok(())
}

#[test] // K-TM-24
fn delay_adjust_counts_from_now() -> Result<(), Error> {
    let all = in_a_session(|cx| {
        let delay = cx.delay_set("e", FAR, ("delay",));
        let alarm = cx.alarm_set("e", SystemTime::now() + FAR, ("alarm",));
        let before = SystemTime::now();
        let due = cx.delay_adjust(delay, millis(4))?;
        // The wall clock may be slewed against the monotonic one, but not by a second.
        assert!(due >= before - FAR / 3600 && due <= before + millis(4) + FAR / 3600, "{due:?}");
        let sooner = cx.delay_adjust(alarm, Duration::ZERO)?;
        assert!(sooner < due);
        Ok(())
    })?;
    assert_eq!(all, ["s alarm", "s delay"]);
    Ok(())
}

#[test] // K-TM-22, K-TM-25 as K-RE-07 wants it, K-TM-28
fn an_alarm_that_is_gone_is_an_error() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let ids: Rc<RefCell<Vec<AlarmId>>> = Rc::default();
    let tell = Rc::clone(&ids);
    plain("s", &log)
        .state("_start", move |cx| {
            let fires = cx.delay_set("fires", Duration::ZERO, ());
            let removed = cx.delay_set("removed", FAR, ());
            cx.alarm_remove(removed)?;
            let cleared = cx.delay_set("cleared", FAR, ());
            cx.delay_clear("cleared");
            // In the same place as the ones that are gone, but with another identity.
            cx.delay_set("bystander", millis(1), ());
            tell.borrow_mut().extend([fires, removed, cleared]);
            Ok(())
        })
        .state("bystander", note)
        .state("fires", move |cx| {
            for id in ids.borrow().iter().copied() {
                assert!(matches!(cx.alarm_remove(id), Err(Error::NoSuchAlarm(i)) if i == id));
                assert!(matches!(cx.alarm_adjust(id, Shift::Later(FAR)), Err(Error::NoSuchAlarm(_))));
                assert!(matches!(cx.delay_adjust(id, FAR), Err(Error::NoSuchAlarm(_))));
            }
            note(cx);
        })
        .spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["s fires", "s bystander"]);
    Ok(())
}

#[test] // K-TM-27
fn a_removed_alarm_comes_back_whole() -> Result<(), Error> {
    let all = in_a_session(|cx| {
        let when = SystemTime::now() + FAR;
        let alarm = cx.alarm_set("e", when, ("text", 7_u32));
        let delay = cx.delay_set("f", FAR, ());
        let mut removed = cx.alarm_remove(alarm)?;
        assert_eq!((removed.event.as_str(), removed.due), ("e", when));
        assert_eq!((removed.args.take::<&str>(0), removed.args.take::<u32>(1)), (Ok("text"), Ok(7)));
        assert_eq!(cx.alarm_remove(delay)?.event, "f");
        assert_eq!(cx.event_count(), 0);
        Ok(())
    })?;
    assert!(all.is_empty());
    Ok(())
}

#[test] // K-TM-30, K-TM-31 as K-RE-08 wants them
fn removing_all_returns_uniform_entries_in_due_order() -> Result<(), Error> {
    let all = in_a_session(|cx| {
        let now = SystemTime::now();
        cx.delay("third", 3 * FAR, (3_u32,));
        cx.alarm("first", now + FAR, (1_u32,));
        cx.delay_add("second", 2 * FAR, (2_u32,));
        cx.yield_("e", ("stays",));
        let mut removed = cx.alarm_remove_all();
        let names: Vec<&str> = removed.iter().map(|alarm| alarm.event.as_str()).collect();
        assert_eq!(names, ["first", "second", "third"]);
        for (place, alarm) in removed.iter_mut().enumerate() {
            assert_eq!(alarm.args.take::<u32>(0), Ok(place as u32 + 1));
            assert!(alarm.due > now && alarm.due <= now + (place as u32 + 1) * FAR + FAR / 2, "{:?}", alarm.due);
        }
        assert_eq!(removed[0].due, now + FAR);
        assert!(cx.alarm_remove_all().is_empty());
        Ok(())
    })?;
    assert_eq!(all, ["s stays"]);
    Ok(())
}

#[test] // K-TM-32: on a kernel these calls do not compile
fn a_session_that_has_stopped_sets_no_alarm() -> Result<(), Error> {
    let mut kernel = new_kernel();
    let stopped = Session::new(()).state("_start", |cx| {
        cx.stop();
        cx.alarm("e", past(1), ());
        cx.delay_add("e", FAR, ());
        let id = cx.delay_set("e", FAR, ());
        assert_eq!(cx.event_count(), 0);
        assert!(matches!(cx.alarm_remove(id), Err(Error::NoActiveSession)));
        assert!(matches!(cx.delay_adjust(id, FAR), Err(Error::NoActiveSession)));
        assert_eq!((cx.alarm_clear("e"), cx.alarm_remove_all().len()), (0, 0));
        // Nor does the id name an alarm of a session that lives.
        let living = Session::new(()).state("_start", move |cx| {
            let first = cx.delay_set("e", FAR, ());
            assert!(matches!(cx.alarm_remove(id), Err(Error::NoSuchAlarm(_))));
            assert!(cx.alarm_remove(first).is_ok());
        });
        living.spawn(cx).map(drop).map_err(Exception::from)
    });
    stopped.spawn(&mut kernel)?;
    kernel.run()
}

#[test] // K-TM-33: absolute times are converted and reported without loss
fn times_are_reported_as_they_were_given() -> Result<(), Error> {
    let mut kernel = new_kernel();
    let times = [SystemTime::UNIX_EPOCH, past(1), SystemTime::now() + FAR, SystemTime::now() + 1_000_000 * FAR];
    let session = Session::new(()).state("_start", move |cx| {
        for when in times {
            let id = cx.alarm_set("e", when, ());
            assert_eq!(cx.next_event_time(), Some(when));
            assert_eq!(cx.alarm_remove(id)?.due, when);
        }
        Ok(())
    });
    session.spawn(&mut kernel)?;
    kernel.run()
}

#[test] // K-TM-35
fn no_alarm_fires_before_its_time() -> Result<(), Error> {
    let mut kernel = new_kernel();
    Session::new(())
        .state("_start", |cx| {
            for count in 1..=8_u64 {
                let span = Duration::from_micros(700 * count);
                cx.delay_add("e", span, (Instant::now() + span,));
            }
        })
        .state("e", |cx| {
            let due = *cx.arg::<Instant>(0)?;
            assert!(Instant::now() >= due);
            Ok(())
        })
        .spawn(&mut kernel)?;
    kernel.run()
}

#[test] // design 3: a delay counts from the call, not from when the slice began
fn a_delay_counts_from_the_call() -> Result<(), Error> {
    let all = in_a_session(|cx| {
        // Work, not synchronisation.
        let until = Instant::now() + millis(5);
        while Instant::now() < until {}
        let earliest = Instant::now() + millis(2);
        cx.delay("after", millis(2), (earliest,));
        cx.state("after", |cx| {
            let earliest = *cx.arg::<Instant>(0)?;
            assert!(Instant::now() >= earliest);
            cx.heap().say("in time");
            Ok(())
        })
        .map_err(Exception::from)
    })?;
    assert_eq!(all, ["s in time"]);
    Ok(())
}

#[test] // the ends of time
fn extreme_times_neither_overflow_nor_fire_early() -> Result<(), Error> {
    let all = in_a_session(|cx| {
        cx.delay_add("e", Duration::MAX, ("never",));
        let never = cx.delay_set("e", Duration::MAX, ("never",));
        cx.alarm_adjust(never, Shift::Later(Duration::MAX))?;
        let ago = cx.alarm_set("e", SystemTime::UNIX_EPOCH, ("ago",));
        cx.alarm_adjust(ago, Shift::Earlier(Duration::MAX))?;
        cx.delay("f", millis(2), ("end",));
        cx.state("f", |cx| {
            assert_eq!(cx.alarm_remove_all().len(), 2);
            cx.heap().say("end");
        })
        .map_err(Exception::from)
    })?;
    assert_eq!(all, ["s ago", "s end"]);
    Ok(())
}

#[test] // an alarm may be moved or removed while it is due already and waits for its turn
fn a_due_alarm_can_still_be_moved_and_removed() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let ids: Rc<RefCell<Vec<AlarmId>>> = Rc::default();
    let tell = Rc::clone(&ids);
    with_events(plain("s", &log))
        .state("_start", move |cx| {
            cx.alarm("first", past(9), ());
            let ids = [("moved", 8), ("removed", 7), ("stays", 6)];
            let ids = ids.map(|(text, ago)| cx.alarm_set("e", past(ago), (text,)));
            tell.borrow_mut().extend(ids);
        })
        .state("first", move |cx| {
            let ids = ids.borrow();
            cx.alarm_adjust(ids[0], Shift::Earlier(FAR))?;
            cx.alarm_remove(ids[1])?;
            // Set and removed, set and moved within one phase.
            let fresh = cx.alarm_set("e", past(1), ("fresh, removed",));
            cx.alarm_remove(fresh)?;
            let fresh = cx.alarm_set("e", past(1), ("fresh, moved",));
            cx.alarm_adjust(fresh, Shift::Earlier(2 * FAR))?;
            note(cx);
            Ok(())
        })
        .spawn(&mut kernel)?;
    kernel.run()?;
    // What was moved counts as set anew: it waits for the next slice, like everything that is set while one runs.
    assert_eq!(lines(&log), ["s first", "s stays", "s fresh, moved", "s moved"]);
    Ok(())
}

#[test] // design 3: alarms leave nothing behind
fn a_stopped_sessions_alarms_are_gone() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let start = |kernel: &mut Kernel| {
        with_events(witness("s", &log))
            .state("_start", |cx| (1..=50).for_each(|count| cx.delay_add("e", count * FAR, ("never",))))
            .spawn(kernel)
    };
    let id = start(&mut kernel)?;
    start(&mut kernel)?;
    kernel.signal_now(id, "KILL", ())?;
    assert_eq!(pending(&kernel).len(), 50);
    kernel.stop();
    assert_eq!(kernel.event_count(), 0);
    kernel.run()
}

/// Sets an alarm `b` and takes so long that it is due, as a state does that computes or waits for a disk.
fn outlast_an_alarm(cx: &mut Context<'_, Diary>) {
    cx.delay("b", millis(10), ());
    take_time();
}

fn take_time() {
    std::thread::sleep(millis(30));
}

/// A session with a state `slow`, which runs after an alarm `b` was set and outlasts it, and then does `work`.
fn slow<R: IntoReturn>(log: &Log, work: impl Fn(&mut Context<'_, Diary>) -> R + 'static) -> Session<Diary> {
    plain("s", log)
        .state("_start", |cx| {
            cx.delay("b", millis(10), ());
            cx.yield_("slow", ());
        })
        .state("slow", move |cx| {
            take_time();
            work(cx)
        })
        .state("b", note)
        .state("y", note)
}

#[test] // K-EV-03, K-EV-06: the alarms that are due when an event is posted come first
fn a_post_after_a_slow_state_waits_for_the_alarms_that_are_due() -> Result<(), Error> {
    let log = Log::default();
    let mut kernel = new_kernel();
    plain("s", &log)
        .state("_start", |cx| {
            cx.delay("a", millis(50), ());
            cx.delay("b", millis(60), ());
        })
        .state("a", |cx| {
            note(cx);
            std::thread::sleep(millis(50));
            cx.yield_("y", ());
        })
        .state("b", note)
        .state("y", note)
        .spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["s a", "s b", "s y"]);
    Ok(())
}

#[test] // K-EV-03: whichever way the event is posted, and from whichever state
fn every_way_to_post_waits_for_the_alarms_that_are_due() -> Result<(), Error> {
    type Make = fn(&Log, &mut Kernel) -> Result<(), Error>;
    let ways: [(&str, Make); 9] = [
        ("yield_", |log, kernel| {
            slow(log, |cx| cx.yield_("y", ())).spawn(kernel)?;
            Ok(())
        }),
        ("post to another session", |log, kernel| {
            let other = plain("s", log).state("y", note).spawn(kernel)?;
            slow(log, move |cx| Ok(cx.post(other, "y", ())?)).spawn(kernel)?;
            Ok(())
        }),
        ("signal", |log, kernel| {
            slow(log, |cx| {
                cx.sig("foo", "y");
                cx.signal(cx.session(), "foo", ())?;
                Ok(())
            })
            .spawn(kernel)?;
            Ok(())
        }),
        ("postback", |log, kernel| {
            slow(log, |cx| cx.postback("y", ()).expect("a session is running").call(())).spawn(kernel)?;
            Ok(())
        }),
        ("call", |log, kernel| {
            let other = plain("s", log).state("ask", |cx| Ok(cx.post(cx.sender(), "y", ())?)).spawn(kernel)?;
            slow(log, move |cx| cx.call(other, "ask", ()).expect("the other session lives")).spawn(kernel)?;
            Ok(())
        }),
        ("delay of nothing", |log, kernel| {
            slow(log, |cx| cx.delay("y", Duration::ZERO, ())).spawn(kernel)?;
            Ok(())
        }),
        ("exception", |log, kernel| {
            slow(log, |cx| -> lenore::Result {
                cx.sig("DIE", "handle");
                Err(Exception::new("on purpose"))
            })
            .state("handle", |cx| {
                cx.heap().say("y");
                cx.sig_handled();
            })
            .spawn(kernel)?;
            Ok(())
        }),
        ("in the state of a signal", |log, kernel| {
            plain("s", log)
                .state("_start", |cx| {
                    cx.sig("foo", "slow");
                    cx.signal(cx.session(), "foo", ())?;
                    Ok(())
                })
                .state("slow", |cx| {
                    outlast_an_alarm(cx);
                    cx.yield_("y", ());
                })
                .state("b", note)
                .state("y", note)
                .spawn(kernel)?;
            Ok(())
        }),
        ("in the state of a handle", |log, kernel| {
            let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a socket pair");
            drop(theirs);
            let handle = lenore::Handle::new(ours);
            plain("s", log)
                .state("_start", move |cx| Ok(cx.select_read(&handle, "slow", ())?))
                .state("slow", |cx| {
                    let handle = cx.take::<lenore::Handle>(0)?;
                    cx.select_read_clear(&handle);
                    outlast_an_alarm(cx);
                    cx.yield_("y", ());
                    Ok(())
                })
                .state("b", note)
                .state("y", note)
                .spawn(kernel)?;
            Ok(())
        }),
    ];
    for (name, make) in ways {
        let (log, mut kernel) = (Log::default(), new_kernel());
        make(&log, &mut kernel)?;
        kernel.run()?;
        assert_eq!(lines(&log), ["s b", "s y"], "{name}");
    }
    Ok(())
}

#[test] // K-EV-06: between two posts of one state the time that lies between them counts
fn an_alarm_comes_between_the_posts_before_and_after_it_was_due() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    plain("s", &log)
        .state("_start", |cx| {
            let postback = cx.postback("postback", ())?;
            cx.yield_("before", ());
            postback.call(());
            outlast_an_alarm(cx);
            postback.call(());
            cx.yield_("after", ());
            Ok(())
        })
        .state("before", note)
        .state("postback", note)
        .state("b", note)
        .state("after", note)
        .spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["s before", "s postback", "s b", "s postback", "s after"]);
    Ok(())
}

#[test] // K-EV-06: however far away the other alarms are
fn a_postback_that_is_called_before_an_alarm_is_due_comes_before_it() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    plain("s", &log)
        .state("_start", |cx| {
            cx.delay("far", FAR, ());
            cx.delay("b", millis(10), ());
            cx.postback("y", ())?.call(());
            take_time();
            cx.delay("now", Duration::ZERO, ());
            Ok(())
        })
        .state("b", note)
        .state("y", note)
        .state("now", |cx| {
            note(cx);
            cx.delay_clear("far");
        })
        .spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["s y", "s b", "s now"]);
    Ok(())
}

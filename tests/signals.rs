//! Signals between sessions (K-SG). What concerns the operating system is tested with programs of their own.

use lenore::{Args, Context, Error, Exception, Kernel, Name, Session, SessionId};
use util::diary::{Diary, Log, lines, millis, new_kernel, note, plain, who, witness};

/// A witness that watches `signal` with its state `on_signal`, which writes that down.
fn watcher(name: &'static str, log: &Log, signal: &'static str) -> Session<Diary> {
    witness(name, log).state("on_signal", note).state("_start", move |cx| {
        cx.sig(signal, "on_signal");
        let alias = cx.session().to_string();
        cx.alias_set(&alias).map_err(Exception::from)
    })
}

/// Makes the session create others in its `_start`, after it has begun to watch `signal`.
fn with_children(
    session: Session<Diary>,
    signal: &'static str,
    spawn: impl Fn(&mut Context<'_, Diary>) -> Result<(), Error> + 'static,
) -> Session<Diary> {
    session.state("_start", move |cx| {
        cx.sig(signal, "on_signal");
        spawn(cx).map_err(Exception::from)
    })
}

/// P(C1, C2(G)) and Q: numbers 1, 2, 3, 4, and 5. All of them watch `signal`.
fn family(log: &Log, kernel: &mut Kernel, signal: &'static str) -> Result<[SessionId; 5], Error> {
    let (for_p, for_c2) = (log.clone(), log.clone());
    let p = with_children(watcher("P", log, signal), signal, move |cx| {
        let for_g = for_c2.clone();
        watcher("C1", &for_p, signal).spawn(cx)?;
        let c2 = watcher("C2", &for_p, signal);
        with_children(c2, signal, move |cx| watcher("G", &for_g, signal).spawn(cx).map(drop)).spawn(cx)?;
        Ok(())
    });
    p.spawn(kernel)?;
    watcher("Q", log, signal).spawn(kernel)?;
    lines(log);
    let ids: Vec<SessionId> = kernel.peek().sessions.iter().map(|session| session.id).collect();
    Ok(ids.try_into().expect("five sessions"))
}

/// What the sessions of the family write when they are stopped by a signal to the kernel, and in which order.
const FAMILY_STOPS: [&str; 8] =
    ["G _stop", "C2 _child lose 4", "C2 _stop", "P _child lose 3", "C1 _stop", "P _child lose 2", "Q _stop", "P _stop"];

#[test] // K-SG-01
fn a_later_watch_replaces_the_former_and_can_be_cancelled() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let extra = |cx: &mut Context<'_, Diary>| -> lenore::Result {
        let (state, extra) = (cx.state_name(), *cx.arg::<u32>(1)?);
        cx.heap().say(format_args!("{state} {extra}"));
        Ok(())
    };
    plain("s", &log)
        .state("_start", |cx| {
            cx.sig_with("foo", "old", (1_u32,));
            cx.sig_with("foo", "new", (2_u32,));
            cx.sig("bar", "old");
            cx.sig_clear("bar");
            cx.sig_clear("never watched");
            cx.yield_("go", ());
        })
        .state("go", |cx| {
            cx.signal(SessionId::KERNEL, "foo", ())?;
            cx.signal(SessionId::KERNEL, "bar", ())?;
            Ok(())
        })
        .state("old", extra)
        .state("new", extra)
        .spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["s new 2"]);
    Ok(())
}

#[test] // K-SG-02, K-SG-03
fn a_state_gets_the_name_then_what_came_with_the_signal_then_the_extra_arguments() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let id = plain("s", &log)
        .state("_start", |cx| cx.sig_with("no such signal anywhere", "e", ("extra", 3_u8)))
        .state("e", |cx| {
            assert_eq!(cx.sender(), SessionId::KERNEL);
            assert_eq!(cx.caller_state(), None);
            assert_eq!(cx.args().len(), 5);
            assert_eq!(*cx.arg::<&str>(0)?, "no such signal anywhere");
            assert_eq!((cx.take::<u8>(1)?, cx.take::<String>(2)?), (1, String::from("two")));
            assert_eq!((cx.take::<&str>(3)?, cx.take::<u8>(4)?), ("extra", 3));
            note(cx);
            Ok(())
        })
        .spawn(&mut kernel)?;
    kernel.signal(id, "no such signal anywhere", (1_u8, String::from("two")))?;
    kernel.run()?;
    assert_eq!(lines(&log), ["s e"]);
    Ok(())
}

#[test] // K-SG-04, K-SG-05
fn a_signal_waits_its_turn_and_keeps_its_ends_alive() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let dest = witness("dest", &log)
        .state("_start", |cx| cx.sig("foo", "on_foo"))
        .state("on_foo", note)
        .state("e", note)
        .spawn(&mut kernel)?;
    witness("sender", &log)
        .state("_start", |cx| cx.yield_("go", ()))
        .state("go", move |cx| {
            cx.post(dest, "e", ())?;
            cx.signal(dest, "foo", ())?;
            cx.post(dest, "e", ())?;
            cx.heap().say("has sent");
            Ok(())
        })
        .spawn(&mut kernel)?;
    assert!(kernel.run_one_timeslice()?);
    assert_eq!(lines(&log), ["sender has sent"]);
    kernel.run()?;
    assert_eq!(lines(&log), ["dest e", "dest on_foo", "dest e", "sender _stop", "dest _stop"]);
    Ok(())
}

#[test] // K-SG-15, K-SG-16, K-SG-17
fn a_signal_to_the_kernel_visits_everybody_deepest_first_and_newest_first() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    family(&log, &mut kernel, "foo")?;
    kernel.signal(SessionId::KERNEL, "foo", ())?;
    assert!(kernel.run_one_timeslice()?);
    assert_eq!(lines(&log), ["G on_signal", "C2 on_signal", "C1 on_signal", "Q on_signal", "P on_signal"]);
    kernel.stop();
    kernel.run()
}

#[test] // K-SG-18
fn a_signal_to_a_session_visits_its_descendants_and_then_itself() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let [p, _, c2, ..] = family(&log, &mut kernel, "foo")?;
    kernel.signal(p, "foo", ())?;
    kernel.signal(c2, "foo", ())?;
    assert!(kernel.run_one_timeslice()?);
    let expected = ["G on_signal", "C2 on_signal", "C1 on_signal", "P on_signal", "G on_signal", "C2 on_signal"];
    assert_eq!(lines(&log), expected);
    kernel.stop();
    kernel.run()
}

#[test] // K-SG-19, K-SG-32
fn who_does_not_watch_is_visited_silently_and_stopped_all_the_same() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let [p, ..] = family(&log, &mut kernel, "foo")?;
    kernel.signal(p, "TERM", ())?;
    assert!(kernel.run_one_timeslice()?);
    let expected =
        ["G _stop", "C2 _child lose 4", "C2 _stop", "P _child lose 3", "C1 _stop", "P _child lose 2", "P _stop"];
    assert_eq!(lines(&log), expected);
    kernel.run()?;
    assert_eq!(lines(&log), ["Q _stop"]);
    Ok(())
}

#[test] // K-SG-21
fn the_states_of_one_signal_run_back_to_back() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let posts = |cx: &mut Context<'_, Diary>| {
        note(cx);
        cx.yield_("posted", ());
        cx.alarm("alarm", util::diary::past(1), ());
    };
    for name in ["1", "2"] {
        watcher(name, &log, "foo")
            .state("on_signal", posts)
            .state("posted", note)
            .state("alarm", note)
            .spawn(&mut kernel)?;
    }
    kernel.signal(SessionId::KERNEL, "foo", ())?;
    kernel.run()?;
    let expected = ["2 on_signal", "1 on_signal", "2 alarm", "1 alarm", "2 posted", "1 posted", "2 _stop", "1 _stop"];
    let mut expected = expected.to_vec();
    // The two alarms differ by nanoseconds in their due times: whichever `past(1)` was read first is due first.
    expected[2..4].sort_by_key(|line| line.starts_with('1'));
    assert_eq!(lines(&log), expected);
    Ok(())
}

#[test] // K-SG-22
fn a_watcher_without_a_state_falls_back_to_default() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let id = plain("s", &log)
        .state("_start", |cx| cx.sig_with("foo", "nowhere", ("extra",)))
        .state("_stop", |_| ())
        .state("_default", |cx| {
            assert_eq!(*cx.arg::<Name>(0)?, "nowhere");
            let args = cx.arg::<Args>(1)?;
            assert_eq!((args.len(), args.get::<&str>(0), args.get::<u8>(1)), (3, Ok(&"foo"), Ok(&1)));
            assert_eq!(args.get::<&str>(2), Ok(&"extra"));
            note(cx);
            Ok(())
        })
        .spawn(&mut kernel)?;
    kernel.signal(id, "foo", (1_u8,))?;
    kernel.run()?;
    assert_eq!(lines(&log), ["s _default"]);
    Ok(())
}

#[test] // K-SG-23
fn the_watchers_are_fixed_when_the_dispatch_begins() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let first = watcher("1", &log, "foo").state("clear", |cx| cx.sig_clear("foo")).spawn(&mut kernel)?;
    let late = plain("2", &log)
        .state("watch", |cx| cx.sig("foo", "on_signal"))
        .state("on_signal", note)
        .state("_start", |cx| cx.alias_set("2").map_err(Exception::from))
        .spawn(&mut kernel)?;
    let for_new = log.clone();
    watcher("3", &log, "foo")
        .state("on_signal", move |cx| {
            note(cx);
            cx.call(first, "clear", ())?;
            cx.call(late, "watch", ())?;
            watcher("new", &for_new, "foo").spawn(cx)?;
            Ok(())
        })
        .spawn(&mut kernel)?;
    kernel.signal(SessionId::KERNEL, "foo", ())?;
    assert!(kernel.run_one_timeslice()?);
    assert_eq!(lines(&log), ["3 on_signal", "3 _child create 4", "1 on_signal"]);
    kernel.stop();
    kernel.run()
}

#[test] // K-SG-23: but a session that has stopped meanwhile is left in peace, on the stack or not
fn a_watcher_that_was_stopped_meanwhile_gets_nothing() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let bystander = watcher("bystander", &log, "foo").spawn(&mut kernel)?;
    let caller = watcher("caller", &log, "foo")
        .state("go", |cx| {
            cx.signal_now(SessionId::KERNEL, "foo", ())?;
            cx.heap().say("goes on");
            Ok(())
        })
        .spawn(&mut kernel)?;
    watcher("killer", &log, "foo")
        .state("on_signal", move |cx| {
            note(cx);
            cx.signal_now(bystander, "KILL", ())?;
            cx.signal_now(caller, "KILL", ())?;
            Ok(())
        })
        .spawn(&mut kernel)?;
    kernel.post(caller, "go", ())?;
    kernel.run()?;
    let expected = ["killer on_signal", "bystander _stop", "caller _stop", "caller goes on", "killer _stop"];
    assert_eq!(lines(&log), expected);
    Ok(())
}

#[test] // K-SG-24
fn every_state_gets_its_own_copy_of_the_arguments() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    for name in ["1", "2"] {
        watcher(name, &log, "foo")
            .state("_start", |cx| cx.sig_with("foo", "on_signal", (String::from("extra"),)))
            .state("on_signal", |cx| {
                let text = cx.take::<String>(1)?;
                // Nested, with arguments of its own.
                cx.signal_now(SessionId::KERNEL, "bar", (0_u8,))?;
                let extra = cx.take::<String>(2)?;
                cx.heap().say(text + " " + &extra);
                Ok(())
            })
            .spawn(&mut kernel)?;
    }
    kernel.signal(SessionId::KERNEL, "foo", (String::from("text"),))?;
    kernel.run()?;
    assert_eq!(lines(&log), ["2 text extra", "1 text extra", "2 _stop", "1 _stop"]);
    Ok(())
}

#[test] // K-SG-30, K-SG-31, K-SG-54
fn benign_signals_stop_nobody() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    plain("s", &log)
        .state("_start", |cx| {
            for signal in ["foo", "USR1", "ALRM", "CHLD", "PIPE", "term", "SIGTERM", "idle"] {
                cx.signal(SessionId::KERNEL, signal, ())?;
            }
            cx.yield_("still here", ());
            Ok(())
        })
        .state("still here", note)
        .spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["s still here"], "K-CV-08: case matters, and there is no SIG prefix");
    Ok(())
}

#[test] // K-SG-30, K-SG-32, K-SG-36, K-SG-37
fn an_unhandled_terminal_signal_to_the_kernel_ends_the_program() -> Result<(), Error> {
    for signal in ["QUIT", "INT", "KILL", "TERM", "HUP", "IDLE", "DIE"] {
        let (log, mut kernel) = (Log::default(), new_kernel());
        family(&log, &mut kernel, signal)?;
        kernel.signal(SessionId::KERNEL, signal, ())?;
        kernel.run()?;
        let seen = ["G on_signal", "C2 on_signal", "C1 on_signal", "Q on_signal", "P on_signal"];
        assert_eq!(lines(&log), [&seen[..], &FAMILY_STOPS].concat(), "{signal}");
        assert!(!kernel.run_one_timeslice()?, "the kernel was stopped as well");
    }
    Ok(())
}

#[test] // K-SG-33, K-SG-34
fn one_handler_saves_all_the_visited_and_a_return_value_does_not() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let [p, c1, ..] = family(&log, &mut kernel, "TERM")?;
    let saves = |cx: &mut Context<'_, Diary>| {
        cx.sig_handled();
        note(cx);
    };
    kernel.call(c1, "no such state", ())?;
    let saver = watcher("saver", &log, "TERM").state("on_signal", saves).spawn(&mut kernel)?;
    kernel.signal(SessionId::KERNEL, "TERM", ())?;
    assert!(kernel.run_one_timeslice()?);
    let seen = ["G on_signal", "C2 on_signal", "C1 on_signal", "saver on_signal", "Q on_signal", "P on_signal"];
    assert_eq!(lines(&log), seen, "nobody was stopped");
    // Not visited, so it can't save them; and a returned value says nothing.
    kernel.signal(p, "TERM", ())?;
    let returns = watcher("returns", &log, "HUP").state("on_signal", |_| true).spawn(&mut kernel)?;
    kernel.signal(returns, "HUP", ())?;
    assert!(kernel.run_one_timeslice()?);
    let left: Vec<SessionId> = kernel.peek().sessions.iter().map(|session| session.id).collect();
    assert_eq!(left.len(), 2);
    assert_eq!(left[1], saver);
    kernel.run()
}

#[test] // K-SG-35
fn a_nonmaskable_signal_stops_all_the_visited_handled_or_not() -> Result<(), Error> {
    for signal in ["ZOMBIE", "UIDESTROY"] {
        let (log, mut kernel) = (Log::default(), new_kernel());
        let handles = |cx: &mut Context<'_, Diary>| {
            cx.sig_handled();
            note(cx);
        };
        let id = watcher("s", &log, signal).state("on_signal", handles).spawn(&mut kernel)?;
        watcher("t", &log, signal).spawn(&mut kernel)?;
        kernel.signal(id, signal, ())?;
        assert!(kernel.run_one_timeslice()?);
        assert_eq!(lines(&log), ["s on_signal", "s _stop"], "{signal}");
        kernel.signal(SessionId::KERNEL, signal, ())?;
        kernel.run()?;
        assert_eq!(lines(&log), ["t on_signal", "t _stop"], "{signal}");
    }
    Ok(())
}

#[test] // K-SG-38
fn stopping_by_signal_ignores_what_keeps_a_session_alive() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let id = witness("s", &log)
        .state("_start", |cx| {
            let me = cx.session();
            cx.delay("e", millis(3_600_000), ());
            cx.yield_("e", ());
            cx.alias_set("name")?;
            cx.refcount_increment(me, "tag").map(drop).map_err(Exception::from)
        })
        .spawn(&mut kernel)?;
    kernel.signal_now(id, "KILL", ())?;
    assert_eq!(lines(&log), ["s _stop"]);
    assert_eq!(kernel.event_count(), 0);
    kernel.run()
}

#[test] // K-SG-39
fn sig_handled_counts_for_the_signal_being_dispatched_only() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let id = watcher("s", &log, "TERM")
        .state("on_signal", |cx| {
            // The inner signal is handled, the outer one is not.
            cx.sig("HUP", "on_hup");
            let me = cx.session();
            cx.signal_now(me, "HUP", ())?;
            note(cx);
            Ok(())
        })
        .state("on_hup", |cx| {
            cx.sig_handled();
            note(cx);
        })
        .state("idle talk", |cx| cx.sig_handled())
        .spawn(&mut kernel)?;
    kernel.call(id, "idle talk", ())?;
    kernel.signal(id, "TERM", ())?;
    kernel.run()?;
    assert_eq!(lines(&log), ["s on_hup", "s on_signal", "s _stop"]);
    Ok(())
}

#[test] // K-SG-39: and an outer sig_handled is not undone by an inner signal
fn a_nested_signal_leaves_the_outer_one_handled() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let id = watcher("s", &log, "TERM")
        .state("on_signal", |cx| {
            cx.sig_handled();
            let me = cx.session();
            cx.signal_now(me, "foo", ()).map_err(Exception::from)
        })
        .state("after", note)
        .spawn(&mut kernel)?;
    kernel.signal(id, "TERM", ())?;
    kernel.post(id, "after", ())?;
    kernel.run()?;
    assert_eq!(lines(&log), ["s after", "s _stop"]);
    Ok(())
}

#[test] // K-SG-40
fn kill_stops_a_tree_from_within() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let [_, _, c2, g, _] = family(&log, &mut kernel, "foo")?;
    watcher("killer", &log, "foo")
        .state("go", move |cx| {
            cx.signal_now(c2, "KILL", ())?;
            assert!(matches!(cx.signal(g, "KILL", ()), Err(Error::NoSuchSession(_))));
            cx.heap().say("has killed");
            Ok(())
        })
        .spawn(&mut kernel)
        .and_then(|id| kernel.post(id, "go", ()))?;
    assert!(kernel.run_one_timeslice()?);
    assert_eq!(lines(&log), ["G _stop", "C2 _child lose 4", "C2 _stop", "P _child lose 3", "killer has killed"]);
    kernel.stop();
    kernel.run()
}

#[test] // signal_now: dispatched before it returns, its arguments moved from state to state
fn a_signal_now_hands_one_set_of_arguments_round() -> Result<(), Error> {
    /// Can't be cloned, so can't be posted as a signal's argument.
    struct Token;
    let (log, mut kernel) = (Log::default(), new_kernel());
    let by = |cx: &mut Context<'_, Diary>| -> lenore::Result {
        assert_eq!((cx.sender(), *cx.arg::<&str>(0)?), (SessionId::KERNEL, "foo"));
        let extra = *cx.arg::<u8>(2)?;
        let has = cx.arg::<Token>(1).is_ok();
        let count = cx.args().len();
        cx.heap().say(format_args!("{count} arguments, extra {extra}, token {has}"));
        Ok(())
    };
    for name in ["1", "2"] {
        watcher(name, &log, "foo")
            .state("_start", move |cx| cx.sig_with("foo", "on_signal", (if name == "1" { 1_u8 } else { 2 },)))
            .state("on_signal", by)
            .spawn(&mut kernel)?;
    }
    // Sees the signal first, through `_default`, and must not change what the others see.
    plain("first", &log)
        .state("_start", |cx| cx.sig_with("foo", "nowhere", (0_u8,)))
        .state("_stop", |_| ())
        .state("_default", note)
        .spawn(&mut kernel)?;
    watcher("taker", &log, "foo")
        .state("_start", |cx| cx.sig("foo", "take"))
        .state("take", |cx| cx.take::<Token>(1).map(drop).map_err(Exception::from))
        .state("_stop", |_| ())
        .spawn(&mut kernel)?;
    kernel.signal_now(SessionId::KERNEL, "foo", (Token,))?;
    let expected = ["first _default", "2 3 arguments, extra 2, token false", "1 3 arguments, extra 1, token false"];
    assert_eq!(lines(&log), expected);
    kernel.run()?;
    lines(&log);
    for name in ["1", "2"] {
        let extra = if name == "1" { 1_u8 } else { 2 };
        let session = watcher(name, &log, "foo").state("on_signal", by);
        session.state("_start", move |cx| cx.sig_with("foo", "on_signal", (extra,))).spawn(&mut kernel)?;
    }
    kernel.signal_now(SessionId::KERNEL, "foo", (Token,))?;
    let expected = ["2 3 arguments, extra 2, token true", "1 3 arguments, extra 1, token true"];
    assert_eq!(lines(&log), expected);
    kernel.run()
}

#[test] // signal_now: a state that keeps the whole list leaves the name to the others
fn the_name_reaches_everybody_even_if_somebody_keeps_the_arguments() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    watcher("2", &log, "foo")
        .state("on_signal", |cx| {
            let name = *cx.arg::<&str>(0)?;
            cx.heap().say(name);
            Ok(())
        })
        .spawn(&mut kernel)?;
    watcher("1", &log, "foo").state("on_signal", |cx| drop(std::mem::take(cx.args()))).spawn(&mut kernel)?;
    kernel.signal_now(SessionId::KERNEL, "foo", (1,))?;
    assert_eq!(lines(&log), ["2 foo"]);
    kernel.run()
}

#[test] // design 1: a state may stop its own session; what it does afterwards is the kernel's
fn a_session_that_kills_itself_runs_on_as_the_kernel() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let for_new = log.clone();
    witness("s", &log)
        .state("_start", |cx| cx.yield_("go", ()))
        .state("go", move |cx| {
            let me = cx.session();
            cx.signal_now(me, "KILL", ())?;
            assert_eq!(cx.session(), SessionId::KERNEL);
            cx.heap().say("its heap is still there");
            cx.yield_("nobody's", ());
            assert!(matches!(cx.post(me, "e", ()), Err(Error::NoSuchSession(_))));
            assert!(matches!(cx.call(me, "go", ()), Err(Error::NoSuchSession(_))));
            let new = witness("new", &for_new).state("_start", |cx| {
                let sender = who(cx.sender());
                cx.heap().say(format_args!("from {sender}"));
            });
            new.spawn(cx)?;
            Ok(())
        })
        .spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["s _stop", "s its heap is still there", "new from kernel", "new _stop"]);
    Ok(())
}

#[test] // K-RE-06: a session may keep itself alive by the signal that it waits for, until it says otherwise
fn a_session_can_live_for_a_signal() {
    let log = Log::default();
    let mut kernel = new_kernel();
    let waiter = plain("waiter", &log)
        .state("_start", |cx| cx.sig_keep_alive("hello", "hello"))
        .state("hello", |cx| {
            cx.heap().say("hello");
            cx.sig_clear("hello");
        })
        .state("_stop", |cx| cx.heap().say("_stop"))
        .spawn(&mut kernel)
        .expect("a session");
    plain("sender", &log)
        .state("_start", |cx| cx.delay("late", millis(5), ()))
        .state("late", move |cx| {
            cx.heap().say("late");
            Ok(cx.signal(waiter, "hello", ())?)
        })
        .spawn(&mut kernel)
        .expect("a session");
    kernel.run().expect("a clean end");
    assert_eq!(*log.borrow(), ["sender late", "waiter hello", "waiter _stop"]);
}

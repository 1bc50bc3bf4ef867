//! Exceptions: the `DIE` signal, and what `run` returns (K-EX).

use std::cell::Cell;
use std::fmt;

use lenore::{Context, Died, Error, Exception, Handle, Kernel, Reply, Session, SessionId};
use util::diary::{Diary, Log, lines, millis, new_kernel, note, plain, who, witness};

#[path = "exceptions/panics.rs"]
mod panics;

/// What the states here die with: a value of the program's own.
#[derive(Debug, PartialEq)]
struct Ache(u32);

impl fmt::Display for Ache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ache {}", self.0)
    }
}

impl std::error::Error for Ache {}

fn ache(cx: &mut Context<'_, Diary>) -> lenore::Result {
    note(cx);
    Err(Ache(1).into())
}

/// Writes down which session died of what.
fn note_die(cx: &mut Context<'_, Diary>) -> lenore::Result {
    let died = cx.arg::<Died>(1)?.clone();
    cx.heap().say(format_args!("sees {died}"));
    Ok(())
}

fn handle_die(cx: &mut Context<'_, Diary>) -> lenore::Result {
    cx.sig_handled();
    note_die(cx)
}

/// A witness that sees `DIE` with `state`.
fn nurse(name: &'static str, log: &Log, state: fn(&mut Context<'_, Diary>) -> lenore::Result) -> Session<Diary> {
    witness(name, log).state("_start", |cx| cx.sig("DIE", "on_die")).state("on_die", state)
}

fn died(result: Result<(), Error>) -> Died {
    match result {
        Err(Error::Died(died)) => *died,
        other => panic!("run should have thrown, but: {other:?}"),
    }
}

#[test] // K-EX-01, K-EX-02, K-EX-05
fn die_waits_its_turn_behind_what_is_queued_already() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let patient = nurse("s", &log, handle_die).state("ache", ache).state("after", note).spawn(&mut kernel)?;
    let other = witness("other", &log).state("e", note).spawn(&mut kernel)?;
    kernel.post(patient, "ache", ())?;
    kernel.post(patient, "after", ())?;
    kernel.post(other, "e", ())?;
    kernel.run()?;
    let expected = ["s ache", "s after", "other e", "other _stop", "s sees session 1, state ache: ache 1", "s _stop"];
    assert_eq!(lines(&log), expected);
    Ok(())
}

#[test] // K-EX-03
fn the_record_of_die_says_who_died_of_what() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let line = Cell::new(0);
    let patient = plain("patient", &log)
        .state("_start", |cx| cx.sig("DIE", "on_die"))
        .state("ache", ache)
        .state("on_die", move |cx| {
            assert_eq!(cx.sender(), SessionId::KERNEL);
            assert_eq!(cx.args().len(), 2);
            assert_eq!(*cx.arg::<&str>(0)?, "DIE");
            let died = cx.take::<Died>(1)?;
            assert_eq!(died.exception.downcast_ref::<Ache>(), Some(&Ache(1)), "the value itself");
            assert_eq!((died.dest_session, who(died.source_session)), (cx.session(), "2".into()));
            assert_eq!(died.event, "ache");
            assert!(died.from_state.is_some_and(|state| state == "send"));
            assert!(died.location.file().ends_with("exceptions.rs"));
            assert!(died.also.is_none());
            cx.sig_handled();
            note(cx);
            Ok(())
        })
        .spawn(&mut kernel)?;
    plain("sender", &log)
        .state("_start", |cx| cx.yield_("send", ()))
        .state("send", move |cx| {
            line.set(line!());
            cx.post(patient, "ache", ()).map_err(Exception::from)
        })
        .spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["patient ache", "patient on_die"]);
    Ok(())
}

/// Top(P(S(C(G)), sibling)) and other: S has an `ache`, everybody sees `DIE`; `mid` is P's reaction.
fn ward(log: &Log, kernel: &mut Kernel, mid: fn(&mut Context<'_, Diary>) -> lenore::Result) {
    type Plant = Box<dyn Fn(&mut Context<'_, Diary>) -> lenore::Result>;
    let with = |session: Session<Diary>, plant: Plant| {
        session.state("_start", move |cx| {
            cx.sig("DIE", "on_die");
            plant(cx)
        })
    };
    let (for_c, for_s, for_p, for_top) = (log.clone(), log.clone(), log.clone(), log.clone());
    let c = move || {
        let log = for_c.clone();
        let plant: Plant = Box::new(move |cx| nurse("G", &log, note_die).spawn(cx).map(drop).map_err(Exception::from));
        with(nurse("C", &for_c, note_die), plant)
    };
    let s = move || {
        let c = c.clone();
        let plant: Plant = Box::new(move |cx| c().spawn(cx).map(drop).map_err(Exception::from));
        with(nurse("S", &for_s, note_die).state("ache", ache), plant)
    };
    let p = move || {
        let (s, log) = (s.clone(), for_p.clone());
        let plant: Plant = Box::new(move |cx| {
            let id = s().spawn(cx)?;
            nurse("sibling", &log, note_die).spawn(cx)?;
            cx.post(id, "ache", ()).map_err(Exception::from)
        });
        with(nurse("P", &for_p, mid), plant)
    };
    let plant: Plant = Box::new(move |cx| p().spawn(cx).map(drop).map_err(Exception::from));
    with(nurse("Top", &for_top, note_die), plant).spawn(kernel).expect("it has a _start");
    nurse("other", log, note_die).spawn(kernel).expect("it has a _start");
    let born =
        ["C _child create 5", "S _child create 4", "P _child create 3", "P _child create 6", "Top _child create 2"];
    assert_eq!(lines(log), born);
    // Nobody may be collected before the signal.
    for session in kernel.peek().sessions {
        kernel.refcount_increment(session.id, "stay").expect("it lives");
    }
}

const ROUNDS: [&str; 6] = [
    "S ache",
    "G sees session 3, state ache: ache 1",
    "C sees session 3, state ache: ache 1",
    "S sees session 3, state ache: ache 1",
    "P sees session 3, state ache: ache 1",
    "Top sees session 3, state ache: ache 1",
];

#[test] // K-EX-04, K-EX-05, K-SG-20
fn die_visits_the_descendants_the_session_and_its_ancestors() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    ward(&log, &mut kernel, handle_die);
    assert!(kernel.run_one_timeslice()?);
    assert!(kernel.run_one_timeslice()?);
    assert_eq!(lines(&log), ROUNDS);
    kernel.stop();
    kernel.run()
}

#[test] // K-EX-06, K-LP-12
fn an_unhandled_die_stops_the_visited_then_everybody_and_run_throws() {
    let (log, mut kernel) = (Log::default(), new_kernel());
    ward(&log, &mut kernel, note_die);
    let died = died(kernel.run());
    assert_eq!(died.to_string(), "session 3, state ache: ache 1");
    assert_eq!(died.exception.downcast_ref::<Ache>(), Some(&Ache(1)), "K-EX-07 as K-RE-13 wants it");
    let stops = [
        "G _stop",
        "C _child lose 5",
        "C _stop",
        "S _child lose 4",
        "S _stop",
        "P _child lose 3",
        // P goes before its other child, which was not visited and so is inherited.
        "Top _child gain 6",
        "sibling _parent 2 1",
        "P _stop",
        "Top _child lose 2",
        "sibling _parent 1 kernel",
        "Top _stop",
        "sibling _stop",
        "other _stop",
    ];
    assert_eq!(lines(&log), [&ROUNDS[..], &stops].concat());
    assert!(kernel.peek().sessions.is_empty());
    assert_eq!(kernel.event_count(), 0);
}

#[test] // K-EX-08
fn the_first_of_several_unhandled_exceptions_wins() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    for name in ["1", "2"] {
        witness(name, &log)
            .state("_start", |cx| cx.yield_("ache", ()))
            .state("ache", ache)
            .state("_stop", |cx| {
                note(cx);
                Err::<(), _>(Ache(9).into())
            })
            .spawn(&mut kernel)?;
    }
    assert_eq!(died(kernel.run()).to_string(), "session 1, state ache: ache 1");
    assert_eq!(lines(&log), ["1 ache", "2 ache", "1 _stop", "2 _stop"]);
    Ok(())
}

#[test] // K-EX-09
fn an_exception_in_a_die_handler_comes_with_the_unhandled_one() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    nurse("s", &log, |cx| {
        note_die(cx)?;
        Err(Ache(2).into())
    })
    .state("ache", ache)
    .spawn(&mut kernel)
    .and_then(|id| kernel.post(id, "ache", ()))?;
    witness("other", &log).state("_start", |cx| cx.alias_set("stays").map_err(Exception::from)).spawn(&mut kernel)?;
    let died = died(kernel.run());
    assert_eq!(died.exception.downcast_ref::<Ache>(), Some(&Ache(1)));
    let second = died.also.as_ref().expect("the second error");
    assert_eq!(second.exception.downcast_ref::<Ache>(), Some(&Ache(2)));
    assert_eq!(second.event, "on_die");
    let text = "session 1, state ache: ache 1; then, in a handler of DIE: session 1, state on_die: ache 2";
    assert_eq!(died.to_string(), text);
    let expected = ["s ache", "s sees session 1, state ache: ache 1", "s _stop", "other _stop"];
    assert_eq!(lines(&log), expected);
    Ok(())
}

#[test] // K-EX-09
fn an_exception_in_a_die_handler_that_handled_is_fatal_alone() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    nurse("s", &log, |cx| {
        cx.sig_handled();
        Err(Ache(2).into())
    })
    .state("ache", ache)
    .spawn(&mut kernel)
    .and_then(|id| kernel.post(id, "ache", ()))?;
    let died = died(kernel.run());
    assert_eq!((died.to_string().as_str(), died.also.is_none()), ("session 1, state on_die: ache 2", true));
    assert_eq!(lines(&log), ["s ache", "s _stop"]);
    Ok(())
}

#[test] // K-EX-10, K-EX-11 as K-RE-14 wants it
fn an_exception_in_stop_ends_the_kernel_at_the_end_of_the_sweep() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let for_child = log.clone();
    nurse("P", &log, handle_die)
        .state("_start", move |cx| {
            cx.sig("DIE", "on_die");
            cx.delay("too late", millis(60_000), ());
            witness("C", &for_child)
                .state("_stop", |cx| {
                    note(cx);
                    Err::<&str, _>(Ache(3).into())
                })
                .spawn(cx)?;
            Ok(())
        })
        .state("_child", |cx| {
            util::diary::note_child(cx)?;
            if cx.args().len() == 3 {
                assert!(matches!(cx.take::<Reply>(2), Ok(Reply::NoValue) | Err(_)));
            }
            Ok(())
        })
        .spawn(&mut kernel)?;
    witness("swept too", &log).spawn(&mut kernel)?;
    let died = died(kernel.run());
    assert_eq!(died.to_string(), "session 2, state _stop: ache 3");
    assert_eq!(lines(&log), ["P _child create 2", "swept too _stop", "C _stop", "P _child lose 2", "P _stop"]);
    Ok(())
}

#[test] // K-EX-12
fn after_run_has_thrown_the_kernel_can_be_used_again() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    witness("1", &log).state("_start", |cx| cx.yield_("ache", ())).state("ache", ache).spawn(&mut kernel)?;
    died(kernel.run());
    witness("2", &log).state("_start", |cx| cx.yield_("e", ())).state("e", note).spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["1 ache", "1 _stop", "2 e", "2 _stop"]);
    Ok(())
}

#[test] // K-LP-17
fn a_single_slice_throws_at_its_end() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let id = witness("s", &log).state("ache", ache).spawn(&mut kernel)?;
    kernel.post(id, "ache", ())?;
    assert!(kernel.run_one_timeslice()?, "DIE is queued");
    assert_eq!(died(kernel.run_one_timeslice().map(drop)).to_string(), "session 1, state ache: ache 1");
    assert_eq!(lines(&log), ["s ache", "s _stop"]);
    while kernel.run_one_timeslice()? {}
    Ok(())
}

#[test] // K-EX-13, K-CL-05
fn an_exception_in_a_call_to_another_session_is_that_sessions() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let callee = nurse("callee", &log, handle_die).state("ache", ache).spawn(&mut kernel)?;
    witness("caller", &log)
        .state("_start", |cx| cx.yield_("go", ()))
        .state("go", move |cx| {
            assert!(matches!(cx.call(callee, "ache", ())?, Reply::NoValue));
            cx.heap().say("goes on");
            Ok(())
        })
        .spawn(&mut kernel)?;
    kernel.run()?;
    let expected =
        ["callee ache", "caller goes on", "caller _stop", "callee sees session 1, state ache: ache 1", "callee _stop"];
    assert_eq!(lines(&log), expected);
    Ok(())
}

#[test] // K-EX-13, K-CL-07
fn an_exception_in_a_self_call_is_the_callers() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    nurse("s", &log, handle_die)
        .state("ache", ache)
        .state("catches", |cx| {
            let me = cx.session();
            match cx.call(me, "ache", ()) {
                Err(Error::Exception(exception)) => cx.heap().say(format_args!("caught {exception}")),
                other => panic!("{other:?}"),
            }
        })
        .state("does not", |cx| {
            let me = cx.session();
            cx.call(me, "ache", ())?;
            Ok(())
        })
        .spawn(&mut kernel)
        .and_then(|id| {
            kernel.post(id, "catches", ())?;
            kernel.post(id, "does not", ())
        })?;
    kernel.run()?;
    let expected = ["s ache", "s caught ache 1", "s ache", "s sees session 1, state does not: ache 1", "s _stop"];
    assert_eq!(lines(&log), expected);
    Ok(())
}

#[test] // K-EX-14
fn an_exception_is_the_same_wherever_it_comes_from() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a socket pair");
    drop(theirs);
    let handle = Handle::new(ours);
    let for_child = log.clone();
    let ache_once = |_: &mut Context<'_, Diary>| -> lenore::Result { Err(Ache(1).into()) };
    let quiet = |session: Session<Diary>| session.state("_stop", |_| ()).state("on_die", handle_die);
    quiet(plain("P", &log))
        .state("_start", move |cx| {
            cx.sig("DIE", "on_die");
            cx.sig("foo", "on_foo");
            cx.delay("timer", millis(3), ());
            cx.select_read(&handle, "io", ())?;
            quiet(plain("C", &for_child))
                .state("leave", |cx| cx.detach_myself().map_err(Exception::from))
                .state("_parent", ache_once)
                .state("_start", |cx| {
                    cx.sig("DIE", "on_die");
                    cx.yield_("leave", ());
                })
                .spawn(cx)?;
            cx.signal(SessionId::KERNEL, "foo", ()).map_err(Exception::from)
        })
        .state("io", |cx| {
            let handle = cx.arg::<Handle>(0)?.clone();
            cx.select_read_clear(&handle);
            Err::<(), _>(Ache(1).into())
        })
        .state("timer", ache_once)
        .state("on_foo", ache_once)
        .state("_child", ache_once)
        .spawn(&mut kernel)?;
    kernel.run()?;
    let expected = [
        "P sees session 1, state _child: ache 1",
        "P sees session 1, state io: ache 1",
        "P sees session 1, state _child: ache 1",
        "C sees session 2, state _parent: ache 1",
        "P sees session 1, state on_foo: ache 1",
        "P sees session 1, state timer: ache 1",
    ];
    assert_eq!(lines(&log), expected, "two of _child: create and lose");
    Ok(())
}

#[test] // K-EX-17
fn a_die_without_a_record_is_a_terminal_signal_like_others() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let id = witness("s", &log)
        .state("_start", |cx| cx.sig("DIE", "on_die"))
        .state("on_die", |cx| {
            assert_eq!(cx.args().len(), 1);
            note(cx);
        })
        .spawn(&mut kernel)?;
    witness("t", &log).state("_start", |cx| cx.delay("tick", millis(1), ())).state("tick", note).spawn(&mut kernel)?;
    kernel.signal(id, "DIE", ())?;
    kernel.run()?;
    assert_eq!(lines(&log), ["s on_die", "s _stop", "t tick", "t _stop"]);
    Ok(())
}

#[test] // K-EX-03 with K-EV-30: the failing event is the one that was sent
fn an_exception_in_default_names_the_event_that_was_sent() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let id = plain("s", &log).state("_stop", |_| ()).state("_default", |_| Err::<(), _>(Ache(1).into()));
    let id = id.spawn(&mut kernel)?;
    kernel.post(id, "unknown", ())?;
    assert_eq!(died(kernel.run()).event, "unknown");
    Ok(())
}

#[test] // K-EX-08, K-EV-28: it is dropped with the session
fn the_exception_of_a_session_that_is_stopped_meanwhile_is_dropped() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let id = witness("s", &log).state("ache", ache).spawn(&mut kernel)?;
    kernel.post(id, "ache", ())?;
    kernel.signal(id, "KILL", ())?;
    kernel.run()?;
    assert_eq!(lines(&log), ["s ache", "s _stop"]);
    Ok(())
}

#[test]
fn what_main_returns_is_printed_as_a_text() {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let patient = plain("patient", &log).state("_start", |_| ()).state("greedy", |cx| {
        cx.take::<u32>(0)?;
        Ok(())
    });
    let patient = patient.spawn(&mut kernel).unwrap();
    kernel.post(patient, "greedy", ("text",)).unwrap();
    let error = kernel.run().unwrap_err();
    assert_eq!(format!("{error:?}"), "session 1, state greedy: argument 0 should be u32, but is &str");
    assert_eq!(format!("{:?}", died(Err(error))), "session 1, state greedy: argument 0 should be u32, but is &str");
}

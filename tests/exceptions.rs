//! Exceptions: the `DIE` signal, and what `run` returns (K-EX).

use std::cell::Cell;
use std::fmt;

use lenore::wheel::ReadWrite;
use lenore::{Context, Died, Error, Exception, Handle, IntoArgs, Kernel, Reply, Return, Session, SessionId};
use util::diary::{Diary, Log, lines, millis, new_kernel, note, plain, who, witness};
use util::parting::Parting;

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

#[test] // design 2: a panic is an exception
fn a_panic_becomes_die_and_the_loop_goes_on() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let id = nurse("s", &log, |cx| {
        assert!(cx.arg::<Died>(1)?.exception.is_panic());
        handle_die(cx)
    })
    .state("panics", |cx| {
        if cx.args().is_empty() {
            // Without the message on the standard error that `panic!` would leave there.
            std::panic::resume_unwind(Box::new("out of cheese"));
        }
    })
    .state("after", note)
    .spawn(&mut kernel)?;
    kernel.post(id, "panics", ())?;
    kernel.post(id, "after", ())?;
    kernel.run()?;
    assert_eq!(lines(&log), ["s after", "s sees session 1, state panics: panicked: out of cheese", "s _stop"]);
    Ok(())
}

/// Fails when it is dropped.
#[derive(Clone)]
struct Brittle;

impl Drop for Brittle {
    fn drop(&mut self) {
        std::panic::resume_unwind(Box::new("broken"));
    }
}

#[test] // design 2: in the state as far as anybody can tell
fn a_panic_while_arguments_are_dropped_becomes_die() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let id = nurse("s", &log, handle_die)
        .state("handled", note)
        .state("fails", |_| Err::<(), _>(Ache(1).into()))
        .state("after", note)
        .spawn(&mut kernel)?;
    for event in ["handled", "fails", "unknown"] {
        kernel.post(id, event, (Brittle,))?;
    }
    kernel.post(id, "after", ())?;
    kernel.run()?;
    let sees = ["s sees session 1, state handled: panicked: broken", "s sees session 1, state fails: ache 1"];
    assert_eq!(lines(&log), ["s handled", "s after", sees[0], sees[1], "s _stop"]);
    Ok(())
}

#[test] // design 2: nobody is left who could be told
fn a_panic_while_a_session_is_dropped_stops_nobody_else() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let id = Session::new(Brittle)
        .state("_start", |cx| cx.delay("never", std::time::Duration::from_secs(600), (Brittle,)))
        .spawn(&mut kernel)?;
    witness("t", &log).state("_start", |cx| cx.delay("tick", millis(1), ())).state("tick", note).spawn(&mut kernel)?;
    kernel.signal(id, "KILL", ())?;
    kernel.run()?;
    assert_eq!(lines(&log), ["t tick", "t _stop"]);
    Ok(())
}

/// Fails when it is cloned.
struct Unique;

impl Clone for Unique {
    fn clone(&self) -> Unique {
        std::panic::resume_unwind(Box::new("there is but one"))
    }
}

/// An error whose text can't be written, and whose end fails as well.
#[derive(Debug)]
struct Unspeakable(#[allow(dead_code, reason = "for its drop")] Brittle);

impl fmt::Debug for Brittle {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

impl fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::panic::resume_unwind(Box::new("no words"))
    }
}

impl std::error::Error for Unspeakable {}

#[test] // K-EX-01: whatever the program has given away, and whenever the kernel lets go of it
fn nothing_of_the_programs_own_can_end_the_run_by_a_panic() -> Result<(), Error> {
    type Make = fn(&Log, &mut Kernel) -> Result<(), Error>;
    let cases: [(&str, Make); 20] = [
        ("a state that another of its name replaces", |log, kernel| {
            let brittle = Brittle;
            plain("s", log)
                .state("e", move |_| drop(brittle.clone()))
                .state("e", note)
                .state("_start", |cx| cx.yield_("e", ()))
                .spawn(kernel)
                .map(drop)
        }),
        ("two extra arguments", |log, kernel| {
            let (ours, _) = std::os::unix::net::UnixStream::pair().expect("a socket pair");
            let handle = Handle::new(ours);
            let id = plain("s", log)
                .state("_start", move |cx| {
                    cx.sig_with("foo", "e", (Brittle, Brittle));
                    Ok(cx.select_read(&handle, "e", (Brittle, Brittle))?)
                })
                .spawn(kernel)?;
            kernel.signal_now(id, "KILL", ())
        }),
        ("two arguments of one event", |log, kernel| {
            let id = nurse("s", log, handle_die).state("e", note).spawn(kernel)?;
            kernel.post(id, "e", (Brittle, Brittle))?;
            kernel.post(id, "unknown", (Brittle, Brittle))?;
            kernel.signal(id, "foo", (Brittle, Brittle))
        }),
        ("what a state returns, and its arguments", |log, kernel| {
            let id = nurse("s", log, handle_die).state("e", |_| Return(Brittle)).spawn(kernel)?;
            kernel.post(id, "e", (Brittle,))
        }),
        ("two arguments of a state that panics", |log, kernel| {
            let throw = |cx: &mut Context<'_, Diary>| {
                if cx.args().len() == 2 {
                    std::panic::resume_unwind(Box::new(Brittle));
                }
            };
            let id = nurse("s", log, handle_die).state("e", throw).spawn(kernel)?;
            kernel.post(id, "e", (Brittle, Brittle))
        }),
        ("what a state returns", |log, kernel| {
            let id = nurse("s", log, handle_die).state("e", |_| Return(Brittle)).spawn(kernel)?;
            kernel.post(id, "e", ())
        }),
        ("what the state of an alarm returns", |log, kernel| {
            nurse("s", log, handle_die)
                .state("_start", |cx| cx.delay("e", millis(1), ()))
                .state("e", |_| Return(Brittle))
                .spawn(kernel)
                .map(drop)
        }),
        ("what a state returns that the kernel calls", |log, kernel| {
            let child = witness("child", log).state("_parent", |_| Return(Brittle));
            let id = util::diary::parent_of(log, child).state("_child", |_| Return(Brittle)).spawn(kernel)?;
            kernel.signal(id, "KILL", ())
        }),
        ("what the state of a handle returns", |log, kernel| {
            watching(log, ())
                .state("readable", |cx| {
                    let handle = cx.take::<Handle>(0).expect("the first argument");
                    cx.select_read_clear(&handle);
                    Return(Brittle)
                })
                .spawn(kernel)
                .map(drop)
        }),
        ("the extra arguments of sig_with", |log, kernel| {
            let id = nurse("s", log, handle_die)
                .state("_start", |cx| {
                    cx.sig("DIE", "on_die");
                    cx.sig_with("foo", "e", (Brittle,));
                    cx.sig_with("bar", "e", (Brittle,));
                })
                .state("e", note)
                .spawn(kernel)?;
            kernel.signal(id, "foo", ())?;
            kernel.signal_now(id, "bar", ())?;
            kernel.signal(id, "KILL", ())
        }),
        ("the arguments of a signal", |log, kernel| {
            let id =
                nurse("s", log, handle_die).state("_start", |cx| cx.sig("foo", "e")).state("e", note).spawn(kernel)?;
            kernel.signal(id, "foo", (Brittle,))?;
            kernel.signal_now(id, "foo", (Brittle,))?;
            kernel.signal_now(id, "bar", (Brittle,))?;
            kernel.signal(id, "bar", (Brittle,))
        }),
        ("the extra arguments of a handle", |log, kernel| {
            let id = watching(log, (Brittle,)).state("readable", note).spawn(kernel)?;
            kernel.signal(id, "KILL", ())
        }),
        ("several events and alarms of one session", |log, kernel| {
            let id = plain("s", log)
                .state("_start", |cx| {
                    for number in 0..2 {
                        cx.delay_add("never", std::time::Duration::from_secs(600), (Brittle,));
                        cx.sig_child(i32::MAX - number, "never", (Brittle,));
                    }
                })
                .spawn(kernel)?;
            kernel.signal(id, "KILL", ())?;
            kernel.post(id, "late", (Brittle,))?;
            kernel.post(id, "late", (Brittle,))
        }),
        ("a postback to a session that has stopped", |log, kernel| {
            let shelf = std::rc::Rc::new(std::cell::RefCell::new(None));
            let place = std::rc::Rc::clone(&shelf);
            let id = plain("s", log)
                .state("_start", move |cx| {
                    *place.borrow_mut() = Some(cx.postback("e", ())?);
                    Ok(())
                })
                .spawn(kernel)?;
            kernel.signal_now(id, "KILL", ())?;
            shelf.take().into_iter().for_each(|postback: lenore::Postback| postback.call((Brittle,)));
            Ok(())
        }),
        ("what a state has panicked with", |log, kernel| {
            let throw = |cx: &mut Context<'_, Diary>| {
                if cx.args().is_empty() {
                    std::panic::resume_unwind(Box::new(Brittle));
                }
            };
            let id = nurse("s", log, handle_die).state("e", throw).spawn(kernel)?;
            kernel.post(id, "e", ())
        }),
        ("a state that removes itself", |log, kernel| {
            let brittle = Brittle;
            let once = move |cx: &mut Context<'_, Diary>| {
                let _ = &brittle;
                cx.state_clear("e");
            };
            let id = nurse("s", log, handle_die).state("e", once).spawn(kernel)?;
            kernel.post(id, "e", ())
        }),
        ("states of a session that stops", |log, kernel| {
            let (one, another) = (Brittle, Brittle);
            plain("s", log)
                .state("a", move |_| drop(one.clone()))
                .state("b", move |_| drop(another.clone()))
                .spawn(kernel)
                .map(drop)
        }),
        ("an error that has no text", |log, kernel| {
            let id =
                nurse("s", log, handle_die).state("e", |_| Err::<(), _>(Unspeakable(Brittle).into())).spawn(kernel)?;
            kernel.post(id, "e", ())
        }),
        ("arguments that can't be cloned", |log, kernel| {
            let id = nurse("s", log, handle_die)
                .state("_start", |cx| {
                    cx.sig("DIE", "on_die");
                    cx.sig("foo", "e");
                })
                .state("e", note)
                .spawn(kernel)?;
            watching(log, (Unique,)).state("readable", note).spawn(kernel)?;
            kernel.signal(id, "foo", (Unique,))
        }),
        ("the filter of a wheel", |log, kernel| {
            let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a socket pair");
            let (wheels, log) = (std::cell::Cell::new(Some(ours)), log.clone());
            plain("s", &log)
                .state("_start", move |cx| {
                    let ours = wheels.take().expect("one start");
                    let _keep = &theirs;
                    drop(ReadWrite::stream(ours, Parting::new(|| drop(Brittle))).start(cx)?);
                    Ok(())
                })
                .spawn(kernel)
                .map(drop)
        }),
    ];
    for (name, make) in cases {
        let (log, mut kernel) = (Log::default(), new_kernel());
        make(&log, &mut kernel)?;
        plain("t", &log)
            .state("_start", |cx| cx.delay("tick", millis(20), ()))
            .state("tick", note)
            .spawn(&mut kernel)?;
        kernel.run()?;
        assert!(lines(&log).contains(&String::from("t tick")), "{name}: the run has ended too soon");
    }
    Ok(())
}

/// A session that watches a handle which has reached its end, and stops watching it when it dies.
fn watching<A: IntoArgs + Clone + 'static>(log: &Log, extra: A) -> Session<Diary> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a socket pair");
    drop(theirs);
    let (handle, same) = (Handle::new(ours), std::cell::Cell::new(None));
    same.set(Some(handle.clone()));
    plain("s", log)
        .state("_start", move |cx| {
            cx.sig("DIE", "on_die");
            Ok(cx.select_read(&handle, "readable", extra.clone())?)
        })
        .state("on_die", move |cx| {
            same.take().into_iter().for_each(|handle| cx.select_read_clear(&handle));
            handle_die(cx)
        })
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

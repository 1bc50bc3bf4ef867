//! State machines (K-NF).

mod common;

use std::cell::Cell;
use std::rc::Rc;

use common::{Diary, Log, lines, millis, new_kernel, plain, who, witness};
use lenore::nfa::{Machine, MachineContext, Nfa, NfaError, Transitions};
use lenore::{Args, ChildChange, Context, Died, Error, Exception, Kernel, Name, Reply, Session, SessionId};

type Cx<'a> = MachineContext<'a, Diary>;

fn machine(log: &Log) -> Nfa<Diary> {
    Nfa::new(Diary { name: "m", log: log.clone() })
}

/// A handler that writes down the state and the event.
fn note(cx: &mut Cx<'_>) {
    let (state, event) = (cx.state(), cx.event());
    cx.runstate().say(format_args!("{state}.{event}"));
}

/// Spawns a machine that an alias keeps alive once it is in the state `state`, which must handle `begin`.
fn begin(nfa: Nfa<Diary>, kernel: &mut Kernel, state: &str) -> Result<SessionId, Error> {
    let id = nfa
        .state(state, "begin", |cx| {
            cx.alias_set("m")?;
            cx.sig("DIE", "on_die");
            cx.handle_everywhere("on_die", on_die)?;
            Ok(())
        })
        .spawn(kernel)?;
    Machine::of(id).goto_state(kernel, state, "begin", ())?;
    Ok(id)
}

fn on_die(cx: &mut Cx<'_>) -> lenore::Result {
    cx.sig_handled();
    let died = cx.take::<Died>(1)?;
    cx.runstate().say(format_args!("died in {}: {}", died.event, died.exception));
    Ok(())
}

/// Posts events to a machine and runs the kernel to its end.
fn send(kernel: &mut Kernel, id: SessionId, events: &[&str]) -> Result<(), Error> {
    for event in events {
        kernel.post(id, *event, ())?;
    }
    kernel.run()
}

/// What a self-call failed with.
fn nfa_error(result: Result<(), Error>) -> NfaError {
    match result {
        Err(Error::Exception(exception)) => exception.downcast_ref::<NfaError>().expect("a machine's error").clone(),
        other => panic!("this should have failed, but: {other:?}"),
    }
}

fn died(result: Result<(), Error>) -> Died {
    match result {
        Err(Error::Died(died)) => *died,
        other => panic!("run should have thrown, but: {other:?}"),
    }
}

#[test] // K-NF-01
fn only_the_handlers_of_the_current_state_are_eligible() -> Result<(), Error> {
    fn flip(cx: &mut Cx<'_>) -> lenore::Result {
        note(cx);
        let other = if cx.state() == "off" { "on" } else { "off" };
        cx.goto_state(other, None, ())
    }
    let (log, mut kernel) = (Log::default(), new_kernel());
    let nfa = machine(&log)
        .transitions(Transitions::Immediate)
        .state("off", "toggle", flip)
        .state("on", "toggle", flip)
        .state("on", "dim", note)
        .state("off", "dim", |_| ());
    let id = begin(nfa, &mut kernel, "off")?;
    send(&mut kernel, id, &["dim", "toggle", "dim", "toggle", "dim", "toggle"])?;
    assert_eq!(lines(&log), ["m off.toggle", "m on.dim", "m on.toggle", "m off.toggle"]);
    Ok(())
}

#[test] // K-NF-01, K-NF-14
fn a_handler_gets_the_machine_its_runstate_the_event_the_sender_the_state_and_the_arguments() -> Result<(), Error> {
    let mut kernel = new_kernel();
    let id = Nfa::new(vec![1])
        .state("here", "add", |cx| {
            let (number, text) = (cx.take::<i32>(0)?, *cx.arg::<&str>(1)?);
            assert_eq!((text, cx.args().len()), ("two", 2));
            assert!(cx.take::<i32>(0).is_err(), "it was taken");
            assert_eq!((who(cx.machine()), who(cx.session()), who(cx.sender())), ("1".into(), "1".into(), "2".into()));
            assert_eq!((cx.event(), cx.state()), (Name::new("add"), Name::new("here")));
            assert!(cx.caller_state().is_some_and(|state| state == "_start"));
            assert!(cx.caller().file().ends_with("nfa.rs"));
            let (runstate, core) = cx.split();
            runstate.push(number);
            core.yield_("end", ());
            Ok(())
        })
        .state("here", "end", |cx| assert_eq!(*cx.runstate(), [1, 2]))
        .spawn(&mut kernel)?;
    Machine::of(id).goto_state(&mut kernel, "here", None, ())?;
    Session::new(())
        .state("_start", move |cx| cx.post(id, "add", (2, "two")).map_err(Exception::from))
        .spawn(&mut kernel)?;
    kernel.run()
}

#[test] // K-NF-02
fn a_machine_without_states_is_refused() -> Result<(), Error> {
    let mut kernel = new_kernel();
    assert_eq!(nfa_error(Nfa::new(()).spawn(&mut kernel).map(drop)), NfaError::NoStates);
    for name in ["_signal", "_nfa_stop", "_nfa_goto_state"] {
        let refused = Nfa::new(()).state("s", name, |_| ()).spawn(&mut kernel);
        assert!(matches!(refused, Err(Error::ReservedState(refused)) if refused == name));
    }
    let first = Nfa::new(()).state("s", "e", |_| ()).spawn(&mut kernel)?;
    assert_eq!(first.number(), 1, "the refused ones took no number");
    kernel.run()
}

#[test] // K-NF-02: inline, package and object states
fn a_handler_may_be_a_method_a_function_or_a_closure_and_the_last_one_counts() -> Result<(), Error> {
    struct Object(Vec<&'static str>);
    impl Object {
        fn method(cx: &mut MachineContext<'_, Object>) {
            cx.runstate().0.push("method");
        }
    }
    fn function(cx: &mut MachineContext<'_, Object>) -> lenore::Result<usize> {
        cx.runstate().0.push("function");
        Ok(cx.runstate().0.len())
    }
    let mut kernel = new_kernel();
    let id = Nfa::new(Object(Vec::new()))
        .state("s", "closure", |cx| cx.runstate().0.clear())
        .state("s", "method", Object::method)
        .state("s", "function", function)
        .state("s", "closure", |cx| cx.runstate().0.push("closure"))
        .spawn(&mut kernel)?;
    Machine::of(id).goto_state(&mut kernel, "s", "method", ())?;
    kernel.call(id, "closure", ())?; // the first of that name would have cleared it
    assert_eq!(kernel.call(id, "function", ())?.take::<usize>()?, 3);
    kernel.run()
}

#[test] // K-NF-03
fn a_new_machine_is_in_no_state_and_never_sees_start_and_stop() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let nfa = machine(&log).state("s", "_start", note).state("s", "_stop", note).state("s", "_default", note);
    let id = begin(nfa.state("s", "e", note), &mut kernel, "s")?;
    let stateless = machine(&log).state("s", "_start", note).state("s", "e", note).spawn(&mut kernel)?;
    assert_eq!(Machine::of(stateless).state(&mut kernel)?, "(undef)");
    assert_eq!(Machine::of(id).state(&mut kernel)?, "s");
    send(&mut kernel, id, &["e", "_start", "_stop"])?;
    assert_eq!(lines(&log), ["m s.e"]);
    Ok(())
}

#[test] // K-NF-03, K-NF-10
fn an_event_before_the_first_transition_is_an_exception() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let id = machine(&log).state("s", "e", note).state("s", "_default", note).spawn(&mut kernel)?;
    kernel.post(id, "e", ())?;
    let expected = NfaError::Unhandled { machine: id, state: "(undef)".into(), event: "e".into() };
    assert_eq!(died(kernel.run()).exception.downcast_ref(), Some(&expected));
    assert_eq!(expected.to_string(), "session 1, in state (undef): no handler for e, nor for _default");
    Ok(())
}

#[test] // K-NF-04
fn the_first_transition_is_made_at_once_and_later_ones_are_posted() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let id = machine(&log).state("a", "in", note).state("b", "in", note).state("a", "e", note).spawn(&mut kernel)?;
    let machine = Machine::of(id);
    machine.goto_state(&mut kernel, "a", "in", ())?;
    assert_eq!(lines(&log), ["m a.in"]);
    kernel.post(id, "e", ())?;
    machine.goto_state(&mut kernel, "b", "in", ())?;
    kernel.post(id, "in", ())?;
    assert_eq!(machine.state(&mut kernel)?, "a");
    assert_eq!(lines(&log), [""; 0]);
    kernel.run()?;
    assert_eq!(lines(&log), ["m a.e", "m b.in", "m b.in"]);
    Ok(())
}

#[test] // K-NF-04, K-NF-15
fn an_immediate_machine_makes_every_transition_at_once() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let id = machine(&log)
        .transitions(Transitions::Immediate)
        .state("a", "in", note)
        .state("b", "in", note)
        .state("b", "back", note)
        .spawn(&mut kernel)?;
    let machine = Machine::of(id);
    machine.goto_state(&mut kernel, "a", "in", ())?;
    machine.goto_state(&mut kernel, "b", "in", ())?;
    machine.call_state(&mut kernel, "back", "a", "in", ())?;
    machine.return_state(&mut kernel, ())?;
    assert_eq!(lines(&log), ["m a.in", "m b.in", "m a.in", "m b.back"]);
    kernel.run()
}

/// The old state writes `leave`, both write their enter events; `go` goes from a to b with two arguments.
fn corridor(log: &Log, transitions: Transitions) -> Nfa<Diary> {
    fn look(cx: &mut Cx<'_>) {
        let (state, event, args) = (cx.state(), cx.event(), cx.args().len());
        let (sender, from) = (who(cx.sender()), cx.caller_state());
        cx.runstate().say(format_args!("{state}.{event} {args} from {sender} {from:?}"));
    }
    machine(log)
        .transitions(transitions)
        .state("a", "go", |cx| {
            cx.goto_state("b", "in", (1, 2))?;
            let state = cx.state();
            cx.runstate().say(format_args!("went, now {state}"));
            Ok(())
        })
        .state("a", "leave", look)
        .state("b", "in", look)
        .state("a", "e", note)
        .state("b", "e", note)
}

#[test] // K-NF-04, K-NF-05, K-NF-06
fn a_posted_transition_leaves_switches_and_enters_in_its_turn() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let id = begin(corridor(&log, Transitions::Posted), &mut kernel, "a")?;
    send(&mut kernel, id, &["go", "e"])?;
    assert_eq!(lines(&log), ["m went, now a", "m a.e", "m a.leave 0 from 1 None", "m b.in 2 from 1 None"]);
    Ok(())
}

#[test] // K-NF-05, K-NF-06
fn events_queued_after_a_posted_transition_meet_the_new_state() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let id = begin(machine(&log).state("a", "e", note).state("b", "e", note), &mut kernel, "a")?;
    for (event, state) in [("e", "b"), ("e", "a"), ("e", "b")] {
        kernel.post(id, event, ())?;
        Machine::of(id).goto_state(&mut kernel, state, None, ())?;
        kernel.post(id, event, ())?;
    }
    kernel.run()?;
    assert_eq!(lines(&log), ["m a.e", "m b.e", "m b.e", "m a.e", "m a.e", "m b.e"]);
    Ok(())
}

#[test] // K-NF-05, K-NF-15
fn an_immediate_transition_is_complete_when_goto_state_returns() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let id = begin(corridor(&log, Transitions::Immediate), &mut kernel, "a")?;
    send(&mut kernel, id, &["go", "e"])?;
    assert_eq!(lines(&log), ["m a.leave 0 from 1 None", "m b.in 2 from 1 None", "m went, now b", "m b.e"]);
    Ok(())
}

#[test] // K-NF-05
fn the_enter_event_gets_the_arguments_moved() -> Result<(), Error> {
    #[derive(Debug, PartialEq)]
    struct NoCopy(u8);
    let (log, mut kernel) = (Log::default(), new_kernel());
    let id = machine(&log)
        .state("a", "in", |cx| {
            let value = cx.take::<NoCopy>(0)?;
            cx.goto_state("b", "in", (value,))
        })
        .state("b", "in", |cx| {
            let value = cx.take::<NoCopy>(0)?;
            cx.runstate().say(format_args!("{value:?}"));
            Ok(())
        })
        .spawn(&mut kernel)?;
    Machine::of(id).goto_state(&mut kernel, "a", "in", (NoCopy(7),))?;
    kernel.run()?;
    assert_eq!(lines(&log), ["m NoCopy(7)"]);
    Ok(())
}

#[test] // K-NF-05: (1) comes before (2)
fn a_transition_that_can_not_be_made_changes_nothing() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let nfa = machine(&log)
        .transitions(Transitions::Immediate)
        .state("a", "leave", note)
        .state("b", "_default", note)
        .state("a", "try", |cx| {
            let me = cx.machine();
            let (a, b, event) = (Name::new("a"), Name::new("b"), Some(Name::new("try")));
            let nowhere = Machine::of(me).goto_state(cx, "c", "in", ());
            let wanted = Name::new("c");
            assert_eq!(nfa_error(nowhere), NfaError::NoSuchState { machine: me, state: a, event, wanted });
            let no_enter = Machine::of(me).call_state(cx, None, b, "in", ());
            let expected = NfaError::NoEnterEvent { machine: me, state: a, wanted: b, event: "in".into() };
            assert_eq!(nfa_error(no_enter), expected, "_default does not count");
            assert_eq!(
                nfa_error(Machine::of(me).return_state(cx, ())),
                NfaError::EmptyStack { machine: me, state: a, event }
            );
            assert_eq!(cx.state(), "a");
        });
    let id = begin(nfa, &mut kernel, "a")?;
    send(&mut kernel, id, &["try"])?;
    assert_eq!(lines(&log), [""; 0]);
    Ok(())
}

#[test] // K-NF-05, K-NF-08, K-NF-12
fn a_posted_transition_that_can_not_be_made_is_an_exception_of_its_own() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let nfa = machine(&log)
        .state("a", "leave", note)
        .state("a", "e", note)
        .state("b", "e", note)
        .state("a", "nowhere", |cx| cx.goto_state("c", None, ()))
        .state("a", "no way in", |cx| cx.goto_state("b", "in", ()))
        .state("a", "back", |cx| cx.return_state(()));
    let id = begin(nfa, &mut kernel, "a")?;
    send(&mut kernel, id, &["nowhere", "no way in", "back", "e"])?;
    let expected = [
        "m a.e",
        "m died in _nfa_goto_state: session 1, in state a, event nowhere: there is no state c to go to",
        "m died in _nfa_goto_state: session 1, in state a: state b can't be entered with in, having no handler",
        "m died in _nfa_return_state: session 1, in state a, event back: no state was called, so none can return",
    ];
    assert_eq!(lines(&log), expected);
    Ok(())
}

#[test] // K-NF-05, K-NF-12
fn a_leave_that_fails_keeps_the_machine_where_it_is() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let times = Cell::new(0);
    let nfa = machine(&log)
        .transitions(Transitions::Immediate)
        .state("a", "go", |cx| cx.call_state("back", "b", "in", ()))
        .state("a", "leave", move |cx| {
            note(cx);
            times.set(times.get() + 1);
            match times.get() {
                1 => Err(Exception::new("not yet")),
                2 => panic!("never"),
                _ => Ok(()),
            }
        })
        .state("a", "back", note)
        .state("b", "in", note)
        .state("a", "return", |cx| cx.return_state(()))
        .state("b", "return", |cx| cx.return_state(()));
    let id = begin(nfa, &mut kernel, "a")?;
    send(&mut kernel, id, &["go", "go", "go", "return", "return"])?;
    let expected = [
        "m a.leave",
        "m a.leave",
        "m a.leave",
        "m b.in",
        "m a.back",
        "m died in go: not yet",
        "m died in go: panicked: never",
        // Neither of the failed calls left anything to return to.
        "m died in return: session 1, in state a, event return: no state was called, so none can return",
    ];
    assert_eq!(lines(&log), expected);
    Ok(())
}

#[test] // K-NF-05: unlike POE, where this never ends
fn what_leave_asks_for_is_posted_even_by_an_immediate_machine() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let nfa = machine(&log)
        .transitions(Transitions::Immediate)
        .state("a", "go", |cx| cx.goto_state("b", "in", ()))
        .state("a", "leave", |cx| {
            note(cx);
            cx.goto_state("c", "in", ())
        })
        .state("b", "in", note)
        .state("b", "leave", note)
        .state("c", "in", note);
    let id = begin(nfa, &mut kernel, "a")?;
    send(&mut kernel, id, &["go"])?;
    assert_eq!(lines(&log), ["m a.leave", "m b.in", "m b.leave", "m c.in"]);
    Ok(())
}

#[test] // K-NF-07, K-NF-08
fn a_called_state_returns_to_its_caller_with_the_return_event() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let nfa = machine(&log)
        .state("main", "go", |cx| {
            note(cx);
            cx.call_state("answered", "ask", "in", ("really?",))?;
            cx.yield_("answer", (42,)); // behind the transition
            Ok(())
        })
        .state("main", "answered", |cx| {
            note(cx);
            let (answer, sender) = (*cx.arg::<i32>(0)?, who(cx.sender()));
            cx.runstate().say(format_args!("{answer} from {sender}"));
            Ok(())
        })
        .state("main", "leave", note)
        .state("ask", "in", |cx| {
            note(cx);
            let question = *cx.arg::<&str>(0)?;
            cx.runstate().say(question);
            Ok(())
        })
        .state("ask", "answer", |cx| {
            note(cx);
            let answer = cx.take::<i32>(0)?;
            cx.return_state((answer,))?;
            note(cx);
            Ok(())
        })
        .state("ask", "leave", note);
    let id = begin(nfa, &mut kernel, "main")?;
    send(&mut kernel, id, &["go"])?;
    let expected = [
        "m main.go",
        "m main.leave",
        "m ask.in",
        "m really?",
        "m ask.answer",
        "m ask.answer",
        "m ask.leave",
        "m main.answered",
        "m 42 from 1",
    ];
    assert_eq!(lines(&log), expected);
    Ok(())
}

#[test] // K-NF-07, K-NF-08, K-NF-15
fn calls_nest_and_a_state_may_call_itself() -> Result<(), Error> {
    fn descend(cx: &mut Cx<'_>) -> lenore::Result {
        let depth = cx.take::<u32>(0)?;
        cx.runstate().say(format_args!("down {depth}"));
        if depth < 3 { cx.call_state("up", "deep", "down", (depth + 1,)) } else { cx.return_state((depth,)) }
    }
    let (log, mut kernel) = (Log::default(), new_kernel());
    for transitions in [Transitions::Posted, Transitions::Immediate] {
        let nfa = machine(&log)
            .transitions(transitions)
            .state("top", "go", |cx| cx.call_state("up", "deep", "down", (1_u32,)))
            .state("top", "up", note)
            .state("deep", "down", descend)
            .state("deep", "up", |cx| {
                let depth = cx.take::<u32>(0)? - 1;
                cx.runstate().say(format_args!("up {depth}"));
                cx.return_state((depth,))
            });
        let id = begin(nfa, &mut kernel, "top")?;
        send(&mut kernel, id, &["go"])?;
        assert_eq!(
            lines(&log),
            ["m down 1", "m down 2", "m down 3", "m up 2", "m up 1", "m top.up"],
            "{transitions:?}"
        );
    }
    Ok(())
}

#[test] // K-NF-09
fn without_a_return_event_the_caller_gets_none() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let nfa = machine(&log)
        .state("main", "go", |cx| {
            cx.call_state(None, "sub", None, ())?;
            cx.yield_("back", ());
            Ok(())
        })
        .state("sub", "back", |cx| {
            note(cx);
            cx.return_state(("lost",))?;
            cx.yield_("e", ());
            Ok(())
        })
        .state("main", "e", note);
    let id = begin(nfa, &mut kernel, "main")?;
    send(&mut kernel, id, &["go"])?;
    assert_eq!(lines(&log), ["m sub.back", "m main.e"]);
    Ok(())
}

#[test] // K-NF-07, K-NF-08: the first `call_state` of a machine is posted, and has nowhere to return to
fn a_call_out_of_no_state_can_not_return() -> Result<(), Error> {
    let mut kernel = new_kernel();
    let id = Nfa::new(()).state("sub", "in", |cx| cx.return_state(())).spawn(&mut kernel)?;
    Machine::of(id).call_state(&mut kernel, None, "sub", "in", ())?;
    assert_eq!(Machine::of(id).state(&mut kernel)?, "(undef)");
    let (state, wanted) = (Name::new("sub"), Name::new("(undef)"));
    // The caller state of an enter event's posts is the event that is dispatched: the transition.
    let event = Some(Name::new("_nfa_call_state"));
    let expected = NfaError::NoSuchState { machine: id, state, event, wanted };
    assert_eq!(died(kernel.run()).exception.downcast_ref(), Some(&expected));
    Ok(())
}

#[test] // K-NF-10
fn an_event_is_looked_up_in_the_state_then_everywhere_then_in_default() -> Result<(), Error> {
    fn default(cx: &mut Cx<'_>) -> lenore::Result {
        let (event, count) = (*cx.arg::<Name>(0)?, cx.arg::<Args>(1)?.len());
        assert_eq!(cx.args().len(), 2);
        note(cx);
        cx.runstate().say(format_args!("for {event} with {count}"));
        Ok(())
    }
    let (log, mut kernel) = (Log::default(), new_kernel());
    let nfa = machine(&log)
        .state("a", "own", note)
        .state("a", "add", |cx| {
            for event in ["own", "added", "foreign"] {
                cx.handle_everywhere(event, |cx: &mut Cx<'_>| {
                    let (event, args) = (cx.event(), cx.args().len());
                    cx.runstate().say(format_args!("everywhere {event} with {args}"));
                })?;
            }
            Ok(())
        })
        .state("a", "clear", |cx| {
            cx.handle_everywhere_clear("added");
            cx.handle_everywhere_clear("never was");
        })
        .state("a", "_default", default)
        .state("b", "foreign", note)
        .state("b", "_default", default);
    let id = begin(nfa, &mut kernel, "a")?;
    let events = ["own", "added", "foreign", "unknown"];
    for step in ["add", "clear", "_default"] {
        for event in events {
            kernel.call(id, event, (1,))?;
        }
        kernel.call(id, step, (Name::new("by hand"), Args::new()))?;
    }
    Machine::of(id).goto_state(&mut kernel, "b", None, ())?;
    kernel.run_one_timeslice()?;
    for event in events {
        kernel.call(id, event, (1,))?;
    }
    kernel.run()?;
    let expected = [
        // Before anything was added.
        "m a.own",
        "m a._default",
        "m for added with 1",
        "m a._default",
        "m for foreign with 1",
        "m a._default",
        "m for unknown with 1",
        // After `add`.
        "m a.own",
        "m everywhere added with 1",
        "m everywhere foreign with 1",
        "m a._default",
        "m for unknown with 1",
        // After `clear`.
        "m a.own",
        "m a._default",
        "m for added with 1",
        "m everywhere foreign with 1",
        "m a._default",
        "m for unknown with 1",
        "m a._default",
        "m for by hand with 0",
        // In the other state.
        "m everywhere own with 1",
        "m b._default",
        "m for added with 1",
        "m b.foreign",
        "m b._default",
        "m for unknown with 1",
    ];
    assert_eq!(lines(&log), expected);
    Ok(())
}

#[test] // K-NF-10
fn an_event_that_nobody_handles_is_an_exception() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let id = begin(machine(&log).state("a", "e", note).state("b", "foreign", note), &mut kernel, "a")?;
    kernel.post(id, "foreign", (1,))?;
    kernel.post(id, "unknown", (1,))?;
    kernel.post(id, "_default", ())?;
    send(&mut kernel, id, &["e"])?;
    let expected = [
        "m a.e",
        "m died in foreign: session 1, in state a: no handler for foreign, nor for _default",
        "m died in unknown: session 1, in state a: no handler for unknown, nor for _default",
        "m died in _default: session 1, in state a: no handler for _default, nor for _default",
    ];
    assert_eq!(lines(&log), expected);
    Ok(())
}

#[test] // K-NF-10, K-EV-32, K-EV-35
fn default_sees_the_original_sender_and_its_value_is_the_calls() -> Result<(), Error> {
    let mut kernel = new_kernel();
    let id = Nfa::new(())
        .state("a", "_default", |cx| format!("{} {:?}", who(cx.sender()), cx.caller_state()))
        .state("b", "known", |_| ())
        .spawn(&mut kernel)?;
    Machine::of(id).goto_state(&mut kernel, "a", None, ())?;
    Session::new(())
        .state("_start", move |cx| {
            for event in ["known", "unknown"] {
                assert_eq!(cx.call(id, event, ())?.take::<String>()?, "2 Some(\"_start\")");
            }
            Ok(())
        })
        .spawn(&mut kernel)?;
    kernel.run()
}

#[test] // K-NF-10, K-HD-03
fn a_handler_for_every_state_may_remove_itself() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let nfa = machine(&log).state("a", "add", |cx| {
        let text = String::from("to the end");
        cx.handle_everywhere("once", move |cx: &mut Cx<'_>| {
            cx.handle_everywhere_clear("once");
            cx.runstate().say(&text);
        })?;
        for name in ["_signal", "_start", "_stop", "_default", "_nfa_stop"] {
            assert!(matches!(cx.handle_everywhere(name, note), Err(Error::ReservedState(refused)) if refused == name));
        }
        Ok(())
    });
    let id = begin(nfa, &mut kernel, "a")?;
    send(&mut kernel, id, &["add", "once", "once"])?;
    let unhandled = "m died in once: session 1, in state a: no handler for once, nor for _default";
    assert_eq!(lines(&log), ["m to the end", unhandled]);
    Ok(())
}

#[test] // K-NF-11
fn news_of_children_needs_a_handler() -> Result<(), Error> {
    fn family(cx: &mut Cx<'_>) -> lenore::Result {
        let (change, child) = (*cx.arg::<ChildChange>(0)?, who(*cx.arg(1)?));
        let state = cx.state();
        cx.runstate().say(format_args!("{state}._child {change} {child}"));
        Ok(())
    }
    let (log, mut kernel) = (Log::default(), new_kernel());
    let nfa = machine(&log)
        .state("with", "go", |cx| {
            Session::new(()).state("_start", |_| ()).spawn(cx)?;
            Ok(())
        })
        .state("with", "_child", family)
        .state("without", "go", |cx| {
            Session::new(()).state("_start", |_| ()).spawn(cx)?;
            note(cx);
            Ok(())
        });
    let id = begin(nfa, &mut kernel, "with")?;
    kernel.call(id, "go", ())?;
    kernel.run_one_timeslice()?;
    Machine::of(id).goto_state(&mut kernel, "without", None, ())?;
    kernel.run_one_timeslice()?;
    send(&mut kernel, id, &["go"])?;
    let unhandled = "m died in _child: session 1, in state without: no handler for _child, nor for _default";
    assert_eq!(lines(&log), ["m with._child create 2", "m with._child lose 2", "m without.go", unhandled, unhandled]);
    Ok(())
}

#[test] // K-NF-11, K-SE-31
fn news_of_a_parent_needs_a_handler() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let for_machines = log.clone();
    plain("parent", &log)
        .state("_start", move |cx| {
            for state in ["with", "without"] {
                let nfa = machine(&for_machines)
                    .state(state, "go", |cx| {
                        cx.detach_myself()?;
                        note(cx);
                        Ok(())
                    })
                    .state("with", "_parent", |cx| {
                        let (old, new) = (who(*cx.arg(0)?), who(*cx.arg(1)?));
                        cx.runstate().say(format_args!("_parent {old} {new}"));
                        Ok(())
                    });
                let id = nfa.spawn(cx)?;
                Machine::of(id).goto_state(cx, state, "go", ())?;
            }
            Ok(())
        })
        .spawn(&mut kernel)?;
    let unhandled = "session 3, in state without: no handler for _parent, nor for _default";
    assert_eq!(died(kernel.run()).exception.to_string(), unhandled);
    assert_eq!(lines(&log), ["m _parent 1 kernel", "m with.go", "m without.go"]);
    Ok(())
}

#[test] // K-NF-11
fn signals_go_to_the_current_state_as_well() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let nfa = machine(&log)
        .state("a", "watch", |cx| cx.sig("HI", "on_hi"))
        .state("a", "on_hi", |cx| {
            assert_eq!((*cx.arg::<&str>(0)?, *cx.arg::<i32>(1)?), ("HI", 5));
            note(cx);
            cx.goto_state("b", None, ())
        })
        .state("b", "_default", |cx| {
            note(cx);
            cx.goto_state("c", None, ())
        })
        .state("c", "e", note);
    let id = begin(nfa, &mut kernel, "a")?;
    kernel.call(id, "watch", ())?;
    for _ in 0..3 {
        kernel.signal(id, "HI", (5,))?;
        kernel.run_one_timeslice()?;
        kernel.run_one_timeslice()?;
    }
    kernel.run()?;
    let unhandled = "m died in on_hi: session 1, in state c: no handler for on_hi, nor for _default";
    assert_eq!(lines(&log), ["m a.on_hi", "m b._default", unhandled]);
    Ok(())
}

#[test] // K-SG-24, as far as moved arguments go
fn arguments_that_a_machine_leaves_alone_reach_the_next_session() -> Result<(), Error> {
    struct NoCopy;
    let (log, mut kernel) = (Log::default(), new_kernel());
    let parent = plain("p", &log)
        .state("_start", |cx| {
            cx.sig("HI", "on_hi");
            for state in ["known", "default"] {
                let id = Nfa::new(())
                    .state(state, "watch", |cx| cx.sig("HI", "on_hi"))
                    .state("known", "on_hi", |cx| cx.arg::<NoCopy>(1).map(drop).map_err(Exception::from))
                    .state("default", "_default", |cx| {
                        cx.arg::<Args>(1)?.get::<NoCopy>(1).map(drop).map_err(Exception::from)
                    })
                    .spawn(cx)?;
                Machine::of(id).goto_state(cx, state, "watch", ())?;
            }
            Ok(())
        })
        .state("on_hi", |cx| {
            cx.take::<NoCopy>(1)?;
            cx.heap().say("got it");
            Ok(())
        })
        .spawn(&mut kernel)?;
    kernel.signal_now(parent, "HI", (NoCopy,))?;
    kernel.run()?;
    assert_eq!(lines(&log), ["p got it"]);
    Ok(())
}

#[test] // K-NF-12, K-EX-03, K-EX-13
fn an_exception_of_a_machine_is_one_of_its_session() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let nfa = machine(&log)
        .transitions(Transitions::Immediate)
        .state("a", "error", |_| Err::<(), _>(Exception::new("an error")))
        .state("a", "panic", |cx| {
            if cx.state() == "a" {
                panic!("a panic");
            }
        })
        .state("a", "go", |cx| cx.goto_state("b", "fail", ()))
        .state("b", "fail", |_| Err::<(), _>(Exception::new("on entering")))
        .state("b", "e", note);
    let id = begin(nfa, &mut kernel, "a")?;
    assert!(matches!(kernel.call(id, "error", ())?, Reply::NoValue));
    send(&mut kernel, id, &["panic", "go", "e"])?;
    let expected =
        ["m died in error: an error", "m b.e", "m died in panic: panicked: a panic", "m died in go: on entering"];
    assert_eq!(lines(&log), expected);
    Ok(())
}

#[test] // K-NF-12, K-EX-06
fn an_exception_that_nobody_handles_ends_the_kernel() -> Result<(), Error> {
    let mut kernel = new_kernel();
    let id = Nfa::new(()).state("a", "in", |cx| cx.goto_state("b", None, ())).spawn(&mut kernel)?;
    Machine::of(id).goto_state(&mut kernel, "a", "in", ())?;
    let died = died(kernel.run());
    assert_eq!((died.dest_session, died.source_session), (id, id));
    assert_eq!((died.event, died.from_state), (Name::new("_nfa_goto_state"), Some(Name::new("_nfa_goto_state"))));
    assert!(died.location.file().ends_with("nfa.rs"));
    assert!(matches!(died.exception.downcast_ref(), Some(NfaError::NoSuchState { wanted, .. }) if *wanted == "b"));
    Ok(())
}

#[test] // K-NF-13
fn stop_ends_a_machine_in_its_turn_whatever_it_holds() -> Result<(), Error> {
    fn hold(cx: &mut Cx<'_>) -> lenore::Result {
        let me = cx.machine();
        cx.refcount_increment(me, "forever")?;
        cx.delay("never", millis(3_600_000), ());
        let log = cx.runstate().log.clone();
        witness("child", &log).state("_start", |cx| cx.alias_set("child").map_err(Exception::from)).spawn(cx)?;
        cx.stop();
        cx.yield_("after", ());
        note(cx);
        Ok(())
    }
    let (log, mut kernel) = (Log::default(), new_kernel());
    let for_child = log.clone();
    witness("parent", &log)
        .state("_start", move |cx| {
            let nfa = machine(&for_child).state("s", "hold", hold).state("s", "_default", note);
            let id = nfa.spawn(cx)?;
            Machine::of(id).goto_state(cx, "s", None, ())?;
            cx.post(id, "hold", ())?;
            cx.post(id, "before", ())?;
            Ok(())
        })
        .spawn(&mut kernel)?;
    kernel.run_one_timeslice()?;
    lines(&log);
    kernel.run_one_timeslice()?;
    // Its child outlives it.
    assert_eq!(lines(&log), ["parent _child gain 3", "child _parent 2 1", "parent _child lose 2"]);
    kernel.run()?;
    assert_eq!(lines(&log), ["child _stop", "parent _child lose 3", "parent _stop"]);
    Ok(())
}

#[test] // K-NF-13
fn stop_waits_behind_what_is_queued() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let id = begin(machine(&log).state("s", "e", note), &mut kernel, "s")?;
    kernel.post(id, "e", ())?;
    Machine::of(id).stop(&mut kernel)?;
    kernel.post(id, "e", ())?;
    kernel.run()?;
    assert_eq!(lines(&log), ["m s.e"]);
    assert!(matches!(Machine::of(id).stop(&mut kernel), Err(Error::NoSuchSession(_))));
    Ok(())
}

#[test]
fn a_machine_that_its_leave_handler_stops_enters_nothing() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let nfa = machine(&log)
        .state("a", "leave", |cx| {
            AsMut::<Kernel>::as_mut(cx).stop();
            note(cx);
        })
        .state("b", "in", note);
    let id = begin(nfa, &mut kernel, "a")?;
    Machine::of(id).goto_state(&mut kernel, "b", "in", ())?;
    kernel.run()?;
    assert_eq!(lines(&log), ["m a.leave"]);
    Ok(())
}

#[test] // K-NF-04, K-NF-14
fn only_a_living_machine_can_be_driven_from_outside() -> Result<(), Error> {
    let mut kernel = new_kernel();
    let plain = Session::new(()).state("_start", |_| ()).spawn(&mut kernel)?;
    let machine = Machine::of(plain);
    assert_eq!(machine.id(), plain);
    let refused = NfaError::NotAMachine(plain);
    assert_eq!(nfa_error(machine.goto_state(&mut kernel, "s", "e", ())), refused);
    assert_eq!(nfa_error(machine.call_state(&mut kernel, None, "s", "e", ())), refused);
    assert_eq!(nfa_error(machine.return_state(&mut kernel, ())), refused);
    assert_eq!(nfa_error(machine.stop(&mut kernel)), refused);
    assert_eq!(nfa_error(machine.state(&mut kernel).map(drop)), refused);
    kernel.run()?;
    assert!(matches!(machine.goto_state(&mut kernel, "s", "e", ()), Err(Error::NoSuchSession(_))));
    Ok(())
}

#[test] // K-NF-04, K-CL-05
fn a_transition_made_for_another_session_is_no_exception_of_that_one() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let id = machine(&log).state("a", "e", note).spawn(&mut kernel)?;
    plain("other", &log)
        .state("_start", move |cx: &mut Context<'_, Diary>| {
            Machine::of(id).goto_state(cx, "nowhere", None, ())?;
            cx.heap().say("goes on");
            Ok(())
        })
        .spawn(&mut kernel)?;
    let died = died(kernel.run());
    assert_eq!((died.dest_session, who(died.source_session)), (id, "2".into()));
    assert_eq!(lines(&log), ["other goes on"]);
    Ok(())
}

#[test] // K-NF-16
fn a_machine_without_a_reason_to_live_stops() -> Result<(), Error> {
    struct Flag(Rc<Cell<bool>>);
    impl Drop for Flag {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    let (dropped, mut kernel) = (Rc::new(Cell::new(false)), new_kernel());
    let id = Nfa::new(Flag(dropped.clone())).state("s", "e", |_| ()).spawn(&mut kernel)?;
    assert!(!dropped.get());
    kernel.post(id, "e", ())?; // before any transition: but it is in a state by then
    Machine::of(id).goto_state(&mut kernel, "s", None, ())?;
    kernel.run_one_timeslice()?;
    assert!(dropped.get(), "the runstate goes with the machine");
    kernel.run()
}

//! Going from state to state: `goto_state`, `call_state`, `return_state`.

use std::cell::Cell;

use lenore::nfa::{Machine, Nfa, NfaError, Transitions};
use lenore::{Context, Error, Exception, Name, Result};

use crate::{Cx, begin, died, machine, nfa_error, note, send};
use util::diary::{Diary, Log, lines, new_kernel, plain, who};

#[test] // K-NF-04
fn the_first_transition_is_made_at_once_and_later_ones_are_posted() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let machine =
        machine(&log).state("a", "in", note).state("b", "in", note).state("a", "e", note).spawn(&mut kernel)?;
    machine.goto_state(&mut kernel, "a", "in", ())?;
    assert_eq!(lines(&log), ["m a.in"]);
    kernel.post(machine, "e", ())?;
    machine.goto_state(&mut kernel, "b", "in", ())?;
    kernel.post(machine, "in", ())?;
    assert_eq!(machine.state(&mut kernel)?, "a");
    assert_eq!(lines(&log), [""; 0]);
    kernel.run()?;
    assert_eq!(lines(&log), ["m a.e", "m b.in", "m b.in"]);
    Ok(())
}

#[test] // K-NF-04, K-NF-15
fn an_immediate_machine_makes_every_transition_at_once() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let machine = machine(&log)
        .transitions(Transitions::Immediate)
        .state("a", "in", note)
        .state("b", "in", note)
        .state("b", "back", note)
        .spawn(&mut kernel)?;
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
        id.goto_state(&mut kernel, state, None, ())?;
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
    id.goto_state(&mut kernel, "a", "in", (NoCopy(7),))?;
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
    id.call_state(&mut kernel, None, "sub", "in", ())?;
    assert_eq!(id.state(&mut kernel)?, "(undef)");
    let (state, wanted) = (Name::new("sub"), Name::new("(undef)"));
    // The caller state of an enter event's posts is the event that is dispatched: the transition.
    let event = Some(Name::new("_nfa_call_state"));
    let expected = NfaError::NoSuchState { machine: id.id(), state, event, wanted };
    assert_eq!(died(kernel.run()).exception.downcast_ref(), Some(&expected));
    Ok(())
}

#[test] // K-NF-04, K-CL-05
fn a_transition_made_for_another_session_is_no_exception_of_that_one() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let id = machine(&log).state("a", "e", note).spawn(&mut kernel)?;
    plain("other", &log)
        .state("_start", move |cx: &mut Context<'_, Diary>| {
            id.goto_state(cx, "nowhere", None, ())?;
            cx.heap().say("goes on");
            Ok(())
        })
        .spawn(&mut kernel)?;
    let died = died(kernel.run());
    assert_eq!((died.dest_session, who(died.source_session)), (id.id(), "2".into()));
    assert_eq!(lines(&log), ["other goes on"]);
    Ok(())
}

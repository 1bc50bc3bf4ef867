//! A machine as a session: what makes one, what ends it, what its handlers get.

use std::cell::Cell;
use std::rc::Rc;

use lenore::nfa::{Machine, MachineContext, Nfa, NfaError, Transitions};
use lenore::{Error, Exception, Name, Reply, Session};

use crate::{Cx, begin, died, machine, nfa_error, note, send};
use util::diary::{Log, lines, millis, new_kernel, who, witness};

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
            assert!(cx.caller().file().ends_with("machines.rs"));
            let (runstate, mut calls) = cx.split();
            runstate.push(number);
            calls.yield_("end", ());
            Ok(())
        })
        .state("here", "end", |cx| assert_eq!(*cx.runstate(), [1, 2]))
        .spawn(&mut kernel)?;
    id.goto_state(&mut kernel, "here", None, ())?;
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
    assert_eq!(first.id().number(), 1, "the refused ones took no number");
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
    id.goto_state(&mut kernel, "s", "method", ())?;
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
    assert_eq!(stateless.state(&mut kernel)?, "(undef)");
    assert_eq!(id.state(&mut kernel)?, "s");
    send(&mut kernel, id, &["e", "_start", "_stop"])?;
    assert_eq!(lines(&log), ["m s.e"]);
    Ok(())
}

#[test] // K-NF-03, K-NF-10
fn an_event_before_the_first_transition_is_an_exception() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let id = machine(&log).state("s", "e", note).state("s", "_default", note).spawn(&mut kernel)?;
    kernel.post(id, "e", ())?;
    let expected = NfaError::Unhandled { machine: id.id(), state: "(undef)".into(), event: "e".into() };
    assert_eq!(died(kernel.run()).exception.downcast_ref(), Some(&expected));
    assert_eq!(expected.to_string(), "session 1, in state (undef): no handler for e, nor for _default");
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
    id.goto_state(&mut kernel, "a", "in", ())?;
    let died = died(kernel.run());
    assert_eq!((died.dest_session, died.source_session), (id.id(), id.id()));
    assert_eq!((died.event, died.from_state), (Name::new("_nfa_goto_state"), Some(Name::new("_nfa_goto_state"))));
    assert!(died.location.file().ends_with("machines.rs"));
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
            id.goto_state(cx, "s", None, ())?;
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
    id.stop(&mut kernel)?;
    kernel.post(id, "e", ())?;
    kernel.run()?;
    assert_eq!(lines(&log), ["m s.e"]);
    assert!(matches!(id.stop(&mut kernel), Err(Error::NoSuchSession(_))));
    Ok(())
}

#[test]
fn a_machine_that_its_leave_handler_stops_enters_nothing() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let nfa = machine(&log)
        .state("a", "leave", |cx| {
            cx.stop_kernel();
            note(cx);
        })
        .state("b", "in", note);
    let id = begin(nfa, &mut kernel, "a")?;
    id.goto_state(&mut kernel, "b", "in", ())?;
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
    id.goto_state(&mut kernel, "s", None, ())?;
    kernel.run_one_timeslice()?;
    assert!(dropped.get(), "the runstate goes with the machine");
    kernel.run()
}

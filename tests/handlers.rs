//! States that are added, replaced and removed while the session runs (K-HD).

use lenore::{Error, Exception, Session};
use util::diary::{Log, lines, new_kernel, note, plain};

#[test] // K-HD-01
fn states_can_be_added_replaced_and_removed_at_run_time() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let id = plain("s", &log)
        .state("change", |cx| {
            cx.state("added", note)?;
            cx.state("replaced", |cx| cx.heap().say("the new one"))?;
            cx.state_clear("removed");
            cx.state_clear("never was");
            Ok(())
        })
        .state("replaced", note)
        .state("removed", note)
        .spawn(&mut kernel)?;
    assert!(!kernel.call(id, "added", ())?.was_handled());
    kernel.call(id, "change", ())?;
    assert!(kernel.call(id, "added", ())?.was_handled());
    assert!(kernel.call(id, "replaced", ())?.was_handled());
    assert!(!kernel.call(id, "removed", ())?.was_handled());
    kernel.run()?;
    assert_eq!(lines(&log), ["s added", "s the new one"]);
    Ok(())
}

#[test] // K-HD-02: outside of any state there is no table, and here no longer one
fn a_state_whose_session_has_stopped_can_change_no_states() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let id = plain("s", &log)
        .state("e", |cx| {
            cx.stop();
            assert!(matches!(cx.state("f", note), Err(Error::NoActiveSession)));
            cx.state_clear("e");
            cx.heap().say("goes on");
        })
        .spawn(&mut kernel)?;
    kernel.call(id, "e", ())?;
    kernel.run()?;
    assert_eq!(lines(&log), ["s goes on"]);
    Ok(())
}

/// Panics when it is dropped.
struct Loud;

impl Drop for Loud {
    fn drop(&mut self) {
        panic!("a captured value");
    }
}

#[test] // K-HD-03: the running state has the last copy of itself, whose drop panics
fn state_whose_session_stops_ends_no_kernel_with_what_it_has_captured() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let loud = Loud;
    let id = plain("s", &log)
        .state("e", move |cx| {
            let _ = &loud;
            cx.stop();
            cx.heap().say("stopped");
        })
        .spawn(&mut kernel)?;
    kernel.post(id, "e", ())?;
    kernel.run()?;
    assert_eq!(lines(&log), ["s stopped"]);
    Ok(())
}

#[test] // K-HD-03: two panics at once would end the process
fn state_that_removes_itself_in_a_call_to_its_own_session_may_panic() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let loud = Loud;
    let id = plain("s", &log)
        .state("outer", |cx| {
            let id = cx.session();
            cx.heap().say("calls");
            cx.call(id, "e", ())?;
            Ok(())
        })
        .state("e", move |cx| -> lenore::Result {
            let _ = &loud;
            cx.state_clear("e");
            panic!("a state")
        })
        .spawn(&mut kernel)?;
    kernel.call(id, "outer", ())?;
    let died = kernel.run().expect_err("nobody has handled the panic");
    assert!(died.to_string().contains("a state"), "{died}");
    assert_eq!(lines(&log), ["s calls"]);
    Ok(())
}

#[test] // K-HD-03
fn a_state_may_remove_or_replace_itself_and_still_runs_to_its_end() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    // What the closure owns must outlive its removal.
    let (text, other) = (String::from("to the end"), String::from("to the end too"));
    let id = plain("s", &log)
        .state("removes", move |cx| {
            cx.state_clear("removes");
            cx.heap().say(&text);
        })
        .state("replaces", move |cx| {
            cx.state("replaces", note)?;
            cx.heap().say(&other);
            Ok(())
        })
        .spawn(&mut kernel)?;
    for event in ["removes", "replaces", "removes", "replaces"] {
        kernel.call(id, event, ())?;
    }
    kernel.run()?;
    assert_eq!(lines(&log), ["s to the end", "s to the end too", "s replaces"]);
    Ok(())
}

#[test] // K-HD-05, K-SE-02
fn signal_is_a_name_that_no_state_may_have() -> Result<(), Error> {
    let mut kernel = new_kernel();
    let refused = Session::new(()).state("_start", |_| ()).state("_signal", |_| ()).spawn(&mut kernel);
    assert!(matches!(refused, Err(Error::ReservedState(_))));
    Session::new(())
        .state("_start", |cx| {
            let refused = cx.state("_signal", |_| ());
            assert!(matches!(refused, Err(Error::ReservedState(name)) if name == "_signal"));
            assert_eq!(cx.session().number(), 1, "the refused session took no number");
        })
        .spawn(&mut kernel)?;
    kernel.run()
}

#[test] // K-HD-10, K-SE-05: and there is no default for it
fn the_heap_is_the_sessions_own_and_stays_between_events() -> Result<(), Error> {
    let mut kernel = new_kernel();
    let add = |cx: &mut lenore::Context<'_, u32>| -> lenore::Result<u32> {
        *cx.heap() += cx.take::<u32>(0)?;
        Ok(*cx.heap())
    };
    let one = Session::new(1).state("_start", |_| ()).state("add", add).spawn(&mut kernel)?;
    let ten = Session::new(10).state("_start", |_| ()).state("add", add).spawn(&mut kernel)?;
    assert_eq!(kernel.call(one, "add", (1_u32,))?.take::<u32>()?, 2);
    assert_eq!(kernel.call(ten, "add", (5_u32,))?.take::<u32>()?, 15);
    assert_eq!(kernel.call(one, "add", (1_u32,))?.take::<u32>()?, 3);
    kernel.run()
}

#[test] // K-SE-01: methods of the heap's type and plain functions are states like closures
fn a_state_may_be_a_method_a_function_or_a_closure() -> Result<(), Error> {
    struct Object(Log);
    impl Object {
        fn method(cx: &mut lenore::Context<'_, Object>) {
            cx.heap().0.borrow_mut().push("method".into());
        }
    }
    fn function(cx: &mut lenore::Context<'_, Object>) -> Result<(), Exception> {
        cx.heap().0.borrow_mut().push("function".into());
        Ok(())
    }
    let (log, mut kernel) = (Log::default(), new_kernel());
    let id = Session::new(Object(log.clone()))
        .state("_start", |_| ())
        .state("closure", |cx| cx.heap().0.borrow_mut().push("closure".into()))
        .state("method", Object::method)
        .state("function", function)
        .spawn(&mut kernel)?;
    for event in ["closure", "method", "function"] {
        kernel.call(id, event, ())?;
    }
    kernel.run()?;
    assert_eq!(lines(&log), ["closure", "method", "function"]);
    Ok(())
}

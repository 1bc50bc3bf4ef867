//! Which handler an event finds.

use lenore::nfa::Nfa;
use lenore::{Args, ChildChange, Error, Exception, Name, Session};

use crate::{Cx, begin, died, machine, note, send};
use util::diary::{Log, lines, new_kernel, plain, who};

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
    id.goto_state(&mut kernel, "b", None, ())?;
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
    id.goto_state(&mut kernel, "a", None, ())?;
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
    id.goto_state(&mut kernel, "without", None, ())?;
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
                id.goto_state(cx, state, "go", ())?;
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
                id.goto_state(cx, state, "watch", ())?;
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

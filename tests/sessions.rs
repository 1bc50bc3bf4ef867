//! Sessions: creation, the tree (K-SE).

use std::cell::Cell;

use lenore::{ChildChange, Context, Error, Exception, Kernel, Reply, Session, SessionId};
use util::diary::{Diary, Log, lines, millis, new_kernel, note, parent_of, plain, who, witness};

#[test] // K-SE-02, K-SE-03
fn a_session_without_start_is_not_created() -> Result<(), Error> {
    let mut kernel = new_kernel();
    let refused = Session::new(()).state("_default", |_| ()).spawn(&mut kernel);
    assert!(matches!(refused, Err(Error::NoStartState)));
    let id = Session::new(()).state("_start", |_| ()).spawn(&mut kernel)?;
    assert_eq!(id.number(), 1, "the refused session took no number");
    kernel.run()
}

#[test] // K-SE-04
fn args_become_the_arguments_of_start() -> Result<(), Error> {
    let mut kernel = new_kernel();
    Session::new(())
        .args((1_u8, "two", vec![3]))
        .state("_start", |cx| {
            assert_eq!(cx.args().len(), 3);
            assert_eq!((cx.take::<u8>(0)?, cx.take::<&str>(1)?, cx.take::<Vec<i32>>(2)?), (1, "two", vec![3]));
            Ok(())
        })
        .spawn(&mut kernel)?;
    kernel.run()
}

#[test] // K-SE-06: the later of two states of one name
fn the_last_state_of_a_name_wins() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let session = plain("s", &log).state("e", |cx| cx.heap().say("first")).state("e", |cx| cx.heap().say("last"));
    let id = session.spawn(&mut kernel)?;
    kernel.call(id, "e", ())?;
    assert_eq!(lines(&log), ["s last"]);
    Ok(())
}

#[test] // K-SE-08, K-SE-09, K-SE-10
fn creation_runs_start_then_the_parents_child_then_returns() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let for_child = log.clone();
    witness("P", &log)
        .state("_start", |cx| cx.yield_("create", ()))
        .state("create", move |cx| {
            let child = plain("C", &for_child).state("_start", |cx| {
                let (sender, from) = (who(cx.sender()), cx.caller_state());
                cx.heap().say(format_args!("_start from {sender}, {from:?}"));
                "hello"
            });
            let child = child.spawn(cx)?;
            cx.heap().say(format_args!("created {}", who(child)));
            Ok(())
        })
        .state("_child", |cx| {
            assert_eq!(cx.sender(), SessionId::KERNEL);
            util::diary::note_child(cx)
        })
        .spawn(&mut kernel)?;
    kernel.run()?;
    let expected = ["C _start from 1, None", "P _child create 2 (hello)", "P created 2", "P _child lose 2", "P _stop"];
    assert_eq!(lines(&log), expected);
    Ok(())
}

#[test] // K-SE-11, K-SE-31
fn a_child_that_leaves_in_start_is_never_announced_to_its_creator() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let child = witness("C", &log).state("_start", |cx| cx.detach_myself().map_err(Exception::from));
    parent_of(&log, child).spawn(&mut kernel)?;
    assert_eq!(lines(&log), ["C _parent 1 kernel"]);
    assert_eq!(kernel.peek().sessions[1].parent, SessionId::KERNEL);
    kernel.run()?;
    // The start-up event of the child was queued before its parent's.
    assert_eq!(lines(&log), ["P _stop", "C _stop"]);
    Ok(())
}

#[test] // K-SE-31: whoever detaches it
fn a_child_detached_by_its_parent_in_start_is_not_announced_either() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let child = witness("C", &log).state("_start", |cx| {
        let (parent, me) = (cx.sender(), cx.session());
        cx.call(parent, "let_go", (me,)).map(drop).map_err(Exception::from)
    });
    parent_of(&log, child)
        .state("let_go", |cx| {
            let child = *cx.arg::<SessionId>(0)?;
            cx.detach_child(child).map_err(Exception::from)
        })
        .spawn(&mut kernel)?;
    assert_eq!(lines(&log), ["C _parent 1 kernel"]);
    Ok(())
}

#[test] // K-SE-31 is about the real _start, not about an event that is called so
fn an_event_named_start_is_not_the_start() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let again = Cell::new(false);
    let child = witness("C", &log).state("_start", move |cx| {
        if again.replace(true) {
            cx.detach_myself()?;
        } else {
            cx.yield_("_start", ());
        }
        Ok(())
    });
    parent_of(&log, child).spawn(&mut kernel)?;
    kernel.run()?;
    let expected = ["P _child create 2", "P _child lose 2", "C _parent 1 kernel", "P _stop", "C _stop"];
    assert_eq!(lines(&log), expected);
    Ok(())
}

#[test] // K-SE-12
fn a_session_stopped_in_its_own_start_is_lost_but_never_created() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let child = witness("C", &log).state("_start", |cx| {
        let me = cx.session();
        cx.signal_now(me, "KILL", ())?;
        assert_eq!(cx.session(), SessionId::KERNEL, "as after stop()");
        cx.heap().say("goes on");
        Ok(())
    });
    parent_of(&log, child).spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["C _stop", "P _child lose 2", "C goes on", "P _stop"]);
    Ok(())
}

#[test] // K-SE-13
fn an_exception_in_start_does_not_prevent_creation() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let child = witness("C", &log)
        .state("_start", |cx| {
            cx.yield_("queued", ());
            Err::<&str, _>(Exception::new("a bad start"))
        })
        .state("queued", note);
    let child = Cell::new(Some(child));
    witness("P", &log)
        .state("_start", move |cx| {
            cx.sig("DIE", "on_die");
            let id = child.take().expect("one start").spawn(cx)?;
            assert_eq!(id.number(), 2);
            Ok(())
        })
        .state("_child", |cx| {
            if *cx.arg::<ChildChange>(0)? == ChildChange::Create {
                assert!(matches!(cx.arg::<Reply>(2)?, Reply::NoValue));
            }
            util::diary::note_child(cx)
        })
        .state("on_die", |cx| {
            note(cx);
            cx.sig_handled();
        })
        .spawn(&mut kernel)?;
    kernel.run()?;
    let expected = ["P _child create 2", "C queued", "P on_die", "C _stop", "P _child lose 2", "P _stop"];
    assert_eq!(lines(&log), expected);
    Ok(())
}

#[test] // K-SE-14
fn sessions_can_be_created_in_any_state() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let spawn = |log: &Log| {
        let log = log.clone();
        move |cx: &mut Context<'_, Diary>| -> lenore::Result {
            let name = cx.state_name().as_str();
            witness(name, &log).spawn(cx)?;
            Ok(())
        }
    };
    let for_child = log.clone();
    let once = Cell::new(true);
    plain("s", &log)
        .state("_start", move |cx| {
            cx.sig("foo", "on_foo");
            plain("c", &for_child).spawn(cx).map(drop).map_err(Exception::from)
        })
        .state("on_foo", spawn(&log))
        .state("_stop", spawn(&log))
        .state("_child", {
            let spawn = spawn(&log);
            move |cx| if once.replace(false) { spawn(cx) } else { Ok(()) }
        })
        .spawn(&mut kernel)?;
    kernel.signal(SessionId::KERNEL, "foo", ())?;
    kernel.run()?;
    let mut all = lines(&log);
    all.sort();
    assert_eq!(all, ["_child _stop", "_stop _stop", "on_foo _stop"]);
    Ok(())
}

#[test] // K-SE-15
fn a_session_created_in_stop_is_moved_to_the_parent_without_notice() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let for_late = log.clone();
    let child = witness("C", &log).state("_stop", move |cx| {
        note(cx);
        let late = witness("late", &for_late).state("_start", |cx| cx.delay("tick", millis(1), ()));
        late.state("tick", note).spawn(cx)?;
        Ok(())
    });
    parent_of(&log, child).spawn(&mut kernel)?;
    assert!(kernel.run_one_timeslice()?);
    assert_eq!(lines(&log), ["P _child create 2", "C _stop", "C _child create 3", "P _child lose 2"]);
    assert_eq!(kernel.peek().sessions[1].parent.number(), 1);
    kernel.run()?;
    assert_eq!(lines(&log), ["late tick", "late _stop", "P _child lose 3", "P _stop"]);
    Ok(())
}

/// P(S): S creates C1 and C2 while it handles the signal that stops it, too late to be visited by it.
fn heirs(
    log: &Log,
    kernel: &mut Kernel,
    stop: impl Fn(&mut Context<'_, Diary>) -> &'static str + 'static,
) -> SessionId {
    let for_heirs = log.clone();
    let middle = witness("S", log)
        .state("_start", |cx| cx.sig("KILL", "on_kill"))
        .state("on_kill", move |cx| {
            for name in ["C1", "C2"] {
                let heir = witness(name, &for_heirs).state("_start", |cx| cx.delay("tick", millis(1), ()));
                heir.state("tick", note).spawn(cx)?;
            }
            Ok(())
        })
        .state("_stop", stop);
    parent_of(log, middle).spawn(kernel).expect("it has a _start");
    assert_eq!(lines(log), ["P _child create 2"]);
    kernel.peek().sessions[1].id
}

#[test] // K-SE-20, K-SE-24
fn a_stopping_session_leaves_its_children_to_its_parent() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let middle = heirs(&log, &mut kernel, |cx| {
        note(cx);
        assert!(cx.args().is_empty());
        "bye"
    });
    kernel.signal_now(middle, "KILL", ())?;
    let stops = [
        "S _child create 3",
        "S _child create 4",
        "P _child gain 3",
        "C1 _parent 2 1",
        "P _child gain 4",
        "C2 _parent 2 1",
        "S _stop",
        "P _child lose 2 (bye)",
    ];
    assert_eq!(lines(&log), stops);
    let parents: Vec<u64> = kernel.peek().sessions.iter().map(|session| session.parent.number()).collect();
    assert_eq!(parents, [0, 1, 1]);
    kernel.run()?;
    let end = ["C1 tick", "C2 tick", "C2 _stop", "P _child lose 4", "C1 _stop", "P _child lose 3", "P _stop"];
    assert_eq!(lines(&log), end);
    Ok(())
}

#[test] // K-SE-21, K-SE-22, K-SE-23
fn while_a_session_stops_the_tree_has_its_old_shape() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let middle = heirs(&log, &mut kernel, |cx| {
        let me = cx.session();
        assert_eq!(me.number(), 2, "active");
        assert_eq!(cx.sender(), SessionId::KERNEL);
        assert_eq!(cx.alias_resolve(me).expect("resolvable"), me);
        let snapshot = cx.peek();
        assert_eq!(snapshot.sessions[1].children.len(), 2);
        assert_eq!(snapshot.sessions[2].parent, me);
        note(cx);
        "bye"
    });
    kernel.signal_now(middle, "KILL", ())?;
    assert_eq!(lines(&log).len(), 8);
    Ok(())
}

#[test] // K-SE-20, K-SE-27: the parent may react by stopping itself at once
fn a_parent_that_stops_itself_over_a_loss_leaves_the_tree_whole() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let for_inner = log.clone();
    let middle = witness("M", &log)
        .state("_start", move |cx| {
            let for_heir = for_inner.clone();
            let inner = witness("S", &for_inner).state("_stop", move |cx| {
                note(cx);
                witness("heir", &for_heir).spawn(cx).map(drop).map_err(Exception::from)
            });
            inner.spawn(cx)?;
            Ok(())
        })
        .state("_child", |cx| {
            util::diary::note_child(cx)?;
            if *cx.arg::<ChildChange>(0)? == ChildChange::Lose {
                let me = cx.session();
                cx.signal_now(me, "KILL", ())?;
            }
            Ok(())
        });
    parent_of(&log, middle).spawn(&mut kernel)?;
    assert_eq!(lines(&log), ["M _child create 3", "P _child create 2"]);
    let inner = kernel.peek().sessions[2].id;
    kernel.signal_now(inner, "KILL", ())?;
    let expected = [
        "S _stop",
        "S _child create 4",
        "M _child lose 3",
        "heir _stop",
        "S _child lose 4",
        "M _stop",
        "P _child lose 2",
    ];
    assert_eq!(lines(&log), expected);
    let snapshot = kernel.peek();
    assert_eq!(snapshot.sessions.len(), 1);
    assert!(snapshot.sessions[0].children.is_empty());
    kernel.run()?;
    assert_eq!(lines(&log), ["P _stop"]);
    Ok(())
}

#[test] // K-SE-26
fn a_parent_may_react_to_a_loss_and_live_on() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    parent_of(&log, witness("C", &log))
        .state("_child", |cx| {
            if *cx.arg::<ChildChange>(0)? == ChildChange::Lose {
                cx.yield_("alone", ());
            }
            util::diary::note_child(cx)
        })
        .state("alone", note)
        .spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["P _child create 2", "C _stop", "P _child lose 2", "P alone", "P _stop"]);
    Ok(())
}

#[test] // K-SE-27
fn a_session_is_stopped_once_however_often_it_is_told() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let id = witness("s", &log)
        .state("_stop", |cx| {
            note(cx);
            let me = cx.session();
            cx.signal_now(me, "KILL", ())?;
            cx.stop();
            Ok(())
        })
        .spawn(&mut kernel)?;
    kernel.signal_now(id, "KILL", ())?;
    kernel.run()?;
    assert_eq!(lines(&log), ["s _stop"]);
    Ok(())
}

#[test] // K-SE-30, K-SE-32, K-SE-36
fn detach_myself_makes_a_session_the_kernels() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let child = witness("C", &log).state("_start", |cx| cx.yield_("leave", ())).state("leave", |cx| {
        cx.detach_myself()?;
        assert!(matches!(cx.detach_myself(), Err(Error::AlreadyDetached(id)) if id == cx.session()));
        cx.delay("tick", millis(1), ());
        Ok(())
    });
    parent_of(&log, child.state("tick", note))
        .state("_child", |cx| {
            if *cx.arg::<ChildChange>(0)? == ChildChange::Lose {
                assert_eq!(cx.args().len(), 2, "no ARG2");
            }
            util::diary::note_child(cx)
        })
        .spawn(&mut kernel)?;
    kernel.run()?;
    let expected = ["P _child create 2", "P _child lose 2", "C _parent 1 kernel", "P _stop", "C tick", "C _stop"];
    assert_eq!(lines(&log), expected);
    Ok(())
}

#[test] // K-SE-33, K-SE-34, K-SE-35
fn detach_child_makes_a_child_the_kernels() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let for_grandchild = log.clone();
    let child = witness("C", &log).state("_start", move |cx| {
        cx.alias_set("child")?;
        witness("G", &for_grandchild).state("_start", |cx| cx.alias_set("grandchild").unwrap()).spawn(cx)?;
        Ok(())
    });
    let parent = parent_of(&log, child)
        .state("detach", |cx| {
            let me = cx.session();
            assert!(matches!(cx.detach_child("nobody"), Err(Error::NoSuchSession(_))));
            assert!(matches!(cx.detach_child(me), Err(Error::NotYourChild(id)) if id == me));
            assert!(matches!(cx.detach_child("grandchild"), Err(Error::NotYourChild(_))));
            assert!(matches!(cx.detach_child(SessionId::KERNEL), Err(Error::NotYourChild(_))));
            cx.heap().say("detaches");
            cx.detach_child("child")?;
            assert!(matches!(cx.detach_child("child"), Err(Error::NotYourChild(_))));
            Ok(())
        })
        .spawn(&mut kernel)?;
    kernel.post(parent, "detach", ())?;
    assert_eq!(lines(&log), ["C _child create 3", "P _child create 2"]);
    assert!(kernel.run_one_timeslice()?);
    assert_eq!(lines(&log), ["P detaches", "P _child lose 2", "C _parent 1 kernel", "P _stop"]);
    let snapshot = kernel.peek();
    assert_eq!(snapshot.sessions[0].parent, SessionId::KERNEL);
    assert_eq!(snapshot.sessions[0].children, [snapshot.sessions[1].id], "it keeps its own children");
    kernel.run()
}

#[test] // K-SE-33: the child may stop itself over the notice
fn a_child_that_stops_while_it_is_detached_leaves_the_tree_whole() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let child = witness("C", &log).state("_parent", |cx| {
        note(cx);
        let me = cx.session();
        cx.signal_now(me, "KILL", ()).map_err(Exception::from)
    });
    parent_of(&log, child)
        .state("detach", |cx| {
            let child = cx.peek().sessions[1].id;
            cx.detach_child(child).map_err(Exception::from)
        })
        .spawn(&mut kernel)
        .and_then(|id| kernel.call(id, "detach", ()))?;
    // In the slot that the child had, and after it in the kernel's list of children.
    for name in ["2", "3"] {
        witness(name, &log).spawn(&mut kernel)?;
    }
    kernel.stop();
    let expected = [
        "P _child create 2",
        "P _child lose 2",
        "C _parent",
        "C _stop",
        "P _child lose 2",
        "3 _stop",
        "2 _stop",
        "P _stop",
    ];
    assert_eq!(lines(&log), expected);
    kernel.run()
}

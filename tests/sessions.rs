//! Sessions: creation, the tree, lifetime (K-SE, K-GC).

mod common;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::mpsc;

use common::{Diary, Log, lines, millis, new_kernel, note, plain, who, witness};
use lenore::{ChildChange, Context, Error, Exception, Handle, Kernel, Reply, Session, SessionId};

/// Spawns `child` in the `_start` of a witness named P.
fn parent_of(log: &Log, child: Session<Diary>) -> Session<Diary> {
    let child = Cell::new(Some(child));
    witness("P", log).state("_start", move |cx| {
        child.take().expect("one start").spawn(cx)?;
        Ok(())
    })
}

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
            common::note_child(cx)
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
            common::note_child(cx)
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
            common::note_child(cx)?;
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
            common::note_child(cx)
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
            common::note_child(cx)
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

#[test] // K-RE-01 with K-GC-05: several sessions on the stack of a nested slice
fn sessions_on_the_stack_of_a_nested_slice_keep_their_order_of_marking() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let inner = witness("inner", &log).state("nest", |cx| {
        let kernel: &mut Kernel = cx.as_mut();
        kernel.run_one_timeslice().map(drop).map_err(Exception::from)
    });
    let inner = inner.spawn(&mut kernel)?;
    witness("outer", &log)
        .state("_start", |cx| cx.yield_("go", ()))
        .state("go", move |cx| {
            cx.call(inner, "nest", ())?;
            cx.heap().say("goes on");
            Ok(())
        })
        .spawn(&mut kernel)?;
    witness("other", &log)
        .state("_start", |cx| cx.delay("tick", millis(2), ()))
        .state("tick", note)
        .spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["outer goes on", "outer _stop", "inner _stop", "other tick", "other _stop"]);
    Ok(())
}

#[test] // K-GC-02
fn signal_watchers_keep_nobody_alive() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    witness("s", &log).state("_start", |cx| cx.sig("foo", "on_foo")).spawn(&mut kernel)?;
    witness("t", &log).state("_start", |cx| cx.delay("tick", millis(1), ())).state("tick", note).spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["s _stop", "t tick", "t _stop"]);
    Ok(())
}

#[test] // K-GC-03
fn a_new_reason_before_the_sweep_saves_a_session() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let saved = witness("saved", &log).state("e", note).spawn(&mut kernel)?;
    plain("saviour", &log)
        .state("_start", |cx| cx.yield_("save", ()))
        .state("save", move |cx| {
            // Its start-up event was dispatched before: nothing keeps it alive, but it has not been swept yet.
            assert_eq!(cx.peek().sessions[0].refcount, 0);
            cx.post(saved, "e", ()).map_err(Exception::from)
        })
        .spawn(&mut kernel)?;
    assert!(kernel.run_one_timeslice()?);
    assert!(lines(&log).is_empty());
    kernel.run()?;
    assert_eq!(lines(&log), ["saved e", "saved _stop"]);
    Ok(())
}

#[test] // K-GC-04
fn a_session_without_reason_exists_until_the_first_slice() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let id = witness("s", &log).state("e", note).spawn(&mut kernel)?;
    assert_eq!(kernel.alias_resolve(id)?, id);
    kernel.call(id, "e", ())?;
    assert!(kernel.run_one_timeslice()?);
    assert_eq!(lines(&log), ["s e", "s _stop"]);
    Ok(())
}

#[test] // K-GC-05
fn a_sweep_stops_in_reverse_order_of_marking() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    for name in ["1", "2", "3", "4"] {
        witness(name, &log).spawn(&mut kernel)?;
    }
    assert!(kernel.run_one_timeslice()?);
    assert_eq!(lines(&log), ["4 _stop", "3 _stop", "2 _stop", "1 _stop"]);
    for name in ["1", "2", "3", "4"] {
        witness(name, &log).state("_start", |cx| cx.yield_("e", ())).state("e", note).spawn(&mut kernel)?;
    }
    kernel.run()?;
    assert_eq!(lines(&log), ["1 e", "2 e", "3 e", "4 e", "4 _stop", "3 _stop", "2 _stop", "1 _stop"]);
    Ok(())
}

#[test] // K-GC-05, K-GC-03: the order is that of the last marking
fn a_session_that_was_saved_stands_under_its_later_mark() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let first = witness("1", &log).spawn(&mut kernel)?;
    witness("2", &log).spawn(&mut kernel)?;
    witness("3", &log)
        .state("_start", |cx| cx.yield_("go", ()))
        .state("go", move |cx| {
            cx.refcount_increment(first, "tag")?;
            cx.refcount_decrement(first, "tag")?;
            Ok(())
        })
        .spawn(&mut kernel)?;
    kernel.run()?;
    // `go` was dispatched before the third start-up event, but after the first two.
    assert_eq!(lines(&log), ["3 _stop", "1 _stop", "2 _stop"]);
    Ok(())
}

#[test] // K-GC-06, K-GC-07
fn a_parent_is_stopped_in_the_sweep_that_takes_its_last_child() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let child = parent_of(&log, witness("G", &log)).state("_stop", |cx| cx.heap().say("(middle) _stop"));
    parent_of(&log, child).spawn(&mut kernel)?;
    lines(&log);
    assert!(kernel.run_one_timeslice()?);
    let expected = ["G _stop", "P _child lose 3", "P (middle) _stop", "P _child lose 2", "P _stop"];
    assert_eq!(lines(&log), expected);
    Ok(())
}

#[test] // K-GC-10
fn a_stopping_session_gives_everything_back() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let dropped = Rc::new(());
    let heap = Rc::clone(&dropped);
    let (ours, _theirs) = std::os::unix::net::UnixStream::pair().expect("a socket pair");
    let handle = Handle::new(ours);
    let id = Session::new(heap)
        .state("_start", move |cx| {
            let me = cx.session();
            cx.alias_set("name")?;
            cx.refcount_increment(me, "tag")?;
            cx.sig("foo", "e");
            let (heap, core) = cx.split();
            core.delay("e", millis(60_000), (Rc::clone(heap),));
            core.yield_("e", (Rc::clone(heap),));
            core.select_read(&handle, "e", (Rc::clone(heap),))?;
            Ok(())
        })
        .spawn(&mut kernel)?;
    assert_eq!(Rc::strong_count(&dropped), 5);
    kernel.signal_now(id, "KILL", ())?;
    assert_eq!(Rc::strong_count(&dropped), 1, "heap, arguments and closures are gone");
    let snapshot = kernel.peek();
    assert!(snapshot.events.is_empty() && snapshot.sessions.is_empty() && snapshot.sources.is_empty());
    plain("next", &log).state("_start", |cx| cx.alias_set("name").map_err(Exception::from)).spawn(&mut kernel)?;
    kernel.run()
}

/// A session that is kept by an alias and writes down `IDLE` and `ZOMBIE`; `idle` is its reaction to the former.
fn idler(name: &'static str, log: &Log, idle: impl Fn(&mut Context<'_, Diary>) + 'static) -> Session<Diary> {
    witness(name, log)
        .state("_start", move |cx| {
            cx.sig("IDLE", "idle");
            cx.sig("ZOMBIE", "zombie");
            cx.alias_set(name).map_err(Exception::from)
        })
        .state("zombie", note)
        .state("idle", move |cx| {
            note(cx);
            idle(cx);
        })
}

#[test] // K-GC-11, K-GC-19
fn an_unhandled_idle_stops_everybody_the_newest_first() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    for name in ["1", "2", "3"] {
        idler(name, &log, |_| ()).spawn(&mut kernel)?;
    }
    kernel.run()?;
    assert_eq!(lines(&log), ["3 idle", "2 idle", "1 idle", "3 _stop", "2 _stop", "1 _stop"]);
    Ok(())
}

#[test] // K-GC-13
fn a_handled_idle_with_nothing_to_do_is_followed_by_zombie() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    idler("1", &log, |cx| cx.sig_handled()).spawn(&mut kernel)?;
    idler("2", &log, |_| ()).spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["2 idle", "1 idle", "2 zombie", "1 zombie", "2 _stop", "1 _stop"]);
    Ok(())
}

#[test] // K-GC-14
fn an_idle_handler_that_finds_work_lets_the_program_go_on() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let idles = Cell::new(0);
    idler("s", &log, move |cx| {
        cx.sig_handled();
        idles.set(idles.get() + 1);
        match idles.get() {
            1 => cx.yield_("work", ()),
            2 => cx.delay("work", millis(1), ()),
            _ => {}
        }
    })
    .state("work", note)
    .spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["s idle", "s work", "s idle", "s work", "s idle", "s zombie", "s _stop"]);
    Ok(())
}

#[test] // K-GC-15
fn an_idle_handler_that_does_not_say_so_is_stopped_with_its_new_work() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    idler("s", &log, |cx| {
        cx.yield_("work", ());
        cx.delay("work", millis(60_000), ());
    })
    .state("work", note)
    .spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["s idle", "s _stop"]);
    Ok(())
}

/// Whether a program that `begin` starts is still running after a while that is long for the others here.
fn goes_on_for_ever(begin: impl FnOnce(&mut Kernel) + Send + 'static) -> bool {
    let (done, ended) = mpsc::channel();
    // Not joined: it waits for nothing, for ever, and ends with the process.
    std::thread::spawn(move || {
        let mut kernel = new_kernel();
        begin(&mut kernel);
        let result = kernel.run().map_err(|error| error.to_string());
        // Nobody listens any more if it took too long.
        let _ = done.send(result);
    });
    matches!(ended.recv_timeout(millis(50)), Err(mpsc::RecvTimeoutError::Timeout))
}

#[test] // K-GC-16, K-LP-09
fn an_extra_reference_prevents_idle() {
    let begin = |hold: bool| {
        move |kernel: &mut Kernel| {
            let session = Session::new(()).state("_start", move |cx| {
                let me = cx.session();
                cx.alias_set("keeper")?;
                if hold {
                    cx.refcount_increment(me, "tag")?;
                }
                Ok(())
            });
            session.spawn(kernel).expect("it has a _start");
        }
    };
    assert!(goes_on_for_ever(begin(true)));
    assert!(!goes_on_for_ever(begin(false)));
}

#[test] // K-GC-17, K-LP-09
fn a_watched_handle_prevents_idle_even_when_paused() {
    let begin = |watch: bool| {
        move |kernel: &mut Kernel| {
            let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a socket pair");
            let session = Session::new((Handle::new(ours), theirs)).state("_start", move |cx| {
                let handle = cx.heap().0.clone();
                cx.select_read(&handle, "io", ())?;
                cx.select_pause_read(&handle);
                if !watch {
                    cx.select_read_clear(&handle);
                }
                Ok(())
            });
            session.spawn(kernel).expect("it has a _start");
        }
    };
    assert!(goes_on_for_ever(begin(true)));
    assert!(!goes_on_for_ever(begin(false)));
}

#[test] // K-RE-10: what a wrong decrement leaves behind
fn a_refused_decrement_does_not_prevent_idle() -> Result<(), Error> {
    let mut kernel = new_kernel();
    Session::new(())
        .state("_start", |cx| {
            let me = cx.session();
            cx.alias_set("keeper")?;
            assert!(matches!(cx.refcount_decrement(me, "tag"), Err(Error::NoSuchTag { .. })));
            assert_eq!(cx.refcount_increment(me, "tag")?, 1);
            assert_eq!(cx.refcount_decrement(me, "tag")?, 0);
            Ok(())
        })
        .spawn(&mut kernel)?;
    kernel.run()
}

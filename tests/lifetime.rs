//! Lifetime: what keeps a session alive, sweeps, `IDLE` and `ZOMBIE` (K-GC).

use std::cell::Cell;
use std::rc::Rc;
use std::sync::mpsc;

use lenore::{Context, Error, Exception, Handle, Kernel, Session};
use util::diary::{Diary, Log, lines, millis, new_kernel, note, parent_of, plain, witness};

#[test] // K-RE-01 with K-GC-05: several sessions on the stack of a nested slice
fn sessions_on_the_stack_of_a_nested_slice_keep_their_order_of_marking() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let inner = witness("inner", &log).state("nest", |cx| cx.run_one_timeslice().map(drop).map_err(Exception::from));
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

#[test] // K-GC-02, K-SG-07
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

#[test] // K-GC-10, K-CV-02
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
            let (heap, mut calls) = cx.split();
            calls.delay("e", millis(60_000), (Rc::clone(heap),));
            calls.yield_("e", (Rc::clone(heap),));
            calls.select_read(&handle, "e", (Rc::clone(heap),))?;
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

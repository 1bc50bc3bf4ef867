//! Panics, wherever the program's own code runs.

use std::fmt;

use lenore::wheel::ReadWrite;
use lenore::{Context, Died, Error, Handle, IntoArgs, Kernel, Return, Session};
use util::diary::{Diary, Log, lines, millis, new_kernel, note, plain, witness};
use util::parting::Parting;

use super::{Ache, handle_die, nurse};

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

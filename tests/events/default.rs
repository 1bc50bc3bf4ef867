//! Events for which a session has no state.

use std::cell::Cell;
use std::rc::Rc;

use lenore::{Args, Context, Error, Exception, Name, SessionId};
use util::diary::{Diary, Log, lines, new_kernel, note, note_origin, plain};

#[test] // K-EV-30, K-EV-31, K-EV-32
fn an_event_without_a_state_goes_to_default() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let kept: Rc<Cell<Option<Args>>> = Rc::default();
    let keep = Rc::clone(&kept);
    plain("s", &log)
        .state("_start", |cx| cx.yield_("unknown", (7_u32, "seven")))
        .state("_stop", |_| ())
        .state("_default", move |cx| {
            assert_eq!(cx.state_name(), "_default");
            assert_eq!(cx.args().len(), 2);
            assert_eq!(*cx.arg::<Name>(0)?, "unknown");
            assert!(cx.caller_state().is_some_and(|state| state == "_start"));
            assert_eq!(cx.sender(), cx.session());
            keep.set(Some(cx.take(1)?));
            note(cx);
            Ok(())
        })
        .spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["s _default"]);
    let mut args = kept.take().expect("_default has run");
    assert_eq!((args.len(), args.take::<u32>(0), args.take::<&str>(1)), (2, Ok(7), Ok("seven")));
    Ok(())
}

#[test] // K-EV-41, K-EV-14: the event is the one that was sent, whoever handles it
fn in_default_the_active_event_is_the_one_that_was_sent() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    plain("s", &log)
        .state("_start", |cx| cx.yield_("unknown", ()))
        .state("_stop", |_| ())
        .state("_default", |cx| {
            let active = cx.active_event().map_or("none", Name::as_str);
            cx.heap().say(active);
            cx.yield_("known", ());
        })
        .state("known", note_origin)
        .spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["s unknown", "s known from 1, unknown"]);
    Ok(())
}

#[test] // K-EV-33, K-SG-22
fn default_also_gets_what_the_kernel_sends() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    fn note_default(cx: &mut Context<'_, Diary>) -> lenore::Result {
        let name = *cx.arg::<Name>(0)?;
        let count = cx.arg::<Args>(1)?.len();
        cx.heap().say(format_args!("{name} {count}"));
        Ok(())
    }
    let for_child = log.clone();
    plain("parent", &log)
        .state("_default", note_default)
        .state("_start", move |cx| {
            plain("child", &for_child)
                .state("_default", note_default)
                .state("_start", |cx| {
                    cx.sig_with("foo", "on_foo", (1, 2));
                    cx.yield_("leave", ());
                })
                .state("leave", |cx| cx.detach_myself().map_err(Exception::from))
                .spawn(cx)?;
            Ok(())
        })
        .spawn(&mut kernel)?;
    kernel.signal(SessionId::KERNEL, "foo", ("x",))?;
    kernel.run()?;
    let expected =
        ["parent _child 3", "parent _child 2", "child _parent 2", "child on_foo 4", "parent _stop 0", "child _stop 0"];
    assert_eq!(lines(&log), expected);
    Ok(())
}

#[test] // K-EV-34
fn a_signal_that_is_not_watched_is_no_event_for_default() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    plain("s", &log)
        .state("_stop", note)
        .state("_default", |cx| {
            let name = *cx.arg::<Name>(0)?;
            cx.heap().say(name);
            Ok(())
        })
        .spawn(&mut kernel)?;
    kernel.signal(SessionId::KERNEL, "foo", ())?;
    kernel.run()?;
    assert_eq!(lines(&log), ["s _stop"]);
    Ok(())
}

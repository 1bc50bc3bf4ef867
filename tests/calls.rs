//! Synchronous calls (K-CL).

use lenore::{Context, Error, Exception, Name, Reply, Session, SessionId};
use util::diary::{Diary, Log, lines, new_kernel, note_origin, plain, who, witness};

#[test] // K-CL-01, K-CL-04, K-CL-05
fn a_call_runs_the_state_at_once_with_its_session_active() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let other = plain("other", &log)
        .state("called", |cx| {
            note_origin(cx);
            let (session, event) = (who(cx.session()), cx.active_event().map_or("none", Name::as_str));
            cx.heap().say(format_args!("active: {session}, {event}"));
            cx.take::<u32>(0).map(|number| number * 2).map_err(Exception::from)
        })
        .spawn(&mut kernel)?;
    plain("s", &log)
        .state("_start", |cx| cx.yield_("go", ()))
        .state("go", move |cx| {
            let doubled = cx.call(other, "called", (21_u32,))?.take::<u32>()?;
            assert_eq!(cx.session().number(), 2);
            assert!(cx.active_event().is_some_and(|event| event == "go"));
            cx.heap().say(doubled);
            Ok(())
        })
        .spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["other called from 2, go", "other active: 1, called", "s 42"]);
    Ok(())
}

#[test] // K-CL-06, K-EV-41
fn in_a_self_call_the_active_event_stays_the_outer_one() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    plain("s", &log)
        .state("_start", |cx| cx.yield_("outer", ()))
        .state("outer", |cx| {
            let me = cx.session();
            cx.call(me, "inner", ()).map(drop).map_err(Exception::from)
        })
        .state("inner", |cx| {
            note_origin(cx);
            assert!(cx.active_event().is_some_and(|event| event == "outer"));
            cx.yield_("posted", ());
        })
        .state("posted", note_origin)
        .spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["s inner from 1, outer", "s posted from 1, outer"]);
    Ok(())
}

#[test] // K-CL-08, K-CL-10
fn calls_nest_and_reenter_a_session_on_the_stack() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let bounce = |cx: &mut Context<'_, Diary>| -> lenore::Result {
        let (left, partner) = (*cx.arg::<u32>(0)?, *cx.arg::<SessionId>(1)?);
        note_origin(cx);
        if left > 0 {
            let me = cx.session();
            cx.call(partner, "bounce", (left - 1, me))?;
        }
        cx.heap().say(format_args!("back {left}"));
        Ok(())
    };
    let a = plain("a", &log).state("bounce", bounce).spawn(&mut kernel)?;
    let b = plain("b", &log).state("bounce", bounce).spawn(&mut kernel)?;
    kernel.call(a, "bounce", (2_u32, b))?;
    let expected = [
        "a bounce from kernel, outside",
        "b bounce from 1, bounce",
        "a bounce from 2, bounce",
        "a back 0",
        "b back 1",
        "a back 2",
    ];
    assert_eq!(lines(&log), expected);
    // An exception of the inner `a` is no exception of the outer one: it was not active.
    let c = plain("c", &log)
        .state("outer", |cx| {
            let me = cx.session();
            let via = Session::new(()).state("_start", |_| ()).state("relay", move |cx| {
                assert!(matches!(cx.call(me, "fails", ())?, Reply::NoValue));
                Ok(())
            });
            let via = via.spawn(cx)?;
            cx.call(via, "relay", ()).map(drop).map_err(Exception::from)
        })
        .state("_start", |cx| cx.sig("DIE", "on_die"))
        .state("on_die", |cx| cx.sig_handled())
        .state("fails", |_| Err::<(), _>(Exception::new("inner")))
        .spawn(&mut kernel)?;
    assert!(matches!(kernel.call(c, "outer", ())?, Reply::NoValue));
    kernel.run()
}

#[test] // K-CL-09
fn a_call_changes_no_refcount() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let a = witness("a", &log).state("e", |_| ()).spawn(&mut kernel)?;
    witness("b", &log)
        .state("_start", |cx| cx.yield_("go", ()))
        .state("go", move |cx| {
            let before = cx.peek().sessions[0].refcount;
            cx.call(a, "e", ())?;
            assert_eq!(cx.peek().sessions[0].refcount, before);
            Ok(())
        })
        .spawn(&mut kernel)?;
    kernel.run()?;
    // Marked in the order in which they ran out of reasons: the call in between does not count.
    assert_eq!(lines(&log), ["b _stop", "a _stop"]);
    Ok(())
}

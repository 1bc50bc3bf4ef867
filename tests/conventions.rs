//! What the other subjects take for granted: the kernel as a session of sorts, what a state receives, names, errors (K-CV).

use std::fmt::Debug;
use std::time::Duration;

use lenore::component::{Processes, ServerError, UnknownProcesses};
use lenore::daemon::{DaemonError, DaemonStatus, Forking, Peek, Report};
use lenore::filter::FilterError;
use lenore::wheel::{Failure, Put, Run, WheelId};
use lenore::{AlarmId, ArgError, Context, Died, Error, Exception, Name, Session, SessionId, Snapshot};
use util::diary::{Diary, Log, lines, millis, new_kernel, note, past, plain, who, witness};

#[test] // K-CV-01
fn the_kernel_is_the_root_a_destination_and_active_while_no_state_runs() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    assert_eq!((kernel.session(), kernel.active_event()), (SessionId::KERNEL, None));
    for name in ["1", "2"] {
        witness(name, &log)
            .state("_start", |cx| {
                let sender = who(cx.sender());
                cx.heap().say(format_args!("_start from {sender}"));
                cx.sig("foo", "on_foo");
            })
            .state("on_foo", note)
            .spawn(&mut kernel)?;
    }
    assert!(kernel.peek().sessions.iter().all(|session| session.parent == SessionId::KERNEL));
    assert_eq!(kernel.alias_resolve(SessionId::KERNEL)?, SessionId::KERNEL);
    kernel.post(SessionId::KERNEL, "on_foo", ())?;
    kernel.signal(SessionId::KERNEL, "foo", ())?;
    assert!(kernel.run_one_timeslice()?);
    assert_eq!((kernel.session(), kernel.active_event()), (SessionId::KERNEL, None));
    let expected = ["1 _start from kernel", "2 _start from kernel", "2 on_foo", "1 on_foo", "2 _stop", "1 _stop"];
    assert_eq!(lines(&log), expected);
    kernel.run()
}

#[test] // K-CV-03
fn a_state_receives_session_heap_event_sender_position_and_arguments() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let receiver = plain("r", &log)
        .state("e", |cx| {
            let (me, sender, event) = (who(cx.session()), who(cx.sender()), cx.state_name());
            let (from, caller) = (cx.caller_state().expect("a state posted it"), cx.caller());
            assert!(caller.file().ends_with("conventions.rs"));
            let (line, count) = (*cx.arg::<u32>(0)?, cx.args().len());
            assert_eq!(caller.line(), line);
            let text = cx.take::<String>(1)?;
            // The kernel: whoever has the context can ask it anything.
            assert_eq!(cx.alias_resolve(cx.sender())?, cx.sender());
            cx.heap().say(format_args!("is {me} and gets {event} from {sender} in {from} with {count}: {text}"));
            Ok(())
        })
        .spawn(&mut kernel)?;
    plain("s", &log)
        .state("_start", |cx| cx.yield_("go", ()))
        .state("go", move |cx| {
            let args = (line!() + 1, String::from("text"));
            cx.post(receiver, "e", args).map_err(Exception::from)
        })
        .spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["r is 1 and gets e from 2 in go with 2: text"]);
    Ok(())
}

/// The text of an error that there has to be.
#[track_caller]
fn refused<T>(result: Result<T, Error>) -> String {
    result.err().expect("it must be refused").to_string()
}

#[test] // K-CV-04
fn what_is_not_carried_out_is_an_error_that_says_why() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    plain("owner", &log).state("_start", |cx| cx.alias_set("taken").map_err(Exception::from)).spawn(&mut kernel)?;
    plain("s", &log)
        .state("_start", |cx| {
            let me = cx.session();
            let fired: AlarmId = cx.delay_set("e", Duration::ZERO, ());
            cx.alarm_remove(fired)?;
            // ESRCH, EEXIST and EPERM of POE, as what they mean.
            assert_eq!(refused(cx.post("nobody", "e", ())), "no such session: alias nobody");
            assert_eq!(refused(cx.alias_remove("nobody")), "no such alias: nobody");
            assert!(matches!(cx.alarm_remove(fired), Err(Error::NoSuchAlarm(id)) if id == fired));
            assert!(matches!(cx.refcount_decrement(me, "tag"), Err(Error::NoSuchTag { session, .. }) if session == me));
            assert!(matches!(cx.alias_set("taken"), Err(Error::AliasTaken { .. })));
            assert!(matches!(cx.alias_remove("taken"), Err(Error::NotYourAlias { .. })));
            assert!(matches!(cx.detach_child("taken"), Err(Error::NotYourChild(_))));
            assert!(matches!(cx.detach_myself(), Err(Error::AlreadyDetached(id)) if id == me));
            assert_eq!(cx.peek().sessions[0].aliases, ["taken"], "nothing was changed");
            cx.heap().say("asked for too much");
            Ok(())
        })
        .spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["s asked for too much"]);
    Ok(())
}

#[test] // K-CV-07
fn any_text_is_a_name() -> Result<(), Error> {
    const NAMES: [&str; 7] = ["", " ", "two words", "Ünïcödé", "a.b/c:d", "_private", "line\nend"];
    let (log, mut kernel) = (Log::default(), new_kernel());
    let all = NAMES.iter().fold(plain("s", &log), |session, name| session.state(*name, note));
    let id = all
        .state("_start", |cx| {
            for name in NAMES {
                cx.alias_set(name)?;
                cx.sig(name, name);
                cx.post(name, name, ())?;
            }
            Ok(())
        })
        .spawn(&mut kernel)?;
    for name in NAMES {
        assert_eq!(kernel.alias_resolve(name)?, id);
    }
    assert!(kernel.run_one_timeslice()?);
    let once = NAMES.map(|name| format!("s {name}"));
    assert_eq!(lines(&log), once);
    NAMES.iter().try_for_each(|name| kernel.signal(id, *name, ()))?;
    kernel.run()?;
    assert_eq!(lines(&log), once);
    Ok(())
}

#[test] // K-CV-09: there are no usage assertions, and what is undefined does not compile
fn what_belongs_to_a_session_is_harmless_or_refused_once_it_has_stopped() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let stopped = plain("stopped", &log).state("e", note).state("_start", |cx| {
        cx.sig("foo", "e");
        cx.stop();
        assert_eq!((cx.session(), cx.active_event()), (SessionId::KERNEL, None));
        cx.yield_("e", ());
        cx.alarm("e", past(1), ());
        cx.delay_add("e", millis(1), ());
        cx.sig("foo", "e");
        cx.sig_with("foo", "e", (1,));
        cx.sig_keep_alive("foo", "e");
        cx.sig_clear("foo");
        cx.sig_child(i32::MAX, "e", ());
        cx.sig_child_clear(i32::MAX);
        cx.fork("e", "e", ());
        assert_eq!(cx.event_count(), 0);
        assert_eq!(cx.alarm_clear("e"), 0);
        assert!(matches!(cx.alias_set("kernel"), Err(Error::NoActiveSession)));
        assert!(matches!(cx.alias_remove("kernel"), Err(Error::NoActiveSession)));
        assert!(matches!(cx.postback("e", ()), Err(Error::NoActiveSession)));
        assert!(matches!(cx.callback("e", ()), Err(Error::NoActiveSession)));
        assert!(matches!(cx.state("new", |_| ()), Err(Error::NoActiveSession)));
        assert!(matches!(cx.detach_myself(), Err(Error::NoActiveSession)));
        cx.state_clear("e");
        let (heap, mut calls) = cx.split();
        heap.say("has its heap");
        calls.yield_("e", ());
        assert!(matches!(calls.alias_set("kernel"), Err(Error::NoActiveSession)));
    });
    stopped.spawn(&mut kernel)?;
    let tag = kernel.refcount_increment(SessionId::KERNEL, "tag");
    assert!(matches!(tag, Err(Error::NoSuchSession(_))));
    plain("s", &log).state("_start", |cx| cx.sig("foo", "e")).state("e", note).spawn(&mut kernel)?;
    kernel.signal(SessionId::KERNEL, "foo", ())?;
    kernel.run()?;
    assert_eq!(
        lines(&log),
        ["stopped has its heap", "s e"],
        "none of the first came to a session, and the program ends"
    );
    Ok(())
}

#[test] // K-CV-10: not even a warning
fn the_kernels_own_event_names_can_be_sent_like_any_other() -> Result<(), Error> {
    const NAMES: [&str; 6] = ["_start", "_stop", "_child", "_parent", "_default", "_garbage_collect"];
    fn note_sent(cx: &mut Context<'_, Diary>) {
        let (state, from) = (cx.state_name(), cx.caller_state().map_or("nowhere", Name::as_str));
        cx.heap().say(format_args!("{state} from {from}"));
    }
    let (log, mut kernel) = (Log::default(), new_kernel());
    let diary = Diary { name: "s", log: log.clone() };
    NAMES
        .iter()
        .fold(Session::new(diary), |session, name| session.state(*name, note_sent))
        .state("go", |cx| NAMES.iter().for_each(|name| cx.yield_(*name, ())))
        .spawn(&mut kernel)
        .and_then(|id| kernel.post(id, "go", ()))?;
    kernel.run()?;
    let sent = NAMES.map(|name| format!("s {name} from go"));
    assert_eq!(lines(&log), [&["s _start from nowhere".into()], &sent[..], &["s _stop from nowhere".into()]].concat());
    Ok(())
}

fn is_a_value<T: Clone + Debug + Send + Sync + Unpin + 'static>() {}
fn is_an_error<T: std::error::Error + Debug + Send + Sync + Unpin + 'static>() {}
fn shows_itself<T: Debug>(value: &T) -> String {
    format!("{value:?}")
}

#[test] // what other threads and error types may carry; a kernel and its wheels stay in their thread
fn values_and_errors_can_be_sent_to_other_threads() {
    is_a_value::<(SessionId, AlarmId, WheelId, Name, Put, Failure)>();
    is_a_value::<(DaemonStatus, Peek, Snapshot, Processes, Forking, Report)>();
    is_a_value::<Exception>();
    is_an_error::<Error>();
    is_an_error::<Died>();
    is_an_error::<ArgError>();
    is_an_error::<Failure>();
    is_an_error::<FilterError>();
    is_an_error::<DaemonError>();
    is_an_error::<ServerError>();
    is_an_error::<UnknownProcesses>();
}

#[test]
fn kernel_session_context_and_wheel_show_themselves_in_a_line() -> Result<(), Error> {
    let mut kernel = new_kernel();
    assert!(shows_itself(&kernel).starts_with("Kernel { id: "));
    let session = Session::new(7_u8).state("_start", |cx| {
        assert_eq!(shows_itself(cx), "Context { session: session 1, state: \"_start\", .. }");
        let wheel = Run::program(["true"]).on_exit("exit").start(cx)?;
        assert!(shows_itself(&wheel).starts_with("Run { id: WheelId("));
        Ok(())
    });
    assert_eq!(shows_itself(&session), "Session { heap: \"u8\", .. }");
    session.spawn(&mut kernel)?;
    kernel.run()
}

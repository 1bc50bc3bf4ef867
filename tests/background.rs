//! Background sessions in the process that made them: what they keep, and what ends them. What becomes of them in a forked child
//! is in `forks.rs`, and beside a server in `daemon/background.rs`.

use std::os::unix::net::UnixStream;

use lenore::{Context, Daemon, Error, Exception, Handle, Kernel, Session};
use util::diary::{Diary, Log, lines, millis, new_kernel, note, plain, witness};
use util::in_process::Watchdog;

/// What is far from over when a test is.
const HOUR: std::time::Duration = std::time::Duration::from_secs(3600);

fn run(kernel: &mut Kernel) -> Result<(), Error> {
    let _watchdog = Watchdog::start();
    kernel.run()
}

/// A session that waits for something of every kind, and so would keep a program for ever.
fn busy(name: &'static str, log: &Log) -> Session<Diary> {
    witness(name, log).state("_start", |cx| {
        let me = cx.session();
        cx.alias_set("busy")?;
        cx.delay("never", HOUR, ());
        cx.refcount_increment(me, "tag")?;
        cx.sig_keep_alive("USR2", "never");
        let (ours, theirs) = UnixStream::pair()?;
        cx.select_read(&Handle::new(ours), "never", ())?;
        std::mem::forget((theirs, cx.postback("never", ())?));
        cx.sig_child(std::process::id() as i32, "never", ());
        Ok(())
    })
}

#[test]
fn background_session_does_not_keep_the_program() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    busy("job", &log).background().spawn(&mut kernel)?;
    witness("work", &log)
        .state("_start", |cx| cx.delay("tick", millis(1), ()))
        .state("tick", note)
        .spawn(&mut kernel)?;
    run(&mut kernel)?;
    assert_eq!(lines(&log), ["work tick", "work _stop", "job _stop"]);
    Ok(())
}

#[test]
fn background_session_runs_as_long_as_another_session_waits() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    witness("job", &log)
        .state("tick", |cx| cx.delay("tick", millis(1), ()))
        .state("get", |cx| {
            cx.heap().say("get");
            // Not at once: the asker has nothing but its reference to itself until then.
            cx.delay("answer", millis(3), (cx.sender(),));
        })
        .state("answer", |cx| {
            let asker = cx.take::<lenore::SessionId>(0)?;
            cx.post(asker, "got", ()).map_err(Exception::from)
        })
        .state("_start", |cx| {
            cx.yield_("tick", ());
            cx.alias_set("cache").map_err(Exception::from)
        })
        .background()
        .spawn(&mut kernel)?;
    witness("asker", &log)
        .state("_start", |cx| {
            let me = cx.session();
            cx.refcount_increment(me, "asks")?;
            cx.post("cache", "get", ()).map_err(Exception::from)
        })
        .state("got", |cx| {
            let me = cx.session();
            cx.heap().say("got");
            cx.refcount_decrement(me, "asks").map(drop).map_err(Exception::from)
        })
        .spawn(&mut kernel)?;
    run(&mut kernel)?;
    assert_eq!(lines(&log), ["job get", "asker got", "asker _stop", "job _stop"]);
    Ok(())
}

#[test] // the kernel has seen that nothing else waits, and has sent IDLE, before the question is dispatched
fn background_session_answers_what_was_asked_before_idle() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    witness("job", &log)
        .state("_start", |cx| {
            cx.delay("never", HOUR, ());
            cx.alias_set("cache").map_err(Exception::from)
        })
        .state("get", |cx| cx.post(cx.sender(), "got", ()).map_err(Exception::from))
        .background()
        .spawn(&mut kernel)?;
    witness("asker", &log)
        .state("_start", |cx| cx.yield_("ask", ()))
        .state("ask", |cx| {
            cx.alias_set("asker")?;
            cx.post("cache", "get", ()).map_err(Exception::from)
        })
        .state("got", note)
        .spawn(&mut kernel)?;
    run(&mut kernel)?;
    assert_eq!(lines(&log), ["asker got", "asker _stop", "job _stop"]);
    Ok(())
}

#[test]
fn background_sessions_that_only_post_to_each_other_end_with_the_others() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    witness("job", &log)
        .state("_start", |cx| cx.yield_("again", ()))
        .state("again", |cx| cx.yield_("again", ()))
        .background()
        .spawn(&mut kernel)?;
    run(&mut kernel)?;
    assert_eq!(lines(&log), ["job _stop"]);
    Ok(())
}

#[test] // and of those that a session in the foreground creates it is for each to say
fn child_of_a_background_session_is_one_as_well() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let inner = log.clone();
    witness("parent", &log)
        .state("_start", move |cx| {
            let (child, brother) = (inner.clone(), inner.clone());
            let job = plain("job", &inner).state("_start", move |cx| {
                busy("child", &child).spawn(cx)?;
                Ok(())
            });
            job.background().spawn(cx)?;
            witness("brother", &brother).state("_start", |cx| cx.delay("never", HOUR, ())).spawn(cx)?;
            Ok(())
        })
        .spawn(&mut kernel)?;
    let peek = kernel.peek();
    assert_eq!(
        peek.sessions.iter().map(|session| session.is_background).collect::<Vec<_>>(),
        [false, true, true, false]
    );
    let brother = peek.sessions[3].id;
    kernel.signal_now(brother, "KILL", ())?;
    lines(&log);
    run(&mut kernel)?;
    assert_eq!(lines(&log), ["child _stop", "parent _child lose 2", "parent _stop"]);
    Ok(())
}

#[test]
fn term_reaches_a_background_session_and_then_stops_it() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    witness("job", &log)
        .state("_start", |cx| {
            cx.sig("TERM", "told");
            cx.delay("never", HOUR, ());
        })
        .state("told", note)
        .background()
        .spawn(&mut kernel)?;
    witness("work", &log)
        .state("_start", |cx| {
            cx.delay("never", HOUR, ());
            cx.signal(lenore::SessionId::KERNEL, "TERM", ()).map_err(Exception::from)
        })
        .spawn(&mut kernel)?;
    run(&mut kernel)?;
    assert_eq!(lines(&log), ["job told", "work _stop", "job _stop"]);
    Ok(())
}

#[test]
fn background_session_can_not_fork_or_spawn_a_daemon() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    plain("job", &log)
        .state("_start", |cx| {
            cx.fork("forked", "begins", ("payload",));
            let daemon = Daemon::builder().start_children(0).max_children(0).spawn(cx);
            cx.heap().say(daemon.expect_err("it has no part in a child"));
        })
        .state("forked", |cx: &mut Context<'_, Diary>| {
            let refused = cx.take::<Result<i32, Error>>(0)?.expect_err("it has no part in a child");
            let payload = cx.take::<&str>(1)?;
            assert!(matches!(refused, Error::InBackground(session) if session == cx.session()));
            cx.heap().say(format!("{refused}, {payload}"));
            Ok(())
        })
        .background()
        .spawn(&mut kernel)?;
    run(&mut kernel)?;
    let why = "session 1 is a background session, which can't fork";
    assert_eq!(lines(&log), [format!("job creating the Daemon: {why}"), format!("job {why}, payload")]);
    Ok(())
}

#[test]
fn peek_tells_a_background_session() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    busy("job", &log).background().spawn(&mut kernel)?;
    plain("work", &log).spawn(&mut kernel)?;
    let text = format!("{:#}", kernel.peek());
    assert!(text.contains("session 1 (busy), refcount 7, in the background\n"), "{text}");
    assert!(text.contains("session 2 (Diary), refcount 1\n"), "{text}");
    kernel.stop();
    Ok(())
}

#[test] // it is not taken for the kernel's own, which comes as well as nothing else is left to do
fn idle_that_a_background_session_sends_to_itself_is_delivered() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    witness("job", &log)
        .state("_start", |cx| {
            cx.sig("IDLE", "idle");
            cx.yield_("later", ());
        })
        .state("later", |cx| {
            let me = cx.session();
            cx.signal(me, "IDLE", ("by itself",)).map_err(Exception::from)
        })
        .state("idle", |cx| {
            let who = cx.take::<&str>(1).unwrap_or("by the kernel");
            cx.sig_handled();
            cx.heap().say(who);
        })
        .background()
        .spawn(&mut kernel)?;
    witness("work", &log).state("_start", |cx| cx.alias_set("work").map_err(Exception::from)).spawn(&mut kernel)?;
    run(&mut kernel)?;
    assert_eq!(lines(&log), ["job by itself", "job by the kernel", "job _stop", "work _stop"]);
    Ok(())
}

//! Signals of the system and ends of child processes that the test delivers.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use lenore::testing::{Sequence, TestKernel, in_process};
use lenore::{AsKernel, Session};

use crate::panic_of;

#[test]
fn signal_that_the_test_delivers_comes_as_one_of_the_system() {
    let (log, mut kernel) = (Sequence::new(), TestKernel::new());
    Session::new(log.clone())
        .state("_start", |cx| {
            cx.alias_set("server")?;
            cx.sig("TERM", "on_term");
            cx.sig("HUP", "on_hup");
            Ok(())
        })
        .state("on_hup", |cx| {
            let signal: &str = cx.take(0)?;
            cx.heap().note(format_args!("reload by {signal}"));
            cx.sig_handled();
            Ok(())
        })
        .state("on_term", |cx| cx.heap().note("term"))
        .state("_stop", |cx| cx.heap().note("stop"))
        .spawn(&mut kernel)
        .unwrap();
    kernel.deliver_signal("HUP");
    kernel.settle();
    log.expect(["reload by HUP"]);
    assert!(kernel.has_sessions());
    kernel.deliver_signal("TERM");
    log.expect_nothing();
    kernel.settle();
    log.expect(["term", "stop"]);
    assert!(!kernel.has_sessions(), "TERM is terminal");
}

#[test]
fn signal_that_nobody_watches_or_that_does_not_exist_fails_the_test() {
    let mut kernel = TestKernel::new();
    let text = panic_of(|| kernel.deliver_signal("TERM"));
    assert!(text.contains("no session watches the signal TERM"), "{text}");
    let text = panic_of(|| kernel.deliver_signal("SIGTERM"));
    assert!(text.contains("signals are named without SIG here: \"TERM\""), "{text}");
    let text = panic_of(|| kernel.deliver_signal("CHLD"));
    assert!(text.contains("child_exits"), "{text}");
}

#[test]
fn end_of_a_child_that_does_not_exist_reaches_those_who_wait_for_it() {
    let (log, mut kernel) = (Sequence::new(), TestKernel::new());
    let (one, other) = (kernel.fake_pid(), kernel.fake_pid());
    assert_ne!(one, other);
    for pid in [one, other] {
        Session::new(log.clone())
            .state("_start", move |cx| cx.sig_child(pid, "ended", ("extra",)))
            .state("ended", |cx| {
                let (signal, status): (&str, ExitStatus) = (cx.take(0)?, cx.take(2)?);
                let extra: &str = cx.take(3)?;
                cx.heap().note(format_args!("{signal} {status} {extra}"));
                Ok(())
            })
            .spawn(&mut kernel)
            .unwrap();
    }
    // No look at the system's children takes it for one that somebody else has reaped.
    kernel.advance(Duration::from_secs(3600));
    kernel.child_exits(other, 0);
    kernel.settle();
    log.expect(["CHLD exit status: 0 extra"]);
    kernel.child_ends(one, ExitStatus::from_raw(9));
    kernel.settle();
    log.expect(["CHLD signal: 9 (SIGKILL) extra"]);
    assert!(!kernel.has_sessions());
    let text = panic_of(|| kernel.child_exits(one, 0));
    assert!(text.contains(&format!("no session waits for process {one}")), "{text}");
}

#[test]
fn sessions_that_watch_chld_are_told_of_any_child() {
    // They would have the children of other tests reaped.
    in_process(|| {
        let (log, mut kernel) = (Sequence::new(), TestKernel::new());
        let pid = kernel.fake_pid();
        Session::new(log.clone())
            .state("_start", |cx| cx.sig_keep_alive("CHLD", "ended"))
            .state("ended", move |cx| {
                let (ended, status): (i32, ExitStatus) = (cx.take(1)?, cx.take(2)?);
                assert_eq!(ended, pid);
                cx.heap().note(status);
                Ok(())
            })
            .spawn(&mut kernel)
            .unwrap();
        kernel.child_exits(pid, 7);
        kernel.settle();
        log.expect(["exit status: 7"]);
    });
}

#[test]
fn real_child_is_waited_for_while_the_clock_stands_still() {
    let (log, mut kernel) = (Sequence::new(), TestKernel::new());
    let told = log.clone();
    Session::new(())
        .state("_start", |cx| {
            let child = Command::new("sh").args(["-c", "exit 5"]).spawn()?;
            cx.sig_child(child.id() as i32, "ended", ());
            cx.delay("late", Duration::from_secs(1), ());
            Ok(())
        })
        .state("ended", move |cx| {
            told.note(cx.arg::<ExitStatus>(2)?);
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    let seen = log.clone();
    let mut notes = Vec::new();
    kernel.wait_for("the end of the child", || {
        notes.extend(seen.take());
        !notes.is_empty()
    });
    assert_eq!(notes, ["exit status: 5"]);
    assert_eq!(kernel.elapsed(), Duration::ZERO);
    assert_eq!(kernel.event_count(), 1, "the alarm has not run");
}

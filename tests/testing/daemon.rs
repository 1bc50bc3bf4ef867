//! Forks and Daemons on a kernel whose clock a test moves.

use std::time::Duration;

use lenore::testing::{Sequence, TestKernel, in_process};
use lenore::{Daemon, Error, Result, Session};

#[test]
fn fork_is_refused_with_a_text_that_says_what_to_use() {
    let (log, mut kernel) = (Sequence::new(), TestKernel::new());
    Session::new(log.clone())
        .state("_start", |cx| cx.fork("forked", "in_child", ("payload",)))
        .state("forked", |cx| {
            let error = cx.take::<std::result::Result<i32, Error>>(0)?.unwrap_err();
            assert!(matches!(error, Error::ForkInTest));
            let payload: &str = cx.take(1)?;
            cx.heap().note(format_args!("{error}; has {payload}"));
            Ok(())
        })
        .state("in_child", |cx| cx.heap().note("in the child"))
        .spawn(&mut kernel)
        .unwrap();
    kernel.settle();
    let said = log.take().join("\n");
    assert!(said.contains("in_process") && said.ends_with("has payload"), "{said}");
}

#[test]
fn daemon_that_forks_is_refused() {
    in_process(|| {
        let mut kernel = TestKernel::new();
        let refused = Daemon::builder().start_children(2).spawn(&mut kernel).map(drop).unwrap_err().to_string();
        assert!(refused.contains("a test moves the clock of this kernel"), "{refused}");
        assert!(!kernel.has_sessions());
    });
}

#[test]
fn daemon_without_forks_starts_and_ends_as_the_test_says() {
    // It changes signals of the process.
    in_process(|| {
        let (log, mut kernel) = (Sequence::new(), TestKernel::new());
        Session::new(log.clone())
            .state("_start", |cx| -> Result {
                for signal in ["daemon_start", "daemon_HUP", "daemon_shutdown"] {
                    cx.sig(signal, signal);
                }
                Daemon::builder().spawn(cx)?;
                Ok(())
            })
            .state("_child", |_| ())
            .state("_default", |cx| {
                let event: lenore::Name = cx.take(0)?;
                cx.heap().note(event);
                Ok(())
            })
            .spawn(&mut kernel)
            .unwrap();
        kernel.advance(Duration::from_secs(3600));
        log.expect(["daemon_start"]);
        kernel.deliver_signal("HUP");
        kernel.settle();
        log.expect(["daemon_HUP"]);
        kernel.deliver_signal("TERM");
        kernel.settle();
        log.expect(["daemon_shutdown"]);
        // The ended Daemon has an alias, and goes when nothing else is left.
        kernel.run_to_end();
        log.expect(["_stop"]);
    });
}

//! Signals around a fork.

use lenore::{Error, ForkStage, Kernel, Result};
use nix::sys::signal::{Signal, raise};

use super::{forker, linger, say};

/// T2: both processes wait for the same signal.
pub fn signals(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
    forker(0_u32)
        .state("_start", |cx| {
            linger(cx)?;
            cx.sig("USR1", "signal");
            cx.fork("forked", "begins", ());
            Ok(())
        })
        .state("signal", |cx| {
            *cx.heap() += 1;
            let count = *cx.heap();
            say(cx, format!("USR1 {count}"));
        })
        .spawn(kernel)?;
    Ok(())
}

/// T3: the child stops before its first instruction, so that a signal finds it unprepared.
pub fn stopped_child(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
    kernel.set_fork_hook(|stage| {
        if stage == ForkStage::ChildFirst {
            raise(Signal::SIGSTOP)?;
        }
        Ok(())
    });
    forker(())
        .state("_start", |cx| {
            linger(cx)?;
            cx.sig("TERM", "signal");
            cx.sig("USR1", "signal");
            cx.fork("forked", "begins", ());
            Ok(())
        })
        .spawn(kernel)?;
    Ok(())
}

/// T3: a signal that the parent has got, but not seen, when it forks.
pub fn pending_signal(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
    kernel.set_fork_hook(|stage| {
        if stage == ForkStage::BeforeFork {
            raise(Signal::SIGUSR1)?;
        }
        Ok(())
    });
    stopped_or_pending(kernel)
}

/// T3: a signal that stands in the parent's queue when it forks.
pub fn queued_signal(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
    forker(())
        .state("_start", |cx| {
            linger(cx)?;
            cx.sig("USR1", "signal");
            cx.sig("USR2", "signal");
            // The poll step finds the signal and queues it behind this event, which forks.
            cx.yield_("fork", ());
            raise(Signal::SIGUSR1)?;
            Ok(())
        })
        .state("fork", |cx| cx.fork("forked", "begins", ()))
        .spawn(kernel)?;
    Ok(())
}

fn stopped_or_pending(kernel: &mut Kernel) -> Result<(), Error> {
    forker(())
        .state("_start", |cx| {
            linger(cx)?;
            cx.sig("USR1", "signal");
            cx.sig("USR2", "signal");
            cx.fork("forked", "begins", ());
            Ok(())
        })
        .spawn(kernel)?;
    Ok(())
}

//! Programs that fork without asking the kernel, and tell it afterwards, or don't.

use std::io::{self, Write};
use std::process;
use std::time::Duration;

use lenore::{Error, Handle, Kernel, Reason};
use nix::errno::Errno;
use nix::sys::signal::{Signal, raise};
use nix::unistd::{ForkResult, fork};

use super::{forker, linger, say, tear_down};

pub fn fork_by_hand() -> ForkResult {
    // SAFETY: this process has one thread, so no lock is held by a thread that the child lacks.
    unsafe { fork() }.expect("the system has a process left")
}

/// A program that forks without asking the kernel, and then says so.
pub fn by_itself(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
    tear_down(kernel, "")?;
    kernel.set_fork_hook(|_| Err(Errno::EAGAIN.into()));
    // The session's own request is refused; the program's is not.
    kernel.run_one_timeslice()?;
    let id = kernel.kernel_id().to_owned();
    let side = fork_by_hand();
    kernel.has_forked()?;
    match side {
        ForkResult::Parent { child } => {
            assert!(!kernel.is_child() && kernel.kernel_id() == id);
            say(kernel, format!("forked {child}"));
        }
        ForkResult::Child => {
            assert!(kernel.is_child() && kernel.kernel_id() != id && kernel.pid() == process::id());
            kernel.stop();
            linger_in_child(kernel)?;
            say(kernel, "torn down");
        }
    }
    Ok(())
}

fn linger_in_child(kernel: &mut Kernel) -> Result<(), Error> {
    forker(())
        .state("_start", |cx| {
            cx.sig("USR2", "signal");
            linger(cx)
        })
        .spawn(kernel)?;
    Ok(())
}

/// Refuses the fork that `tear_down` asks the kernel for.
fn tear_down_without_fork(kernel: &mut Kernel) -> Result<(), Error> {
    tear_down(kernel, "")?;
    kernel.set_fork_hook(|_| Err(Errno::EAGAIN.into()));
    kernel.run_one_timeslice().map(drop)
}

/// The child stops everything, and has told nobody that it is one.
pub fn stops(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
    tear_down_without_fork(kernel)?;
    match fork_by_hand() {
        ForkResult::Parent { child } => say(kernel, format!("forked {child}")),
        ForkResult::Child => {
            kernel.stop();
            say(kernel, format!("stopped, knows its pid: {}", kernel.pid() == process::id()));
        }
    }
    Ok(())
}

/// The child tears everything down in `run`, and has told nobody that it is one.
pub fn runs(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
    tear_down_without_fork(kernel)?;
    let torn_down = kernel.peek().sessions[0].id;
    match fork_by_hand() {
        ForkResult::Parent { child } => say(kernel, format!("forked {child}")),
        ForkResult::Child => kernel.signal(torn_down, "KILL", ())?,
    }
    Ok(())
}

/// What a child has of its parent's: everything but the interest in the parent's children.
pub fn keeps(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
    let (reader, mut writer) = io::pipe().expect("a pipe can be made");
    writer.write_all(b"x").expect("it fits");
    forker(Some(Handle::new(reader)))
        .state("_start", |cx| {
            linger(cx)?;
            cx.alias_set("keeper")?;
            let reader = cx.heap().clone().expect("it is there");
            cx.select_read(&reader, "readable", ())?;
            cx.sig("USR1", "signal");
            cx.sig_child(i32::MAX, "exited", ());
            cx.delay("alarm", Duration::from_millis(5), ("set before",));
            cx.yield_("posted", ("sent before",));
            Ok(())
        })
        .state("readable", |cx| {
            say(cx, "readable");
            let reader = cx.heap().take().expect("it is there");
            cx.select_read_clear(&reader);
        })
        .state("posted", |cx| {
            say(cx, format!("posted, {}", cx.arg::<&str>(0)?));
            Ok(())
        })
        .state("alarm", |cx| {
            say(cx, format!("alarm, {}", cx.arg::<&str>(0)?));
            Ok(())
        })
        .spawn(kernel)?;
    let before = kernel.alias_resolve("keeper")?;
    let side = fork_by_hand();
    kernel.has_forked()?;
    if let ForkResult::Parent { child } = side {
        say(kernel, format!("forked {child}"));
    }
    let snapshot = kernel.peek();
    let waits = snapshot.sessions[0].reasons.iter().any(|reason| matches!(reason, Reason::ChildProcess(_)));
    let is_same = kernel.alias_resolve("keeper")? == before;
    say(kernel, format!("same session: {is_same}, waits for children: {waits}"));
    Ok(())
}

/// The child gets a signal before it has told the kernel that it is one.
pub fn hears(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
    forker(())
        .state("_start", |cx| {
            linger(cx)?;
            cx.sig("USR1", "signal");
            cx.sig("USR2", "signal");
            Ok(())
        })
        .spawn(kernel)?;
    match fork_by_hand() {
        ForkResult::Parent { child } => say(kernel, format!("forked {child}")),
        ForkResult::Child => {
            raise(Signal::SIGUSR1).expect("it is caught");
            kernel.has_forked()?;
            say(kernel, "begins");
        }
    }
    Ok(())
}

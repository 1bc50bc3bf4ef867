//! Programs that wait for child processes; tests/os_signals.rs says what each has to print.
//!
//! ```text
//! sig_child SCENARIO
//! ready
//! CHLD 4711 exit status: 3
//! ```

use std::cell::Cell;
use std::env;
use std::io;
use std::process::{self, Command, ExitStatus};
use std::rc::Rc;

use lenore::logging::Logger;
use lenore::wheel::Run;
use lenore::{Context, Error, Kernel, Reason, Result, Session};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

type Scenario = fn(&mut Kernel) -> Result<(), Error>;

const SCENARIOS: [(&str, Scenario); 19] = [
    ("many", many),
    ("early", early),
    ("forked", |kernel| forked(kernel, false)),
    ("forked_and_heard", |kernel| forked(kernel, true)),
    ("arguments", arguments),
    ("several_sessions", several_sessions),
    ("replaced", replaced),
    ("foreign", foreign),
    ("everybody", everybody),
    ("system", system),
    ("kept_alive", kept_alive),
    ("no_child", no_child),
    ("other_name", other_name),
    ("early_for_everybody", early_for_everybody),
    ("foreign_zombie", foreign_zombie),
    ("other_kernels", other_kernels),
    ("leftover", leftover),
    ("leftover_of_a_run", leftover_of_a_run),
    ("leftover_zombie", leftover_zombie),
];

fn main() -> Result<(), Error> {
    let name = env::args().nth(1).unwrap_or_default();
    let (_, scenario) = SCENARIOS.iter().find(|(other, _)| *other == name).expect("the argument names a scenario");
    let mut kernel = Kernel::new()?;
    scenario(&mut kernel)?;
    kernel.run()?;
    println!("run returned");
    Ok(())
}

/// Makes a child of the program's own that ends with `code` as soon as `gate` is dropped; returns its pid and the gate.
fn make_child(code: i32) -> (i32, io::PipeWriter) {
    let (mut reader, gate) = io::pipe().expect("a pipe can be made");
    // SAFETY: this process has one thread, so no lock is held by a thread that the child lacks.
    match unsafe { fork() }.expect("the system has a process left") {
        ForkResult::Parent { child } => (child.as_raw(), gate),
        ForkResult::Child => {
            drop(gate);
            let _ = io::Read::read(&mut reader, &mut [0]); // its end is what counts
            // SAFETY: `_exit` takes any status; nothing is buffered, so there is nothing to flush.
            unsafe { nix::libc::_exit(code) }
        }
    }
}

/// A child that has ended, and that nobody has reaped.
fn make_zombie(code: i32) -> i32 {
    let (pid, gate) = make_child(code);
    drop(gate);
    waitid(Id::Pid(Pid::from_raw(pid)), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).expect("it is our child");
    pid
}

fn say_exit<H: 'static>(cx: &mut Context<'_, H>) -> Result {
    println!("{} {} {}", cx.arg::<&str>(0)?, cx.arg::<i32>(1)?, cx.arg::<ExitStatus>(2)?);
    Ok(())
}

/// Waits for fifty children, which wait to be killed.
fn many(kernel: &mut Kernel) -> Result<(), Error> {
    Session::new(())
        .state("_start", |cx| {
            for _ in 0..50 {
                let (pid, gate) = make_child(0);
                std::mem::forget(gate);
                cx.sig_child(pid, "exited", ());
            }
            println!("ready");
        })
        .state("exited", say_exit)
        .spawn(kernel)?;
    Ok(())
}

/// A child that has ended before anybody waits for it, when there is nothing else to wake the loop.
fn early(kernel: &mut Kernel) -> Result<(), Error> {
    Session::new(make_zombie(3))
        .state("_start", |cx| cx.delay("watch", std::time::Duration::from_millis(1), ()))
        .state("watch", |cx| {
            let pid = *cx.heap();
            cx.sig_child(pid, "exited", ());
        })
        .state("exited", say_exit)
        .spawn(kernel)?;
    Ok(())
}

/// A child of the kernel's own fork that has ended before it is waited for, in a process that waits for another one already. With
/// `is_heard`, a slice has heard of the end before.
fn forked(kernel: &mut Kernel, is_heard: bool) -> Result<(), Error> {
    let (other, gate) = make_child(0);
    Session::new(Some(gate))
        .state("_start", move |cx| {
            cx.sig_child(other, "other_exited", ());
            cx.fork("parent", "child", ());
        })
        .state("child", leave)
        .state("parent", move |cx| {
            let pid = cx.take::<Result<i32, Error>>(0)??;
            waitid(Id::Pid(Pid::from_raw(pid)), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)?;
            if is_heard {
                cx.run_one_timeslice()?;
            }
            cx.sig_child(pid, "exited", ());
            Ok(())
        })
        .state("exited", |cx| {
            // The other's end would bring the news of this one as well.
            *cx.heap() = None;
            say_exit(cx)
        })
        .state("other_exited", |_| println!("other"))
        .spawn(kernel)?;
    Ok(())
}

fn leave(_: &mut Context<'_, Option<io::PipeWriter>>) {
    process::exit(3)
}

/// What comes with the event, and how a death by signal looks.
fn arguments(kernel: &mut Kernel) -> Result<(), Error> {
    Session::new(None::<(i32, io::PipeWriter)>)
        .state("_start", |cx| {
            let (pid, gate) = make_child(7);
            drop(gate); // not for the next child to inherit
            cx.sig_child(pid, "exited", ("extra", 1_u8));
            let (stopped, gate) = make_child(0);
            cx.sig_child(stopped, "exited", ("extra", 1_u8));
            // K-SG-58: neither of these is reported.
            kill(Pid::from_raw(stopped), Signal::SIGSTOP)?;
            kill(Pid::from_raw(stopped), Signal::SIGCONT)?;
            kill(Pid::from_raw(stopped), Signal::SIGSTOP)?;
            *cx.heap() = Some((stopped, gate));
            Ok(())
        })
        .state("kill", |cx| {
            if let Some((stopped, _gate)) = cx.heap().take() {
                kill(Pid::from_raw(stopped), Signal::SIGKILL)?;
            }
            Ok(())
        })
        .state("exited", |cx| {
            assert_eq!((cx.args().len(), *cx.arg::<&str>(3)?, *cx.arg::<u8>(4)?), (5, "extra", 1));
            assert_eq!(cx.sender(), lenore::SessionId::KERNEL);
            println!("{} {}", cx.arg::<&str>(0)?, cx.arg::<ExitStatus>(2)?);
            // Time enough for a report of the stopped one that must not come.
            cx.delay("kill", std::time::Duration::from_millis(20), ());
            Ok(())
        })
        .spawn(kernel)?;
    Ok(())
}

/// Two sessions wait for one child, and one more has changed its mind.
fn several_sessions(kernel: &mut Kernel) -> Result<(), Error> {
    let (pid, gate) = make_child(0);
    for name in ["first", "second", "third"] {
        Session::new(pid)
            .state("_start", move |cx| {
                let pid = *cx.heap();
                cx.sig_child(pid, "exited", ());
                if name == "second" {
                    cx.sig_child_clear(pid);
                }
                cx.sig_child_clear(pid + 1); // there is no such registration
            })
            .state("exited", move |_| println!("{name}"))
            .spawn(kernel)?;
    }
    drop(gate);
    Ok(())
}

/// A second registration for the same pid.
fn replaced(kernel: &mut Kernel) -> Result<(), Error> {
    Session::new(())
        .state("_start", |cx| {
            let (pid, _gate) = make_child(0);
            cx.sig_child(pid, "old", ());
            cx.sig_child(pid, "new", (1_u8,));
        })
        .state("old", |_| println!("old"))
        .state("new", |cx| {
            println!("new {}", cx.arg::<u8>(3)?);
            let snapshot = cx.peek();
            let waits = |reason: &&Reason| matches!(reason, Reason::ChildProcess(_));
            let left = snapshot.sessions.iter().flat_map(|session| &session.reasons).filter(waits).count();
            println!("{left} registrations left");
            Ok(())
        })
        .spawn(kernel)?;
    Ok(())
}

/// A child that only the program knows of, beside two that are watched; it stands first in the system's list.
fn foreign(kernel: &mut Kernel) -> Result<(), Error> {
    let foreign = make_zombie(5);
    Session::new(foreign)
        .state("_start", |cx| {
            for code in [1, 2] {
                cx.sig_child(make_zombie(code), "exited", ());
            }
        })
        .state("exited", |cx| {
            println!("{}", cx.arg::<ExitStatus>(2)?);
            Ok(())
        })
        .state("_stop", |cx| println!("{:?}", waitpid(Pid::from_raw(*cx.heap()), None).map(|_| "still there")))
        .spawn(kernel)?;
    Ok(())
}

/// A session that watches CHLD gets every child, in turn with those that wait for one.
fn everybody(kernel: &mut Kernel) -> Result<(), Error> {
    let foreign = make_zombie(5);
    Session::new(0_u8)
        .state("_start", |cx| {
            cx.sig("CHLD", "any");
            cx.sig_child(make_zombie(1), "exited", ());
            cx.sig_child(make_zombie(2), "exited", ());
        })
        .state("exited", |cx| {
            println!("exited {}", cx.arg::<ExitStatus>(2)?);
            Ok(())
        })
        .state("any", |cx| {
            println!("any {}", cx.arg::<ExitStatus>(2)?);
            assert!(*cx.arg::<i32>(1)? > 0);
            Ok(())
        })
        .state("_stop", move |_| println!("{:?}", waitpid(Pid::from_raw(foreign), None).map(|_| "still there")))
        .spawn(kernel)?;
    Ok(())
}

/// A synchronous child in the state that begins to watch.
fn system(kernel: &mut Kernel) -> Result<(), Error> {
    Session::new(())
        .state("_start", |cx| {
            cx.sig("CHLD", "any");
            let status = Command::new("/bin/sh").args(["-c", "exit 4"]).status()?;
            println!("system: {status}");
            Ok(())
        })
        .state("any", |_| println!("any"))
        .spawn(kernel)?;
    Ok(())
}

/// Nothing but the child keeps the program going; then nothing does.
fn kept_alive(kernel: &mut Kernel) -> Result<(), Error> {
    let (pid, gate) = make_child(0);
    Session::new(Some(gate))
        .state("_start", move |cx| {
            cx.sig_child(pid, "exited", ());
            cx.sig("USR1", "open");
            cx.sig("IDLE", "idle");
            println!("ready {}", process::id());
        })
        .state("open", |cx| *cx.heap() = None)
        .state("idle", |_| println!("idle"))
        .state("exited", |_| println!("exited"))
        .state("_stop", |_| println!("_stop"))
        .spawn(kernel)?;
    Ok(())
}

/// Nothing but processes that will never be heard of: one that nobody has, and one that was reaped by other means.
fn no_child(kernel: &mut Kernel) -> Result<(), Error> {
    let reaped = make_zombie(0);
    waitpid(Pid::from_raw(reaped), None).expect("it is our child");
    for pid in [i32::MAX, reaped] {
        Session::new(())
            .state("_start", move |cx| {
                cx.sig_child(pid, "exited", ());
                cx.sig("IDLE", "idle");
            })
            .state("exited", |_| println!("exited"))
            .state("idle", |_| println!("idle"))
            .state("_stop", |_| println!("_stop"))
            .spawn(kernel)?;
    }
    Ok(())
}

/// One session that watches CHLD, and one that watches it by the name that System V had for it.
fn other_name(kernel: &mut Kernel) -> Result<(), Error> {
    for signal in ["CHLD", "CLD"] {
        Session::new(())
            .state("_start", move |cx| {
                cx.alias_set(signal)?;
                cx.sig(signal, "exited");
                cx.sig("IDLE", "idle");
                if signal == "CLD" {
                    let (_pid, gate) = make_child(0);
                    drop(gate);
                }
                Ok(())
            })
            .state("exited", move |cx| {
                println!("{signal} gets {}", cx.arg::<&str>(0)?);
                Ok(())
            })
            .state("idle", |_| println!("idle"))
            .spawn(kernel)?;
    }
    Ok(())
}

/// A child that has ended before anybody watches CHLD, when there is nothing else to wake the loop.
fn early_for_everybody(kernel: &mut Kernel) -> Result<(), Error> {
    Session::new(make_zombie(3))
        .state("_start", |cx| {
            cx.delay("watch", std::time::Duration::from_millis(1), ());
            cx.alias_set("keeper").map_err(lenore::Exception::from)
        })
        .state("watch", |cx| cx.sig("CHLD", "any"))
        .state("any", |cx| {
            println!("any {}", cx.arg::<ExitStatus>(2)?);
            Ok(())
        })
        .spawn(kernel)?;
    Ok(())
}

/// Waits for processes that there are not, two of them with numbers that waitpid(2) takes for any child, beside a child that has ended and is the program's own affair.
fn foreign_zombie(kernel: &mut Kernel) -> Result<(), Error> {
    let foreign = make_zombie(5);
    Session::new(foreign)
        .state("_start", |cx| {
            for pid in [i32::MAX, 0, -1] {
                cx.sig_child(pid, "exited", ());
            }
            cx.sig("IDLE", "idle");
        })
        .state("exited", |_| println!("exited"))
        .state("idle", |_| println!("idle"))
        .state("_stop", |cx| println!("{:?}", waitpid(Pid::from_raw(*cx.heap()), None).map(|_| "still there")))
        .spawn(kernel)?;
    Ok(())
}

/// Children that end while other kernels are made, one after the other.
fn other_kernels(kernel: &mut Kernel) -> Result<(), Error> {
    Session::new((0_u32, None::<(i32, io::PipeWriter)>))
        .state("_start", |cx| cx.yield_("next", ()))
        .state("next", |cx| {
            let (pid, gate) = make_child(0);
            *cx.heap() = (cx.heap().0 + 1, Some((pid, gate)));
            cx.sig_child(pid, "exited", ());
            // Not before the kernel has looked at this child for the first time.
            cx.delay("end", std::time::Duration::from_micros(10), ());
        })
        .state("end", |cx| {
            let Some((pid, gate)) = cx.heap().1.take() else { return Ok(()) };
            drop(gate);
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
            while waitid(Id::Pid(Pid::from_raw(pid)), flags)?.pid().is_none() {
                Kernel::new()?;
            }
            cx.delay("lost", std::time::Duration::from_secs(10), ());
            Ok(())
        })
        .state("lost", |cx| {
            println!("never heard of it");
            cx.stop();
        })
        .state("exited", |cx| {
            cx.delay_clear("lost");
            if cx.heap().0 < 400 {
                cx.yield_("next", ());
            }
        })
        .spawn(kernel)?;
    Ok(())
}

/// A run that ends while a child of the program's own goes on.
fn leftover(kernel: &mut Kernel) -> Result<(), Error> {
    let (pid, gate) = make_child(6);
    end_beside(kernel, pid, Some(gate))
}

/// A run that ends while a program and a child of its own go on.
fn leftover_of_a_run(kernel: &mut Kernel) -> Result<(), Error> {
    let _ = Logger::new().filter("warn").and_then(Logger::install);
    let (own, gate) = make_child(6);
    let sleep = Rc::new(Cell::new(0));
    let pid = sleep.clone();
    Session::new(())
        .state("_start", move |cx| {
            let run = Run::program(["sleep", "600"]).start(cx)?;
            pid.set(run.pid().unwrap_or_default());
            Ok(())
        })
        .spawn(kernel)?;
    kernel.run()?;
    println!("{own} {}", sleep.get());
    drop(gate);
    let _ = kill(Pid::from_raw(sleep.get()), Signal::SIGKILL);
    Ok(())
}

/// A run that ends while a child of the program's own has ended unreaped.
fn leftover_zombie(kernel: &mut Kernel) -> Result<(), Error> {
    let pid = make_zombie(6);
    end_beside(kernel, pid, None)
}

/// Runs to the end, lets the child go, and sees that it can still be waited for.
fn end_beside(kernel: &mut Kernel, pid: i32, gate: Option<io::PipeWriter>) -> Result<(), Error> {
    let _ = Logger::new().filter("warn").and_then(Logger::install);
    Session::new(()).state("_start", |_| ()).spawn(kernel)?;
    kernel.run()?;
    println!("run returned");
    drop(gate);
    if waitpid(Pid::from_raw(pid), None).is_ok() {
        println!("left alone");
    }
    process::exit(0)
}

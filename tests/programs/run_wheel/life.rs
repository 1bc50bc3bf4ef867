//! The process: how it begins, what it has of its parent's, how it ends.

use std::cell::RefCell;
use std::fs;
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitStatus};
use std::rc::Rc;
use std::time::{Duration, Instant};

use lenore::filter::Line;
use lenore::wheel::{OnDrop, ReadWrite, Redirect, Run, RunBuilder, SocketFactory};
use lenore::{Context, Error, Handle, Kernel, Session};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use super::{Heap, Scenario, events, nothing_is_left, say, session, watching, wheel};

pub const SCENARIOS: &[(&str, Scenario)] = &[
    ("executed", executed),
    ("refused", refused),
    ("command", command),
    ("privileges", privileges),
    ("no_such_account", no_such_account),
    ("group", group),
    ("descriptors", descriptors),
    ("signals", signals),
    ("kill", kill),
    ("kill_group", kill_group),
    ("kill_group_of_others", kill_group_of_others),
    ("real_time", real_time),
    ("early_signal", early_signal),
    ("closed_when_flushed", closed_when_flushed),
    ("fork_at_end", fork_at_end),
    ("drop_leave", |kernel| dropped(kernel, OnDrop::Leave)),
    ("drop_terminate", |kernel| dropped(kernel, OnDrop::Terminate)),
    ("drop_kill", |kernel| dropped(kernel, OnDrop::Kill)),
    ("drop_wait", drop_wait),
    ("drop_wait_limit", drop_wait_limit),
    ("drop_in_fork", drop_in_fork),
    ("reaps", reaps),
    ("reaps_at_end", reaps_at_end),
    ("by_hand", by_hand),
    ("stopped", stopped),
];

/// The program runs when the constructor returns.
fn executed(kernel: &mut Kernel) -> Result<(), Error> {
    session(|| Run::program(["sleep", "100"]).on_exit("exit"))
        .state("started", |cx| {
            let pid = wheel(cx).pid().expect("it runs");
            let name = fs::read_to_string(format!("/proc/{pid}/comm"))?;
            println!(
                "{} {}",
                name.trim(),
                fs::read_link(format!("/proc/{pid}/fd/0"))?.to_string_lossy().starts_with("pipe:")
            );
            assert_eq!(wheel(cx).exit_status(), None);
            Ok(wheel(cx).kill("TERM")?)
        })
        .state("exit", |cx| {
            let status = wheel(cx).exit_status();
            assert_eq!(status, Some(*cx.arg::<ExitStatus>(2)?));
            *cx.heap() = None;
            Ok(())
        })
        .spawn(kernel)
        .map(drop)
}

/// What can't be started is an error of the constructor, and leaves nothing behind.
fn refused(kernel: &mut Kernel) -> Result<(), Error> {
    let stopped = Session::new(()).state("_start", |cx| {
        cx.stop();
        say("stopped", Run::program(["true"]).start(cx));
    });
    stopped.spawn(kernel)?;
    session(|| Run::program(["true"]))
        .state("_start", |cx| {
            let before = fs::read_dir("/proc/self/fd")?.count();
            let try_it =
                |what, builder: RunBuilder, cx: &mut lenore::Context<'_, _>| say(what, events(builder).start(cx));
            try_it("missing", Run::program(["/no/such/program", "x"]), cx);
            try_it("not in PATH", Run::program(["no-such-program"]), cx);
            try_it("no program", Run::program(["/etc/passwd"]), cx);
            try_it("no words", Run::program([""; 0]), cx);
            try_it("nul in a word", Run::program(["echo", "a", "b\0c"]), cx);
            try_it("nul in the name", Run::program(["ec\0ho"]), cx);
            try_it("nul in a text", Run::shell("echo\0"), cx);
            let with = |change: &dyn Fn(&mut Command) -> &mut Command| {
                let mut command = Command::new("echo");
                change(&mut command);
                Run::command(command)
            };
            try_it("nul in an argument", with(&|command| command.arg("a").arg("b\0")), cx);
            try_it("nul in a variable", with(&|command| command.env("a", "b\0")), cx);
            try_it("nul in the directory", with(&|command| command.current_dir("/\0")), cx);
            try_it("group", Run::program(["true"]).group(u32::MAX), cx);
            cx.yield_("look", (before,));
            Ok(())
        })
        .state("look", nothing_is_left)
        .spawn(kernel)
        .map(drop)
}

/// With an environment and a directory.
fn command(kernel: &mut Kernel) -> Result<(), Error> {
    watching(|| {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $WORD; pwd"]).env("WORD", "from the environment").current_dir("/");
        Run::command(command).stdin(Redirect::Null)
    })
    .spawn(kernel)
    .map(drop)
}

/// As the user `nobody`, less urgent; or refused, if this process is not root.
fn privileges(kernel: &mut Kernel) -> Result<(), Error> {
    let words = ["sh", "-c", "nice; id -un; id -g; id -G"];
    session(move || Run::program(words))
        .state("_start", move |cx| {
            let make = || events(Run::program(words)).stdin(Redirect::Null).priority(5);
            say("by name", make().user("nobody").start(cx).map(|wheel| *cx.heap() = Some(wheel)));
            Ok(())
        })
        .state("exit", |_| ())
        .state("close", move |cx| {
            let builder = events(Run::program(words)).stdin(Redirect::Null).on_close("done");
            say("by number", builder.user(65534).group(12345).start(cx).map(|wheel| *cx.heap() = Some(wheel)));
        })
        .state("done", |_| ())
        .spawn(kernel)
        .map(drop)
}

fn no_such_account(kernel: &mut Kernel) -> Result<(), Error> {
    session(|| Run::program(["true"]))
        .state("_start", |cx| {
            say("user", Run::program(["true"]).user("no-such-user").start(cx));
            say("group", Run::program(["true"]).group("no-such-group").start(cx));
        })
        .spawn(kernel)
        .map(drop)
}

/// Whether the child leads a process group.
fn group(kernel: &mut Kernel) -> Result<(), Error> {
    for keeps in [false, true] {
        session(move || {
            let builder = Run::program(["cat", "/proc/self/stat"]).on_stdout("stdout");
            if keeps { builder.keep_process_group() } else { builder }
        })
        .state("stdout", move |cx| {
            let line = cx.take::<String>(0)?;
            let group: i32 = line.split(' ').nth(4).expect("the fifth field").parse()?;
            println!(
                "keeps {keeps}: leads {}, is in ours {}",
                wheel(cx).pid() == Some(group),
                group == nix::unistd::getpgrp().as_raw()
            );
            *cx.heap() = None;
            Ok(())
        })
        .spawn(kernel)?;
    }
    Ok(())
}

/// What the child has open, while this process has all sorts of things, one of them without close-on-exec.
fn descriptors(kernel: &mut Kernel) -> Result<(), Error> {
    let (ours, _theirs) = UnixStream::pair().expect("a pair can be made");
    fcntl(&ours, FcntlArg::F_DUPFD(100)).expect("there is a number left");
    Session::new((None::<Run>, None))
        .state("_start", move |cx| {
            let wheel = Run::program(["ls", "/proc/self/fd"]).on_stdout("stdout").on_close("close").start(cx)?;
            let listener = SocketFactory::tcp("127.0.0.1:0").on_accept("accept").listen(cx)?;
            cx.heap().0 = Some(wheel);
            cx.heap().1 = Some(listener);
            Ok(())
        })
        .state("stdout", |cx| {
            println!("fd {}", cx.arg::<String>(0)?);
            Ok(())
        })
        .state("close", |cx| *cx.heap() = (None, None))
        .spawn(kernel)
        .map(drop)
}

/// What this process blocks, ignores and catches.
fn signals(kernel: &mut Kernel) -> Result<(), Error> {
    SigSet::from_iter([Signal::SIGUSR1, Signal::SIGTERM]).thread_block().expect("they can be blocked");
    // SAFETY: `SIG_IGN` runs no code of this process.
    unsafe { signal(Signal::SIGHUP, SigHandler::SigIgn) }.expect("it can be ignored");
    watching(|| Run::program(["cat", "/proc/self/status"]).stdin(Redirect::Null))
        .state("started", |cx| cx.sig("INT", "interrupted"))
        .state("stdout", |cx| {
            let line = cx.take::<String>(0)?;
            if ["SigBlk", "SigIgn", "SigCgt"].contains(&&line[..line.len().min(6)]) {
                println!("out {line}");
            }
            Ok(())
        })
        .spawn(kernel)
        .map(drop)
}

/// In the events that tell of the last write the pipe is closed already: a child that reads to the end can be waited for.
fn closed_when_flushed(kernel: &mut Kernel) -> Result<(), Error> {
    fn last(cx: &mut Context<'_, Heap>) -> lenore::Result {
        println!("put: {:?}", wheel(cx).put("more"));
        let pid = wheel(cx).pid().expect("a program has one at once");
        // The child has nothing else to wait for than the end of its input. It stays to be reaped by the kernel.
        waitid(Id::Pid(Pid::from_raw(pid)), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)?;
        println!("gone");
        Ok(())
    }
    for (low, stdin) in [("last", "stdin"), ("other", "last")] {
        session(move || {
            let run = Run::shell("cat > /dev/null").watermarks(1, 2).on_low(low).on_stdin(stdin);
            run.on_stdout("stdout").on_close("close").on_exit("exit")
        })
        .state("started", |cx| {
            wheel(cx).put("the last");
            wheel(cx).shutdown_stdin_after_flush();
            Ok(())
        })
        .state("last", last)
        .state("other", |_| println!("low"))
        .state("exit", |cx| *cx.heap() = None)
        .spawn(kernel)?;
    }
    Ok(())
}

/// One process of a group of two; then what becomes of signals to one that is gone.
fn kill(kernel: &mut Kernel) -> Result<(), Error> {
    watching(|| Run::shell("exec 3<&0; cat <&3 & echo ready; wait; echo not killed"))
        .state("stdout", |cx| {
            println!("out {}", cx.arg::<String>(0)?);
            say("no signal", wheel(cx).kill("NOSUCH"));
            say("kill", wheel(cx).kill("SIGUSR1")); // with the prefix, as Perl takes it as well
            Ok(())
        })
        .state("exit", |cx| {
            println!("exit {}", cx.arg::<ExitStatus>(2)?);
            let pid = wheel(cx).pid().expect("it has had one").to_string();
            let again = wheel(cx).kill("TERM").map_err(|error| error.to_string().replace(&pid, "PID"));
            println!("again: {again:?}");
            // The other process of its group is there still, and writes.
            wheel(cx).put("the other one lives");
            cx.yield_("shut", ());
            Ok(())
        })
        .state("shut", |cx| wheel(cx).shutdown_stdin_after_flush())
        .spawn(kernel)
        .map(drop)
}

/// A signal for the process and what it has started.
fn kill_group(kernel: &mut Kernel) -> Result<(), Error> {
    watching(|| Run::shell("sleep 100 & echo $!; sleep 100 & echo $!; echo ready; wait"))
        .state("stdout", |cx| {
            let line = cx.take::<String>(0)?;
            println!("out {line}");
            if line == "ready" {
                say("no signal", wheel(cx).kill_group("-9").map_err(hide_pid));
                say("kill_group", wheel(cx).kill_group("KILL"));
            }
            Ok(())
        })
        .state("exit", |cx| {
            println!("exit {}", cx.arg::<ExitStatus>(2)?);
            say("again", wheel(cx).kill_group("KILL").map_err(hide_pid));
            cx.yield_("drop", ());
            Ok(())
        })
        .state("drop", |cx| *cx.heap() = None)
        .spawn(kernel)
        .map(drop)
}

/// The process is in the group of this one, which must not be signalled.
fn kill_group_of_others(kernel: &mut Kernel) -> Result<(), Error> {
    watching(|| Run::shell("echo ready; read line; echo $line").keep_process_group())
        .state("stdout", |cx| {
            let line = cx.take::<String>(0)?;
            println!("out {line}");
            if line == "ready" {
                say("kill_group", wheel(cx).kill_group("KILL").map_err(hide_pid));
                wheel(cx).put("alive");
            }
            Ok(())
        })
        .state("close", |cx| *cx.heap() = None)
        .spawn(kernel)
        .map(drop)
}

fn hide_pid(error: Error) -> Error {
    match error {
        Error::Os { call, subject, source } => {
            let words = subject
                .split_whitespace()
                .map(|word| if word.starts_with(|c: char| c.is_ascii_digit()) { "PID" } else { word });
            Error::Os { call, subject: words.collect::<Vec<_>>().join(" "), source }
        }
        error => error,
    }
}

/// The wheel goes, and its process has a child of its own.
fn dropped(kernel: &mut Kernel, what: OnDrop) -> Result<(), Error> {
    session(move || {
        Run::shell("sleep 100 & echo $! >&2; echo ready; wait").on_stdout("stdout").on_exit("exit").on_drop(what)
    })
    .state("stdout", |cx| {
        cx.sig("USR1", "end");
        println!("pid {}", wheel(cx).pid().unwrap_or_default());
        *cx.heap() = None;
    })
    .state("end", |_| println!("goes on"))
    .state("exit", |cx| {
        println!("exit {}", cx.arg::<ExitStatus>(2)?);
        Ok(())
    })
    .spawn(kernel)
    .map(drop)
}

/// The wheel goes, and with it the process before anything else happens. It is reported all the same.
fn drop_wait(kernel: &mut Kernel) -> Result<(), Error> {
    session(|| Run::program(["sleep", "100"]).on_drop(OnDrop::KillAndWait).on_exit("exit"))
        .state("started", |cx| {
            let pid = wheel(cx).pid().expect("it runs");
            *cx.heap() = None;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
            println!("state {}", stat.split(") ").nth(1).and_then(|rest| rest.chars().next()).unwrap_or('?'));
            Ok(())
        })
        .spawn(kernel)
        .map(drop)
}

/// The same when the process does not end, and says how long the drop took.
fn drop_wait_limit(kernel: &mut Kernel) -> Result<(), Error> {
    util::daemon_program::log_to_stderr();
    session(|| Run::program(["sleep", "100"]).on_drop(OnDrop::KillAndWait).on_exit("exit"))
        .state("started", |cx| {
            cx.sig("USR1", "drop");
            println!("pid {}", wheel(cx).pid().expect("it runs"));
        })
        .state("drop", |cx| {
            let begin = Instant::now();
            *cx.heap() = None;
            println!("dropped {}", begin.elapsed().as_millis());
        })
        .spawn(kernel)
        .map(drop)
}

/// A forked child of this process has no part in the wheel: whatever it does, the wheel's process lives.
fn drop_in_fork(kernel: &mut Kernel) -> Result<(), Error> {
    session(|| Run::program(["cat"]).on_stdout("stdout").on_drop(OnDrop::KillAndWait).on_exit("exit"))
        .state("started", |cx| cx.fork("parent", "child", ()))
        .state("child", |cx| {
            say("kill", wheel(cx).kill("TERM").map_err(|_| Error::NoActiveSession));
            println!("put: {:?}", wheel(cx).put("from the wrong process"));
            *cx.heap() = None;
        })
        .state("parent", |cx| {
            let pid = cx.take::<Result<i32, Error>>(0)??;
            cx.sig_child(pid, "child_gone", ());
            Ok(())
        })
        .state("child_gone", |cx| wheel(cx).put("alive"))
        .state("stdout", |cx| {
            println!("out {}", cx.arg::<String>(0)?);
            *cx.heap() = None;
            Ok(())
        })
        .spawn(kernel)
        .map(drop)
}

/// Children of which nobody wants to hear.
fn reaps(kernel: &mut Kernel) -> Result<(), Error> {
    Session::new(())
        .state("_start", |cx| {
            for _ in 0..20 {
                drop(Run::program(["true"]).start(cx)?);
            }
            cx.sig_keep_alive("USR1", "end");
            println!("ready");
            Ok(())
        })
        .state("end", |cx| cx.sig_clear("USR1"))
        .spawn(kernel)
        .map(drop)
}

/// The program's last act is to drop the wheel, before anybody has looked at its child.
fn reaps_at_end(kernel: &mut Kernel) -> Result<(), Error> {
    let wheel = Rc::new(RefCell::new(None));
    let kept = wheel.clone();
    Session::new(())
        .state("_start", move |cx| {
            *kept.borrow_mut() =
                Some(Run::program(["sleep", "100"]).stdin(Redirect::Null).on_drop(OnDrop::KillAndWait).start(cx)?);
            Ok(())
        })
        .state("_stop", move |_| *wheel.borrow_mut() = None)
        .spawn(kernel)?;
    kernel.run()?;
    println!("children: {}", nix::sys::wait::waitpid(None, None).is_ok());
    Ok(())
}

/// The session watches the pid by itself, beside a watched handle and a stream.
fn by_hand(kernel: &mut Kernel) -> Result<(), Error> {
    let (ours, theirs) = UnixStream::pair().expect("a pair can be made");
    let theirs = Rc::new(RefCell::new(Some(Handle::new(theirs))));
    Session::new((None::<Run>, None))
        .state("_start", move |cx| {
            let wheel = Run::program(["cat"]).on_stdout("stdout").on_close("close").start(cx)?;
            cx.sig_child(wheel.pid().expect("a program has one at once"), "child", ("extra",));
            wheel.put("x");
            wheel.shutdown_stdin_after_flush();
            let stream = ReadWrite::stream(ours.try_clone()?, Line::new()).on_input("input").start(cx)?;
            *cx.heap() = (Some(wheel), Some(stream));
            Ok(())
        })
        .state("stdout", |cx| {
            println!("out {}", cx.arg::<String>(0)?);
            Ok(())
        })
        .state("close", |cx| cx.heap().0 = None)
        .state("child", move |cx| {
            println!("child {} {}", cx.arg::<ExitStatus>(2)?, cx.arg::<&str>(3)?);
            theirs.borrow_mut().take();
            cx.heap().1 = None;
            Ok(())
        })
        .spawn(kernel)
        .map(drop)
}

/// The session is stopped; the wheel is dropped with its heap.
fn stopped(kernel: &mut Kernel) -> Result<(), Error> {
    let session = session(|| Run::program(["cat"]).on_stdout("stdout").on_exit("exit")).state("_default", |_| ());
    let session: Session<Heap> = session.state("started", |cx| {
        cx.delay("never", Duration::from_secs(100), ());
        println!("pid {}", wheel(cx).pid().unwrap_or_default());
    });
    let id = session.spawn(kernel)?;
    kernel.run_one_timeslice()?;
    kernel.signal(id, "KILL", ())?;
    kernel.run()?;
    // It has read from a pipe that nobody writes to any more. Perhaps the kernel has reaped it already.
    let gone = nix::sys::wait::waitpid(None, None);
    println!("ended: {}", matches!(gone, Ok(_) | Err(nix::errno::Errno::ECHILD)));
    Ok(())
}

/// Ended by a signal that has no name, before the other, which ends by itself.
fn real_time(kernel: &mut Kernel) -> Result<(), Error> {
    for text in ["kill -40 $$", "sleep 0.2; exit 3"] {
        session(move || Run::shell(text).stdin(Redirect::Null).on_exit("exit")).spawn(kernel)?;
    }
    Ok(())
}

/// A signal reaches the child while it has this process's handlers still.
fn early_signal(kernel: &mut Kernel) -> Result<(), Error> {
    let make = || {
        let mut command = Command::new("true");
        // SAFETY: raising a signal is all that is done in the child.
        unsafe {
            std::os::unix::process::CommandExt::pre_exec(&mut command, || Ok(nix::sys::signal::raise(Signal::SIGTERM)?))
        };
        Run::command(command).stdin(Redirect::Null).on_exit("exit")
    };
    session(|| Run::program(["true"]))
        .state("_start", move |cx| {
            cx.sig("TERM", "signal");
            *cx.heap() = Some(make().start(cx)?);
            Ok(())
        })
        .state("signal", |_| println!("it came here"))
        .spawn(kernel)
        .map(drop)
}

/// The session forks when it hears of the end: the close event is the parent's alone.
fn fork_at_end(kernel: &mut Kernel) -> Result<(), Error> {
    session(|| Run::program(["true"]).stdin(Redirect::Null).on_stdout("stdout").on_error("error").on_close("close"))
        .state("error", |cx| cx.fork("parent", "child", ()))
        .state("child", |_| ())
        .state("parent", |cx| {
            let pid = cx.take::<Result<i32, Error>>(0)??;
            cx.sig_child(pid, "child_gone", ());
            Ok(())
        })
        .state("child_gone", |_| ())
        .state("close", |cx| println!("close, is child: {}", cx.is_child()))
        .state("_stop", |_| ())
        .spawn(kernel)
        .map(drop)
}

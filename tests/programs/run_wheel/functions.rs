//! Functions of this program that run in a forked child.

use std::cell::Cell;
use std::fs;
use std::io::{self, BufRead, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process;
use std::rc::Rc;
use std::sync::{OnceLock, mpsc};
use std::thread;

use lenore::filter::Line;
use lenore::wheel::{Failure, FollowTail, ReadWrite, Redirect, Run, SocketFactory};
use lenore::{AsKernel, Error, Handle, Kernel, Session};
use nix::errno::Errno;
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};

use super::{Scenario, events, say, session, watching, wheel};

pub const SCENARIOS: &[(&str, Scenario)] = &[
    ("function", function),
    ("function_fails", |kernel| ending(kernel, "fails")),
    ("function_panics", |kernel| ending(kernel, "panics")),
    ("function_exits", |kernel| ending(kernel, "exits")),
    ("function_returns", |kernel| ending(kernel, "returns")),
    ("function_pid", function_pid),
    ("function_cancelled", function_cancelled),
    ("function_descriptors", function_descriptors),
    ("function_signals", function_signals),
    ("function_loop", function_loop),
    ("function_runs_on", function_runs_on),
    ("function_pipe", |kernel| function_pipe(kernel, true)),
    ("function_pipe_alone", |kernel| function_pipe(kernel, false)),
    ("function_setup", function_setup),
    ("function_refused", function_refused),
    ("function_threads", function_threads),
    ("function_redirected", function_redirected),
    ("function_silent", function_silent),
    ("function_follows", function_follows),
];

/// Has its streams, and what it was given.
fn function(kernel: &mut Kernel) -> Result<(), Error> {
    let (given, number) = (String::from("given"), 7);
    let given = Rc::new(Cell::new(Some(given)));
    watching(move || {
        let given = given.take().expect("it starts once");
        Run::function(move |_| {
            println!("{given} {number}");
            for line in io::stdin().lock().lines().map_while(std::result::Result::ok) {
                println!("got {line}");
            }
            eprintln!("at the end of its input");
        })
    })
    .state("started", |cx| {
        wheel(cx).put("one");
        wheel(cx).put("two");
        wheel(cx).shutdown_stdin_after_flush();
        Ok(())
    })
    .spawn(kernel)
    .map(drop)
}

/// Prints when it is dropped, which must not happen in the child.
struct Witness;

impl Drop for Witness {
    fn drop(&mut self) {
        println!("dropped in {}", if is_parent() { "the parent" } else { "the child" });
    }
}

fn is_parent() -> bool {
    std::env::var("ROOT").is_ok_and(|pid| pid == process::id().to_string())
}

/// How the function ends is how the process does. Nothing is written twice, and nobody's destructors run.
fn ending(kernel: &mut Kernel, how: &'static str) -> Result<(), Error> {
    // SAFETY: this process has a single thread.
    unsafe { std::env::set_var("ROOT", process::id().to_string()) };
    let witness = Witness;
    print!("not flushed, ");
    watching(move || {
        let run = move |_: &mut Kernel| -> lenore::Result {
            print!("written by the child");
            match how {
                "fails" => Err(lenore::Exception::new("it went wrong")),
                "panics" => panic!("all went wrong"),
                "exits" => process::exit(7),
                _ => Ok(()),
            }
        };
        Run::function(run).stdin(Redirect::Null).deliver_last()
    })
    .state("_stop", move |_| {
        let _ = &witness;
        println!("_stop");
    })
    .spawn(kernel)?;
    Ok(())
}

/// There is no pid before the fork, and no process to send signals to.
fn function_pid(kernel: &mut Kernel) -> Result<(), Error> {
    session(|| Run::function(|_| thread::sleep(std::time::Duration::from_secs(100))).on_exit("exit"))
        .state("_start", |cx| {
            let wheel =
                Run::function(|_| thread::sleep(std::time::Duration::from_secs(100))).on_exit("exit").start(cx)?;
            println!("pid {:?}", wheel.pid());
            say("kill", wheel.kill("TERM"));
            *cx.heap() = Some(wheel);
            cx.yield_("started", ());
            Ok(())
        })
        .state("started", |cx| {
            println!("pid known: {}", wheel(cx).pid().is_some());
            Ok(wheel(cx).kill("TERM")?)
        })
        .state("exit", |cx| {
            println!("exit {}", cx.arg::<process::ExitStatus>(2)?);
            *cx.heap() = None;
            Ok(())
        })
        .spawn(kernel)
        .map(drop)
}

/// Dropped in the state that has made it: there is nothing to be forked for any more.
fn function_cancelled(kernel: &mut Kernel) -> Result<(), Error> {
    session(|| Run::function(|_| println!("must not run")))
        .state("_start", |cx| {
            drop(Run::function(|_| println!("must not run")).start(cx)?);
            println!("dropped");
            Ok(())
        })
        .spawn(kernel)
        .map(drop)
}

/// What the child has open that this process had not from the beginning, while it has all sorts of wheels.
fn function_descriptors(kernel: &mut Kernel) -> Result<(), Error> {
    let (ours, _) = UnixStream::pair().expect("a pair can be made");
    let (watched, _) = UnixStream::pair().expect("a pair can be made");
    let ends = Rc::new(Cell::new(Some((ours, watched))));
    Session::new((Vec::new(), None, None))
        .state("_start", move |cx| {
            let list = |_: &mut Kernel| {
                for number in open_descriptors().into_iter().filter(|number| !at_start().contains(number)) {
                    // Without that of the list, which is closed by now.
                    if let Ok(target) = fs::read_link(format!("/proc/self/fd/{number}")) {
                        println!("{}", target.to_string_lossy().split(':').next().unwrap_or_default());
                    }
                }
            };
            let (ours, watched) = ends.take().expect("it starts once");
            let first = Run::program(["cat"]).on_stdout("stdout").on_stderr("stdout").start(cx)?;
            let second = Run::function(list).stdin(Redirect::Null).on_stdout("listed").on_close("close").start(cx)?;
            let listener = SocketFactory::tcp("127.0.0.1:0").on_accept("accept").listen(cx)?;
            let stream = ReadWrite::stream(ours, Line::new()).keep_after_fork().on_input("input").start(cx)?;
            cx.select_read(&Handle::new(watched), "readable", ())?;
            *cx.heap() = (vec![first, second], Some(listener), Some(stream));
            Ok(())
        })
        .state("readable", |_| ())
        .state("listed", |cx| {
            println!("fd {}", cx.arg::<String>(0)?);
            Ok(())
        })
        .state("close", |cx| cx.stop())
        .spawn(kernel)
        .map(drop)
}

fn open_descriptors() -> Vec<i32> {
    let entries = fs::read_dir("/proc/self/fd").expect("there is /proc");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// The descriptors that the program was started with.
pub fn at_start() -> &'static [i32] {
    static AT_START: OnceLock<Vec<i32>> = OnceLock::new();
    // The last one is that of the list itself.
    AT_START.get_or_init(|| {
        let mut all = open_descriptors();
        all.retain(|number| fs::read_link(format!("/proc/self/fd/{number}")).is_ok());
        all
    })
}

/// What this process blocks, ignores and catches.
fn function_signals(kernel: &mut Kernel) -> Result<(), Error> {
    SigSet::from_iter([Signal::SIGUSR1]).thread_block().expect("it can be blocked");
    // SAFETY: `SIG_IGN` runs no code of this process.
    unsafe { signal(Signal::SIGHUP, SigHandler::SigIgn) }.expect("it can be ignored");
    session(|| Run::function(|_| ()))
        .state("_start", |cx| {
            for name in ["TERM", "INT", "CHLD", "PIPE"] {
                cx.sig(name, "signal");
            }
            let show = |_: &mut Kernel| -> lenore::Result {
                let status = fs::read_to_string("/proc/self/status")?;
                status
                    .lines()
                    .filter(|line| ["SigB", "SigI", "SigC"].contains(&&line[..4]))
                    .for_each(|line| println!("{line}"));
                Ok(())
            };
            let wheel = events(Run::function(show)).stdin(Redirect::Null).start(cx)?;
            *cx.heap() = Some(wheel);
            Ok(())
        })
        .spawn(kernel)
        .map(drop)
}

/// An event loop of its own: the copies of the parent's sessions are stopped first.
fn function_loop(kernel: &mut Kernel) -> Result<(), Error> {
    let child = |kernel: &mut Kernel| -> lenore::Result {
        kernel.stop();
        Session::new(None::<ReadWrite<Line>>)
            .state("_start", |cx| {
                cx.sig("TERM", "ended");
                let stdin = io::stdin();
                let wheel = ReadWrite::stream(std::os::fd::AsFd::as_fd(&stdin).try_clone_to_owned()?, Line::new())
                    .on_input("line")
                    .on_error("end")
                    .start(cx)?;
                *cx.heap() = Some(wheel);
                println!("child's own loop, is child: {}", cx.is_child());
                Ok(())
            })
            .state("line", |cx| {
                println!("line {}", cx.arg::<String>(0)?);
                nix::sys::signal::raise(Signal::SIGTERM)?;
                Ok(())
            })
            .state("ended", |cx| {
                cx.sig_handled();
                println!("TERM");
            })
            .state("end", |cx| *cx.heap() = None)
            .spawn(kernel)?;
        kernel.run()?;
        println!("child's run returned");
        Ok(())
    };
    let child = Rc::new(child);
    session(|| Run::function(|_| ()))
        .state("_start", move |cx| {
            // Before the fork: the child has it too, until it stops this session.
            cx.sig("TERM", "ended");
            let child = child.clone();
            let wheel = events(Run::function(move |kernel| child(kernel))).start(cx)?;
            *cx.heap() = Some(wheel);
            cx.yield_("started", ());
            Ok(())
        })
        .state("started", |cx| {
            wheel(cx).put("x");
            cx.delay("forever", std::time::Duration::from_secs(100), ());
            Ok(())
        })
        .state("stdout", |cx| {
            let line = cx.take::<String>(0)?;
            println!("out {line}");
            if line == "TERM" {
                wheel(cx).shutdown_stdin();
            }
            Ok(())
        })
        .state("ended", |_| println!("must not come here"))
        .state("exit", |cx| {
            println!("exit {}", cx.arg::<process::ExitStatus>(2)?);
            cx.delay_clear("forever");
            Ok(())
        })
        .spawn(kernel)
        .map(drop)
}

/// Runs the kernel as it is. The copies of this process's sessions watch nothing there, and so have nothing to live for.
fn function_runs_on(kernel: &mut Kernel) -> Result<(), Error> {
    let pair = || UnixStream::pair().expect("a pair can be made");
    let ((strong, other), (weak, another)) = (pair(), pair());
    let (strong, weak) = (Handle::new(strong), Handle::new(weak));
    let ends = (strong.clone(), weak.clone(), other, another);
    let child = |kernel: &mut Kernel| -> lenore::Result {
        println!("awaits {}", kernel.peek().sources.len());
        kernel.run()?;
        println!("child's run returned");
        Ok(())
    };
    session(|| Run::function(|_| ()))
        .state("_start", move |cx| {
            // Before the fork.
            cx.select_read(&strong, "readable", ())?;
            cx.select_read_weak(&weak, "readable", ())?;
            let wheel = Run::function(child).stdin(Redirect::Null).on_stdout("stdout").on_stderr("stderr");
            *cx.heap() = Some(wheel.on_exit("exit").start(cx)?);
            Ok(())
        })
        .state("readable", |_| ())
        .state("exit", move |cx| {
            println!("exit {}", cx.arg::<process::ExitStatus>(2)?);
            let (strong, weak, ..) = &ends;
            println!("parent watches {} {}", is_watched(cx, strong), is_watched(cx, weak));
            cx.select_read_clear(strong);
            cx.select_read_clear(weak);
            Ok(())
        })
        .spawn(kernel)
        .map(drop)
}

fn is_watched(core: &impl AsKernel, handle: &Handle) -> bool {
    core.peek().sources.iter().any(|source| source.fd == handle.as_raw_fd())
}

/// Writes to a pipe that nobody reads, with an event loop or without.
fn function_pipe(kernel: &mut Kernel, with_loop: bool) -> Result<(), Error> {
    let write = || -> io::Result<()> {
        let (reader, mut writer) = io::pipe()?;
        drop(reader);
        println!("writes");
        println!("errno {:?}", writer.write(b"x").unwrap_err().raw_os_error());
        Ok(())
    };
    let child = move |kernel: &mut Kernel| -> lenore::Result {
        if !with_loop {
            return Ok(write()?);
        }
        kernel.stop();
        Session::new(()).state("_start", move |_| Ok(write()?)).spawn(kernel)?;
        Ok(kernel.run()?)
    };
    watching(move || Run::function(child).stdin(Redirect::Null)).spawn(kernel).map(drop)
}

/// What can't be set up is a line on the child's standard error, and its status.
fn function_setup(kernel: &mut Kernel) -> Result<(), Error> {
    watching(|| Run::function(|_| println!("must not run")).stdin(Redirect::Null).group(u32::MAX))
        .spawn(kernel)
        .map(drop)
}

/// The system has no process left.
fn function_refused(kernel: &mut Kernel) -> Result<(), Error> {
    kernel.set_fork_hook(|_| Err(Errno::EAGAIN.into()));
    watching(|| Run::function(|_| println!("must not run")).stdin(Redirect::Null)).spawn(kernel).map(drop)
}

/// A second thread: at the constructor, and between it and the fork.
fn function_threads(kernel: &mut Kernel) -> Result<(), Error> {
    session(|| Run::function(|_| ()))
        .state("_start", |cx| {
            let wheel = events(Run::function(|_| println!("must not run"))).stdin(Redirect::Null).start(cx)?;
            *cx.heap() = Some(wheel);
            let (sender, receiver) = mpsc::channel::<()>();
            thread::spawn(move || receiver.recv());
            std::mem::forget(sender);
            say("second", Run::function(|_| ()).start(cx));
            Ok(())
        })
        .spawn(kernel)
        .map(drop)
}

/// Into the file `out` in the current directory.
fn function_redirected(kernel: &mut Kernel) -> Result<(), Error> {
    session(|| {
        let write = |_: &mut Kernel| {
            println!("on stdout");
            eprintln!("on stderr");
            let _ = io::stdout().flush();
        };
        Run::function(write).stdin(Redirect::Null).output("out").on_exit("exit")
    })
    .spawn(kernel)
    .map(drop)
}

/// No pipe, no event: its end is heard of by nobody, and it is no zombie.
fn function_silent(kernel: &mut Kernel) -> Result<(), Error> {
    session(|| Run::function(|_| ()).stdin(Redirect::Null))
        .state("started", |cx| {
            cx.sig_keep_alive("USR1", "end");
            println!("ready");
        })
        .state("end", |cx| cx.sig_clear("USR1"))
        .spawn(kernel)
        .map(drop)
}

/// Follows the file `log` in the current directory, as a user who may not read it.
fn function_follows(kernel: &mut Kernel) -> Result<(), Error> {
    let child = |kernel: &mut Kernel| -> lenore::Result {
        kernel.stop();
        Session::new(None::<FollowTail<Line>>)
            .state("_start", |cx| {
                let path = std::env::current_dir()?.join("log");
                let wheel = FollowTail::path(path, Line::new()).on_input("input").on_retry("denied").start(cx)?;
                *cx.heap() = Some(wheel);
                Ok(())
            })
            .state("denied", |cx| {
                let Failure { operation, errno, subject, .. } = cx.take(0)?;
                println!("{operation} {errno} {subject}");
                // It would try again.
                *cx.heap() = None;
                Ok(())
            })
            .spawn(kernel)?;
        Ok(kernel.run()?)
    };
    watching(move || {
        let builder = Run::function(child).stdin(Redirect::Null);
        if nix::unistd::geteuid().is_root() { builder.user("nobody") } else { builder }
    })
    .state("_stop", |_| ())
    .spawn(kernel)
    .map(drop)
}

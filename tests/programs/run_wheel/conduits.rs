//! What the streams are made of: pipes, a socket, a pseudo-terminal.

use std::cell::Cell;
use std::env;
use std::fs;
use std::io::{self, BufRead, IsTerminal, Write};
use std::process::ExitStatus;
use std::time::Duration;

use lenore::wheel::{Conduit, OnDrop, Redirect, Run, RunBuilder, Winsize};
use lenore::{Error, Kernel, Session};
use nix::libc;
use nix::unistd::{getpgrp, getpid, getsid};

use super::{Scenario, nothing_is_left, say, session, there_and_back, wheel};

pub const SCENARIOS: &[(&str, Scenario)] = &[
    ("conduits", conduits),
    ("socket", socket),
    ("socket_unread", socket_unread),
    ("pty", pty),
    ("pty_raw", pty_raw),
    ("pty_pipe", pty_pipe),
    ("pty_refused", pty_refused),
    ("pty_size", pty_size),
    ("pty_own_size", pty_own_size),
    ("pty_nested", pty_nested),
    ("pty_resize", pty_resize),
    ("pty_resize_refused", pty_resize_refused),
    ("pty_shutdown", pty_shutdown),
    ("pty_much", pty_much),
    ("pty_drop", |kernel| pty_dropped(kernel, OnDrop::Leave)),
    ("pty_drop_kill", |kernel| pty_dropped(kernel, OnDrop::KillAndWait)),
    ("pty_background", pty_background),
    ("pty_background_hup", pty_background_hup),
    ("pty_neighbours", pty_neighbours),
    ("pty_forked", pty_forked),
    ("pty_privileges", pty_privileges),
    ("pty_kill", pty_kill),
    ("pty_silent", pty_silent),
    ("pty_last", pty_last),
    ("pty_function", pty_function),
    ("pty_function_killed", pty_function_killed),
];

/// A wheel with all the events that it can have.
fn on(conduit: Conduit, builder: RunBuilder) -> RunBuilder {
    let builder = builder.conduit(conduit).on_stdin("stdin").on_stdout("stdout").on_error("error");
    let builder = builder.on_close("close").on_exit("exit");
    if conduit == Conduit::Pty { builder } else { builder.on_stderr("stderr") }
}

/// A session with such a wheel that puts nothing, for a child that ends by itself.
fn watching(conduit: Conduit, make: impl Fn() -> RunBuilder + 'static) -> Session<super::Heap> {
    session(move || on(conduit, make())).state("started", |cx| wheel(cx).shutdown_stdin())
}

/// Of what each stream is, with each conduit, and with a conduit for two streams and but one of them.
fn conduits(kernel: &mut Kernel) -> Result<(), Error> {
    let text = "for n in 0 1 2; do readlink /proc/self/fd/$n; done";
    for conduit in [Conduit::Pipe, Conduit::SocketPair, Conduit::Pty, Conduit::PtyPipe] {
        watching(conduit, move || Run::shell(text))
            .state("stdout", move |cx| {
                println!("{conduit:?} {}", cx.arg::<String>(0)?);
                Ok(())
            })
            .spawn(kernel)?;
    }
    session(|| {
        Run::shell("readlink /proc/self/fd/0 >&2").conduit(Conduit::SocketPair).on_stderr("stderr").on_close("close")
    })
    .state("stderr", |cx| {
        println!("Alone {}", cx.arg::<String>(0)?);
        Ok(())
    })
    .state("close", |cx| *cx.heap() = None)
    .spawn(kernel)
    .map(drop)
}

/// The wrong way round, and the end of its input while there is output to come.
fn socket(kernel: &mut Kernel) -> Result<(), Error> {
    let text = "echo by descriptor 0 >&0; read line <&1; echo got $line; cat; echo after the end";
    there_and_back(session(move || on(Conduit::SocketPair, Run::shell(text)))).spawn(kernel)?;
    session(|| on(Conduit::SocketPair, Run::program(["wc", "-c"])))
        .state("started", |cx| {
            wheel(cx).put("x".repeat(1 << 20));
            wheel(cx).shutdown_stdin_after_flush();
            Ok(())
        })
        .spawn(kernel)
        .map(drop)
}

/// A child that does not read all of its input.
fn socket_unread(kernel: &mut Kernel) -> Result<(), Error> {
    session(|| on(Conduit::SocketPair, Run::shell("read one; echo $one; read go; exit 3")))
        .state("started", |cx| {
            wheel(cx).put("one");
            Ok(())
        })
        .state("stdout", |cx| {
            println!("out {}", cx.arg::<String>(0)?);
            // A shell reads lines byte by octet: what follows the second stays.
            wheel(cx).put("go\nnot read");
            wheel(cx).shutdown_stdin_after_flush();
            Ok(())
        })
        .spawn(kernel)
        .map(drop)
}

/// Three terminals that are one, a session, and the end.
fn pty(kernel: &mut Kernel) -> Result<(), Error> {
    let text =
        "test -t 0 && test -t 1 && test -t 2 && echo three; echo error >&2; echo $$; cat /proc/self/stat; exit 3";
    watching(Conduit::Pty, move || Run::shell(text).keep_process_group())
        .state("stdout", |cx| {
            let line = cx.take::<String>(0)?;
            let Some((_, fields)) = line.split_once(" (cat) ") else {
                println!("out {}", if Some(&line) == pid(cx).as_ref() { "pid" } else { &line });
                return Ok(());
            };
            let fields: Vec<&str> = fields.split(' ').collect();
            let leader = pid(cx).unwrap_or_default();
            let is_leader = |place: usize| fields.get(place).is_some_and(|field| *field == leader);
            println!("out group {}, session {}, foreground {}", is_leader(2), is_leader(3), is_leader(5));
            println!("out controlled {}", fields.get(4).is_some_and(|number| *number != "0"));
            Ok(())
        })
        .spawn(kernel)
        .map(drop)
}

fn pid(cx: &mut lenore::Context<'_, super::Heap>) -> Option<String> {
    wheel(cx).pid().map(|pid| pid.to_string())
}

/// What would be a signal, an end of file, an echo, another character.
fn pty_raw(kernel: &mut Kernel) -> Result<(), Error> {
    session(|| on(Conduit::Pty, Run::program(["cat"])))
        .state("started", |cx| wheel(cx).put("a\x03b\x04c\rd\x7fe\x1af\x11g"))
        .state("stdout", |cx| {
            println!("out {:?}", cx.arg::<String>(0)?);
            wheel(cx).shutdown_stdin();
            Ok(wheel(cx).kill("TERM")?)
        })
        .spawn(kernel)
        .map(drop)
}

fn pty_pipe(kernel: &mut Kernel) -> Result<(), Error> {
    let text = "test -t 0 && test -t 1 && ! test -t 2 && echo two; echo error >&2; : </dev/tty && echo controlled";
    watching(Conduit::PtyPipe, move || Run::shell(text)).spawn(kernel)?;
    // What is said later replaces the event.
    session(|| on(Conduit::PtyPipe, Run::shell("echo lost >&2; echo kept")).stderr(Redirect::Null))
        .state("started", |cx| wheel(cx).shutdown_stdin())
        .spawn(kernel)
        .map(drop)
}

/// Settings that don't go together, and nothing is left of the attempts.
fn pty_refused(kernel: &mut Kernel) -> Result<(), Error> {
    session(|| Run::program(["true"]))
        .state("_start", |cx| {
            let before = fs::read_dir("/proc/self/fd")?.count();
            let pty = || Run::program(["true"]).conduit(Conduit::Pty).on_stdout("stdout");
            say("stdin", pty().stdin(Redirect::Null).start(cx));
            say("stdout", pty().stdout("out").start(cx));
            say("stderr", pty().stderr(Redirect::Null).start(cx));
            say("both", pty().output(Redirect::Null).start(cx));
            say("event", pty().on_stderr("stderr").start(cx));
            say("pty-pipe", pty().conduit(Conduit::PtyPipe).stdin(Redirect::Inherit).start(cx));
            say("size", Run::program(["true"]).winsize(Winsize::new(24, 80)).start(cx));
            say("missing", Run::program(["/no/such/program"]).conduit(Conduit::Pty).start(cx));
            cx.yield_("look", (before,));
            Ok(())
        })
        .state("look", nothing_is_left)
        .spawn(kernel)
        .map(drop)
}

/// In characters, as a program sees it, and with the pixels, which only a function asks for.
fn pty_size(kernel: &mut Kernel) -> Result<(), Error> {
    for conduit in [Conduit::Pty, Conduit::PtyPipe] {
        watching(conduit, || Run::program(["stty", "size"]).winsize(Winsize::new(24, 80))).spawn(kernel)?;
    }
    let told = Winsize { xpixels: 5, ypixels: 6, ..Winsize::new(7, 8) };
    for size in [Winsize::new(24, 80), told, Winsize::new(u16::MAX, u16::MAX)] {
        watching(Conduit::Pty, move || Run::function(|_| println!("{:?}", own_size())).winsize(size)).spawn(kernel)?;
    }
    Ok(())
}

/// The size of the terminal that is standard input: rows, columns, and the pixels across and down.
fn own_size() -> Option<[u16; 4]> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the call writes a `winsize` to where it is told.
    let done = unsafe { libc::ioctl(0, libc::TIOCGWINSZ, &raw mut size) };
    (done == 0).then_some([size.ws_row, size.ws_col, size.ws_xpixel, size.ws_ypixel])
}

/// Nobody says how large: this process's terminal does, if its standard input is one.
fn pty_own_size(kernel: &mut Kernel) -> Result<(), Error> {
    watching(Conduit::Pty, || Run::program(["stty", "size"])).spawn(kernel).map(drop)
}

/// The same in a terminal of a size that is known.
fn pty_nested(kernel: &mut Kernel) -> Result<(), Error> {
    let program = env::current_exe().expect("it has a path");
    let make = move || Run::program([program.as_os_str(), "pty_own_size".as_ref()]).winsize(Winsize::new(33, 111));
    watching(Conduit::Pty, make).spawn(kernel).map(drop)
}

/// Another size while it runs; then the same once more, which is no news.
fn pty_resize(kernel: &mut Kernel) -> Result<(), Error> {
    let text = "trap 'stty size; exit 3' WINCH; stty size; echo ready; while :; do sleep 0.01; done";
    watching(Conduit::Pty, move || Run::shell(text).winsize(Winsize::new(24, 80)))
        .state("stdout", |cx| {
            let line = cx.take::<String>(0)?;
            println!("out {line}");
            if line == "ready" {
                wheel(cx).set_winsize(Winsize::new(24, 80))?;
                wheel(cx).set_winsize(Winsize::new(30, 100))?;
            }
            Ok(())
        })
        .spawn(kernel)
        .map(drop)
}

/// There is no terminal; there is none any more.
fn pty_resize_refused(kernel: &mut Kernel) -> Result<(), Error> {
    let size = Winsize::new(1, 1);
    session(|| Run::program(["cat"]).on_stdout("stdout"))
        .state("started", move |cx| {
            let resize = |wheel: &Run| {
                let pid = wheel.pid().unwrap_or_default().to_string();
                println!("{}", wheel.set_winsize(size).unwrap_err().to_string().replace(&pid, "PID"));
            };
            resize(wheel(cx));
            let wheel = Run::shell("exit").conduit(Conduit::Pty).on_stdout("stdout").on_close("close").start(cx)?;
            wheel.shutdown_stdin();
            *cx.heap() = Some(wheel);
            Ok(())
        })
        .state("close", move |cx| {
            let pid = pid(cx).unwrap_or_default();
            println!("{}", wheel(cx).set_winsize(size).unwrap_err().to_string().replace(&pid, "PID"));
        })
        .spawn(kernel)
        .map(drop)
}

/// With something to be written; the child goes on, and its output arrives.
fn pty_shutdown(kernel: &mut Kernel) -> Result<(), Error> {
    let text = "exec 3<&0; cat <&3 & trap 'kill $!; echo alive; exit 3' USR1; echo ready; wait";
    session(move || on(Conduit::Pty, Run::shell(text)))
        .state("stdout", |cx| {
            let line = cx.take::<String>(0)?;
            println!("out {line}");
            match line.as_str() {
                "ready" => drop(wheel(cx).put("written")),
                "written" => {
                    wheel(cx).put("discarded");
                    wheel(cx).shutdown_stdin();
                    println!("put: {:?}", wheel(cx).put("too late"));
                    // Long after the kernel has closed what it has to close.
                    cx.delay("signal", Duration::from_millis(30), ());
                }
                _ => {}
            }
            Ok(())
        })
        .state("signal", |cx| Ok(wheel(cx).kill("USR1")?))
        .spawn(kernel)
        .map(drop)
}

/// More than a terminal holds, both ways at once.
fn pty_much(kernel: &mut Kernel) -> Result<(), Error> {
    let expected = Cell::new(0);
    session(|| on(Conduit::Pty, Run::program(["cat"])))
        .state("started", |cx| {
            for number in 0..20_000 {
                wheel(cx).put(format!("{number:060}"));
            }
            wheel(cx).shutdown_stdin_after_flush();
            Ok(())
        })
        .state("stdout", move |cx| {
            let line = cx.take::<String>(0)?;
            assert_eq!(line, format!("{:060}", expected.get()));
            expected.set(expected.get() + 1);
            if expected.get() == 20_000 {
                println!("out all");
                wheel(cx).kill("TERM")?;
            }
            Ok(())
        })
        .spawn(kernel)
        .map(drop)
}

/// Dies of the hang-up: it may be seen as the end of the input before the signal comes.
const CAT: &str = "cat; exec sleep 60";

/// The terminal goes with the wheel.
fn pty_dropped(kernel: &mut Kernel, what: OnDrop) -> Result<(), Error> {
    session(move || Run::shell(CAT).conduit(Conduit::Pty).on_stdout("stdout").on_exit("exit").on_drop(what))
        .state("started", |cx| wheel(cx).put("x"))
        .state("stdout", |cx| *cx.heap() = None)
        .spawn(kernel)
        .map(drop)
}

/// Goes on when the child has ended, and been reaped: a zombie can still be asked for.
fn pty_background(kernel: &mut Kernel) -> Result<(), Error> {
    let text = "trap '' HUP; (while kill -0 $$ 2>&-; do sleep 0.01; done; echo late) & echo first; exit 3";
    watching(Conduit::Pty, move || Run::shell(text)).spawn(kernel).map(drop)
}

/// Ends with the child, whose terminal it has open.
fn pty_background_hup(kernel: &mut Kernel) -> Result<(), Error> {
    watching(Conduit::Pty, || Run::shell("sleep 1000 & echo first; exit 3")).spawn(kernel).map(drop)
}

/// Three children with a terminal each: nobody has any part in a neighbour's.
fn pty_neighbours(kernel: &mut Kernel) -> Result<(), Error> {
    // See `CAT`.
    let wait = |_: &mut Kernel| {
        io::stdin().lock().lines().map_while(Result::ok).for_each(|line| println!("{line}"));
        std::thread::sleep(Duration::from_secs(60));
    };
    let ready = Cell::new(false);
    Session::new(Vec::<Run>::new())
        .state("_start", move |cx| {
            let shell = Run::shell("read line; exit 3").on_close("first_closed");
            // Neither of the others ends by itself.
            let function = Run::function(wait).on_exit("second_ended");
            let program = Run::shell(CAT).on_exit("third_ended");
            for builder in [shell, function, program] {
                let wheel = builder.conduit(Conduit::Pty).on_stdout("ready").start(cx)?;
                cx.heap().push(wheel);
            }
            cx.yield_("started", ());
            Ok(())
        })
        .state("started", |cx| cx.heap()[1..].iter().for_each(|wheel| _ = wheel.put("ready")))
        .state("ready", move |cx| {
            if ready.replace(true) {
                cx.heap()[0].put("both are");
            }
            Ok(())
        })
        .state("first_closed", |cx| {
            println!("first closed");
            let _ = cx.heap().remove(1);
        })
        .state("second_ended", |cx| {
            println!("second {}", cx.arg::<ExitStatus>(2)?);
            cx.heap().clear();
            Ok(())
        })
        .state("third_ended", |cx| {
            println!("third {}", cx.arg::<ExitStatus>(2)?);
            Ok(())
        })
        .spawn(kernel)
        .map(drop)
}

/// A forked child of this process lives on without the terminal.
fn pty_forked(kernel: &mut Kernel) -> Result<(), Error> {
    session(|| on(Conduit::Pty, Run::shell(CAT)))
        .state("started", |cx| cx.fork("parent", "child", ()))
        .state("child", |cx| {
            let names = fs::read_dir("/proc/self/fd")?.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
            let count = names.filter(|name| name.to_string_lossy().contains("/ptmx")).count();
            println!("terminals {count}");
            cx.sig_keep_alive("USR1", "never");
            Ok(())
        })
        .state("never", |_| ())
        .state("parent", |cx| {
            let pid = cx.take::<Result<i32, Error>>(0)??;
            cx.sig_child(pid, "child_gone", ());
            println!("forked {pid}");
            // Its terminal is closed here alone, and gone nevertheless.
            *cx.heap() = None;
            Ok(())
        })
        .state("child_gone", |_| ())
        .spawn(kernel)
        .map(drop)
}

/// As the user `nobody`, less urgent, with a terminal that can be opened by name.
fn pty_privileges(kernel: &mut Kernel) -> Result<(), Error> {
    let text = "nice; id -un; id -g; echo by name >\"$(tty)\"";
    session(|| Run::program(["true"]))
        .state("_start", move |cx| {
            let builder = on(Conduit::Pty, Run::shell(text)).priority(5).user("nobody");
            say("start", builder.start(cx).map(|wheel| *cx.heap() = Some(wheel)));
            cx.heap().iter().for_each(Run::shutdown_stdin);
        })
        .spawn(kernel)
        .map(drop)
}

fn pty_kill(kernel: &mut Kernel) -> Result<(), Error> {
    watching(Conduit::Pty, || Run::shell("echo ready; exec sleep 1000"))
        .state("stdout", |cx| Ok(wheel(cx).kill("USR1")?))
        .spawn(kernel)
        .map(drop)
}

/// No event: the terminal is there all the same, and its output waits for somebody to want it.
fn pty_silent(kernel: &mut Kernel) -> Result<(), Error> {
    session(|| {
        Run::shell("echo text; exit 3").conduit(Conduit::Pty).on_error("error").on_close("close").on_exit("exit")
    })
    .state("exit", |cx| {
        println!("exit {}", cx.arg::<ExitStatus>(2)?);
        wheel(cx).event(lenore::wheel::RunEvent::Stdout, "stdout");
        wheel(cx).shutdown_stdin();
        Ok(())
    })
    .spawn(kernel)
    .map(drop)
}

/// The last line has no end.
fn pty_last(kernel: &mut Kernel) -> Result<(), Error> {
    watching(Conduit::Pty, || Run::shell("printf 'whole\\nrest'").deliver_last()).spawn(kernel).map(drop)
}

/// A function has its terminal as a program does.
fn pty_function(kernel: &mut Kernel) -> Result<(), Error> {
    let child = |_: &mut Kernel| -> lenore::Result {
        let terminals = [io::stdin().is_terminal(), io::stdout().is_terminal(), io::stderr().is_terminal()];
        println!("terminals {terminals:?}");
        println!("leads {} {}", getsid(None)? == getpid(), getpgrp() == getpid());
        writeln!(fs::OpenOptions::new().write(true).open("/dev/tty")?, "controlled")?;
        let mut line = String::new();
        io::stdin().read_line(&mut line)?;
        eprint!("got {line}");
        Ok(())
    };
    session(move || on(Conduit::Pty, Run::function(child)))
        .state("started", |cx| {
            wheel(cx).put("one");
            wheel(cx).shutdown_stdin_after_flush();
            Ok(())
        })
        .spawn(kernel)
        .map(drop)
}

/// At once, perhaps before it has come to its terminal.
fn pty_function_killed(kernel: &mut Kernel) -> Result<(), Error> {
    let sleep = |_: &mut Kernel| std::thread::sleep(Duration::from_secs(1000));
    session(move || on(Conduit::Pty, Run::function(sleep)))
        .state("started", |cx| {
            wheel(cx).shutdown_stdin();
            Ok(wheel(cx).kill("KILL")?)
        })
        .spawn(kernel)
        .map(drop)
}

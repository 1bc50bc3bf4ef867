//! Programs that watch signals of the operating system; tests/os_signals.rs says what each has to print.
//!
//! ```text
//! os_signals SCENARIO
//! ready
//! USR1
//! ```

use std::env;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU32, Ordering};

use lenore::{Context, Error, Handle, InState, Kernel, Result, Session, SessionId};
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};

type Scenario = fn(&mut Kernel) -> Result<(), Error>;

const SCENARIOS: [(&str, Scenario); 12] = [
    ("watch", watch),
    ("two_sessions", two_sessions),
    ("unwatched", unwatched),
    ("terminal", terminal),
    ("after_run", after_run),
    ("stopped_session", stopped_session),
    ("pipe", pipe),
    ("own_handlers", own_handlers),
    ("give_back", give_back),
    ("uncatchable", uncatchable),
    ("reads_terminal", reads_terminal),
    ("writes_terminal", writes_terminal),
];

fn main() -> Result<(), Error> {
    let name = env::args().nth(1).unwrap_or_default();
    let scenario = SCENARIOS.iter().find(|(other, _)| *other == name).expect("the first argument names a scenario");
    match name.as_str() {
        "own_handlers" => install_own_handlers(),
        "give_back" => install(Signal::SIGUSR1, SigHandler::Handler(count)),
        _ => {}
    }
    let mut kernel = Kernel::new()?;
    (scenario.1)(&mut kernel)?;
    kernel.run()?;
    println!("run returned");
    if name == "after_run" {
        println!("{}", dispositions()?);
    }
    Ok(())
}

/// What the system says of USR1, TERM and PIPE in this process.
fn dispositions() -> Result<String, Error> {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the line is there");
        u64::from_str_radix(line.trim(), 16).expect("a mask")
    };
    let (caught, ignored) = (mask("SigCgt:"), mask("SigIgn:"));
    let of = |signal: Signal| match 1_u64 << (signal as i32 - 1) {
        bit if caught & bit != 0 => "caught",
        bit if ignored & bit != 0 => "ignored",
        _ => "default",
    };
    Ok(format!("{} {} {}", of(Signal::SIGUSR1), of(Signal::SIGTERM), of(Signal::SIGPIPE)))
}

/// Gives the session something that never happens to wait for.
fn linger(cx: &mut impl InState) -> Result {
    let (reader, writer) = io::pipe()?;
    std::mem::forget(writer);
    Ok(cx.calls().select_read(&Handle::new(reader), "never", ())?)
}

/// A session that prints the signals it gets and says that it has dealt with them.
fn watcher() -> Session<u32> {
    Session::new(0_u32).state("signal", |cx| {
        assert_eq!(cx.args().len(), 1, "a signal of the system has nothing but its name");
        assert_eq!(cx.sender(), SessionId::KERNEL);
        println!("{}", cx.arg::<&str>(0)?);
        cx.sig_handled();
        Ok(())
    })
}

/// USR2 makes it stop watching USR1 and TERM, the next USR2 watch them again, and so on.
fn watch(kernel: &mut Kernel) -> Result<(), Error> {
    fn toggle(cx: &mut Context<'_, u32>) {
        *cx.heap() += 1;
        for signal in ["USR1", "TERM"] {
            if *cx.heap() % 2 == 0 {
                cx.sig(signal, "signal");
            } else {
                cx.sig_clear(signal);
            }
        }
        println!("{}", if *cx.heap() % 2 == 0 { "watched" } else { "unwatched" });
    }
    watcher()
        .state("_start", |cx| {
            linger(cx)?;
            cx.sig("USR1", "signal");
            cx.sig("TERM", "signal");
            cx.sig("USR2", "toggle");
            println!("ready");
            Ok(())
        })
        .state("toggle", toggle)
        .spawn(kernel)?;
    Ok(())
}

/// Two sessions watch USR1; each USR2 ends the interest of one.
fn two_sessions(kernel: &mut Kernel) -> Result<(), Error> {
    for name in ["first", "second"] {
        watcher()
            .state("_start", move |cx| {
                linger(cx)?;
                cx.sig("USR1", "signal");
                if name == "first" {
                    cx.sig("USR2", "clear");
                }
                cx.alias_set(name).map_err(lenore::Exception::from)
            })
            .state("signal", move |_| println!("{name}"))
            .state("clear", |cx| {
                *cx.heap() += 1;
                if *cx.heap() == 1 {
                    cx.sig_clear("USR1");
                } else {
                    cx.call("second", "clear_there", ())?;
                }
                println!("cleared");
                Ok(())
            })
            .state("clear_there", |cx| cx.sig_clear("USR1"))
            .spawn(kernel)?;
    }
    println!("ready");
    Ok(())
}

/// Watches nothing that ends it.
fn unwatched(kernel: &mut Kernel) -> Result<(), Error> {
    watcher()
        .state("_start", |cx| {
            linger(cx)?;
            cx.sig("USR1", "signal");
            println!("ready");
            Ok(())
        })
        .spawn(kernel)?;
    Ok(())
}

/// Watches several signals, and has nothing else to live for.
fn after_run(kernel: &mut Kernel) -> Result<(), Error> {
    Session::new(())
        .state("_start", |cx| ["USR1", "TERM", "PIPE"].into_iter().for_each(|signal| cx.sig(signal, "signal")))
        .state("_stop", |_| println!("{}", dispositions().unwrap_or_default()))
        .spawn(kernel)?;
    Ok(())
}

/// Watches TERM, and does not say that it has dealt with it.
fn terminal(kernel: &mut Kernel) -> Result<(), Error> {
    for is_watching in [true, false] {
        Session::new(())
            .state("_start", move |cx| {
                linger(cx)?;
                if is_watching {
                    cx.sig("TERM", "signal");
                } else {
                    println!("ready");
                }
                Ok(())
            })
            .state("signal", |cx| {
                println!("{}", cx.arg::<&str>(0)?);
                Ok(())
            })
            .state("_stop", |_| println!("_stop"))
            .spawn(kernel)?;
    }
    Ok(())
}

/// The only session that watches USR1 stops at the first one.
fn stopped_session(kernel: &mut Kernel) -> Result<(), Error> {
    watcher().state("_start", linger_of).spawn(kernel)?;
    watcher()
        .state("_start", |cx| {
            linger(cx)?;
            cx.sig("USR1", "signal");
            println!("ready");
            Ok(())
        })
        .state("signal", |cx| {
            let me = cx.session();
            cx.signal_now(me, "KILL", ()).map_err(lenore::Exception::from)
        })
        .state("_stop", |_| println!("_stop"))
        .spawn(kernel)?;
    Ok(())
}

fn linger_of(cx: &mut Context<'_, u32>) -> Result {
    linger(cx)
}

/// Gets PIPE unwatched, watched, and unwatched again.
fn pipe(kernel: &mut Kernel) -> Result<(), Error> {
    raise(Signal::SIGPIPE).expect("it is ignored");
    println!("survived");
    watcher()
        .state("_start", |cx| {
            linger(cx)?;
            cx.sig("PIPE", "pipe");
            cx.sig("USR1", "signal");
            raise(Signal::SIGPIPE)?;
            Ok(())
        })
        .state("pipe", |cx| {
            println!("{}", cx.arg::<&str>(0)?);
            cx.sig_clear("PIPE");
            raise(Signal::SIGPIPE)?;
            println!("survived again");
            Ok(())
        })
        .spawn(kernel)?;
    Ok(())
}

static CAUGHT: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: libc::c_int) {
    CAUGHT.fetch_add(1, Ordering::Relaxed);
}

/// What a program may have arranged before it makes its kernel.
fn install_own_handlers() {
    install(Signal::SIGUSR1, SigHandler::Handler(count));
    install(Signal::SIGHUP, SigHandler::SigIgn);
    install(Signal::SIGCHLD, SigHandler::SigIgn);
}

fn install(signal: Signal, handler: SigHandler) {
    let action = SigAction::new(handler, SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the only handler that comes here does nothing but count in an atomic.
    unsafe { sigaction(signal, &action) }.expect("it can be caught");
}

/// Watches USR2 only.
fn own_handlers(kernel: &mut Kernel) -> Result<(), Error> {
    watcher()
        .state("_start", |cx| {
            linger(cx)?;
            cx.sig("USR2", "caught");
            println!("ready");
            Ok(())
        })
        .state("caught", |_| println!("own handler ran {} times", CAUGHT.load(Ordering::Relaxed)))
        .spawn(kernel)?;
    Ok(())
}

/// USR2 makes it stop watching signals of which each had another disposition before, the next USR2 watch them again, and so
/// on. The fifth has another program take its place, which says what it was left.
fn give_back(kernel: &mut Kernel) -> Result<(), Error> {
    fn toggle(cx: &mut Context<'_, u32>) -> Result {
        *cx.heap() += 1;
        for signal in ["PIPE", "HUP", "INT", "TERM", "USR1"] {
            if *cx.heap() % 2 == 0 {
                cx.sig(signal, "signal");
            } else {
                cx.sig_clear(signal);
            }
        }
        if *cx.heap() == 5 {
            // Without std::process, which would give PIPE its default action.
            nix::unistd::execv(c"/bin/cat", &[c"cat", c"/proc/self/status"])?;
        }
        let ran = CAUGHT.load(Ordering::Relaxed);
        println!("{} {ran}", if *cx.heap() % 2 == 0 { "watched" } else { "unwatched" });
        Ok(())
    }
    watcher()
        .state("_start", |cx| {
            linger(cx)?;
            for signal in ["PIPE", "HUP", "INT", "TERM", "USR1"] {
                cx.sig(signal, "signal");
            }
            cx.sig("USR2", "toggle");
            println!("ready");
            Ok(())
        })
        .state("toggle", toggle)
        .spawn(kernel)?;
    Ok(())
}

/// Watches names that stand for no signal that the kernel takes over, and sends them itself.
fn uncatchable(kernel: &mut Kernel) -> Result<(), Error> {
    watcher()
        .state("_start", |cx| {
            linger(cx)?;
            for signal in ["SEGV", "STOP", "RTMIN", "NUM40", "no such signal"] {
                cx.sig(signal, "signal");
                cx.signal(SessionId::KERNEL, signal, ())?;
            }
            println!("ready");
            Ok(())
        })
        .spawn(kernel)?;
    Ok(())
}

/// Watches the signals with which a terminal answers a job in its background, and reads from it all the same.
fn reads_terminal(kernel: &mut Kernel) -> Result<(), Error> {
    uses_terminal(kernel, || {
        let mut line = String::new();
        io::stdin().read_line(&mut line)?;
        println!("read {line:?}");
        Ok(())
    })
}

/// The same for writing, which needs `stty tostop`.
fn writes_terminal(kernel: &mut Kernel) -> Result<(), Error> {
    uses_terminal(kernel, || {
        io::stderr().write_all(b"to the terminal\n")?;
        println!("written");
        Ok(())
    })
}

fn uses_terminal(kernel: &mut Kernel, use_it: fn() -> Result) -> Result<(), Error> {
    watcher()
        .state("_start", |cx| {
            for signal in ["TTIN", "TTOU", "TERM"] {
                cx.sig(signal, "signal");
                cx.signal(SessionId::KERNEL, signal, ())?;
            }
            println!("ready");
            cx.yield_("use", ());
            Ok(())
        })
        .state("use", move |_| use_it())
        .spawn(kernel)?;
    Ok(())
}

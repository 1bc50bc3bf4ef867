//! A server that tells what happens in which process when it ends, for `tests/daemon/exit.rs`.
//!
//! `--mode MODE` is what `Server::processes` takes; each child serves one connection. `--return`: `run` returns in children.
//! Each process writes `PID WHAT` to the file `--report`, which nothing buffers. `--buffered PATH` is a file of the program's
//! own whose writer is flushed before forks. A child's last words stand in buffers when its last session ends.

use std::cell::RefCell;
use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Mutex, OnceLock};

use lenore::component::{Connection, Protocol, Server, ServerHandle};
use lenore::filter::Line;
use lenore::wheel::Run;
use lenore::{Context, Daemon, Kernel, Result, Session};
use nix::libc;

use util::daemon_program::Flags;

struct App {
    serving: ServerHandle,
    buffered: Rc<RefCell<BufWriter<File>>>,
    _canary: Canary,
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let flags = Flags::read();
    REPORT.get_or_init(|| append(&flags, "--report").expect("--report PATH"));
    if !flags.has("--no-logger") {
        log::set_logger(LOGGER.get_or_init(Logger::default))?;
        log::set_max_level(log::LevelFilter::Debug);
    }
    // SAFETY: the function takes nothing and does not unwind.
    unsafe { libc::atexit(at_exit) };
    let _canary = Canary("main");
    let _guard = flags.text("--temporary").map(|path| Temporary(path.into()));
    let buffered = Rc::new(RefCell::new(BufWriter::new(append(&flags, "--buffered")?)));
    let mut kernel = Kernel::new()?;
    let flushed = Rc::clone(&buffered);
    kernel.flush_before_fork(move || {
        let _ = flushed.borrow_mut().flush();
        log::info!("{} has flushed its file", std::process::id());
    });
    let mut daemon = Daemon::builder().requests(1).children_return(flags.has("--return")).detach(flags.has("--detach"));
    if let Some(path) = flags.text("--pid-file") {
        daemon = daemon.pid_file(path);
    }
    let mode = flags.text("--mode").unwrap_or("prefork:1").parse()?;
    let server = Server::tcp("127.0.0.1:0", Protocol::new(Line::new()).on_input(command)).processes(mode);
    let listening = server.daemon(daemon).spawn(&mut kernel)?;
    Session::new(App { serving: listening, buffered, _canary: Canary("heap") })
        .state("_start", |cx| -> Result {
            cx.sig("daemon_shutdown", "end");
            // It lives as long as any other.
            Ok(cx.alias_set("app")?)
        })
        .state("end", last_words)
        .spawn(&mut kernel)?;
    report(&format!("listening on {}", listening.local_addr()));
    println!("listening on {}", listening.local_addr());
    let outcome = if flags.has("--slices") { run_slices(&mut kernel) } else { kernel.run() };
    report(&format!("run returned, failed={}", outcome.is_err()));
    Ok(outcome?)
}

fn run_slices(kernel: &mut Kernel) -> std::result::Result<(), lenore::Error> {
    while kernel.run_one_timeslice()? {}
    Ok(())
}

/// What a child has to say at its end stands in four buffers. None of it ends with a newline, which flushes some of them.
fn last_words(cx: &mut Context<'_, App>) -> Result {
    let daemon = cx.heap().serving.daemon();
    if daemon.status(cx)?.is_child {
        let pid = std::process::id();
        print!("{pid} last words to standard output;");
        log::info!("{pid} last words to the log");
        write!(cx.heap().buffered.borrow_mut(), "{pid} last words to a file;")?;
    }
    Ok(())
}

/// `big N`: N bytes in one line, and then the end. `fail`, `panic`: the child fails. `fork`: the child forks one of its own.
/// `function`: a wheel runs a function, which runs the kernel. `exit`: the program exits. Anything else is answered with the pid.
fn command(cx: &mut Context<'_, Connection<Line>>, line: String) -> Result {
    match line.split_once(' ').unwrap_or((&line, "")) {
        ("big", number) => {
            let big = "x".repeat(number.parse()?);
            cx.heap().put(big);
            cx.yield_("shutdown", ());
        }
        ("fail", _) => return Err(io::Error::other("as asked").into()),
        ("panic", _) => panic!("as asked"),
        ("fork", _) => {
            Session::new(())
                .state("_start", |cx| cx.fork("own_parent", "own_child", ()))
                .state("own_parent", |_| ())
                .state("own_child", |_| report("own child"))
                .spawn(cx)?;
            cx.heap().put("forked");
        }
        ("function", _) => {
            let function = |kernel: &mut Kernel| -> Result {
                kernel.stop();
                Session::new(()).state("_start", |_| ()).spawn(kernel)?;
                kernel.run()?;
                report("run returned in the function");
                Ok(())
            };
            Session::new(None)
                .state("_start", move |cx| -> Result {
                    *cx.heap() = Some(Run::function(function).on_exit("ended").start(cx)?);
                    Ok(())
                })
                .state("ended", |cx| *cx.heap() = None)
                .spawn(cx)?;
            cx.heap().put("begun");
        }
        ("exit", _) => std::process::exit(7),
        _ => {
            cx.heap().put(std::process::id().to_string());
        }
    }
    Ok(())
}

/// Says when it is dropped.
struct Canary(&'static str);

impl Drop for Canary {
    fn drop(&mut self) {
        report(&format!("{} dropped", self.0));
    }
}

/// A file that is removed with the value, as those of `tempfile` are.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

extern "C" fn at_exit() {
    report("at exit");
}

/// A logger that keeps what it is told until it is flushed.
#[derive(Default)]
struct Logger(Mutex<Vec<u8>>);

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if let Ok(mut kept) = self.0.lock() {
            let _ = writeln!(kept, "[{}] {}", record.level(), record.args());
        }
    }

    fn flush(&self) {
        if let Ok(mut kept) = self.0.lock() {
            let _ = io::stderr().write_all(&kept);
            kept.clear();
        }
    }
}

fn append(flags: &Flags, name: &str) -> io::Result<File> {
    let path = flags.text(name).ok_or_else(|| io::Error::other(format!("{name} PATH")))?;
    OpenOptions::new().create(true).append(true).open(path)
}

fn report(what: &str) {
    if let Some(mut file) = REPORT.get() {
        let _ = file.write_all(format!("{} {what}\n", std::process::id()).as_bytes());
    }
}

static REPORT: OnceLock<File> = OnceLock::new();
static LOGGER: OnceLock<Logger> = OnceLock::new();

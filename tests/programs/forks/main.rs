//! Programs that fork, each of which shows one trap; tests/forks.rs says what it has to print.
//!
//! ```text
//! forks SCENARIO [ARGUMENT]
//! parent: forked 4711
//! child: begins
//! ```

use std::cell::RefCell;
use std::collections::HashMap;
use std::env;
use std::fs::File;
use std::io::{self, BufWriter, LineWriter, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::process;
use std::rc::Rc;
use std::sync::Mutex;
use std::thread;

use lenore::filter::Line;
use lenore::wheel::{Failure, ReadWrite, SocketFactory, WheelId};
use lenore::{AsKernel, Context, Error, ForkStage, Handle, InState, Kernel, Reason, Result, Session};
use nix::errno::Errno;
use nix::sys::signal::{Signal, raise};

mod background;
mod by_itself;

type Scenario = fn(&mut Kernel, &str) -> Result<(), Error>;

const SCENARIOS: [(&str, Scenario); 31] = [
    ("tear_down", tear_down),
    ("signals", signals),
    ("stopped_child", stopped_child),
    ("pending_signal", pending_signal),
    ("queued_signal", queued_signal),
    ("buffers", buffers),
    ("brittle", brittle),
    ("threads", threads),
    ("threads_in_a_jail", threads_in_a_jail),
    ("alone_in_a_jail", alone_in_a_jail),
    ("refused", refused),
    ("streams", streams),
    ("batch", batch),
    ("kept", kept),
    ("kept_at_its_end", kept_at_its_end),
    ("kept_at_the_high_mark", kept_at_the_high_mark),
    ("accepting", accepting),
    ("watching", watching),
    ("order", order),
    ("several", several),
    ("inherited", inherited),
    ("no_descriptor_left", no_descriptor_left),
    ("background", background::forks),
    ("background_functions", background::functions),
    ("background_by_itself", background::by_itself),
    ("background_possessions", background::possessions),
    ("by_itself", by_itself::by_itself),
    ("stops_by_itself", by_itself::stops),
    ("runs_by_itself", by_itself::runs),
    ("keeps_by_itself", by_itself::keeps),
    ("hears_by_itself", by_itself::hears),
];

fn main() -> Result<(), Error> {
    let args: Vec<String> = env::args().collect();
    let scenario = SCENARIOS.iter().find(|(name, _)| args.get(1).is_some_and(|wanted| wanted == name));
    let (_, scenario) = scenario.expect("the first argument names a scenario");
    if let Some(jail) = args.get(3) {
        std::os::unix::fs::chroot(jail).expect("it is run by root");
    }
    let mut kernel = Kernel::new()?;
    scenario(&mut kernel, args.get(2).map_or("", String::as_str))?;
    kernel.run()?;
    say(&kernel, "run returned");
    Ok(())
}

/// Prints one line, and who prints it.
fn say(core: &impl AsKernel, text: impl std::fmt::Display) {
    println!("{}: {text}", if core.is_child() { "child" } else { "parent" });
}

/// A session that forks when it starts, says what came of it, and lives on.
fn forker<H: 'static>(heap: H) -> Session<H> {
    Session::new(heap)
        .state("_start", |cx| {
            linger(cx)?;
            cx.fork("forked", "begins", ());
            Ok(())
        })
        .state("forked", say_forked)
        .state("begins", |cx| say(cx, "begins"))
        .state("signal", |cx| {
            cx.sig_handled();
            say(cx, cx.arg::<&str>(0)?);
            Ok(())
        })
        .state("alias", |_| ())
}

fn say_forked<H: 'static>(cx: &mut Context<'_, H>) -> Result {
    match cx.arg::<Result<i32, Error>>(0)? {
        Ok(pid) => say(cx, format!("forked {pid}")),
        Err(error) => say(cx, format!("not forked: {error}")),
    }
    Ok(())
}

/// Gives the session something that never happens to wait for.
fn linger(cx: &mut impl InState) -> Result {
    let (reader, writer) = io::pipe()?;
    std::mem::forget(writer);
    Ok(cx.calls().select_read(&Handle::new(reader), "never", ())?)
}

/// T1: the child takes away everything that the parent goes on watching.
fn tear_down(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
    forker(None::<SocketFactory>)
        .state("_start", |cx| {
            let listener = SocketFactory::tcp("127.0.0.1:0").on_accept("accept").listen(cx)?;
            println!("listening on {}", listener.local_addr()?);
            let (reader, writer) = io::pipe()?;
            std::mem::forget(writer);
            let reader = Handle::new(reader);
            cx.select_read(&reader, "readable", ())?;
            cx.sig("USR1", "signal");
            *cx.heap() = Some(listener);
            cx.fork("forked", "begins", (reader,));
            Ok(())
        })
        .state("begins", |cx| {
            // Not at once: by then the child has registered all of it with a poller.
            let reader = cx.take::<Handle>(0)?;
            cx.delay("tear_down", std::time::Duration::from_millis(5), (reader,));
            Ok(())
        })
        .state("tear_down", |cx| {
            let reader = cx.take::<Handle>(0)?;
            *cx.heap() = None;
            cx.select_read_clear(&reader);
            cx.sig_clear("USR1");
            cx.yield_("torn_down", ());
            Ok(())
        })
        .state("torn_down", |cx| say(cx, "torn down"))
        .state("accept", |cx| say(cx, "accept"))
        .spawn(kernel)?;
    Ok(())
}

/// The parent has no descriptor left, and nothing that the child would close.
fn no_descriptor_left(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
    forker(Vec::<File>::new())
        .state("_start", |cx| {
            linger(cx)?;
            cx.sig("USR1", "signal");
            while let Ok(file) = File::open("/dev/null") {
                cx.heap().push(file);
            }
            cx.fork("forked", "begins", ());
            Ok(())
        })
        .spawn(kernel)?;
    Ok(())
}

/// T2: both processes wait for the same signal.
fn signals(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
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
fn stopped_child(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
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
fn pending_signal(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
    kernel.set_fork_hook(|stage| {
        if stage == ForkStage::BeforeFork {
            raise(Signal::SIGUSR1)?;
        }
        Ok(())
    });
    stopped_or_pending(kernel)
}

/// T3: a signal that stands in the parent's queue when it forks.
fn queued_signal(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
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

/// Fails when it is dropped in the process that made it.
struct Brittle(u32);

impl Drop for Brittle {
    fn drop(&mut self) {
        if std::process::id() == self.0 {
            std::panic::resume_unwind(Box::new("broken"));
        }
    }
}

/// What the program gives to a fork panics, in the parent: the payload that only the child needs, a function that flushes, and
/// the payload of a session that is stopped before its fork comes.
fn brittle(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
    kernel.flush_before_fork(|| std::panic::resume_unwind(Box::new("not flushed")));
    Session::new(())
        .state("_start", |cx| {
            let payload = || (Brittle(std::process::id()),);
            cx.fork("forked", "begins", payload());
            Session::new(())
                .state("_start", move |cx| {
                    cx.fork("forked", "begins", payload());
                    cx.fork("forked", "begins", payload());
                    cx.signal_now(cx.session(), "KILL", ())?;
                    Ok(())
                })
                .spawn(cx)?;
            Ok(())
        })
        .state("forked", |cx| {
            let pid = *cx.arg::<Result<i32, Error>>(0)?.as_ref().expect("it has forked");
            cx.sig_child(pid, "exited", ());
            Ok(())
        })
        .state("begins", |cx| say(cx, "begins"))
        .state("exited", |cx| say(cx, "exited"))
        .spawn(kernel)?;
    Ok(())
}

/// T6: text stands in three buffers at the fork; the child ends in the style of the argument.
fn buffers(kernel: &mut Kernel, argument: &str) -> Result<(), Error> {
    let (style, path) = argument.split_once(':').expect("STYLE:PATH");
    let style = style.to_owned();
    let open = |path: &str| File::options().append(true).create(true).open(path).expect("the file can be made");
    let buffered = Rc::new(RefCell::new(BufWriter::new(open(path))));
    let by_line = Rc::new(RefCell::new(LineWriter::new(open(path))));
    write!(buffered.borrow_mut(), "buffered ").expect("it is only buffered");
    write!(by_line.borrow_mut(), "by line ").expect("it is only buffered");
    print!("printed ");
    let writers = (buffered.clone(), by_line.clone());
    kernel.flush_before_fork(move || {
        writers.0.borrow_mut().flush().expect("the file takes it");
        writers.1.borrow_mut().flush().expect("the file takes it");
    });
    forker((buffered, by_line))
        .state("_start", |cx| cx.fork("forked", "begins", ()))
        .state("forked", |cx| {
            let pid = *cx.arg::<Result<i32, Error>>(0)?.as_ref().expect("it has forked");
            cx.sig_child(pid, "exited", ());
            Ok(())
        })
        .state("begins", move |_| match &*style {
            "return" => {}
            "panic" => panic!("on purpose"),
            "exit" => process::exit(0),
            _ => process::abort(),
        })
        .state("exited", |_| ())
        .spawn(kernel)?;
    Ok(())
}

/// T7: another thread holds a lock.
fn threads(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
    static LOCK: Mutex<()> = Mutex::new(());
    let (locked, is_locked) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let _guard = LOCK.lock();
        locked.send(()).expect("the main thread waits for it");
        loop {
            thread::park();
        }
    });
    is_locked.recv().expect("the thread sends before it parks");
    refusing(kernel)
}

/// The same after the program has locked itself up where there is no `/proc`.
fn threads_in_a_jail(kernel: &mut Kernel, jail: &str) -> Result<(), Error> {
    std::os::unix::fs::chroot(jail).expect("it is run by root");
    threads(kernel, "")
}

/// A single thread, where there is no `/proc`.
fn alone_in_a_jail(kernel: &mut Kernel, jail: &str) -> Result<(), Error> {
    std::os::unix::fs::chroot(jail).expect("it is run by root");
    refusing(kernel)
}

/// The system has no process left, twice.
fn refused(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
    let mut refusals = 2;
    kernel.set_fork_hook(move |stage| {
        if stage == ForkStage::BeforeFork && refusals > 0 {
            refusals -= 1;
            return Err(Errno::EAGAIN.into());
        }
        Ok(())
    });
    refusing(kernel)
}

/// Says what it gets back, and tries again until there is no more to be sent.
fn refusing(kernel: &mut Kernel) -> Result<(), Error> {
    forker(3_u8)
        .state("_start", |cx| {
            cx.sig("USR1", "signal");
            cx.fork("forked", "begins", (String::from("payload"), 1_u8));
        })
        .state("forked", |cx| {
            say_forked(cx)?;
            if let Err(error) = cx.arg::<Result<i32, Error>>(0)? {
                let kind = if matches!(error, Error::Threads { .. }) { "Threads" } else { "Os" };
                let (payload, number) = (cx.take::<String>(1)?, *cx.arg::<u8>(2)?);
                say(cx, format!("{kind}, and back came {payload} {number}"));
                *cx.heap() -= 1;
                if *cx.heap() > 0 {
                    cx.fork("forked", "begins", (payload, number + 1));
                    return Ok(());
                }
            }
            linger(cx)
        })
        .state("begins", |cx| {
            let number = *cx.arg::<u8>(1)?;
            say(cx, format!("begins with {number}"));
            linger(cx)
        })
        .spawn(kernel)?;
    Ok(())
}

/// A server of lines: says what comes, and sends it back.
#[derive(Default)]
struct Server {
    listener: Option<SocketFactory>,
    /// One more listener, of a server with two.
    first: Option<SocketFactory>,
    clients: HashMap<WheelId, ReadWrite<Line>>,
}

impl Server {
    fn listen(cx: &mut Context<'_, Server>) -> Result {
        let listener = SocketFactory::tcp("127.0.0.1:0").on_accept("accept").listen(cx)?;
        println!("listening on {}", listener.local_addr()?);
        cx.heap().listener = Some(listener);
        Ok(())
    }

    fn adopt(cx: &mut Context<'_, Server>, keep: bool) -> Result {
        let socket = cx.take::<TcpStream>(0)?;
        let wheel = ReadWrite::stream(socket, Line::new()).on_input("input").on_error("error");
        let wheel = if keep { wheel.keep_after_fork() } else { wheel }.start(cx)?;
        cx.heap().clients.insert(wheel.id(), wheel);
        Ok(())
    }

    fn echo(cx: &mut Context<'_, Server>) -> Result {
        let (line, id) = (cx.take::<String>(0)?, *cx.arg::<WheelId>(1)?);
        say(cx, &line);
        cx.heap().clients[&id].put(line);
        Ok(())
    }

    fn error(cx: &mut Context<'_, Server>) -> Result {
        let Failure { operation, errno, wheel, .. } = cx.take(0)?;
        say(cx, format!("{operation} {errno}"));
        wheel.and_then(|id| cx.heap().clients.remove(&id));
        Ok(())
    }

    fn session(keep: bool) -> Session<Server> {
        forker(Server::default())
            .state("_start", Server::listen)
            .state("accept", move |cx| Server::adopt(cx, keep))
            .state("input", Server::echo)
            .state("error", Server::error)
    }
}

/// T11: the twentieth client gets a child of its own; then the parent lets the others go.
fn streams(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
    Server::session(false)
        .state("accept", |cx| {
            if cx.heap().clients.len() < 19 {
                return Server::adopt(cx, false);
            }
            let socket = cx.take::<TcpStream>(0)?;
            cx.fork("forked", "begins", (socket,));
            Ok(())
        })
        .state("forked", |cx| {
            cx.heap().clients.clear();
            say_forked(cx)
        })
        .state("begins", |cx| {
            let copies = cx.heap().clients.len();
            Server::adopt(cx, false)?;
            say(cx, format!("begins beside {copies} closed wheels"));
            Ok(())
        })
        .spawn(kernel)?;
    Ok(())
}

/// T22: a client sends several records at once, the first of which makes the server fork.
fn batch(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
    forking_by_line(Server::session(false), kernel)
}

/// The same with a wheel that both processes keep, until the parent drops it on the last record.
fn kept(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
    forking_by_line(Server::session(true), kernel)
}

/// T22: the fork comes between the end of the input and the event that tells of it, for a wheel that both processes keep.
fn kept_at_its_end(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
    let (ours, mut theirs) = UnixStream::pair().expect("a pair can be made");
    theirs.write_all(b"last\n").and_then(|()| theirs.shutdown(Shutdown::Write)).expect("there is room");
    std::mem::forget(theirs);
    Session::new(None::<ReadWrite<Line>>)
        .args((ours,))
        .state("_start", |cx| {
            let wheel = ReadWrite::stream(cx.take::<UnixStream>(0)?, Line::new()).keep_after_fork();
            *cx.heap() = Some(wheel.on_input("input").on_flushed("flushed").on_error("error").start(cx)?);
            Ok(())
        })
        .state("input", |cx| {
            let line = cx.take::<String>(0)?;
            say(cx, &line);
            cx.heap().iter().for_each(|wheel| _ = wheel.put(&*line));
            Ok(())
        })
        .state("flushed", |cx| cx.fork("forked", "begins", ()))
        .state("forked", say_forked)
        .state("begins", |cx| say(cx, "begins"))
        .state("error", |cx| {
            let Failure { operation, errno, .. } = cx.take(0)?;
            say(cx, format!("{operation} {errno}"));
            *cx.heap() = None;
            Ok(())
        })
        .spawn(kernel)?;
    Ok(())
}

/// T22: the fork comes before anything is written, for a wheel that both processes keep and that the parent is to shut down.
fn kept_at_the_high_mark(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
    let (ours, theirs) = UnixStream::pair().expect("a pair can be made");
    let (settled, say_settled) = io::pipe().expect("a pipe can be made");
    Session::new(None::<ReadWrite<Line>>)
        .args((ours,))
        .state("_start", |cx| {
            let wheel = ReadWrite::stream(cx.take::<UnixStream>(0)?, Line::new()).keep_after_fork();
            let wheel = wheel.watermarks(1, 2).on_low("low").on_high("high").on_error("error").start(cx)?;
            wheel.put("for the peer");
            wheel.shutdown_output_after_flush();
            *cx.heap() = Some(wheel);
            Ok(())
        })
        .state("high", |cx| cx.fork("forked", "begins", ()))
        .state("forked", move |_| Ok((&settled).read_exact(&mut [0])?))
        .state("begins", |cx| cx.yield_("settled", ()))
        .state("settled", move |cx| {
            say(cx, "settled");
            *cx.heap() = None;
            Ok((&say_settled).write_all(b"x")?)
        })
        .state("low", |_| ())
        .state("error", |cx| {
            let Failure { operation, errno, .. } = cx.take(0)?;
            say(cx, format!("{operation} {errno}"));
            Ok(())
        })
        .spawn(kernel)?;
    Session::new(None::<ReadWrite<Line>>)
        .args((theirs,))
        .state("_start", |cx| {
            let wheel = ReadWrite::stream(cx.take::<UnixStream>(0)?, Line::new()).on_input("input").on_error("error");
            *cx.heap() = Some(wheel.start(cx)?);
            Ok(())
        })
        .state("input", |cx| {
            say(cx, format!("got {}", cx.arg::<String>(0)?));
            Ok(())
        })
        .state("error", |cx| {
            let Failure { operation, errno, .. } = cx.take(0)?;
            say(cx, format!("{operation} {errno}"));
            *cx.heap() = None;
            Ok(())
        })
        .spawn(kernel)?;
    Ok(())
}

fn forking_by_line(server: Session<Server>, kernel: &mut Kernel) -> Result<(), Error> {
    server
        .state("input", |cx| {
            match &**cx.arg::<String>(0)? {
                "fork" => cx.fork("forked", "begins", ()),
                "drop" => {
                    cx.heap().clients.clear();
                    say(cx, "drop");
                    return Ok(());
                }
                _ => {}
            }
            Server::echo(cx)
        })
        .state("begins", |cx| {
            say(cx, "begins");
            cx.yield_("settled", ());
        })
        .state("settled", |cx| say(cx, "settled"))
        .spawn(kernel)?;
    Ok(())
}

/// T22: of several clients that wait at two listeners, the first makes the server fork; the parent then stops.
fn accepting(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
    Server::session(false)
        .state("_start", |cx| {
            Server::listen(cx)?;
            let first = cx.heap().listener.take();
            Server::listen(cx)?;
            cx.heap().first = first;
            // Not a moment before all of them wait.
            raise(Signal::SIGSTOP)?;
            Ok(())
        })
        .state("accept", |cx| {
            say(cx, "accept");
            let is_first = cx.heap().clients.is_empty() && !cx.is_child();
            Server::adopt(cx, false)?;
            if is_first {
                cx.fork("forked", "begins", ());
            }
            Ok(())
        })
        .state("forked", |_| raise(Signal::SIGSTOP).map_err(lenore::Exception::from))
        .state("begins", |cx| {
            say(cx, "begins");
            cx.yield_("next_slice", ());
        })
        .state("next_slice", |cx| say(cx, "next slice"))
        .spawn(kernel)?;
    Ok(())
}

/// T22: of two sessions that watch one descriptor, the first forks; the parent then stops.
fn watching(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
    let (reader, mut writer) = io::pipe().expect("a pipe can be made");
    writer.write_all(b"x").expect("it fits");
    std::mem::forget(writer);
    let reader = Handle::new(reader);
    for is_first in [true, false] {
        let reader = reader.clone();
        forker(is_first)
            .state("_start", move |cx| Ok(cx.select_read(&reader, "readable", ())?))
            .state("readable", |cx| {
                let is_first = *cx.heap();
                say(cx, format!("readable {is_first}"));
                let handle = cx.arg::<Handle>(0)?.clone();
                cx.select_read_clear(&handle);
                if is_first {
                    cx.fork("forked", "begins", ());
                }
                Ok(())
            })
            .state("forked", |_| raise(Signal::SIGSTOP).map_err(lenore::Exception::from))
            .state("begins", |cx| {
                say(cx, "begins");
                cx.yield_("next_slice", ());
            })
            .state("next_slice", |cx| say(cx, "next slice"))
            .spawn(kernel)?;
    }
    Ok(())
}

/// When the fork happens: asked for outside of `run`, in a state that another one called.
fn order(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
    forker(())
        .state("_start", |cx| {
            linger(cx)?;
            cx.sig("FORKED", "signal");
            cx.yield_("posted", ());
            cx.delay("alarm", std::time::Duration::from_millis(10), ());
            cx.call(cx.session(), "called", ())?;
            say(cx, "_start ends");
            Ok(())
        })
        .state("called", |cx| cx.fork("forked", "begins", ()))
        .state("forked", |cx| say(cx, "forked"))
        .state("posted", |cx| say(cx, "posted"))
        .state("alarm", |cx| say(cx, "alarm"))
        .spawn(kernel)?;
    say(kernel, "run begins");
    Ok(())
}

/// Several forks asked for at once.
fn several(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
    forker(())
        .state("_start", |cx| {
            linger(cx)?;
            for name in ["a", "b", "c"] {
                cx.fork("forked", "begins", (name,));
            }
            Ok(())
        })
        .state("begins", |cx| {
            say(cx, format!("begins {} {}", cx.arg::<&str>(0)?, process::id()));
            Ok(())
        })
        .spawn(kernel)?;
    Ok(())
}

/// What a child does not inherit: the interest in its brothers, and the requests of a session that stopped.
fn inherited(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
    let doomed = forker(())
        .state("_start", |cx| cx.fork("forked", "doomed", ()))
        .state("doomed", |cx| say(cx, "doomed"))
        .spawn(kernel)?;
    kernel.signal_now(doomed, "KILL", ())?;
    let id = kernel.kernel_id().to_owned();
    forker(0_u8)
        .state("_start", |cx| cx.fork("forked", "begins", ()))
        .state("forked", |cx| {
            let pid = *cx.arg::<Result<i32, Error>>(0)?.as_ref().expect("it has forked");
            cx.sig_child(pid, "exited", ());
            *cx.heap() += 1;
            if *cx.heap() == 1 {
                cx.fork("forked", "second", ());
            }
            say_forked(cx)
        })
        .state("second", move |cx| {
            let snapshot = cx.peek();
            let mut reasons = snapshot.sessions.iter().flat_map(|session| &session.reasons);
            let waits = reasons.any(|reason| matches!(reason, Reason::ChildProcess(_)));
            say(cx, format!("second waits for children: {waits}, has its own id: {}", cx.kernel_id() != id));
        })
        .state("exited", |cx| {
            say(cx, format!("exited {}", cx.arg::<i32>(1)?));
            Ok(())
        })
        .spawn(kernel)?;
    Ok(())
}

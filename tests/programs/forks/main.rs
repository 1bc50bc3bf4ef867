//! Programs that fork, each of which shows one trap; tests/forks.rs says what it has to print.
//!
//! ```text
//! forks SCENARIO [ARGUMENT]
//! parent: forked 4711
//! child: begins
//! ```

use std::cell::RefCell;
use std::env;
use std::fs::File;
use std::io::{self, BufWriter, LineWriter, Write};
use std::process;
use std::rc::Rc;

use lenore::wheel::SocketFactory;
use lenore::{AsKernel, Context, Error, Handle, InState, Kernel, Reason, Result, Session};

mod background;
mod by_itself;
mod refusals;
mod signals;
mod streams;

type Scenario = fn(&mut Kernel, &str) -> Result<(), Error>;

const SCENARIOS: [(&str, Scenario); 31] = [
    ("tear_down", tear_down),
    ("signals", signals::signals),
    ("stopped_child", signals::stopped_child),
    ("pending_signal", signals::pending_signal),
    ("queued_signal", signals::queued_signal),
    ("buffers", buffers),
    ("brittle", brittle),
    ("threads", refusals::threads),
    ("threads_in_a_jail", refusals::threads_in_a_jail),
    ("alone_in_a_jail", refusals::alone_in_a_jail),
    ("refused", refusals::refused),
    ("streams", streams::streams),
    ("batch", streams::batch),
    ("kept", streams::kept),
    ("kept_at_its_end", streams::kept_at_its_end),
    ("kept_at_the_high_mark", streams::kept_at_the_high_mark),
    ("accepting", streams::accepting),
    ("watching", streams::watching),
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

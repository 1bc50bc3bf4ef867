//! Programs with children at the end of a `Run`; tests/run.rs says what each has to print.
//!
//! ```text
//! run_wheel SCENARIO
//! out hello
//! error read 0 STDOUT
//! close
//! exit exit status: 0
//! ```

use std::process::ExitStatus;
use std::{env, fs};

use lenore::filter::{FilterError, Line};
use lenore::wheel::{Failure, Run, RunBuilder, WheelId};
use lenore::{Context, Error, Kernel, Result, Session};

mod adversary;
mod conduits;
mod functions;
mod life;
mod marks;
mod streams;

type Scenario = fn(&mut Kernel) -> std::result::Result<(), Error>;

fn main() -> std::result::Result<(), Error> {
    let name = env::args().nth(1).unwrap_or_default();
    let all = [
        streams::SCENARIOS,
        life::SCENARIOS,
        functions::SCENARIOS,
        conduits::SCENARIOS,
        marks::SCENARIOS,
        adversary::SCENARIOS,
    ]
    .concat();
    let (_, scenario) = all.iter().find(|(other, _)| *other == name).expect("the argument names a scenario");
    functions::at_start();
    let mut kernel = Kernel::new()?;
    scenario(&mut kernel)?;
    kernel.run()?;
    println!("run returned");
    Ok(())
}

/// What most scenarios have: a wheel with all its events, which are printed.
type Heap = Option<Run>;

fn events(builder: RunBuilder) -> RunBuilder {
    builder
        .on_stdin("stdin")
        .on_stdout("stdout")
        .on_stderr("stderr")
        .on_error("error")
        .on_refused("refused")
        .on_close("close")
        .on_exit("exit")
}

/// A session that starts a wheel with all its events and says what they bring; it drops the wheel after close and exit.
fn watching(make: impl Fn() -> RunBuilder + 'static) -> Session<Heap> {
    session(move || events(make()))
}

/// The same with a wheel that has the events it was given.
fn session(make: impl Fn() -> RunBuilder + 'static) -> Session<Heap> {
    Session::new(None)
        .state("_start", move |cx| {
            let wheel = make().start(cx)?;
            *cx.heap() = Some(wheel);
            cx.yield_("started", ());
            Ok(())
        })
        .state("started", |_| ())
        .state("stdin", |cx| {
            is_ours(cx, 0)?;
            println!("flushed");
            Ok(())
        })
        .state("stdout", |cx| {
            is_ours(cx, 1)?;
            println!("out {}", cx.arg::<String>(0)?);
            Ok(())
        })
        .state("stderr", |cx| {
            is_ours(cx, 1)?;
            println!("err {}", cx.arg::<String>(0)?);
            Ok(())
        })
        .state("error", say_error)
        .state("refused", |cx| {
            is_ours(cx, 1)?;
            println!("refused {} {}", cx.arg::<FilterError>(0)?, cx.arg::<&str>(2)?);
            Ok(())
        })
        .state("close", |cx| {
            is_ours(cx, 0)?;
            println!("close");
            Ok(())
        })
        .state("exit", |cx| {
            is_ours(cx, 3)?;
            assert_eq!(*cx.arg::<&str>(0)?, "CHLD");
            println!("exit {}", cx.arg::<ExitStatus>(2)?);
            Ok(())
        })
        .state("_stop", |_| println!("_stop"))
}

/// Two records go through the child, whose input ends when they have come back.
fn there_and_back(session: Session<Heap>) -> Session<Heap> {
    session
        .state("started", |cx| {
            wheel(cx).put("one");
            wheel(cx).put("two");
            Ok(())
        })
        .state("stdout", |cx| {
            let line = cx.take::<String>(0)?;
            println!("out {line}");
            if line == "two" {
                wheel(cx).shutdown_stdin();
            }
            Ok(())
        })
}

/// Asserts that there are as many descriptors as ARG0 says, and that the kernel has none of them.
fn nothing_is_left(cx: &mut Context<'_, Heap>) -> Result {
    assert_eq!(fs::read_dir("/proc/self/fd")?.count(), *cx.arg::<usize>(0)?, "descriptors are left open");
    assert!(cx.peek().sources.is_empty());
    Ok(())
}

fn say_error(cx: &mut Context<'_, Heap>) -> Result {
    let Failure { operation, errno, text, wheel, subject: stream, .. } = cx.arg::<Failure>(0)?.clone();
    is_id_ours(cx, wheel.expect("a wheel names itself"));
    assert_eq!(text.is_empty(), errno == 0, "only the end of file has no text");
    println!("error {operation} {errno} {stream}");
    Ok(())
}

fn is_ours(cx: &mut Context<'_, Heap>, position: usize) -> Result {
    let id = *cx.arg::<WheelId>(position)?;
    is_id_ours(cx, id);
    Ok(())
}

fn is_id_ours(cx: &mut Context<'_, Heap>, id: WheelId) {
    let ours = cx.heap().as_ref().map(Run::id);
    assert!(ours.is_none_or(|ours| ours == id));
}

fn wheel<'c>(cx: &'c mut Context<'_, Heap>) -> &'c Run {
    let wheel: &Heap = cx.heap();
    wheel.as_ref().expect("the wheel is there")
}

/// Says what a state made of a call that may fail.
fn say<T>(what: &str, outcome: std::result::Result<T, Error>) {
    match outcome {
        Ok(_) => println!("{what}: done"),
        Err(Error::Os { call, subject, source }) => {
            println!("{what}: {call} {subject}: errno {}", source.raw_os_error().unwrap_or(0));
        }
        Err(error) => println!("{what}: {error}"),
    }
}

/// Lines that end with something else than LF.
fn cut_at(terminator: &str) -> Line {
    Line::literal(terminator).expect("it is not empty")
}

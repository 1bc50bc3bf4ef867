//! Programs whose listener is shared with a forked child; tests/wheels/socket_factory says what each has to print.
//!
//! ```text
//! shared_listeners path PATH
//! shared_listeners paused
//! ```

use std::env;
use std::path::PathBuf;
use std::process::ExitStatus;

use lenore::wheel::SocketFactory;
use lenore::{AsKernel, Context, Error, Kernel, Result, Session};

fn main() -> Result<(), Error> {
    let args: Vec<String> = env::args().skip(1).collect();
    let mut kernel = Kernel::new()?;
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["path", path] => owned_path(path.into()).spawn(&mut kernel)?,
        ["paused"] => paused().spawn(&mut kernel)?,
        _ => panic!("no such scenario: {args:?}"),
    };
    kernel.run()
}

/// Prints one line, and who prints it.
fn say(core: &impl AsKernel, text: impl std::fmt::Display) {
    println!("{}: {text}", if core.is_child() { "child" } else { "parent" });
}

/// A listener whose path goes with it: the child drops its copy first, the parent after the child has ended.
fn owned_path(path: PathBuf) -> Session<Option<SocketFactory>> {
    let is_there = |path: &PathBuf| if path.exists() { "the path is there" } else { "the path is gone" };
    let [for_start, for_drop, for_child] = [(); 3].map(|()| path.clone());
    Session::new(None)
        .state("_start", move |cx| {
            let listener = SocketFactory::unix(for_start.clone()).unlink_path().on_accept("accept").listen(cx)?;
            *cx.heap() = Some(listener);
            cx.fork("forked", "drop", ());
            Ok(())
        })
        .state("forked", |cx| {
            let pid = cx.take::<Result<i32, Error>>(0)??;
            cx.sig_child(pid, "ended", ());
            Ok(())
        })
        .state("ended", move |cx| {
            assert!(cx.arg::<ExitStatus>(2)?.success());
            say(cx, format!("after the child, {}", is_there(&for_child)));
            cx.yield_("drop", ());
            Ok(())
        })
        .state("drop", |cx| {
            *cx.heap() = None;
            // The wheel is closed once this state has returned.
            cx.yield_("dropped", ());
        })
        .state("dropped", move |cx| say(cx, format!("dropped, {}", is_there(&for_drop))))
}

/// A listener that parent and child watch. The parent pauses it when both have done so, and accepts again after `USR1`.
fn paused() -> Session<Option<SocketFactory>> {
    Session::new(None)
        .state("_start", |cx| {
            let listener = SocketFactory::tcp("127.0.0.1:0").on_accept("accept").listen(cx)?;
            println!("listening on {}", listener.local_addr()?);
            *cx.heap() = Some(listener);
            cx.sig("USR1", "resume");
            cx.yield_("fork", ());
            Ok(())
        })
        // Not before the parent's poller has the listener.
        .state("fork", |cx| cx.fork("forked", "begins", ()))
        .state("forked", |cx| {
            cx.yield_("pause", ());
        })
        .state("begins", |_| ())
        .state("pause", pause)
        .state("paused", |cx| say(cx, "paused"))
        .state("resume", |cx| {
            cx.sig_handled();
            if !cx.is_child() {
                cx.heap().iter().for_each(SocketFactory::resume_accept);
                say(cx, "resumed");
            }
        })
        .state("accept", |cx| say(cx, "accepted"))
}

fn pause(cx: &mut Context<'_, Option<SocketFactory>>) {
    cx.heap().iter().for_each(SocketFactory::pause_accept);
    // After the next look at the poller.
    cx.yield_("paused", ());
}

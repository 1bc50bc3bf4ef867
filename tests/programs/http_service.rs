//! A `component::http::Service` under a `Server`, for `tests/components/service/processes.rs`.
//!
//! Flags: `--mode MODE`, `--connections N`, `--children N` (so many children, no more and no less), `--no-database`: what a process
//! needs can't be made.

use std::error::Error;
use std::io;
use std::time::Duration;

use lenore::component::Server;
use lenore::component::http::{Cx, Later, Request, Result, Service};
use lenore::{Daemon, Kernel, Session};

use util::daemon_program::{Flags, say};

/// What each process makes of its own.
struct Database {
    pid: u32,
    asked: u32,
}

impl Database {
    fn open(exists: bool) -> io::Result<Database> {
        if !exists {
            return Err(io::Error::other("no database"));
        }
        say("opened");
        Ok(Database { pid: std::process::id(), asked: 0 })
    }
}

fn count(cx: &mut Cx<'_, Database>, _: Request) -> String {
    let mut database = cx.heap().resource();
    database.asked += 1;
    format!("{} {}", database.pid, database.asked)
}

/// Is answered when another client asks for `/go`.
fn wait(cx: &mut Cx<'_, Database>, _: Request) -> Result<lenore::component::http::Pending> {
    let (later, pending) = Later::new(cx)?;
    cx.call("waiting", "wait", (later,))?;
    say("waits");
    Ok(pending)
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    util::daemon_program::log_to_stderr();
    let flags = Flags::read();
    let exists = !flags.has("--no-database");
    let service = Service::with(move || Database::open(exists))
        .get("/pid", |_, _| std::process::id().to_string())
        .get("/count", count)
        .get("/panic", |_, _| -> String { panic!("on purpose") })
        .get("/wait", wait)
        .post("/echo", |_, request| request.into_body())
        .get("/go", |cx, _| -> Result<_> {
            cx.call("waiting", "go", ())?;
            Ok("went")
        });
    let mut daemon = Daemon::builder().shutdown_timeout(Duration::from_secs(30)).requests(0);
    if let Some(children) = flags.number("--children") {
        daemon = daemon.max_children(children).min_spare(children).max_spare(children);
    }
    let mut server = Server::tcp("127.0.0.1:0", service).daemon(daemon);
    if let Some(mode) = flags.text("--mode") {
        server = server.processes(mode.parse()?);
    }
    if let Some(connections) = flags.number("--connections") {
        server = server.connections_per_child(connections);
    }
    let mut kernel = Kernel::new()?;
    let serving = server.spawn(&mut kernel)?;
    Session::new(Vec::<Later>::new())
        .state("_start", |cx| {
            cx.alias_set("waiting")?;
            // It goes with what it serves.
            cx.sig("daemon_shutdown", "end");
            Ok(())
        })
        .state("wait", |cx| {
            let later = cx.take(0)?;
            cx.heap().push(later);
            Ok(())
        })
        .state("go", |cx| {
            for later in cx.heap().drain(..) {
                later.answer("answered");
            }
        })
        .state("end", |_| say("ending"))
        .spawn(&mut kernel)?;
    println!("listening on {}", serving.local_addr());
    Ok(kernel.run()?)
}

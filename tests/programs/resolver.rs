//! A server that looks names up for its clients by a `component::Resolver`, for `tests/resolver.rs`.
//!
//! A client's line is a command, see `command`, and its answer is a line. `--dir DIR`: where the file `gate` may be, and the file
//! `asked`, to which helpers write `PID HOST`. `--once HOST`: there is no server; one session asks, and the program ends. `--fork`: it
//! forks as well, once the resolver has asked. `--fork-at-once`: it forks before that.

use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process;
use std::thread;
use std::time::Duration;

use lenore::component::{Connection, Processes, Protocol, Resolved, Resolver, Server, TcpClient};
use lenore::filter::Line;
use lenore::wheel::{Failure, SocketFactory};
use lenore::{Context, Daemon, Kernel, Result, Session};

use util::daemon_program::{Flags, say};

fn main() -> std::result::Result<(), Box<dyn Error>> {
    util::daemon_program::log_to_stderr();
    let flags = Flags::read();
    let mut kernel = Kernel::new()?;
    let resolver = resolver(&flags).spawn(&mut kernel)?;
    if let Some(host) = flags.text("--once") {
        once(&mut kernel, resolver, host, (flags.has("--fork"), flags.has("--fork-at-once")))?;
    } else {
        let protocol = Protocol::with_heap(Line::new(), || None)
            .on_input(move |cx, line: String| command(cx, resolver, &line))
            .state("resolved", |cx: &mut Client<'_>| {
                let answer = text(&cx.take(0)?);
                cx.heap().put(answer);
                Ok(())
            })
            .state("connected", |cx: &mut Client<'_>| {
                let peer = cx.take::<TcpStream>(0)?.peer_addr()?;
                cx.heap().put(format!("connected to {peer}"));
                Ok(())
            })
            .state("failed", |cx: &mut Client<'_>| {
                let failure = cx.take::<Failure>(0)?;
                cx.heap().put(format!("{} {}: {}", failure.operation, failure.errno, failure.text));
                Ok(())
            });
        let mode = flags.text("--mode").unwrap_or("single").parse::<Processes>()?;
        let daemon = Daemon::builder().requests(0).max_spare(2).max_children(2);
        let serving = Server::tcp("127.0.0.1:0", protocol).processes(mode).daemon(daemon).spawn(&mut kernel)?;
        println!("listening on {}", serving.local_addr());
    }
    kernel.run()?;
    say("end");
    Ok(())
}

fn resolver(flags: &Flags) -> lenore::component::ResolverBuilder {
    let dir = PathBuf::from(flags.text("--dir").expect("a directory"));
    let ms = |name, default| Duration::from_millis(flags.number(name).unwrap_or(default));
    Resolver::builder()
        .helpers(flags.number("--helpers").unwrap_or(4))
        .time_limit(ms("--limit-ms", 3_600_000))
        .idle_timeout(ms("--idle-ms", 3_600_000))
        .cache_for(ms("--cache-ms", 3_600_000))
        .cache_failures_for(ms("--cache-ms", 3_600_000))
        .lookup(move |host, port| look_up(&dir, host, port))
}

fn look_up(dir: &std::path::Path, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let mut asked = OpenOptions::new().append(true).create(true).open(dir.join("asked"))?;
    asked.write_all(format!("{} {host}\n", process::id()).as_bytes())?;
    match host {
        "none" => Err(io::Error::other("no such name")),
        "empty" => Ok(Vec::new()),
        "die" => process::abort(),
        "hang" => loop {
            thread::sleep(Duration::from_secs(1));
        },
        "print" => {
            println!("ok 192.0.2.1:{port}");
            Ok(vec![([127, 0, 0, 1], port).into()])
        }
        "stray" => {
            let answers = format!("ok 192.0.2.1:{port}\n").repeat(2);
            for mut pipe in pipes()? {
                pipe.write_all(answers.as_bytes())?;
            }
            Ok(vec![([127, 0, 0, 1], port).into()])
        }
        _ => {
            while host.starts_with("gate") && File::open(dir.join("gate")).is_ok() {
                thread::sleep(Duration::from_millis(1));
            }
            Ok(vec![([127, 0, 0, 1], port).into()])
        }
    }
}

/// Opens each pipe that this helper can write to, but for standard output and error: that for its answers is among them.
fn pipes() -> io::Result<Vec<File>> {
    let mut pipes = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let (path, number) = (entry.path(), entry.file_name());
        let is_pipe = fs::read_link(&path).is_ok_and(|what| what.as_os_str().as_encoded_bytes().starts_with(b"pipe:"));
        let about = fs::read_to_string(Path::new("/proc/self/fdinfo").join(&number))?;
        let flags = about.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or_default();
        if is_pipe && flags.trim().ends_with('1') && number != "1" && number != "2" {
            pipes.push(OpenOptions::new().write(true).open(path)?);
        }
    }
    Ok(pipes)
}

fn text(resolved: &Resolved) -> String {
    match &resolved.outcome {
        Ok(addresses) => format!("{}: {addresses:?}", resolved.host),
        Err(error) => format!("{}: {error}", resolved.host),
    }
}

type Client<'a> = Context<'a, Connection<Line, Option<SocketFactory>>>;

/// `ask HOST`, `connect HOST PORT` by a wheel and `drop` of that, `client HOST PORT` by a component, `clear`, `shutdown`,
/// `shutdown-ask HOST`, `pid`.
fn command(cx: &mut Client<'_>, resolver: Resolver, line: &str) -> Result {
    let mut words = line.split(' ');
    let (word, host) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let port = words.next().unwrap_or("80").parse()?;
    match word {
        "ask" => resolver.resolve(cx, host, port, "resolved", ())?,
        "connect" => {
            let wheel = SocketFactory::tcp((host, port)).on_connect("connected").on_error("failed").resolver(resolver);
            **cx.heap() = Some(wheel.connect(cx)?);
        }
        "drop" => {
            **cx.heap() = None;
            cx.heap().put("dropped");
        }
        "client" => {
            let me = cx.session();
            let protocol = Protocol::new(Line::new()).on_connect(|cx| {
                cx.heap().put("hello");
                cx.yield_("shutdown", ());
            });
            let client = TcpClient::new(format!("{host}:{port}"), protocol).resolver(resolver);
            let client = client.on_connect_error(move |cx, failure| Ok(cx.post(me, "failed", (failure.clone(),))?));
            client.spawn(cx)?;
        }
        "clear" => {
            resolver.clear_cache(cx)?;
            cx.heap().put("cleared");
        }
        "shutdown" => resolver.shutdown(cx)?,
        "shutdown-ask" => {
            resolver.shutdown(cx)?;
            resolver.resolve(cx, host, port, "resolved", ())?;
        }
        _ => {
            let pid = cx.pid();
            cx.heap().put(pid.to_string());
        }
    }
    Ok(())
}

fn once(
    kernel: &mut Kernel,
    resolver: Resolver,
    host: &str,
    (forks, forks_at_once): (bool, bool),
) -> std::result::Result<(), lenore::Error> {
    let host = host.to_owned();
    Session::new(())
        .state("_start", move |cx| {
            resolver.resolve(cx, host.as_str(), 80, "resolved", ("extra",))?;
            if forks {
                // Not before the resolver has asked.
                cx.delay("fork", Duration::from_millis(100), ());
            }
            if forks_at_once {
                cx.fork("forked", "forked", ());
            }
            Ok(())
        })
        .state("fork", |cx| cx.fork("forked", "forked", ()))
        .state("forked", |cx| say(if cx.is_child() { "child begins" } else { "forked" }))
        .state("resolved", |cx| {
            say(&format!("{} {}", text(cx.arg(0)?), cx.arg::<&str>(1)?));
            Ok(())
        })
        .spawn(kernel)?;
    Ok(())
}

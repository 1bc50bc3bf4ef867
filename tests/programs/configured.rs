//! A `component::Server` that listens on what its configuration says, for `tests/change/addresses.rs`.
//!
//! `--config PATH`, `--control PATH`, `--mode MODE`, `--max N` and `--probation-ms N`. A line is answered with `PID VALUE LINE`, but `fail` is
//! an error of the callback, and `next` changes to a protocol whose `on_connect` fails.
//!
//! `--other PATH`: a second server, of one process, with the configuration at PATH. USR1 ends it.
//!
//! The configuration has lines: `listen=ADDRESS`, any number of them; `value=VALUE`; and `die=PATH`, which has a child exit with 3 when
//! it begins and there is such a file.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use lenore::component::{Connection, NextProtocol, Processes, Protocol, Server};
use lenore::daemon::PoolSettings;
use lenore::filter::Line;
use lenore::{Context, Daemon, Kernel, Result, Session};

use util::daemon_program::{Flags, say};

/// What the file says.
#[derive(Clone, Debug, Default)]
struct Config {
    listen: Vec<String>,
    value: String,
    die: Option<String>,
}

fn load(bytes: &[u8]) -> std::result::Result<Config, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let mut config = Config::default();
    for line in text.lines() {
        match line.split_once('=') {
            Some(("listen", address)) => config.listen.push(address.to_owned()),
            Some(("value", value)) => value.clone_into(&mut config.value),
            Some(("die", path)) => config.die = Some(path.to_owned()),
            _ => return Err(format!("{line:?} is not known")),
        }
    }
    Ok(config)
}

fn pool(config: &Config) -> PoolSettings {
    config.listen.iter().fold(PoolSettings::new(), PoolSettings::listen)
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    util::daemon_program::log_to_stderr();
    let flags = Flags::read();
    let text = |name: &str| flags.text(name).ok_or(format!("{name} is missing"));
    let ms = flags.number("--probation-ms").unwrap_or(0_u32);
    let daemon = Daemon::builder().requests(0).config(text("--config")?, load).config_pool(pool);
    let mut daemon = daemon.control(text("--control")?).probation(Duration::from_millis(ms.into()));
    if let Some(max) = flags.number("--max") {
        daemon = daemon.max_children(max).min_spare(max).max_spare(max);
    }
    let mut kernel = Kernel::new()?;
    let processes: Processes = text("--mode")?.parse()?;
    let server = Server::configured(protocol()).processes(processes).daemon(daemon).on_child(|cx| {
        match cx.call("config", "config", ())?.take::<Config>()?.die {
            Some(path) if Path::new(&path).exists() => std::process::exit(3),
            _ => Ok(()),
        }
    });
    let serving = server.spawn(&mut kernel)?;
    let other = match flags.text("--other") {
        Some(path) => {
            let daemon = Daemon::builder().alias("Other").config(path, load).config_pool(pool);
            Some(Server::configured(protocol()).processes(Processes::Single).daemon(daemon).spawn(&mut kernel)?)
        }
        None => None,
    };
    // Whoever needs the configuration asks this one.
    Session::new(serving.daemon())
        .state("_start", move |cx| {
            cx.alias_set("config")?;
            cx.sig("daemon_shutdown", "end");
            if other.is_some() {
                cx.sig("USR1", "end_other");
            }
            Ok(())
        })
        .state("end_other", move |cx| {
            cx.sig_handled();
            Ok(other.map_or(Ok(()), |other| other.daemon().shutdown(cx))?)
        })
        .state("end", |cx| {
            // Each of the Daemons tells of its end.
            let is_own = Daemon::of_signal(cx) == Some(*cx.heap());
            if is_own { Ok(cx.alias_remove("config")?) } else { Ok(()) }
        })
        .state("config", |cx| {
            let daemon = *cx.heap();
            let config = daemon.config::<Config, _>(cx)?;
            Ok(lenore::Return((*config).clone()))
        })
        .spawn(&mut kernel)?;
    println!("listening on {}", serving.local_addr());
    kernel.run()?;
    say("end");
    Ok(())
}

fn protocol() -> Protocol<Line> {
    let next = NextProtocol::new(Protocol::new(Line::new()).on_connect(|_| fail()).state("failed", failed));
    Protocol::new(Line::new())
        .on_connect(|cx| cx.sig("DIE", "failed"))
        .on_input(move |cx, line: String| match (line.as_str(), &next) {
            ("next", Ok(next)) => Ok(next.take_over(cx, ())?),
            _ => answer(cx, line),
        })
        .state("failed", failed)
}

fn failed(cx: &mut Context<'_, Connection<Line>>) {
    cx.sig_handled();
    cx.yield_("shutdown", ());
}

fn fail() -> Result {
    Err(lenore::Exception::new("this one fails"))
}

fn answer(cx: &mut Context<'_, Connection<Line>>, line: String) -> Result {
    if line == "fail" {
        return fail();
    }
    let value = cx.call("config", "config", ())?.take::<Config>()?.value;
    let pid = cx.pid();
    cx.heap().put(format!("{pid} {value} {line}"));
    Ok(())
}

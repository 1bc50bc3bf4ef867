//! What each command asks the daemon, and how its answer is shown.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lenore::daemon::view::{ChildView, Snapshot, text};
use serde_json::{Map, Value, json};

use crate::cli::{Child, Cli, Command, Shown, Waits};
use crate::client::{Client, Unreachable};
use crate::failure::{Failure, code};
use crate::output::{say, say_json, warn};
use crate::status::status;
use crate::target::Target;
use crate::{board, top};

/// How long an answer may take that the daemon has at hand.
const AT_HAND: Duration = Duration::from_secs(5);

/// Carries out a command.
pub fn run(cli: Cli) -> Result<(), Failure> {
    let target = Target { deadline: cli.timeout.map(|timeout| Instant::now() + timeout), ..Target::find(&cli.target)? };
    let (at_hand, until_done) = (cli.timeout.or(Some(AT_HAND)), cli.timeout);
    match cli.command {
        Command::Status(shown) => status(&target, shown.json, at_hand),
        Command::Live => probe(&target, "live", at_hand),
        Command::Ready => probe(&target, "ready", at_hand),
        Command::Children { shown, pss } => children(&target, shown, pss, at_hand),
        Command::Peek { child } => peek(&target, child, at_hand),
        Command::Watch { json } => watch(&target, json, cli.timeout),
        Command::Top { once, json } => top::top(&target, once, json),
        Command::Metrics { openmetrics } => metrics(&target, openmetrics, at_hand),
        Command::Resize { min_spare, max_spare, max_children, reset } => {
            let mut command = command("resize");
            let numbers = [("min_spare", min_spare), ("max_spare", max_spare), ("max_children", max_children)];
            for (name, number) in numbers.into_iter().filter_map(|(name, number)| Some((name, number?))) {
                command.insert(name.into(), number.into());
            }
            if reset {
                command.insert("reset".into(), true.into());
            }
            let data = ask(&target, command, at_hand)?;
            say(format_args!("was {}\nis  {}", sizes(&data["old"]), sizes(&data["new"])));
            Ok(())
        }
        Command::Retire(child) => end_child(&target, "retire", child, until_done),
        Command::Kill(child) => end_child(&target, "kill", child, until_done),
        Command::Reopen(waits) => {
            let data = ask(&target, with_wait(command("reopen"), &waits), until_done)?;
            // A daemon of an older version does not tell.
            if data.get("log_file").is_some_and(Value::is_null) {
                say("there is no log file to open");
                return confirmed(&data, "been told");
            }
            confirmed(&data, "reopened the log file")
        }
        Command::Reload(waits) => reload(&target, &waits, until_done),
        Command::Check => {
            ask(&target, command("check"), until_done)?;
            say("the configuration can be loaded");
            Ok(())
        }
        Command::Upgrade { program, waits } => upgrade(&target, program.as_deref(), &waits, until_done),
        Command::Finish => {
            ask(&target, command("finish"), until_done)?;
            say("an upgrade on probation is applied, or else processes that still drain are told to end");
            Ok(())
        }
        Command::LogLevel { level, span, child } => {
            let mut command = command("log-level");
            command.insert("level".into(), level.into());
            span.map(|span| command.insert("for".into(), span.as_secs_f64().into()));
            child.map(|child| command.insert("child".into(), child.into()));
            let data = ask(&target, command, until_done)?;
            confirmed(&data, "set the log level")
        }
        Command::Stop { now, waits } => stop(&target, now, &waits, until_done),
        Command::Verdict { number } => {
            let mut command = command("verdict");
            command.insert("number".into(), number.into());
            let answer = connect(&target)?.ask_whole(&Value::Object(command), at_hand, |_| ())?;
            let verdict = answer["verdict"].as_str().unwrap_or("unknown");
            say(verdict);
            if verdict == "pending" {
                return Err(Failure::new(code::TIMEOUT, format_args!("order {number} has no verdict yet")));
            }
            all_have(&answer["data"])
        }
        Command::Hello => {
            let client = connect(&target)?;
            let hello = client.hello.as_object().cloned().unwrap_or_default();
            hello.iter().for_each(|(key, value)| say(format_args!("{key}: {}", plain(value))));
            Ok(())
        }
        Command::Completions { .. } => Ok(()),
    }
}

fn command(name: &str) -> Map<String, Value> {
    Map::from_iter([("command".to_owned(), json!(name))])
}

fn with_wait(mut command: Map<String, Value>, waits: &Waits) -> Map<String, Value> {
    if waits.no_wait {
        command.insert("no_wait".into(), true.into());
    }
    command
}

fn ask(target: &Target, command: Map<String, Value>, limit: Option<Duration>) -> Result<Value, Failure> {
    connect(target)?.ask(&Value::Object(command), limit, |_| ())
}

/// Connects, where nothing else than the daemon's own answer will do.
pub fn connect(target: &Target) -> Result<Client, Failure> {
    Client::connect(&socket(target)?, target.deadline).map_err(Failure::from)
}

/// Returns the socket, or says why none is known.
pub fn socket(target: &Target) -> Result<PathBuf, Failure> {
    target.socket.clone().ok_or_else(|| {
        let file = target.pid_file.as_deref().unwrap_or("the pid file".as_ref()).display();
        if target.is_alive() {
            Failure::new(code::FAILED, format_args!("{file}.state names no control socket: the daemon has none"))
        } else {
            Failure::new(code::NO_DAEMON, format_args!("no daemon is running: pid_file={file}"))
        }
    })
}

fn children(target: &Target, shown: Shown, pss: bool, limit: Option<Duration>) -> Result<(), Failure> {
    let (mut children, failure): (Vec<ChildView>, _) = match Client::connect(&socket(target)?, target.deadline) {
        Ok(mut client) => {
            let data = client.ask(&json!({"command": "children"}), limit, |_| ())?;
            (read(data["children"].clone())?, None)
        }
        Err(Unreachable::Hung { pid, text }) => {
            let hangs = |text: String| Failure::new(code::TIMEOUT, text);
            match board::snapshot(target, pid) {
                Ok(Snapshot { children, .. }) => (children, Some(hangs(text))),
                Err(why) => return Err(hangs(format!("{text}; {why}"))),
            }
        }
        Err(why) => return Err(why.into()),
    };
    if pss {
        children.iter_mut().for_each(add_share);
    }
    if shown.json {
        say_json(&json!({"children": children}))
    } else {
        say(text::children(&children))
    }
    failure.map_or(Ok(()), Err)
}

/// Adds a child's share of memory, if this process may read it.
fn add_share(child: &mut ChildView) {
    let read = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok();
    let share = child.pid.and_then(read).and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
    });
    if let Some(share) = share {
        child.usage.get_or_insert_default().proportional = Some(share);
    }
}

fn peek(target: &Target, child: Option<String>, limit: Option<Duration>) -> Result<(), Failure> {
    let mut command = command("peek");
    let name = child.clone().unwrap_or_default();
    child.map(|child| command.insert("child".into(), child.into()));
    let data = ask(target, command, limit)?;
    say(data["text"].as_str().unwrap_or_default());
    if data["answered"] == json!(false) {
        return Err(Failure::new(
            code::TIMEOUT,
            format_args!("child {name} has not answered, and is described from outside"),
        ));
    }
    Ok(())
}

fn watch(target: &Target, is_json: bool, limit: Option<Duration>) -> Result<(), Failure> {
    let mut client = connect(target)?;
    let outcome = client
        .ask(&json!({"command": "watch"}), limit, |event| if is_json { say(event) } else { say(event_line(&event)) });
    match outcome {
        // The daemon has ended, and with it what there was to be seen.
        Ok(_) => Ok(()),
        Err(failure) if failure.code == code::NO_DAEMON => {
            warn("the daemon has ended");
            Ok(())
        }
        Err(failure) => Err(failure),
    }
}

/// One event: time, number and name first, then the rest by name.
fn event_line(event: &Value) -> String {
    let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
    let mut line = format!("{} {} {}", text("time"), event["number"], text("event"));
    for (key, value) in event.as_object().into_iter().flatten() {
        if !["time", "number", "event", "final"].contains(&key.as_str()) {
            line.push_str(&format!(" {key}={}", plain(value)));
        }
    }
    line
}

/// Asks what a probe wants to know. The reason why not comes as a failure.
fn probe(target: &Target, question: &str, limit: Option<Duration>) -> Result<(), Failure> {
    let data = ask(target, command(question), limit)?;
    say(data["text"].as_str().unwrap_or_default());
    Ok(())
}

fn metrics(target: &Target, openmetrics: bool, limit: Option<Duration>) -> Result<(), Failure> {
    let mut command = command("metrics");
    if openmetrics {
        command.insert("format".into(), "openmetrics".into());
    }
    let data = ask(target, command, limit)?;
    say(data["text"].as_str().unwrap_or_default());
    Ok(())
}

fn end_child(target: &Target, name: &str, named: Child, limit: Option<Duration>) -> Result<(), Failure> {
    let mut command = with_wait(command(name), &named.waits);
    command.insert("child".into(), named.child.into());
    let data = ask(target, command, limit)?;
    if let Some(number) = data["number"].as_u64() {
        say(format_args!("order {number}"));
        return Ok(());
    }
    say(format_args!(
        "child {} (pid {}) is gone: cause={} age={} requests={}",
        plain(&data["child"]),
        data["pid"],
        plain(&data["cause"]),
        data["age"],
        data["requests"]
    ));
    Ok(())
}

fn reload(target: &Target, waits: &Waits, limit: Option<Duration>) -> Result<(), Failure> {
    let data = ask(target, with_wait(command("reload"), waits), limit)?;
    if let Some(number) = data["number"].as_u64() {
        say(format_args!("order {number}"));
        return Ok(());
    }
    say(format_args!("applied: edition {}", data["edition"]));
    let names = data["needs_restart"].as_array().into_iter().flatten().map(plain).collect::<Vec<_>>();
    if !names.is_empty() {
        warn(format_args!("needs restart: {}", names.join(", ")));
    }
    Ok(())
}

fn upgrade(target: &Target, program: Option<&Path>, waits: &Waits, limit: Option<Duration>) -> Result<(), Failure> {
    let mut command = with_wait(command("upgrade"), waits);
    // The daemon counts a relative path from the directory in which it was started.
    if let Some(program) = program {
        let path = std::path::absolute(program).unwrap_or_else(|_| program.to_owned());
        let Some(path) = path.to_str() else {
            return Err(Failure::new(code::USAGE, format_args!("{}: not UTF-8", path.display())));
        };
        command.insert("program".into(), path.into());
    }
    let data = ask(target, command, limit)?;
    match data["number"].as_u64() {
        Some(number) => say(format_args!("order {number}")),
        None => say(format_args!("applied: process {} serves", data["pid"])),
    }
    Ok(())
}

fn stop(target: &Target, now: bool, waits: &Waits, limit: Option<Duration>) -> Result<(), Failure> {
    let mut command = with_wait(command("stop"), waits);
    if now {
        command.insert("now".into(), true.into());
    }
    let mut client = connect(target)?;
    let process = client.process();
    let supervisor = client.hello["supervisor"].as_str().map(str::to_owned);
    let data = match client.ask(&Value::Object(command), limit, |_| ()) {
        // A daemon says so when it has ended.
        Err(failure) if failure.code == code::NO_DAEMON => {
            return Err(Failure::new(code::FAILED, format_args!("{failure} before it said that it has ended")));
        }
        data => data?,
    };
    match data["number"].as_u64() {
        Some(number) => say(format_args!("order {number}")),
        None => {
            // It answers as one of its last acts. Until it is gone its pid file is locked.
            if let Some(pid) = process.filter(|process| !process.ends_within(LAST_ACTS)).map(|process| process.pid) {
                return Err(Failure::new(
                    code::TIMEOUT,
                    format_args!("process {pid} has said that it ends, and is still there"),
                ));
            }
            say("the daemon has ended");
        }
    }
    if let Some(supervisor) = supervisor {
        warn(format_args!("{supervisor} looks after the daemon and may start it again"));
    }
    Ok(())
}

/// How long a daemon may take to be gone once it has said that it has ended.
const LAST_ACTS: Duration = Duration::from_secs(5);

/// Says who has confirmed an order to all processes, and fails if a child has not.
fn confirmed(data: &Value, what: &str) -> Result<(), Failure> {
    if let Some(number) = data["number"].as_u64() {
        say(format_args!("order {number}"));
        return Ok(());
    }
    say(format_args!("the parent and {} of {} children have {what}", data["confirmed"], data["children"]));
    all_have(data)
}

/// Fails if the data of an answer names children that have failed, or have not answered.
fn all_have(data: &Value) -> Result<(), Failure> {
    let names = |key: &str| data[key].as_array().into_iter().flatten().map(plain).collect::<Vec<_>>().join(" ");
    let (failed, missing) = (names("failed"), names("missing"));
    if !failed.is_empty() {
        return Err(Failure::new(code::FAILED, format_args!("children that have failed: {failed}")));
    }
    if !missing.is_empty() {
        return Err(Failure::new(code::TIMEOUT, format_args!("children that have not answered yet: {missing}")));
    }
    Ok(())
}

fn sizes(sizes: &Value) -> String {
    format!("min_spare={} max_spare={} max_children={}", sizes["min_spare"], sizes["max_spare"], sizes["max_children"])
}

/// Returns a value without the quotation marks of a string, and without what a terminal would take for an order.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text::harmless(text),
        Value::Null => "none".to_owned(),
        value => value.to_string(),
    }
}

/// Reads what the daemon has sent.
pub fn read<T: serde::de::DeserializeOwned>(data: Value) -> Result<T, Failure> {
    serde_json::from_value(data)
        .map_err(|error| Failure::new(code::FAILED, format_args!("the daemon's answer is not understood: {error}")))
}

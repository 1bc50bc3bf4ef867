//! Carries out what operators ask for at the control socket.

use serde_json::json;

use crate::daemon::board::Scoreboard;
use crate::daemon::control::{Code, Command, Dialect, HELP, Outcome, Refusal, Reply, Request};
use crate::daemon::heap::Cx;
use crate::daemon::parent::clients::{self, client, settle};
use crate::daemon::parent::picture;
use crate::daemon::status::Peek;
use crate::daemon::view::metrics::Format;
use crate::daemon::view::{Snapshot, json, metrics, text};
use crate::error::Result;

/// A client has sent something.
pub(in crate::daemon) fn read(cx: &mut Cx<'_>) -> Result {
    let number = *cx.arg::<u64>(2)?;
    let Some(client) = client(cx, number) else { return Ok(()) };
    client.fill();
    take_command(cx, number)
}

/// A client can be written to.
pub(in crate::daemon) fn write(cx: &mut Cx<'_>) -> Result {
    let number = *cx.arg::<u64>(2)?;
    settle(cx, number);
    Ok(())
}

/// A client has sent several commands.
pub(in crate::daemon) fn more(cx: &mut Cx<'_>) -> Result {
    let number = *cx.arg::<u64>(0)?;
    take_command(cx, number)
}

/// Time has passed.
pub(in crate::daemon) fn tick(cx: &mut Cx<'_>) {
    clients::tick(cx);
}

/// Carries out one command, if a whole one has come. Others have their turn before the next one.
fn take_command(cx: &mut Cx<'_>, number: u64) -> Result {
    let Some(line) = client(cx, number).and_then(|client| client.next_line()) else {
        settle(cx, number);
        return Ok(());
    };
    let dialect = Dialect::of(&line);
    let outcome = match dialect.read(&line) {
        Ok(request) => perform(cx, number, &request),
        Err(refusal) => Err(refusal),
    };
    if let Some(client) = client(cx, number) {
        client.answer(dialect, &outcome);
        if client.rights.is_none() {
            client.close_after_flush();
        }
    }
    settle(cx, number);
    Ok(())
}

fn perform(cx: &mut Cx<'_>, number: u64, request: &Request) -> Outcome {
    let rights = client(cx, number).and_then(|client| client.rights);
    let needed = request.command.needs();
    if rights < Some(needed) {
        let has = rights.map_or("none", |rights| rights.word());
        let text = format_args!("{} needs the rights {}, this user has {has}", request.command, needed.word());
        return Err(Refusal::new(Code::Denied, text));
    }
    match &request.command {
        Command::Hello => hello(cx),
        Command::Help => Ok(text_reply(HELP.to_owned())),
        Command::Status => status(cx),
        Command::Children => children(cx),
        Command::Peek(None) => peek(cx),
        Command::Metrics(is_open) => metrics(cx, *is_open),
        _ => Err(Refusal::new(Code::Failed, "not available")),
    }
}

fn text_reply(text: String) -> Reply {
    let data = json!({ "text": text }).to_string();
    Reply { verdict: "done", text, data }
}

fn snapshot(cx: &mut Cx<'_>) -> std::result::Result<Snapshot, Refusal> {
    picture::take(cx).ok_or_else(|| Refusal::new(Code::Failed, "this process is not the parent"))
}

fn hello(cx: &mut Cx<'_>) -> Outcome {
    let Snapshot { service, .. } = snapshot(cx)?;
    let board = cx.heap().board.as_ref().and_then(Scoreboard::path);
    let data = json!({
        "protocol": PROTOCOL,
        "version": service.version,
        "pid": service.pid,
        "generation": service.generation,
        "name": service.name,
        "phase": service.phase,
        "board": board.map(|path| path.display().to_string()),
        "supervisor": service.supervisor,
    });
    let text = format!(
        "protocol={PROTOCOL} version={} pid={} generation={} phase={} supervisor={}",
        service.version,
        service.pid,
        service.generation,
        service.phase.word(),
        service.supervisor.as_deref().unwrap_or("none"),
    );
    Ok(Reply { verdict: "done", text, data: data.to_string() })
}

fn status(cx: &mut Cx<'_>) -> Outcome {
    let snapshot = snapshot(cx)?;
    Ok(Reply { verdict: "done", text: text::status(&snapshot), data: json::text(&snapshot) })
}

fn children(cx: &mut Cx<'_>) -> Outcome {
    let Snapshot { children, .. } = snapshot(cx)?;
    let data = format!(r#"{{"children":{}}}"#, json::text(&children));
    Ok(Reply { verdict: "done", text: text::children(&children), data })
}

/// Metrics, in one of two formats.
fn metrics(cx: &mut Cx<'_>, is_open: bool) -> Outcome {
    let snapshot = snapshot(cx)?;
    let format = if is_open { Format::OpenMetrics } else { Format::Prometheus };
    let text = metrics::text(&snapshot, format, metrics::PREFIX);
    let data = json!({ "content_type": format.content_type(), "text": text }).to_string();
    Ok(Reply { verdict: "done", text, data })
}

/// What keeps each session of the parent alive.
fn peek(cx: &mut Cx<'_>) -> Outcome {
    let (kernel, pid) = (cx.peek(), cx.pid());
    let peek = Peek { kernel, daemon: cx.heap().status(pid), verbose: true };
    let text = peek.to_string();
    let data = json!({ "pid": pid, "slot": null, "answered": true, "text": text }).to_string();
    Ok(Reply { verdict: "done", text, data })
}

/// The number of the protocol. Within one number, commands, fields and events are only ever added.
const PROTOCOL: u32 = 1;

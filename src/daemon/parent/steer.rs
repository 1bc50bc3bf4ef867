//! Carries out what operators ask for at the control socket.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use log::LevelFilter;
use serde_json::json;

use crate::daemon::board::Scoreboard;
use crate::daemon::control::{
    Asker, ChildName, Client, Code, Command, Dialect, HELP, Outcome, Quoted, Refusal, Reply, Request, Subject, Watching,
};
use crate::daemon::heap::Cx;
use crate::daemon::machine::{Input, Key, NewSize, Order, OrderId, Shutdown};
use crate::daemon::parent::clients::{self, client, control, settle};
use crate::daemon::parent::consumption::Detail;
use crate::daemon::parent::drive::{drive, number_order};
use crate::daemon::parent::{asks, glance, manager, picture, predecessor, succession, verdicts};
use crate::daemon::status::Peek;
use crate::daemon::view::metrics::Format;
use crate::daemon::view::{Snapshot, json, metrics, text};
use crate::error::Result;

/// A client has sent something.
pub(in crate::daemon) fn read(cx: &mut Cx<'_>) -> Result {
    let number = *cx.arg::<u64>(2)?;
    let Some(client) = client(cx, number) else { return Ok(()) };
    client.fill();
    if client.put_off.is_some() {
        // Its event is on the way.
        settle(cx, number);
        return Ok(());
    }
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
    verdicts::tell_tired(cx);
    clients::tick(cx);
}

/// How far a command has come.
enum Step {
    /// It is over.
    Over(Outcome),
    /// Its answer comes later, or there was one already.
    UnderWay,
}

/// Carries out one command, if a whole one has come. Others have their turn before the next one.
fn take_command(cx: &mut Cx<'_>, number: u64) -> Result {
    let Some((dialect, request)) = next_request(cx, number) else {
        settle(cx, number);
        return Ok(());
    };
    if let Ok(request) = &request
        && client(cx, number).is_some_and(|client| has_no_reader(client, &request.command))
    {
        settle(cx, number);
        return Ok(());
    }
    let begun = Instant::now();
    let mut done = Ok(());
    if let Ok(request) = &request
        && request.command.is_costly()
        && !glance::may_write(cx)
    {
        if let Some(client) = client(cx, number) {
            client.put_off = Some((dialect, request.clone()));
            cx.yield_("control_more", (number,));
        }
        return Ok(());
    }
    let outcome = match request {
        Err(refusal) => Err(refusal),
        Ok(request) => match perform(cx, number, dialect, &request) {
            (Step::UnderWay, result) => {
                settle(cx, number);
                return result;
            }
            (Step::Over(outcome), result) => {
                done = result;
                let is_denied = outcome.as_ref().is_err_and(|refusal| refusal.code == Code::Denied);
                if (is_denied || request.command.changes())
                    && let Some(control) = control(cx)
                    && let Some(client) = control.clients.get(&number)
                {
                    let told = if is_denied { control.denials.tell(client.peer.uid, begun) } else { Some(0) };
                    if let Some(untold) = told {
                        Asker::of(client).audit(&request.command.to_string(), &outcome, begun.elapsed(), untold);
                    }
                }
                outcome
            }
        },
    };
    if let Some(client) = client(cx, number) {
        client.answer(dialect, &outcome);
        if client.rights.is_none() {
            client.close_after_flush();
        }
    }
    settle(cx, number);
    done
}

/// Tells whether a command has nothing but an answer, and the client has hung up. A flood of such clients would cost what their
/// answers cost.
fn has_no_reader(client: &Client, command: &Command) -> bool {
    !command.changes() && client.rights >= Some(command.needs()) && client.is_hung_up()
}

/// Returns what a client asks for next: what was put off, or else what it has sent.
fn next_request(cx: &mut Cx<'_>, number: u64) -> Option<(Dialect, std::result::Result<Request, Refusal>)> {
    let client = client(cx, number)?;
    if let Some((dialect, request)) = client.put_off.take() {
        return Some((dialect, Ok(request)));
    }
    let line = client.next_line()?;
    let dialect = Dialect::of(&line);
    Some((dialect, dialect.read(&line)))
}

/// Carries out a command. The second part is what the application has failed of meanwhile.
fn perform(cx: &mut Cx<'_>, number: u64, dialect: Dialect, request: &Request) -> (Step, Result) {
    let rights = client(cx, number).and_then(|client| client.rights);
    let needed = request.command.needs();
    if rights < Some(needed) {
        let has = rights.map_or("none", |rights| rights.word());
        let text = format_args!("{} needs the rights {}, this user has {has}", request.command, needed.word());
        return (Step::Over(Err(Refusal::new(Code::Denied, text))), Ok(()));
    }
    let outcome = match &request.command {
        Command::Hello => hello(cx),
        Command::Help => Ok(text_reply(HELP.to_owned())),
        Command::Status => status(cx, dialect),
        Command::Live => match manager::health(cx) {
            Ok(()) => Ok(text_reply("alive\n".to_owned())),
            Err(ill) => Err(Refusal::new(Code::Failed, ill)),
        },
        Command::Ready => match picture::unready(cx) {
            None => Ok(text_reply("ready\n".to_owned())),
            Some(why) => Err(Refusal::new(Code::Failed, why)),
        },
        Command::Children => children(cx, dialect),
        Command::Peek(None) => peek(cx),
        Command::Metrics(is_open) => metrics(cx, dialect, *is_open),
        Command::Verdict(order) => verdict(cx, *order),
        Command::Watch => {
            if let Some(client) = client(cx, number) {
                client.watches = Some(Watching { dialect, dropped: 0 });
            }
            return (Step::UnderWay, Ok(()));
        }
        Command::Peek(Some(name)) => match find(cx, *name) {
            Ok(key) => {
                if let Some(id) = begin(cx, number, dialect, request, Subject::Sessions(key)) {
                    asks::show(cx, id.0, key);
                }
                return (Step::UnderWay, Ok(()));
            }
            Err(refusal) => Err(refusal),
        },
        Command::LogLevel { level, lasts, child } => match level_of(cx, level, *child) {
            Ok((level, only)) => {
                if let Some(id) = begin(cx, number, dialect, request, Subject::Level) {
                    asks::set_level(cx, id.0, level, only, *lasts);
                }
                return (Step::UnderWay, Ok(()));
            }
            Err(refusal) => Err(refusal),
        },
        Command::Upgrade(program) => match succession::ask(cx, program.as_ref().map(PathBuf::from)) {
            None => {
                let asked = (Order::Upgrade, Subject::Program);
                return (Step::UnderWay, give(cx, number, dialect, request, asked));
            }
            Some(reason) => Err(Refusal::new(Code::Refused, reason)),
        },
        // The one that drains is asked by the channel, which has no answer: it is gone soon.
        Command::Finish if predecessor::finish(cx) => {
            Ok(Reply { verdict: "applied", text: "the predecessor ends\n".to_owned(), data: "{}".to_owned() })
        }
        command => match order_of(cx, command) {
            Ok((order, subject)) => return (Step::UnderWay, give(cx, number, dialect, request, (order, subject))),
            Err(refusal) => Err(refusal),
        },
    };
    (Step::Over(outcome), Ok(()))
}

/// Returns what the machine is asked for.
fn order_of(cx: &mut Cx<'_>, command: &Command) -> std::result::Result<(Order, Subject), Refusal> {
    Ok(match *command {
        Command::Resize { min_spare, max_spare, max_children } => {
            let size = NewSize { max_children, min_spare, max_spare };
            (Order::SetSize(size), Subject::Size(verdicts::size(cx)))
        }
        Command::ResetSize => (Order::ResetSize, Subject::Size(verdicts::size(cx))),
        Command::Retire(name) => {
            let key = find(cx, name)?;
            (Order::Retire(key), Subject::Child(key))
        }
        Command::Kill(name) => {
            let key = find(cx, name)?;
            (Order::Kill(key), Subject::Child(key))
        }
        Command::Reopen => (Order::Reopen, Subject::Logs),
        Command::Reload => (Order::Reload, Subject::Configuration(false)),
        Command::Check => (Order::Check, Subject::Configuration(true)),
        Command::Finish => (Order::Finish, Subject::Drain),
        Command::Stop(true) => (Order::Stop(Shutdown::Immediate), Subject::End),
        Command::Stop(false) => (Order::Stop(Shutdown::Graceful), Subject::End),
        _ => return Err(Refusal::new(Code::Failed, "not available")),
    })
}

/// Finds a child that was not reaped. No other process is ever meant.
fn find(cx: &mut Cx<'_>, name: ChildName) -> std::result::Result<Key, Refusal> {
    let unknown = || Refusal::new(Code::NoSuchChild, format_args!("there is no child {name}"));
    let parent = cx.heap().role.parent().ok_or_else(unknown)?;
    let key = match name {
        ChildName::Key(slot, generation) => Some(Key { slot: slot as usize, generation }),
        ChildName::Number(number) => {
            let by_pid = i32::try_from(number).ok().and_then(|pid| parent.pids.key_of(pid));
            by_pid.or_else(|| parent.machine.table().owner(number as usize))
        }
    };
    key.filter(|key| parent.pids.of(*key).is_some()).ok_or_else(unknown)
}

/// Gives an order for a client, who may go away without changing what becomes of it.
fn give(
    cx: &mut Cx<'_>,
    number: u64,
    dialect: Dialect,
    request: &Request,
    (order, subject): (Order, Subject),
) -> Result {
    let Some(id) = begin(cx, number, dialect, request, subject) else { return Ok(()) };
    let outcome = drive(cx, Input::Asked(id, order));
    clients::arm(cx);
    outcome
}

/// Numbers an order of a client, which waits for its verdict or is told the number.
fn begin(cx: &mut Cx<'_>, number: u64, dialect: Dialect, request: &Request, subject: Subject) -> Option<OrderId> {
    let id = number_order(cx)?;
    let asker = client(cx, number).map(|client| Asker::of(client))?;
    if let Some(control) = clients::control(cx) {
        control.orders.begin(id.0, (asker, number), request, subject, dialect);
    }
    if let Some(client) = client(cx, number) {
        if request.no_wait {
            // At once: an end may take the socket with it.
            client.answer(dialect, &Ok(accepted(id.0)));
            settle(cx, number);
        } else {
            client.waits = Some(id.0);
        }
    }
    Some(id)
}

/// Returns the level that a client has named, `None` for what the program has set, and for which child alone.
fn level_of(
    cx: &mut Cx<'_>,
    level: &str,
    child: Option<ChildName>,
) -> std::result::Result<(Option<LevelFilter>, Option<Key>), Refusal> {
    let only = child.map(|child| find(cx, child)).transpose()?;
    if level == "reset" {
        return Ok((None, only));
    }
    let words = "off, error, warn, info, debug, trace or reset";
    let level =
        level.parse().map_err(|_| Refusal::new(Code::Usage, format_args!("{} is not {words}", Quoted(level))))?;
    Ok((Some(level), only))
}

fn accepted(order: u64) -> Reply {
    let text = format!("number={order}\n");
    Reply { verdict: "accepted", text, data: json!({ "number": order }).to_string() }
}

/// What has become of an order.
fn verdict(cx: &mut Cx<'_>, order: u64) -> Outcome {
    let unknown = || {
        Refusal::new(Code::Failed, format_args!("no order has the number {order}, or its verdict is no longer kept"))
    };
    let control = clients::control(cx).ok_or_else(unknown)?;
    if control.orders.is_pending(order) {
        return Ok(Reply { verdict: "pending", ..accepted(order) });
    }
    control.orders.verdict(order).cloned().ok_or_else(unknown)?
}

fn text_reply(text: String) -> Reply {
    let data = json!({ "text": text }).to_string();
    Reply { verdict: "done", text, data }
}

fn look(cx: &mut Cx<'_>, detail: Option<Detail>) -> std::result::Result<Rc<Snapshot>, Refusal> {
    glance::look(cx, detail).ok_or_else(|| Refusal::new(Code::Failed, "this process is not the parent"))
}

fn hello(cx: &mut Cx<'_>) -> Outcome {
    let snapshot = look(cx, None)?;
    let service = &snapshot.service;
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

/// Returns an answer of which only the form is made that the client reads.
fn shown(dialect: Dialect, text: impl FnOnce() -> String, data: impl FnOnce() -> String) -> Reply {
    match dialect {
        Dialect::Text => Reply { verdict: "done", text: text(), data: String::new() },
        Dialect::Json => Reply { verdict: "done", text: String::new(), data: data() },
    }
}

fn status(cx: &mut Cx<'_>, dialect: Dialect) -> Outcome {
    let snapshot = look(cx, None)?;
    Ok(shown(dialect, || text::status(&snapshot), || json::text(&*snapshot)))
}

fn children(cx: &mut Cx<'_>, dialect: Dialect) -> Outcome {
    let snapshot = look(cx, Some(Detail::Full))?;
    let children = &snapshot.children;
    Ok(shown(dialect, || text::children(children), || format!(r#"{{"children":{}}}"#, json::text(children))))
}

/// Metrics, in one of two formats.
fn metrics(cx: &mut Cx<'_>, dialect: Dialect, is_open: bool) -> Outcome {
    let snapshot = look(cx, Some(Detail::Brief))?;
    let format = if is_open { Format::OpenMetrics } else { Format::Prometheus };
    let text = metrics::text(&snapshot, format, cx.heap().metrics.prefix());
    let data = |text: &str| json!({ "content_type": format.content_type(), "text": text }).to_string();
    Ok(match dialect {
        Dialect::Json => shown(dialect, String::new, || data(&text)),
        Dialect::Text => shown(dialect, || text, String::new),
    })
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

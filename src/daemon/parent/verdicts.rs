//! What has become of orders, told to the clients of the control socket that have given them.

use serde_json::{Value, json};

use crate::daemon::control::{
    ChildName, Code, Dialect, Ended, Outcome, Refusal, Reply, Subject, outcome_line, supervisor,
};
use crate::daemon::heap::Cx;
use crate::daemon::machine::{Death, Key, NewSize, OrderId, Rejection, Setback, UpgradeFault, Verdict, Why};
use crate::daemon::parent::asking::Confirmed;
use crate::daemon::parent::clients::{client, control, settle};
use crate::daemon::parent::upgrade;

/// Takes note of a child's death, for the answer that may follow.
pub(super) fn note_end(cx: &mut Cx<'_>, pid: i32, death: &Death) {
    if let Some(control) = control(cx) {
        let Death { key, cause, age, requests, .. } = *death;
        let ended =
            Ended { key, pid, cause: cause.to_string(), age: (age.as_secs_f64() * 1000.0).round() / 1000.0, requests };
        control.orders.last_end = Some(ended);
    }
}

/// An order has its verdict. Returns its number if children are still to confirm it.
pub(super) fn answered(cx: &mut Cx<'_>, OrderId(number): OrderId, verdict: Verdict) -> Option<u64> {
    let subject = control(cx).and_then(|control| Some(control.orders.pending(number)?.subject))?;
    let outcome = match (verdict, subject) {
        (Verdict::Applied, Subject::Size(old)) => Ok(resized(cx, old)),
        (Verdict::Applied, Subject::Child(key)) => Ok(ended(cx, key)),
        (Verdict::Applied, Subject::End) => {
            // By now no child is left. Connections of this process may be.
            control(cx)?.stops.push(number);
            return None;
        }
        // The machine is asked for no other.
        (Verdict::Applied, Subject::Logs | Subject::Sessions(_) | Subject::Level) => return Some(number),
        (Verdict::Refused(why), _) => Err(Refusal::new(code(why), why)),
        (Verdict::Applied, Subject::Configuration(is_check)) => Ok(reloaded(cx, is_check)),
        (Verdict::Applied, Subject::Program) => Ok(upgraded(cx)),
        (Verdict::Applied, Subject::Drain) => Ok(reply(String::new(), &json!({}))),
        (Verdict::Rejected(Rejection::Successor(why)), _) => Err(not_upgraded(cx, Code::Rejected, why)),
        (Verdict::RolledBack(Setback::Successor(why)), _) => Err(not_upgraded(cx, Code::RolledBack, why)),
        (Verdict::Rejected(why), _) => Err(rejected(cx, why)),
        (Verdict::RolledBack(why), _) => Err(rolled_back(cx, why)),
        (Verdict::Superseded, _) => Err(Refusal::new(Code::Superseded, "a later order took its place")),
    };
    end(cx, number, &outcome);
    None
}

/// This is the end: those who have asked for it are told.
pub(super) fn tell_of_end(cx: &mut Cx<'_>) {
    let stops = control(cx).map(|control| std::mem::take(&mut control.stops)).unwrap_or_default();
    for number in stops {
        let outcome = Ok(stopped());
        end(cx, number, &outcome);
    }
}

/// A child has shown its sessions, or was described because it has not.
pub(super) fn shown(cx: &mut Cx<'_>, order: u64, (key, pid): (Key, i32), answered: bool, text: String) {
    let child = ChildName::of(key);
    let text = if answered { text } else { format!("child {child}, process {pid}, has not answered\n{text}") };
    let data = json!({
        "child": child.to_string(), "slot": key.slot, "pid": pid, "answered": answered, "text": text,
    });
    end(cx, order, &Ok(Reply { verdict: "done", text, data: data.to_string() }));
}

/// Children have confirmed what they were told, or were not heard of in time.
pub(super) fn confirmed(cx: &mut Cx<'_>, confirmed: &Confirmed) {
    let Confirmed { order, children, confirmed, missing, failed } = confirmed;
    let names = |keys: &[Key]| keys.iter().map(|key| ChildName::of(*key).to_string()).collect::<Vec<_>>();
    let (missing, failed) = (names(missing), names(failed));
    let mut text = format!("children={children} confirmed={confirmed}\n");
    for (what, names) in [("missing", &missing), ("failed", &failed)] {
        if !names.is_empty() {
            text.push_str(&format!("{what}={}\n", names.join(",")));
        }
    }
    let mut data = json!({ "children": children, "confirmed": confirmed, "missing": missing, "failed": failed });
    let subject = control(cx).and_then(|control| Some(control.orders.pending(*order)?.subject));
    if subject == Some(Subject::Logs) {
        let log_file = cx.heap().process.log_file.as_ref().map(|log_file| log_file.path().display().to_string());
        if log_file.is_none() {
            text.push_str("there is no log file to open\n");
        }
        data["log_file"] = log_file.into();
    }
    end(cx, *order, &Ok(reply(text, &data)));
}

/// Tells a client, if it still waits, what has become of its order.
pub(super) fn end(cx: &mut Cx<'_>, number: u64, outcome: &Outcome) {
    let waiting = control(cx).and_then(|control| control.orders.end(number, outcome));
    // A client that asks for this verdict later asks the successor.
    upgrade::tell_successor(cx, &format!("verdict {}", outcome_line(number, outcome)));
    let Some((waiting, dialect)) = waiting else { return };
    tell(cx, waiting, dialect, outcome);
}

fn tell(cx: &mut Cx<'_>, waiting: u64, dialect: Dialect, outcome: &Outcome) {
    let Some(client) = client(cx, waiting).filter(|client| client.waits.is_some()) else { return };
    client.waits = None;
    client.answer(dialect, outcome);
    settle(cx, waiting);
}

/// Tells clients that have waited for as long as they wanted to. Their orders go on.
pub(super) fn tell_tired(cx: &mut Cx<'_>) {
    let tired = control(cx).map(|control| control.orders.tired(std::time::Instant::now())).unwrap_or_default();
    for (waiting, number, dialect) in tired {
        let text = format_args!("the order goes on; ask what has become of it by verdict {number}");
        tell(cx, waiting, dialect, &Err(Refusal::new(Code::Timeout, text)));
    }
}

fn code(why: Why) -> Code {
    match why {
        Why::ShuttingDown => Code::ShuttingDown,
        Why::NoSuchChild => Code::NoSuchChild,
        Why::LogFile => Code::Failed,
        Why::NoConfiguration
        | Why::StartingUp
        | Why::Reloading
        | Why::Upgrading
        | Why::NothingToFinish
        | Why::NoChildren
        | Why::Smallest
        | Why::Largest
        | Why::SpareLimits { .. }
        | Why::NoSpare
        | Why::NotAPool => Code::Refused,
    }
}

/// Returns the size as it is now.
pub(super) fn size(cx: &mut Cx<'_>) -> NewSize {
    let Some(parent) = cx.heap().role.parent() else { return NewSize::default() };
    let settings = parent.machine.settings();
    NewSize {
        max_children: Some(settings.max_children),
        min_spare: Some(settings.min_spare),
        max_spare: Some(settings.max_spare),
    }
}

fn resized(cx: &mut Cx<'_>, old: NewSize) -> Reply {
    let new = size(cx);
    let as_json = |size: NewSize| {
        let NewSize { max_children, min_spare, max_spare } = size;
        json!({ "min_spare": min_spare, "max_spare": max_spare, "max_children": max_children })
    };
    let as_text = |size: NewSize| {
        let number = |number: Option<u32>| number.unwrap_or_default();
        let (min, max, children) = (number(size.min_spare), number(size.max_spare), number(size.max_children));
        format!("min_spare={min} max_spare={max} max_children={children}")
    };
    let text = format!("old {}\nnew {}\n", as_text(old), as_text(new));
    reply(text, &json!({ "old": as_json(old), "new": as_json(new) }))
}

fn ended(cx: &mut Cx<'_>, key: Key) -> Reply {
    let name = ChildName::of(key);
    let last = control(cx).and_then(|control| control.orders.last_end.clone()).filter(|last| last.key == key);
    let Some(Ended { pid, cause, age, requests, .. }) = last else {
        return reply(format!("child={name}\n"), &json!({ "child": name.to_string() }));
    };
    let text = format!("child={name} pid={pid} cause={cause} age={age:.3} requests={requests}\n");
    let data = json!({ "child": name.to_string(), "pid": pid, "cause": cause, "age": age, "requests": requests });
    reply(text, &data)
}

/// A configuration was loaded, and children have it if that was asked for.
fn reloaded(cx: &mut Cx<'_>, is_check: bool) -> Reply {
    let Some(parent) = cx.heap().role.parent() else { return reply(String::new(), &json!({})) };
    if is_check {
        return reply("the configuration can be loaded\n".to_owned(), &json!({ "checked": true }));
    }
    let (edition, names) = (parent.machine.edition().0, &parent.reload.told.needs_restart);
    let mut text = format!("edition={edition}\n");
    if !names.is_empty() {
        text.push_str(&format!("needs_restart={}\n", names.join(",")));
    }
    reply(text, &json!({ "edition": edition, "needs_restart": names }))
}

/// A new program has taken over for good.
fn upgraded(cx: &mut Cx<'_>) -> Reply {
    let upgrade = cx.heap().role.parent().map(|parent| &parent.upgrade);
    let pid = upgrade.and_then(|upgrade| upgrade.successor.as_ref()?.pid.get());
    let text = pid.map_or_else(String::new, |pid| format!("pid={pid}\n"));
    reply(text, &json!({ "pid": pid }))
}

fn not_upgraded(cx: &mut Cx<'_>, code: Code, why: UpgradeFault) -> Refusal {
    let told = cx.heap().role.parent().map(|parent| parent.upgrade.told.clone()).unwrap_or_default();
    Refusal::of_reload(code, told.upgrade_fault(why), told.last_words)
}

fn rejected(cx: &mut Cx<'_>, why: Rejection) -> Refusal {
    let told = cx.heap().role.parent().map(|parent| parent.reload.told.clone()).unwrap_or_default();
    Refusal::of_reload(Code::Rejected, told.rejection(why), told.last_words)
}

fn rolled_back(cx: &mut Cx<'_>, why: Setback) -> Refusal {
    let told = cx.heap().role.parent().map(|parent| parent.reload.told.clone()).unwrap_or_default();
    let cause = if told.cause.is_empty() { why.to_string() } else { told.cause };
    Refusal::of_reload(Code::RolledBack, cause, told.last_words)
}

/// The Daemon has ended. The answer names the supervisor that may start it again, so that the
/// operator who has stopped it expects that.
fn stopped() -> Reply {
    let supervisor = supervisor();
    let text = supervisor.as_ref().map_or_else(String::new, |name| format!("{name} may start the service again\n"));
    reply(text, &json!({ "supervisor": supervisor }))
}

fn reply(text: String, data: &Value) -> Reply {
    Reply { verdict: "applied", text, data: data.to_string() }
}

//! Events for the clients of the control socket that watch.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::daemon::control::ChildName;
use crate::daemon::heap::Cx;
use crate::daemon::machine::{Death, Key, Message, ReloadNews};
use crate::daemon::parent::clients::{control, settle};
use crate::daemon::parent::picture;
use crate::daemon::view::time_text;

/// Tells those who watch what the log is told.
pub(super) fn of_message(cx: &mut Cx<'_>, message: &Message) {
    if control(cx).is_none() {
        return;
    }
    match *message {
        Message::Forked(key) => of_child(cx, "fork", key, json!({})),
        Message::Ready { key, took } => of_child(cx, "ready", key, json!({ "took": seconds(took) })),
        Message::Rogue { key, why, since, .. } => {
            of_child(cx, "rogue", key, json!({ "why": why.to_string(), "for": seconds(since) }));
        }
        Message::OverloadBegun { max_children, waiting, limit } => {
            tell(cx, "overload", json!({ "max_children": max_children, "waiting": waiting, "backlog": limit }));
        }
        Message::OverloadEnded { lasted, deepest } => {
            tell(cx, "overload_ended", json!({ "lasted": seconds(lasted), "deepest": deepest }));
        }
        Message::Reload(edition, news) => of_reload(cx, edition.0, &news),
        Message::Resized { max_children, min_spare, max_spare } => {
            let size = json!({ "max_children": max_children, "min_spare": min_spare, "max_spare": max_spare });
            tell(cx, "resize", size);
        }
        _ => {}
    }
}

fn of_reload(cx: &mut Cx<'_>, edition: u32, news: &ReloadNews) {
    let told = cx.heap().role.parent().map(|parent| parent.reload.told.clone()).unwrap_or_default();
    let (state, cause) = match *news {
        ReloadNews::Begun => ("begun", None),
        ReloadNews::Loaded => ("loaded", None),
        ReloadNews::Rolling => ("rolling", None),
        ReloadNews::Applied { .. } => ("applied", None),
        ReloadNews::Checked { .. } => ("checked", None),
        ReloadNews::Rejected { why, .. } => ("rejected", Some(told.rejection(why))),
        ReloadNews::SetBack(_) => ("rolling_back", Some(told.cause)),
        ReloadNews::RolledBack { .. } => ("rolled_back", Some(told.cause)),
        ReloadNews::Superseded => ("superseded", None),
        ReloadNews::TakenBack { .. } => ("taken_back", None),
        ReloadNews::ProbationOver => ("probation_over", None),
    };
    let mut about = json!({ "edition": edition, "state": state });
    if let Some(cause) = cause {
        about["cause"] = json!(cause);
    }
    tell(cx, "reload", about);
}

/// Tells those who watch of a death.
pub(super) fn of_death(cx: &mut Cx<'_>, pid: i32, death: &Death) {
    let Death { key, cause, age, requests, .. } = *death;
    let about = json!({
        "child": ChildName::of(key).to_string(),
        "slot": key.slot,
        "pid": pid,
        "cause": cause.to_string(),
        "in_order": cause.is_in_order(),
        "age": seconds(age),
        "requests": requests,
    });
    tell(cx, "death", about);
}

/// Tells those who watch that the log file was opened again, or could not be.
pub(super) fn of_log(cx: &mut Cx<'_>, has_failed: bool) {
    tell(cx, "reopen", json!({ "ok": !has_failed }));
}

/// Tells those who watch, and scripts, if the Daemon does something else than before.
pub(super) fn of_phase(cx: &mut Cx<'_>) {
    let Some(parent) = cx.heap().role.parent_mut().filter(|parent| parent.control.is_some()) else { return };
    let phase = picture::phase(parent);
    let Some(control) = parent.control.as_deref_mut() else { return };
    if control.phase.replace(phase) == Some(phase) {
        return;
    }
    if let Some(state_file) = &mut control.state_file {
        state_file.say(phase.word());
    }
    tell(cx, "phase", json!({ "phase": phase.word() }));
}

fn of_child(cx: &mut Cx<'_>, name: &str, key: Key, about: Value) {
    let pid = cx.heap().role.parent().map(|parent| parent.pids.name(key));
    let mut about = about;
    about["child"] = json!(ChildName::of(key).to_string());
    about["slot"] = json!(key.slot);
    about["pid"] = json!(pid);
    tell(cx, name, about);
}

/// Numbers an event, and tells all who watch. One that does not read is told later how many it has missed.
fn tell(cx: &mut Cx<'_>, name: &str, about: Value) {
    let now = cx.now();
    let Some(control) = control(cx) else { return };
    control.events += 1;
    let watchers: Vec<u64> =
        control.clients.iter().filter(|(_, client)| client.watches.is_some()).map(|(number, _)| *number).collect();
    if watchers.is_empty() {
        return;
    }
    let mut event = if let Value::Object(about) = about { about } else { Map::new() };
    event.insert("event".to_owned(), name.into());
    event.insert("number".to_owned(), control.events.into());
    event.insert("time".to_owned(), time_text(now).into());
    for number in watchers {
        if let Some(client) = self::control(cx).and_then(|control| control.clients.get_mut(&number)) {
            client.tell(&event);
        }
        settle(cx, number);
    }
}

/// Returns a span in seconds, to the millisecond.
fn seconds(span: Duration) -> f64 {
    (span.as_secs_f64() * 1000.0).round() / 1000.0
}

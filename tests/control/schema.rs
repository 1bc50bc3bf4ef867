//! The fields of the JSON, which only get more as long as the number of the schema stays. `schema.txt` has them, a line each: the
//! path of a field, and what it can be.

use std::collections::{BTreeMap, BTreeSet};

use lenore::daemon::BoardFile;
use serde_json::Value;
use util::control::Steered;
use util::{Client, DEADLINE, kill, wait_until};

type Fields = BTreeMap<String, BTreeSet<&'static str>>;

/// Adds all fields of a value. All elements of an array are one field.
fn add(fields: &mut Fields, path: &str, value: &Value) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(elements) => {
            elements.iter().for_each(|element| add(fields, &format!("{path}[]"), element));
            "array"
        }
        Value::Object(members) => {
            for (name, member) in members {
                add(fields, &format!("{path}.{name}"), member);
            }
            "object"
        }
    };
    fields.entry(path.to_owned()).or_default().insert(kind);
}

fn add_text(fields: &mut Fields, text: &str) {
    add(fields, "", &serde_json::from_str(text).expect("JSON"));
}

/// All fields that a pool shows at one time or another: at rest, busy and saturated, with and without usage, after a death, and by
/// its board file.
fn collect() -> Fields {
    let mut fields = Fields::new();
    for supervisor in [false, true] {
        let steered = Steered::start_with("--mode prefork:1 --max 1 --metrics --board DIR/board", |program| {
            if supervisor { program.env("NOTIFY_SOCKET", "x") } else { program }
        });
        let mut control = steered.control();
        control.wait_status("an idle child", |seen| (seen.pool.states.idle == 1).then_some(()));
        let mut ask = |command: &str| control.ask_json(&format!(r#"{{"command":"{command}"}}"#))["data"].clone();
        add(&mut fields, "", &ask("status"));
        kill(steered.running.children()[0], nix::sys::signal::Signal::SIGKILL).expect("a child");
        wait_until("a death", DEADLINE, || {
            let seen = ask("status");
            let is_there = seen["pool"]["states"]["idle"] == 1 && seen["deaths"][0]["slot"] == 0;
            is_there.then(|| add(&mut fields, "", &seen))
        });
        let mut clients: Vec<Client> = (0..4).map(|_| Client::connect(steered.addr)).collect();
        clients[0].line("label somebody");
        wait_until("a saturated pool", DEADLINE, || {
            let seen = ask("status");
            (!seen["pool"]["saturated"].is_null()).then(|| add(&mut fields, "", &seen))
        });
        add(&mut fields, "", &ask("children"));
        let seen = BoardFile::open(steered.dir.path().join("board")).expect("a board").snapshot().expect("a board");
        add_text(&mut fields, &serde_json::to_string(&seen).expect("JSON"));
    }
    fields
}

#[test] // O-ST-13
fn fields_of_the_status_are_only_ever_added() {
    let found = collect();
    let mut known = Fields::new();
    for line in include_str!("schema.txt").lines() {
        let (path, kinds) = line.split_once(' ').expect("a path, and what it can be");
        known.insert(path.to_owned(), kinds.split('|').collect());
    }
    let new: Vec<_> = found.iter().filter(|(path, _)| !known.contains_key(*path)).collect();
    assert!(new.is_empty(), "add these fields to schema.txt: {new:#?}");
    for (path, kinds) in &known {
        let Some(found) = found.get(path) else { panic!("{path} is gone, which takes another number of the schema") };
        assert!(found.is_subset(kinds), "{path} was {kinds:?} and is {found:?}: that takes another number");
    }
    assert_eq!(lenore::daemon::view::SCHEMA, 1, "then schema.txt is another one");
}

#[test] // O-ST-13
fn times_are_both_seconds_and_rfc_3339() {
    let fields = collect();
    let parent = |path: &str, name: &str| path.strip_suffix(name).map(str::to_owned);
    let ago: BTreeSet<String> = fields.keys().filter_map(|path| parent(path, ".seconds_ago")).collect();
    let at: BTreeSet<String> = fields.keys().filter_map(|path| parent(path, ".at")).collect();
    assert_eq!(ago, at);
    for place in [".service.started", ".pool.saturated", ".children[].since", ".children[].started", ".deaths[].reaped"]
    {
        assert!(ago.contains(place), "{place}: {ago:?}");
    }
}

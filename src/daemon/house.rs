//! The rules of this directory that the compiler does not know: which way its arrows go, and that what decides is pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Every file below `room`, which is a directory or a file here.
fn files(room: &str) -> Vec<PathBuf> {
    let mut found = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/daemon").join(room)];
    let mut files = Vec::new();
    while let Some(path) = found.pop() {
        if path.is_dir() {
            found.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            files.push(path);
        }
    }
    assert!(!files.is_empty(), "there is no {room}");
    files
}

/// The lines of the program, without comments.
fn code(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| line.split("//").next().unwrap_or_default().trim().to_owned()).collect()
}

/// What a line names of another room of the Daemon.
fn room_of(line: &str) -> Option<&str> {
    let path = line.split_once("crate::daemon::")?.1;
    path.split(|end: char| !end.is_alphanumeric() && end != '_').next()
}

fn assert_names_only(room: &str, allowed: &[&str]) {
    for path in files(room) {
        for line in code(&path) {
            if let Some(named) = room_of(&line) {
                assert!(named == room || allowed.contains(&named), "{}: {line}", path.display());
            }
        }
    }
}

/// What the parent and a child both stand on.
const LOW: [&str; 12] = [
    "announce",
    "birth",
    "board",
    "bystander",
    "cause",
    "config",
    "error",
    "launch",
    "listening",
    "machine",
    "processes",
    "settings",
];

#[test]
fn rooms_use_what_is_below_them() {
    assert_names_only("machine", &["settings"]);
    assert_names_only("board", &["machine", "view"]);
    assert_names_only("launch", &["error", "settings"]);
    assert_names_only("settings", &["machine", "board"]);
    assert_names_only("view", &[]);
    assert_names_only("control", &["error", "machine", "settings", "view"]);
    assert_names_only("metrics", &["view"]);
    assert_names_only("notify", &[]);
}

#[test]
fn parent_and_child_do_not_name_each_other() {
    let shared = [&LOW[..], &["ending", "foreign", "heap", "reports", "status"]].concat();
    assert_names_only("parent", &[&shared[..], &["control", "notify", "view"]].concat());
    assert_names_only("child", &shared);
    for file in ["ending.rs", "foreign.rs", "reports.rs"] {
        assert_names_only(file, &[&LOW[..], &["foreign", "heap"]].concat());
    }
}

#[test]
fn data_of_a_role_names_neither_heap_nor_session() {
    for (file, own) in [
        ("parent/role.rs", "parent"),
        ("parent/pids.rs", "parent"),
        ("parent/refused.rs", "parent"),
        ("parent/oom.rs", "parent"),
        ("parent/usage.rs", "parent"),
        ("child/role.rs", "child"),
        ("child/last_timers.rs", "child"),
        ("bystander.rs", "bystander"),
    ] {
        assert_names_only(file, &[&LOW[..], &[own, "status", "control", "notify"]].concat());
    }
    for file in ["parent/consumption.rs", "parent/ledger.rs", "parent/timings.rs", "parent/visitors.rs"] {
        assert_names_only(file, &[&LOW[..], &["parent", "view"]].concat());
    }
}

#[test]
fn only_the_builder_names_the_session() {
    for path in files("") {
        let is_allowed = path.components().any(|part| part.as_os_str() == "builder");
        for line in code(&path) {
            assert!(is_allowed || room_of(&line) != Some("session"), "{}: {line}", path.display());
        }
    }
}

/// What the circles are looked for in: a file, or a room as a whole. `None` for what only lists modules, and for tests.
fn node(path: &str) -> Option<String> {
    let mut parts = path.trim_end_matches(".rs").split('/');
    match (parts.next()?, parts.next()) {
        ("mod" | "house", _) | ("parent" | "child", None | Some("mod")) => None,
        (room @ ("parent" | "child"), Some(file)) => Some(format!("{room}/{file}")),
        (room, _) => Some(room.to_owned()),
    }
}

/// What a line names of the Daemon: one thing, or several in braces.
fn named_nodes(line: &str) -> Vec<String> {
    let Some((_, path)) = line.split_once("crate::daemon::") else { return Vec::new() };
    let Some((room, rest)) = path.split_once([':', '{', ';']) else { return node(path).into_iter().collect() };
    let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let rest = rest.strip_prefix(':').unwrap_or(rest);
    let files = rest.strip_prefix('{').map_or(vec![name(rest)], |group| {
        // As far as the line goes: what does not fit on one has a line for each.
        group.split(',').map(|file| name(file.trim())).collect()
    });
    let full = |file: String| if file.is_empty() { room.to_owned() } else { format!("{room}/{file}") };
    files.into_iter().filter_map(|file| node(&full(file))).collect()
}

#[test]
fn files_form_no_circle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/daemon");
    let mut arrows = BTreeMap::<String, BTreeSet<String>>::new();
    for path in files("") {
        let Some(from) = node(path.strip_prefix(&root).unwrap().to_str().unwrap()) else { continue };
        if from == "machine" {
            // What it may name is fixed above, and the settings are made of its types.
            arrows.entry(from).or_default();
            continue;
        }
        let named = code(&path).iter().flat_map(|line| named_nodes(line)).filter(|to| *to != from).collect::<Vec<_>>();
        arrows.entry(from).or_default().extend(named);
    }
    assert!(arrows["session"].contains("parent/drive") && arrows["parent/drive"].contains("heap"), "{arrows:?}");
    assert!(arrows["child/orphan"].contains("child/ending"), "{arrows:?}");
    // What names nothing that is left can't be in a circle.
    while let Some(bottom) = arrows.iter().find(|(_, named)| named.is_empty()).map(|(bottom, _)| bottom.clone()) {
        arrows.remove(&bottom);
        for named in arrows.values_mut() {
            named.remove(&bottom);
        }
    }
    assert!(arrows.is_empty(), "in a circle, or above one: {arrows:#?}");
}

/// What the machine may not name: words, and paths with `::`.
const OUTSIDE: [&str; 27] = [
    "nix",
    "mio",
    "libc",
    "kernel",
    "Instant",
    "SystemTime",
    "UNIX_EPOCH",
    "std::env",
    "std::process",
    "std::fs",
    "std::thread",
    "Pid",
    "pid",
    "crate::sys",
    "crate::inject",
    "crate::environment",
    // Randomness, and hashes in whose order the system's randomness is.
    "getrandom",
    "rand",
    "RandomState",
    "DefaultHasher",
    "BuildHasher",
    "HashMap",
    "HashSet",
    "hash_map",
    "hash_set",
    // What would hide one of these: `use std::{env, fs};` and `use std::collections::*;`.
    "std::{",
    "collections::*",
];

/// The first of these that a line names.
fn outside(line: &str) -> Option<&'static str> {
    let words: Vec<&str> = line.split(|end: char| !end.is_alphanumeric() && end != '_').collect();
    let is_named = |name: &&&str| if name.contains("::") { line.contains(**name) } else { words.contains(*name) };
    OUTSIDE.iter().find(is_named).copied()
}

#[test] // O-DT-01
fn what_decides_knows_no_clock_no_process_no_environment_and_no_chance() {
    // What runs the simulation measures how long that takes, and is told by the environment for how long to go on.
    for path in files("machine").into_iter().filter(|path| !path.ends_with("sim/tests.rs")) {
        for line in code(&path) {
            assert_eq!(outside(&line), None, "{}: {line}", path.display());
        }
    }
}

#[test] // O-DT-01
fn what_the_machine_may_not_name_is_found() {
    for (line, name) in [
        ("let now = Instant::now();", "Instant"),
        ("use std::time::{Duration, SystemTime};", "SystemTime"),
        ("let state = std::collections::hash_map::RandomState::new();", "RandomState"),
        ("getrandom(&mut bytes, GetRandomFlags::empty())", "getrandom"),
        ("let number = rand::random();", "rand"),
        ("let mut children: HashMap<Key, Child> = map();", "HashMap"),
        ("use std::collections::hash_set;", "hash_set"),
        ("use std::collections::*;", "collections::*"),
        ("use std::{env, mem};", "std::{"),
        ("std::process::id()", "std::process"),
        ("crate::sys::procfs::read(path)", "crate::sys"),
    ] {
        assert_eq!(outside(line), Some(name), "{line}");
    }
    for line in ["use std::collections::BTreeMap;", "let strand = operand;", "at.outside.process(key)"] {
        assert_eq!(outside(line), None, "{line}");
    }
}

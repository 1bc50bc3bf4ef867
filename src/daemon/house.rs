//! The rules of this directory that the compiler does not know: which way its arrows go, and that what decides is pure.

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

#[test]
fn rooms_use_what_is_below_them() {
    assert_names_only("machine", &["settings"]);
    assert_names_only("board", &["machine"]);
    assert_names_only("launch", &["error", "settings"]);
    assert_names_only("settings", &["machine", "board"]);
}

#[test] // O-DT-01
fn what_decides_knows_no_clock_no_process_and_no_environment() {
    const OUTSIDE: [&str; 13] = [
        "nix",
        "mio",
        "libc",
        "kernel",
        "Instant",
        "SystemTime",
        "std::env",
        "std::process",
        "std::fs",
        "HashMap",
        "HashSet",
        "Pid",
        "pid",
    ];
    for path in files("machine") {
        for line in code(&path) {
            let words: Vec<&str> = line.split(|end: char| !end.is_alphanumeric() && end != '_').collect();
            let is_named =
                |name: &&&str| if name.contains("::") { line.contains(**name) } else { words.contains(*name) };
            let named = OUTSIDE.iter().find(is_named);
            assert_eq!(named, None, "{}: {line}", path.display());
        }
    }
}

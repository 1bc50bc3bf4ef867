//! What every example answers to `--help`, to `--version`, and to a command line that makes no sense.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;

use crate::{end, run_to_end};
use util::{DEADLINE, Program, example, proc, wait_until};

/// The flags of the examples whose children a Daemon manages.
const DAEMON: &str = "--detach --logfile --pid-file --user --group --lame-duck-ms --request-timeout --babysit --verbose \
                      --control --status";

/// The flags of those with a pool of children.
const POOL: &str = "--start-children --min-spare --max-spare --max-children --fork-burst --requests";

/// Every example, and its flags.
fn examples() -> Vec<(&'static str, Vec<&'static str>)> {
    let all: [(&str, &[&str]); 15] = [
        ("chat", &[]),
        ("component", &[]),
        ("echo", &["--listen"]),
        ("echo_fork", &["--listen --max-children", DAEMON]),
        ("echo_prefork", &["--listen --config", POOL, DAEMON]),
        ("echo_server", &["--listen --mode --connections --control --status"]),
        ("forking", &["--logfile"]),
        ("http_prefork", &["--listen --root --keep-alive --config", POOL, DAEMON]),
        ("isolate", &["--listen"]),
        ("log_shipper", &["--file --to --retry"]),
        ("nfa", &[]),
        ("own_wheel", &["--listen"]),
        ("preforking", &["--logfile"]),
        ("runner", &["--run --timeout"]),
        ("tail_f", &["--file --all --interval"]),
    ];
    let words = |flags: &[&'static str]| flags.iter().flat_map(|flags| flags.split(' ')).collect();
    all.into_iter().map(|(name, flags)| (name, words(flags))).collect()
}

#[test]
fn list_of_this_file_has_every_example_with_flags() {
    // These take their few arguments by position.
    const PLAIN: [&str; 2] = ["http_service", "https_prefork"];
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let entries =
        [directory.join("poe"), directory].into_iter().flat_map(|path| fs::read_dir(path).expect("the examples"));
    let files = entries
        .filter_map(|entry| Some(entry.expect("an entry").file_name().to_str()?.strip_suffix(".rs")?.to_owned()));
    let names: BTreeSet<String> =
        examples().into_iter().map(|(name, _)| name).chain(PLAIN).map(str::to_owned).collect();
    assert_eq!(files.collect::<BTreeSet<_>>(), names);
}

#[test]
fn help_says_what_an_example_shows_and_ends_each_flag_with_its_default() {
    for (name, flags) in examples() {
        let outcome = run_to_end(name, &["--help"]);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{name}");
        let [about, empty, usage, ..] = &outcome.stdout[..] else { panic!("{outcome:?}") };
        assert!(about.split(' ').count() > 5 && empty.is_empty(), "{name}: {about:?}");
        assert!(usage.starts_with(&format!("Usage: {name}")), "{name}: {usage:?}");
        let options = outcome.stdout.iter().filter(|line| line.trim_start().starts_with('-'));
        let mut seen = BTreeSet::new();
        for line in options {
            let flag = line.split_whitespace().find(|word| word.starts_with("--")).expect("a long flag");
            seen.insert(flag);
            assert!(line.split_whitespace().count() > 2, "{name}: {flag} has no text");
            // What takes a value has a default, unless it must be given.
            let is_required = usage.contains(&format!(" {flag} "));
            let ends_with_default = line.ends_with(']') && line.contains("[default: ");
            assert_eq!(ends_with_default, line.contains('<') && !is_required, "{name}: {line}");
        }
        let wanted = flags.into_iter().chain(["--help", "--version"]).collect();
        assert_eq!(seen, wanted, "{name}");
        assert_eq!(run_to_end(name, &["-h"]).stdout, outcome.stdout, "{name}");
    }
}

#[test]
fn version_is_that_of_the_package() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let manifest = fs::read_to_string(manifest).expect("the manifest");
    let version = manifest.lines().find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"'));
    let version = version.expect("the version of the package");
    for (name, _) in examples() {
        for flag in ["--version", "-V"] {
            let outcome = run_to_end(name, &[flag]);
            assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{name}");
            assert_eq!(outcome.stdout, [format!("{name} {version}")]);
        }
    }
}

/// Runs an example with a command line that it refuses, naming all of `parts`, before it does anything.
#[track_caller]
fn expect_usage_error(name: &str, args: &[&str], parts: &[&str]) {
    let outcome = run_to_end(name, args);
    assert_eq!((outcome.code, outcome.stdout.len()), (Some(2), 0), "{name} {args:?}: {outcome:?}");
    assert!(outcome.stderr.starts_with("error: "), "{name} {args:?}: {outcome:?}");
    for part in parts.iter().chain(&["--help"]) {
        assert!(outcome.stderr.contains(part), "{name} {args:?}: {part:?} is missing: {}", outcome.stderr);
    }
}

#[test]
fn unknown_argument_is_named_with_the_usage_and_exit_2() {
    for (name, _) in examples() {
        let usage = format!("Usage: {name}");
        expect_usage_error(name, &["--nonsense"], &["'--nonsense'", &usage]);
    }
    for (name, args) in
        [("echo", ["--listen", "[::]:0", "--detach"]), ("echo_prefork", ["--listen", "[::]:0", "extra"])]
    {
        expect_usage_error(name, &args, &[args[2], "Usage: ", name]);
    }
    for name in ["preforking", "forking"] {
        expect_usage_error(name, &["0", "1"], &["'1'", "Usage: "]);
    }
    expect_usage_error("tail_f", &["log"], &["'log'", "Usage: "]);
}

#[test]
fn what_must_be_given_is_named_and_exit_2() {
    for (name, args, missing) in [
        ("preforking", &[][..], "<PORT>"),
        ("forking", &["--logfile", "x"], "<PORT>"),
        ("runner", &[], "--run <COMMAND>"),
        ("tail_f", &["--all"], "--file <PATH>"),
        ("log_shipper", &["--to", "localhost:1"], "--file <PATH>"),
    ] {
        expect_usage_error(name, args, &[missing, "Usage: ", name]);
    }
}

#[test]
fn flag_without_its_value_is_named_and_exit_2() {
    for (name, flags) in examples() {
        let values = flags.iter().filter(|flag| !["--detach", "--verbose", "--all"].contains(flag));
        for flag in values {
            expect_usage_error(name, &[flag], &[&format!("'{flag} <"), "value is required"]);
            // Nor is another flag a value.
            expect_usage_error(name, &[flag, "--help"], &[&format!("'{flag} <")]);
        }
    }
}

#[test]
fn value_that_makes_no_sense_is_explained_and_exit_2() {
    let bad: [(&str, &[&str], &str); 30] = [
        ("echo_fork", &["--max-children", "many"], "invalid digit"),
        ("echo_fork", &["--max-children", "-1"], "is not in 1..=4294967295"),
        ("echo_fork", &["--max-children", "0"], "is not in 1..=4294967295"),
        ("echo_prefork", &["--start-children", "0"], "is not in 1..=4294967295"),
        ("echo_prefork", &["--max-children", "0"], "is not in 1..=4294967295"),
        ("echo_fork", &["--babysit", "0"], "must be more than 0"),
        ("echo_fork", &["--babysit", "-1"], "must not be negative"),
        ("echo_fork", &["--babysit", "soon"], "not a number of seconds"),
        ("echo_fork", &["--babysit", "nan"], "not a span of time"),
        ("echo_fork", &["--request-timeout", "0.0"], "must be more than 0"),
        ("echo_prefork", &["--request-timeout", "inf"], "not a span of time"),
        ("echo_prefork", &["--request-timeout", "1e30"], "not a span of time"),
        ("echo_prefork", &["--request-timeout="], "not a number of seconds"),
        ("echo_prefork", &["--start-children", "4.5"], "invalid digit"),
        ("echo_prefork", &["--min-spare", "4294967296"], "is not in 0..=4294967295"),
        ("echo_prefork", &["--max-spare", "-0.5"], "invalid digit"),
        ("echo_prefork", &["--max-children", "1k"], "invalid digit"),
        ("echo_prefork", &["--fork-burst", "x"], "invalid digit"),
        ("echo_prefork", &["--requests", ""], "empty"),
        ("echo_server", &["--mode", "forking"], "no such mode"),
        ("echo_server", &["--connections", "some"], "invalid digit"),
        ("forking", &["port"], "invalid digit"),
        ("forking", &["65536"], "is not in 0..=65535"),
        ("preforking", &["-1"], "is not in 0..=65535"),
        ("http_prefork", &["--keep-alive", "soon"], "not a number of seconds"),
        ("http_prefork", &["--keep-alive", "-1"], "must not be negative"),
        ("http_prefork", &["--requests", "-1"], "-1"),
        ("log_shipper", &["--file", "x", "--retry", "1.5"], "invalid digit"),
        ("runner", &["--run", "true", "--timeout", "-1"], "-1"),
        ("tail_f", &["--file", "x", "--interval", "soon"], "invalid digit"),
    ];
    for (name, args, why) in bad {
        let flag = args.iter().rfind(|word| word.starts_with("--")).map_or("<PORT>", |flag| flag.trim_end_matches('='));
        expect_usage_error(name, args, &[flag, why]);
    }
}

#[test]
fn server_prints_the_pid_that_signals_are_for() {
    for (name, flag) in [
        ("chat", None),
        ("echo", Some("--listen")),
        ("echo_fork", Some("--listen")),
        ("echo_prefork", Some("--listen")),
        ("echo_server", Some("--listen")),
        ("http_prefork", Some("--listen")),
        ("isolate", Some("--listen")),
    ] {
        let args = flag.into_iter().chain(["127.0.0.1:0"]);
        let mut running = Program::new(example(name)).args(args).start();
        let line = running.next_line(DEADLINE);
        let told = line.strip_prefix("listening on 127.0.0.1:").and_then(|rest| rest.split_once(", pid "));
        let (port, pid) = told.unwrap_or_else(|| panic!("{name}: {line:?}"));
        assert!(port.parse::<u16>().is_ok_and(|port| port > 0), "{name}: {line:?}");
        assert_eq!(pid, running.pid().to_string(), "{name}");
        // It is told before a Daemon is spawned, which may leave the terminal, and watches TERM from then on.
        wait_until("a handler for TERM", DEADLINE, || {
            proc::sig_masks(running.pid())?.catches(Signal::SIGTERM).then_some(())
        });
        end(&mut running, Signal::SIGTERM);
    }
}

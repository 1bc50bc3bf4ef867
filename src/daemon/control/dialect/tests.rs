//! What clients say and are told, in both dialects.

use std::time::Duration;

use super::super::command::{ChildName, Command};
use super::super::rights::Rights;
use super::*;
use crate::testing::check;

fn read(line: &str) -> Result<Request, Refusal> {
    Dialect::of(line.as_bytes()).read(line.as_bytes())
}

fn command(line: &str) -> Command {
    read(line).unwrap_or_else(|refusal| panic!("{line}: {refusal:?}")).command
}

fn code(line: &str) -> Code {
    read(line).expect_err(line).code
}

#[test] // O-CT-08
fn command_means_the_same_in_both_dialects() {
    let pairs = [
        ("hello", r#"{"command":"hello"}"#),
        ("peek", r#"{"command":"peek"}"#),
        ("peek 3:1", r#"{"command":"peek","child":"3:1"}"#),
        ("peek --child 4711", r#"{"command":"peek","child":4711}"#),
        ("resize min_spare=3", r#"{"command":"resize","min_spare":3}"#),
        ("resize --min-spare 3", r#"{"command":"resize","min_spare":3,"reset":false}"#),
        ("resize --min-spare=3 --max-children=9", r#"{"command":"resize","min_spare":3,"max_children":9}"#),
        ("resize reset", r#"{"command":"resize","reset":true}"#),
        ("resize --reset", r#"{"command":"resize","reset":true,"what_is_to_come":[1]}"#),
        ("retire 3:1 no-wait", r#"{"command":"retire","child":"3:1","no_wait":true}"#),
        ("kill 12 --timeout 2.5", r#"{"command":"kill","child":"12","timeout":2.5}"#),
        ("kill 12 timeout=2500ms", r#"{"command":"kill","child":"12","timeout":"2500ms","what_is_to_come":7}"#),
        ("log-level debug for=60s", r#"{"command":"log-level","level":"debug","for":60}"#),
        ("log-level debug --for 1m --child 3:1", r#"{"command":"log-level","level":"debug","for":60.0,"child":"3:1"}"#),
        ("stop --now", r#"{"command":"stop","now":true}"#),
        ("stop", r#"{"command":"stop","now":null}"#),
        ("verdict 7", r#"{"command":"verdict","number":7}"#),
        ("metrics openmetrics", r#"{"command":"metrics","format":"openmetrics"}"#),
    ];
    for (text, json) in pairs {
        assert_eq!(read(text), read(json), "{text}");
        assert!(read(text).is_ok(), "{text}: {:?}", read(text));
    }
    assert_eq!(command("retire 3:1"), Command::Retire(ChildName::Key(3, 1)));
    assert_eq!(read("kill 12 timeout=2500ms").unwrap().timeout, Some(Duration::from_millis(2500)));
}

#[test] // O-CT-06
fn each_command_needs_its_rights() {
    for (rights, lines) in [
        (
            Rights::Read,
            &[
                "hello",
                "help",
                "status",
                "live",
                "ready",
                "children",
                "peek",
                "peek 3",
                "metrics",
                "watch",
                "verdict 1",
            ][..],
        ),
        (
            Rights::Operate,
            &["reload", "check", "reopen", "resize min_spare=1", "resize reset", "log-level info", "retire 3"],
        ),
        (Rights::Admin, &["stop", "stop now", "kill 3", "upgrade", "finish"]),
    ] {
        for line in lines {
            assert_eq!(command(line).needs(), rights, "{line}");
        }
    }
}

#[test] // O-CT-08
fn mistake_has_its_code() {
    assert_eq!(code("frobnicate"), Code::UnknownCommand);
    assert_eq!(code(r#"{"command":"frobnicate"}"#), Code::UnknownCommand);
    assert_eq!(code(r#"{"command":"hello""#), Code::BadJson);
    assert_eq!(code(r#"{"command":"hello"} {}"#), Code::BadJson);
    assert_eq!(code(&"{\"a\":".repeat(10_000)), Code::BadJson);
    for line in [
        "",
        "  ",
        "retire",
        "retire x",
        "retire 1:x",
        "retire 1 2",
        "resize",
        "resize min_spare=x",
        "resize min_spare=-1",
        "resize min_spare=4294967296",
        "resize min_spare=3 reset",
        "resize --min-spare",
        "log-level",
        "verdict",
        "kill 1 timeout=1y",
        "kill 1 timeout=1e300",
        "stop now=maybe",
        "status here",
        r#"{"command":7e9999}"#,
        r#"{"command":["hello"]}"#,
        r#"{}"#,
        r#"{"command":"resize","min_spare":"3"}"#,
        r#"{"command":"resize","min_spare":4294967296}"#,
        r#"{"command":"stop","now":"yes"}"#,
        r#"{"command":"kill","child":"1","timeout":-1}"#,
    ] {
        let refusal = read(line).expect_err(line);
        assert!(matches!(refusal.code, Code::Usage | Code::BadJson), "{line}: {refusal:?}");
    }
}

#[test] // a word that the command does not know is no word to be passed over
fn mistyped_word_is_named() {
    for (line, word) in [
        ("resize max_childern=4", "max_childern=4"),
        ("resize max_spare=4 --max-childern=9", "--max-childern=9"),
        ("log-level debug fro=60s", "fro=60s"),
        ("log-level debug --fro 60s", "--fro"),
        ("kill 12 timeot=1s", "timeot=1s"),
        ("stop noww", "noww"),
        ("stop soon", "soon"),
        ("stop child=3:1", "child=3:1"),
        ("retire 3:1 now", "now"),
        ("status max_children=4", "max_children=4"),
    ] {
        let refusal = read(line).expect_err(line);
        assert_eq!(refusal.code, Code::Usage, "{line}");
        assert!(refusal.text.contains(&format!("{word:?}")), "{line}: {}", refusal.text);
    }
    assert_eq!(code("frobnicate max_childern=4"), Code::UnknownCommand);
}

#[test] // what the log and `verdict` call a command is a command again
fn name_of_a_command_reads_as_the_same_command() {
    for line in [
        "hello",
        "help",
        "status",
        "children",
        "peek",
        "peek 3:1",
        "watch",
        "metrics",
        "metrics openmetrics",
        "resize min_spare=1 max_spare=2 max_children=3",
        "resize max_spare=2",
        "resize reset",
        "retire 3:1",
        "kill 12",
        "reopen",
        "log-level debug for=1.5s child=3:1",
        "stop",
        "stop now",
        "verdict 7",
    ] {
        assert_eq!(command(line).to_string(), line);
    }
}

#[test] // O-CT-08: whatever comes, and whatever is answered, there is one last line
fn any_octets_have_one_last_line() {
    let words = [
        "hello",
        "resize",
        "--min-spare",
        "min_spare=",
        "=",
        "3",
        "--",
        "{",
        "}",
        "\"command\":",
        "\"hello\"",
        ",",
        "retire",
        "1:1",
        "\u{7f}",
        "\0",
        "OK",
        "ERR",
        " ",
        "\t",
        "\"",
        "\\",
        "[",
        "é",
        "1e309",
        "no-wait",
        "timeout=",
        "s",
    ];
    check(|dice| {
        let mut line: Vec<u8> = Vec::new();
        for _ in 0..dice.number(0..12) {
            match dice.below(4) {
                0 => line.push(dice.below(256) as u8),
                1 => line.extend(b" "),
                _ => line.extend(dice.pick(&words).as_bytes()),
            }
        }
        line.retain(|octet| *octet != b'\n');
        let dialect = Dialect::of(&line);
        let outcome = dialect.read(&line).map(|request| Reply {
            verdict: "applied",
            text: format!("{}\nOK\nERR x\n\nOKERR", String::from_utf8_lossy(&line)),
            data: Value::from(request.command.to_string()).to_string(),
        });
        let mut out = Vec::new();
        dialect.write(&outcome, &mut out);
        assert_eq!(out.last(), Some(&b'\n'));
        let text = String::from_utf8(out).unwrap();
        let is_last = |line: &str| match dialect {
            Dialect::Text => line.starts_with("OK") || line.starts_with("ERR"),
            Dialect::Json => serde_json::from_str::<Value>(line).unwrap()["final"] == true,
        };
        let lines: Vec<&str> = text.split_terminator('\n').collect();
        assert_eq!(lines.iter().filter(|line| is_last(line)).count(), 1, "{text:?}");
        assert!(is_last(lines.last().unwrap()), "{text:?}");
    });
}

#[test] // O-CT-20
fn event_is_one_line_in_either_dialect() {
    let Value::Object(event) = serde_json::json!({"event": "OK", "number": 7, "cause": "two\nlines", "child": "3:1"})
    else {
        unreachable!()
    };
    let line = |dialect: Dialect| {
        let mut out = Vec::new();
        dialect.write_event(&event, &mut out);
        String::from_utf8(out).unwrap()
    };
    let (text, json) = (line(Dialect::Text), line(Dialect::Json));
    assert!(text.starts_with(" OK ") && text.contains("child=3:1") && text.contains(r#"cause="two\nlines""#), "{text}");
    assert_eq!((text.matches('\n').count(), json.matches('\n').count()), (1, 1));
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["number"], 7);
}

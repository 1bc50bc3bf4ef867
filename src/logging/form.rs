//! A record as text: a line to read, a line for the journal, or an object of JSON.

use std::fmt::{Display, Write};
use std::time::SystemTime;

use log::kv::{Error, Key, Value, VisitSource, VisitValue};
use log::{Level, Record};

use super::escape;
use crate::rfc3339;

/// What a line says beside the record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp<'a> {
    pub(super) time: SystemTime,
    pub(super) pid: u32,
    /// The target that text leaves out.
    pub(super) program: &'a str,
}

/// Appends a record as text: `2026-11-28T23:31:39.000123Z [WARN] 4711 lenore::daemon: child has ended`.
pub(super) fn push_text(line: &mut String, record: &Record<'_>, stamp: Stamp<'_>) {
    rfc3339::push(line, stamp.time);
    push_display(line, format_args!(" [{}] {} ", record.level(), stamp.pid));
    push_words(line, record, stamp.program, CONTINUATION);
    line.push('\n');
}

/// Appends a record as the journal reads lines from standard error: `<4>lenore::daemon: child has ended`. The journal
/// knows time and pid by itself. It makes a record of each line, so each line has the priority.
pub(super) fn push_journal(line: &mut String, record: &Record<'_>, stamp: Stamp<'_>) {
    let priority = priority(record.level());
    line.push_str(priority);
    let mut continuation = String::from("\n");
    continuation.push_str(priority);
    continuation.push_str(&CONTINUATION[1..]);
    push_words(line, record, stamp.program, &continuation);
    line.push('\n');
}

/// Appends a record as an object of JSON, on one line.
pub(super) fn push_json(line: &mut String, record: &Record<'_>, stamp: Stamp<'_>) {
    line.push_str("{\"time\":\"");
    rfc3339::push(line, stamp.time);
    push_display(line, format_args!("\",\"level\":\"{}\",\"pid\":{},\"target\":", record.level(), stamp.pid));
    push_json_string(line, record.target());
    line.push_str(",\"message\":");
    push_json_string(line, record.args());
    let mut fields = JsonFields { line, seen: Vec::new() };
    // If a source of fields breaks off, the fields that it has given stay.
    let _ = record.key_values().visit(&mut fields);
    if !fields.seen.is_empty() {
        line.push('}');
    }
    line.push_str("}\n");
}

/// The severity by which syslog and the journal know a level.
pub(super) fn priority(level: Level) -> &'static str {
    match level {
        Level::Error => "<3>",
        Level::Warn => "<4>",
        Level::Info => "<6>",
        Level::Debug | Level::Trace => "<7>",
    }
}

/// What comes before the further lines of a message: no record begins with a space.
const CONTINUATION: &str = "\n    ";

/// Target, message and fields.
fn push_words(line: &mut String, record: &Record<'_>, program: &str, continuation: &str) {
    if record.target() != program {
        let start = line.len();
        line.push_str(record.target());
        escape::word(line, start);
        line.push_str(": ");
    }
    let start = line.len();
    push_display(line, record.args());
    escape::message(line, start, continuation);
    // Messages of this crate have their fields in the text, because other loggers show only the text.
    if !is_own(record.target()) {
        let _ = record.key_values().visit(&mut TextFields { line });
    }
}

fn is_own(target: &str) -> bool {
    target.strip_prefix(env!("CARGO_CRATE_NAME")).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Appends a value. If its `Display` fails, the text that it has written before stays.
fn push_display(line: &mut String, value: impl Display) {
    let _ = write!(line, "{value}");
}

/// Fields as text: ` key=value`.
struct TextFields<'a> {
    line: &'a mut String,
}

impl<'kvs> VisitSource<'kvs> for TextFields<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        self.line.push(' ');
        let start = self.line.len();
        self.line.push_str(key.as_str());
        escape::word(self.line, start);
        self.line.push('=');
        let start = self.line.len();
        push_display(self.line, value);
        escape::value(self.line, start);
        Ok(())
    }
}

/// Fields as members of an object of their own, so that a record's `pid` is not taken for the logger's.
struct JsonFields<'a, 'kvs> {
    line: &'a mut String,
    seen: Vec<Key<'kvs>>,
}

impl<'kvs> VisitSource<'kvs> for JsonFields<'_, 'kvs> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        // Readers of JSON differ in what they do with a name that comes twice.
        if self.seen.contains(&key) {
            return Ok(());
        }
        self.line.push_str(if self.seen.is_empty() { ",\"fields\":{" } else { "," });
        push_json_string(self.line, key.as_str());
        self.line.push(':');
        let start = self.line.len();
        if value.visit(&mut JsonValue { line: self.line }).is_err() {
            self.line.truncate(start);
            self.line.push_str("null");
        }
        self.seen.push(key);
        Ok(())
    }
}

fn push_json_string(line: &mut String, value: impl Display) {
    line.push('"');
    let start = line.len();
    push_display(line, value);
    escape::json(line, start);
    line.push('"');
}

/// Numbers, truth values and null as themselves, all else as strings.
struct JsonValue<'a> {
    line: &'a mut String,
}

impl JsonValue<'_> {
    fn push(&mut self, value: impl Display) -> Result<(), Error> {
        push_display(self.line, value);
        Ok(())
    }
}

impl<'v> VisitValue<'v> for JsonValue<'_> {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), Error> {
        push_json_string(self.line, value);
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), Error> {
        self.push("null")
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), Error> {
        self.push(value)
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), Error> {
        self.push(value)
    }

    fn visit_u128(&mut self, value: u128) -> Result<(), Error> {
        self.push(value)
    }

    fn visit_i128(&mut self, value: i128) -> Result<(), Error> {
        self.push(value)
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), Error> {
        // JSON has no word for what is not a number.
        if value.is_finite() { self.push(format_args!("{value:?}")) } else { self.visit_any(value.into()) }
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), Error> {
        self.push(value)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use log::kv::Source;

    use super::*;

    const STAMP: Stamp<'_> = Stamp { time: UNIX_EPOCH, pid: 17, program: "server" };

    fn lines(level: Level, target: &str, message: &str, fields: &dyn Source) -> [String; 3] {
        [push_text, push_journal, push_json].map(|push| {
            let mut line = String::new();
            push(
                &mut line,
                &Record::builder()
                    .level(level)
                    .target(target)
                    .args(format_args!("{message}"))
                    .key_values(&fields)
                    .build(),
                STAMP,
            );
            line
        })
    }

    const NONE: &[(&str, &str)] = &[];

    #[test]
    fn record_of_the_program_itself_has_no_target_in_text() {
        let [text, journal, json] = lines(Level::Info, "server", "begins", &NONE);
        assert_eq!(text, "1970-01-01T00:00:00.000000Z [INFO] 17 begins\n");
        assert_eq!(journal, "<6>begins\n");
        let expected =
            r#"{"time":"1970-01-01T00:00:00.000000Z","level":"INFO","pid":17,"target":"server","message":"begins"}"#;
        assert_eq!(json, format!("{expected}\n"));
    }

    #[test]
    fn other_records_have_their_target() {
        let [text, journal, _] = lines(Level::Warn, "server::pool", "is full", &NONE);
        assert_eq!(text, "1970-01-01T00:00:00.000000Z [WARN] 17 server::pool: is full\n");
        assert_eq!(journal, "<4>server::pool: is full\n");
    }

    #[test]
    fn journal_gets_syslog_s_priorities() {
        let begin = |level| lines(level, "server", "x", &NONE)[1].clone();
        let levels = [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace];
        assert_eq!(levels.map(begin), ["<3>x\n", "<4>x\n", "<6>x\n", "<7>x\n", "<7>x\n"]);
    }

    #[test]
    fn further_lines_of_a_message_are_indented_and_have_the_priority() {
        let [text, journal, json] = lines(Level::Info, "server", "a\n  b\n", &NONE);
        assert_eq!(text, "1970-01-01T00:00:00.000000Z [INFO] 17 a\n      b\n");
        assert_eq!(journal, "<6>a\n<6>      b\n");
        assert!(json.ends_with("\"message\":\"a\\n  b\\n\"}\n"), "{json}");
    }

    #[test]
    fn key_values_are_fields() {
        let fields: [(&str, Value<'_>); 9] = [
            ("pid", 4711.into()),
            ("cause", "exited:3".into()),
            ("note", "a \"b\"\n".into()),
            ("is_last", true.into()),
            ("age", 0.25.into()),
            ("most", u128::MAX.into()),
            ("ratio", f64::NAN.into()),
            ("cause", "a second one".into()),
            ("a key", Value::null()),
        ];
        let [text, journal, json] = lines(Level::Info, "server", "ended", &fields);
        let said = r#"ended pid=4711 cause=exited:3 note="a \"b\"\n" is_last=true age=0.25"#;
        assert!(text.contains(said), "{text}");
        assert!(journal.starts_with(&format!("<6>{said}")) && journal.contains(" a_key="), "{journal}");
        let said = r#"","pid":17,"target":"server","message":"ended","fields":{"pid":4711,"cause":"exited:3","note":"a \"b\"\n","#;
        let (_, said_json) = json.split_once("INFO").unwrap();
        let rest = said_json.strip_prefix(said).unwrap_or_else(|| panic!("{json}"));
        let expected =
            r#""is_last":true,"age":0.25,"most":340282366920938463463374607431768211455,"ratio":"NaN","a key":null}}"#;
        assert_eq!(rest, format!("{expected}\n"));
    }

    #[test]
    fn key_values_of_this_crate_are_in_its_messages() {
        let fields = [("slot", 3)];
        let [text, _, json] = lines(Level::Info, "lenore::daemon", "ended: slot=3", &fields);
        assert!(text.ends_with(" lenore::daemon: ended: slot=3\n"), "{text}");
        assert!(json.ends_with("\"fields\":{\"slot\":3}}\n"), "{json}");
        let [text, ..] = lines(Level::Info, "lenorectl", "ended", &fields);
        assert!(text.ends_with(" ended slot=3\n"), "{text}");
    }

    #[test]
    fn hostile_words_make_no_line_that_looks_like_a_record() {
        let forged = "x\n1970-01-01T00:00:00.000000Z [ERROR] 1 forged\r<3>forged\u{85}forged\u{2028}forged";
        let fields = [(forged, forged)];
        let [text, journal, json] = lines(Level::Info, forged, forged, &fields);
        let begins = |line: &&str| line.starts_with("1970") || line.starts_with("{");
        assert_eq!(text.lines().filter(begins).count(), 1, "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("    ")).count(), 1, "{text}");
        assert!(journal.lines().skip(1).all(|line| line.starts_with("<6>    ")), "{journal}");
        assert_eq!(json.lines().count(), 1, "{json}");
        for line in [text, journal, json] {
            assert!(!line.contains(['\r', '\u{85}', '\u{2028}']), "{line}");
        }
    }

    #[test]
    fn every_line_has_the_same_width_before_the_pid() {
        let begin = |micros| {
            let mut line = String::new();
            let record = Record::builder().args(format_args!("x")).build();
            push_text(&mut line, &record, Stamp { time: UNIX_EPOCH + Duration::from_micros(micros), ..STAMP });
            line.find(" [").unwrap()
        };
        assert_eq!([0, 1, 100_000, 999_999, 1_795_908_699_120_000].map(begin), [27; 5]);
    }
}

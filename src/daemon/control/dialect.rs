//! The two dialects: lines of words, and lines of JSON. Which one a line is in is told by its first byte.

use std::fmt;
use std::io::Write;

use serde_json::{Map, Value};

use super::command::{Fields, Request, read_span, span};
use super::quoted::Quoted;
use crate::harmful::is_harmful;

/// How a command was put, and so how its answer is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::daemon) enum Dialect {
    /// Words. The last line of the answer begins with `OK` or `ERR`, and no other does.
    Text,
    /// One object a line. The last one of the answer has `"final":true`, and no other has.
    Json,
}

/// Why something was not done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::daemon) enum Code {
    /// The command is not used like that.
    Usage,
    UnknownCommand,
    BadJson,
    TooLong,
    NoSuchChild,
    Failed,
    /// A configuration could not be loaded.
    Rejected,
    RolledBack,
    Timeout,
    Denied,
    Busy,
    Refused,
    Superseded,
    ShuttingDown,
}

impl Code {
    /// Returns the code of this word; `None` if there is none.
    pub(super) fn of(word: &str) -> Option<Code> {
        let all = [
            Code::Usage,
            Code::UnknownCommand,
            Code::BadJson,
            Code::TooLong,
            Code::NoSuchChild,
            Code::Failed,
            Code::Rejected,
            Code::RolledBack,
            Code::Timeout,
            Code::Denied,
            Code::Busy,
            Code::Refused,
            Code::Superseded,
            Code::ShuttingDown,
        ];
        all.into_iter().find(|code| code.word() == word)
    }

    pub(in crate::daemon) fn word(self) -> &'static str {
        match self {
            Code::Usage => "usage",
            Code::UnknownCommand => "unknown_command",
            Code::BadJson => "bad_json",
            Code::TooLong => "too_long",
            Code::NoSuchChild => "no_such_child",
            Code::Failed => "failed",
            Code::Rejected => "rejected",
            Code::RolledBack => "rolled_back",
            Code::Timeout => "timeout",
            Code::Denied => "denied",
            Code::Busy => "busy",
            Code::Refused => "refused",
            Code::Superseded => "superseded",
            Code::ShuttingDown => "shutting_down",
        }
    }
}

/// An answer that says no.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::daemon) struct Refusal {
    pub(in crate::daemon) code: Code,
    pub(in crate::daemon) text: String,
    /// What the process that has failed wrote to its standard error last.
    pub(in crate::daemon) last_words: String,
}

impl Refusal {
    pub(in crate::daemon) fn new(code: Code, text: impl fmt::Display) -> Refusal {
        let mut text = text.to_string();
        if let Some((end, _)) = text.char_indices().nth(LONGEST_REFUSAL) {
            text.truncate(end);
            text.push_str("...");
        }
        Refusal { code, text, last_words: String::new() }
    }

    /// Makes one of a text that no client has sent.
    pub(in crate::daemon) fn of_reload(code: Code, text: String, last_words: String) -> Refusal {
        Refusal { code, text, last_words }
    }

    pub(super) fn usage(text: impl fmt::Display) -> Refusal {
        Refusal::new(Code::Usage, text)
    }
}

/// An answer that says yes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::daemon) struct Reply {
    /// What has become of the command.
    pub(in crate::daemon) verdict: &'static str,
    /// The lines before the last one, for those who read text.
    pub(in crate::daemon) text: String,
    /// The same as JSON: one value without an end of line in it.
    pub(in crate::daemon) data: String,
}

/// The end of a command.
pub(in crate::daemon) type Outcome = Result<Reply, Refusal>;

impl Dialect {
    /// Returns the dialect of a line.
    pub(in crate::daemon) fn of(line: &[u8]) -> Dialect {
        if line.first() == Some(&b'{') { Dialect::Json } else { Dialect::Text }
    }

    /// Reads one line, without the end of line.
    pub(in crate::daemon) fn read(self, line: &[u8]) -> Result<Request, Refusal> {
        match self {
            Dialect::Text => read_words(&String::from_utf8_lossy(line)),
            Dialect::Json => read_json(line),
        }
    }

    /// Writes the end of a command.
    pub(in crate::daemon) fn write(self, outcome: &Outcome, out: &mut Vec<u8>) {
        match (self, outcome) {
            (Dialect::Text, Ok(reply)) => {
                push_body(&reply.text, out);
                let _ = writeln!(out, "OK {}", reply.verdict);
            }
            (Dialect::Text, Err(refusal)) => {
                push_body(&refusal.last_words, out);
                let _ = writeln!(out, "ERR {} {}", refusal.code.word(), OneLine(&refusal.text));
            }
            (Dialect::Json, Ok(reply)) => {
                let verdict = Value::from(reply.verdict);
                let _ = writeln!(out, r#"{{"final":true,"ok":true,"verdict":{verdict},"data":{}}}"#, reply.data);
            }
            (Dialect::Json, Err(refusal)) => {
                let (code, text) = (Value::from(refusal.code.word()), Value::from(refusal.text.as_str()));
                let last_words = match refusal.last_words.as_str() {
                    "" => String::new(),
                    words => format!(r#","last_words":{}"#, Value::from(words)),
                };
                let _ = writeln!(out, r#"{{"final":true,"ok":false,"code":{code},"text":{text}{last_words}}}"#);
            }
        }
    }

    /// Writes an event.
    pub(in crate::daemon) fn write_event(self, event: &Map<String, Value>, out: &mut Vec<u8>) {
        match self {
            Dialect::Text => {
                let mut line = String::new();
                if let Some(Value::String(name)) = event.get("event") {
                    line.push_str(name);
                }
                for (key, value) in event.iter().filter(|(key, _)| *key != "event") {
                    line.push(' ');
                    line.push_str(key);
                    line.push('=');
                    match value {
                        Value::String(word) if is_word(word) => line.push_str(word),
                        other => line.push_str(&other.to_string()),
                    }
                }
                push_body(&line, out);
            }
            Dialect::Json => {
                let _ = serde_json::to_writer(&mut *out, event);
                out.push(b'\n');
            }
        }
    }
}

/// Tells whether a word can stand in a line of text without quotation marks.
fn is_word(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'='))
}

/// Writes the lines before the last line of an answer. None of them may look like a last line.
fn push_body(text: &str, out: &mut Vec<u8>) {
    for line in text.lines() {
        if line.starts_with("OK") || line.starts_with("ERR") {
            out.push(b' ');
        }
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
    }
}

/// Text that stays within a line.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            if is_harmful(char) { write!(f, "{}", char.escape_default())? } else { write!(f, "{char}")? }
        }
        Ok(())
    }
}

/// `NAME`, what it is about, and settings: `key=value`, `--key=value`, `--key value`, `word` and `--word`.
fn read_words(line: &str) -> Result<Request, Refusal> {
    let mut words = line.split_whitespace();
    let Some(name) = words.next() else {
        return Err(Refusal::usage(format_args!("a command is missing; try help")));
    };
    let mut fields = Fields::default();
    while let Some(word) = words.next() {
        let bare = word.strip_prefix("--");
        let (key, value) = match bare.unwrap_or(word).split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (bare.unwrap_or(word), None),
        };
        let key = key.replace('-', "_");
        if value.is_none() && bare.is_none() && !FLAGS.contains(&key.as_str()) {
            // What the command is about.
            set_subject(&mut fields, name, word)?;
            continue;
        }
        // Who has mistyped a word would take what is done for what was meant.
        if settings_of(name)
            .is_some_and(|settings| !settings.contains(&key.as_str()) && !OF_ALL.contains(&key.as_str()))
        {
            return Err(Refusal::usage(format_args!("{name} has no setting {}; try help", Quoted(word))));
        }
        if set_flag(&mut fields, &key, value)? {
            continue;
        }
        let value = value.or_else(|| words.next());
        let value = value.ok_or_else(|| Refusal::usage(format_args!("{word} needs a value")))?;
        set_value(&mut fields, &key, value)?;
    }
    fields.command(name)
}

/// Returns the settings that a command takes. `None` for an unknown command, which is refused later.
fn settings_of(name: &str) -> Option<&'static [&'static str]> {
    Some(match name {
        "hello" | "help" | "status" | "live" | "ready" | "children" | "watch" | "reopen" => &[],
        "peek" | "retire" | "kill" => &["child"],
        "metrics" => &["format"],
        "resize" => &["min_spare", "max_spare", "max_children", "reset"],
        "log-level" => &["level", "for", "child"],
        "stop" => &["now"],
        "verdict" => &["number"],
        "upgrade" => &["program"],
        "reload" | "check" | "finish" => &[],
        _ => return None,
    })
}

/// What has no value.
const FLAGS: [&str; 3] = ["reset", "now", "no_wait"];

/// What any command may be given.
const OF_ALL: [&str; 2] = ["no_wait", "timeout"];

/// Sets a field that has no value. Returns whether there is one of that name.
fn set_flag(fields: &mut Fields, key: &str, value: Option<&str>) -> Result<bool, Refusal> {
    let flag = match key {
        "reset" => &mut fields.reset,
        "now" => &mut fields.now,
        "no_wait" => &mut fields.no_wait,
        _ => return Ok(false),
    };
    *flag = match value {
        None | Some("true") => true,
        Some("false") => false,
        Some(value) => return Err(Refusal::usage(format_args!("{key} is true or false, not {}", Quoted(value)))),
    };
    Ok(true)
}

fn set_subject(fields: &mut Fields, name: &str, word: &str) -> Result<(), Refusal> {
    let place = match name {
        "peek" | "retire" | "kill" => &mut fields.child,
        "log-level" => &mut fields.level,
        "metrics" => &mut fields.format,
        "verdict" => return set_value(fields, "number", word),
        _ => {
            return Err(Refusal::usage(format_args!("{} does not take {}; try help", Quoted(name), Quoted(word))));
        }
    };
    if place.replace(word.to_owned()).is_some() {
        return Err(Refusal::usage(format_args!(
            "{} takes one argument, and {} is the second",
            Quoted(name),
            Quoted(word)
        )));
    }
    Ok(())
}

fn set_value(fields: &mut Fields, key: &str, value: &str) -> Result<(), Refusal> {
    fn number<N: std::str::FromStr>(key: &str, value: &str) -> Result<Option<N>, Refusal> {
        let unclear = |_| Refusal::usage(format_args!("{key} is a number, not {}", Quoted(value)));
        value.parse().map(Some).map_err(unclear)
    }
    match key {
        "child" => fields.child = Some(value.to_owned()),
        "min_spare" => fields.min_spare = number(key, value)?,
        "max_spare" => fields.max_spare = number(key, value)?,
        "max_children" => fields.max_children = number(key, value)?,
        "timeout" => fields.timeout = Some(read_span(value)?),
        "level" => fields.level = Some(value.to_owned()),
        "for" => fields.lasts = Some(read_span(value)?),
        "number" => fields.number = number(key, value)?,
        "format" => fields.format = Some(value.to_owned()),
        "program" => fields.program = Some(value.to_owned()),
        // Of a command that there is not.
        _ => {}
    }
    Ok(())
}

fn read_json(line: &[u8]) -> Result<Request, Refusal> {
    let bad = |error| Refusal::new(Code::BadJson, format_args!("not one JSON object: {error}"));
    let object: Map<String, Value> = serde_json::from_slice(line).map_err(bad)?;
    let text = |key: &str| match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Number(number)) => Ok(Some(number.to_string())),
        Some(_) => Err(Refusal::usage(format_args!("{key} is a string"))),
    };
    let number = |key: &str| match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or_else(|| Refusal::usage(format_args!("{key} is a number"))),
    };
    let small = |key: &str| {
        let small = |number| u32::try_from(number).map_err(|_| Refusal::usage(format_args!("{key} is too large")));
        number(key)?.map(small).transpose()
    };
    let flag = |key: &str| match object.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(value) => value.as_bool().ok_or_else(|| Refusal::usage(format_args!("{key} is true or false"))),
    };
    let seconds = |key: &str| match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => read_span(text).map(Some),
        Some(value) => {
            let unclear = || Refusal::usage(format_args!("{key} is a number of seconds"));
            value.as_f64().and_then(span).map(Some).ok_or_else(unclear)
        }
    };
    let Some(name) = text("command")? else {
        return Err(Refusal::usage(format_args!("the field command is missing")));
    };
    let fields = Fields {
        child: text("child")?,
        min_spare: small("min_spare")?,
        max_spare: small("max_spare")?,
        max_children: small("max_children")?,
        reset: flag("reset")?,
        now: flag("now")?,
        no_wait: flag("no_wait")?,
        timeout: seconds("timeout")?,
        level: text("level")?,
        lasts: seconds("for")?,
        number: number("number")?,
        format: text("format")?,
        program: text("program")?,
    };
    fields.command(&name)
}

/// How many characters of the reason for a refusal are shown: what a client has sent is in it.
const LONGEST_REFUSAL: usize = 200;

#[cfg(test)]
mod tests;

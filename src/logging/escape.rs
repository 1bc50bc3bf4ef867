//! Text from anywhere, such as a client's request, that must not look like lines of the log or steer a terminal.
//!
//! Text is first written, and then made harmless. Nearly all text is plain ASCII, which one look shows.

use crate::harmful::{is_harmful, push_json_escape};

/// Makes a message harmless: the part of `line` from `start` on. Each line end within the message becomes `new_line`.
/// Line ends at the end of the message are dropped.
pub(super) fn message(line: &mut String, start: usize, new_line: &str) {
    let end = line[start..].trim_end_matches(['\n', '\r']).len();
    line.truncate(start + end);
    if is_plain(&line[start..]) {
        return;
    }
    let text = line.split_off(start);
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\n' => line.push_str(new_line),
            '\r' if chars.peek() == Some(&'\n') => {}
            '\t' => line.push('\t'),
            char if is_harmful(char) => line.extend(char.escape_default()),
            char => line.push(char),
        }
    }
}

/// Makes a word harmless: a target, or the name of a field.
pub(super) fn word(line: &mut String, start: usize) {
    if line[start..].contains(breaks_word) {
        let text = line.split_off(start);
        line.extend(text.chars().map(|char| if breaks_word(char) { '_' } else { char }));
    }
}

/// Puts a field's value into quotation marks if a reader could not tell where it ends.
pub(super) fn value(line: &mut String, start: usize) {
    let text = &line[start..];
    if text.is_empty() || text.contains(|char| breaks_word(char) || char == '\\') {
        let text = line.split_off(start);
        line.push('"');
        for char in text.chars() {
            match char {
                '"' | '\\' => line.extend(['\\', char]),
                char if is_harmful(char) => line.extend(char.escape_default()),
                char => line.push(char),
            }
        }
        line.push('"');
    }
}

/// Escapes the part of `line` from `start` on as a string of JSON, without the quotation marks around it.
pub(super) fn json(line: &mut String, start: usize) {
    if is_plain(&line[start..]) && !line[start..].contains(['"', '\\']) {
        return;
    }
    let text = line.split_off(start);
    for char in text.chars() {
        match char {
            '"' | '\\' => line.extend(['\\', char]),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            char if is_harmful(char) => push_json_escape(line, char),
            char => line.push(char),
        }
    }
}

fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| (0x20..0x7f).contains(&byte))
}

fn breaks_word(char: char) -> bool {
    char.is_whitespace() || is_harmful(char) || matches!(char, '=' | '"')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `escape` makes of a text that stands behind another one.
    fn made(text: &str, escape: impl Fn(&mut String, usize)) -> String {
        let mut line = format!("\n\x1b{text}");
        escape(&mut line, 2);
        line.strip_prefix("\n\x1b").expect("what stood there before stays").to_owned()
    }

    #[test]
    fn message_keeps_its_lines_and_its_letters_and_loses_control() {
        let cases = [
            ("plain", "plain"),
            ("", ""),
            ("é 漢 ✓", "é 漢 ✓"),
            ("tab\tbed, quoted \"\\\"", "tab\tbed, quoted \"\\\""),
            ("one\ntwo\n\nfour\n\n", "one>two>>four"),
            ("one\r\ntwo\r\n", "one>two"),
            ("over\rwritten", "over\\rwritten"),
            ("\x1b[2J\x07\0\x7f", "\\u{1b}[2J\\u{7}\\u{0}\\u{7f}"),
            ("\u{9b}2J \u{85} \u{2028} \u{2029}", "\\u{9b}2J \\u{85} \\u{2028} \\u{2029}"),
            ("\u{202e}txt.exe\u{2066}", "\\u{202e}txt.exe\\u{2066}"),
        ];
        for (text, expected) in cases {
            assert_eq!(made(text, |line, start| message(line, start, ">")), expected);
        }
    }

    #[test]
    fn word_has_nothing_that_would_end_it() {
        for (text, expected) in [("a::b", "a::b"), ("a b=c\n\"d\"", "a_b_c__d_"), ("é\x1b", "é_")] {
            assert_eq!(made(text, word), expected);
        }
    }

    #[test]
    fn value_is_quoted_when_its_end_would_not_be_seen() {
        let cases = [
            ("exited:3", "exited:3"),
            ("", "\"\""),
            ("a b", "\"a b\""),
            ("a=b", "\"a=b\""),
            ("say \"no\"\\\n", "\"say \\\"no\\\"\\\\\\n\""),
            ("\u{85}", "\"\\u{85}\""),
        ];
        for (text, expected) in cases {
            assert_eq!(made(text, value), expected);
        }
    }

    #[test]
    fn json_reads_back_as_the_text_and_is_one_line() {
        let hostile: String = (0..0x100)
            .filter_map(char::from_u32)
            .chain("\u{2028}\u{202e}漢\u{10ffff}\u{ad}\u{e0041}".chars())
            .collect();
        for text in ["plain", "", "\"\\\n\"}", &hostile] {
            let json = made(text, json);
            assert!(!json.contains(is_harmful), "{json}");
            #[cfg(feature = "serde")]
            assert_eq!(serde_json::from_str::<String>(&format!("\"{json}\"")).unwrap(), text);
        }
    }
}

//! Text from anywhere, such as a client's request, that must not steer a terminal.

/// Tells whether a character is a control character, a line end of Unicode, makes a terminal show text in another order than it
/// has, or is not to be seen, so that two texts look the same.
pub(crate) fn is_harmful(char: char) -> bool {
    char.is_control()
        || matches!(
            char,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2064}'
            | '\u{2066}'..='\u{2069}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}'
        )
}

/// Appends a character as JSON has it escaped: by its number, or by the two of its pair.
pub(crate) fn push_json_escape(to: &mut String, char: char) {
    for unit in char.encode_utf16(&mut [0; 2]) {
        to.push_str(&format!("\\u{unit:04x}"));
    }
}

#[cfg(test)]
mod tests {
    use super::{is_harmful, push_json_escape};

    #[test] // O-ST-16
    fn what_is_not_to_be_seen_is_harmful() {
        let hidden = "\u{ad}\u{180e}\u{200b}\u{200d}\u{200f}\u{2060}\u{2064}\u{feff}\u{e0000}\u{e0041}\u{e007f}";
        for harmful in hidden.chars() {
            assert!(is_harmful(harmful), "{harmful:?}");
        }
        let mut escaped = String::new();
        "\u{7f}\u{feff}\u{e0041}".chars().for_each(|char| push_json_escape(&mut escaped, char));
        assert_eq!(escaped, "\\u007f\\ufeff\\udb40\\udc41");
    }

    #[test] // O-ST-16
    fn letters_are_harmless_and_control_is_not() {
        assert!(!"plain é 漢 ✓ \"\\<&>".chars().any(is_harmful));
        for harmful in "\0\t\n\r\x1b\x7f\u{85}\u{9b}\u{200f}\u{2028}\u{202e}\u{2066}".chars() {
            assert!(is_harmful(harmful), "{harmful:?}");
        }
    }
}

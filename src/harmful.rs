//! Text from anywhere, such as a client's request, that must not steer a terminal.

/// Tells whether a character is a control character, a line end of Unicode, or makes a terminal show text in another order
/// than it has.
pub(crate) fn is_harmful(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::is_harmful;

    #[test] // O-ST-16
    fn letters_are_harmless_and_control_is_not() {
        assert!(!"plain é 漢 ✓ \"\\<&>".chars().any(is_harmful));
        for harmful in "\0\t\n\r\x1b\x7f\u{85}\u{9b}\u{200f}\u{2028}\u{202e}\u{2066}".chars() {
            assert!(is_harmful(harmful), "{harmful:?}");
        }
    }
}

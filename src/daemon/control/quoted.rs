//! What a client has sent, in an answer that says what was wrong with it.

use std::fmt;

/// A text in quotes, as far as anybody wants to read it. To write all of a long one takes milliseconds, which any client could cost.
pub(in crate::daemon) struct Quoted<'a>(pub(in crate::daemon) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Quoted(text) = self;
        match text.char_indices().nth(LONGEST) {
            Some((end, _)) => write!(f, "{:?}...", &text[..end]),
            None => write!(f, "{text:?}"),
        }
    }
}

/// How many characters are shown.
const LONGEST: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_cut_at_a_character() {
        assert_eq!(Quoted("a \"b\"").to_string(), r#""a \"b\"""#);
        let cut = format!("{:?}...", "é".repeat(LONGEST));
        assert_eq!(Quoted(&"é".repeat(LONGEST + 1)).to_string(), cut);
        assert_eq!(Quoted(&"é".repeat(60_000)).to_string(), cut);
    }
}

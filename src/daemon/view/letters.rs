//! The letters of the scoreboard, for readers.

/// Each letter, and what a child with it does. A blank is a free slot.
pub(super) const LETTERS: [(char, &str); 9] = [
    ('F', "is being forked"),
    ('f', "was forked"),
    ('.', "prepares"),
    ('w', "is idle"),
    ('r', "handles a request"),
    ('l', "handles a long request"),
    ('k', "keeps a connection"),
    ('e', "is exiting"),
    ('?', "can't be read"),
];

/// Returns what a child with this letter does.
pub(super) fn meaning(letter: char) -> &'static str {
    LETTERS.iter().find(|(known, _)| *known == letter).unwrap_or(&LETTERS[LETTERS.len() - 1]).1
}

/// Returns the letter, or `?` for one that is not among [`LETTERS`].
pub(in crate::daemon) fn known(letter: char) -> char {
    if letter == ' ' || LETTERS.iter().any(|(known, _)| *known == letter) { letter } else { '?' }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // O-ST-17
    fn no_other_letter_is_shown() {
        for (letter, meant) in LETTERS {
            assert_eq!((known(letter), meaning(letter)), (letter, meant));
        }
        assert_eq!(known(' '), ' ');
        for unknown in ['x', 'R', '\0', '\x1b', 'é'] {
            assert_eq!((known(unknown), meaning(unknown)), ('?', meaning('?')));
        }
    }
}

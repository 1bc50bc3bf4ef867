//! Numbers as people read them, and text from the network made harmless.

use crate::harmful::is_harmful;

/// Writes a span of so many seconds in its two largest units: `5 min 3 s`, `1.25 s`, `340 µs`.
pub fn span(seconds: f64) -> String {
    if seconds < 0.0005 {
        return format!("{:.0} µs", seconds * 1e6);
    }
    if seconds < 1.0 {
        return format!("{} ms", short(seconds * 1e3));
    }
    if seconds < 59.95 {
        return format!("{} s", short(seconds));
    }
    let whole = seconds.round() as u64;
    let (large, unit, small, small_unit) = match whole {
        0..3_600 => (whole / 60, "min", whole % 60, "s"),
        3_600..86_400 => (whole / 3_600, "h", whole / 60 % 60, "min"),
        _ => (whole / 86_400, "d", whole / 3_600 % 24, "h"),
    };
    format!("{large} {unit} {small} {small_unit}")
}

/// Writes a number with at most three digits that count.
fn short(number: f64) -> String {
    match number {
        ..9.995 => format!("{number:.2}"),
        ..99.95 => format!("{number:.1}"),
        _ => format!("{number:.0}"),
    }
}

/// Writes a number of bytes: `13.4 MiB`.
pub fn bytes(bytes: u64) -> String {
    let mut number = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if number < 1000.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{} {unit}", short(number)) };
        }
        number /= 1024.0;
    }
    format!("{} TiB", short(number))
}

/// Appends text from the network with what could steer a terminal written as an escape.
pub(super) fn push_harmless(to: &mut String, text: &str) {
    for char in text.chars() {
        if is_harmful(char) || char == '\\' { to.extend(char.escape_default()) } else { to.push(char) }
    }
}

/// Returns text from the network with what could steer a terminal written as an escape.
pub fn harmless(text: &str) -> String {
    let mut harmless = String::new();
    push_harmless(&mut harmless, text);
    harmless
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn span_has_its_two_largest_units() {
        for (seconds, text) in [
            (0.0, "0 µs"),
            (0.00034, "340 µs"),
            (0.00123, "1.23 ms"),
            (0.5, "500 ms"),
            (1.0, "1.00 s"),
            (12.34, "12.3 s"),
            (59.97, "1 min 0 s"),
            (303.4, "5 min 3 s"),
            (7_260.0, "2 h 1 min"),
            (180_000.0, "2 d 2 h"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn bytes_have_three_digits() {
        for (number, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_024, "1.00 KiB"),
            (14_051_000, "13.4 MiB"),
            (1 << 32, "4.00 GiB"),
            (u64::MAX, "16777216 TiB"),
        ] {
            assert_eq!(bytes(number), text);
        }
    }

    #[test] // O-ST-16
    fn text_from_the_network_can_not_steer_a_terminal() {
        assert_eq!(harmless("é 漢 \"q\" <b>"), "é 漢 \"q\" <b>");
        assert_eq!(harmless("a\u{ad}b\u{e0041}"), "a\\u{ad}b\\u{e0041}");
        assert_eq!(harmless("\x1b[2J\\\n\u{202e}\u{9b}"), "\\u{1b}[2J\\\\\\n\\u{202e}\\u{9b}");
    }
}

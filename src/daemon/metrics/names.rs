//! The rules for names of metrics, by Prometheus's text format and by OpenMetrics.

use super::register::Shape;

/// Checks a name by itself.
///
/// # Errors
///
/// Which rule it breaks.
pub(super) fn check(name: &str, shape: Shape) -> Result<(), &'static str> {
    let is_letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    if !name.starts_with(is_letter) || !name.chars().all(|c| is_letter(c) || c.is_ascii_digit()) {
        // Prometheus keeps `:` for the names that its own rules give.
        return Err("a name is made of letters, digits and _, and does not begin with a digit");
    }
    if name.starts_with("lenore_") || name.starts_with("process_") {
        return Err("names that begin with lenore_ or process_ are the Daemon's own");
    }
    if shape == Shape::Counter {
        return match name.strip_suffix("_total") {
            None | Some("") => Err("the name of a counter ends in _total"),
            Some(_) => Ok(()),
        };
    }
    if RESERVED.iter().any(|suffix| name.ends_with(suffix)) {
        return Err(
            "names that end in _total, _bucket, _count, _sum or _created are those of counters and parts of histograms",
        );
    }
    Ok(())
}

/// Returns all names under which a metric is shown: that of its family, and those of its samples.
pub(super) fn shown(name: &str, shape: Shape) -> Vec<String> {
    let (family, suffixes): (_, &[&str]) = match shape {
        Shape::Counter => (name.strip_suffix("_total").unwrap_or(name), &["_total", "_created"]),
        Shape::Gauge(_) => (name, &[]),
        Shape::Histogram => (name, &["_bucket", "_count", "_sum", "_created"]),
    };
    let samples = suffixes.iter().map(|suffix| format!("{family}{suffix}"));
    std::iter::once(family.to_owned()).chain(samples).collect()
}

/// Ends of names that have a meaning.
const RESERVED: [&str; 5] = ["_total", "_bucket", "_count", "_sum", "_created"];

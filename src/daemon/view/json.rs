//! Values as JSON on one line, which does nothing to a terminal either.

use serde::Serialize;

use crate::harmful::{is_harmful, push_json_escape};

/// Writes a value as JSON. What could steer a terminal stands in it as an escape.
pub(in crate::daemon) fn text<T: Serialize>(value: &T) -> String {
    // Only what can't be JSON fails, such as a map whose keys are no strings. There is none.
    let json = serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned());
    if !json.contains(is_harmful) {
        return json;
    }
    // Outside of strings there is no such character, so that each of them may be an escape.
    let mut harmless = String::with_capacity(json.len() + 64);
    for char in json.chars() {
        if is_harmful(char) {
            push_json_escape(&mut harmless, char);
        } else {
            harmless.push(char);
        }
    }
    harmless
}

#[cfg(test)]
mod tests {
    use super::super::sample::snapshot;
    use super::*;
    use crate::daemon::view::{SCHEMA, Snapshot};

    #[test] // O-ST-13, O-ST-16
    fn snapshot_reads_back_as_it_was_and_is_one_harmless_line() {
        let json = text(&snapshot());
        assert!(!json.contains(is_harmful), "{json}");
        assert!(json.starts_with(&format!("{{\"schema\":{SCHEMA},")), "{json}");
        assert_eq!(serde_json::from_str::<Snapshot>(&json).unwrap(), snapshot());
    }

    #[test] // O-ST-13: how long ago, and when
    fn every_time_is_given_in_both_ways() {
        let json: serde_json::Value = serde_json::from_str(&text(&snapshot())).unwrap();
        for time in
            ["/service/started", "/children/0/since", "/children/0/started", "/deaths/0/reaped", "/pool/saturated"]
        {
            let time = json.pointer(time).unwrap();
            assert!(time["seconds_ago"].is_f64() && time["at"].as_str().unwrap().ends_with('Z'), "{time}");
        }
    }
}

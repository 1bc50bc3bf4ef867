//! Which version of a file it is: its tag and its time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Opened;
use super::encodings::Coding;

/// What tells a version of a file from others.
#[derive(Debug)]
pub(super) struct Version {
    /// Without the `W/` of a weak one. `None` if the system knows no time of the last change.
    tag: Option<String>,
    is_weak: bool,
    /// In whole seconds, as a header says it.
    changed: Option<SystemTime>,
}

impl Version {
    pub(super) fn new(opened: &Opened, coding: Option<Coding>) -> Version {
        let since = opened.changed.and_then(|changed| changed.duration_since(UNIX_EPOCH).ok());
        let suffix = coding.map_or("", Coding::name);
        let tag = since.map(|since| format!("\"{:x}-{:x}{suffix}\"", opened.length, since.as_nanos()));
        let age = opened.changed.and_then(|changed| SystemTime::now().duration_since(changed).ok());
        Version {
            tag,
            is_weak: age.is_none_or(|age| age < SETTLED),
            changed: since.map(|since| UNIX_EPOCH + Duration::from_secs(since.as_secs())),
        }
    }

    /// Returns the tag as `ETag` has it.
    pub(super) fn tag(&self) -> Option<String> {
        self.tag.as_ref().map(|tag| format!("{}{tag}", if self.is_weak { "W/" } else { "" }))
    }

    pub(super) fn changed(&self) -> Option<SystemTime> {
        self.changed
    }

    /// Tells whether a list of tags has this one, be either of them weak: good enough to leave a body away.
    pub(super) fn is_among(&self, list: &str) -> bool {
        tags(list).any(|tag| tag == "*" || Some(tag.strip_prefix("W/").unwrap_or(tag)) == self.tag.as_deref())
    }

    /// Tells whether a list of tags has this one, byte for byte the same: what parts can be put together by.
    pub(super) fn is_strongly_among(&self, list: &str) -> bool {
        tags(list).any(|tag| tag == "*" || !self.is_weak && Some(tag) == self.tag.as_deref())
    }
}

/// Splits a list of tags. None of this server's has a comma.
fn tags(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim)
}

/// How long after a change another one is sure to have another time, on any file system in use.
const SETTLED: Duration = Duration::from_secs(2);

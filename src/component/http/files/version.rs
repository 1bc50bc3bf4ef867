//! The version of a file: its tag and its time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Opened;
use super::encodings::Coding;

/// What distinguishes the versions of a file.
#[derive(Debug)]
pub(super) struct Version {
    /// Without the `W/` of a weak tag. `None` if the system does not know the modification time.
    tag: Option<String>,
    is_weak: bool,
    /// In whole seconds, as in a header field.
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

    /// Returns the tag for the `ETag` field.
    pub(super) fn tag(&self) -> Option<String> {
        self.tag.as_ref().map(|tag| format!("{}{tag}", if self.is_weak { "W/" } else { "" }))
    }

    pub(super) fn changed(&self) -> Option<SystemTime> {
        self.changed
    }

    /// Tells whether a list contains this tag. Weak tags match as well, which is enough to leave a body out.
    pub(super) fn is_among(&self, list: &str) -> bool {
        tags(list).any(|tag| tag == "*" || Some(tag.strip_prefix("W/").unwrap_or(tag)) == self.tag.as_deref())
    }

    /// Tells whether a list contains this very tag, byte for byte. Only then may a client put parts together.
    pub(super) fn is_strongly_among(&self, list: &str) -> bool {
        tags(list).any(|tag| tag == "*" || !self.is_weak && Some(tag) == self.tag.as_deref())
    }
}

/// Splits a list of tags. This server's own tags have no comma.
fn tags(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim)
}

/// After this time, another change has another modification time on any file system in use.
const SETTLED: Duration = Duration::from_secs(2);

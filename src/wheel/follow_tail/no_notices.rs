//! No reports of changes, without the feature `inotify` or on a system without inotify.

use std::os::fd::RawFd;
use std::path::Path;

use crate::kernel::{Core, Mailbox, SessionId, SourceKey};

#[derive(Default)]
pub(super) struct Notices;

/// Which changes are reported while the wheel waits.
#[derive(Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "what inotify would say")]
pub(super) enum Outlook {
    Blind,
    LookAgain,
    Told,
}

impl Notices {
    pub(super) fn watch(
        &self,
        _: &mut Core,
        _: (SourceKey, SessionId),
        _: [Option<RawFd>; 2],
        _: Option<&Path>,
    ) -> Outlook {
        Outlook::Blind
    }

    pub(super) fn next_file(&self) {}

    pub(super) fn close(&self, _: &Mailbox) {}
}

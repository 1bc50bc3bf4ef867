//! What is left of a role in a process that was just forked.

use crate::kernel::SourceKey;

/// What a process keeps that somebody has forked, until the Daemon says that it is one of its children. If the Daemon did not fork
/// it, nothing here is its business, and it stays that.
#[derive(Default)]
pub(in crate::daemon) struct Bystander {
    /// The Daemon's parent process.
    pub(in crate::daemon) parent: i32,
    /// The service's listeners, if a child has forked this process: they are closed when the Daemon ends here.
    pub(in crate::daemon) listeners: Vec<SourceKey>,
}

//! What is left of a role in a process that was just forked.

use crate::kernel::SourceKey;

/// What a process has that was just forked. The Daemon makes it a child if the Daemon has asked for the fork. A process that other
/// code has forked stays a bystander.
#[derive(Default)]
pub(in crate::daemon) struct Bystander {
    /// The Daemon's parent process.
    pub(in crate::daemon) parent: i32,
    /// The service's listeners, if a child has forked this process: they are closed when the Daemon ends here.
    pub(in crate::daemon) listeners: Vec<SourceKey>,
}

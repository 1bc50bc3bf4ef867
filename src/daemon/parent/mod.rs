//! The parent: what it decides about its children, and how it carries that out.

pub(super) mod babysit;
pub(super) mod deaths;
pub(super) mod oom;
pub(super) mod pool;
pub(super) mod queue_watch;
pub(super) mod ready;
pub(super) mod relief;
pub(super) mod resize;
pub(super) mod role;
mod shortage;
pub(super) mod shutdown;
mod table;
mod usage;

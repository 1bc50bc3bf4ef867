//! A stream of bytes between a descriptor and a session: what `ReadWrite`, `Run` and `FollowTail` have in common.

pub(super) mod descriptor;
pub(super) mod inbox;
pub(super) mod marks;
pub(super) mod outbox;
pub(super) mod output;
pub(super) mod records;
mod transport;

pub(super) use descriptor::check_is_stream;
pub(super) use transport::Stream;
pub use transport::Transport;

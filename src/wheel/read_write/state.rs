//! What a `ReadWrite` shares with the kernel.

use super::base::{Base, Port};
use super::duplex::Closing;
use super::opening::Opening;
use super::reader::Reader;
use crate::wheel::stream::outbox::Outbox;

/// Both directions of a wheel. No borrow lasts while a state runs.
pub(crate) struct State {
    pub(super) base: Base,
    /// A transport of the program's own reads and writes.
    pub(super) is_over_transport: bool,
    /// The descriptor that is read, and written to if it is the only one.
    pub(super) port: Port,
    pub(super) output_port: Option<Port>,
    pub(super) reader: Reader,
    pub(super) outbox: Outbox,
    /// A put into an empty buffer is written at once.
    pub(super) auto_flush: bool,
    pub(super) opening: Opening,
    pub(super) closing: Closing,
}

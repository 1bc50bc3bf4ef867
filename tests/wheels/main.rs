//! The wheels: sections 14 to 16 and 18 of the behaviour specification.

mod follow_tail;
mod listen_accept;
mod read_write;
mod socket_factory;

//! The wheels: sections 14 to 16 of the behaviour specification.

mod listen_accept;
mod read_write;
mod socket_factory;

//! The wheels: sections 14 to 16 of the behaviour specification.

#[path = "../util/mod.rs"]
mod util;

mod listen_accept;
mod read_write;
mod socket_factory;

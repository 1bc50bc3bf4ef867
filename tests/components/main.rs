//! The TCP components: section 21 of the behaviour specification.

#[path = "../util/mod.rs"]
mod util;

mod patience;
mod server;
mod support;
mod tcp_client;
mod tcp_server;
mod together;

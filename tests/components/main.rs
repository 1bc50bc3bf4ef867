//! The TCP components: section 21 of the behaviour specification.

mod listening;
mod patience;
mod server;
mod tcp_client;
mod tcp_server;
mod together;

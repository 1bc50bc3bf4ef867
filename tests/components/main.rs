//! The TCP components: section 21 of the behaviour specification.

mod concurrency;
mod endings;
mod listening;
mod next_protocol;
mod patience;
mod server;
mod service;
mod tcp_client;
mod tcp_server;
mod time;
mod together;

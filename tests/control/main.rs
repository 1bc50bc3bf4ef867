//! A running Daemon as an operator sees and steers it: its board, the control socket and what is asked there, and what is counted. The
//! programs are `tests/programs/daemon_control.rs`, `daemon_prefork.rs`, `app_metrics.rs` and `accept_waits.rs`.

mod app_metrics;
mod asks;
mod board;
mod durations;
mod http;
mod limits;
mod metrics;
mod orders;
mod page;
mod path;
mod queues;
mod rights;
mod scale;
mod schema;
mod snapshot;
mod socket;
mod state_file;
mod stops;
mod watch;

//! How a program begins with what others have opened for it, what its service manager hears, and how it changes while it runs. The
//! programs are `tests/programs/inherited.rs`, `listen_launch.rs` and `daemon_control.rs`, and the examples.

mod deploy;
mod lame_duck;
mod listeners;
mod notify;
mod pid1;

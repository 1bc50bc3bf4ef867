//! How a program begins with what others have opened for it, what its service manager hears, and how it changes while it runs. The
//! programs are `tests/programs/inherited.rs`, `listen_launch.rs`, `daemon_control.rs`, `daemon_change.rs` and `configured.rs`, and the examples.

mod addresses;
mod changing;
mod counters;
mod deploy;
mod examples;
mod failing;
mod kinds;
mod lame_duck;
mod listeners;
mod load;
mod notify;
mod orders;
mod pid1;
mod probation;
mod reload;
mod roll;
mod sizes;
mod stages;
mod store;
mod superseded;
mod upgrade;
mod upgrade_board;
mod upgrade_failing;
mod upgrade_manager;
mod upgrade_names;
mod upgrade_program;
mod upgrade_watched;
mod upgrading;
mod watchdog;

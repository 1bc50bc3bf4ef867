//! A running Daemon as an operator sees and steers it: the control socket and what is asked there. The program is
//! `tests/programs/daemon_control.rs`.

mod limits;
mod rights;
mod socket;

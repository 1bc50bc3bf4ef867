//! How a program begins with what others have opened for it. The programs are `tests/programs/inherited.rs` and `listen_launch.rs`, and
//! the examples.

mod listeners;

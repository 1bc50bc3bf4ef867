//! The Daemon session, watched from outside: what it tells the application, in which order, and what becomes of the
//! processes. The programs are `tests/programs/daemon_*.rs`.

mod util;

#[path = "daemon/babysit.rs"]
mod babysit;
#[path = "daemon/children.rs"]
mod children;
#[path = "daemon/crashes.rs"]
mod crashes;
#[path = "daemon/lab.rs"]
mod lab;
#[path = "daemon/postfork.rs"]
mod postfork;
#[path = "daemon/prefork.rs"]
mod prefork;
#[path = "daemon/shutdown.rs"]
mod shutdown;
#[path = "daemon/spawn.rs"]
mod spawn;

//! The Daemon session, watched from outside: what it tells the application, in which order, and what becomes of the
//! processes. The programs are `tests/programs/daemon_*.rs`.

#[path = "daemon/babysit.rs"]
mod babysit;
#[path = "daemon/background.rs"]
mod background;
#[path = "daemon/cgroup.rs"]
mod cgroup;
#[path = "daemon/children.rs"]
mod children;
#[path = "daemon/component.rs"]
mod component;
#[path = "daemon/crashes.rs"]
mod crashes;
#[path = "daemon/deaf.rs"]
mod deaf;
#[path = "daemon/demand.rs"]
mod demand;
#[path = "daemon/descriptors.rs"]
mod descriptors;
#[path = "daemon/detach.rs"]
mod detach;
#[path = "daemon/differential.rs"]
mod differential;
#[path = "daemon/exit.rs"]
mod exit;
#[path = "daemon/failures.rs"]
mod failures;
#[path = "daemon/inject.rs"]
mod inject;
#[path = "daemon/leaving.rs"]
mod leaving;
#[path = "daemon/log_file.rs"]
mod log_file;
#[path = "daemon/orphans.rs"]
mod orphans;
#[path = "daemon/pid_file.rs"]
mod pid_file;
#[path = "daemon/places.rs"]
mod places;
#[path = "daemon/postfork.rs"]
mod postfork;
#[path = "daemon/prefork.rs"]
mod prefork;
#[path = "daemon/privileges.rs"]
mod privileges;
#[path = "daemon/relief.rs"]
mod relief;
#[path = "../src/daemon/machine/sim/schedule.rs"]
mod schedule;
#[path = "daemon/servers.rs"]
mod servers;
#[path = "daemon/shortage.rs"]
mod shortage;
#[path = "daemon/shutdown.rs"]
mod shutdown;
#[path = "daemon/site.rs"]
mod site;
#[path = "daemon/spawn.rs"]
mod spawn;
#[path = "daemon/spreading.rs"]
mod spreading;
#[path = "daemon/stops.rs"]
mod stops;
#[path = "daemon/term.rs"]
mod term;
#[path = "daemon/terminal.rs"]
mod terminal;

//! Writes what `DaemonBuilder::spawn` makes of good and bad settings, a line for each, for `tests/daemon.rs`.

use std::error::Error;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use lenore::daemon::{DaemonBuilder, DaemonError};
use lenore::{Daemon, Kernel};

fn main() -> Result<(), Box<dyn Error>> {
    util::daemon_program::log_to_stderr();
    let daemon = Daemon::builder;
    try_it("spare", daemon().start_children(2).max_children(10).min_spare(5).max_spare(3))?;
    try_it("start", daemon().start_children(11).max_children(10))?;
    try_it("zero", daemon().start_children(1).shutdown_timeout(Duration::ZERO))?;
    try_it("many", daemon().start_children(1).max_children(u32::MAX))?;
    try_it("ten", daemon().start_children(10))?;
    try_it("three", daemon().start_children(3).max_children(10))?;
    try_it("post", daemon().max_children(7))?;
    try_it("none", daemon())?;
    let (sender, receiver) = mpsc::channel::<()>();
    let (running, runs) = mpsc::channel();
    let thread = thread::Builder::new().name("lingering".to_owned()).spawn(move || {
        let _ = running.send(());
        receiver.recv()
    })?;
    // Until then it has another name.
    runs.recv()?;
    try_it("threads", daemon().start_children(1))?;
    try_it("threads-post", daemon().max_children(1))?;
    try_it("threads-none", daemon())?;
    try_it("threads-detach", daemon().detach(true).logfile("/nonexistent/log"))?;
    drop(sender);
    let _ = thread.join();
    for _ in 0..20 {
        util::daemon_program::join_a_thread();
        let mut kernel = Kernel::new()?;
        if let Err(error) = daemon().start_children(1).spawn(&mut kernel) {
            println!("joined: {error}");
        }
    }
    println!("alone");
    let mut kernel = Kernel::new()?;
    daemon().spawn(&mut kernel)?;
    kernel.run()?; // D-SH-06: until TERM, although nothing else lives here
    println!("ended");
    Ok(())
}

/// Spawns in a kernel of its own, and says whether a session was left there.
fn try_it(name: &str, builder: DaemonBuilder) -> Result<(), Box<dyn Error>> {
    let mut kernel = Kernel::new()?;
    match builder.spawn(&mut kernel) {
        Ok(daemon) => {
            let status = daemon.status(&mut kernel)?;
            println!("{name}: {} with {} slots", status.forking, status.board.len());
        }
        Err(error) => {
            let kind = match error {
                DaemonError::Settings(_) => "Settings",
                DaemonError::Threads { .. } => "Threads",
                _ => "other",
            };
            let sessions = kernel.peek().sessions.len();
            println!("{name}: {kind}: {error}; {sessions} sessions");
        }
    }
    Ok(())
}

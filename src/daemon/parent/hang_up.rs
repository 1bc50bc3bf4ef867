//! HUP: the application is told, the log file is opened again, and the children are told to do the same. Or, for a server
//! whose log goes to a terminal: the terminal is gone, and the server ends.

use nix::sys::signal::Signal;

use crate::daemon::announce::broadcast;
use crate::daemon::parent::shutdown;
use crate::daemon::session::{Cx, Role, signal_children};
use crate::error::Result;

/// Tells the application. The rest comes behind that in the queue, so that what its states still write goes where it
/// has gone so far.
pub(in crate::daemon) fn hang_up(cx: &mut Cx<'_>) -> Result {
    cx.sig_handled();
    if cx.heap().ends_on_hup {
        if cx.heap().role == Role::Parent && !cx.heap().is_shutting_down() {
            log::info!(target: "lenore::daemon", "shutting down: HUP, with a controlling terminal and without a logfile");
        }
        return shutdown::signalled(cx);
    }
    broadcast(cx, "daemon_HUP");
    cx.yield_("reopen", ());
    Ok(())
}

/// Opens the log file again, and only then tells the children: the file is there when they look for it.
///
/// A child that is forked before this is on the table by now and is told; one that is forked later has the new file.
pub(in crate::daemon) fn reopen(cx: &mut Cx<'_>) {
    let pid = cx.pid();
    if let Some(log_file) = &cx.heap().process.log_file {
        match log_file.redirect() {
            Ok(()) => log::info!(target: "lenore::daemon", "process {pid} has reopened {}", log_file.path().display()),
            Err(error) => log::error!(target: "lenore::daemon", "the old log file stays in use: {error} pid={pid}"),
        }
    }
    signal_children(cx.heap(), Signal::SIGHUP);
}

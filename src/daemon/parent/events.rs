//! What happens to a parent, told to its machine: forks, ends, requests, and what the launcher does.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use crate::args::Args;
use crate::daemon::heap::Cx;
use crate::daemon::launch::Launch;
use crate::daemon::machine::{End, Input, Key, Refusal};
use crate::daemon::parent::drive::drive;
use crate::daemon::parent::manager;
use crate::daemon::parent::refused::{Reason, Refused};
use crate::daemon::parent::reload;
use crate::error::{Error, Result};
use crate::inject::{self, Point};

/// The application of a post-forking server hands a request over.
pub(in crate::daemon) fn take_request(cx: &mut Cx<'_>, is_long: bool, payload: Args) -> Result {
    let Some(parent) = cx.heap().role.parent_mut() else { return Ok(()) };
    parent.requests_seen += 1;
    let number = parent.requests_seen;
    parent.payloads.insert(number, payload);
    drive(cx, Input::Request { number, is_long })
}

/// A fork was carried out, or failed.
pub(in crate::daemon) fn forked(cx: &mut Cx<'_>) -> Result {
    inject::pass(Point::Forked);
    let Some(parent) = cx.heap().role.parent_mut() else { return Ok(()) };
    let Some((key, request)) = parent.forks.pop_front() else { return Ok(()) };
    let outcome = match cx.take::<Result<i32, Error>>(0)? {
        Ok(pid) => {
            if let Some(parent) = cx.heap().role.parent_mut() {
                parent.pids.enter(key, pid);
            }
            cx.sig_child(pid, "reaped", (key,));
            Ok(())
        }
        Err(error) => {
            let (payload, now) = (std::mem::take(cx.args()).skip(2), cx.now());
            let Some(parent) = cx.heap().role.parent_mut() else { return Ok(()) };
            if let Some(number) = request {
                parent.payloads.insert(number, payload);
            }
            let reason = Reason::of(&error);
            #[cfg(feature = "control")]
            if let Some(ledger) = &mut parent.ledger {
                ledger.fork_failed(reason);
            }
            if let Some(reason) = reason {
                parent.shortage.failed(reason, now);
            }
            parent.refused = Some(Refused { error, reason });
            reload::fork_failed(cx, key);
            Err(reason.map_or(Refusal::ForGood, |reason| Refusal::ForNow(reason.number())))
        }
    };
    drive(cx, Input::Forked(key, outcome))
}

/// The system says that a child has ended.
pub(in crate::daemon) fn reaped(cx: &mut Cx<'_>) -> Result {
    inject::pass(Point::Reaped);
    let (status, key) = (*cx.arg::<ExitStatus>(2)?, *cx.arg::<Key>(3)?);
    let end = match status.signal() {
        Some(signal) => End::Signaled { signal, has_core: status.core_dumped() },
        None => End::Exited(status.code().unwrap_or_default()),
    };
    drive(cx, Input::Reaped(key, end))
}

/// A launcher waits: begins to watch for its answer, or its death. Weakly: it keeps nothing alive.
pub(in crate::daemon) fn launched(cx: &mut Cx<'_>) -> Result {
    let launch: Launch = cx.take(0)?;
    let end = launch.end().clone();
    cx.heap().process.launch = Some(launch);
    cx.select_read_weak(&end, "launcher_answered", ())?;
    drive(cx, Input::Launched)
}

/// The start begins. A service manager or a predecessor waits for its end, as a launcher does.
pub(in crate::daemon) fn begun(cx: &mut Cx<'_>) -> Result {
    let is_managed = manager::begin(cx);
    let waits = cx.heap().role.parent().is_some_and(|parent| parent.upgrade.waits());
    if is_managed || waits { drive(cx, Input::Launched) } else { Ok(()) }
}

/// Behind `daemon_parent` in the queue. And once more round the loop: an application that could not handle it, a `DIE`
/// signal by now, is not ready.
pub(in crate::daemon) fn ready_soon(cx: &mut Cx<'_>) {
    cx.yield_("ready", ());
}

/// The launcher acknowledges that the daemon is ready, or else was interrupted or killed. The person or program that did so
/// does not want the daemon.
pub(in crate::daemon) fn launcher_answered(cx: &mut Cx<'_>) -> Result {
    let Some(launch) = cx.heap().process.launch.take() else { return Ok(()) };
    cx.select_read_clear(launch.end());
    drive(cx, Input::LauncherGone { has_acknowledged: launch.is_acknowledged() })
}

//! The scout's way: the file is read, the scout loads what was read, and the machine is told what has come of it.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::rc::Rc;

use crate::daemon::heap::Cx;
use crate::daemon::machine::{Edition, End, Input, Rejection};
use crate::daemon::parent::candidate::Told;
use crate::daemon::parent::drive::drive;
use crate::daemon::parent::manager;
use crate::daemon::parent::reload::{bound_for_check, let_go_of_scout, reloading};
use crate::daemon::parent::scout::scout;
use crate::error::Result;

/// Reads the file, and has it loaded.
pub(in crate::daemon) fn read(cx: &mut Cx<'_>) -> Result {
    let edition = *cx.arg::<Edition>(0)?;
    let Some(source) = cx.heap().config.as_ref().map(|config| config.source()) else { return Ok(()) };
    drive(cx, Input::ScoutBegins(edition))?;
    // Operators that have asked by now get this run's verdict. Those that ask later get the next one's. A service manager that has
    // asked sees by this that its reload has begun.
    let bound = bound_for_check(cx, edition);
    if bound.is_none() {
        manager::begin_change(cx, "reloading");
    }
    let bytes: Rc<[u8]> = match source.read() {
        Ok(bytes) => bytes.into(),
        Err(error) => {
            let cause = format!("{}: {error}", source.path().display());
            return fail(cx, edition, Rejection::Unreadable, cause);
        }
    };
    let me = cx.session();
    let made = scout(me, edition, source, Rc::clone(&bytes), bound);
    let Some(reload) = reloading(cx) else { return Ok(()) };
    reload.told = Told::default();
    reload.read = Some((edition, bytes));
    match made {
        Ok((scout, errand)) => {
            let end = scout.words.end.clone();
            reload.scout = Some(scout);
            cx.select_read_weak(&end, "scout_says", ())?;
            cx.core_mut().fork_for(me, errand);
            Ok(())
        }
        Err(error) => fail(cx, edition, Rejection::NoScout, error.to_string()),
    }
}

fn fail(cx: &mut Cx<'_>, edition: Edition, why: Rejection, cause: String) -> Result {
    if let Some(reload) = reloading(cx) {
        reload.told.cause = cause;
    }
    drive(cx, Input::Scouted(edition, Err(why)))
}

/// The scout could not be forked.
pub(in crate::daemon) fn scout_failed(cx: &mut Cx<'_>) -> Result {
    let (edition, cause) = (*cx.arg::<Edition>(0)?, cx.take::<String>(1)?);
    let_go_of_scout(cx);
    fail(cx, edition, Rejection::NoScout, cause)
}

/// The scout has ended.
pub(in crate::daemon) fn scout_ended(cx: &mut Cx<'_>) -> Result {
    let (status, edition) = (*cx.arg::<ExitStatus>(2)?, *cx.arg::<Edition>(3)?);
    // One that was ended because it had its time has a successor perhaps.
    let is_meant = reloading(cx).and_then(|reload| reload.scout.as_ref()).is_some_and(|scout| scout.edition == edition);
    let Some(mut scout) = is_meant.then(|| let_go_of_scout(cx)).flatten() else { return Ok(()) };
    let answer = scout.answer().unwrap_or_else(|| {
        let end = match status.signal() {
            Some(signal) => End::Signaled { signal, has_core: status.core_dumped() },
            None => End::Exited(status.code().unwrap_or_default()),
        };
        Err((Rejection::ScoutDied(end), String::new()))
    });
    if let Some(reload) = reloading(cx) {
        reload.told.last_words = scout.words.text();
    }
    match answer {
        Ok(()) => drive(cx, Input::Scouted(edition, Ok(()))),
        Err((why, cause)) => fail(cx, edition, why, cause),
    }
}

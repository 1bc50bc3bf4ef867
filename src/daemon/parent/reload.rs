//! Reloads, as far as the parent carries them out: reading the file, the scout, the editions, and what new children say.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use nix::sys::signal::Signal;

use crate::daemon::announce::broadcast;
use crate::daemon::config::{Config, Loaded};
use crate::daemon::heap::Cx;
use crate::daemon::listening;
use crate::daemon::machine::{Edition, Fork, Input, Key, Rejection, ReloadNews, Setback};
use crate::daemon::parent::candidate::Reloading;
use crate::daemon::parent::manager;
use crate::daemon::parent::role::Parent;
use crate::daemon::parent::scout::{Scout, Words, explain, pipe, scout, text_of_panic};
use crate::daemon::processes::send;
use crate::error::Result;

pub(super) fn reloading<'a>(cx: &'a mut Cx<'_>) -> Option<&'a mut Reloading> {
    cx.heap().role.parent_mut().map(|parent| &mut parent.reload)
}

/// The machine wants the file loaded by a scout. All events that wait are told first: an
/// operator that has asked for a reload by then gets this run's verdict.
pub(super) fn begin(cx: &mut Cx<'_>, edition: Edition) {
    cx.yield_("scout", (edition,));
}

/// The scout has written something.
pub(in crate::daemon) fn scout_says(cx: &mut Cx<'_>) {
    let Some(scout) = reloading(cx).and_then(|reload| reload.scout.as_mut()) else { return };
    if !scout.words.take() {
        let end = scout.words.end.clone();
        cx.select_read_clear(&end);
    }
}

/// Returns the addresses that this process listens on, if the run is for nobody but those who want a check.
pub(super) fn bound_for_check(cx: &mut Cx<'_>, edition: Edition) -> Option<Rc<[SocketAddr]>> {
    let heap = cx.heap();
    let is_check = heap.role.parent().is_some_and(|parent| !parent.machine.runs_for_more_than_checks(edition));
    heap.config.as_ref().filter(|_| is_check).map(Config::addresses)
}

/// Ends the scout, whatever it does.
pub(super) fn end_scout(cx: &mut Cx<'_>) {
    let Some(scout) = let_go_of_scout(cx) else { return };
    if let Some(pid) = scout.give_up() {
        send(pid, Signal::SIGKILL);
    }
    if let Some(reload) = reloading(cx) {
        reload.told.last_words = scout.words.text();
    }
}

/// The scout is not waited for any more.
pub(super) fn let_go_of_scout(cx: &mut Cx<'_>) -> Option<Scout> {
    let mut scout = reloading(cx)?.scout.take()?;
    scout.words.take();
    let end = scout.words.end.clone();
    cx.select_read_clear(&end);
    Some(scout)
}

/// Forks that were asked for were taken back. The scout's is not meant, and is asked for again.
pub(super) fn forks_taken_back(cx: &mut Cx<'_>) {
    let me = cx.session();
    let Some(source) = cx.heap().config.as_ref().map(|config| config.source()) else { return };
    let forks = cx.heap().role.parent().map(|parent| parent.forks.clone()).unwrap_or_default();
    for (key, _) in forks {
        forget_words(cx, key);
    }
    let Some(reload) = reloading(cx) else { return };
    let is_waiting = reload.scout.as_ref().is_some_and(|scout| scout.pid.get().is_none());
    let Some((edition, bytes)) = reload.read.clone().filter(|_| is_waiting) else { return };
    let_go_of_scout(cx);
    let bound = bound_for_check(cx, edition);
    if let Ok((scout, errand)) = scout(me, edition, source, bytes, bound) {
        let end = scout.words.end.clone();
        if let Some(reload) = reloading(cx) {
            reload.scout = Some(scout);
        }
        let _ = cx.select_read_weak(&end, "scout_says", ());
        cx.core_mut().fork_for(me, errand);
    }
}

/// Loads in this process what the scout has loaded. Returns what the machine is to be told.
pub(super) fn load(cx: &mut Cx<'_>, edition: Edition) -> Option<Input> {
    let source = cx.heap().config.as_ref()?.source();
    let (_, bytes) = reloading(cx)?.read.take().filter(|(read, _)| *read == edition)?;
    let loaded = match catch_unwind(AssertUnwindSafe(|| source.load(&bytes))) {
        Ok(loaded) => loaded.map_err(|why| explain(why).1),
        Err(panic) => Err(text_of_panic(&*panic)),
    };
    // Before anything of the old edition is closed.
    let bound =
        |loaded: Loaded| match cx.heap().config.as_ref().map_or(Ok(()), |config| listening::add(config, &loaded)) {
            Ok(()) => Ok(loaded),
            Err(error) => Err((Rejection::NotBound, error.to_string())),
        };
    let outcome = match loaded.map_err(|cause| (Rejection::NotInParent, cause)).and_then(bound) {
        Ok(loaded) => {
            if let Some(config) = &mut cx.heap().config {
                config.enter(edition, &loaded);
            }
            if let Some(reload) = reloading(cx) {
                reload.told.needs_restart.clone_from(&loaded.needs_restart);
            }
            Ok(loaded.tunable)
        }
        Err((why, cause)) => {
            if let Some(reload) = reloading(cx) {
                reload.told.cause = cause;
            }
            Err(why)
        }
    };
    Some(Input::Loaded(edition, outcome))
}

/// Has this edition from now on. The application hears of it.
pub(super) fn adopt(cx: &mut Cx<'_>, edition: Edition) {
    let (heap, core) = cx.parts();
    if let Some(config) = &mut heap.config {
        let (is_new, gone) = config.adopt(edition);
        // After a way back children accept on the others for a while.
        if is_new && heap.settings.has_way_back() {
            listening::keep(config, core, &gone);
        } else {
            listening::take_back(config);
        }
    }
    broadcast(cx, "daemon_reload");
    cx.yield_("edition_adopted", ());
}

/// Behind `daemon_reload` in the queue: the application listens on what the edition says.
pub(in crate::daemon) fn adopted(cx: &mut Cx<'_>) {
    if let Some(config) = cx.heap().config.as_ref() {
        listening::silence(config);
    }
}

/// An edition is not needed any more, or never was.
pub(super) fn forget(cx: &mut Cx<'_>, edition: Edition) {
    if let Some(reload) = reloading(cx)
        && reload.read.as_ref().is_some_and(|(read, _)| *read == edition)
    {
        reload.read = None;
    }
    if let Some(config) = &mut cx.heap().config {
        config.forget(edition);
        listening::retain(config);
    }
}

/// A child is about to be forked. Returns what is to be its standard error, if what it says may be why a reload fails, or an upgrade
/// to this process: the predecessor reads what this process writes, and so what is copied.
pub(super) fn watch(cx: &mut Cx<'_>, fork: &Fork) -> Option<(OwnedFd, OwnedFd)> {
    let is_on_trial = cx.heap().role.parent().is_some_and(|parent| parent.upgrade.waits());
    if !fork.is_watched && !is_on_trial {
        return None;
    }
    // Without it the reload goes on: only its last words will be missing.
    let (ours, theirs) = pipe().ok()?;
    let (notice, our_notice) = io::pipe().ok()?;
    cx.select_read_weak(&ours, "child_says", (fork.key,)).ok()?;
    let reload = reloading(cx)?;
    reload.words.push((fork.key, Words::new(ours, Some(our_notice.into()))));
    Some((theirs, notice.into()))
}

/// A new child has written something.
pub(in crate::daemon) fn child_says(cx: &mut Cx<'_>) -> Result {
    let key = *cx.arg::<Key>(2)?;
    let Some(reload) = reloading(cx) else { return Ok(()) };
    let Some((_, words)) = reload.words.iter_mut().find(|(other, _)| *other == key) else { return Ok(()) };
    if !words.take() {
        // The text is kept: the news of its end comes later.
        let end = words.end.clone();
        cx.select_read_clear(&end);
        if cx.heap().role.parent().is_some_and(|parent| !parent.machine.is_rolling()) {
            forget_words(cx, key);
        }
    }
    Ok(())
}

fn forget_words(cx: &mut Cx<'_>, key: Key) -> Option<Words> {
    let reload = reloading(cx)?;
    let place = reload.words.iter().position(|(other, _)| *other == key)?;
    let (_, words) = reload.words.swap_remove(place);
    cx.select_read_clear(&words.end);
    Some(words)
}

/// A child has ended: what it wrote last is kept for as long as it may be why the reload fails.
pub(super) fn child_ended(cx: &mut Cx<'_>, key: Key) {
    if let Some(mut words) = forget_words(cx, key) {
        words.take();
        if let Some(reload) = reloading(cx) {
            reload.ended = Some((key, words.text()));
        }
    }
}

/// A child could not be forked, and so will write nothing to its standard error.
pub(super) fn fork_failed(cx: &mut Cx<'_>, key: Key) {
    forget_words(cx, key);
}

/// The machine has news of a reload.
pub(super) fn hear(cx: &mut Cx<'_>, edition: Edition, news: &ReloadNews) {
    if let ReloadNews::SetBack(why) = news {
        return note_setback(cx, *why);
    }
    let is_over = matches!(news, ReloadNews::Applied { .. } | ReloadNews::RolledBack { .. } | ReloadNews::Superseded);
    if is_over {
        release_children(cx);
    }
    let now = cx.now();
    #[cfg(feature = "control")]
    if let Some(reload) = reloading(cx) {
        reload.count(edition, news, now);
    }
    // The effects that answer those who have asked come behind this one.
    let Some(verdict) = reloading(cx).and_then(|reload| reload.told.verdict(edition, news, now)) else { return };
    match news {
        // A way back is not the end of a change that was begun.
        ReloadNews::TakenBack { .. } => manager::note_verdict(cx, &verdict),
        _ => manager::end_change(cx, &verdict),
    }
}

/// A new child has failed: why, in words.
fn note_setback(cx: &mut Cx<'_>, why: Setback) {
    let Some(parent) = cx.heap().role.parent_mut() else { return };
    let name =
        |parent: &Parent, key: Key| format!("child {}:{} (pid {})", key.slot, key.generation, parent.pids.name(key));
    let cause = match why {
        Setback::Died(key, cause) => {
            let ended = parent.reload.ended.take().filter(|(ended, _)| *ended == key);
            parent.reload.told.last_words = ended.map(|(_, text)| text).unwrap_or_default();
            format!("{} ended: {cause}", name(parent, key))
        }
        Setback::Late(key) => {
            if let Some((_, words)) = parent.reload.words.iter_mut().find(|(other, _)| *other == key) {
                words.take();
                parent.reload.told.last_words = words.text();
            }
            format!("{} was not ready within start_timeout", name(parent, key))
        }
        Setback::NoRoom | Setback::Successor(_) => why.to_string(),
    };
    parent.reload.told.cause = cause;
}

/// This process serves from now on: its children have their own standard error, unless a roll is under way.
pub(super) fn end_trial(cx: &mut Cx<'_>) {
    if cx.heap().role.parent().is_some_and(|parent| !parent.machine.is_rolling()) {
        release_children(cx);
    }
}

/// The roll is over: new children have their own standard error again. What one says until it has heard of that is still copied.
fn release_children(cx: &mut Cx<'_>) {
    let Some(reload) = reloading(cx) else { return };
    for (_, words) in &mut reload.words {
        words.notice = None;
    }
    reload.words.retain(|(_, words)| !words.is_over);
}

/// Nothing is waited for any more.
pub(super) fn let_go(cx: &mut Cx<'_>) {
    end_scout(cx);
    let Some(reload) = reloading(cx) else { return };
    let keys: Vec<Key> = reload.words.iter().map(|(key, _)| *key).collect();
    keys.into_iter().for_each(|key| child_ended(cx, key));
}

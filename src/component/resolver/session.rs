//! The resolver's session: the questions that wait, and the work of each helper.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use nix::errno::Errno;
use rustc_hash::FxHashMap;

use super::cache::{Cache, Key, Outcome};
use super::helper;
use super::{Asker, Question, ResolveError, Settings};
use crate::error::{Error, Result};
use crate::kernel::{AlarmId, Context, Kernel, SessionId};
use crate::session::Session;
use crate::wheel::{Failure, OnDrop, Run, WheelId};

pub(super) const RESOLVE: &str = "resolver_resolve";
pub(super) const CLEAR: &str = "resolver_clear";
pub(super) const SHUTDOWN: &str = "resolver_shutdown";

struct Heap {
    settings: Settings,
    cache: Cache,
    /// Who waits for each answer.
    asked: FxHashMap<Key, Vec<Asker>>,
    /// Questions that no helper has yet, the oldest first.
    waiting: VecDeque<Key>,
    helpers: Vec<Helper>,
    /// It takes no more questions.
    is_shut: bool,
}

struct Helper {
    run: Run,
    does: Does,
    /// For the time limit of its question, or for its idle timeout.
    alarm: Option<AlarmId>,
}

enum Does {
    Wait,
    LookUp(Key),
    /// It was told to end, or was killed. The end of its output has not come yet.
    Leave,
}

type Cx<'a> = Context<'a, Heap>;

pub(super) fn spawn(kernel: &mut Kernel, settings: Settings) -> Result<SessionId, Error> {
    let cache = Cache::new(settings.cache_size, (settings.cache_for, settings.cache_failures_for));
    let (asked, waiting, helpers) = (FxHashMap::default(), VecDeque::new(), Vec::new());
    Session::new(Heap { settings, cache, asked, waiting, helpers, is_shut: false })
        .state("_start", start)
        .state(RESOLVE, resolve)
        .state(CLEAR, |cx: &mut Cx<'_>| cx.heap().cache.clear())
        .state(SHUTDOWN, shut_down)
        .state("answered", answered)
        .state("failed", failed)
        .state("late", late)
        .state("idle", idle)
        .state("forked", forked)
        .state("_stop", stop)
        .service()
        .spawn(kernel)
}

fn start(cx: &mut Cx<'_>) -> Result {
    // The session that creates the resolver must not stay alive for it.
    let _ = cx.detach_myself();
    cx.sig("FORKED", "forked");
    let number = cx.session().number();
    let alias = cx.heap().settings.alias.unwrap_or_else(|| format!("resolver {number}").into());
    Ok(cx.alias_set(alias)?)
}

fn resolve(cx: &mut Cx<'_>) -> Result {
    let Question { host, port, pid, asker } = cx.take(0)?;
    if pid != cx.pid() {
        // It was asked before a fork, and the parent gets the answer.
        asker.forget();
        return Ok(());
    }
    if cx.heap().is_shut {
        // The drop tells the asker.
        return Ok(());
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        asker.answer(Ok(vec![SocketAddr::new(address, port)]));
        return Ok(());
    }
    if host.is_empty() || host.len() > LONGEST || host.contains(|c: char| c.is_control() || c.is_whitespace()) {
        let reason = format!("a name has 1 to {LONGEST} bytes, and no spaces or control characters");
        asker.answer(Err(ResolveError::Failed { host, errno: Errno::EINVAL as i32, reason }));
        return Ok(());
    }
    let (key, now) = ((host.to_ascii_lowercase(), port), cx.core().clock.now());
    let heap = cx.heap();
    if let Some(outcome) = heap.cache.get(&key, now) {
        asker.answer(outcome);
        return Ok(());
    }
    let askers = heap.asked.entry(key.clone()).or_default();
    askers.push(asker);
    if askers.len() == 1 {
        heap.waiting.push_back(key);
        hand_out(cx);
    }
    Ok(())
}

/// Gives waiting questions to helpers, as far as the limit on helpers allows.
fn hand_out(cx: &mut Cx<'_>) {
    while let Some(key) = cx.heap().waiting.pop_front() {
        match free_helper(cx) {
            Ok(Some(place)) => ask(cx, place, key),
            Ok(None) => return cx.heap().waiting.push_front(key),
            Err(error) => {
                let host = key.0.clone();
                settle(cx, &key, Err(ResolveError::NoHelper { host, reason: error.to_string() }));
            }
        }
    }
}

/// Returns a free helper, or starts one. `None` if all are busy and no more may be started.
fn free_helper(cx: &mut Cx<'_>) -> Result<Option<usize>, Error> {
    let Heap { helpers, settings, .. } = cx.heap();
    // The helper that has waited least, so that the others become idle and end.
    if let Some(place) = helpers.iter().rposition(|helper| matches!(helper.does, Does::Wait)) {
        return Ok(Some(place));
    }
    if helpers.iter().filter(|helper| !matches!(helper.does, Does::Leave)).count() >= settings.helpers {
        return Ok(None);
    }
    let (lookup, parent) = (settings.lookup.clone(), cx.pid());
    // The drop waits for the helper, so that it is gone when the process ends.
    let run = Run::function(move |_| -> Result { Ok(helper::serve(&lookup, parent)?) })
        .on_stdout("answered")
        .on_error("failed")
        .on_drop(OnDrop::KillAndWait)
        .start(cx)?;
    let helpers = &mut cx.heap().helpers;
    helpers.push(Helper { run, does: Does::Wait, alarm: None });
    Ok(Some(helpers.len() - 1))
}

fn ask(cx: &mut Cx<'_>, place: usize, key: Key) {
    let (heap, mut calls) = cx.split();
    let helper = &mut heap.helpers[place];
    helper.run.put(helper::question(&key.0, key.1));
    helper.does = Does::LookUp(key);
    helper.alarm.take().map(|alarm| calls.alarm_remove(alarm));
    helper.alarm = Some(calls.delay_set("late", heap.settings.time_limit, (helper.run.id(),)));
}

/// Answers all askers.
fn settle(cx: &mut Cx<'_>, key: &Key, outcome: Outcome) {
    let now = cx.core().clock.now();
    let heap = cx.heap();
    heap.cache.put(key, &outcome, now);
    for asker in heap.asked.remove(key).unwrap_or_default() {
        asker.answer(outcome.clone());
    }
}

/// A helper has answered. ARG0 = the line, ARG1 = the wheel.
fn answered(cx: &mut Cx<'_>) -> Result {
    let (line, id) = (cx.take::<String>(0)?, cx.take::<WheelId>(1)?);
    let (heap, mut calls) = cx.split();
    let Some(helper) = heap.helpers.iter_mut().find(|helper| helper.run.id() == id) else { return Ok(()) };
    let key = match std::mem::replace(&mut helper.does, Does::Wait) {
        Does::LookUp(key) => key,
        // It was killed, and may have answered before.
        Does::Leave => {
            helper.does = Does::Leave;
            return Ok(());
        }
        // A later answer could not be told apart from another such line.
        Does::Wait => {
            drop(take(cx, Some(id)));
            let session = cx.session();
            log::warn!(target: "lenore::component", "{session} has killed a helper that answered without a question");
            return Ok(());
        }
    };
    helper.alarm.take().map(|alarm| calls.alarm_remove(alarm));
    helper.alarm = Some(calls.delay_set("idle", heap.settings.idle_timeout, (id,)));
    settle(cx, &key, helper::outcome(&key.0, &line));
    hand_out(cx);
    Ok(())
}

/// A helper has ended, or a helper could not be forked. ARG0 is the failure.
fn failed(cx: &mut Cx<'_>) -> Result {
    let failure = cx.take::<Failure>(0)?;
    let Some(helper) = take(cx, failure.wheel) else { return Ok(()) };
    if let Does::LookUp(key) = &helper.does {
        let reason = if failure.is_end_of_input() { "the helper has died".to_owned() } else { failure.to_string() };
        settle(cx, key, Err(ResolveError::NoHelper { host: key.0.clone(), reason }));
    }
    hand_out(cx);
    Ok(())
}

/// The helper ARG0 has exceeded the time limit.
fn late(cx: &mut Cx<'_>) -> Result {
    let id = cx.take::<WheelId>(0)?;
    let limit = cx.heap().settings.time_limit;
    let Some(helper) = cx.heap().helpers.iter_mut().find(|helper| helper.run.id() == id) else { return Ok(()) };
    let Does::LookUp(key) = std::mem::replace(&mut helper.does, Does::Leave) else { return Ok(()) };
    helper.alarm = None;
    let killed = helper.run.kill("KILL");
    let session = cx.session();
    log::warn!(target: "lenore::component", "{session} has killed a helper that timed out looking up a name: host={:?} limit={limit:?}", key.0);
    if killed.is_err() {
        // The helper is not forked yet, or has died. No event reports its end.
        drop(take(cx, Some(id)));
    }
    settle(cx, &key, Err(ResolveError::TimedOut { host: key.0.clone(), limit }));
    hand_out(cx);
    Ok(())
}

/// The helper ARG0 has been idle for the idle timeout.
fn idle(cx: &mut Cx<'_>) -> Result {
    let id = cx.take::<WheelId>(0)?;
    let waits = |helper: &&mut Helper| helper.run.id() == id && matches!(helper.does, Does::Wait);
    if let Some(helper) = cx.heap().helpers.iter_mut().find(waits) {
        helper.does = Does::Leave;
        helper.alarm = None;
        helper.run.shutdown_stdin();
    }
    Ok(())
}

fn take(cx: &mut Cx<'_>, id: Option<WheelId>) -> Option<Helper> {
    let (heap, mut calls) = cx.split();
    let place = heap.helpers.iter().position(|helper| Some(helper.run.id()) == id)?;
    let mut helper = heap.helpers.swap_remove(place);
    helper.alarm.take().map(|alarm| calls.alarm_remove(alarm));
    Some(helper)
}

/// Runs in a new process. The helpers belong to the parent, and so do answers for sessions that asked in the parent.
fn forked(cx: &mut Cx<'_>) {
    cx.alarm_remove_all();
    let heap = cx.heap();
    heap.helpers.clear();
    heap.waiting.clear();
    heap.asked.drain().flat_map(|(_, askers)| askers).for_each(Asker::forget);
}

fn shut_down(cx: &mut Cx<'_>) -> Result {
    cx.heap().is_shut = true;
    stop(cx);
    cx.alarm_remove_all();
    for alias in cx.alias_list(cx.session())? {
        cx.alias_remove(alias)?;
    }
    Ok(())
}

/// Stops. Dropping the askers calls them with an error.
fn stop(cx: &mut Cx<'_>) {
    let heap = cx.heap();
    heap.helpers.clear();
    heap.waiting.clear();
    heap.asked.clear();
}

/// The longest name, in bytes. DNS names are shorter.
const LONGEST: usize = 255;

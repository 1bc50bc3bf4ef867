//! A snapshot of the Daemon, for whoever looks from outside.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;

use crate::daemon::board::{Facts, Scoreboard, SlotIndex, Status, Totals, epoch_ms};
use crate::daemon::control::supervisor;
use crate::daemon::heap::{Cx, Heap, Role};
use crate::daemon::machine::{Death, Key, Told};
use crate::daemon::parent::consumption::{self, Detail};
use crate::daemon::parent::ledger::Ledger;
use crate::daemon::parent::role::Parent;
use crate::daemon::processes::{ProcessState, look};
use crate::daemon::settings::{Forking, Settings};
use crate::daemon::view::{
    ChildView, Counters, Durations, Kind, ListenerView, Phase, Pool, Queue, Reload, Reloads, SCHEMA, Service, Snapshot,
    States, Upgrade, Upgrades, When, time_text,
};
use crate::sys::accept_queue::AcceptQueue;

/// Begins to remember what a snapshot tells of the past, if that was not begun before. Only the parent does.
pub(in crate::daemon) fn begin(cx: &mut Cx<'_>) {
    let (heap, core) = cx.parts();
    if let Some(parent) = heap.role.parent_mut().filter(|parent| parent.ledger.is_none()) {
        parent.ledger = Some(Box::new(Ledger::new(consumption::listen_overflows())));
        core.keep_processor_time();
    }
}

/// Takes note of a child's death.
pub(super) fn remember(cx: &mut Cx<'_>, death: &Death, pid: i32) {
    let now = cx.now();
    let (heap, core) = cx.parts();
    if let Some(ledger) = heap.role.parent_mut().and_then(|parent| parent.ledger.as_mut()) {
        ledger.died(death, pid, now, core.take_processor_time(pid));
    }
}

/// Returns the processor time of the children that each slot has had, as far as it is known, in the processes before this one too.
pub(super) fn processor_time_by_slot(cx: &mut Cx<'_>) -> Vec<f64> {
    let Some(parent) = cx.heap().role.parent() else { return Vec::new() };
    let slots = parent.machine.table().slots();
    let mut spent = parent.ledger.as_ref().map(|ledger| ledger.cpu_by_slot(slots)).unwrap_or_default();
    if let Some(carried) = &parent.upgrade.carried {
        carried.add_processor_time(&mut spent);
    }
    spent
}

/// Takes a snapshot in one pass; `None` in a process that is not the parent.
pub(in crate::daemon) fn take(cx: &mut Cx<'_>) -> Option<Snapshot> {
    take_with_usage(cx, None)
}

/// Takes a snapshot, and asks the system for so much about each child.
pub(in crate::daemon) fn take_with_usage(cx: &mut Cx<'_>, detail: Option<Detail>) -> Option<Snapshot> {
    begin(cx);
    let (pid, now, me) = (cx.pid(), cx.now(), cx.session());
    let (heap, core) = cx.parts();
    let Heap { role: Role::Parent(parent), settings, board, born, metrics, failures, .. } = heap else { return None };
    let listeners = core.describe_listeners(parent.owner, me, settings.forking == Forking::Pre);
    let mut children = board.as_ref().map(|board| children(parent, board, now)).unwrap_or_default();
    let totals = board.as_mut().map(Scoreboard::totals).unwrap_or_default();
    let pool = pool(parent, &children, *born, now);
    let torn = u64::from(pool.states.torn) + u64::from(totals.torn);
    let torn_reads = board.as_mut().map_or(torn, |board| board.count_torn(torn));
    let cpu_by_slot = detail.map(|detail| add_usage(parent, &mut children, detail, now)).unwrap_or_default();
    let failed = totals.failed + failures.count;
    let requests_failed = (failures.are_told || failed > 0).then_some(failed);
    let counters = Counters { cpu_by_slot, requests_failed, ..counters(parent, &totals, torn_reads) };
    let (ledger, timings) = (parent.ledger.as_deref(), parent.timings.as_deref());
    let mut snapshot = Snapshot {
        schema: SCHEMA,
        time: time_text(now),
        service: service(parent, settings, pid, *born, now),
        pool,
        board: letters(parent, &children),
        listeners: listeners.into_iter().map(listener).collect(),
        counters,
        durations: Durations {
            request: totals.request,
            accept_wait: match timings {
                Some(timings) => totals.accept_wait.plus(&timings.accept_wait.histogram()),
                None => totals.accept_wait,
            },
            child_start: ledger.map(Ledger::starts).unwrap_or_default(),
            loop_turn: timings.map(|timings| timings.loop_turn.borrow().histogram()).unwrap_or_default(),
        },
        oldest_request: children
            .iter()
            .filter(|child| matches!(child.state, 'r' | 'l'))
            .map(|child| child.since.seconds_ago)
            .reduce(f64::max),
        children,
        deaths: ledger.map(|ledger| ledger.deaths(now)).unwrap_or_default(),
        settings: settings_by_name(parent.machine.settings()),
        process: consumption::of_this_process(),
        metrics: metrics.families(),
        reloads: reloads(parent, *born, now),
        upgrades: upgrades(parent, now),
    };
    if let Some(carried) = &parent.upgrade.carried {
        carried.add_to(&mut snapshot);
    }
    Some(snapshot)
}

/// Returns what a board tells other programs of the Daemon.
pub(super) fn facts(parent: &Parent) -> Facts {
    let (machine, deaths) = (&parent.machine, parent.machine.deaths());
    let settings = machine.settings();
    Facts {
        phase: Some(phase(parent)),
        generation: parent.machine.edition().0,
        min_spare: settings.min_spare,
        max_spare: settings.max_spare,
        max_children: settings.max_children,
        start_children: settings.start_children,
        forks_in_flight: machine.table().in_flight().len() as u32,
        queued: machine.queued() as u32,
        // Each child that was forked is there or has ended.
        forks: machine.table().children().len() as u64 + deaths.total(),
        exits: deaths.by_name().into_iter().map(|(_, count)| count).collect(),
    }
}

/// Asks the system about each child, and returns the processor time that each slot has used.
fn add_usage(parent: &mut Parent, children: &mut [ChildView], detail: Detail, now: SystemTime) -> Vec<f64> {
    let Parent { ledger: Some(ledger), machine, .. } = parent else { return Vec::new() };
    for child in children {
        let Some(pid) = child.pid else { continue };
        let key = Key { slot: child.slot as usize, generation: child.generation };
        if let Some(known) = ledger.seen.usage(detail, now).get(&key) {
            child.usage = Some(known.clone());
            continue;
        }
        let mut usage = consumption::of(pid, detail);
        if usage.resident.is_none() && matches!(look(pid), ProcessState::Gone | ProcessState::Exited) {
            // It has ended, and its end is under way to the machine.
            usage.resident = Some(0);
        }
        if let Some(cpu) = usage.cpu {
            ledger.has_used(key, Duration::from_secs_f64(cpu));
        }
        ledger.seen.usage(detail, now).insert(key, usage.clone());
        child.usage = Some(usage);
    }
    ledger.cpu_by_slot(machine.table().slots())
}

fn listener((name, queue): (String, nix::Result<AcceptQueue>)) -> ListenerView {
    let unknown = queue.err().map(|errno| match errno {
        Errno::EOPNOTSUPP => "this system does not tell".to_owned(),
        Errno::EAFNOSUPPORT | Errno::EPERM | Errno::EACCES => {
            format!("the system may not be asked by netlink: {errno}")
        }
        errno => format!("the system does not tell: {errno}"),
    });
    ListenerView { name, queue: queue.ok().map(|queue| Queue::new(queue.waiting, queue.limit)), unknown }
}

fn service(parent: &Parent, settings: &Settings, pid: u32, born: SystemTime, now: SystemTime) -> Service {
    Service {
        name: settings.alias.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid,
        started: When::new(epoch_ms(born), now),
        phase: phase(parent),
        kind: kind(settings.forking),
        generation: parent.machine.edition().0,
        supervisor: parent.control.as_ref().and_then(|_| supervisor()),
        heartbeat_age: None,
    }
}

/// Returns what kind of server it is.
pub(in crate::daemon) fn kind(forking: Forking) -> Kind {
    match forking {
        Forking::Pre => Kind::PreForking,
        Forking::Post => Kind::PostForking,
        Forking::None => Kind::NonForking,
    }
}

/// Returns where in its life the Daemon is.
pub(in crate::daemon) fn phase(parent: &Parent) -> Phase {
    use crate::daemon::machine::Phase as Inner;
    match parent.machine.phase() {
        _ if parent.machine.ends_gently() => Phase::Draining,
        Inner::ShuttingDown => Phase::Stopping,
        Inner::StartingUp => Phase::Starting,
        Inner::Running if parent.machine.is_reloading() => Phase::Reloading,
        Inner::Running => Phase::Ready,
    }
}

/// Returns why the Daemon is not ready for clients; `None` if it is.
pub(super) fn unready(cx: &mut Cx<'_>) -> Option<&'static str> {
    let Heap { role: Role::Parent(parent), board, .. } = cx.heap() else { return Some("not the parent") };
    if parent.upgrade.is_handed_over {
        // The question has come by a connection from before that. The successor was ready when it got the names.
        return None;
    }
    match phase(parent) {
        Phase::Ready | Phase::Reloading => has_ready_child(parent, board.as_ref()).err(),
        Phase::Starting => Some("starting: the first children are not ready yet"),
        Phase::Draining => Some("draining: it serves the requests that it has, and ends"),
        Phase::Stopping => Some("stopping"),
    }
}

/// Tells whether a child is there that has been ready, where children are to be ready before clients come; or why not.
fn has_ready_child(parent: &Parent, board: Option<&Scoreboard>) -> Result<(), &'static str> {
    let is_up = |status: Status| status == Status::Wait || status.is_taken();
    let mut children = parent.machine.table().children().iter();
    let is_ready = parent.machine.settings().forking != Forking::Pre
        || board.is_some_and(|board| children.any(|child| board.status(SlotIndex::from(child.key)).is_some_and(is_up)));
    if is_ready { Ok(()) } else { Err("no child is ready") }
}

fn children(parent: &Parent, board: &Scoreboard, now: SystemTime) -> Vec<ChildView> {
    let mut children: Vec<ChildView> = parent
        .machine
        .table()
        .children()
        .iter()
        .map(|child| {
            let slot = board.read(SlotIndex::from(child.key)).ok();
            let since_ms = slot.map_or(0, |slot| slot.since_ms);
            ChildView {
                slot: child.key.slot as u32,
                generation: child.key.generation,
                pid: parent.pids.of(child.key),
                state: match slot.map(|slot| slot.status) {
                    // It has just been forked, and has not claimed its slot.
                    Some(Status::Empty) => Status::Forking.letter(),
                    Some(status) => status.letter(),
                    None => '?',
                },
                since: When::new(since_ms, now),
                started: When::new(slot.map_or(0, |slot| slot.started_ms), now),
                requests: slot.map_or(0, |slot| slot.requests),
                peer: slot.map_or_else(String::new, |slot| slot.peer.as_str().to_owned()),
                edition: Some(child.edition.0),
                told: Some(word_of(child.told).to_owned()),
                usage: None,
            }
        })
        .collect();
    children.sort_unstable_by_key(|child| child.slot);
    children
}

/// Returns the scoreboard as one letter a slot, from what was read of the children and not from a second look at their slots.
fn letters(parent: &Parent, children: &[ChildView]) -> String {
    let table = parent.machine.table();
    let mut letters = vec![Status::Empty.letter(); table.slots()];
    let forks = table.in_flight().iter().map(|fork| (fork.key.slot, Status::Forking.letter()));
    for (slot, letter) in forks.chain(children.iter().map(|child| (child.slot as usize, child.state))) {
        if let Some(place) = letters.get_mut(slot) {
            *place = letter;
        }
    }
    letters.into_iter().collect()
}

fn reloads(parent: &Parent, born: SystemTime, now: SystemTime) -> Reloads {
    let (stage, reload) = (parent.machine.reload_stage(), &parent.reload);
    let is_possible = parent.machine.settings().reload.is_possible;
    let verdicts = reload.counts.by_name().into_iter().filter(|_| is_possible);
    let last = reload.last.as_ref().map(|last| {
        let (took, ended) = (last.took.as_secs_f64(), When::new(epoch_ms(last.at), now));
        Reload::new(last.edition.0, last.verdict, last.cause.clone(), last.needs_restart.clone(), took, ended)
    });
    Reloads {
        stage: stage.map(|(_, stage)| stage.word().to_owned()),
        edition: stage.map(|(edition, _)| edition.0),
        verdicts: verdicts.map(|(name, count)| (name.to_owned(), count)).collect(),
        last,
        succeeded: is_possible.then(|| When::new(epoch_ms(reload.succeeded.unwrap_or(born)), now)),
    }
}

fn upgrades(parent: &Parent, now: SystemTime) -> Upgrades {
    let upgrade = &parent.upgrade;
    let last = upgrade.last.as_ref().map(|last| {
        let (took, ended) = (last.took.as_secs_f64(), When::new(epoch_ms(last.at), now));
        Upgrade::new(last.verdict, last.cause.clone(), took, ended)
    });
    let of_predecessor = upgrade.predecessor.as_ref().map(|predecessor| match predecessor {
        predecessor if predecessor.is_draining => "draining",
        predecessor if predecessor.has_handed_over => "probation",
        _ => "loading",
    });
    let stage = parent.machine.upgrade_stage().map(|stage| stage.word()).or(of_predecessor);
    Upgrades {
        stage: stage.map(str::to_owned),
        successor: upgrade.successor.as_ref().and_then(|successor| successor.pid.get()),
        predecessor: upgrade.predecessor.as_ref().map(|predecessor| predecessor.pid),
        verdicts: upgrade.counts.by_name().into_iter().map(|(name, count)| (name.to_owned(), count)).collect(),
        last,
    }
}

fn word_of(told: Told) -> &'static str {
    match told {
        Told::Stay => "stay",
        Told::BeReplaced => "be-replaced",
        Told::Go | Told::GoForMemory => "go",
        Told::Cut | Told::Die => "die",
    }
}

fn pool(parent: &Parent, children: &[ChildView], born: SystemTime, now: SystemTime) -> Pool {
    let mut states = States::default();
    children.iter().for_each(|child| states.count(child.state));
    let settings = parent.machine.settings();
    Pool {
        states,
        total: states.total(),
        forks_in_flight: parent.machine.table().in_flight().len() as u32,
        limit: settings.max_children,
        min_spare: settings.min_spare,
        max_spare: settings.max_spare,
        start_children: settings.start_children,
        slots: parent.machine.table().slots() as u32,
        queued: parent.machine.queued() as u32,
        saturated: parent.machine.saturated_since().map(|since| When::new(epoch_ms(born + since), now)),
        backoff: parent.machine.is_backing_off(),
    }
}

fn counters(parent: &Parent, totals: &Totals, torn_reads: u64) -> Counters {
    let exits = parent.machine.deaths().by_name().into_iter().map(|(name, count)| (name.to_owned(), count));
    let ledger = parent.ledger.as_deref();
    Counters {
        requests: totals.requests,
        forks: facts(parent).forks,
        fork_failures: ledger.map(Ledger::fork_failures).unwrap_or_default(),
        exits: exits.collect(),
        busy_seconds: totals.busy.as_secs_f64(),
        saturated_seconds: parent.machine.saturated_for().as_secs_f64(),
        listen_overflows: ledger.and_then(|ledger| ledger.overflows(consumption::listen_overflows())),
        torn_reads,
        ..Counters::default()
    }
}

/// Returns the settings that an operator may want to look up.
fn settings_by_name(settings: &Settings) -> BTreeMap<String, String> {
    let seconds = |span: std::time::Duration| format!("{} s", span.as_secs_f64());
    let mut named = BTreeMap::new();
    let mut enter = |name: &str, value: String| drop(named.insert(name.to_owned(), value));
    enter("shutdown_timeout", seconds(settings.shutdown_timeout));
    if settings.forking == Forking::None {
        return named;
    }
    enter("max_children", settings.max_children.to_string());
    enter("babysit", seconds(settings.babysit));
    let rules = &settings.rules;
    enter("cpu_limit", seconds(rules.cpu_limit));
    let or_none = |span: Option<std::time::Duration>| span.map_or_else(|| "none".to_owned(), seconds);
    enter("request_timeout", or_none(rules.request_timeout));
    enter("long_timeout", or_none(rules.long_timeout));
    enter("memory_limit", rules.memory_limit.map_or_else(|| "none".to_owned(), |bytes| format!("{bytes} B")));
    if settings.forking == Forking::Pre {
        enter("start_children", settings.start_children.to_string());
        enter("min_spare", settings.min_spare.to_string());
        enter("max_spare", settings.max_spare.to_string());
        enter("requests", settings.requests.map_or_else(|| "none".to_owned(), |requests| requests.to_string()));
        enter("fork_burst", settings.fork_burst.to_string());
        enter("forks_per_second", settings.forks_per_second.to_string());
        enter("wait_target", seconds(settings.wait_target));
    }
    named
}

#[cfg(test)]
mod tests {
    use super::Status;
    use crate::daemon::view::known;

    #[test] // O-ST-17
    fn every_letter_of_the_scoreboard_is_documented() {
        for status in Status::ALL {
            assert_eq!(known(status.letter()), status.letter());
        }
    }
}

//! What the machine has to say, as lines of the log.

use std::fmt;
use std::time::SystemTime;

use log::Level;

use crate::daemon::machine::{Death, Message, Note};
use crate::daemon::parent::pids::Pids;
use crate::daemon::parent::role::Parent;
use crate::daemon::parent::signals::signal_of_step;
use crate::daemon::settings::Settings;

/// Logs a message.
pub(super) fn say(parent: &mut Parent, settings: &Settings, message: &Message, now: SystemTime) {
    let pids = &parent.pids;
    match *message {
        Message::Forked(key) => {
            report(settings, format_args!("child {} is forked into slot {}", pids.name(key), key.slot));
        }
        Message::Retired(key) => debug(format_args!("child {} is retired", pids.name(key))),
        Message::AskedToRelease(key) => {
            debug(format_args!("child is asked to let its idle client go: pid={} slot={}", pids.name(key), key.slot))
        }
        Message::ClientsWait(reckoning) => debug(format_args!("clients wait for more children: {reckoning}")),
        Message::ShuttingDown { children } => debug(format_args!("shutting down with {children} children")),
        Message::NotEnded(key) => warn(format_args!("child {} has not ended in time and is killed", pids.name(key))),
        Message::BoardFull { slots } => {
            error(format_args!("no child is forked: all {slots} slots of the scoreboard are taken"));
        }
        Message::Resized { max_children, min_spare, max_spare } => {
            info(format_args!("resized: max_children={max_children} min_spare={min_spare} max_spare={max_spare}"))
        }
        Message::ForksFail { .. } | Message::ForksSucceed { .. } => say_forks(parent, message, now),
        Message::CrashLoop { .. } | Message::CrashLoopOver { .. } => say_crash_loop(parent, message, now),
        Message::Unready { .. } | Message::Rogue { .. } | Message::RogueCleared(_) | Message::TooLarge { .. } => {
            say_child(pids, settings, message);
        }
        Message::OverloadBegun { .. }
        | Message::OverloadEnded { .. }
        | Message::QueueFull { .. }
        | Message::QueueHasRoom { .. }
        | Message::Deaf { .. }
        | Message::Unresponsive { .. }
        | Message::Responsive(_) => say_queue(pids, message),
    }
}

fn say_forks(parent: &mut Parent, message: &Message, now: SystemTime) {
    match *message {
        Message::ForksFail { children, missing, next_try } => {
            if let Some(refused) = &parent.refused {
                warn(format_args!(
                    "forks fail and are tried again: {}; {}: children={children} missing={missing} next_try={:.1}",
                    refused.error,
                    refused.reason.map_or("", |reason| reason.advice()),
                    next_try.as_secs_f64()
                ));
            }
        }
        Message::ForksSucceed { children } => {
            if let Some(ended) = parent.shortage.end(now) {
                info(format_args!("no fork is missing any more: children={children} {ended}"));
            }
        }
        _ => {}
    }
}

fn say_crash_loop(parent: &mut Parent, message: &Message, now: SystemTime) {
    match *message {
        Message::CrashLoop { deaths, wait, is_known } => {
            parent.crash_loop.failed((), now);
            // Each death has its record. The pauses are what an operator can't do anything about.
            let level = if is_known { Level::Debug } else { Level::Warn };
            log::log!(
                target: "lenore::daemon", level,
                "children die as soon as they are forked, {deaths} in a row: the next is forked in {wait:?}"
            );
        }
        Message::CrashLoopOver { children } => {
            if let Some(ended) = parent.crash_loop.end(now) {
                info(format_args!("children stay up again: children={children} {ended}"));
            }
        }
        _ => {}
    }
}

fn say_child(pids: &Pids, settings: &Settings, message: &Message) {
    match *message {
        Message::Unready { key, since } => warn(format_args!(
            "child {} in slot {} gets no requests: for {:.1} s it has not reported Wait, as the state for daemon_child should",
            pids.name(key),
            key.slot,
            since.as_secs_f64()
        )),
        Message::Rogue { key, why, status, since, cpu, step } => {
            let signal = signal_of_step(step, settings.term);
            warn(format_args!(
                "child is rogue: pid={} slot={} why={why} status={} for={:.1} cpu={:.1}: {signal} is sent",
                pids.name(key),
                key.slot,
                status.map_or('?', |status| status.letter()),
                since.as_secs_f64(),
                cpu.as_secs_f64()
            ));
        }
        Message::RogueCleared(key) => {
            info(format_args!("child {} in slot {} has calmed down", pids.name(key), key.slot));
        }
        Message::TooLarge { key, resident, limit } => info(format_args!(
            "child {} in slot {} has {resident} octets resident, more than memory_limit ({limit}), and will be replaced",
            pids.name(key),
            key.slot
        )),
        _ => {}
    }
}

fn say_queue(pids: &Pids, message: &Message) {
    match *message {
        Message::OverloadBegun { max_children, waiting, limit } => {
            let limit = limit.map_or_else(|| "unknown".to_owned(), |limit| limit.to_string());
            warn(format_args!(
                "clients wait and all children are busy: max_children={max_children} waiting={waiting} backlog={limit}"
            ));
        }
        Message::OverloadEnded { lasted, deepest } => info(format_args!(
            "clients no longer wait for busy children: lasted={:.1} deepest={deepest}",
            lasted.as_secs_f64()
        )),
        Message::QueueFull { waiting, limit } => error(format_args!(
            "the queue of a listener is full and the system turns clients away: waiting={waiting} backlog={limit}; \
             see listen_queue, and net.core.somaxconn, which limits it"
        )),
        Message::QueueHasRoom { lasted, deepest } => info(format_args!(
            "the queue of the listener has room again: lasted={:.1} deepest={deepest}",
            lasted.as_secs_f64()
        )),
        Message::Deaf { key, waiting, is_continued } => {
            let what = if is_continued { "is continued" } else { "is no spare any more" };
            warn(format_args!(
                "child that waits for clients does not accept because it is stopped, and {what}: pid={} slot={} waiting={waiting}",
                pids.name(key),
                key.slot
            ));
        }
        Message::Unresponsive { key, waiting, is_paused } => {
            let why = if is_paused { "does not accept because its listeners are paused" } else { "does not answer" };
            warn(format_args!(
                "child that waits for clients {why}, and is no spare any more: pid={} slot={} waiting={waiting}",
                pids.name(key),
                key.slot
            ));
        }
        Message::Responsive(key) => {
            info(format_args!("child accepts clients again: pid={} slot={}", pids.name(key), key.slot));
        }
        _ => {}
    }
}

/// The one record that each child leaves.
pub(super) fn record(settings: &Settings, pid: i32, death: &Death) {
    let Death { key, cause, age, requests, note } = *death;
    let level = match (cause.is_in_order(), settings.verbose) {
        (false, _) => Level::Warn,
        (true, true) => Level::Info,
        (true, false) => Level::Debug,
    };
    let note = match note {
        Note::None => "",
        Note::Core => " core=dumped",
        Note::KilledByOther => " note=\"KILL not sent by the Daemon, nor by the OOM killer\"",
        Note::KilledPerhapsBySystem => " note=\"KILL not sent by the Daemon, maybe by the OOM killer\"",
    };
    let (slot, age) = (key.slot, age.as_secs_f64());
    log::log!(
        target: "lenore::daemon", level,
        "child has ended: pid={pid} slot={slot} cause={cause} age={age:.3} requests={requests}{note}"
    );
}

/// Logs the coming and going of a child, which `verbose` makes worth an operator's while.
fn report(settings: &Settings, text: fmt::Arguments<'_>) {
    let level = if settings.verbose { Level::Info } else { Level::Debug };
    log::log!(target: "lenore::daemon", level, "{text}");
}

fn debug(text: fmt::Arguments<'_>) {
    log::debug!(target: "lenore::daemon", "{text}");
}

fn info(text: fmt::Arguments<'_>) {
    log::info!(target: "lenore::daemon", "{text}");
}

fn warn(text: fmt::Arguments<'_>) {
    log::warn!(target: "lenore::daemon", "{text}");
}

fn error(text: fmt::Arguments<'_>) {
    log::error!(target: "lenore::daemon", "{text}");
}

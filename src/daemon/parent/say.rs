//! What the machine has to say, as lines of the log.
//!
//! A line has its fields in its text, which is all that most loggers show. With the feature `logging` they are key-values of the
//! record as well.

use std::fmt;
use std::time::SystemTime;

use log::Level;

use crate::daemon::board::{PeerLabel, Scoreboard, SlotIndex};
use crate::daemon::machine::{Attempt, Death, Edition, Message, Note, ReloadNews, UpgradeNews};
use crate::daemon::parent::pids::Pids;
use crate::daemon::parent::role::Parent;
use crate::daemon::parent::signals::signal_of_step;
use crate::daemon::settings::Settings;

/// Logs a line about a child: its level, its fields as the `log` macros take them, and its text.
macro_rules! tell {
    ($level:expr, [$($fields:tt)*], $($text:tt)*) => {{
        #[cfg(feature = "logging")]
        log::log!(target: "lenore::daemon", $level, $($fields)*; $($text)*);
        #[cfg(not(feature = "logging"))]
        log::log!(target: "lenore::daemon", $level, $($text)*);
    }};
}

/// Logs a message.
pub(super) fn say(
    parent: &mut Parent,
    settings: &Settings,
    board: Option<&mut Scoreboard>,
    message: &Message,
    now: SystemTime,
) {
    let pids = &parent.pids;
    match *message {
        Message::Forked(key) => {
            let (pid, slot) = (pids.name(key), key.slot);
            tell!(quiet(settings), [pid, slot], "child {pid} is forked into slot {slot}");
        }
        Message::Ready { key, took } => {
            let (pid, slot, took) = (pids.name(key), key.slot, took.as_secs_f64());
            tell!(
                Level::Debug,
                [pid, slot, took = rounded(took)],
                "child {pid} in slot {slot} is ready: took={took:.3}"
            );
        }
        Message::Retired(key) => {
            let pid = pids.name(key);
            tell!(Level::Debug, [pid, slot = key.slot], "child {pid} is retired");
        }
        Message::AskedToRelease(key) => {
            let (pid, slot) = (pids.name(key), key.slot);
            tell!(Level::Debug, [pid, slot], "child is asked to let its idle client go: pid={pid} slot={slot}");
        }
        Message::ClientsWait(reckoning) => debug(format_args!("clients wait for more children: {reckoning}")),
        Message::ShuttingDown { children } => info(format_args!("shutting down with {children} children")),
        Message::LameDuck(span) => {
            info(format_args!("shutdown begins in {} s, and clients are served until then", span.as_secs_f64()));
        }
        Message::NotEnded(key) => {
            let (pid, slot) = (pids.name(key), key.slot);
            tell!(Level::Warn, [pid, slot], "child has not ended in time and is killed: pid={pid} slot={slot}");
        }
        Message::BoardFull { slots } => {
            error(format_args!("no child is forked because all slots of the scoreboard are taken: slots={slots}"));
        }
        Message::Reload(edition, news) => say_reload(parent, edition, news),
        Message::Upgrade(attempt, news) => say_upgrade(parent, attempt, news),
        Message::NotGone(key) => {
            let (pid, slot) = (pids.name(key), key.slot);
            tell!(Level::Warn, [pid, slot], "child that a reload has replaced is ended at once: pid={pid} slot={slot}");
        }
        Message::Resized { max_children, min_spare, max_spare } => {
            tell!(
                Level::Info,
                [max_children, min_spare, max_spare],
                "resized: max_children={max_children} min_spare={min_spare} max_spare={max_spare}"
            );
        }
        Message::NotResized(why) => log::info!(target: "lenore::daemon", "not resized: {why}"),
        Message::ForksFail { .. } | Message::ForksSucceed { .. } => say_forks(parent, message, now),
        Message::CrashLoop { .. } | Message::CrashLoopOver { .. } => say_crash_loop(parent, message, now),
        Message::Unready { .. } | Message::Rogue { .. } | Message::RogueCleared(_) | Message::TooLarge { .. } => {
            say_child(pids, settings, board, message);
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

fn say_reload(parent: &Parent, edition: Edition, news: ReloadNews) {
    let told = &parent.reload.told;
    let edition = edition.0;
    match news {
        ReloadNews::Begun => debug(format_args!("reload begins: edition={edition}")),
        ReloadNews::Loaded => debug(format_args!("reload has loaded the configuration: edition={edition}")),
        ReloadNews::Rolling => debug(format_args!("reload replaces children: edition={edition}")),
        ReloadNews::Applied { took } => {
            let took = took.as_secs_f64();
            tell!(
                Level::Info,
                [edition, took = rounded(took)],
                "reload is applied{}: edition={edition} took={took:.3}",
                NeedsRestart(&told.needs_restart)
            );
        }
        ReloadNews::Checked { took } => {
            let took = took.as_secs_f64();
            tell!(
                Level::Info,
                [edition, took = rounded(took)],
                "configuration is checked and can be loaded: edition={edition} took={took:.3}"
            );
        }
        ReloadNews::Rejected { why, took, is_check: true } => {
            let (cause, took) = (told.rejection(why), took.as_secs_f64());
            tell!(
                Level::Warn,
                [edition, took = rounded(took), cause = cause.as_str()],
                "configuration is checked and can't be loaded: {cause}: edition={edition} took={took:.3}"
            );
        }
        ReloadNews::Rejected { why, took, is_check: false } => {
            let (cause, took) = (told.rejection(why), took.as_secs_f64());
            tell!(
                Level::Error,
                [edition, took = rounded(took), cause = cause.as_str()],
                "reload is rejected: {cause}: edition={edition} took={took:.3}"
            );
        }
        ReloadNews::SetBack(_) => {
            let cause = told.cause.as_str();
            tell!(Level::Warn, [edition, cause], "reload is rolled back because {cause}: edition={edition}");
        }
        ReloadNews::RolledBack { took, .. } => {
            let (cause, took) = (told.cause.as_str(), took.as_secs_f64());
            tell!(
                Level::Error,
                [edition, took = rounded(took), cause],
                "reload was rolled back: {cause}: edition={edition} took={took:.3}"
            );
        }
        ReloadNews::Superseded => info(format_args!("reload is superseded by the shutdown: edition={edition}")),
        ReloadNews::TakenBack { to } => {
            let to = to.0;
            tell!(
                Level::Error,
                [edition, to],
                "reload is taken back because new children die as soon as they are forked: edition={edition} to={to}"
            );
        }
        ReloadNews::ProbationOver => debug(format_args!("reload is past its probation: edition={edition}")),
    }
}

fn say_upgrade(parent: &Parent, attempt: Attempt, news: UpgradeNews) {
    let attempt = attempt.0;
    match news {
        UpgradeNews::Begun => info(format_args!("upgrade begins: attempt={attempt}")),
        UpgradeNews::Greeted => debug(format_args!("upgrade: the new program has greeted: attempt={attempt}")),
        UpgradeNews::Ready => debug(format_args!("upgrade: the new program is ready: attempt={attempt}")),
        UpgradeNews::TookOver { took } => {
            let took = took.as_secs_f64();
            tell!(
                Level::Info,
                [attempt, took = rounded(took)],
                "upgrade: the new program serves, and this one rests: attempt={attempt} took={took:.3}"
            );
        }
        UpgradeNews::Applied { took } => {
            let took = took.as_secs_f64();
            tell!(
                Level::Info,
                [attempt, took = rounded(took)],
                "upgrade is applied, and this program is draining: attempt={attempt} took={took:.3}"
            );
        }
        UpgradeNews::Rejected { why, took } => {
            let (cause, took) = (parent.upgrade.told.upgrade_fault(why), took.as_secs_f64());
            tell!(
                Level::Error,
                [attempt, took = rounded(took), cause = cause.as_str()],
                "upgrade is rejected: {cause}: attempt={attempt} took={took:.3}"
            );
        }
        UpgradeNews::RolledBack { why, took } => {
            let (cause, took) = (parent.upgrade.told.upgrade_fault(why), took.as_secs_f64());
            tell!(
                Level::Error,
                [attempt, took = rounded(took), cause = cause.as_str()],
                "upgrade was rolled back: {cause}: attempt={attempt} took={took:.3}"
            );
        }
        UpgradeNews::Superseded => info(format_args!("upgrade is superseded by a shutdown: attempt={attempt}")),
    }
}

/// What follows the verdict if not all of a configuration was applied.
pub(super) struct NeedsRestart<'a>(pub(super) &'a [String]);

impl fmt::Display for NeedsRestart<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "; needs restart: {}", self.0.join(", ")) }
    }
}

fn say_forks(parent: &mut Parent, message: &Message, now: SystemTime) {
    match *message {
        Message::ForksFail { children, missing, next_try } => {
            if let Some(refused) = &parent.refused {
                let (error, next_try) = (&refused.error, next_try.as_secs_f64());
                let advice = refused.reason.map_or("", |reason| reason.advice());
                tell!(
                    Level::Warn,
                    [error:%, children, missing, next_try = rounded(next_try)],
                    "forks fail and are tried again: {error}; {advice}: children={children} missing={missing} next_try={next_try:.1}"
                );
            }
        }
        Message::ForksSucceed { children } => {
            if let Some(ended) = parent.shortage.end(now) {
                info(format_args!("forks succeed again: children={children} {ended}"));
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
            tell!(
                level,
                [deaths, wait = rounded(wait.as_secs_f64())],
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

fn say_child(pids: &Pids, settings: &Settings, board: Option<&mut Scoreboard>, message: &Message) {
    match *message {
        Message::Unready { key, since } => {
            let (pid, slot, since) = (pids.name(key), key.slot, since.as_secs_f64());
            tell!(
                Level::Warn,
                [pid, slot, "for" = rounded(since)],
                "child gets no requests because it has not reported Wait on daemon_child: pid={pid} slot={slot} for={since:.1}"
            );
        }
        Message::Rogue { key, why, status, since, cpu, step } => {
            let signal = signal_of_step(step, settings.term);
            let (pid, slot, status) = (pids.name(key), key.slot, status.map_or('?', |status| status.letter()));
            let (since, cpu) = (since.as_secs_f64(), cpu.as_secs_f64());
            let peer = board.and_then(|board| Some(board.read(SlotIndex::from(key)).ok()?.peer));
            let peer = peer.as_ref().map_or("", PeerLabel::as_str);
            tell!(
                Level::Warn,
                [pid, slot, why:%, status, "for" = rounded(since), cpu = rounded(cpu), peer, signal:%],
                "child is rogue: pid={pid} slot={slot} why={why} status={status} for={since:.1} cpu={cpu:.1} peer={peer:?}: {signal} is sent"
            );
        }
        Message::RogueCleared(key) => {
            let (pid, slot) = (pids.name(key), key.slot);
            tell!(Level::Info, [pid, slot], "rogue cleared: pid={pid} slot={slot}");
        }
        Message::TooLarge { key, resident, limit } => {
            let (pid, slot) = (pids.name(key), key.slot);
            tell!(
                Level::Info,
                [pid, slot, resident, limit],
                "child uses more memory than memory_limit and will be replaced: pid={pid} slot={slot} resident={resident} limit={limit}"
            );
        }
        _ => {}
    }
}

fn say_queue(pids: &Pids, message: &Message) {
    match *message {
        Message::OverloadBegun { max_children, waiting, limit } => {
            let backlog = limit.map_or_else(|| "unknown".to_owned(), |limit| limit.to_string());
            tell!(
                Level::Warn,
                [max_children, waiting, backlog = limit],
                "clients wait and all children are busy: max_children={max_children} waiting={waiting} backlog={backlog}"
            );
        }
        Message::OverloadEnded { lasted, deepest } => {
            let lasted = lasted.as_secs_f64();
            tell!(
                Level::Info,
                [lasted = rounded(lasted), deepest],
                "clients no longer wait for busy children: lasted={lasted:.1} deepest={deepest}"
            );
        }
        Message::QueueFull { waiting, limit } => tell!(
            Level::Error,
            [waiting, backlog = limit],
            "the queue of a listener is full and the system turns clients away: waiting={waiting} backlog={limit}; \
             see listen_queue, and net.core.somaxconn, which limits it"
        ),
        Message::QueueHasRoom { lasted, deepest } => {
            let lasted = lasted.as_secs_f64();
            tell!(
                Level::Info,
                [lasted = rounded(lasted), deepest],
                "the queue of the listener has room again: lasted={lasted:.1} deepest={deepest}"
            );
        }
        Message::Deaf { key, waiting, is_continued } => {
            let what = if is_continued { "is continued" } else { "no longer counts as a spare" };
            let (pid, slot) = (pids.name(key), key.slot);
            tell!(
                Level::Warn,
                [pid, slot, waiting],
                "child that waits for clients does not accept because it is stopped, and {what}: pid={pid} slot={slot} waiting={waiting}"
            );
        }
        Message::Unresponsive { key, waiting, is_paused } => {
            let why = if is_paused { "does not accept because its listeners are paused" } else { "does not answer" };
            let (pid, slot) = (pids.name(key), key.slot);
            tell!(
                Level::Warn,
                [pid, slot, waiting],
                "child that waits for clients {why}, and no longer counts as a spare: pid={pid} slot={slot} waiting={waiting}"
            );
        }
        Message::Responsive(key) => {
            let (pid, slot) = (pids.name(key), key.slot);
            tell!(Level::Info, [pid, slot], "child accepts clients again: pid={pid} slot={slot}");
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
    let why = match note {
        Note::None | Note::Core => None,
        Note::KilledByOther => Some("KILL not sent by the Daemon, nor by the OOM killer"),
        Note::KilledPerhapsBySystem => Some("KILL not sent by the Daemon, maybe by the OOM killer"),
    };
    let core = (note == Note::Core).then_some("dumped");
    let (in_text, slot, age) = (NoteInText { core, why }, key.slot, age.as_secs_f64());
    tell!(
        level,
        [pid, slot, cause:%, age = rounded(age), requests, core, note = why],
        "child has ended: pid={pid} slot={slot} cause={cause} age={age:.3} requests={requests}{in_text}"
    );
}

/// What follows the fields that each death has.
struct NoteInText {
    core: Option<&'static str>,
    why: Option<&'static str>,
}

impl fmt::Display for NoteInText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.core.map_or(Ok(()), |core| write!(f, " core={core}"))?;
        self.why.map_or(Ok(()), |why| write!(f, " note={why:?}"))
    }
}

/// The level of a child's coming and going, which `verbose` makes worth an operator's while.
fn quiet(settings: &Settings) -> Level {
    if settings.verbose { Level::Info } else { Level::Debug }
}

/// Seconds for a field, to the millisecond.
#[cfg(feature = "logging")]
fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

fn debug(text: fmt::Arguments<'_>) {
    log::debug!(target: "lenore::daemon", "{text}");
}

fn info(text: fmt::Arguments<'_>) {
    log::info!(target: "lenore::daemon", "{text}");
}

fn error(text: fmt::Arguments<'_>) {
    log::error!(target: "lenore::daemon", "{text}");
}

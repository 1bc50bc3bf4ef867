//! A snapshot as lines of text, for terminals.

use std::fmt::Write;

use super::Histogram;
pub use super::human::{bytes, harmless, span};
use super::letters::{LETTERS, known};
use super::snapshot::{ChildView, Death, Kind, ListenerView, ProcessView, Snapshot};

/// Writes a Daemon's status as `lenorectl status` prints it: a line for each subject, with each limit beside its value.
pub fn status(snapshot: &Snapshot) -> String {
    let mut lines = Lines::default();
    service(&mut lines, snapshot);
    if snapshot.service.kind != Kind::NonForking {
        board(&mut lines, snapshot);
        pool(&mut lines, snapshot);
    }
    snapshot.listeners.iter().for_each(|listener| lines.add("queue", &queue(listener)));
    if snapshot.service.kind != Kind::NonForking {
        requests(&mut lines, snapshot);
        forks(&mut lines, snapshot);
    }
    lines.add("process", &process(&snapshot.process));
    for (number, death) in snapshot.deaths.iter().enumerate() {
        lines.add(if number == 0 { "last deaths" } else { "" }, &self::death(death));
    }
    lines.text
}

/// Writes a table of children as `lenorectl children` prints it: a line of titles, and a line for each child.
pub fn children(children: &[ChildView]) -> String {
    let mut rows = vec![TITLES.map(str::to_owned)];
    rows.extend(children.iter().map(row));
    let mut widths: [usize; COLUMNS] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    // The column is shown only if a child has the value.
    let has_share = children.iter().any(|child| child.usage.as_ref().is_some_and(|usage| usage.proportional.is_some()));
    if !has_share {
        widths[SHARE] = 0;
    }
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let separator = if column == 0 { "" } else { "  " };
            let width = widths[column];
            if width == 0 {
                continue;
            }
            // What is text stands at the left; numbers end below each other.
            let _ = match TITLES[column] {
                "STATE" | "TOLD" | "PEER" => write!(line, "{separator}{cell:<width$}"),
                _ => write!(line, "{separator}{cell:>width$}"),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

const COLUMNS: usize = 11;

/// The column of the share of memory.
const SHARE: usize = 8;

const TITLES: [&str; COLUMNS] =
    ["CHILD", "PID", "STATE", "FOR", "AGE", "REQUESTS", "CPU", "MEMORY", "PSS", "TOLD", "PEER"];

fn row(child: &ChildView) -> [String; COLUMNS] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let usage = child.usage.as_ref();
    [
        format!("{}:{}", child.slot, child.generation),
        or_dash(child.pid.map(|pid| pid.to_string())),
        match known(child.state) {
            ' ' => 'F',
            letter => letter,
        }
        .to_string(),
        span(child.since.seconds_ago),
        span(child.started.seconds_ago),
        child.requests.to_string(),
        or_dash(usage.and_then(|usage| usage.cpu).map(span)),
        or_dash(usage.and_then(|usage| usage.resident).map(bytes)),
        or_dash(usage.and_then(|usage| usage.proportional).map(bytes)),
        or_dash(child.told.clone()),
        harmless(&child.peer),
    ]
}

/// Lines of which each begins with its subject in a column of its own.
#[derive(Default)]
struct Lines {
    text: String,
}

impl Lines {
    fn add(&mut self, subject: &str, line: &str) {
        let _ = writeln!(self.text, "{subject:<11}  {}", line.trim_end());
    }
}

fn service(lines: &mut Lines, snapshot: &Snapshot) {
    let service = &snapshot.service;
    let kind = match service.kind {
        Kind::PreForking => "pre-forking",
        Kind::PostForking => "post-forking",
        Kind::NonForking => "not forking",
    };
    let supervisor = service.supervisor.as_deref().map(|name| format!(", looked after by {}", harmless(name)));
    let who = format!("{}, process {}, {kind}", harmless(&service.name), service.pid);
    lines.add("daemon", &(who + supervisor.as_deref().unwrap_or_default()));
    lines.add("phase", service.phase.word());
    lines.add("started", &format!("{}, {} ago", service.started.at, span(service.started.seconds_ago)));
    lines.add("version", &format!("lenore {}, configuration {}", service.version, service.generation));
    reloads(lines, snapshot);
    upgrades(lines, snapshot);
}

fn reloads(lines: &mut Lines, snapshot: &Snapshot) {
    let reloads = &snapshot.reloads;
    if let (Some(stage), Some(edition)) = (&reloads.stage, reloads.edition) {
        lines.add("reload", &format!("configuration {edition}: {stage}"));
    }
    let Some(last) = &reloads.last else { return };
    let (verdict, ago) = (last.verdict.replace('_', " "), span(last.ended.seconds_ago));
    let mut line = format!("configuration {} {verdict} {ago} ago, took {}", last.edition, span(last.took));
    if !last.cause.is_empty() {
        let _ = write!(line, ": {}", harmless(&last.cause));
    }
    if !last.needs_restart.is_empty() {
        let _ = write!(line, "; needs restart: {}", harmless(&last.needs_restart.join(", ")));
    }
    lines.add("last reload", &line);
}

fn upgrades(lines: &mut Lines, snapshot: &Snapshot) {
    let upgrades = &snapshot.upgrades;
    if let Some(stage) = &upgrades.stage {
        let successor = upgrades.successor.map(|pid| format!(", process {pid} takes over"));
        let predecessor = upgrades.predecessor.map(|pid| format!(", process {pid} has not ended yet"));
        let who = successor.or(predecessor).unwrap_or_default();
        lines.add("upgrade", &format!("{stage}{who}"));
    }
    let Some(last) = &upgrades.last else { return };
    let (verdict, ago) = (last.verdict.replace('_', " "), span(last.ended.seconds_ago));
    let mut line = format!("{verdict} {ago} ago, took {}", span(last.took));
    if !last.cause.is_empty() {
        let _ = write!(line, ": {}", harmless(&last.cause));
    }
    lines.add("last upgrade", &line);
}

fn board(lines: &mut Lines, snapshot: &Snapshot) {
    lines.add("board", &format!("[{}]", snapshot.board.chars().map(known).collect::<String>()));
    let letters: Vec<String> = LETTERS.iter().map(|(letter, meaning)| format!("{letter} {meaning}")).collect();
    lines.add("", &format!("a child that: {}", letters[..5].join(", ")));
    lines.add("", &format!("{}; a blank is a free slot", letters[5..].join(", ")));
}

fn pool(lines: &mut Lines, snapshot: &Snapshot) {
    let pool = &snapshot.pool;
    let states: Vec<String> = pool
        .states
        .by_name()
        .into_iter()
        .filter(|(name, number)| *number > 0 || *name != "torn")
        .map(|(name, number)| format!("{number} {name}"))
        .collect();
    lines.add("children", &format!("{}/{}: {}", pool.total, pool.limit, states.join(", ")));
    lines.add("slots", &format!("{}/{} taken, {} forks in flight", pool.total, pool.slots, pool.forks_in_flight));
    if snapshot.service.kind == Kind::PreForking {
        lines.add(
            "spares",
            &format!("{} idle, min_spare {}, max_spare {}", pool.states.idle, pool.min_spare, pool.max_spare),
        );
    } else {
        lines.add("queued", &format!("{} requests wait for a child", pool.queued));
    }
    let total = span(snapshot.counters.saturated_seconds);
    let now = match &pool.saturated {
        Some(when) => format!("since {}, for {}", when.at, span(when.seconds_ago)),
        None => "no".to_owned(),
    };
    lines.add("saturated", &format!("{now}; {total} in all"));
    if pool.backoff {
        lines.add("backoff", "no forks for now: forks have failed, or children die as soon as they are forked");
    }
}

fn queue(listener: &ListenerView) -> String {
    let depth = match (&listener.queue, &listener.unknown) {
        (Some(queue), _) => format!("{}/{} clients wait", queue.waiting, queue.limit),
        (None, Some(reason)) => format!("unknown: {}", harmless(reason)),
        (None, None) => "unknown".to_owned(),
    };
    format!("{depth} at {}", harmless(&listener.name))
}

fn requests(lines: &mut Lines, snapshot: &Snapshot) {
    let counters = &snapshot.counters;
    let oldest = snapshot.oldest_request.map(|age| format!(", the oldest in hand for {}", span(age)));
    let failed = counters.requests_failed.map_or_else(String::new, |failed| format!(", {failed} failed"));
    let counted = format!("{} begun{failed}", counters.requests);
    lines.add("requests", &(counted + oldest.as_deref().unwrap_or_default()));
    let durations = &snapshot.durations;
    for (subject, histogram) in [("took", &durations.request), ("waited", &durations.accept_wait)] {
        if histogram.count() > 0 {
            lines.add(subject, &quantiles(histogram));
        }
    }
    if let Some(overflows) = counters.listen_overflows {
        lines.add("overflows", &format!("{overflows} connections turned away in this network namespace"));
    }
}

fn quantiles(histogram: &Histogram) -> String {
    let quantiles = [(0.5, "50 %"), (0.9, "90 %"), (0.99, "99 %")].map(|(share, name)| {
        format!("{name} within {}", histogram.quantile(share).map_or_else(|| "-".to_owned(), span))
    });
    format!("{} of {}", quantiles.join(", "), histogram.count())
}

fn forks(lines: &mut Lines, snapshot: &Snapshot) {
    let listed = |counts: &std::collections::BTreeMap<String, u64>| {
        let counts: Vec<String> =
            counts.iter().filter(|(_, count)| **count > 0).map(|(name, count)| format!("{count} {name}")).collect();
        if counts.is_empty() { "none".to_owned() } else { counts.join(", ") }
    };
    let counters = &snapshot.counters;
    lines.add("forks", &format!("{}; failed: {}", counters.forks, listed(&counters.fork_failures)));
    lines.add("exits", &listed(&counters.exits));
    if counters.torn_reads > 0 {
        lines.add("torn", &format!("{} slots could not be read whole", counters.torn_reads));
    }
}

fn process(process: &ProcessView) -> String {
    let mut parts = Vec::new();
    if let Some(descriptors) = process.descriptors {
        let limit = process.descriptors_limit.map_or_else(|| "?".to_owned(), |limit| limit.to_string());
        parts.push(format!("{descriptors}/{limit} descriptors"));
    }
    parts.extend(process.resident.map(|resident| format!("{} resident", bytes(resident))));
    parts.extend(process.cpu.map(|cpu| format!("{} of processor time", span(cpu))));
    if parts.is_empty() { "unknown".to_owned() } else { parts.join(", ") }
}

fn death(death: &Death) -> String {
    format!(
        "{}, {} ago: {}:{} pid={} cause={} age={} requests={}",
        death.reaped.at,
        span(death.reaped.seconds_ago),
        death.slot,
        death.generation,
        death.pid,
        harmless(&death.cause),
        span(death.age),
        death.requests
    )
}

#[cfg(test)]
mod tests;

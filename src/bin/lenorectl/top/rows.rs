//! The rows of `top`: plain text, by need.

use std::collections::HashMap;

use lenore::daemon::view::text::{bytes, harmless, span};
use lenore::daemon::view::{ChildView, Snapshot};

use super::usage::Usage;

/// The heads of the columns.
pub const HEADS: [&str; 9] = ["SLOT", "PID", "GEN", "STATE", "IN STATE", "REQUESTS", "CPU %", "RSS", "WHAT"];

/// The width of each column; the last takes what is left.
pub const WIDTHS: [u16; 9] = [5, 8, 5, 9, 10, 10, 6, 8, 12];

/// Returns the children in the order in which an operator wants to see them: those with a request first, the oldest request at the
/// top, then the rest by slot.
pub fn sorted(children: &[ChildView]) -> Vec<&ChildView> {
    let mut sorted: Vec<&ChildView> = children.iter().collect();
    let rank = |child: &ChildView| u8::from(!is_busy(child));
    sorted.sort_by(|one, other| {
        let by_age = other.since.seconds_ago.total_cmp(&one.since.seconds_ago);
        let in_rank = if is_busy(one) { by_age } else { one.slot.cmp(&other.slot) };
        rank(one).cmp(&rank(other)).then(in_rank).then(one.slot.cmp(&other.slot))
    });
    sorted
}

/// Tells whether a child has a request in hand.
pub fn is_busy(child: &ChildView) -> bool {
    matches!(child.state, 'r' | 'l')
}

/// Returns the cells of a child's row.
pub fn cells(child: &ChildView, usage: &HashMap<i32, Usage>) -> [String; 9] {
    let usage = child.pid.and_then(|pid| usage.get(&pid));
    [
        child.slot.to_string(),
        child.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
        child.generation.to_string(),
        word(child.state).to_owned(),
        span(child.since.seconds_ago),
        child.requests.to_string(),
        usage.and_then(|usage| usage.cpu_percent).map_or_else(|| "-".to_owned(), |percent| format!("{percent:.1}")),
        usage.map_or_else(|| "-".to_owned(), |usage| bytes(usage.resident)),
        harmless(&child.peer),
    ]
}

/// Returns the lines above the table.
pub fn summary(snapshot: &Snapshot, heartbeat: Option<&str>) -> Vec<String> {
    let (service, pool) = (&snapshot.service, &snapshot.pool);
    let states: Vec<String> = pool
        .states
        .by_name()
        .into_iter()
        .filter(|(_, number)| *number > 0)
        .map(|(name, number)| format!("{number} {name}"))
        .collect();
    let mut lines = vec![
        format!(
            "{}  pid {}  {}  up {}",
            harmless(&service.name),
            service.pid,
            service.phase.word(),
            span(service.started.seconds_ago)
        ),
        format!(
            "children {} of {}: {}",
            pool.total,
            pool.limit,
            if states.is_empty() { "none".to_owned() } else { states.join(", ") }
        ),
    ];
    lines.extend(heartbeat.map(str::to_owned));
    lines
}

/// Returns the whole as text.
pub fn text(snapshot: &Snapshot, heartbeat: Option<&str>, usage: &HashMap<i32, Usage>) -> String {
    let mut text = summary(snapshot, heartbeat).join("\n");
    text.push_str("\n\n");
    push_row(&mut text, HEADS.map(str::to_owned));
    for child in sorted(&snapshot.children) {
        push_row(&mut text, cells(child, usage));
    }
    text
}

fn push_row(text: &mut String, cells: [String; 9]) {
    let row: Vec<String> =
        cells.iter().zip(WIDTHS).map(|(cell, width)| format!("{cell:<width$}", width = usize::from(width))).collect();
    text.push_str(row.join(" ").trim_end());
    text.push('\n');
}

fn word(letter: char) -> &'static str {
    match letter {
        'F' | 'f' | '.' => "starting",
        'w' => "idle",
        'r' => "busy",
        'l' => "long",
        'k' => "keep",
        'e' => "exiting",
        ' ' => "empty",
        _ => "torn",
    }
}

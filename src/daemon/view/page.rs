//! A snapshot as a page for browsers: readable as it is, and live where scripts may run.
//!
//! `page.html` has places, `{{name}}`, that are filled in here. `page.js` fills in the same ones from `/status`.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::Histogram;
use super::human::{harmless, span};
use super::letters::{LETTERS, known};
use super::snapshot::{ChildView, Counters, Kind, ListenerView, Pool, Snapshot, States};
use crate::filter::http::markup::push_text as push;

const TEMPLATE: &str = include_str!("page.html");
const SCRIPT: &str = include_str!("page.js");

/// Writes the page. `nonce` marks its own script and style for the policy that it is sent with.
pub(in crate::daemon) fn html(snapshot: &Snapshot, nonce: &str) -> String {
    let mut page = String::with_capacity(TEMPLATE.len() + SCRIPT.len() + 16 * 1024);
    let mut rest = TEMPLATE;
    while let Some((before, after)) = rest.split_once("{{") {
        page.push_str(before);
        let (place, after) = after.split_once("}}").unwrap_or((after, ""));
        match place {
            "nonce" => page.push_str(nonce),
            "script" => page.push_str(SCRIPT),
            place => fill_in(&mut page, place, snapshot),
        }
        rest = after;
    }
    page.push_str(rest);
    page
}

fn fill_in(page: &mut String, place: &str, snapshot: &Snapshot) {
    let Snapshot { service, pool, counters, durations, listeners, .. } = snapshot;
    match place {
        "name" => push(page, &harmless(&service.name)),
        "phase" => page.push_str(service.phase.word()),
        "about" => about(page, snapshot),
        "time" => push(page, &snapshot.time),
        "total" => of_limit(page, u64::from(pool.total), u64::from(pool.limit)),
        "states" => states(page, pool),
        "spares" => spares(page, snapshot),
        "rate" => {
            let rate = counters.requests as f64 / service.started.seconds_ago.max(1.0);
            let _ = write!(page, "{rate:.2}<small> / s since the start</small>");
        }
        "requests" => {
            let _ = write!(page, "{} begun", counters.requests);
            counters.requests_failed.map(|failed| write!(page, ", {failed} failed"));
        }
        "waiting" => match queues(listeners) {
            Some((waiting, limit)) => of_limit(page, waiting, limit),
            None => page.push_str("unknown"),
        },
        "queue" => {
            let (waiting, limit) = queues(listeners).unwrap_or_default();
            let width = 100.0 * (waiting as f64 / limit.max(1) as f64).min(1.0);
            let _ = write!(page, "<rect class=\"fill\" width=\"{width:.2}\" height=\"1\"/>");
        }
        "saturated" => match &pool.saturated {
            Some(since) => drop(write!(page, "all children busy for {}", span(since.seconds_ago))),
            None if counters.saturated_seconds == 0.0 => page.push_str("never saturated"),
            None => drop(write!(page, "saturated for {} in all", span(counters.saturated_seconds))),
        },
        "oldest" => page.push_str(&snapshot.oldest_request.map_or_else(|| "none".to_owned(), span)),
        "ended" => {
            let ended: u64 = counters.exits.values().sum();
            let _ = write!(page, "{} children forked, {ended} ended", counters.forks);
        }
        "backoff" => page.push_str(if pool.backoff { "forks wait after failures" } else { "" }),
        "board" => board(page, &snapshot.board),
        "legend" => legend(page, pool),
        "took" => chart(page, &durations.request),
        "waited" => chart(page, &durations.accept_wait),
        "took_text" => quantiles(page, &durations.request),
        "waited_text" => quantiles(page, &durations.accept_wait),
        "children" => children(page, &snapshot.children),
        "deaths" => deaths(page, snapshot),
        "listeners" => queue_rows(page, listeners),
        "counters" => counted(page, counters),
        "settings" => snapshot.settings.iter().for_each(|(name, value)| pair(page, name, value)),
        _ => {}
    }
}

fn about(page: &mut String, snapshot: &Snapshot) {
    let service = &snapshot.service;
    let kind = match service.kind {
        Kind::PreForking => "pre-forking",
        Kind::PostForking => "a child for each request",
        Kind::NonForking => "one process",
    };
    let (up, generation) = (span(service.started.seconds_ago), service.generation);
    let _ = write!(page, "process {} · {kind} · up {up} · generation {generation} · lenore ", service.pid);
    push(page, &service.version);
    if let Some(supervisor) = &service.supervisor {
        page.push_str(" · ");
        push(page, &harmless(supervisor));
    }
}

fn of_limit(page: &mut String, value: u64, limit: u64) {
    let _ = write!(page, "{value}<small> / {limit}</small>");
}

fn states(page: &mut String, pool: &Pool) {
    let (mut x, all) = (0.0, f64::from(pool.limit.max(pool.total).max(1)));
    for (name, number) in pool.states.by_name() {
        let width = 100.0 * f64::from(number) / all;
        let _ = write!(page, "<rect class=\"{name}\" x=\"{x:.3}\" width=\"{width:.3}\" height=\"1\"/>");
        x += width;
    }
}

fn spares(page: &mut String, snapshot: &Snapshot) {
    let pool = &snapshot.pool;
    let _ = match snapshot.service.kind {
        Kind::PreForking => {
            write!(page, "{} idle, {} to {} wanted", pool.states.idle, pool.min_spare, pool.max_spare)
        }
        _ => write!(page, "{} requests wait for a child", pool.queued),
    };
    if pool.forks_in_flight > 0 {
        let _ = write!(page, ", {} being forked", pool.forks_in_flight);
    }
}

/// How many clients wait, and how many may; `None` if nothing is known.
fn queues(listeners: &[ListenerView]) -> Option<(u64, u64)> {
    let known = listeners.iter().filter_map(|listener| listener.queue);
    known
        .map(|queue| (u64::from(queue.waiting), u64::from(queue.limit)))
        .reduce(|sum, queue| (sum.0 + queue.0, sum.1 + queue.1))
}

/// The name of the state that a letter stands for.
fn state_of(letter: char) -> &'static str {
    let mut states = States::default();
    states.count(letter);
    states.by_name().into_iter().find(|(_, number)| *number > 0).map_or("torn", |(name, _)| name)
}

fn board(page: &mut String, letters: &str) {
    for (slot, letter) in letters.chars().enumerate() {
        let _ = match known(letter) {
            ' ' => write!(page, "<b class=\"none\" title=\"slot {slot}\"></b>"),
            letter => write!(page, "<b class=\"{}\" title=\"slot {slot}\">{letter}</b>", state_of(letter)),
        };
    }
}

fn legend(page: &mut String, pool: &Pool) {
    for (name, number) in pool.states.by_name() {
        let letters: Vec<&(char, &str)> = LETTERS.iter().filter(|(letter, _)| state_of(*letter) == name).collect();
        let all: String = letters.iter().map(|(letter, _)| *letter).collect();
        let meanings: Vec<&str> = letters.iter().map(|(_, meaning)| *meaning).collect();
        let letter = all.chars().next().unwrap_or('?');
        let _ = write!(
            page,
            "<li title=\"{all}: {}\"><b class=\"{name}\">{letter}</b><span data-state=\"{name}\">{number}</span> {name}</li>",
            meanings.join(", ")
        );
    }
}

/// A bar for each octave: the first is what took less than 64 µs, the last what took more than 67 s.
fn chart(page: &mut String, histogram: &Histogram) {
    let mut bars = [0_u64; 22];
    for (bucket, number) in histogram.buckets.iter().enumerate() {
        bars[bucket.div_ceil(Histogram::PER_OCTAVE).min(21)] += number;
    }
    let most = bars.into_iter().max().unwrap_or(0).max(1) as f64;
    for (bar, number) in bars.into_iter().enumerate() {
        // What is there is seen.
        let height = if number == 0 { 0.0 } else { (96.0 * number as f64 / most).max(2.0) };
        let (x, y) = (bar as f64 + 0.08, 100.0 - height);
        let _ = write!(page, "<rect x=\"{x:.2}\" y=\"{y:.2}\" width=\"0.84\" height=\"{height:.2}\"/>");
    }
}

fn quantiles(page: &mut String, histogram: &Histogram) {
    let within = |share| histogram.quantile(share).map(span);
    let _ = match (within(0.5), within(0.9), within(0.99)) {
        (Some(half), Some(most), Some(nearly_all)) => {
            write!(page, "{} · half within {half} · 90 % within {most} · 99 % within {nearly_all}", histogram.count())
        }
        _ => write!(page, "nothing yet"),
    };
}

/// The oldest requests first, and then by slot.
fn children(page: &mut String, children: &[ChildView]) {
    let is_busy = |child: &ChildView| matches!(child.state, 'r' | 'l');
    let mut sorted: Vec<&ChildView> = children.iter().collect();
    sorted.sort_by(|one, other| match (is_busy(one), is_busy(other)) {
        (true, true) => other.since.seconds_ago.total_cmp(&one.since.seconds_ago),
        (false, false) => one.slot.cmp(&other.slot),
        (one, other) => other.cmp(&one),
    });
    if sorted.is_empty() {
        page.push_str("<tr><td class=\"dim\" colspan=\"8\">no children</td></tr>");
    }
    for child in sorted {
        let state = if child.state == ' ' { "starting" } else { state_of(child.state) };
        let (since, age) = (span(child.since.seconds_ago), span(child.started.seconds_ago));
        let pid = child.pid.map(|pid| pid.to_string()).unwrap_or_default();
        let _ = write!(
            page,
            "<tr><td>{}:{}</td><td><span class=\"s {state}\">{state}</span></td><td class=\"n\">{since}</td><td class=\"peer\">",
            child.slot, child.generation
        );
        push(page, &harmless(&child.peer));
        let _ = write!(
            page,
            "</td><td class=\"n\">{}</td><td class=\"n wide\">{age}</td><td class=\"n wide\">{pid}</td><td class=\"wide dim\">",
            child.requests
        );
        push(page, child.told.as_deref().filter(|told| *told != "stay").unwrap_or_default());
        page.push_str("</td></tr>");
    }
}

fn deaths(page: &mut String, snapshot: &Snapshot) {
    if snapshot.deaths.is_empty() {
        page.push_str("<tr><td class=\"dim\" colspan=\"6\">no child has ended</td></tr>");
    }
    for death in &snapshot.deaths {
        let class = if death.in_order { "" } else { "bad" };
        let _ = write!(page, "<tr><td>{}:{}</td><td class=\"{class}\">", death.slot, death.generation);
        push(page, &harmless(&death.cause));
        let (ago, age) = (span(death.reaped.seconds_ago), span(death.age));
        let _ = write!(
            page,
            "</td><td class=\"n\">{ago}</td><td class=\"n wide\">{age}</td><td class=\"n\">{}</td><td class=\"n wide\">{}</td></tr>",
            death.requests, death.pid
        );
    }
}

fn queue_rows(page: &mut String, listeners: &[ListenerView]) {
    if listeners.is_empty() {
        page.push_str("<tr><td class=\"dim\" colspan=\"3\">none</td></tr>");
    }
    for ListenerView { name, queue, unknown } in listeners {
        page.push_str("<tr><td class=\"peer\">");
        push(page, &harmless(name));
        match queue {
            Some(queue) => {
                let _ = write!(
                    page,
                    "</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
                    queue.waiting, queue.limit
                );
            }
            None => {
                page.push_str("</td><td class=\"dim\">");
                push(page, &harmless(unknown.as_deref().unwrap_or("unknown")));
                page.push_str("</td><td></td></tr>");
            }
        }
    }
}

fn counted(page: &mut String, counters: &Counters) {
    let some = |numbers: &BTreeMap<String, u64>| {
        let some: Vec<String> = numbers
            .iter()
            .filter(|(_, number)| **number > 0)
            .map(|(name, number)| format!("{number} {name}"))
            .collect();
        if some.is_empty() { "none".to_owned() } else { some.join(", ") }
    };
    pair(page, "children ended", &some(&counters.exits));
    pair(page, "failed forks", &some(&counters.fork_failures));
    pair(page, "time busy", &span(counters.busy_seconds));
    let turned_away = counters.listen_overflows.map(|number| format!("{number} in this network namespace"));
    pair(page, "turned away", turned_away.as_deref().unwrap_or("unknown"));
    pair(page, "torn reads", &counters.torn_reads.to_string());
}

fn pair(page: &mut String, name: &str, value: &str) {
    page.push_str("<dt>");
    push(page, &harmless(name));
    page.push_str("</dt><dd>");
    push(page, &harmless(value));
    page.push_str("</dd>");
}

#[cfg(test)]
mod tests {
    use super::super::sample::snapshot;
    use super::*;
    use crate::harmful::is_harmful;

    #[test] // O-ST-16: what clients say is text
    fn page_has_no_markup_of_clients() {
        let mut snapshot = snapshot();
        snapshot.service.name = "</title><script>alert(1)</script>".to_owned();
        snapshot.listeners[1].name = "<img src=x>".to_owned();
        snapshot.deaths[0].cause = "<i>".to_owned();
        snapshot.board = "w<\"".to_owned();
        let page = html(&snapshot, "none");
        assert_eq!(page.matches("<script").count(), 1);
        assert!(page.contains("&lt;/b&gt;&quot;&#39;&amp;\\\\\\n\\u{1b}[2J\\u{202e}\\u{0}é"), "{page}");
        for markup in ["</b>\"", "<img", "<i>", "alert(1)</script"] {
            assert!(!page.contains(markup), "{markup}");
        }
        assert!(!page.replace('\n', "").chars().any(is_harmful));
    }

    #[test] // it reads without a script
    fn page_tells_all_by_itself() {
        let page = html(&snapshot(), "none");
        let body = page.split_once("<script").unwrap().0;
        assert!(!body.contains("{{") && !body.contains("}}"), "every place is filled in");
        for told in [
            ">7<small> / 7</small>",
            ">5<small> / 128</small>",
            "no netlink",
            "all children busy for 2.50 s",
            "3.25 s",
            "<td class=\"bad\">signal:SIGKILL</td>",
            "<dt>max_children</dt><dd>7</dd>",
            "99 % within",
            "17 in this network namespace",
            "forks wait after failures",
            "process 3999 · pre-forking · up 1 h 2 min · generation 1 · lenore 0.1.0 · systemd",
        ] {
            assert!(body.contains(told), "{told}");
        }
        assert_eq!(body.matches("<b class=\"busy\" title=\"slot").count(), 2);
        assert_eq!(body.matches("<tr><td>").count(), snapshot().children.len() + 1);
    }

    #[test] // it needs nothing from elsewhere
    fn page_names_no_other_resource() {
        let page = html(&snapshot(), "none");
        let outside = page
            .match_indices("//")
            .filter(|(at, _)| page[..*at].ends_with("http:") || page[..*at].ends_with("https:"));
        let names: Vec<&str> = outside.map(|(at, _)| &page[at..at + 20]).collect();
        assert_eq!(names, ["//www.w3.org/2000/sv"], "a name that is never fetched");
        assert!(!page.contains(" src=") && !page.contains("@import") && !page.contains("url("));
    }
}

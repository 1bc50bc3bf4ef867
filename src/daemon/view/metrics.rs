//! A snapshot as metrics, in the text format of Prometheus and in OpenMetrics.
//!
//! The settings bound the number of series. Labels are slots, states, causes, listeners and errnos, and never pids. A series that
//! was shown once is shown until the parent ends. A value that is not known has no series.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Display, Write};

use super::Histogram;
use super::snapshot::{ListenerView, ProcessView, Queue, Reloads, Sample, Snapshot, time_of};
use crate::harmful::is_harmful;

/// What the names of the Daemon's own metrics begin with unless the program says otherwise.
pub(in crate::daemon) const PREFIX: &str = "lenore_";

/// How metrics are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::daemon) enum Format {
    /// The text format 0.0.4 of Prometheus.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// Returns the `Content-Type` of metrics in this format.
    pub(in crate::daemon) fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Returns the format that a client asks for by its `Accept` header: Prometheus unless it prefers OpenMetrics 1.0.
pub(in crate::daemon) fn negotiate(accept: &str) -> Format {
    let (mut open_metrics, mut plain) = (0.0, 0.0);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let (mut quality, mut version) = (1.0, None);
        for (key, value) in parts.filter_map(|part| part.split_once('=')) {
            match key.trim().to_ascii_lowercase().as_str() {
                "q" => quality = value.trim().parse().unwrap_or(0.0),
                "version" => version = Some(value.trim().trim_matches('"')),
                _ => {}
            }
        }
        let asked: &mut f64 = match (name.to_ascii_lowercase().as_str(), version) {
            ("application/openmetrics-text", None | Some("1.0.0")) => &mut open_metrics,
            ("text/plain", None | Some("0.0.4")) => &mut plain,
            _ => continue,
        };
        *asked = asked.max(quality);
    }
    if open_metrics > 0.0 && open_metrics >= plain { Format::OpenMetrics } else { Format::Prometheus }
}

/// Writes the metrics of a snapshot. The names of the Daemon's own begin with `prefix`; those of its process and of the
/// application are what they are.
pub(in crate::daemon) fn text(snapshot: &Snapshot, format: Format, prefix: &str) -> String {
    let mut page = Page { text: String::with_capacity(16 * 1024), format, prefix, names: BTreeSet::new() };
    page.service(snapshot);
    page.pool(snapshot);
    page.listeners(&snapshot.listeners);
    page.requests(snapshot);
    page.lives(snapshot);
    page.slots(snapshot);
    page.process(&snapshot.process);
    page.application(snapshot);
    if format == Format::OpenMetrics {
        page.text.push_str("# EOF\n");
    }
    page.text
}

/// Returns which of the Daemon's own metrics is shown under one of these names, if one is.
pub(in crate::daemon) fn find_own(prefix: &str, names: &[String]) -> Option<String> {
    let mut own = OWN.iter().map(|(name, kind)| (format!("{prefix}{name}"), kind));
    let (family, kind) = own.find(|(family, kind)| kind.names(family).iter().any(|name| names.contains(name)))?;
    Some(match kind {
        Kind::Counter => family + "_total",
        Kind::Info => family + "_info",
        Kind::Gauge | Kind::Histogram => family,
    })
}

/// Tells whether the names of metrics may begin so.
pub(in crate::daemon) fn is_prefix(prefix: &str) -> bool {
    let is_letter = |char: char| char.is_ascii_alphabetic() || char == '_';
    !prefix.starts_with(|first: char| first.is_ascii_digit())
        && prefix.chars().all(|char| is_letter(char) || char.is_ascii_digit())
}

/// What is being written.
struct Page<'a> {
    text: String,
    format: Format,
    prefix: &'a str,
    /// The names of families and samples that were written so far.
    names: BTreeSet<String>,
}

/// What kind of metric a family is.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
    /// Labels that describe; the value is 1.
    Info,
}

impl Kind {
    /// Returns all names that a family takes: its own, and those of its samples, in either format.
    fn names(self, family: &str) -> Vec<String> {
        let suffixes: &[&str] = match self {
            Kind::Counter => &["", "_total", "_created"],
            Kind::Gauge => &[""],
            Kind::Histogram => &["", "_bucket", "_count", "_sum", "_created"],
            Kind::Info => &["", "_info"],
        };
        suffixes.iter().map(|suffix| format!("{family}{suffix}")).collect()
    }
}

/// The families of the Daemon's own, without the prefix.
const OWN: [(&str, Kind); 27] = [
    ("build", Kind::Info),
    ("generation", Kind::Gauge),
    ("reloads", Kind::Counter),
    ("last_reload_successful", Kind::Gauge),
    ("last_reload_success_timestamp_seconds", Kind::Gauge),
    ("upgrades", Kind::Counter),
    ("children", Kind::Gauge),
    ("children_limit", Kind::Gauge),
    ("backoff_active", Kind::Gauge),
    ("saturated_seconds", Kind::Counter),
    ("listen_queue", Kind::Gauge),
    ("listen_queue_limit", Kind::Gauge),
    ("requests", Kind::Counter),
    ("requests_failed", Kind::Counter),
    ("request_duration_seconds", Kind::Histogram),
    ("oldest_request_age_seconds", Kind::Gauge),
    ("accept_wait_seconds", Kind::Histogram),
    ("busy_seconds", Kind::Counter),
    ("listen_overflows", Kind::Counter),
    ("forks", Kind::Counter),
    ("fork_failures", Kind::Counter),
    ("child_start_seconds", Kind::Histogram),
    ("child_exits", Kind::Counter),
    ("loop_turn_seconds", Kind::Histogram),
    ("board_torn_reads", Kind::Counter),
    ("child_resident_memory_bytes", Kind::Gauge),
    ("child_cpu_seconds", Kind::Counter),
];

type Labels<'a> = &'a [(&'a str, &'a str)];

/// One family while its samples are written, which stand together.
struct Family<'a, 'p> {
    page: &'a mut Page<'p>,
    name: String,
}

impl<'p> Page<'p> {
    /// Begins a family of the Daemon's own.
    fn own(&mut self, name: &str, kind: Kind, help: &str) -> Option<Family<'_, 'p>> {
        debug_assert!(OWN.contains(&(name, kind)), "{name} can be declared by the application");
        let name = format!("{}{name}", self.prefix);
        self.family(name, kind, help)
    }

    /// Begins a family, by its name without the suffix of its samples; `None` if one of its names is taken.
    fn family(&mut self, name: String, kind: Kind, help: &str) -> Option<Family<'_, 'p>> {
        let names = kind.names(&name);
        if names.iter().any(|name| self.names.contains(name)) {
            return None;
        }
        self.names.extend(names);
        let is_open = self.format == Format::OpenMetrics;
        // The older format knows samples only, and so has their name, and no infos.
        let suffix = match kind {
            Kind::Counter if !is_open => "_total",
            Kind::Info if !is_open => "_info",
            _ => "",
        };
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Info if is_open => "info",
            Kind::Gauge | Kind::Info => "gauge",
            Kind::Histogram => "histogram",
        };
        self.text.push_str("# HELP ");
        self.text.push_str(&name);
        self.text.push_str(suffix);
        self.text.push(' ');
        escape(&mut self.text, help, is_open);
        let _ = writeln!(self.text, "\n# TYPE {name}{suffix} {kind}");
        if is_open && let Some(unit) = ["seconds", "bytes"].into_iter().find(|unit| name.ends_with(&format!("_{unit}")))
        {
            let _ = writeln!(self.text, "# UNIT {name} {unit}");
        }
        Some(Family { page: self, name })
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        if let Some(family) = self.own(name, Kind::Counter, help) {
            family.sample("_total", &[], value);
        }
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        if let Some(family) = self.own(name, Kind::Gauge, help) {
            family.sample("", &[], value);
        }
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        if !histogram.buckets.is_empty()
            && let Some(family) = self.own(name, Kind::Histogram, help)
        {
            family.histogram(histogram);
        }
    }

    fn service(&mut self, snapshot: &Snapshot) {
        let service = &snapshot.service;
        if let Some(family) = self.own("build", Kind::Info, "The version of lenore.") {
            family.sample("_info", &[("version", &service.version)], 1);
        }
        self.gauge("generation", "Which edition of the configuration is in force.", service.generation);
        let help = "Reloads of the configuration, by verdict.";
        self.results("reloads", help, &snapshot.reloads.verdicts);
        self.last_reload(&snapshot.reloads);
        self.results("upgrades", "Upgrades of the program, by verdict.", &snapshot.upgrades.verdicts);
    }

    /// Shown from the start on: the configuration of the start was loaded, or there would be no Daemon.
    fn last_reload(&mut self, reloads: &Reloads) {
        let Some(succeeded) = &reloads.succeeded else { return };
        let is_successful = reloads.last.as_ref().is_none_or(|last| last.verdict == "applied");
        let help = "1 if the last reload was applied, or if there was none; 0 otherwise.";
        self.gauge("last_reload_successful", help, u8::from(is_successful));
        if let Some(seconds) = time_of(&succeeded.at) {
            let help = "When a configuration was last applied, by a reload or at the start, in seconds since 1970.";
            self.gauge("last_reload_success_timestamp_seconds", help, seconds);
        }
    }

    fn results(&mut self, name: &str, help: &str, verdicts: &BTreeMap<String, u64>) {
        if !verdicts.is_empty()
            && let Some(mut family) = self.own(name, Kind::Counter, help)
        {
            for (result, number) in verdicts {
                family = family.sample("_total", &[("result", result)], number);
            }
        }
    }

    fn pool(&mut self, snapshot: &Snapshot) {
        let pool = &snapshot.pool;
        if let Some(mut family) = self.own("children", Kind::Gauge, "Children, by state.") {
            for (state, number) in pool.states.by_name() {
                family = family.sample("", &[("state", state)], number);
            }
        }
        self.gauge("children_limit", "How many children there may be.", pool.limit);
        let help = "1 while forks wait because the last ones have failed or children die at once.";
        self.gauge("backoff_active", help, u8::from(pool.backoff));
        let help = "How long clients have waited while all children were busy and max_children was reached.";
        self.counter("saturated_seconds", help, snapshot.counters.saturated_seconds);
    }

    /// Sockets of one name are one series: they may share a port.
    fn listeners(&mut self, listeners: &[ListenerView]) {
        let mut named: BTreeMap<&str, Option<Queue>> = BTreeMap::new();
        for ListenerView { name, queue, .. } in listeners {
            let sum = named.entry(name).or_insert(Some(Queue::new(0, 0)));
            *sum = sum.zip(*queue).map(|(sum, queue)| {
                Queue::new(sum.waiting.saturating_add(queue.waiting), sum.limit.saturating_add(queue.limit))
            });
        }
        let known: Vec<(&str, Queue)> = named.into_iter().filter_map(|(name, queue)| Some((name, queue?))).collect();
        if known.is_empty() {
            return;
        }
        let waiting = ("listen_queue", "Clients that wait to be accepted.");
        let limit = ("listen_queue_limit", "How many clients may wait to be accepted.");
        for (name, help) in [waiting, limit] {
            let Some(mut family) = self.own(name, Kind::Gauge, help) else { continue };
            for (listener, queue) in &known {
                let value = if name == limit.0 { queue.limit } else { queue.waiting };
                family = family.sample("", &[("listener", listener)], value);
            }
        }
    }

    fn requests(&mut self, snapshot: &Snapshot) {
        let (counters, durations) = (&snapshot.counters, &snapshot.durations);
        self.counter("requests", "Requests that children have begun.", counters.requests);
        if let Some(failed) = counters.requests_failed {
            self.counter("requests_failed", "Requests that the application says have failed.", failed);
        }
        self.histogram("request_duration_seconds", "How long requests took.", &durations.request);
        let help = "How long the oldest request has been in hand; 0 without one.";
        self.gauge("oldest_request_age_seconds", help, snapshot.oldest_request.unwrap_or(0.0));
        let help = "How long clients waited to be accepted.";
        self.histogram("accept_wait_seconds", help, &durations.accept_wait);
        self.counter("busy_seconds", "How long children have been busy, all together.", counters.busy_seconds);
        if let Some(overflows) = counters.listen_overflows {
            let help = "Connections turned away because a queue was full, in this network namespace.";
            self.counter("listen_overflows", help, overflows);
        }
    }

    fn lives(&mut self, snapshot: &Snapshot) {
        let (counters, durations) = (&snapshot.counters, &snapshot.durations);
        self.counter("forks", "Forks that were carried out.", counters.forks);
        if let Some(mut family) = self.own("fork_failures", Kind::Counter, "Forks that have failed, by errno.") {
            for (errno, number) in &counters.fork_failures {
                family = family.sample("_total", &[("errno", errno)], number);
            }
        }
        self.histogram("child_start_seconds", "How long children took to be ready.", &durations.child_start);
        if let Some(mut family) = self.own("child_exits", Kind::Counter, "Children that have ended, by cause.") {
            for (cause, number) in &counters.exits {
                family = family.sample("_total", &[("cause", cause)], number);
            }
        }
        let help = "Turns of the parent's loop, without the time it sleeps.";
        self.histogram("loop_turn_seconds", help, &durations.loop_turn);
        let help = "Slots of the scoreboard that could not be read whole.";
        self.counter("board_torn_reads", help, counters.torn_reads);
    }

    /// By slot, and not by process: a slot without a child has no memory, and keeps the processor time of those it had.
    fn slots(&mut self, snapshot: &Snapshot) {
        let cpu = &snapshot.counters.cpu_by_slot;
        if cpu.is_empty() {
            return;
        }
        let mut memory: Vec<Option<u64>> = vec![Some(0); cpu.len()];
        for child in &snapshot.children {
            if let Some(memory) = memory.get_mut(child.slot as usize) {
                *memory = child.usage.as_ref().and_then(|usage| usage.resident);
            }
        }
        let help = "Resident memory of the child in a slot; 0 without a child.";
        if let Some(mut family) = self.own("child_resident_memory_bytes", Kind::Gauge, help) {
            for (slot, bytes) in memory.iter().enumerate().filter_map(|(slot, bytes)| Some((slot, (*bytes)?))) {
                family = family.sample("", &[("slot", &slot.to_string())], bytes);
            }
        }
        let help = "Processor time of all children that a slot has had.";
        if let Some(mut family) = self.own("child_cpu_seconds", Kind::Counter, help) {
            for (slot, seconds) in cpu.iter().enumerate() {
                family = family.sample("_total", &[("slot", &slot.to_string())], seconds);
            }
        }
    }

    /// The parent, by the names that every exporter has.
    fn process(&mut self, process: &ProcessView) {
        if let (Some(cpu), Some(family)) =
            (process.cpu, self.family("process_cpu_seconds".to_owned(), Kind::Counter, "Processor time of the parent."))
        {
            family.sample("_total", &[], cpu);
        }
        let whole = |number: Option<u64>| number.map(|number| number.to_string());
        for (name, help, value) in [
            ("process_resident_memory_bytes", "Resident memory of the parent.", whole(process.resident)),
            ("process_virtual_memory_bytes", "Virtual memory of the parent.", whole(process.virtual_memory)),
            ("process_open_fds", "Descriptors that the parent has open.", whole(process.descriptors)),
            ("process_max_fds", "Descriptors that the parent may have open.", whole(process.descriptors_limit)),
            (
                "process_start_time_seconds",
                "When the parent was started, in seconds since 1970.",
                process.started_at.map(|seconds| seconds.to_string()),
            ),
        ] {
            if let Some(value) = value
                && let Some(family) = self.family(name.to_owned(), Kind::Gauge, help)
            {
                family.sample("", &[], value);
            }
        }
    }

    /// What the application counts. A family of which a name is taken is left out: it would spoil the whole page.
    fn application(&mut self, snapshot: &Snapshot) {
        for metric in &snapshot.metrics {
            let name = metric.name.as_str();
            match &metric.sample {
                Sample::Counter(value) => {
                    let name = name.strip_suffix("_total").unwrap_or(name).to_owned();
                    if let Some(family) = self.family(name, Kind::Counter, &metric.help) {
                        family.sample("_total", &[], value);
                    }
                }
                Sample::Gauge(value) => {
                    if let Some(family) = self.family(name.to_owned(), Kind::Gauge, &metric.help) {
                        family.sample("", &[], value);
                    }
                }
                Sample::Histogram(value) if !value.buckets.is_empty() => {
                    if let Some(family) = self.family(name.to_owned(), Kind::Histogram, &metric.help) {
                        family.histogram(value);
                    }
                }
                Sample::Histogram(_) => {}
            }
        }
    }
}

impl Family<'_, '_> {
    /// Writes one sample.
    fn sample(self, suffix: &str, labels: Labels<'_>, value: impl Display) -> Self {
        let text = &mut self.page.text;
        text.push_str(&self.name);
        text.push_str(suffix);
        for (number, (label, value)) in labels.iter().enumerate() {
            text.push(if number == 0 { '{' } else { ',' });
            text.push_str(label);
            text.push_str("=\"");
            escape(text, value, true);
            text.push('"');
        }
        if !labels.is_empty() {
            text.push('}');
        }
        let _ = writeln!(text, " {value}");
        self
    }

    /// Writes the samples of a histogram, with a bucket for each octave.
    fn histogram(mut self, histogram: &Histogram) {
        let mut seen = 0;
        for (bucket, observations) in histogram.buckets.iter().enumerate() {
            seen += observations;
            let bound = Histogram::upper_bound(bucket);
            if bound.is_finite() && bucket % Histogram::PER_OCTAVE == 0 {
                self = self.sample("_bucket", &[("le", &bound.to_string())], seen);
            }
        }
        self = self.sample("_bucket", &[("le", "+Inf")], seen);
        self = self.sample("_sum", &[], histogram.sum);
        self.sample("_count", &[], seen);
    }
}

/// Appends a label's value or a help text as both formats have them. The older one has plain quotation marks in help texts.
fn escape(to: &mut String, text: &str, quotes: bool) {
    for char in text.chars() {
        match char {
            '\\' => to.push_str("\\\\"),
            '\n' => to.push_str("\\n"),
            '"' if quotes => to.push_str("\\\""),
            // Neither format knows an escape for these.
            char if is_harmful(char) => drop(write!(to, "\\\\u{{{:x}}}", u32::from(char))),
            char => to.push(char),
        }
    }
}

#[cfg(test)]
mod tests;

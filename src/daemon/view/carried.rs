//! What was counted by the process that served before this one, and goes on to be counted.

use serde::{Deserialize, Serialize};

use super::{Counters, Durations, Family, Histogram, Sample, Snapshot};

/// What only grows in a snapshot.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(in crate::daemon) struct Carried {
    counters: Counters,
    durations: Durations,
    metrics: Vec<Family>,
    reloads: std::collections::BTreeMap<String, u64>,
    upgrades: std::collections::BTreeMap<String, u64>,
}

impl Carried {
    /// Takes it out of a snapshot.
    pub(in crate::daemon) fn of(snapshot: Snapshot) -> Carried {
        let Snapshot { counters, durations, metrics, reloads, upgrades, .. } = snapshot;
        let grows = |family: &Family| !matches!(family.sample, Sample::Gauge(_));
        let metrics = metrics.into_iter().filter(grows).collect();
        Carried { counters, durations, metrics, reloads: reloads.verdicts, upgrades: upgrades.verdicts }
    }

    /// Adds it to what another process has counted.
    pub(in crate::daemon) fn add_to(&self, snapshot: &mut Snapshot) {
        let (own, before) = (&mut snapshot.counters, &self.counters);
        own.requests += before.requests;
        own.forks += before.forks;
        own.busy_seconds += before.busy_seconds;
        own.saturated_seconds += before.saturated_seconds;
        own.torn_reads += before.torn_reads;
        own.requests_failed = sum(own.requests_failed, before.requests_failed);
        own.listen_overflows = sum(own.listen_overflows, before.listen_overflows);
        add(&mut own.fork_failures, &before.fork_failures);
        add(&mut own.exits, &before.exits);
        // Empty in a snapshot without it.
        if !own.cpu_by_slot.is_empty() {
            self.add_processor_time(&mut own.cpu_by_slot);
        }
        let (own, before) = (&mut snapshot.durations, &self.durations);
        let pairs = [
            (&mut own.request, &before.request),
            (&mut own.accept_wait, &before.accept_wait),
            (&mut own.child_start, &before.child_start),
            (&mut own.loop_turn, &before.loop_turn),
        ];
        for (own, before) in pairs {
            *own = plus(std::mem::take(own), before);
        }
        for before in &self.metrics {
            let Some(own) = snapshot.metrics.iter_mut().find(|own| own.name == before.name) else { continue };
            match (&mut own.sample, &before.sample) {
                (Sample::Counter(own), Sample::Counter(before)) => *own += before,
                (Sample::Histogram(own), Sample::Histogram(before)) => *own = plus(std::mem::take(own), before),
                // It was declared as something else there.
                _ => {}
            }
        }
        add(&mut snapshot.reloads.verdicts, &self.reloads);
        add(&mut snapshot.upgrades.verdicts, &self.upgrades);
    }
}

impl Carried {
    /// Adds the processor time of each slot. A slot that is gone stays in the list.
    pub(in crate::daemon) fn add_processor_time(&self, own: &mut Vec<f64>) {
        let before = &self.counters.cpu_by_slot;
        own.resize(own.len().max(before.len()), 0.0);
        std::iter::zip(own, before).for_each(|(own, before)| *own += before);
    }
}

fn sum(own: Option<u64>, before: Option<u64>) -> Option<u64> {
    own.map_or(before, |own| Some(own + before.unwrap_or_default()))
}

fn plus(own: Histogram, before: &Histogram) -> Histogram {
    // One that has no buckets has counted nothing.
    match (own.buckets.is_empty(), before.buckets.is_empty()) {
        (true, _) => before.clone(),
        (false, true) => own,
        (false, false) => own.plus(before),
    }
}

fn add(own: &mut std::collections::BTreeMap<String, u64>, before: &std::collections::BTreeMap<String, u64>) {
    for (name, count) in before {
        *own.entry(name.clone()).or_default() += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::view::sample::snapshot;

    #[test] // O-UP-16
    fn nothing_that_was_counted_is_less_afterwards() {
        let before = snapshot();
        let mut after = snapshot();
        Carried::of(before.clone()).add_to(&mut after);
        assert_eq!(after.counters.requests, 2 * before.counters.requests);
        assert_eq!(after.counters.forks, 2 * before.counters.forks);
        for (name, count) in &before.counters.exits {
            assert_eq!(after.counters.exits[name], 2 * count, "{name}");
        }
        assert_eq!(after.durations.request.count(), 2 * before.durations.request.count());
        for (after, before) in after.metrics.iter().zip(&before.metrics) {
            match (&after.sample, &before.sample) {
                (Sample::Counter(after), Sample::Counter(before)) => assert_eq!(*after, 2 * *before),
                (Sample::Histogram(after), Sample::Histogram(before)) => assert_eq!(after.count(), 2 * before.count()),
                (after, before) => assert_eq!(after, before),
            }
        }
    }

    #[test] // O-UP-16: whatever the number of slots
    fn processor_time_of_a_slot_goes_on() {
        let with = |cpu: &[f64]| {
            let mut snapshot = snapshot();
            snapshot.counters.cpu_by_slot = cpu.to_vec();
            snapshot
        };
        for (before, own, after) in
            [(&[1.0, 2.0][..], &[0.5][..], &[1.5, 2.0][..]), (&[1.0], &[0.5, 0.25], &[1.5, 0.25]), (&[1.0], &[], &[])]
        {
            let mut snapshot = with(own);
            Carried::of(with(before)).add_to(&mut snapshot);
            assert_eq!(snapshot.counters.cpu_by_slot, after);
        }
    }

    #[test] // O-UP-16: a process that has counted nothing yet, or that knows nothing of what the other has counted
    fn what_one_of_the_two_does_not_know_is_the_others() {
        let before = snapshot();
        let mut after = Snapshot { durations: Durations::default(), metrics: Vec::new(), ..snapshot() };
        after.counters.exits.clear();
        Carried::of(before.clone()).add_to(&mut after);
        assert_eq!(after.durations.request, before.durations.request);
        assert_eq!(after.counters.exits, before.counters.exits);
        assert!(after.metrics.is_empty());
    }

    #[test]
    fn it_is_one_line_of_text_in_between() {
        let carried = Carried::of(snapshot());
        let text = serde_json::to_string(&carried).unwrap();
        assert!(!text.contains('\n'));
        assert_eq!(serde_json::from_str::<Carried>(&text).unwrap(), carried);
    }
}

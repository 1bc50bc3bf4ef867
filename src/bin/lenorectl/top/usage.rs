//! What processes use, as `/proc` says.

use std::collections::HashMap;
use std::time::Instant;

use crate::process::Stat;

/// What one child uses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Share of one processor since the last look, in percent; `None` at the first look.
    pub cpu_percent: Option<f64>,
    /// Resident memory, in bytes.
    pub resident: u64,
}

/// Remembers the last look, since a rate takes two.
#[derive(Debug, Default)]
pub struct Meter {
    last: HashMap<i32, (Instant, f64)>,
}

impl Meter {
    /// Looks at these processes. One that can't be read is left out.
    pub fn look(&mut self, pids: impl Iterator<Item = i32>) -> HashMap<i32, Usage> {
        let now = Instant::now();
        let mut seen = HashMap::new();
        let mut last = HashMap::new();
        for pid in pids {
            let Some((cpu_seconds, resident)) = read(pid) else { continue };
            let rate = |(at, before): &(Instant, f64)| {
                let span = now.duration_since(*at).as_secs_f64();
                // A pid that was used again may have used less.
                (span > 0.0).then(|| (cpu_seconds - before).max(0.0) / span * 100.0)
            };
            let cpu_percent = self.last.get(&pid).and_then(rate);
            seen.insert(pid, Usage { cpu_percent, resident });
            last.insert(pid, (now, cpu_seconds));
        }
        self.last = last;
        seen
    }
}

fn read(pid: i32) -> Option<(f64, u64)> {
    let stat = Stat::read(pid)?;
    let ticks = stat.number(14)? + stat.number(15)?;
    Some((ticks as f64 / TICKS, stat.number(24)? * PAGE))
}

/// What `/proc` counts processor time in, a second: the same on every Linux that programs see.
const TICKS: f64 = 100.0;

/// Bytes of a page, as far as `/proc` counts resident memory in pages.
const PAGE: u64 = 4096;

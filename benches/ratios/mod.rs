//! Rounds of benchmarks, and the lines that compare them with each other and with the budgets.
//!
//! What is to be compared is measured in turns: round 1 of each, round 2 of each, and so on, so that whatever else the
//! machine does is shared fairly. The results are read back from where Criterion wrote them, and only those of this
//! run count. Every line begins with `ratio`, `time` or `bytes`, so that this makes the table of the README:
//!
//! ```sh
//! cargo bench -p lenore-benches 2>/dev/null | grep -E '^(ratio|time|bytes) '
//! ```
#![allow(dead_code, reason = "each bench compiles its own copy of this module and uses a part of it")]

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use criterion::measurement::WallTime;
use criterion::{Bencher, BenchmarkGroup, BenchmarkId, Criterion, Throughput};

/// One thing to be measured: its name, and how. `S` is what the contenders of a group share.
pub type Contender<'a, S> = (&'a str, fn(&mut S, &mut Bencher<'_>));

/// A group of contenders, and what came of it.
pub struct Rounds {
    group: String,
    began: SystemTime,
    lines: String,
}

/// The worst that is accepted.
#[derive(Clone, Copy, Debug)]
pub enum Budget {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
    /// Shown for information.
    None,
}

impl Rounds {
    /// Measures every contender [`ROUNDS`] times, in turns; `elements` are what one iteration comes to.
    pub fn measure<S>(group: &str, elements: u64, shared: &mut S, contenders: &[Contender<'_, S>]) -> Rounds {
        let rounds = Rounds { group: group.into(), began: SystemTime::now(), lines: String::new() };
        let mut criterion =
            Criterion::default().without_plots().output_directory(&criterion_home()).configure_from_args();
        let mut measured = criterion.benchmark_group(group);
        set_up(&mut measured, elements);
        for round in 1..=ROUNDS {
            for (name, run) in contenders {
                measured.bench_function(BenchmarkId::new(*name, round), |bencher| run(shared, bencher));
            }
        }
        measured.finish();
        rounds
    }

    /// Compares the speed of `name` with that of `peer`, which is the times the other way round.
    pub fn throughput(self, name: &str, peer: &str, budget: Budget) -> Rounds {
        let speeds = |(own, other): (f64, f64)| other / own;
        self.line("ratio", format!("{name}/{peer}"), speeds, name, peer, budget)
    }

    /// Compares the time that `name` takes with that of `peer`.
    pub fn times(self, name: &str, peer: &str, budget: Budget) -> Rounds {
        let times = |(own, other): (f64, f64)| own / other;
        self.line("ratio", format!("{name}/{peer} (time)"), times, name, peer, budget)
    }

    /// Gives the time of one iteration in nanoseconds: the best round's, since other processes only ever add to it.
    pub fn nanos(mut self, name: &str, budget: Budget) -> Rounds {
        let best = self.by_round(name).into_iter().flatten().min_by(f64::total_cmp);
        if let Some(nanos) = best {
            let _ = writeln!(self.lines, "time {} {name} {nanos:.1} ns{}", self.group, budget.verdict(nanos));
        }
        self
    }

    /// Gives the speed of `name` in megabytes a second, if one iteration is that many `octets`: the best round's.
    pub fn octets(mut self, name: &str, octets: usize) -> Rounds {
        let best = self.by_round(name).into_iter().flatten().min_by(f64::total_cmp);
        if let Some(nanos) = best {
            let _ = writeln!(self.lines, "bytes {} {name} {:.0} MB/s", self.group, octets as f64 * 1e3 / nanos);
        }
        self
    }

    /// Prints what was found; nothing if nothing was measured, as in a test run.
    pub fn print(self) {
        print!("{}", self.lines);
    }

    fn line(
        mut self,
        kind: &str,
        what: String,
        compare: impl Fn((f64, f64)) -> f64,
        name: &str,
        peer: &str,
        budget: Budget,
    ) -> Rounds {
        let pairs = self.by_round(name).into_iter().zip(self.by_round(peer));
        let mut ratios: Vec<f64> = pairs.filter_map(|(own, other)| Some(compare((own?, other?)))).collect();
        ratios.sort_by(f64::total_cmp);
        if let Some(ratio) = ratios.get(ratios.len() / 2) {
            let _ = writeln!(self.lines, "{kind} {} {what} {ratio:.2}{}", self.group, budget.verdict(*ratio));
        }
        self
    }

    /// Reads the median of each round, in nanoseconds, if this run measured it.
    fn by_round(&self, name: &str) -> Vec<Option<f64>> {
        let directory = criterion_home().join(&self.group).join(name);
        let median = |round: u32| {
            let path = directory.join(round.to_string()).join("new").join("estimates.json");
            let is_new = fs::metadata(&path).and_then(|file| file.modified()).ok()? >= self.began;
            let text = fs::read_to_string(&path).ok().filter(|_| is_new)?;
            let (_, median) = text.split_once("\"median\"")?;
            let (_, point) = median.split_once("\"point_estimate\":")?;
            point.split([',', '}']).next()?.trim().parse().ok()
        };
        (1..=ROUNDS).map(median).collect()
    }
}

impl Budget {
    /// Returns the remark that ends a line.
    pub fn verdict(self, value: f64) -> String {
        let (within, bound, budget) = match self {
            Budget::None => return String::new(),
            Budget::AtMost(most) => (value <= most, "at most", most),
            Budget::AtLeast(least) => (value >= least, "at least", least),
        };
        let missed = if within { "" } else { ", MISSED" };
        format!(" (budget {bound} {budget}{missed})")
    }
}

/// How often everything is measured.
const ROUNDS: u32 = 5;

fn set_up(group: &mut BenchmarkGroup<'_, WallTime>, elements: u64) {
    group
        .throughput(Throughput::Elements(elements))
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600));
}

/// Returns where Criterion is to write: beside the directory `release` that this program was built into. Left to itself
/// it asks cargo, which does not know of a `--target-dir` given for this run, and nothing would be found.
fn criterion_home() -> PathBuf {
    if let Some(home) = std::env::var_os("CRITERION_HOME") {
        return home.into();
    }
    let program = std::env::current_exe().unwrap_or_default();
    program.ancestors().nth(3).map_or_else(|| "target/criterion".into(), |target| target.join("criterion"))
}

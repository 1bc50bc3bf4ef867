//! How many children to fork and to retire: pure functions of counts and limits.
//!
//! Nothing here reads a clock, a scoreboard or a setting, and what remembers anything is told the time.
//! The Daemon counts, asks, and carries out what it can; asking again right after gives nothing more to do.

use std::time::Duration;

mod budget;
mod crash_loop;
mod demand;
mod growth;
mod rogue;
mod run_time;
mod status;
mod waiting;

pub use budget::Budget;
pub use crash_loop::{CrashLoop, STAYED_UP};
pub use demand::{Held, Hold, Reckoning, ServiceTime, StartTime, default_hold, may_retire};
pub use growth::Growth;
pub use rogue::{Escalation, Meter, Rogue, Rules, Sight, Step, judge};
pub use run_time::{Grace, RunClock, Stint};
pub use status::{Report, Status, UnknownStatus};
pub use waiting::{Hearing, Overload, OverloadNews, Unheard};

/// What a pre-forking pool may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Fork when fewer spares than this are left.
    pub min_spare: u32,
    /// Retire when there are more spares than this.
    pub max_spare: u32,
    /// Never have more children than this, whatever they are doing.
    pub max_children: u32,
    /// How many children to begin with.
    pub start_children: u32,
}

/// Where in its life a pre-forking pool is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// The first children are being forked; nothing is retired.
    StartingUp,
    /// Spares are kept between their limits.
    Running,
    /// Nothing is forked any more. Children are told to go by the shutdown, not one by one.
    ShuttingDown,
}

/// What the children of a pre-forking pool are doing. Each child is in exactly one of the last four.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// All children not reaped yet, and the forks asked for but not carried out.
    pub children: u32,
    /// Waiting (`w`) and not asked to go.
    pub idle: u32,
    /// Not yet waiting for the first time (`F`, `f`, `.`), with the forks not carried out; not asked to go.
    pub starting: u32,
    /// With a request in hand, or in no status that a spare has; not asked to go.
    pub busy: u32,
    /// Asked to go, or on their way out (`e`), whatever else they do. They are spares no longer, but still children.
    pub retiring: u32,
}

impl Counts {
    /// Returns how many children there are: all in all, or by what they do, whichever is more. Should the two ever
    /// disagree, the hard limit holds for both.
    pub fn total(&self) -> u32 {
        let parts = [self.idle, self.starting, self.busy, self.retiring];
        parts.into_iter().fold(0, u32::saturating_add).max(self.children)
    }

    /// Returns how many children wait for a request or soon will.
    fn spares(&self) -> u32 {
        self.idle.saturating_add(self.starting)
    }
}

/// The idle counts at which a child rings the parent: below `low` or above `high`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Thresholds {
    /// A child that stops waiting rings if fewer are idle than this. 0: never.
    pub low: u32,
    /// A child that begins to wait rings if more are idle than this. `u32::MAX`: never.
    pub high: u32,
}

impl Thresholds {
    /// No change is news.
    pub const SILENT: Thresholds = Thresholds { low: 0, high: u32::MAX };

    /// Returns what the thresholds are on a board that counts so many as idle that are not.
    pub fn with_ghosts(self, ghosts: u32) -> Thresholds {
        let low = if self.low == 0 { 0 } else { self.low.saturating_add(ghosts) };
        Thresholds { low, high: self.high.saturating_add(ghosts) }
    }
}

/// What to do about a pre-forking pool.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PreForkDecision {
    /// Fork so many children.
    pub fork: u32,
    /// Ask so many idle children to go.
    pub retire: u32,
    /// Publish these. They take the decision for carried out: whoever carries out less of it, because forks are
    /// rationed or failed, must come back by a clock.
    pub thresholds: Thresholds,
    /// To be given to the next decision, if this one was carried out in full.
    pub growth: Growth,
}

/// Decides what a pre-forking pool needs.
///
/// Spares are the idle and the starting children; those asked to go are not. Fewer than `min_spare` are filled up as
/// far as `max_children` allows; of more than `max_spare` the surplus is retired, as far as there are idle ones. While all
/// that were forked are taken up at once, `growth` asks for twice as many each time, see [`Growth`]. Clients that wait may have
/// `asked` for so many children more than are there, see [`Reckoning`].
///
/// The thresholds say which idle count would change this answer as long as the other counts do not. At `max_children`
/// there is nothing to be done about a shortage, so `low` is 0 and a saturated pool does not ring for each request. A
/// child that is asked to go still waits, and counts on the scoreboard, until it hears of it; its going then rings if
/// there is a shortage.
///
/// POE: `check_scoreboard` in `POE::Component::Daemon`, once a second, which kills the surplus with INT and may pass
/// `max_children`.
pub fn prefork(counts: Counts, limits: Limits, phase: Phase, growth: Growth, asked: u32) -> PreForkDecision {
    let room = limits.max_children.saturating_sub(counts.total());
    match phase {
        Phase::StartingUp => PreForkDecision {
            fork: limits.start_children.saturating_sub(counts.total()).min(room),
            retire: 0,
            thresholds: Thresholds::SILENT,
            growth: Growth::default(),
        },
        Phase::Running => {
            let (wanted, growth) = growth.next(counts, limits, room);
            let fork = wanted.saturating_sub(counts.spares()).max(asked).min(room);
            // More than the maximum there are after it was lowered; those told to go already make up for some.
            let excess = counts.total().saturating_sub(counts.retiring).saturating_sub(limits.max_children);
            let surplus = counts.spares().saturating_sub(limits.max_spare);
            let retire = surplus.max(excess).min(counts.idle);
            let starting = counts.starting.saturating_add(fork);
            let low = if fork == room { 0 } else { limits.min_spare.saturating_sub(starting) };
            let high = if excess > retire { 0 } else { limits.max_spare.saturating_sub(starting) };
            PreForkDecision { fork, retire, thresholds: Thresholds { low, high }, growth }
        }
        Phase::ShuttingDown => {
            PreForkDecision { fork: 0, retire: 0, thresholds: Thresholds::SILENT, growth: Growth::default() }
        }
    }
}

/// Returns how many requests the `number`th child is to handle: between `requests - jitter` and `requests`, spread
/// evenly over any run of numbers, and never less than 1.
///
/// No random numbers: a child would inherit their generator, and draw what its siblings draw.
pub fn share(requests: u64, jitter: u64, number: u64) -> u64 {
    // Multiples of the golden ratio, of which the fractions keep as far from each other as they can.
    let fraction = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let less = (u128::from(fraction) * (u128::from(jitter) + 1)) >> 64;
    requests.saturating_sub(u64::try_from(less).unwrap_or(jitter)).max(1)
}

/// What a post-forking daemon has to do and may do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Demand {
    /// All children not reaped yet, and the forks asked for but not carried out.
    pub children: u32,
    /// Requests that wait for a child, without those whose fork has been asked for.
    pub queued: usize,
    /// What the application was last told.
    pub intake: Intake,
    /// Never have more children than this.
    pub max_children: u32,
}

/// Whether the application takes new requests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Intake {
    /// It does: the beginning, and after `daemon_accept`.
    Open,
    /// It was sent `daemon_pause`.
    Paused,
}

/// What to tell the application.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Notice {
    /// Send `daemon_pause`: the children have reached `max_children`.
    Pause,
    /// Send `daemon_accept`: there is room again, and no request waits for it.
    Accept,
    /// Nothing has changed for it.
    Nothing,
}

/// What to do about a post-forking daemon.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PostForkDecision {
    /// Fork so many children, for the requests that have waited longest.
    pub fork: u32,
    /// Then tell the application this. It takes the forks for carried out or on their way.
    pub notice: Notice,
}

/// Decides what a post-forking daemon does: a child for each queued request while there is room, a pause exactly when
/// there is no more.
///
/// While forks fail and are put off, don't ask: there is nothing to decide.
///
/// POE: `check_scoreboard` in `POE::Component::Daemon`, once a second, so that more than `max_children` may be forked
/// in between.
pub fn postfork(demand: Demand) -> PostForkDecision {
    let room = demand.max_children.saturating_sub(demand.children);
    let fork = u32::try_from(demand.queued).unwrap_or(u32::MAX).min(room);
    // Room left over means that the queue is empty: otherwise it would have been used.
    let notice = match (demand.intake, fork == room) {
        (Intake::Open, true) => Notice::Pause,
        (Intake::Paused, false) => Notice::Accept,
        _ => Notice::Nothing,
    };
    PostForkDecision { fork, notice }
}

/// Rations forks: a number at once, then so many a second.
///
/// Whole arithmetic, so that no run of it, however long, grants more than the burst and the rate allow.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    /// The most it can hold, in billionths of a token.
    capacity: u64,
    /// What it held at `at`, in billionths of a token.
    level: u64,
    /// Tokens gained a second, which is the same as billionths gained a nanosecond.
    per_second: u32,
    /// The last time it was looked into, since whatever start the caller counts from.
    at: Duration,
}

impl TokenBucket {
    /// Makes a full bucket of `burst` tokens that gains `per_second` tokens a second.
    ///
    /// With a `burst` of 0 it never grants anything, with a `per_second` of 0 nothing after the burst. Times given to
    /// it count from a start of the caller's choosing.
    pub fn new(burst: u32, per_second: u32) -> Self {
        let capacity = u64::from(burst) * NANOS;
        Self { capacity, level: capacity, per_second, at: Duration::ZERO }
    }

    /// Takes up to `want` tokens at `now` and returns how many there were to take.
    ///
    /// A `now` before the last one counts as the last one.
    pub fn take(&mut self, now: Duration, want: u32) -> u32 {
        self.level = self.level_at(now);
        self.at = self.at.max(now);
        // The level is at most `u32::MAX` tokens, so the minimum fits.
        let granted = (self.level / NANOS).min(u64::from(want));
        self.level -= granted * NANOS;
        u32::try_from(granted).unwrap_or(want)
    }

    /// Returns how long after `now` there will be a token: zero if there is one, `None` if there never will be.
    pub fn ready_in(&self, now: Duration) -> Option<Duration> {
        let missing = NANOS.saturating_sub(self.level_at(now));
        if missing == 0 {
            return Some(Duration::ZERO);
        }
        let reachable = self.capacity >= NANOS && self.per_second > 0;
        // Rounded up: a caller that comes back after exactly this long finds the token there. A `now` that lags behind
        // the last one has that much further to go.
        let lag = self.at.saturating_sub(now);
        reachable.then(|| lag + Duration::from_nanos(missing.div_ceil(u64::from(self.per_second))))
    }

    /// Returns what it holds at `now`, in billionths of a token.
    fn level_at(&self, now: Duration) -> u64 {
        let gained = now.saturating_sub(self.at).as_nanos().saturating_mul(u128::from(self.per_second));
        let level = gained.saturating_add(u128::from(self.level)).min(u128::from(self.capacity));
        u64::try_from(level).unwrap_or(self.capacity)
    }
}

/// Nanoseconds in a second, and billionths in a token.
const NANOS: u64 = 1_000_000_000;

#[cfg(test)]
mod tests;

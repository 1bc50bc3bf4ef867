//! How many children a pre-forking pool forks and retires, by what they are doing.

use super::Growth;

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
    pub(super) fn spares(&self) -> u32 {
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
    pub fn with_stale_idle(self, stale_idle: u32) -> Thresholds {
        let low = if self.low == 0 { 0 } else { self.low.saturating_add(stale_idle) };
        Thresholds { low, high: self.high.saturating_add(stale_idle) }
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
/// Spares are the idle and the starting children, without those asked to go. If there are fewer than `min_spare`, more are forked,
/// as far as `max_children` allows. If there are more than `max_spare`, the surplus is retired, as far as there are idle children.
/// While all that were forked are taken up at once, `growth` asks for twice as many each time, see [`Growth`]. Clients that wait may
/// have `asked` for so many more children than are there, see [`Reckoning`].
///
/// The thresholds say which idle count would change this answer as long as the other counts do not. At `max_children`
/// there is nothing to be done about a shortage, so `low` is 0 and a saturated pool does not ring for each request. A child
/// that is asked to go still waits, and counts on the scoreboard, until it hears of that. When it goes it rings if there is a
/// shortage.
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

/// Returns how many requests the `number`th child is to handle: between `requests - jitter` and `requests`, and at least 1.
/// The results are spread evenly over any run of numbers.
///
/// No random numbers: a child would inherit their generator, and draw what its siblings draw.
pub fn share(requests: u64, jitter: u64, number: u64) -> u64 {
    // Multiples of the golden ratio, of which the fractions keep as far from each other as they can.
    let fraction = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let less = (u128::from(fraction) * (u128::from(jitter) + 1)) >> 64;
    requests.saturating_sub(u64::try_from(less).unwrap_or(jitter)).max(1)
}

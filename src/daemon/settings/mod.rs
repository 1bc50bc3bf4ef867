//! The settings of a Daemon. This module fills in what the caller left out, and refuses contradictions.
//!
//! All of it happens before anything is opened or forked, so that a mistake here has no effects to undo.

mod error;

use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

use crate::daemon::board::Scoreboard;
use crate::daemon::machine::{Limits, Rules, Shutdown};

pub use error::SettingsError;

/// The settings as the caller gave them. `None` means not given. So does 0 for `max_children` and `start_children`.
#[derive(Clone, Debug, Default)]
pub struct RawSettings {
    /// The alias of the Daemon session.
    pub(crate) alias: Option<String>,
    /// Whether to log each fork and exit.
    pub(crate) verbose: bool,
    /// Whether `run` returns in children.
    pub(crate) children_return: bool,
    /// The most children at a time.
    pub(crate) max_children: Option<u32>,
    /// How many children to begin with. Makes the daemon pre-forking.
    pub(crate) start_children: Option<u32>,
    /// If there are more spares than this, some are retired.
    pub(crate) max_spare: Option<u32>,
    /// If there are fewer spares than this, more are forked. 0 is raised to 1.
    pub(crate) min_spare: Option<u32>,
    /// How many requests a pre-forked child handles before it is replaced. 0 means no limit.
    pub(crate) requests: Option<u64>,
    /// How much earlier than `requests` a child may be replaced.
    pub(crate) requests_jitter: Option<u64>,
    /// How many children that died before they were ready may be replaced at once.
    pub(crate) fork_burst: Option<u32>,
    /// How many of them a second may be replaced after that.
    pub(crate) forks_per_second: Option<u32>,
    /// How long a client may wait before more children are forked.
    pub(crate) wait_target: Option<Duration>,
    /// How long children are kept that were forked because clients waited.
    pub(crate) shrink_hold: Option<Duration>,
    /// How long the daemon may take to be ready.
    pub(crate) start_timeout: Option<Duration>,
    /// How long children may take to end at shutdown before they are killed.
    pub(crate) shutdown_timeout: Option<Duration>,
    /// How long clients are served before a graceful end begins.
    pub(crate) lame_duck: Duration,
    /// What the first TERM does.
    pub(crate) term: Option<Shutdown>,
    /// How long the Daemon may be unable to serve before it counts as dead.
    pub(crate) health_limit: Option<Duration>,
    /// Whether a service manager is told at once that the Daemon counts as dead.
    pub(crate) gives_up: bool,
    /// How often children are examined.
    pub(crate) babysit: Option<Duration>,
    /// How long a child may be in `r`.
    pub(crate) request_timeout: Option<Duration>,
    /// How long a child may be in `l`.
    pub(crate) long_timeout: Option<Duration>,
    /// How much processor time a child may use for one request.
    pub(crate) cpu_limit: Option<Duration>,
    /// How many bytes of a child may be resident.
    pub(crate) memory_limit: Option<u64>,
    /// Whether the program has a configuration.
    pub(crate) has_configuration: bool,
    /// How long loading the configuration may take.
    pub(crate) load_timeout: Option<Duration>,
    /// How long the former configuration is kept.
    pub(crate) probation: Option<Duration>,
    /// How many more children there may be during a reload.
    pub(crate) surge: Option<u32>,
    /// How many fewer children may be ready during a reload.
    pub(crate) max_unavailable: Option<u32>,
    /// How long a replaced child may go on with its work.
    pub(crate) drain_limit: Option<Duration>,
    /// How long a new program may take until it has taken over.
    pub(crate) upgrade_timeout: Option<Duration>,
}

/// Which numbers of children were given. The others follow from these.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Given {
    pub(crate) max_children: bool,
    pub(crate) min_spare: bool,
    pub(crate) max_spare: bool,
}

/// The settings of a Daemon, complete and free of contradictions.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// The alias of the Daemon session.
    pub(crate) alias: String,
    /// Whether to log each fork and exit.
    pub(crate) verbose: bool,
    /// Whether `run` returns in children.
    pub(crate) children_return: bool,
    /// What kind of server it is.
    pub(crate) forking: Forking,
    /// The most children at a time. 0 if the Daemon does not fork.
    pub(crate) max_children: u32,
    /// How many children to begin with, at most `max_children`. 0 unless the Daemon is pre-forking.
    pub(crate) start_children: u32,
    /// If there are more spares than this, some are retired. At least `min_spare`. 0 unless the Daemon is pre-forking.
    pub(crate) max_spare: u32,
    /// If there are fewer spares than this, more are forked. At least 1. 0 unless the Daemon is pre-forking.
    pub(crate) min_spare: u32,
    /// Which of the numbers of children were given.
    pub(crate) given: Given,
    /// How many requests a pre-forked child handles before it is replaced. `None` means no limit.
    pub(crate) requests: Option<NonZeroU64>,
    /// How much earlier than `requests` a child may be replaced; less than `requests`.
    pub(crate) requests_jitter: u64,
    /// How many children that died before they were ready may be replaced at once; at least 1.
    pub(crate) fork_burst: u32,
    /// How many of them a second may be replaced after that; at least 1.
    pub(crate) forks_per_second: u32,
    /// How long a client may wait before more children are forked; not zero.
    pub(crate) wait_target: Duration,
    /// How long children are kept that were forked because clients waited. `None` means that it follows from how long
    /// they take to start.
    pub(crate) shrink_hold: Option<Duration>,
    /// How long a launcher waits for the daemon to be ready; not zero.
    pub(crate) start_timeout: Duration,
    /// How long children may take to end at shutdown before they are killed; not zero.
    pub(crate) shutdown_timeout: Duration,
    /// How long clients are served before a graceful end begins; less than `shutdown_timeout`.
    pub(crate) lame_duck: Duration,
    /// What the first TERM does.
    pub(crate) term: Shutdown,
    /// How long the Daemon may be unable to serve before it counts as dead; not zero.
    pub(crate) health_limit: Duration,
    /// Whether a service manager is told at once that the Daemon counts as dead.
    pub(crate) gives_up: bool,
    /// How often children are examined; not zero.
    pub(crate) babysit: Duration,
    /// The limits of a child.
    pub(crate) rules: Rules,
    /// How a reload goes.
    pub(crate) reload: Reloading,
    /// How long a new program may take until it has taken over; not zero.
    pub(crate) upgrade_timeout: Duration,
    /// How long a new program may take to greet, which shows that it can take over. Not zero.
    pub(crate) greeting_limit: Duration,
}

/// How a reload goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reloading {
    /// The program has a configuration.
    pub(crate) is_possible: bool,
    /// How long it may take to load; not zero.
    pub(crate) load_timeout: Duration,
    /// How long the former configuration is kept.
    pub(crate) probation: Duration,
    /// How many children there may be in addition to `max_children` during a reload.
    pub(crate) surge: u32,
    /// How many fewer children than before may be ready during a reload.
    pub(crate) max_unavailable: u32,
    /// How long a replaced child may go on with its work. Not zero.
    pub(crate) drain_limit: Duration,
}

impl Settings {
    /// Tells whether the configuration from before a reload is kept, so that the Daemon can go back to it.
    pub fn has_way_back(&self) -> bool {
        self.forking != Forking::None && !self.reload.probation.is_zero()
    }

    /// Returns how many slots the scoreboard needs. It is some more than `max_children`, so that children on their way
    /// out never block their successors. 0 if the Daemon does not fork.
    pub fn slots(&self) -> usize {
        match self.forking {
            Forking::None => 0,
            Forking::Pre | Forking::Post => {
                let more = SPARE_SLOTS.max(self.reload.surge as usize);
                usize::try_from(self.max_children).unwrap_or(usize::MAX).saturating_add(more)
            }
        }
    }

    /// Returns how often to look whether this process and its children run. A time for which they were stopped must
    /// only count for a small part of the shortest limit.
    pub fn look_every(&self) -> Duration {
        let limits = [self.rules.request_timeout, self.rules.long_timeout, Some(self.babysit)];
        let shortest = limits.into_iter().flatten().fold(self.shutdown_timeout, Duration::min);
        (shortest / LOOKS).max(SHORTEST_LOOK)
    }

    /// Returns the limits for the pool's policy. Pre-forking only.
    pub fn limits(&self) -> Limits {
        Limits {
            min_spare: self.min_spare,
            max_spare: self.max_spare,
            max_children: self.max_children,
            start_children: self.start_children,
        }
    }
}

/// The most slots that a scoreboard can have.
pub const MOST_SLOTS: usize = Scoreboard::MAX_SLOTS;

/// When a Daemon forks.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Forking {
    /// A pool of children waits for requests.
    Pre,
    /// A child is forked for each request.
    Post,
    /// There are no children.
    None,
}

impl fmt::Display for Forking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Forking::Pre => "pre-forking",
            Forking::Post => "post-forking",
            Forking::None => "non-forking",
        })
    }
}

/// Fills in what was left out and checks the result.
///
/// `start_children` makes the daemon pre-forking, and `max_children` alone makes it post-forking. A pre-forking daemon
/// gets these defaults:
///
/// - With `max_children`: `min_spare` is a fifth of it, and `max_spare` four fifths. If `max_spare` is given,
///   `min_spare` is half of that.
/// - Without `max_children`: `min_spare` is `start_children`, `max_spare` is twice `min_spare`, and `max_children` is
///   the sum of `start_children` and `max_spare`.
///
/// The settings of spares and `requests` have no effect on other daemons.
///
/// # Errors
///
/// [`SettingsError`], which names the contradiction, whether a value was given or filled in.
///
/// POE: `default_min_max` in `POE::Component::Daemon`, which only checks `max_spare` against `min_spare`.
pub fn resolve(raw: RawSettings) -> Result<Settings, SettingsError> {
    let start_children = raw.start_children.unwrap_or(0);
    let given_max = raw.max_children.filter(|&max| max > 0);
    let forking = match (start_children, given_max) {
        (1.., _) => Forking::Pre,
        (0, Some(_)) => Forking::Post,
        (0, None) => Forking::None,
    };
    let (min_spare, max_spare, max_children) = match forking {
        Forking::Pre => resolve_pool(&raw, start_children, given_max),
        Forking::Post | Forking::None => (0, 0, given_max.unwrap_or(0)),
    };
    let given = Given {
        max_children: given_max.is_some(),
        min_spare: raw.min_spare.is_some(),
        max_spare: raw.max_spare.is_some(),
    };
    let exit_timeout = exit_timeout(&raw);
    let settings = Settings {
        alias: raw.alias.unwrap_or_else(|| DEFAULT_ALIAS.to_owned()),
        verbose: raw.verbose,
        children_return: raw.children_return,
        forking,
        max_children,
        start_children,
        max_spare,
        min_spare,
        given,
        requests: NonZeroU64::new(raw.requests.unwrap_or(DEFAULT_REQUESTS)),
        requests_jitter: raw.requests_jitter.unwrap_or(0),
        fork_burst: raw.fork_burst.unwrap_or(DEFAULT_FORK_BURST),
        forks_per_second: raw.forks_per_second.unwrap_or(DEFAULT_FORKS_PER_SECOND),
        wait_target: raw.wait_target.unwrap_or(DEFAULT_WAIT_TARGET),
        shrink_hold: raw.shrink_hold,
        start_timeout: raw.start_timeout.unwrap_or(DEFAULT_START_TIMEOUT),
        shutdown_timeout: raw.shutdown_timeout.unwrap_or(DEFAULT_SHUTDOWN_TIMEOUT),
        lame_duck: raw.lame_duck,
        term: raw.term.unwrap_or(Shutdown::Immediate),
        health_limit: raw.health_limit.unwrap_or(DEFAULT_HEALTH_LIMIT),
        gives_up: raw.gives_up,
        babysit: raw.babysit.unwrap_or(DEFAULT_BABYSIT),
        rules: Rules {
            request_timeout: raw.request_timeout,
            long_timeout: raw.long_timeout,
            exit_timeout,
            cpu_limit: raw.cpu_limit.unwrap_or(DEFAULT_CPU_LIMIT),
            memory_limit: raw.memory_limit,
        },
        reload: Reloading {
            is_possible: raw.has_configuration,
            load_timeout: raw.load_timeout.unwrap_or(DEFAULT_LOAD_TIMEOUT),
            probation: raw.probation.unwrap_or(DEFAULT_PROBATION),
            surge: raw.surge.unwrap_or(DEFAULT_SURGE),
            max_unavailable: raw.max_unavailable.unwrap_or(0),
            drain_limit: raw.drain_limit.unwrap_or(DEFAULT_DRAIN_LIMIT),
        },
        upgrade_timeout: raw.upgrade_timeout.unwrap_or(DEFAULT_UPGRADE_TIMEOUT),
        greeting_limit: GREETING_LIMIT,
    };
    check(&settings)?;
    Ok(settings)
}

/// Returns how long a child may be in `e`. That is `shutdown_timeout`, as at any shutdown, but not less than the limits
/// for requests.
fn exit_timeout(raw: &RawSettings) -> Duration {
    let grace = raw.shutdown_timeout.unwrap_or(DEFAULT_SHUTDOWN_TIMEOUT);
    [raw.request_timeout, raw.long_timeout].into_iter().flatten().fold(grace, Duration::max)
}

/// Returns `min_spare`, `max_spare` and `max_children` of a pre-forking daemon.
fn resolve_pool(raw: &RawSettings, start_children: u32, given_max: Option<u32>) -> (u32, u32, u32) {
    let (default_min, default_max) = match (given_max, raw.max_spare) {
        (Some(_), Some(max_spare)) => (max_spare / 2, max_spare),
        // At least 1, as for `min_spare`: the integer part of 80 % of 1 is nothing.
        (Some(max), None) => (max / 5, percent(max, 80).max(1)),
        (None, _) => (start_children, raw.min_spare.unwrap_or(start_children).max(1).saturating_mul(2)),
    };
    let min_spare = raw.min_spare.unwrap_or(default_min).max(1);
    let max_spare = raw.max_spare.unwrap_or(default_max);
    (min_spare, max_spare, given_max.unwrap_or_else(|| start_children.saturating_add(max_spare)))
}

/// Refuses contradictions.
fn check(settings: &Settings) -> Result<(), SettingsError> {
    let &Settings { min_spare, max_spare, start_children, max_children, .. } = settings;
    if max_spare < min_spare {
        return Err(SettingsError::SpareLimits { max_spare, min_spare });
    }
    if start_children > max_children {
        return Err(SettingsError::StartAboveMax { start_children, max_children });
    }
    if settings.slots() > Scoreboard::MAX_SLOTS {
        return Err(SettingsError::TooManyChildren { max_children, limit: Scoreboard::MAX_SLOTS - SPARE_SLOTS });
    }
    if let Some(requests) = settings.requests
        && settings.requests_jitter >= requests.get()
        && settings.requests_jitter > 0
    {
        return Err(SettingsError::JitterTooLarge {
            requests_jitter: settings.requests_jitter,
            requests: requests.get(),
        });
    }
    if !settings.lame_duck.is_zero() && settings.lame_duck >= settings.shutdown_timeout {
        return Err(SettingsError::LameDuck {
            lame_duck: settings.lame_duck,
            shutdown_timeout: settings.shutdown_timeout,
        });
    }
    let rules = settings.rules;
    let durations = [
        ("wait_target", Some(settings.wait_target)),
        ("start_timeout", Some(settings.start_timeout)),
        ("shutdown_timeout", Some(settings.shutdown_timeout)),
        ("health_limit", Some(settings.health_limit)),
        ("babysit", Some(settings.babysit)),
        ("request_timeout", rules.request_timeout),
        ("long_timeout", rules.long_timeout),
        ("cpu_limit", Some(rules.cpu_limit)),
        ("load_timeout", Some(settings.reload.load_timeout)),
        ("drain_limit", Some(settings.reload.drain_limit)),
        ("upgrade_timeout", Some(settings.upgrade_timeout)),
    ];
    if let Some((setting, _)) = durations.into_iter().find(|(_, duration)| *duration == Some(Duration::ZERO)) {
        return Err(SettingsError::ZeroDuration { setting });
    }
    if settings.reload.surge == 0 && settings.reload.max_unavailable == 0 {
        return Err(SettingsError::NoRoomToReload);
    }
    let numbers = [
        ("fork_burst", settings.fork_burst == 0),
        ("forks_per_second", settings.forks_per_second == 0),
        ("memory_limit", rules.memory_limit == Some(0)),
    ];
    match numbers.into_iter().find(|(_, is_zero)| *is_zero) {
        Some((setting, _)) => Err(SettingsError::Zero { setting }),
        None => Ok(()),
    }
}

/// Returns the integer part of `percent` % of `of`, for a `percent` up to 100.
fn percent(of: u32, percent: u32) -> u32 {
    // No overflow, and exact: the hundreds and the rest apart.
    of / 100 * percent + of % 100 * percent / 100
}

/// The session alias unless set.
const DEFAULT_ALIAS: &str = "Daemon";

/// Requests a child handles unless set: POE's default, which trades speed for a fresh process every time.
const DEFAULT_REQUESTS: u64 = 1;

/// How long a launcher waits unless set.
const DEFAULT_START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long children may take to end unless set.
const DEFAULT_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the Daemon may be unable to serve unless set.
const DEFAULT_HEALTH_LIMIT: Duration = Duration::from_secs(30);

/// How many children a running pool may fork at once unless set.
const DEFAULT_FORK_BURST: u32 = 32;

/// How many children a second a running pool may fork for long unless set.
const DEFAULT_FORKS_PER_SECOND: u32 = 64;

/// How long a client may wait before more children are forked, unless set. A person does not notice such a wait.
const DEFAULT_WAIT_TARGET: Duration = Duration::from_millis(20);

/// How often children are examined unless set: seldom enough to cost nothing.
const DEFAULT_BABYSIT: Duration = Duration::from_secs(10);

/// How much processor time a child may use for one request unless set, as in POE.
const DEFAULT_CPU_LIMIT: Duration = Duration::from_secs(600);

/// How long loading a configuration may take unless set.
const DEFAULT_LOAD_TIMEOUT: Duration = Duration::from_secs(10);

/// For how long the former settings are kept after a reload unless set.
const DEFAULT_PROBATION: Duration = Duration::from_secs(10);

/// How many children more there may be during a reload unless set.
const DEFAULT_SURGE: u32 = 1;

/// How long a replaced child may go on with its work unless set.
const DEFAULT_DRAIN_LIMIT: Duration = Duration::from_secs(60);

/// How long a new program may take until it has taken over unless set.
const DEFAULT_UPGRADE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a new program may take until it has greeted: it does so before it loads anything.
const GREETING_LIMIT: Duration = Duration::from_secs(2);

/// Slots beyond `max_children`, as in POE.
const SPARE_SLOTS: usize = 5;

/// How often a limit is looked at before it is over.
const LOOKS: u32 = 8;

/// No more looks than these, however short the limits are.
const SHORTEST_LOOK: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests;

//! What is known of a Daemon at one moment, as plain data.
//!
//! The parent fills all of it in. A reader of the board file knows less, and leaves out what it can't know.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::Histogram;
use crate::rfc3339;

/// The number of the layout of the JSON. Within one number, fields are only ever added.
pub const SCHEMA: u32 = 1;

/// A Daemon at one moment.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Snapshot {
    /// [`SCHEMA`] of the process that has made it.
    pub schema: u32,
    /// When it was taken, in UTC as RFC 3339 has it.
    pub time: String,
    /// The Daemon and its parent process.
    pub service: Service,
    /// How many children there are, and how many there may be.
    pub pool: Pool,
    /// The scoreboard as one letter a slot: `F f . w r l k e`, a blank for an empty slot, `?` for one that is torn.
    pub board: String,
    /// The children, by slot.
    pub children: Vec<ChildView>,
    /// The listeners that the children accept on.
    pub listeners: Vec<ListenerView>,
    /// What was counted since the service began.
    pub counters: Counters,
    /// How long things took since the service began.
    pub durations: Durations,
    /// The age of the oldest request in hand, in seconds.
    pub oldest_request: Option<f64>,
    /// The last children that have ended, the latest first.
    pub deaths: Vec<Death>,
    /// The settings by name, as they are now.
    pub settings: BTreeMap<String, String>,
    /// What the parent process uses.
    pub process: ProcessView,
    /// What the application counts.
    pub metrics: Vec<Family>,
    /// Reloads of the configuration.
    #[serde(default)]
    pub reloads: Reloads,
    /// Upgrades of the program.
    #[serde(default)]
    pub upgrades: Upgrades,
}

/// A moment: how long ago, and when.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct When {
    /// How long ago, in seconds.
    pub seconds_ago: f64,
    /// When, in UTC as RFC 3339 has it.
    pub at: String,
}

impl When {
    /// Makes one of a time in milliseconds since 1970.
    pub(crate) fn new(at_ms: u64, now: SystemTime) -> When {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(at_ms);
        When { seconds_ago: now.duration_since(at).unwrap_or_default().as_secs_f64(), at: time_text(at) }
    }
}

/// Reads a time that [`time_text`] has written, in seconds since 1970; `None` if it is not one.
pub(crate) fn time_of(text: &str) -> Option<f64> {
    rfc3339::read(text).map(|since| since.as_secs_f64())
}

/// Writes a time as RFC 3339 has it.
pub(crate) fn time_text(time: SystemTime) -> String {
    let mut text = String::new();
    rfc3339::push(&mut text, time);
    text
}

/// A Daemon and its parent process.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Service {
    /// The alias of the Daemon session.
    pub name: String,
    /// The version of this crate.
    pub version: String,
    /// The parent process.
    pub pid: u32,
    /// When the parent was started.
    pub started: When,
    /// Where in its life the Daemon is.
    pub phase: Phase,
    /// What kind of server it is.
    pub kind: Kind,
    /// Which edition of the configuration is in force: the number of the reload that has brought it, 1 for that of the start.
    pub generation: u32,
    /// What looks after the parent and may start it again, `systemd` for example.
    pub supervisor: Option<String>,
    /// How long ago the parent last said that it is there, in seconds; `None` in a snapshot that the parent itself has taken.
    pub heartbeat_age: Option<f64>,
}

/// Where in its life a Daemon is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Phase {
    /// It is not ready for clients yet.
    Starting,
    /// It serves clients.
    Ready,
    /// It changes its configuration, and serves clients.
    Reloading,
    /// It serves the requests that it has, and ends after them.
    Draining,
    /// It ends.
    Stopping,
}

impl Phase {
    /// Returns the word for it.
    pub fn word(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Ready => "ready",
            Phase::Reloading => "reloading",
            Phase::Draining => "draining",
            Phase::Stopping => "stopping",
        }
    }
}

/// What kind of server a Daemon is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Kind {
    /// A pool of children waits for requests.
    PreForking,
    /// A child is forked for each request.
    PostForking,
    /// There are no children.
    NonForking,
}

/// Reloads of the configuration.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Reloads {
    /// What is under way: `scouting`, `waiting`, `canary`, `rolling`, `rolling-back` or `probation`.
    pub stage: Option<String>,
    /// The edition that this is about.
    pub edition: Option<u32>,
    /// How many reloads have ended how: `applied`, `rejected`, `rolled_back`, `superseded` and `taken_back`. Every word is there if
    /// the program has a configuration.
    pub verdicts: BTreeMap<String, u64>,
    /// The last one that has ended.
    pub last: Option<Reload>,
    /// When a configuration was last taken: by a reload that was applied, or at the start of the process. `None` if the program has
    /// no configuration.
    #[serde(default)]
    pub succeeded: Option<When>,
}

/// A reload that has ended.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Reload {
    /// The edition that it was about.
    pub edition: u32,
    /// What has become of it, a word of [`Reloads::verdicts`].
    pub verdict: String,
    /// Why; empty if it was applied.
    pub cause: String,
    /// Settings that it has changed and that need a restart.
    pub needs_restart: Vec<String>,
    /// How long it has taken, in seconds.
    pub took: f64,
    /// When it has ended.
    pub ended: When,
}

impl Reload {
    pub(crate) fn new(
        edition: u32,
        verdict: &str,
        cause: String,
        needs_restart: Vec<String>,
        took: f64,
        ended: When,
    ) -> Reload {
        Reload { edition, verdict: verdict.to_owned(), cause, needs_restart, took, ended }
    }
}

/// Upgrades of the program.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Upgrades {
    /// What is under way, as the one of the two processes sees it that this is of: `spawned`, `loading`, `ready`, `probation` or
    /// `draining`.
    pub stage: Option<String>,
    /// The process that takes over from this one, or has.
    pub successor: Option<i32>,
    /// The process from which this one takes over, or has, as long as it is there.
    pub predecessor: Option<u32>,
    /// How many upgrades have ended how: `applied`, `rejected`, `rolled_back` and `superseded`. Every word is there.
    pub verdicts: BTreeMap<String, u64>,
    /// The last one that has ended.
    pub last: Option<Upgrade>,
}

/// An upgrade that has ended.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Upgrade {
    /// What has become of it, a word of [`Upgrades::verdicts`].
    pub verdict: String,
    /// Why; empty if it was applied.
    pub cause: String,
    /// How long it has taken, in seconds.
    pub took: f64,
    /// When it has ended.
    pub ended: When,
}

impl Upgrade {
    pub(crate) fn new(verdict: &str, cause: String, took: f64, ended: When) -> Upgrade {
        Upgrade { verdict: verdict.to_owned(), cause, took, ended }
    }
}

/// How many children there are, and how many there may be.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Pool {
    /// How many children do what. They add up to `total`.
    pub states: States,
    /// How many children there are.
    pub total: u32,
    /// How many forks are on the way.
    pub forks_in_flight: u32,
    /// `max_children` as it is now.
    pub limit: u32,
    /// `min_spare` as it is now; 0 unless pre-forking.
    pub min_spare: u32,
    /// `max_spare` as it is now; 0 unless pre-forking.
    pub max_spare: u32,
    /// `start_children`.
    pub start_children: u32,
    /// How many slots the scoreboard has.
    pub slots: u32,
    /// Post-forking: how many requests wait for a child.
    pub queued: u32,
    /// Since when clients have been waiting because all children are busy and there can't be more.
    pub saturated: Option<When>,
    /// Forks wait because the last ones failed, or because children die as soon as they live.
    pub backoff: bool,
}

/// How many children do what.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct States {
    /// `F`, `f` and `.`.
    pub starting: u32,
    /// `w`.
    pub idle: u32,
    /// `r`.
    pub busy: u32,
    /// `l`.
    pub long: u32,
    /// `k`.
    pub keep: u32,
    /// `e`.
    pub exiting: u32,
    /// Slots that could not be read whole.
    pub torn: u32,
}

impl States {
    /// Returns each state's name and number.
    pub fn by_name(&self) -> [(&'static str, u32); 7] {
        let States { starting, idle, busy, long, keep, exiting, torn } = *self;
        [
            ("starting", starting),
            ("idle", idle),
            ("busy", busy),
            ("long", long),
            ("keep", keep),
            ("exiting", exiting),
            ("torn", torn),
        ]
    }

    /// Counts a child in the state of this letter.
    pub(crate) fn count(&mut self, letter: char) {
        let state = match letter {
            'F' | 'f' | '.' => &mut self.starting,
            'w' => &mut self.idle,
            'r' => &mut self.busy,
            'l' => &mut self.long,
            'k' => &mut self.keep,
            'e' => &mut self.exiting,
            _ => &mut self.torn,
        };
        *state += 1;
    }

    /// Returns how many children there are.
    pub fn total(&self) -> u32 {
        self.by_name().into_iter().map(|(_, number)| number).sum()
    }
}

/// One child.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ChildView {
    /// Its slot, counted from 0.
    pub slot: u32,
    /// Which owner of the slot it is, counted from 1.
    pub generation: u32,
    /// Its process; `None` before it has claimed its slot.
    pub pid: Option<i32>,
    /// The letter of what it does; `?` if its slot could not be read whole.
    pub state: char,
    /// Since when it has been doing that.
    pub since: When,
    /// When it was started.
    pub started: When,
    /// Requests it has begun.
    pub requests: u64,
    /// Whom it serves or has served last, as the application says. It comes from the network: escape it in every form.
    pub peer: String,
    /// Which edition of the configuration it has; `None` where only the parent knows.
    #[serde(default)]
    pub edition: Option<u32>,
    /// What it has been told: `stay`, `be-replaced`, `go` or `die`. `None` where only the parent knows.
    pub told: Option<String>,
    /// What its process uses; `None` unless asked for, or if that can't be read.
    pub usage: Option<ProcessView>,
}

/// What a process uses, as the system says. What can't be read is `None`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ProcessView {
    /// Processor time, in seconds.
    pub cpu: Option<f64>,
    /// Resident memory, in bytes.
    pub resident: Option<u64>,
    /// Its share of the resident memory, in bytes: what several processes share counts in part. The system
    /// takes its time to count that, so the Daemon leaves it out, and `lenorectl children --pss` reads it.
    pub proportional: Option<u64>,
    /// Virtual memory, in bytes.
    pub virtual_memory: Option<u64>,
    /// How many descriptors are open.
    pub descriptors: Option<u64>,
    /// How many descriptors may be open.
    pub descriptors_limit: Option<u64>,
    /// How likely the system is to kill it when memory runs out.
    pub oom_score: Option<i64>,
    /// When it was started, in seconds since 1970.
    pub started_at: Option<f64>,
}

/// One listener that children accept on.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ListenerView {
    /// Its address or path.
    pub name: String,
    /// How many clients wait in its queue, and how many may; `None` if that can't be known.
    pub queue: Option<Queue>,
    /// Why the queue can't be known.
    pub unknown: Option<String>,
}

/// A queue of clients that wait to be accepted.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Queue {
    /// How many wait.
    pub waiting: u32,
    /// How many may wait.
    pub limit: u32,
}

impl Queue {
    pub(crate) fn new(waiting: u32, limit: u32) -> Queue {
        Queue { waiting, limit }
    }
}

/// What was counted since the service began.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Counters {
    /// Requests that children have begun.
    pub requests: u64,
    /// Requests that the application says have failed; `None` if it does not say.
    pub requests_failed: Option<u64>,
    /// Forks that were carried out.
    pub forks: u64,
    /// Forks that have failed, by the name of the errno.
    pub fork_failures: BTreeMap<String, u64>,
    /// Children that have ended, by cause. Every cause is there, also with 0.
    pub exits: BTreeMap<String, u64>,
    /// How long children have been busy, in seconds, all together.
    pub busy_seconds: f64,
    /// How long clients have waited because all children were busy and there could not be more, in seconds.
    pub saturated_seconds: f64,
    /// Connections that the system has turned away in this network namespace because a queue was full, since the service
    /// began; `None` if the system does not tell.
    pub listen_overflows: Option<u64>,
    /// Slots that could not be read whole.
    pub torn_reads: u64,
    /// Processor time of all children that each slot has had, in seconds. Empty unless usage was asked for.
    #[serde(default)]
    pub cpu_by_slot: Vec<f64>,
}

/// How long things took since the service began.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Durations {
    /// Requests, from `r` or `l` to whatever comes after it.
    pub request: Histogram,
    /// From the end of the handshake of a TCP connection until a child accepts it.
    pub accept_wait: Histogram,
    /// From the fork of a child until it waits for its first request.
    pub child_start: Histogram,
    /// Turns of the parent's loop, without the time it sleeps.
    pub loop_turn: Histogram,
}

/// One child that has ended.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Death {
    /// When it was reaped.
    pub reaped: When,
    /// Its slot.
    pub slot: u32,
    /// Which owner of the slot it was.
    pub generation: u32,
    /// Its process.
    pub pid: i32,
    /// Why it has ended, as the log says it.
    pub cause: String,
    /// Whether an operator need not care.
    pub in_order: bool,
    /// How old it was, in seconds.
    pub age: f64,
    /// Requests it had begun.
    pub requests: u64,
}

/// One metric of the application.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Family {
    /// Its name as it was declared.
    pub name: String,
    /// What it tells.
    pub help: String,
    /// Its value.
    pub sample: Sample,
}

impl Family {
    pub(crate) fn new(name: String, help: String, sample: Sample) -> Family {
        Family { name, help, sample }
    }
}

/// The value of a metric of the application.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Sample {
    /// It only grows.
    Counter(u64),
    /// It goes up and down.
    Gauge(i64),
    /// Durations.
    Histogram(Histogram),
}

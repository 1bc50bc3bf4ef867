//! A Daemon at one moment, as plain data.
//!
//! The parent fills in every field. A reader of the board file knows less, and leaves out the other fields.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::Histogram;
use crate::rfc3339;

/// The number of the layout of the JSON. While the number stays the same, fields are only added.
pub const SCHEMA: u32 = 1;

/// A Daemon at one moment, as [`Daemon::snapshot`](crate::Daemon::snapshot) and
/// [`BoardFile::snapshot`](crate::daemon::BoardFile::snapshot) return it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Snapshot {
    /// The [`SCHEMA`] of the process that has taken the snapshot.
    pub schema: u32,
    /// When the snapshot was taken, as RFC 3339 in UTC.
    pub time: String,
    /// The Daemon and its parent process.
    pub service: Service,
    /// How many children there are, and how many there may be.
    pub pool: Pool,
    /// The scoreboard, with one letter for each slot: `F f . w r l k e`. A blank is an empty slot, `?` a slot that could not be read
    /// whole.
    pub board: String,
    /// The children, by slot.
    pub children: Vec<ChildView>,
    /// The listeners of the server. Pre-forking: those that the children accept on.
    pub listeners: Vec<ListenerView>,
    /// Counters since the service began.
    pub counters: Counters,
    /// Durations since the service began.
    pub durations: Durations,
    /// The age of the oldest request in hand, in seconds.
    pub oldest_request: Option<f64>,
    /// The children that have ended last, the latest first.
    pub deaths: Vec<Death>,
    /// The settings by name, as they are now.
    pub settings: BTreeMap<String, String>,
    /// What the parent process uses.
    pub process: ProcessView,
    /// The metrics of the application, in the order in which they were declared.
    pub metrics: Vec<Family>,
    /// Reloads of the configuration.
    #[serde(default)]
    pub reloads: Reloads,
    /// Upgrades of the program.
    #[serde(default)]
    pub upgrades: Upgrades,
}

/// A moment in the past.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct When {
    /// How long ago, in seconds.
    pub seconds_ago: f64,
    /// When, as RFC 3339 in UTC.
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
    /// The pid of the parent process.
    pub pid: u32,
    /// When the parent was started.
    pub started: When,
    /// Whether the Daemon is starting, ready, reloading, draining or stopping.
    pub phase: Phase,
    /// Whether the server is pre-forking, post-forking or non-forking.
    pub kind: Kind,
    /// The edition of the configuration that is in force: 1 for the configuration of the start. Otherwise it is the number of the
    /// reload that has brought it.
    pub generation: u32,
    /// What supervises the parent and may start it again, `systemd` for example.
    pub supervisor: Option<String>,
    /// How long ago the parent last renewed its heartbeat, in seconds. `None` in a snapshot that the parent itself has taken.
    pub heartbeat_age: Option<f64>,
}

/// What a Daemon is doing: starting, serving or ending.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Phase {
    /// The Daemon is not ready for clients yet.
    Starting,
    /// The Daemon serves clients.
    Ready,
    /// The Daemon changes its configuration, and serves clients meanwhile.
    Reloading,
    /// The Daemon finishes the requests in hand, and then ends.
    Draining,
    /// The Daemon is ending.
    Stopping,
}

impl Phase {
    /// Returns the phase as a word: `starting`, `ready`, `reloading`, `draining` or `stopping`.
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
    /// The stage of the reload that is under way: `scouting`, `waiting`, `canary`, `rolling`, `rolling-back` or `probation`. `None`
    /// without one.
    pub stage: Option<String>,
    /// The edition of the reload that is under way.
    pub edition: Option<u32>,
    /// How many reloads have ended with each verdict: `applied`, `rejected`, `rolled_back`, `superseded` and `taken_back`. Every
    /// verdict is listed, also with 0. Empty if the program has no configuration.
    pub verdicts: BTreeMap<String, u64>,
    /// The last reload that has ended.
    pub last: Option<Reload>,
    /// When a configuration was last applied, by a reload or at the start of the process. `None` if the program has no configuration.
    #[serde(default)]
    pub succeeded: Option<When>,
}

/// A reload that has ended.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Reload {
    /// The edition that the reload was for.
    pub edition: u32,
    /// How the reload ended: one of the verdicts of [`Reloads::verdicts`].
    pub verdict: String,
    /// Why the reload ended with this verdict. Empty if it was applied.
    pub cause: String,
    /// The changed settings that need a restart.
    pub needs_restart: Vec<String>,
    /// How long the reload took, in seconds.
    pub took: f64,
    /// When the reload ended.
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
    /// The stage of the upgrade that is under way: `spawned`, `loading`, `ready`, `probation` or `draining`. During an upgrade there
    /// are two processes, and each tells its own stage. `None` without an upgrade.
    pub stage: Option<String>,
    /// The pid of the process that takes over from this process, or has taken over.
    pub successor: Option<i32>,
    /// The pid of the process that this process takes over from, or has taken over from. `None` once that process has ended.
    pub predecessor: Option<u32>,
    /// How many upgrades have ended with each verdict: `applied`, `rejected`, `rolled_back` and `superseded`. Every verdict is listed,
    /// also with 0.
    pub verdicts: BTreeMap<String, u64>,
    /// The last upgrade that has ended.
    pub last: Option<Upgrade>,
}

/// An upgrade that has ended.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Upgrade {
    /// How the upgrade ended: one of the verdicts of [`Upgrades::verdicts`].
    pub verdict: String,
    /// Why the upgrade ended with this verdict. Empty if it was applied.
    pub cause: String,
    /// How long the upgrade took, in seconds.
    pub took: f64,
    /// When the upgrade ended.
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
    /// How many children are in each state. The sum is `total`.
    pub states: States,
    /// How many children there are.
    pub total: u32,
    /// How many forks have been asked for and not carried out yet.
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
    /// Since when clients have been waiting because all children are busy and `max_children` is reached. `None` while they don't.
    pub saturated: Option<When>,
    /// Whether the parent pauses before the next fork, because forks have failed or children die as soon as they are forked.
    pub backoff: bool,
}

/// How many children are in each state.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct States {
    /// Children on their way to their first request: `F`, `f` and `.`.
    pub starting: u32,
    /// Children that wait for a request: `w`.
    pub idle: u32,
    /// Children that handle a request: `r`.
    pub busy: u32,
    /// Children that handle a long request: `l`.
    pub long: u32,
    /// Children that keep the connection of a client without a request in hand: `k`.
    pub keep: u32,
    /// Children that are ending: `e`.
    pub exiting: u32,
    /// Children whose slots could not be read whole: `?`.
    pub torn: u32,
}

impl States {
    /// Returns the name of each state, and how many children are in it.
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
    /// The slot of the child, counted from 0.
    pub slot: u32,
    /// The generation of the child: the first child in a slot has 1, the next child in the slot 2.
    pub generation: u32,
    /// The pid of the child. `None` before the child has taken over its slot.
    pub pid: Option<i32>,
    /// The letter of the child's status. `?` if its slot could not be read whole.
    pub state: char,
    /// Since when the child has had this status.
    pub since: When,
    /// When the child was started.
    pub started: When,
    /// How many requests the child has begun.
    pub requests: u64,
    /// The client that the child serves or has served last, as the application says. The text may come from the network, so escape it
    /// wherever you show it.
    pub peer: String,
    /// The edition of the child's configuration. `None` in a snapshot of a board, as only the parent knows.
    #[serde(default)]
    pub edition: Option<u32>,
    /// What the parent wants of the child: `stay`, `be-replaced`, `go` or `die`. `None` in a snapshot of a board, as only the parent
    /// knows.
    pub told: Option<String>,
    /// What the child's process uses. `None` if the snapshot was taken without usage, or if the system does not tell.
    pub usage: Option<ProcessView>,
}

/// What a process uses, as the system says. A field is `None` if it can't be read.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ProcessView {
    /// Processor time, in seconds.
    pub cpu: Option<f64>,
    /// Resident memory, in bytes.
    pub resident: Option<u64>,
    /// The proportional set size, in bytes: memory that several processes share counts in part for each. The system takes long to
    /// count it, so the Daemon leaves it out. `lenorectl children --pss` reads it.
    pub proportional: Option<u64>,
    /// Virtual memory, in bytes.
    pub virtual_memory: Option<u64>,
    /// How many descriptors are open.
    pub descriptors: Option<u64>,
    /// How many descriptors may be open.
    pub descriptors_limit: Option<u64>,
    /// The OOM score: how likely the system is to kill the process when memory runs out.
    pub oom_score: Option<i64>,
    /// When the process was started, in seconds since 1970.
    pub started_at: Option<f64>,
}

/// One listener of the server.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ListenerView {
    /// The address or path of the listener.
    pub name: String,
    /// How many clients wait in the listener's queue, and how many may wait. `None` if the system does not tell.
    pub queue: Option<Queue>,
    /// Why the system does not tell. `None` if it does.
    pub unknown: Option<String>,
}

/// A queue of clients that wait to be accepted.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Queue {
    /// How many clients wait.
    pub waiting: u32,
    /// How many clients may wait. The system turns away further clients.
    pub limit: u32,
}

impl Queue {
    pub(crate) fn new(waiting: u32, limit: u32) -> Queue {
        Queue { waiting, limit }
    }
}

/// Counters since the service began. In a snapshot that the parent has taken they go on through an upgrade.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Counters {
    /// Requests that children have begun.
    pub requests: u64,
    /// Requests that the application has reported as failed. `None` if the application does not report failures.
    pub requests_failed: Option<u64>,
    /// Forks that have succeeded.
    pub forks: u64,
    /// Forks that have failed, by the name of the errno.
    pub fork_failures: BTreeMap<String, u64>,
    /// Children that have ended, by cause. Every cause is listed, also with 0.
    pub exits: BTreeMap<String, u64>,
    /// How long all children together have been busy, in seconds.
    pub busy_seconds: f64,
    /// How long clients have waited because all children were busy and `max_children` was reached, in seconds.
    pub saturated_seconds: f64,
    /// Connections that the system has turned away because a queue was full. The system counts them for the whole network namespace.
    /// `None` if the system does not tell.
    pub listen_overflows: Option<u64>,
    /// How often a slot could not be read whole.
    pub torn_reads: u64,
    /// For each slot, the processor time of all children that the slot has had, in seconds. Empty if the snapshot was taken without
    /// usage.
    #[serde(default)]
    pub cpu_by_slot: Vec<f64>,
}

/// Durations since the service began. In a snapshot that the parent has taken they go on through an upgrade.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Durations {
    /// How long requests took: for how long a child was in `r` or `l`.
    pub request: Histogram,
    /// How long clients waited: from the end of the TCP handshake until the connection was accepted.
    pub accept_wait: Histogram,
    /// How long children took to start: from the fork until the child waits for its first request.
    pub child_start: Histogram,
    /// How long the turns of the parent's loop took, without the time that the parent sleeps.
    pub loop_turn: Histogram,
}

/// One child that has ended.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Death {
    /// When the parent reaped the child.
    pub reaped: When,
    /// The slot of the child.
    pub slot: u32,
    /// The generation of the child: which child of its slot it was, counted from 1.
    pub generation: u32,
    /// The pid of the child.
    pub pid: i32,
    /// Why the child ended, in the word of the log.
    pub cause: String,
    /// Whether the child ended in order, so that an operator need not act.
    pub in_order: bool,
    /// How old the child was, in seconds.
    pub age: f64,
    /// How many requests the child had begun.
    pub requests: u64,
}

/// One metric of the application.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Family {
    /// The name under which the metric was declared.
    pub name: String,
    /// The help text of the metric.
    pub help: String,
    /// The value of the metric, over all processes.
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
    /// The value of a counter.
    Counter(u64),
    /// The value of a gauge.
    Gauge(i64),
    /// A histogram of durations.
    Histogram(Histogram),
}

//! The world around the machine: a clock that jumps, what is going to happen, and the board that children share.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::child::{Child, Flaw, Sent};
use super::clients::{Client, Queue};
use super::dice::Dice;
use super::plan::Knobs;
use super::reload::Files;
use super::successor::{Script, Step, Successor};
use crate::daemon::machine::{Attempt, Edition, End, Input, Key, Says, Status, Thresholds, Timer, Watch};
use crate::daemon::settings::{Forking, Settings};

/// Everything but the machine and the parent's timers. Times are in microseconds from the start.
#[derive(Clone)]
pub struct World {
    pub knobs: Knobs,
    /// As they were in the beginning.
    pub settings: Settings,
    pub dice: Dice,
    pub now: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    /// Counts the events, so that those of the same time come in the order in which they were planned.
    planned: u64,

    pub slots: Vec<Slot>,
    /// Who lives in which slot, or has ended there.
    pub children: Vec<Option<Child>>,
    /// How many slots are marked as waiting.
    pub idle: u32,
    pub is_rung: bool,
    pub thresholds: Thresholds,
    pub is_full: bool,
    /// Which slot was asked to release its client.
    pub release: Option<usize>,

    pub queue: Queue,
    /// How often the parent has read it.
    pub reads: u64,
    /// The parent was told something that does not fit.
    pub had_strays: bool,
    /// The parent wants to be told of a client, or the news of one are on their way.
    pub awaited: [bool; 2],
    pub telling: [bool; 2],
    /// Post-forking: requests handed in that have no child yet.
    pub requests: VecDeque<(u64, Client)>,
    pub intake_is_open: bool,

    /// What the parent will be told.
    pub inbox: Vec<Letter>,
    /// News of deaths that were told, to be told again.
    pub last_deaths: Vec<(Key, End)>,
    /// How the next children go wrong: how many, how, how late, and whether every other one only.
    pub flaws: VecDeque<(u32, Flaw, u32, bool)>,
    pub oom_kills: u32,
    /// What the configuration file says, and what it has said.
    pub files: Files,
    /// How the next successor goes.
    pub script: Script,
    pub successor: Option<Successor>,
    /// The parent accepts nothing.
    pub rests: bool,
    pub foreign: u32,
    /// Which log file is the present one.
    pub log: u32,

    pub fork_fails: Failing,
    pub fork_slow: (u64, u64),
    pub no_log_until: u64,
    /// Until then the news of deaths, and rings, are so late; 0: lost.
    pub late: (u64, u64),
    pub mute: (u64, u64),
    /// The parent did not run, from when to when.
    pub suspended: Vec<(u64, u64)>,
    /// Nothing runs until then.
    pub frozen_until: u64,
    pub frozen_at: u64,
    /// Since when a child tries to tell the parent something, or the kernel has news of a client for it.
    pub news_at: Option<u64>,
    /// The longest time that a child has taken to its first `Wait`.
    pub longest_start: u64,
    /// When a client was last accepted.
    pub last_accept: u64,
    /// How the growth goes that is measured: how many clients of it wait.
    pub probes_waiting: u32,
    /// The sum of the waits of clients that were accepted, and how many there were.
    pub served: u64,
    /// Something that must not happen in the world has happened.
    pub wrong: Option<(&'static str, String)>,
}

/// Something that is going to happen.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Event {
    /// A child's next stage: slot, generation, turn.
    Stage(usize, u32, u32),
    Signal(usize, u32, Sent),
    Bell,
    /// SIGCHLD.
    Deaths,
    /// A disturbance, by its place in the plan.
    Act(usize),
    ForeignGone,
    LauncherAnswers,
    Reopened,
    Seen(Watch),
    /// The application of a post-forking server looks for a client.
    Take,
    Started,
    /// The file is read.
    ScoutBegins(Edition),
    /// The scout has loaded it, or has not.
    Scouted(Edition),
    /// The parent loads it.
    Load(Edition),
    Successor(Attempt, Step),
}

/// Something that the parent has not been told yet.
#[derive(Clone, Copy, Debug)]
pub enum Letter {
    Input(Input),
    /// The application takes a client, unless it was told to pause.
    Take,
    /// The application hands in a request of a client that it had accepted before.
    Push,
    /// A timer that is not armed.
    Stray(Timer),
}

/// When something fails.
#[derive(Clone, Copy, Debug, Default)]
pub struct Failing {
    pub until: u64,
    /// 0: for good.
    pub reason: i32,
}

/// A slot of the board.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slot {
    pub says: Says,
    pub is_torn: bool,
    /// The child is counted as waiting.
    pub is_idle: bool,
}

impl World {
    pub fn new(knobs: Knobs) -> World {
        let settings = knobs.settings();
        let slots = settings.slots();
        World {
            knobs,
            dice: Dice::new(knobs.salt.into()),
            now: 0,
            events: BinaryHeap::new(),
            planned: 0,
            slots: vec![EMPTY; slots],
            children: vec![None; slots],
            files: Files::new(&settings),
            settings,
            idle: 0,
            is_rung: false,
            thresholds: Thresholds::SILENT,
            is_full: false,
            release: None,
            queue: Queue::default(),
            reads: 0,
            had_strays: false,
            awaited: [false; 2],
            telling: [false; 2],
            requests: VecDeque::new(),
            intake_is_open: true,
            inbox: Vec::new(),
            last_deaths: Vec::new(),
            flaws: VecDeque::new(),
            oom_kills: 0,
            script: Script::default(),
            successor: None,
            rests: false,
            foreign: 0,
            log: 0,
            fork_fails: Failing::default(),
            fork_slow: (0, 0),
            no_log_until: 0,
            late: (0, 0),
            mute: (0, 0),
            suspended: Vec::new(),
            frozen_until: 0,
            frozen_at: 0,
            news_at: None,
            longest_start: 0,
            last_accept: 0,
            probes_waiting: 0,
            served: 0,
            wrong: None,
        }
    }

    pub fn is_pre(&self) -> bool {
        self.settings.forking == Forking::Pre
    }

    pub fn now_ms(&self) -> u64 {
        self.now / 1000
    }

    /// Plans an event, so many microseconds from now.
    pub fn plan(&mut self, after: u64, event: Event) {
        self.planned += 1;
        self.events.push(Reverse((self.now + after, self.planned, event)));
    }

    /// Plans a disturbance. It comes before everything else that happens in the same moment.
    pub fn plan_act(&mut self, at: u64, place: usize) {
        self.events.push(Reverse((at, 0, Event::Act(place))));
    }

    /// Returns when the next event is; `u64::MAX` for never.
    pub fn next_event(&self) -> u64 {
        self.events.peek().map_or(u64::MAX, |Reverse((at, ..))| *at)
    }

    /// Takes the next event.
    pub fn take_event(&mut self) -> Option<Event> {
        self.events.pop().map(|Reverse((.., event))| event)
    }

    /// Lets a child go on while the machine does something, now and then.
    pub fn race(&mut self) {
        if self.knobs.race == 0 || !self.dice.once_in(3) {
            return;
        }
        let soon = self.now + 2000;
        if let Some(Reverse((at, _, Event::Stage(..)))) = self.events.peek()
            && *at <= soon
            && let Some(event) = self.take_event()
        {
            self.happen_to_child(event);
        }
    }

    /// Returns for how much of the time since then the parent was suspended.
    pub fn suspended_since(&self, since: u64) -> u64 {
        let overlap = |&(from, to): &(u64, u64)| to.min(self.now).saturating_sub(from.max(since));
        self.suspended.iter().map(overlap).sum()
    }

    /// Returns how often it was.
    pub fn suspensions_since(&self, since: u64) -> u64 {
        self.suspended.iter().filter(|(_, to)| *to > since).count() as u64
    }

    pub fn child(&self, key: Key) -> Option<&Child> {
        self.children.get(key.slot)?.as_ref().filter(|child| child.key == key)
    }

    pub fn child_mut(&mut self, key: Key) -> Option<&mut Child> {
        self.children.get_mut(key.slot)?.as_mut().filter(|child| child.key == key)
    }

    /// Returns what is written in a slot.
    pub fn status(&self, slot: usize) -> Option<Status> {
        self.slots.get(slot).and_then(|slot| slot.says.status)
    }

    pub fn grow(&mut self, slots: usize) {
        if slots > self.slots.len() {
            self.slots.resize(slots, EMPTY);
            self.children.resize(slots, None);
        }
    }

    /// Makes a slot new.
    pub fn wipe(&mut self, slot: usize, status: Status) {
        let now = self.now_ms();
        self.mark(slot, false);
        let says = Says { status: Some(status), since_ms: now, started_ms: now, requests: 0 };
        self.slots[slot] = Slot { says, is_torn: false, is_idle: false };
    }

    /// Counts a slot as waiting or not, and returns whether it was counted before.
    fn mark(&mut self, slot: usize, is_idle: bool) -> bool {
        let before = std::mem::replace(&mut self.slots[slot].is_idle, is_idle);
        self.idle = self.idle + u32::from(is_idle) - u32::from(before);
        before
    }

    /// A child changes its status, and rings if that is news: by the rules of `Scoreboard::set_status`.
    pub fn set_status(&mut self, slot: usize, status: Status) {
        let before = self.slots[slot].says.status;
        self.note_change(slot, status);
        let crossed = if status == Status::Wait {
            self.write(slot, status);
            !self.mark(slot, true) && self.idle > self.thresholds.high
        } else if status.is_taken() && before.is_some_and(Status::is_taken) {
            self.write(slot, status);
            status == Status::Keep && before != Some(status) && self.is_full
        } else {
            let was_idle = self.mark(slot, false);
            self.write(slot, status);
            was_idle && self.idle < self.thresholds.low
        };
        let arrived = before.is_some_and(Status::is_starting) && !status.is_starting();
        let rings = (crossed || arrived) && !std::mem::replace(&mut self.is_rung, true);
        if if self.is_pre() { rings } else { status == Status::Keep && self.is_full } {
            self.ring(slot);
        }
    }

    fn write(&mut self, slot: usize, status: Status) {
        let now = self.now_ms();
        let says = &mut self.slots[slot].says;
        if says.status != Some(status) {
            *says = Says { status: Some(status), since_ms: now, ..*says };
        }
    }

    fn note_change(&mut self, slot: usize, status: Status) {
        let now = self.now;
        let is_new = self.slots[slot].says.status != Some(status);
        if let Some(child) = &mut self.children[slot] {
            child.meter(now);
            child.is_hot = child.flaw == Flaw::Burns && status.is_busy();
            if is_new {
                (child.since, child.stopped_since, child.stops_since) = (now, 0, 0);
            }
            child.was_ready |= status == Status::Wait || status.is_taken();
        }
    }

    fn ring(&mut self, slot: usize) {
        let (flaw, delay) = self.children[slot].as_ref().map_or((Flaw::None, 0), |child| (child.flaw, child.delay));
        let (until, late) = if self.now < self.mute.0 { self.mute } else { (0, 0) };
        let late_ms = match flaw {
            Flaw::RingsLate => u64::from(delay),
            _ => late,
        };
        self.news_at.get_or_insert(self.now);
        if flaw == Flaw::RingsNever || (until > 0 && late == 0) {
            return;
        }
        self.plan(30 + late_ms * 1000, Event::Bell);
        if flaw == Flaw::RingsTwice {
            self.plan(60, Event::Bell);
        }
    }

    /// Has the parent told of a client that waits, if it wants to know.
    pub fn tell_of_client(&mut self) {
        for watch in [Watch::Queue, Watch::Relief] {
            if std::mem::take(&mut self.awaited[watch as usize]) {
                self.news_at.get_or_insert(self.now);
                self.telling[watch as usize] = true;
                self.plan(40, Event::Seen(watch));
            }
        }
    }

    /// Clients have come: one child is told of each, or the application.
    pub fn arrive(&mut self, client: Client) {
        if !self.queue.enter(client, self.knobs.backlog) {
            return;
        }
        self.probes_waiting += u32::from(client.is_probe);
        self.tell_of_client();
        self.tell_successor();
        if !self.is_pre() {
            self.plan(50, Event::Take);
            return;
        }
        // One that is stopped may be told as well; one that has been told and not looked yet is not told again.
        let can_hear = |child: &&Child| child.is_alive() && !child.is_woken;
        let is_idle = |slot: usize| self.slots[slot].is_idle;
        let first = self.children.iter().flatten().filter(can_hear).find(|child| is_idle(child.key.slot));
        let Some(key) = first.map(|child| child.key) else { return };
        if let Some(last) = self.queue.last_mut() {
            last.told = Some((key.slot, key.generation));
        }
        self.wake(key.slot);
    }
}

const EMPTY: Slot = Slot {
    says: Says { status: Some(Status::Empty), since_ms: 0, started_ms: 0, requests: 0 },
    is_torn: false,
    is_idle: false,
};

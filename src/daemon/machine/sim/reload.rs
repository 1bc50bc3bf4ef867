//! The configuration file, who loads it, and what must hold of reloads.

use std::collections::BTreeMap;

use super::child::Flaw;
use super::dice::Dice;
use super::plan::Knobs;
use super::rules::{Rules, Violation, broken, micros};
use super::world::World;
use crate::daemon::machine::{
    Edition, Effect, End, Input, Key, Machine, Message, Order, Phase, Rejection, ReloadNews, Signal, Status, Told,
    Tunable, Verdict,
};
use crate::daemon::settings::{Given, Settings};

/// What the file says.
#[derive(Clone, Copy, Debug)]
pub struct File {
    loads: Loads,
    /// So many children of it are well, and then so many go wrong.
    well: u32,
    bad: u32,
    flaw: Flaw,
    tunable: Tunable,
}

/// What becomes of loading it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Loads {
    Well,
    /// The program refuses it.
    Not,
    /// The scout dies.
    Crashes,
    /// The scout never ends.
    Hangs,
    /// It takes so many milliseconds.
    Slowly(u32),
    /// The scout has loaded it, the parent does not.
    NotInParent,
}

/// What the file says now, and what was read of it.
#[derive(Clone, Debug)]
pub struct Files {
    now: File,
    editions: BTreeMap<Edition, File>,
    /// How often it was read.
    pub reads: u32,
    /// What is being loaded.
    pub scouting: Option<Edition>,
}

impl Files {
    pub fn new(settings: &Settings) -> Files {
        let tunable = Tunable::of(settings);
        let file = File { loads: Loads::Well, well: 0, bad: 0, flaw: Flaw::None, tunable };
        Files { now: file, editions: BTreeMap::from([(Edition(1), file)]), reads: 0, scouting: None }
    }

    /// An operator writes another file: how it loads, and how its children go wrong, as [`draw`] has drawn it.
    pub fn change(&mut self, knobs: &Knobs, [loads, children, sizes]: [u32; 3]) {
        let loads = match loads {
            1 => Loads::Not,
            2 => Loads::Crashes,
            3 => Loads::Hangs,
            4 => Loads::NotInParent,
            0 => Loads::Well,
            ms => Loads::Slowly(ms),
        };
        let (flaw, well, bad) = (Flaw::numbered(children % 100), children / 100 % 10, children / 1000);
        let part = |bit: u32, digits: u32| sizes >> bit & ((1 << digits) - 1);
        let mut knobs = *knobs;
        if sizes & 1 > 0 {
            knobs.max = part(3, 3).max(knobs.start).max(1);
        }
        if sizes & 2 > 0 {
            knobs.most = part(6, 3).max(1);
            knobs.min = knobs.min.min(knobs.most);
        }
        if sizes & 4 > 0 {
            (knobs.requests, knobs.jitter) = (part(9, 2), 0);
        }
        // Spares follow from `max_children` in a file that says it.
        let given = Given { max_children: sizes & 1 > 0, min_spare: false, max_spare: sizes & 3 == 2 };
        let settings = Settings { given, ..knobs.settings() };
        self.now = File { loads, well, bad, flaw, tunable: Tunable::of(&settings) };
    }

    /// Everything is well from now on.
    pub fn calm_down(&mut self) {
        self.now = File { loads: Loads::Well, bad: 0, ..self.now };
        self.editions.values_mut().for_each(|file| file.bad = 0);
    }

    pub fn has(&self, edition: Edition) -> bool {
        self.editions.contains_key(&edition)
    }

    pub fn forget(&mut self, edition: Edition) {
        self.editions.remove(&edition);
    }

    /// How the next child of an edition goes wrong, if it does by its settings.
    pub fn flaw(&mut self, edition: Edition) -> Option<(Flaw, u32)> {
        let file = self.editions.get_mut(&edition)?;
        if file.well > 0 {
            file.well -= 1;
            return None;
        }
        file.bad = file.bad.checked_sub(1)?;
        Some((file.flaw, 0))
    }

    /// It is read. Returns when the scout is done with it.
    pub fn read(&mut self, edition: Edition) -> Option<u64> {
        self.reads += 1;
        self.editions.insert(edition, self.now);
        self.scouting = Some(edition);
        match self.now.loads {
            Loads::Hangs => None,
            Loads::Slowly(ms) => Some(u64::from(ms) * 1000),
            _ => Some(800),
        }
    }

    pub fn scouted(&mut self, edition: Edition) -> Option<Result<(), Rejection>> {
        self.scouting.take_if(|scouting| *scouting == edition)?;
        Some(match self.editions.get(&edition)?.loads {
            Loads::Not => Err(Rejection::NotLoaded),
            Loads::Crashes => Err(Rejection::ScoutDied(End::Signaled { signal: 6, has_core: false })),
            _ => Ok(()),
        })
    }

    pub fn loaded(&self, edition: Edition) -> Option<Result<Tunable, Rejection>> {
        let file = self.editions.get(&edition)?;
        Some(if file.loads == Loads::NotInParent { Err(Rejection::NotInParent) } else { Ok(file.tunable) })
    }

    fn numbers(&self, edition: Edition) -> Option<Numbers> {
        self.editions.get(&edition).map(|file| Numbers::of(file.tunable))
    }
}

/// Draws a change of the file.
pub fn draw(dice: &mut Dice) -> [u32; 3] {
    let loads = dice.pick(&[0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 40, 3000]);
    let flaw = dice.pick(&[
        Flaw::DiesAtOnce,
        Flaw::DiesBeforeReady,
        Flaw::DiesWhenReady,
        Flaw::DiesWhenReady,
        Flaw::DiesBusy,
        Flaw::CrashesWhenReady,
        Flaw::HangsInSetup,
        Flaw::HangsBeforeReady,
        Flaw::StopsIdle,
        Flaw::IgnoresQuit,
    ]);
    let number = Flaw::ALL.iter().position(|known| *known == flaw).unwrap_or(0) as u32;
    let (well, bad) = (dice.pick(&[0, 0, 1, 2, 5]), dice.pick(&[0, 0, 0, 1, 1, 9]));
    [loads, number + well * 100 + bad * 1000, if dice.once_in(2) { dice.below(1 << 11) } else { 0 }]
}

/// The numbers of children of an edition: `max_children`, `min_spare`, `max_spare`.
#[derive(Clone, Copy, Debug)]
struct Numbers {
    values: [u32; 3],
    /// Which of them the file or the program says.
    given: [bool; 3],
}

impl Numbers {
    fn of(tunable: Tunable) -> Numbers {
        let Given { max_children, min_spare, max_spare } = tunable.given;
        Numbers { values: tunable.numbers(), given: [max_children, min_spare, max_spare] }
    }
}

/// What is known of the reload that is under way.
#[derive(Clone, Debug)]
pub(super) struct Model {
    /// Who is judged by it: children of this edition serve.
    pub(super) current: Edition,
    numbers: Numbers,
    /// What `resize reset` leads back to.
    pub(super) first: [u32; 3],
    /// The edition that was loaded and is being tried.
    trial: Option<Edition>,
    /// How many children were ready when the roll began.
    ready_before: Option<u32>,
    set_back_at: Option<u64>,
    /// The edition that has failed on probation: its children go before the next trial begins.
    taken_back: Option<Edition>,
    /// The edition before, its numbers, and the size when it was the current one.
    former: Option<(Edition, Numbers, [u32; 3])>,
    /// How many children of the current edition have died without a request.
    pub(super) early_deaths: u32,
    /// For each order: how often the file had been read when it was given.
    reads: BTreeMap<u64, u32>,
}

impl Model {
    pub(super) fn new(settings: &Settings) -> Model {
        let numbers = Numbers::of(Tunable::of(settings));
        Model {
            current: Edition(1),
            numbers,
            first: numbers.values,
            trial: None,
            ready_before: None,
            set_back_at: None,
            taken_back: None,
            former: None,
            early_deaths: 0,
            reads: BTreeMap::new(),
        }
    }

    pub(super) fn asked(&mut self, order: u64, world: &World) {
        self.reads.insert(order, world.files.reads);
    }
}

/// Tells whether a roll is under way.
pub(super) fn is_rolling(machine: &Machine) -> bool {
    machine.reload.roll.is_some()
}

impl Rules {
    /// An effect of a step, in its turn: what a reload does, and what must hold of the children meanwhile.
    pub(super) fn reload_goes_on(
        &mut self,
        now: u64,
        (input, effect): (&Input, &Effect),
        effects: &[Effect],
        machine: &Machine,
        world: &World,
    ) -> Result<(), Violation> {
        if is_rolling(machine) && self.reload.ready_before.is_none() {
            self.reload.ready_before = machine.reload.roll.map(|roll| roll.ready_before);
        }
        let is_ordered = |key: &Key| matches!(input, Input::Asked(_, Order::Retire(retired)) if retired == key);
        match effect {
            Effect::Say(Message::Reload(edition, news)) => {
                // Before it is forgotten which edition was tried.
                if let ReloadNews::RolledBack { .. } = news {
                    self.is_refilled(machine)?;
                }
                self.hear(now, *edition, news, world)
            }
            Effect::Signal(key, Signal::Quit) if !is_ordered(key) => self.sent_away(now, *key, effects, machine, world),
            // Children of the edition before may crash in the step in which the new one is applied.
            Effect::Say(Message::CrashLoop { .. })
                if self.reload.former.is_some() && machine.reload_is_on_probation() =>
            {
                broken("a crash loop on probation brings the former edition back", "")
            }
            Effect::Drop(edition) if self.reload.taken_back == Some(*edition) => {
                self.reload.ready_before = None;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A step was taken, and nothing of it is carried out.
    pub(super) fn examine_reload(&self, input: &Input, machine: &Machine) -> Result<(), Violation> {
        if let Input::Asked(_, Order::Stop(_) | Order::Terminate) = input
            && self
                .orders
                .iter()
                .flatten()
                .any(|order| matches!(order.order, Order::Reload | Order::Check) && !order.is_answered)
        {
            return broken("a stop ends a reload at once", format_args!("{input:?}"));
        }
        let mut editions: Vec<Edition> = machine.table().children().iter().map(|child| child.edition).collect();
        editions.extend(machine.table().in_flight().iter().map(|fork| fork.edition));
        editions.sort_unstable();
        editions.dedup();
        if editions.len() > 2 {
            return broken("no more than two editions have children", format_args!("{editions:?}"));
        }
        Ok(())
    }

    fn hear(&mut self, now: u64, edition: Edition, news: &ReloadNews, world: &World) -> Result<(), Violation> {
        match *news {
            ReloadNews::Loaded => self.reload.trial = Some(edition),
            ReloadNews::SetBack(_) => self.reload.set_back_at = Some(now),
            ReloadNews::Applied { .. } => {
                let Some(to) = world.files.numbers(edition) else {
                    return broken("a reload adopts what was loaded", edition);
                };
                let size = self.size();
                self.reload.former = Some((self.reload.current, self.reload.numbers, size));
                self.become_edition(edition, to, to.values);
            }
            ReloadNews::TakenBack { to } => {
                let Some((former, numbers, size)) = self.reload.former.take().filter(|(former, ..)| *former == to)
                else {
                    return broken("the former edition comes back", to);
                };
                self.become_edition(former, numbers, size);
                self.reload.taken_back = Some(edition);
            }
            ReloadNews::ProbationOver => self.reload.former = None,
            _ => {}
        }
        if let ReloadNews::Applied { .. } | ReloadNews::RolledBack { .. } | ReloadNews::Rejected { .. } = news {
            (self.reload.trial, self.reload.ready_before, self.reload.set_back_at) = (None, None, None);
        }
        Ok(())
    }

    /// Numbers that the two files have different are those of `values`, others are what orders have made of them. So is a number that
    /// is in neither file, if an order has changed it.
    fn become_edition(&mut self, edition: Edition, to: Numbers, values: [u32; 3]) {
        let (from, now) = (self.reload.numbers, self.size());
        self.reload.current = edition;
        self.reload.numbers = to;
        self.reload.first = to.values;
        self.reload.early_deaths = 0;
        self.crashes = Default::default();
        if from.values == to.values {
            return;
        }
        let mut size = now;
        for place in 0..3 {
            let (before, after) = (from.values[place], to.values[place]);
            let is_said = from.given[place] || to.given[place];
            if before != after && (is_said || now[place] == before) {
                size[place] = values[place];
            }
        }
        if self.first.min_spare > 0 && size[2] < size[1] {
            size = [size[0], to.values[1], to.values[2]];
        }
        (self.base, self.shift) = (size, 0);
    }

    /// A child was asked to go. Before a new one was ready no old one is, and then only as many as can be done without.
    fn sent_away(
        &mut self,
        now: u64,
        key: Key,
        effects: &[Effect],
        machine: &Machine,
        world: &World,
    ) -> Result<(), Violation> {
        let Some(child) = machine.table().child(key) else { return Ok(()) };
        let is_by_roll = child.outdated.is_some_and(|outdated| micros(outdated.since) == now);
        if !is_by_roll || effects.iter().any(|effect| matches!(effect, Effect::End(_))) {
            return Ok(());
        }
        if let Some(trial) = self.reload.trial.filter(|trial| *trial != child.edition)
            && self.reload.set_back_at.is_none()
            && self.reload.taken_back != Some(child.edition)
            && !world.children.iter().flatten().any(|child| child.edition == trial && child.was_ready)
            && !self.was_ready(trial)
        {
            return broken("no old child is asked to go before a new one was ready", key);
        }
        let served = world.status(key.slot).is_some_and(is_up) && !child.is_stopped && child.deaf.is_none();
        let Some(before) = self.reload.ready_before.filter(|_| served && world.knobs.race == 0) else { return Ok(()) };
        let settings = machine.settings();
        // The pool's own policy goes on when the roll is over.
        let is_surplus = |effect: &&Effect| match effect {
            Effect::Signal(key, Signal::Quit) => {
                machine.table().child(*key).is_some_and(|child| child.outdated.is_none())
            }
            _ => false,
        };
        let surplus = effects.iter().filter(is_surplus).count() as u32;
        let (ready, floor) = (ready(machine, world) + surplus, before.min(self.size()[0]));
        if ready + settings.reload.max_unavailable < floor {
            return broken("children stay ready during a reload", format_args!("{ready} of {before}"));
        }
        Ok(())
    }

    /// Who has had a slot before may have been ready in it.
    fn was_ready(&self, edition: Edition) -> bool {
        self.proven.contains(&edition)
    }

    /// A child has ended.
    pub(super) fn note_proven(&mut self, edition: Edition, was_ready: bool) {
        if was_ready && !self.proven.contains(&edition) {
            self.proven.push(edition);
        }
    }

    /// A reload was rolled back: the new children have been asked to go. How many old ones are ready by then depends on which of them
    /// were killed meanwhile.
    fn is_refilled(&self, machine: &Machine) -> Result<(), Violation> {
        let Some(trial) = self.reload.trial else { return Ok(()) };
        let stays = |child: &&crate::daemon::machine::Child| child.edition == trial && !child.is_retiring();
        if let Some(child) = machine.table().children().iter().find(stays) {
            return broken("after a reload was rolled back no new child stays", child.key);
        }
        Ok(())
    }

    /// The verdict of a reload, or of a check.
    pub(super) fn reload_is_answered(
        &self,
        order: u64,
        verdict: Verdict,
        machine: &Machine,
        world: &World,
    ) -> Result<(), Violation> {
        let was_read = self.reload.reads.get(&order).is_some_and(|reads| world.files.reads > *reads);
        match verdict {
            Verdict::Applied | Verdict::Rejected(_) | Verdict::RolledBack(_) if !was_read => {
                broken("a reload reads what the file says when it is asked for", format_args!("{order} {verdict}"))
            }
            Verdict::Superseded if self.stopping_since.is_none() && machine.phase() != Phase::ShuttingDown => {
                broken("only an end supersedes a reload", order)
            }
            _ => Ok(()),
        }
    }

    /// Whether a child may be ended that was asked to go.
    pub(super) fn is_cut(&self, now: u64, key: Key, machine: &Machine, world: &World) -> bool {
        let Some(child) = machine.table().child(key) else { return false };
        let Some(outdated) = child.outdated.filter(|_| matches!(child.told, Told::Cut | Told::Die)) else {
            return false;
        };
        if self.upgrade.cut_at.is_some_and(|at| micros(outdated.since) <= at) {
            return true;
        }
        let limit = micros(self.first.reload.drain_limit);
        let has_no_client = world.status(key.slot).is_some_and(Status::is_starting);
        now >= micros(outdated.since) + if has_no_client { limit.min(2_000_000) } else { limit }
    }

    /// How many children there may be beside `max_children`: those of a roll. After a roll a probe that has failed takes nobody's
    /// place until it is gone.
    pub(super) fn surge(&self, machine: &Machine) -> u32 {
        let surge = self.first.reload.surge;
        let probes = machine.table().children().iter().filter(|child| child.is_probe).count() as u32;
        if self.reload.trial.is_some() || is_rolling(machine) { surge } else { probes.min(surge) }
    }

    /// What must be so a while after the last disturbance.
    pub(super) fn reload_is_over(&self, now: u64, machine: &Machine, world: &World) -> Result<(), Violation> {
        if machine.reload_is_under_way() {
            return broken("a reload comes to an end", format_args!("{:?}", machine.reload_stage()));
        }
        let limit = micros(self.first.reload.drain_limit) + micros(self.first.babysit) * 3 + 10_000_000;
        for child in machine.table().children() {
            let Some(outdated) = child.outdated else { continue };
            let is_alive = world.child(child.key).is_some_and(|real| real.is_alive());
            if is_alive && now > micros(outdated.since) + limit + world.suspended_since(micros(outdated.since)) {
                return broken("a replaced child has drain_limit to end", child.key);
            }
        }
        Ok(())
    }
}

impl Machine {
    fn reload_is_on_probation(&self) -> bool {
        self.reload.has_probation()
    }

    pub(super) fn reload_is_under_way(&self) -> bool {
        self.reload.has_run() || self.reload.roll.is_some()
    }
}

fn ready(machine: &Machine, world: &World) -> u32 {
    let serves = |child: &&crate::daemon::machine::Child| {
        let is_well = !child.is_retiring() && !child.is_stopped && child.deaf.is_none();
        is_well && world.status(child.key.slot).is_some_and(is_up)
    };
    machine.table().children().iter().filter(serves).count() as u32
}

fn is_up(status: Status) -> bool {
    status == Status::Wait || status.is_taken()
}

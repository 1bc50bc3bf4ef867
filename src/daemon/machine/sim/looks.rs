//! What must hold of the looks into the listeners' queues, and of spares that go while clients wait there.

use super::driver::Driver;
use super::reload::is_rolling;
use super::rules::{Rules, Violation, broken, micros};
use super::world::World;
use crate::daemon::machine::{Child, Effect, Input, Machine, Message, Order, Phase, Status, Timer, Told, Watch};

/// What is known of the looks so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Looks {
    /// When the last look was that was not for growth.
    last: Option<u64>,
    /// How often the queues had been read before this step.
    pub(super) reads_before: u64,
}

impl Rules {
    /// A step was taken, and nothing of it is carried out.
    pub(super) fn examine_looks(
        &mut self,
        now: u64,
        input: &Input,
        effects: &[Effect],
        machine: &Machine,
        world: &World,
    ) -> Result<(), Violation> {
        if effects.iter().any(|effect| matches!(effect, Effect::Rest(_))) {
            self.looks.last = None;
        }
        // What does not fit may come at any time, and children that go on meanwhile are not as they were counted.
        if !world.is_pre() || world.knobs.race > 0 || world.had_strays || self.upgrade.rests {
            return Ok(());
        }
        let reads = world.reads > self.looks.reads_before;
        let is_look = matches!(input, Input::Client(Watch::Queue) | Input::Due(Timer::LookAtQueue));
        if reads && is_look {
            let last = self.looks.last.replace(now);
            if let Some(last) = last.filter(|last| now - last < 1_000_000) {
                return broken(
                    "the queues are looked at once a second",
                    format_args!("{} us after {last}", now - last),
                );
            }
        }
        for effect in effects {
            if let Effect::Arm(Timer::WeighQueue, pause) = effect
                && micros(*pause) < 5000.max(micros(machine.clients.start.estimate()))
            {
                return broken("the queues are read for growth each few milliseconds", format_args!("{pause:?}"));
            }
        }
        let is_running = self.phase_before == Phase::Running && machine.phase() == Phase::Running;
        if !is_running || is_rolling(machine) {
            return Ok(());
        }
        let may_read = is_look || *input == Input::Due(Timer::HearAnswers);
        self.examine_spares(input, effects, machine, world, reads && !may_read)
    }

    /// Whether spares may go, and, if the queues were read for growth, whether there was none.
    fn examine_spares(
        &self,
        input: &Input,
        effects: &[Effect],
        machine: &Machine,
        world: &World,
        weighed: bool,
    ) -> Result<(), Violation> {
        let spare = |told: &[Told], starts: bool| {
            let children = machine.table().children().iter().filter(|child| {
                let is_well = told.contains(&child.told) && !child.is_stopped && child.deaf.is_none();
                let status = world.status(child.key.slot);
                let is_there = status == Some(Status::Wait) || starts && status.is_some_and(Status::is_starting);
                is_well && is_there
            });
            children.count() as u32
        };
        let idle = spare(&[Told::Stay], false);
        let is_spare = |child: &Child| child.told == Told::Go && child.deaf.is_none() && child.outdated.is_none();
        let goes = |key| machine.table().child(key).is_some_and(is_spare);
        let is_ordered = |key| matches!(input, Input::Asked(_, Order::Retire(retired)) if *retired == key);
        let surplus =
            |effect: &&Effect| matches!(effect, Effect::Say(Message::Retired(key)) if goes(*key) && !is_ordered(*key));
        let surplus = effects.iter().filter(surplus).count() as u32;
        if surplus > 0 && world.knobs.blind == 0 && idle < world.queue.len() {
            let waiting = world.queue.len();
            return broken(
                "no spare goes that a client waits for",
                format_args!("{surplus} go, {idle} stay for {waiting}"),
            );
        }
        // Whether one of too many may go is another question than whether there should be more.
        let were_there = spare(&[Told::Stay, Told::Go], true) + self.asked;
        let settings = machine.settings();
        let may_go = surplus > 0 || were_there > settings.max_spare || self.live + self.asked > settings.max_children;
        if weighed && idle > 0 && !may_go {
            return broken(
                "the queues are read for growth while no child is idle",
                format_args!("{input:?}: {idle} are"),
            );
        }
        Ok(())
    }
}

impl Driver {
    /// Lets so many microseconds pass, at the end of which nothing has happened for a while. Nobody looks for clients then.
    pub(super) fn run_asleep(&mut self, span: u64) -> Result<(), Violation> {
        let last = 5_000_000.min(span);
        self.run(span - last)?;
        let looks = |driver: &Driver| {
            let World { queue, slots, served, .. } = &driver.world;
            let is_idle = queue.is_empty() && slots.iter().any(|slot| slot.is_idle);
            (is_idle && driver.world.is_pre()).then_some((*served, driver.world.reads))
        };
        let before = looks(self);
        self.run(last)?;
        match (before, looks(self)) {
            (Some((served, reads)), Some((still, later))) if served == still && later > reads => {
                broken("an idle daemon is not woken for its queues", format_args!("{} reads", later - reads))
            }
            _ => Ok(()),
        }
    }
}

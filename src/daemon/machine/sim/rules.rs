//! What must hold at every step, whatever happens.

use std::fmt::Display;
use std::time::Duration;

use super::clients::Client;
use super::decisions::Chain;
use super::looks::Looks;
use super::messages::Messages;
use super::reload::Model;
use super::upgrade;
use super::world::World;
use crate::daemon::machine::{
    Deaths, Edition, Effect, Input, Key, Machine, Order, OrderId, Phase, Shutdown, Signal, TokenBucket,
};
use crate::daemon::settings::Settings;

/// A rule that was broken.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which, in a few words.
    pub rule: &'static str,
    pub detail: String,
    /// When, in microseconds.
    pub at: u64,
}

/// Says that a rule was broken.
pub fn broken<T>(rule: &'static str, detail: impl Display) -> Result<T, Violation> {
    Err(Violation { rule, detail: detail.to_string(), at: 0 })
}

/// A model of what the machine has decided so far, by which each decision is judged.
#[derive(Clone)]
pub struct Rules {
    pub(super) first: Settings,
    /// Who has each slot.
    pub(super) owners: Vec<Owner>,
    /// How many children there are, and how many forks were asked for.
    pub(super) live: u32,
    pub(super) asked: u32,
    pub(super) deaths: Deaths,
    pub(super) orders: Vec<Option<Ordered>>,
    /// The size that was set last: `max_children`, `min_spare`, `max_spare`. And what orders have made of it.
    pub(super) base: [u32; 3],
    pub(super) shift: i64,
    pub(super) messages: Messages,
    /// The last request that got a child.
    last_served: u64,
    pub(super) phase_before: Phase,
    /// Since when the Daemon is to end, and whether it has told the application.
    pub(super) stopping_since: Option<u64>,
    pub(super) has_ended: bool,
    is_finished: bool,
    has_failed: bool,
    /// Early deaths that the pool misses, and what rations their replacement.
    pub(super) early: u32,
    pub(super) replacements: TokenBucket,
    pub(super) crashes: Chain,
    /// Since when something should have been done.
    pub(super) short_since: Option<u64>,
    pub(super) surplus_since: Option<u64>,
    pub(super) unheard_since: Option<u64>,
    pub(super) vain_until: u64,
    pub(super) kept_since: Option<u64>,
    pub(super) looks: Looks,
    pub(super) reload: Model,
    pub(super) upgrade: upgrade::Model,
    /// How long the end may take.
    pub(super) stop_limit: u64,
    /// Editions of which a child was ready that has ended.
    pub(super) proven: Vec<Edition>,
    /// A child has died in a way that may have cost a client its accept: by when others must have been woken.
    pub(super) wake_by: Option<(u64, u64)>,
}

/// Who has a slot.
#[derive(Clone, Copy, Debug, Default)]
pub struct Owner {
    pub generation: u32,
    pub state: State,
    pub is_told: bool,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum State {
    #[default]
    Free,
    /// A fork was asked for.
    Asked,
    Live,
}

/// An order.
#[derive(Clone, Copy, Debug)]
pub struct Ordered {
    pub order: Order,
    pub is_answered: bool,
}

impl Rules {
    pub fn new(world: &World) -> Rules {
        let settings = world.settings.clone();
        Rules {
            owners: vec![Owner::default(); world.slots.len()],
            live: 0,
            asked: 0,
            deaths: Deaths::default(),
            orders: Vec::new(),
            base: [settings.max_children, settings.min_spare, settings.max_spare],
            shift: 0,
            messages: Messages::default(),
            last_served: 0,
            phase_before: Phase::StartingUp,
            stopping_since: None,
            has_ended: false,
            is_finished: false,
            has_failed: false,
            early: 0,
            replacements: TokenBucket::new(settings.fork_burst, settings.forks_per_second),
            crashes: Chain::default(),
            reload: Model::new(&settings),
            upgrade: upgrade::Model::default(),
            stop_limit: micros(settings.shutdown_timeout),
            proven: Vec::new(),
            first: settings,
            short_since: None,
            surplus_since: None,
            unheard_since: None,
            vain_until: 0,
            kept_since: None,
            looks: Looks::default(),
            wake_by: None,
        }
    }

    pub fn is_over(&self) -> bool {
        self.is_finished
    }

    /// What is about to be told.
    pub fn before(&mut self, input: &Input, machine: &Machine, world: &World) -> Result<(), Violation> {
        self.phase_before = machine.phase();
        self.looks.reads_before = world.reads;
        self.before_upgrade(input, machine, world);
        self.look_for_survivors(world);
        match *input {
            Input::Asked(OrderId(id), order) => {
                let place = id as usize;
                if self.orders.len() <= place {
                    self.orders.resize(place + 1, None);
                }
                self.orders[place] = Some(Ordered { order, is_answered: false });
                self.reload.asked(id, world);
                if let Order::Stop(_) | Order::Terminate = order {
                    self.stopping_since.get_or_insert(world.now);
                }
            }
            Input::Foreign(1..) => self.is_finished = false,
            Input::Forked(key, outcome) => {
                if let Some(owner) = self.owner_mut(key, State::Asked) {
                    owner.state = if outcome.is_ok() { State::Live } else { State::Free };
                    self.asked -= 1;
                    self.live += u32::from(outcome.is_ok());
                }
            }
            _ => {}
        }
        self.look_before(world)
    }

    pub(super) fn owner_mut(&mut self, key: Key, state: State) -> Option<&mut Owner> {
        let owner = self.owners.get_mut(key.slot)?;
        (owner.generation == key.generation && owner.state == state).then_some(owner)
    }

    pub(super) fn is_live(&self, key: Key) -> bool {
        let owner = self.owners.get(key.slot);
        owner.is_some_and(|owner| owner.generation == key.generation && owner.state == State::Live)
    }

    /// What the machine has decided, before anything of it is carried out.
    pub fn examine(
        &mut self,
        now: u64,
        input: &Input,
        effects: &[Effect],
        machine: &Machine,
        world: &World,
    ) -> Result<(), Violation> {
        // It has looked.
        (self.short_since, self.surplus_since, self.kept_since) = (None, None, None);
        self.must_tell(input, effects)?;
        for effect in effects {
            self.reload_goes_on(now, (input, effect), effects, machine, world)?;
            self.upgrade_goes_on(now, input, effect)?;
            match effect {
                Effect::Fork(fork) => self.fork(now, fork, machine, world)?,
                Effect::CancelForks => {
                    let asked = self.owners.iter_mut().filter(|owner| owner.state == State::Asked);
                    asked.for_each(|owner| owner.state = State::Free);
                    self.asked = 0;
                }
                Effect::Signal(key, signal) => self.signal(now, (*key, *signal), input, effects, machine, world)?,
                Effect::AskToRelease(key) | Effect::Call(key) if !self.is_live(*key) => {
                    return broken("nothing is sent to the dead", key);
                }
                Effect::Record(death) => self.record(now, death, world)?,
                Effect::Answer(id, verdict) => self.answer(*id, *verdict, machine, world)?,
                Effect::Say(message) => {
                    self.messages.say(message)?;
                    self.justify(now, message, world)?;
                }
                Effect::End(_) => {
                    if std::mem::replace(&mut self.has_ended, true) {
                        return broken("the application is told once of the end", "");
                    }
                    self.stopping_since.get_or_insert(now);
                }
                Effect::TellLauncher if self.phase_before == Phase::ShuttingDown => {
                    return broken("no launcher is told of a daemon that ends", format_args!("{input:?}"));
                }
                Effect::Fail(failure) if std::mem::replace(&mut self.has_failed, true) => {
                    return broken("the Daemon fails once", format_args!("{failure:?}"));
                }
                _ => {}
            }
        }
        self.examine_looks(now, input, effects, machine, world)?;
        self.examine_upgrade(input, effects, machine, world)?;
        self.examine_reload(input, machine)
    }

    /// What some inputs must lead to.
    fn must_tell(&self, input: &Input, effects: &[Effect]) -> Result<(), Violation> {
        let is_told_to_end = |key: Key| {
            let ends = |signal: &Signal| matches!(signal, Signal::Term | Signal::Int | Signal::Quit | Signal::Kill);
            effects.iter().any(|effect| matches!(effect, Effect::Signal(told, signal) if *told == key && ends(signal)))
        };
        if self.phase_before != Phase::ShuttingDown {
            return Ok(());
        }
        match *input {
            Input::Forked(key, Ok(())) if self.is_live(key) && !is_told_to_end(key) => {
                broken("a child forked after the end began is told of it", key)
            }
            Input::Asked(_, order)
                if matches!(order, Order::Stop(Shutdown::Immediate) | Order::Terminate)
                    || order == Order::Finish && self.upgrade.can_finish =>
            {
                let live = self.owners.iter().enumerate().filter(|(_, owner)| owner.state == State::Live);
                let key = |(slot, owner): (usize, &Owner)| Key { slot, generation: owner.generation };
                match live.map(key).find(|key| !is_told_to_end(*key)) {
                    Some(key) => broken("TERM after QUIT is passed on", key),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// A fork is about to be asked of the kernel.
    pub fn is_still_wanted(&self, key: Key) -> Result<(), Violation> {
        let owner = &self.owners[key.slot];
        if owner.generation == key.generation && owner.state == State::Asked {
            return Ok(());
        }
        broken("no fork is carried out that was taken back", key)
    }

    /// Takes the client of a request that gets a child.
    pub fn serve(&mut self, number: u64, world: &mut World) -> Result<Client, Violation> {
        let place = world.requests.iter().position(|(waiting, _)| *waiting == number);
        let Some((_, client)) = place.and_then(|place| world.requests.remove(place)) else {
            return broken("each request has one child", number);
        };
        if number < self.last_served {
            return broken("no request is overtaken", format_args!("{number} after {}", self.last_served));
        }
        self.last_served = number;
        Ok(client)
    }

    /// The machine says that nothing is left.
    pub fn finish(&mut self, world: &World, forks: usize) -> Result<(), Violation> {
        self.is_finished = true;
        let alive = world.children.iter().flatten().find(|child| child.is_alive());
        if let Some(child) = alive {
            return broken("it ends after its children", format_args!("{} lives", child.key));
        }
        if let Some(successor) = world.successor.filter(|successor| successor.is_alive && !self.upgrade.has_left) {
            return broken("no successor is left behind", successor.attempt);
        }
        if forks > 0 || self.live + self.asked > 0 || world.foreign > 0 {
            return broken("it ends after its children", format_args!("{forks} forks, {} children", self.live));
        }
        Ok(())
    }

    /// The deaths that were recorded.
    pub(super) fn deaths(&self) -> Deaths {
        self.deaths
    }

    pub(super) fn clip_early(&mut self, missing: u32) {
        self.early = self.early.min(missing);
    }

    /// A child has stayed up, or has had a request.
    pub(super) fn survives(&mut self, born: u64, world: &World) {
        // The machine takes it for as young as its fork has returned.
        if born + world.longest_fork() >= self.crashes.last {
            self.crashes = Chain::default();
        }
    }
}

pub(super) fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX / 4)
}

//! Whether a decision of the machine is right.

use std::time::Duration;

use super::reload::is_rolling;
use super::rules::{Owner, Rules, State, Violation, broken, micros};
use super::world::World;
use crate::daemon::machine::{
    Answer, Cause, Death, Effect, Fork, Input, Key, Machine, Message, NewSize, Order, OrderId, Phase, Rogue, STAYED_UP,
    Shutdown, Signal, Status, Step, Told, Verdict, Why,
};

/// Children that have died one after the other as soon as they were forked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Chain {
    deaths: u32,
    pub(super) last: u64,
}

impl Rules {
    pub(super) fn fork(&mut self, now: u64, fork: &Fork, machine: &Machine, world: &World) -> Result<(), Violation> {
        let key = fork.key;
        if self.has_ended || self.phase_before == Phase::ShuttingDown {
            return broken("nothing is forked during the end", key);
        }
        if self.upgrade.rests && world.is_pre() {
            return broken("nothing is forked during a rest", key);
        }
        if key.slot >= self.owners.len() {
            self.owners.resize(key.slot + 1, Owner::default());
        }
        let owner = &mut self.owners[key.slot];
        if owner.state != State::Free || key.generation <= owner.generation {
            return broken("one owner for each slot and generation", format_args!("{key} after {owner:?}"));
        }
        *owner = Owner { generation: key.generation, state: State::Asked, is_told: false };
        self.asked += 1;
        let max = machine.settings().max_children + self.surge(machine);
        if self.live + self.asked > max {
            return broken("never more than max_children", format_args!("{} of {max}", self.live + self.asked));
        }
        if self.surge(machine) > 0 || is_rolling(machine) {
            // It may take the place of an early death as well.
            self.early = self.early.saturating_sub(1);
            return Ok(());
        }
        self.crashes.may_fork(now)?;
        if self.phase_before == Phase::Running && world.is_pre() {
            self.spare(now, machine, world)?;
        }
        Ok(())
    }

    /// Whether one more spare is called for.
    fn spare(&mut self, now: u64, machine: &Machine, world: &World) -> Result<(), Violation> {
        let settings = machine.settings();
        let (mut idle, mut starting, mut young) = (0, self.asked, self.asked);
        for child in machine.table().children() {
            let Some(real) = world.child(child.key) else { continue };
            let is_spare = child.told == Told::Stay && !real.was_stopped() && child.deaf.is_none();
            match world.status(child.key.slot) {
                Some(Status::Wait) if is_spare => idle += 1,
                Some(status) if is_spare && status.is_starting() => {
                    starting += 1;
                    young += u32::from(now - real.born < STAYED_UP.as_micros() as u64);
                }
                _ => {}
            }
        }
        if self.upgrade.refills {
            return Ok(());
        }
        if young > WINDOW {
            return broken("no more than 32 are starting at once", young);
        }
        if world.knobs.race > 0 {
            return Ok(());
        }
        let spares = idle + starting;
        let most = settings.max_spare.max(settings.min_spare).max(world.queue.len());
        if spares > most {
            return broken("no more spares are forked than are called for", format_args!("{spares} of {most}"));
        }
        let room = settings.max_children - (self.live + self.asked - 1);
        self.early = self.early.min(settings.min_spare.saturating_sub(spares - 1)).min(room);
        if self.early > 0 {
            self.early -= 1;
            if self.replacements.take(Duration::from_micros(now), 1) == 0 {
                return broken("early deaths are replaced by burst and rate", "");
            }
        }
        Ok(())
    }

    pub(super) fn signal(
        &mut self,
        now: u64,
        (key, signal): (Key, Signal),
        input: &Input,
        effects: &[Effect],
        machine: &Machine,
        world: &World,
    ) -> Result<(), Violation> {
        if !self.is_live(key) {
            return broken("nothing is sent to the dead", format_args!("{signal:?} to {key}"));
        }
        let says = |is_meant: &dyn Fn(&Message) -> bool| {
            effects.iter().any(|effect| matches!(effect, Effect::Say(message) if is_meant(message)))
        };
        let is_rogue = says(&|message| matches!(message, Message::Rogue { key: rogue, .. } if *rogue == key));
        let is_ordered = matches!(input, Input::Asked(_, Order::Kill(killed)) if *killed == key);
        let is_late = says(&|message| *message == Message::NotEnded(key));
        let is_ending =
            self.phase_before == Phase::ShuttingDown || effects.iter().any(|effect| matches!(effect, Effect::End(_)));
        let is_right = match signal {
            Signal::Hup | Signal::Cont => true,
            Signal::Quit => is_ending || says(&|message| *message == Message::Retired(key)),
            Signal::Int | Signal::Term => is_rogue || is_ending || self.is_cut(now, key, machine, world),
            Signal::Kill => is_rogue || is_ordered || is_late || self.is_cut(now, key, machine, world),
        };
        if !is_right {
            let status = world.status(key.slot);
            return broken("a request in hand is not cut", format_args!("{signal:?} to {key}, which does {status:?}"));
        }
        if is_late && signal == Signal::Kill {
            self.was_time_to_kill(now, world)?;
        }
        if !matches!(signal, Signal::Hup | Signal::Cont) {
            self.owners[key.slot].is_told = true;
        }
        Ok(())
    }

    /// No child is killed before its time to end is up.
    fn was_time_to_kill(&self, now: u64, world: &World) -> Result<(), Violation> {
        let since = self.stopping_since.unwrap_or(now);
        let ran = now - since - world.suspended_since(since);
        let forgiven = micros(self.first.look_every()) * 3 / 2 * world.suspensions_since(since);
        if ran + forgiven + 2000 < self.stop_limit {
            return broken("no child is killed before shutdown_timeout", format_args!("after {ran} us"));
        }
        Ok(())
    }

    pub(super) fn record(&mut self, now: u64, death: &Death, world: &World) -> Result<(), Violation> {
        let key = death.key;
        let Some(owner) = self.owner_mut(key, State::Live) else {
            return broken("each child ends once", key);
        };
        owner.state = State::Free;
        let is_told = owner.is_told;
        self.live -= 1;
        let Some(child) = world.child(key).filter(|child| !child.is_alive()) else {
            return broken("only the dead are recorded", key);
        };
        if (death.cause == Cause::Vanished) != child.is_gone {
            return broken("a death has the right cause", format_args!("{death:?} {:?}", child.end));
        }
        self.messages.forget(key);
        self.deaths.count(death.cause);
        let is_current = child.edition == self.reload.current;
        let lived = now - child.born;
        self.reload.early_deaths += u32::from(is_current && death.requests == 0);
        let is_orderly = matches!(
            death.cause,
            Cause::Retired | Cause::Memory | Cause::Rogue(_) | Cause::Shutdown | Cause::Killed | Cause::Cut
        );
        let is_running = self.phase_before == Phase::Running && world.is_pre();
        self.note_proven(child.edition, child.was_ready);
        if is_running && !child.was_ready && !is_told && is_current {
            self.early += 1;
        }
        if death.requests > 0 || lived >= micros(STAYED_UP) {
            self.crashes = Chain::default();
        } else if !is_orderly && !is_told && world.is_pre() && is_current {
            self.crashes.died(child.born, now);
        }
        if is_running && !self.upgrade.rests && !death.cause.is_in_order() && !world.queue.is_empty() {
            self.wake_by = Some((now, now + 300_000));
        }
        Ok(())
    }

    pub(super) fn answer(
        &mut self,
        OrderId(id): OrderId,
        verdict: Verdict,
        machine: &Machine,
        world: &World,
    ) -> Result<(), Violation> {
        let order = self.orders.get_mut(id as usize).and_then(Option::as_mut);
        let Some(order) = order.filter(|order| !order.is_answered) else {
            return broken("each order has one verdict", format_args!("{verdict} for {id}"));
        };
        order.is_answered = true;
        match (order.order, verdict) {
            (Order::Resize(by), Verdict::Applied) => self.shift += i64::from(by),
            (Order::SetSize(size), verdict) => return self.size_is_set(size, verdict),
            (Order::ResetSize, Verdict::Applied) => {
                (self.base, self.shift) = (self.reload.first, 0);
            }
            (Order::Stop(Shutdown::Graceful) | Order::Terminate, Verdict::Superseded) => {}
            (Order::Reload | Order::Check, verdict) => return self.reload_is_answered(id, verdict, machine, world),
            (Order::Upgrade, verdict) => return self.upgrade_is_answered(id, verdict),
            (Order::Finish, Verdict::Refused(_)) if self.upgrade.can_finish => {
                return broken("an order to finish is carried out", format_args!("{verdict}"));
            }
            (order, Verdict::Superseded) => {
                return broken("only a slow end is superseded", format_args!("{order:?}"));
            }
            _ => {}
        }
        Ok(())
    }

    /// All of a size or nothing: what contradicts itself is refused, and nothing else but for the end.
    fn size_is_set(&mut self, size: NewSize, verdict: Verdict) -> Result<(), Violation> {
        let [max_children, min_spare, max_spare] = self.size();
        let NewSize { max_children: max, min_spare: min, max_spare: most } = size;
        let is_pool = self.first.min_spare > 0;
        let wanted = [max.unwrap_or(max_children), min.unwrap_or(min_spare), most.unwrap_or(max_spare)];
        let is_sound = wanted[0] > 0
            && if is_pool { (1..=wanted[2]).contains(&wanted[1]) } else { min.is_none() && most.is_none() };
        let is_ending = verdict == Verdict::Refused(Why::ShuttingDown)
            || self.upgrade.rests && verdict == Verdict::Refused(Why::Upgrading);
        if !is_ending && is_sound != (verdict == Verdict::Applied) {
            return broken("a size is set as a whole or not at all", format_args!("{size:?}: {verdict}"));
        }
        if verdict == Verdict::Applied {
            (self.base, self.shift) = (wanted, 0);
        }
        Ok(())
    }

    /// Whether what the log is told is true.
    pub(super) fn justify(&self, now: u64, message: &Message, world: &World) -> Result<(), Violation> {
        if let Message::CrashLoop { deaths, .. } = *message
            && self.reload.early_deaths < deaths
        {
            let seen = self.reload.early_deaths;
            return broken("children on trial do not count as a crash loop", format_args!("{deaths}, really {seen}"));
        }
        let Message::Rogue { key, why, step: Step::Interrupt, .. } = *message else { return Ok(()) };
        let Some(child) = world.child(key) else { return broken("a rogue is a child", key) };
        let rules = self.first.rules;
        let (limit, since, other) = match why {
            Rogue::Cpu if child.cpu(now) < micros(rules.cpu_limit) => {
                return broken("no child is rogue before its time", format_args!("{message:?}"));
            }
            Rogue::Cpu => return Ok(()),
            Rogue::Unresponsive if child.answer != Answer::Missing && world.knobs.race == 0 => {
                return broken("no child is rogue before its time", format_args!("{message:?}: it has answered"));
            }
            Rogue::Unresponsive => return Ok(()),
            // It has just begun something else, between two looks.
            _ if world.knobs.race > 0 && now - child.since < 5000 => return Ok(()),
            Rogue::Stopped if !child.is_stopped && world.knobs.race == 0 => {
                return broken("no child is rogue before its time", format_args!("{message:?}: it runs"));
            }
            Rogue::Stopped if child.stops > 1 || !child.is_stopped => return Ok(()),
            Rogue::Stopped => (Some(self.first.babysit / 2), child.stopped_at, 0),
            Rogue::Request => (rules.request_timeout, child.since, child.stopped_since),
            Rogue::Long => (rules.long_timeout, child.since, child.stopped_since),
            Rogue::Exit => (Some(rules.exit_timeout), child.since, child.stopped_since),
        };
        let Some(limit) = limit else { return broken("there is no such limit", format_args!("{message:?}")) };
        let stops = match why {
            Rogue::Stopped => 1,
            _ => u64::from(child.stops_since),
        };
        let look = micros(self.first.look_every()) * 3 / 2;
        // It may have been stopped while the parent was.
        let ran = (now - since).saturating_sub(world.suspended_since(since).max(other));
        if ran + look * (stops + world.suspensions_since(since)) + 2000 < micros(limit) {
            return broken("no child is rogue before its time", format_args!("{message:?}, really {ran} us"));
        }
        Ok(())
    }
}

impl Chain {
    fn died(&mut self, born: u64, now: u64) {
        // One of whose death the parent hears so late has stayed up, as far as it can tell.
        if now - born >= 1_000_000 {
            self.deaths = 0;
        } else if self.deaths == 0 || born >= self.last {
            (self.deaths, self.last) = (self.deaths + 1, now);
        }
    }

    /// After some deaths in a row the next fork comes after a pause that doubles: 100 ms after the second.
    fn may_fork(&self, now: u64) -> Result<(), Violation> {
        let pause = match self.deaths {
            0..=3 => 0,
            deaths => (100_000 << (deaths - 2).min(16)).min(30_000_000) / 2,
        };
        if now - self.last < pause {
            let (deaths, waited) = (self.deaths, now - self.last);
            return broken("a crash loop is slowed", format_args!("{deaths} deaths, then a fork after {waited} us"));
        }
        Ok(())
    }
}

/// The most children that may be starting at once, but for the first ones.
const WINDOW: u32 = 32;

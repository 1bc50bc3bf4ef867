//! What must hold between steps: the machine knows what is so, and nothing that should be done is left undone.

use super::child::Flaw;
use super::reload::is_rolling;
use super::rules::{Rules, State, Violation, broken, micros};
use super::world::World;
use crate::daemon::machine::{Key, Machine, Phase, Status, Timer, Told, Watch};

/// Who does what, as far as the machine can know.
struct Pool {
    idle: u32,
    starting: u32,
    /// Of both, how many are stopped and have been for longer than a round of the babysitter takes.
    stopped: u32,
    /// Children that keep a client and could release it.
    kept: u32,
    is_garbled: bool,
}

impl Rules {
    /// After a step from which nothing else has followed.
    pub fn after(
        &mut self,
        now: u64,
        machine: &Machine,
        world: &World,
        timers: &[u64; Timer::ALL.len()],
        forks: usize,
    ) -> Result<(), Violation> {
        self.compare_tables(machine, world, forks)?;
        self.compare_size(machine)?;
        if machine.deaths() != self.deaths() {
            return broken("deaths are the sum of the records", format_args!("{} {}", machine.deaths(), self.deaths()));
        }
        self.look_for_survivors(world);
        let is_armed = |timer: Timer| timers[timer as usize] < u64::MAX;
        if !self.is_over() && machine.phase() != Phase::StartingUp && timers.iter().all(|at| *at == u64::MAX) {
            return broken("some timer is armed", "");
        }
        if machine.phase() == Phase::ShuttingDown {
            return self.is_ending_in_time(now, world);
        }
        let backs_off = is_armed(Timer::RetryForks) || is_armed(Timer::Maintain);
        if world.is_pre() {
            self.judge_pool(machine, world, backs_off, is_armed(Timer::EndHold))?;
        } else {
            self.judge_requests(machine, world, is_armed(Timer::RetryForks))?;
        }
        self.watch(machine, world, timers);
        self.judge_waiting(now, world)
    }

    /// Children that have stayed up, or have had a request.
    pub(super) fn look_for_survivors(&mut self, world: &World) {
        for child in world.children.iter().flatten() {
            let has_worked = world.slots[child.key.slot].says.requests > 0;
            // Also one of whose end the parent has not heard.
            if has_worked || (self.is_live(child.key) && world.now - child.born >= 1_000_000) {
                self.survives(child.born, world);
            }
        }
    }

    fn compare_tables(&mut self, machine: &Machine, world: &World, forks: usize) -> Result<(), Violation> {
        let table = machine.table();
        let (live, asked) = (table.children().len() as u32, table.in_flight().len() as u32);
        if (live, asked) != (self.live, self.asked) || forks > asked as usize {
            let model = (self.live, self.asked, forks);
            return broken("the table has all children and forks", format_args!("{live} {asked}, really {model:?}"));
        }
        if let Some(child) = table.children().iter().find(|child| !self.is_live(child.key)) {
            return broken("the table has living children", child.key);
        }
        for (slot, owner) in self.owners.iter().enumerate() {
            let is_empty = world.status(slot) == Some(Status::Empty);
            if is_empty != (owner.state == State::Free) && owner.state != State::Asked {
                return broken("a slot is free if it has no owner", format_args!("slot {slot}: {owner:?}"));
            }
        }
        Ok(())
    }

    fn compare_size(&self, machine: &Machine) -> Result<(), Violation> {
        let now = machine.settings();
        let limits = [now.max_children, now.min_spare, now.max_spare];
        if limits == self.size() {
            return Ok(());
        }
        let (base, shift) = (self.base, self.shift);
        broken("the size is what orders have made of it", format_args!("{limits:?}, really {base:?} by {shift}"))
    }

    /// Returns what the size has to be: `max_children`, `min_spare`, `max_spare`.
    pub(super) fn size(&self) -> [u32; 3] {
        let at = |limit: u32| u32::try_from((i64::from(limit) + self.shift).max(1)).unwrap_or(u32::MAX);
        // A server that keeps no spares has no limits of them.
        let is_pool = self.first.min_spare > 0;
        let [max_children, min_spare, max_spare] = self.base;
        if is_pool { [at(max_children), at(min_spare), at(max_spare)] } else { [at(max_children), 0, 0] }
    }

    fn judge_pool(&mut self, machine: &Machine, world: &World, backs_off: bool, holds: bool) -> Result<(), Violation> {
        let settings = machine.settings();
        let Pool { idle, starting, stopped, .. } = self.pool(machine, world);
        let spares = idle + starting;
        let missing = settings.min_spare.saturating_sub(spares);
        let room = settings.max_children.saturating_sub(self.live + self.asked);
        let refills = std::mem::take(&mut self.upgrade.refills);
        if self.upgrade.rests {
            return Ok(());
        }
        if refills && missing > 0 && room > 0 && !backs_off && world.knobs.race == 0 {
            return broken(
                "a pool is filled at once that has rested",
                format_args!("{spares} of {}", settings.min_spare),
            );
        }
        self.clip_early(missing.min(room));
        if machine.phase() != Phase::Running {
            return Ok(());
        }
        let can_grow = room > 0 && !backs_off;
        let is_exact = world.knobs.race == 0;
        if missing > 0 && starting == 0 && can_grow && is_exact {
            return broken("spares are made up for", format_args!("{spares} of {}", settings.min_spare));
        }
        if spares - stopped < settings.min_spare && starting == 0 && can_grow && is_exact {
            return broken("a child that is stopped is no spare", format_args!("{spares}, of which {stopped} are"));
        }
        if is_rolling(machine) {
            return Ok(());
        }
        if spares > settings.max_spare && idle > 0 && !holds && !backs_off && world.queue.is_empty() && is_exact {
            return broken("spares that are too many go", format_args!("{spares} of {}", settings.max_spare));
        }
        Ok(())
    }

    fn pool(&self, machine: &Machine, world: &World) -> Pool {
        let mut pool = Pool { idle: 0, starting: self.asked, stopped: 0, kept: 0, is_garbled: false };
        let patience = micros(self.first.babysit) + 1_500_000;
        for child in machine.table().children() {
            let status = world.status(child.key.slot);
            // A child that has ended and was not reaped is still on the board.
            let is_dead = world.child(child.key).is_some_and(|real| !real.is_alive());
            pool.is_garbled |= status.is_none() || is_dead;
            if child.told != Told::Stay || child.is_stopped || child.deaf.is_some() {
                // The board counts it as waiting until it goes, or until the babysitter has noticed that it does not.
                let goes = child.told != Told::Stay && child.overdue_for.is_none();
                pool.is_garbled |= goes && world.slots[child.key.slot].is_idle;
                continue;
            }
            let is_spare = match status {
                Some(Status::Wait) => {
                    pool.idle += 1;
                    true
                }
                Some(status) if status.is_starting() => {
                    pool.starting += 1;
                    true
                }
                _ => false,
            };
            let Some(real) = world.child(child.key) else { continue };
            if is_spare && real.is_alive() && real.is_stopped {
                let stopped_for = world.now - real.stopped_at - world.suspended_since(real.stopped_at);
                pool.stopped += u32::from(stopped_for > patience);
            }
            let keeps = status == Some(Status::Keep) && real.runs() && real.flaw != Flaw::Torn && world.is_pre();
            pool.kept += u32::from(keeps);
        }
        pool
    }

    fn judge_requests(&self, machine: &Machine, world: &World, backs_off: bool) -> Result<(), Violation> {
        if machine.phase() != Phase::Running {
            return Ok(());
        }
        let probes = machine.table().in_flight().iter().filter(|fork| fork.is_probe).count();
        let in_flight = machine.table().in_flight().len() - probes;
        // A fork that has succeeded and not returned is still in flight.
        let forked = world.children.iter().flatten();
        let is_in_flight = |key: Key| machine.table().in_flight().iter().any(|fork| fork.key == key);
        let forked = forked.filter(|child| is_in_flight(child.key) && !child.is_probe).count();
        if world.requests.len() + forked != machine.queued() + in_flight {
            let (real, known) = (world.requests.len() + forked, machine.queued() + in_flight);
            return broken("no request is lost", format_args!("{real} wait, {known} are known"));
        }
        let living = machine.table().children().iter().filter(|child| child.is_probe).count();
        let (max, queued) = (machine.settings().max_children, machine.queued() as u32);
        let total = self.live + self.asked - ((probes + living) as u32).min(self.first.reload.surge);
        let in_flight = in_flight + probes;
        if queued > 0 && total < max && in_flight == 0 && !backs_off {
            return broken("no request waits while there is room", format_args!("{queued}"));
        }
        if self.upgrade.rests {
            return match world.intake_is_open {
                true => broken("the application is paused during a rest", ""),
                false => Ok(()),
            };
        }
        let is_draining = self.stopping_since.is_some();
        let is_full = total + queued >= max;
        if world.intake_is_open && is_full && !is_draining {
            return broken("the application is paused while it is full", format_args!("{total} + {queued} of {max}"));
        }
        if !world.intake_is_open && !is_full && in_flight == 0 && !backs_off && !is_draining {
            return broken("the application goes on when there is room", format_args!("{total} of {max}"));
        }
        Ok(())
    }

    /// What is so from now on, until something else happens.
    pub fn watch(&mut self, machine: &Machine, world: &World, timers: &[u64; Timer::ALL.len()]) {
        let now = world.now;
        let is_armed = |timer: Timer| timers[timer as usize] < u64::MAX;
        let backs_off = is_armed(Timer::RetryForks) || is_armed(Timer::Maintain);
        let holds = is_armed(Timer::EndHold);
        let settings = machine.settings();
        let is_running = machine.phase() == Phase::Running && world.is_pre() && !self.upgrade.rests;
        if !is_running {
            (self.short_since, self.surplus_since, self.unheard_since, self.kept_since) = (None, None, None, None);
            return;
        }
        let pool = self.pool(machine, world);
        let (spares, total) = (pool.idle + pool.starting, self.live + self.asked);
        let is_plain = is_running && !pool.is_garbled;
        let is_short = is_plain && spares < settings.min_spare && total < settings.max_children && !backs_off;
        note(&mut self.short_since, now, is_short);
        let is_surplus = is_plain
            && !is_rolling(machine)
            && pool.idle > 0
            && spares > settings.max_spare
            && !holds
            && !backs_off
            && world.queue.is_empty();
        note(&mut self.surplus_since, now, is_surplus);
        let (mut can_hear, mut cannot) = (false, false);
        for child in world.children.iter().flatten().filter(|child| world.slots[child.key.slot].is_idle) {
            // One that is about to do something else does not listen.
            let is_deaf = !child.runs() || child.is_hopeless() || (child.next.is_some() && !child.is_woken);
            let stays = machine.table().child(child.key).is_some_and(|child| child.told == Told::Stay);
            can_hear |= !is_deaf && !child.is_woken && stays;
            // That a child is stopped can be seen.
            cannot |= is_deaf && !child.is_stopped;
        }
        let waits = !world.queue.is_empty();
        if cannot && waits {
            self.vain_until = now + 140_000_000;
        }
        note(&mut self.unheard_since, now.max(world.last_accept), is_running && can_hear && waits);
        self.unheard_since = self.unheard_since.map(|since| since.max(world.last_accept));
        let is_full = total >= settings.max_children && pool.idle + pool.starting == 0;
        let relief = Watch::Relief as usize;
        let is_watched = is_armed(Timer::Relieve) || world.awaited[relief] || world.telling[relief];
        note(&mut self.kept_since, now, is_plain && is_full && waits && pool.kept > 0 && !is_watched);
    }

    /// Before a step: has the machine heard of what was so until now?
    pub(super) fn look_before(&mut self, world: &World) -> Result<(), Violation> {
        // A child is about to ring, or was kept from it.
        let until = world.news_at.unwrap_or(world.now);
        for (since, rule) in [
            (self.short_since, "a shortage of spares rings"),
            (self.surplus_since, "a surplus of spares rings"),
            (self.kept_since, "a client that waits goes before one that keeps a child"),
        ] {
            let Some(since) = since else { continue };
            let waited = until.saturating_sub(since + world.suspended_since(since));
            if waited > 50_000 + u64::from(world.knobs.batch) * 1000 + world.longest_fork() {
                return broken(rule, format_args!("not for {waited} us"));
            }
        }
        Ok(())
    }

    /// Clients that wait although a child could have them.
    fn judge_waiting(&mut self, now: u64, world: &World) -> Result<(), Violation> {
        let slack = u64::from(world.knobs.batch) * 2000 + world.longest_fork() * 4;
        if let Some(since) = self.unheard_since {
            let waited = now.saturating_sub(since + world.suspended_since(since));
            let patience = if now < self.vain_until { 140_000_000 } else { 3_300_000 };
            if waited > patience + slack {
                return broken("no client waits while a child is idle", format_args!("for {waited} us"));
            }
        }
        match (self.wake_by, self.unheard_since) {
            (Some((from, by)), Some(since)) if now > by => {
                self.wake_by = None;
                if since <= from && world.suspended_since(from) == 0 && slack < 200_000 {
                    return broken("idle children look after a death", format_args!("not since {from}"));
                }
            }
            (Some((_, by)), None) if now > by => self.wake_by = None,
            _ => {}
        }
        Ok(())
    }

    /// The end is over when its time is up.
    pub(super) fn is_ending_in_time(&self, now: u64, world: &World) -> Result<(), Violation> {
        let Some(since) = self.stopping_since else { return Ok(()) };
        let ran = now - since - world.suspended_since(since);
        let full = self.stop_limit;
        // Those of whose end the parent is not told are found when the time is up once more.
        let is_quiet = world.children.iter().flatten().any(|child| !child.is_alive() && !child.is_told_of);
        let rounds = if is_quiet || world.late.0 > 0 { 2 } else { 1 };
        let look = micros(self.first.look_every());
        let slack = look * 2 * (1 + world.suspensions_since(since)) + 500_000 + u64::from(world.knobs.batch) * 10_000;
        // A look that comes late counts for no more than one in time.
        let slowed = |span: u64| span + span * u64::from(world.knobs.batch) * 2000 / look;
        let again = slowed(micros(self.first.shutdown_timeout)) * (rounds - 1);
        if !self.is_over() && ran > slowed(full) + again + slack + world.longest_fork() * 8 {
            return broken("the end is over in time", format_args!("after {ran} us of {full}"));
        }
        Ok(())
    }

    /// Returns the orders that have no verdict, and of which none is due.
    pub fn unanswered(&self) -> Vec<(usize, Option<Key>)> {
        use crate::daemon::machine::Order;
        let orders = self.orders.iter().enumerate().filter_map(|(id, order)| Some((id, (*order)?)));
        let open = orders.filter(|(_, order)| !order.is_answered);
        open.map(|(id, order)| match order.order {
            Order::Retire(key) | Order::Kill(key) => (id, Some(key)),
            _ => (id, None),
        })
        .collect()
    }
}

impl World {
    /// Returns how long a fork may keep the parent.
    pub fn longest_fork(&self) -> u64 {
        u64::from(self.knobs.fork).max(self.fork_slow.1) * 8
    }
}

/// Takes note since when something is so.
fn note(since: &mut Option<u64>, now: u64, is_so: bool) {
    if is_so {
        since.get_or_insert(now);
    } else {
        *since = None;
    }
}

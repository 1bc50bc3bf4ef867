//! One run: the disturbances, the calm after them, and the end.

use super::child::{Flaw, Sent};
use super::clients::{self, Client};
use super::driver::Driver;
use super::plan::{Kind, Plan};
use super::rules::{Violation, broken, micros};
use super::trace::Trace;
use super::world::{Event, Failing};
use crate::daemon::machine::{Fault, Order, Phase, Shutdown, Status, Timer};

/// What a run has come to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How long it has lasted, in microseconds of its own time.
    pub lasted: u64,
    pub steps: u64,
    pub served: u64,
    pub hash: u64,
    pub trace: String,
    pub violation: Option<Violation>,
}

/// Plays a plan through.
pub fn play(plan: &Plan, fault: Option<Fault>) -> Outcome {
    play_with(plan, fault, Trace::default())
}

/// The same, and says what has happened.
pub fn play_with(plan: &Plan, fault: Option<Fault>, trace: Trace) -> Outcome {
    let mut driver = Driver::new(plan, fault);
    driver.trace = trace;
    let played = driver.play();
    driver.outcome(played)
}

impl Driver {
    /// Returns what the run has come to, with how it ended.
    pub fn outcome(&self, ended: Result<(), Violation>) -> Outcome {
        let violation = match ended {
            Ok(()) => None,
            Err(violation) => Some(Violation { at: self.world.now, ..violation }),
        };
        Outcome {
            lasted: self.world.now,
            steps: self.steps,
            served: self.world.served,
            hash: self.trace.hash(),
            trace: self.trace.text().to_owned(),
            violation,
        }
    }

    /// Plays on from wherever it is, to the end.
    pub fn play(&mut self) -> Result<(), Violation> {
        let until = u64::from(self.acts.iter().map(lasts).max().unwrap_or(0)) * 1000 + 1000;
        self.run(until.saturating_sub(self.world.now))?;
        let knobs = self.world.knobs;
        if self.rules.stopping_since.is_none() {
            self.calm_down();
            self.run_until_quiet(self.time_to_recover())?;
            self.let_rolls_end()?;
        }
        if self.rules.stopping_since.is_none() {
            self.has_recovered()?;
            self.grow()?;
        }
        if self.rules.stopping_since.is_none() {
            self.run(u64::from(knobs.calm) * 60_000_000)?;
            self.run_asleep(self.time_to_shrink())?;
            self.has_recovered()?;
            self.is_at_rest()?;
            self.ask(if knobs.gentle > 0 { Order::Stop(Shutdown::Graceful) } else { Order::Terminate });
        }
        let settings = &self.world.settings;
        let full = micros(settings.shutdown_timeout.max(settings.reload.drain_limit));
        let suspended = self.world.suspended_since(0);
        let slow = 1 + u64::from(self.world.knobs.batch) * 2000 / micros(self.world.settings.look_every());
        self.run(full * slow * 4 + suspended + 60_000_000)?;
        self.rules.is_ending_in_time(self.world.now, &self.world)?;
        if !self.rules.is_over() {
            return broken("the end is over in time", "it never is");
        }
        match self.rules.unanswered().first() {
            Some((id, _)) => broken("each order has one verdict", format_args!("none for {id}")),
            None => Ok(()),
        }
    }

    /// No more disturbances. Those children that would never do anything again are killed by an operator.
    fn calm_down(&mut self) {
        let world = &mut self.world;
        world.flaws.clear();
        world.fork_fails = Failing::default();
        world.fork_slow = (0, 0);
        world.late = (0, 0);
        world.mute = (0, 0);
        world.no_log_until = 0;
        world.files.calm_down();
        let hopeless: Vec<(usize, u32)> = world
            .children
            .iter()
            .flatten()
            .filter(|child| child.is_alive() && child.is_hopeless())
            .map(|child| (child.key.slot, child.key.generation))
            .collect();
        for (slot, generation) in hopeless {
            world.plan(50, Event::Signal(slot, generation, Sent::Kill));
        }
        for child in world.children.iter_mut().flatten() {
            if matches!(child.flaw, Flaw::RingsNever | Flaw::RingsLate | Flaw::Torn) {
                child.flaw = Flaw::None;
                world.slots[child.key.slot].is_torn = false;
            }
        }
        world.plan(60, Event::Deaths);
    }

    /// Returns how long it may take until all is well: rogues have some rounds of the babysitter, and a crash loop has its
    /// longest pause.
    fn time_to_recover(&self) -> u64 {
        let settings = self.machine.settings();
        let limits = [settings.rules.request_timeout, settings.rules.long_timeout];
        let longest = limits.into_iter().flatten().map(micros).max().unwrap_or(0);
        let suspended = self.world.suspended.last().map_or(0, |(_, to)| to.saturating_sub(self.world.now));
        let look = micros(settings.look_every());
        let slowed = longest + longest * u64::from(self.world.knobs.batch) * 2000 / look;
        let reload = micros(settings.reload.load_timeout)
            + (micros(settings.start_timeout) + micros(settings.reload.drain_limit)) * 3
            + micros(settings.reload.probation) * 2
            + micros(settings.greeting_limit + settings.upgrade_timeout);
        60_000_000 + reload + slowed * 2 + micros(settings.babysit) * 8 + suspended
    }

    /// Where all children have work in hand and there is no room for others, as many are replaced at a time as the settings of
    /// reloads allow, and each of them may take `drain_limit`. There may be a roll, its way back, and one that was asked for meanwhile.
    fn let_rolls_end(&mut self) -> Result<(), Violation> {
        let reload = &self.machine.settings().reload;
        let each = micros(reload.drain_limit) + u64::from(self.world.knobs.boot) * 2000 + 5_000_000;
        let at_once = (reload.surge + reload.max_unavailable).max(1);
        for _ in 0..3 * self.rules.live.div_ceil(at_once) {
            if self.machine.reload_is_under_way() {
                self.run(each)?;
            }
        }
        Ok(())
    }

    fn time_to_shrink(&self) -> u64 {
        let hold = self.machine.settings().shrink_hold.map_or(0, micros).max(10_000_000);
        hold.max(self.world.longest_start * 10) * 3 + u64::from(self.world.knobs.boot) * 50_000
    }

    /// What must be so after a while without disturbances.
    fn has_recovered(&self) -> Result<(), Violation> {
        let (world, machine) = (&self.world, &self.machine);
        if machine.phase() == Phase::StartingUp
            && world.is_pre()
            && world.knobs.start <= machine.settings().max_children
        {
            return broken("it starts up in the end", format_args!("{} children", self.rules.live));
        }
        if self.timers[Timer::RetryForks as usize] < u64::MAX {
            return broken("forks are not put off for ever", "");
        }
        let settings = machine.settings();
        let limit = micros(settings.babysit) * 5;
        for child in world.children.iter().flatten() {
            let (status, key) = (world.status(child.key.slot), child.key);
            let does_for = world.now - child.since - world.suspended_since(child.since);
            let slow = |span: u64| span + span * u64::from(world.knobs.batch) * 2000 / micros(settings.look_every());
            let is_over =
                |span: Option<std::time::Duration>| span.is_some_and(|span| does_for > slow(micros(span)) + limit);
            if child.end.is_some() && self.rules.is_live(key) && world.now - child.cpu_at > limit {
                return broken("the dead are noticed", key);
            }
            if !child.is_alive() {
                continue;
            }
            if child.is_stopped && world.now - child.stopped_at > limit && self.rules.is_live(key) {
                return broken("a child that stays stopped is replaced", key);
            }
            if status == Some(Status::Req) && is_over(settings.rules.request_timeout)
                || status == Some(Status::Long) && is_over(settings.rules.long_timeout)
                || status == Some(Status::Exit) && is_over(Some(settings.rules.exit_timeout))
            {
                return broken("a request that takes too long is ended", format_args!("{key} {status:?}"));
            }
            let is_large = child.flaw == Flaw::Grows && settings.rules.memory_limit.is_some() && world.is_pre();
            let grew_at = child.born + u64::from(child.delay) * 1000;
            if is_large && world.now > grew_at + limit && status == Some(Status::Wait) {
                return broken("a child that is too large is replaced", key);
            }
            if child.log != world.log && child.is_alive() && !child.is_stopped {
                return broken("each child has the new log", format_args!("{key} has {} of {}", child.log, world.log));
            }
        }
        self.rules.reload_is_over(world.now, machine, world)?;
        self.rules.upgrade_is_over(machine)?;
        self.orders_are_answered()
    }

    fn orders_are_answered(&self) -> Result<(), Violation> {
        for (id, key) in self.rules.unanswered() {
            // A child that was asked to go has all the time that its request takes.
            let may_wait = |child: &&super::child::Child| {
                child.is_alive()
                    && (child.client.is_some() || matches!(child.flaw, Flaw::IgnoresEnd | Flaw::IgnoresQuit))
            };
            if key.and_then(|key| self.world.child(key)).filter(may_wait).is_none() {
                return broken("each order has one verdict", format_args!("none for {id}"));
            }
        }
        Ok(())
    }

    /// Nothing has happened for a while.
    fn is_at_rest(&self) -> Result<(), Violation> {
        let settings = self.machine.settings();
        if !self.world.is_pre() {
            return match self.machine.queued() {
                0 => Ok(()),
                _ if self.rules.live + self.rules.asked >= settings.max_children => Ok(()),
                queued => broken("no request waits while there is room", queued),
            };
        }
        let stays = |child: &&super::child::Child| {
            self.world.slots[child.key.slot].is_idle && !matches!(child.flaw, Flaw::IgnoresEnd | Flaw::IgnoresQuit)
        };
        let idle = self.world.children.iter().flatten().filter(stays).count() as u32;
        if idle > settings.max_spare {
            return broken("spares that are too many go", format_args!("{idle} of {}", settings.max_spare));
        }
        // A child may just have had its last request, and its successor may be starting.
        let is_spare = |slot: &super::world::Slot| {
            slot.says.status.is_some_and(|status| status == Status::Wait || status.is_starting())
        };
        let all = self.world.slots.iter().filter(|slot| is_spare(slot)).count() as u32;
        if all < settings.min_spare && self.rules.live < settings.max_children {
            return broken("spares are made up for", format_args!("{idle} of {}", settings.min_spare));
        }
        Ok(())
    }

    /// A crowd of clients comes, each of whom keeps a child busy: as many as there may be children for. All of them have one
    /// soon.
    fn grow(&mut self) -> Result<(), Violation> {
        let settings = self.machine.settings();
        let idle = self.world.slots.iter().filter(|slot| slot.is_idle).count() as u32;
        let room = settings.max_children.saturating_sub(self.rules.live + self.rules.asked);
        let crowd = (idle + room).min(60).min(self.world.knobs.backlog);
        // Where a child was frozen while it started, the machine believes for a while that no child could be there in time.
        let believes_slow = self.world.longest_start > u64::from(self.world.knobs.boot.max(1)) * 4000;
        if crowd == 0 || !self.world.queue.is_empty() || believes_slow {
            return Ok(());
        }
        let min = settings.min_spare.max(1);
        let knobs = self.world.knobs;
        let (boot, fork) = (u64::from(knobs.boot.max(1)) * 1250, u64::from(knobs.fork));
        let span = boot.max(5000) * 40 + 5_000_000;
        let client = Client { kind: clients::Kind::Short, service: span * 2, told: None, is_probe: true };
        // The window of starting children may have been halved down to one. It doubles as children come up.
        let windows = u64::from(crowd / 32) + 6;
        let steps = if !self.world.is_pre() {
            2
        } else if knobs.blind == 0 {
            windows
        } else {
            // One that can't see the queue makes spares only. The babysitter has it begin with small steps again and again.
            windows + u64::from(crowd.div_ceil(min))
        };
        let each = boot + u64::from(knobs.accept) + 4 * u64::from(knobs.batch) * 1000 + 10_000;
        let all = (fork + u64::from(knobs.batch) * 2000) * u64::from(crowd) * 2;
        let within = u64::from(knobs.target) * 1000 + steps * each + all + 100_000;
        // Those whom the babysitter takes for rogues make room for others, but not soon.
        if settings.rules.request_timeout.is_some_and(|limit| micros(limit) < within * 2) {
            return Ok(());
        }
        (0..crowd).for_each(|_| self.world.arrive(client));
        self.run(within)?;
        let waiting = self.world.probes_waiting;
        if waiting > 0 && self.rules.stopping_since.is_none() {
            return broken(
                "a crowd of clients is served in time",
                format_args!("{waiting} of {crowd} after {within} us"),
            );
        }
        // They leave again.
        self.run(span * 2 + 100_000)
    }
}

/// Returns when the last of what a disturbance does is over, in milliseconds.
fn lasts(act: &super::plan::Act) -> u32 {
    let [a, b, _] = act.args;
    act.at.saturating_add(match act.kind {
        Kind::ForkFails | Kind::Suspend | Kind::Late | Kind::Mute | Kind::NoLog => a,
        Kind::ForkSlow => b,
        _ => 0,
    })
}

//! What the disturbances of a plan do.

use super::child::{Flaw, Sent};
use super::clients::{self, Client};
use super::driver::Driver;
use super::plan::{Act, Kind};
use super::successor::Script;
use super::world::{Event, Failing, Letter, World};
use crate::daemon::machine::{End, Input, Key, NewSize, Order, Refusal, Shutdown, Timer, Watch};

impl Driver {
    /// A disturbance.
    pub(super) fn act(&mut self, act: Act) {
        let [a, b, c] = act.args;
        let world = &mut self.world;
        let until = |ms: u32| world.now + u64::from(ms) * 1000;
        match act.kind {
            Kind::Wave => {
                let client = Client {
                    kind: clients::Kind::numbered(c),
                    service: u64::from(b.max(1)) * 1000,
                    told: None,
                    is_probe: false,
                };
                (0..a).for_each(|_| world.arrive(client));
            }
            Kind::Push if !world.is_pre() => (0..a).for_each(|_| world.inbox.push(Letter::Push)),
            Kind::Push => {}
            Kind::ForkFails => world.fork_fails = Failing { until: until(a), reason: b as i32 },
            Kind::ForkSlow => world.fork_slow = (until(b), a.into()),
            Kind::Suspend => {
                let end = until(a);
                let from = world.now.max(self.resumes_at());
                let world = &mut self.world;
                if end > from {
                    world.suspended.push((from, end));
                }
                if b > 0 && end > world.frozen_until {
                    (world.frozen_at, world.frozen_until) = (world.now, end);
                }
            }
            Kind::Order => {
                let order = self.order(a, b);
                self.ask(order);
            }
            Kind::Nest => {
                let order = self.order(a, b);
                self.nested.push_back(order);
            }
            Kind::Bad => {
                let (flaw, every_other) = (Flaw::numbered(b % 100), b >= 100);
                if a > 0 {
                    world.flaws.push_back((a, flaw, c, every_other));
                }
            }
            Kind::Hit => self.hit(a, b, c),
            Kind::Late => world.late = (until(a), b.into()),
            Kind::Mute => world.mute = (until(a), b.into()),
            Kind::Bell => world.inbox.push(Letter::Input(Input::Bell)),
            Kind::Again => {
                let again: Vec<Letter> =
                    world.last_deaths.iter().map(|(key, end)| Letter::Input(Input::Reaped(*key, *end))).collect();
                world.inbox.extend(again);
            }
            Kind::Stray => self.stray(a),
            Kind::Foreign => {
                world.inbox.push(Letter::Input(Input::Foreign(a as usize)));
            }
            Kind::Widow => {
                if world.knobs.launcher > 0 {
                    world.inbox.push(Letter::Input(Input::LauncherGone { has_acknowledged: false }));
                }
            }
            Kind::NoLog => world.no_log_until = until(a),
            Kind::Reload => {
                world.files.change(&world.knobs, [a, b, c]);
                self.ask(Order::Reload);
            }
            Kind::Upgrade => {
                world.script = Script::numbered([a, b, c]);
                self.ask(Order::Upgrade);
            }
        }
    }

    /// Returns the order with this number.
    fn order(&self, number: u32, which: u32) -> Order {
        let keys: Vec<Key> = self.world.children.iter().flatten().map(|child| child.key).collect();
        let nobody = Key { slot: which as usize, generation: 1_000_000 };
        let key = if keys.is_empty() { nobody } else { keys[which as usize % keys.len()] };
        match number {
            0 => Order::Stop(Shutdown::Immediate),
            1 => Order::Stop(Shutdown::Graceful),
            2 => Order::Reopen,
            3 => Order::Resize(1),
            4 => Order::Resize(-1),
            5 => Order::Resize(which as i32),
            6 => Order::Resize(-(which as i32)),
            7 => Order::Retire(key),
            8 => Order::Kill(key),
            9 => Order::Retire(nobody),
            10 => Order::Kill(nobody),
            12 => Order::SetSize(size(which)),
            13 => Order::ResetSize,
            14 => Order::Reload,
            15 => Order::Check,
            16 => Order::Upgrade,
            17 => Order::Finish,
            _ => Order::Terminate,
        }
    }

    fn hit(&mut self, which: u32, what: u32, after: u32) {
        let world = &mut self.world;
        let alive: Vec<Key> =
            world.children.iter().flatten().filter(|child| child.is_alive()).map(|child| child.key).collect();
        if alive.is_empty() {
            return;
        }
        let Key { slot, generation } = alive[which as usize % alive.len()];
        let signal = match what {
            0 => Sent::Stop,
            1 => Sent::Cont,
            2 => Sent::Kill,
            3 => Sent::Segv,
            4 => Sent::Term,
            5 => Sent::Quit,
            6 => Sent::Int,
            7 => Sent::Hup,
            8 => return world.die(slot, End::Exited(0), true),
            _ => {
                world.oom_kills += 1;
                Sent::Kill
            }
        };
        world.plan(0, Event::Signal(slot, generation, signal));
        if signal == Sent::Stop && after > 0 {
            world.plan(u64::from(after) * 1000, Event::Signal(slot, generation, Sent::Cont));
        }
    }

    fn stray(&mut self, number: u32) {
        self.world.had_strays = true;
        let nobody = Key { slot: 1, generation: 1_000_000 };
        let unarmed = Timer::ALL.into_iter().find(|timer| self.timers[*timer as usize] == u64::MAX);
        let input = match number {
            0 => Input::Forked(nobody, Ok(())),
            1 => Input::Forked(nobody, Err(Refusal::ForNow(11))),
            2 => Input::Reaped(nobody, End::Exited(0)),
            3 => Input::Client(Watch::Queue),
            4 => Input::Client(Watch::Relief),
            5 => Input::Reopened { has_failed: false },
            6 => Input::Started,
            7 => Input::Foreign(self.world.foreign as usize),
            _ => {
                return self.world.inbox.extend(unarmed.map(Letter::Stray));
            }
        };
        self.world.inbox.push(Letter::Input(input));
    }
}

/// Returns the size with this number, which may contradict itself.
fn size(number: u32) -> NewSize {
    let part = |bit: u32, digits: u32| (number & 1 << bit > 0).then_some(number >> (bit + 1) & ((1 << digits) - 1));
    NewSize { max_children: part(0, 3), min_spare: part(4, 2), max_spare: part(7, 3) }
}

impl World {
    /// The parent looks who has ended.
    pub(super) fn tell_of_deaths(&mut self) {
        for child in self.children.iter_mut().flatten() {
            if let Some(end) = child.end
                && !child.is_gone
                && !std::mem::replace(&mut child.is_told_of, true)
            {
                self.inbox.push(Letter::Input(Input::Reaped(child.key, end)));
                if self.last_deaths.len() > 2 {
                    self.last_deaths.remove(0);
                }
                self.last_deaths.push((child.key, end));
            }
        }
    }
}

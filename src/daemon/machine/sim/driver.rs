//! Stands in for the parent process: calls the machine, and carries out what it wants done.

use std::collections::VecDeque;
use std::time::Duration;

use super::child::Sent;
use super::clients::{self, Client};
use super::plan::{Act, Plan};
use super::rules::{Rules, Violation, broken};
use super::trace::Trace;
use super::world::{Event, Failing, Letter, World};
use crate::daemon::machine::{
    Announcement, Answer, Effect, Failure, Fault, Fork, Input, Key, Machine, Order, OrderId, Phase, Refusal, Signal,
    Status, Timer, Verdict,
};

/// A machine in its world.
#[derive(Clone)]
pub struct Driver {
    pub machine: Machine,
    pub world: World,
    pub rules: Rules,
    pub trace: Trace,
    pub(super) acts: Vec<Act>,
    /// When each timer is due; `u64::MAX` for one that is not armed.
    pub timers: [u64; Timer::ALL.len()],
    /// Forks that were asked for and not carried out.
    pub(super) forks: VecDeque<Fork>,
    /// A fork that was carried out, and has not returned.
    pub(super) returning: Option<(Key, Result<(), Refusal>)>,
    /// The parent is in a system call until then.
    busy_until: u64,
    /// What the machine is told before anything else happens.
    inputs: VecDeque<Input>,
    /// A request of which the fork has failed, until that is told.
    failed: Option<u64>,
    /// Orders that come when the application is told of something.
    pub(super) nested: VecDeque<Order>,
    next_order: u64,
    /// The verdicts, as they came.
    pub answers: Vec<(OrderId, Verdict)>,
    /// What the run has failed of.
    pub failure: Option<Failure>,
    next_request: u64,
    pub steps: u64,
    /// It does not wait for minutes in which there are only rounds of the babysitter.
    pub is_brief: bool,
    /// Steps since the clock last moved on.
    steps_now: u32,
}

impl Driver {
    pub fn new(plan: &Plan, fault: Option<Fault>) -> Driver {
        let mut world = World::new(plan.knobs);
        let settings = world.settings.clone();
        let machine = match fault {
            Some(fault) => Machine::with_fault(settings, fault),
            None => Machine::new(settings),
        };
        if plan.knobs.launcher > 0 {
            world.inbox.push(Letter::Input(Input::Launched));
        }
        world.inbox.push(Letter::Input(Input::Begin));
        let rules = Rules::new(&world);
        let mut driver = Driver {
            machine,
            world,
            rules,
            trace: Trace::default(),
            acts: Vec::with_capacity(plan.acts.len()),
            timers: [u64::MAX; Timer::ALL.len()],
            forks: VecDeque::new(),
            returning: None,
            busy_until: 0,
            inputs: VecDeque::new(),
            failed: None,
            nested: VecDeque::new(),
            next_order: 0,
            answers: Vec::new(),
            failure: None,
            next_request: 0,
            steps: 0,
            is_brief: false,
            steps_now: 0,
        };
        plan.acts.iter().for_each(|act| driver.disturb(*act));
        driver
    }

    /// Has a disturbance happen, at a time before which nothing has been played yet.
    pub fn disturb(&mut self, act: Act) {
        self.world.plan_act(u64::from(act.at) * 1000, self.acts.len());
        self.acts.push(act);
    }

    /// Lets so many microseconds pass, or fewer if the Daemon ends.
    pub fn run(&mut self, span: u64) -> Result<(), Violation> {
        let end = self.world.now + span;
        self.run_before(end + 1)?;
        self.world.now = self.world.now.max(end);
        Ok(())
    }

    /// Lets everything happen that happens before then.
    pub fn run_before(&mut self, end: u64) -> Result<(), Violation> {
        while !self.rules.is_over() {
            let (parent_at, world_at) = (self.parent_at(), self.world.next_event());
            let at = parent_at.min(world_at);
            if at >= end {
                break;
            }
            if at > self.world.now {
                (self.world.now, self.steps_now) = (at, 0);
            }
            if world_at <= parent_at {
                self.happen()?;
            } else {
                self.deliver()?;
            }
            if let Some((rule, detail)) = self.world.wrong.take() {
                return broken(rule, detail);
            }
        }
        Ok(())
    }

    /// Returns when the parent does something next.
    fn parent_at(&self) -> u64 {
        let (now, free) = (self.world.now, self.busy_until.max(self.resumes_at()));
        if self.returning.is_some() {
            return now.max(free);
        }
        let first_timer = self.timers.iter().copied().min().unwrap_or(u64::MAX);
        let news = if self.world.inbox.is_empty() { first_timer } else { now };
        let has_forks = !self.forks.is_empty();
        if has_forks && (self.world.knobs.lazy == 0 || news > now) {
            return now.max(free);
        }
        if news == u64::MAX {
            return u64::MAX;
        }
        let at = news.max(free).max(now);
        let batch = u64::from(self.world.knobs.batch) * 1000;
        if batch == 0 { at } else { at.div_ceil(batch) * batch }
    }

    pub(super) fn resumes_at(&self) -> u64 {
        self.world.suspended.last().map_or(0, |(_, to)| *to)
    }

    /// The parent has time: it is told what there is.
    fn deliver(&mut self) -> Result<(), Violation> {
        if let Some((key, outcome)) = self.returning.take() {
            self.failed = None;
            return self.outermost(Input::Forked(key, outcome));
        }
        let now = self.world.now;
        let is_due = |at: &u64| *at <= now;
        let has_news = !self.world.inbox.is_empty() || self.timers.iter().any(is_due);
        if !self.forks.is_empty() && (self.world.knobs.lazy == 0 || !has_news) {
            return self.carry_out_fork();
        }
        if self.world.knobs.batch == 0 {
            return self.deliver_next();
        }
        // All at once, in any order.
        let due = Timer::ALL.into_iter().filter(|timer| is_due(&self.timers[*timer as usize]));
        let mut letters: Vec<Letter> = due.map(|timer| Letter::Input(Input::Due(timer))).collect();
        letters.append(&mut self.world.inbox);
        self.world.dice.shuffle(&mut letters);
        let mut letters: VecDeque<Letter> = letters.into();
        while let Some(letter) = letters.pop_front() {
            self.hand_over(letter)?;
            // No other event comes before a fork that was asked for.
            if self.world.knobs.lazy == 0 && !self.forks.is_empty() {
                let later = std::mem::take(&mut self.world.inbox);
                self.world
                    .inbox
                    .extend(letters.drain(..).filter(|letter| !matches!(letter, Letter::Input(Input::Due(_)))));
                self.world.inbox.extend(later);
            }
        }
        Ok(())
    }

    /// One thing at a time, as they came.
    fn deliver_next(&mut self) -> Result<(), Violation> {
        let now = self.world.now;
        if !self.world.inbox.is_empty() {
            let letter = self.world.inbox.remove(0);
            return self.hand_over(letter);
        }
        let first = Timer::ALL.into_iter().min_by_key(|timer| self.timers[*timer as usize]);
        match first {
            Some(timer) if self.timers[timer as usize] <= now => self.hand_over(Letter::Input(Input::Due(timer))),
            _ => Ok(()),
        }
    }

    fn hand_over(&mut self, letter: Letter) -> Result<(), Violation> {
        match letter {
            Letter::Input(Input::Due(timer)) => {
                // It may have been stopped or moved by what was told before.
                if self.timers[timer as usize] > self.world.now {
                    return Ok(());
                }
                self.timers[timer as usize] = u64::MAX;
                self.outermost(Input::Due(timer))
            }
            Letter::Input(input) => {
                if let Input::ScoutBegins(edition) = input
                    && let Some(after) = self.world.files.read(edition)
                {
                    self.world.plan(after, Event::Scouted(edition));
                }
                self.world.successor_was_heard(input);
                if let Input::Client(watch) = input {
                    self.world.telling[watch as usize] = false;
                }
                if let Input::Foreign(number) = input {
                    self.world.foreign = number as u32;
                    if self.machine.phase() == Phase::ShuttingDown {
                        self.world.plan(100, Event::ForeignGone);
                    }
                }
                self.outermost(input)
            }
            Letter::Stray(timer) => self.outermost(Input::Due(timer)),
            Letter::Take => match self.take(true) {
                Some(request) => self.outermost(request),
                None => Ok(()),
            },
            Letter::Push => {
                let client = Client { kind: clients::Kind::Short, service: 20_000, told: None, is_probe: false };
                let request = self.request(client);
                self.outermost(request)
            }
        }
    }

    /// The application of a post-forking server takes a client, unless it was told to pause.
    fn take(&mut self, is_outermost: bool) -> Option<Input> {
        if !self.world.intake_is_open || self.world.rests || self.machine.phase() == Phase::ShuttingDown {
            return None;
        }
        let client = self.world.take_client()?;
        if is_outermost && !self.world.queue.is_empty() {
            self.world.plan(20, Event::Take);
        }
        Some(self.request(client))
    }

    /// It hands a client over.
    fn request(&mut self, client: Client) -> Input {
        self.next_request += 1;
        let number = self.next_request;
        if self.machine.phase() != Phase::ShuttingDown {
            self.world.requests.push_back((number, client));
        }
        Input::Request { number, is_long: client.kind == clients::Kind::Long }
    }

    /// Tells the machine, and carries out what follows: what comes while effects are carried out comes after them.
    fn outermost(&mut self, input: Input) -> Result<(), Violation> {
        self.inputs.push_back(input);
        let mut looks = 0;
        while let Some(input) = self.inputs.pop_front() {
            if self.step(input)? {
                looks += 1;
                if looks < LOOKS {
                    self.inputs.push_back(Input::Bell);
                } else {
                    self.world.plan(0, Event::Bell);
                }
            }
        }
        self.rules.after(self.world.now, &self.machine, &self.world, &self.timers, self.forks.len())
    }

    /// Calls the machine, and carries out what it answers. Returns whether children may have had news meanwhile.
    fn step(&mut self, input: Input) -> Result<bool, Violation> {
        self.steps += 1;
        self.steps_now += 1;
        if self.steps_now > 20_000 {
            return broken("steps come to an end", format_args!("{input:?}"));
        }
        let now = self.world.now;
        self.rules.before(&input, &self.machine, &self.world)?;
        let effects = self.machine.step(Duration::from_micros(now), &mut self.world, input);
        self.trace.step(now, &input, &effects);
        self.rules.examine(now, &input, &effects, &self.machine, &self.world)?;
        let mut looks_again = false;
        for effect in effects {
            self.world.race();
            looks_again |= self.carry_out(effect)?;
        }
        Ok(looks_again)
    }

    fn carry_out(&mut self, effect: Effect) -> Result<bool, Violation> {
        let world = &mut self.world;
        match effect {
            Effect::Fork(fork) => {
                self.rules.is_still_wanted(fork.key)?;
                if !world.files.has(fork.edition) {
                    return broken("a child has settings that are known", fork.edition);
                }
                world.wipe(fork.key.slot, Status::Forking);
                self.forks.push_back(fork);
            }
            Effect::CancelForks => {
                self.forks.clear();
            }
            Effect::Signal(key, signal) => {
                let after = 20 + u64::from(world.dice.below(100));
                if world.child(key).is_some_and(|child| child.is_alive()) {
                    world.plan(after, Event::Signal(key.slot, key.generation, sent(signal)));
                }
            }
            Effect::KillForeign => world.plan(100, Event::ForeignGone),
            Effect::Arm(timer, after) => {
                // The machine's clock may be finer than the world's.
                let after = u64::try_from(after.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX / 2);
                self.timers[timer as usize] = world.now.saturating_add(after);
            }
            Effect::Disarm(timer) => self.timers[timer as usize] = u64::MAX,
            Effect::DisarmAll => self.timers = [u64::MAX; Timer::ALL.len()],
            Effect::Announce(announcement) => self.announce(announcement),
            Effect::Publish(published) => {
                let before = std::mem::replace(&mut world.thresholds, published.thresholds);
                world.is_full = published.is_full;
                let (now, idle) = (published.thresholds, world.idle);
                return Ok(before != now && (idle < now.low || idle > now.high));
            }
            Effect::LookAgain => return Ok(true),
            Effect::Await(watch) => {
                if world.queue.is_empty() {
                    world.awaited[watch as usize] = true;
                } else {
                    world.telling[watch as usize] = true;
                    world.plan(40, Event::Seen(watch));
                }
            }
            Effect::Forget(watch) => world.awaited[watch as usize] = false,
            Effect::AskToRelease(key) => world.release = Some(key.slot),
            Effect::Call(key) => {
                if let Some(child) = world.child_mut(key) {
                    child.answer = Answer::Missing;
                }
            }
            Effect::GrowBoard(slots) => world.grow(slots),
            Effect::DropRequests => {
                // Those that a fork was asked for go with it.
                let (forks, failed) = (&self.forks, self.failed);
                let is_forked =
                    |number: u64| forks.iter().any(|fork| fork.request == Some(number)) || failed == Some(number);
                world.requests.retain(|(number, _)| is_forked(*number));
            }
            Effect::Reopen => world.plan(300, Event::Reopened),
            Effect::TellLauncher => world.plan(500, Event::LauncherAnswers),
            Effect::End(_) => {
                if world.foreign > 0 {
                    let after = u64::from(world.dice.below(3_000_000));
                    world.plan(after, Event::ForeignGone);
                }
                self.nest();
            }
            Effect::Finish => {
                self.rules.finish(&self.world, self.forks.len() + usize::from(self.returning.is_some()))?
            }
            Effect::Answer(id, verdict) => self.answers.push((id, verdict)),
            Effect::Fail(failure) => self.failure = Some(failure),
            Effect::Scout(edition) => world.plan(30, Event::ScoutBegins(edition)),
            Effect::EndScout => world.files.scouting = None,
            Effect::Load(edition) => world.plan(0, Event::Load(edition)),
            Effect::Adopt(edition) if !world.files.has(edition) => {
                return broken("a reload adopts what was loaded", edition);
            }
            Effect::Adopt(_) => {}
            Effect::Drop(edition) => world.files.forget(edition),
            Effect::StartSuccessor(attempt) => world.start_successor(attempt),
            Effect::HandOver(attempt) => world.hand_over(attempt),
            Effect::EndSuccessor(attempt) => world.end_successor(attempt),
            Effect::Rest(rests) => {
                world.rests = rests;
                if !rests && !world.is_pre() {
                    world.plan(30, Event::Take);
                }
            }
            Effect::TakeBack | Effect::LeaveAll | Effect::HurrySuccessor => {}
            Effect::Record(_) | Effect::Say(_) | Effect::DelayLauncher | Effect::TellWhatIsLeft => {}
        }
        Ok(false)
    }

    /// The application is told, and may ask for something before it returns.
    fn announce(&mut self, announcement: Announcement) {
        let world = &mut self.world;
        match announcement {
            Announcement::Parent => world.plan(30, Event::Started),
            Announcement::Pause => world.intake_is_open = false,
            Announcement::Accept => {
                world.intake_is_open = true;
                world.plan(30, Event::Take);
            }
        }
        self.nest();
        if announcement == Announcement::Accept && self.world.knobs.eager > 0 {
            let request = self.take(false);
            self.inputs.extend(request);
        }
    }

    fn nest(&mut self) {
        if let Some(order) = self.nested.pop_front() {
            let id = self.new_order();
            self.inputs.push_back(Input::Asked(id, order));
        }
    }

    fn new_order(&mut self) -> OrderId {
        self.next_order += 1;
        OrderId(self.next_order)
    }

    /// Asks for something from outside.
    pub fn ask(&mut self, order: Order) {
        let id = self.new_order();
        self.world.inbox.push(Letter::Input(Input::Asked(id, order)));
    }

    fn carry_out_fork(&mut self) -> Result<(), Violation> {
        let Some(fork) = self.forks.pop_front() else { return Ok(()) };
        let world = &mut self.world;
        let (slow_until, slow) = world.fork_slow;
        let cost = if world.now < slow_until { slow } else { u64::from(world.knobs.fork) };
        self.busy_until = world.now + cost;
        let outcome = match world.fork_fails {
            Failing { until, reason } if world.now < until => {
                Err(if reason == 0 { Refusal::ForGood } else { Refusal::ForNow(reason) })
            }
            _ => Ok(()),
        };
        if outcome.is_ok() {
            let client = match fork.request {
                Some(number) => Some(self.rules.serve(number, world)?),
                None => None,
            };
            world.begin_child(fork, client);
        }
        self.failed = fork.request.filter(|_| outcome.is_err());
        self.returning = Some((fork.key, outcome));
        Ok(())
    }

    /// Something happens in the world.
    fn happen(&mut self) -> Result<(), Violation> {
        let Some(event) = self.world.take_event() else { return Ok(()) };
        let world = &mut self.world;
        let input = match event {
            Event::Stage(..) | Event::Signal(..) => {
                world.happen_to_child(event);
                self.rules.watch(&self.machine, &self.world, &self.timers);
                return Ok(());
            }
            Event::Act(place) => {
                self.act(self.acts[place]);
                return Ok(());
            }
            Event::Deaths => {
                world.tell_of_deaths();
                return Ok(());
            }
            Event::Take => {
                if world.intake_is_open {
                    world.inbox.push(Letter::Take);
                }
                return Ok(());
            }
            // Several rings are one piece of news.
            Event::Bell if world.inbox.iter().any(|letter| matches!(letter, Letter::Input(Input::Bell))) => {
                return Ok(());
            }
            Event::Bell => Input::Bell,
            Event::ForeignGone => Input::Foreign(0),
            Event::LauncherAnswers => Input::LauncherGone { has_acknowledged: true },
            Event::Reopened => {
                let has_failed = world.now < world.no_log_until;
                world.log += u32::from(!has_failed);
                Input::Reopened { has_failed }
            }
            Event::Seen(watch) => Input::Client(watch),
            Event::Started => Input::Started,
            Event::ScoutBegins(edition) => Input::ScoutBegins(edition),
            Event::Scouted(edition) => match world.files.scouted(edition) {
                Some(outcome) => Input::Scouted(edition, outcome),
                None => return Ok(()),
            },
            Event::Successor(attempt, step) => match world.successor_does(attempt, step) {
                Some(input) => input,
                None => return Ok(()),
            },
            Event::Load(edition) => match world.files.loaded(edition) {
                Some(outcome) => Input::Loaded(edition, outcome),
                None => return Ok(()),
            },
        };
        self.world.inbox.push(Letter::Input(input));
        Ok(())
    }
}

/// How often the board is looked at again at once.
const LOOKS: u32 = 3;

fn sent(signal: Signal) -> Sent {
    match signal {
        Signal::Hup => Sent::Hup,
        Signal::Int => Sent::Int,
        Signal::Term => Sent::Term,
        Signal::Quit => Sent::Quit,
        Signal::Cont => Sent::Cont,
        Signal::Kill => Sent::Kill,
    }
}

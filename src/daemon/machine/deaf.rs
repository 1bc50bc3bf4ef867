//! Idle children that do not accept although clients wait.
//!
//! A child that reports `Wait` may be stopped. Or its state does not return, because of a call that blocks or a loop without end.
//! Or its application has forgotten to resume the listener. The parent counts such a child as a spare all the same, so it does not
//! fork another child for the clients.
//!
//! When clients have waited for a second while children say that they wait, the parent wakes these children, and asks them whether
//! they accept. It reads the answers [`ANSWER`] later:
//!
//! - A child without an answer is *unresponsive*. It no longer counts as a spare, so other children take its place. It is a rogue in
//!   each round of the babysitter until it answers.
//! - A child whose listeners are all paused does not count as a spare either while clients wait. It is left alone, as the application
//!   may have meant it.
//! - A child that accepts is not the reason why the clients wait. Nothing is done about it.
//!
//! In a full pool, such a child keeps another child from being forked. If no other child is idle or starting, it has to make room for
//! the clients that wait, and is not left to the babysitter. An unresponsive child gets INT at once, and KILL at the next look a
//! second later. A child that has paused is retired.

use std::time::Duration;

use super::clients::waiting;
use super::{
    Answer, Child, Effect, Escalation, Machine, Message, Moment, Process, Rogue, Signal, Status, Step, Timer, Told,
};

/// A child that says it waits and does not accept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deaf {
    /// Since when it has been waiting, in milliseconds of the machine's time. Another time means that it has had a request.
    since_ms: u64,
    /// It has answered that its listeners are paused.
    pub(super) is_paused: bool,
}

/// Idle children were asked whether they accept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asking {
    at: Duration,
    /// The answers were to be read, but something had kept this process from running, and perhaps the children as well.
    was_late: bool,
}

impl Machine {
    /// Clients wait, and children say that they do: those that are stopped are spares no longer. The others are woken, and asked
    /// whether they accept. Returns whether one is stopped.
    pub(super) fn wake_deaf(&mut self, at: &mut Moment<'_>, waiting: u32) -> bool {
        let is_full = self.table.children().len() >= self.settings.max_children as usize;
        let mut found = false;
        for child in self.table.children_mut() {
            if child.is_stopped || !says_idle(at, child) {
                continue;
            }
            if at.outside.process(child.key) != Process::Stopped {
                child.asked = at.outside.says(child.key).map(|says| says.since_ms);
                self.effects.push(Effect::Call(child.key));
                continue;
            }
            found = true;
            self.effects.push(Effect::Say(Message::Deaf { key: child.key, waiting, is_continued: is_full }));
            if is_full {
                self.effects.push(Effect::Signal(child.key, Signal::Cont));
            } else {
                child.is_stopped = true;
            }
        }
        self.clients.asking = Some(Asking { at: at.now, was_late: false });
        self.effects.push(Effect::Arm(Timer::HearAnswers, ANSWER));
        // The system may have told the stopped child of the client, and no other.
        self.wake_idle(at);
        found
    }

    /// Idle children have had time to answer.
    pub(super) fn hear_answers(&mut self, at: &mut Moment<'_>) {
        let Some(asking) = self.clients.asking.take() else { return };
        if self.is_shutting_down() {
            return;
        }
        let is_late = at.now.saturating_sub(asking.at) > ANSWER + ANSWER / 2;
        if is_late && !asking.was_late {
            self.clients.asking = Some(Asking { at: at.now, was_late: true });
            return self.effects.push(Effect::Arm(Timer::HearAnswers, ANSWER));
        }
        self.review_deaf(at);
        let (_, waiting) = waiting(at);
        let mut found = false;
        for child in self.table.children_mut() {
            let Some(since_ms) = child.asked.take() else { continue };
            let has_waited = at.outside.says(child.key).is_some_and(|says| says.since_ms == since_ms);
            if !has_waited || !says_idle(at, child) || at.outside.process(child.key) != Process::Runs {
                continue;
            }
            let is_paused = match at.outside.answer(child.key) {
                Answer::Missing => false,
                Answer::Paused if waiting > 0 => true,
                Answer::Paused | Answer::Accepts => continue,
            };
            if child.deaf.replace(Deaf { since_ms, is_paused }).is_none() {
                found = true;
                self.effects.push(Effect::Say(Message::Unresponsive { key: child.key, waiting, is_paused }));
            }
        }
        if found {
            self.make_room_of_deaf(at, waiting);
            self.look_again_soon();
        }
    }

    /// Looks which children accept again.
    pub(super) fn review_deaf(&mut self, at: &Moment<'_>) {
        for child in self.table.children_mut() {
            let Some(deaf) = child.deaf else { continue };
            let status = at.outside.status(child.key);
            let has_had_request = at.outside.says(child.key).is_some_and(|says| says.since_ms != deaf.since_ms);
            if status == Some(Status::Wait) && !has_had_request && at.outside.answer(child.key) != Answer::Accepts {
                continue;
            }
            child.deaf = None;
            // One on its way out has not calmed down: see `judge`.
            if status == Some(Status::Exit) {
                continue;
            }
            self.effects.push(Effect::Say(Message::Responsive(child.key)));
            if child.escalation.is_some_and(|escalation| escalation.why == Rogue::Unresponsive) {
                child.escalation = None;
                self.effects.push(Effect::Say(Message::RogueCleared(child.key)));
            }
        }
    }

    /// Makes as many deaf children go as clients wait, if these wait for nothing else: there can't be more children, and all
    /// others are busy.
    pub(super) fn make_room_of_deaf(&mut self, at: &Moment<'_>, waiting: u32) {
        let counts = self.count(at);
        let is_full = counts.total() >= self.settings.max_children && counts.idle + counts.starting == 0;
        // What can't be replaced is better than nothing.
        if !is_full || self.no_fork_before.is_some() {
            return;
        }
        let is_deaf = |child: &&mut Child| child.deaf.is_some() && child.told == Told::Stay;
        let mut deaf: Vec<&mut Child> = self.table.children_mut().iter_mut().filter(is_deaf).collect();
        deaf.sort_unstable_by_key(|child| child.number);
        for child in deaf.into_iter().take(waiting.saturating_sub(counts.retiring) as usize) {
            let Some(deaf) = child.deaf else { continue };
            let key = child.key;
            if deaf.is_paused {
                child.told = Told::Go;
                self.effects.extend([Effect::Say(Message::Retired(key)), Effect::Signal(key, Signal::Quit)]);
                continue;
            }
            let (step, signal) = match child.escalation {
                None => (Step::Interrupt, Signal::Int),
                Some(_) => (Step::Kill, Signal::Kill),
            };
            let why = Rogue::Unresponsive;
            child.escalation = Some(Escalation { why, step });
            let since = Duration::from_millis(at.now_ms().saturating_sub(deaf.since_ms));
            let (status, cpu) = (Some(Status::Wait), child.meter.used);
            self.effects.push(Effect::Say(Message::Rogue { key, why, status, since, cpu, step }));
            self.effects.push(Effect::Signal(key, signal));
        }
    }
}

fn says_idle(at: &Moment<'_>, child: &Child) -> bool {
    child.told == Told::Stay && at.outside.status(child.key) == Some(Status::Wait)
}

/// How long a child has to answer. One that is idle needs as long as the system takes to let it run.
const ANSWER: Duration = Duration::from_millis(750);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::{End, Input, Key, Killer, Meter, Outside, Queues, Says, Watch};
    use super::*;
    use crate::daemon::settings::{RawSettings, Settings, resolve};

    /// What a child does.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Does {
        Accepts,
        /// Accepts, but the clients wait at another listener.
        Other,
        Wedged,
        Paused,
    }

    struct Kid {
        does: Does,
        says: Says,
        answer: Answer,
    }

    /// Children, clients and a clock. All children wait for clients, or have one for good.
    struct World {
        now: u64,
        kids: BTreeMap<Key, Kid>,
        waiting: u32,
        /// What children do that are forked.
        next: Does,
    }

    impl Outside for World {
        fn answer_bell(&mut self) {}

        fn status(&self, key: Key) -> Option<Status> {
            Some(self.kids.get(&key).and_then(|kid| kid.says.status).unwrap_or(Status::Forked))
        }

        fn says(&self, key: Key) -> Option<Says> {
            self.kids.get(&key).map(|kid| kid.says)
        }

        fn reclaim(&mut self, key: Key) -> Says {
            self.kids.remove(&key).map_or_else(Says::default, |kid| kid.says)
        }

        fn process(&mut self, _: Key) -> Process {
            Process::Runs
        }

        fn meter(&mut self, _: Key, meter: Meter, _: (u64, bool), _: Duration, _: Duration) -> Meter {
            meter
        }

        fn resident(&mut self, _: Key) -> Option<u64> {
            None
        }

        fn killer(&mut self) -> Killer {
            Killer::Unknown
        }

        fn forget_kills(&mut self) {}

        fn queues(&mut self) -> Option<Queues> {
            Some(Queues { waiting: self.waiting, limit: 128, full: None })
        }

        fn has_client(&mut self) -> bool {
            self.waiting > 0
        }

        fn is_asked_to_release(&self) -> bool {
            false
        }

        fn answer(&self, key: Key) -> Answer {
            self.kids[&key].answer
        }
    }

    impl World {
        fn set(&mut self, key: Key, status: Status) {
            let now = self.now;
            if let Some(kid) = self.kids.get_mut(&key) {
                (kid.says.status, kid.says.since_ms) = (Some(status), now);
            }
        }

        /// The child has been told of a client, or looks for one.
        fn look(&mut self, key: Key) {
            let Some(kid) = self.kids.get_mut(&key) else { return };
            if kid.does == Does::Accepts && kid.says.status == Some(Status::Wait) && self.waiting > 0 {
                self.waiting -= 1;
                kid.says.requests += 1;
                self.set(key, Status::Req);
            }
        }
    }

    struct Lab {
        machine: Machine,
        world: World,
        timers: BTreeMap<Timer, u64>,
        is_watched: bool,
        /// What was said and sent of the things that matter here, with when.
        log: Vec<(u64, String)>,
    }

    impl Lab {
        /// A pool of children that do this, of which there may be so many.
        fn new(start: u32, max: u32, does: Does) -> Lab {
            let raw = RawSettings {
                start_children: Some(start),
                min_spare: Some(1),
                max_spare: Some(start),
                max_children: Some(max),
                ..RawSettings::default()
            };
            let settings: Settings = resolve(raw).unwrap();
            let world = World { now: 0, kids: BTreeMap::new(), waiting: 0, next: does };
            let machine = Machine::new(settings);
            let mut lab = Lab { machine, world, timers: BTreeMap::new(), is_watched: false, log: Vec::new() };
            lab.tell(Input::Begin);
            lab.run(100);
            lab.world.next = Does::Accepts;
            lab
        }

        fn tell(&mut self, input: Input) {
            let effects = self.machine.step(Duration::from_millis(self.world.now), &mut self.world, input);
            effects.into_iter().for_each(|effect| self.carry_out(effect));
        }

        fn carry_out(&mut self, effect: Effect) {
            let world = &mut self.world;
            match effect {
                Effect::Fork(fork) => {
                    let says = Says { status: Some(Status::Wait), since_ms: world.now, ..Says::default() };
                    world.kids.insert(fork.key, Kid { does: world.next, says, answer: Answer::Accepts });
                    self.tell(Input::Forked(fork.key, Ok(())));
                    self.world.look(fork.key);
                    self.tell(Input::Bell);
                }
                Effect::Call(key) => world.kids.get_mut(&key).unwrap().answer = Answer::Missing,
                Effect::Signal(key, Signal::Cont) => {
                    if let Some(kid) = world.kids.get_mut(&key) {
                        match kid.does {
                            Does::Accepts | Does::Other => kid.answer = Answer::Accepts,
                            Does::Paused => kid.answer = Answer::Paused,
                            Does::Wedged => {}
                        }
                    }
                    world.look(key);
                }
                Effect::Signal(key, signal) => {
                    self.log.push((world.now, format!("{signal:?} {key}")));
                    if signal == Signal::Kill {
                        self.tell(Input::Reaped(key, End::Signaled { signal: 9, has_core: false }));
                    } else if world.kids[&key].does != Does::Wedged {
                        world.set(key, Status::Exit);
                        self.tell(Input::Reaped(key, End::Exited(0)));
                    }
                }
                Effect::Arm(timer, span) => {
                    self.timers.insert(timer, world.now + span.as_millis() as u64);
                }
                Effect::Disarm(timer) => drop(self.timers.remove(&timer)),
                Effect::Await(Watch::Queue) => self.is_watched = true,
                Effect::Say(Message::Unresponsive { key, is_paused, .. }) => {
                    self.log.push((world.now, format!("{} {key}", if is_paused { "paused" } else { "wedged" })));
                }
                Effect::Say(Message::Responsive(key)) => self.log.push((world.now, format!("accepts {key}"))),
                Effect::Record(death) => self.log.push((world.now, format!("dead {} {:?}", death.key, death.cause))),
                _ => {}
            }
        }

        /// Lets so many milliseconds pass.
        fn run(&mut self, ms: u64) {
            let end = self.world.now + ms;
            loop {
                if self.is_watched && self.world.waiting > 0 {
                    self.is_watched = false;
                    self.tell(Input::Client(Watch::Queue));
                    continue;
                }
                let Some((&timer, &due)) =
                    self.timers.iter().min_by_key(|(_, due)| **due).filter(|(_, due)| **due <= end)
                else {
                    break;
                };
                self.timers.remove(&timer);
                self.world.now = self.world.now.max(due);
                self.tell(Input::Due(timer));
            }
            self.world.now = end;
        }

        fn said(&self) -> Vec<&str> {
            self.log.iter().map(|(_, what)| &**what).collect()
        }

        /// Has a client wait, and returns how long until it is served.
        fn serve(&mut self) -> u64 {
            let begin = self.world.now;
            self.world.waiting = 1;
            while self.world.waiting > 0 {
                self.run(10);
                assert!(self.world.now < begin + 60_000, "{:?}", self.log);
            }
            self.world.now - begin
        }
    }

    #[test] // O-DM-08
    fn client_of_wedged_children_gets_another_child() {
        let mut lab = Lab::new(2, 4, Does::Wedged);
        assert!(lab.serve() <= 1800);
        assert_eq!(lab.said(), ["wedged 0.1", "wedged 1.1"]);
    }

    #[test] // O-DM-08, D-BA-02: they are rogues then
    fn wedged_child_is_left_to_the_babysitter_where_there_is_room() {
        let mut lab = Lab::new(1, 3, Does::Wedged);
        lab.serve();
        lab.run(30_000);
        assert_eq!(
            lab.said(),
            ["wedged 0.1", "Int 0.1", "Term 0.1", "Kill 0.1", "dead 0.1 Rogue(Unresponsive)"],
            "{:?}",
            lab.log
        );
    }

    #[test] // O-DM-08
    fn wedged_child_of_a_full_pool_is_killed_soon() {
        let mut lab = Lab::new(3, 3, Does::Wedged);
        assert!(lab.serve() <= 2800, "{:?}", lab.log);
        let rest = ["wedged 0.1", "wedged 1.1", "wedged 2.1", "Int 0.1", "Kill 0.1", "dead 0.1 Rogue(Unresponsive)"];
        assert_eq!(lab.said(), rest, "no more than clients wait");
    }

    #[test] // O-DM-08: it is not needed
    fn wedged_child_of_a_full_pool_is_left_to_the_babysitter_while_another_is_idle() {
        let mut lab = Lab::new(2, 2, Does::Wedged);
        let other = *lab.world.kids.keys().last().unwrap();
        lab.world.kids.get_mut(&other).unwrap().does = Does::Accepts;
        assert!(lab.serve() <= 1020);
        lab.world.set(other, Status::Wait);
        lab.tell(Input::Bell);
        lab.run(3000);
        assert_eq!(lab.said(), ["wedged 0.1"]);
    }

    #[test] // O-DM-08
    fn child_that_has_paused_is_no_spare_and_no_rogue() {
        let mut lab = Lab::new(1, 3, Does::Paused);
        assert!(lab.serve() <= 1800);
        lab.run(60_000);
        assert_eq!(lab.said(), ["paused 0.1"]);
        let mut lab = Lab::new(1, 1, Does::Paused);
        assert!(lab.serve() <= 1800);
        assert_eq!(lab.said(), ["paused 0.1", "Quit 0.1", "dead 0.1 Retired"]);
    }

    #[test] // O-DM-08: and is woken less and less often
    fn child_that_accepts_is_left_alone_whoever_waits() {
        let mut lab = Lab::new(1, 3, Does::Other);
        lab.world.waiting = 1;
        lab.run(100_000);
        assert_eq!(lab.said(), [""; 0]);
        assert_eq!(lab.world.kids.len(), 1);
        assert!(lab.machine.clients.in_vain > 4);
    }

    #[test] // O-DM-08
    fn child_that_answers_late_is_a_spare_again() {
        let mut lab = Lab::new(1, 3, Does::Wedged);
        lab.serve();
        let late = *lab.world.kids.keys().next().unwrap();
        // INT was sent by then. Its state returns, and before it takes notice of that it answers.
        lab.run(9_000);
        let kid = lab.world.kids.get_mut(&late).unwrap();
        (kid.does, kid.answer) = (Does::Accepts, Answer::Accepts);
        lab.run(60_000);
        // There are more spares than max_spare then.
        assert_eq!(lab.said(), ["wedged 0.1", "Int 0.1", "accepts 0.1", "Quit 0.1", "dead 0.1 Retired"]);
    }

    #[test] // O-DM-08, D-BA-06: what was stopped with its parent could not answer
    fn answers_that_are_read_late_are_waited_for_once_more() {
        let mut lab = Lab::new(1, 3, Does::Wedged);
        lab.world.waiting = 1;
        lab.run(1_100);
        assert_eq!(lab.timers.get(&Timer::HearAnswers), Some(&(100 + 1010 + 750)));
        lab.world.now += 60_000;
        lab.run(1);
        assert_eq!(lab.said(), [""; 0]);
        lab.run(800);
        assert_eq!(lab.said(), ["wedged 0.1"]);
    }
}

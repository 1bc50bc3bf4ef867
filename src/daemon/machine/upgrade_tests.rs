//! Upgrades, step by step, with children that always wait.

use std::time::Duration;

use super::successor::UpgradeStage;
use super::*;
use crate::daemon::settings::{RawSettings, resolve};

/// A board on which every child waits but those that are still starting, and queues in which no client does.
#[derive(Default)]
pub(super) struct Quiet {
    starting: Vec<Key>,
}

impl Quiet {
    fn of(&self, key: Key) -> Status {
        if self.starting.contains(&key) { Status::FirstWait } else { Status::Wait }
    }
}

impl Outside for Quiet {
    fn answer_bell(&mut self) {}

    fn status(&self, key: Key) -> Option<Status> {
        Some(self.of(key))
    }

    fn says(&self, key: Key) -> Option<Says> {
        Some(Says { status: Some(self.of(key)), ..Says::default() })
    }

    fn reclaim(&mut self, key: Key) -> Says {
        let status = self.of(key);
        Says { status: Some(status), requests: u64::from(status == Status::Wait), ..Says::default() }
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
        Some(Queues::default())
    }

    fn has_client(&mut self) -> bool {
        false
    }

    fn is_asked_to_release(&self) -> bool {
        false
    }

    fn answer(&self, _: Key) -> Answer {
        Answer::Accepts
    }
}

/// A machine, the time in milliseconds, and the forks that were asked for.
pub(super) struct Played {
    pub(super) machine: Machine,
    now: u64,
    orders: u64,
    quiet: Quiet,
    /// What is forked from now on is not ready.
    pub(super) starts_slowly: bool,
}

const FIRST: Attempt = Attempt(1);

impl Played {
    pub(super) fn new(raw: RawSettings) -> Played {
        let mut settings = resolve(raw).unwrap();
        settings.reload.is_possible = true;
        let machine = Machine::new(settings);
        let mut played = Played { machine, now: 0, orders: 0, quiet: Quiet::default(), starts_slowly: false };
        played.tell(Input::Begin);
        played
    }

    /// A pool of three children.
    fn pool() -> Played {
        let raw = RawSettings { start_children: Some(3), max_children: Some(9), ..RawSettings::default() };
        Played::new(RawSettings { min_spare: Some(3), ..raw })
    }

    /// Tells the machine, and carries out the forks that it asks for.
    pub(super) fn tell(&mut self, input: Input) -> Vec<Effect> {
        let mut all = self.machine.step(Duration::from_millis(self.now), &mut self.quiet, input);
        let mut next = 0;
        while let Some(effect) = all.get(next).cloned() {
            if let Effect::Fork(fork) = effect {
                if self.starts_slowly {
                    self.quiet.starting.push(fork.key);
                }
                let input = Input::Forked(fork.key, Ok(()));
                all.extend(self.machine.step(Duration::from_millis(self.now), &mut self.quiet, input));
            }
            next += 1;
        }
        all
    }

    pub(super) fn ask(&mut self, order: Order) -> Vec<Effect> {
        self.orders += 1;
        self.tell(Input::Asked(OrderId(self.orders), order))
    }

    /// Has a successor come so far.
    fn upgrade_to(&mut self, stage: UpgradeStage) {
        self.ask(Order::Upgrade);
        let inputs = [Input::SuccessorGreeted(FIRST), Input::SuccessorReady(FIRST), Input::SuccessorTookOver(FIRST)];
        for input in inputs {
            if self.machine.upgrade_stage() != Some(stage) {
                self.tell(input);
            }
        }
        assert_eq!(self.machine.upgrade_stage(), Some(stage));
    }

    /// Has a configuration loaded, and returns the child that tries it.
    fn reload(&mut self) -> Key {
        self.ask(Order::Reload);
        let (edition, tunable) = (Edition(2), Tunable::of(self.machine.settings()));
        self.tell(Input::ScoutBegins(edition));
        self.tell(Input::Scouted(edition, Ok(())));
        self.tell(Input::Loaded(edition, Ok(tunable)));
        let probe = self.machine.table().children().iter().find(|child| child.is_probe);
        probe.map(|child| child.key).unwrap()
    }

    fn fail(&mut self) -> Vec<Effect> {
        self.tell(Input::SuccessorFailed(FIRST, DIED))
    }
}

const DIED: UpgradeFault = UpgradeFault::Died(End::Exited(3));

/// The effects without those that tell the log and set timers.
fn essence(effects: &[Effect]) -> Vec<&Effect> {
    use Effect::{Arm, Await, Disarm, DisarmAll, DropRequests, Forget, Publish, Say};
    let is_aside = |effect: &&Effect| {
        matches!(effect, Arm(..) | Await(_) | Disarm(_) | DisarmAll | DropRequests | Forget(_) | Publish(_) | Say(_))
    };
    effects.iter().filter(|effect| !is_aside(effect)).collect()
}

pub(super) fn verdicts(effects: &[Effect]) -> Vec<(u64, Verdict)> {
    let verdict = |effect: &Effect| match effect {
        Effect::Answer(id, verdict) => Some((id.0, *verdict)),
        _ => None,
    };
    effects.iter().filter_map(verdict).collect()
}

fn signalled(effects: &[Effect], signal: Signal) -> usize {
    effects.iter().filter(|effect| matches!(effect, Effect::Signal(_, sent) if *sent == signal)).count()
}

fn forks(effects: &[Effect]) -> usize {
    effects.iter().filter(|effect| matches!(effect, Effect::Fork(_))).count()
}

/// Where in the row of effects the first one is that is like this.
fn place(effects: &[Effect], is_meant: impl Fn(&Effect) -> bool) -> usize {
    effects.iter().position(is_meant).unwrap_or_else(|| panic!("not in {effects:?}"))
}

#[test] // O-UP-01, O-UP-02: nothing changes before the successor is ready, and no child is asked to go before it has taken over
fn upgrade_goes_from_stage_to_stage() {
    let mut played = Played::pool();
    assert_eq!(essence(&played.ask(Order::Upgrade)), [&Effect::StartSuccessor(FIRST)]);
    assert_eq!(played.machine.upgrade_stage(), Some(UpgradeStage::Spawned));
    played.now = 1500;
    let greeted = played.tell(Input::SuccessorGreeted(FIRST));
    assert_eq!(essence(&greeted), [] as [&Effect; 0]);
    // What is left of 60 s.
    assert!(greeted.contains(&Effect::Arm(Timer::Upgrade, Duration::from_millis(58_500))), "{greeted:?}");
    assert_eq!(essence(&played.tell(Input::SuccessorReady(FIRST))), [&Effect::HandOver(FIRST)]);
    let took_over = played.tell(Input::SuccessorTookOver(FIRST));
    assert!(place(&took_over, |effect| *effect == Effect::Rest(true)) < took_over.len());
    assert_eq!((signalled(&took_over, Signal::Quit), forks(&took_over)), (3, 0));
    assert!(took_over.contains(&Effect::Arm(Timer::Upgrade, Duration::from_secs(10))), "{took_over:?}");
    assert!(played.machine.is_resting());
    played.now += 10_000;
    let applied = played.tell(Input::Due(Timer::Upgrade));
    assert_eq!(verdicts(&applied), [(1, Verdict::Applied)]);
    let leaves = place(&applied, |effect| *effect == Effect::LeaveAll);
    assert!(leaves < place(&applied, |effect| *effect == Effect::End(Shutdown::Graceful)));
    assert_eq!(played.machine.upgrade_stage(), Some(UpgradeStage::Draining));
}

#[test] // O-UP-14: the greeting has a limit of its own, after which nothing has changed
fn successor_that_says_nothing_is_rejected() {
    let mut played = Played::pool();
    let begun = played.ask(Order::Upgrade);
    assert!(begun.contains(&Effect::Arm(Timer::Upgrade, Duration::from_secs(2))), "{begun:?}");
    played.now = 2000;
    let rejected = Verdict::Rejected(Rejection::Successor(UpgradeFault::NotGreeted));
    let late = played.tell(Input::Due(Timer::Upgrade));
    assert_eq!(essence(&late), [&Effect::EndSuccessor(FIRST), &Effect::Answer(OrderId(1), rejected)]);
    assert_eq!(played.machine.upgrade_stage(), None);
}

#[test] // O-UP-03: at the end of upgrade_timeout the successor is ended, and this process has never stopped serving
fn successor_that_is_late_is_rolled_back() {
    for (stage, why, names) in
        [(UpgradeStage::Loading, UpgradeFault::Late, false), (UpgradeStage::Ready, UpgradeFault::NotTaken, true)]
    {
        let mut played = Played::pool();
        played.upgrade_to(stage);
        played.now = 60_000;
        let late = played.tell(Input::Due(Timer::Upgrade));
        let verdict = Effect::Answer(OrderId(1), Verdict::RolledBack(Setback::Successor(why)));
        let mut expected = vec![&Effect::EndSuccessor(FIRST)];
        expected.extend(names.then_some(&Effect::TakeBack));
        expected.push(&verdict);
        assert_eq!(essence(&late), expected, "{stage:?}");
    }
}

#[test] // O-UP-07: the old one serves again within one fork, and forks what the spare rule wants at once
fn pool_is_filled_again_when_the_successor_dies_on_probation() {
    let mut raw = RawSettings { start_children: Some(40), min_spare: Some(40), ..RawSettings::default() };
    raw.fork_burst = Some(1);
    let mut played = Played::new(raw);
    played.upgrade_to(UpgradeStage::Probation);
    let keys: Vec<Key> = played.machine.table().children().iter().map(|child| child.key).collect();
    for key in keys {
        assert_eq!(forks(&played.tell(Input::Reaped(key, End::Exited(0)))), 0, "nothing is forked during a rest");
    }
    let back = played.fail();
    let expected = [
        &Effect::EndSuccessor(FIRST),
        &Effect::TakeBack,
        &Effect::Rest(false),
        &Effect::Answer(OrderId(1), Verdict::RolledBack(Setback::Successor(DIED))),
    ];
    assert_eq!(essence(&back)[..4], expected);
    // More than may be starting at once in a pool that runs.
    assert_eq!(forks(&back), 40);
    assert!(!played.machine.is_resting());
    assert_eq!(played.machine.upgrade_stage(), None);
}

#[test]
fn child_forked_before_the_rest_and_heard_of_later_is_asked_to_go() {
    let mut played = Played::pool();
    played.upgrade_to(UpgradeStage::Ready);
    // The fork that replaces a child is under way when the successor takes over.
    let key = played.machine.table().children()[0].key;
    let now = Duration::from_millis(played.now);
    let reaped = played.machine.step(now, &mut Quiet::default(), Input::Reaped(key, End::Exited(0)));
    let replaced = played.machine.table().in_flight().front().map(|fork| fork.key);
    played.tell(Input::SuccessorTookOver(FIRST));
    let key = replaced.unwrap_or_else(|| panic!("no fork in {reaped:?}"));
    assert_eq!(signalled(&played.tell(Input::Forked(key, Ok(()))), Signal::Quit), 1);
}

#[test] // O-UP-15
fn second_upgrade_and_reload_are_refused_while_one_is_under_way() {
    let refused = |effects: &[Effect]| match verdicts(effects)[..] {
        [(_, Verdict::Refused(why))] => why,
        ref other => panic!("{other:?}"),
    };
    let mut played = Played::pool();
    played.upgrade_to(UpgradeStage::Loading);
    for order in [Order::Upgrade, Order::Reload, Order::Check] {
        assert_eq!(refused(&played.ask(order)), Why::Upgrading, "{order:?}");
    }
    assert_eq!(verdicts(&played.ask(Order::Resize(1)))[0].1, Verdict::Applied);
    played.tell(Input::SuccessorReady(FIRST));
    played.tell(Input::SuccessorTookOver(FIRST));
    for order in [Order::Upgrade, Order::Resize(1), Order::ResetSize, Order::SetSize(NewSize::default())] {
        assert_eq!(refused(&played.ask(order)), Why::Upgrading, "{order:?}");
    }

    let mut played = Played::pool();
    played.ask(Order::Reload);
    assert_eq!(refused(&played.ask(Order::Upgrade)), Why::Reloading);
    played.ask(Order::Stop(Shutdown::Immediate));
    assert_eq!(refused(&played.ask(Order::Upgrade)), Why::ShuttingDown);

    let mut played = Played::pool();
    played.tell(Input::Launched);
    assert_eq!(refused(&played.ask(Order::Upgrade)), Why::StartingUp);
}

#[test] // O-UP-05: at most two processes at any time
fn what_a_former_successor_does_has_no_effect() {
    let mut played = Played::pool();
    played.upgrade_to(UpgradeStage::Loading);
    played.fail();
    let (first, second) = (FIRST, Attempt(2));
    assert_eq!(essence(&played.ask(Order::Upgrade)), [&Effect::StartSuccessor(second)]);
    for input in [Input::SuccessorGreeted(first), Input::SuccessorFailed(first, DIED), Input::SuccessorStops(first)] {
        assert_eq!(essence(&played.tell(input)), [] as [&Effect; 0], "{input:?}");
    }
    assert_eq!(played.machine.upgrade_stage(), Some(UpgradeStage::Spawned));
    // Nor has what comes out of its turn.
    assert_eq!(essence(&played.tell(Input::SuccessorTookOver(second))), [] as [&Effect; 0]);
}

#[test] // O-UP-03
fn stop_before_the_successor_has_taken_over_ends_it() {
    for (stage, names) in [(UpgradeStage::Spawned, 0), (UpgradeStage::Loading, 0), (UpgradeStage::Ready, 1)] {
        for how in [Shutdown::Immediate, Shutdown::Graceful] {
            let mut played = Played::pool();
            played.upgrade_to(stage);
            let stopped = played.ask(Order::Stop(how));
            assert_eq!(verdicts(&stopped), [(1, Verdict::Superseded)]);
            let is_taken_back = |effect: &&Effect| **effect == Effect::TakeBack;
            assert_eq!(stopped.iter().filter(is_taken_back).count(), names, "{stage:?}");
            let ends = place(&stopped, |effect| *effect == Effect::EndSuccessor(FIRST));
            assert!(ends < place(&stopped, |effect| *effect == Effect::End(how)));
            assert!(!stopped.contains(&Effect::LeaveAll));
            let is_hurried = stopped.iter().position(|effect| *effect == Effect::HurrySuccessor);
            assert_eq!(is_hurried.is_some_and(|hurried| ends < hurried), how == Shutdown::Immediate);
            assert!(played.ask(Order::Stop(Shutdown::Immediate)).contains(&Effect::HurrySuccessor));
        }
    }
}

#[test]
fn stop_on_probation_leaves_everything_to_the_successor() {
    for how in [Shutdown::Immediate, Shutdown::Graceful] {
        let mut played = Played::pool();
        played.upgrade_to(UpgradeStage::Probation);
        let stopped = played.ask(Order::Stop(how));
        assert_eq!(verdicts(&stopped), [(1, Verdict::Applied)]);
        let leaves = place(&stopped, |effect| *effect == Effect::LeaveAll);
        assert!(leaves < place(&stopped, |effect| *effect == Effect::End(how)));
        assert!(!stopped.contains(&Effect::EndSuccessor(FIRST)));
    }
}

#[test]
fn nothing_is_taken_back_when_an_operator_stops_the_successor_on_probation() {
    let mut played = Played::pool();
    played.upgrade_to(UpgradeStage::Probation);
    let stopped = played.tell(Input::SuccessorStops(FIRST));
    assert_eq!(verdicts(&stopped), [(1, Verdict::Superseded)]);
    assert!(stopped.contains(&Effect::LeaveAll) && stopped.contains(&Effect::End(Shutdown::Graceful)));
    assert!(!stopped.contains(&Effect::TakeBack) && !stopped.contains(&Effect::Rest(false)));
}

#[test] // O-UP-06
fn finish_cuts_short_what_is_waited_for() {
    let mut played = Played::pool();
    let nothing = played.ask(Order::Finish);
    assert_eq!(verdicts(&nothing), [(1, Verdict::Refused(Why::NothingToFinish))]);
    played.upgrade_to(UpgradeStage::Probation);
    let applied = played.ask(Order::Finish);
    assert_eq!(verdicts(&applied), [(3, Verdict::Applied), (2, Verdict::Applied)]);
    assert_eq!((signalled(&applied, Signal::Quit), signalled(&applied, Signal::Term)), (3, 0));
    // They have drain_limit, and after this no more than shutdown_timeout.
    assert_eq!(played.machine.grace_left(), Some(Duration::from_secs(60)));
    let cut = played.ask(Order::Finish);
    assert_eq!((signalled(&cut, Signal::Term), verdicts(&cut).len()), (3, 0));
    assert_eq!(played.machine.grace_left(), Some(Duration::from_secs(2)), "as after a reload");
    let keys: Vec<Key> = played.machine.table().children().iter().map(|child| child.key).collect();
    let ended: Vec<Effect> = keys.into_iter().flat_map(|key| played.tell(Input::Reaped(key, End::Exited(0)))).collect();
    assert_eq!(verdicts(&ended), [(4, Verdict::Applied)]);
}

#[test] // O-UP-06
fn finish_cuts_children_that_a_reload_has_replaced() {
    let mut played = Played::new(RawSettings { max_children: Some(3), ..RawSettings::default() });
    played.tell(Input::Request { number: 1, is_long: false });
    let probe = played.reload();
    assert_eq!(verdicts(&played.tell(Input::Reaped(probe, End::Exited(0)))), [(1, Verdict::Applied)]);
    let cut = played.ask(Order::Finish);
    assert_eq!(verdicts(&cut), [(2, Verdict::Applied)]);
    assert_eq!(signalled(&cut, Signal::Int), 1);
    played.now += 2000;
    assert_eq!(signalled(&played.tell(Input::Due(Timer::Cut)), Signal::Kill), 1);
    assert_eq!(verdicts(&played.ask(Order::Finish)), [(3, Verdict::Refused(Why::NothingToFinish))]);
}

#[test] // O-RL-10: drain_limit
fn fork_that_a_reload_has_overtaken_is_of_a_replaced_child() {
    let mut played = Played::new(RawSettings { max_children: Some(3), ..RawSettings::default() });
    let probe = played.reload();
    let now = Duration::from_millis(played.now);
    played.machine.step(now, &mut Quiet::default(), Input::Request { number: 1, is_long: false });
    let key = played.machine.table().in_flight()[0].key;
    assert_eq!(verdicts(&played.tell(Input::Reaped(probe, End::Exited(0)))), [(1, Verdict::Applied)]);
    let forked = played.tell(Input::Forked(key, Ok(())));
    assert!(forked.contains(&Effect::Arm(Timer::Cut, Duration::from_secs(60))), "{forked:?}");
}

#[test]
fn probation_of_zero_applies_the_upgrade_at_once() {
    let raw = RawSettings { start_children: Some(2), probation: Some(Duration::ZERO), ..RawSettings::default() };
    let mut played = Played::new(raw);
    played.upgrade_to(UpgradeStage::Ready);
    let applied = played.tell(Input::SuccessorTookOver(FIRST));
    assert_eq!(verdicts(&applied), [(1, Verdict::Applied)]);
    assert!(applied.contains(&Effect::LeaveAll) && applied.contains(&Effect::End(Shutdown::Graceful)));
}

#[test] // O-UP-01: a request that was accepted is not lost
fn requests_that_wait_are_served_during_a_rest() {
    let mut played = Played::new(RawSettings { max_children: Some(1), ..RawSettings::default() });
    for number in 1..=2 {
        played.tell(Input::Request { number, is_long: false });
    }
    played.upgrade_to(UpgradeStage::Probation);
    assert_eq!(played.machine.queued(), 1);
    let key = played.machine.table().children()[0].key;
    let served = played.tell(Input::Reaped(key, End::Exited(0)));
    assert_eq!((forks(&served), played.machine.queued()), (1, 0));
    let key = played.machine.table().children()[0].key;
    let free = played.tell(Input::Reaped(key, End::Exited(0)));
    assert!(!free.contains(&Effect::Announce(Announcement::Accept)), "{free:?}");
    assert!(played.fail().contains(&Effect::Announce(Announcement::Accept)));
}

#[test]
fn server_without_children_only_rests() {
    let mut played = Played::new(RawSettings::default());
    played.upgrade_to(UpgradeStage::Ready);
    assert_eq!(essence(&played.tell(Input::SuccessorTookOver(FIRST))), [&Effect::Rest(true)]);
    let verdict = Effect::Answer(OrderId(1), Verdict::RolledBack(Setback::Successor(DIED)));
    let expected = [&Effect::EndSuccessor(FIRST), &Effect::TakeBack, &Effect::Rest(false), &verdict];
    assert_eq!(essence(&played.fail()), expected);
}

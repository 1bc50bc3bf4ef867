//! Plays the schedules that real processes play as well, in `tests/daemon/differential.rs`.

use super::child::{Child, Flaw, Sent, Stage};
use super::clients::{self, Client};
use super::driver::Driver;
use super::plan::{Knobs, Plan};
use super::schedule::{self, Schedule, Step};
use super::world::{Event, Failing};
use crate::daemon::machine::{Failure, Order, OrderId, Shutdown, Status};

/// A machine that plays a schedule.
struct Player {
    driver: Driver,
    orders: u64,
    clients: u64,
    /// Why forks fail; 0: for good.
    reason: i32,
    text: String,
}

impl Player {
    fn new(schedule: &Schedule) -> Player {
        // Children that were kept for clients go at once.
        let mut plan =
            Plan { knobs: Knobs { hold: 2, post: schedule.is_post.into(), ..Knobs::default() }, ..Plan::default() };
        let (mut dying, mut is_deaf, mut has_forks, mut reason, mut no_log) = (Vec::new(), false, true, EAGAIN, 0);
        for (name, value) in &schedule.settings {
            match name.as_str() {
                "dies" => dying.push(*value),
                "deaf" => is_deaf = *value > 0,
                "nofork" => has_forks = *value == 0,
                "forgood" => reason = 0,
                "nolog" => no_log = u64::MAX,
                _ => {
                    let place = Knobs::NAMES.iter().position(|known| known == name);
                    *plan.knobs.knob(place.unwrap_or_else(|| panic!("there is no setting {name}"))) = *value;
                }
            }
        }
        let mut driver = Driver::new(&plan, None);
        let flaws = &mut driver.world.flaws;
        let last = dying.iter().copied().max().unwrap_or(0);
        let flaw = |number| if dying.contains(&number) { Flaw::DiesBeforeReady } else { Flaw::None };
        flaws.extend((1..=last).map(|number| (1, flaw(number), 0, false)));
        if is_deaf {
            flaws.push_back((u32::MAX, Flaw::IgnoresEnd, 0, false));
        }
        driver.world.no_log_until = no_log;
        let mut player = Player { driver, orders: 0, clients: 0, reason, text: schedule.text.clone() };
        player.let_fork(has_forks);
        player
    }

    fn let_fork(&mut self, may: bool) {
        let failing = Failing { until: u64::MAX, reason: self.reason };
        self.driver.world.fork_fails = if may { Failing::default() } else { failing };
    }

    fn run(&mut self, span: u64) {
        let outcome = self.driver.run(span);
        assert!(outcome.is_ok(), "{}: {outcome:?}", self.text);
    }

    fn run_until(&mut self, what: &str, is_so: impl Fn(&Driver) -> bool) {
        let give_up = self.driver.world.now + LONG;
        while !is_so(&self.driver) {
            let board = board(&self.driver);
            assert!(self.driver.world.now < give_up, "waited in vain for {what}, at {board:?}: {}", self.text);
            self.run(SLICE);
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Board(letters) => {
                let mut letters: Vec<char> = letters.chars().collect();
                letters.sort_unstable();
                self.run_until(&format!("{letters:?}"), |driver| {
                    board(driver) == letters && driver.machine.table().children().len() == letters.len()
                });
            }
            Step::Order { name, waits } => {
                self.driver.ask(match name.as_str() {
                    "TTIN" => Order::Resize(1),
                    "TTOU" => Order::Resize(-1),
                    "HUP" => Order::Reopen,
                    "QUIT" => Order::Stop(Shutdown::Graceful),
                    _ => Order::Stop(Shutdown::Immediate),
                });
                self.orders += 1;
                let id = OrderId(self.orders);
                if *waits {
                    self.run_until("a verdict", |driver| driver.answers.iter().any(|(answered, _)| *answered == id));
                }
            }
            Step::Client => {
                let before = with_client(&self.driver).count();
                self.arrive();
                self.run_until("a child for a client", |driver| with_client(driver).count() > before);
            }
            Step::Knock => self.arrive(),
            Step::Done => {
                // A child that TERM has ended has taken its client along.
                let first = with_client(&self.driver).min_by_key(|child| child.client.map(|client| client.service));
                if let Some(key) = first.map(|child| child.key) {
                    self.driver.world.goes_on(key.slot, 0, Stage::Done);
                    self.run_until("a child without its client", |driver| {
                        with_client(driver).all(|child| child.key != key)
                    });
                }
            }
            Step::Kill(letter) => {
                let has_letter = |child: &&Child| {
                    child.is_alive()
                        && self.driver.world.status(child.key.slot).is_some_and(|is| is.letter() == *letter)
                };
                let child = self.driver.world.children.iter().flatten().find(has_letter).expect("such a child");
                let (key, before) = (child.key, self.driver.machine.deaths().total());
                self.driver.world.plan(0, Event::Signal(key.slot, key.generation, Sent::Kill));
                self.run_until("a death", |driver| driver.machine.deaths().total() > before);
            }
            Step::NoFork => self.let_fork(false),
            Step::Fork => self.let_fork(true),
        }
    }

    /// A client comes who stays until it is told to leave.
    fn arrive(&mut self) {
        self.clients += 1;
        // How long its request would take tells it from others: it does not end by itself.
        let client = Client { kind: clients::Kind::Endless, service: self.clients, told: None, is_probe: false };
        self.driver.world.arrive(client);
    }

    /// What has become of orders and children, in the words of the schedule.
    fn end(mut self) -> (Vec<String>, String, i32) {
        self.run_until("the end", |driver| driver.rules.is_over());
        let mut answers = std::mem::take(&mut self.driver.answers);
        answers.sort_by_key(|(id, _)| *id);
        assert!(answers.iter().map(|(id, _)| id.0).eq(1..=self.orders), "{answers:?}: {}", self.text);
        let verdicts = answers.into_iter().map(|(_, verdict)| verdict.to_string()).collect();
        let has_failed = self.driver.failure.is_some_and(|failure| failure != Failure::LauncherGone);
        (verdicts, self.driver.machine.deaths().to_string(), has_failed.into())
    }
}

fn board(driver: &Driver) -> Vec<char> {
    let statuses = driver.world.slots.iter().filter_map(|slot| slot.says.status);
    let mut letters: Vec<char> = statuses.filter(|status| *status != Status::Empty).map(Status::letter).collect();
    letters.sort_unstable();
    letters
}

fn with_client(driver: &Driver) -> impl Iterator<Item = &Child> {
    driver.world.children.iter().flatten().filter(|child| child.is_alive() && child.client.is_some())
}

const EAGAIN: i32 = 11;

/// How often it is looked whether a step is over, and after how long none is any more, in microseconds.
const SLICE: u64 = 100;
const LONG: u64 = 60_000_000;

#[test] // O-DT-08
fn simulation_ends_as_real_processes_do() {
    for schedule in schedule::read(include_str!("schedules.txt")) {
        let mut player = Player::new(&schedule);
        schedule.steps.iter().for_each(|step| player.take(step));
        let (verdicts, deaths, exit) = player.end();
        assert_eq!(verdicts, schedule.verdicts, "{}", schedule.text);
        assert_eq!(deaths, schedule.deaths, "{}", schedule.text);
        assert_eq!(exit, schedule.exit, "{}", schedule.text);
    }
}

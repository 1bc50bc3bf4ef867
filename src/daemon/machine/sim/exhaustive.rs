//! All small rows of events.

use super::clients;
use super::dice::Dice;
use super::driver::Driver;
use super::plan::{Act, Kind, Knobs, Plan};
use super::run::Outcome;
use super::trace::Trace;
use crate::daemon::machine::Fault;

/// Draws a plan of so many different things that happen to a pool of up to three children. With dice that give all rows, all of
/// these plans come, one after the other: each order of each choice of things, with all pauses between them.
pub fn plan(dice: &mut Dice, events: u32) -> Plan {
    let mut plan = Plan { knobs: knobs(dice.below(2)), acts: Vec::new() };
    let pauses = [(); 2].map(|()| PAUSES[dice.below(3) as usize]);
    let mut left = EVENTS.to_vec();
    for place in 0..events.min(EVENTS.len() as u32) {
        let event = left.remove(dice.below(left.len() as u32) as usize);
        plan.acts.push(act(&plan, event, pauses[place as usize % 2]));
    }
    plan
}

fn knobs(post: u32) -> Knobs {
    Knobs {
        post,
        max: 3,
        start: 2,
        min: 1,
        most: 2,
        requests: 1,
        hold: 1,
        boot: 2,
        fork: 200,
        // What is asked for between a fork and its result is told before that.
        lazy: 1,
        ..Knobs::default()
    }
}

/// Returns what happens so long after all that a plan has.
fn act(plan: &Plan, event: (Kind, [u32; 3]), pause: u32) -> Act {
    let (kind, args) = if event.0 == Kind::Push && plan.knobs.post == 0 { KEEPERS } else { event };
    Act { at: plan.acts.last().map_or(10, |last| last.at) + pause, kind, args }
}

/// Plays all these plans, in the order in which they are drawn. What several of them have in common is played once: plans that
/// begin alike go on from a copy of the same run. The minutes in which a quiet pool stays quiet are left to other runs.
pub fn play_all(events: u32, fault: Option<Fault>, trace: &Trace, each: &mut impl FnMut(u64, &Plan, &Outcome)) {
    for begin in Begin::all() {
        begin.play(events, fault, trace, each);
    }
}

/// Plays one of these plans from its beginning to its end.
pub fn play_alone(plan: &Plan, fault: Option<Fault>, trace: Trace) -> Outcome {
    let mut driver = Driver::new(plan, fault);
    (driver.trace, driver.is_brief) = (trace, true);
    let played = driver.play();
    driver.outcome(played)
}

/// What plans begin with: all that have the same one can be played apart from others.
#[derive(Clone, Copy, Debug)]
pub struct Begin {
    post: u32,
    pauses: [u32; 2],
    first: usize,
}

impl Begin {
    /// In the order in which they are drawn.
    pub fn all() -> Vec<Begin> {
        let mut all = Vec::new();
        for post in 0..2 {
            for pause in PAUSES {
                for other in PAUSES {
                    all.extend((0..EVENTS.len()).map(|first| Begin { post, pauses: [pause, other], first }));
                }
            }
        }
        all
    }

    /// Plays all plans that begin so. Calls `each` with how many plans in a row come to the same outcome, with what those plans have
    /// in common, and with the outcome.
    pub fn play(self, events: u32, fault: Option<Fault>, trace: &Trace, each: &mut impl FnMut(u64, &Plan, &Outcome)) {
        let mut plan = Plan { knobs: knobs(self.post), acts: Vec::new() };
        let mut driver = Driver::new(&plan, fault);
        driver.trace = trace.clone();
        driver.is_brief = true;
        let mut left = EVENTS.to_vec();
        let event = left.remove(self.first);
        plan.acts.push(act(&plan, event, self.pauses[0]));
        let mut rows = Rows { pauses: self.pauses, events: EVENTS.len().min(events as usize), each };
        rows.go_on(driver, &mut plan, &mut left);
    }
}

/// Plays all plans with the same pauses.
struct Rows<'a, F> {
    pauses: [u32; 2],
    events: usize,
    each: &'a mut F,
}

impl<F: FnMut(u64, &Plan, &Outcome)> Rows<'_, F> {
    /// Plays all plans that begin with `plan`, of whose last event `driver` knows nothing yet, and go on with those that are left.
    fn go_on(&mut self, mut driver: Driver, plan: &mut Plan, left: &mut Vec<(Kind, [u32; 3])>) {
        let done = plan.acts.len();
        let Some(last) = plan.acts.last() else { return };
        let played = driver.run_before(u64::from(last.at) * 1000);
        // What comes after the end of the Daemon, or after a rule was broken, changes nothing.
        if played.is_err() || driver.has_ended() || done == self.events {
            let played = played.and_then(|()| {
                driver.disturb(*last);
                driver.play()
            });
            let rows = (0..self.events - done).map(|place| (left.len() - place) as u64).product();
            return (self.each)(rows, plan, &driver.outcome(played));
        }
        driver.disturb(*last);
        for place in 0..left.len() {
            let event = left.remove(place);
            plan.acts.push(act(plan, event, self.pauses[done % 2]));
            self.go_on(driver.clone(), plan, left);
            plan.acts.pop();
            left.insert(place, event);
        }
    }
}

/// In the same moment, while a child starts, or when all is quiet.
const PAUSES: [u32; 3] = [0, 1, 40];

const KEEPERS: (Kind, [u32; 3]) = (Kind::Wave, [3, 5, clients::Kind::Keeper as u32]);

const EVENTS: [(Kind, [u32; 3]); 11] = [
    (Kind::Wave, [1, 20, 0]),
    (Kind::Push, [2, 0, 0]),
    // A child is killed. A child is stopped for a while. Other code waits for a child that has ended.
    (Kind::Hit, [0, 2, 0]),
    (Kind::Hit, [0, 0, 30]),
    (Kind::Hit, [1, 8, 0]),
    (Kind::ForkFails, [1, 11, 0]),
    // TTOU, QUIT, TERM.
    (Kind::Order, [4, 0, 0]),
    (Kind::Order, [1, 0, 0]),
    (Kind::Order, [0, 0, 0]),
    // A reload that comes to something.
    (Kind::Reload, [0, 0, 0]),
    // A successor that takes over, and dies a moment later.
    (Kind::Upgrade, [10, 4, 30]),
];

//! Makes a plan that breaks a rule as short as it can be and still break the same rule.

use super::plan::{Act, Knobs, Plan};
use super::run::play;
use crate::daemon::machine::Fault;

/// Leaves out what is not needed, and makes the rest small.
pub fn shrink(plan: Plan, fault: Option<Fault>, rule: &str) -> Plan {
    let mut shrinker = Shrinker { best: plan, fault, rule, steps: 0 };
    loop {
        let before = shrinker.best.clone();
        shrinker.fewer_acts();
        shrinker.plainer_settings();
        shrinker.smaller_acts();
        if shrinker.best == before || shrinker.is_tired() {
            return shrinker.best;
        }
    }
}

struct Shrinker<'a> {
    best: Plan,
    fault: Option<Fault>,
    rule: &'a str,
    steps: u64,
}

impl Shrinker<'_> {
    fn is_tired(&self) -> bool {
        self.steps > MOST_STEPS
    }

    /// Takes this plan if it breaks the rule as well.
    fn take(&mut self, plan: Plan) -> bool {
        if plan == self.best || self.is_tired() {
            return false;
        }
        let outcome = play(&plan, self.fault);
        self.steps += outcome.steps;
        let breaks = outcome.violation.is_some_and(|violation| violation.rule == self.rule);
        if breaks {
            self.best = plan;
        }
        breaks
    }

    fn fewer_acts(&mut self) {
        let mut size = self.best.acts.len().div_ceil(2);
        while size > 0 {
            let mut place = 0;
            while place < self.best.acts.len() {
                let mut plan = self.best.clone();
                plan.acts.drain(place..(place + size).min(plan.acts.len()));
                if !self.take(plan) {
                    place += size;
                }
            }
            size /= 2;
        }
    }

    fn plainer_settings(&mut self) {
        let mut default = Knobs::default();
        for place in 0..Knobs::NAMES.len() {
            let mut plan = self.best.clone();
            *plan.knobs.knob(place) = *default.knob(place);
            if !self.take(plan) {
                let mut plan = self.best.clone();
                *plan.knobs.knob(place) /= 2;
                self.take(plan);
            }
        }
    }

    fn smaller_acts(&mut self) {
        for place in 0..self.best.acts.len() {
            for arg in 0..3 {
                for smaller in [|_| 0, |_| 1, |arg| arg / 2, |arg: u32| arg.saturating_sub(1)] {
                    let mut plan = self.best.clone();
                    let number = &mut plan.acts[place].args[arg];
                    if *number > smaller(*number) {
                        *number = smaller(*number);
                        self.take(plan);
                    }
                }
            }
            // What comes from here on comes sooner.
            let before = place.checked_sub(1).map_or(0, |before| self.best.acts[before].at);
            let gap = self.best.acts[place].at.saturating_sub(before);
            for less in [gap, gap / 2, gap / 10, gap % 100, gap % 10, 1] {
                let mut plan = self.best.clone();
                plan.acts[place..].iter_mut().for_each(|Act { at, .. }| *at = at.saturating_sub(less));
                self.take(plan);
            }
        }
    }
}

/// How many steps of the machine it takes at most: some seconds.
const MOST_STEPS: u64 = 10_000_000;

//! Draws plans.

use super::child::Flaw;
use super::clients;
use super::dice::Dice;
use super::plan::{Act, Kind, Knobs, Plan};
use super::reload;
use super::successor;
use super::theme::Theme;

/// How long the disturbances of a run go on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Length {
    /// Some minutes, and no calm but what is needed.
    Short,
    /// Hours.
    Long,
}

/// Draws a plan: the same for the same seed.
pub fn plan(seed: u64, length: Length) -> Plan {
    let mut dice = Dice::new(seed);
    let dice = &mut dice;
    let mut knobs = knobs(dice, length);
    let most = if length == Length::Long { 60 } else { 24 };
    let number = dice.within(1, most);
    let theme = Theme::draw(dice);
    theme.set(dice, &mut knobs, length);
    let mut at = dice.pick(&[0, 0, 0, 1, 5, 30, 1000]);
    let mut acts = Vec::new();
    let pace = theme.pace(&knobs).unwrap_or_else(|| dice.pick(&[20, 300, 3000]));
    while acts.len() < number as usize {
        at += match dice.below(10) {
            0 | 1 => 0,
            2 | 3 => dice.within(1, 20),
            4 if length == Length::Long => dice.within(1, 1_800_000),
            4 => dice.within(1, 30_000),
            5 => pace,
            6 => pace + dice.below(5),
            _ => dice.within(1, pace),
        };
        for (after, kind, args) in theme.figure(dice) {
            at += after;
            acts.push(Act { at, kind: *kind, args: *args });
        }
        // The end belongs near the end.
        let is_late = acts.len() + 4 >= number as usize;
        let of_theme = if dice.once_in(3) { None } else { theme.act(dice, is_late, &knobs) };
        let (kind, args) = of_theme.unwrap_or_else(|| {
            let kind = kind(dice, knobs.post > 0);
            (kind, args(dice, kind, is_late, &knobs))
        });
        acts.push(Act { at, kind, args });
    }
    Plan { knobs, acts }
}

fn knobs(dice: &mut Dice, length: Length) -> Knobs {
    let max = dice.pick(&[1, 2, 3, 3, 5, 5, 8, 12, 40, 60]);
    let start = dice.within(1, max.min(6));
    let min = dice.within(1, 3.min(max));
    let maybe = |dice: &mut Dice, times: u32, value: u32| if dice.once_in(times) { value } else { 0 };
    let is_long = length == Length::Long;
    let batch = if dice.once_in(3) { dice.pick(&[1, 10, 50, 400]) } else { 0 };
    let (request_limit, long_limit) = (dice.pick(&[300, 2000, 30_000]), dice.pick(&[600, 20_000]));
    let knobs = Knobs {
        post: u32::from(dice.once_in(4)),
        max,
        start,
        min,
        most: min + dice.pick(&[0, 1, 2, 4, 10]),
        requests: dice.pick(&[0, 0, 1, 3]),
        jitter: dice.pick(&[0, 0, 1]),
        burst: dice.pick(&[1, 2, 32]),
        rate: dice.pick(&[1, 1, 10, 64]),
        target: dice.pick(&[1, 20, 20, 200]),
        hold: dice.pick(&[0, 0, 1, 501, 2001]),
        start_limit: dice.pick(&[2000, 60_000]),
        // A run of many hours has the settings of a server.
        stop_limit: if is_long { dice.pick(&[10_000, 30_000]) } else { dice.pick(&[400, 2000, 10_000]) },
        babysit: if is_long { dice.pick(&[10_000, 60_000]) } else { dice.pick(&[500, 2000, 10_000, 10_000]) },
        request_limit: maybe(dice, 2, if is_long { 30_000 } else { request_limit }),
        long_limit: maybe(dice, 3, if is_long { 120_000 } else { long_limit }),
        cpu_limit: dice.pick(&[1000, 20_000, 600_000]),
        memory_limit: maybe(dice, 2, 64),
        boot: dice.pick(&[1, 5, 5, 100, 300, 2000]),
        accept: dice.pick(&[10, 100, 1000]),
        fork: dice.pick(&[50, 400, 400, 3000]),
        exit: dice.pick(&[100, 300, 20_000]),
        batch,
        lazy: u32::from(dice.once_in(3)),
        race: u32::from(dice.once_in(3)),
        blind: u32::from(dice.once_in(5)),
        backlog: dice.pick(&[1, 5, 128, 128]),
        launcher: u32::from(dice.once_in(6)),
        eager: u32::from(dice.once_in(2)),
        calm: if is_long { dice.pick(&[1, 60, 300]) } else { 0 },
        gentle: u32::from(dice.once_in(2)),
        term: u32::from(dice.once_in(3)),
        load_limit: dice.pick(&[50, 2000, 10_000]),
        probation: dice.pick(&[0, 500, 10_000]),
        surge: dice.pick(&[0, 1, 1, 1, 2, 8]),
        unavailable: dice.pick(&[0, 0, 0, 1, 3]),
        drain: dice.pick(&[300, 5000, 60_000]),
        greeting: dice.pick(&[50, 300, 2000]),
        upgrade_limit: dice.pick(&[500, 5000, 60_000]),
        salt: dice.below(1000),
        duck: 0,
    };
    Knobs { duck: if knobs.salt.is_multiple_of(5) { knobs.salt * 7 % 1500 } else { 0 }, ..knobs }
}

fn kind(dice: &mut Dice, is_post: bool) -> Kind {
    use Kind::*;
    let kind = dice.pick(&[
        Wave, Wave, Wave, Wave, Bad, Bad, Hit, Hit, Order, Order, Nest, ForkFails, ForkSlow, Suspend, Late, Mute, Bell,
        Again, Stray, Stray, Foreign, Widow, NoLog, Push, Reload, Reload, Upgrade,
    ]);
    if kind == Push && !is_post { Wave } else { kind }
}

fn args(dice: &mut Dice, kind: Kind, is_late: bool, knobs: &Knobs) -> [u32; 3] {
    let span = |dice: &mut Dice| dice.pick(&[20, 500, 3000, 20_000, 120_000]);
    let which = dice.below(16);
    match kind {
        Kind::Wave => {
            let number = dice.pick(&[1, 1, 2, knobs.max, knobs.max * 2]);
            let service = dice.pick(&[1, 10, 100, 1000, 8000]);
            let client = if dice.once_in(3) { dice.below(clients::Kind::NUMBERS) } else { 0 };
            [number, service, client]
        }
        Kind::Push => [dice.within(1, 4), 0, 0],
        Kind::ForkFails => {
            let reason = dice.pick(&[11, 11, 12, 11, 12, 0]);
            [span(dice), if reason == 0 && !is_late { 11 } else { reason }, 0]
        }
        Kind::ForkSlow => [dice.pick(&[5000, 50_000]), span(dice), 0],
        Kind::Suspend => [span(dice), dice.below(2), 0],
        Kind::Order | Kind::Nest => {
            let order =
                if is_late { dice.below(18) } else { dice.pick(&[2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 12, 13, 14, 15, 17]) };
            let about = match order {
                5 | 6 => dice.below(4),
                SET_SIZE => dice.below(SIZES),
                _ => which,
            };
            [order, about, 0]
        }
        Kind::Bad => {
            let every_other = if dice.once_in(3) { 100 } else { 0 };
            let number = dice.pick(&[1, 1, 2, 5, 12, 40]);
            [number, dice.below(Flaw::ALL.len() as u32) + every_other, dice.pick(&[0, 1, 30, 700, 15_000])]
        }
        Kind::Hit => [which, dice.below(10), dice.pick(&[0, 5, 2000, 15_000])],
        Kind::Late | Kind::Mute => [span(dice), dice.pick(&[0, 3, 200, 2000]), 0],
        Kind::Foreign => [dice.below(3), 0, 0],
        Kind::NoLog => [span(dice), 0, 0],
        Kind::Reload => reload::draw(dice),
        Kind::Upgrade => successor::draw(dice, is_late),
        Kind::Stray => [dice.below(9), 0, 0],
        Kind::Bell | Kind::Again | Kind::Widow => [0; 3],
    }
}

/// The number of the order that sets a size, and how many sizes there are.
pub(super) const SET_SIZE: u32 = 12;
pub(super) const SIZES: u32 = 1 << 11;

//! What a run is about: what is likely to be interesting together.

use super::child::Flaw;
use super::dice::Dice;
use super::draw::{Length, SET_SIZE, SIZES};
use super::plan::{Kind, Knobs};

/// Some runs are about one thing more than about the others.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Theme {
    /// Anything.
    None,
    /// Children that go wrong, and clients for them.
    Flaws,
    /// Children that die before they are ready, in a pool that has to grow.
    EarlyDeaths,
    /// Things that happen to children while clients come.
    Hits,
    /// Children that are stopped while they are idle, and a client now and then.
    Deaf,
    /// Orders, also for children that are gone, and the parent suspended.
    Orders,
    /// Forks that fail.
    Forks,
    /// Some clients that stay, one after the other.
    Creeping,
    /// Clients that are kept, in a pool that gets full.
    Keepers,
    /// Several ends, of children that don't want to.
    Ends,
    /// Ends and resizes while the first forks are in flight.
    Beginning,
    /// Waves.
    Waves,
    /// Reloads, of which some fail, while clients come.
    Reloads,
    /// Upgrades, of which most fail, while clients come.
    Upgrades,
}

impl Theme {
    pub fn draw(dice: &mut Dice) -> Theme {
        use Theme::*;
        dice.pick(&[
            None,
            None,
            Flaws,
            Flaws,
            EarlyDeaths,
            Hits,
            Deaf,
            Orders,
            Orders,
            Forks,
            Creeping,
            Keepers,
            Ends,
            Beginning,
            Waves,
            Reloads,
            Reloads,
            Upgrades,
            Upgrades,
        ])
    }

    /// Sets what the theme needs.
    pub fn set(self, dice: &mut Dice, knobs: &mut Knobs, length: Length) {
        let is_long = length == Length::Long;
        match self {
            Theme::EarlyDeaths => {
                (knobs.post, knobs.max) = (0, dice.pick(&[12, 40, 60]));
                knobs.boot = dice.pick(&[5, 100, 300]);
            }
            Theme::Creeping => {
                (knobs.post, knobs.race, knobs.batch) = (0, 1, 0);
                (knobs.max, knobs.min) = (dice.pick(&[8, 12]), dice.within(2, 4));
                (knobs.most, knobs.start) = (knobs.min + 3, knobs.min);
                (knobs.stop_limit, knobs.babysit) = (30_000, 30_000);
                (knobs.request_limit, knobs.long_limit) = (0, 0);
            }
            Theme::Keepers => {
                (knobs.post, knobs.max) = (0, dice.within(2, 4));
                (knobs.start, knobs.min) = (1, 1);
                (knobs.race, knobs.batch, knobs.request_limit) = (1, 0, 0);
                (knobs.stop_limit, knobs.babysit) = (30_000, 30_000);
            }
            Theme::Deaf => {
                knobs.post = 0;
                knobs.start = dice.within(2, 4);
                knobs.max = knobs.max.max(knobs.start);
                knobs.min = knobs.start;
            }
            Theme::Ends if !is_long => {
                knobs.stop_limit = dice.pick(&[400, 2000]);
                knobs.batch = 0;
            }
            Theme::Beginning => {
                (knobs.lazy, knobs.fork) = (1, dice.pick(&[400, 3000]));
                (knobs.max, knobs.start) = (dice.within(1, 4), dice.within(1, 3));
            }
            Theme::Flaws => knobs.memory_limit = 64,
            Theme::Reloads => {
                knobs.post = u32::from(dice.once_in(6));
                knobs.max = dice.pick(&[2, 3, 5, 8]);
                (knobs.start, knobs.drain) = (dice.within(1, knobs.max), dice.pick(&[300, 5000, 5000]));
                (knobs.start_limit, knobs.race) = (2000, 0);
                knobs.min = knobs.min.min(knobs.start);
            }
            Theme::Upgrades => {
                knobs.post = u32::from(dice.once_in(3));
                knobs.max = dice.pick(&[2, 3, 5, 8, 60]);
                (knobs.start, knobs.drain) = (dice.within(1, knobs.max.min(5)), dice.pick(&[300, 5000, 5000]));
                knobs.min = knobs.min.min(knobs.start);
                knobs.probation = dice.pick(&[0, 100, 700, 700, 3000]);
                (knobs.greeting, knobs.upgrade_limit) = (dice.pick(&[50, 300]), dice.pick(&[300, 2000]));
                knobs.launcher = 0;
            }
            _ => {}
        }
    }

    /// Returns about how long it is from one disturbance to the next, in milliseconds.
    pub fn pace(self, knobs: &Knobs) -> Option<u32> {
        match self {
            Theme::Creeping => Some(300),
            Theme::Keepers => Some(KEPT - 6),
            Theme::Ends => Some(knobs.stop_limit * 2 / 3),
            Theme::Beginning => Some(3),
            Theme::Deaf => Some(700),
            Theme::Reloads => Some(knobs.boot * 4 + 20),
            Theme::Upgrades => Some(knobs.boot * 2 + 60),
            _ => None,
        }
    }

    /// Draws several disturbances that belong together, each so many milliseconds after the one before.
    pub fn figure(self, dice: &mut Dice) -> &'static [(u32, Kind, [u32; 3])] {
        match self {
            // The pool is full in the moment in which a child begins to keep its client, and then others come.
            // An operator has no patience.
            Theme::Ends if dice.once_in(8) => &[
                (0, Kind::Bad, [3, 12, 0]),
                (700, Kind::Order, [1, 0, 0]),
                (300, Kind::Order, [0, 0, 0]),
                (300, Kind::Order, [0, 0, 0]),
                (1200, Kind::Order, [0, 0, 0]),
                (1200, Kind::Order, [0, 0, 0]),
            ],
            Theme::Keepers if dice.once_in(2) => &[
                (0, Kind::Wave, [1, 300, 3]),
                (300, Kind::Order, [4, 0, 0]),
                (5, Kind::Wave, [4, 300, 3]),
                (900, Kind::Order, [3, 0, 0]),
            ],
            _ => &[],
        }
    }

    /// Draws a disturbance.
    pub fn act(self, dice: &mut Dice, is_late: bool, knobs: &Knobs) -> Option<(Kind, [u32; 3])> {
        let which = dice.below(8);
        let of = |dice: &mut Dice, flaws: &[Flaw]| {
            let flaw = dice.pick(flaws);
            Flaw::ALL.iter().position(|known| *known == flaw).unwrap_or(0) as u32
        };
        let one_client =
            |dice: &mut Dice, service: &[u32]| (Kind::Wave, [dice.pick(&[1, 1, 2]), dice.pick(service), 0]);
        Some(match (self, dice.below(3)) {
            (Theme::None, _) => return None,
            (Theme::Flaws, 0) => (Kind::Wave, [dice.within(1, 6), dice.pick(&[1, 100, 2000]), dice.below(5)]),
            (Theme::Flaws, _) => {
                let flaw = dice.below(Flaw::ALL.len() as u32);
                (Kind::Bad, [dice.within(1, 3), flaw, dice.pick(&[0, 10, 1000, 5000])])
            }
            (Theme::EarlyDeaths, 0) => (Kind::Wave, [dice.within(1, knobs.max), dice.pick(&[10, 1000, 8000]), 0]),
            (Theme::EarlyDeaths, _) => {
                let flaw = of(dice, &[Flaw::DiesAtOnce, Flaw::DiesInSetup, Flaw::DiesBeforeReady]);
                (Kind::Bad, [dice.within(1, 30), flaw + 100 * dice.below(2), 0])
            }
            (Theme::Hits, 0) => (Kind::Wave, [dice.within(1, knobs.max), dice.pick(&[10, 300, 3000]), 0]),
            (Theme::Hits, _) => (Kind::Hit, [which, dice.below(10), dice.pick(&[0, 50, 4000])]),
            (Theme::Deaf, 0) => (Kind::Hit, [which, dice.pick(&[0, 0, 2, 8]), dice.pick(&[0, 30_000])]),
            (Theme::Deaf, _) => one_client(dice, &[1, 50]),
            (Theme::Orders, 0) if !is_late => {
                let order = dice.pick(&[3, 4, 4, 6, SET_SIZE, SET_SIZE, 13]);
                (Kind::Order, [order, if order == SET_SIZE { dice.below(SIZES) } else { dice.below(5) }, 0])
            }
            (Theme::Orders, 0) => (Kind::Suspend, [dice.pick(&[500, 20_000]), dice.below(2), 0]),
            (Theme::Orders, 1) => (Kind::Hit, [which, 8, 0]),
            (Theme::Orders, _) => (Kind::Order, [dice.within(7, 8), which, 0]),
            (Theme::Forks, 0) => (Kind::Wave, [dice.within(1, knobs.max * 2), dice.pick(&[1, 100, 3000]), 0]),
            (Theme::Forks, _) => (Kind::ForkFails, [dice.pick(&[1, 20, 300, 4000]), dice.within(11, 12), 0]),
            (Theme::Creeping, _) => one_client(dice, &[30_000]),
            (Theme::Keepers, _) => (Kind::Wave, [dice.within(1, 2), KEPT, dice.within(3, 4)]),
            (Theme::Ends, 0) if !is_late => {
                let flaw = of(dice, &[Flaw::IgnoresEnd, Flaw::IgnoresQuit, Flaw::StopsIdle, Flaw::Vanishes]);
                (Kind::Bad, [dice.within(1, 3), flaw, dice.pick(&[0, 500])])
            }
            (Theme::Ends, _) if is_late => (Kind::Order, [dice.pick(&[0, 1, 11]), 0, 0]),
            (Theme::Ends, _) => (Kind::Wave, [1, 100, dice.pick(&[0, 2, 2])]),
            (Theme::Beginning, 0) => (Kind::Wave, [dice.within(1, 2), 10, 0]),
            (Theme::Beginning, _) => {
                let kind = dice.pick(&[Kind::Order, Kind::Nest]);
                (kind, [dice.pick(&[0, 1, 2, 3, 4, 4, 7, 8]), which, 0])
            }
            (Theme::Reloads, 0) => {
                (Kind::Wave, [dice.within(1, knobs.max), dice.pick(&[10, 300, 10_000]), dice.below(3)])
            }
            (Theme::Reloads, 1) if !is_late => (Kind::Order, [dice.pick(&[3, 4, 12, 14, 15]), dice.below(SIZES), 0]),
            (Theme::Reloads, _) => (Kind::Reload, super::reload::draw(dice)),
            (Theme::Upgrades, 0) => {
                (Kind::Wave, [dice.within(1, knobs.max), dice.pick(&[10, 300, 10_000]), dice.below(5)])
            }
            (Theme::Upgrades, 1) => {
                let order = if is_late {
                    dice.pick(&[0, 1, 11, 16, 17, 17])
                } else {
                    dice.pick(&[2, 3, 4, SET_SIZE, 7, 8, 14, 15, 16, 17])
                };
                (Kind::Order, [order, if order == SET_SIZE { dice.below(SIZES) } else { which }, 0])
            }
            (Theme::Upgrades, _) => {
                let may_do_well = is_late || dice.once_in(8);
                (Kind::Upgrade, super::successor::draw(dice, may_do_well))
            }
            (Theme::Waves, _) => {
                (Kind::Wave, [dice.within(1, knobs.max * 2), dice.pick(&[1, 20, 400, 4000]), dice.below(5)])
            }
        })
    }
}

/// How long the requests of clients take that are kept.
const KEPT: u32 = 1000;

//! All small rows of events.

use super::clients;
use super::dice::Dice;
use super::plan::{Act, Kind, Knobs, Plan};

/// Draws a plan of so many different things that happen to a pool of up to three children. With dice that give all rows, all of
/// these plans come, one after the other: each order of each choice of things, with all pauses between them.
pub fn plan(dice: &mut Dice, events: u32) -> Plan {
    let post = dice.below(2);
    let knobs = Knobs {
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
    };
    // In the same moment, while a child starts, or when all is quiet.
    let pauses = [(); 2].map(|()| [0, 1, 40][dice.below(3) as usize]);
    let mut left = EVENTS.to_vec();
    let mut at = 10;
    let mut acts = Vec::new();
    for place in 0..events.min(EVENTS.len() as u32) {
        let (kind, args) = left.remove(dice.below(left.len() as u32) as usize);
        let (kind, args) = if kind == Kind::Push && post == 0 { KEEPERS } else { (kind, args) };
        at += pauses[place as usize % 2];
        acts.push(Act { at, kind, args });
    }
    Plan { knobs, acts }
}

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

//! The board against a naive model of it, under random orders of births, changes and deaths.

use super::*;
use crate::testing::{Dice, check};

/// One step of a random history. The number picks one of the children there are.
#[derive(Clone, Debug)]
enum Step {
    Open,
    Claim(usize),
    Set(usize, Status),
    Count(usize),
    Kill(usize, Moment),
    Reclaim(usize),
    ReclaimTwice(usize),
    Answer,
    Publish(u32, u32),
}

/// Where a child is when it is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// In its own code.
    Outside,
    /// It has cleared its bit and not written its slot.
    BetweenBitAndSlot,
    /// It has written its slot half.
    InSlot,
    /// It has raised the bell and not rung.
    BeforeRinging,
}

fn step(dice: &mut Dice) -> Step {
    let moments = [Moment::Outside, Moment::BetweenBitAndSlot, Moment::InSlot, Moment::BeforeRinging];
    let child = dice.below(100) as usize;
    match dice.below(26) {
        0..4 => Step::Open,
        4..8 => Step::Claim(child),
        8..16 => Step::Set(child, dice.pick(&Status::ALL[3..])),
        16..18 => Step::Count(child),
        18..20 => Step::Kill(child, dice.pick(&moments)),
        20..22 => Step::Reclaim(child),
        22 => Step::ReclaimTwice(child),
        23..25 => Step::Answer,
        _ => Step::Publish(dice.number(0..5), dice.number(0..9)),
    }
}

/// A child as the model sees it.
#[derive(Clone, Debug)]
struct Child {
    slot: SlotIndex,
    generation: u32,
    status: Status,
    requests: u64,
    alive: bool,
}

/// The whole board as the model sees it.
struct Model {
    children: Vec<Child>,
    generations: Vec<u32>,
    rung: bool,
    thresholds: Thresholds,
}

impl Model {
    fn idle(&self) -> usize {
        self.children.iter().filter(|child| child.alive && child.status == Status::Wait).count()
    }

    fn free(&self) -> Option<usize> {
        (0..self.generations.len()).find(|&slot| self.children.iter().all(|child| child.slot.get() != slot))
    }
}

/// Plays one step on both and compares what they say about it.
fn play(step: Step, board: &mut Scoreboard, model: &mut Model, now_ms: u64) {
    let count = model.children.len();
    let pick = |n: usize| n.checked_rem(count);
    match step {
        Step::Open => {
            let Some(free) = model.free() else { return };
            model.generations[free] += 1;
            let (slot, generation) = (SlotIndex(free), model.generations[free]);
            board.open(slot, generation, now_ms);
            model.children.push(Child { slot, generation, status: Status::Forking, requests: 0, alive: true });
        }
        Step::Claim(n) => {
            let Some(child) = pick(n).map(|i| &mut model.children[i]) else { return };
            if child.alive && child.status == Status::Forking {
                board.claim(child.slot, pid(child.slot), now_ms);
                child.status = Status::Forked;
            }
        }
        Step::Set(n, status) => {
            let Some(i) = pick(n) else { return };
            let before = model.children[i].status;
            if model.children[i].alive && before != Status::Forking {
                model.children[i].status = status;
                // A dead child not reclaimed yet may still have its bit: what rings is the count with it.
                let idle = board.idle();
                let ring = board.set_status(model.children[i].slot, status, now_ms);
                let after = board.idle();
                let news = after < idle && after < model.thresholds.low
                    || after > idle && after > model.thresholds.high
                    || before.is_starting() && !status.is_starting();
                assert_eq!(ring == Ring::Yes, news && !model.rung);
                model.rung |= news;
            }
        }
        Step::Count(n) => {
            let Some(child) = pick(n).map(|i| &mut model.children[i]) else { return };
            if child.alive && child.status != Status::Forking {
                child.requests += 1;
                assert_eq!(board.count_request(child.slot), child.requests);
            }
        }
        Step::Kill(n, moment) => {
            let Some(child) = pick(n).map(|i| &mut model.children[i]) else { return };
            child.alive = false;
            let record = board.slot(child.slot);
            match moment {
                Moment::Outside => {}
                Moment::BetweenBitAndSlot => {
                    let (word, bit) = board.idle_bit(child.slot);
                    word.fetch_and(!bit, SeqCst);
                }
                Moment::InSlot => {
                    record.sequence.store(record.sequence.load(Relaxed) | 1, Relaxed);
                    record.status.store(Status::Wait.to_bits(), Relaxed);
                }
                Moment::BeforeRinging => {
                    board.shared.header().rung.0.store(1, SeqCst);
                    model.rung = true;
                }
            }
        }
        Step::Reclaim(n) | Step::ReclaimTwice(n) => {
            let Some(child) = pick(n).map(|i| model.children.swap_remove(i)) else { return };
            let last = board.reclaim(child.slot);
            assert_eq!(last.map(|last| (last.generation, last.requests)), Some((child.generation, child.requests)));
            model.rung = false;
            if matches!(step, Step::ReclaimTwice(_)) {
                assert_eq!(board.reclaim(child.slot), None);
            }
        }
        Step::Answer => {
            assert_eq!(board.answer_bell(), model.rung);
            model.rung = false;
        }
        Step::Publish(low, high) => {
            model.thresholds = Thresholds { low, high };
            let _ = board.publish(model.thresholds);
        }
    }
}

/// Compares everything that can be seen.
fn compare(board: &Scoreboard, model: &Model) {
    let dead = model.children.iter().filter(|child| !child.alive).count();
    let (idle, expected) = (usize::try_from(board.idle()).unwrap(), model.idle());
    assert!((expected..=expected + dead).contains(&idle), "{idle} idle, not {expected} and up to {dead} dead");
    let letters: Vec<char> = board.letters().chars().collect();
    for slot in board.indices() {
        let mut owners = model.children.iter().filter(|child| child.slot == slot);
        let owner = owners.next();
        assert!(owners.next().is_none(), "slot {slot} is shared");
        assert_eq!(board.generation(slot), owner.map(|child| child.generation));
        match owner {
            None => assert_eq!(letters[slot.get()], ' '),
            Some(child) if child.alive => {
                let seen = board.read(slot).unwrap();
                assert_eq!((seen.status, seen.generation), (child.status, child.generation));
                assert_eq!(seen.requests, child.requests);
            }
            Some(_) => _ = board.read(slot), // whatever it says, it comes to an end
        }
    }
}

#[test] // D-SB-04: slots are never leaked or shared, whatever the order of deaths
fn slots_are_never_leaked_or_shared() {
    check(|dice| {
        let slots = dice.number(1..9) as usize;
        let mut board = Scoreboard::new(slots).unwrap();
        let thresholds = Thresholds::SILENT;
        let mut model = Model { children: Vec::new(), generations: vec![0; slots], rung: false, thresholds };
        for (step, now_ms) in dice.list(240, step).into_iter().zip(1..) {
            play(step, &mut board, &mut model, now_ms);
            compare(&board, &model);
        }
        for child in &model.children {
            board.reclaim(child.slot);
        }
        assert_eq!((board.free(), board.idle()), (slots, 0));
    });
}

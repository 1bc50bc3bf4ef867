//! The slot's seqlock, and the idle count with its bell, in every order of what processes do at once: for a model checker.
//!
//! Loom knows what weak memory may do, and looks at the seqlock, which relies on fences. It takes sequential consistency for
//! less than that, on which idle count and bell rely: those are shuttle's.

use super::*;

impl Scoreboard {
    /// The board as another process has it after a fork.
    fn inherited(&self) -> Scoreboard {
        Scoreboard { table: self.table.clone(), ..Scoreboard::of(self.shared.clone(), 0) }
    }
}

#[cfg(lenore_loom)]
mod seqlock {
    use loom::thread;

    use super::*;

    #[test] // O-DT-09: no reader takes half of a write for whole
    fn what_is_read_was_written_together() {
        loom::model(|| {
            let mut board = Scoreboard::new(1).unwrap();
            let (slot, _) = board.open_next(0);
            let child = board.inherited();
            let writer = thread::spawn(move || {
                for number in 1..=2 {
                    snapshot::write(child.slot(slot), |record| {
                        record.requests.store(number, Relaxed);
                        record.since_ms.store(number, Relaxed);
                    });
                }
            });
            if let Some(seen) = snapshot::read(board.slot(slot)) {
                assert_eq!(seen.requests, seen.since_ms);
            }
            writer.join().unwrap();
            let last = snapshot::read(board.slot(slot)).expect("nobody writes");
            assert_eq!((last.requests, last.since_ms), (2, 2));
        });
    }
}

#[cfg(all(lenore_loom, feature = "control"))]
mod fold {
    use std::sync::Arc;

    use loom::thread;

    use super::*;
    use crate::sys::modelled_memory;
    use crate::sys::shown_memory::{Ledger, Stats};

    #[test] // O-ST-05, O-DT-09: the parent clears what a dead child has counted, and no reader misses it or counts it twice
    fn what_is_folded_counts_once() {
        let mut model = loom::model::Builder::new();
        // All orders of these many loads and stores would take hours.
        model.preemption_bound = Some(2);
        model.check(|| {
            let shared = Arc::new((modelled_memory::ledger(), modelled_memory::stats(), Scoreboard::new(1).unwrap()));
            let (ledger, stats, board) = &*shared;
            let slot = SlotIndex(0);
            stats.request.buckets[0].store(3, Relaxed);
            let sums = |(ledger, stats, board): &(Ledger, Stats, Scoreboard)| {
                let slots = &board.shared.slots()[..1];
                let totals = stats::try_to_sum_up(ledger, slots, std::slice::from_ref(stats), None)?;
                Some(totals.request.buckets[0])
            };
            let reader = thread::spawn({
                let shared = Arc::clone(&shared);
                move || sums(&shared)
            });
            stats::fold(ledger, 0, board.slot(slot), stats, 0, stats::Which::Shown, || ());
            // The next child.
            stats.request.buckets[0].store(1, Relaxed);
            let seen = reader.join().unwrap();
            assert!(matches!(seen, None | Some(3 | 4)), "{seen:?}");
            assert_eq!(sums(&shared), Some(4));
        });
    }
}

#[cfg(lenore_shuttle)]
mod bell {
    use std::sync::Arc;

    use shuttle::sync::mpsc::{Receiver, Sender, channel};
    use shuttle::thread;

    use super::*;

    /// Where the parent keeps the idle count.
    const BAND: Thresholds = Thresholds { low: 2, high: 3 };

    /// A parent that reads the board whenever somebody rings, until all children are gone. Returns what it has read last.
    fn parent(board: &mut Scoreboard, bell: &Receiver<()>) -> u32 {
        loop {
            let read = look(board);
            if bell.recv().is_err() {
                // A last look would find what no ring has told.
                return read;
            }
        }
    }

    fn look(board: &mut Scoreboard) -> u32 {
        loop {
            board.answer_bell();
            let read = board.indices().filter(|slot| board.status(*slot) == Some(Status::Wait)).count() as u32;
            if board.publish(BAND) == Ring::No {
                return read;
            }
        }
    }

    fn does(board: &Scoreboard, slot: SlotIndex, statuses: &[Status], bell: &Sender<()>) {
        for status in statuses {
            if board.set_status(slot, *status, 0) == Ring::Yes {
                bell.send(()).unwrap();
            }
        }
    }

    /// Lets children do things at once, beside the parent. The count at the end is one that the parent has read, or one of
    /// which it need not know.
    fn parent_knows(children: &'static [(Status, &'static [Status])]) {
        let run = move || {
            let mut board = Scoreboard::new(children.len()).unwrap();
            let slots: Vec<SlotIndex> = children.iter().map(|_| board.open_next(0).0).collect();
            for (slot, (first, _)) in iter::zip(&slots, children) {
                board.claim(*slot, Pid::from_raw(1), 0);
                let _ = board.set_status(*slot, *first, 0);
            }
            let (ring, bell) = channel();
            let handles: Vec<_> = iter::zip(slots, children)
                .map(|(slot, (_, statuses))| {
                    let (board, ring) = (board.inherited(), ring.clone());
                    thread::spawn(move || does(&board, slot, statuses, &ring))
                })
                .collect();
            drop(ring);
            let read = parent(&mut board, &bell);
            handles.into_iter().for_each(|handle| handle.join().unwrap());
            let is = board.idle();
            assert!(
                read == is || (BAND.low..=BAND.high).contains(&is),
                "the parent has read {read}, and {is} are idle"
            );
        };
        shuttle::check_dfs(run, Some(3_000));
        shuttle::check_random(run, 3_000);
    }

    use Status::{FirstWait, Keep, Req, Wait};

    #[test] // O-DT-09: two that stop waiting at once, and neither is missed
    fn shortage_is_told() {
        parent_knows(&[(Wait, &[Req]), (Wait, &[Req]), (Wait, &[])]);
    }

    #[test] // O-DT-09
    fn plenty_is_told() {
        parent_knows(&[(Req, &[Wait]), (Req, &[Wait]), (Wait, &[]), (Wait, &[])]);
    }

    #[test] // O-DT-09: the count leaves the band and comes back, and leaves it again
    fn children_that_come_and_go_are_told() {
        parent_knows(&[(Wait, &[Req, Wait, Req]), (FirstWait, &[Wait, Req]), (Wait, &[Req, Keep])]);
    }

    #[test] // O-DM-08: while the parent has no news it takes no old answer for the new one
    fn answer_is_told_with_what_it_is() {
        let run = || {
            let mut board = Scoreboard::new(1).unwrap();
            let slot = board.open_next(0).0;
            board.answer_call(slot, true);
            board.call(slot);
            let child = board.inherited();
            let answering = thread::spawn(move || child.answer_call(slot, false));
            assert_ne!(board.answer(slot), Answer::Accepts);
            answering.join().unwrap();
            assert_eq!(board.answer(slot), Answer::Paused);
        };
        shuttle::check_dfs(run, Some(10_000));
    }

    #[test] // O-DT-09: a question to let a client go is taken once, by whom it is for
    fn question_is_taken_once() {
        let run = || {
            let mut board = Scoreboard::new(2).unwrap();
            let slots = [board.open_next(0).0, board.open_next(0).0];
            board.ask_to_release(slots[0]);
            let board = Arc::new(board);
            let takers: Vec<_> = [slots[0], slots[0], slots[1]]
                .map(|slot| {
                    let board = Arc::clone(&board);
                    thread::spawn(move || board.takes_release(slot))
                })
                .into();
            let taken: Vec<bool> = takers.into_iter().map(|taker| taker.join().unwrap()).collect();
            assert_eq!(taken.iter().filter(|taken| **taken).count(), 1);
            assert!(!taken[2] && !board.is_asked_to_release());
        };
        shuttle::check_dfs(run, Some(10_000));
    }
}

//! The board as one process sees it, with threads where processes would be: they share the mapping in the same way.
//! A child killed half way is played by doing half of what it does.

use std::sync::Barrier;
use std::sync::atomic::Ordering::Release;
use std::sync::atomic::{AtomicBool, fence};
use std::thread;
use std::time::{Duration, Instant};

use super::*;

mod model;

#[test] // O-DM-08: a child's answer is its own, and its successor in the slot has not been asked
fn child_answers_for_itself_since_it_was_last_asked() {
    let (mut board, owned) = board_with(70, 70, Status::Wait);
    let (first, last) = (owned[0], owned[69]);
    assert_eq!(board.answer(last), Answer::Accepts);
    for slot in &owned {
        board.call(*slot);
    }
    assert_eq!((board.answer(first), board.answer(last)), (Answer::Missing, Answer::Missing));
    board.answer_call(last, false);
    assert_eq!((board.answer(first), board.answer(last)), (Answer::Missing, Answer::Paused));
    assert!(board.is_called(first) && !board.is_called(last));
    board.call(last);
    assert_eq!(board.answer(last), Answer::Missing);
    board.answer_call(last, true);
    assert_eq!(board.answer(last), Answer::Accepts);
    for slot in [first, last] {
        board.answer_call(slot, false);
        board.call(slot);
        board.reclaim(slot);
        board.open(slot, 2, 0);
        assert_eq!(board.answer(slot), Answer::Accepts);
    }
}

/// Makes a board with `children` children that have reached `status`, and answers the bell they rang.
fn board_with(slots: usize, children: usize, status: Status) -> (Scoreboard, Vec<SlotIndex>) {
    let mut board = Scoreboard::new(slots).unwrap();
    let owned: Vec<_> = (0..children).map(|_| board.open_next(1).0).collect();
    for &slot in &owned {
        board.claim(slot, pid(slot), 2);
        let _ = board.set_status(slot, status, 3);
    }
    board.answer_bell();
    (board, owned)
}

/// Publishes and expects to be told that there is no need to read again.
fn publish(board: &mut Scoreboard, low: u32, high: u32) {
    assert_eq!(board.publish(Thresholds { low, high }), Ring::No);
}

fn pid(slot: SlotIndex) -> Pid {
    Pid::from_raw(1000 + i32::try_from(slot.get()).unwrap())
}

#[test] // D-SB-01: the states and their letters
fn statuses_are_read_by_letter_and_by_word() {
    assert_eq!(Status::ALL.map(Status::letter), [' ', 'F', 'f', '.', 'w', 'r', 'l', 'k', 'e']);
    for status in Status::ALL {
        assert_eq!(status.to_string().parse(), Ok(status));
        assert_eq!(Status::from_bits(status.to_bits()), Some(status));
    }
    for (word, status) in [("req", Status::Req), ("long", Status::Long), ("wait", Status::Wait), ("exit", Status::Exit)]
    {
        assert_eq!(Status::try_from(word), Ok(status));
    }
    assert_eq!("FORK".parse(), Ok(Status::Forking));
    assert_eq!("fork".parse(), Ok(Status::Forked));
}

#[test] // D-SB-01: `done` is no state of the board
fn done_is_a_report_and_not_a_status() {
    assert_eq!("done".parse::<Status>().unwrap_err().word(), "done");
    assert_eq!("done".parse(), Ok(Report::Done));
    assert_eq!(Report::Done.status(), Status::Wait);
    assert!("".parse::<Status>().is_err());
}

#[test] // D-PF-05: an unknown status is an error to the caller
fn an_unknown_report_is_named_in_the_error() {
    for report in [Report::Req, Report::Long, Report::Keep, Report::Wait, Report::Done] {
        assert_eq!(Report::try_from(report.to_string().as_str()), Ok(report));
    }
    let error = "busy".parse::<Report>().unwrap_err();
    assert_eq!(error.to_string(), "unknown status \"busy\", expected req, long, keep, wait or done");
    assert!("fork".parse::<Report>().is_err());
}

#[test] // D-PF-12: only in a pool that can't grow, and only when it begins
fn a_child_that_begins_to_keep_its_client_rings_in_a_full_pool() {
    let (mut board, owned) = board_with(2, 2, Status::Req);
    publish(&mut board, 0, u32::MAX);
    assert_eq!(board.set_status(owned[0], Status::Keep, 4), Ring::No);
    board.publish_full(true);
    assert_eq!(board.set_status(owned[0], Status::Keep, 5), Ring::No, "it keeps it already");
    assert_eq!(board.set_status(owned[0], Status::Req, 6), Ring::No);
    assert_eq!(board.set_status(owned[0], Status::Keep, 7), Ring::Yes);
    assert_eq!(board.set_status(owned[1], Status::Keep, 8), Ring::No, "the bell is raised");
    assert!(board.answer_bell());
    assert_eq!((board.letters().as_str(), board.idle()), ("kk", 0));
    assert_eq!(board.read(owned[0]).map(|slot| slot.since_ms), Ok(7));
    board.publish_full(false);
    let _ = board.set_status(owned[1], Status::Req, 9);
    assert_eq!(board.set_status(owned[1], Status::Keep, 10), Ring::No);
    // From any of the three a child that waits counts again.
    for (status, now_ms) in [(Status::Keep, 11), (Status::Long, 13)] {
        let _ = board.set_status(owned[0], status, now_ms);
        let _ = board.set_status(owned[0], Status::Wait, now_ms + 1);
        assert_eq!(board.idle(), 1);
    }
}

#[test] // D-PF-12
fn a_question_is_one_childs_and_is_taken_once() {
    let (board, owned) = board_with(2, 2, Status::Keep);
    assert!(!board.is_asked_to_release());
    board.ask_to_release(owned[1]);
    assert!(board.is_asked_to_release() && !board.takes_release(owned[0]));
    assert!(board.takes_release(owned[1]) && !board.takes_release(owned[1]));
    assert!(!board.is_asked_to_release());
}

#[test] // D-SB-02
fn a_board_that_is_too_large_is_refused() {
    assert!(matches!(Scoreboard::new(Scoreboard::MAX_SLOTS + 1), Err(BoardError::TooManySlots { .. })));
}

#[test] // D-SB-02: what a slot holds, through the life of a child
fn a_slot_tells_its_childs_life() {
    let mut board = Scoreboard::new(3).unwrap();
    let (slot, generation) = board.open_next(100);
    assert_eq!((slot.get(), generation, board.letters().as_str()), (0, 1, "F  "));
    assert_eq!(board.read(slot).unwrap().pid, None);

    board.claim(slot, Pid::from_raw(77), 105);
    assert_eq!(board.letters(), "f  ");
    assert_eq!(board.set_status(slot, Status::Wait, 110), Ring::Yes);
    assert_eq!(board.set_status(slot, Status::Req, 200), Ring::No);
    assert_eq!(board.count_request(slot), 1);
    board.set_peer_label(slot, "192.0.2.1:4711");
    let expected = SlotSnapshot {
        status: Status::Req,
        pid: Some(Pid::from_raw(77)),
        generation: 1,
        requests: 1,
        started_ms: 105,
        since_ms: 200,
        peer: PeerLabel::new("192.0.2.1:4711"),
    };
    assert_eq!(board.read(slot), Ok(expected));
    assert_eq!((board.letters().as_str(), board.indices().len(), board.free()), ("r  ", 3, 2));

    assert_eq!(board.reclaim(slot), Some(expected));
    assert_eq!(board.letters(), "   ");
    assert_eq!(
        board.read(slot),
        Ok(SlotSnapshot { generation: 1, ..SlotSnapshot::load(board.slot(slot), Status::Exit) })
    );
    assert_eq!(board.read(slot).unwrap().peer.as_str(), "");
}

#[test] // D-SB-04: slots are never shared, whatever the order of deaths
fn no_slot_is_given_back_twice() {
    let (mut board, owned) = board_with(4, 4, Status::Wait);
    assert!(board.reclaim(owned[2]).is_some());
    assert!(board.reclaim(owned[1]).is_some());
    assert_eq!(board.reclaim(owned[1]), None);
    assert_eq!(board.generation(owned[1]), None);
    board.open(owned[1], 2, 9);
    assert_eq!(board.generation(owned[1]), Some(2));
    assert_eq!(board.reclaim(owned[1]).map(|last| last.generation), Some(2));
}

#[test] // D-SB-04: the parent's own table decides, not the shared memory
fn a_child_that_scribbles_frees_and_takes_nothing() {
    let (mut board, owned) = board_with(3, 2, Status::Wait);
    board.slot(owned[0]).status.store(0, Relaxed);
    board.slot(owned[1]).status.store(0xdead, Relaxed);
    board.slot(owned[1]).generation.store(55, Relaxed);
    board.slot(owned[1]).pid.store(u32::MAX, Relaxed); // -1, which kill(2) takes for everybody
    assert_eq!(board.letters(), " ? ");
    assert_eq!(board.read(owned[1]), Err(Torn));
    assert_eq!(board.open_next(9).0.get(), 2);
    let last = board.reclaim(owned[1]).unwrap();
    assert_eq!((last.generation, last.pid), (1, None));
}

#[test] // D-BA-01: a request's time counts from its beginning
fn repeating_a_status_keeps_the_time_it_began() {
    let (board, owned) = board_with(1, 1, Status::Req);
    assert_eq!(board.set_status(owned[0], Status::Req, 500), Ring::No);
    assert_eq!(board.read(owned[0]).unwrap().since_ms, 3);
}

#[test] // O-ST-02, T14, T19: a writer killed half way blocks nobody, and its slot is whole again once it is reclaimed
fn a_child_killed_while_it_writes_leaves_a_torn_slot_until_it_is_reclaimed() {
    let (mut board, owned) = board_with(1, 1, Status::Req);
    let record = board.slot(owned[0]);
    record.sequence.store(record.sequence.load(Relaxed) | 1, Relaxed);
    record.requests.store(17, Relaxed);
    assert_eq!(board.read(owned[0]), Err(Torn));
    assert_eq!(board.letters(), "r");
    assert_eq!(board.reclaim(owned[0]).unwrap().requests, 17);
    assert_eq!(board.read(owned[0]).unwrap().status, Status::Empty);
    let (slot, generation) = board.open_next(9);
    assert_eq!(board.read(slot).unwrap().generation, generation);
}

#[test] // T14: a reader that began before the death does not take what the parent wrote since for whole
fn reclaiming_never_gives_a_sequence_back_to_an_earlier_reader() {
    for killed_while_writing in [false, true] {
        let (mut board, owned) = board_with(1, 1, Status::Req);
        let before = board.slot(owned[0]).sequence.load(Relaxed);
        if killed_while_writing {
            board.slot(owned[0]).sequence.store(before | 1, Relaxed);
        }
        board.reclaim(owned[0]);
        assert_eq!(board.slot(owned[0]).sequence.load(Relaxed), before + 2);
    }
}

#[test] // D-SB-03, T19: no reader sees a mixture, though the writer dies half way now and then
fn three_readers_see_no_inconsistent_snapshot() {
    let (board, owned) = board_with(1, 1, Status::Req);
    let (slot, finished) = (owned[0], AtomicBool::new(false));
    let change = |record: &shared_memory::Slot, n: u32| {
        record.generation.store(n, Relaxed);
        record.requests.store(n.into(), Relaxed);
        record.started_ms.store(n.into(), Relaxed);
        record.since_ms.store(n.into(), Relaxed);
        record.peer.iter().for_each(|word| word.store(u64::from(n), Relaxed));
    };
    snapshot::write(board.slot(slot), |record| change(record, 0));
    let (whole, deadline) = (AtomicU64::new(0), Instant::now() + Duration::from_secs(60));
    thread::scope(|scope| {
        let read_all = || {
            while !finished.load(Acquire) {
                let Ok(seen) = board.read(slot) else { continue };
                let n = u64::from(seen.generation);
                assert_eq!([seen.requests, seen.started_ms, seen.since_ms], [n; 3]);
                assert_eq!(seen.peer.to_words(), [n; 3]);
                whole.fetch_add(1, Relaxed);
            }
        };
        let readers: Vec<_> = (0..3).map(|_| scope.spawn(read_all)).collect();
        let mut n = 0;
        while whole.load(Relaxed) < 50_000 && Instant::now() < deadline && !readers.iter().any(|r| r.is_finished()) {
            n += 1;
            if n % 7 == 0 {
                // Killed half way: the sequence stays odd, some fields are new, until the next write heals it.
                let record = board.slot(slot);
                record.sequence.store(record.sequence.load(Relaxed) | 1, Relaxed);
                fence(Release);
                record.requests.store(u64::MAX, Relaxed);
            }
            snapshot::write(board.slot(slot), |record| change(record, n));
        }
        finished.store(true, Release);
    });
    assert!(whole.into_inner() >= 50_000, "the readers got nowhere");
}

#[test] // D-PF-06: every child counts, wherever its bit lies
fn all_idle_children_are_counted() {
    for children in [0, 1, 63, 64, 65, 128] {
        let (mut board, owned) = board_with(children, children, Status::Wait);
        assert_eq!(usize::try_from(board.idle()), Ok(children));
        owned.iter().for_each(|&slot| _ = board.reclaim(slot));
        assert_eq!(board.idle(), 0);
    }
}

#[test] // D-PF-06: the parent hears of a shortage at once, and once
fn the_first_child_that_makes_too_few_idle_rings() {
    let (mut board, owned) = board_with(5, 5, Status::Wait);
    publish(&mut board, 4, 5);
    assert_eq!(board.idle(), 5);
    assert_eq!(board.set_status(owned[0], Status::Req, 9), Ring::No);
    assert_eq!(board.set_status(owned[0], Status::Long, 9), Ring::No);
    assert_eq!(board.set_status(owned[1], Status::Long, 9), Ring::Yes);
    assert_eq!(board.set_status(owned[2], Status::Req, 9), Ring::No);
    assert!(board.answer_bell());
    assert!(!board.answer_bell());
    assert_eq!(board.set_status(owned[3], Status::Exit, 9), Ring::Yes);
    assert_eq!(board.idle(), 1);
}

#[test] // D-PF-06: the parent hears of a surplus at once
fn the_first_child_that_makes_too_many_idle_rings() {
    let (mut board, owned) = board_with(3, 3, Status::Req);
    publish(&mut board, 0, 1);
    assert_eq!(board.set_status(owned[0], Status::Wait, 9), Ring::No);
    assert_eq!(board.set_status(owned[1], Status::Wait, 9), Ring::Yes);
    assert_eq!(board.set_status(owned[2], Status::Wait, 9), Ring::No);
    board.answer_bell();
    assert_eq!(board.set_status(owned[2], Status::Wait, 9), Ring::No); // no change
}

#[test] // D-PF-09: starting children count as spares-to-be, so the parent must know when they are none any more
fn a_child_rings_when_it_is_ready() {
    let mut board = Scoreboard::new(2).unwrap();
    let (slot, _) = board.open_next(1);
    board.claim(slot, pid(slot), 2);
    assert_eq!(board.set_status(slot, Status::FirstWait, 3), Ring::No);
    assert_eq!(board.set_status(slot, Status::Wait, 4), Ring::Yes);
    board.answer_bell();
    assert_eq!(board.set_status(slot, Status::Req, 5), Ring::No);
    assert_eq!(board.set_status(slot, Status::Wait, 6), Ring::No);
}

#[test] // D-PF-06: no change falls between the parent's reading and its new thresholds
fn publishing_asks_for_another_reading_only_where_that_can_help() {
    let (mut board, _) = board_with(3, 3, Status::Wait);
    let starved = Thresholds { low: 4, high: 9 };
    assert_eq!(board.publish(starved), Ring::Yes);
    assert_eq!(board.publish(starved), Ring::No); // nothing new: whoever moves the count rings
    assert_eq!(board.publish(Thresholds { low: 0, high: 2 }), Ring::Yes);
    assert_eq!(board.publish(Thresholds { low: 3, high: 3 }), Ring::No);
}

#[test] // T14: a child killed before it could ring does not mute the bell
fn reclaiming_lowers_a_bell_that_its_child_may_have_raised() {
    let (mut board, owned) = board_with(3, 3, Status::Wait);
    publish(&mut board, 3, 3);
    assert_eq!(board.set_status(owned[0], Status::Req, 9), Ring::Yes); // and dies before it writes to the pipe
    board.reclaim(owned[0]);
    assert_eq!(board.set_status(owned[1], Status::Req, 9), Ring::Yes);
}

#[test] // T14: no drift, and in between the parent is called too often, not too late
fn a_child_killed_between_bit_and_slot_counts_as_not_idle() {
    let (mut board, owned) = board_with(3, 3, Status::Wait);
    publish(&mut board, 2, 3);
    let (word, bit) = board.idle_bit(owned[0]);
    word.fetch_and(!bit, SeqCst); // killed before it wrote `r`: the slot still says `w`
    assert_eq!((board.letters().as_str(), board.idle()), ("www", 2));
    assert_eq!(board.set_status(owned[1], Status::Req, 9), Ring::Yes);
    board.reclaim(owned[0]);
    assert_eq!(board.idle(), 1);
}

#[test] // D-PF-06: of two children that stop waiting at once, one sees both gone
fn of_two_children_that_leave_together_exactly_one_rings() {
    let (mut board, owned) = board_with(65, 65, Status::Wait);
    publish(&mut board, 64, 65);
    let pair = [owned[0], owned[64]]; // in different words of the bitmap
    let barrier = Barrier::new(2);
    let leave = |slot| {
        barrier.wait();
        board.set_status(slot, Status::Req, 9)
    };
    for _ in 0..2_000 {
        let rings = thread::scope(|scope| {
            let children = pair.map(|slot| scope.spawn(move || leave(slot)));
            children.map(|child| child.join().unwrap())
        });
        assert_eq!(rings.iter().filter(|&&ring| ring == Ring::Yes).count(), 1);
        for slot in pair {
            let _ = board.set_status(slot, Status::Wait, 9);
        }
        board.answer_bell();
    }
}

#[test] // D-SB-02: a peer label of a few bytes
fn a_label_keeps_the_whole_characters_that_fit() {
    assert_eq!(PeerLabel::new("[2001:db8:aaaa:bbbb::1]:443").as_str(), "[2001:db8:aaaa:bbbb::1]:");
    assert_eq!(PeerLabel::new("abcdefghijklmnopqrstuvwé").as_str(), "abcdefghijklmnopqrstuvw");
    assert_eq!(PeerLabel::new("tab\there\0and no more").to_string(), "tab\\there");
    assert_eq!(PeerLabel::default().as_str(), "");
    let (board, owned) = board_with(1, 1, Status::Req);
    board.slot(owned[0]).peer[0].store(u64::from_ne_bytes(*b"abc\xffdef\x1b"), Relaxed);
    assert_eq!(board.read(owned[0]).unwrap().peer.as_str(), "abc");
}

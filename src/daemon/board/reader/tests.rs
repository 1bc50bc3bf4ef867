//! A board read as another program reads it, in the process that writes it.

use std::fs;
use std::mem::offset_of;

use nix::unistd::Pid;

use super::super::home::Place;
#[cfg(target_os = "linux")]
use super::super::of_process::IN_MEMORY;
use super::super::{About, Facts, Scoreboard, SlotIndex, stats};
use super::*;
use crate::daemon::view::Kind;
use crate::testing::{TempDir, check as check_property};

fn about() -> About {
    About { name: "Echo".to_owned(), kind: Kind::PreForking, born_ms: 1_000 }
}

fn some_facts() -> Facts {
    let exits = vec![0, 1, 2, 0, 40, 0, 0, 0, 0, 0, 0];
    Facts {
        phase: Some(Phase::Draining),
        generation: 3,
        min_spare: 1,
        max_spare: 4,
        max_children: 5,
        start_children: 2,
        forks_in_flight: 0,
        queued: 7,
        forks: 45,
        exits,
    }
}

fn shown(dir: &TempDir, slots: usize) -> (Scoreboard, PathBuf) {
    let path = dir.path().join("board");
    let place = Place::File { path: path.clone(), owner: (None, None), is_successors: false };
    (Scoreboard::shown(slots, place, &about()).unwrap(), path)
}

fn fork(board: &mut Scoreboard, slot: usize, generation: u32) -> SlotIndex {
    board.open(SlotIndex(slot), generation, 10);
    board.claim(SlotIndex(slot), Pid::from_raw(100 + slot as i32), 20);
    SlotIndex(slot)
}

fn serve(board: &Scoreboard, slot: SlotIndex, status: Status) {
    if status.is_busy() {
        board.count_request(slot);
    }
    let _ = board.set_status(slot, status, 30);
}

#[test] // O-ST-14: what the parent and the children have said
fn board_is_read_by_another_program() {
    let dir = TempDir::new();
    let (mut board, path) = shown(&dir, 5);
    board.tell(some_facts());
    board.beat(epoch_ms(SystemTime::now()) - 2_000);
    for (slot, status) in [(0, Status::Wait), (1, Status::Req), (3, Status::Long)] {
        let slot = fork(&mut board, slot, 9);
        serve(&board, slot, status);
    }
    board.open(SlotIndex(4), 1, 10);
    board.set_peer_label(SlotIndex(1), "2001:db8::1");
    let file = BoardFile::open(&path).unwrap();
    let seen = file.snapshot().unwrap();
    assert_eq!(seen.board, "wr lF");
    let places: Vec<_> = seen.children.iter().map(|child| (child.slot, child.state)).collect();
    assert_eq!(places, [(0, 'w'), (1, 'r'), (3, 'l')]);
    let child = &seen.children[1];
    assert_eq!((child.pid, child.generation, child.requests, &*child.peer), (Some(101), 9, 1, "2001:db8::1"));
    assert_eq!((seen.pool.total, seen.pool.states.total(), seen.pool.forks_in_flight, seen.pool.slots), (3, 3, 1, 5));
    assert_eq!((seen.pool.limit, seen.pool.min_spare, seen.pool.max_spare, seen.pool.queued), (5, 1, 4, 7));
    assert_eq!((&*seen.service.name, seen.service.pid, seen.service.generation), ("Echo", std::process::id(), 3));
    assert_eq!((seen.service.phase, seen.service.kind), (Phase::Draining, Kind::PreForking));
    assert!((2.0..60.0).contains(&seen.service.heartbeat_age.unwrap()));
    assert_eq!((seen.counters.requests, seen.counters.forks, seen.counters.exits["recycled"]), (2, 45, 40));
    assert_eq!(file.parent(), ParentState::Running);
    board.withdraw();
    assert_eq!(file.parent(), ParentState::Ended);
    assert!(!path.exists());
    assert_eq!(file.snapshot().unwrap().board, "wr lF");
}

#[test] // O-ST-14
#[cfg(target_os = "linux")]
fn board_in_memory_is_found_by_its_process_and_is_not_a_childs() {
    let mut board = Scoreboard::shown(2, Place::Memory, &about()).unwrap();
    let file = BoardFile::of_process(std::process::id()).unwrap();
    assert_eq!(file.snapshot().unwrap().service.name, "Echo");
    let path = board.path().unwrap();
    assert!(path.starts_with(format!("/proc/{}/fd", std::process::id())) && path.exists());
    board.leave_to_parent();
    assert_eq!(board.path(), None);
    assert!(!path.read_link().is_ok_and(|target| target.as_os_str().as_encoded_bytes().starts_with(IN_MEMORY)));
    let error = BoardFile::of_process(1_999_999_999).unwrap_err();
    assert!(matches!(error, BoardFileError::Open { .. }), "{error}");
}

/// Writes bytes into the file of a board.
fn spoil(path: &Path, at: u64, bytes: &[u8]) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

#[test] // O-ST-15
fn other_layout_is_refused_with_both_numbers() {
    let dir = TempDir::new();
    let (_board, path) = shown(&dir, 2);
    spoil(&path, 8, &77_u32.to_ne_bytes());
    let error = BoardFile::open(&path).unwrap_err();
    assert!(matches!(error, BoardFileError::Layout { found: 77, known: LAYOUT, .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(&format!("layout 77, and this program knows layout {LAYOUT}")), "{text}");
}

#[test] // O-ST-14: no byte of a file is trusted
fn what_is_not_a_whole_board_is_refused() {
    let dir = TempDir::new();
    let (_board, path) = shown(&dir, 2);
    let copy = dir.path().join("copy");
    for length in [0, 1, PREFIX - 1, PREFIX, 4095, 4096, ShownBoard::LENGTH / 2, ShownBoard::LENGTH - 1] {
        fs::copy(&path, &copy).unwrap();
        OpenOptions::new().write(true).open(&copy).unwrap().set_len(length as u64).unwrap();
        let error = BoardFile::open(&copy).unwrap_err();
        let is_right = match error {
            BoardFileError::NotABoard { .. } => (1..PREFIX).contains(&length),
            BoardFileError::Damaged { .. } => length == 0 || length >= PREFIX,
            _ => false,
        };
        assert!(is_right, "{length}: {error}");
    }
    for (at, what) in [(0, "is not a board"), (12, "sizes"), (16, "sizes"), (20, "sizes"), (24, "sizes")] {
        fs::copy(&path, &copy).unwrap();
        spoil(&copy, at, &[0xFF; 4]);
        let error = BoardFile::open(&copy).unwrap_err().to_string();
        assert!(error.contains(what) && error.contains("copy"), "{at}: {error}");
    }
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for path in [&fifo, dir.path()] {
        assert!(matches!(BoardFile::open(path), Err(BoardFileError::NotABoard { .. })));
    }
    assert!(matches!(BoardFile::open(dir.path().join("none")), Err(BoardFileError::Open { .. })));
}

#[test] // O-ST-14
fn board_that_is_shortened_later_is_damaged() {
    let dir = TempDir::new();
    let (_board, path) = shown(&dir, 2);
    let copy = dir.path().join("copy");
    fs::copy(&path, &copy).unwrap();
    let file = BoardFile::open(&copy).unwrap();
    OpenOptions::new().write(true).open(&copy).unwrap().set_len(4096).unwrap();
    assert!(matches!(file.snapshot(), Err(BoardFileError::Damaged { .. })));
}

#[test] // O-ST-14: neither the processes of the Daemon nor a reader ends by SIGBUS
fn board_that_is_cut_short_is_lost_for_readers_only() {
    let dir = TempDir::new();
    let (mut board, path) = shown(&dir, 2);
    board.tell(some_facts());
    let slot = fork(&mut board, 0, 1);
    serve(&board, slot, Status::Req);
    serve(&board, slot, Status::Wait);
    let file = BoardFile::open(&path).unwrap();
    for length in [4096, 0] {
        OpenOptions::new().write(true).open(&path).unwrap().set_len(length).unwrap();
        serve(&board, slot, Status::Req);
        serve(&board, slot, Status::Wait);
        board.tell(Facts { queued: length as u32, ..some_facts() });
        // The page that has it is still there, and then it is not.
        let _ = file.heartbeat_age();
        assert_eq!(file.shown.is_lost(), length == 0);
        assert!(matches!(file.snapshot(), Err(BoardFileError::Damaged { .. })));
        assert!(matches!(BoardFile::open(&path), Err(BoardFileError::Damaged { .. })));
    }
    assert!(board.shared.shown().unwrap().copy().unwrap().is_lost());
    let totals = board.totals();
    assert_eq!((totals.requests, totals.request.count(), board.letters().as_str()), (3, 3, "w "));
    let last = board.reclaim(slot).unwrap();
    assert_eq!((last.requests, board.totals()), (3, Totals { busy: board.totals().busy, ..totals }));
}

#[test] // O-ST-14: no program takes for the board what is there by chance
fn parent_empties_a_board_that_is_cut_short() {
    // All but the first are as long as before when the parent looks, and the last has all of its slots.
    let whole = ShownBoard::LENGTH as u64;
    for lengths in [&[8192][..], &[0, whole], &[8192, whole], &[whole - 1, whole]] {
        let dir = TempDir::new();
        let (mut board, path) = shown(&dir, 2);
        let length = || fs::metadata(&path).unwrap().len();
        let reader = BoardFile::open(&path).unwrap();
        board.beat(10_000);
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        lengths.iter().for_each(|length| file.set_len(*length).unwrap());
        for refused in [reader.snapshot().map(drop), BoardFile::open(&path).map(drop)] {
            assert!(
                matches!(refused, Err(BoardFileError::Damaged { .. } | BoardFileError::NotABoard { .. })),
                "{lengths:?}"
            );
        }
        board.beat(10_999);
        assert_eq!(Some(&length()), lengths.last(), "it does not look at each beat");
        board.beat(11_000);
        assert_eq!(length(), 0);
    }
}

#[test] // O-ST-14, O-ST-03: a hostile writer misleads, and no more
fn any_bytes_make_a_snapshot() {
    let dir = TempDir::new();
    let (_board, path) = shown(&dir, 2);
    check_property(|dice| {
        if dice.below(8) > 0 {
            return;
        }
        let noise: Vec<u8> = (0..16 * 1024).map(|_| dice.below(256) as u8).collect();
        let skip = [PREFIX, 4096][dice.below(2) as usize];
        spoil(&path, skip as u64, &noise);
        // Else most slots would be those of a child that is in the middle of a write.
        (0..64).for_each(|slot| spoil(&path, 4096 + slot * 64, &[0; 4]));
        let file = BoardFile::open(&path).unwrap();
        let seen = file.snapshot().unwrap();
        let _ = (file.parent(), file.heartbeat_age());
        assert_eq!(seen.pool.total, seen.children.len() as u32);
        assert_eq!(seen.pool.states.total(), seen.pool.total);
        assert_eq!(seen.board.chars().count(), seen.pool.slots as usize);
        assert!(seen.board.chars().all(|letter| " Ff.wrlke?".contains(letter)), "{}", seen.board);
    });
}

#[test] // O-ST-14
fn board_of_a_process_that_is_gone_says_so() {
    let dir = TempDir::new();
    let (mut board, path) = shown(&dir, 2);
    let (start_time, boot_id) = (offset_of!(ShownHeader, start_time) as u64, offset_of!(ShownHeader, boot_id) as u64);
    let file = BoardFile::open(&path).unwrap();
    board.tell(some_facts());
    assert_eq!(file.parent(), ParentState::Running);
    let copy = dir.path().join("copy");
    fs::copy(&path, &copy).unwrap();
    // Another process has the pid by now.
    spoil(&copy, start_time, &1_u64.to_ne_bytes());
    assert_eq!(BoardFile::open(&copy).unwrap().parent(), ParentState::Dead);
    spoil(&copy, boot_id, &1_u64.to_ne_bytes());
    assert_eq!(BoardFile::open(&copy).unwrap().parent(), ParentState::EarlierBoot);
}

#[test] // O-ST-05, O-ST-11: at each moment, also between any two stores of the parent
fn sums_are_right_while_a_child_is_folded() {
    let dir = TempDir::new();
    let (mut board, path) = shown(&dir, 2);
    board.tell(some_facts());
    let file = BoardFile::open(&path).unwrap();
    let slots = [fork(&mut board, 0, 1), fork(&mut board, 1, 1)];
    for slot in slots {
        for status in [Status::Req, Status::Wait, Status::Req, Status::Wait] {
            serve(&board, slot, status);
        }
        board.record_accept_wait(slot, Duration::from_millis(5));
    }
    let sums = || {
        let seen = file.snapshot().unwrap();
        (seen.counters.requests, seen.durations.request.count(), seen.durations.accept_wait.count())
    };
    assert_eq!(sums(), (4, 4, 2));
    let mut seen = None;
    let copy = board.shared.shown().unwrap().copy().unwrap();
    let (ledger, record, stats) = (&copy.header().ledger, &copy.slots()[0], &copy.stats()[0]);
    stats::fold(ledger, 0, record, stats, now_us(), stats::Which::Shown, || {
        seen = Some(sums());
        snapshot::write(record, |record| board.begin_record(record, slots[0], Status::Empty, 0));
    });
    assert_eq!(seen, Some((4, 4, 2)));
    assert_eq!(sums(), (4, 4, 2));
    let own = board.totals();
    assert_eq!((own.requests, own.request.count(), own.accept_wait.count()), (4, 4, 2));
    assert_eq!(own.accept_wait.sum, 0.01);
}

#[test] // O-ST-05: ten thousand deaths
fn counters_never_go_back() {
    let dir = TempDir::new();
    let (mut board, path) = shown(&dir, 4);
    board.tell(some_facts());
    let file = BoardFile::open(&path).unwrap();
    let (mut before, mut requests) = (Totals::default(), 0);
    for death in 0..10_000_u32 {
        let slot = fork(&mut board, (death % 4) as usize, death + 1);
        serve(&board, slot, Status::Req);
        requests += 1;
        if death % 3 > 0 {
            serve(&board, slot, Status::Wait);
            board.record_accept_wait(slot, Duration::from_micros(death.into()));
        }
        let seen = file.totals(&board.shared.slots()[..4], ParentState::Running);
        assert_eq!(seen.requests, requests);
        for (before, seen) in [(&before.request, &seen.request), (&before.accept_wait, &seen.accept_wait)] {
            assert!(zip(&before.buckets, &seen.buckets).all(|(before, seen)| before <= seen));
            assert!(before.sum <= seen.sum);
        }
        assert!(before.busy <= seen.busy && !seen.torn);
        before = seen;
        board.reclaim(slot);
    }
    assert_eq!(before.request.count(), 6_666);
    // What the others had in hand when they ended counts as well.
    assert!(board.totals().busy > Duration::from_secs_f64(before.request.sum));
}

#[test] // O-ST-10: how long it was, and not how often a clock ticks
fn busy_time_is_that_of_the_requests() {
    let dir = TempDir::new();
    let (mut board, _path) = shown(&dir, 1);
    let slot = fork(&mut board, 0, 1);
    let shown = board.shared.shown().unwrap();
    let stats = &shown.stats()[0];
    let busy = |now| {
        let all = stats::sum_up(&shown.header().ledger, &shown.slots()[..1], shown.stats(), now).unwrap();
        (all.busy.as_micros(), all.request.count())
    };
    stats::begin_busy(stats, 1_000);
    assert_eq!((busy(Some(1_500)), busy(None)), ((500, 0), (0, 0)));
    stats::end_busy(stats, 3_000, stats::Which::Shown);
    assert_eq!((busy(Some(9_000)), busy(None)), ((2_000, 1), (2_000, 1)));
    stats::begin_busy(stats, 10_000);
    assert_eq!((busy(Some(10_100)), busy(None)), ((2_100, 1), (2_000, 1)));
    // A clock that shows less in another process.
    assert_eq!(busy(Some(0)), (0, 1));
    stats::end_busy(stats, 10_200, stats::Which::Shown);
    stats::end_busy(stats, 50_000, stats::Which::Shown);
    assert_eq!(busy(Some(60_000)), (2_200, 2));
    assert!(board.reclaim(slot).is_some());
}

#[test] // O-ST-10
fn record_is_plain_loads_and_stores_of_few_buckets() {
    let source = include_str!("../stats.rs");
    for word in ["fetch_", "compare_exchange", ".swap(", "Mutex", "AcqRel", "SeqCst"] {
        assert!(!source.contains(word), "{word}: each number has one writer");
    }
    let cells = size_of::<crate::sys::shown_memory::Cells>();
    assert!(cells <= 64 * 8 + 8, "the buckets and a sum: {cells} bytes");
    assert_eq!(cells, crate::daemon::view::Histogram::BUCKETS * 8 + 8);
}

#[test] // O-ST-10: 20 ns or less
#[ignore = "measures; run it by hand, alone, with --release"]
fn cost_of_a_record() {
    const ROUNDS: u32 = 10_000_000;
    let dir = TempDir::new();
    let (mut board, _path) = shown(&dir, 1);
    let slot = fork(&mut board, 0, 1);
    let bare = std::sync::atomic::AtomicU64::new(0);
    // So that not each duration falls into the same bucket.
    let span = |round: u32| Duration::from_nanos(u64::from(round) * 999_983 % 1_000_000_000);
    let time = |what: &dyn Fn(u32)| {
        let best = (0..5).map(|_| {
            let begin = std::time::Instant::now();
            (0..ROUNDS).for_each(what);
            begin.elapsed()
        });
        best.min().unwrap().as_secs_f64() / f64::from(ROUNDS) * 1e9
    };
    let record = time(&|round| board.record_accept_wait(slot, std::hint::black_box(span(round))));
    let bare = time(&|round| {
        std::hint::black_box(span(round));
        bare.fetch_add(1, Relaxed);
    });
    let changes = time(&|round| {
        let status = if round % 2 == 0 { Status::Req } else { Status::Keep };
        board.count_time(slot, Some(if round % 2 == 0 { Status::Keep } else { Status::Req }), status);
    });
    println!("a record {record:.1} ns, a bare fetch_add {bare:.1} ns, a status with its clock {changes:.1} ns");
    assert!(record <= 20.0);
}

#[test] // O-ST-14: as linear as it looks
#[ignore = "measures; run it by hand, alone, with --release"]
fn cost_of_a_snapshot() {
    for slots in [10, 100, 1_000, 10_000] {
        let dir = TempDir::new();
        let (mut board, path) = shown(&dir, slots);
        board.tell(some_facts());
        for slot in 0..slots {
            let slot = fork(&mut board, slot, 1);
            serve(&board, slot, Status::Req);
        }
        let file = BoardFile::open(&path).unwrap();
        let rounds = 20_000 / slots;
        let begin = std::time::Instant::now();
        (0..rounds).for_each(|_| assert_eq!(file.snapshot().unwrap().pool.total, slots as u32));
        let each = begin.elapsed() / rounds as u32;
        println!("{slots} slots: {each:?} a snapshot, {:?} a slot", each / slots as u32);
    }
}

//! What one snapshot says fits together, whoever takes it.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lenore::daemon::BoardFile;
use lenore::daemon::view::{ChildView, Snapshot, States};
use nix::sys::signal::Signal;
use util::control::Steered;
use util::{Client, DEADLINE, kill, proc, wait_until};

/// The states of the children by their letters.
fn states_of(children: &[ChildView]) -> States {
    let number = |letters: &str| children.iter().filter(|child| letters.contains(child.state)).count() as u32;
    let mut states = States::default();
    states.starting = number("Ff.");
    states.idle = number("w");
    states.busy = number("r");
    states.long = number("l");
    states.keep = number("k");
    states.exiting = number("e");
    states.torn = number("?");
    states
}

/// Asserts what holds inside each snapshot, also of a reader that sees the children change.
#[track_caller]
fn assert_fits(seen: &Snapshot) {
    let pool = &seen.pool;
    assert_eq!(states_of(&seen.children), pool.states, "{seen:?}");
    assert_eq!((pool.states.total(), seen.children.len()), (pool.total, pool.total as usize), "{seen:?}");
    let letters: Vec<char> = seen.board.chars().collect();
    assert_eq!(letters.len(), pool.slots as usize, "{seen:?}");
    for child in &seen.children {
        assert_eq!(letters[child.slot as usize], child.state, "{seen:?}");
    }
    let slots: BTreeSet<u32> = seen.children.iter().map(|child| child.slot).collect();
    assert_eq!(slots.len(), seen.children.len(), "two children in a slot: {seen:?}");
    // All other slots are free, but for those of forks on the way.
    let others = letters.iter().enumerate().filter(|(slot, _)| !slots.contains(&(*slot as u32)));
    let (free, in_flight): (Vec<_>, Vec<_>) = others.partition(|(_, letter)| **letter == ' ');
    assert!(in_flight.iter().all(|(_, letter)| **letter == 'F'), "{seen:?}");
    assert_eq!(in_flight.len() as u32, pool.forks_in_flight, "{seen:?}");
    assert_eq!((free.len() + in_flight.len() + slots.len()) as u32, pool.slots, "{seen:?}");
    let oldest = seen.children.iter().filter(|child| matches!(child.state, 'r' | 'l'));
    let oldest = oldest.map(|child| child.since.seconds_ago).reduce(f64::max);
    assert_eq!(seen.oldest_request, oldest, "{seen:?}");
    assert!(seen.durations.request.count() <= seen.counters.requests, "{seen:?}");
    assert!(seen.children.iter().map(|child| child.requests).sum::<u64>() <= seen.counters.requests, "{seen:?}");
}

/// Asserts what holds in addition where the parent itself looks.
#[track_caller]
fn assert_fits_in_parent(seen: &Snapshot) {
    assert_fits(seen);
    let counters = &seen.counters;
    assert_eq!(counters.forks, u64::from(seen.pool.total) + counters.exits.values().sum::<u64>(), "{seen:?}");
    assert!(seen.deaths.len() as u64 <= counters.exits.values().sum(), "{seen:?}");
    assert!(seen.children.iter().all(|child| child.told.is_some()), "{seen:?}");
}

/// Asks again and again, whatever becomes of the children that answer.
fn be_a_client(addr: SocketAddr, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        let Ok(mut client) = Client::try_connect(addr) else { continue };
        if client.try_send("hello\r\n").is_ok() {
            let _ = client.try_read_line();
        }
    }
}

#[test] // O-ST-02, O-ST-03
fn snapshot_fits_together_in_a_storm() {
    let steered = Steered::pool(6, "--board DIR/board");
    steered.control().ask("resize min_spare=2 max_spare=4 max_children=10").ok();
    let (is_over, board) = (AtomicBool::new(false), steered.dir.path().join("board"));
    let (pid, addr) = (steered.pid(), steered.addr);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| be_a_client(addr, &is_over));
        }
        scope.spawn(|| {
            for round in 0.. {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                let children: Vec<i32> = proc::children(pid).into_keys().collect();
                if let Some(victim) = children.get(round % children.len().max(1)) {
                    let _ = kill(*victim, Signal::SIGKILL);
                }
                thread::sleep(Duration::from_millis(5));
            }
        });
        let reader = scope.spawn(|| {
            let file = BoardFile::open(&board).expect("a board");
            let mut looks = 0;
            while !is_over.load(Ordering::Relaxed) {
                let seen = file.snapshot().expect("a board");
                // A reader may see a fork before it sees what has ended to make room for it.
                assert!(seen.pool.total <= 11, "{seen:?}");
                assert_fits(&seen);
                looks += 1;
            }
            looks
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut control = steered.control();
            let end = Instant::now() + Duration::from_secs(3);
            let mut looks = 0;
            while Instant::now() < end || looks < 100 {
                let seen = control.status();
                assert_fits_in_parent(&seen);
                assert!(seen.pool.total + seen.pool.forks_in_flight <= seen.pool.limit, "{seen:?}");
                looks += 1;
            }
            looks
        }));
        is_over.store(true, Ordering::Relaxed);
        let read = reader.join().expect("what the file says fits together");
        let asked = outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        println!("{asked} answers and {read} looks at the file");
    });
    assert!(steered.control().status().counters.exits["signaled"] > 10);
}

/// The memory of a Daemon's board. Whatever is written to it, the Daemon has written.
#[track_caller]
fn board_memory(pid: i32) -> File {
    let fds = proc::fds(pid);
    let (fd, _) = fds.iter().find(|(_, target)| target.starts_with("/memfd:lenore-board")).expect("a board in memory");
    File::options().read(true).write(true).open(format!("/proc/{pid}/fd/{fd}")).expect("it is ours")
}

#[test] // O-ST-02: as one is whose child was killed in the middle of a write
fn torn_slot_is_shown_and_counted_and_keeps_no_reader_waiting() {
    let steered = Steered::pool(3, "");
    let (mut control, memory) = (steered.control(), board_memory(steered.pid()));
    let before = control.status();
    assert_eq!((before.pool.states.torn, before.counters.torn_reads), (0, 0));
    let victim = &before.children[1];
    let mut bytes = vec![0; memory.metadata().expect("its length").len() as usize];
    memory.read_exact_at(&mut bytes, 0).expect("it is as long");
    // A slot begins with its sequence, its status and its pid. While a child writes, the sequence is odd.
    let slot = [u32::from(b'w').to_ne_bytes(), victim.pid.expect("a pid").to_ne_bytes()].concat();
    let at = bytes.windows(8).position(|window| window == slot).expect("the slot of an idle child") - 4;
    let sequence = u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    memory.write_all_at(&(sequence | 1).to_ne_bytes(), at as u64).expect("it is ours");
    for look in 1..=3 {
        let begin = Instant::now();
        let seen = control.status();
        assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
        assert_fits_in_parent(&seen);
        assert_eq!((seen.pool.total, seen.pool.states.idle, seen.pool.states.torn), (3, 2, 1), "{seen:?}");
        let child = &seen.children[1];
        assert_eq!((child.state, child.pid, child.generation), ('?', victim.pid, victim.generation));
        assert_eq!(seen.counters.torn_reads, look);
    }
    let file = BoardFile::of_process(steered.pid() as u32).expect("a board");
    let seen = file.snapshot().expect("a board");
    assert_fits(&seen);
    assert_eq!((seen.pool.states.torn, seen.counters.torn_reads), (1, 1));
    let metrics = control.ask("metrics").ok();
    assert!(metrics.contains("\nlenore_children{state=\"torn\"} 1\n"), "{metrics}");
    assert!(metrics.contains("\nlenore_board_torn_reads_total 4\n"), "{metrics}");
    // The child was not stopped, and makes its slot whole by its next write.
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(steered.addr)).collect();
    clients.iter_mut().for_each(|client| drop(client.line("hello")));
    control.wait_status("three busy children", |seen| (seen.pool.states.busy == 3).then_some(()));
}

/// Waits until both ways to see a pool show it with so many idle children, and compares them.
#[track_caller]
fn compare(steered: &Steered, files: &[&BoardFile], idle: u32) -> Snapshot {
    let seen = steered.control().wait_status("a pool that waits", |seen| {
        let is_quiet = seen.pool.states.idle == idle && seen.pool.total == idle && seen.pool.forks_in_flight == 0;
        is_quiet.then(|| seen.clone())
    });
    assert_fits_in_parent(&seen);
    for file in files {
        let read = wait_until("a file that shows the same", DEADLINE, || {
            Some(file.snapshot().expect("a board")).filter(|read| read.board == seen.board)
        });
        assert_fits(&read);
        assert_eq!(read.pool, seen.pool);
        let keys = |snapshot: &Snapshot| -> Vec<_> {
            snapshot.children.iter().map(|child| (child.slot, child.generation, child.pid, child.requests)).collect()
        };
        assert_eq!(keys(&read), keys(&seen));
        assert_eq!((read.counters.forks, &read.counters.exits), (seen.counters.forks, &seen.counters.exits));
        assert_eq!(read.counters.requests, seen.counters.requests);
    }
    seen
}

#[test] // O-ST-03, O-CT-14
fn snapshot_and_board_file_are_right_after_the_pool_was_resized() {
    let steered = Steered::pool(3, "--board DIR/board");
    let path = steered.dir.path().join("board");
    let before = BoardFile::open(&path).expect("a board");
    let first = compare(&steered, &[&before], 3);
    let mut control = steered.control();
    // Beyond the slots that there were at the start.
    let many = first.pool.slots + 40;
    control.ask(&format!("resize min_spare={many} max_spare={many} max_children={many}")).ok();
    let grown = compare(&steered, &[&before, &BoardFile::open(&path).expect("a board")], many);
    assert_eq!((grown.pool.limit, grown.pool.min_spare, grown.pool.max_spare), (many, many, many));
    assert!(grown.pool.slots >= many && grown.pool.slots > first.pool.slots, "{:?}", grown.pool);
    // The children in the new slots work and are counted.
    let mut clients: Vec<Client> = (0..many).map(|_| Client::connect(steered.addr)).collect();
    clients.iter_mut().for_each(|client| drop(client.line("hello")));
    let busy = control.wait_status("busy children", |seen| (seen.pool.states.busy == many).then(|| seen.clone()));
    assert_fits_in_parent(&busy);
    assert_fits(&before.snapshot().expect("a board"));
    assert_eq!(before.snapshot().expect("a board").pool.states.busy, many);
    // Less than what there is: children with a request stay for now.
    control.ask("resize min_spare=2 max_spare=2 max_children=2").ok();
    let over = control.status();
    assert_fits_in_parent(&over);
    assert_eq!((over.pool.limit, over.pool.total), (2, many));
    clients.iter_mut().for_each(Client::finish_sending);
    let shrunk = compare(&steered, &[&before, &BoardFile::open(&path).expect("a board")], 2);
    assert_eq!((shrunk.pool.limit, shrunk.counters.requests), (2, u64::from(many)));
    control.ask("resize reset").ok();
    let reset = compare(&steered, &[&before], 3);
    assert_eq!((reset.pool.limit, reset.pool.min_spare, reset.pool.max_spare), (3, 3, 3));
}

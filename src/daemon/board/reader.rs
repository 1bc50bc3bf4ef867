//! A board as another program reads it.

use std::cell::{Cell, RefCell};
use std::fs::{File, OpenOptions};
use std::io;
use std::iter::zip;
use std::mem::size_of;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};
use std::{error, fmt};

use nix::libc::{O_NOCTTY, O_NONBLOCK};

use super::facts::{self, Facts, Owner};
use super::snapshot::{self, READ_ATTEMPTS, SlotSnapshot};
use super::stats::{self, Totals, now_us};
use super::{Status, epoch_ms};
use crate::daemon::machine::Deaths;
use crate::daemon::view::{
    ChildView, Counters, Durations, Phase, Pool, ProcessView, Reloads, SCHEMA, Service, Snapshot, States, Upgrades,
    When, time_text,
};
use crate::sys::shared_memory::{MAX_SLOTS, Slot};
use crate::sys::shown_memory::{LAYOUT, MAGIC, ShownBoard, ShownHeader, Stats};

/// The board of a Daemon, read by another program. It says what each child does.
///
/// A Daemon with [`DaemonBuilder::board`](crate::daemon::DaemonBuilder::board) keeps its board in a file. The file can be read while
/// the parent is stopped or hangs, and after the parent was killed. A reader never waits for the Daemon and never makes it wait.
///
/// ```no_run
/// use lenore::daemon::{BoardFile, ParentState};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let board = BoardFile::open("/run/echo/board")?;
/// if board.parent() != ParentState::Running {
///     println!("process {} is {}", board.pid(), board.parent());
/// }
/// let snapshot = board.snapshot()?;
/// println!("[{}] {} of {} children", snapshot.board, snapshot.pool.total, snapshot.pool.limit);
/// for child in &snapshot.children {
///     println!("{} {} for {:.1} s: {:?}", child.slot, child.state, child.since.seconds_ago, child.peer);
/// }
/// # Ok(())
/// # }
/// ```
///
/// POE: nothing like it.
#[derive(Debug)]
pub struct BoardFile {
    path: PathBuf,
    file: File,
    shown: ShownBoard,
    owner: Owner,
    /// What was told of the children last.
    last: RefCell<Totals>,
    /// How often something could not be read whole.
    torn: Cell<u64>,
}

/// What has become of the parent process whose board a [`BoardFile`] is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ParentState {
    /// The parent is running.
    Running,
    /// The parent is stopped, for example by SIGSTOP or a debugger.
    Stopped,
    /// The Daemon has ended in order. The process may still be running.
    Ended,
    /// The parent is dead, and did not end its Daemon in order. Its children may still be running for a moment.
    Dead,
    /// The parent was running before the system was last booted.
    EarlierBoot,
}

impl fmt::Display for ParentState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ParentState::Running => "running",
            ParentState::Stopped => "stopped",
            ParentState::Ended => "ended",
            ParentState::Dead => "dead",
            ParentState::EarlierBoot => "of an earlier boot",
        })
    }
}

impl BoardFile {
    /// Opens the board in the file `path` for reading.
    ///
    /// A board whose Daemon is gone can be opened, too. [`parent`](BoardFile::parent) says whether the Daemon is gone.
    ///
    /// # Errors
    ///
    /// [`BoardFileError::Open`] if the file can't be opened or mapped. [`BoardFileError::NotABoard`] if the file is not a board.
    /// [`BoardFileError::Layout`] if the Daemon has another version of this crate. [`BoardFileError::Damaged`] if the file was cut
    /// short.
    pub fn open(path: impl AsRef<Path>) -> Result<BoardFile, BoardFileError> {
        let path = path.as_ref().to_owned();
        let cannot = |source| BoardFileError::Open { path: path.clone(), source };
        // Without waiting for the writer of a FIFO.
        let flags = O_NONBLOCK | O_NOCTTY;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(&path).map_err(cannot)?;
        check(&path, &file)?;
        let shown = ShownBoard::map(Some((&file, false))).map_err(cannot)?;
        let owner = facts::read_owner(shown.header());
        if !is_whole(&shown) {
            return Err(lost(&path));
        }
        Ok(BoardFile { path, file, shown, owner, last: RefCell::default(), torn: Cell::default() })
    }

    /// Returns the pid of the Daemon's parent process.
    pub fn pid(&self) -> u32 {
        self.owner.pid
    }

    /// Looks up what has become of the Daemon's parent process.
    ///
    /// The process is found by its pid, its start time and the boot of the system. A reader in another pid namespace does not find it,
    /// and so reports it as [`Dead`](ParentState::Dead).
    pub fn parent(&self) -> ParentState {
        if facts::boot_id().is_some_and(|boot| boot != self.owner.boot_id) {
            return ParentState::EarlierBoot;
        }
        match facts::look_at(self.owner) {
            _ if facts::read(self.shown.header()).0.phase.is_none() => ParentState::Ended,
            None | Some('Z' | 'X' | 'x') => ParentState::Dead,
            Some('T' | 't') => ParentState::Stopped,
            Some(_) => ParentState::Running,
        }
    }

    /// Returns how long ago the parent last renewed its heartbeat.
    ///
    /// The parent renews its heartbeat whenever it looks at its children. A healthy parent that has nothing else to do looks once in
    /// an interval of [`babysit`](crate::daemon::DaemonBuilder::babysit), 10 s by default. The parent of a server that does not fork
    /// renews its heartbeat only when an event happens. The age is by wall-clock time.
    pub fn heartbeat_age(&self) -> Duration {
        let heartbeat = self.shown.header().heartbeat_ms.load(Relaxed);
        Duration::from_millis(epoch_ms(SystemTime::now()).saturating_sub(heartbeat))
    }

    /// Reads the board.
    ///
    /// The board does not have what only the parent knows:
    ///
    /// - what children were told, and how long they took to start
    /// - deaths, listeners and settings
    /// - the application's metrics
    ///
    /// It does not have the usage of children either. A fork counts as in flight until the child has taken over its slot. A killed
    /// child is listed until the parent has reaped it.
    ///
    /// A slot can't be read while its child writes to it. After a bounded number of attempts the slot has the letter `?` and counts as
    /// torn. This also happens if the child was killed or stopped while it wrote.
    ///
    /// The counters of one `BoardFile` never go back. They can't be summed up while a child ends. After a bounded number of attempts
    /// the snapshot has the counters of the last snapshot, and `torn_reads` goes up.
    ///
    /// # Errors
    ///
    /// [`BoardFileError::Damaged`] if another process has cut the file short, before or during this call. The Daemon then goes on
    /// without a board until it is started or upgraded again.
    pub fn snapshot(&self) -> Result<Snapshot, BoardFileError> {
        check_length(&self.path, &self.file)?;
        let snapshot = self.read();
        check_length(&self.path, &self.file)?;
        if is_whole(&self.shown) { Ok(snapshot) } else { Err(lost(&self.path)) }
    }

    fn read(&self) -> Snapshot {
        let (header, now) = (self.shown.header(), SystemTime::now());
        let slots = (header.slots.load(Relaxed) as usize).min(MAX_SLOTS);
        let slots = &self.shown.slots()[..slots];
        let mut letters = String::with_capacity(slots.len());
        let mut children = Vec::new();
        let mut states = States::default();
        let mut forks_in_flight = 0;
        for (at, slot) in slots.iter().enumerate() {
            let (letter, seen) = read_slot(slot);
            letters.push(letter);
            match letter {
                ' ' => {}
                'F' => forks_in_flight += 1,
                _ => {
                    states.count(letter);
                    children.push(child(at, letter, &seen, now));
                }
            }
        }
        let (facts, is_whole) = facts::read(header);
        let totals = self.totals(slots, self.parent());
        let torn = u64::from(states.torn) + u64::from(totals.torn) + u64::from(!is_whole);
        self.torn.set(self.torn.get() + torn);
        Snapshot {
            schema: SCHEMA,
            time: time_text(now),
            service: self.service(&facts, now),
            pool: pool(&facts, states, forks_in_flight, slots.len()),
            board: letters,
            oldest_request: children
                .iter()
                .filter(|child| matches!(child.state, 'r' | 'l'))
                .map(|child| child.since.seconds_ago)
                .reduce(f64::max),
            children,
            listeners: Vec::new(),
            counters: Counters {
                requests: totals.requests,
                // Whether the application tells of failures is not on the board.
                requests_failed: (totals.failed > 0).then_some(totals.failed),
                forks: facts.forks,
                exits: zip(Deaths::default().by_name(), &facts.exits)
                    .map(|((name, _), count)| (name.to_owned(), *count))
                    .collect(),
                busy_seconds: totals.busy.as_secs_f64(),
                torn_reads: self.torn.get(),
                ..Counters::default()
            },
            durations: Durations { request: totals.request, accept_wait: totals.accept_wait, ..Durations::default() },
            deaths: Vec::new(),
            settings: Default::default(),
            process: ProcessView::default(),
            metrics: Vec::new(),
            reloads: Reloads::default(),
            upgrades: Upgrades::default(),
        }
    }

    fn totals(&self, slots: &[Slot], parent: ParentState) -> Totals {
        // What a child of a dead parent has in hand is not known to go on.
        let now = matches!(parent, ParentState::Running | ParentState::Stopped).then(now_us);
        let totals = stats::sum_up(&self.shown.header().ledger, slots, self.shown.stats(), now);
        let mut last = self.last.borrow_mut();
        *last = match totals {
            // Several processes read the clock at about the same time.
            Some(totals) => Totals { busy: totals.busy.max(last.busy), ..totals },
            None => Totals { torn: true, ..last.clone() },
        };
        last.clone()
    }

    fn service(&self, facts: &Facts, now: SystemTime) -> Service {
        let header = self.shown.header();
        Service {
            name: facts::load_text(&header.name),
            version: facts::load_text(&header.version),
            pid: self.owner.pid,
            started: when(header.born_ms.load(Relaxed), now),
            phase: facts.phase.unwrap_or(Phase::Stopping),
            kind: facts::kind_from_bits(header.kind.load(Relaxed)),
            generation: facts.generation,
            supervisor: None,
            heartbeat_age: Some(self.heartbeat_age().as_secs_f64()),
        }
    }
}

/// Reads a slot, as far as it can be read whole. The letter is `?` where it can't.
fn read_slot(slot: &Slot) -> (char, SlotSnapshot) {
    match (0..READ_ATTEMPTS).find_map(|_| snapshot::read(slot)) {
        Some(seen) => (seen.status.letter(), seen),
        None => ('?', SlotSnapshot::load(slot, Status::Exit)),
    }
}

fn child(at: usize, state: char, seen: &SlotSnapshot, now: SystemTime) -> ChildView {
    ChildView {
        slot: at as u32,
        generation: seen.generation,
        pid: seen.pid.map(|pid| pid.as_raw()),
        state,
        since: when(seen.since_ms, now),
        started: when(seen.started_ms, now),
        requests: seen.requests,
        peer: seen.peer.as_str().to_owned(),
        edition: None,
        told: None,
        usage: None,
    }
}

/// Makes a time of what a child has written, which may be anything.
fn when(ms: u64, now: SystemTime) -> When {
    When::new(ms.min(LATEST_MS), now)
}

fn pool(facts: &Facts, states: States, forks_in_flight: u32, slots: usize) -> Pool {
    Pool {
        states,
        total: states.total(),
        forks_in_flight,
        limit: facts.max_children,
        min_spare: facts.min_spare,
        max_spare: facts.max_spare,
        start_children: facts.start_children,
        slots: slots as u32,
        queued: facts.queued,
        ..Pool::default()
    }
}

/// Makes sure that a file is a board that this program understands, and as long as one.
fn check(path: &Path, file: &File) -> Result<(), BoardFileError> {
    let cannot = |source| BoardFileError::Open { path: path.to_owned(), source };
    let not_one = || BoardFileError::NotABoard { path: path.to_owned() };
    if !file.metadata().map_err(cannot)?.is_file() {
        return Err(not_one());
    }
    if file.metadata().is_ok_and(|found| found.len() == 0) {
        return Err(lost(path));
    }
    let mut start = [0; PREFIX];
    match file.read_exact_at(&mut start, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(not_one()),
        Err(error) => return Err(cannot(error)),
    }
    let (magic, numbers) = start.split_at(size_of::<u64>());
    if magic != MAGIC.to_ne_bytes() {
        return Err(not_one());
    }
    let (numbers, _) = numbers.as_chunks();
    let mut numbers = numbers.iter().map(|bytes| u32::from_ne_bytes(*bytes));
    let found = numbers.next().unwrap_or_default();
    if found != LAYOUT {
        return Err(BoardFileError::Layout { path: path.to_owned(), found, known: LAYOUT });
    }
    let sizes = [size_of::<ShownHeader>(), size_of::<Slot>(), size_of::<Stats>(), MAX_SLOTS];
    if !numbers.eq(sizes.map(|size| size as u32)) {
        return Err(BoardFileError::Damaged { path: path.to_owned(), what: "its sizes do not match its layout" });
    }
    check_length(path, file)
}

fn check_length(path: &Path, file: &File) -> Result<(), BoardFileError> {
    let length = file.metadata().map_err(|source| BoardFileError::Open { path: path.to_owned(), source })?.len();
    if length < ShownBoard::LENGTH as u64 { Err(lost(path)) } else { Ok(()) }
}

/// Tells whether nothing of it was cut off so far, be its file as long as before by now.
fn is_whole(shown: &ShownBoard) -> bool {
    shown.end().load(Relaxed) == MAGIC && !shown.is_lost()
}

fn lost(path: &Path) -> BoardFileError {
    BoardFileError::Damaged { path: path.to_owned(), what: "the file was cut short" }
}

/// Why a [`BoardFile`] can't be read.
///
/// `Debug` writes the same text as `Display`, as for [`Error`](crate::Error).
#[non_exhaustive]
pub enum BoardFileError {
    /// The file can't be opened or mapped.
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not a board.
    NotABoard {
        /// The file.
        path: PathBuf,
    },
    /// The layout of the board is not the one that this program reads. The Daemon has another version of this crate.
    Layout {
        /// The file.
        path: PathBuf,
        /// The layout number of the board.
        found: u32,
        /// The layout number that this program reads.
        known: u32,
    },
    /// The file was cut short, or its sizes contradict its layout.
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
}

impl fmt::Display for BoardFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BoardFileError::Open { path, source } => write!(f, "can't read the board {}: {source}", path.display()),
            BoardFileError::NotABoard { path } => write!(f, "{} is not a board", path.display()),
            BoardFileError::Layout { path, found, known } => {
                write!(f, "the board {} has layout {found}, and this program knows layout {known}", path.display())
            }
            BoardFileError::Damaged { path, what } => write!(f, "the board {} is damaged: {what}", path.display()),
        }
    }
}

impl fmt::Debug for BoardFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl error::Error for BoardFileError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        if let BoardFileError::Open { source, .. } = self { Some(source) } else { None }
    }
}

/// The length of what says how to read the rest: the magic number, the layout and four sizes.
const PREFIX: usize = size_of::<u64>() + 5 * size_of::<u32>();

/// The end of the year 9999.
const LATEST_MS: u64 = 253_402_300_799_999;

#[cfg(test)]
#[cfg(not(any(lenore_loom, lenore_shuttle)))]
mod tests;

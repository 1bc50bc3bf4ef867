//! What the parent tells of its Daemon on a board that other programs may look at.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::daemon::view::{Kind, Phase};
use crate::sys::atomics::{AtomicU64, fence};
use crate::sys::shared_memory::{MAX_SLOTS, Slot};
use crate::sys::shown_memory::{LAYOUT, MAGIC, ShownHeader, Stats};

/// What does not change as long as there is the Daemon.
#[derive(Clone, Debug)]
pub(in crate::daemon) struct About {
    /// The alias.
    pub(in crate::daemon) name: String,
    /// What kind of server it is.
    pub(in crate::daemon) kind: Kind,
    /// When it was spawned, in milliseconds since 1970.
    pub(in crate::daemon) born_ms: u64,
}

/// What changes.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::daemon) struct Facts {
    /// Where in its life it is; `None` when it is over.
    pub(in crate::daemon) phase: Option<Phase>,
    pub(in crate::daemon) generation: u32,
    pub(in crate::daemon) min_spare: u32,
    pub(in crate::daemon) max_spare: u32,
    pub(in crate::daemon) max_children: u32,
    pub(in crate::daemon) start_children: u32,
    pub(in crate::daemon) forks_in_flight: u32,
    pub(in crate::daemon) queued: u32,
    pub(in crate::daemon) forks: u64,
    /// How many children have ended for which cause, in the order of `Deaths::by_name`.
    pub(in crate::daemon) exits: Vec<u64>,
}

/// Which process a board is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) pid: u32,
    /// In clock ticks since the system was started; 0 where it does not tell.
    pub(super) start_time: u64,
    /// All zero where the system does not tell.
    pub(super) boot_id: [u64; 2],
}

impl Owner {
    pub(super) fn this_process() -> Owner {
        let pid = std::process::id();
        Owner { pid, start_time: stat(pid).map_or(0, |(_, started)| started), boot_id: boot_id().unwrap_or_default() }
    }
}

/// Reads which process a board is of.
pub(super) fn read_owner(header: &ShownHeader) -> Owner {
    Owner {
        pid: header.pid.load(Relaxed),
        start_time: header.start_time.load(Relaxed),
        boot_id: header.boot_id.each_ref().map(|half| half.load(Relaxed)),
    }
}

/// Returns the letter of what a process does, `R` or `T` for example, by `/proc`; `None` if it is gone.
#[cfg(target_os = "linux")]
pub(super) fn look_at(owner: Owner) -> Option<char> {
    let (state, start_time) = stat(owner.pid)?;
    (start_time == owner.start_time).then_some(state)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn look_at(owner: Owner) -> Option<char> {
    use nix::errno::Errno;
    use nix::sys::signal::kill;
    use nix::unistd::Pid;

    let pid = i32::try_from(owner.pid).ok().filter(|pid| *pid > 0)?;
    matches!(kill(Pid::from_raw(pid), None), Ok(()) | Err(Errno::EPERM)).then_some('R')
}

/// Writes what a new board begins with. Nobody else can see it yet.
pub(super) fn fill(header: &ShownHeader, about: &About) {
    let owner = Owner::this_process();
    header.magic.store(MAGIC, Relaxed);
    header.layout.store(LAYOUT, Relaxed);
    header.header_size.store(size_of::<ShownHeader>() as u32, Relaxed);
    header.slot_size.store(size_of::<Slot>() as u32, Relaxed);
    header.stats_size.store(size_of::<Stats>() as u32, Relaxed);
    header.max_slots.store(MAX_SLOTS as u32, Relaxed);
    header.pid.store(owner.pid, Relaxed);
    header.start_time.store(owner.start_time, Relaxed);
    std::iter::zip(&header.boot_id, owner.boot_id).for_each(|(word, half)| word.store(half, Relaxed));
    header.born_ms.store(about.born_ms, Relaxed);
    header.heartbeat_ms.store(about.born_ms, Relaxed);
    header.kind.store(kind_to_bits(about.kind), Relaxed);
    store_text(&header.name, &about.name);
    store_text(&header.version, env!("CARGO_PKG_VERSION"));
}

/// Writes what has changed so that no reader takes half of it for whole. Parent only.
pub(super) fn tell(header: &ShownHeader, facts: &Facts) {
    let busy = header.sequence.load(Relaxed) | 1;
    header.sequence.store(busy, Relaxed);
    fence(Release); // no store below becomes visible before the odd sequence does
    header.phase.store(facts.phase.map_or(OVER, phase_to_bits), Relaxed);
    header.generation.store(facts.generation, Relaxed);
    header.min_spare.store(facts.min_spare, Relaxed);
    header.max_spare.store(facts.max_spare, Relaxed);
    header.max_children.store(facts.max_children, Relaxed);
    header.start_children.store(facts.start_children, Relaxed);
    header.forks_in_flight.store(facts.forks_in_flight, Relaxed);
    header.queued.store(facts.queued, Relaxed);
    header.forks.store(facts.forks, Relaxed);
    std::iter::zip(&header.exits, &facts.exits).for_each(|(word, exits)| word.store(*exits, Relaxed));
    header.sequence.store(busy.wrapping_add(1), Release);
}

/// Reads what [`tell`] wrote, and whether it is one piece of writing.
pub(super) fn read(header: &ShownHeader) -> (Facts, bool) {
    for _ in 0..ATTEMPTS {
        let before = header.sequence.load(Relaxed);
        fence(Acquire);
        let facts = load(header);
        fence(Acquire);
        if before & 1 == 0 && header.sequence.load(Relaxed) == before {
            return (facts, true);
        }
        std::hint::spin_loop();
    }
    (load(header), false)
}

fn load(header: &ShownHeader) -> Facts {
    Facts {
        phase: phase_from_bits(header.phase.load(Relaxed)),
        generation: header.generation.load(Relaxed),
        min_spare: header.min_spare.load(Relaxed),
        max_spare: header.max_spare.load(Relaxed),
        max_children: header.max_children.load(Relaxed),
        start_children: header.start_children.load(Relaxed),
        forks_in_flight: header.forks_in_flight.load(Relaxed),
        queued: header.queued.load(Relaxed),
        forks: header.forks.load(Relaxed),
        exits: header.exits.iter().map(|word| word.load(Relaxed)).collect(),
    }
}

/// Writes as many whole characters as fit, up to the first NUL.
fn store_text(words: &[AtomicU64], text: &str) {
    let end = (0..=text.len().min(words.len() * 8)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    let mut bytes = text.as_bytes()[..end].chunks(8);
    for word in words {
        let mut part = [0; 8];
        let text = bytes.next().unwrap_or_default();
        part[..text.len()].copy_from_slice(text);
        word.store(u64::from_ne_bytes(part), Relaxed);
    }
}

/// Reads what [`store_text`] wrote, or whatever else it is: all up to the first zero, and to the first byte that is no UTF-8.
pub(super) fn load_text(words: &[AtomicU64]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.load(Relaxed).to_ne_bytes()).collect();
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    text.utf8_chunks().next().map_or("", |chunk| chunk.valid()).to_owned()
}

fn phase_to_bits(phase: Phase) -> u32 {
    PHASES.iter().position(|known| *known == phase).map_or(OVER, |at| at as u32 + 1)
}

fn phase_from_bits(bits: u32) -> Option<Phase> {
    PHASES.get((bits as usize).checked_sub(1)?).copied()
}

fn kind_to_bits(kind: Kind) -> u32 {
    KINDS.iter().position(|known| *known == kind).unwrap_or(0) as u32
}

pub(super) fn kind_from_bits(bits: u32) -> Kind {
    KINDS.get(bits as usize).copied().unwrap_or(Kind::NonForking)
}

/// Returns the letter of what a process does, and when it was started, in clock ticks since the system was.
#[cfg(target_os = "linux")]
fn stat(pid: u32) -> Option<(char, u64)> {
    let stat = crate::sys::procfs::Stat::read(pid).ok()?;
    Some((stat.state()?, stat.number(22)?))
}

#[cfg(not(target_os = "linux"))]
fn stat(_: u32) -> Option<(char, u64)> {
    None
}

/// Returns which start of the system this is.
#[cfg(target_os = "linux")]
pub(super) fn boot_id() -> Option<[u64; 2]> {
    let text = crate::sys::procfs::read_to_string("sys/kernel/random/boot_id").ok()?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let half = |from: usize| u64::from_str_radix(digits.get(from..from + 16)?, 16).ok();
    Some([half(0)?, half(16)?])
}

#[cfg(not(target_os = "linux"))]
pub(super) fn boot_id() -> Option<[u64; 2]> {
    None
}

/// Each phase has its place here plus 1 as its number.
const PHASES: [Phase; 5] = [Phase::Starting, Phase::Ready, Phase::Reloading, Phase::Draining, Phase::Stopping];
/// The phase of a Daemon that has ended.
const OVER: u32 = 100;

/// Each kind has its place here as its number.
const KINDS: [Kind; 3] = [Kind::NonForking, Kind::PreForking, Kind::PostForking];

/// How often a reader tries.
const ATTEMPTS: u32 = 1_000;

//! Mappings of files that another process may cut short.
//!
//! A process that touches what is gone of a mapped file gets SIGBUS, which ends it. The handler here puts memory of this process's
//! own in place of the whole mapping, notes that, and returns. The access is then made again, and finds zeroes. So the process goes on,
//! and [`Watch::is_lost`] says that what is there has nothing to do with the file any more. A file system that is full when a page
//! of a sparse file is written for the first time causes the same signal, and is treated in the same way.
//!
//! The handler is installed with the first mapping that is watched. A fault elsewhere, and a SIGBUS that a process has sent, goes to the
//! handler that was there before. If there was none, the signal ends the process as it would have. The handler of the standard library
//! sets the signal back to its default: a program that survives a SIGBUS that was sent to it is no longer protected. A handler that the program
//! installs later has to call this one; those of the crate signal-hook do. A forked child has the handler and all that is
//! watched. An exec resets the handler.

use std::ffi::c_void;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::SeqCst};

use nix::errno::Errno;
use nix::libc;

/// Watches one mapping until it is dropped, which has to be before the mapping is undone.
#[derive(Debug)]
pub(super) struct Watch(&'static Place);

/// A mapping that is watched. The handler reads it, so it is made of atomics.
#[derive(Debug)]
struct Place {
    /// One of the constants below. The other fields count in [`WATCHED`] and [`LOST`] only.
    state: AtomicU8,
    start: AtomicUsize,
    length: AtomicUsize,
    is_writable: AtomicBool,
}

const FREE: u8 = 0;
/// It is being filled in.
const TAKEN: u8 = 1;
const WATCHED: u8 = 2;
/// Memory of this process's own is in its place.
const LOST: u8 = 3;

/// As many as one process could reasonably have. Whatever is mapped beyond that is not watched.
static PLACES: [Place; 32] = [const {
    Place {
        state: AtomicU8::new(FREE),
        start: AtomicUsize::new(0),
        length: AtomicUsize::new(0),
        is_writable: AtomicBool::new(false),
    }
}; 32];

/// What was done on the signal before the handler was installed; `None` if it could not be installed.
static BEFORE: OnceLock<Option<libc::sigaction>> = OnceLock::new();

impl Watch {
    /// Watches the `length` bytes from `start` on, which begin at a page and are mapped. `None` if that is not possible.
    pub(super) fn new(start: usize, length: usize, is_writable: bool) -> Option<Watch> {
        BEFORE.get_or_init(|| install().ok()).as_ref()?;
        let take = |place: &&Place| place.state.compare_exchange(FREE, TAKEN, SeqCst, SeqCst).is_ok();
        let place = PLACES.iter().find(take)?;
        place.start.store(start, SeqCst);
        place.length.store(length, SeqCst);
        place.is_writable.store(is_writable, SeqCst);
        place.state.store(WATCHED, SeqCst);
        Some(Watch(place))
    }

    /// Tells whether memory of this process's own is in place of the file.
    pub(super) fn is_lost(&self) -> bool {
        self.0.state.load(SeqCst) == LOST
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.state.store(FREE, SeqCst);
    }
}

/// Installs the handler, and returns what was done on the signal before.
fn install() -> nix::Result<libc::sigaction> {
    // SAFETY: a structure of numbers; all zeros are valid.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handle as extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut c_void) as libc::sighandler_t;
    // The handler before may need a stack of its own, as that of the standard library does, which looks for stack overflows.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: both are valid, and `handle` has the type of a handler with SA_SIGINFO. It does only what is async-signal-safe: it
    // reads and writes atomics, makes system calls, and keeps errno. Nothing in it can panic. `BEFORE` is not set yet, so a
    // signal that comes now and is not for this handler ends the process.
    Errno::result(unsafe { libc::sigaction(libc::SIGBUS, &action, &mut before) })?;
    Ok(before)
}

extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let errno = Errno::last_raw();
    // SAFETY: the system passes a valid structure to a handler with SA_SIGINFO.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr().addr()) };
    if code != libc::BUS_ADRERR || !replace(address) {
        pass_on(signal, info, context, code > 0);
    }
    Errno::set_raw(errno);
}

/// Puts other memory in place of the mapping that has `address`. Returns whether there is one.
fn replace(address: usize) -> bool {
    for place in &PLACES {
        let (state, start, length) = (place.state.load(SeqCst), place.start.load(SeqCst), place.length.load(SeqCst));
        if (state != WATCHED && state != LOST) || !(start..start.saturating_add(length)).contains(&address) {
            continue;
        }
        if state == LOST {
            // Another thread was quicker.
            return true;
        }
        let writes = if place.is_writable.load(SeqCst) { libc::PROT_WRITE } else { 0 };
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        let start = ptr::with_exposed_provenance_mut(start);
        // SAFETY: the range is a mapping that the owner of the `Watch` has made and keeps as long as the place is watched. All
        // references into it are to atomics, for which other values are as good, and stay valid, as the range is mapped at each
        // moment with the same access.
        let mapped = unsafe { libc::mmap(start, length, libc::PROT_READ | writes, flags, -1, 0) };
        if mapped == libc::MAP_FAILED {
            return false;
        }
        place.state.store(LOST, SeqCst);
        return true;
    }
    false
}

/// Does what would have been done without this handler.
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut c_void, is_fault: bool) {
    let before = BEFORE.get().and_then(Option::as_ref);
    match before.map(|before| (before.sa_sigaction, before.sa_flags)) {
        Some((libc::SIG_IGN, _)) if !is_fault => {}
        // A fault comes again when this returns, and a signal that was sent is raised again.
        None | Some((libc::SIG_DFL | libc::SIG_IGN, _)) => {
            // SAFETY: `SIG_DFL` runs no code of this process.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
            if !is_fault {
                // SAFETY: takes a number. The signal is blocked until this handler returns.
                unsafe { libc::raise(signal) };
            }
        }
        Some((handler, flags)) if flags & libc::SA_SIGINFO != 0 => {
            type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut c_void);
            // SAFETY: the system has had it as a handler with SA_SIGINFO, so it is a function of this type.
            let handler = unsafe { std::mem::transmute::<libc::sighandler_t, Handler>(handler) };
            handler(signal, info, context);
        }
        Some((handler, _)) => {
            // SAFETY: the system has had it as a handler without SA_SIGINFO, so it is a function of this type.
            let handler = unsafe { std::mem::transmute::<libc::sighandler_t, extern "C" fn(libc::c_int)>(handler) };
            handler(signal);
        }
    }
}

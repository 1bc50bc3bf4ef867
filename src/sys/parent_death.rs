//! Acting on the parent's death in a child that is blocked in a state: a C library, a sleep, a long computation.
//!
//! The system sends the child a signal when its parent dies (`PR_SET_PDEATHSIG`). The handler first sets a timer. A child
//! whose loop runs learns of the death meanwhile in another way and calls [`disarm`]. In a child that has not done so when
//! the timer goes off, the handler closes the noted listeners, and sets a second timer, which kills the process.
//!
//! The handler works on the thread that has called [`arm`], so nothing of the kernel's runs at the same time. What it
//! changes looks to the kernel as before: the descriptors stay open, and registered if they were.
//!
//! The system forgets about the signal when the process changes its user or group after [`arm`]. A fork does not inherit
//! the signal, and an exec resets the handler.

use std::ffi::c_void;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU8, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::time::{ClockId, clock_gettime};

/// The signal, once the handler is installed; 0 before.
static SIGNAL: AtomicI32 = AtomicI32::new(0);
/// The process that is armed, whose first thread has the same number. A process that it forks has another one.
static OWNER: AtomicI32 = AtomicI32::new(0);
static PARENT: AtomicI32 = AtomicI32::new(0);
/// The epoll instance of the kernel.
static POLLER: AtomicI32 = AtomicI32::new(-1);
/// How far it has come: one of the four phases below.
static PHASE: AtomicU8 = AtomicU8::new(OFF);
/// The listeners have been replaced.
static REPLACED: AtomicBool = AtomicBool::new(false);
/// When the process is to be killed, in nanoseconds of the monotonic clock; 0 if `OTHERWISE` counts.
static DEADLINE: AtomicU64 = AtomicU64::new(0);
/// The nanoseconds that the process may live on, for a process without a deadline.
static OTHERWISE: AtomicU64 = AtomicU64::new(0);
/// What is to be closed. Null, or a value that is never changed nor freed.
static NOTES: AtomicPtr<Notes> = AtomicPtr::new(ptr::null_mut());
/// The timers, while the phase is not `OFF`.
static LOOK_AGAIN: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
static KILL: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

const OFF: u8 = 0;
const WATCHING: u8 = 1;
/// The parent is gone, and the process has [`PATIENCE`] to learn of it by itself.
const GONE: u8 = 2;
/// It has not learned of it. The listeners are closed, and the timer that kills is set.
const BLOCKED: u8 = 3;

/// How long a process may take to notice the parent's end by itself.
const PATIENCE: Duration = Duration::from_millis(500);

struct Notes {
    listeners: Vec<Noted>,
    /// The socket that replaces them. It is opened beforehand, as a child that is blocked may have no descriptor left, and by
    /// the first parent, as the system takes its time to open and close one in each child.
    idle: Option<Noted>,
}

/// A socket, recognised by its inode if another file has its number by now.
#[derive(Clone, Copy)]
struct Noted {
    fd: RawFd,
    inode: libc::ino_t,
}

impl Noted {
    fn new(fd: RawFd) -> Option<Noted> {
        Some(Noted { fd, inode: inode_of_socket(fd)? })
    }

    fn is_there(&self) -> bool {
        inode_of_socket(self.fd) == Some(self.inode)
    }
}

/// Installs the handler, for this process and those that it forks. Returns whether it is in force: it is not if the program
/// itself uses the signal.
pub(crate) fn prepare() -> nix::Result<bool> {
    if SIGNAL.load(SeqCst) != 0 {
        return Ok(true);
    }
    let signal = signal();
    // SAFETY: a structure of numbers; all zeros are valid.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: no new action is given, and `action` is written.
    Errno::result(unsafe { libc::sigaction(signal, ptr::null(), &mut action) })?;
    if action.sa_sigaction != libc::SIG_DFL {
        return Ok(false);
    }
    action.sa_sigaction = handle as extern "C" fn(libc::c_int) as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
    // SAFETY: `action` is valid, and `handle` has the type of a handler without SA_SIGINFO. It does only what is
    // async-signal-safe: it reads and writes atomics, makes system calls, and keeps errno. Nothing in it can panic.
    Errno::result(unsafe { libc::sigaction(signal, &action, ptr::null_mut()) })?;
    // Once, for all children.
    publish(Notes { listeners: Vec::new(), idle: new_idle().and_then(Noted::new) });
    SIGNAL.store(signal, SeqCst);
    Ok(true)
}

/// Has the system tell this process, `owner`, a child that was just forked and has one thread, of the end of `parent`.
///
/// Without a deadline the process lives on for `otherwise`. Does nothing if the handler is not [in force](prepare).
///
/// # Errors
///
/// What the system refuses, such as another timer. Nothing is armed then.
pub(crate) fn arm(owner: i32, parent: i32, poller: RawFd, otherwise: Duration) -> nix::Result<()> {
    let signal = SIGNAL.load(SeqCst);
    if signal == 0 {
        return Ok(());
    }
    let look_again = new_timer(signal)?;
    let kill = new_timer(libc::SIGKILL).inspect_err(|_| delete_timer(look_again))?;
    LOOK_AGAIN.store(look_again, SeqCst);
    KILL.store(kill, SeqCst);
    PARENT.store(parent, SeqCst);
    POLLER.store(poller, SeqCst);
    OTHERWISE.store(nanos(otherwise), SeqCst);
    DEADLINE.store(0, SeqCst);
    REPLACED.store(false, SeqCst);
    OWNER.store(owner, SeqCst);
    PHASE.store(WATCHING, SeqCst);
    if let Err(errno) = send_at_parents_death(signal) {
        disarm();
        return Err(errno);
    }
    // A parent that died before the call above sends nothing.
    go_on();
    Ok(())
}

/// Notes what is to be closed. What was noted before no longer counts.
pub(crate) fn note_listeners(fds: impl Iterator<Item = RawFd>) {
    let idle = notes().and_then(|notes| notes.idle);
    publish(Notes { listeners: fds.filter_map(Noted::new).collect(), idle });
}

/// The former notes are never freed: the handler may be reading them. There are two in the life of a child.
fn publish(notes: Notes) {
    NOTES.store(Box::into_raw(Box::new(notes)), SeqCst);
}

/// Sets how long from now on the process may live without a parent; `None` for as long as [`arm`] says, from the parent's
/// death on.
pub(crate) fn set_limit(limit: Option<Duration>) {
    if PHASE.load(SeqCst) != OFF {
        DEADLINE.store(limit.map_or(0, |limit| now().saturating_add(nanos(limit)).max(1)), SeqCst);
    }
}

/// Ends all of this: the process has noticed by itself that the parent is gone.
pub(crate) fn disarm() {
    // From here on the handler does nothing.
    if PHASE.swap(OFF, SeqCst) != OFF {
        let _ = send_at_parents_death(0);
        delete_timer(LOOK_AGAIN.load(SeqCst));
        delete_timer(KILL.load(SeqCst));
    }
}

/// Has the system kill this process, which was just forked, at the end of `parent`.
///
/// # Errors
///
/// What the system refuses.
pub(crate) fn end_with(parent: i32) -> nix::Result<()> {
    send_at_parents_death(libc::SIGKILL)?;
    // SAFETY: takes nothing and touches no memory.
    if unsafe { libc::getppid() } != parent {
        super::fork::exit_now(1);
    }
    Ok(())
}

/// Tells whether the handler has put a dead socket behind each of this process's listeners.
pub(crate) fn has_replaced_listeners() -> bool {
    REPLACED.load(SeqCst) && OWNER.load(SeqCst) == nix::unistd::getpid().as_raw()
}

extern "C" fn handle(_: libc::c_int) {
    let errno = Errno::last_raw();
    act();
    Errno::set_raw(errno);
}

/// Goes on to the next phase if the parent is gone, in the right thread.
fn act() {
    let owner = OWNER.load(SeqCst);
    // SAFETY: takes nothing and touches no memory.
    if unsafe { libc::gettid() } != owner {
        // SAFETY: as above.
        if unsafe { libc::getpid() } == owner {
            // It has come to another thread, beside which the kernel may run: it is for the first one.
            // SAFETY: takes numbers only.
            unsafe { libc::syscall(libc::SYS_tgkill, owner, owner, SIGNAL.load(SeqCst)) };
        }
        return;
    }
    go_on();
}

/// Goes on to the next phase if the parent is gone.
fn go_on() {
    // SAFETY: takes nothing and touches no memory.
    if unsafe { libc::getppid() } == PARENT.load(SeqCst) {
        // The thread of the parent that has forked this process is gone, and the parent goes on.
        return;
    }
    match PHASE.load(SeqCst) {
        WATCHING => {
            PHASE.store(GONE, SeqCst);
            set_timer(&LOOK_AGAIN, nanos(PATIENCE));
        }
        GONE => {
            PHASE.store(BLOCKED, SeqCst);
            set_timer(&KILL, time_left());
            replace_listeners();
        }
        _ => {}
    }
}

fn time_left() -> u64 {
    match DEADLINE.load(SeqCst) {
        0 => OTHERWISE.load(SeqCst).saturating_sub(nanos(PATIENCE)),
        deadline => deadline.saturating_sub(now()),
    }
}

/// Puts a socket that never has news behind the descriptor of each listener, and has the poller watch that in its place.
fn replace_listeners() {
    let Some(idle) = noted_idle().map(|idle| idle.fd).or_else(new_idle) else { return };
    for listener in notes().into_iter().flat_map(|notes| &notes.listeners).filter(|it| it.is_there()) {
        let (poller, fd) = (POLLER.load(SeqCst), listener.fd);
        let mut nothing = libc::epoll_event { events: 0, u64: 0 };
        // First out of the poller: another process may hold the same listener, and the poller would go on reporting it.
        // SAFETY: `nothing` is a valid event that outlives the call. What is not registered is an error and changes nothing.
        let was_watched = unsafe { libc::epoll_ctl(poller, libc::EPOLL_CTL_DEL, fd, &mut nothing) } == 0;
        // SAFETY: takes numbers. Both are open, and `fd` is still the listener: this thread alone closes it, and it is here.
        // Whoever owns `fd` finds another socket behind its number, and never a file of somebody else's.
        unsafe { libc::dup3(idle, fd, libc::O_CLOEXEC) };
        if was_watched {
            // So that the kernel, which knows it as registered, can change that or take it out.
            // SAFETY: as for the first.
            unsafe { libc::epoll_ctl(poller, libc::EPOLL_CTL_ADD, fd, &mut nothing) };
        }
    }
    REPLACED.store(true, SeqCst);
}

fn notes() -> Option<&'static Notes> {
    // SAFETY: null, or a value that was published whole and is neither changed nor freed any more.
    unsafe { NOTES.load(SeqCst).as_ref() }
}

fn noted_idle() -> Option<Noted> {
    notes()?.idle.filter(Noted::is_there)
}

/// Opens a socket that never has news. It stays open until the process ends.
fn new_idle() -> Option<RawFd> {
    // SAFETY: takes numbers only. A datagram socket, as one for streams that is not connected would be reported as hung up.
    let idle = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0) };
    (idle >= 0).then_some(idle)
}

/// Returns what tells a socket from all others, or `None` if the descriptor is not a socket's.
fn inode_of_socket(fd: RawFd) -> Option<libc::ino_t> {
    // SAFETY: a structure of numbers; all zeros are valid.
    let mut found: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `found` is written. A number that is not open is an error.
    let done = unsafe { libc::fstat(fd, &mut found) };
    (done == 0 && found.st_mode & libc::S_IFMT == libc::S_IFSOCK).then_some(found.st_ino)
}

fn send_at_parents_death(signal: libc::c_int) -> nix::Result<()> {
    // SAFETY: takes numbers only.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal as libc::c_ulong) }).map(drop)
}

/// Makes a timer of the monotonic clock that sends `signal` to this process.
fn new_timer(signal: libc::c_int) -> nix::Result<libc::timer_t> {
    // SAFETY: a structure of numbers and a union with a pointer that is only handed through; all zeros are valid.
    let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
    event.sigev_notify = libc::SIGEV_SIGNAL;
    event.sigev_signo = signal;
    let mut timer: libc::timer_t = ptr::null_mut();
    // SAFETY: `event` is read and `timer` written during the call.
    Errno::result(unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) })?;
    Ok(timer)
}

fn delete_timer(timer: libc::timer_t) {
    // SAFETY: a timer that `new_timer` has made in this process, and that is used no more.
    unsafe { libc::timer_delete(timer) };
}

fn set_timer(timer: &AtomicPtr<c_void>, nanos: u64) {
    let nanos = nanos.max(1);
    let span = libc::timespec {
        tv_sec: (nanos / NANOS_A_SECOND) as libc::time_t,
        tv_nsec: (nanos % NANOS_A_SECOND) as libc::c_long,
    };
    let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let value = libc::itimerspec { it_interval: never, it_value: span };
    // SAFETY: the phase is not `OFF`, so the timer exists and is this process's; `value` is read, and the former value is
    // not asked for. The call is async-signal-safe.
    unsafe { libc::timer_settime(timer.load(SeqCst), 0, &value, ptr::null_mut()) };
}

/// The monotonic clock.
fn now() -> u64 {
    // It is always there. If it were not, every deadline would have passed.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(u64::MAX, |now| nanos(now.into()))
}

/// No more than the timer can count: some years.
fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX).min(u64::MAX / 16)
}

/// Nothing has a use for it by default. Whatever resets handlers has it end an orphan, and nobody else.
fn signal() -> libc::c_int {
    libc::SIGRTMAX() - 1
}

const NANOS_A_SECOND: u64 = 1_000_000_000;

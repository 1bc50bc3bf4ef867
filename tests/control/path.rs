//! The control socket's path while it is made: at the start, in the place of a stale socket, and after it was lost.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use tempfile::TempDir;
use util::control::{Control, Steered};
use util::{DEADLINE, Over, Program, Running, test_program, wait_until};

fn start(path: &Path) -> Running {
    let program = Program::new(test_program("daemon_control")).args(["--mode", "prefork:1", "--max", "1"]);
    program.arg("--control").arg(path).start()
}

fn inode(path: &Path) -> io::Result<u64> {
    Ok(fs::symlink_metadata(path)?.ino())
}

/// Looks once at everything in the directory of the socket. Returns what is wrong, if anything is.
///
/// A socket has the mode of the control socket, whatever its name is. A socket at `path` has a listener, unless it is the stale one.
fn look(path: &Path, stale: Option<u64>, looks: &AtomicUsize) -> Option<String> {
    // Most of the time nothing but this, as a moment without a listener is short.
    for _ in 0..CONNECTS {
        match UnixStream::connect(path) {
            Ok(_) => {
                looks.fetch_add(1, Ordering::Relaxed);
                break;
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                let is_stale = stale.is_some() && inode(path).ok() == stale;
                // A socket that was put in its place since then is not known to refuse anything.
                if !is_stale && (stale.is_none() || UnixStream::connect(path).is_err()) {
                    return Some(format!("no listener: {error}"));
                }
            }
            Err(error) if stale.is_some() => return Some(format!("the path is missing: {error}")),
            Err(_) => {}
        }
    }
    for entry in fs::read_dir(path.parent()?).ok()? {
        let Ok(found) = fs::symlink_metadata(entry.ok()?.path()) else { continue };
        let is_stale = Some(found.ino()) == stale;
        if found.file_type().is_socket() && !is_stale && found.mode() & 0o777 != 0o600 {
            return Some(format!("the mode is {:o}", found.mode()));
        }
    }
    None
}

/// Looks all the time while `act` goes on, and returns what that returns.
#[track_caller]
fn probed<T>(path: &Path, stale: Option<u64>, act: impl FnOnce() -> T) -> T {
    let (is_over, looks) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (value, wrong) = thread::scope(|scope| {
        let prober = scope.spawn(|| {
            loop {
                // The last look is after the end.
                let is_last = is_over.load(Ordering::Acquire);
                let wrong = look(path, stale, &looks);
                if is_last || wrong.is_some() {
                    return wrong;
                }
            }
        });
        let over = Over(&is_over);
        let value = act();
        drop(over);
        (value, prober.join().expect("it only looks"))
    });
    assert_eq!(wrong, None);
    assert!(looks.into_inner() > 0, "the prober has seen a listener");
    value
}

/// What happens to the names in a directory.
struct Events(Inotify);

impl Events {
    fn of(directory: &Path) -> Events {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).expect("inotify");
        let flags =
            AddWatchFlags::IN_CREATE | AddWatchFlags::IN_ATTRIB | AddWatchFlags::IN_MOVE | AddWatchFlags::IN_DELETE;
        inotify.add_watch(directory, flags).expect("a watch");
        Events(inotify)
    }

    /// What has happened since: what, and the name.
    fn take(&self) -> Vec<(AddWatchFlags, String)> {
        let mut taken = Vec::new();
        loop {
            match self.0.read_events() {
                Ok(events) => taken.extend(events.into_iter().map(|event| {
                    let name = event.name.unwrap_or_default();
                    (event.mask, name.to_string_lossy().into_owned())
                })),
                Err(Errno::EAGAIN) => return taken,
                Err(errno) => panic!("inotify: {errno}"),
            }
        }
    }

    /// Asserts that a socket was made so often, each under another name with its mode from the beginning, and then renamed.
    #[track_caller]
    fn assert_renamed(&self, times: usize) {
        let events = self.take();
        let count = |flag: AddWatchFlags, is_own: bool| {
            events.iter().filter(|(mask, name)| mask.contains(flag) && (name == NAME) == is_own).count()
        };
        assert_eq!(count(AddWatchFlags::IN_MOVED_TO, true), times, "{events:?}");
        assert_eq!(count(AddWatchFlags::IN_CREATE, true), 0, "made in its place: {events:?}");
        assert_eq!(count(AddWatchFlags::IN_CREATE, false), times, "{events:?}");
        for is_own in [true, false] {
            assert_eq!(count(AddWatchFlags::IN_ATTRIB, is_own), 0, "changed after it was made: {events:?}");
        }
    }
}

#[test] // O-CT-02
fn path_has_its_listener_and_mode_from_the_first_moment() {
    let dir = TempDir::new().expect("a directory");
    for round in 0..ROUNDS {
        let path = dir.path().join(format!("{round}")).join(NAME);
        let directory = path.parent().expect("a directory");
        fs::create_dir(directory).expect("a directory");
        let events = Events::of(directory);
        probed(&path, None, || {
            let running = start(&path);
            // The program itself, as the prober's connections may be waiting before this one.
            Control::of(&running, &path).ask("hello").ok();
            events.assert_renamed(1);
            running
        });
    }
}

#[test] // O-CT-02, O-CT-03
fn path_of_a_stale_socket_is_never_missing_while_it_is_replaced() {
    let dir = TempDir::new().expect("a directory");
    let other = TempDir::new().expect("a directory");
    let path = dir.path().join(NAME);
    let mut running = start(&path);
    Control::of(&running, &path).ask("hello").ok();
    for _ in 0..ROUNDS {
        let children = running.children();
        running.signal(Signal::SIGKILL);
        running.wait_exit(DEADLINE);
        // A child that has just been forked has the listener as well.
        running.wait_gone(&children, DEADLINE);
        let stale = inode(&path).expect("a stale socket");
        // So that no other file gets its inode.
        let _ = fs::remove_file(other.path().join(NAME));
        fs::hard_link(&path, other.path().join(NAME)).expect("another name");
        let events = Events::of(dir.path());
        running = probed(&path, Some(stale), || {
            let next = start(&path);
            wait_until("another socket", DEADLINE, || inode(&path).is_ok_and(|found| found != stale).then_some(()));
            Control::of(&next, &path).ask("hello").ok();
            next
        });
        events.assert_renamed(1);
    }
}

#[test] // O-CT-02, O-CT-03
fn path_that_is_made_again_has_its_listener_and_mode_from_the_first_moment() {
    let steered = Steered::pool(1, "--babysit-ms 20");
    let events = Events::of(steered.dir.path());
    probed(&steered.path, None, || {
        for _ in 0..4 * ROUNDS {
            fs::remove_file(&steered.path).expect("a socket");
            steered.control().ask("hello").ok();
        }
    });
    events.assert_renamed(4 * ROUNDS);
}

#[test] // O-CT-02: with a look after each system call, as what is wrong may be so for a microsecond
fn path_has_its_listener_and_mode_after_each_system_call() {
    let steered = Steered::pool(1, "--babysit-ms 20");
    let pid = Pid::from_raw(steered.pid());
    if let Err(errno) = ptrace::seize(pid, ptrace::Options::PTRACE_O_TRACESYSGOOD) {
        eprintln!("skipped: no process can be traced here: {errno}");
        return;
    }
    fs::remove_file(&steered.path).expect("a socket");
    ptrace::interrupt(pid).expect("it is traced");
    let (looks, mut stops) = (AtomicUsize::new(0), 0);
    // Some more after the path is there.
    while looks.load(Ordering::Relaxed) < 20 {
        let signal = match waitpid(pid, None).expect("the tracer may wait") {
            WaitStatus::Stopped(_, signal) => Some(signal),
            WaitStatus::PtraceSyscall(_) | WaitStatus::PtraceEvent(..) => None,
            other => panic!("it has not stopped: {other:?}"),
        };
        assert_eq!(look(&steered.path, None, &looks), None);
        stops += 1;
        ptrace::syscall(pid, signal).expect("it has stopped");
    }
    waitpid(pid, None).expect("the tracer may wait");
    ptrace::detach(pid, None).expect("it has stopped");
    assert!(stops > 20, "{stops}");
    steered.control().ask("hello").ok();
}

#[test] // O-CT-02: given to another user, before it has its name
fn owner_of_the_path_is_set_before_it_has_its_name() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let dir = TempDir::new().expect("a directory");
    let (path, events) = (dir.path().join(NAME), Events::of(dir.path()));
    let program = Program::new(test_program("daemon_control")).args(["--mode", "prefork:1", "--max", "1"]);
    let running = program.args(["--user", "12345", "--group", "12345"]).arg("--control").arg(&path).start();
    Control::of(&running, &path).ask("hello").ok();
    let found = fs::symlink_metadata(&path).expect("a socket");
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o777), (12345, 12345, 0o600));
    let events = events.take();
    let own: Vec<_> = events.iter().filter(|(_, name)| name == NAME).map(|(mask, _)| *mask).collect();
    assert_eq!(own, [AddWatchFlags::IN_MOVED_TO], "{events:?}");
    let changed = events.iter().position(|(mask, _)| mask.contains(AddWatchFlags::IN_ATTRIB));
    let moved = events.iter().position(|(mask, _)| mask.contains(AddWatchFlags::IN_MOVED_FROM));
    assert!(changed.is_some_and(|changed| moved.is_some_and(|moved| changed < moved)), "{events:?}");
}

const NAME: &str = "control.sock";

/// How many connections are tried between two looks at the modes.
const CONNECTS: usize = 200;

/// How often a program is started.
const ROUNDS: usize = 10;

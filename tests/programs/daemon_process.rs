//! A Daemon whose process is made a daemon in whatever way the flags say, for `tests/daemon/`: it tells by lines in the
//! file `--report` what happens in which process, as it may have no standard output.

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::num::ParseIntError;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::thread::sleep;
use std::time::Duration;

use lenore::daemon::{DaemonBuilder, DaemonError, Privileges, Report};
use lenore::filter::Line;
use lenore::wheel::{ReadWrite, SocketFactory};
use lenore::{AsKernel, Context, Daemon, ForkStage, Handle, Kernel, Result, Session};
use nix::errno::Errno;
use nix::sys::signal::{Signal, raise};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use util::daemon_program::Flags;

struct App {
    flags: Flags,
    journal: Rc<Journal>,
    daemon: Option<Daemon>,
    listener: Option<SocketFactory>,
    unix: Option<SocketFactory>,
    client: Option<ReadWrite<Line>>,
    /// `--watch-fd N`: a descriptor of the launcher's.
    inherited: Option<Handle>,
    lines: u32,
    /// Tells of its end.
    _canary: Canary,
}

fn main() -> ExitCode {
    run().map_or_else(
        |error| {
            eprintln!("{error}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

fn run() -> std::result::Result<(), Box<dyn Error>> {
    util::daemon_program::log_to_stderr();
    let flags = Flags::read();
    let journal = Rc::new(Journal::open(&flags)?);
    journal.say(&format!("main {}", place()));
    // Without an end of line: it stays in the buffer of whoever flushes last.
    if flags.has("--pending") {
        print!("pending");
    }
    if let Some(ids) = flags.text("--already") {
        become_before(ids)?;
    }
    if flags.has("--only-privileges") {
        let dropped = privileges(&flags).drop_privs();
        journal.say(&format!("privileges {}", dropped.map_or_else(|error| error.to_string(), |()| place())));
        wait_for_term();
    }
    if let Some(user) = flags.text("--become") {
        Privileges::new().user(user).drop_privs()?;
    }
    let mut kernel = Kernel::new()?;
    let _canary = Canary(Rc::clone(&journal));
    hook(&mut kernel, &flags);
    let inside = flags.has("--in-state") || flags.has("--on-input");
    let daemon = if inside { None } else { Some(spawn(&mut kernel, &flags, &journal)?) };
    let canary = Canary(Rc::clone(&journal));
    let app = App {
        flags,
        journal,
        daemon,
        listener: None,
        unix: None,
        client: None,
        inherited: None,
        lines: 0,
        _canary: canary,
    };
    let journal = Rc::clone(&app.journal);
    let mut session = Session::new(app)
        .state("_start", start)
        .state("daemon_child", daemon_child)
        .state("daemon_accept", |cx| cx.heap().listener.iter().for_each(SocketFactory::resume_accept))
        .state("daemon_shutdown", |cx| {
            tell(cx)?;
            cx.heap().listener = None;
            cx.heap().unix = None;
            cx.heap().client = None;
            if let Some(handle) = cx.heap().inherited.take() {
                cx.select_read_clear(&handle);
            }
            cx.alarm_remove_all();
            Ok(())
        })
        .state("accept", accepted)
        .state("input", input)
        .state("gone", |cx| cx.heap().client = None)
        .state("timer", |cx| cx.heap().journal.say("timer"))
        .state("inherited", |cx| {
            let mut octet = [0];
            let handle = cx.heap().inherited.clone();
            let count = handle.map_or(Ok(0), |mut handle| handle.read(&mut octet))?;
            cx.heap().journal.say(&format!("inherited {count}"));
            Ok(())
        })
        .state("write", write_lines)
        .state("usr1", usr1);
    for signal in ["daemon_start", "daemon_parent", "daemon_HUP"] {
        session = session.state(signal, tell);
    }
    session.spawn(&mut kernel)?;
    kernel.run()?;
    journal.say("run returned");
    Ok(())
}

/// `--already USER:GROUP:GROUPS`, in numbers: who a launcher may have made of this process.
fn become_before(ids: &str) -> std::result::Result<(), Box<dyn Error>> {
    let [uid, gid, groups] = ids.split(':').collect::<Vec<_>>()[..] else {
        return Err("--already UID:GID:GROUPS".into());
    };
    let groups = groups.split(',').filter(|group| !group.is_empty());
    let groups = groups.map(|group| Ok(Gid::from_raw(group.parse()?))).collect::<Result<Vec<Gid>, ParseIntError>>()?;
    let (uid, gid) = (Uid::from_raw(uid.parse()?), Gid::from_raw(gid.parse()?));
    setgroups(&groups)?;
    setresgid(gid, gid, gid)?;
    Ok(setresuid(uid, uid, uid)?)
}

/// `--no-fork`: no fork succeeds; `--no-child`: none but that of detaching. `--stop-nth N`: the child of the Nth fork, detaching not counted, stops itself before
/// signals can reach it.
fn hook(kernel: &mut Kernel, flags: &Flags) {
    let (no_fork, stop) = (flags.has("--no-fork"), flags.number("--stop-nth"));
    let no_child = flags.has("--no-child");
    let mut forks = 0 - i32::from(flags.has("--detach"));
    kernel.set_fork_hook(move |stage| {
        forks += i32::from(stage == ForkStage::BeforeFork);
        match stage {
            ForkStage::BeforeFork if no_fork || no_child && forks > 0 => Err(Errno::EAGAIN.into()),
            ForkStage::BeforeUnmask if stop == Some(forks) => Ok(raise(Signal::SIGSTOP)?),
            _ => Ok(()),
        }
    });
}

fn start(cx: &mut Context<'_, App>) -> Result {
    let listener = SocketFactory::tcp("127.0.0.1:0").on_accept("accept").listen(cx)?;
    println!("listening on {}", listener.local_addr()?);
    let flags = cx.heap().flags.clone();
    if flags.has("--start") || flags.has("--max") {
        listener.pause_accept();
    }
    cx.heap().listener = Some(listener);
    for signal in util::daemon_program::SIGNALS {
        cx.sig(signal, signal);
    }
    cx.sig("USR1", "usr1");
    if let Some(path) = flags.text("--unix") {
        cx.heap().unix = Some(SocketFactory::unix(path).on_accept("accept").unlink_path().listen(cx)?);
    }
    if let Some(fd) = flags.number("--watch-fd") {
        // SAFETY: who starts this program has opened it for this, and nothing else here uses it.
        let inherited = unsafe { OwnedFd::from_raw_fd(fd) };
        let handle = Handle::new(inherited);
        cx.select_read(&handle, "inherited", ())?;
        cx.heap().inherited = Some(handle);
    }
    if flags.has("--timer") {
        cx.delay("timer", Duration::from_millis(50), ());
    }
    if flags.has("--raise") {
        // Nobody looks at the signals before the launcher has become the daemon.
        raise(Signal::SIGUSR1)?;
    }
    if flags.has("--own-child") {
        let pid = util::daemon_program::start_helper()?;
        cx.sig_child(pid, "timer", ());
    }
    if flags.has("--in-state") {
        spawn_here(cx)?;
    }
    fail_at(cx, "_start")?;
    if flags.has("--write") && !flags.has("--start") {
        cx.yield_("write", ());
    }
    Ok(())
}

fn spawn_here(cx: &mut Context<'_, App>) -> Result {
    let (flags, journal) = (cx.heap().flags.clone(), Rc::clone(&cx.heap().journal));
    let daemon = spawn(cx, &flags, &journal)?;
    cx.heap().daemon = Some(daemon);
    Ok(())
}

/// Spawns the Daemon; if that fails it says what is left of the attempt.
fn spawn<K: AsKernel>(kernel: &mut K, flags: &Flags, journal: &Journal) -> Result<Daemon, DaemonError> {
    let spawned = settings(flags).spawn(kernel);
    match &spawned {
        Ok(_) => journal.say(&format!("spawned {}", place())),
        Err(error) => {
            journal.say(&format!("failed {} {error}", place()));
            println!("still here");
            eprintln!("and here");
        }
    }
    if flags.has("--twice") {
        Daemon::builder().alias("Second").detach(true).spawn(kernel)?;
        journal.say(&format!("spawned {}", place()));
    }
    spawned
}

fn settings(flags: &Flags) -> DaemonBuilder {
    let mut daemon = Daemon::builder().detach(flags.has("--detach")).requests(0);
    if let Some(children) = flags.number::<u32>("--start") {
        let most = flags.number("--room").unwrap_or(children);
        daemon = daemon.start_children(children).max_children(most).max_spare(children);
    }
    if let Some(children) = flags.number("--max") {
        daemon = daemon.max_children(children);
    }
    if let Some(descriptors) = flags.text("--keep") {
        daemon = daemon.keep_descriptors(descriptors.split(',').filter_map(|fd| fd.parse().ok()));
    }
    daemon = daemon.dumpable(flags.has("--dumpable"));
    if let Some(children) = flags.number("--min-spare") {
        daemon = daemon.min_spare(children);
    }
    if let Some(ms) = flags.number("--start-timeout-ms") {
        daemon = daemon.start_timeout(Duration::from_millis(ms));
    }
    if let Some(path) = flags.text("--logfile") {
        daemon = daemon.logfile(path);
    }
    if let Some(mode) = octal(flags, "--logfile-mode") {
        daemon = daemon.logfile_mode(mode);
    }
    if let Some(path) = flags.text("--pid-file") {
        daemon = daemon.pid_file(path);
    }
    if let Some(user) = flags.text("--user") {
        daemon = daemon.user(user);
    }
    if let Some(group) = flags.text("--group") {
        daemon = daemon.group(group);
    }
    if let Some(groups) = flags.text("--groups") {
        daemon = daemon.groups(groups.split(',').filter(|group| !group.is_empty()));
    }
    if let Some(path) = flags.text("--chroot") {
        daemon = daemon.chroot(path);
    }
    if let Some(path) = flags.text("--cwd") {
        daemon = daemon.working_directory(path);
    }
    if let Some(mask) = octal(flags, "--umask") {
        daemon = daemon.umask(mask);
    }
    if let Some(nice) = flags.number("--nice") {
        daemon = daemon.nice(nice);
    }
    daemon
}

fn privileges(flags: &Flags) -> Privileges {
    let mut privileges = Privileges::new();
    if let Some(user) = flags.text("--user") {
        privileges = privileges.user(user);
    }
    if let Some(group) = flags.text("--group") {
        privileges = privileges.group(group);
    }
    if let Some(groups) = flags.text("--groups") {
        privileges = privileges.groups(groups.split(',').filter(|group| !group.is_empty()));
    }
    if let Some(path) = flags.text("--chroot") {
        privileges = privileges.chroot(path);
    }
    privileges
}

fn octal(flags: &Flags, name: &str) -> Option<u32> {
    u32::from_str_radix(flags.text(name)?, 8).ok()
}

/// Says which signal this is, and then fails if `--fail SIGNAL` says so.
fn tell(cx: &mut Context<'_, App>) -> Result {
    let signal = *cx.arg::<&'static str>(0)?;
    if signal == "daemon_start" && cx.heap().flags.has("--helper") {
        let pid = util::daemon_program::start_helper()?;
        cx.heap().journal.say(&format!("helper {pid}"));
    }
    cx.heap().journal.say(signal);
    let flags = cx.heap().flags.clone();
    if flags.has("--start-with-a-line") {
        eprintln!("a line");
    }
    if let (Some(at), Some(gate)) = (flags.text("--hold"), flags.text("--gate"))
        && at == signal
        && flags.number("--hold-from").is_none_or(|slot| own_slot(cx) >= Some(slot))
    {
        // Not a way to write a server, but this one is to be late.
        while Path::new(gate).exists() {
            sleep(Duration::from_millis(2));
        }
    }
    fail_at(cx, signal)
}

/// The slot of a child.
fn own_slot(cx: &mut Context<'_, App>) -> Option<usize> {
    let daemon = cx.heap().daemon?;
    daemon.status(cx).ok()?.slot
}

/// `--fail WHERE --how HOW`, with `--fail-while PATH` as long as there is such a file.
fn fail_at(cx: &mut Context<'_, App>, place: &str) -> Result {
    let flags = cx.heap().flags.clone();
    if flags.text("--fail") != Some(place) || flags.text("--fail-while").is_some_and(|gate| !Path::new(gate).exists()) {
        return Ok(());
    }
    match flags.text("--how").unwrap_or("error") {
        "panic" => panic!("told to panic"),
        "exit" => std::process::exit(7),
        "kill" => Ok(raise(Signal::SIGKILL)?),
        "shutdown" => cx.heap().daemon.map_or(Ok(()), |daemon| Ok(daemon.shutdown(cx)?)),
        _ => Err(std::io::Error::other("told to fail").into()),
    }
}

fn daemon_child(cx: &mut Context<'_, App>) -> Result {
    tell(cx)?;
    if cx.heap().flags.has("--write") {
        cx.yield_("write", ());
    }
    let is_idle = cx.heap().flags.has("--start") && !cx.heap().flags.has("--never-ready");
    match cx.heap().daemon.filter(|_| is_idle) {
        Some(daemon) => Ok(daemon.update_status(cx, Report::Wait)?),
        None => Ok(()),
    }
}

/// Writes numbered lines, of all lengths, as fast as it can; each in one piece. With its number each names the file that
/// it is written to, and how many times that has changed for this process. A file has a limit: a program whose test was
/// killed must not fill the disk.
fn write_lines(cx: &mut Context<'_, App>) -> Result {
    for _ in 0..20 {
        let (inode, length) = std::fs::metadata("/proc/self/fd/2").map_or((0, 0), |file| (file.ino(), file.len()));
        if length > LONGEST_LOG {
            break;
        }
        cx.heap().lines += 1;
        let number = cx.heap().lines;
        let filler = "x".repeat(100 + number as usize * 1237 % 8900);
        let line = format!("LINE {} {number} {inode} {filler} END\n", std::process::id());
        std::io::stderr().write_all(line.as_bytes())?;
    }
    // The pool's signals go between.
    cx.delay("write", Duration::from_millis(1), ());
    Ok(())
}

fn accepted(cx: &mut Context<'_, App>) -> Result {
    let client = ReadWrite::stream(cx.take::<std::net::TcpStream>(0)?, Line::new()).on_input("input").on_error("gone");
    let client = client.start(cx)?;
    cx.heap().client = Some(client);
    Ok(())
}

/// Answers with the pid and the line. The line `spawn` spawns the Daemon first, and `keep` tells it that this client is kept.
fn input(cx: &mut Context<'_, App>) -> Result {
    let line: String = cx.take(0)?;
    if line == "spawn" {
        spawn_here(cx)?;
    }
    if let Some(daemon) = cx.heap().daemon.filter(|_| line == "keep") {
        daemon.update_status(cx, Report::Req)?;
        daemon.update_status(cx, Report::Keep)?;
    }
    let answer = format!("{} {line}", std::process::id());
    cx.heap().client.iter().for_each(|client| _ = client.put(answer.as_str()));
    Ok(())
}

/// Writes to everything that goes to the log file.
fn usr1(cx: &mut Context<'_, App>) -> Result {
    if cx.heap().flags.has("--feed") {
        // A request for a child that is forked for it.
        if let Some(daemon) = cx.heap().daemon {
            daemon.update_status(cx, Report::Req)?;
        }
    }
    println!("on standard output");
    eprintln!("on standard error");
    log::info!("by the logger");
    if cx.heap().flags.has("--c-library") {
        // Whatever it is, it writes to descriptor 2 by itself.
        std::process::Command::new("sh").args(["-c", "echo from elsewhere >&2"]).status()?;
    }
    if cx.heap().flags.has("--usr1-read") {
        std::io::stdin().read_line(&mut String::new())?;
    }
    if let Some(terminal) = cx.heap().flags.text("--terminal") {
        // Each would become the controlling terminal of a process that could have one.
        let open =
            |path: &str| OpenOptions::new().read(true).write(true).open(path).err().and_then(|e| e.raw_os_error());
        let (own, free) = (open("/dev/tty"), open(terminal));
        cx.heap().journal.say(&format!("terminal {own:?} {free:?}"));
    }
    if cx.heap().flags.has("--usr1-panic") {
        cx.heap().journal.say("usr1");
        panic!("told to panic");
    }
    cx.heap().journal.say("usr1");
    Ok(())
}

fn wait_for_term() -> ! {
    loop {
        nix::unistd::pause();
    }
}

/// Where this process is, in its file system and its masks.
fn place() -> String {
    let mask = umask(Mode::empty());
    umask(mask);
    let directory = std::env::current_dir().map_or_else(|error| error.to_string(), |path| path.display().to_string());
    format!("cwd={directory} umask={:03o}", mask.bits())
}

/// The file of `--report`, open since before there was a jail.
struct Journal(Option<File>);

impl Journal {
    fn open(flags: &Flags) -> std::io::Result<Journal> {
        let open = |path: PathBuf| OpenOptions::new().create(true).append(true).open(path);
        flags.text("--report").map(PathBuf::from).map(open).transpose().map(Journal)
    }

    fn say(&self, text: &str) {
        if let Some(mut file) = self.0.as_ref() {
            let _ = file.write_all(format!("{} {text}\n", std::process::id()).as_bytes());
        }
    }
}

/// Says when it is dropped: once in all processes together.
struct Canary(Rc<Journal>);

impl Drop for Canary {
    fn drop(&mut self) {
        self.0.say("dropped");
    }
}

/// In bytes; much more than a test writes between two rotations.
const LONGEST_LOG: u64 = 64 << 20;

//! A pre-forking server that tells what its Daemon does to it and does what it is told, for `tests/daemon.rs`.
//!
//! Each process writes a line for each `daemon_*` signal, `PID SIGNAL`. A child answers the lines of a connection: see
//! `command`. Any process does on USR1 what `--usr1` says: see `action`.

use std::error::Error;
use std::fs::File;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::Duration;

use lenore::daemon::{DaemonBuilder, DaemonError, DaemonStatus, Peek, Report, Shutdown};
use lenore::filter::Line;
use lenore::wheel::{ListenAccept, ReadWrite, SocketFactory};
use lenore::{Context, Daemon, ForkStage, Handle, Kernel, Reason, Result, Session, SessionId};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, raise};

use util::daemon_program::{Flags, say, say_signal, try_update};

struct App {
    daemon: Daemon,
    flags: Flags,
    listener: Option<SocketFactory>,
    client: Option<ReadWrite<Line>>,
    eaten: Vec<u8>,
    more: Option<More>,
}

/// Listeners that the application never drops, and that it also keeps paused.
struct More {
    unix: SocketFactory,
    inherited: ListenAccept,
    watched: Handle,
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    util::daemon_program::log_to_stderr();
    let flags = Flags::read();
    let mut kernel = Kernel::new()?;
    hook(&mut kernel, &flags);
    let (slow_end, swallow) = (flags.has("--slow-end"), flags.has("--swallow"));
    let children_return = swallow || slow_end || flags.has("--return");
    let daemon = settings(&flags).children_return(children_return).spawn(&mut kernel)?;
    let mut session = Session::new(App { daemon, flags, listener: None, client: None, eaten: Vec::new(), more: None })
        .state("_start", start)
        .state("daemon_child", daemon_child)
        .state("daemon_accept", daemon_accept)
        .state("daemon_shutdown", daemon_shutdown)
        .state("accept", accepted)
        .state("input", command)
        .state("daemon_release", release)
        .state("gone", gone)
        .state("broken", broken)
        .state("more", |_| ())
        .state("usr1", action)
        .state("own_parent", |cx| {
            say(&format!("own_child {:?}", cx.take::<Result<i32, lenore::Error>>(0)?.ok()));
            Ok(())
        })
        .state("own_child", own_child)
        .state("late", |_| ())
        .state("died", |cx| {
            cx.sig_handled();
            cx.heap()
                .client
                .iter()
                .for_each(|client| _ = client.put(format!("{} survived", std::process::id()).as_str()));
        });
    for signal in ["daemon_start", "daemon_parent", "daemon_pause", "daemon_HUP"] {
        session = session.state(signal, say_signal);
    }
    session.spawn(&mut kernel)?;
    // With `--swallow` it makes nothing of what `run` returns.
    match kernel.run() {
        Err(error) if !swallow => return Err(error.into()),
        _ => {}
    }
    if kernel.is_child() {
        say("end");
        if slow_end {
            std::thread::sleep(Duration::from_secs(600));
        }
    } else {
        // D-SH-05: asked before this process ends and leaves its children to others.
        let left = nix::sys::wait::waitpid(None, Some(nix::sys::wait::WaitPidFlag::WNOHANG));
        say(&format!("run returned, children: {left:?}"));
    }
    Ok(())
}

fn settings(flags: &Flags) -> DaemonBuilder {
    let mut daemon = Daemon::builder().start_children(flags.number("--start").unwrap_or(2));
    if let Some(children) = flags.number("--min-spare") {
        daemon = daemon.min_spare(children);
    }
    if let Some(children) = flags.number("--max-spare") {
        daemon = daemon.max_spare(children);
    }
    if let Some(children) = flags.number("--max") {
        daemon = daemon.max_children(children);
    }
    if let Some(requests) = flags.number::<u64>("--requests") {
        daemon = daemon.requests(requests);
    }
    if let Some(jitter) = flags.number("--jitter") {
        daemon = daemon.requests_jitter(jitter);
    }
    if let Some(children) = flags.number("--burst") {
        daemon = daemon.fork_burst(children);
    }
    if let Some(children) = flags.number("--rate") {
        daemon = daemon.forks_per_second(children);
    }
    if let Some(octets) = flags.number("--memory") {
        daemon = daemon.memory_limit(octets);
    }
    if let Some(directory) = flags.text("--chroot") {
        daemon = daemon.chroot(directory);
    }
    if let Some(path) = flags.text("--board") {
        daemon = daemon.board(path);
    }
    if let Some(path) = flags.text("--control") {
        daemon = daemon.control(path);
    }
    if let Some(shutdown) = flags.shutdown("--term") {
        daemon = daemon.term(shutdown);
    }
    type Setting = fn(DaemonBuilder, Duration) -> DaemonBuilder;
    let durations: [(&str, Setting); 7] = [
        ("--wait-ms", DaemonBuilder::wait_target),
        ("--hold-ms", DaemonBuilder::shrink_hold),
        ("--grace-ms", DaemonBuilder::shutdown_timeout),
        ("--babysit-ms", DaemonBuilder::babysit),
        ("--request-ms", DaemonBuilder::request_timeout),
        ("--long-ms", DaemonBuilder::long_timeout),
        ("--cpu-ms", DaemonBuilder::cpu_limit),
    ];
    for (flag, set) in durations {
        if let Some(ms) = flags.number(flag) {
            daemon = set(daemon, Duration::from_millis(ms));
        }
    }
    daemon
}

/// `--stop-nth N --stop-at STAGE`: the child of the Nth fork stops itself there. `--fail-nth N --errno E`: that fork fails,
/// with `--shrink-then` in the moment of a TTOU. `--fail-while PATH --fail-from N`: those from the Nth on fail while there is
/// such a file.
fn hook(kernel: &mut Kernel, flags: &Flags) {
    let (stop, at) = (flags.number("--stop-nth"), flags.text("--stop-at").unwrap_or_default().to_owned());
    let (fail, errno) = (flags.number("--fail-nth"), flags.number("--errno").unwrap_or(Errno::EAGAIN as u32));
    let shrink = flags.has("--shrink-then");
    let (gate, from) = (flags.text("--fail-while").map(PathBuf::from), flags.number("--fail-from").unwrap_or(1));
    let mut forks = 0;
    kernel.set_fork_hook(move |stage| {
        if stage == ForkStage::BeforeFork {
            forks += 1;
            if forks >= from && gate.as_ref().is_some_and(|gate| gate.exists()) {
                say("fork fails");
                return Err(io::Error::from_raw_os_error(errno as i32));
            }
            if fail == Some(forks) {
                if shrink {
                    raise(Signal::SIGTTOU)?;
                }
                return Err(io::Error::from_raw_os_error(errno as i32));
            }
        } else if stop == Some(forks) && format!("{stage:?}") == at {
            raise(Signal::SIGSTOP)?;
        }
        Ok(())
    });
}

fn start(cx: &mut Context<'_, App>) -> Result {
    let address = cx.heap().flags.text("--listen").unwrap_or("127.0.0.1:0").to_owned();
    let mut listener = SocketFactory::tcp(address).on_accept("accept").on_error("broken");
    if let Some(queue) = cx.heap().flags.number("--queue") {
        listener = listener.listen_queue(queue);
    }
    let listener = listener.listen(cx)?;
    let address = listener.local_addr()?;
    listener.pause_accept();
    cx.heap().listener = Some(listener);
    for signal in util::daemon_program::SIGNALS {
        cx.sig(signal, signal);
    }
    if cx.heap().flags.has("--forget-shutdown") {
        cx.sig_clear("daemon_shutdown");
    }
    cx.sig("USR1", "usr1");
    // Last of all: whoever reads this sends signals.
    println!("listening on {address}");
    if let Some(path) = cx.heap().flags.text("--more-listeners").map(str::to_owned) {
        listen_more(cx, path)?;
    }
    if cx.heap().flags.has("--shrink-early") {
        // Before the first child is forked.
        raise(Signal::SIGTTOU)?;
    }
    if cx.heap().flags.has("--own-child") {
        cx.fork("own_parent", "own_child", ());
    }
    Ok(())
}

/// A UNIX socket at `path`, one that the program has made by itself, and one that it watches by itself.
fn listen_more(cx: &mut Context<'_, App>, path: String) -> Result {
    let unix = SocketFactory::unix(path).on_accept("more").listen(cx)?;
    unix.pause_accept();
    let (inherited, watched) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    say(&format!("more {} {}", inherited.local_addr()?, watched.local_addr()?));
    let inherited = ListenAccept::listener(inherited).on_accept("more").start(cx)?;
    inherited.pause_accept();
    let watched = Handle::new(watched);
    cx.select_read(&watched, "more", ())?;
    cx.select_pause_read(&watched);
    cx.heap().more = Some(More { unix, inherited, watched });
    Ok(())
}

/// Uses every listener that the application still has.
fn try_listeners(cx: &mut Context<'_, App>) -> String {
    let closed = |result: std::result::Result<String, lenore::Error>| result.unwrap_or_else(|_| "closed".to_owned());
    let heap = cx.heap();
    let first = heap.listener.as_ref().map(|first| {
        first.resume_accept();
        first.pause_accept();
        closed(first.local_addr().map(|address| address.to_string()))
    });
    let Some(More { unix, inherited, watched }) = &heap.more else { return format!("{first:?}") };
    inherited.resume_accept();
    let unix = closed(unix.local_path().map(|path| path.display().to_string()));
    let watched = watched.clone();
    let accepted = nix::sys::socket::accept(watched.as_raw_fd());
    let resumed = cx.select_resume_read(&watched);
    format!("{first:?} {unix} {accepted:?} {resumed}")
}

fn daemon_child(cx: &mut Context<'_, App>) -> Result {
    say("daemon_child");
    if cx.heap().flags.text("--crash-while").is_some_and(|path| std::path::Path::new(path).exists()) {
        std::process::exit(3);
    }
    if cx.heap().flags.has("--deaf") {
        SigSet::all().thread_block().map_err(io::Error::from)?;
    }
    let is_slow = cx.heap().flags.text("--never-ready-while").is_some_and(|path| std::path::Path::new(path).exists());
    if is_slow || cx.heap().flags.has("--never-ready") {
        return Ok(());
    }
    report(cx, Report::Wait)
}

fn daemon_accept(cx: &mut Context<'_, App>) {
    say("daemon_accept");
    cx.heap().listener.iter().for_each(SocketFactory::resume_accept);
}

/// With `--say-how` it says ARG1 as well. With `--linger` a child has something to wait for.
fn daemon_shutdown(cx: &mut Context<'_, App>) -> Result {
    if cx.heap().flags.has("--say-how") {
        say(&format!("daemon_shutdown {:?}", cx.arg::<Shutdown>(1)?));
    } else {
        say("daemon_shutdown");
    }
    cx.heap().listener = None;
    let daemon = cx.heap().daemon;
    if cx.heap().flags.has("--linger") && daemon.status(cx)?.is_child {
        cx.delay("late", Duration::from_secs(600), ());
    }
    Ok(())
}

fn accepted(cx: &mut Context<'_, App>) -> Result {
    cx.heap().listener.iter().for_each(SocketFactory::pause_accept);
    report(cx, Report::Req)?;
    let socket: TcpStream = cx.take(0)?;
    let client = ReadWrite::stream(socket, Line::new()).on_input("input").on_error("gone").start(cx)?;
    cx.heap().client = Some(client);
    Ok(())
}

/// A listener that can't accept: this child is of no use.
fn broken(cx: &mut Context<'_, App>) -> Result {
    let daemon = cx.heap().daemon;
    Ok(daemon.shutdown(cx)?)
}

fn gone(cx: &mut Context<'_, App>) -> Result {
    cx.heap().client.take().into_iter().for_each(ReadWrite::close_after_flush);
    report(cx, Report::Done)
}

/// Lets the client go, unless `--stubborn`.
fn release(cx: &mut Context<'_, App>) -> Result {
    say("daemon_release");
    if cx.heap().flags.has("--stubborn") { Ok(()) } else { gone(cx) }
}

/// Answers one line; the answer begins with the pid.
fn command(cx: &mut Context<'_, App>) -> Result {
    let line: String = cx.take(0)?;
    let daemon = cx.heap().daemon;
    let answer = match line.as_str() {
        "status" => format!("{:?}", daemon.status(cx)?.to_string()),
        "peek" => format!("{:?}", daemon.peek(cx, true)?.to_string()),
        "requests" => format!("{:?}", daemon.status(cx)?.board),
        "long" | "req" | "keep" | "wait" | "nonsense" => try_update(cx, &line),
        "double-wait" => {
            report(cx, Report::Wait)?;
            report(cx, Report::Wait)?; // the second of two
            "twice".to_owned()
        }
        "listeners" => try_listeners(cx),
        "shutdown" => format!("{:?}", daemon.shutdown(cx)),
        "exit" => std::process::exit(7),
        "sleep" => loop {
            std::thread::sleep(Duration::from_secs(600));
        },
        "spin" => loop {
            std::hint::spin_loop();
        },
        "blocked-sleep" | "blocked-spin" => block(&line),
        "gate" => pass_gate(&cx.heap().flags),
        "gate-without-descriptors" => {
            let _all: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
            pass_gate(&cx.heap().flags)
        }
        "eat" => {
            cx.heap().eaten = vec![1; 64 << 20];
            format!("ate {}", cx.heap().eaten.len())
        }
        "fail" => return Err(io::Error::other("as asked").into()),
        "panic" => panic!("as asked"),
        // In a session of its own, as it begins.
        "start-panics" => {
            Session::new(()).state("_start", |_| -> () { panic!("as asked") }).spawn(cx)?;
            "not reached by DIE yet".to_owned()
        }
        "stop-fails" => {
            let session = Session::new(())
                .state("_start", |cx| cx.alias_set("last").map_err(lenore::Exception::from))
                .state("_stop", |_| -> Result { Err(io::Error::other("as asked").into()) })
                .spawn(cx)?;
            cx.signal_now(session, "KILL", ())?;
            "not reached by the sweep yet".to_owned()
        }
        "handled" => {
            cx.sig("DIE", "died");
            return Err(io::Error::other("as asked").into());
        }
        "helper" => {
            let pid = util::daemon_program::start_helper()?;
            daemon.foreign_child(cx, pid)?;
            pid.to_string()
        }
        other => match other.strip_prefix("label ") {
            Some(label) => {
                daemon.set_peer_label(cx, label)?;
                "labelled".to_owned()
            }
            None => other.to_owned(),
        },
    };
    let answer = format!("{} {answer}", std::process::id());
    if let Some(client) = &cx.heap().client {
        client.put(answer.as_str());
    }
    Ok(())
}

/// USR1: does the words of `--usr1`, one after the other.
fn action(cx: &mut Context<'_, App>) -> Result {
    let (daemon, words) = (cx.heap().daemon, cx.heap().flags.text("--usr1").unwrap_or("status").to_owned());
    for word in words.split(',') {
        match word {
            "status" => {
                let status = daemon.status(cx)?;
                say(&format!("board [{}] free {} children {}", status.board, status.free, status.children.len()));
            }
            "text" => say(&format!("text {:?}", daemon.status(cx)?.to_string())),
            "peek" => say(&format!("peek {:?}", daemon.peek(cx, false)?.to_string())),
            "call" => daemon.shutdown(cx)?,
            "post" => cx.post("Daemon", "shutdown", ())?,
            "signal" => cx.signal(SessionId::KERNEL, "shutdown", ())?,
            "graceful" => cx.post("Daemon", "graceful_shutdown", ())?,
            "by-event" => by_event(cx)?,
            "late-foreign" => {
                daemon.shutdown(cx)?;
                let pid = util::daemon_program::start_helper()?;
                daemon.foreign_child(cx, pid)?;
                say(&format!("foreign {pid}"));
            }
            "awaited" => {
                let peek = daemon.peek(cx, true)?.kernel;
                let reasons = peek.sessions.iter().flat_map(|session| &session.reasons);
                let awaited = reasons.filter(|reason| matches!(reason, Reason::ChildProcess(_))).count();
                say(&format!("awaited {awaited}"));
            }
            "update" => {
                let direct = daemon.update_status(cx, Report::Wait);
                say(&format!("update {}", is_wrong_process(&direct)));
                let with_payload = daemon.update_status_with(cx, Report::Req, "payload");
                say(&format!("update {}", is_wrong_process(&with_payload)));
                say(&format!("update {}", try_update(cx, "nonsense")));
            }
            "foreign" => {
                let pid = util::daemon_program::start_helper()?;
                daemon.foreign_child(cx, pid)?;
                say(&format!("foreign {pid}"));
            }
            // Other code waits for whatever child there is.
            "steal" => {
                let pid = nix::unistd::Pid::from_raw(daemon.status(cx)?.children[0].pid);
                nix::sys::signal::kill(pid, Signal::SIGKILL).map_err(io::Error::from)?;
                nix::sys::wait::waitpid(pid, None).map_err(io::Error::from)?;
                say(&format!("stole {pid}"));
            }
            "steal-foreign" => {
                let helper = util::daemon_program::start_helper()?;
                daemon.foreign_child(cx, helper)?;
                let pid = nix::unistd::Pid::from_raw(helper);
                nix::sys::signal::kill(pid, Signal::SIGKILL).map_err(io::Error::from)?;
                nix::sys::wait::waitpid(pid, None).map_err(io::Error::from)?;
                say(&format!("stole {pid}"));
            }
            // What a listener is after its network is gone: no connection will ever come of it.
            "break" => {
                let address = cx.heap().listener.as_ref().expect("it listens").local_addr()?;
                break_listener(&address.to_string())?;
                say("broken");
            }
            // Without its poller the kernel can't go on.
            "replace-poller" => {
                let is_poller = |fd: &i32| {
                    std::fs::read_link(format!("/proc/self/fd/{fd}"))
                        .is_ok_and(|link| link.as_os_str() == "anon_inode:[eventpoll]")
                };
                let poller = (3..100).find(is_poller).expect("the kernel has one");
                let null = std::fs::File::open("/dev/null")?;
                // SAFETY: the number stays that of an open file, which the poller closes as its own.
                Errno::result(unsafe { nix::libc::dup2(null.as_raw_fd(), poller) }).map_err(io::Error::from)?;
            }
            // A grandchild whose parent is gone at once, as a program makes it that starts something in the background.
            "orphan" => {
                std::process::Command::new("sh").args(["-c", "(sleep 0.3; exit 3) &"]).status()?;
                say("orphan");
            }
            "strangers" => {
                // The last was this process's child.
                let helper = util::daemon_program::start_helper()?;
                let pid = nix::unistd::Pid::from_raw(helper);
                nix::sys::signal::kill(pid, Signal::SIGKILL).map_err(io::Error::from)?;
                nix::sys::wait::waitpid(pid, None).map_err(io::Error::from)?;
                for pid in [-1, 0, 1, helper] {
                    let refused = matches!(daemon.foreign_child(cx, pid), Err(DaemonError::NotAChild(_)));
                    say(&format!("foreign {pid} refused={refused}"));
                }
            }
            // It ends when the file that `--thread-while` names is gone.
            "thread" => {
                let gate = PathBuf::from(cx.heap().flags.text("--thread-while").unwrap_or_default());
                let work = move || {
                    while gate.exists() {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                };
                util::daemon_program::leave_a_thread(work)?;
            }
            "block" => block("blocked-sleep"),
            "spin" => block("blocked-spin"),
            "gate" => say(&pass_gate(&cx.heap().flags)),
            "pause" => cx.heap().listener.iter().for_each(SocketFactory::pause_accept),
            "resume" => cx.heap().listener.iter().for_each(SocketFactory::resume_accept),
            "die" => return Err(io::Error::other("told to").into()),
            "own" => cx.fork("own_parent", "own_child", ()),
            other => say(&format!("no such action: {other}")),
        }
    }
    say("answered");
    Ok(())
}

/// Says so, and never returns.
fn block(how: &str) -> ! {
    say("blocked");
    loop {
        if how == "blocked-spin" {
            std::hint::spin_loop();
        } else {
            std::thread::sleep(Duration::from_secs(600));
        }
    }
}

/// Blocks as long as there is the file that `--gate` names.
fn pass_gate(flags: &Flags) -> String {
    let gate = PathBuf::from(flags.text("--gate").unwrap_or_default());
    say("blocked");
    while gate.exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    "passed".to_owned()
}

/// Finds the socket that is bound to `address` and shuts it down, for all processes.
fn break_listener(address: &str) -> Result {
    use nix::sys::socket::{Shutdown, SockaddrIn, getsockname, shutdown};
    let is_bound = |fd: &i32| getsockname::<SockaddrIn>(*fd).is_ok_and(|name| name.to_string() == address);
    let fd = (3..100).find(is_bound).expect("the listener is open");
    Ok(shutdown(fd, Shutdown::Both).map_err(io::Error::from)?)
}

/// Everything that the handle can do, as a POE program does it.
fn by_event(cx: &mut Context<'_, App>) -> Result {
    let status: DaemonStatus = cx.call("Daemon", "status", ())?.take()?;
    let peek: Peek = cx.call("Daemon", "peek", (true,))?.take()?;
    say(&format!("called board [{}] {}", status.board, peek.daemon.board == status.board));
    let pid = util::daemon_program::start_helper()?;
    cx.post("Daemon", "foreign_child", (pid,))?;
    say(&format!("foreign {pid}"));
    cx.post("Daemon", "update_status", ("wait",))?;
    cx.post("Daemon", "peek", (false,))?;
    cx.post("Daemon", "status", ())?;
    cx.post("Daemon", "shutdown", ())?;
    Ok(())
}

fn is_wrong_process(result: &std::result::Result<(), DaemonError>) -> bool {
    matches!(result, Err(DaemonError::WrongProcess { .. }))
}

/// In a child that the application forked for itself. It tries what only the Daemon's own processes may do.
fn own_child(cx: &mut Context<'_, App>) -> Result {
    let daemon = cx.heap().daemon;
    let status = daemon.status(cx)?;
    let refused = is_wrong_process(&daemon.update_status(cx, Report::Wait));
    say(&format!("own_child is_child={} children={} refused={refused}", status.is_child, status.children.len()));
    if cx.heap().flags.has("--own-shutdown") {
        daemon.shutdown(cx)?;
    } else {
        cx.heap().listener = None;
    }
    Ok(())
}

#[track_caller]
fn report(cx: &mut Context<'_, App>, report: Report) -> Result {
    let daemon = cx.heap().daemon;
    Ok(daemon.update_status(cx, report)?)
}

//! A server with a configuration, for `tests/change/`.
//!
//! `--config PATH`, `--control PATH`, `--status ADDRESS`, `--board PATH`, `--pid-file PATH`, `--logfile PATH`, `--user NAME`, `--listen ADDRESS`, `--unix PATH`
//! (another listener), `--deaf LIST` (listeners at which no process accepts, by paths and addresses with commas between them), `--leak PATH` (an open file that programs inherit), `--strict`, `--gentle` (TERM does what QUIT does), USR1 (an
//! upgrade), settings of the Daemon as in `SETTINGS`, and `--post` or `--none` for other servers than a pre-forking one. A connection's
//! lines are answered with `PID VALUE LINE`, where `VALUE` is from the configuration, but for the lines in `input`.
//!
//! The configuration has a line `key=value` for each of the fields of [`Config`].

use std::error::Error;
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use lenore::daemon::{DaemonBuilder, PoolSettings, Report, Shutdown};
use lenore::filter::Line;
use lenore::wheel::{ReadWrite, SocketFactory};
use lenore::{Context, Daemon, Exception, Kernel, Result, Session};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use util::daemon_program::Flags;

/// What the file says.
#[derive(Clone, Debug, Default)]
struct Config {
    /// What answers have in them.
    value: String,
    /// What a child does when it begins: see [`behave`].
    child: String,
    /// Where children leave a file each.
    dir: String,
    /// `max_children`, `min_spare` and `max_spare`.
    max: Option<u32>,
    min: Option<u32>,
    most: Option<u32>,
    /// What needs a restart.
    listen: String,
}

fn load(bytes: &[u8]) -> std::result::Result<Config, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let mut config = Config::default();
    for (number, line) in text.lines().enumerate() {
        let wrong = || format!("line {}: {line:?} is not known", number + 1);
        let (key, value) = line.split_once('=').ok_or_else(wrong)?;
        let number = || value.parse().map(Some).map_err(|_| wrong());
        match key {
            "value" => value.clone_into(&mut config.value),
            "child" => value.clone_into(&mut config.child),
            "dir" => value.clone_into(&mut config.dir),
            "listen" => value.clone_into(&mut config.listen),
            "max" => config.max = number()?,
            "min" => config.min = number()?,
            "most" => config.most = number()?,
            "load" => match value {
                "ok" => {}
                "panic" => panic!("the loader panics"),
                "abort" => {
                    eprintln!("about to abort");
                    std::process::abort();
                }
                "exit" => std::process::exit(7),
                "memory" => drop(std::hint::black_box(Vec::<u8>::with_capacity(isize::MAX as usize))),
                "loop" => loop {
                    std::hint::spin_loop();
                },
                // What a scout must not have: anything of its parent's.
                "descriptors" => {
                    let open = util::proc::fds(std::process::id() as i32);
                    let is_its_own =
                        |path: &str| path.contains("/dev/null") || path.contains("/proc/") || path.contains("pipe:");
                    let others: Vec<&String> =
                        open.iter().filter(|(fd, path)| **fd > 2 && !is_its_own(path)).map(|(_, path)| path).collect();
                    let pipes = open.iter().filter(|(fd, path)| **fd > 2 && path.contains("pipe:")).count();
                    return Err(format!("others={others:?} pipes={pipes}"));
                }
                _ => return Err(wrong()),
            },
            _ => return Err(wrong()),
        }
    }
    Ok(config)
}

fn pool(config: &Config) -> PoolSettings {
    let mut pool = PoolSettings::new().needs_restart("listen", &config.listen);
    for (number, set) in [
        (config.max, PoolSettings::max_children as fn(PoolSettings, u32) -> PoolSettings),
        (config.min, PoolSettings::min_spare),
        (config.most, PoolSettings::max_spare),
    ] {
        if let Some(number) = number {
            pool = set(pool, number);
        }
    }
    pool
}

/// The heap: each process has a copy of its own from the fork on.
#[derive(Default)]
struct Server {
    daemon: Option<Daemon>,
    listener: Option<SocketFactory>,
    /// Each process accepts at it.
    unix: Option<SocketFactory>,
    /// No process accepts at these.
    deaf: Vec<SocketFactory>,
    client: Option<ReadWrite<Line>>,
    is_retiring: bool,
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    util::daemon_program::log_to_stderr();
    let flags = Flags::read();
    let mut kernel = Kernel::new()?;
    let is_pre = !flags.has("--post") && !flags.has("--none");
    Session::new(Server::default())
        .args((flags,))
        .state("_start", start)
        .state("daemon_child", move |cx| if is_pre { begin(cx) } else { serve_one(cx) })
        .state("daemon_probe", behave)
        .state("daemon_reload", |cx| {
            let value = config(cx)?.value.clone();
            util::daemon_program::say(&format!("daemon_reload {value}"));
            Ok(())
        })
        .state("daemon_accept", |cx| {
            if config(cx)?.child.starts_with("file ") {
                behave(cx)?;
            }
            cx.heap().listener.iter().for_each(SocketFactory::resume_accept);
            Ok(())
        })
        .state("daemon_pause", |cx| {
            cx.heap().is_retiring = true;
            cx.heap().listener.iter().for_each(SocketFactory::pause_accept);
        })
        .state("unix", |cx| {
            let mut socket: UnixStream = cx.take(0)?;
            writeln!(socket, "{}", cx.pid())?;
            Ok(())
        })
        .state("upgrade", |cx| {
            cx.sig_handled();
            let Some(daemon) = cx.heap().daemon else { return Ok(()) };
            if let Err(error) = daemon.upgrade(cx, None) {
                util::daemon_program::say(&error.to_string());
            }
            Ok(())
        })
        .state("daemon_release", close)
        .state("accept", move |cx| if is_pre { accepted(cx) } else { hand_over(cx) })
        .state("input", input)
        .state("late", |cx| {
            let line: String = cx.take(0)?;
            answer(cx, &line)
        })
        .state("gone", close)
        .state("daemon_shutdown", |cx| {
            cx.heap().listener = None;
            cx.heap().unix = None;
            cx.heap().deaf.clear();
            if cx.heap().client.is_some() { close(cx) } else { Ok(()) }
        })
        .spawn(&mut kernel)?;
    kernel.run()?;
    util::daemon_program::say("end");
    Ok(())
}

fn start(cx: &mut Context<'_, Server>) -> Result {
    let flags: Flags = cx.take(0)?;
    let listener =
        SocketFactory::tcp(flags.text("--listen").unwrap_or("127.0.0.1:0")).on_accept("accept").listen(cx)?;
    let is_pre = !flags.has("--post") && !flags.has("--none");
    if is_pre {
        listener.pause_accept();
    }
    for signal in [
        "daemon_child",
        "daemon_probe",
        "daemon_accept",
        "daemon_pause",
        "daemon_release",
        "daemon_shutdown",
        "daemon_reload",
    ] {
        cx.sig(signal, signal);
    }
    cx.sig("USR1", "upgrade");
    println!("listening on {}", listener.local_addr()?);
    cx.heap().listener = Some(listener);
    if let Some(path) = flags.path("--unix") {
        cx.heap().unix = Some(SocketFactory::unix(path).unlink_path().on_accept("unix").listen(cx)?);
    }
    for address in flags.text("--deaf").into_iter().flat_map(|list| list.split(',')) {
        let is_path = address.contains('/');
        let factory = if is_path { SocketFactory::unix(address) } else { SocketFactory::tcp(address) };
        let listener = factory.on_accept("accept").listen(cx)?;
        listener.pause_accept();
        cx.heap().deaf.push(listener);
    }
    if let Some(path) = flags.text("--leak") {
        // As a C library might open it.
        let file = fs::File::create(path)?;
        fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty()))?;
        std::mem::forget(file);
    }
    let daemon = daemon(&flags).spawn(cx)?;
    cx.heap().daemon = Some(daemon);
    Ok(())
}

fn daemon(flags: &Flags) -> DaemonBuilder {
    let mut daemon = Daemon::builder().requests(0).verbose(true);
    if flags.has("--gentle") {
        daemon = daemon.term(Shutdown::Graceful);
    }
    for (name, set) in SETTINGS {
        if let Some(number) = flags.number(name) {
            daemon = set(daemon, number);
        }
    }
    if let Some(path) = flags.text("--config") {
        daemon = daemon.config(path, load).config_pool(pool).strict_reload(flags.has("--strict"));
    }
    if let Some(path) = flags.text("--control") {
        daemon = daemon.control(path);
    }
    if let Some(address) = flags.text("--status") {
        daemon = daemon.status(address);
    }
    if let Some(path) = flags.text("--board") {
        daemon = daemon.board(path);
    }
    if let Some(path) = flags.text("--pid-file") {
        daemon = daemon.pid_file(path);
    }
    if let Some(user) = flags.text("--user") {
        daemon = daemon.user(user);
    }
    if let Some(path) = flags.text("--logfile") {
        daemon = daemon.logfile(path);
    }
    daemon
}

type Setter = fn(DaemonBuilder, u32) -> DaemonBuilder;

fn ms(number: u32) -> Duration {
    Duration::from_millis(number.into())
}

const SETTINGS: [(&str, Setter); 15] = [
    ("--start", |daemon, number| daemon.start_children(number)),
    ("--max", |daemon, number| daemon.max_children(number)),
    ("--min-spare", |daemon, number| daemon.min_spare(number)),
    ("--max-spare", |daemon, number| daemon.max_spare(number)),
    ("--babysit-ms", |daemon, number| daemon.babysit(ms(number))),
    ("--grace-ms", |daemon, number| daemon.shutdown_timeout(ms(number))),
    ("--load-ms", |daemon, number| daemon.load_timeout(ms(number))),
    ("--start-ms", |daemon, number| daemon.start_timeout(ms(number))),
    ("--probation-ms", |daemon, number| daemon.probation(ms(number))),
    ("--drain-ms", |daemon, number| daemon.drain_limit(ms(number))),
    ("--upgrade-ms", |daemon, number| daemon.upgrade_timeout(ms(number))),
    ("--fork-burst", |daemon, number| daemon.fork_burst(number)),
    ("--forks-per-second", |daemon, number| daemon.forks_per_second(number)),
    ("--surge", |daemon, number| daemon.surge(number)),
    ("--max-unavailable", |daemon, number| daemon.max_unavailable(number)),
];

fn begin(cx: &mut Context<'_, Server>) -> Result {
    behave(cx)?;
    if config(cx)?.child == "mute" {
        cx.heap().listener.iter().for_each(SocketFactory::resume_accept);
    }
    report(cx, Report::Wait)
}

/// `die`: exits with 3. `panic`, `abort`: as they are called. `hang`: never comes back. `third`: all children but the first two die;
/// `third hang`: they never come back. `file PATH`: dies if there is such a file, also before it accepts another client. `slow`: takes
/// 700 ms, or `slow MS` so long. `held PATH`: comes back when there is no such file. `chatty`: writes much to its standard error.
/// `mute`: serves clients, and reports nothing.
fn behave(cx: &mut Context<'_, Server>) -> Result {
    let config = config(cx)?;
    let (word, rest) = config.child.split_once(' ').unwrap_or((&config.child, ""));
    let dies = |why: &str| {
        eprintln!("{why}");
        std::process::exit(3)
    };
    let hangs = |why: &str| -> ! {
        eprintln!("{why}");
        loop {
            std::thread::sleep(Duration::from_secs(1));
        }
    };
    match word {
        "die" => dies("cannot open the database"),
        "panic" => panic!("the database is broken"),
        "abort" => {
            eprintln!("cannot go on without the database");
            std::process::abort();
        }
        "hang" => hangs("waiting for the database"),
        "third" => {
            fs::write(Path::new(&config.dir).join(cx.pid().to_string()), "")?;
            match (fs::read_dir(&config.dir)?.count(), rest) {
                (..=2, _) => {}
                (_, "hang") => hangs("the third is waiting for ever"),
                _ => dies("the third is one too many"),
            }
        }
        "file" if Path::new(rest).exists() => dies("there is the file"),
        "slow" => std::thread::sleep(Duration::from_millis(rest.parse().unwrap_or(700))),
        "held" => {
            while Path::new(rest).exists() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        "chatty" => (0..2000).for_each(|number| eprintln!("line {number}")),
        _ => {}
    }
    Ok(())
}

fn accepted(cx: &mut Context<'_, Server>) -> Result {
    cx.heap().listener.iter().for_each(SocketFactory::pause_accept);
    report(cx, Report::Req)?;
    let socket: TcpStream = cx.take(0)?;
    talk(cx, socket)
}

fn talk(cx: &mut Context<'_, Server>, socket: TcpStream) -> Result {
    let client = ReadWrite::stream(socket, Line::new()).on_input("input").on_error("gone").start(cx)?;
    cx.heap().client = Some(client);
    Ok(())
}

fn hand_over(cx: &mut Context<'_, Server>) -> Result {
    let socket: TcpStream = cx.take(0)?;
    let daemon = daemon_of(cx)?;
    if daemon.status(cx)?.forking == lenore::daemon::Forking::None {
        return talk(cx, socket);
    }
    Ok(daemon.update_status_with(cx, Report::Req, socket)?)
}

fn serve_one(cx: &mut Context<'_, Server>) -> Result {
    cx.heap().listener = None;
    let socket: TcpStream = cx.take(1)?;
    talk(cx, socket)
}

/// `late MS`: answers after so long. `block MS`: the same, and the process hears nothing meanwhile. `variables`: answers with the names in its environment and in that of a program that it starts.
fn input(cx: &mut Context<'_, Server>) -> Result {
    let line: String = cx.take(0)?;
    if let Some(span) = line.strip_prefix("late ") {
        let span = Duration::from_millis(span.parse()?);
        cx.delay("late", span, (line,));
        return Ok(());
    }
    if let Some(span) = line.strip_prefix("burn ") {
        let (begun, span) = (Instant::now(), Duration::from_millis(span.parse()?));
        while begun.elapsed() < span {}
    }
    if let Some(span) = line.strip_prefix("block ") {
        std::thread::sleep(Duration::from_millis(span.parse()?));
    }
    if line == "variables" {
        let names = util::daemon_program::variables()?;
        return answer(cx, &names);
    }
    answer(cx, &line)
}

/// A child that was asked to go says that this was the last answer, as HTTP does by `Connection: close`.
fn answer(cx: &mut Context<'_, Server>, line: &str) -> Result {
    let (pid, value, is_last) = (cx.pid(), config(cx)?.value.clone(), cx.heap().is_retiring);
    let last = if is_last { " last" } else { "" };
    if let Some(client) = &cx.heap().client {
        client.put(format!("{pid} {value} {line}{last}"));
    }
    if is_last { close(cx) } else { Ok(()) }
}

fn close(cx: &mut Context<'_, Server>) -> Result {
    if let Some(client) = cx.heap().client.take() {
        client.close_after_flush();
        return report(cx, Report::Done);
    }
    Ok(())
}

fn report(cx: &mut Context<'_, Server>, report: Report) -> Result {
    if config(cx)?.child == "mute" {
        return Ok(());
    }
    Ok(daemon_of(cx)?.update_status(cx, report)?)
}

fn config(cx: &mut Context<'_, Server>) -> Result<std::rc::Rc<Config>> {
    Ok(daemon_of(cx)?.config::<Config, _>(cx)?)
}

fn daemon_of(cx: &mut Context<'_, Server>) -> Result<Daemon> {
    cx.heap().daemon.ok_or_else(|| Exception::new("the Daemon is not spawned yet"))
}

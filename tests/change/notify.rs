//! What a service manager hears.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::libc;
use nix::sys::signal::Signal;
use util::http::{get, status_address};
use util::manager::{Datagram, Manager, Service, monotonic_usec};
use util::{Client, DEADLINE, Program, Running, example, kill, proc, test_program, wait_until};

use super::changing::Changing;

pub fn program(args: &str) -> Program {
    Program::new(test_program("daemon_control")).args(args.split_whitespace())
}

pub fn pool(children: u32) -> String {
    format!("--mode prefork:{children} --max {children} --min-spare {children} --max-spare {children}")
}

pub fn ready(manager: &mut Manager, running: &Running) {
    let ready = manager.wait_for("READY=1");
    assert_eq!(ready.pid, running.pid(), "{ready:?}");
}

/// Starts a pool with a configuration, which answers to the manager, and waits until it is ready.
fn changing(manager: &mut Manager, config: &str, args: &str) -> Changing {
    let args = format!("{} {args}", Changing::size(2));
    let changing = Changing::start_by(|program| manager.starts(program), config, &args);
    ready(manager, &changing.running);
    changing.wait_idle(2);
    changing
}

/// What the status of the last READY=1 says behind the state of the pool.
#[track_caller]
fn verdict(manager: &mut Manager) -> String {
    manager.hear();
    let last = manager.said.iter().rfind(|datagram| datagram.get("READY") == Some("1")).expect("it was ready");
    let (pool, verdict) = last.get("STATUS").and_then(|status| status.split_once("; ")).expect("a verdict");
    assert!(pool.contains(" children ("), "{last:?}");
    verdict.to_owned()
}

/// What a status says of a pool, and the scoreboard in it without free slots, in alphabetical order.
#[track_caller]
fn pool_of(datagram: &Datagram) -> (&str, String) {
    let (pool, board) = datagram.get("STATUS").and_then(|status| status.split_once(", board [")).expect("a board");
    let (board, _) = board.split_once(']').expect("the end of the board");
    let mut letters: Vec<char> = board.chars().filter(|letter| *letter != ' ').collect();
    letters.sort_unstable();
    (pool, letters.into_iter().collect())
}

/// Tells whether a status has the pool in this state.
fn says_pool(datagram: &Datagram, pool: &str) -> bool {
    datagram.get("STATUS").is_some_and(|status| status.starts_with(&format!("ready: {pool}, ")))
}

/// What the manager is to hear of a reload that ends now: its number, its verdict and the time of day.
fn is_verdict(said: &str, begin: &str, end: &str) -> bool {
    let rest = said.strip_prefix(begin).and_then(|rest| rest.strip_suffix(end));
    let time = rest.and_then(|rest| rest.strip_prefix(' ')?.strip_suffix(" UTC"));
    let number = |part: &str| part.parse::<u64>().ok().filter(|_| part.len() == 2);
    let told =
        time.and_then(|time| time.split_once(':')).and_then(|(hour, minute)| Some((number(hour)?, number(minute)?)));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_secs() / 60;
    // The test may have waited for a while.
    told.is_some_and(|(hour, minute)| hour < 24 && minute < 60 && (now + 1440 - (hour * 60 + minute)) % 1440 < 10)
}

/// Fills a manager's socket until it takes no more.
fn fill(address: &SocketAddr) {
    let other = UnixDatagram::unbound().unwrap();
    other.set_nonblocking(true).unwrap();
    let mut number = 0;
    while other.send_to_addr(b"X=1", address).is_ok() {
        number += 1;
    }
    assert!(number > 0);
}

/// How many UNIX sockets of datagrams a process has.
fn datagram_sockets(pid: i32) -> usize {
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/unix")).unwrap();
    let inodes: Vec<String> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields.get(4) == Some(&"0002"))
        .map(|fields| format!("socket:[{}]", fields[6]))
        .collect();
    proc::fds(pid).values().filter(|target| inodes.contains(target)).count()
}

#[test] // O-SD-01, O-SD-02, O-SD-08
fn ready_comes_once_with_enough_children_and_a_ping_behind_it() {
    let mut manager = Manager::new();
    let dir = tempfile::tempdir().unwrap();
    let gate = dir.path().join("gate");
    // The second child is held before it is ready.
    let program = program(&pool(2)).env("LENORE_INJECT", format!("daemon.child.ready=hold:{}#2", gate.display()));
    let running = manager.watches(program, Duration::from_secs(3)).start();
    running.listening_addr();
    wait_until("a child that is held", DEADLINE, || gate.exists().then_some(()));
    manager.hear();
    assert!(manager.said.is_empty(), "{:?}", manager.said);
    std::fs::remove_file(&gate).unwrap();
    ready(&mut manager, &running);
    manager.wait_for("WATCHDOG=1");
    assert_eq!(pool_of(&manager.said[0]), ("ready: 2 children (0 busy, 2 idle), queue 0, gen 1", "ww".to_owned()));
    assert_eq!(manager.said[1].text, "WATCHDOG=1");
    assert_eq!(manager.count("READY=1"), 1);
}

#[test] // O-SD-01
fn servers_without_a_pool_are_ready_as_well() {
    for mode in ["--mode fork", "--mode single"] {
        let mut manager = Manager::new();
        let running = manager.starts(program(mode)).start();
        let addr = running.listening_addr();
        ready(&mut manager, &running);
        assert!(Client::connect(addr).line("x").ends_with(" x"), "{mode}");
        running.signal(Signal::SIGTERM);
        manager.wait_for("STOPPING=1");
    }
}

#[test] // O-SD-01
fn start_that_fails_is_explained_and_never_ready() {
    let mut manager = Manager::new();
    let program = program(&pool(2)).env("LENORE_INJECT", "daemon.child.ready=exit:3");
    let mut running = manager.starts(program).start();
    assert_eq!(running.wait_exit(DEADLINE).code(), Some(1));
    let failed = manager.wait_for("EXIT_STATUS=1");
    let cause = failed.get("STATUS").unwrap();
    assert!(cause.contains("children fail in their set-up") && cause.contains("exited:3"), "{cause}");
    assert_eq!(manager.count("READY=1"), 0);

    let mut manager = Manager::new();
    let mut running = manager.starts(self::program("--mode prefork:2 --max 1")).start();
    assert_eq!(running.wait_exit(DEADLINE).code(), Some(1));
    let failed = manager.wait_for("EXIT_STATUS=1");
    assert_eq!(failed.get("STATUS"), Some("settings of the Daemon: start_children (2) is more than max_children (1)"));
    assert_eq!(failed.get("ERRNO"), None, "the system is not to blame");
}

#[test] // O-SD-01
fn start_that_the_system_has_refused_is_explained_with_its_errno() {
    let dir = tempfile::tempdir().unwrap();
    let mut manager = Manager::new();
    let args = format!("{} --control {}/missing/control.sock", pool(1), dir.path().display());
    let mut running = manager.starts(program(&args)).start();
    assert_eq!(running.wait_exit(DEADLINE).code(), Some(1));
    let failed = manager.wait_for("EXIT_STATUS=1");
    assert_eq!(failed.get("ERRNO"), Some(libc::ENOENT.to_string().as_str()), "{failed:?}");
    assert!(failed.get("STATUS").unwrap().contains("missing/control.sock"), "{failed:?}");
    assert_eq!(manager.count("READY=1"), 0);
}

#[test] // O-SD-04
fn children_have_neither_the_variables_nor_the_socket() {
    let mut manager = Manager::new();
    let running = manager.watches(program(&pool(2)), Duration::from_secs(3)).start();
    let addr = running.listening_addr();
    ready(&mut manager, &running);
    let children = running.children();
    assert_eq!(children.len(), 2);
    // One more than without a manager, and no more in a child.
    let unmanaged = program(&pool(2)).start();
    unmanaged.listening_addr();
    wait_until("children", DEADLINE, || (unmanaged.children().len() == 2).then_some(()));
    assert_eq!(datagram_sockets(running.pid()), datagram_sockets(unmanaged.pid()) + 1);
    for (child, other) in children.into_iter().zip(unmanaged.children()) {
        assert_eq!(datagram_sockets(child), datagram_sockets(other));
    }
    let names = Client::connect(addr).line("variables");
    assert!(names.contains("LENORE_TEST_ID"), "{names}");
    assert!(!names.contains("NOTIFY") && !names.contains("WATCHDOG"), "{names}");
}

#[test] // O-SD-05
fn bad_value_is_an_error_at_the_start_that_names_it() {
    for (variable, value) in [("WATCHDOG_USEC", "abc"), ("WATCHDOG_USEC", "10"), ("WATCHDOG_PID", "-")] {
        let manager = Manager::new();
        let mut running = manager.starts(program(&pool(1))).env(variable, value).start();
        assert_eq!(running.wait_exit(DEADLINE).code(), Some(1));
        running.wait_for_stderr(&format!("{variable}={value}: "), DEADLINE);
    }
}

#[test] // O-SD-03
fn manager_that_can_not_be_reached_holds_nothing_up() {
    for address in ["/nowhere/notify", "vsock:2:1", "@lenore-nobody-listens", "relative"] {
        let running = program(&pool(1)).env("NOTIFY_SOCKET", address).start();
        let addr = running.listening_addr();
        assert!(Client::connect(addr).line("x").ends_with(" x"), "{address}");
        running.wait_for_stderr("service manager", DEADLINE);
        // In a while there is no second line.
        util::stays("one warning", Duration::from_millis(300), || {
            running.stderr_text().matches("service manager").count() == 1
        });
    }
}

#[test] // O-SD-03
fn manager_that_does_not_read_holds_nothing_up() {
    let name = format!("lenore-full-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    fill(&address);
    let running = program(&pool(1)).env("NOTIFY_SOCKET", format!("@{name}")).start();
    let addr = running.listening_addr();
    assert!(Client::connect(addr).line("x").ends_with(" x"));
    // READY comes when there is room again.
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut message = [0; 512];
    wait_until("READY", DEADLINE, || {
        let length = socket.recv(&mut message).unwrap();
        message[..length].starts_with(b"READY=1\n").then_some(())
    });
}

#[test] // O-SD-08, O-SD-09, O-DT-11: a late ping is seen
fn pings_come_in_time_also_when_the_whole_pool_is_busy() {
    let mut manager = Manager::new();
    let program = program(&format!("{} --health-ms 300", pool(2)));
    let running = manager.watches(program, Duration::from_millis(600)).start();
    let addr = running.listening_addr();
    ready(&mut manager, &running);
    let dir = tempfile::tempdir().unwrap();
    let gate = dir.path().join("gate");
    std::fs::write(&gate, "").unwrap();
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(addr)).collect();
    clients.iter_mut().for_each(|client| client.send(format!("gate {}\r\n", gate.display())));
    manager.wait_that("a busy pool", |datagram| {
        datagram.get("STATUS").is_some_and(|text| text.contains("(2 busy, 0 idle)"))
    });
    let silence = manager.longest_silence(Duration::from_secs(2));
    assert!(silence < Duration::from_millis(600), "{silence:?}");
    std::fs::remove_file(&gate).unwrap();
}

#[test] // O-SD-08, O-SD-18
fn dead_pool_is_not_vouched_for() {
    let mut manager = Manager::new();
    // Only the first two are ever ready.
    let inject = (3..60).map(|number| format!("daemon.child.ready=exit:3#{number}")).collect::<Vec<_>>().join(",");
    let program = program(&format!("{} --health-ms 500 --status 127.0.0.1:0", pool(2))).env("LENORE_INJECT", inject);
    let running = manager.watches(program, Duration::from_millis(300)).start();
    let status = status_address(&running);
    ready(&mut manager, &running);
    assert_eq!(get(status, "/live").status, 200);
    for pid in running.children() {
        kill(pid, Signal::SIGKILL).unwrap();
    }
    running.wait_for_stderr("the Daemon can't recover by itself: no child has been ready for", DEADLINE);
    let silence = manager.longest_silence(Duration::from_millis(700));
    assert!(silence >= Duration::from_millis(600), "a ping in {silence:?}");
    let live = get(status, "/live");
    assert_eq!(live.status, 503);
    assert!(live.body.starts_with("no child has been ready for"), "{live:?}");
}

#[test] // O-SD-10
fn dead_pool_asks_for_a_restart_if_the_program_says_so() {
    let mut manager = Manager::new();
    let inject = (2..60).map(|number| format!("daemon.child.ready=exit:3#{number}")).collect::<Vec<_>>().join(",");
    let args = format!("{} --health-ms 300 --restart-when-dead", pool(1));
    let program = program(&args).env("LENORE_INJECT", inject);
    let running = manager.watches(program, Duration::from_millis(300)).start();
    ready(&mut manager, &running);
    kill(running.children()[0], Signal::SIGKILL).unwrap();
    let trigger = manager.wait_for("WATCHDOG=trigger");
    assert!(trigger.get("STATUS").unwrap().starts_with("no child has been ready for"), "{trigger:?}");
}

#[test] // O-SD-08
fn stopped_parent_is_silent() {
    let mut manager = Manager::new();
    let running = manager.watches(program(&pool(1)), Duration::from_millis(300)).start();
    ready(&mut manager, &running);
    running.signal(Signal::SIGSTOP);
    wait_until("a parent that is stopped", DEADLINE, || (proc::stat(running.pid())?.state == 'T').then_some(()));
    manager.hear();
    assert!(manager.longest_silence(Duration::from_millis(500)) >= Duration::from_millis(450));
    running.signal(Signal::SIGCONT);
    let before = manager.said.len();
    wait_until("a ping after that", DEADLINE, || {
        manager.hear();
        (manager.said.len() > before).then_some(())
    });
}

#[test] // O-SD-08, O-DT-11: the watchdog of the manager does what it is for
fn stopped_parent_is_killed_and_started_again() {
    let mut service = Service::start(Duration::from_secs(4), || program(&pool(2)));
    service.wait("a Daemon that is ready", |service| service.is_ready().then_some(()));
    let (first, children) = (service.running.pid(), service.running.children());
    assert_eq!(children.len(), 2);
    // One that lives is left alone, for longer than its watchdog's period.
    let begin = Instant::now();
    service.wait("more than a period", |_| (begin.elapsed() > Duration::from_secs(6)).then_some(()));
    assert!(service.killed.is_empty() && service.running.pid() == first, "{:?}", service.killed);
    service.running.signal(Signal::SIGSTOP);
    service.wait("another Daemon that is ready", |service| {
        (service.running.pid() != first && service.is_ready()).then_some(())
    });
    assert_eq!(service.killed.iter().map(ExitStatusExt::signal).collect::<Vec<_>>(), [Some(libc::SIGABRT)]);
    assert!(!proc::is_alive(first) && children.iter().all(|child| !proc::is_alive(*child)));
    assert!(Client::connect(service.running.listening_addr()).line("x").ends_with(" x"));
}

#[test] // O-SD-08, O-SD-10, O-DT-11: it says nothing any more, or asks for it
fn dead_pool_is_started_again() {
    // Only the first child of the first start is ever ready.
    let inject = (2..60).map(|number| format!("daemon.child.ready=exit:3#{number}")).collect::<Vec<_>>().join(",");
    for asks in ["", "--restart-when-dead"] {
        let mut starts = 0;
        let mut service = Service::start(Duration::from_secs(3), || {
            starts += 1;
            let program = program(&format!("{} --health-ms 300 {asks}", pool(1)));
            if starts == 1 { program.env("LENORE_INJECT", &inject) } else { program }
        });
        service.wait("a Daemon that is ready", |service| service.is_ready().then_some(()));
        let first = service.running.pid();
        kill(service.running.children()[0], Signal::SIGKILL).unwrap();
        service.wait("another Daemon that is ready", |service| {
            (service.running.pid() != first && service.is_ready()).then_some(())
        });
        assert_eq!(service.killed.len(), 1, "{asks}");
        assert_eq!(service.manager.count("WATCHDOG=trigger") > 0, !asks.is_empty());
        assert!(Client::connect(service.running.listening_addr()).line("x").ends_with(" x"));
    }
}

#[test] // O-SD-11, O-ST-17
fn status_tells_what_the_pool_does_and_at_most_once_a_second() {
    let mut manager = Manager::new();
    let running = manager.starts(program(&pool(3))).start();
    let addr = running.listening_addr();
    ready(&mut manager, &running);
    let mut client = Client::connect(addr);
    client.line("x");
    let busy =
        manager.wait_that("one that is busy", |datagram| says_pool(datagram, "3 children (1 busy, 2 idle), queue 0"));
    assert_eq!(pool_of(&busy), ("ready: 3 children (1 busy, 2 idle), queue 0, gen 1", "rww".to_owned()));
    for _ in 0..30 {
        drop(client);
        client = Client::connect(addr);
        client.line("x");
    }
    manager.hear();
    let times: Vec<_> = manager
        .said
        .iter()
        .filter(|datagram| datagram.text.starts_with("STATUS="))
        .map(|datagram| datagram.at)
        .collect();
    // What is measured is when they are read.
    let apart = times.windows(2).map(|pair| pair[1] - pair[0]).min();
    assert!(apart.is_none_or(|apart| apart > Duration::from_millis(800)), "{apart:?}");
}

#[test] // O-SD-12
fn end_is_said_once_and_extended_while_children_work() {
    let mut manager = Manager::new();
    let mut running = manager.starts(program(&format!("{} --grace-ms 4000", pool(1)))).start();
    let addr = running.listening_addr();
    ready(&mut manager, &running);
    let mut client = Client::connect(addr);
    client.line("x");
    client.send("late 2500\r\n");
    manager
        .wait_that("one that is busy", |datagram| datagram.get("STATUS").is_some_and(|text| text.contains("(1 busy")));
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait_exit(DEADLINE).code(), Some(0));
    manager.hear();
    assert_eq!(manager.count("STOPPING=1"), 1);
    let stopping = manager.said.iter().position(|datagram| datagram.text.starts_with("STOPPING=1")).unwrap();
    let extensions: Vec<u64> = manager.said[stopping..]
        .iter()
        .filter_map(|datagram| datagram.get("EXTEND_TIMEOUT_USEC")?.parse().ok())
        .collect();
    assert!(extensions.len() >= 2, "{:?}", manager.said);
    assert!(extensions.iter().all(|micros| *micros <= 5_000_000), "{extensions:?}");
    assert!(!manager.said[..stopping].iter().any(|datagram| datagram.text.contains("EXTEND")));
}

#[test] // O-SD-06, O-DT-11: in one datagram each, with what became of it, and before the asker knows
fn reload_is_told_from_its_begin_to_its_verdict_whatever_that_is() {
    let mut manager = Manager::new();
    let changing = changing(&mut manager, "value=a\n", "--probation-ms 0");
    let mut course = vec!["READY"];
    for (config, begins, ends) in [
        ("value=b\n", "reload #2 applied", ""),
        ("nonsense\n", "reload #3 rejected", ": the file can't be loaded: line 1: \"nonsense\" is not known"),
        ("child=die\n", "reload #4 rolled back", ""),
    ] {
        let before = monotonic_usec();
        let answer = changing.reload(config);
        // Nothing is waited for: whoever has the answer finds the manager told.
        course.extend(["RELOADING", "READY"]);
        assert_eq!(manager.course(), course, "{answer:?}");
        let begun = manager.said.iter().rfind(|datagram| datagram.get("RELOADING") == Some("1")).unwrap();
        let at: u64 = begun.get("MONOTONIC_USEC").unwrap().parse().unwrap();
        assert!(before <= at && at <= monotonic_usec(), "{before} {at}");
        assert!(begun.get("STATUS").unwrap().starts_with("reloading: 2 children ("), "{begun:?}");
        assert_eq!(begun.pid, changing.running.pid());
        let verdict = verdict(&mut manager);
        // The cause of a reload that was rolled back has a pid in it.
        let (said, cause) = match verdict.split_once(": child ") {
            Some((said, cause)) => (said.to_owned(), cause),
            None => (verdict.clone(), ""),
        };
        assert!(is_verdict(&said, begins, ends), "{verdict}");
        assert_eq!(cause.ends_with("ended: exited:3"), begins.ends_with("rolled back"), "{verdict}");
    }
    // It is still there when the pool has changed.
    let mut client = Client::connect(changing.addr);
    client.line("x");
    manager.wait_that("a busy child", |datagram| {
        says_pool(datagram, "2 children (1 busy, 1 idle)")
            && datagram.get("STATUS").is_some_and(|status| status.contains("; reload #4 rolled back "))
    });
}

#[test] // O-SD-06: before anything changes, and not before it is over
fn manager_knows_of_a_reload_while_it_is_under_way() {
    let mut manager = Manager::new();
    let changing = changing(&mut manager, "value=a\n", "--load-ms 1500");
    let before = changing.children();
    changing.write("load=loop\n");
    let mut asker = changing.control();
    asker.send("reload\n");
    manager.wait_for("RELOADING=1");
    // The scout, which is one more, has yet to give up.
    assert!(before.iter().all(|pid| changing.children().contains(pid)));
    assert_eq!(manager.course(), ["READY", "RELOADING"]);
    assert_eq!(asker.read_answer().code(), "rejected");
    assert_eq!(manager.course(), ["READY", "RELOADING", "READY"]);
    assert!(verdict(&mut manager).starts_with("reload #2 rejected "));
}

#[test] // O-SD-06, O-RL-09: those who ask meanwhile share the next run, which has a pair of its own
fn each_run_of_reloads_that_coincide_is_told() {
    let mut manager = Manager::new();
    let changing = changing(&mut manager, "value=a\n", "--load-ms 1000");
    changing.write("load=loop\n");
    let mut first = changing.control();
    first.send("reload\n");
    changing
        .control()
        .wait_status("a scout", |status| (status.reloads.stage.as_deref() == Some("scouting")).then_some(()));
    let mut others = [changing.control(), changing.control()];
    others.iter_mut().for_each(|other| other.send("reload\n"));
    // They are known by then.
    changing.ask("status").ok();
    changing.write("value=b\n");
    assert_eq!(first.read_answer().code(), "rejected");
    others.iter_mut().for_each(|other| _ = other.read_answer().ok());
    assert_eq!(manager.course(), ["READY", "RELOADING", "READY", "RELOADING", "READY"]);
    let verdict = verdict(&mut manager);
    assert!(is_verdict(&verdict, "reload #3 applied", ""), "{verdict}");
}

#[test] // O-SD-06, O-RL-15: and nothing behind the end
fn reload_that_a_stop_supersedes_is_over_before_the_end() {
    let mut manager = Manager::new();
    let mut changing = changing(&mut manager, "value=a\n", "");
    changing.write("load=loop\n");
    let mut asker = changing.control();
    asker.send("reload\n");
    manager.wait_for("RELOADING=1");
    let mut second = changing.control();
    second.send("reload\n");
    changing.ask("status").ok();
    changing.signal(Signal::SIGTERM);
    assert_eq!(asker.read_answer().code(), "superseded");
    assert_eq!(second.read_answer().code(), "superseded");
    assert_eq!(changing.running.wait_exit(DEADLINE).code(), Some(0));
    assert_eq!(manager.course(), ["READY", "RELOADING", "READY", "STOPPING"]);
    let verdict = verdict(&mut manager);
    assert!(is_verdict(&verdict, "reload #2 superseded", ""), "{verdict}");
}

#[test] // O-SD-06, O-RL-17
fn check_is_not_told() {
    let mut manager = Manager::new();
    let changing = changing(&mut manager, "value=a\n", "");
    changing.ask("check").ok();
    changing.write("nonsense\n");
    assert_eq!(changing.ask("check").code(), "rejected");
    assert_eq!(manager.course(), ["READY"]);
    changing.reload("value=b\n").ok();
    assert_eq!(manager.course(), ["READY", "RELOADING", "READY"]);
}

#[test] // O-SD-01, O-SD-06
fn reload_during_the_start_is_not_told() {
    let mut manager = Manager::new();
    let dir = tempfile::tempdir().unwrap();
    let gate = dir.path().join("gate");
    let held = |program: Program| {
        manager.starts(program).env("LENORE_INJECT", format!("daemon.child.ready=hold:{}#2", gate.display()))
    };
    let changing = Changing::start_by(held, "value=a\n", &Changing::size(2));
    wait_until("a child that is held", DEADLINE, || gate.exists().then_some(()));
    assert_eq!(changing.reload("nonsense\n").code(), "rejected");
    manager.hear();
    assert!(manager.said.is_empty(), "{:?}", manager.said);
    std::fs::remove_file(&gate).unwrap();
    ready(&mut manager, &changing.running);
    assert_eq!(manager.course(), ["READY"]);
}

#[test] // O-SD-06: with `Type=notify-reload` HUP is answered, also by a program that has nothing but its log to open again
fn hup_is_a_reload_that_the_manager_can_wait_for() {
    let mut manager = Manager::new();
    let changing = changing(&mut manager, "value=a\n", "");
    changing.write("value=b\n");
    let over = manager.reload_by_signal(&changing.running);
    assert!(over.get("STATUS").unwrap().contains(", gen 2, "), "{over:?}");
    assert!(over.get("STATUS").unwrap().contains("; reload #2 applied "), "{over:?}");
    assert_eq!(changing.value(), "b");
    // It does not get to its loop before the signal is a while old.
    changing.signal(Signal::SIGSTOP);
    wait_until("a stopped parent", DEADLINE, || (proc::state(changing.running.pid()) == Some('T')).then_some(()));
    let pid = changing.running.pid();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            wait_until("a signal that waits", DEADLINE, || has_pending_hup(pid).then_some(()));
            kill(pid, Signal::SIGCONT).unwrap();
        });
        changing.write("nonsense\n");
        let over = manager.reload_by_signal(&changing.running);
        assert!(over.get("STATUS").unwrap().contains("; reload #3 rejected "), "{over:?}");
    });

    let mut manager = Manager::new();
    let running = manager.starts(program(&pool(2))).start();
    running.listening_addr();
    ready(&mut manager, &running);
    let over = manager.reload_by_signal(&running);
    assert_eq!(pool_of(&over), ("ready: 2 children (0 busy, 2 idle), queue 0, gen 1", "ww".to_owned()));
    assert_eq!(manager.course(), ["READY", "RELOADING", "READY"]);
}

/// Tells whether HUP waits for a process that is stopped.
fn has_pending_hup(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
    pending.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & 1 != 0))
}

#[test] // O-SD-03, O-SD-06
fn reload_does_not_wait_for_a_manager_that_does_not_read() {
    let name = format!("lenore-full-reload-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let managed = |program: Program| program.env("NOTIFY_SOCKET", format!("@{name}"));
    let changing = Changing::start_by(managed, "value=a\n", &Changing::size(2));
    let mut message = [0; 512];
    let mut hear = || {
        let length = socket.recv(&mut message).unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    };
    wait_until("READY", DEADLINE, || hear().starts_with("READY=1\n").then_some(()));
    fill(&address);
    changing.reload("nonsense\n");
    changing.reload("value=b\n").ok();
    // The last pair, in order, when there is room again.
    let said = wait_until("what the manager must know", DEADLINE, || {
        let said = hear();
        (!said.starts_with("X=") && !said.starts_with("STATUS=")).then_some(said)
    });
    assert!(said.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{said}");
    let said = hear();
    assert!(said.starts_with("READY=1\n") && said.contains("; reload #3 applied "), "{said}");
}

#[test] // O-SD-08, O-SD-12: the process serves its clients although the Daemon has ended
fn server_without_children_is_vouched_for_until_its_last_client_has_gone() {
    let mut manager = Manager::new();
    let program = program("--mode single --grace-ms 20000");
    let mut running = manager.watches(program, Duration::from_millis(900)).start();
    let addr = running.listening_addr();
    ready(&mut manager, &running);
    let mut client = Client::connect(addr);
    client.line("x");
    client.send("late 4000\r\n");
    // It has read that.
    Client::connect(addr).line("y");
    running.signal(Signal::SIGTERM);
    let stopping = manager.wait_for("STOPPING=1");
    assert_eq!(stopping.get("STATUS"), Some("draining: gen 1"));
    let silence = manager.longest_silence(Duration::from_millis(2000));
    assert!(silence < Duration::from_millis(900), "{silence:?}");
    assert!(client.read_line().ends_with(" late"));
    drop(client);
    assert_eq!(running.wait_exit(DEADLINE).code(), Some(0));
    manager.hear();
    let is_extension = |datagram: &&Datagram| datagram.get("EXTEND_TIMEOUT_USEC").is_some();
    let extensions: Vec<Datagram> = manager.said.iter().filter(is_extension).cloned().collect();
    assert!(extensions.len() >= 2 && extensions.iter().all(|datagram| datagram.at >= stopping.at), "{extensions:?}");
    assert_eq!(manager.course(), ["READY", "STOPPING"]);
}

#[test] // O-SD-12: it takes no longer than the Daemon allows, whatever the client does
fn server_without_children_does_not_ask_for_more_time_than_there_is() {
    let mut manager = Manager::new();
    let mut running = manager.starts(program("--mode single --grace-ms 1500")).start();
    let addr = running.listening_addr();
    ready(&mut manager, &running);
    let mut client = Client::connect(addr);
    client.line("x");
    client.send("late 600000\r\n");
    Client::connect(addr).line("y");
    running.signal(Signal::SIGTERM);
    client.expect_eof_or_reset();
    assert_eq!(running.wait_exit(DEADLINE).code(), Some(0));
    manager.hear();
    let micros = |datagram: &Datagram| datagram.get("EXTEND_TIMEOUT_USEC")?.parse::<u64>().ok();
    let extensions: Vec<u64> = manager.said.iter().filter_map(micros).collect();
    assert!(!extensions.is_empty() && extensions.iter().all(|micros| *micros <= 2_500_000), "{extensions:?}");
}

#[test] // a program that detaches can't be looked after
fn detaching_under_a_manager_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut manager = Manager::new();
    let args = format!("{} --detach --dir {}", pool(1), dir.path().display());
    let mut running = manager.starts(program(&args)).start();
    assert_eq!(running.wait_exit(DEADLINE).code(), Some(1));
    let failed = manager.wait_for("EXIT_STATUS=1");
    assert!(failed.get("STATUS").unwrap().contains("NOTIFY_SOCKET is set"), "{failed:?}");
    let running = manager.starts(program(&format!("{args} --unmanaged"))).start();
    let log = dir.path().join("log");
    wait_until("a daemon", DEADLINE, || std::fs::read_to_string(&log).ok()?.contains("listening on").then_some(()));
    assert_eq!(manager.count("READY=1"), 0);
    drop(running);
}

#[test] // the examples need no thought of it
fn example_tells_the_manager() {
    let mut manager = Manager::new();
    let running = manager
        .watches(Program::new(example("echo_prefork")).args(["--listen", "127.0.0.1:0"]), Duration::from_secs(3))
        .start();
    ready(&mut manager, &running);
    manager.wait_for("WATCHDOG=1");
    running.signal(Signal::SIGTERM);
    manager.wait_for("STOPPING=1");
}

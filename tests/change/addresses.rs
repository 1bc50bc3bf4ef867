//! Addresses that a configuration adds or drops at a reload (O-RL-13).

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;

use nix::sys::signal::Signal;
use util::addresses::{free_addresses, is_free, wait_free};
use util::control::Control;
use util::{Client, DEADLINE, Program, kill, proc, test_program, wait_until};

use super::changing::{Changing, lenorectl};
use super::load::Load;

/// Addresses that nothing listens on, and nothing else here uses.
fn free<const N: usize>() -> [SocketAddr; N] {
    let own = std::process::id().to_be_bytes();
    free_addresses(Ipv4Addr::new(127, own[2] | 1, own[3], 9))
}

fn config(addresses: &[SocketAddr], rest: &str) -> String {
    addresses.iter().map(|address| format!("listen={address}\n")).collect::<String>() + rest
}

fn program(mode: &str, dir: &std::path::Path) -> Program {
    let program = Program::new(test_program("configured")).args(["--mode", mode]);
    program.arg("--config").arg(dir.join("conf")).arg("--control").arg(dir.join("control.sock"))
}

/// Starts it on these addresses.
#[track_caller]
fn start(mode: &str, addresses: &[SocketAddr], args: &str) -> Changing {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("conf"), config(addresses, "value=a\n")).expect("a file");
    let running = program(mode, dir.path()).args(args.split_whitespace()).start();
    let addr = running.listening_addr();
    assert_eq!(addr, addresses[0]);
    let changing = Changing { running, socket: dir.path().join("control.sock"), dir, addr };
    if mode.starts_with("prefork") {
        changing.wait_idle(2);
    }
    changing
}

const POOL: &str = "prefork:2";
const SIZE: &str = "--max 2";

#[track_caller]
fn value_at(address: SocketAddr) -> String {
    let answer = Client::connect(address).line("x");
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[track_caller]
fn wait_refused(address: SocketAddr) {
    wait_until(&format!("{address} refuses clients"), DEADLINE, || TcpStream::connect(address).is_err().then_some(()));
}

/// The sockets of a process that listen, by their numbers in the system.
fn listening(pid: i32, address: SocketAddr) -> Vec<String> {
    let SocketAddr::V4(address) = address else { panic!("{address} is not of IPv4") };
    let place = format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port());
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).expect("a table");
    let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let inodes = lines.filter(|fields| fields[1] == place && fields[3] == "0A").map(|fields| fields[9].to_owned());
    let open: Vec<String> = proc::fds(pid).into_values().collect();
    inodes.map(|inode| format!("socket:[{inode}]")).filter(|socket| open.contains(socket)).collect()
}

#[test] // O-RL-13
fn address_that_a_reload_adds_is_served_and_one_that_it_drops_is_refused() {
    for (mode, args) in [("single", ""), ("fork:4", ""), (POOL, SIZE)] {
        let [stays, goes, comes] = free();
        let changing = start(mode, &[stays, goes], args);
        assert_eq!((value_at(stays), value_at(goes)), ("a".into(), "a".into()), "{mode}");
        assert!(TcpStream::connect(comes).is_err());
        assert_eq!(changing.reload(&config(&[comes, stays], "value=b\n")).last, "OK applied");
        assert_eq!((value_at(stays), value_at(comes)), ("b".into(), "b".into()), "{mode}");
        wait_refused(goes);
        // Nothing of it is left in any process.
        wait_free(goes);
        // And back.
        assert_eq!(changing.reload(&config(&[stays, goes], "value=c\n")).last, "OK applied");
        assert_eq!((value_at(stays), value_at(goes)), ("c".into(), "c".into()), "{mode}");
        wait_refused(comes);
    }
}

#[test] // O-RL-13, O-RL-16: its queue survives, and nothing is left of the other one
fn address_that_stays_keeps_its_socket_under_load() {
    let [stays, other] = free();
    let changing = start(POOL, &[stays], SIZE);
    let socket = listening(changing.running.pid(), stays);
    assert_eq!(socket.len(), 1);
    let load = Load::without_kept(stays);
    let descriptors = proc::fewest_fds(changing.running.pid());
    for round in 0..10 {
        let addresses = if round % 2 == 0 { vec![other, stays] } else { vec![stays] };
        assert_eq!(changing.reload(&config(&addresses, "value=b\n")).last, "OK applied");
        if round % 2 == 1 {
            // A child that was told to go may have it still.
            wait_refused(other);
        }
    }
    load.end().assert_nothing_lost();
    assert_eq!(listening(changing.running.pid(), stays), socket);
    assert!(listening(changing.running.pid(), other).is_empty());
    wait_until("no more descriptors than before", DEADLINE, || {
        (proc::fewest_fds(changing.running.pid()) <= descriptors).then_some(())
    });
}

#[test] // O-RL-13
fn address_that_can_not_be_bound_rejects_the_reload() {
    for (mode, args) in [("single", ""), ("fork:4", ""), (POOL, SIZE)] {
        let [stays, free] = free();
        let taken = TcpListener::bind((stays.ip(), 0)).expect("a port");
        let address = taken.local_addr().expect("bound");
        let changing = start(mode, &[stays], args);
        // Of the others, one may be about to end.
        let children = || if mode == POOL { changing.children() } else { Vec::new() };
        let before = children();
        let answer = changing.reload(&config(&[free, address], "value=b\n"));
        assert_eq!(answer.code(), "rejected", "{answer:?}");
        assert!(answer.last.contains(&address.to_string()) && answer.last.contains("in use"), "{answer:?}");
        assert_eq!((value_at(stays), children()), ("a".into(), before), "{mode}");
        // The one that could be bound is free again.
        wait_free(free);
        drop(taken);
        wait_free(address);
        assert_eq!(changing.reload(&config(&[address], "value=b\n")).last, "OK applied");
        assert_eq!(value_at(address), "b");
        wait_refused(stays);
    }
}

#[test] // O-RL-13, O-RL-17
fn address_of_a_configuration_that_is_only_checked_is_not_bound() {
    for (mode, args) in [("single", ""), ("fork:4", ""), (POOL, SIZE)] {
        let [stays, comes] = free();
        let changing = start(mode, &[stays], args);
        let socket = listening(changing.running.pid(), stays);
        let before = proc::fds(changing.running.pid()).len();
        for (rest, code) in [("value=b\n", 0), ("nonsense=\n", 1)] {
            fs::write(changing.dir.path().join("conf"), config(&[comes, stays], rest)).expect("a file");
            let out = lenorectl(&changing.socket, "check");
            assert_eq!(out.code, code, "{mode}: {out:?}");
        }
        assert_eq!(listening(changing.running.pid(), comes), [""; 0]);
        wait_free(comes);
        assert_eq!(listening(changing.running.pid(), stays), socket);
        wait_until("no more descriptors than before", DEADLINE, || {
            (proc::fds(changing.running.pid()).len() <= before).then_some(())
        });
        assert_eq!(value_at(stays), "a", "{mode}");
    }
}

#[test] // O-RL-03, O-RL-13, O-RL-17: a server that listens nowhere would not be asked again
fn configuration_without_an_address_is_rejected() {
    for (mode, args) in [("single", ""), ("fork:4", ""), (POOL, SIZE)] {
        let [stays, comes] = free();
        let changing = start(mode, &[stays], args);
        fs::write(changing.dir.path().join("conf"), "value=b\n").expect("a file");
        for command in ["check", "reload"] {
            let out = lenorectl(&changing.socket, command);
            assert_eq!(out.code, 1, "{mode}: {out:?}");
            assert!(out.err.contains("the configuration names no address for the server to listen on"), "{out:?}");
        }
        assert_eq!(value_at(stays), "a", "{mode}");
        changing.reload(&config(&[comes], "value=c\n")).ok();
        assert_eq!(value_at(comes), "c", "{mode}");
    }
}

#[test] // O-RL-13, O-RL-17
fn addresses_that_exclude_each_other_fail_a_check_and_a_reload() {
    let [stays, free] = free();
    let everywhere = SocketAddr::from(([0, 0, 0, 0], free.port()));
    for (mode, args) in [("single", ""), (POOL, SIZE)] {
        let changing = start(mode, &[stays], args);
        for pair in [[free, everywhere], [everywhere, free]] {
            let [first, second] = pair;
            fs::write(changing.dir.path().join("conf"), config(&[stays, first, second], "value=b\n")).expect("a file");
            let outs = ["check", "reload"].map(|command| lenorectl(&changing.socket, command));
            for out in &outs {
                assert_eq!(out.code, 1, "{mode}: {out:?}");
                let says = |text: &str| out.err.contains(text);
                assert!(says("rejected: ") && says(&format!("bind {second}: ")) && says("in use"), "{mode}: {out:?}");
            }
            assert_eq!(outs[0].err, outs[1].err);
        }
        wait_free(free);
        assert_eq!(value_at(stays), "a", "{mode}");
    }
}

#[test] // O-RL-13, O-RL-17: the exit code is that of a reload
fn address_that_can_not_be_bound_fails_a_check() {
    for (mode, args) in [("single", ""), ("fork:4", ""), (POOL, SIZE)] {
        let [stays, comes] = free();
        let changing = start(mode, &[stays], args);
        let taken = TcpListener::bind((stays.ip(), 0)).expect("a port");
        let address = taken.local_addr().expect("bound");
        fs::write(changing.dir.path().join("conf"), config(&[comes, address, stays], "value=b\n")).expect("a file");
        let out = lenorectl(&changing.socket, "check");
        assert_eq!(out.code, 1, "{mode}: {out:?}");
        let says = |text: &str| out.err.contains(text);
        assert!(says("rejected: ") && says(&format!("{address}: ")) && says("in use"), "{mode}: {out:?}");
        wait_free(comes);
        // Nothing has come of it for whoever has the address.
        let client = TcpStream::connect(address).expect("it listens");
        assert_eq!(taken.accept().expect("a client").1, client.local_addr().expect("connected"));
        drop((client, taken));
        // A program that another test is starting has a copy of the socket for a moment.
        wait_until("a check that finds all addresses free", DEADLINE, || {
            (lenorectl(&changing.socket, "check").code == 0).then_some(())
        });
        assert_eq!(value_at(stays), "a", "{mode}");
    }
}

#[test] // O-RL-13, O-RL-17: kept for a way back, it is this Daemon's
fn address_that_was_dropped_on_probation_passes_a_check() {
    let [stays, other] = free();
    let changing = start(POOL, &[stays, other], &format!("{SIZE} --probation-ms 600000"));
    assert_eq!(changing.reload(&config(&[stays], "value=b\n")).last, "OK applied");
    wait_refused(other);
    fs::write(changing.dir.path().join("conf"), config(&[stays, other], "value=c\n")).expect("a file");
    let out = lenorectl(&changing.socket, "check");
    assert_eq!(out.code, 0, "{out:?}");
    wait_refused(other);
    assert!(!is_free(other), "it is kept still");
    assert_eq!(changing.ask("reload").last, "OK applied");
    assert_eq!(value_at(other), "c");
}

#[test] // O-RL-13, O-RL-17
fn address_of_a_configuration_that_fails_its_check_is_never_bound() {
    let [stays, comes] = free();
    let changing = start(POOL, &[stays], SIZE);
    // An address that is taken would be what the verdict names.
    let taken = TcpListener::bind(comes).expect("it is free");
    for (rest, cause) in [
        ("nonsense=\n", "\"nonsense=\" is not known"),
        ("listen=localhost:80\n", "\"localhost:80\" is not an address to listen on"),
    ] {
        let answer = changing.reload(&config(&[comes, stays], rest));
        assert_eq!(answer.code(), "rejected");
        assert!(answer.last.contains(cause) && !answer.last.contains(&comes.to_string()), "{answer:?}");
    }
    drop(taken);
    wait_free(comes);
}

#[test] // O-RL-13, O-RL-06
fn address_of_a_configuration_that_fails_is_closed_again() {
    let [stays, goes, comes] = free();
    let changing = start(POOL, &[stays, goes], SIZE);
    let die = changing.dir.path().join("conf");
    let answer = changing.reload(&config(&[stays, comes], &format!("value=b\ndie={}\n", die.display())));
    assert_eq!(answer.code(), "rolled_back", "{answer:?}");
    changing.wait_idle(2);
    assert_eq!((value_at(stays), value_at(goes)), ("a".into(), "a".into()));
    wait_refused(comes);
    wait_free(comes);
}

#[test] // O-RL-13, O-RL-19
fn address_that_was_dropped_is_served_again_when_the_reload_is_taken_back() {
    let [stays, goes, comes] = free();
    let changing = start(POOL, &[stays, goes], &format!("{SIZE} --probation-ms 600000"));
    let die: PathBuf = changing.dir.path().join("die");
    let new = config(&[stays, comes], &format!("value=b\ndie={}\n", die.display()));
    assert_eq!(changing.reload(&new).last, "OK applied");
    // Nothing serves it, but it is not anybody else's either.
    wait_refused(goes);
    assert!(!is_free(goes));
    fs::write(&die, "").expect("a file");
    changing.children().into_iter().for_each(|child| kill(child, Signal::SIGKILL).expect("it lives"));
    changing.wait_log("reload is taken back");
    wait_until("children of the former edition", DEADLINE, || {
        let client = TcpStream::connect(goes).ok()?;
        drop(client);
        (value_at(goes) == "a").then_some(())
    });
    wait_refused(comes);
    changing.wait_idle(2);
    assert_eq!((value_at(stays), value_at(goes)), ("a".into(), "a".into()));
}

#[test] // O-RL-13, D-SP-07
fn address_that_was_dropped_is_kept_when_another_daemon_ends() {
    let [stays, goes, elsewhere] = free();
    let dir = tempfile::tempdir().expect("a directory");
    let other = dir.path().join("other");
    fs::write(&other, config(&[elsewhere], "")).expect("a file");
    let args = format!("{SIZE} --probation-ms 600000 --other {}", other.display());
    let changing = start(POOL, &[stays, goes], &args);
    assert_eq!(value_at(elsewhere), "a");
    assert_eq!(changing.reload(&config(&[stays], "value=b\n")).last, "OK applied");
    wait_refused(goes);
    changing.signal(Signal::SIGUSR1);
    wait_refused(elsewhere);
    // It is still bound, for a way back.
    assert!(!is_free(goes));
    wait_free(elsewhere);
    assert_eq!(changing.reload(&config(&[stays, goes], "value=c\n")).last, "OK applied");
    assert_eq!((value_at(stays), value_at(goes)), ("c".into(), "c".into()));
}

#[test] // O-RL-13: by another reload, and not by a way back
fn address_that_was_dropped_on_probation_can_be_had_again() {
    let [stays, other] = free();
    let changing = start(POOL, &[stays, other], &format!("{SIZE} --probation-ms 600000"));
    assert_eq!(changing.reload(&config(&[stays], "value=b\n")).last, "OK applied");
    wait_refused(other);
    assert_eq!(changing.reload(&config(&[stays, other], "value=c\n")).last, "OK applied");
    assert_eq!((value_at(stays), value_at(other)), ("c".into(), "c".into()));
    assert_eq!(changing.reload(&config(&[other], "value=d\n")).last, "OK applied");
    assert_eq!(value_at(other), "d");
}

#[test] // O-RL-14: the first configuration
fn server_does_not_start_on_an_address_that_is_taken_or_none() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    for (text, why) in [
        (format!("listen={address}\n"), format!("{address}: ")),
        ("listen=localhost:80\n".to_owned(), "\"localhost:80\" is not an address to listen on".to_owned()),
        ("value=a\n".to_owned(), "names no address".to_owned()),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("conf"), text).expect("a file");
        let mut running = program(POOL, dir.path()).start();
        assert_eq!(running.wait_exit(DEADLINE).code(), Some(1));
        let said = running.stderr_to_end(DEADLINE);
        assert!(said.contains(&why), "{said}");
    }
}

#[test] // O-UP-10: the new program reads the same configuration, and finds the sockets by their addresses
fn addresses_of_a_configuration_are_passed_on_by_an_upgrade() {
    let [stays, comes] = free();
    let mut changing = start(POOL, &[stays], SIZE);
    assert_eq!(changing.reload(&config(&[comes, stays], "value=b\n")).last, "OK applied");
    let sockets = |pid| [stays, comes].map(|address| listening(pid, address));
    let before = sockets(changing.running.pid());
    assert!(before.iter().all(|sockets| sockets.len() == 1), "{before:?}");
    let load = Load::without_kept(stays);
    assert_eq!(lenorectl(&changing.socket, "upgrade").code, 0, "{}", changing.running.stderr_text());
    assert!(changing.running.wait_exit(DEADLINE).success());
    load.end().assert_nothing_lost();
    let status = Control::connect(&changing.socket).status();
    assert_eq!(sockets(status.service.pid as i32), before);
    assert_eq!((value_at(stays), value_at(comes)), ("b".into(), "b".into()));
}

#[test] // O-UP-10: when it is ready, with a log line
fn address_that_an_upgrade_drops_is_closed_and_one_that_it_adds_is_served() {
    let [stays, goes, comes] = free();
    let mut changing = start(POOL, &[goes, stays], SIZE);
    let socket = listening(changing.running.pid(), stays);
    fs::write(changing.dir.path().join("conf"), config(&[stays, comes], "value=b\n")).expect("a file");
    let load = Load::without_kept(stays);
    assert_eq!(lenorectl(&changing.socket, "upgrade").code, 0, "{}", changing.running.stderr_text());
    assert!(changing.running.wait_exit(DEADLINE).success());
    load.end().assert_nothing_lost();
    assert_eq!((value_at(stays), value_at(comes)), ("b".into(), "b".into()));
    wait_refused(goes);
    wait_free(goes);
    let new = Control::connect(&changing.socket).status().service.pid as i32;
    assert_eq!(listening(new, stays), socket);
    let closed = changing.wait_log("inherited socket closed, as nothing listens on it");
    assert!(closed.contains(&format!("type=\"tcp\" address={goes}")), "{closed}");
    assert_eq!(changing.logged("inherited socket closed"), 1);
}

#[test] // O-UP-10, O-UP-07
fn address_that_an_upgrade_drops_is_served_again_when_that_is_taken_back() {
    let [stays, goes, comes] = free();
    let changing = start(POOL, &[goes, stays], &format!("{SIZE} --probation-ms 600000"));
    fs::write(changing.dir.path().join("conf"), config(&[stays, comes], "value=b\n")).expect("a file");
    changing.ask("upgrade no-wait").ok();
    changing.wait_log("the new program serves");
    assert_eq!(value_at(comes), "b");
    // One that comes meanwhile waits: there may be a way back.
    let mut early = Client::connect(goes);
    early.send("x\r\n");
    let new = Control::connect(&changing.socket).status().service.pid as i32;
    assert_ne!(new, changing.running.pid());
    kill(new, Signal::SIGKILL).expect("it lives");
    let answer = early.read_line();
    assert!(answer.contains(" a x"), "{answer}");
    drop(early);
    wait_refused(comes);
    wait_until("children of the old one", DEADLINE, || (value_at(stays) == "a").then_some(()));
}

/// What a server answers with; `None` if it closes the connection.
fn try_value(address: SocketAddr) -> Option<String> {
    let mut client = BufReader::new(TcpStream::connect(address).ok()?);
    client.get_mut().write_all(b"x\n").ok()?;
    let mut line = String::new();
    client.read_line(&mut line).ok()?;
    line.split(' ').nth(1).map(str::to_owned)
}

#[test] // O-RL-19, O-RL-20: each child has had a request
fn post_forking_server_goes_back_when_children_fail_on_probation() {
    let [stays, goes] = free();
    let changing = start("fork:4", &[stays, goes], "--probation-ms 600000");
    let die = changing.dir.path().join("die");
    let new = config(&[stays], &format!("value=b\ndie={}\n", die.display()));
    assert_eq!(changing.reload(&new).last, "OK applied");
    assert_eq!(value_at(stays), "b");
    wait_refused(goes);
    fs::write(&die, "").expect("a file");
    let mut lost = 0;
    wait_until("the former configuration", DEADLINE, || match try_value(stays) {
        Some(value) => {
            assert_eq!(value, "a");
            Some(())
        }
        None => {
            lost += 1;
            None
        }
    });
    assert!(lost >= 3, "{lost}");
    assert_eq!(value_at(goes), "a");
    assert_eq!(changing.control().status().reloads.verdicts["taken_back"], 1);
}

#[test] // O-RL-19: one request may be to blame
fn post_forking_server_stays_when_few_children_fail_on_probation() {
    let [stays] = free();
    let changing = start("fork:4", &[stays], "--probation-ms 600000");
    let die = changing.dir.path().join("die");
    let new = config(&[stays], &format!("value=b\ndie={}\n", die.display()));
    assert_eq!(changing.reload(&new).last, "OK applied");
    // In all more than would be too many in a row.
    for _ in 0..3 {
        for _ in 0..2 {
            fs::write(&die, "").expect("a file");
            assert_eq!(try_value(stays), None);
        }
        fs::remove_file(&die).expect("a file");
        assert_eq!(value_at(stays), "b");
        changing.control().wait_status("no child", |status| (status.pool.total == 0).then_some(()));
    }
    let verdicts = changing.control().status().reloads.verdicts;
    assert_eq!((verdicts["applied"], verdicts["taken_back"]), (1, 0));
}

#[test] // O-ST-09
fn callback_that_fails_is_counted_as_a_failed_request() {
    for (mode, args) in [("single", ""), ("fork:4", ""), (POOL, SIZE)] {
        let [address] = free();
        let changing = start(mode, &[address], args);
        let failed = || changing.control().status().counters.requests_failed;
        assert_eq!(failed(), Some(0), "{mode}");
        for line in ["fail\r\n", "next\r\n"] {
            let mut client = Client::connect(address);
            assert!(client.line("x").ends_with("a x"));
            client.send(line);
            client.expect_eof();
        }
        wait_until("two failures", DEADLINE, || (failed() == Some(2)).then_some(()));
        // What a child has counted outlives it.
        for child in changing.children() {
            let _ = kill(child, Signal::SIGKILL);
        }
        assert_eq!(value_at(address), "a");
        assert_eq!(failed(), Some(2), "{mode}");
        let metrics = changing.ask("metrics").ok();
        assert!(metrics.contains("\nlenore_requests_failed_total 2\n"), "{metrics}");
    }
}

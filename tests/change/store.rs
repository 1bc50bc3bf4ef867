//! Listeners that a service manager keeps while a program is started again (O-SD-14).

use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use nix::sys::signal::Signal;
use util::addresses::free_addresses;
use util::manager::Manager;
use util::{Client, DEADLINE, Program, Running, kill, proc, test_program, wait_until};

use super::load::Load;

fn program(args: &str) -> Program {
    Program::new(test_program("inherited")).arg("--descriptor-store").args(args.split_whitespace())
}

/// Starts the program again with what the manager has kept.
fn again(manager: &Manager, args: &str) -> Running {
    let launcher = Program::new(test_program("listen_launch"));
    let program = manager.starts_again(launcher, test_program("inherited"));
    program.arg("--descriptor-store").args(args.split_whitespace()).start()
}

/// An address of this host with a port that nobody else of these tests has.
fn free_address(number: u8) -> SocketAddr {
    let own = std::process::id().to_be_bytes();
    let [address] = free_addresses(Ipv4Addr::new(127, own[2], own[3], number));
    address
}

#[track_caller]
fn ready(manager: &mut Manager, running: &Running) -> SocketAddr {
    let address = running.listening_addr();
    manager.wait_that("READY=1 of this process", |said| said.get("READY") == Some("1") && said.pid == running.pid());
    address
}

/// Kills the parent, and then its children, as systemd does with `KillMode=mixed`.
#[track_caller]
fn crash(running: &mut Running) {
    let children = running.children();
    running.signal(Signal::SIGKILL);
    running.wait_exit(DEADLINE);
    children.iter().for_each(|pid| _ = kill(*pid, Signal::SIGKILL));
    wait_until("children that have ended", DEADLINE, || children.iter().all(|pid| !proc::is_alive(*pid)).then_some(()));
}

/// Waits until nobody has the listener. What another test has just forked has a copy of what the manager kept, until it becomes a program.
#[track_caller]
fn wait_refused(address: SocketAddr) {
    wait_until("a listener that is closed", DEADLINE, || TcpStream::connect(address).is_err().then_some(()));
}

#[track_caller]
fn end(mut running: Running) {
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait_exit(DEADLINE).code(), Some(0), "{}", running.stderr_text());
}

#[test] // O-SD-14: kill -9 under load; nobody is refused, and whoever waits is answered
fn clients_that_come_during_a_crash_restart_are_answered() {
    for (number, mode, name) in
        [(1, "prefork:2", ""), (2, "fork", ""), (3, "single", ""), (4, "prefork:2", "--name http")]
    {
        let mut manager = Manager::new();
        // A name finds its socket at any port, an address is one only with a port of its own.
        let address = if name.is_empty() { free_address(number).to_string() } else { "127.0.0.1:0".to_owned() };
        let args = format!("--listen {address} --mode {mode} {name}");
        let mut running = manager.starts(program(&args)).start();
        let address = ready(&mut manager, &running);
        manager.wait_for_store(&[if name.is_empty() { "lenore" } else { "http" }]);
        let load = Load::begin(address);
        wait_until("an answer under load", DEADLINE, || {
            Client::connect(address).line("x").ends_with(" x").then_some(())
        });
        crash(&mut running);
        let queued: Vec<Client> = (0..20)
            .map(|number| {
                let mut client = Client::connect(address);
                client.send(format!("{number}\r\n"));
                client
            })
            .collect();
        let second = again(&manager, &args);
        for (number, mut client) in queued.into_iter().enumerate() {
            let answer = client.read_line();
            assert!(answer.ends_with(&format!(" {number}")), "{mode}: {answer}");
        }
        assert_eq!(ready(&mut manager, &second), address);
        second.wait_for_stderr("inherited socket taken over: ", DEADLINE);
        let tally = load.end();
        // What was in hand when the parent was killed may be lost.
        assert_eq!(tally.refused, 0, "{mode}: {tally:?}");
        assert!(tally.answered > 0, "{mode}: {tally:?}");
        // It is still kept, once.
        crash(&mut { second });
        manager.hear();
        assert_eq!(manager.store.len(), 1);
        let third = again(&manager, &args);
        assert!(Client::connect(address).line("y").ends_with(" y"), "{mode}");
        end(third);
        // At a stop it is systemd that lets go, but not if the service is started again.
        manager.hear();
        assert_eq!(manager.store.len(), 1);
        assert_eq!(manager.count("FDSTOREREMOVE=1"), 0);
        let mut early = Client::connect(address);
        early.send("early\r\n");
        let fourth = again(&manager, &args);
        assert!(early.read_line().ends_with(" early"), "{mode}");
        drop(early);
        end(fourth);
    }
}

#[test] // O-SD-14: two without a name are told apart by their addresses
fn listeners_without_a_name_get_each_its_own() {
    let mut manager = Manager::new();
    let (one, other) = (free_address(5), free_address(6));
    let args = format!("--listen {one} --mode prefork:2 --also {other}");
    let mut running = manager.starts(program(&args)).start();
    ready(&mut manager, &running);
    manager.wait_for_store(&["lenore", "lenore"]);
    crash(&mut running);
    let waiting = TcpStream::connect(other).expect("it is kept");
    manager.store.reverse();
    let second = again(&manager, &format!("{args} --strict"));
    assert_eq!(ready(&mut manager, &second), one);
    assert!(Client::connect(one).line("x").ends_with(" x"));
    wait_until("a line for each socket", DEADLINE, || {
        let lines = second.stderr_text().matches("inherited socket taken over: name=\"lenore\"").count();
        (lines == 2).then_some(())
    });
    drop(waiting);
    end(second);
}

#[test] // O-SD-14: one that is closed for good is not kept, and one that comes later is
fn listener_that_is_closed_is_let_go() {
    let mut manager = Manager::new();
    let (one, other) = (free_address(7), free_address(8));
    let args = format!("--listen {one} --mode single --also {other}");
    let running = manager.starts(program(&args)).start();
    ready(&mut manager, &running);
    manager.wait_for_store(&["lenore", "lenore"]);
    let mut client = Client::connect(one);
    client.line("close");
    manager.wait_for_store(&["lenore"]);
    wait_refused(other);
    TcpStream::connect(one).expect("this one is there");
    client.line("open");
    manager.wait_for_store(&["lenore", "lenore"]);
    drop(client);
    end(running);
    manager.hear();
    assert_eq!((manager.store.len(), manager.count("FDSTOREREMOVE=1")), (2, 1));
}

#[test] // O-SD-14: clients are not to wait for ever where nothing listens any more
fn socket_that_nothing_takes_over_is_let_go() {
    let mut manager = Manager::new();
    let (one, other) = (free_address(9), free_address(10));
    let args = format!("--listen {one} --mode prefork:2");
    let mut running = manager.starts(program(&format!("{args} --also {other}"))).start();
    ready(&mut manager, &running);
    manager.wait_for_store(&["lenore", "lenore"]);
    crash(&mut running);
    let second = again(&manager, &args);
    ready(&mut manager, &second);
    second.wait_for_stderr("inherited socket closed, as nothing listens on it: name=\"lenore\"", DEADLINE);
    manager.wait_for_store(&["lenore"]);
    wait_refused(other);
    assert!(Client::connect(one).line("x").ends_with(" x"));
    end(second);
}

#[test] // O-SD-14: not unless the program asks for it, and not what was passed to it
fn manager_keeps_nothing_that_it_need_not() {
    let mut manager = Manager::new();
    let launcher = |args: &str| {
        let launcher = Program::new(test_program("listen_launch")).args(["--tcp", "127.0.0.1:0", "--"]);
        launcher.arg(test_program("inherited")).args(args.split_whitespace())
    };
    let passed = manager.starts(launcher("--descriptor-store --listen @3 --mode prefork:2")).start();
    ready(&mut manager, &passed);
    end(passed);
    let address = free_address(11);
    let unasked = Program::new(test_program("inherited"));
    let unasked = manager.starts(unasked.args(["--listen", &address.to_string(), "--mode", "single"])).start();
    ready(&mut manager, &unasked);
    end(unasked);
    let nowhere = manager.starts(program("--listen 127.0.0.1:0 --mode single")).start();
    ready(&mut manager, &nowhere);
    end(nowhere);
    manager.hear();
    assert!(!manager.said.iter().any(|said| said.text.contains("FDSTORE")), "{:?}", manager.said);
}

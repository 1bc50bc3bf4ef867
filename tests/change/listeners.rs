//! Sockets that a launcher has opened, as systemd does: programs find them by name or address (O-SD-04, O-SD-05, O-SD-13, O-UP-10).

use std::fs::{self, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use tempfile::TempDir;

use util::addresses::free_addresses;
use util::control::Control;
use util::program::MARKER_VARIABLE;
use util::{Client, DEADLINE, Program, Running, example, http, kill, proc, test_program, wait_until};

/// Starts `program` with blank-separated arguments by the launcher, which has its own.
fn launch(launcher: &str, program: impl AsRef<Path>, args: &str) -> Running {
    let launch = Program::new(test_program("listen_launch")).args(launcher.split_whitespace());
    launch.arg("--").arg(program.as_ref()).args(args.split_whitespace()).start()
}

/// Starts the test program.
fn start(launcher: &str, args: &str) -> Running {
    launch(launcher, test_program("inherited"), args)
}

/// The address of the next socket that the launcher tells of.
#[track_caller]
fn bound(running: &Running) -> SocketAddr {
    let line = running.next_line(DEADLINE);
    line.strip_prefix("bound ").and_then(|address| address.parse().ok()).unwrap_or_else(|| panic!("{line}"))
}

#[track_caller]
fn listens(running: &Running) -> String {
    let line = running.next_line(DEADLINE);
    line.strip_prefix("listens ").unwrap_or_else(|| panic!("{line}; {}", running.stderr_text())).to_owned()
}

/// Waits until the program has ended with 1, and returns its standard error.
#[track_caller]
fn failure(mut running: Running) -> String {
    let status = running.wait_exit(DEADLINE);
    let said = running.stderr_to_end(DEADLINE);
    assert_eq!(status.code(), Some(1), "{said}");
    said
}

#[track_caller]
fn end(mut running: Running) {
    running.signal(Signal::SIGTERM);
    let status = running.wait_exit(DEADLINE);
    assert!(status.success(), "{status}: {}", running.stderr_text());
}

/// The sockets that a process has, by their numbers in the system.
fn sockets(pid: i32) -> Vec<String> {
    proc::fds(pid).into_values().filter(|target| target.starts_with("socket:")).collect()
}

#[test] // O-SD-13: by address, without a thought of it; a client who came before the start is answered
fn every_server_takes_over_a_socket_of_its_address() {
    let prefork = test_program("inherited");
    for (program, args) in [
        (example("echo"), ""),
        (example("echo_fork"), ""),
        (example("echo_prefork"), ""),
        (example("echo_server"), "--mode single"),
        (prefork, "--mode prefork:2"),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let go = dir.path().join("go");
        nix::unistd::mkfifo(&go, Mode::S_IRWXU).expect("a FIFO can be made");
        let launcher = format!("--tcp 127.0.0.1:0 --go {}", go.display());
        let running = launch(&launcher, &program, &format!("--listen @3 {args}"));
        let address = bound(&running);
        let mut early = Client::connect(address);
        early.send("early\r\n");
        // It is there as soon as the launcher has opened it, too.
        OpenOptions::new().write(true).open(&go).expect("the launcher waits");
        assert!(early.read_line().ends_with("early"));
        assert_eq!(running.listening_addr(), address);
        drop(early);
        assert!(Client::connect(address).line("late").ends_with("late"));
        running.wait_for_stderr("inherited socket taken over: name=\"unknown\" type=\"tcp\"", DEADLINE);
        end(running);
    }
}

#[test] // O-SD-13: the real one
fn socket_activation_by_systemd_starts_a_pool() {
    if Command::new("systemd-socket-activate").arg("--version").output().is_err() {
        assert!(std::env::var_os("LENORE_CI").is_none(), "there is no systemd-socket-activate");
        eprintln!("skipped: there is no systemd-socket-activate");
        return;
    }
    for (names, log) in [(None, "name=\"unknown\""), (Some("--fdname=echo"), "name=\"echo\"")] {
        // Nobody else has an address of this host of ours.
        let own = std::process::id().to_be_bytes();
        let [address] = free_addresses(Ipv4Addr::new(127, own[2], own[3], 7));
        let activate = Program::new("systemd-socket-activate").arg(format!("--listen={address}")).args(names);
        // It passes nothing on by itself.
        let activate = activate.arg(format!("--setenv={MARKER_VARIABLE}")).arg(example("echo_prefork"));
        let running = activate.args(["--listen", &address.to_string(), "--start-children", "2"]).start();
        running.wait_for_stderr("Listening on", DEADLINE);
        let mut first = Client::connect(address);
        assert_eq!(first.line("one"), "one");
        assert_eq!(Client::connect(address).line("two"), "two");
        running.wait_for_stderr(&format!("inherited socket taken over: {log}"), DEADLINE);
        drop(first);
        end(running);
    }
}

#[test] // O-SD-13, O-UP-10: by name, whatever the order; and what is left over is closed with a log line
fn server_takes_the_socket_of_its_name_and_the_rest_is_closed() {
    for mode in ["single", "fork", "prefork:2"] {
        let launcher = "--tcp 127.0.0.1:0 --tcp 127.0.0.1:0 --names admin:http";
        let running = start(launcher, &format!("--listen 127.0.0.1:0 --name http --mode {mode}"));
        let (admin, http) = (bound(&running), bound(&running));
        assert_eq!(running.listening_addr(), http);
        let closed = running.wait_for_stderr("inherited socket closed, as nothing listens on it", DEADLINE);
        assert!(closed.contains(&format!("name=\"admin\" type=\"tcp\" address={admin}")), "{closed}");
        assert!(Client::connect(http).line("hello").ends_with("hello"));
        // In every process.
        assert!(TcpStream::connect(admin).is_err());
        end(running);
    }
}

#[test] // O-SD-13: order, number and being alone count for nothing
fn socket_with_another_name_and_address_is_not_taken() {
    let running = start("--tcp 127.0.0.1:0", "--listen 127.0.0.1:0 --name http");
    let passed = bound(&running);
    assert_ne!(running.listening_addr(), passed);
    running.wait_for_stderr("inherited socket closed, as nothing listens on it: name=\"unknown\"", DEADLINE);
    end(running);
}

#[test] // O-SD-13: strict mode
fn strict_server_does_not_start_with_a_socket_left_over() {
    let running = start("--tcp 127.0.0.1:0 --names admin", "--listen 127.0.0.1:0 --strict");
    let admin = bound(&running);
    let said = failure(running);
    assert!(
        said.contains(&format!("nothing listens on inherited sockets: name=\"admin\" type=\"tcp\" address={admin}")),
        "{said}"
    );
    end({
        let running = start("--tcp 127.0.0.1:0", "--listen @3 --strict");
        running.listening_addr();
        running
    });
}

#[test] // O-SD-05: a start-up error that names variable and value
fn bad_value_ends_the_start_and_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("file");
    fs::write(&file, "").expect("our own directory");
    let peer = TcpListener::bind("127.0.0.1:0").expect("a port");
    let peer = peer.local_addr().expect("bound");
    for (launcher, said) in [
        ("--fds -1", "LISTEN_FDS=-1: not a number of descriptors"),
        ("--fds many", "LISTEN_FDS=many: not a number of descriptors"),
        ("--pid mine", "LISTEN_PID=mine: not a process id"),
        ("--tcp 127.0.0.1:0 --names a:b", "LISTEN_FDNAMES=a:b: 2 names, for LISTEN_FDS=1"),
        ("--tcp 127.0.0.1:0 --fds 2", "LISTEN_FDS=2: descriptor 4, name \"unknown\": not open"),
        ("--tcp 127.0.0.1:0 --fds 2147483644", "LISTEN_FDS=2147483644: descriptor 4, name \"unknown\": not open"),
        (&format!("--file {} --names log", file.display()), "LISTEN_FDS=1: descriptor 3, name \"log\": not a socket"),
        (
            &format!("--connected {peer} --names connection"),
            "LISTEN_FDS=1: descriptor 3, name \"connection\": a stream socket that does not listen",
        ),
    ] {
        let stderr = failure(start(launcher, "--tcp 127.0.0.1:0"));
        assert!(stderr.contains(said), "{launcher}: {stderr}");
    }
}

#[test] // O-SD-05: not for us, silently
fn socket_for_another_process_is_left_alone() {
    for launcher in ["--tcp 127.0.0.1:0 --pid 1", "--tcp 127.0.0.1:0 --pid none"] {
        let running = start(launcher, "--tcp 127.0.0.1:0");
        let passed = bound(&running);
        assert_ne!(listens(&running), passed.to_string());
        TcpStream::connect(passed).expect("the program has it, though it does not know");
        assert!(!running.stderr_text().contains("LISTEN"), "{}", running.stderr_text());
        end(running);
    }
}

#[test] // O-SD-04: what children execute sees no variable, and inherits no socket
fn programs_that_children_start_see_nothing_of_it() {
    for mode in ["single", "fork", "prefork:2"] {
        let launcher = "--tcp 127.0.0.1:0 --udp 127.0.0.1:0 --names http:dns";
        let running = start(launcher, &format!("--listen @3 --mode {mode}"));
        let address = running.listening_addr();
        let said = Client::connect(address).line("variables");
        let (_, said) = said.split_once(' ').expect("a pid");
        let (count, descriptors) = said.split_once(' ').expect("a number");
        assert_eq!(count, "0", "{mode}");
        let own = sockets(running.pid());
        assert!(!own.is_empty() && !descriptors.split(' ').any(|word| own.iter().any(|own| own == word)), "{said}");
        end(running);
    }
}

#[test] // O-SD-13: a path is compared resolved; O-UP-09: and stays
fn path_of_an_inherited_unix_socket_is_not_removed() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(dir.path().join("real")).expect("our own directory");
    symlink(dir.path().join("real"), dir.path().join("link")).expect("our own directory");
    let path = dir.path().join("real/s");
    let wanted = dir.path().join("link/s");
    let running = start(&format!("--unix {}", path.display()), &format!("--unix {} --unlink", wanted.display()));
    assert_eq!(listens(&running), path.display().to_string());
    UnixStream::connect(&path).expect("it listens");
    assert_eq!(running.next_line(DEADLINE), "accepted");
    end(running);
    assert!(path.exists());
}

#[test] // O-SD-13
fn inherited_socket_is_had_by_its_name_in_each_type() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("s");
    let launcher =
        format!("--unix {} --tcp 127.0.0.1:0 --tcp 127.0.0.1:0 --udp 127.0.0.1:0 --names a:b:b:d", path.display());
    let addresses = |running: &Running| [bound(running), bound(running), bound(running)];
    let running = start(&launcher, "--inherited a");
    addresses(&running);
    assert_eq!(listens(&running), path.display().to_string());
    end(running);
    fs::remove_file(&path).expect("it stays");
    // Of several with one name each gets the next.
    let running = start(&launcher, "--inherited b --again");
    let [one, other, _] = addresses(&running);
    assert_eq!([listens(&running), listens(&running)], [one.to_string(), other.to_string()]);
    end(running);
    fs::remove_file(&path).expect("it stays");
    let running = start(&launcher, "--inherited d --bind");
    let [_, _, udp] = addresses(&running);
    assert_eq!(listens(&running), udp.to_string());
    assert_eq!(running.next_line(DEADLINE), format!("handed over {udp}"));
    drop(running);
    fs::remove_file(&path).expect("it stays");
    for (args, why) in [
        ("--inherited x", "no such socket was inherited by the name \"x\": there is name=\"a\" type=\"unix\""),
        ("--inherited d", "no such socket was inherited by the name \"d\": there is name=\"d\" type=\"udp\""),
        (
            "--tcp 127.0.0.1:0 --name a",
            "no such socket was inherited by the name \"a\": there is name=\"a\" type=\"unix\"",
        ),
    ] {
        let said = failure(start(&launcher, args));
        assert!(said.contains(why), "{said}");
        fs::remove_file(&path).expect("it stays");
    }
}

#[test] // O-SD-13
fn datagram_socket_is_found_by_address_and_by_name() {
    for args in ["--udp @3", "--udp 127.0.0.1:0 --name dns"] {
        let running = start("--udp 127.0.0.1:0 --names dns", args);
        let address = bound(&running);
        assert_eq!(listens(&running), address.to_string());
        assert_eq!(running.next_line(DEADLINE), format!("handed over {address}"));
    }
}

#[test] // O-SD-13: the queue is not changed silently
fn queue_of_an_inherited_listener_is_set_anew_only_if_asked_for() {
    let running = start("--tcp 127.0.0.1:0", "--tcp @3 --queue 7");
    running.wait_for_stderr("listen queue set anew: address=127.0.0.1:", DEADLINE);
    assert!(running.stderr_text().contains("asked=7"), "{}", running.stderr_text());
    end(running);
    let running = start("--tcp 127.0.0.1:0", "--tcp @3");
    bound(&running);
    listens(&running);
    assert!(!running.stderr_text().contains("set anew"), "{}", running.stderr_text());
    end(running);
}

#[test] // the program says it itself
fn server_accepts_on_a_listener_that_it_is_given() {
    for mode in ["single", "fork", "prefork:2"] {
        let running = Program::new(test_program("inherited")).args(["--given", "--mode", mode]).start();
        let address = running.listening_addr();
        assert!(Client::connect(address).line("hello").ends_with("hello"));
        end(running);
    }
}

/// Waits for the pid file of a daemon in `dir`, and returns the pid in it.
#[track_caller]
fn daemon_in(dir: &TempDir) -> i32 {
    let read = || fs::read_to_string(dir.path().join("pid")).ok()?.trim().parse().ok();
    wait_until("a pid file", DEADLINE, read)
}

#[test] // O-SD-13: LISTEN_PID is the process that was started, and the daemon is another one
fn daemon_that_detaches_takes_its_sockets_along() {
    for mode in ["single", "fork", "prefork:2"] {
        let dir = tempfile::tempdir().expect("a directory");
        let args = format!("--listen 127.0.0.1:0 --name http --mode {mode} --dir {}", dir.path().display());
        let launcher = "--tcp 127.0.0.1:0 --tcp 127.0.0.1:0 --names http:other";
        let mut running = start(launcher, &args);
        let address = bound(&running);
        assert!(running.wait_exit(DEADLINE).success(), "{}", running.stderr_text());
        let pid = daemon_in(&dir);
        running.reap_later(pid);
        assert!(Client::connect(address).line("hello").ends_with("hello"));
        let log = fs::read_to_string(dir.path().join("log")).expect("a log");
        assert!(log.contains("inherited socket closed, as nothing listens on it: name=\"other\""), "{log}");
        kill(pid, Signal::SIGTERM).expect("it runs");
        wait_until("its end", DEADLINE, || (!proc::is_alive(pid)).then_some(()));
    }
}

#[test] // O-SD-13
fn server_that_drops_its_privileges_keeps_its_sockets() {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let running = start("--tcp 127.0.0.1:0", "--listen @3 --mode prefork:2 --user nobody");
    let address = bound(&running);
    assert!(Client::connect(address).line("hello").ends_with("hello"));
    let uid = fs::read_to_string(format!("/proc/{}/status", running.pid())).expect("it runs");
    assert!(!uid.contains("Uid:\t0"), "{uid}");
    end(running);
}

#[test] // O-SD-13: the Daemon's own listeners, by name and by address; O-UP-09: the path stays
fn status_listener_and_control_socket_are_taken_over() {
    for (names, status, is_path) in [("control:status", "127.0.0.1:0", false), ("x:y", "@4", true)] {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("passed.sock");
        let launcher = format!("--unix {} --tcp 127.0.0.1:0 --names {names}", path.display());
        let control = if is_path { path.clone() } else { dir.path().join("control.sock") };
        let args = format!("--listen 127.0.0.1:0 --mode prefork:2 --status {status} --control {}", control.display());
        let running = start(&launcher, &args);
        let address = bound(&running);
        let hello = Control::of(&running, &path).ask("hello").ok();
        assert!(hello.contains(&running.pid().to_string()), "{hello}");
        assert_eq!(http::get(address, "/live").status, 200);
        // They keep their numbers, and no child has them once it has begun.
        let taken = [3, 4].map(|fd| proc::fds(running.pid()).remove(&fd).expect("the parent has it"));
        assert!(taken.iter().all(|target| target.starts_with("socket:")), "{taken:?}");
        assert_eq!(running.children().len(), 2);
        for child in running.children() {
            wait_until("a child without them", DEADLINE, || {
                let own = sockets(child);
                (!own.is_empty() && !taken.iter().any(|taken| own.contains(taken))).then_some(())
            });
        }
        end(running);
        assert!(path.exists());
        assert!(is_path || !control.exists());
    }
}

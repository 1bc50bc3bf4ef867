//! D-DE-06: who has the pid file, what a dead one leaves behind, and who removes it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use nix::sys::signal::Signal;

use crate::site::{Site, is_root, signal, terminate, wait_gone};
use util::{Client, DEADLINE, at_once, proc, wait_until};

#[test] // D-DE-06: an error that names the other; and that is as it was
fn a_live_holder_is_an_error_that_names_its_pid() {
    at_once(["--detach", ""], |second| {
        let site = Site::new();
        let (_running, pid) = site.launch("--pid-file pid --start 1");
        let mut other = site.program(&format!("{second} --pid-file @pid --logfile @log")).start();
        assert_eq!(other.wait_exit(DEADLINE).code(), Some(1));
        let failed = site.said("failed");
        assert!(failed.ends_with(&format!("taking the pid file: process {pid} holds {}", site.path("pid").display())));
        other.wait_for_stderr("and here", DEADLINE); // D-SP-01: the log file is given up again
        assert_eq!(site.read("pid"), format!("{pid}\n"));
        assert!(proc::is_alive(pid));
        terminate(pid);
        assert!(!site.exists("pid"));
    });
}

#[test] // D-DE-06, T5: whatever stands in it, and whoever has that number by now
fn a_stale_file_is_replaced() {
    // A thread of this process that is not its first: a number that belongs to a living thing, but to no process.
    let threads = fs::read_dir("/proc/self/task").expect("proc").filter_map(Result::ok);
    let own = std::process::id().to_string();
    let thread = threads.map(|entry| entry.file_name().into_string().expect("a number")).find(|tid| *tid != own);
    let thread = thread.expect("the harness runs tests in threads");
    let stale =
        ["", "garbage", "-1\n", "999999999999\n", "1\n", "\0\0\0", &own, &thread, "12345678 and a long rest of it"];
    for text in stale {
        for detach in ["--detach", ""] {
            let site = Site::new();
            fs::write(site.path("pid"), text).expect("our own directory");
            let running = site.start(&format!("{detach} --pid-file pid"));
            let pid = site.wait_for("daemon_start");
            assert_eq!(site.read("pid"), format!("{pid}\n"), "after {text:?}");
            signal(pid, Signal::SIGTERM);
            site.wait_for("run returned");
            assert!(!site.exists("pid"));
            drop(running);
        }
    }
}

#[test] // D-DE-06: for all to read
fn the_file_can_be_read_by_all_and_written_by_its_owner() {
    let site = Site::new();
    let (_running, pid) = site.launch("--pid-file pid --start 1");
    let mode = fs::metadata(site.path("pid")).expect("a pid file").permissions().mode();
    assert_eq!(mode & 0o7777, 0o644);
    terminate(pid);
}

#[test] // D-DE-06, D-SP-01: neither link is followed, and what it leads to is as it was
fn a_file_that_is_not_its_own_is_refused() {
    let site = Site::new();
    fs::write(site.path("victim"), "precious").expect("our own directory");
    symlink(site.path("victim"), site.path("symbolic")).expect("our own directory");
    symlink(site.path("nowhere"), site.path("dangling")).expect("our own directory");
    fs::hard_link(site.path("victim"), site.path("hard")).expect("our own directory");
    fs::create_dir(site.path("directory")).expect("our own directory");
    let cases = [
        ("symbolic", "open"),
        ("dangling", "open"),
        ("hard", "not a file of its own"),
        ("directory", "Is a directory"),
        ("missing/pid", "No such file or directory"),
    ];
    for (name, reason) in cases {
        let _ = fs::remove_file(site.path("report"));
        let mut running = site.start(&format!("--detach --pid-file @{name}"));
        assert_eq!(running.wait_exit(DEADLINE).code(), Some(1), "{name}");
        let failed = site.said("failed");
        let expected = format!("taking the pid file: open {}", site.path(name).display());
        assert!(failed.contains(&expected) && failed.contains(reason), "{failed}");
        assert_eq!(running.descendants_alive(), [0; 0]);
    }
    assert_eq!(site.read("victim"), "precious");
    assert!(!site.exists("nowhere"));
}

#[test] // D-DE-06: children never do, however they end
fn children_do_not_remove_it() {
    let site = Site::new();
    let (running, pid) = site.launch("--pid-file @pid --start 3");
    for how in [Signal::SIGTERM, Signal::SIGKILL] {
        let before = running.descendants_alive();
        let children = before.iter().filter(|child| proc::ppid(**child) == Some(pid));
        for &child in children {
            signal(child, how);
            wait_gone(child);
        }
        assert_eq!(site.read("pid"), format!("{pid}\n"));
        wait_until("a new one", DEADLINE, || {
            let now = running.descendants_alive();
            now.iter().any(|child| proc::ppid(*child) == Some(pid) && !before.contains(child)).then_some(())
        });
    }
    let path = site.path("pid").display().to_string();
    let has_it = |process: i32| proc::fds(process).values().any(|open| *open == path);
    assert!(has_it(pid));
    wait_until("children without the lock", DEADLINE, || {
        running.descendants_alive().into_iter().all(|child| child == pid || !has_it(child)).then_some(())
    });
    terminate(pid);
    assert!(!site.exists("pid"));
}

#[test] // D-DE-06: neither a child that finishes its request nor a program that was started holds the lock
fn a_successor_can_start_as_soon_as_the_parent_is_dead() {
    let site = Site::new();
    let mut running = site.start("--detach --in-state --pid-file @pid --start 2 --helper");
    let addr = running.listening_addr();
    assert_eq!(running.wait_exit(DEADLINE).code(), Some(0));
    let pid = site.wait_for("spawned");
    let helper: i32 = site.said("helper").parse().expect("a pid");
    let mut client = Client::connect(addr);
    let busy: i32 = client.line("hello").split_once(' ').expect("an answer").0.parse().expect("a pid");
    // It is still there when the next one starts.
    signal(busy, Signal::SIGSTOP);
    signal(pid, Signal::SIGKILL);
    wait_gone(pid);
    assert_eq!(site.read("pid"), format!("{pid}\n"), "left behind");
    assert!(proc::is_alive(busy) && proc::is_alive(helper));
    let second = Site::new();
    let mut running = second.program("--detach").args(["--pid-file", &site.path("pid").display().to_string()]).start();
    assert_eq!(running.wait_exit(DEADLINE).code(), Some(0), "{}", running.stderr_text());
    let pid = second.wait_for("spawned");
    assert_eq!(site.read("pid"), format!("{pid}\n"));
    signal(busy, Signal::SIGCONT);
    wait_gone(busy);
    assert_eq!(site.read("pid"), format!("{pid}\n"), "the orphan has not touched it");
    terminate(pid);
}

#[test] // D-DE-06, D-DE-07: who may not remove it leaves it behind empty, which nobody takes for a pid
fn without_the_right_to_remove_it_is_emptied() {
    if !is_root() {
        return;
    }
    let site = Site::new();
    fs::create_dir(site.path("run")).expect("our own directory");
    for chroot in ["", "--chroot @jail"] {
        let _ = fs::create_dir(site.path("jail"));
        let _ = fs::remove_file(site.path("report"));
        let (_running, pid) = site.launch(&format!("--pid-file @run/pid --user nobody --start 1 {chroot}"));
        assert_eq!(site.read("run/pid"), format!("{pid}\n"));
        terminate(pid);
        assert_eq!(fs::read_to_string(site.path("run/pid")).expect("left behind"), "");
    }
}

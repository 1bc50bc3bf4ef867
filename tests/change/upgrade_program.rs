//! Which program an upgrade executes, and where (O-UP-12).

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use util::control::Control;
use util::{Program, test_program};

use super::changing::{Changing, lenorectl};
use super::upgrading::{upgrade, wait_alone};

/// Directories `1` and `2` with the program and a configuration in each, which says which one it is.
#[track_caller]
fn releases() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    for release in ["1", "2"] {
        let place = dir.path().join(release);
        fs::create_dir(&place).expect("a directory");
        fs::copy(test_program("daemon_change"), place.join("server")).expect("a copy");
        fs::write(place.join("conf"), format!("value={release}\n")).expect("a file");
    }
    dir
}

/// Has a link lead elsewhere.
#[track_caller]
fn lead(link: &Path, target: &str) {
    let _ = fs::remove_file(link);
    symlink(target, link).expect("a link");
}

/// Starts a pool of one, with `--config CONFIG`.
#[track_caller]
fn start(dir: TempDir, program: Program, config: &str) -> Changing {
    let socket = dir.path().join("control.sock");
    let args = format!("{} --probation-ms 0 --config {config}", Changing::size(1));
    let running = program.arg("--control").arg(&socket).args(args.split_whitespace()).start();
    let addr = running.listening_addr();
    let changing = Changing { running, dir, socket, addr };
    changing.wait_idle(1);
    changing
}

fn exe(pid: i32) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/exe")).expect("it lives")
}

#[test] // O-UP-12: the link is followed anew
fn upgrade_executes_what_the_path_leads_to_by_now() {
    let dir = releases();
    let current = dir.path().join("current");
    lead(&current, "1");
    let program = Program::new("current/server").current_dir(dir.path());
    let changing = start(dir, program, "current/conf");
    assert_eq!(changing.value(), "1");
    lead(&current, "2");
    let pid = upgrade(&changing);
    assert!(exe(pid).ends_with("2/server"), "{}", exe(pid).display());
    assert_eq!(changing.value(), "2");
}

#[test] // O-UP-12: the path itself is a link, and what it led to is gone
fn upgrade_executes_what_a_link_leads_to_by_now() {
    let dir = releases();
    let link = dir.path().join("server");
    lead(&link, "1/server");
    let program = Program::new(&link);
    let config = dir.path().join("1/conf");
    let changing = start(dir, program, config.to_str().expect("text"));
    let first = exe(changing.running.pid());
    assert!(first.ends_with("1/server"));
    fs::remove_file(&first).expect("a program");
    lead(&link, "2/server");
    let pid = upgrade(&changing);
    assert!(exe(pid).ends_with("2/server"), "{}", exe(pid).display());
    wait_alone(&changing);
    // As a package does it: another file of the same name.
    let package = changing.dir.path().join("package");
    fs::copy(test_program("daemon_change"), &package).expect("a copy");
    fs::rename(&package, changing.dir.path().join("2/server")).expect("it takes the place");
    assert!(exe(pid).to_string_lossy().ends_with("2/server (deleted)"));
    let pid = upgrade(&changing);
    assert!(exe(pid).ends_with("2/server"), "{}", exe(pid).display());
}

#[test] // O-UP-12: the directory is found in the same way
fn upgrade_begins_in_what_the_directory_leads_to_by_now() {
    let dir = releases();
    let current = dir.path().join("current");
    lead(&current, "1");
    // What a shell says of the directory that it has changed to.
    let program = Program::new("./server").current_dir(&current).env("PWD", &current);
    let changing = start(dir, program, "conf");
    assert_eq!(changing.value(), "1");
    lead(&current, "2");
    let pid = upgrade(&changing);
    let directory = fs::read_link(format!("/proc/{pid}/cwd")).expect("it lives");
    assert!(directory.ends_with("2") && exe(pid).ends_with("2/server"), "{}", directory.display());
    assert_eq!(changing.value(), "2");
}

#[test] // O-UP-12: in the directories of PATH, at the first start
fn upgrade_executes_what_the_name_was_found_as() {
    let dir = releases();
    let current = dir.path().join("current");
    lead(&current, "1");
    let program = Program::new("server").env("PATH", format!("{}:/bin:/usr/bin", current.display()));
    let config = dir.path().join("1/conf");
    let changing = start(dir, program, config.to_str().expect("text"));
    lead(&current, "2");
    let pid = upgrade(&changing);
    assert!(exe(pid).ends_with("2/server"), "{}", exe(pid).display());
}

#[test] // O-UP-12: for this time
fn order_can_name_another_program() {
    let dir = releases();
    let program = Program::new("1/server").current_dir(dir.path());
    let changing = start(dir, program, "1/conf");
    let other = changing.dir.path().join("2/server");
    let absolute = format!("upgrade --program {}", other.display());
    for is_relative in [true, false] {
        if is_relative {
            // It counts from the directory in which the first one was started.
            Control::connect(&changing.socket).ask("upgrade program=2/server").ok();
        } else {
            let out = lenorectl(&changing.socket, &absolute);
            assert_eq!(out.code, 0, "{out:?}");
        }
        let pid = wait_alone(&changing).service.pid as i32;
        assert_eq!(exe(pid), other);
        let pid = upgrade(&changing);
        assert!(exe(pid).ends_with("1/server"), "{}", exe(pid).display());
        wait_alone(&changing);
    }
}

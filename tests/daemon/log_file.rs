//! D-DE-04 and D-DE-05: what goes to the log file, and moving on to a new one.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};

use nix::libc::O_NONBLOCK;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::site::{Site, is_root, signal, terminate};
use util::{Client, DEADLINE, Program, example, proc, test_program, wait_until};

#[test] // D-DE-04: appended to, and created as it is set to be, whatever the umask
fn the_log_file_is_appended_to_and_has_its_mode() {
    let mode = |site: &Site| fs::metadata(site.path("log")).expect("a log file").permissions().mode() & 0o7777;
    for (args, expected) in [("", 0o640), ("--logfile-mode 604", 0o604), ("--umask 000", 0o640), ("--umask 077", 0o640)]
    {
        let site = Site::new();
        let (_running, pid) = site.launch(&format!("--logfile log {args}"));
        assert_eq!(mode(&site), expected, "{args}");
        terminate(pid);
    }
    let site = Site::new();
    fs::write(site.path("log"), "already here\n").expect("our own directory");
    fs::set_permissions(site.path("log"), fs::Permissions::from_mode(0o600)).expect("our own file");
    let (_running, pid) = site.launch("--logfile log");
    assert!(site.read("log").starts_with("already here\n"));
    assert_eq!(mode(&site), 0o600, "somebody else's choice");
    terminate(pid);
}

#[test] // D-DE-04: lines are lost then, but no request and no child
fn a_log_file_that_may_not_become_larger_is_no_reason_to_die() {
    let site = Site::new();
    let script = r#"ulimit -f 1; exec "$@""#;
    let program = example("echo_prefork").display().to_string();
    let log = site.path("log").display().to_string();
    let args = ["--listen", "127.0.0.1:0", "--requests", "1", "--verbose", "--logfile", &log];
    let mut running = Program::new("sh").args(["-c", script, "sh", &program]).args(args).start();
    let addr = running.listening_addr();
    for number in 0..40 {
        let line = format!("line {number}");
        assert_eq!(Client::connect(addr).line(&line), line);
    }
    let size = fs::metadata(&log).expect("a log file").len();
    assert!(size.is_multiple_of(512) && size > 0, "full: {size}");
    running.signal(Signal::SIGTERM);
    assert!(running.wait_exit(DEADLINE).success());
}

#[test] // D-DE-04: everything that goes to descriptors 1 and 2, from whichever process
fn all_output_goes_to_the_log_file() {
    for args in ["--detach", "--detach --start 2", "", "--start 2"] {
        let site = Site::new();
        let running = site.start(&format!("--logfile log --c-library --usr1-panic {args}"));
        let pid = site.wait_for("daemon_start");
        site.wait_for(if args.contains("--start") { "daemon_parent" } else { "daemon_start" });
        let (out, err) = (fs::read_link(format!("/proc/{pid}/fd/1")), fs::read_link(format!("/proc/{pid}/fd/2")));
        assert_eq!(out.expect("standard output"), site.path("log"), "the pipes are closed");
        assert_eq!(err.expect("standard error"), site.path("log"));
        let pipes = proc::fds(pid).into_values().filter(|what| what.starts_with("pipe:")).count();
        // The two ends of the one for signals are its own.
        assert!(pipes <= inherited_pipes() + 2, "{:?}", proc::fds(pid));
        signal(pid, Signal::SIGUSR1);
        site.wait_for("dropped");
        for what in
            ["on standard output\n", "on standard error\n", "by the logger", "from elsewhere\n", "told to panic"]
        {
            site.wait_in("log", what);
        }
        assert!(!running.stderr_text().contains("told to panic"));
    }
}

/// How many pipes the test process has that it did not open to a program: what it was started with goes to all.
fn inherited_pipes() -> usize {
    let inherits = |fd: i32| {
        fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))
            .is_ok_and(|info| info.lines().any(|line| line.strip_prefix("flags:").is_some_and(is_kept)))
    };
    let pipes =
        proc::fds(std::process::id() as i32).into_iter().filter(|(fd, what)| *fd > 2 && what.starts_with("pipe:"));
    pipes.filter(|(fd, _)| inherits(*fd)).count()
}

/// Whether a descriptor with these flags, in octal, stays open in a program that is executed.
fn is_kept(flags: &str) -> bool {
    u32::from_str_radix(flags.trim(), 8).is_ok_and(|flags| flags & 0o2000000 == 0)
}

#[test] // D-DE-05: by name, the parent first and then its children; D-DE-04: a relative path counts from the start
fn hup_reopens_the_log_file_in_the_parent_and_then_in_its_children() {
    for args in ["--detach", ""] {
        let site = Site::new();
        let running = site.start(&format!("--logfile log --start 3 --cwd / {args}"));
        let pid = site.wait_for("daemon_parent");
        wait_until("the pool", DEADLINE, || (site.count("daemon_child") == 3).then_some(()));
        fs::rename(site.path("log"), site.path("log.1")).expect("our own file");
        signal(pid, Signal::SIGHUP);
        wait_until("four of them", DEADLINE, || (reopened(&site.read("log")).len() == 4).then_some(()));
        let order = reopened(&site.read("log"));
        assert_eq!(order[0], pid, "the parent creates the file");
        assert_eq!(reopened(&site.read("log.1")), [0; 0]);
        wait_until("all of them", DEADLINE, || (site.count("daemon_HUP") == 4).then_some(()));
        let first = site.report().into_iter().find(|(_, what)| what == "daemon_HUP");
        assert_eq!(first.expect("there are four").0, pid);
        signal(pid, Signal::SIGTERM);
        wait_until("the end", DEADLINE, || (site.count("run returned") == 1).then_some(()));
        drop(running);
    }
}

/// Who says in the log that it has reopened it, in this order.
fn reopened(log: &str) -> Vec<i32> {
    let pid = |line: &str| line.split_once("process ")?.1.split_once(" has reopened")?.0.parse().ok();
    log.split_inclusive('\n').filter(|line| line.ends_with('\n')).filter_map(pid).collect()
}

#[test] // D-DE-05, T18: four writers and twenty rotations: nothing lost, nothing torn, nothing in an acknowledged-away file
fn no_line_is_lost_or_torn_by_rotations_under_load() {
    let site = Site::new();
    let (_running, pid) = site.launch("--logfile @log --start 4 --write");
    let rotations = 20;
    let mut old_sizes = Vec::new();
    for number in 1..=rotations {
        // Somewhere in the middle of the writing.
        wait_until("some lines", DEADLINE, || site.read("log").contains(" END\n").then_some(()));
        fs::rename(site.path("log"), site.path(&format!("log.{number}"))).expect("our own file");
        signal(pid, Signal::SIGHUP);
        wait_until("five acknowledgements", DEADLINE, || (reopened(&site.read("log")).len() == 5).then_some(()));
        let old = site.path(&format!("log.{number}"));
        old_sizes.push((fs::metadata(&old).expect("rotated").len(), old));
    }
    terminate(pid);
    for (size, path) in old_sizes {
        let now = fs::metadata(&path).expect("rotated").len();
        assert_eq!(now, size, "{} was written to after everybody had left it", path.display());
    }
    let mut last: BTreeMap<i32, u32> = BTreeMap::new();
    for name in (1..=rotations).map(|number| format!("log.{number}")).chain(["log".to_owned()]) {
        let inode = fs::metadata(site.path(&name)).expect("rotated").ino();
        let text = site.read(&name);
        assert!(text.ends_with('\n'), "{name}");
        for line in text.lines().filter(|line| line.contains("LINE")) {
            let words: Vec<&str> = line.split(' ').collect();
            let ["LINE", pid, number, file, filler, "END"] = words[..] else { panic!("torn in {name}: {line:.200}") };
            let (pid, number): (i32, u32) = (pid.parse().expect("a pid"), number.parse().expect("a number"));
            assert_eq!(filler.len(), 100 + number as usize * 1237 % 8900, "torn in {name}");
            assert_eq!(file, inode.to_string(), "{name}");
            let before = last.insert(pid, number).unwrap_or(0);
            assert_eq!(number, before + 1, "lost or out of order in {name}, process {pid}");
        }
    }
    assert_eq!(last.len(), 4, "{last:?}");
    assert!(last.values().all(|lines| *lines > 20), "{last:?}");
    // The last line that each has written is there as well: they count on, in memory, until they are told to end.
    assert_eq!((site.count("daemon_shutdown"), site.count("run returned")), (5, 1));
}

#[test] // D-DE-05: the old one stays in use, and says why
fn a_log_file_that_can_not_be_reopened_stays_in_use() {
    let site = Site::new();
    let (_running, pid) = site.launch("--logfile @log --start 1");
    wait_until("the pool", DEADLINE, || (site.count("daemon_child") == 1).then_some(()));
    fs::rename(site.path("log"), site.path("log.1")).expect("our own file");
    fs::create_dir(site.path("log")).expect("our own directory");
    signal(pid, Signal::SIGHUP);
    wait_until("both complaints", DEADLINE, || {
        (site.read("log.1").matches("the old log file stays in use: open ").count() == 2).then_some(())
    });
    signal(pid, Signal::SIGUSR1);
    site.wait_in("log.1", "on standard output");
    fs::remove_dir(site.path("log")).expect("our own directory");
    signal(pid, Signal::SIGHUP);
    wait_until("the new file", DEADLINE, || (reopened(&site.read("log")).len() == 2).then_some(()));
    terminate(pid);
}

#[test] // D-DE-05: nobody reads it, and to wait until somebody does would be the end of all service
fn a_log_file_that_is_a_fifo_is_not_waited_for() {
    let site = Site::new();
    mkfifo(&site.path("fifo"), Mode::S_IRWXU).expect("a FIFO can be made");
    let mut refused = site.start("--logfile @fifo");
    assert_eq!(refused.wait_exit(DEADLINE).code(), Some(1));
    refused.wait_for_stderr("opening the log file", DEADLINE);

    let (_running, pid) = site.launch("--logfile @log");
    fs::rename(site.path("log"), site.path("log.1")).expect("our own file");
    mkfifo(&site.path("log"), Mode::S_IRWXU).expect("a FIFO can be made");
    signal(pid, Signal::SIGHUP);
    site.wait_in("log.1", "the old log file stays in use: open ");
    let fifo = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(site.path("log")).expect("our own FIFO");
    signal(pid, Signal::SIGHUP);
    let mut text = [0; 1000];
    wait_until("a line", DEADLINE, || (&fifo).read(&mut text).ok().filter(|count| *count > 0));
    assert!(String::from_utf8_lossy(&text).contains("has reopened"));
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/2")).expect("standard error");
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).expect("its flags");
    let flags = i32::from_str_radix(flags.trim(), 8).expect("in octal");
    assert_eq!(flags & O_NONBLOCK, 0, "a reader may be slow");
    terminate(pid);
}

#[test] // D-DE-05: forked before the parent reopens and not yet able to hear a signal
fn a_child_that_is_being_forked_meanwhile_moves_on_too() {
    let site = Site::new();
    let (_running, pid) = site.launch("--logfile @log --max 3 --stop-nth 1 --feed");
    // One that is stopped in the middle of its fork, with its parent's log file.
    signal(pid, Signal::SIGUSR1);
    let child = wait_until("a stopped child", DEADLINE, || {
        let all = proc::all().into_iter();
        all.filter(|(_, stat)| stat.ppid == pid && stat.state == 'T').map(|(pid, _)| pid).next()
    });
    fs::rename(site.path("log"), site.path("log.1")).expect("our own file");
    signal(pid, Signal::SIGHUP);
    wait_until("the parent", DEADLINE, || (reopened(&site.read("log")) == [pid]).then_some(()));
    signal(child, Signal::SIGCONT);
    wait_until("the child", DEADLINE, || (reopened(&site.read("log")) == [pid, child]).then_some(()));
    terminate(pid);
}

#[test] // D-DE-05, D-DE-07: by a user who may create files there; the first one was made that user's by root
fn the_log_file_is_reopened_without_privileges_where_the_directory_allows() {
    if !is_root() {
        return;
    }
    let site = Site::new();
    let (_running, pid) = site.launch("--logfile @log --user nobody --start 2");
    wait_until("the pool", DEADLINE, || (site.count("daemon_child") == 2).then_some(()));
    let owner = |name: &str| fs::metadata(site.path(name)).expect("a log file").uid();
    let nobody = nix::unistd::User::from_name("nobody").expect("a user database").expect("nobody").uid.as_raw();
    assert_eq!(owner("log"), nobody);
    fs::rename(site.path("log"), site.path("log.1")).expect("root may");
    signal(pid, Signal::SIGHUP);
    wait_until("all three", DEADLINE, || (reopened(&site.read("log")).len() == 3).then_some(()));
    assert_eq!(owner("log"), nobody);

    // And where it does not, the old file stays.
    fs::rename(site.path("log"), site.path("log.2")).expect("root may");
    fs::set_permissions(site.path(""), fs::Permissions::from_mode(0o755)).expect("our own directory");
    signal(pid, Signal::SIGHUP);
    wait_until("all three complaints", DEADLINE, || {
        (site.read("log.2").matches("stays in use: open").count() == 3).then_some(())
    });
    // Whatever rotates may create it for the daemon.
    fs::write(site.path("log"), "").expect("root may");
    std::os::unix::fs::chown(site.path("log"), Some(nobody), None).expect("root may");
    signal(pid, Signal::SIGHUP);
    wait_until("all three again", DEADLINE, || (reopened(&site.read("log")).len() == 3).then_some(()));
    terminate(pid);
}

#[test] // D-SP-01: an error that names the step, the path and the system's reason, with nothing done
fn a_log_file_that_can_not_be_opened_stops_the_start() {
    for (path, reason) in [("@missing/log", "No such file or directory"), ("/", "Is a directory")] {
        for detach in ["", "--detach"] {
            let site = Site::new();
            let mut running = site.start(&format!("{detach} --logfile {path} --pid-file @pid"));
            assert_eq!(running.wait_exit(DEADLINE).code(), Some(1));
            assert_eq!(site.wait_for("failed"), running.pid(), "before it detaches");
            let failed = site.said("failed");
            assert!(failed.contains("opening the log file: open /") && failed.contains(reason), "{failed}");
            while running.next_line(DEADLINE) != "still here" {}
            running.wait_for_stderr("and here", DEADLINE);
            assert!(!site.exists("pid"));
        }
    }
}

#[test] // D-DE-12: a socket can't be opened by a name, and root's pipe not by another user
fn log_file_that_is_a_standard_stream_is_left_where_it_is() {
    let users: &[&str] = if is_root() { &["", "--user nobody"] } else { &[""] };
    for name in ["/dev/stderr", "/dev/stdout", "/dev/fd/2", "/proc/self/fd/1", "/dev/../dev/stderr", "@link"] {
        for user in users {
            for launcher in ["", "--socket"] {
                let site = Site::new();
                std::os::unix::fs::symlink("/dev/stderr", site.path("other")).expect("our own directory");
                std::os::unix::fs::symlink("other", site.path("link")).expect("our own directory");
                let words = site.words(&format!("--report @report --start 1 {user} --logfile {name}"));
                let running = match launcher {
                    "" => Program::new(test_program("daemon_process")).args(words).start(),
                    _ => {
                        let launch = Program::new(test_program("daemon_launch")).arg(launcher);
                        launch.arg(test_program("daemon_process")).args(words).start()
                    }
                };
                let pid = site.wait_for("daemon_parent");
                wait_until("the pool", DEADLINE, || (site.count("daemon_child") == 1).then_some(()));
                let streams = [1, 2].map(|fd| fs::read_link(format!("/proc/{pid}/fd/{fd}")).expect("a stream"));
                assert!(streams.iter().all(|stream| !stream.starts_with("/")), "{streams:?}");
                signal(pid, Signal::SIGHUP);
                wait_until("both", DEADLINE, || (site.count("daemon_HUP") == 2).then_some(()));
                signal(pid, Signal::SIGUSR1);
                running.wait_for_stderr("by the logger", DEADLINE);
                let log = running.stderr_text();
                assert!(!log.contains("stays in use") && !log.contains("has reopened"), "{name} {user}: {log}");
                let now = [1, 2].map(|fd| fs::read_link(format!("/proc/{pid}/fd/{fd}")).expect("a stream"));
                assert_eq!(now, streams);
                terminate(pid);
            }
        }
    }
}

#[test] // D-DE-12, D-DE-01: also where a daemon would not keep it
fn detached_daemon_keeps_a_standard_stream_that_is_its_log_file() {
    let site = Site::new();
    let (running, pid) = site.launch("--logfile /dev/stderr --start 1");
    let fds = proc::fds(pid);
    assert_eq!(fds[&0], "/dev/null");
    assert!(fds[&1].starts_with("pipe:") && fds[&2].starts_with("pipe:"), "{fds:?}");
    signal(pid, Signal::SIGUSR1);
    running.wait_for_stderr("on standard error", DEADLINE);
    terminate(pid);
}

#[test] // D-DE-12: other names that begin so are files
fn log_file_that_only_looks_like_a_standard_stream_is_opened() {
    let site = Site::new();
    let args = format!("--logfile {}/./stderr", site.path("dev").display());
    fs::create_dir(site.path("dev")).expect("our own directory");
    let (_running, pid) = site.launch(&args);
    assert_eq!(fs::read_link(format!("/proc/{pid}/fd/2")).expect("standard error"), site.path("dev/stderr"));
    terminate(pid);
}

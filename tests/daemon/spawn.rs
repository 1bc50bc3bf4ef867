//! D-SP: settings, threads, several Daemons, inherited dispositions.

use nix::sys::signal::Signal;

use util::lab::{Lab, held, unquoted, without_numbers};
use util::{DEADLINE, Program, proc, test_program, wait_until};

/// `line` with N for the number of a thread.
fn without_tid(line: &str) -> String {
    match line.split_once("(tid ").and_then(|(before, rest)| Some((before, rest.split_once(')')?.1))) {
        Some((before, after)) => format!("{before}(tid N){after}"),
        None => line.to_owned(),
    }
}

#[test] // D-SP-03, D-SP-04, D-SP-06: nothing is left half done, and the defaults show in the number of slots.
// Threads that were joined are none
fn settings_are_checked_before_anything_happens() {
    let mut lab = Lab::start("daemon_settings", "");
    lab.find("the last case", |said| said.iter().any(|line| line == "alone").then_some(()));
    let expected = [
        "spare: Settings: settings of the Daemon: max_spare (3) is less than min_spare (5); 0 sessions",
        "start: Settings: settings of the Daemon: start_children (11) is more than max_children (10); 0 sessions",
        "zero: Settings: settings of the Daemon: shutdown_timeout is zero; 0 sessions",
        "ten: pre-forking with 35 slots",
        "three: pre-forking with 15 slots",
        "post: post-forking with 12 slots",
        "none: non-forking with 0 slots",
        "threads: Threads: a Daemon that forks can't be spawned: the process has 2 threads, besides this one lingering (tid N); 0 sessions",
        "threads-post: Threads: a Daemon that forks can't be spawned: the process has 2 threads, besides this one lingering (tid N); 0 sessions",
        "threads-none: non-forking with 0 slots",
        "threads-detach: Threads: a Daemon that forks can't be spawned: the process has 2 threads, besides this one lingering (tid N); 0 sessions",
        "alone",
    ];
    // D-SH-06: a Daemon alone keeps the kernel alive until it is told to end, and it was told.
    wait_until("its sleep", DEADLINE, || (proc::stat(lab.pid())?.state == 'S').then_some(()));
    lab.end(Signal::SIGTERM);
    lab.running.wait_for_stderr("shutting down with 0 children", DEADLINE); // it did not end by itself
    let said = lab.all();
    let many = said.iter().find(|line| line.starts_with("many: ")).expect("the case of too many");
    assert!(many.contains("Settings") && many.contains("max_children (4294967295)"), "{many}");
    let said: Vec<String> = said.iter().filter(|line| *line != many).map(|line| without_tid(line)).collect();
    assert_eq!(said[..expected.len()], expected);
    assert_eq!(said[expected.len()..], ["ended"]);
}

#[test] // D-SP-07, D-PF-01
fn two_daemons_have_a_board_and_children_each() {
    let mut lab = Lab::start("daemon_two", "");
    let me = lab.pid();
    lab.expect(me, "same alias: setting the alias: alias Daemon already names session 1, which alone may remove it");
    lab.expect(me, &format!("plain \"Plain, process {me}\\n    Daemon server\\n\""));
    let (mut one, mut other) = (Vec::new(), Vec::new());
    for number in 1..=5 {
        match lab.nth(number, "daemon_child") {
            (pid, how) if how == "one=true other=false" => one.push(pid),
            (pid, how) if how == "one=false other=true" => other.push(pid),
            (pid, how) => panic!("{pid} is a child of both or none: {how}"),
        }
    }
    assert_eq!((one.len(), other.len()), (2, 3));
    lab.find("five accepts", |said| (said.iter().filter(|l| l.ends_with("daemon_accept")).count() == 5).then_some(()));
    let boards = lab.ask("one");
    assert!(boards.starts_with("[ww       ] "), "{boards}");
    let boards = lab.ask("other");
    assert!(boards.starts_with("[www       ] "), "{boards}");

    // Neither kind of child has what belongs to the parent of the other: they end when the parent dies, below; and
    // one Daemon that shuts down takes its own children along and no others.
    lab.running.signal(Signal::SIGUSR2);
    lab.wait_gone(&one);
    assert!(other.iter().all(|&pid| proc::is_alive(pid)));
    for &pid in one.iter().chain(&other) {
        let story = lab.story(pid);
        assert!(story.starts_with("daemon_child") && !story.contains("daemon_parent"), "{pid}: {story}");
    }
    lab.end(Signal::SIGTERM);
    lab.all();
    let story = lab.story(me);
    assert_eq!(story.matches("daemon_parent").count(), 2, "{story}");
}

#[test] // D-SP-07, D-SH-04: a child of one must not keep the other's doorbell open
fn the_children_of_both_daemons_notice_the_parents_death() {
    let lab = Lab::start("daemon_two", "");
    let children: Vec<i32> = (1..=5).map(|number| lab.nth(number, "daemon_accept").0).collect();
    lab.running.signal(Signal::SIGKILL);
    // Each ends its own Daemon, and a child of one is not ended by the other's.
    lab.wait_gone(&children);
}

#[test] // D-SP-08, T21
fn what_the_launcher_ignored_or_blocked_is_put_right() {
    let blocked = Program::new(test_program("daemon_launch")).arg(test_program("daemon_prefork"));
    let ignored =
        Program::new("/bin/sh").arg("-c").arg("trap '' CHLD; exec \"$0\" \"$@\"").arg(test_program("daemon_prefork"));
    for program in [blocked, ignored] {
        let mut lab = Lab::launch(program.args(["--start", "3", "--max", "3", "--max-spare", "3", "--min-spare", "3"]));
        let addr = lab.running.listening_addr();
        lab.wait_board("www");
        let before = lab.running.children();
        before.iter().for_each(|&pid| util::lab::send(pid, Signal::SIGKILL));
        wait_until("new children", DEADLINE, || {
            let now = lab.running.children();
            (now.len() == 3 && now.iter().all(|pid| !before.contains(pid))).then_some(())
        });
        lab.wait_board("www");
        assert_eq!(lab.running.zombies(), [0; 0]);
        let (client, child) = held(addr);
        for pid in [lab.pid(), child] {
            let masks = proc::sig_masks(pid).expect("a living process");
            assert_eq!(masks.blocked, 0, "{pid}");
            assert!(!masks.ignores(Signal::SIGCHLD), "{pid}");
        }
        drop(client);
        lab.end(Signal::SIGTERM);
    }
}

#[test] // D-ME-03: to the letter, numbers apart
fn the_status_text_has_the_layout_that_tools_parse() {
    let (lab, addr) = Lab::pool("--start 2 --max 10 --min-spare 1 --usr1 status,text", 2);
    let (mut client, _) = held(addr);
    let child = unquoted(&util::lab::tell(&mut client, "status"));
    let lines: Vec<&str> = child.lines().collect();
    assert_eq!(without_numbers(lines[0]), "Daemon, process N");
    assert_eq!(lines[1], "    Pre-forking server, we are a child");
    assert_eq!(lines[2], "Scoreboard");
    assert_eq!(lines[3], "    15 slots in the scoreboard");
    assert!(["    Slots [rw             ]", "    Slots [wr             ]"].contains(&lines[4]), "{child}");
    assert_eq!(lines[5], "    13 slots free");
    let parent = unquoted(&lab.ask("text"));
    let lines: Vec<&str> = parent.lines().collect();
    assert_eq!(lines[1], "    Pre-forking server, we are the parent");
    assert_eq!(lines[2], "    2 children");
    let mut letters = [without_numbers(lines[3]), without_numbers(lines[4])];
    letters.sort();
    assert_eq!(letters, ["        N: r", "        N: w"]);
    assert_eq!(lines[5], "Scoreboard");

    let (lab, addr) = Lab::serve("daemon_postfork", "--max 3 --usr1 text");
    let (mut client, pid) = held(addr);
    let child = unquoted(&client.line("status"));
    assert!(
        child.contains("    Forking server, we are a child\nScoreboard\n    8 slots in the scoreboard\n"),
        "{child}"
    );
    let parent = unquoted(&lab.ask("text"));
    let expected = format!(
        "Daemon, process {}\n    Forking server, we are the parent\n    1 children\n        {pid}: r\nScoreboard\n    8 slots in \
         the scoreboard\n    Slots [r       ]\n    7 slots free\n",
        lab.pid()
    );
    assert_eq!(parent, expected);
}

#[test] // D-ME-04: the short form is the event queue alone
fn peek_shows_the_queue_and_with_verbose_every_session() {
    let (lab, addr) = Lab::pool("--start 1 --usr1 status,peek", 1);
    let short = unquoted(&lab.ask("peek"));
    assert!(short.contains("event queue: ") && !short.contains("session"), "{short}");
    let (mut client, _) = held(addr);
    let long = unquoted(&util::lab::tell(&mut client, "peek"));
    for part in ["  session 1 (Daemon), refcount ", "    stays alive: alias Daemon\n", "(child)", "    Our slot is 0\n"]
    {
        assert!(long.contains(part), "{part:?} is missing: {long}");
    }
}

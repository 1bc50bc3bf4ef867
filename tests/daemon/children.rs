//! D-SB-04, T4: children that die; D-ME-02: children that are not the Daemon's.

use nix::sys::signal::Signal;

use util::lab::{Lab, held, pid_of, send, tell};
use util::{DEADLINE, Program, proc, test_program, wait_until};

const ONE: &str = "--start 1 --max 1 --max-spare 1";

/// Kills the only child and waits until another one has its slot, and no more than that.
fn kill_and_replace(lab: &Lab, pid: i32, letter: &str) {
    send(pid, Signal::SIGKILL);
    lab.wait_gone(&[pid]);
    wait_until("another child", DEADLINE, || {
        let children = lab.running.children();
        (children.len() == 1 && children[0] != pid).then_some(())
    });
    lab.wait_board(letter);
    assert!(lab.ask("board").ends_with("free 5 children 1"));
    assert_eq!(lab.running.zombies(), [0; 0]);
}

fn only_child(lab: &Lab) -> i32 {
    wait_until("a child", DEADLINE, || lab.running.children().first().copied())
}

#[test] // D-SB-04: F, before and after the child has found its slot
fn a_child_killed_while_it_is_forked_gives_its_slot_back() {
    for stage in ["ChildFirst", "BeforeUnmask", "BeforeReady"] {
        let (mut lab, _) = Lab::serve("daemon_prefork", &format!("{ONE} --stop-nth 1 --stop-at {stage}"));
        let pid = only_child(&lab);
        wait_until("its stop", DEADLINE, || (proc::stat(pid)?.state == 'T').then_some(()));
        lab.wait_board("F");
        kill_and_replace(&lab, pid, "w");
        lab.end(Signal::SIGTERM);
    }
}

#[test] // D-SB-04: . and w and r and l
fn a_child_killed_at_any_time_gives_its_slot_back() {
    let (mut lab, _) = Lab::serve("daemon_prefork", &format!("{ONE} --never-ready"));
    lab.wait_board(".");
    kill_and_replace(&lab, only_child(&lab), ".");
    lab.end(Signal::SIGTERM);

    let (mut lab, addr) = Lab::pool(ONE, 1);
    kill_and_replace(&lab, only_child(&lab), "w");
    let (mut client, pid) = held(addr);
    lab.wait_board("r");
    kill_and_replace(&lab, pid, "w");
    assert!(client.try_read_line().ok().flatten().is_none());
    let (mut client, pid) = held(addr);
    tell(&mut client, "long");
    lab.wait_board("l");
    kill_and_replace(&lab, pid, "w");
    lab.end(Signal::SIGTERM);
}

#[test] // D-SB-04: e
fn a_child_killed_on_its_way_out_gives_its_slot_back() {
    let (lab, addr) = Lab::pool(&format!("{ONE} --requests 1 --linger"), 1);
    let (mut client, pid) = held(addr);
    client.finish_sending();
    client.expect_eof();
    // It takes its time, and is still one of max_children.
    lab.wait_board("e");
    assert_eq!(lab.running.children(), [pid]);
    kill_and_replace(&lab, pid, "w");
}

#[test] // T4, D-SB-04, O-DM-03: one SIGCHLD may stand for fifty, and no rate slows the replacement of children that were ready
fn fifty_children_killed_at_once_are_all_replaced() {
    let (mut lab, _) = Lab::pool("--start 50 --min-spare 50 --max-spare 50 --max 50 --burst 1 --rate 1", 50);
    for _ in 0..2 {
        let before = lab.running.children();
        assert_eq!(before.len(), 50);
        lab.running.signal(Signal::SIGSTOP);
        wait_until("the parent's stop", DEADLINE, || (proc::stat(lab.pid())?.state == 'T').then_some(()));
        before.iter().for_each(|&pid| send(pid, Signal::SIGKILL));
        wait_until("fifty zombies", DEADLINE, || (lab.running.zombies().len() == 50).then_some(()));
        lab.running.signal(Signal::SIGCONT);
        // Until they are reaped, the board shows what the dead wrote.
        wait_until("fifty others", DEADLINE, || {
            let now = lab.running.children();
            (now.len() == 50 && now.iter().all(|pid| !before.contains(pid))).then_some(())
        });
        lab.wait_board(&"w".repeat(50));
        assert_eq!(lab.running.zombies(), [0; 0]);
        assert!(lab.ask("board").ends_with("free 5 children 50"));
    }
    lab.end(Signal::SIGTERM);
}

#[test] // D-ME-02
fn a_foreign_child_is_reaped_quietly_and_not_counted() {
    let (mut lab, _) = Lab::pool("--start 2 --max 2 --max-spare 2 --usr1 foreign,status", 2);
    let helper: i32 = lab.nth(1, "foreign").1.parse().expect("a pid");
    assert!(lab.ask("board").starts_with("[ww     ] free 5 children 2"));
    let other: i32 = lab.nth(2, "foreign").1.parse().expect("a pid");
    send(helper, Signal::SIGKILL);
    wait_until("its burial", DEADLINE, || (!proc::exists(helper)).then_some(()));
    assert!(proc::is_alive(other));
    lab.end(Signal::SIGTERM);
    assert!(!proc::is_alive(other));
    let log = lab.running.stderr_text();
    let noise = log.lines().find(|line| line.contains("[WARN]") && line.contains(&helper.to_string()));
    assert_eq!(noise, None);
}

#[test] // D-ME-02: whose end nobody would ever hear of, nor may anything be sent to it
fn what_is_no_child_is_no_foreign_child() {
    let (mut lab, _) = Lab::pool_by_signals("--start 1 --max 1 --max-spare 1 --grace-ms 60000 --usr1 strangers", 1);
    lab.running.signal(Signal::SIGUSR1);
    for number in 1..=4 {
        assert!(lab.nth(number, "foreign").1.ends_with("refused=true"));
    }
    // And nobody waits for one.
    lab.end(Signal::SIGTERM);
}

#[test] // D-ME-02: "They will receive a TERM when current process exists", whichever process that is
fn a_foreign_child_of_a_child_ends_with_it() {
    let (lab, addr) = Lab::pool(&format!("{ONE} --requests 1"), 1);
    let (mut client, pid) = held(addr);
    let helper: i32 = tell(&mut client, "helper").parse().expect("a pid");
    assert!(proc::is_alive(helper));
    client.finish_sending();
    client.expect_eof();
    lab.wait_gone(&[helper, pid]);
    assert_ne!(held(addr).1, pid);
}

#[test] // T20: the first process of a container reaps whom it never knew
fn the_first_process_of_a_namespace_reaps_orphans() {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("skipped: a pid namespace needs root");
        return;
    }
    let args = format!(
        "--pid --fork --kill-child -- {} {ONE} --requests 0 --usr1 orphan",
        test_program("daemon_prefork").display()
    );
    let lab = Lab::launch(Program::new("unshare").args(args.split_whitespace()));
    let addr = lab.running.listening_addr();
    held(addr);
    let first = lab.running.children()[0];
    let children = || proc::children(first).len();
    assert_eq!(children(), 1);
    send(first, Signal::SIGUSR1);
    wait_until("an orphan", DEADLINE, || (children() == 2).then_some(()));
    wait_until("its burial", DEADLINE, || (children() == 1).then_some(()));
    held(addr);
    send(first, Signal::SIGTERM);
    wait_until("the end", DEADLINE, || (!proc::is_alive(first)).then_some(()));
}

#[test] // what cx.fork makes is the application's, not the Daemon's
fn a_child_that_the_application_forks_is_no_parent_to_the_pool() {
    let (mut lab, addr) =
        Lab::pool_by_signals("--start 2 --max 2 --max-spare 2 --min-spare 2 --usr1 own,status --own-shutdown", 2);
    let pool = lab.running.children();
    lab.ask("board");
    let (pid, what) = lab.nth(1, "own_child is_child");
    assert_eq!(what, "=true children=0 refused=true");
    lab.expect(pid, "end");
    let story = lab.story(pid);
    assert!(story.contains("daemon_shutdown") && !story.contains("daemon_child"), "{story}");
    // It had a Daemon to shut down, but nobody to take along.
    assert!(pool.iter().filter(|&&pid| proc::is_alive(pid)).count() == 2, "{pool:?}");
    pid_of(&held(addr).0.line("hello"));
    lab.end(Signal::SIGTERM);
}

#[test] // the same before the pool is there: the fork point comes before `daemon_start` is heard
fn a_child_that_is_forked_first_of_all_makes_no_pool_of_its_own() {
    let (mut lab, addr) = Lab::serve("daemon_prefork", "--start 2 --max 2 --max-spare 2 --own-child");
    let (own, _) = lab.nth(1, "own_child is_child");
    lab.expect(own, "end");
    lab.wait_board("ww");
    let story = lab.story(own);
    assert!(!story.contains("daemon_child") && !story.contains("daemon_parent"), "{story}");
    held(addr);
    lab.end(Signal::SIGTERM);
}

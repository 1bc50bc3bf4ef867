//! A process of the Daemon that stops, fails or dies at a named point, which `LENORE_INJECT` sets from outside.

use std::fs;
use std::io::ErrorKind;
use std::net::{Shutdown, SocketAddr};
use std::path::PathBuf;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::babysit::record;
use crate::orphans::expect_free;
use util::lab::{LONG, Lab, held, pid_of, send};
use util::{Client, DEADLINE, Program, at_once, proc, test_program, wait_until};

/// Three children, no more and no fewer. An order that is lost is not made up for by a timer.
const POOL: &str = "--start 3 --min-spare 3 --max-spare 3 --max 3 --requests 0 --grace-ms 60000 --babysit-ms 60000";
const FORKING: &str = "--max 3 --grace-ms 60000 --babysit-ms 60000";

/// What makes a child pass a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trigger {
    /// Its start.
    Start,
    /// A client. One that post-forks starts with a client.
    Client,
    /// The end of its client.
    Done,
    /// A signal to it.
    Sent(Signal),
}

/// The points of a pre-forked child.
const PREFORKED: [(&str, Trigger); 9] = [
    ("begin", Trigger::Start),
    ("claimed", Trigger::Start),
    ("watching", Trigger::Start),
    ("ready", Trigger::Start),
    ("wait", Trigger::Start),
    ("request", Trigger::Client),
    ("reopen", Trigger::Sent(Signal::SIGHUP)),
    ("retire", Trigger::Sent(Signal::SIGQUIT)),
    ("exit", Trigger::Sent(Signal::SIGTERM)),
];

/// The points of a post-forked child.
const POSTFORKED: [(&str, Trigger); 8] = [
    ("begin", Trigger::Start),
    ("claimed", Trigger::Start),
    ("watching", Trigger::Start),
    ("request", Trigger::Start),
    ("reopen", Trigger::Sent(Signal::SIGHUP)),
    ("retire", Trigger::Sent(Signal::SIGQUIT)),
    ("wait", Trigger::Done),
    ("exit", Trigger::Done),
];

/// What ends a child at a point, and the cause in its record.
const ENDS: [(&str, &str); 3] = [("die", "signal:SIGKILL"), ("exit:7", "exited:7"), ("fail", "exited:1")];

/// Starts a program with a plan.
fn start(program: &str, flags: &str, plan: &str) -> (Lab, SocketAddr) {
    let program = Program::new(test_program(program)).args(flags.split_whitespace());
    let lab = Lab::launch(program.env("LENORE_INJECT", plan));
    let addr = lab.running.listening_addr();
    (lab, addr)
}

fn can_fail(point: &str) -> bool {
    !matches!(point, "wait" | "request" | "reopen")
}

/// The pids of the children in the order of their forks, and their ends, of which each has a record.
fn forked(lab: &Lab) -> Vec<i32> {
    let log = lab.running.stderr_text();
    let line = |line: &str| line.split_once(" is forked into slot")?.0.rsplit_once("child ")?.1.parse().ok();
    log.lines().filter_map(line).collect()
}

/// The pid of the second child.
#[track_caller]
fn second(lab: &Lab) -> i32 {
    wait_until("the second fork", DEADLINE, || forked(lab).get(1).copied())
}

#[track_caller]
fn wait_stopped(pid: i32) {
    wait_until(&format!("{pid} to stop"), DEADLINE, || (proc::state(pid) == Some('T')).then_some(()));
}

/// The board holds these children and nothing else.
#[track_caller]
fn expect_board(lab: &Lab, letters: &str) {
    lab.wait_board(letters);
    let answer = lab.ask("board [");
    let (board, rest) = answer.split_once(']').expect("the board ends");
    let free = board.len() - letters.len();
    assert!(rest.starts_with(&format!(" free {free} ")), "{answer}");
    assert_eq!(lab.running.children().len(), letters.len());
}

/// Ends the program. Each child that was forked has left one record. These alone have ended for another reason than that they had
/// served, or with the Daemon.
#[track_caller]
fn expect_records(lab: &mut Lab, causes: &[&str]) {
    lab.end(Signal::SIGTERM);
    check_records(lab, causes);
}

#[track_caller]
fn check_records(lab: &mut Lab, causes: &[&str]) {
    let log = lab.running.stderr_to_end(DEADLINE);
    let children = forked(lab);
    let records: Vec<&str> = log.lines().filter(|line| line.contains("child has ended: ")).collect();
    assert_eq!(records.len(), children.len(), "{log}");
    for pid in children {
        let own = format!("child has ended: pid={pid} ");
        assert_eq!(records.iter().filter(|record| record.contains(&own)).count(), 1, "{pid}: {log}");
    }
    let cause = |record: &&str| record.split_once("cause=")?.1.split(' ').next().map(str::to_owned);
    let mut odd: Vec<String> =
        records.iter().filter_map(cause).filter(|cause| cause != "shutdown" && cause != "recycled").collect();
    odd.sort();
    assert_eq!(odd, causes, "{log}");
}

/// Every child of the pool serves, at the same time.
#[track_caller]
fn expect_served(addr: SocketAddr, children: usize) {
    let mut served: Vec<(Client, i32)> = (0..children).map(|_| held(addr)).collect();
    served.sort_by_key(|(_, pid)| *pid);
    served.dedup_by_key(|(_, pid)| *pid);
    assert_eq!(served.len(), children);
}

/// A pool whose second child has come to where it passes the point.
fn preforked(plan: &str, trigger: Trigger) -> (Lab, SocketAddr, Vec<Client>, i32) {
    let (lab, addr) = start("daemon_prefork", POOL, plan);
    let victim = second(&lab);
    let mut clients = Vec::new();
    match trigger {
        Trigger::Client => clients.extend((0..3).map(|_| Client::connect(addr))),
        Trigger::Sent(signal) => {
            lab.wait_board("www");
            send(victim, signal);
        }
        Trigger::Start | Trigger::Done => {}
    }
    (lab, addr, clients, victim)
}

/// A server with one client, whose second child has come to where it passes the point.
fn postforked(plan: &str, trigger: Trigger) -> (Lab, SocketAddr, Client, Client, i32) {
    let (lab, addr) = start("daemon_postfork", FORKING, plan);
    let (first, _) = held(addr);
    let mut client = Client::connect(addr);
    client.send("hello\r\n");
    let victim = second(&lab);
    if trigger != Trigger::Start {
        assert_eq!(pid_of(&client.read_line()), victim);
    }
    match trigger {
        Trigger::Sent(signal) => send(victim, signal),
        Trigger::Done => client.finish_sending(),
        Trigger::Start | Trigger::Client => {}
    }
    (lab, addr, first, client, victim)
}

fn cases<T: Copy>(points: &[(&'static str, T)]) -> Vec<(&'static str, T, &'static str, &'static str)> {
    let all = points.iter().flat_map(|(point, trigger)| ENDS.map(|(action, cause)| (*point, *trigger, action, cause)));
    all.filter(|(point, _, action, _)| *action != "fail" || can_fail(point)).collect()
}

#[test] // O-DT-10: in a child, it dies or fails
fn pool_replaces_a_child_that_ends_at_any_point() {
    at_once(cases(&PREFORKED), |(point, trigger, action, cause)| {
        let plan = format!("daemon.child.{point}={action}@1#2");
        let (mut lab, addr, clients, victim) = preforked(&plan, trigger);
        let record = record(&lab, victim);
        assert!(record.contains(&format!("cause={cause} ")), "{plan}: {record}");
        drop(clients);
        expect_board(&lab, "www");
        expect_served(addr, 3);
        expect_records(&mut lab, &[cause]);
    });
}

#[test] // O-DT-10: in a child, it dies or fails
fn post_forking_server_goes_on_after_a_child_that_ends_at_any_point() {
    at_once(cases(&POSTFORKED), |(point, trigger, action, cause)| {
        let plan = format!("daemon.child.{point}={action}@1#2");
        let (mut lab, addr, mut first, mut client, victim) = postforked(&plan, trigger);
        let record = record(&lab, victim);
        assert!(record.contains(&format!("cause={cause} ")), "{plan}: {record}");
        client.expect_eof_or_reset();
        expect_board(&lab, "r");
        first.line("still there");
        let served = held(addr);
        expect_board(&lab, "rr");
        drop((first, served));
        expect_records(&mut lab, &[cause]);
    });
}

#[test] // O-DT-10: in a child, it pauses
fn pool_serves_while_a_child_is_stopped_at_any_point() {
    at_once(PREFORKED, |(point, trigger)| {
        let plan = format!("daemon.child.{point}=pause@1#2");
        let (mut lab, addr, mut clients, victim) = preforked(&plan, trigger);
        wait_stopped(victim);
        if clients.is_empty() {
            held(addr);
        }
        send(victim, Signal::SIGCONT);
        clients.iter_mut().for_each(|client| _ = client.line("hello"));
        drop(clients);
        let is_told_to_go = matches!(trigger, Trigger::Sent(Signal::SIGTERM | Signal::SIGQUIT));
        if is_told_to_go {
            assert!(record(&lab, victim).contains("cause=recycled "));
        }
        expect_board(&lab, "www");
        assert_eq!(lab.running.children().contains(&victim), !is_told_to_go);
        expect_served(addr, 3);
        expect_records(&mut lab, &[]);
    });
}

#[test]
fn post_forking_server_serves_while_a_child_is_stopped_at_any_point() {
    at_once(POSTFORKED, |(point, trigger)| {
        let plan = format!("daemon.child.{point}=pause@1#2");
        let (mut lab, addr, first, mut client, victim) = postforked(&plan, trigger);
        wait_stopped(victim);
        held(addr);
        send(victim, Signal::SIGCONT);
        if trigger == Trigger::Start {
            assert_eq!(pid_of(&client.read_line()), victim);
        }
        if trigger != Trigger::Done {
            client.finish_sending();
        }
        client.expect_eof();
        expect_board(&lab, "r");
        drop(first);
        lab.wait_board("");
        expect_records(&mut lab, &[]);
    });
}

#[test]
fn child_stopped_at_any_point_hears_that_the_daemon_ends() {
    let signals = [Signal::SIGTERM, Signal::SIGQUIT];
    let cases = PREFORKED.into_iter().flat_map(|case| signals.map(|signal| (case, signal)));
    at_once(cases.collect::<Vec<_>>(), |((point, trigger), signal)| {
        let plan = format!("daemon.child.{point}=pause@1#2");
        let (mut lab, _, clients, victim) = preforked(&plan, trigger);
        wait_stopped(victim);
        lab.running.signal(signal);
        // It continues what is stopped.
        lab.running.wait_for_stderr("shutting down with 3 children", DEADLINE);
        drop(clients);
        lab.expect_end();
        check_records(&mut lab, &[]);
    });
}

#[test]
fn child_stopped_at_any_point_notices_the_end_of_its_parent() {
    at_once(PREFORKED, |(point, trigger)| {
        let plan = format!("daemon.child.{point}=pause@1#2");
        let (lab, addr, clients, victim) = preforked(&plan, trigger);
        wait_stopped(victim);
        let children = lab.running.children();
        lab.running.signal(Signal::SIGKILL);
        drop(clients);
        send(victim, Signal::SIGCONT);
        lab.wait_gone(&children);
        expect_free(addr);
    });
    at_once(POSTFORKED, |(point, trigger)| {
        let plan = format!("daemon.child.{point}=pause@1#2");
        let (lab, addr, first, client, victim) = postforked(&plan, trigger);
        wait_stopped(victim);
        let children = lab.running.children();
        lab.running.signal(Signal::SIGKILL);
        drop((first, client));
        send(victim, Signal::SIGCONT);
        lab.wait_gone(&children);
        expect_free(addr);
    });
}

/// What happens while the parent is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    Death,
    Order(Signal),
}

const NEWS: [News; 5] = [
    News::Death,
    News::Order(Signal::SIGTERM),
    News::Order(Signal::SIGQUIT),
    News::Order(Signal::SIGHUP),
    News::Order(Signal::SIGTTIN),
];

/// Points of the parent, and what makes it pass them: the death of a child, or HUP.
const PARENTS: [(&str, News); 5] = [
    ("kernel.fork=ACTION@4", News::Death),
    ("daemon.fork.before=ACTION@4", News::Death),
    ("daemon.forked=ACTION@4", News::Death),
    ("daemon.reaped=ACTION@1", News::Death),
    ("daemon.reopen=ACTION@1", News::Order(Signal::SIGHUP)),
];

/// Effects of the start, with no child, with some, and with all.
const EFFECTS: [u32; 7] = [1, 2, 3, 5, 7, 9, 11];

/// A parent that stops at a point.
struct Stop {
    dir: TempDir,
    news: News,
}

impl Stop {
    fn new(news: News) -> Stop {
        Stop { dir: tempfile::tempdir().expect("a directory"), news }
    }

    fn gate(&self) -> PathBuf {
        self.dir.path().join("gate")
    }

    /// The system drops TTIN when a process is continued, be it caught or not.
    fn action(&self) -> String {
        if self.is_held() { format!("hold:{}", self.gate().display()) } else { "pause".to_owned() }
    }

    fn is_held(&self) -> bool {
        self.news == News::Order(Signal::SIGTTIN)
    }

    fn is_there(&self, lab: &Lab) -> bool {
        if self.is_held() { self.gate().exists() } else { proc::state(lab.pid()) == Some('T') }
    }

    fn go_on(&self, lab: &Lab) {
        if self.is_held() {
            fs::remove_file(self.gate()).expect("it is there");
        } else {
            lab.running.signal(Signal::SIGCONT);
        }
    }
}

/// What comes while the parent is stopped is done when it goes on. `by` has brought it there.
#[track_caller]
fn expect_heard(lab: &mut Lab, addr: SocketAddr, stop: &Stop, by: Option<News>) {
    let news = stop.news;
    let mut causes = usize::from(by == Some(News::Death));
    let order = if matches!(by, Some(News::Order(_))) { 2 } else { 1 };
    let verdict = format!("order {order} is applied");
    let child = lab.running.children().first().copied();
    match (news, child) {
        (News::Death, Some(child)) => {
            send(child, Signal::SIGKILL);
            causes += 1;
        }
        // At the first effects there is none yet.
        (News::Death, None) => {}
        (News::Order(signal), _) => lab.running.signal(signal),
    }
    stop.go_on(lab);
    match news {
        News::Death => {
            child.into_iter().for_each(|child| _ = record(lab, child));
            expect_board(lab, "www");
        }
        News::Order(Signal::SIGTERM | Signal::SIGQUIT) => {
            lab.expect_end();
            check_records(lab, &vec!["signal:SIGKILL"; causes]);
            return assert!(lab.running.stderr_text().contains(&verdict));
        }
        News::Order(Signal::SIGTTIN) => {
            lab.running.wait_for_stderr(&verdict, DEADLINE);
            expect_board(lab, "wwww");
        }
        News::Order(_) => {
            lab.running.wait_for_stderr(&verdict, DEADLINE);
            expect_board(lab, "www");
        }
    }
    expect_served(addr, 3);
    expect_records(lab, &vec!["signal:SIGKILL"; causes]);
}

/// A pool whose parent has come to where it passes the point.
fn parent_at(plan: &str, action: &str, by: News) -> (Lab, SocketAddr) {
    let (lab, addr) = start("daemon_prefork", POOL, &plan.replace("ACTION", action));
    lab.wait_board("www");
    match by {
        News::Death => send(lab.running.children()[0], Signal::SIGKILL),
        News::Order(signal) => lab.running.signal(signal),
    }
    (lab, addr)
}

#[test] // O-DT-10: in the parent, it pauses
fn parent_stopped_at_any_point_hears_what_comes_meanwhile() {
    let cases = PARENTS.into_iter().flat_map(|case| NEWS.map(|news| (case, news)));
    at_once(cases.collect::<Vec<_>>(), |((plan, by), news)| {
        let stop = Stop::new(news);
        let (mut lab, addr) = parent_at(plan, &stop.action(), by);
        wait_until("the parent's stop", DEADLINE, || stop.is_there(&lab).then_some(()));
        expect_heard(&mut lab, addr, &stop, Some(by));
    });
}

#[test]
fn parent_stopped_between_two_effects_hears_what_comes_meanwhile() {
    let cases = EFFECTS.into_iter().flat_map(|effect| NEWS.map(|news| (effect, news)));
    at_once(cases.collect::<Vec<_>>(), |(effect, news)| {
        let stop = Stop::new(news);
        let (mut lab, addr) = start("daemon_prefork", POOL, &format!("daemon.effect={}@{effect}", stop.action()));
        wait_until("the parent's stop", DEADLINE, || stop.is_there(&lab).then_some(()));
        expect_heard(&mut lab, addr, &stop, None);
    });
}

#[test] // O-DT-10: in the parent, it dies
fn parent_that_dies_at_any_point_leaves_no_child_and_no_listener() {
    at_once(PARENTS, |(plan, by)| {
        let (mut lab, addr) = parent_at(plan, "die", by);
        lab.running.wait_exit(LONG);
        wait_until("its children's end", DEADLINE, || lab.running.descendants_alive().is_empty().then_some(()));
        expect_free(addr);
    });
    // With no child, with some, and with all.
    let early = ["kernel.fork", "daemon.fork.before", "daemon.forked"];
    at_once(
        early.into_iter().flat_map(|point| [1, 2, 3].map(|pass| (point, pass))).collect::<Vec<_>>(),
        |(point, pass)| {
            let (mut lab, addr) = start("daemon_prefork", POOL, &format!("{point}=die@{pass}"));
            lab.running.wait_exit(LONG);
            wait_until("its children's end", DEADLINE, || lab.running.descendants_alive().is_empty().then_some(()));
            expect_free(addr);
        },
    );
    at_once(EFFECTS, |effect| {
        let (mut lab, addr) = start("daemon_prefork", POOL, &format!("daemon.effect=die@{effect}"));
        lab.running.wait_exit(LONG);
        wait_until("its children's end", DEADLINE, || lab.running.descendants_alive().is_empty().then_some(()));
        expect_free(addr);
    });
}

#[test]
fn post_forking_parent_that_dies_at_any_point_leaves_no_child_and_no_listener() {
    at_once(["kernel.fork", "daemon.fork.before", "daemon.forked"], |point| {
        let (mut lab, addr) = start("daemon_postfork", FORKING, &format!("{point}=die@2"));
        let (mut first, child) = held(addr);
        let mut second = Client::connect(addr);
        lab.running.wait_exit(LONG);
        first.line("still there");
        drop(first);
        lab.wait_gone(&[child]);
        // Its child may have begun to serve it, and goes on until the client is done. Otherwise the system has perhaps reset it already.
        let done = second.stream().shutdown(Shutdown::Write);
        assert!(done.is_ok() || done.is_err_and(|error| error.kind() == ErrorKind::NotConnected));
        second.expect_eof_or_reset();
        wait_until("its children's end", DEADLINE, || lab.running.descendants_alive().is_empty().then_some(()));
        expect_free(addr);
    });
}

#[test] // O-DT-10: in the parent, it fails
fn fork_that_is_made_to_fail_is_tried_again() {
    let (mut lab, addr) = start("daemon_prefork", POOL, "kernel.fork=fail@2");
    lab.running.wait_for_stderr("forks fail and are tried again: injected at kernel.fork: ", DEADLINE);
    expect_board(&lab, "www");
    expect_served(addr, 3);
    expect_records(&mut lab, &[]);
}

#[test] // O-DT-10: in the parent, it fails
fn reopen_that_is_made_to_fail_is_refused() {
    let (mut lab, _) = start("daemon_prefork", POOL, "daemon.reopen=fail@1");
    lab.wait_board("www");
    lab.running.signal(Signal::SIGHUP);
    lab.running.wait_for_stderr("order 1 is refused: the log file could not be opened", DEADLINE);
    lab.running.signal(Signal::SIGHUP);
    lab.running.wait_for_stderr("order 2 is applied", DEADLINE);
    expect_records(&mut lab, &[]);
}

#[test]
fn mistake_in_the_plan_keeps_the_program_from_starting() {
    let mistakes = [
        ("daemon.child.born=die", "there is no point daemon.child.born"),
        ("daemon.forked=sleep", "there is no action sleep"),
        ("daemon.forked=fail", "daemon.forked can't fail"),
    ];
    for (plan, mistake) in mistakes {
        let program = Program::new(test_program("daemon_prefork")).env("LENORE_INJECT", plan);
        let mut program = program.start();
        assert_eq!(program.wait_exit(LONG).code(), Some(1));
        let log = program.stderr_to_end(DEADLINE);
        assert!(log.contains(&format!("LENORE_INJECT: {mistake}")), "{log}");
    }
}

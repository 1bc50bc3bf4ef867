//! The schedules that the simulation of the machine plays, played by real processes: the same verdicts and the same end.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::babysit::record;
use crate::schedule::{self, Schedule, Step};
use util::lab::{LONG, Lab, pid_of, send};
use util::{Client, DEADLINE, Program, at_once, test_program, wait_until};

/// A program that plays a schedule.
struct Player {
    lab: Lab,
    addr: std::net::SocketAddr,
    clients: VecDeque<Client>,
    orders: usize,
    /// The application in the parent has nothing left to do, and is gone: it can't be asked for the board.
    is_ending: bool,
    gate: PathBuf,
    _dir: TempDir,
}

impl Player {
    fn new(schedule: &Schedule) -> Player {
        let dir = tempfile::tempdir().expect("a directory");
        let gate = dir.path().join("noforks");
        let mut args = vec!["--fail-while".to_owned(), gate.display().to_string()];
        let mut plan = Vec::new();
        // Children that were kept for clients go at once. They serve any number, unless it is set below.
        args.extend(["--hold-ms", "1"].map(str::to_owned));
        if !schedule.settings.iter().any(|(name, _)| name == "requests") {
            args.extend(["--requests", "0"].map(str::to_owned));
        }
        for (name, value) in &schedule.settings {
            let flag = match name.as_str() {
                "start" => "--start",
                "min" => "--min-spare",
                "most" => "--max-spare",
                "max" => "--max",
                "requests" => "--requests",
                "stop_limit" => "--grace-ms",
                "deaf" => "--deaf",
                "nofork" => {
                    fs::write(&gate, "").expect("a file");
                    continue;
                }
                "forgood" => {
                    args.extend(["--errno".to_owned(), (Errno::EPERM as i32).to_string()]);
                    continue;
                }
                "nolog" => {
                    plan.push("daemon.reopen=fail".to_owned());
                    continue;
                }
                "dies" => {
                    plan.push(format!("daemon.child.ready=exit:1#{value}"));
                    continue;
                }
                _ => panic!("no program knows {name}"),
            };
            args.extend([flag.to_owned(), value.to_string()]);
        }
        let name = if schedule.is_post { "daemon_postfork" } else { "daemon_prefork" };
        let lab = Lab::launch(Program::new(test_program(name)).args(args).env("LENORE_INJECT", plan.join(",")));
        let addr = lab.running.listening_addr();
        Player { lab, addr, clients: VecDeque::new(), orders: 0, is_ending: false, gate, _dir: dir }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Board(letters) => {
                let mut letters: Vec<char> = letters.chars().collect();
                letters.sort_unstable();
                let wanted: String = letters.into_iter().collect();
                wait_until(&format!("a board of {wanted:?}"), DEADLINE, || {
                    let is_right = self.lab.running.children().len() == wanted.len();
                    if self.is_ending {
                        return is_right.then_some(());
                    }
                    let mut now: Vec<char> = self.lab.board().chars().filter(|letter| *letter != ' ').collect();
                    now.sort_unstable();
                    (is_right && now.into_iter().collect::<String>() == wanted).then_some(())
                });
            }
            Step::Order { name, waits } => {
                let signal = format!("SIG{name}").parse::<Signal>().expect("a signal");
                self.orders += 1;
                self.is_ending |= matches!(signal, Signal::SIGTERM | Signal::SIGQUIT);
                let arrival = format!("{} lenore::signals: {name} arrived", self.lab.running.pid());
                let arrivals = || self.lab.running.stderr_text().matches(&arrival).count();
                let before = arrivals();
                self.lab.running.signal(signal);
                // What comes next in the schedule comes after it.
                wait_until(&arrival, LONG, || (arrivals() > before).then_some(()));
                if *waits {
                    self.lab.running.wait_for_stderr(&format!(" order {} is ", self.orders), LONG);
                }
            }
            Step::Client => {
                self.knock();
                self.clients.back_mut().expect("a client").read_line();
            }
            Step::Knock => self.knock(),
            Step::Done => {
                let mut client = self.clients.pop_front().expect("a client");
                client.finish_sending();
                // Unless it was served before, its answer comes first.
                while client.try_read_line().expect("an end in order").is_some() {}
            }
            Step::Kill(letter) => {
                let pid = self.with_letter(*letter);
                send(pid, Signal::SIGKILL);
                record(&self.lab, pid);
                if *letter == 'r' {
                    self.clients.pop_front();
                }
            }
            Step::NoFork => fs::write(&self.gate, "").expect("a file"),
            Step::Fork => fs::remove_file(&self.gate).expect("it is there"),
        }
    }

    fn knock(&mut self) {
        let mut client = Client::connect(self.addr);
        client.send("hello\r\n");
        self.clients.push_back(client);
    }

    /// A child that has this letter: that of the first client, or one without.
    fn with_letter(&mut self, letter: char) -> i32 {
        let mut busy: Vec<i32> = self.clients.iter_mut().map(|client| pid_of(&client.line("again"))).collect();
        if letter == 'r' {
            return busy.remove(0);
        }
        let children = self.lab.running.children();
        children.into_iter().find(|pid| !busy.contains(pid)).expect("an idle child")
    }

    /// What has become of orders and children, in the words of the schedule.
    fn end(mut self) -> (Vec<String>, String, Option<i32>) {
        let status = self.lab.running.wait_exit(LONG);
        assert_eq!(self.lab.running.descendants_alive(), [0; 0], "left behind");
        let log = self.lab.running.stderr_to_end(DEADLINE);
        let mut verdicts = BTreeMap::new();
        for line in log.lines() {
            let order = line.split_once(" lenore::daemon: order ").and_then(|(_, order)| order.split_once(" is "));
            if let Some((number, verdict)) = order {
                let before = verdicts.insert(number.parse::<usize>().expect("a number"), verdict.to_owned());
                assert_eq!(before, None, "two verdicts: {line}");
            }
        }
        assert!(verdicts.keys().copied().eq(1..=self.orders), "{verdicts:?} of {}", self.orders);
        let causes = log.lines().filter_map(|line| line.split_once("child has ended: ")?.1.split_once("cause="));
        let mut deaths = CAUSES.map(|(_, name)| (name, 0));
        for (_, cause) in causes {
            let cause = cause.split(' ').next().expect("a cause");
            let place = CAUSES.iter().position(|(prefix, _)| cause.starts_with(prefix)).expect("a known cause");
            deaths[place].1 += 1;
        }
        let deaths = deaths.iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{count} {name}"));
        (verdicts.into_values().collect(), deaths.collect::<Vec<_>>().join(", "), status.code())
    }
}

/// What causes begin with in a record, and how they are counted, in the order of `Deaths`.
const CAUSES: [(&str, &str); 11] = [
    ("exited:0", "exited"),
    ("exited:", "failed"),
    ("signal:", "signaled"),
    ("oom", "oom"),
    ("recycled", "recycled"),
    ("retired", "retired"),
    ("memory_limit", "memory_limit"),
    ("rogue:", "rogue"),
    ("shutdown", "shutdown"),
    ("killed", "killed"),
    ("vanished", "vanished"),
];

#[test] // O-DT-08
fn real_processes_end_as_the_simulation_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../src/daemon/machine/sim/schedules.txt");
    let schedules = schedule::read(&fs::read_to_string(path).expect("it is checked in"));
    assert!(schedules.len() > 20);
    at_once(schedules, |schedule| {
        let mut player = Player::new(&schedule);
        schedule.steps.iter().for_each(|step| player.take(step));
        let (verdicts, deaths, code) = player.end();
        assert_eq!(verdicts, schedule.verdicts, "{}", schedule.text);
        assert_eq!(deaths, schedule.deaths, "{}", schedule.text);
        assert_eq!(code, Some(schedule.exit), "{}", schedule.text);
    });
}

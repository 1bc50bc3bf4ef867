//! A schedule that the simulation and real processes play alike: each step waits for what the step before leads to.

use std::collections::VecDeque;

/// One line: `pre start=3 max=4 | www TTIN wwww TERM | applied, applied | 4 shutdown | 0`.
///
/// The parts are the settings, the steps, what becomes of each order, how the children end, and the exit code.
#[derive(Debug)]
pub struct Schedule {
    pub text: String,
    pub is_post: bool,
    /// By the names that a plan of the simulation has for them, and five more. The child of the fork with this number `dies`
    /// before it is ready. Children are `deaf` to signals. Forks fail from the start, by `nofork`, and not only for the time
    /// being, by `forgood`. `nolog`: the log file can't be opened again.
    pub settings: Vec<(String, u32)>,
    pub steps: VecDeque<Step>,
    /// The verdicts on the orders, in the order in which those were given.
    pub verdicts: Vec<String>,
    /// As `Deaths` is displayed.
    pub deaths: String,
    pub exit: i32,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// `www`: wait until the board holds these letters in any order, and there are as many children. `-` is an empty board.
    Board(String),
    /// `TTIN`: give an order and wait for its verdict. `+TTIN`: do not wait.
    Order { name: String, waits: bool },
    /// `client`: a client comes and is served.
    Client,
    /// `knock`: a client comes.
    Knock,
    /// `done`: the client that came first of those who are there leaves.
    Done,
    /// `kill:w`: kill a child with this letter, and wait until it was reaped.
    Kill(char),
    /// `nofork`: forks fail from now on.
    NoFork,
    /// `fork`: they do not any more.
    Fork,
}

/// Reads the lines that are no comments.
pub fn read(text: &str) -> Vec<Schedule> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| schedule(line).unwrap_or_else(|wrong| panic!("{wrong}: {line}"))).collect()
}

fn schedule(line: &str) -> Result<Schedule, String> {
    let parts: Vec<&str> = line.split('|').map(str::trim).collect();
    let [settings, steps, verdicts, deaths, exit] = parts[..] else { return Err("not five parts".to_owned()) };
    let mut settings = settings.split_whitespace();
    let is_post = match settings.next() {
        Some("pre") => false,
        Some("post") => true,
        _ => return Err("neither pre nor post".to_owned()),
    };
    Ok(Schedule {
        text: line.to_owned(),
        is_post,
        settings: settings.map(setting).collect::<Result<_, _>>()?,
        steps: steps.split_whitespace().map(step).collect::<Result<_, _>>()?,
        verdicts: verdicts.split(',').map(str::trim).filter(|verdict| !verdict.is_empty()).map(str::to_owned).collect(),
        deaths: deaths.to_owned(),
        exit: exit.parse().map_err(|_| format!("not an exit code: {exit}"))?,
    })
}

fn setting(word: &str) -> Result<(String, u32), String> {
    let setting = word.split_once('=').and_then(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
    setting.ok_or_else(|| format!("not a setting: {word}"))
}

fn step(word: &str) -> Result<Step, String> {
    let (name, waits) = word.strip_prefix('+').map_or((word, true), |name| (name, false));
    Ok(match word {
        "client" => Step::Client,
        "knock" => Step::Knock,
        "done" => Step::Done,
        "nofork" => Step::NoFork,
        "fork" => Step::Fork,
        "-" => Step::Board(String::new()),
        _ if ["TTIN", "TTOU", "HUP", "QUIT", "TERM"].contains(&name) => Step::Order { name: name.to_owned(), waits },
        _ if word.starts_with("kill:") => Step::Kill(word.chars().nth(5).ok_or("kill whom?")?),
        _ if word.chars().all(|letter| "Ff.wrlke".contains(letter)) => Step::Board(word.to_owned()),
        _ => return Err(format!("not a step: {word}")),
    })
}

//! What happens at which point.

use std::env;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, raise};

use super::Point;
use crate::error::Error;
use crate::sys::fork::exit_now;

/// What is to happen: `POINT=ACTION[@PASS][#CHILD]`, with commas between.
///
/// The action is `pause` (SIGSTOP to itself), `hold:PATH` (make a file there and wait until it is gone), `fail`, `die` (SIGKILL to
/// itself) or `exit:CODE`. A process that is paused loses a TTIN or TTOU that comes meanwhile: the system drops both at its CONT.
///
/// It happens each time that a process passes the point, or with `@3` the third time. With `#2` it happens only in the child of the second fork that a Daemon of this
/// process was told of.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan(Vec<Step>);

#[derive(Debug, PartialEq, Eq)]
struct Step {
    point: Point,
    action: Action,
    pass: Option<u32>,
    child: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    Pause,
    Hold(PathBuf),
    Fail,
    Die,
    Exit(i32),
}

static PLAN: OnceLock<Plan> = OnceLock::new();

/// How often this process has passed each point. A child inherits what its parent has counted, and so knows its own number.
static PASSES: [AtomicU32; POINTS.len()] = [const { AtomicU32::new(0) }; POINTS.len()];

/// Reads the environment, the first time.
///
/// # Errors
///
/// [`Error::Os`] that names the point or action that there is not.
pub(crate) fn prepare() -> Result<(), Error> {
    if PLAN.get().is_none() {
        let text = env::var(VARIABLE).unwrap_or_default();
        let plan = Plan::parse(&text);
        let plan = plan.map_err(|wrong| Error::os("reading", VARIABLE, io::Error::other(wrong)))?;
        PLAN.get_or_init(|| plan);
    }
    Ok(())
}

/// Passes a point.
///
/// # Errors
///
/// [`Error::Os`] with `EAGAIN` where the plan says `fail`.
pub(crate) fn reach(point: Point) -> Result<(), Error> {
    let Some(plan) = PLAN.get() else { return Ok(()) };
    let pass = PASSES[point as usize].fetch_add(1, Ordering::Relaxed) + 1;
    let child = PASSES[Point::Forked as usize].load(Ordering::Relaxed) + 1;
    match plan.action(point, pass, child) {
        None => Ok(()),
        Some(Action::Pause) => raise(Signal::SIGSTOP).map_err(|errno| Error::os("raise", "SIGSTOP", errno)),
        Some(Action::Hold(path)) => hold(path).map_err(|source| Error::os("holding", path.display(), source)),
        Some(Action::Fail) => Err(Error::os("injected at", point, Errno::EAGAIN)),
        Some(Action::Die) => raise(Signal::SIGKILL).map_err(|errno| Error::os("raise", "SIGKILL", errno)),
        Some(Action::Exit(code)) => exit_now(*code),
    }
}

fn hold(path: &Path) -> io::Result<()> {
    File::create(path)?;
    while path.exists() {
        thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}

impl Plan {
    fn parse(text: &str) -> Result<Plan, String> {
        text.split(',').filter(|step| !step.is_empty()).map(Step::parse).collect::<Result<_, _>>().map(Plan)
    }

    fn action(&self, point: Point, pass: u32, child: u32) -> Option<&Action> {
        let is_now = |step: &&Step| {
            step.point == point && step.pass.is_none_or(|at| at == pass) && step.child.is_none_or(|only| only == child)
        };
        self.0.iter().find(is_now).map(|step| &step.action)
    }
}

impl Step {
    fn parse(text: &str) -> Result<Step, String> {
        let (name, rest) = text.split_once('=').ok_or_else(|| format!("{text} has no action"))?;
        let point = POINTS.into_iter().find(|(_, known)| *known == name);
        let (point, _) = point.ok_or_else(|| format!("there is no point {name}"))?;
        let (rest, child) = number_behind('#', rest)?;
        let (action, pass) = number_behind('@', rest)?;
        let action = match action.split_once(':') {
            None if action == "pause" => Action::Pause,
            None if action == "fail" => Action::Fail,
            None if action == "die" => Action::Die,
            Some(("hold", path)) => Action::Hold(path.into()),
            Some(("exit", code)) => Action::Exit(code.parse().map_err(|_| format!("{code} is not an exit code"))?),
            _ => return Err(format!("there is no action {action}")),
        };
        if action == Action::Fail && !point.can_fail() {
            return Err(format!("{name} can't fail"));
        }
        if child.is_some() && !point.is_childs() {
            return Err(format!("{name} is not a point of a child"));
        }
        Ok(Step { point, action, pass, child })
    }
}

/// Splits a number, which counts from 1, off the end.
fn number_behind(mark: char, text: &str) -> Result<(&str, Option<u32>), String> {
    let Some((text, number)) = text.rsplit_once(mark) else { return Ok((text, None)) };
    match number.parse() {
        Ok(number @ 1..) => Ok((text, Some(number))),
        _ => Err(format!("{mark}{number} is not a number from 1")),
    }
}

impl Point {
    /// Tells whether what reaches the point hears of a failure.
    fn can_fail(self) -> bool {
        use Point::{ChildRecord, ChildReopen, ChildRequest, ChildWait, Effect, Fold, ForkBefore, Forked, Reaped};
        !matches!(
            self,
            ForkBefore | Forked | Reaped | Effect | Fold | ChildWait | ChildRequest | ChildRecord | ChildReopen
        )
    }

    fn is_childs(self) -> bool {
        self as usize >= Point::ChildBegin as usize
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(POINTS[*self as usize].1)
    }
}

/// What each point is called, in the order of their declaration.
const POINTS: [(Point, &str); 18] = [
    (Point::KernelFork, "kernel.fork"),
    (Point::Copy, "kernel.copy"),
    (Point::ForkBefore, "daemon.fork.before"),
    (Point::Forked, "daemon.forked"),
    (Point::Reaped, "daemon.reaped"),
    (Point::Effect, "daemon.effect"),
    (Point::Reopen, "daemon.reopen"),
    (Point::Fold, "daemon.fold"),
    (Point::ChildBegin, "daemon.child.begin"),
    (Point::ChildClaimed, "daemon.child.claimed"),
    (Point::ChildWatching, "daemon.child.watching"),
    (Point::ChildReady, "daemon.child.ready"),
    (Point::ChildWait, "daemon.child.wait"),
    (Point::ChildRequest, "daemon.child.request"),
    (Point::ChildRecord, "daemon.child.record"),
    (Point::ChildReopen, "daemon.child.reopen"),
    (Point::ChildRetire, "daemon.child.retire"),
    (Point::ChildExit, "daemon.child.exit"),
];

/// How often a process that is held looks.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// The variable of the environment.
const VARIABLE: &str = "LENORE_INJECT";

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> String {
        Plan::parse(text).expect_err("a mistake")
    }

    #[test]
    fn points_are_listed_as_declared() {
        for (place, (point, name)) in POINTS.into_iter().enumerate() {
            assert_eq!(point as usize, place, "{name}");
            assert_eq!(point.to_string(), name);
            assert_eq!(point.is_childs(), name.starts_with("daemon.child."), "{name}");
        }
    }

    #[test] // O-DT-10: no other feature brings the points, and without theirs a constant is left of each
    fn points_are_there_with_their_feature_alone() {
        let (_, features) = include_str!("../../Cargo.toml").split_once("\n[features]\n").expect("a table of features");
        let (features, _) = features.split_once("\n[").expect("another table");
        let lines = features.lines().filter(|line| !line.starts_with('#'));
        let bring_them: Vec<&str> = lines.clone().filter(|line| line.contains("fork-hooks")).collect();
        assert_eq!(bring_them, ["fork-hooks = []"]);
        assert!(!lines.into_iter().any(|line| line.starts_with("default ")), "{features}");
        let source = include_str!("mod.rs");
        let (_, without) = source.split_once("#[cfg(not(feature = \"fork-hooks\"))]\n").expect("what is there without");
        let (head, body) = without.split_once("{\n").expect("a body");
        assert!(head.contains("#[inline(always)]") && head.contains("const fn reach(_: Point)"), "{head}");
        assert!(body.starts_with("    Ok(())\n}\n"), "{body}");
    }

    #[test]
    fn plan_says_where_when_and_in_which_child() {
        let plan = Plan::parse("daemon.forked=pause,daemon.child.claimed=die@2,daemon.child.exit=exit:7@1#3").unwrap();
        assert_eq!(plan.action(Point::Forked, 9, 1), Some(&Action::Pause));
        assert_eq!(plan.action(Point::ChildClaimed, 1, 1), None);
        assert_eq!(plan.action(Point::ChildClaimed, 2, 1), Some(&Action::Die));
        assert_eq!(plan.action(Point::ChildExit, 1, 2), None);
        assert_eq!(plan.action(Point::ChildExit, 2, 3), None);
        assert_eq!(plan.action(Point::ChildExit, 1, 3), Some(&Action::Exit(7)));
        let plan = Plan::parse("daemon.effect=hold:/tmp/here@2").unwrap();
        assert_eq!(plan.action(Point::Effect, 2, 1), Some(&Action::Hold("/tmp/here".into())));
        assert_eq!(Plan::parse("").unwrap(), Plan(Vec::new()));
    }

    #[test]
    fn mistake_in_plan_is_named() {
        assert_eq!(wrong("daemon.child.born=die"), "there is no point daemon.child.born");
        assert_eq!(wrong("daemon.forked"), "daemon.forked has no action");
        assert_eq!(wrong("daemon.forked=sleep"), "there is no action sleep");
        assert_eq!(wrong("daemon.forked=exit"), "there is no action exit");
        assert_eq!(wrong("daemon.forked=exit:x"), "x is not an exit code");
        assert_eq!(wrong("daemon.forked=pause@0"), "@0 is not a number from 1");
        assert_eq!(wrong("daemon.forked=fail"), "daemon.forked can't fail");
        assert_eq!(wrong("daemon.forked=pause#1"), "daemon.forked is not a point of a child");
        assert_eq!(wrong("daemon.child.begin=pause#one"), "#one is not a number from 1");
    }
}

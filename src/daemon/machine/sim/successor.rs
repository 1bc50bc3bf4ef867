//! A virtual successor: what it says and when, and how it fails.

use super::dice::Dice;
use super::world::{Event, World};
use crate::daemon::machine::{Attempt, End, Input, UpgradeFault};

/// What becomes of the next successor.
#[derive(Clone, Copy, Debug, Default)]
pub struct Script {
    how: How,
    /// How long each of its steps takes, and how late it fails, in microseconds.
    pace: u64,
    late: u64,
}

macro_rules! hows {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        /// How a successor goes wrong. Its number is its place.
        #[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
        enum How {
            #[default]
            Well,
            $($(#[$doc])* $name,)*
        }

        impl How {
            const ALL: &'static [How] = &[How::Well, $(How::$name),*];
        }
    };
}

hows! {
    NotStarted;
    /// It says nothing.
    Silent;
    WrongGreeting;
    /// It dies at that time, wherever it has come to.
    Dies;
    NeverReady;
    NeverTakesOver;
    NotTaken;
    /// So long after it has taken over, as the next two.
    CrashLoops;
    Stops;
    DiesOnProbation;
}

impl Script {
    /// Reads what [`draw`] has drawn.
    pub fn numbered([how, pace, late]: [u32; 3]) -> Script {
        let how = How::ALL.get(how as usize).copied().unwrap_or_default();
        Script { how, pace: u64::from(pace) * 1000 + 100, late: u64::from(late) * 1000 }
    }
}

/// Draws a successor. One that does well ends the Daemon.
pub fn draw(dice: &mut Dice, may_do_well: bool) -> [u32; 3] {
    use How::*;
    let how = if may_do_well {
        dice.pick(&[Well, Well, Well, Stops, Dies, CrashLoops])
    } else {
        dice.pick(&[
            NotStarted,
            Silent,
            WrongGreeting,
            Dies,
            Dies,
            Dies,
            NeverReady,
            NeverTakesOver,
            NotTaken,
            CrashLoops,
            CrashLoops,
            DiesOnProbation,
            DiesOnProbation,
            DiesOnProbation,
        ])
    };
    let number = How::ALL.iter().position(|known| *known == how).unwrap_or(0) as u32;
    [number, dice.pick(&[0, 1, 5, 40, 300]), dice.pick(&[0, 1, 7, 50, 400, 3000])]
}

/// The successor that was started last.
#[derive(Clone, Copy, Debug)]
pub struct Successor {
    pub attempt: Attempt,
    script: Script,
    pub is_alive: bool,
    /// It accepts clients.
    serves: bool,
}

/// What a successor does next.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Step {
    IsNotStarted,
    Greets,
    GreetsWrongly,
    IsReady,
    TakesOver,
    DoesNotTake,
    CrashLoops,
    Stops,
    Dies,
    /// The parent hears that it has ended.
    IsReaped,
    Accepts,
}

impl World {
    /// The parent starts a successor.
    pub fn start_successor(&mut self, attempt: Attempt) {
        let script = self.script;
        self.successor = Some(Successor { attempt, script, is_alive: true, serves: false });
        let mut plan = |after: u64, step: Step| self.plan(after, Event::Successor(attempt, step));
        match script.how {
            How::NotStarted => plan(500, Step::IsNotStarted),
            How::Silent => {}
            How::WrongGreeting => plan(script.pace, Step::GreetsWrongly),
            _ => plan(script.pace, Step::Greets),
        }
        if script.how == How::Dies {
            plan(script.late, Step::Dies);
        }
    }

    /// The parent gives it the names.
    pub fn hand_over(&mut self, attempt: Attempt) {
        let Some(successor) = self.successor.filter(|successor| successor.attempt == attempt) else { return };
        let Script { how, pace, .. } = successor.script;
        match how {
            How::NeverTakesOver => {}
            How::NotTaken => self.plan(pace, Event::Successor(attempt, Step::DoesNotTake)),
            _ => self.plan(pace, Event::Successor(attempt, Step::TakesOver)),
        }
    }

    /// The parent ends it, and hears of its end later.
    pub fn end_successor(&mut self, attempt: Attempt) {
        let Some(successor) = self.successor.as_mut().filter(|successor| successor.attempt == attempt) else { return };
        if std::mem::take(&mut successor.is_alive) {
            let after = u64::from(self.dice.below(300_000));
            self.plan(after, Event::Successor(attempt, Step::IsReaped));
        }
    }

    /// The parent has heard what it said: what it does next.
    pub fn successor_was_heard(&mut self, input: Input) {
        let Some(Successor { script: Script { how, pace, late }, .. }) = self.successor else { return };
        match input {
            Input::SuccessorGreeted(attempt) if how != How::NeverReady => {
                self.plan(pace, Event::Successor(attempt, Step::IsReady));
            }
            Input::SuccessorTookOver(attempt) => {
                let step = match how {
                    How::CrashLoops => Step::CrashLoops,
                    How::Stops => Step::Stops,
                    How::DiesOnProbation => Step::Dies,
                    _ => return,
                };
                self.plan(late, Event::Successor(attempt, step));
            }
            _ => {}
        }
    }

    /// It does something. Returns what the parent will be told.
    pub fn successor_does(&mut self, attempt: Attempt, step: Step) -> Option<Input> {
        let killed = UpgradeFault::Died(End::Signaled { signal: 9, has_core: false });
        if step == Step::IsReaped {
            return Some(Input::SuccessorFailed(attempt, killed));
        }
        let successor =
            self.successor.as_mut().filter(|successor| successor.attempt == attempt && successor.is_alive)?;
        let fails = |fault| Some(Input::SuccessorFailed(attempt, fault));
        match step {
            Step::IsNotStarted => {
                successor.is_alive = false;
                fails(UpgradeFault::NotStarted)
            }
            Step::Greets => Some(Input::SuccessorGreeted(attempt)),
            Step::GreetsWrongly => fails(UpgradeFault::WrongGreeting),
            Step::IsReady => {
                successor.serves = true;
                self.plan(0, Event::Successor(attempt, Step::Accepts));
                Some(Input::SuccessorReady(attempt))
            }
            Step::TakesOver => Some(Input::SuccessorTookOver(attempt)),
            Step::DoesNotTake => fails(UpgradeFault::NotTaken),
            Step::CrashLoops => fails(UpgradeFault::CrashLoop),
            Step::Stops => {
                self.plan(5000, Event::Successor(attempt, Step::Dies));
                Some(Input::SuccessorStops(attempt))
            }
            Step::Dies => {
                successor.is_alive = false;
                fails(UpgradeFault::Died(End::Exited(1)))
            }
            Step::IsReaped => None,
            Step::Accepts => {
                if successor.serves && self.take_client().is_some() && !self.queue.is_empty() {
                    self.plan(1000, Event::Successor(attempt, Step::Accepts));
                }
                None
            }
        }
    }

    /// A client has come, and may be its.
    pub fn tell_successor(&mut self) {
        if let Some(Successor { attempt, is_alive: true, serves: true, .. }) = self.successor {
            let after = 50 + u64::from(self.dice.below(300));
            self.plan(after, Event::Successor(attempt, Step::Accepts));
        }
    }
}

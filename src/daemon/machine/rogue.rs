//! Which children are out of bounds, and what is done to them: pure functions of what was seen.

use std::fmt;
use std::time::Duration;

use super::Status;

/// What a child must not do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rules {
    /// The longest it may be in `r`.
    pub request_timeout: Option<Duration>,
    /// The longest it may be in `l`.
    pub long_timeout: Option<Duration>,
    /// The longest it may be in `e`.
    pub exit_timeout: Duration,
    /// The most processor time for one request.
    pub cpu_limit: Duration,
    /// The most bytes resident.
    pub memory_limit: Option<u64>,
}

/// What one look at a child showed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sight {
    /// What it says that it does; `None` if it says nothing that makes sense.
    pub status: Option<Status>,
    /// How long it has been saying so.
    pub in_status: Duration,
    /// Processor time it has used for what it is doing.
    pub cpu: Duration,
    /// It was stopped in the round before, and it is stopped now.
    pub is_stopped: bool,
    /// For how long it has been saying that it waits although it was asked to go.
    pub overdue_for: Duration,
    /// It was asked whether it accepts, as clients waited while it said that it waits, and has not answered.
    pub is_unresponsive: bool,
}

/// Why a child is rogue.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Rogue {
    /// The child has used more processor time than `cpu_limit` on its present request.
    Cpu,
    /// The child has been in `r` longer than `request_timeout`.
    Request,
    /// The child has been in `l` longer than `long_timeout`.
    Long,
    /// A signal such as SIGSTOP has stopped the child, and no process has continued it.
    Stopped,
    /// The child has reported `Wait`, but does not answer when the parent asks whether it accepts. A state has not returned. The parent
    /// asks only while clients wait.
    Unresponsive,
    /// The child has been in `e` for too long: its Daemon has ended, and something else keeps the process alive. Or the child was asked
    /// to leave, and still waits for a request. The limit is the longest of `shutdown_timeout`, `request_timeout` and `long_timeout`.
    Exit,
}

impl fmt::Display for Rogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rogue::Cpu => "cpu_limit",
            Rogue::Request => "request_timeout",
            Rogue::Long => "long_timeout",
            Rogue::Stopped => "stopped",
            Rogue::Unresponsive => "unresponsive",
            Rogue::Exit => "shutdown_timeout",
        })
    }
}

/// What a rogue is sent, one in each round that it stays one.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Step {
    /// INT.
    Interrupt,
    /// TERM.
    Terminate,
    /// KILL.
    Kill,
}

/// How far it has come with one child.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Escalation {
    /// Why it began.
    pub why: Rogue,
    /// What the child was sent last.
    pub step: Step,
}

/// Decides what a child gets in this round. A child that is not a rogue, or no longer one, gets nothing. A rogue gets the step after
/// that of the round before.
///
/// A rogue that is ending is not cleared: it has to be gone by the last step. After the last step it gets that step again.
///
/// POE: `babysit` in `POE::Component::Daemon`, which knows processor time only.
pub fn judge(sight: &Sight, rules: &Rules, before: Option<Escalation>) -> Option<Escalation> {
    let is_leaving = sight.status == Some(Status::Exit);
    let why = before.filter(|_| is_leaving).map(|before| before.why).or_else(|| offence(sight, rules))?;
    let step = match before.map(|before| before.step) {
        None => Step::Interrupt,
        Some(Step::Interrupt) => Step::Terminate,
        Some(Step::Terminate | Step::Kill) => Step::Kill,
    };
    Some(Escalation { why, step })
}

fn offence(sight: &Sight, rules: &Rules) -> Option<Rogue> {
    let over = |limit: Option<Duration>| limit.is_some_and(|limit| sight.in_status > limit);
    match sight.status {
        _ if sight.is_stopped => Some(Rogue::Stopped),
        _ if sight.cpu > rules.cpu_limit => Some(Rogue::Cpu),
        Some(Status::Wait) if sight.overdue_for > rules.exit_timeout => Some(Rogue::Exit),
        Some(Status::Wait) if sight.is_unresponsive => Some(Rogue::Unresponsive),
        Some(Status::Req) if over(rules.request_timeout) => Some(Rogue::Request),
        Some(Status::Long) if over(rules.long_timeout) => Some(Rogue::Long),
        Some(Status::Exit) if over(Some(rules.exit_timeout)) => Some(Rogue::Exit),
        _ => None,
    }
}

/// What a child had used when it was last looked at.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Meter {
    /// What it was doing: the number of its request, and whether it had it in hand.
    pub doing: (u64, bool),
    /// All the processor time it had used by then.
    pub total: Duration,
    /// How much of that was for what it was doing.
    pub used: Duration,
    /// How old it was.
    pub age: Duration,
}

impl Meter {
    /// Works out how much of the processor time a child has used it used for what it is `doing` now, for `since` long.
    ///
    /// It has `gained` so much since the last look, see [`gained`](Meter::gained). If it was doing something else then, its share is
    /// not known exactly. The share is at most `gained`, and at most `since`.
    pub fn read(self, doing: (u64, bool), total: Duration, age: Duration, gained: Duration, since: Duration) -> Meter {
        let used = if doing == self.doing { self.used.saturating_add(gained) } else { gained.min(since) };
        Meter { doing, total, used, age }
    }

    /// Returns how much processor time a child has used since the last look, from what it has used in `total` at this `age`. `None`
    /// if the reading is impossible: it has become less, or more than all `processors` could have given. Nothing of such a reading
    /// counts, and the next one counts from there.
    ///
    /// If it is more than one thread can use, `threads` is asked how many there are. More than those could have used does not
    /// count either; as there may have been others, what they could have used does.
    pub fn gained(
        self,
        total: Duration,
        age: Duration,
        processors: u32,
        threads: impl FnOnce() -> Option<u32>,
    ) -> Option<Duration> {
        let gained = total.checked_sub(self.total)?;
        let gap = age.saturating_sub(self.age);
        // The two clocks are not read in the same moment.
        let slack = gap / 8 + Duration::from_millis(250);
        let most = |threads: u32| gap.saturating_mul(threads).saturating_add(slack);
        if gained > most(processors) {
            return None;
        }
        if gained <= most(1) {
            return Some(gained);
        }
        Some(gained.min(most(threads().unwrap_or(processors).max(1))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::check;

    const SECOND: Duration = Duration::from_secs(1);

    fn rules() -> Rules {
        Rules {
            request_timeout: Some(10 * SECOND),
            long_timeout: Some(100 * SECOND),
            exit_timeout: 200 * SECOND,
            cpu_limit: 5 * SECOND,
            memory_limit: None,
        }
    }

    fn sight(status: Status, in_status: u32, cpu: u32) -> Sight {
        Sight {
            status: Some(status),
            in_status: in_status * SECOND,
            cpu: cpu * SECOND,
            is_stopped: false,
            overdue_for: Duration::ZERO,
            is_unresponsive: false,
        }
    }

    fn why(sight: &Sight) -> Option<Rogue> {
        judge(sight, &rules(), None).map(|escalation| escalation.why)
    }

    #[test] // D-BA-01
    fn each_limit_holds_for_its_status() {
        assert_eq!(why(&sight(Status::Req, 10, 5)), None);
        assert_eq!(why(&sight(Status::Req, 11, 5)), Some(Rogue::Request));
        assert_eq!(why(&sight(Status::Long, 100, 5)), None);
        assert_eq!(why(&sight(Status::Long, 101, 5)), Some(Rogue::Long));
        assert_eq!(why(&sight(Status::Exit, 200, 5)), None);
        assert_eq!(why(&sight(Status::Exit, 201, 5)), Some(Rogue::Exit));
        assert_eq!(why(&sight(Status::Exit, 0, 6)), Some(Rogue::Cpu));
        for status in [Status::Wait, Status::Forking, Status::Forked, Status::FirstWait] {
            assert_eq!(why(&sight(status, 1000, 5)), None);
            assert_eq!(why(&sight(status, 0, 6)), Some(Rogue::Cpu));
        }
        assert_eq!(why(&Sight { is_stopped: true, ..sight(Status::Wait, 0, 0) }), Some(Rogue::Stopped));
        let overdue = |seconds: u32| Sight { overdue_for: seconds * SECOND, ..sight(Status::Wait, 1000, 0) };
        assert_eq!((why(&overdue(200)), why(&overdue(201))), (None, Some(Rogue::Exit)));
        let unresponsive = Sight { is_unresponsive: true, ..sight(Status::Wait, 0, 0) };
        assert_eq!(why(&unresponsive), Some(Rogue::Unresponsive));
        assert_eq!(why(&Sight { cpu: 6 * SECOND, ..unresponsive }), Some(Rogue::Cpu));
        assert_eq!(why(&Sight { status: Some(Status::Req), ..unresponsive }), None);
        let lenient = Rules { request_timeout: None, long_timeout: None, ..rules() };
        for status in [Status::Req, Status::Long] {
            assert_eq!(judge(&sight(status, 1_000_000, 0), &lenient, None), None);
        }
    }

    #[test] // D-BA-02: one step a round, and then the last again
    fn a_rogue_gets_int_then_term_then_kill() {
        let rogue = sight(Status::Req, 11, 0);
        let mut before = None;
        let mut steps = Vec::new();
        for _ in 0..5 {
            before = judge(&rogue, &rules(), before);
            steps.extend(before.map(|escalation| escalation.step));
        }
        assert_eq!(steps, [Step::Interrupt, Step::Terminate, Step::Kill, Step::Kill, Step::Kill]);
    }

    #[test] // D-BA-02: one that calms down is forgiven, and begins anew
    fn one_that_calms_down_is_forgiven() {
        let before = judge(&sight(Status::Req, 11, 0), &rules(), None);
        let before = judge(&sight(Status::Wait, 1, 0), &rules(), before);
        assert_eq!(before, None);
        let again = judge(&sight(Status::Req, 11, 0), &rules(), before).expect("rogue again");
        assert_eq!(again.step, Step::Interrupt);
    }

    #[test] // D-BA-02: INT shuts the Daemon in it down, which is not the same as its being gone
    fn one_on_its_way_out_is_not_forgiven() {
        let before = judge(&sight(Status::Req, 11, 0), &rules(), None);
        let after = judge(&sight(Status::Exit, 0, 0), &rules(), before).expect("still rogue");
        assert_eq!(after, Escalation { why: Rogue::Request, step: Step::Terminate });
        let last = judge(&sight(Status::Exit, 201, 0), &rules(), Some(after)).expect("still rogue");
        assert_eq!(last, Escalation { why: Rogue::Request, step: Step::Kill });
    }

    impl Meter {
        /// Reads a meter of a child with one thread that can be believed; `total` is its age as well.
        fn look(self, doing: (u64, bool), total: Duration, since: Duration) -> Meter {
            let gained = self.gained(total, total, 1, || Some(1)).expect("it can be believed");
            self.read(doing, total, total, gained, since)
        }
    }

    #[test] // D-BA-01: "on its present request"
    fn the_meter_begins_anew_with_each_request() {
        let meter = Meter::default().look((1, true), 4 * SECOND, 4 * SECOND);
        assert_eq!(meter.used, 4 * SECOND);
        // The same request, in another status.
        assert_eq!(meter.look((1, true), 7 * SECOND, SECOND).used, 7 * SECOND);
        assert_eq!(meter.look((2, true), 7 * SECOND, 100 * SECOND).used, 3 * SECOND);
        assert_eq!(meter.look((2, true), 7 * SECOND, SECOND).used, SECOND);
        assert_eq!(meter.look((1, false), 4 * SECOND, SECOND).used, Duration::ZERO);
    }

    #[test] // D-BA-07: a child of ten seconds that is said to have used an hour
    fn more_than_all_processors_can_give_is_no_reading() {
        let gained = |total, processors, threads| {
            let meter = Meter { total: 2 * SECOND, age: 10 * SECOND, ..Meter::default() };
            meter.gained(total, 20 * SECOND, processors, || threads)
        };
        assert_eq!(gained(3600 * SECOND, 4, Some(1)), None);
        assert_eq!(gained(Duration::MAX, 4, Some(1)), None);
        assert_eq!(gained(44 * SECOND, 4, Some(1)), None, "42 s in 10 s, of 4 processors and some slack");
        assert_eq!(gained(42 * SECOND, 4, Some(4)), Some(40 * SECOND));
        assert_eq!(gained(12 * SECOND, 4, None), Some(10 * SECOND));
    }

    #[test] // D-BA-07: it was reset, or read wrong the last time
    fn less_than_before_is_no_reading() {
        let meter = Meter { total: 20 * SECOND, age: 30 * SECOND, ..Meter::default() };
        assert_eq!(meter.gained(19 * SECOND, 40 * SECOND, 4, || Some(1)), None);
        assert_eq!(meter.gained(20 * SECOND, 40 * SECOND, 4, || Some(1)), Some(Duration::ZERO));
    }

    #[test] // D-BA-07: and what others, that have ended, may have used does not make a child rogue at once
    fn no_more_counts_than_the_threads_that_there_are_can_have_used() {
        let meter = Meter { age: 10 * SECOND, ..Meter::default() };
        let gained = |threads| meter.gained(35 * SECOND, 20 * SECOND, 4, || threads);
        let slack = Duration::from_millis(1500);
        assert_eq!(gained(Some(1)), Some(10 * SECOND + slack));
        assert_eq!(gained(Some(2)), Some(20 * SECOND + slack));
        assert_eq!(gained(Some(0)), Some(10 * SECOND + slack));
        assert_eq!(gained(Some(9)), Some(35 * SECOND));
        assert_eq!(gained(None), Some(35 * SECOND), "the processors bound it");
    }

    #[test] // D-BA-07: what counts goes on from a reading that does not
    fn one_wrong_reading_costs_nobody_anything() {
        let (before, doing) = (Meter::default().look((1, true), 4 * SECOND, 4 * SECOND), (1, true));
        let mut meter = before;
        for (age, total) in [(5, 5000), (6, 5), (7, 6)] {
            let (age, total) = (age * SECOND, total * SECOND);
            let gained = meter.gained(total, age, 2, || Some(1)).unwrap_or_default();
            meter = meter.read(doing, total, age, gained, age);
        }
        assert_eq!(meter.used, 5 * SECOND);
    }

    #[test] // D-BA-01: a busy loop is seen, however the looks fall
    fn a_request_that_uses_all_the_time_is_metered_in_full() {
        check(|dice| {
            let mut meter = Meter::default();
            let mut total = Duration::ZERO;
            for gap in dice.list(20, |dice| dice.number(1..50)) {
                total += gap * SECOND;
                meter = meter.look((1, true), total, total);
                assert_eq!(meter.used, total);
            }
        });
    }

    #[test] // D-BA-07: nothing that is read can make a child rogue before its time
    fn no_reading_counts_for_more_than_the_processors_can_give() {
        check(|dice| {
            let (mut meter, mut age) = (Meter::default(), Duration::ZERO);
            for (gap, total, threads) in
                dice.list(20, |dice| (dice.number(1..50), dice.below(u64::MAX), dice.maybe(|dice| dice.number(0..9))))
            {
                age += gap * SECOND;
                // In the order of what is possible, or anything.
                let total = Duration::from_nanos(if dice.below(2) == 0 { total } else { total % 4_000_000_000_000 });
                let gained = meter.gained(total, age, 4, || threads).unwrap_or_default();
                meter = meter.read((1, true), total, age, gained, age);
                assert!(meter.used <= age * 4 + age / 8 + 20 * Duration::from_millis(250));
            }
        });
    }
}

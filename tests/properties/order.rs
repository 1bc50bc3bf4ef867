//! The order of posts and alarms in states that take their time (K-EV-03 to K-EV-06).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use lenore::{AlarmId, Context, Postback, Session};
use proptest::prelude::*;

use util::diary::new_kernel;

#[derive(Debug, Clone)]
enum Op {
    Post,
    Postback,
    /// In so many tenths of a millisecond.
    Delay(u64),
    /// Moves the alarm that was set last.
    Adjust(u64),
    Remove,
    /// For so long.
    Work(u64),
    Slice,
}

/// The moments between which something has happened, or is going to.
type Span = (Instant, Instant);

struct Entry {
    /// When it was posted, or is due.
    at: Span,
    /// The place of the op that posted, set or moved it.
    op: usize,
    is_alarm: bool,
    /// The how manyth it was to be dispatched.
    turn: Option<usize>,
    is_removed: bool,
}

#[derive(Default)]
struct World {
    entries: Vec<Entry>,
    ops: usize,
    dispatched: usize,
    last_alarm: Option<(AlarmId, usize)>,
    batches: VecDeque<Vec<Op>>,
}

type Shared = Rc<RefCell<World>>;

impl World {
    fn add(&mut self, at: Span, is_alarm: bool) {
        self.entries.push(Entry { at, op: self.ops, is_alarm, turn: None, is_removed: false });
    }
}

fn tenths(count: u64) -> Duration {
    Duration::from_micros(100 * count)
}

fn act(cx: &mut Context<'_, Shared>, op: &Op) -> lenore::Result {
    let world = Rc::clone(cx.heap());
    world.borrow_mut().ops += 1;
    let tag = world.borrow().entries.len();
    let before = Instant::now();
    let span = |after: Duration| (before + after, Instant::now() + after);
    match *op {
        Op::Post => {
            cx.yield_("event", (tag,));
            world.borrow_mut().add(span(Duration::ZERO), false);
        }
        Op::Postback => {
            let postback: Postback = cx.postback("late", (tag,))?;
            postback.call(());
            world.borrow_mut().add(span(Duration::ZERO), false);
        }
        Op::Delay(count) => {
            let id = cx.delay_set("event", tenths(count), (tag,));
            world.borrow_mut().add(span(tenths(count)), true);
            world.borrow_mut().last_alarm = Some((id, tag));
        }
        Op::Adjust(count) => {
            let Some((id, tag)) = world.borrow().last_alarm else { return Ok(()) };
            if cx.delay_adjust(id, tenths(count)).is_ok() {
                let (at, op) = (span(tenths(count)), world.borrow().ops);
                let entry = &mut world.borrow_mut().entries[tag];
                (entry.at, entry.op) = (at, op);
            }
        }
        Op::Remove => {
            let Some((id, tag)) = world.borrow_mut().last_alarm.take() else { return Ok(()) };
            if cx.alarm_remove(id).is_ok() {
                world.borrow_mut().entries[tag].is_removed = true;
            }
        }
        Op::Work(count) => std::thread::sleep(tenths(count)),
        // One that finds nothing to wait for would end all sessions, by IDLE.
        Op::Slice if cx.event_count() == 0 => {}
        Op::Slice => {
            cx.run_one_timeslice()?;
        }
    }
    Ok(())
}

fn dispatched(cx: &mut Context<'_, Shared>, tag: usize) -> lenore::Result {
    let world = Rc::clone(cx.heap());
    let turn = world.borrow().dispatched;
    world.borrow_mut().dispatched += 1;
    assert_eq!(world.borrow_mut().entries[tag].turn.replace(turn), None, "it comes once");
    let batch = world.borrow_mut().batches.pop_front().unwrap_or_default();
    batch.iter().try_for_each(|op| act(cx, op))
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => Just(Op::Post),
        1 => Just(Op::Postback),
        3 => (0..20_u64).prop_map(Op::Delay),
        1 => (0..20_u64).prop_map(Op::Adjust),
        1 => Just(Op::Remove),
        3 => (1..15_u64).prop_map(Op::Work),
        1 => Just(Op::Slice),
    ]
}

fn run(batches: Vec<Vec<Op>>) {
    let world: Shared = Rc::new(RefCell::new(World { batches: batches.into(), ..World::default() }));
    let mut kernel = new_kernel();
    for _ in 0..2 {
        Session::new(Rc::clone(&world))
            .state("_start", |cx| cx.yield_("begin", ()))
            .state("begin", |cx| {
                let batch = cx.heap().borrow_mut().batches.pop_front().unwrap_or_default();
                batch.iter().try_for_each(|op| act(cx, op))
            })
            .state("event", |cx| {
                let tag = cx.take::<usize>(0)?;
                dispatched(cx, tag)
            })
            .state("late", |cx| {
                let tag = *cx.arg::<lenore::Args>(0)?.get::<usize>(0)?;
                dispatched(cx, tag)
            })
            .spawn(&mut kernel)
            .expect("it has a _start");
    }
    kernel.run().expect("no state failed");
    let world = world.borrow();
    let entries: Vec<&Entry> = world.entries.iter().filter(|entry| !entry.is_removed).collect();
    for one in &entries {
        let turn = one.turn.expect("all are dispatched");
        for other in entries.iter().filter(|other| other.op > one.op) {
            let is_before = match (one.is_alarm, other.is_alarm) {
                (false, false) => true,
                // An alarm that was set after a post, in no past, is not before it.
                (false, true) => true,
                // What is due by then goes before a post, and a post before what is due later.
                (true, false) if one.at.1 < other.at.0 => true,
                (true, false) if one.at.0 > other.at.1 => false,
                (true, false) | (true, true) => continue,
            };
            let (other_turn, ops) = (other.turn.expect("all are dispatched"), (one.op, other.op));
            assert_eq!(turn < other_turn, is_before, "alarms: {} {}, ops {ops:?}", one.is_alarm, other.is_alarm);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test] // K-EV-03 to K-EV-06
    fn posts_and_alarms_come_in_the_order_of_their_times(
        batches in prop::collection::vec(prop::collection::vec(op(), 0..8), 1..8),
    ) {
        run(batches);
    }
}

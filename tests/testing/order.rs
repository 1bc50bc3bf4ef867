//! The order of alarms against a naive model, under whatever proptest thinks of; and that it is the same each time.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use lenore::testing::TestKernel;
use lenore::{AsKernel, Context, Session};
use proptest::prelude::*;

/// An alarm, and the alarms that it sets when it runs.
#[derive(Debug, Clone)]
struct Alarm {
    /// In so many milliseconds.
    after: u64,
    sets: Vec<Alarm>,
}

/// What has run: the number of the alarm, in the order in which they were set, and the millisecond.
type Trace = Vec<(usize, u64)>;

#[derive(Default)]
struct World {
    count: usize,
    trace: Trace,
}

fn alarms() -> impl Strategy<Value = Vec<Alarm>> {
    // Few different times, so that many alarms are due together.
    let leaf = (0..6_u64).prop_map(|after| Alarm { after, sets: Vec::new() });
    let alarm = leaf.prop_recursive(3, 24, 4, |inner| {
        (0..6_u64, prop::collection::vec(inner, 0..4)).prop_map(|(after, sets)| Alarm { after, sets })
    });
    prop::collection::vec(alarm, 0..6)
}

/// Runs the alarms on a test kernel, which is moved by `steps`.
fn run(alarms: &[Alarm], steps: &[u64]) -> Trace {
    let world: Rc<RefCell<World>> = Rc::default();
    let mut kernel = TestKernel::new();
    let begin = kernel.now();
    let alarms = alarms.to_vec();
    Session::new(Rc::clone(&world))
        .state("_start", move |cx| alarms.iter().for_each(|alarm| set(cx, alarm)))
        .state("alarm", move |cx| {
            let (number, sets): (usize, Vec<Alarm>) = (cx.take(0)?, cx.take(1)?);
            let time = cx.now().duration_since(begin)?.as_millis() as u64;
            cx.heap().borrow_mut().trace.push((number, time));
            sets.iter().for_each(|alarm| set(cx, alarm));
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    for step in steps {
        kernel.advance(Duration::from_millis(*step));
    }
    kernel.run_to_end();
    world.take().trace
}

fn set(cx: &mut Context<'_, Rc<RefCell<World>>>, alarm: &Alarm) {
    let number = cx.heap().borrow().count;
    cx.heap().borrow_mut().count += 1;
    cx.delay_add("alarm", Duration::from_millis(alarm.after), (number, alarm.sets.clone()));
}

/// The model: of all that wait, the alarm with the earliest time runs; of several the one that was set first.
fn expected(alarms: &[Alarm]) -> Trace {
    let mut waiting: Vec<(u64, usize, &Alarm)> = Vec::new();
    let (mut count, mut trace) = (0, Trace::new());
    let mut add = |waiting: &mut Vec<_>, now: u64, alarms| {
        for alarm in alarms {
            let alarm: &Alarm = alarm;
            waiting.push((now + alarm.after, count, alarm));
            count += 1;
        }
    };
    add(&mut waiting, 0, alarms);
    while let Some(next) = (0..waiting.len()).min_by_key(|place| (waiting[*place].0, waiting[*place].1)) {
        let (time, number, alarm) = waiting.swap_remove(next);
        trace.push((number, time));
        add(&mut waiting, time, &alarm.sets);
    }
    trace
}

proptest! {
    #[test]
    fn alarms_run_in_the_order_of_the_model_however_the_clock_is_moved(
        alarms in alarms(),
        steps in prop::collection::vec(0..8_u64, 0..6),
    ) {
        prop_assert_eq!(run(&alarms, &steps), expected(&alarms));
    }
}

#[test]
fn thousand_rounds_give_one_trace() {
    let leaf = |after| Alarm { after, sets: Vec::new() };
    let alarms: Vec<Alarm> =
        (0..5).map(|after| Alarm { after: after % 3, sets: vec![leaf(0), leaf(2), leaf(after)] }).collect();
    let first = run(&alarms, &[1, 3]);
    assert_eq!(first.len(), 20);
    for round in 1..1000 {
        assert_eq!(run(&alarms, &[1, 3]), first, "round {round}");
    }
}

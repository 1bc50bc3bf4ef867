//! The queue against a list that is sorted anew each time (K-EV-01 to K-EV-06, K-TM).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use lenore::{AlarmId, Context, Error, EventKind, Kernel, RemovedAlarm, Session, SessionId, Shift};
use proptest::prelude::*;

use util::diary::new_kernel;

/// What a state does. Hours count from the start of the test: nothing in the past differs by less than one, and what
/// lies in the future never fires.
#[derive(Debug, Clone)]
enum Op {
    Post,
    /// A delay of zero: like a post, but it can be removed.
    DelayZero(usize),
    AlarmSet(usize, i64),
    /// Replaces those of that name.
    Alarm(usize, i64),
    /// By so many hours.
    Adjust(usize, i64),
    /// To now.
    DelayAdjust(usize),
    Remove(usize),
    Clear(usize),
    RemoveAll,
}

const NAMES: [&str; 3] = ["a", "b", "c"];

/// One waiting event in the model.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    /// Twice the hour of an alarm; what was posted, or is due now, stands between hour 0 and hour 1.
    key: i64,
    seq: u64,
    tag: usize,
    owner: SessionId,
    name: &'static str,
    is_alarm: bool,
}

/// The `key` of what is due now.
const NOW: i64 = 1;

struct World {
    start: SystemTime,
    entries: Vec<Entry>,
    next_seq: u64,
    next_tag: usize,
    /// What was queued from here on waits for the next slice.
    boundary: u64,
    /// Every alarm ever set, with its tag.
    ids: Vec<(AlarmId, usize)>,
    /// What each event that is dispatched does, one after the other.
    batches: VecDeque<Vec<Op>>,
}

type Shared = Rc<RefCell<World>>;

impl World {
    fn add(&mut self, key: i64, owner: SessionId, name: &'static str, is_alarm: bool) -> usize {
        let (seq, tag) = (self.take_seq(), self.next_tag);
        self.next_tag += 1;
        self.entries.push(Entry { key, seq, tag, owner, name, is_alarm });
        tag
    }

    fn take_seq(&mut self) -> u64 {
        self.next_seq += 1;
        self.next_seq
    }

    fn time(&self, hour: i64) -> SystemTime {
        let span = Duration::from_secs(3600 * hour.unsigned_abs());
        if hour < 0 { self.start - span } else { self.start + span }
    }

    fn sorted(&self) -> Vec<Entry> {
        let mut sorted = self.entries.clone();
        sorted.sort_by_key(|entry| (entry.key, entry.seq));
        sorted
    }

    /// What the running slice has to dispatch next.
    fn next(&self) -> Option<Entry> {
        self.sorted().into_iter().find(|entry| entry.key <= NOW && entry.seq < self.boundary)
    }

    /// Takes out what `unwanted` picks, in the order of dispatch.
    fn remove(&mut self, unwanted: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        let gone = self.sorted().into_iter().filter(&unwanted).collect();
        self.entries.retain(|entry| !unwanted(entry));
        gone
    }

    /// Picks one of the alarms ever set, and looks whether it still waits.
    fn pick(&self, which: usize) -> Option<(AlarmId, Option<Entry>)> {
        let (id, tag) = *self.ids.get(which % self.ids.len().max(1))?;
        Some((id, self.entries.iter().find(|entry| entry.tag == tag).cloned()))
    }
}

/// Does the same to the kernel and to the model, and compares what they say.
fn act(cx: &mut Context<'_, Shared>, op: &Op) {
    let world = Rc::clone(cx.heap());
    let mut world = world.borrow_mut();
    let me = cx.session();
    match *op {
        Op::Post => {
            let tag = world.add(NOW, me, "posted", false);
            cx.yield_("posted", (tag,));
        }
        Op::DelayZero(name) => {
            let tag = world.add(NOW, me, NAMES[name], true);
            let id = cx.delay_set(NAMES[name], Duration::ZERO, (tag,));
            world.ids.push((id, tag));
        }
        Op::AlarmSet(name, hour) => {
            let tag = world.add(2 * hour, me, NAMES[name], true);
            let id = cx.alarm_set(NAMES[name], world.time(hour), (tag,));
            world.ids.push((id, tag));
        }
        Op::Alarm(name, hour) => {
            world.remove(|entry| entry.is_alarm && entry.owner == me && entry.name == NAMES[name]);
            let tag = world.add(2 * hour, me, NAMES[name], true);
            cx.alarm(NAMES[name], world.time(hour), (tag,));
        }
        Op::Adjust(which, hours) => adjust(cx, &mut world, which, hours),
        Op::DelayAdjust(which) => {
            let Some((id, entry)) = world.pick(which) else { return };
            if check_owner(cx.delay_adjust(id, Duration::ZERO), entry.as_ref(), me).is_some() {
                move_entry(&mut world, entry.expect("it was found"), NOW);
            }
        }
        Op::Remove(which) => {
            let Some((id, entry)) = world.pick(which) else { return };
            if let Some(removed) = check_owner(cx.alarm_remove(id), entry.as_ref(), me) {
                let tag = entry.expect("it was found").tag;
                compare(&world.remove(|entry| entry.tag == tag), vec![removed]);
            }
        }
        Op::Clear(name) => {
            let gone = world.remove(|entry| entry.is_alarm && entry.owner == me && entry.name == NAMES[name]);
            assert_eq!(cx.alarm_clear(NAMES[name]), gone.len());
        }
        Op::RemoveAll => {
            let gone = world.remove(|entry| entry.is_alarm && entry.owner == me);
            compare(&gone, cx.alarm_remove_all());
        }
    }
    check(cx, &world);
}

fn adjust(cx: &mut Context<'_, Shared>, world: &mut World, which: usize, hours: i64) {
    let Some((id, entry)) = world.pick(which) else { return };
    if entry.as_ref().is_some_and(|entry| entry.key == NOW) {
        // When exactly it was set is none of the model's business.
        return;
    }
    let span = Duration::from_secs(3600 * hours.unsigned_abs());
    let shift = if hours < 0 { Shift::Earlier(span) } else { Shift::Later(span) };
    if let Some(due) = check_owner(cx.alarm_adjust(id, shift), entry.as_ref(), cx.session()) {
        let entry = entry.expect("it was found");
        let key = entry.key + 2 * hours;
        assert_eq!(due, world.time(key / 2));
        if hours != 0 {
            move_entry(world, entry, key);
        }
    }
}

fn move_entry(world: &mut World, entry: Entry, key: i64) {
    world.remove(|other| other.tag == entry.tag);
    let seq = world.take_seq();
    world.entries.push(Entry { key, seq, ..entry });
}

/// Compares the outcome with who owns the alarm, if it still waits.
fn check_owner<T: std::fmt::Debug>(result: Result<T, Error>, entry: Option<&Entry>, me: SessionId) -> Option<T> {
    match (result, entry) {
        (Ok(value), Some(entry)) if entry.owner == me => Some(value),
        (Err(Error::NotYourAlarm(_)), Some(entry)) if entry.owner != me => None,
        (Err(Error::NoSuchAlarm(_)), None) => None,
        (result, entry) => panic!("{result:?} for {entry:?}"),
    }
}

fn compare(expected: &[Entry], removed: Vec<RemovedAlarm>) {
    let expected: Vec<_> = expected.iter().map(|entry| (entry.name, entry.tag)).collect();
    let removed: Vec<_> = removed
        .into_iter()
        .map(|mut alarm| (alarm.event.as_str(), alarm.args.take::<usize>(0).expect("the tag it was set with")))
        .collect();
    assert_eq!(removed, expected);
}

/// Compares all that waits.
fn check(core: &impl lenore::AsKernel, world: &World) {
    assert_eq!(core.event_count(), world.entries.len());
    let expected: Vec<_> = world.sorted().iter().map(|entry| (entry.name, entry.owner, entry.is_alarm)).collect();
    let events = core.peek().events;
    let waiting: Vec<_> =
        events.iter().map(|event| (event.name.as_str(), event.dest, event.kind == EventKind::Alarm)).collect();
    assert_eq!(waiting, expected);
}

/// The state of every event: is it its turn?
fn dispatched(cx: &mut Context<'_, Shared>) -> lenore::Result {
    let tag = *cx.arg::<usize>(0)?;
    let world = Rc::clone(cx.heap());
    let expected = world.borrow().next().expect("nothing is due any more");
    assert_eq!((tag, cx.state_name().as_str(), cx.session()), (expected.tag, expected.name, expected.owner));
    world.borrow_mut().remove(|entry| entry.tag == tag);
    let batch = world.borrow_mut().batches.pop_front().unwrap_or_default();
    batch.iter().for_each(|op| act(cx, op));
    Ok(())
}

fn op() -> impl Strategy<Value = Op> {
    let (name, which, hour) = (0..NAMES.len(), any::<usize>(), -3..=2_i64);
    prop_oneof![
        3 => Just(Op::Post),
        2 => name.clone().prop_map(Op::DelayZero),
        4 => (name.clone(), hour.clone()).prop_map(|(name, hour)| Op::AlarmSet(name, hour)),
        1 => (name.clone(), hour).prop_map(|(name, hour)| Op::Alarm(name, hour)),
        4 => (which, -3..=3_i64).prop_map(|(which, hours)| Op::Adjust(which, hours)),
        1 => which.prop_map(Op::DelayAdjust),
        2 => which.prop_map(Op::Remove),
        1 => name.prop_map(Op::Clear),
        1 => Just(Op::RemoveAll),
    ]
}

fn run(batches: Vec<Vec<Op>>) {
    let world = Rc::new(RefCell::new(World {
        start: SystemTime::now(),
        entries: Vec::new(),
        next_seq: 0,
        next_tag: 0,
        boundary: 0,
        ids: Vec::new(),
        batches: batches.into(),
    }));
    let mut kernel: Kernel = new_kernel();
    let mut sessions = Vec::new();
    for name in ["one", "two"] {
        let mut session = Session::new(Rc::clone(&world))
            .state("_start", move |cx| cx.alias_set(name).expect("nobody else has it"))
            .state("begin", |cx| {
                let batch = cx.heap().borrow_mut().batches.pop_front().unwrap_or_default();
                batch.iter().for_each(|op| act(cx, op));
            })
            .state("posted", dispatched);
        for name in NAMES {
            session = session.state(name, dispatched);
        }
        sessions.push(session.spawn(&mut kernel).expect("it has a _start"));
    }
    assert!(kernel.run_one_timeslice().expect("the start-up events"));
    for session in sessions {
        kernel.call(session, "begin", ()).expect("it lives");
    }
    while world.borrow().entries.iter().any(|entry| entry.key <= NOW) {
        let boundary = world.borrow().next_seq + 1;
        world.borrow_mut().boundary = boundary;
        assert!(kernel.run_one_timeslice().expect("no state failed"));
        assert_eq!(world.borrow().next(), None, "the slice has left something");
        check(&kernel, &world.borrow());
    }
    // Failures in `begin` are signals on their way; a failed state leaves the loop above.
    kernel.stop();
    kernel.run().expect("no state failed");
    assert_eq!(kernel.event_count(), 0);
}

proptest! {
    #[test] // K-EV-01, K-EV-02, K-EV-05, K-EV-06, K-TM-06, K-TM-10 to 13, K-TM-15 to 28, K-TM-30
    fn the_queue_keeps_the_order_of_a_sorted_list(
        batches in prop::collection::vec(prop::collection::vec(op(), 0..8), 1..20),
    ) {
        run(batches);
    }
}

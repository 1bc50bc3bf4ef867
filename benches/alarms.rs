//! What does an alarm cost that is set and taken back, or moved, among 100,000 others?
//!
//! The peer is a `BTreeMap` from due time and sequence number to what the alarm is to do. It reads no clock: lenore does
//! whenever a delay is set, since a delay counts from the call.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::Bencher;
use lenore::{AlarmId, Error, Kernel, Session, SessionId};

mod ratios;

use ratios::{Budget, Rounds};

/// How many alarms pend.
const PENDING: usize = 100_000;

fn main() -> Result<(), Error> {
    let mut both = (Alarms::new()?, Peer::new());
    Rounds::measure(
        "alarms",
        1,
        &mut both,
        &[
            ("set_cancel", |(alarms, _), bencher| bencher.iter_custom(|n| alarms.run("set_cancel", n))),
            ("set_cancel_btreemap", |(_, peer), bencher| peer.set_cancel(bencher)),
            ("adjust", |(alarms, _), bencher| bencher.iter_custom(|n| alarms.run("adjust", n))),
            ("adjust_btreemap", |(_, peer), bencher| peer.adjust(bencher)),
            ("clock", |_, bencher| bencher.iter(Instant::now)),
        ],
    )
    .nanos("set_cancel", Budget::AtMost(250.0))
    .nanos("set_cancel_btreemap", Budget::None)
    .nanos("adjust", Budget::None)
    .nanos("adjust_btreemap", Budget::None)
    .nanos("clock", Budget::None)
    .times("set_cancel", "set_cancel_btreemap", Budget::None)
    .times("adjust", "adjust_btreemap", Budget::None)
    .print();
    Ok(())
}

/// A kernel with one session that has many alarms.
struct Alarms {
    kernel: Kernel,
    id: SessionId,
}

/// The session's heap.
struct Heap {
    random: Random,
    pending: Vec<AlarmId>,
}

impl Alarms {
    fn new() -> Result<Alarms, Error> {
        let mut kernel = Kernel::new()?;
        let id = Session::new(Heap { random: Random(1), pending: Vec::new() })
            .state("_start", |cx| {
                let (heap, mut calls) = cx.split();
                let mut set = || calls.delay_set("timeout", heap.random.delay(), ());
                heap.pending.extend((0..PENDING).map(|_| set()));
            })
            .state("set_cancel", |cx| {
                let count: u64 = cx.take(0)?;
                let (heap, mut calls) = cx.split();
                for _ in 0..count {
                    let alarm = calls.delay_set("timeout", heap.random.delay(), ());
                    calls.alarm_remove(alarm)?;
                }
                Ok(())
            })
            .state("adjust", |cx| {
                let count: u64 = cx.take(0)?;
                let (heap, mut calls) = cx.split();
                for _ in 0..count {
                    let alarm = heap.pending[heap.random.below(PENDING as u64) as usize];
                    calls.delay_adjust(alarm, heap.random.delay())?;
                }
                Ok(())
            })
            .spawn(&mut kernel)?;
        Ok(Alarms { kernel, id })
    }

    /// Runs the state that does something `count` times.
    fn run(&mut self, state: &str, count: u64) -> Duration {
        let start = Instant::now();
        let reply = self.kernel.call(self.id, state, (count,));
        assert!(reply.expect("the session lives while alarms pend").was_handled());
        start.elapsed()
    }
}

/// The same without a kernel.
struct Peer {
    random: Random,
    next_seq: u64,
    queue: BTreeMap<(u64, u64), Box<dyn FnMut()>>,
    pending: Vec<(u64, u64)>,
}

impl Peer {
    fn new() -> Peer {
        let mut peer = Peer { random: Random(1), next_seq: 0, queue: BTreeMap::new(), pending: Vec::new() };
        peer.pending = (0..PENDING).map(|_| peer.set(callback())).collect();
        peer
    }

    fn set(&mut self, callback: Box<dyn FnMut()>) -> (u64, u64) {
        let key = (self.random.delay().as_nanos() as u64, self.next_seq);
        self.next_seq += 1;
        self.queue.insert(key, callback);
        key
    }

    fn set_cancel(&mut self, bencher: &mut Bencher<'_>) {
        bencher.iter(|| {
            let key = self.set(callback());
            self.queue.remove(&key)
        });
    }

    fn adjust(&mut self, bencher: &mut Bencher<'_>) {
        bencher.iter(|| {
            let place = self.random.below(PENDING as u64) as usize;
            let callback = self.queue.remove(&self.pending[place]).expect("what pends is in the queue");
            self.pending[place] = self.set(callback);
        });
    }
}

/// A closure without any data: its box is no allocation.
fn callback() -> Box<dyn FnMut()> {
    Box::new(|| {
        black_box(());
    })
}

/// Xorshift: repeatable, and fast enough not to be measured.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    /// Between one and two hours, so that nothing falls due while the bench runs.
    fn delay(&mut self) -> Duration {
        Duration::from_micros(3_600_000_000 + self.below(3_600_000_000))
    }
}

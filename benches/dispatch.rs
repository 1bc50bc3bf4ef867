//! What does an event cost: sent and dispatched by the queue, or called?
//!
//! A state sends itself the event that it handles; 256 of them are under way at any time, so that a slice, with its look
//! at the sources, is shared by as many. The peer is the least that a queue of callbacks can be: boxed closures, each
//! called and put back.

use std::cell::Cell;
use std::collections::VecDeque;
use std::hint::black_box;
use std::rc::Rc;
use std::time::{Duration, Instant};

use criterion::Bencher;
use lenore::{Context, Error, Kernel, Name, Session, SessionId};

mod ratios;

use ratios::{Budget, Rounds};

/// How many events are under way.
const UNDER_WAY: u64 = 256;

/// A session's heap: how many events it has yet to send.
type Left = u64;

fn main() -> Result<(), Error> {
    Rounds::measure(
        "dispatch",
        1,
        &mut Subjects::new()?,
        &[
            ("bare_vecdeque", |_, bencher| bare_vecdeque(bencher)),
            ("bare_vecdeque_new_box", |_, bencher| bare_vecdeque_new_box(bencher)),
            ("yield", |all, bencher| bencher.iter_custom(|n| all.by_text.dispatch(n, UNDER_WAY))),
            ("yield_name", |all, bencher| bencher.iter_custom(|n| all.by_name.dispatch(n, UNDER_WAY))),
            ("yield_boxed", |all, bencher| bencher.iter_custom(|n| all.boxed.dispatch(n, UNDER_WAY))),
            ("slice", |all, bencher| bencher.iter_custom(|n| all.by_text.dispatch(n, 1))),
            ("call_other", |all, bencher| bencher.iter_custom(|n| all.caller.calls("call_other", n))),
            ("call_other_name", |all, bencher| bencher.iter_custom(|n| all.caller.calls("call_other_name", n))),
            ("call_self", |all, bencher| bencher.iter_custom(|n| all.caller.calls("call_self", n))),
        ],
    )
    .nanos("bare_vecdeque", Budget::None)
    .nanos("yield", Budget::AtMost(50.0))
    .nanos("yield_name", Budget::AtMost(50.0))
    .nanos("yield_boxed", Budget::AtMost(80.0))
    .nanos("slice", Budget::None)
    .nanos("call_other", Budget::AtMost(30.0))
    .nanos("call_other_name", Budget::AtMost(30.0))
    .nanos("call_self", Budget::AtMost(30.0))
    .times("yield", "bare_vecdeque", Budget::AtMost(12.0))
    .times("yield", "bare_vecdeque_new_box", Budget::None)
    .print();
    Ok(())
}

/// A kernel for each of lenore's ways.
struct Subjects {
    by_text: Ticker,
    by_name: Ticker,
    boxed: Ticker,
    caller: Caller,
}

impl Subjects {
    fn new() -> Result<Subjects, Error> {
        let tick = Name::new("tick");
        let take_and_send = |cx: &mut Context<'_, Left>| {
            let value: u64 = cx.take(0).expect("every tick has its argument");
            cx.yield_("tick", (value,));
        };
        Ok(Subjects {
            by_text: Ticker::new(|cx| cx.yield_("tick", ()))?,
            by_name: Ticker::new(move |cx| cx.yield_(tick, ()))?,
            boxed: Ticker::new(take_and_send)?,
            caller: Caller::new()?,
        })
    }
}

/// A session that goes on sending itself an event while it has any left to send.
struct Ticker {
    kernel: Kernel,
    id: SessionId,
}

impl Ticker {
    fn new(send: impl Fn(&mut Context<'_, Left>) + 'static) -> Result<Ticker, Error> {
        let mut kernel = Kernel::new()?;
        let id = Session::new(0)
            .state("_start", |cx| Ok(cx.alias_set("ticker")?))
            .state("begin", move |cx| {
                let (count, under_way) = (cx.take::<u64>(0)?, cx.take::<u64>(1)?);
                *cx.heap() = count - under_way;
                // Whoever takes no argument ignores this one, once in a run.
                (0..under_way).for_each(|place| cx.yield_("tick", (place,)));
                Ok(())
            })
            .state("tick", move |cx| {
                if *cx.heap() > 0 {
                    *cx.heap() -= 1;
                    send(cx);
                }
            })
            .spawn(&mut kernel)?;
        Ok(Ticker { kernel, id })
    }

    /// Dispatches `count` events, of which `under_way` wait at any time.
    fn dispatch(&mut self, count: u64, under_way: u64) -> Duration {
        let begun = self.kernel.call(self.id, "begin", (count, under_way.min(count)));
        begun.expect("the session has an alias and lives");
        let start = Instant::now();
        // Not until `run` returns: an idle kernel would tell its sessions to stop.
        while self.kernel.event_count() > 0 {
            self.kernel.run_one_timeslice().expect("no state fails");
        }
        start.elapsed()
    }
}

/// A session that calls.
struct Caller {
    kernel: Kernel,
    id: SessionId,
}

impl Caller {
    fn new() -> Result<Caller, Error> {
        let mut kernel = Kernel::new()?;
        let count = |cx: &mut Context<'_, u64>| *cx.heap() += 1;
        let other = Session::new(0).state("_start", |cx| Ok(cx.alias_set("other")?)).state("count", count);
        let other = other.spawn(&mut kernel)?;
        let name = Name::new("count");
        let id = Session::new(0)
            .state("_start", |cx| Ok(cx.alias_set("caller")?))
            .state("count", count)
            .state("call_other", move |cx| {
                for _ in 0..cx.take::<u64>(0)? {
                    cx.call(other, "count", ())?;
                }
                Ok(())
            })
            .state("call_other_name", move |cx| {
                for _ in 0..cx.take::<u64>(0)? {
                    cx.call(other, name, ())?;
                }
                Ok(())
            })
            .state("call_self", |cx| {
                let me = cx.session();
                for _ in 0..cx.take::<u64>(0)? {
                    cx.call(me, "count", ())?;
                }
                Ok(())
            })
            .spawn(&mut kernel)?;
        Ok(Caller { kernel, id })
    }

    /// Runs the state that makes `count` calls.
    fn calls(&mut self, state: &str, count: u64) -> Duration {
        let start = Instant::now();
        let reply = self.kernel.call(self.id, state, (count,));
        assert!(reply.expect("the session has an alias and lives").was_handled());
        start.elapsed()
    }
}

type Callback = Box<dyn FnMut()>;

/// Takes a closure out, calls it, and puts it back.
fn bare_vecdeque(bencher: &mut Bencher<'_>) {
    let (mut queue, _counter) = bare_queue();
    bencher.iter(|| {
        let mut callback = queue.pop_front().expect("as many are put back as are taken");
        callback();
        queue.push_back(callback);
    });
}

/// The same with a new box for each, as callbacks that carry anything need.
fn bare_vecdeque_new_box(bencher: &mut Bencher<'_>) {
    let (mut queue, counter) = bare_queue();
    bencher.iter(|| {
        queue.pop_front().expect("as many are put back as are taken")();
        queue.push_back(callback(&counter));
    });
}

fn bare_queue() -> (VecDeque<Callback>, Rc<Cell<u64>>) {
    let counter = Rc::new(Cell::new(0));
    ((0..UNDER_WAY).map(|_| callback(&counter)).collect(), counter)
}

fn callback(counter: &Rc<Cell<u64>>) -> Callback {
    let counter = Rc::clone(counter);
    black_box(Box::new(move || counter.set(counter.get() + 1)))
}

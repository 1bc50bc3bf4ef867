//! A program, a filter and a peer that do anything at any time: nothing hangs, nothing is delivered twice or after the end,
//! and every byte that was put is written or told of.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use lenore::wheel::{Failure, ReadWrite, ReadWriteBuilder, StreamEvent, WheelId};
use lenore::{Context, Result, Session};

use util::in_process::{Watchdog, kernel};
use util::{DEADLINE, Dice};

mod filter;
mod peer;

use filter::{Habits, Nasty};
use peer::{Peer, ends};

/// What filters, program and peer have done.
struct Tally {
    dice: RefCell<Dice>,
    /// How many records filters have made; the last one is its number.
    made: Cell<u64>,
    heard: Cell<u64>,
    /// What filters have made of the records put.
    put: RefCell<Vec<u8>>,
    received: RefCell<Vec<u8>>,
    /// What the wheel must not have done.
    faults: RefCell<Vec<String>>,
    /// How much of what was put the peer has to get.
    due: Cell<usize>,
    is_over: Cell<bool>,
}

impl Tally {
    fn roll(&self, percent: u64) -> bool {
        percent > 0 && self.dice.borrow_mut().below(100) < percent
    }

    fn below(&self, limit: u64) -> u64 {
        self.dice.borrow_mut().below(limit)
    }

    /// Not an assertion, as panics in states are usual here.
    fn expect(&self, is_right: bool, what: &str) {
        if !is_right {
            self.faults.borrow_mut().push(what.to_owned());
        }
    }
}

struct Prey {
    wheel: Option<ReadWrite<Nasty>>,
    peer: Peer,
    habits: Habits,
    tally: Rc<Tally>,
    steps: u64,
    paused: bool,
    deaf: bool,
    input_shut: bool,
    /// The end of the input was told, and no filter has got what was left since.
    ended: bool,
    /// The end of the input was told, once and for all.
    end_told: bool,
    /// The output has ended, or will when all is written.
    output_shut: bool,
    failed: bool,
    /// What the peer has to get of what was put; all of it, if nothing else was agreed.
    due: Option<usize>,
}

impl Prey {
    /// Has the peer get no more than what was put so far.
    fn all_so_far(&mut self) {
        let put = self.tally.put.borrow().len();
        self.due.get_or_insert(put);
    }

    fn nothing_is_due(&mut self) {
        self.due = Some(0);
    }

    fn filter(&self) -> Nasty {
        Nasty { input: Vec::new(), habits: self.habits, tally: self.tally.clone() }
    }
}

/// Does one thing, whatever it is.
fn act(cx: &mut Context<'_, Prey>) -> Result {
    let prey = cx.heap();
    let tally = prey.tally.clone();
    let roll = tally.below(32);
    match roll {
        0..=4 => {
            let text = b"one\ntwo\r\n\nthree\n";
            let (from, length) = (tally.below(12) as usize, tally.below(200) as usize);
            let octets: Vec<u8> = text.iter().copied().cycle().skip(from).take(length).collect();
            prey.peer.send(&octets);
        }
        5..=6 => prey.peer.receive(&tally, 1 + tally.below(50_000) as usize),
        7 if tally.roll(30) => prey.peer.end_output(),
        8 if tally.roll(20) => {
            prey.nothing_is_due();
            if tally.roll(50) { prey.peer.close() } else { prey.peer.reset() }
        }
        9 => return Err(io::Error::other("on purpose").into()),
        10 => panic!("a state"),
        _ => {}
    }
    let Some(wheel) = &prey.wheel else { return Ok(()) };
    match roll {
        11..=15 => {
            let length = [1, 10, 1000, 300_000][tally.below(4) as usize];
            wheel.put(vec![tally.below(256) as u8; length]);
        }
        16 | 17 => tally.expect(wheel.flush() == wheel.pending_output(), "a flush that tells what is left"),
        18 => {
            wheel.pause_input();
            prey.paused = true;
        }
        19 => {
            prey.paused = false;
            wheel.resume_input();
        }
        20 => {
            wheel.event_clear(StreamEvent::Input);
            prey.deaf = true;
        }
        21 => {
            wheel.event(StreamEvent::Input, "input");
            prey.deaf = false;
        }
        22 if tally.roll(20) => {
            wheel.shutdown_input();
            prey.input_shut = true;
        }
        23 if tally.roll(20) => {
            wheel.shutdown_output();
            prey.output_shut = true;
            prey.nothing_is_due();
        }
        24 if tally.roll(20) => {
            wheel.shutdown_output_after_flush();
            prey.output_shut = true;
            prey.all_so_far();
        }
        25 => {
            prey.ended = false;
            let filter = prey.filter();
            cx.heap().wheel.as_ref().expect("as before").set_filter(filter);
        }
        26 => {
            let filter = prey.filter();
            prey.ended = false;
            let due = prey.due;
            prey.nothing_is_due();
            let old = prey.wheel.take().expect("as before");
            // A filter that panics here drops the wheel.
            prey.wheel = Some(old.switch_filter(filter));
            prey.due = due;
        }
        27 if tally.roll(10) => {
            prey.wheel = None;
            prey.nothing_is_due();
        }
        28 if tally.roll(20) => {
            prey.all_so_far();
            prey.wheel.take().expect("as before").close_after_flush();
        }
        29 => {
            let _ = wheel.get_pending();
        }
        _ => {}
    }
    Ok(())
}

/// Tells whether the wheel that an event names is there.
fn check(cx: &mut Context<'_, Prey>, arg: usize) -> Result {
    let id = *cx.arg::<WheelId>(arg)?;
    check_wheel(cx.heap(), Some(id));
    Ok(())
}

fn check_wheel(prey: &mut Prey, id: Option<WheelId>) {
    let is_ours = prey.wheel.as_ref().is_some_and(|wheel| Some(wheel.id()) == id);
    prey.tally.expect(is_ours, "events of a wheel that is there");
}

fn act_now_and_then(cx: &mut Context<'_, Prey>) -> Result {
    if cx.heap().steps > 0 && cx.heap().tally.roll(15) { act(cx) } else { Ok(()) }
}

fn input(cx: &mut Context<'_, Prey>) -> Result {
    let number = cx.take::<u64>(0)?;
    check(cx, 1)?;
    let prey = cx.heap();
    let before = prey.tally.heard.replace(number);
    prey.tally.expect(number == before + 1, "every record once, in order");
    prey.tally.expect(!prey.paused && !prey.deaf && !prey.input_shut && !prey.ended, "input only when it is wanted");
    act_now_and_then(cx)
}

fn error(cx: &mut Context<'_, Prey>) -> Result {
    let Failure { operation, wheel, .. } = cx.take(0)?;
    let prey = cx.heap();
    check_wheel(prey, wheel);
    match operation {
        "read" => {
            prey.tally.expect(!prey.end_told && !prey.input_shut && !prey.paused && !prey.deaf, "one end of the input");
            prey.ended = true;
            prey.end_told = true;
        }
        "write" => {
            prey.tally.expect(!prey.failed, "one failure of the output");
            prey.failed = true;
            prey.nothing_is_due();
        }
        _ => prey.tally.expect(operation == "filter", "an operation that is documented"),
    }
    act_now_and_then(cx)
}

/// Lets the peer read to the end, then leave, and the output end; from there on the session must end by itself.
fn finale(cx: &mut Context<'_, Prey>) -> Result {
    let prey = cx.heap();
    let tally = prey.tally.clone();
    prey.peer.receive(&tally, usize::MAX);
    let Some(wheel) = &prey.wheel else {
        // Closed, or on its way to it: that reaches the peer.
        if prey.peer.from.is_some() {
            cx.yield_("finale", ());
        } else {
            prey.peer.close();
        }
        return Ok(());
    };
    if prey.paused {
        wheel.resume_input();
    }
    wheel.event(StreamEvent::Input, "input");
    (prey.paused, prey.deaf) = (false, false);
    let is_done = if prey.output_shut { prey.peer.from.is_none() } else { wheel.pending_output() == 0 };
    if !is_done && !prey.failed {
        cx.yield_("finale", ());
        return Ok(());
    }
    if prey.habits.last_for_ever() {
        wheel.shutdown_input();
        prey.input_shut = true;
    }
    let is_silent = tally.roll(50);
    if !prey.output_shut && tally.roll(50) {
        wheel.shutdown_output_after_flush();
    } else {
        wheel.shutdown_output();
    }
    prey.all_so_far();
    prey.output_shut = true;
    if is_silent {
        prey.peer.end_output();
    }
    cx.yield_("part", ());
    Ok(())
}

fn prey(tally: &Rc<Tally>, peer: Peer, habits: Habits, wheel: ReadWriteBuilder<Nasty>) -> Session<Prey> {
    let prey = Prey {
        wheel: None,
        peer,
        habits,
        tally: tally.clone(),
        steps: if habits.last_for_ever() { 3 } else { 5 + tally.below(40) },
        paused: false,
        deaf: false,
        input_shut: false,
        ended: false,
        end_told: false,
        output_shut: false,
        failed: false,
        due: None,
    };
    Session::new(prey)
        .args((wheel,))
        .state("_start", |cx| {
            cx.sig("DIE", "die");
            cx.heap().wheel = Some(cx.take::<ReadWriteBuilder<Nasty>>(0)?.start(cx)?);
            cx.yield_("act", ());
            Ok(())
        })
        .state("act", |cx| {
            cx.heap().steps -= 1;
            let next = if cx.heap().steps == 0 { "finale" } else { "act" };
            cx.yield_(next, ());
            act(cx)
        })
        .state("input", input)
        .state("error", error)
        .state("refused", |cx| {
            check(cx, 1)?;
            let prey = cx.heap();
            prey.tally.expect(!prey.paused && !prey.deaf && !prey.input_shut, "refusals only when input is wanted");
            act_now_and_then(cx)
        })
        .state("flushed", |cx| {
            check(cx, 0)?;
            let prey = cx.heap();
            let is_empty = prey.wheel.as_ref().is_none_or(|wheel| wheel.pending_output() == 0);
            prey.tally.expect(is_empty && !prey.failed, "flushed when all is written");
            act_now_and_then(cx)
        })
        .state("high", |cx| check(cx, 0).and_then(|()| act_now_and_then(cx)))
        .state("low", |cx| check(cx, 0).and_then(|()| act_now_and_then(cx)))
        .state("die", |cx| cx.sig_handled())
        .state("finale", finale)
        .state("part", |cx| {
            let prey = cx.heap();
            let tally = prey.tally.clone();
            prey.peer.receive(&tally, usize::MAX);
            if prey.peer.from.is_some() {
                cx.yield_("part", ());
            } else {
                prey.peer.close();
            }
        })
        .state("_stop", |cx| {
            let prey = cx.heap();
            let put = prey.tally.put.borrow().len();
            let due = prey.due.unwrap_or(put);
            prey.tally.due.set(due);
            prey.tally.is_over.set(true);
        })
}

fn builder(tally: &Rc<Tally>, habits: Habits, input: OwnedFd, output: Option<OwnedFd>) -> ReadWriteBuilder<Nasty> {
    let filter = Nasty { input: Vec::new(), habits: Habits { clone_panics: 0, ..habits }, tally: tally.clone() };
    let mut wheel = match output {
        Some(output) => ReadWrite::streams(input, output, filter),
        None => ReadWrite::stream(input, filter),
    };
    wheel = wheel.on_input("input").on_flushed("flushed").on_error("error").on_refused("refused");
    wheel =
        wheel.block_size([1, 7, 65536][tally.below(3) as usize]).close_timeout(Duration::from_millis(tally.below(3)));
    if tally.roll(50) {
        wheel = wheel.watermarks(100, 5000).on_high("high").on_low("low");
        wheel = if tally.roll(50) { wheel.auto_pause() } else { wheel };
    }
    wheel = if tally.roll(30) { wheel.auto_flush() } else { wheel };
    if tally.roll(30) { wheel.deliver_last() } else { wheel }
}

/// One life of a wheel.
fn live(seed: u64) {
    let tally = Rc::new(Tally {
        dice: RefCell::new(Dice(seed)),
        made: Cell::default(),
        heard: Cell::default(),
        put: RefCell::default(),
        received: RefCell::default(),
        faults: RefCell::default(),
        due: Cell::default(),
        is_over: Cell::default(),
    });
    let habits = Habits::of(&mut tally.dice.borrow_mut());
    let kind = tally.below(4);
    let (input, output, peer) = ends(kind);
    let wheel = builder(&tally, habits, input, output);
    let mut kernel = kernel();
    prey(&tally, peer, habits, wheel).spawn(&mut kernel).unwrap();
    let what = format!("seed {seed}, kind {kind}, {habits:?}");
    let _watchdog = Watchdog::over(what.clone(), 2 * DEADLINE);
    // Wakes a kernel that waits for what never comes.
    let overdue = Rc::new(Cell::new(false));
    let late = overdue.clone();
    Session::new(())
        .state("_start", |cx| cx.delay("late", DEADLINE, ()))
        .state("late", move |_| late.set(true))
        .spawn(&mut kernel)
        .unwrap();
    while !tally.is_over.get() {
        kernel.run_one_timeslice().unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(!overdue.get(), "{what}: never ends: {:?} {}", tally.faults, kernel.peek());
    }
    kernel.stop();
    drop(kernel);
    assert!(tally.faults.borrow().is_empty(), "{what}: not {:?}", tally.faults);
    assert_eq!(tally.heard.get(), tally.made.get(), "{what}: records made and delivered");
    let (put, received) = (tally.put.borrow(), tally.received.borrow());
    assert!(put.starts_with(&received), "{what}: bytes that were not put");
    // A reset may take back what was on its way.
    assert!(kind == 1 || received.len() >= tally.due.get(), "{what}: {} of {} bytes", received.len(), tally.due.get());
}

#[test] // K-RW-11, K-RW-20, K-RW-21, K-RW-40, K-RW-41, K-RW-42
fn a_wheel_survives_whatever_program_filter_and_peer_do() {
    let first = Dice::from_env("LENORE_ADVERSARY_SEED").0;
    let lives = std::env::var("LENORE_ADVERSARY_LIVES").map_or(200, |text| text.parse().expect("a number"));
    for seed in first..first + lives {
        live(seed);
    }
}

//! `ReadWrite` under any program and any peer, against a model that has the whole input, and the whole output, at once.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use lenore::Session;
use lenore::wheel::{ReadWrite, ReadWriteBuilder};
use proptest::prelude::*;

use util::DEADLINE;
use util::in_process::{Watchdog, kernel};
use util::tricky::{Line, Tricky};

mod peer;
mod prey;

use peer::{Ends, Kind, Peer};
use prey::{World, session};

/// What the program or the peer does.
#[derive(Debug, Clone)]
enum Op {
    Put(usize),
    PutRefused,
    PutPanics,
    Flush,
    Pause,
    Resume,
    ClearInput,
    SetInput,
    ShutInput,
    ShutOutput,
    ShutOutputAfterFlush,
    SetFilter,
    /// The input filter comes with a line of its own.
    SetFilterWithLine,
    SwitchFilter,
    CloseAfterFlush,
    Drop,
    /// The state fails.
    Fail,
    /// The loop goes on in the middle of a state.
    Slice,
    PeerSends(usize),
    PeerReceives(usize),
    PeerEndsOutput,
    PeerEndsInput,
    PeerCloses,
    PeerResets,
}

/// Where something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In a state that has nothing to do with the wheel.
    Step,
    /// In one of the wheel's events, if there is one soon.
    Event,
    /// In the same state as the op before.
    AtOnce,
}

/// How a wheel ends that is left.
#[derive(Debug, Clone, Copy)]
enum Parting {
    Drop,
    CloseAfterFlush,
    ShutOutputAfterFlush,
    PeerEnds,
}

/// All that happens, and with what wheel.
#[derive(Debug, Clone)]
struct Script {
    kind: Kind,
    has_small_buffers: bool,
    block_size: usize,
    capacity: usize,
    lingers: bool,
    marks: Option<Marks>,
    auto_flush: bool,
    delivers_last: bool,
    /// Kind, digit, padding, and whether there is a newline.
    lines: Vec<(Line, u8, usize, bool)>,
    /// The input ends with a line that has no end.
    is_cut_short: bool,
    ops: Vec<(Op, Place)>,
    parting: Parting,
}

#[derive(Debug, Clone, Copy)]
struct Marks {
    low: usize,
    high: usize,
    auto_pause: bool,
}

impl Script {
    fn input(&self) -> Vec<u8> {
        let lines = self.lines.iter().enumerate();
        let text = lines
            .map(|(number, (line, digit, padding, has_newline))| line.text(*digit, number, *padding, *has_newline));
        let mut text = text.collect::<String>();
        if self.is_cut_short {
            text += "a0 and so on";
        }
        text.into_bytes()
    }

    /// Tells whether the filter may be left with input that it will look at again only when there is more: one that panics
    /// twice without taking anything is.
    fn may_stall(&self) -> bool {
        self.lines.iter().any(|line| line.0 == Line::PanicsAndKeeps)
    }

    fn wheel(&self, (input, output): Ends) -> ReadWriteBuilder<Tricky> {
        let filter = Tricky::new(self.capacity);
        let mut wheel = match output {
            Some(output) => ReadWrite::streams(input, output, filter),
            None => ReadWrite::stream(input, filter),
        };
        wheel = wheel.on_input("input").on_flushed("flushed").on_error("error").on_refused("refused");
        wheel = wheel.block_size(self.block_size);
        if !self.lingers {
            wheel = wheel.close_timeout(Duration::ZERO);
        }
        if let Some(Marks { low, high, auto_pause }) = self.marks {
            wheel = wheel.watermarks(low, high).on_high("high").on_low("low");
            wheel = if auto_pause { wheel.auto_pause() } else { wheel };
        }
        wheel = if self.auto_flush { wheel.auto_flush() } else { wheel };
        if self.delivers_last { wheel.deliver_last() } else { wheel }
    }
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => prop_oneof![1_usize..10, Just(1000), Just(20_000), Just(300_000)].prop_map(Op::Put),
        1 => Just(Op::PutRefused),
        1 => Just(Op::PutPanics),
        2 => Just(Op::Flush),
        3 => Just(Op::Pause),
        3 => Just(Op::Resume),
        1 => Just(Op::ClearInput),
        1 => Just(Op::SetInput),
        1 => Just(Op::ShutInput),
        1 => Just(Op::ShutOutput),
        1 => Just(Op::ShutOutputAfterFlush),
        2 => Just(Op::SetFilter),
        2 => Just(Op::SetFilterWithLine),
        2 => Just(Op::SwitchFilter),
        1 => Just(Op::CloseAfterFlush),
        1 => Just(Op::Drop),
        1 => Just(Op::Fail),
        1 => Just(Op::Slice),
        14 => prop_oneof![1_usize..10, 10_usize..300, Just(100_000)].prop_map(Op::PeerSends),
        4 => prop_oneof![1_usize..10_000, Just(usize::MAX)].prop_map(Op::PeerReceives),
        1 => Just(Op::PeerEndsOutput),
        1 => Just(Op::PeerEndsInput),
        1 => Just(Op::PeerCloses),
        1 => Just(Op::PeerResets),
    ]
}

fn lines() -> impl Strategy<Value = Vec<(Line, u8, usize, bool)>> {
    let usual = prop_oneof![4 => Just(Line::Plain), 1 => prop::sample::select(&Line::ALL[..])];
    let kind = prop_oneof![
        4 => usual,
        1 => prop_oneof![Just(Line::Many), Just(Line::RefusedAndKept), Just(Line::Refused), Just(Line::Panics)],
    ];
    let padding = prop_oneof![8 => 0_usize..10, 1 => Just(300)];
    // Most inputs have no line that may stop the filter.
    (any::<bool>(), prop::collection::vec((kind, 0_u8..6, padding, any::<bool>()), 0..40)).prop_map(
        |(stalls, mut lines)| {
            let may_stay = |kind| stalls || kind != Line::PanicsAndKeeps;
            lines.retain(|line| may_stay(line.0));
            lines
        },
    )
}

prop_compose! {
    fn script()(
        (kind, has_small_buffers) in (
            prop::sample::select(&[Kind::Pipes, Kind::Tcp, Kind::Unix, Kind::TwoSockets, Kind::Twice][..]),
            any::<bool>(),
        ),
        block_size in prop::sample::select(&[1, 7, 100, 65536][..]),
        capacity in prop::sample::select(&[5, 1000, usize::MAX][..]),
        lingers in prop::bool::weighted(0.7),
        marks in prop::option::of(any::<bool>()),
        (auto_flush, delivers_last, is_cut_short) in any::<(bool, bool, bool)>(),
        lines in lines(),
        ops in prop::collection::vec((op(), prop::sample::select(&[Place::Step, Place::Event, Place::AtOnce][..])), 0..40),
        parting in prop::sample::select(
            &[Parting::Drop, Parting::CloseAfterFlush, Parting::ShutOutputAfterFlush, Parting::PeerEnds][..]
        ),
    ) -> Script {
        let marks = marks.map(|auto_pause| Marks { low: 100, high: 5000, auto_pause });
        Script {
            kind, has_small_buffers, block_size, capacity, lingers, marks, auto_flush, delivers_last, lines, is_cut_short, ops,
            parting,
        }
    }
}

/// One life of a wheel.
fn live(script: Script) {
    let _watchdog = Watchdog::over(format!("{script:?}"), 3 * DEADLINE);
    let (ends, peer) = Peer::new(script.kind, script.has_small_buffers);
    let wheel = script.wheel(ends);
    let world = Rc::new(RefCell::new(World::new(script, peer)));
    let mut kernel = kernel();
    session(&world, wheel).spawn(&mut kernel).unwrap();
    // Wakes a kernel that waits for what never comes.
    let is_late = Rc::new(Cell::new(false));
    let late = is_late.clone();
    Session::new(())
        .state("_start", |cx| cx.delay("late", DEADLINE, ()))
        .state("late", move |_| late.set(true))
        .spawn(&mut kernel)
        .unwrap();
    while !world.borrow().is_over {
        kernel.run_one_timeslice().unwrap();
        assert!(!is_late.get(), "never ends: {}; {}", world.borrow().describe(), kernel.peek());
    }
    kernel.stop();
    drop(kernel);
    world.borrow().check();
}

fn cases() -> u32 {
    std::env::var("LENORE_STREAM_CASES").map_or(200, |text| text.parse().expect("a number"))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        failure_persistence: None,
        max_shrink_time: 20_000,
        ..ProptestConfig::default()
    })]

    #[test] // K-RE-20, K-RE-21, K-RE-22, K-RE-33, K-RW-20, K-RW-40, K-RW-41, K-RW-42
    fn a_stream_does_what_its_whole_input_and_output_come_to(script in script()) {
        live(script);
    }
}

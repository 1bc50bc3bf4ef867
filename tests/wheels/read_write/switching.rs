//! Other filters for the same wheel, between two records.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use lenore::filter::{Block, ByteLine, Filter, FilterError, FixedBlock, Line, RecordBlock, Stackable, Stream};
use lenore::wheel::{Failure, ReadWrite, StreamEvent, WheelId};
use lenore::{Context, Session};
use proptest::prelude::*;

use super::{Owner, log_input, narrow_pair, owner, pair, read_all};
use util::in_process::{Log, kernel, run, run_slices, run_until};

fn fields(separator: &str) -> Line {
    Line::literal(separator).expect("it is not empty")
}

/// Logs each record; `;` and `,` among them make it the separator from there on.
fn separator_input(cx: &mut Context<'_, Owner>) -> lenore::Result {
    let record = cx.arg::<String>(0)?.clone();
    log_input(cx)?;
    if [";", ","].contains(&&*record) {
        cx.heap().wheel().set_filter(fields(&record));
    }
    Ok(())
}

#[test] // K-RW-55, K-RW-57, K-RW-58, K-RW-59, K-FI-08: at every place where the network may cut
fn what_is_pending_goes_to_the_new_filter_wherever_it_was_cut() {
    let input = b"a\n;\nb;\nc;,;d,;e,f,";
    for cut in 0..=input.len() {
        let (mut kernel, log) = (kernel(), Log::default());
        let (ours, mut theirs) = pair();
        theirs.write_all(&input[..cut]).unwrap();
        let session =
            owner(&log, ours).state("input", separator_input).state("posted", |cx| cx.heap().log.push("posted"));
        let session = session.spawn(&mut kernel).unwrap();
        kernel.post(session, "posted", ()).unwrap();
        run_slices(&mut kernel, 1);
        let at_once = log.take();
        assert_eq!(at_once.last().map(String::as_str), Some("posted"), "the chunk goes ahead of it");
        theirs.write_all(&input[cut..]).unwrap();
        drop(theirs);
        run(&mut kernel);
        let all = [&at_once[..at_once.len() - 1], &log.take()].concat();
        assert_eq!(all, ["a", ";", "b", "\nc", ",", "d", ";e", "f", "error:read:0"], "cut at {cut}");
        if cut == input.len() {
            assert_eq!(at_once.len(), 9, "all of a chunk in one go");
        }
    }
}

#[test] // K-RW-57: here in the next slice, as nothing is dispatched while the heap is borrowed; K-RW-60 with K-RE-26
fn a_filter_set_outside_of_the_input_event_has_its_records_delivered_to_the_owner() {
    for from_another in [false, true] {
        let (mut kernel, log) = (kernel(), Log::default());
        let (ours, mut theirs) = pair();
        theirs.write_all(b"one\na;b;c").unwrap();
        let session = owner(&log, ours)
            .state("lend", |cx| cx.heap().wheel.take())
            .state("return", |cx| cx.heap().wheel = cx.take::<ReadWrite<Line>>(0).ok())
            .state("set", |cx| cx.heap().wheel().set_input_filter(fields(";")))
            .spawn(&mut kernel)
            .unwrap();
        run_until(&mut kernel, || log.text() == "one");
        if from_another {
            Session::new(())
                .state("_start", move |cx| {
                    let wheel =
                        cx.call(session, "lend", ())?.take::<Option<ReadWrite<Line>>>()?.expect("it has a wheel");
                    wheel.set_input_filter(fields(";"));
                    cx.call(session, "return", (wheel,))?;
                    Ok(())
                })
                .state("input", |_| -> () { panic!("it is not for this session") })
                .spawn(&mut kernel)
                .unwrap();
        } else {
            kernel.call(session, "set", ()).unwrap();
        }
        assert_eq!(log.text(), "one");
        run_slices(&mut kernel, 1);
        assert_eq!(log.text(), "one a b");
        theirs.write_all(b";").unwrap();
        drop(theirs);
        run(&mut kernel);
        assert_eq!(log.text(), "one a b c error:read:0");
    }
}

#[test] // K-RW-56, K-RW-55
fn what_was_put_stays_as_the_old_filter_made_it() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, theirs) = pair();
    owner(&log, ours)
        .state("started", |cx| {
            let wheel = cx.heap().wheel();
            wheel.put("a");
            wheel.set_output_filter(fields(";"));
            wheel.put("b");
            wheel.set_filter(fields(","));
            wheel.put("c");
        })
        .state("flushed", |cx| cx.heap().wheel = None)
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    assert_eq!(read_all(theirs), "a\r\nb;c,");
}

#[test] // K-RW-55, K-RW-14
fn filters_can_be_looked_at_and_give_what_is_pending() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, mut theirs) = pair();
    theirs.write_all(b"whole\nunfinished").unwrap();
    theirs.shutdown(Shutdown::Write).unwrap();
    owner(&log, ours)
        .state("error", |cx| {
            let wheel = cx.heap().wheel.take().expect("it has a wheel");
            assert_eq!(wheel.get_pending(), b"unfinished");
            assert_eq!(wheel.get_pending(), b"unfinished", "it stays");
            assert_eq!(wheel.input_filter(|filter| filter.get_pending().to_vec()), b"unfinished");
            let mut out = Vec::new();
            wheel.output_filter(|filter| filter.put("x", &mut out)).unwrap();
            assert_eq!(out, b"x\r\n");
        })
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "whole");
}

#[test] // K-RW-57 after the end of file
fn what_the_end_of_file_left_may_make_records_for_another_filter() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, mut theirs) = pair();
    theirs.write_all(b"a;b;c").unwrap();
    theirs.shutdown(Shutdown::Write).unwrap();
    owner(&log, ours)
        .state("error", |cx| {
            super::log_error(cx)?;
            cx.heap().wheel().set_input_filter(fields(";"));
            Ok(())
        })
        .state("input", |cx| {
            log_input(cx)?;
            if cx.heap().log.count("b") == 1 {
                cx.heap().wheel = None;
            }
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "error:read:0 a b");
}

#[test] // K-RE-20: also what another filter has made of it
fn after_a_switch_delivery_stops_at_once_when_the_wheel_is_paused_or_dropped() {
    for drops in [false, true] {
        let (mut kernel, log) = (kernel(), Log::default());
        let (ours, mut theirs) = pair();
        theirs.write_all(b";\na;b;c;").unwrap();
        let session = owner(&log, ours)
            .state("input", move |cx| {
                separator_input(cx)?;
                if drops && cx.heap().log.count("a") == 1 {
                    cx.heap().wheel = None;
                } else if !drops {
                    cx.heap().wheel().pause_input();
                }
                Ok(())
            })
            .spawn(&mut kernel)
            .unwrap();
        run_slices(&mut kernel, 1);
        if drops {
            assert_eq!(log.text(), "; a");
            continue;
        }
        for expected in [";", "; a", "; a b", "; a b c"] {
            for _ in 0..3 {
                kernel.post(session, "nothing", ()).unwrap();
                run_slices(&mut kernel, 1);
            }
            assert_eq!(log.text(), expected);
            kernel.call(session, "resume", ()).unwrap();
        }
        kernel.stop();
    }
}

#[test] // K-RE-21
fn after_an_exception_the_rest_comes_through_the_new_filter_in_the_next_slice() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, mut theirs) = pair();
    theirs.write_all(b";\na;b;").unwrap();
    owner(&log, ours)
        .state("input", |cx| {
            separator_input(cx)?;
            if cx.heap().log.len() == 1 { Err(std::io::Error::other("on purpose").into()) } else { Ok(()) }
        })
        .spawn(&mut kernel)
        .unwrap();
    run_slices(&mut kernel, 1);
    assert_eq!(log.text(), ";");
    run_slices(&mut kernel, 1);
    assert_eq!(log.text(), "; a b");
    kernel.stop();
}

/// Records of so many bytes.
struct Fixed(Vec<u8>, usize);

impl Filter for Fixed {
    type Input = Vec<u8>;
    type Output = [u8];

    fn get_one_start(&mut self, chunk: &[u8]) -> Result<(), FilterError> {
        self.0.extend_from_slice(chunk);
        Ok(())
    }

    fn get_one(&mut self) -> Result<Option<Vec<u8>>, FilterError> {
        Ok((self.0.len() >= self.1).then(|| self.0.drain(..self.1).collect()))
    }

    fn put(&mut self, record: &[u8], out: &mut Vec<u8>) -> Result<(), FilterError> {
        out.extend_from_slice(record);
        Ok(())
    }

    fn get_pending(&self) -> &[u8] {
        &self.0
    }

    fn clone_config(&self) -> Self {
        Fixed(Vec::new(), self.1)
    }
}

/// Talks in lines until one says `DATA` and a number, takes that many bytes, and talks in lines again.
enum Client {
    Talking(ReadWrite<Line>),
    Sending(ReadWrite<Fixed>),
    Gone,
}

fn session(log: &Log, stream: UnixStream) -> Session<(Log, Client, Option<WheelId>)> {
    Session::new((log.clone(), Client::Gone, None))
        .args((stream,))
        .state("_start", |cx| {
            let stream = cx.take::<UnixStream>(0)?;
            let wheel = ReadWrite::stream(stream, Line::new()).on_input("line").on_error("gone").start(cx)?;
            cx.heap().2 = Some(wheel.id());
            cx.heap().1 = Client::Talking(wheel);
            Ok(())
        })
        .state("line", |cx| {
            let (line, id) = (cx.take::<String>(0)?, cx.take::<WheelId>(1)?);
            assert_eq!(Some(id), cx.heap().2);
            cx.heap().0.push(&line);
            if let Some(length) = line.strip_prefix("DATA ") {
                let length = length.parse()?;
                let Client::Talking(wheel) = std::mem::replace(&mut cx.heap().1, Client::Gone) else { unreachable!() };
                wheel.put("go on");
                let wheel = wheel.switch_filter(Fixed(Vec::new(), length));
                wheel.event(StreamEvent::Input, "data");
                wheel.put(&b"raw"[..]);
                cx.heap().1 = Client::Sending(wheel);
            }
            Ok(())
        })
        .state("data", |cx| {
            let (data, id) = (cx.take::<Vec<u8>>(0)?, cx.take::<WheelId>(1)?);
            assert_eq!(Some(id), cx.heap().2, "it is the same wheel");
            cx.heap().0.push(format!("{data:?}"));
            let Client::Sending(wheel) = std::mem::replace(&mut cx.heap().1, Client::Gone) else { unreachable!() };
            let wheel = wheel.switch_filter(Line::new());
            wheel.event(StreamEvent::Input, "line");
            wheel.put("thanks");
            cx.heap().1 = Client::Talking(wheel);
            Ok(())
        })
        .state("gone", |cx| {
            let operation = cx.arg::<Failure>(0)?.operation;
            cx.heap().0.push(operation);
            cx.heap().1 = Client::Gone;
            Ok(())
        })
}

#[test] // K-RW-55 to 59 for filters of different types
fn a_wheel_goes_on_with_a_filter_of_another_type_wherever_it_was_cut() {
    let input = b"hello\nDATA 3\n\n\xff\nDATA 1\nxbye\n";
    for cut in 0..=input.len() {
        let (mut kernel, log) = (kernel(), Log::default());
        let (ours, mut theirs) = pair();
        theirs.write_all(&input[..cut]).unwrap();
        session(&log, ours).spawn(&mut kernel).unwrap();
        run_slices(&mut kernel, 1);
        if cut == input.len() {
            assert_eq!(log.len(), 6, "all of a chunk in one go");
        }
        theirs.write_all(&input[cut..]).unwrap();
        theirs.shutdown(Shutdown::Write).unwrap();
        run(&mut kernel);
        assert_eq!(log.take(), ["hello", "DATA 3", "[10, 255, 10]", "DATA 1", "[120]", "bye", "read"], "cut at {cut}");
        assert_eq!(read_all(theirs), "go on\r\nrawthanks\r\ngo on\r\nrawthanks\r\n");
    }
}

#[test] // K-RW-56: whatever waits is written, by the wheel that comes after
fn a_switch_of_types_keeps_output_that_waits_and_each_direction_can_be_switched_alone() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, mut theirs) = narrow_pair();
    Session::new((log.clone(), None::<ReadWrite<Line>>, None::<ReadWrite<Stream, Line>>, None::<ReadWrite<Stream>>))
        .args((ours,))
        .state("_start", |cx| {
            let stream = cx.take::<UnixStream>(0)?;
            let wheel = ReadWrite::stream(stream, Line::new()).on_input("input").on_flushed("flushed").start(cx)?;
            wheel.put("x".repeat(100_000));
            cx.heap().1 = Some(wheel);
            cx.yield_("input filter", ());
            Ok(())
        })
        .state("input filter", |cx| {
            let wheel = cx.heap().1.take().expect("it is kept").switch_input_filter(Stream::new());
            assert!(wheel.pending_output() > 0);
            wheel.put("line");
            cx.heap().2 = Some(wheel);
            cx.yield_("output filter", ());
        })
        .state("output filter", |cx| {
            let wheel = cx.heap().2.take().expect("it is kept").switch_output_filter(Stream::new());
            wheel.put(&b"raw"[..]);
            cx.heap().3 = Some(wheel);
        })
        .state("input", |cx| {
            let text = String::from_utf8(cx.take::<Vec<u8>>(0)?)?;
            cx.heap().0.push(text);
            Ok(())
        })
        .state("flushed", |cx| {
            cx.heap().0.push("flushed");
            cx.heap().3 = None;
        })
        .spawn(&mut kernel)
        .unwrap();
    theirs.write_all(b"half a li").unwrap();
    run_until(&mut kernel, || log.len() == 1);
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        theirs.read_to_string(&mut text).unwrap();
        text
    });
    run(&mut kernel);
    assert_eq!(reader.join().unwrap(), "x".repeat(100_000) + "\r\nline\r\nraw");
    assert_eq!(log.text(), "half a li flushed");
}

#[test] // K-RW-15, K-RW-41, K-RW-57: what was put goes out before the end is told, and the flushed event is a state like any other
fn a_filter_set_while_the_end_of_file_waits_has_its_records_delivered_first() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, mut theirs) = pair();
    theirs.write_all(b"go\na;b;c").unwrap();
    theirs.shutdown(Shutdown::Write).unwrap();
    owner(&log, ours)
        .state("input", |cx| {
            log_input(cx)?;
            if cx.heap().log.len() == 1 {
                cx.heap().wheel().put("x");
            }
            Ok(())
        })
        .state("flushed", |cx| cx.heap().wheel().set_input_filter(fields(";")))
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "go a b error:read:0");
    assert_eq!(read_all(theirs), "x\r\n");
}

/// One of several filters, so that a wheel can go from any to any other.
enum Any {
    Lines(ByteLine),
    Blocks(Block),
    Fixed(FixedBlock),
    Stacked(Stackable<ByteLine, RecordBlock<Vec<u8>, [u8]>>),
    Stream(Stream),
}

impl Any {
    fn new(kind: u8) -> Any {
        let small = || Line::new().max_length(4).unwrap();
        match kind {
            0 => Any::Lines(small().max_buffer(6).unwrap().bytes()),
            1 => Any::Lines(Line::autodetect().bytes()),
            2 => Any::Lines(Line::literal("\r\n").unwrap().bytes()),
            3 => Any::Blocks(Block::new().max_length(4).unwrap()),
            4 => Any::Fixed(FixedBlock::new(3).unwrap()),
            5 => Any::Stacked(Stackable::new(Line::new().bytes(), RecordBlock::new(2).unwrap())),
            _ => Any::Stream(Stream::new()),
        }
    }

    fn inner(&mut self) -> &mut dyn Octets {
        match self {
            Any::Lines(filter) => filter,
            Any::Blocks(filter) => filter,
            Any::Fixed(filter) => filter,
            Any::Stacked(filter) => filter,
            Any::Stream(filter) => filter,
        }
    }

    fn inner_ref(&self) -> &dyn Octets {
        match self {
            Any::Lines(filter) => filter,
            Any::Blocks(filter) => filter,
            Any::Fixed(filter) => filter,
            Any::Stacked(filter) => filter,
            Any::Stream(filter) => filter,
        }
    }
}

/// What the input side of these filters has in common.
trait Octets {
    fn feed(&mut self, chunk: &[u8]) -> Result<(), FilterError>;
    fn next(&mut self) -> Result<Option<Vec<u8>>, FilterError>;
    fn space(&self) -> usize;
    fn pending(&self) -> &[u8];
    fn left(&self) -> Result<&[u8], FilterError>;
    fn finish(&mut self, chunk: &[u8]) -> Option<usize>;
}

impl<F: Filter<Input: Joined>> Octets for F {
    fn feed(&mut self, chunk: &[u8]) -> Result<(), FilterError> {
        self.get_one_start(chunk)
    }

    fn next(&mut self) -> Result<Option<Vec<u8>>, FilterError> {
        Ok(self.get_one()?.map(Joined::joined))
    }

    fn space(&self) -> usize {
        self.room()
    }

    fn pending(&self) -> &[u8] {
        self.get_pending()
    }

    fn left(&self) -> Result<&[u8], FilterError> {
        self.hand_over()
    }

    fn finish(&mut self, chunk: &[u8]) -> Option<usize> {
        self.finish_record(chunk)
    }
}

/// A record, or a list of some.
trait Joined {
    fn joined(self) -> Vec<u8>;
}

impl Joined for Vec<u8> {
    fn joined(self) -> Vec<u8> {
        self
    }
}

impl Joined for Vec<Vec<u8>> {
    fn joined(self) -> Vec<u8> {
        self.join(&b"+"[..])
    }
}

impl Filter for Any {
    type Input = Vec<u8>;
    type Output = [u8];

    fn get_one_start(&mut self, chunk: &[u8]) -> Result<(), FilterError> {
        self.inner().feed(chunk)
    }

    fn get_one(&mut self) -> Result<Option<Vec<u8>>, FilterError> {
        self.inner().next()
    }

    fn put(&mut self, record: &[u8], out: &mut Vec<u8>) -> Result<(), FilterError> {
        out.extend_from_slice(record);
        Ok(())
    }

    fn room(&self) -> usize {
        self.inner_ref().space()
    }

    fn get_pending(&self) -> &[u8] {
        self.inner_ref().pending()
    }

    fn hand_over(&self) -> Result<&[u8], FilterError> {
        self.inner_ref().left()
    }

    fn finish_record(&mut self, chunk: &[u8]) -> Option<usize> {
        self.inner().finish(chunk)
    }

    fn clone_config(&self) -> Any {
        Any::Stream(Stream::new())
    }
}

/// Which filters a wheel goes through, and after how many events each takes over from the one before. The last is always
/// a `Stream`.
type Plan = Vec<(u8, usize)>;

/// What a session hears of `segments`, each of which is read by itself; what the `Stream` at the end of the plan delivers
/// is joined, as its records are the chunks that were read.
fn heard(plan: &Plan, segments: &[&[u8]]) -> (Vec<String>, Vec<u8>) {
    struct Heap {
        plan: Plan,
        wheel: Option<ReadWrite<Any>>,
        events: usize,
    }
    fn after_event(heap: &mut Heap) {
        heap.events += 1;
        if heap.plan.first().is_some_and(|(_, after)| heap.events == *after) {
            let (kind, _) = heap.plan.remove(0);
            heap.events = 0;
            heap.wheel.as_ref().expect("it is kept").set_input_filter(Any::new(kind));
        }
    }
    let (mut kernel, log, rest) = (kernel(), Log::default(), Rc::new(RefCell::new(Vec::new())));
    let (ours, mut theirs) = pair();
    let (records, refusals, errors, octets) = (log.clone(), log.clone(), log.clone(), rest.clone());
    let session = Session::new(Heap { plan: plan[1..].to_vec(), wheel: None, events: 0 })
        .args((ours, Any::new(plan[0].0)))
        .state("_start", |cx| {
            let wheel = ReadWrite::stream(cx.take::<UnixStream>(0)?, cx.take::<Any>(1)?);
            cx.heap().wheel = Some(wheel.on_input("input").on_error("error").on_refused("refused").start(cx)?);
            Ok(())
        })
        .state("refused", move |cx| {
            refusals.push(cx.arg::<FilterError>(0)?);
            after_event(cx.heap());
            Ok(())
        })
        .state("input", move |cx| {
            let record = cx.take::<Vec<u8>>(0)?;
            if cx.heap().plan.is_empty() {
                octets.borrow_mut().extend_from_slice(&record);
            } else {
                records.push(record.escape_ascii());
                after_event(cx.heap());
            }
            Ok(())
        })
        .state("error", move |cx| {
            let failure = cx.take::<Failure>(0)?;
            if failure.is_end_of_input() {
                cx.heap().wheel = None;
            } else {
                errors.push(failure.text);
                after_event(cx.heap());
            }
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    for segment in segments {
        theirs.write_all(segment).unwrap();
        // More slices than it takes to read one segment, none of which waits for another.
        for _ in 0..4 {
            kernel.post(session, "nothing", ()).unwrap();
            run_slices(&mut kernel, 1);
        }
    }
    drop(theirs);
    run(&mut kernel);
    let rest = rest.borrow().clone();
    (log.take(), rest)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 400, ..ProptestConfig::default() })]

    #[test] // K-RW-57, K-FI-08, K-RW-62: what is no octet is handed over as well
    fn a_switch_depends_on_the_octets_and_not_on_where_they_were_cut(
        pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..12),
        kinds in prop::collection::vec((0_u8..6, 1_usize..4), 1..4),
        last in 1_usize..4,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 1..5),
    ) {
        let input = pieces.concat();
        let mut plan = kinds;
        plan.push((6, last));
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
        cuts.extend([0, input.len()]);
        cuts.sort_unstable();
        let segments: Vec<&[u8]> = cuts.windows(2).map(|cut| &input[cut[0]..cut[1]]).collect();
        prop_assert_eq!(heard(&plan, &segments), heard(&plan, &[&input]), "{}", input.escape_ascii());
    }
}

/// What means something to one of the filters.
const PIECES: [&[u8]; 12] =
    [b"\r", b"\n", b"\r\n", b"\n\r", b"a", b"bcdefgh", b"1\0", b"2\0ab", b"3\0\r\n;", b"9\0abcdefghi", b"0\0", b"\xff"];

#[test] // K-RW-62: the case that mail, news and caches meet
fn a_newline_that_is_cut_in_two_gives_no_octet_to_the_next_filter() {
    let plan = [(0, 0), (6, 1)].to_vec();
    for segments in [&[&b"DATA\r\nbinary"[..]][..], &[b"DATA\r", b"\nbinary"], &[b"DATA\r", b"\n", b"binary"]] {
        assert_eq!(heard(&plan, segments), (vec!["DATA".into()], b"binary".to_vec()));
    }
    let plan = [(3, 0), (6, 1)].to_vec();
    let told = || vec!["record of 9 bytes is over the limit of 4".to_string()];
    for segments in [&[&b"9\0abcdefghiDATA"[..]][..], &[b"9\0", b"abcdef", b"ghiDATA"]] {
        assert_eq!(heard(&plan, segments), (told(), b"DATA".to_vec()), "what is given up is no input");
    }
}

#[test] // K-RW-57: a filter that comes with input of its own, as the lower part of a stack that is taken apart
fn records_that_the_new_filter_has_already_are_delivered() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, mut theirs) = pair();
    let session = owner(&log, ours)
        .state("set", |cx| {
            let mut full = Line::new();
            full.get_one_start(b"a\nb\nc")?;
            cx.heap().wheel().set_input_filter(full);
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    run_slices(&mut kernel, 1);
    kernel.call(session, "set", ()).unwrap();
    run_until(&mut kernel, || log.len() == 2);
    theirs.write_all(b"d\n").unwrap();
    drop(theirs);
    run(&mut kernel);
    assert_eq!(log.text(), "a b cd error:read:0");
}

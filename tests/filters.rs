//! Filters inside a wheel: section 20 of the behaviour specification, as a session sees it.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use lenore::Session;
use lenore::component::{Protocol, TcpServer};
use lenore::filter::{
    Block, ByteLine, Either, Filter, FilterError, Frame, Grep, Line, Map, RecordBlock, Stackable, Stream,
};
use lenore::wheel::{Failure, Put, ReadWrite};
use serde::{Deserialize, Serialize};

use util::component::{Peer, serve};
use util::in_process::{Log, kernel, run};

#[derive(Debug, Serialize, Deserialize)]
enum Request {
    Add(i64, i64),
    Greet { name: String },
}

/// Sends `input` to a wheel with `filter`, which answers each record with what `answer` makes of it; returns the answers.
/// The log gets what the error event says.
fn answers<F: Filter>(filter: F, input: &[u8], log: &Log, answer: fn(F::Input, &ReadWrite<F>) -> Put) -> Vec<u8> {
    let mut kernel = kernel();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(input).unwrap();
    theirs.shutdown(Shutdown::Write).unwrap();
    let (failures, refusals) = (log.clone(), log.clone());
    Session::new(None::<ReadWrite<F>>)
        .state("_start", |cx| {
            let (stream, filter) = (cx.take::<UnixStream>(0)?, cx.take::<F>(1)?);
            let wheel = ReadWrite::stream(stream, filter)
                .on_input("input")
                .on_error("error")
                .on_refused("refused")
                .start(cx)?;
            *cx.heap() = Some(wheel);
            Ok(())
        })
        .state("refused", move |cx| {
            refusals.push(cx.arg::<FilterError>(0)?);
            Ok(())
        })
        .state("input", move |cx| {
            let record = cx.take::<F::Input>(0)?;
            if let Some(wheel) = cx.heap() {
                answer(record, wheel);
            }
            Ok(())
        })
        .state("error", move |cx| {
            let failure = cx.take::<Failure>(0)?;
            if failure.operation == "read" {
                if let Some(wheel) = cx.heap().take() {
                    wheel.close_after_flush();
                }
            } else {
                failures.push(failure.text);
            }
            Ok(())
        })
        .args((ours, filter))
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    let mut sent = Vec::new();
    theirs.read_to_end(&mut sent).unwrap();
    sent
}

#[test] // K-FF-01, K-FF-04: values go through a wheel; one that can't be decoded is an error event, and the next ones come
fn a_wheel_carries_values() {
    let log = Log::default();
    let input = b"14\0{\"Add\":[20,3]}12\0{\"Add\":[20]}25\0{\"Greet\":{\"name\":\"you\"}} 1\0x";
    let sent = answers(Frame::<Request, str>::new(), input, &log, |request, wheel| match request {
        Request::Add(one, other) => wheel.put((one + other).to_string()),
        Request::Greet { name } => wheel.put(format!("hello {name}")),
    });
    assert_eq!(sent, b"4\0\"23\"11\0\"hello you\"");
    let told = [
        "malformed record: payload of 12 bytes: invalid length 1, expected tuple variant Request::Add with 2 elements at line 1 column 11",
        "malformed record: payload of 1 bytes: expected value at line 1 column 1",
    ];
    assert_eq!(log.take(), told);
}

#[test] // K-FK-01, K-FG-02, K-FG-03, K-FR-01: a stack is a filter like any other
fn a_wheel_takes_a_stack() {
    let log = Log::default();
    let double = Map::new(|line: String| [line.to_uppercase(), line], |word: &str| [format!("<{word}>")]);
    let stack = Stackable::new(Line::new(), Grep::code(|line: &str| !line.starts_with('#')))
        .push(double)
        .push(RecordBlock::<String, str>::new(2).unwrap());
    let sent = answers(stack, b"a\n#no\n\xff\nb\nc", &log, |pair, wheel| wheel.put(pair));
    assert_eq!(sent, b"<A>\r\n<a>\r\n<B>\r\n<b>\r\n");
    assert_eq!(log.take(), ["record of 1 bytes is not UTF-8 at byte 0"]);
}

/// The first byte that comes is the key for both directions.
#[derive(Default)]
struct Keyed {
    input: Vec<u8>,
    key: Rc<Cell<Option<u8>>>,
}

impl Filter for Keyed {
    type Input = Vec<u8>;
    type Output = [u8];

    fn get_one_start(&mut self, chunk: &[u8]) -> Result<(), FilterError> {
        self.input.extend_from_slice(chunk);
        Ok(())
    }

    fn get_one(&mut self) -> Result<Option<Vec<u8>>, FilterError> {
        if self.key.get().is_none() && !self.input.is_empty() {
            self.key.set(Some(self.input.remove(0)));
        }
        let key = self.key.get().unwrap_or_default();
        let plain: Vec<u8> = self.input.drain(..).map(|octet| octet ^ key).collect();
        Ok((!plain.is_empty()).then_some(plain))
    }

    fn put(&mut self, record: &[u8], out: &mut Vec<u8>) -> Result<(), FilterError> {
        let key = self.key.get().ok_or_else(|| FilterError::malformed("the key has not come"))?;
        out.extend(record.iter().map(|octet| octet ^ key));
        Ok(())
    }

    fn get_pending(&self) -> &[u8] {
        &self.input
    }

    fn clone_config(&self) -> Keyed {
        Keyed::default()
    }

    fn output_half(&self) -> Keyed {
        Keyed { key: Rc::clone(&self.key), ..Keyed::default() }
    }
}

type Bytes = Box<dyn Filter<Input = Vec<u8>, Output = [u8]>>;

/// A filter on top that changes nothing.
fn same() -> Map<Vec<u8>, Vec<u8>, [u8], [u8]> {
    Map::new(Some, |record: &[u8]| Some(record.to_vec()))
}

#[test]
fn output_half_knows_what_the_input_has_told() {
    let log = Log::default();
    let input = b"\x20ABC";
    assert_eq!(answers(Keyed::default(), input, &log, |record, wheel| wheel.put(record)), b"ABC");
    let boxed: Bytes = Box::<Keyed>::default();
    assert_eq!(answers(boxed, input, &log, |record, wheel| wheel.put(record)), b"ABC");
    let either = Either::<Stream, Keyed>::Right(Keyed::default());
    assert_eq!(answers(either, input, &log, |record, wheel| wheel.put(record)), b"ABC");
    let stack = Stackable::new(Keyed::default(), same());
    assert_eq!(answers(stack, input, &log, |record, wheel| wheel.put(record)), b"ABC");
    assert!(log.is_empty(), "{:?}", log.take());
}

#[test]
fn output_half_belongs_to_a_new_filter_as_well() {
    let log = Log::default();
    let sent = answers(Keyed::default(), b"\x20ABC", &log, |record, wheel| {
        // The next one has not got a key of its own yet.
        wheel.set_filter(Keyed::default());
        wheel.put(record)
    });
    assert_eq!(sent, b"");
    assert_eq!(log.take(), ["malformed record: the key has not come"]);
}

#[test]
fn boxed_filter_is_replaced_by_one_of_another_kind() {
    let log = Log::default();
    let lines: Bytes = Box::new(ByteLine::new());
    let sent = answers(lines, b"one\n3\0two", &log, |record, wheel| {
        if record == b"one" {
            let blocks: Bytes = Box::new(Block::new());
            wheel.set_filter(blocks);
        }
        wheel.put(record)
    });
    assert_eq!(sent, b"3\0one3\0two");
    assert!(log.is_empty(), "{:?}", log.take());
}

#[test]
fn either_filter_is_replaced_by_the_other() {
    let log = Log::default();
    let lines = Either::Left(ByteLine::new());
    let sent = answers(lines, b"one\n3\0two", &log, |record, wheel| {
        if record == b"one" {
            wheel.set_filter(Either::Right(Block::new()));
        }
        wheel.put(record)
    });
    assert_eq!(sent, b"3\0one3\0two");
    assert!(log.is_empty(), "{:?}", log.take());
}

#[test]
fn each_connection_has_halves_of_its_own() {
    let mut kernel = kernel();
    let protocol = Protocol::new(Keyed::default()).on_input(|cx, record: Vec<u8>| cx.heap().put(record));
    let address = serve(&mut kernel, TcpServer::new("127.0.0.1:0", protocol));
    let (mut one, mut other) = (Peer::connect(address), Peer::connect(address));
    one.send("\x20ABC");
    one.run_to(&mut kernel, "ABC");
    other.send("\x01ABC");
    other.run_to(&mut kernel, "ABC");
    one.send("DEF");
    one.run_to(&mut kernel, "ABCDEF");
}

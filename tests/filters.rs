//! Filters inside a wheel: section 20 of the behaviour specification, as a session sees it.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use lenore::Session;
use lenore::filter::{Filter, FilterError, Frame, Grep, Line, Map, RecordBlock, Stackable};
use lenore::wheel::{Failure, Put, ReadWrite};
use serde::{Deserialize, Serialize};

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
        "malformed record: payload of 12 octets: invalid length 1, expected tuple variant Request::Add with 2 elements at line 1 column 11",
        "malformed record: payload of 1 octets: expected value at line 1 column 1",
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
    assert_eq!(log.take(), ["record of 1 octets is not UTF-8 at octet 0"]);
}

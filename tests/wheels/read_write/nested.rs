//! What a state does inside one of a wheel's events, and other wheels of the same slice have to notice.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use lenore::filter::Line;
use lenore::wheel::ReadWrite;
use lenore::{Context, Result, Session};

use super::pair;
use util::in_process::{Log, kernel, run};

struct Two {
    log: Log,
    first: Option<ReadWrite<Line>>,
    second: Option<ReadWrite<Line>>,
    /// The second wheel's peer, which does not block.
    peer: UnixStream,
}

type Cx<'a> = Context<'a, Two>;

/// Runs a session that puts a line into two wheels, and `inside` in the flushed event of the first, when the second is still
/// to be flushed. Returns what the session logs and what the second peer has not read by then.
fn in_the_first_flush(inside: impl Fn(&mut Cx<'_>) -> Result + 'static) -> (String, String) {
    let mut kernel = kernel();
    let ((first, _other), (second, peer)) = (pair(), pair());
    peer.set_nonblocking(true).unwrap();
    let mut rest = peer.try_clone().unwrap();
    let log = Log::default();
    Session::new(Two { log: log.clone(), first: None, second: None, peer })
        .args((first, second))
        .state("_start", |cx| {
            let (first, second) = (cx.take::<UnixStream>(0)?, cx.take::<UnixStream>(1)?);
            let first = ReadWrite::stream(first, Line::new()).on_flushed("inside").start(cx)?;
            first.put("one");
            // Later, as wheels are flushed in the order in which they have asked for something.
            let second = ReadWrite::stream(second, Line::new()).on_input("input").start(cx)?;
            second.pause_input();
            second.put("two");
            cx.heap().first = Some(first);
            cx.heap().second = Some(second);
            Ok(())
        })
        .state("inside", move |cx| {
            inside(cx)?;
            cx.yield_("end", ());
            Ok(())
        })
        .state("input", |cx| {
            let line = cx.take::<String>(0)?;
            cx.heap().log.push(line);
            Ok(())
        })
        .state("tick", |_| ())
        .state("end", |cx| {
            cx.heap().first = None;
            cx.heap().second = None;
        })
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    let mut text = String::new();
    let _ = rest.read_to_string(&mut text);
    (log.text(), text)
}

/// Runs slices until `done`; an alarm ends the wait of each.
fn slices_until(cx: &mut Cx<'_>, mut done: impl FnMut(&mut Two) -> bool) -> Result {
    while !done(cx.heap()) {
        cx.delay("tick", Duration::from_millis(1), ());
        cx.run_one_timeslice()?;
    }
    Ok(())
}

/// What the second peer can read: `Some("")` at the end.
fn received(two: &mut Two) -> Option<String> {
    let mut buffer = [0; 100];
    match two.peer.read(&mut buffer) {
        Ok(count) => Some(String::from_utf8_lossy(&buffer[..count]).into_owned()),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            None
        }
    }
}

#[test] // K-LP-20, K-RW-32
fn a_slice_in_a_flushed_event_writes_what_was_put_into_another_wheel() {
    let (log, rest) = in_the_first_flush(|cx| {
        slices_until(cx, |two| received(two).is_some_and(|text| text == "two\r\n"))?;
        // Not for the first time since it was flushed.
        let _ = cx.heap().second.as_ref().map(|second| second.put("three"));
        slices_until(cx, |two| received(two).is_some_and(|text| text == "three\r\n"))
    });
    assert_eq!((log.as_str(), rest.as_str()), ("", ""));
}

#[test] // K-LP-20, K-RW-17
fn a_slice_in_a_flushed_event_reads_from_a_wheel_that_was_resumed() {
    let (log, rest) = in_the_first_flush(|cx| {
        let Two { peer, second, .. } = cx.heap();
        peer.write_all(b"hello\n")?;
        second.iter().for_each(ReadWrite::resume_input);
        slices_until(cx, |two| !two.log.is_empty())
    });
    assert_eq!((log.as_str(), rest.as_str()), ("hello", "two\r\n"));
}

#[test] // K-LP-20, K-WH-05, K-RW-37
fn a_slice_in_a_flushed_event_closes_a_wheel_that_was_dropped() {
    let (log, rest) = in_the_first_flush(|cx| {
        cx.heap().second = None;
        slices_until(cx, |two| received(two).is_some_and(|text| text.is_empty()))
    });
    assert_eq!((log.as_str(), rest.as_str()), ("", ""));
}

#[test] // K-LP-25: what was put into wheels is written before
fn stop_in_a_flushed_event_writes_what_was_put_into_another_wheel() {
    let (log, rest) = in_the_first_flush(|cx| {
        cx.stop();
        Ok(())
    });
    assert_eq!((log.as_str(), rest.as_str()), ("", "two\r\n"));
}

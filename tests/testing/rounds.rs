//! A program with all that a test can deliver has the same outcome each time.

use std::os::unix::net::UnixStream;
use std::process::ExitStatus;
use std::time::{Duration, SystemTime};

use lenore::filter::Line;
use lenore::testing::{Peer, Sequence, TestKernel, pair};
use lenore::wheel::ReadWrite;
use lenore::{Context, Postback, Session};

struct Program {
    log: Sequence,
    wheel: Option<ReadWrite<Line>>,
    postback: Option<Postback>,
}

/// Notes the event and the millisecond at which it comes.
fn note(cx: &mut Context<'_, Program>) {
    let (name, now) = (cx.state_name(), cx.now());
    let since = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis());
    cx.heap().log.note(format_args!("{name} at {since}"));
}

fn start(cx: &mut Context<'_, Program>) -> lenore::Result {
    let (stream, child): (UnixStream, i32) = (cx.take(0)?, cx.take(1)?);
    cx.heap().wheel = Some(ReadWrite::stream(stream, Line::new()).on_input("line").on_error("end").start(cx)?);
    cx.heap().postback = Some(cx.postback("called", ())?);
    cx.sig("HUP", "reload");
    cx.sig_child(child, "ended", ());
    cx.delay("tick", Duration::from_millis(10), ());
    Ok(())
}

fn tick(cx: &mut Context<'_, Program>) {
    note(cx);
    let Program { wheel, postback, .. } = cx.heap();
    wheel.iter().for_each(|wheel| _ = wheel.put("tick"));
    postback.iter().for_each(|postback| postback.call(()));
    cx.yield_("posted", ());
    cx.delay("tick", Duration::from_millis(10), ());
}

fn end(cx: &mut Context<'_, Program>) {
    note(cx);
    cx.delay_clear("tick");
    (cx.heap().wheel, cx.heap().postback) = (None, None);
}

/// Returns what the program has noted and written.
fn round() -> (Vec<String>, Vec<u8>) {
    let (log, mut kernel, (stream, peer)) = (Sequence::new(), TestKernel::starting_at(SystemTime::UNIX_EPOCH), pair());
    let mut peer: Peer = peer;
    let child = kernel.fake_pid();
    Session::new(Program { log: log.clone(), wheel: None, postback: None })
        .args((stream, child))
        .state("_start", start)
        .state("tick", tick)
        .state("posted", note)
        .state("called", note)
        .state("reload", |cx| {
            note(cx);
            cx.sig_handled();
        })
        .state("ended", |cx| {
            let status: ExitStatus = cx.take(2)?;
            cx.heap().log.note(status);
            Ok(())
        })
        .state("line", |cx| {
            let line: String = cx.take(0)?;
            cx.heap().log.note(line);
            Ok(())
        })
        .state("end", end)
        .spawn(&mut kernel)
        .expect("a session");
    peer.write("one\ntwo\n");
    kernel.deliver_signal("HUP");
    kernel.advance(Duration::from_millis(25));
    peer.write("three\n");
    kernel.child_exits(child, 1);
    kernel.advance(Duration::from_millis(5));
    peer.close_write();
    kernel.run_to_end();
    (log.take(), peer.read())
}

#[test]
fn thousand_rounds_with_streams_signals_and_children_give_one_outcome() {
    let first = round();
    // What the stream has comes before the signal: in a slice, wheels have their turns first.
    let expected = [
        "one",
        "two",
        "reload at 0",
        "tick at 10",
        "called at 10",
        "posted at 10",
        "tick at 20",
        "called at 20",
        "posted at 20",
        "three",
        "exit status: 1",
        "tick at 30",
        "called at 30",
        "posted at 30",
        "end at 30",
    ];
    assert_eq!(first.0, expected);
    assert_eq!(first.1, "tick\r\n".repeat(3).as_bytes());
    for number in 1..1000 {
        assert_eq!(round(), first, "round {number}");
    }
}

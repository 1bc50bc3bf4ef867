//! `ReadWrite`: sections 14 and 16 of the behaviour specification.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use lenore::filter::{FilterError, Line};
use lenore::wheel::{Failure, ReadWrite, ReadWriteBuilder, WheelId};
use lenore::{Context, Result, Session};
use nix::sys::socket::{setsockopt, sockopt};

use util::DEADLINE;
use util::in_process::Log;

mod adversary;
mod closing;
mod hostile;
mod input;
mod marks;
mod nested;
mod output;
mod settings;
mod switching;
mod transport;

/// A session with one wheel for text lines.
pub(super) struct Owner {
    pub(super) log: Log,
    pub(super) wheel: Option<ReadWrite<Line>>,
}

impl Owner {
    pub(super) fn wheel(&self) -> &ReadWrite<Line> {
        self.wheel.as_ref().expect("it has a wheel")
    }
}

/// A wheel for lines, with the events that an `owner` knows.
pub(super) fn lines(stream: impl Into<OwnedFd>) -> ReadWriteBuilder<Line> {
    let wheel = ReadWrite::stream(stream, Line::new()).on_input("input").on_flushed("flushed");
    wheel.on_error("error").on_refused("refused")
}

/// A session that logs the lines that come, `flushed`, `refused`, and `error:operation:errno`, which ends it.
pub(super) fn owner(log: &Log, stream: impl Into<OwnedFd>) -> Session<Owner> {
    owner_of(log, lines(stream))
}

/// The same with any wheel for lines; it logs `high` and `low` as well.
pub(super) fn owner_of(log: &Log, wheel: ReadWriteBuilder<Line>) -> Session<Owner> {
    Session::new(Owner { log: log.clone(), wheel: None })
        .args((wheel,))
        .state("_start", |cx| {
            let wheel = cx.take::<ReadWriteBuilder<Line>>(0)?.start(cx)?;
            cx.heap().wheel = Some(wheel);
            cx.sig("DIE", "die");
            cx.yield_("started", ());
            Ok(())
        })
        .state("started", |_| ())
        .state("input", log_input)
        .state("flushed", |cx| {
            let id = *cx.arg::<WheelId>(0)?;
            assert_eq!(id, cx.heap().wheel().id());
            cx.heap().log.push("flushed");
            Ok(())
        })
        .state("high", |cx| log_mark(cx, "high"))
        .state("low", |cx| log_mark(cx, "low"))
        .state("error", |cx| {
            log_error(cx)?;
            cx.heap().wheel = None;
            Ok(())
        })
        .state("refused", log_refused)
        .state("put", |cx| {
            let text = cx.take::<String>(0)?;
            cx.heap().wheel().put(text);
            Ok(())
        })
        .state("pause", |cx| cx.heap().wheel().pause_input())
        .state("resume", |cx| cx.heap().wheel().resume_input())
        .state("pass", |cx| cx.heap().log.push("pass"))
        .state("drop", |cx| cx.heap().wheel = None)
        .state("die", |cx| cx.sig_handled())
}

pub(super) fn log_input(cx: &mut Context<'_, Owner>) -> Result {
    let line = cx.take::<String>(0)?;
    cx.heap().log.push(line);
    Ok(())
}

fn log_mark(cx: &mut Context<'_, Owner>, mark: &str) -> Result {
    assert_eq!(cx.args().len(), 1);
    let id = cx.heap().wheel().id();
    assert_eq!(*cx.arg::<WheelId>(0)?, id);
    cx.heap().log.push(mark);
    Ok(())
}

pub(super) fn log_refused(cx: &mut Context<'_, Owner>) -> Result {
    assert_eq!(cx.args().len(), 2);
    assert!(!cx.arg::<FilterError>(0)?.is_out_of_step());
    let id = cx.heap().wheel().id();
    assert_eq!(*cx.arg::<WheelId>(1)?, id);
    cx.heap().log.push("refused");
    Ok(())
}

pub(super) fn log_error(cx: &mut Context<'_, Owner>) -> Result {
    assert_eq!(cx.args().len(), 1);
    let Failure { operation, errno, text, wheel, .. } = cx.take(0)?;
    assert_eq!(text.is_empty(), errno == 0, "only the end of file has no text");
    assert_eq!(wheel, Some(cx.heap().wheel().id()));
    cx.heap().log.push(format!("error:{operation}:{errno}"));
    Ok(())
}

pub(super) fn pair() -> (UnixStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a pair can be made");
    theirs.set_read_timeout(Some(DEADLINE)).expect("the deadline is not zero");
    (ours, theirs)
}

/// A pair whose first end is full after some kilobytes.
pub(super) fn narrow_pair() -> (UnixStream, UnixStream) {
    let (ours, theirs) = pair();
    setsockopt(&ours, sockopt::SndBuf, &4096).unwrap();
    (ours, theirs)
}

pub(super) fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    theirs.set_read_timeout(Some(DEADLINE)).unwrap();
    (listener.accept().unwrap().0, theirs)
}

/// Reads to the end.
pub(super) fn read_all(mut stream: impl Read) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("the peer closes in order");
    text
}

/// More than any socket's buffers hold.
pub(super) const MEGABYTES: usize = 8 << 20;

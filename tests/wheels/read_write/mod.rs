//! `ReadWrite`: sections 14 and 16 of the behaviour specification.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use lenore::filter::Line;
use lenore::wheel::{ReadWrite, WheelId};
use lenore::{Context, Result, Session};

use crate::util::DEADLINE;
use crate::util::in_process::Log;

mod input;
mod output;

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

/// A session that logs the lines that come, `flushed`, and `error:operation:errno`, which ends it.
pub(super) fn owner(log: &Log, stream: impl Into<OwnedFd>) -> Session<Owner> {
    Session::new(Owner { log: log.clone(), wheel: None })
        .args((stream.into(),))
        .state("_start", |cx| {
            let stream = cx.take::<OwnedFd>(0)?;
            let wheel = ReadWrite::new(stream, Line::new())
                .on_input("input")
                .on_flushed("flushed")
                .on_error("error")
                .start(cx)?;
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
        .state("error", |cx| {
            log_error(cx)?;
            cx.heap().wheel = None;
            Ok(())
        })
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

pub(super) fn log_error(cx: &mut Context<'_, Owner>) -> Result {
    assert_eq!(cx.args().len(), 4);
    let (operation, errno) = (*cx.arg::<&str>(0)?, *cx.arg::<i32>(1)?);
    assert_eq!(cx.arg::<String>(2)?.is_empty(), errno == 0, "only the end of file has no text");
    let id = cx.heap().wheel().id();
    assert_eq!(*cx.arg::<WheelId>(3)?, id);
    cx.heap().log.push(format!("error:{operation}:{errno}"));
    Ok(())
}

pub(super) fn pair() -> (UnixStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a pair can be made");
    theirs.set_read_timeout(Some(DEADLINE)).expect("the deadline is not zero");
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

//! Wheels that are written outside of the crate. No test here starts a program or forks: a child would have what is closed here.

use std::cell::Cell;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use lenore::wheel::own::{Delivery, Next, Source, Turn, Wanted, Wheel};
use lenore::{Context, Died, Readiness, Result, Session};

use util::in_process::Log;

mod misuse;
mod turns;

type Act = Box<dyn Fn(&Probe, &mut Turn<'_>, Readiness) -> Next>;

/// A source that does what a test says.
struct Probe {
    socket: UnixStream,
    wanted: Cell<Option<Wanted>>,
    act: Act,
    /// How often it has had a turn.
    turns: Rc<Cell<usize>>,
    text: Box<dyn Fn() -> String>,
    /// Does something when it is dropped.
    _drop: Option<OnDrop>,
}

struct OnDrop(Box<dyn Fn()>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        (self.0)();
    }
}

impl Probe {
    /// Makes one, and the other end of its socket.
    fn new(act: impl Fn(&Probe, &mut Turn<'_>, Readiness) -> Next + 'static) -> (Probe, UnixStream) {
        let (socket, peer) = UnixStream::pair().expect("a pair of sockets");
        let (wanted, turns) = (Cell::new(Some(Wanted::READ)), Rc::default());
        (Probe { socket, wanted, act: Box::new(act), turns, text: Box::new(String::new), _drop: None }, peer)
    }

    /// Makes one that delivers all bytes that there are.
    fn of_bytes() -> (Probe, UnixStream) {
        Probe::new(deliver_bytes)
    }

    fn next_byte(&self) -> Option<u8> {
        let mut byte = [0];
        match (&self.socket).read(&mut byte) {
            Ok(count) => (count == 1).then_some(byte[0]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }
}

fn deliver_bytes(probe: &Probe, cx: &mut Turn<'_>, _: Readiness) -> Next {
    while let Some(byte) = probe.next_byte() {
        match cx.deliver("byte", (char::from(byte), cx.id())) {
            Delivery::Done => {}
            Delivery::Failed => return Next::Again(Readiness::Read),
            Delivery::Over => break,
        }
    }
    Next::Wait
}

impl AsFd for Probe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Source for Probe {
    fn wanted(&self) -> Option<Wanted> {
        self.wanted.get()
    }

    fn turn(&self, cx: &mut Turn<'_>, readiness: Readiness) -> Next {
        self.turns.set(self.turns.get() + 1);
        (self.act)(self, cx, readiness)
    }

    fn describe(&self) -> String {
        (self.text)()
    }
}

/// The heap of a session with a probe.
struct Owner {
    log: Log,
    wheel: Option<Wheel<Probe>>,
}

/// A session that stays when its wheel is closed, has an alias, and logs bytes and exceptions.
fn owner(log: &Log, probe: Probe) -> Session<Owner> {
    Session::new(Owner { log: log.clone(), wheel: None })
        .args((probe,))
        .state("_start", |cx| {
            let probe: Probe = cx.take(0)?;
            cx.heap().wheel = Some(Wheel::start(probe, cx)?);
            cx.sig("DIE", "died");
            let me = cx.session();
            cx.refcount_increment(me, "test")?;
            Ok(cx.alias_set("owner")?)
        })
        .state("byte", byte)
        .state("died", |cx| {
            let died: Died = cx.take(1)?;
            cx.heap().log.push(format!("died in {}: {}", died.event, died.exception));
            cx.sig_handled();
            Ok(())
        })
        .state("note", |cx| cx.heap().log.push("note"))
        .state("end", end)
}

fn byte(cx: &mut Context<'_, Owner>) -> Result {
    let byte: char = cx.take(0)?;
    cx.heap().log.push(byte);
    Ok(())
}

fn end(cx: &mut Context<'_, Owner>) -> Result {
    cx.heap().wheel = None;
    let me = cx.session();
    cx.refcount_decrement(me, "test")?;
    Ok(cx.alias_remove("owner")?)
}

/// Tells whether the other end of a socket is closed.
fn is_closed(peer: &mut UnixStream) -> bool {
    peer.set_nonblocking(true).expect("a socket can be made non-blocking");
    match peer.read(&mut [0; 16]) {
        Ok(count) => count == 0,
        // There was something to read that the wheel has not read.
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

//! A wheel of its own whose event forks. The argument says what becomes of it in the child: `close`, `keep`, `break` (a panic
//! where it is asked), or `panic` (it is kept, and its turn panics).

use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::process::{self, ExitStatus};
use std::time::Duration;

use lenore::wheel::own::{AfterFork, Delivery, Next, Source, Turn, Wheel};
use lenore::{Context, Kernel, Readiness, Result, Session};

/// Sends an event for each byte.
struct Bytes {
    socket: UnixStream,
    what: String,
    /// The process that has made it.
    parent: u32,
}

impl Bytes {
    fn process(&self) -> &'static str {
        if process::id() == self.parent { "parent" } else { "child" }
    }
}

impl AsFd for Bytes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Source for Bytes {
    fn turn(&self, cx: &mut Turn<'_>, _: Readiness) -> Next {
        let mut byte = [0];
        loop {
            match (&self.socket).read(&mut byte) {
                Ok(1) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Next::Wait,
                other => panic!("{other:?}"),
            }
            let delivery = cx.deliver("byte", (char::from(byte[0]),));
            println!("{}: {delivery:?}", self.process());
            if delivery == Delivery::Over {
                assert_ne!(self.what, "panic", "on purpose");
                return Next::Wait;
            }
        }
    }

    fn after_fork(&self) -> AfterFork {
        match self.what.as_str() {
            "keep" | "panic" => AfterFork::Keep,
            "close" => AfterFork::Close,
            what => panic!("{what}"),
        }
    }
}

struct Owner {
    what: String,
    wheel: Option<Wheel<Bytes>>,
    peer: UnixStream,
    /// Both ends of a pipe that holds the child up until its parent closes its end.
    gate: (PipeReader, Option<PipeWriter>),
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let what = std::env::args().nth(1).expect("an argument");
    let (socket, peer) = UnixStream::pair()?;
    let (reader, writer) = io::pipe()?;
    let mut kernel = Kernel::new()?;
    Session::new(Owner { what, wheel: None, peer, gate: (reader, Some(writer)) })
        .args((socket,))
        .state("_start", |cx| {
            let socket = cx.take(0)?;
            let source = Bytes { socket, what: cx.heap().what.clone(), parent: process::id() };
            cx.heap().wheel = Some(Wheel::start(source, cx)?);
            Ok((&cx.heap().peer).write_all(b"a")?)
        })
        .state("byte", |cx| {
            match cx.take::<char>(0)? {
                'a' => cx.fork("parent", "child", ()),
                byte => {
                    println!("{byte}");
                    cx.heap().wheel = None;
                }
            }
            Ok(())
        })
        .state("parent", |cx| {
            let pid = cx.take::<std::result::Result<i32, lenore::Error>>(0)??;
            cx.sig_child(pid, "ended", ());
            cx.yield_("drop", ());
            Ok(())
        })
        .state("drop", |cx| {
            cx.heap().wheel = None;
            cx.yield_("dropped", ());
        })
        .state("dropped", dropped)
        .state("child", |cx| {
            cx.heap().gate.1 = None;
            // Behind what is left of the turn in which it was forked.
            cx.yield_("look", ());
        })
        .state("look", |cx| {
            cx.heap().gate.0.read_to_end(&mut Vec::new())?;
            println!("child: {:?}", cx.heap().wheel.as_ref().and_then(|wheel| wheel.with(|_| "open")));
            Ok(())
        })
        .state("ended", |cx| {
            println!("parent: the child has ended: {}", cx.arg::<ExitStatus>(2)?);
            Ok(())
        })
        .spawn(&mut kernel)?;
    Ok(kernel.run()?)
}

fn dropped(cx: &mut Context<'_, Owner>) -> Result {
    let Owner { what, peer, gate, .. } = cx.heap();
    if what == "keep" {
        // Only the child's wheel is there to read it.
        peer.write_all(b"b")?;
    } else if what != "panic" {
        peer.set_read_timeout(Some(Duration::from_secs(10)))?;
        println!("parent: the peer reads {:?}", peer.read(&mut [0]).map_err(|error| error.kind()));
    }
    gate.1 = None;
    Ok(())
}

//! The line echo on calloop: `Generic` sources, level-triggered as calloop's own examples are.
//!
//! Level-triggered is also its fastest form here: calloop does not tell that the peer has shut down its side, so
//! with edges every round trip would take a second read.

use std::io::{self, ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

use calloop::generic::Generic;
use calloop::{
    EventLoop, EventSource, Interest, LoopHandle, LoopSignal, Mode, Poll, PostAction, Readiness, Token, TokenFactory,
};

use super::line_echo::{CHUNK, LineEcho};

/// What the callbacks share.
struct Shared<'a> {
    handle: LoopHandle<'a, Shared<'a>>,
    signal: LoopSignal,
    stop: &'a AtomicBool,
    chunk: Vec<u8>,
}

/// One client: a `Generic` and, beside it, what its callback could not reach inside it, the interest.
struct Connection {
    socket: Generic<TcpStream>,
    echo: LineEcho,
}

/// Serves until `stop` is found set after an accept: see [`super::Server::start`].
pub fn serve(listener: TcpListener, stop: &AtomicBool) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let mut event_loop = EventLoop::try_new()?;
    let mut shared =
        Shared { handle: event_loop.handle(), signal: event_loop.get_signal(), stop, chunk: vec![0; CHUNK] };
    let listener = Generic::new(listener, Interest::READ, Mode::Level);
    event_loop
        .handle()
        .insert_source(listener, |_, listener, shared: &mut Shared<'_>| {
            shared.accept_all(listener)?;
            Ok(PostAction::Continue)
        })
        .map_err(|refused| io::Error::other(refused.error))?;
    event_loop.run(None, &mut shared, |_| {})?;
    Ok(())
}

impl Shared<'_> {
    fn accept_all(&mut self, listener: &TcpListener) -> io::Result<()> {
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            stream.set_nonblocking(true)?;
            let connection =
                Connection { socket: Generic::new(stream, Interest::READ, Mode::Level), echo: LineEcho::default() };
            self.handle
                .insert_source(connection, |readiness, connection, shared| {
                    connection.turn(readiness, &mut shared.chunk)
                })
                .map_err(|refused| io::Error::other(refused.error))?;
        }
        if self.stop.load(Ordering::Acquire) {
            self.signal.stop();
        }
        Ok(())
    }
}

impl Connection {
    /// Reads once, replies once; what is left is an event again.
    fn turn(&mut self, readiness: Readiness, chunk: &mut [u8]) -> PostAction {
        match self.read_and_reply(readiness, chunk) {
            Ok(PostAction::Continue) => self.follow_output(),
            Ok(action) => action,
            // An error would end the whole loop, and it concerns this peer only.
            Err(_) => PostAction::Remove,
        }
    }

    fn read_and_reply(&mut self, readiness: Readiness, chunk: &mut [u8]) -> io::Result<PostAction> {
        let mut stream = self.socket.get_ref();
        if readiness.writable {
            self.echo.flush(stream)?;
        }
        if !self.echo.is_flushed() || !readiness.readable {
            return Ok(PostAction::Continue);
        }
        let read = match stream.read(chunk) {
            Ok(0) => return Ok(PostAction::Remove),
            Ok(read) => read,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(PostAction::Continue);
            }
            Err(error) => return Err(error),
        };
        self.echo.feed(&chunk[..read])?;
        self.echo.flush(stream)?;
        Ok(PostAction::Continue)
    }

    /// Waits for the peer to read its replies before it reads on.
    fn follow_output(&mut self) -> PostAction {
        let blocked = !self.echo.is_flushed();
        if blocked == self.socket.interest.writable {
            return PostAction::Continue;
        }
        self.socket.interest = match blocked {
            true => Interest::WRITE,
            false => Interest::READ,
        };
        PostAction::Reregister
    }
}

impl EventSource for Connection {
    type Event = Readiness;
    type Metadata = Connection;
    type Ret = PostAction;
    type Error = io::Error;

    fn process_events<F>(
        &mut self,
        readiness: Readiness,
        _: Token, // there is only one
        mut callback: F,
    ) -> io::Result<PostAction>
    where
        F: FnMut(Readiness, &mut Connection) -> PostAction,
    {
        Ok(callback(readiness, self))
    }

    fn register(&mut self, poll: &mut Poll, factory: &mut TokenFactory) -> calloop::Result<()> {
        self.socket.register(poll, factory)
    }

    fn reregister(&mut self, poll: &mut Poll, factory: &mut TokenFactory) -> calloop::Result<()> {
        self.socket.reregister(poll, factory)
    }

    fn unregister(&mut self, poll: &mut Poll) -> calloop::Result<()> {
        self.socket.unregister(poll)
    }
}

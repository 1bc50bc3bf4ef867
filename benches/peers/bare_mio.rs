//! The line echo on nothing but mio: edge-triggered, one read and one write a round trip.

use std::io::{self, ErrorKind, Read};
use std::net;
use std::sync::atomic::{AtomicBool, Ordering};

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use slab::Slab;

use super::line_echo::{CHUNK, LineEcho};

/// The listener's token; connections have their slab keys.
const LISTENER: Token = Token(usize::MAX);

/// One client.
#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    echo: LineEcho,
    /// The peer has shut down its side. An edge tells it once, and a short read no longer means "all read".
    read_closed: bool,
    /// Input was left unread, since replies wait for the peer to read; no new edge will tell of it.
    unread: bool,
}

/// What becomes of a connection after an event.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Keep,
    Close,
}

/// Serves until `stop` is found set after an accept: see [`super::Server::start`].
pub fn serve(listener: net::TcpListener, stop: &AtomicBool) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let mut listener = TcpListener::from_std(listener);
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut connections = Slab::new();
    let mut chunk = vec![0; CHUNK];
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            if event.token() == LISTENER {
                accept_all(&listener, poll.registry(), &mut connections)?;
                if stop.load(Ordering::Acquire) {
                    return Ok(());
                }
                continue;
            }
            let key = event.token().0;
            let connection: &mut Connection = &mut connections[key];
            // An error of the stream concerns its peer only.
            if connection.turn(event, &mut chunk).unwrap_or(Fate::Close) == Fate::Close {
                poll.registry().deregister(&mut connection.stream)?;
                connections.remove(key);
            }
        }
    }
}

fn accept_all(listener: &TcpListener, registry: &Registry, connections: &mut Slab<Connection>) -> io::Result<()> {
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let entry = connections.vacant_entry();
        // Both at once: with edges, writability that is always registered costs one event at the start.
        let both = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut stream, Token(entry.key()), both)?;
        entry.insert(Connection { stream, echo: LineEcho::default(), read_closed: false, unread: false });
    }
}

impl Connection {
    fn turn(&mut self, event: &Event, chunk: &mut [u8]) -> io::Result<Fate> {
        self.read_closed |= event.is_read_closed();
        if !self.echo.is_flushed() {
            self.echo.flush(&self.stream)?;
        }
        // A hang-up or an error shows as readable, too: read(2) tells which.
        if event.is_readable() || event.is_read_closed() || event.is_error() || self.unread {
            return self.read_all(chunk);
        }
        Ok(Fate::Keep)
    }

    /// Reads and replies, chunk by chunk, until nothing is left to read or the replies stop going out.
    fn read_all(&mut self, chunk: &mut [u8]) -> io::Result<Fate> {
        loop {
            self.unread = !self.echo.is_flushed();
            if self.unread {
                return Ok(Fate::Keep);
            }
            let read = match self.stream.read(chunk) {
                Ok(0) => return Ok(Fate::Close),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Fate::Keep),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.echo.feed(&chunk[..read])?;
            self.echo.flush(&self.stream)?;
            // A short read has emptied the socket: what comes later is a new edge. It saves a read a round trip.
            if read < chunk.len() && !self.read_closed && self.echo.is_flushed() {
                return Ok(Fate::Keep);
            }
        }
    }
}

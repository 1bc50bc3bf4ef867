//! A line echo over TLS on nothing but mio and rustls: edge-triggered, one read and one write a round trip.

use std::io::{self, ErrorKind, Read};
use std::net;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lenore::tls::rustls::{ServerConfig, ServerConnection};
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use crate::peers::line_echo::{CHUNK, LineEcho};

/// The listener's token; connections have their slab keys.
const LISTENER: Token = Token(usize::MAX);

/// One client.
#[derive(Debug)]
struct Connection {
    socket: Counting,
    tls: ServerConnection,
    echo: LineEcho,
}

/// A socket that knows whether its last read has emptied it.
#[derive(Debug)]
struct Counting {
    stream: TcpStream,
    is_short: bool,
}

impl Read for Counting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.is_short = count < buffer.len();
        Ok(count)
    }
}

/// Serves until `stop` is found set after an accept: see `Server::start`.
pub fn serve(listener: net::TcpListener, stop: &AtomicBool, config: &Arc<ServerConfig>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let mut listener = TcpListener::from_std(listener);
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut connections = Slab::<Connection>::new();
    let mut chunk = vec![0; CHUNK];
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Some(mut stream) = accept(&listener)? {
                    let entry = connections.vacant_entry();
                    let both = Interest::READABLE | Interest::WRITABLE;
                    poll.registry().register(&mut stream, Token(entry.key()), both)?;
                    let tls = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
                    let socket = Counting { stream, is_short: false };
                    entry.insert(Connection { socket, tls, echo: LineEcho::default() });
                }
                if stop.load(Ordering::Acquire) {
                    return Ok(());
                }
                continue;
            }
            let key = event.token().0;
            // An error of the stream concerns its peer only.
            if !connections[key].turn(event, &mut chunk).unwrap_or(false) {
                poll.registry().deregister(&mut connections[key].socket.stream)?;
                connections.remove(key);
            }
        }
    }
}

fn accept(listener: &TcpListener) -> io::Result<Option<TcpStream>> {
    match listener.accept() {
        Ok((stream, _)) => Ok(Some(stream)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

impl Connection {
    /// Reads, answers and writes. Returns whether the connection goes on.
    fn turn(&mut self, event: &Event, chunk: &mut [u8]) -> io::Result<bool> {
        self.flush()?;
        while event.is_readable() || event.is_read_closed() || event.is_error() {
            match self.tls.read_tls(&mut self.socket) {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            self.tls.process_new_packets().map_err(io::Error::other)?;
            loop {
                match self.tls.reader().read(chunk) {
                    Ok(0) => return Ok(false),
                    Ok(count) => self.echo.feed(&chunk[..count])?,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
            self.flush()?;
            // A short read has emptied the socket: what comes later is a new edge.
            if self.socket.is_short && !event.is_read_closed() {
                break;
            }
        }
        Ok(true)
    }

    /// Encrypts and writes the replies. `WouldBlock` is no error: the rest waits for an event.
    fn flush(&mut self) -> io::Result<()> {
        if !self.tls.is_handshaking() && !self.echo.is_flushed() {
            self.echo.flush(self.tls.writer())?;
        }
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.socket.stream) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

//! A hello server on nothing but mio and httparse: edge-triggered, one read and one write a request.

use std::io::{self, ErrorKind, Read, Write};
use std::net;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use httparse::Status;
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

/// The listener's token; connections have their slab keys.
const LISTENER: Token = Token(usize::MAX);

/// The size of the read buffer, one for all connections.
const CHUNK: usize = 16 * 1024;

/// One client.
#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    /// The start of a request whose end has not been read.
    partial: Vec<u8>,
    /// Responses, of which the first `written` bytes have been written.
    output: Vec<u8>,
    written: usize,
    keep_alive: bool,
}

/// The line with the date, made once a second.
#[derive(Debug, Default)]
struct Date {
    second: u64,
    line: String,
}

/// Serves until `stop` is found set after an accept: see [`super::peers::Server::start`].
pub fn serve(listener: net::TcpListener, stop: &AtomicBool) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let mut listener = TcpListener::from_std(listener);
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut connections = Slab::<Connection>::new();
    let (mut chunk, mut date) = (vec![0; CHUNK], Date::default());
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
                    let (partial, output) = (Vec::new(), Vec::new());
                    entry.insert(Connection { stream, partial, output, written: 0, keep_alive: true });
                }
                if stop.load(Ordering::Acquire) {
                    return Ok(());
                }
                continue;
            }
            let key = event.token().0;
            // An error of the stream concerns its peer only.
            if !connections[key].turn(event, &mut chunk, &mut date).unwrap_or(false) {
                poll.registry().deregister(&mut connections[key].stream)?;
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
    fn turn(&mut self, event: &Event, chunk: &mut [u8], date: &mut Date) -> io::Result<bool> {
        self.flush()?;
        while event.is_readable() || event.is_read_closed() || event.is_error() {
            let read = match self.stream.read(chunk) {
                Ok(0) => return Ok(false),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.feed(&chunk[..read], date)?;
            self.flush()?;
            // A short read has emptied the socket: what comes later is a new edge.
            if read < chunk.len() && !event.is_read_closed() {
                break;
            }
        }
        Ok(self.keep_alive || self.written < self.output.len())
    }

    fn feed(&mut self, fresh: &[u8], date: &mut Date) -> io::Result<()> {
        let whole;
        let mut rest = fresh;
        if !self.partial.is_empty() {
            self.partial.extend_from_slice(fresh);
            whole = std::mem::take(&mut self.partial);
            rest = &whole;
        }
        while !rest.is_empty() {
            let mut headers = [httparse::EMPTY_HEADER; 32];
            let mut request = httparse::Request::new(&mut headers);
            match request.parse(rest).map_err(|_| ErrorKind::InvalidData)? {
                Status::Complete(length) => {
                    rest = &rest[length..];
                    for header in request.headers.iter() {
                        if header.name.eq_ignore_ascii_case("connection") {
                            self.keep_alive = !header.value.eq_ignore_ascii_case(b"close");
                        } else if header.name.eq_ignore_ascii_case("content-length") {
                            return Err(ErrorKind::Unsupported.into());
                        }
                    }
                    answer(&request, date, &mut self.output)?;
                }
                Status::Partial => break,
            }
        }
        self.partial.extend_from_slice(rest);
        Ok(())
    }

    /// Writes the responses. `WouldBlock` is no error: the rest waits for an event.
    fn flush(&mut self) -> io::Result<()> {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => self.written += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(())
    }
}

fn answer(request: &httparse::Request<'_, '_>, date: &mut Date, out: &mut Vec<u8>) -> io::Result<()> {
    let (status, body) = match (request.method, request.path) {
        (Some("GET"), Some("/hello")) => ("200 OK", "hello\n"),
        _ => ("404 Not Found", "nothing\n"),
    };
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if date.second != second {
        *date = Date { second, line: format!("Date: {}\r\n", httpdate::fmt_http_date(now)) };
    }
    let (line, length) = (&date.line, body.len());
    write!(out, "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\n{line}Content-Length: {length}\r\n\r\n{body}")
}

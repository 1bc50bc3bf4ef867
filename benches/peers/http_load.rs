//! The load on HTTP servers: clients that keep their connections, all on the calling thread.
//!
//! As with the line echo, a wrong response, a closed connection or silence panics: no server wins by being wrong.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

/// What clients send.
const REQUEST: &[u8] = b"GET /hello HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n";

/// What responses begin and end with. All of a server's have the same length.
const START: &[u8] = b"HTTP/1.1 200 OK\r\n";
const END: &[u8] = b"\r\n\r\nhello\n";

/// How long a server may be silent.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections that are made once and then held.
#[derive(Debug)]
pub struct HttpLoad {
    poll: Poll,
    events: Events,
    clients: Vec<Client>,
}

/// One connection.
#[derive(Debug)]
struct Client {
    stream: TcpStream,
    response: Vec<u8>,
    /// How long a response is; 0 until the first has come.
    length: usize,
    /// How many are still to come in this run.
    left: u64,
}

impl HttpLoad {
    /// Connects `connections` clients, and has each answered once.
    pub fn connect(addr: SocketAddr, connections: usize) -> io::Result<HttpLoad> {
        let poll = Poll::new()?;
        let mut clients = Vec::new();
        for place in 0..connections {
            // Waits for the connection, so that all requests go out whole at once.
            let stream = std::net::TcpStream::connect(addr)?;
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(place), Interest::READABLE)?;
            clients.push(Client { stream, response: Vec::new(), length: 0, left: 0 });
        }
        let mut load = HttpLoad { poll, events: Events::with_capacity(connections.max(1)), clients };
        load.round_trips(1)?;
        Ok(load)
    }

    /// Has each client answered `rounds` times, whatever the others do. Returns the time from the first request to the
    /// last response.
    pub fn round_trips(&mut self, rounds: u64) -> io::Result<Duration> {
        let start = Instant::now();
        for client in &mut self.clients {
            client.left = rounds;
            if rounds > 0 {
                client.ask()?;
            }
        }
        let mut busy = if rounds > 0 { self.clients.len() } else { 0 };
        while busy > 0 {
            match self.poll.poll(&mut self.events, Some(PATIENCE)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            assert!(!self.events.is_empty(), "the server was silent for {PATIENCE:?}");
            for event in &self.events {
                let client = &mut self.clients[event.token().0];
                if client.is_answered()? {
                    client.left -= 1;
                    match client.left {
                        0 => busy -= 1,
                        _ => client.ask()?,
                    }
                }
            }
        }
        Ok(start.elapsed())
    }
}

impl Client {
    fn ask(&mut self) -> io::Result<()> {
        self.response.clear();
        let written = self.stream.write(REQUEST)?;
        assert_eq!(written, REQUEST.len(), "an empty socket took part of a request");
        Ok(())
    }

    /// Reads what has come; tells whether the response is whole.
    fn is_answered(&mut self) -> io::Result<bool> {
        let mut chunk = [0; 1024];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => panic!("the server closed a connection"),
                Ok(read) => self.response.extend_from_slice(&chunk[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            if self.response.ends_with(END) {
                break;
            }
        }
        assert!(self.response.starts_with(START), "{}", String::from_utf8_lossy(&self.response));
        if self.length == 0 {
            self.length = self.response.len();
        }
        assert_eq!(self.response.len(), self.length, "not one response");
        Ok(true)
    }
}

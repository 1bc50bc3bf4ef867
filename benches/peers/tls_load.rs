//! The load for servers that speak TLS: clients of a line echo, all on the calling thread, that stay.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lenore::tls::rustls::{ClientConfig, ClientConnection};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

/// How long a server may be silent.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections that are made once and then held.
#[derive(Debug)]
pub struct TlsLoad {
    poll: Poll,
    events: Events,
    clients: Vec<Client>,
    /// What each sends, a line.
    line: Vec<u8>,
}

#[derive(Debug)]
struct Client {
    stream: TcpStream,
    tls: ClientConnection,
    /// How much of the reply has come.
    filled: usize,
    /// How many replies it still awaits.
    left: u64,
}

impl TlsLoad {
    /// Connects, and makes one round trip with each: all handshakes are done. A line has `octets` with its end.
    pub fn connect(
        addr: SocketAddr,
        config: &Arc<ClientConfig>,
        connections: usize,
        octets: usize,
    ) -> io::Result<TlsLoad> {
        let poll = Poll::new()?;
        let name = "localhost".try_into().map_err(io::Error::other)?;
        let mut clients = Vec::new();
        for place in 0..connections {
            let mut stream = TcpStream::from_std({
                let stream = std::net::TcpStream::connect(addr)?;
                stream.set_nonblocking(true)?;
                stream
            });
            poll.registry().register(&mut stream, Token(place), Interest::READABLE | Interest::WRITABLE)?;
            let tls = ClientConnection::new(Arc::clone(config), Clone::clone(&name)).map_err(io::Error::other)?;
            clients.push(Client { stream, tls, filled: 0, left: 0 });
        }
        let mut line = vec![b'x'; octets - 2];
        line.extend_from_slice(b"\r\n");
        let mut load = TlsLoad { poll, events: Events::with_capacity(connections), clients, line };
        load.round_trips(1)?;
        Ok(load)
    }

    /// Each connection sends a line, awaits its echo, and does so `rounds` times, whatever the others do.
    pub fn round_trips(&mut self, rounds: u64) -> io::Result<Duration> {
        let TlsLoad { poll, events, clients, line } = self;
        let start = Instant::now();
        for client in &mut *clients {
            client.left = rounds;
            client.send(line)?;
        }
        let mut busy = if rounds > 0 { clients.len() } else { 0 };
        while busy > 0 {
            match poll.poll(events, Some(PATIENCE)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            assert!(!events.is_empty(), "the server was silent for {PATIENCE:?}");
            for event in &*events {
                let client = &mut clients[event.token().0];
                let before = client.left;
                client.turn(line)?;
                busy -= usize::from(before > 0 && client.left == 0);
            }
        }
        Ok(start.elapsed())
    }
}

impl Client {
    fn send(&mut self, line: &[u8]) -> io::Result<()> {
        self.filled = 0;
        self.tls.writer().write_all(line)?;
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.stream) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn turn(&mut self, line: &[u8]) -> io::Result<()> {
        self.flush()?;
        let mut chunk = [0; 16 * 1024];
        loop {
            match self.tls.read_tls(&mut self.stream) {
                Ok(0) => panic!("the server closed a connection before its reply"),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            self.tls.process_new_packets().map_err(io::Error::other)?;
            loop {
                match self.tls.reader().read(&mut chunk) {
                    Ok(0) => panic!("the server closed a connection before its reply"),
                    Ok(count) => {
                        assert_eq!(chunk[..count], line[self.filled..self.filled + count], "not what was sent");
                        self.filled += count;
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
            self.flush()?;
            if self.filled == line.len() {
                self.left -= 1;
                if self.left > 0 {
                    self.send(line)?;
                } else {
                    self.filled = 0;
                }
            }
        }
    }
}

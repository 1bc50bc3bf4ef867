//! The load: clients of a line echo server, all on the calling thread, the same for every server.
//!
//! A round trip costs a client one write, one read and its share of an epoll_wait. What comes back is compared with
//! what was sent; a wrong reply, a closed connection or silence panics, so that no server wins by being wrong.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

/// What clients send: 32 bytes with the line's end.
pub const LINE: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz0123\r\n";

/// How long a server may be silent.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections that are made once and then held: Criterion's `iter_custom` calls [`HeldLoad::round_trips`].
#[derive(Debug)]
pub struct HeldLoad {
    clients: Clients,
    /// How many replies each connection still awaits in this run.
    left: Vec<u64>,
}

impl HeldLoad {
    /// Connects `connections` clients, and makes one round trip with each: the server has accepted them all.
    pub fn connect(addr: SocketAddr, connections: usize) -> io::Result<HeldLoad> {
        let mut clients = Clients::new(connections)?;
        for place in 0..connections {
            clients.dial(addr, place)?;
        }
        let mut load = HeldLoad { clients, left: vec![1; connections] };
        load.answer_all()?;
        Ok(load)
    }

    /// Each connection sends a line, awaits its echo, and does so `rounds` times, whatever the others do.
    ///
    /// Returns the time from the first line to the last echo of all.
    pub fn round_trips(&mut self, rounds: u64) -> io::Result<Duration> {
        let start = Instant::now();
        if rounds > 0 {
            self.left.fill(rounds);
            for place in 0..self.left.len() {
                self.clients.at(place).send_again()?;
            }
            self.answer_all()?;
        }
        Ok(start.elapsed())
    }

    fn answer_all(&mut self) -> io::Result<()> {
        let mut busy = self.left.len();
        while busy > 0 {
            self.clients.poll()?;
            for index in 0..self.clients.ready.len() {
                let place = self.clients.ready[index];
                let client = self.clients.at(place);
                if client.turn()? == Turn::Waits {
                    continue;
                }
                self.left[place] -= 1;
                match self.left[place] {
                    0 => busy -= 1,
                    _ => client.send_again()?,
                }
            }
        }
        Ok(())
    }
}

/// `rounds` round trips on each of `connections` connections, not counting the time to connect.
pub fn round_trips(addr: SocketAddr, connections: usize, rounds: u64) -> io::Result<Duration> {
    HeldLoad::connect(addr, connections)?.round_trips(rounds)
}

/// Connects, sends a line, reads the reply and closes, `n` times in all, at most `concurrent` at a time.
pub fn connection_echo(addr: SocketAddr, n: u64, concurrent: usize) -> io::Result<Duration> {
    let start = Instant::now();
    let mut clients = Clients::new(concurrent)?;
    let mut to_dial = n;
    let mut to_answer = n;
    for place in 0..concurrent {
        if to_dial > 0 {
            to_dial -= 1;
            clients.dial(addr, place)?;
        }
    }
    while to_answer > 0 {
        clients.poll()?;
        for index in 0..clients.ready.len() {
            let place = clients.ready[index];
            if clients.at(place).turn()? == Turn::Waits {
                continue;
            }
            to_answer -= 1;
            clients.places[place] = None; // closes; the kernel takes the last descriptor out of the epoll set
            if to_dial > 0 {
                to_dial -= 1;
                clients.dial(addr, place)?;
            }
        }
    }
    Ok(start.elapsed())
}

/// `n` clients connect at once, send a line each, and stay until the last of them has its reply.
///
/// For servers that give each connection a process and keep it while the connection lasts.
pub fn held_burst(addr: SocketAddr, n: usize) -> io::Result<Duration> {
    let start = Instant::now();
    let load = HeldLoad::connect(addr, n)?;
    let taken = start.elapsed();
    drop(load); // closing is not part of it
    Ok(taken)
}

/// Clients in numbered places; the number is the token.
#[derive(Debug)]
struct Clients {
    poll: Poll,
    events: Events,
    places: Vec<Option<Client>>,
    /// The places that the last poll found ready.
    ready: Vec<usize>,
}

impl Clients {
    fn new(places: usize) -> io::Result<Clients> {
        Ok(Clients {
            poll: Poll::new()?,
            events: Events::with_capacity(places.max(1)),
            places: (0..places).map(|_| None).collect(),
            ready: Vec::with_capacity(places),
        })
    }

    /// Connects and sends. On the loopback the connection stands when connect(2) returns, so that the line mostly
    /// goes out at once, before anything is registered.
    fn dial(&mut self, addr: SocketAddr, place: usize) -> io::Result<()> {
        let mut client = Client { stream: TcpStream::connect(addr)?, sent: false, reply: [0; LINE.len()], filled: 0 };
        client.send()?;
        let interest = match client.sent {
            true => Interest::READABLE,
            false => Interest::READABLE | Interest::WRITABLE,
        };
        self.poll.registry().register(&mut client.stream, Token(place), interest)?;
        self.places[place] = Some(client);
        Ok(())
    }

    fn at(&mut self, place: usize) -> &mut Client {
        self.places[place].as_mut().expect("only a client that is there is registered")
    }

    /// Fills `ready`.
    fn poll(&mut self) -> io::Result<()> {
        match self.poll.poll(&mut self.events, Some(PATIENCE)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            polled => polled?,
        }
        assert!(!self.events.is_empty(), "the server was silent for {PATIENCE:?}");
        self.ready.clear();
        self.ready.extend(self.events.iter().map(|event| event.token().0));
        Ok(())
    }
}

/// One connection, and one line on its way.
#[derive(Debug)]
struct Client {
    stream: TcpStream,
    sent: bool,
    reply: [u8; LINE.len()],
    filled: usize,
}

/// What a turn came to.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    Waits,
    Answered,
}

impl Client {
    fn send_again(&mut self) -> io::Result<()> {
        self.sent = false;
        self.filled = 0;
        self.send()
    }

    /// Sends the line if the connection stands. Its 32 bytes go out whole or not at all: the socket is empty.
    fn send(&mut self) -> io::Result<()> {
        match self.stream.write(LINE) {
            Ok(written) => {
                assert_eq!(written, LINE.len(), "an empty socket took part of a line");
                self.sent = true;
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Goes on where it left off. It reads no further than the reply's end: nothing more comes before the next line.
    fn turn(&mut self) -> io::Result<Turn> {
        if !self.sent {
            self.send()?;
        }
        while self.filled < LINE.len() {
            match self.stream.read(&mut self.reply[self.filled..]) {
                Ok(0) => panic!("the server closed a connection before its reply"),
                Ok(read) => self.filled += read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Turn::Waits),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        assert_eq!(&self.reply, LINE, "not what was sent");
        Ok(Turn::Answered)
    }
}

//! Clients that never pause: whatever goes wrong with one of their requests is counted.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use util::Client;

/// Clients at work.
#[derive(Debug)]
pub struct Load {
    is_over: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Tally>>,
}

/// What has become of requests.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub answered: usize,
    /// The connection was refused.
    pub refused: usize,
    pub reset: usize,
    /// The connection ended without an answer, or none came in time.
    pub unanswered: usize,
    pub first: Option<String>,
}

/// How a client behaves.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// One connection for each request.
    Close,
    /// Many requests on each connection, for as long as the server lets it.
    Keep,
    /// Requests that take 300 ms.
    Slow,
}

impl Load {
    pub fn begin(addr: SocketAddr) -> Load {
        Load::of(addr, &[Kind::Close, Kind::Keep, Kind::Slow])
    }

    /// Without a client that keeps its connection: the protocol has no word for the last answer, so such a client can't know that
    /// another request comes too late.
    pub fn without_kept(addr: SocketAddr) -> Load {
        Load::of(addr, &[Kind::Close, Kind::Close, Kind::Slow])
    }

    fn of(addr: SocketAddr, kinds: &[Kind]) -> Load {
        let is_over = Arc::new(AtomicBool::new(false));
        let clients = kinds.iter().copied().map(|kind| {
            let is_over = Arc::clone(&is_over);
            thread::spawn(move || work(addr, kind, &is_over))
        });
        let clients = clients.collect();
        Load { is_over, clients }
    }

    pub fn end(self) -> Tally {
        self.is_over.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for client in self.clients {
            let tally = client.join().expect("it does not panic");
            all.answered += tally.answered;
            all.refused += tally.refused;
            all.reset += tally.reset;
            all.unanswered += tally.unanswered;
            all.first = all.first.or(tally.first);
        }
        all
    }
}

impl Tally {
    #[track_caller]
    pub fn assert_nothing_lost(&self) {
        assert_eq!((self.refused, self.reset, self.unanswered), (0, 0, 0), "{self:?}");
        assert!(self.answered > 0, "{self:?}");
    }

    fn note(&mut self, doing: &str, error: &std::io::Error) {
        match error.kind() {
            ErrorKind::ConnectionRefused => self.refused += 1,
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => self.reset += 1,
            _ => self.unanswered += 1,
        }
        self.first.get_or_insert_with(|| format!("{doing}: {error}"));
    }
}

fn work(addr: SocketAddr, kind: Kind, is_over: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    while !is_over.load(Ordering::Relaxed) {
        let mut client = match Client::try_connect(addr) {
            Ok(client) => client,
            Err(error) => {
                tally.note("connect", &error);
                continue;
            }
        };
        let most = if matches!(kind, Kind::Keep) { usize::MAX } else { 1 };
        for _ in 0..most {
            let line = if matches!(kind, Kind::Slow) { "late 300" } else { "x" };
            if let Err(error) = client.try_send(format!("{line}\r\n")) {
                tally.note("send", &error);
                break;
            }
            match client.try_read_line() {
                Ok(Some(answer)) => {
                    tally.answered += 1;
                    if answer.ends_with(" last") || is_over.load(Ordering::Relaxed) {
                        break;
                    }
                }
                Ok(None) => {
                    tally.unanswered += 1;
                    tally.first.get_or_insert_with(|| format!("{kind:?}: no answer"));
                    break;
                }
                Err(error) => {
                    tally.note("read", &error);
                    break;
                }
            }
        }
    }
    tally
}

//! Clients of the status listener while a new program takes over.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use nix::sys::signal::Signal;
use util::http::status_address;
use util::{DEADLINE, kill, wait_until};

use super::upgrading::{on_probation, pool, serves, upgrade, wait_alone};

/// How a client uses its connections.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// One connection for each request.
    Close,
    /// Many requests on each connection, until an answer says that it is the last.
    Keep,
}

/// Clients that ask without a pause.
struct Probes {
    is_over: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Probes {
    fn begin(address: SocketAddr, probes: &[(Kind, &'static str)]) -> Probes {
        let (is_over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let clients = probes.iter().copied().map(|(kind, path)| {
            let (is_over, answered) = (Arc::clone(&is_over), Arc::clone(&answered));
            thread::spawn(move || probe(address, kind, path, &is_over, &answered))
        });
        let clients = clients.collect();
        Probes { is_over, answered, clients }
    }

    /// Waits for so many more answers.
    #[track_caller]
    fn wait_for(&self, more: usize) {
        let before = self.answered.load(Ordering::Relaxed);
        wait_until("answers", DEADLINE, || (self.answered.load(Ordering::Relaxed) >= before + more).then_some(()));
    }

    #[track_caller]
    fn assert_nothing_lost(self) {
        self.is_over.store(true, Ordering::Relaxed);
        let lost = self.clients.into_iter().flat_map(|client| client.join().expect("it does not panic"));
        let (lost, answered) = (lost.collect::<Vec<_>>(), self.answered.load(Ordering::Relaxed));
        assert!(lost.is_empty(), "{} of {answered} requests: {lost:?}", lost.len());
    }
}

/// Returns what has gone wrong.
fn probe(address: SocketAddr, kind: Kind, path: &str, is_over: &AtomicBool, answered: &AtomicUsize) -> Vec<String> {
    let mut lost = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let mut number = 0;
        let outcome = connect(address).and_then(|mut stream| {
            while !is_over.load(Ordering::Relaxed) {
                let answer = ask(&mut stream, kind, path)?;
                number += 1;
                if !answer.starts_with("HTTP/1.1 200 ") {
                    return Err(io::Error::other(answer));
                }
                answered.fetch_add(1, Ordering::Relaxed);
                if answer.to_ascii_lowercase().contains("connection: close") {
                    break;
                }
            }
            Ok(())
        });
        if let Err(error) = outcome {
            lost.push(format!("{path} {kind:?}, request {number}: {error}"));
        }
    }
    lost
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Asks once, and returns the head of the answer, of which the body has one line.
fn ask(stream: &mut TcpStream, kind: Kind, path: &str) -> io::Result<String> {
    let last = if matches!(kind, Kind::Close) { "Connection: close\r\n" } else { "" };
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: test\r\n{last}\r\n").as_bytes())?;
    let mut answer = Vec::new();
    loop {
        let mut chunk = [0; 1024];
        let length = stream.read(&mut chunk)?;
        if length == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&chunk[..length]);
        let text = String::from_utf8_lossy(&answer);
        if text.split_once("\r\n\r\n").is_some_and(|(_, body)| body.ends_with('\n')) {
            return Ok(text.into_owned());
        }
    }
}

#[test] // O-UP-01: probes as well, which find the service ready at any time
fn probes_that_never_pause_lose_nothing_over_three_upgrades() {
    // The old process is there for a while after the switch, or ends at once.
    for probation in [100, 0] {
        let changing = pool(2, probation, "--status 127.0.0.1:0");
        let kinds = [(Kind::Close, "/live"), (Kind::Close, "/ready"), (Kind::Keep, "/ready")];
        let probes = Probes::begin(status_address(&changing.running), &kinds);
        for _ in 0..3 {
            probes.wait_for(50);
            upgrade(&changing);
            wait_alone(&changing);
        }
        probes.wait_for(50);
        probes.assert_nothing_lost();
    }
}

#[test] // O-UP-01, O-UP-07: the old process lets probes in again
fn probes_are_answered_by_the_old_process_after_a_rollback() {
    let changing = pool(2, 60_000, "--status 127.0.0.1:0");
    let (address, parent) = (status_address(&changing.running), changing.running.pid());
    let probes = Probes::begin(address, &[(Kind::Close, "/live"), (Kind::Close, "/ready"), (Kind::Keep, "/ready")]);
    let new = on_probation(&changing);
    probes.wait_for(50);
    probes.assert_nothing_lost();
    kill(new, Signal::SIGKILL).expect("it lives");
    serves(&changing, parent);
    let probes = Probes::begin(address, &[(Kind::Close, "/live"), (Kind::Keep, "/live")]);
    probes.wait_for(50);
    probes.assert_nothing_lost();
}

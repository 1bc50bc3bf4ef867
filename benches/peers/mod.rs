//! What lenore is measured against, and the load that measures both.
//!
//! A server here is a function `serve(listener, stop)`, run by [`Server`] on a thread of its own. The servers share
//! the line protocol ([`line_echo`]) and differ in the event loop only.
#![allow(dead_code, reason = "each bench compiles its own copy of this module and uses a part of it")]

pub mod bare_mio;
pub mod calloop_echo;
pub mod installed;
pub mod line_echo;
pub mod load;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

/// A server on a thread of this process, on a port of 127.0.0.1 that the system chose. Dropping it stops it.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
    /// `None` once joined.
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Server {
    /// Runs `serve` until the drop of what this returns.
    ///
    /// `serve` has to look at the flag each time it has accepted connections, and to return once the flag is set:
    /// to stop it, the flag is set and one connection made. That costs a server nothing while it echoes, and works
    /// for any event loop.
    pub fn start(
        serve: impl FnOnce(TcpListener, &AtomicBool) -> io::Result<()> + Send + 'static,
    ) -> io::Result<Server> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        Server::start_bound(move |bound, stop| {
            // Connections wait in the backlog until they are accepted.
            let _ = bound.send(listener.local_addr()?);
            serve(listener, &stop)
        })
    }

    /// The same for a `serve` that makes its own listener: it sends the address as soon as it listens there.
    pub fn start_bound(
        serve: impl FnOnce(&mpsc::Sender<SocketAddr>, Arc<AtomicBool>) -> io::Result<()> + Send + 'static,
    ) -> io::Result<Server> {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let (bound, address) = mpsc::channel();
        let run = move || serve(&bound, flag);
        let thread = thread::Builder::new().name("bench server".into()).spawn(run)?;
        // The sender is gone without a word when the server has failed.
        let Ok(addr) = address.recv() else {
            let ended = thread.join().map_err(|_| io::Error::other("the server panicked"))?;
            return Err(ended.err().unwrap_or_else(|| io::Error::other("the server never listened")));
        };
        Ok(Server { addr, stop, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Refused when the server has ended by itself; then the join tells why.
        let _ = TcpStream::connect(self.addr);
        let ended = self.thread.take().map(JoinHandle::join);
        if let Some(Ok(Err(error))) = ended {
            eprintln!("bench server: {error}");
        }
    }
}

//! What the tests of `TcpServer` and `TcpClient` share.

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Once;

use lenore::component::TcpServer;
use lenore::{Kernel, SessionId};

use crate::in_process::run_slices;
use crate::{DEADLINE, wait_until};

thread_local! {
    static WARNINGS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static INFOS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Of whom notes are taken.
const TARGETS: [&str; 3] = ["lenore::component", "lenore::http", "lenore::access"];

struct Collector;

impl log::Log for Collector {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Info
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) && TARGETS.contains(&record.target()) {
            let list = if record.level() == log::Level::Info { &INFOS } else { &WARNINGS };
            list.with_borrow_mut(|list| list.push(record.args().to_string()));
        }
    }

    fn flush(&self) {}
}

/// Notes what the components warn of and tell from here on; a test runs on a thread of its own.
pub fn collect_warnings() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Collector).expect("there is no other logger");
        log::set_max_level(log::LevelFilter::Info);
    });
}

/// What was warned of since the last time.
pub fn warnings() -> Vec<String> {
    WARNINGS.with_borrow_mut(std::mem::take)
}

/// What was told besides since the last time.
pub fn infos() -> Vec<String> {
    INFOS.with_borrow_mut(std::mem::take)
}

/// Spawns a server, under the alias `server`, and returns where it listens.
pub fn serve(kernel: &mut Kernel, server: TcpServer) -> SocketAddr {
    let address = Rc::new(RefCell::new(None));
    let found = Rc::clone(&address);
    let server = server.alias("server").on_started(move |cx| *found.borrow_mut() = cx.heap().local_addr());
    server.spawn(kernel).expect("the server can be spawned");
    let address = address.borrow_mut().take();
    address.expect("the server listens")
}

/// Runs a few slices, with something to do in each: what is ready has its turns.
pub fn spin(kernel: &mut Kernel) {
    for _ in 0..5 {
        kernel.post(SessionId::KERNEL, "nothing", ()).expect("the kernel is there");
        run_slices(kernel, 1);
    }
}

/// A peer in the test itself, which never blocks: the kernel runs on the same thread.
pub struct Peer {
    pub stream: TcpStream,
    pub received: Vec<u8>,
    pub is_at_end: bool,
}

impl Peer {
    pub fn connect(address: SocketAddr) -> Peer {
        Peer::new(TcpStream::connect(address).expect("the server listens"))
    }

    pub fn new(stream: TcpStream) -> Peer {
        stream.set_nonblocking(true).expect("a socket can be non-blocking");
        Peer { stream, received: Vec::new(), is_at_end: false }
    }

    pub fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).expect("little enough to be taken at once");
    }

    /// Takes what has come.
    pub fn look(&mut self) -> &[u8] {
        let mut buffer = [0; 64 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => break self.is_at_end = true,
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("the connection is broken: {error}"),
            }
        }
        &self.received
    }

    pub fn text(&mut self) -> String {
        String::from_utf8(self.look().to_vec()).expect("text")
    }

    /// Runs the kernel until the other side has closed, and closes this one: a wheel waits for that, up to two seconds.
    #[track_caller]
    pub fn run_to_end(&mut self, kernel: &mut Kernel) -> String {
        let text = self.run(kernel, "the end", |peer| peer.is_at_end);
        let _ = self.stream.shutdown(Shutdown::Write);
        text
    }

    /// Runs the kernel until this text was received.
    #[track_caller]
    pub fn run_to(&mut self, kernel: &mut Kernel, text: &str) {
        self.run(kernel, text, |peer| peer.received == text.as_bytes());
    }

    /// Never waits in the kernel: what it has sent may be on its way for a while, and nothing else may be going to happen.
    #[track_caller]
    fn run(&mut self, kernel: &mut Kernel, what: &str, done: impl Fn(&Peer) -> bool) -> String {
        wait_until(what, DEADLINE, || {
            spin(kernel);
            self.look();
            done(self).then_some(())
        });
        self.text()
    }

    /// Closes with a reset.
    pub fn reset(self) {
        let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        nix::sys::socket::setsockopt(&self.stream, nix::sys::socket::sockopt::Linger, &linger)
            .expect("a socket can linger");
    }
}

/// More than sockets hold.
pub const MUCH: usize = 8 * 1024 * 1024;

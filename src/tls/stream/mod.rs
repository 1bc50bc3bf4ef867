//! A transport that encrypts.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustls::Connection;
use socket::Socket;

use super::agreed::{Agreed, Handshake};
use crate::wheel::Transport;

mod socket;

/// One end of a TLS connection, for [`ReadWrite::transport`](crate::wheel::ReadWrite::transport). It is made by
/// [`Server::accept`](super::Server::accept) or [`Client::connect`](super::Client::connect).
///
/// The input ends with the peer's `close_notify`. If the connection ends without it, reading fails with `ECONNABORTED`,
/// because the rest of the peer's data may be missing. After an error of the protocol reading fails with `EPROTO`, and
/// the peer gets an alert.
///
/// [`shutdown_output`](crate::wheel::ReadWrite::shutdown_output) sends `close_notify`, and closes this side of the
/// socket. Input goes on.
///
/// A stream keeps at most 64 KiB that the socket has not taken, and 16 KiB that the wheel has not read.
pub struct Stream {
    socket: Socket,
    tls: Connection,
    handshake: Handshake,
    /// The server that the client has asked for.
    server_name: Option<String>,
    /// How many decrypted bytes wait for the wheel.
    plain: usize,
    /// The bytes that wait are the last of the input.
    has_ended: bool,
    /// Why nothing can be read any more, except the bytes that wait.
    failure: Option<Broken>,
    /// Some of the encrypted bytes that wait for the socket are the wheel's, not the protocol's.
    holds_output: bool,
    /// `close_notify` was sent, or waits to be.
    is_shut: bool,
    /// This side of the socket is closed, or the peer has gone.
    is_closed: bool,
}

/// Why a stream can't go on. Several callers are told.
#[derive(Clone)]
struct Broken(ErrorKind, String);

impl Broken {
    fn error(&self) -> io::Error {
        io::Error::new(self.0, self.1.clone())
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("agreed", &self.handshake.agreed()).finish_non_exhaustive()
    }
}

impl Stream {
    pub(super) fn new(socket: OwnedFd, tls: Connection, server_name: Option<String>) -> Stream {
        Stream {
            socket: Socket::new(socket),
            tls,
            handshake: Handshake::default(),
            server_name,
            plain: 0,
            has_ended: false,
            failure: None,
            holds_output: false,
            is_shut: false,
            is_closed: false,
        }
    }

    /// Returns a handle that tells of the handshake. Keep it when a wheel takes the stream.
    pub fn handshake(&self) -> Handshake {
        self.handshake.clone()
    }

    /// Reads once from the socket, and decrypts that.
    fn read_in(&mut self) -> io::Result<()> {
        if let Some(failure) = &self.failure {
            return Err(failure.error());
        }
        let is_over = self.tls.read_tls(&mut self.socket)? == 0;
        match self.tls.process_new_packets() {
            Ok(state) => {
                self.plain = state.plaintext_bytes_to_read();
                self.has_ended = is_over || state.peer_has_closed();
            }
            Err(error) => {
                // The alert, as far as the socket takes it.
                let _ = self.write_out();
                return Err(self.fail(ErrorKind::InvalidData, explain(&error)));
            }
        }
        if self.tls.is_handshaking() {
            return match is_over {
                true => Err(self.fail(ErrorKind::ConnectionAborted, "the peer has closed the connection".into())),
                false => Ok(()),
            };
        }
        if self.handshake.agreed().is_none() {
            let asked = match &self.tls {
                Connection::Server(server) => server.server_name().map(str::to_owned),
                Connection::Client(_) => self.server_name.take(),
            };
            let _ = self.handshake.0.set(Agreed::of(&self.tls, asked));
        }
        Ok(())
    }

    fn fail(&mut self, kind: ErrorKind, text: String) -> io::Error {
        self.failure.insert(Broken(kind, text)).error()
    }

    /// Writes what is encrypted.
    fn write_out(&mut self) -> io::Result<()> {
        while self.wants_write() {
            if self.tls.write_tls(&mut self.socket)? == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
        }
        self.holds_output = false;
        if self.is_shut && !self.is_closed {
            self.is_closed = true;
            self.socket.shut_down(Shutdown::Write)?;
        }
        Ok(())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Transport for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.tls.reader().read(buffer) {
                Ok(count) => {
                    self.plain = self.plain.saturating_sub(count);
                    return Ok(count);
                }
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    let text = "the peer has closed the connection without close_notify";
                    return Err(self.fail(ErrorKind::ConnectionAborted, text.into()));
                }
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                Err(waits) if self.tls.is_handshaking() && self.failure.is_none() => return Err(waits),
                Err(_) => self.read_in()?,
            }
        }
    }

    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        if self.is_closed {
            return Err(ErrorKind::BrokenPipe.into());
        }
        self.write_out()?;
        if self.tls.is_handshaking() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let taken = self.tls.writer().write(octets)?;
        self.holds_output |= taken > 0;
        match self.write_out() {
            Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Err(error),
            _ if taken == 0 => Err(ErrorKind::WouldBlock.into()),
            _ => Ok(taken),
        }
    }

    fn advance(&mut self) -> io::Result<()> {
        while self.tls.is_handshaking() {
            self.write_out()?;
            self.read_in()?;
        }
        match self.write_out() {
            // Session tickets for a client that has gone. What the client has sent is still to be read. The next write will fail.
            Err(error) if error.kind() != ErrorKind::WouldBlock && !self.holds_output => {
                self.is_closed = true;
                Ok(())
            }
            written => written,
        }
    }

    fn has_input(&self) -> bool {
        self.plain > 0
    }

    fn holds_part(&self) -> bool {
        self.socket.is_within_a_record()
    }

    fn received(&self) -> Option<u64> {
        Some(self.socket.received())
    }

    fn reads_short(&self) -> bool {
        self.plain > 0 || self.failure.is_some() || self.has_ended || !self.socket.is_drained()
    }

    fn wants_read(&self) -> bool {
        self.tls.is_handshaking() && self.failure.is_none()
    }

    fn wants_write(&self) -> bool {
        self.tls.wants_write() && !self.is_closed
    }

    fn is_ready(&self) -> bool {
        !self.tls.is_handshaking()
    }

    fn shut_down(&mut self) -> io::Result<()> {
        self.tls.send_close_notify();
        self.is_shut = true;
        match self.write_out() {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }
}

/// Says in words what operators see most.
fn explain(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType) => {
            format!("the peer does not speak TLS ({error})")
        }
        _ => error.to_string(),
    }
}

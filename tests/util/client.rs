//! A client of a line server, every step of which has a deadline.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use super::DEADLINE;

/// One connection. What goes wrong with it panics; [`Client::try_read_line`] is for what is meant to go wrong.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects; every later read and write has [`DEADLINE`] to get anywhere.
    #[track_caller]
    pub fn connect(addr: SocketAddr) -> Client {
        match Client::try_connect(addr) {
            Ok(client) => client,
            Err(error) => panic!("cannot connect to {addr}: {error}"),
        }
    }

    /// As [`Client::connect`], for a connection that may be refused.
    pub fn try_connect(addr: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect_timeout(&addr, DEADLINE)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        stream.set_nodelay(true)?;
        Ok(Client { stream: BufReader::new(stream) })
    }

    /// Sends `text` and CRLF, and returns the line that comes back.
    #[track_caller]
    pub fn line(&mut self, text: &str) -> String {
        self.send(format!("{text}\r\n"));
        self.read_line()
    }

    /// Sends `bytes` as they are.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        if let Err(error) = self.stream.get_mut().write_all(bytes.as_ref()) {
            panic!("cannot send: {error}");
        }
    }

    /// Sends `bytes` as they are, to a server that may be gone.
    ///
    /// # Errors
    ///
    /// `BrokenPipe`, `ConnectionReset`.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_ref())
    }

    /// Reads one line and returns it without its LF or CRLF.
    #[track_caller]
    pub fn read_line(&mut self) -> String {
        match self.try_read_line() {
            Ok(Some(line)) => line,
            Ok(None) => panic!("the server closed the connection where a line was expected"),
            Err(error) => panic!("no line came: {error}"),
        }
    }

    /// Reads one line; `None` when the server closed the connection before a whole line.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when nothing came within [`DEADLINE`]; `ConnectionReset` and the like as they are.
    pub fn try_read_line(&mut self) -> io::Result<Option<String>> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let Some(text) = line.strip_suffix('\n') else {
            return Ok(None);
        };
        Ok(Some(text.strip_suffix('\r').unwrap_or(text).to_owned()))
    }

    /// Waits for the server to close the connection, and closes this side as well: a server that is in order waits for
    /// that, up to two seconds.
    ///
    /// # Panics
    ///
    /// When data comes instead, or a reset, or nothing within [`DEADLINE`].
    #[track_caller]
    pub fn expect_eof(&mut self) {
        self.expect_eof_and_stay();
        let _ = self.stream.get_ref().shutdown(Shutdown::Write);
    }

    /// The same of a client that does not close its side.
    #[track_caller]
    pub fn expect_eof_and_stay(&mut self) {
        match self.stream.fill_buf() {
            Ok([]) => {}
            Ok(data) => panic!("data where the end was expected: {:?}", String::from_utf8_lossy(data)),
            Err(error) => panic!("the connection was not closed in order: {error}"),
        }
    }

    /// Waits for the connection to end, in order or not: its server may have been killed.
    #[track_caller]
    pub fn expect_eof_or_reset(&mut self) {
        match self.stream.fill_buf() {
            Ok([]) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Ok(data) => panic!("data where the end was expected: {:?}", String::from_utf8_lossy(data)),
            Err(error) => panic!("the connection was not closed: {error}"),
        }
    }

    /// Tells the server that no more will be sent; reading goes on.
    #[track_caller]
    pub fn finish_sending(&mut self) {
        if let Err(error) = self.stream.get_ref().shutdown(Shutdown::Write) {
            panic!("cannot shut down: {error}");
        }
    }

    /// The socket, for what this type does not do.
    pub fn stream(&self) -> &TcpStream {
        self.stream.get_ref()
    }
}

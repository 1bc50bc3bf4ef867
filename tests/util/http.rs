//! A client of HTTP that asks once, and what a program with a status listener is asked.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use lenore::daemon::view::Snapshot;

use super::{DEADLINE, Running, wait_until};

/// One answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// The status line and the header fields.
    pub head: String,
    pub body: String,
}

impl Answer {
    /// The value of a header field.
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let found = lines.find(|(field, _)| field.eq_ignore_ascii_case(name));
        found.unwrap_or_else(|| panic!("no {name} in {}", self.head)).1
    }

    /// The samples of metrics, by name with labels.
    #[track_caller]
    pub fn samples(&self) -> BTreeMap<String, f64> {
        let lines = self.body.lines().filter(|line| !line.starts_with('#'));
        let read = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        lines.map(|line| read(line).unwrap_or_else(|| panic!("no sample: {line}"))).collect()
    }
}

/// Connects, with deadlines.
#[track_caller]
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = match TcpStream::connect_timeout(&address, DEADLINE) {
        Ok(stream) => stream,
        Err(error) => panic!("cannot connect to {address}: {error}"),
    };
    stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
    stream.set_write_timeout(Some(DEADLINE)).expect("a deadline");
    stream
}

/// Sends a request as it is, and reads up to the end of the connection.
#[track_caller]
pub fn send(address: SocketAddr, request: impl AsRef<[u8]>) -> Answer {
    let mut stream = connect(address);
    let mut text = String::new();
    let outcome = stream.write_all(request.as_ref()).and_then(|()| stream.read_to_string(&mut text));
    let Some((head, body)) = text.split_once("\r\n\r\n") else { panic!("no answer: {text:?}, {outcome:?}") };
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// Asks for a page.
#[track_caller]
pub fn get(address: SocketAddr, path: &str) -> Answer {
    get_with(address, path, "")
}

/// Asks for a page with more header fields, each with its line end.
#[track_caller]
pub fn get_with(address: SocketAddr, path: &str, fields: &str) -> Answer {
    send(address, format!("GET {path} HTTP/1.1\r\nHost: test\r\n{fields}Connection: close\r\n\r\n"))
}

/// Asks for the status.
#[track_caller]
pub fn status(address: SocketAddr) -> Snapshot {
    let answer = get(address, "/status");
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.body))
}

/// Waits until the status is as it is to be.
#[track_caller]
pub fn wait_status<T>(address: SocketAddr, what: &str, mut find: impl FnMut(&Snapshot) -> Option<T>) -> T {
    wait_until(what, DEADLINE, || find(&status(address)))
}

/// Waits for the line in which a program says where its status is served.
#[track_caller]
pub fn status_address(running: &Running) -> SocketAddr {
    wait_until("an address of the status", DEADLINE, || find_status_address(&running.stderr_text()))
}

/// Finds the address in the text of a log.
pub fn find_status_address(log: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once("status is served at http://")?;
    rest.split_once('/')?.0.parse().ok()
}

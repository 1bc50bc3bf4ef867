//! Connections that a proxy passes on, and that begin with a header of the PROXY protocol.
//!
//! The session of such a connection is there at once, and counts as a connection. The program is told of the connection when the
//! header has arrived. No byte behind the header is taken from the socket. The header is looked at first, and then only its own bytes
//! are read.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use super::complaints;
use super::connection::{Connection, Link};
use super::protocol::Protocol;
use super::socket::Socket;
use crate::error::Result;
use crate::filter::Filter;
use crate::kernel::{Context, Handle};
use header::{Found, find};

mod header;

type Cx<'a, F, H> = Context<'a, Connection<F, H>>;

/// A connection whose header has not come yet.
pub(super) struct Announcement {
    socket: Socket,
    /// What is watched: another descriptor of the socket.
    watched: Option<Handle>,
    /// What there is of the header.
    seen: Vec<u8>,
}

/// What a look at the socket has found.
enum Look {
    Nothing,
    Header(Option<SocketAddr>),
    /// The proxy has closed without sending anything, as a health check does.
    Closed,
    Wrong(String),
}

impl Announcement {
    fn look(&mut self) -> Look {
        match self.read() {
            Ok(look) => look,
            Err(Errno::EAGAIN) => Look::Nothing,
            Err(errno) => Look::Wrong(format!("recv: {}", errno.desc())),
        }
    }

    fn read(&mut self) -> nix::Result<Look> {
        let mut buffer = [0; 512];
        loop {
            let count = self.receive(&mut buffer, MsgFlags::MSG_PEEK)?;
            if count == 0 {
                let is_silent = self.seen.is_empty();
                return Ok(if is_silent { Look::Closed } else { Look::Wrong(String::from("it ends too early")) });
            }
            let before = self.seen.len();
            self.seen.extend_from_slice(&buffer[..count]);
            match find(&self.seen) {
                Found::Part => drop(self.receive(&mut buffer[..count], MsgFlags::empty())?),
                Found::Header { length, source } => {
                    self.receive(&mut buffer[..length - before], MsgFlags::empty())?;
                    return Ok(Look::Header(source));
                }
                Found::Wrong(why) => return Ok(Look::Wrong(why.to_owned())),
            }
        }
    }

    fn receive(&self, buffer: &mut [u8], flags: MsgFlags) -> nix::Result<usize> {
        let fd = self.socket.as_fd().as_raw_fd();
        loop {
            match recv(fd, buffer, flags | MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EINTR) => {}
                received => return received,
            }
        }
    }
}

/// Begins to wait for the header of a connection, for so long.
pub(super) fn begin<F: Filter, H: 'static>(
    protocol: &Protocol<F, H>,
    cx: &mut Cx<'_, F, H>,
    socket: Socket,
    timeout: Duration,
) -> Result {
    cx.heap().link = Link::Announced(Announcement { socket, watched: None, seen: Vec::new() });
    look(protocol, cx)?;
    let Link::Announced(announcement) = &mut cx.heap().link else { return Ok(()) };
    let handle = match Handle::duplicate(&announcement.socket) {
        Ok(handle) => handle,
        Err(error) => {
            complain(cx, &format!("it can't be waited for: {error}"));
            give_up(cx);
            return Ok(());
        }
    };
    announcement.watched = Some(handle.clone());
    cx.delay(LATE, timeout, ());
    if let Err(error) = cx.select_read(&handle, READABLE, ()) {
        complain(cx, &format!("it can't be waited for: {error}"));
        give_up(cx);
    }
    Ok(())
}

/// More of the header may have come.
pub(super) fn look<F: Filter, H: 'static>(protocol: &Protocol<F, H>, cx: &mut Cx<'_, F, H>) -> Result {
    let Link::Announced(announcement) = &mut cx.heap().link else { return Ok(()) };
    let source = match announcement.look() {
        Look::Nothing => return Ok(()),
        Look::Header(source) => source,
        Look::Closed => {
            give_up(cx);
            return Ok(());
        }
        Look::Wrong(why) => {
            complain(cx, &why);
            give_up(cx);
            return Ok(());
        }
    };
    let Some(socket) = give_up(cx) else { return Ok(()) };
    if let Some(client) = source {
        let heap = cx.heap();
        heap.proxy = socket.peer();
        heap.set_peer(Some(client));
    }
    let (listener, label) = (cx.heap().listener, cx.heap().remote_ip().to_owned());
    // One that was stopped has no use for it, and a plain server no state.
    let _ = cx.call(listener, LABEL, (label,));
    protocol.open(cx, socket, None).map(drop)
}

/// The header takes too long.
pub(super) fn late<F: Filter, H: 'static>(_: &Protocol<F, H>, cx: &mut Cx<'_, F, H>) -> Result {
    if matches!(cx.heap().link, Link::Announced(_)) {
        complain(cx, "it has not arrived in time");
        give_up(cx);
    }
    Ok(())
}

/// Waits no longer, if it did. Returns the socket.
pub(super) fn give_up<F: Filter, H: 'static>(cx: &mut Cx<'_, F, H>) -> Option<Socket> {
    if !matches!(cx.heap().link, Link::Announced(_)) {
        return None;
    }
    let Link::Announced(announcement) = std::mem::replace(&mut cx.heap().link, Link::Closed) else { return None };
    if let Some(handle) = announcement.watched {
        cx.select_read_clear(&handle);
        let _ = cx.delay_clear(LATE);
    }
    Some(announcement.socket)
}

fn complain<F: Filter, H: 'static>(cx: &mut Cx<'_, F, H>, why: &str) {
    let text = format!("connection without a valid PROXY header is closed: {why}");
    complaints::complain(cx, |door| &door.complaints, &text);
}

/// The names of its events.
pub(super) const READABLE: &str = "tcp_proxy_readable";
pub(super) const LATE: &str = "tcp_proxy_late";

/// Tells the session that listens whom a connection serves.
pub(super) const LABEL: &str = "tcp_peer_label";

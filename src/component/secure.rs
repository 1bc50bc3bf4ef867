//! Connections over TLS. They begin when the handshake is done: until then the program hears nothing of them.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use rustls::pki_types::ServerName;

use super::complaints::complain;
use super::connection::{Connection, Link};
use super::protocol::Protocol;
use super::requests::CLOCK;
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::kernel::Context;
use crate::tls;
use crate::wheel::{Failure, ReadWrite, ReadWriteBuilder};

/// Whose settings a connection has.
#[derive(Clone)]
pub(super) enum Secure {
    Server(tls::Server),
    /// With the name of the server; `None` for the host of the target.
    Client(tls::Client, Option<String>),
}

pub(super) use crate::tls::Handshake;

impl Secure {
    /// Refuses a target that is not a name for a certificate.
    pub(super) fn check(&self, target: &str) -> Result<(), Error> {
        match self {
            Secure::Client(_, None) => check_name(host_of(target)),
            _ => Ok(()),
        }
    }

    /// Makes a stream of a socket that is connected with `target`.
    ///
    /// # Errors
    ///
    /// A target that is not a name for a certificate.
    pub(super) fn stream<F: Filter>(
        &self,
        socket: OwnedFd,
        filter: F,
        target: &str,
    ) -> Result<(ReadWriteBuilder<F>, Handshake), tls::Error> {
        let stream = match self {
            Secure::Server(tls) => tls.accept(socket)?,
            Secure::Client(tls, name) => tls.connect(socket, name.as_deref().unwrap_or_else(|| host_of(target)))?,
        };
        let handshake = stream.handshake();
        Ok((ReadWrite::transport(stream, filter), handshake))
    }
}

/// Returns the host of `host:port`, without the brackets of an IPv6 address.
fn host_of(target: &str) -> &str {
    let host = target.rsplit_once(':').map_or(target, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

impl<F: Filter, H> Connection<F, H> {
    /// Returns what the handshake of TLS has agreed on: version, protocol, the name that the client has asked for, the peer's
    /// certificates. `None` for a connection without TLS.
    ///
    /// POE: `SSLify_GetSSL` and others of `POE::Component::SSLify`.
    pub fn tls(&self) -> Option<&tls::Agreed> {
        self.handshake.as_ref()?.agreed()
    }
}

type Cx<'a, F, H> = Context<'a, Connection<F, H>>;

/// The handshake is done.
pub(super) fn ready<F: Filter, H: 'static>(protocol: &Protocol<F, H>, cx: &mut Cx<'_, F, H>) -> Result {
    match std::mem::replace(&mut cx.heap().link, Link::Closed) {
        Link::Securing(wheel) => {
            cx.heap().link = Link::Open(wheel);
            protocol.connected(cx)
        }
        link => {
            cx.heap().link = link;
            Ok(())
        }
    }
}

/// Closes a server's connection whose handshake has failed, and tells the log. Returns the failure of any other connection.
pub(super) fn take_failure<F: Filter, H: 'static>(cx: &mut Cx<'_, F, H>, failure: Failure) -> Option<Failure> {
    if !matches!(cx.heap().link, Link::Securing(_)) {
        return Some(failure);
    }
    cx.heap().close();
    cx.delay_clear(CLOCK);
    // A port scan, a health check, or a client that gives up.
    let is_usual = [Errno::ECONNABORTED, Errno::ECONNRESET, Errno::EPIPE].contains(&Errno::from_raw(failure.errno));
    let reason = if failure.operation == "handshake" { failure.text } else { failure.to_string() };
    let text = format!("TLS handshake failed: {reason}");
    if is_usual {
        let (session, peer) = (cx.session().number(), cx.heap().peer_text());
        log::debug!(target: "lenore::component", "{text}: session={session} peer={peer}");
    } else {
        complain(cx, |door| &door.complaints_of_tls, &text);
    }
    None
}

/// Refuses a name for which no certificate can be made.
pub(super) fn check_name(name: &str) -> Result<(), Error> {
    let invalid = |_| Error::InvalidAddress { address: name.to_owned(), reason: "a certificate can't have this name" };
    ServerName::try_from(name).map(drop).map_err(invalid)
}

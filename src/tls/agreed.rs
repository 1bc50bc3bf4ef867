//! What a handshake has agreed on.

use std::cell::OnceCell;
use std::fmt;
use std::rc::Rc;

use rustls::{Connection, HandshakeKind, ProtocolVersion};

/// What the two ends of a [`Stream`](super::Stream) have agreed on, and what the peer has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Agreed {
    /// The version of the protocol.
    pub version: Version,
    /// The name of the cipher suite, as rustls writes it: `TLS13_AES_256_GCM_SHA384`.
    pub cipher_suite: String,
    /// The protocol that ALPN has chosen, such as `http/1.1`. `None` if one end has named none.
    pub alpn: Option<Vec<u8>>,
    /// The name by which the client has asked for the server (SNI). `None` if the client has sent none.
    pub server_name: Option<String>,
    /// The peer's certificate and those that vouch for it, each in DER. Empty for a client that has shown none. They were
    /// verified, in this handshake or in the one whose session was resumed.
    pub peer_certificates: Vec<Vec<u8>>,
    /// Whether the session was resumed by a ticket.
    pub is_resumed: bool,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Version {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Version::Tls12 => "TLS 1.2",
            Version::Tls13 => "TLS 1.3",
        })
    }
}

impl Agreed {
    pub(super) fn of(connection: &Connection, server_name: Option<String>) -> Agreed {
        let cipher_suite = connection.negotiated_cipher_suite();
        Agreed {
            version: match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => Version::Tls12,
                _ => Version::Tls13,
            },
            cipher_suite: cipher_suite.and_then(|suite| suite.suite().as_str()).unwrap_or_default().to_owned(),
            alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
            server_name,
            peer_certificates: connection
                .peer_certificates()
                .unwrap_or_default()
                .iter()
                .map(|certificate| certificate.to_vec())
                .collect(),
            is_resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }
}

/// Tells what a [`Stream`](super::Stream) has agreed on, also when a wheel has the stream.
#[derive(Debug, Clone, Default)]
pub struct Handshake(pub(super) Rc<OnceCell<Agreed>>);

impl Handshake {
    /// Returns what was agreed on. `None` as long as the handshake is not done.
    pub fn agreed(&self) -> Option<&Agreed> {
        self.0.get()
    }
}

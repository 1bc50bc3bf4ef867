//! TLS, through rustls.
//!
//! A [`Server`] or a [`Client`] holds the settings, and makes a [`Stream`] from a connected socket. A
//! [`ReadWrite`](crate::wheel::ReadWrite::transport) carries records over it as over any other stream. The versions are
//! TLS 1.2 and 1.3. There is no renegotiation, and no data before the handshake is done (0-RTT).
//!
//! ```
//! use std::os::unix::net::UnixStream;
//! use lenore::filter::Line;
//! use lenore::wheel::ReadWrite;
//! use lenore::{Context, Result, tls};
//!
//! /// In a state of the program's.
//! fn begin<H: 'static>(cx: &mut Context<'_, H>, tls: &tls::Server, socket: UnixStream) -> Result<ReadWrite<Line>> {
//!     let stream = tls.accept(socket)?;
//!     Ok(ReadWrite::transport(stream, Line::new()).on_ready("ready").on_input("line").on_error("failed").start(cx)?)
//! }
//! ```
//!
//! # Errors
//!
//! A handshake fails if the peer does not speak TLS, closes the connection or takes too long, or if one end does not
//! trust the other. The session then gets an error event with the operation `"handshake"`, and the peer gets an alert
//! if there is one for the failure. If a connection ends after the handshake without the peer's `close_notify`, the
//! session gets an error of reading with `ECONNABORTED`.
//!
//! # Forked processes
//!
//! Make the settings before the program forks, and begin each connection in the process that is to serve it. Do not let
//! a child keep a wheel over a [`Stream`] ([`keep_after_fork`](crate::wheel::ReadWriteBuilder::keep_after_fork)):
//! parent and child would encrypt different data with the same key and record number.
//!
//! # rustls
//!
//! The crate [`rustls`] does the work, with `ring` for cryptography. A later version of lenore may re-export a later
//! version of rustls.
//!
//! POE: `POE::Component::SSLify`.

pub use rustls;

mod agreed;
mod client;
mod error;
mod files;
mod names;
mod server;
mod stream;
mod tickets;

pub use agreed::{Agreed, Handshake, Version};
pub use client::{Client, ClientBuilder};
pub use error::Error;
pub use server::{Server, ServerBuilder};
pub use stream::Stream;

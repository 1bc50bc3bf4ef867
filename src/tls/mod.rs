//! TLS, by rustls.
//!
//! A [`Server`] or a [`Client`] has the settings. It makes a [`Stream`] of a connected socket, over which a
//! [`ReadWrite`](crate::wheel::ReadWrite::transport) carries records as over any other. TLS 1.2 and 1.3 are spoken. There is no
//! renegotiation, and no data before the handshake is done (0-RTT).
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
//! A handshake that fails is an error event with the operation `"handshake"`: the peer does not speak TLS, has closed the connection
//! or takes too long, or one end does not trust the other. The peer gets an alert if there is one for it. After the handshake a
//! connection that ends without the peer's `close_notify` is an error of reading with `ECONNABORTED`.
//!
//! # Forked processes
//!
//! Make the settings before the processes are forked, and begin each connection in the process that is to have it. A wheel over a
//! [`Stream`] must not be kept by a child ([`keep_after_fork`](crate::wheel::ReadWriteBuilder::keep_after_fork)): parent and child
//! would encrypt different things with the same key and number.
//!
//! # rustls
//!
//! [`rustls`] is the crate that does the work, with `ring` for cryptography. A later version of lenore may have a later version of it.
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

//! Components: servers and clients that need nothing but to be told what to do with a record.
//!
//! A [`Protocol`] says what is done with each connection. A [`Server`] runs it in one process, in a child for each
//! connection, or in a pool of children, as it is configured: this is what to reach for. [`TcpServer`] and [`TcpClient`]
//! are the components of POE, to be used among other sessions. A [`Resolver`] looks names up for all of them. [How to write a
//! component](crate::guide::components) of your own is a page of the guide.
//!
//! With the feature `service` the module `http` makes a protocol of routes and handlers.
//!
//! POE: `POE::Component::Server::TCP`, `POE::Component::Client::TCP`, `POE::Component::Resolver`.

mod accepted;
mod complaints;
mod connection;
mod credentials;
#[cfg(feature = "service")]
pub mod http;
mod listen;
mod listener;
mod load;
mod next_protocol;
mod protocol;
mod proxy;
mod requests;
pub(crate) mod resolver;
#[cfg_attr(not(feature = "tls"), path = "no_secure.rs")]
mod secure;
mod server;
mod socket;
mod tcp_client;
mod tcp_server;
mod timeouts;

pub use connection::Connection;
pub use credentials::PeerCredentials;
pub use listen::{Listen, ListenAddr};
pub use listener::Listener;
pub use next_protocol::NextProtocol;
pub use protocol::Protocol;
pub use resolver::{ResolveError, Resolved, Resolver, ResolverBuilder};
pub use server::{Processes, Server, ServerError, ServerHandle, UnknownProcesses};
pub use tcp_client::TcpClient;
pub use tcp_server::{Listening, TcpServer};

pub use crate::wheel::Failure;

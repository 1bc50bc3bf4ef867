//! HTTP services: routes, handlers, JSON, streams and files. Needs the feature `service`.
//!
//! A [`Service`] is what a [`Server`](super::Server) is made of. The page of the filter,
//! [`filter::http`](crate::filter::http), says how requests and responses are framed, and what is refused.
//!
//! | to do | see |
//! | --- | --- |
//! | answer requests | [`Service`] and its routes, [`IntoAnswer`] |
//! | read JSON, forms, queries and parts of the path | [`Request`] |
//! | fail | [`HttpError`], [`Result`] |
//! | have a connection to a database in each process | [`Service::with`] |
//! | answer later, from another session | [`Later`] |
//! | send a body in pieces | [`Stream`] |
//! | serve files | [`Files`] |
//! | log requests | [`AccessLog`] |
//!
//! POE: POE::Component::Server::SimpleHTTP.

mod access_log;
mod answer;
mod conversation;
mod error;
mod files;
mod later;
mod params;
mod path;
mod request;
mod respond;
mod routes;
mod service;
mod slot;

pub use access_log::AccessLog;
pub use answer::{Answer, IntoAnswer, Json};
pub use conversation::{Conversation, Cx};
pub use error::{HttpError, Result};
pub use files::Files;
pub use later::{Later, Pending, Stream};
pub use request::Request;
pub use service::Service;

pub use crate::filter::http::Response;

/// How many bytes of output may wait for a client until nothing more is put, and how few until more is.
const HIGH: usize = 256 * 1024;
const LOW: usize = 64 * 1024;

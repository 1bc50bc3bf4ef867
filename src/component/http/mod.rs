//! HTTP services: routes, handlers, JSON, streams and files. Needs the feature `service`.
//!
//! A [`Server`](super::Server) takes a [`Service`]. For the framing of requests and responses, and for the requests
//! that are refused, see the filter: [`filter::http`](crate::filter::http).
//!
//! | to do | see |
//! | --- | --- |
//! | answer requests | [`Service`] and its routes, [`IntoAnswer`] |
//! | read JSON, forms, queries and parts of the path | [`Request`] |
//! | return an error | [`HttpError`], [`Result`] |
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

/// How much output may wait for a client, in bytes, before the service puts no more, and when it puts again.
const HIGH: usize = 256 * 1024;
const LOW: usize = 64 * 1024;

//! A request as a handler gets it: the filter's request, with the parameters of its route.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use serde::de::DeserializeOwned;

use super::error::HttpError;
use super::params::Params;
use super::path;
use crate::filter::http;

/// A request for a handler. It derefs to the filter's [`Request`](http::Request), which has the method, the header
/// fields and the body.
///
/// ```
/// use lenore::component::http::{Json, Request, Result, Service};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Deserialize, Serialize)]
/// struct Note { text: String }
///
/// #[derive(Deserialize)]
/// struct Options { loud: Option<bool> }
///
/// fn add(request: &Request) -> Result<Json<Note>> {
///     let user: u32 = request.param("user")?;
///     let options: Options = request.query_as()?;
///     let note: Note = request.json()?;
///     let text = if options.loud == Some(true) { note.text.to_uppercase() } else { note.text };
///     Ok(Json(Note { text: format!("{user}: {text}") }))
/// }
///
/// let service = Service::new().post("/notes/{user}", |_, request| add(&request));
/// # let _ = service;
/// ```
///
/// POE: the `HTTP::Request` that POE::Component::Server::SimpleHTTP gives to a handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    inner: http::Request,
    /// The values may contain `%2F` and `%25`. Everything else is decoded.
    params: Params,
}

impl Request {
    pub(super) fn new(inner: http::Request, params: Params) -> Request {
        Request { inner, params }
    }

    /// Returns a parameter of the route, decoded and parsed. `{id}` in `/users/{id}` is the parameter `id`. The part of
    /// the path after a [`prefix`](super::Service::prefix) is the parameter `rest`, without the slash in front of it.
    ///
    /// # Errors
    ///
    /// A response with status 400, which says why, if the text can't be parsed. With status 500 if the route has no
    /// such parameter.
    ///
    /// POE: nothing like it.
    pub fn param<T: FromStr<Err: fmt::Display>>(&self, name: &str) -> Result<T, HttpError> {
        let value = self.raw_param(name).ok_or_else(|| {
            HttpError::internal(format!("no parameter {name:?} in the route of {} {}", self.method(), self.path()))
        })?;
        path::decode_rest(value)
            .parse()
            .map_err(|error| HttpError::new(400, format!("the part {name:?} of the path is wrong: {error}")))
    }

    /// Returns a parameter in which slashes and percent signs are still encoded.
    pub(super) fn raw_param(&self, name: &str) -> Option<&str> {
        self.params.get(name)
    }

    /// Reads the body as JSON.
    ///
    /// # Errors
    ///
    /// A response with status 415 if the client's `Content-Type` is not JSON. With status 400 if the body is not the
    /// JSON of a `T`.
    ///
    /// POE: nothing like it.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, HttpError> {
        let is_json = |media: &str| media == "application/json" || media.ends_with("+json");
        self.check_media(is_json, "JSON")?;
        serde_json::from_slice(self.body()).map_err(|error| HttpError::new(400, format!("the JSON is wrong: {error}")))
    }

    /// Reads the body as a form, `application/x-www-form-urlencoded`.
    ///
    /// # Errors
    ///
    /// A response with status 415 if the client's `Content-Type` is not a form. With status 400 if the body is not the
    /// form of a `T`.
    ///
    /// POE: nothing like it.
    pub fn form<T: DeserializeOwned>(&self) -> Result<T, HttpError> {
        self.check_media(|media| media == "application/x-www-form-urlencoded", "a form")?;
        serde_urlencoded::from_bytes(self.body())
            .map_err(|error| HttpError::new(400, format!("the form is wrong: {error}")))
    }

    /// Reads the query, which has the syntax of a form. A path without a query has an empty one.
    ///
    /// # Errors
    ///
    /// A response with status 400 if it is not the query of a `T`.
    ///
    /// POE: nothing like it.
    pub fn query_as<T: DeserializeOwned>(&self) -> Result<T, HttpError> {
        serde_urlencoded::from_str(self.query().unwrap_or_default())
            .map_err(|error| HttpError::new(400, format!("the query is wrong: {error}")))
    }

    /// Returns the body without copying it.
    pub fn into_body(self) -> Vec<u8> {
        self.inner.into_body()
    }

    /// Checks the media type. A browser lets a page of another site send a form or plain text without asking this
    /// server.
    fn check_media(&self, is_right: impl Fn(&str) -> bool, wanted: &str) -> Result<(), HttpError> {
        let Some(media) = self.header("Content-Type").map(|value| essence(value).to_ascii_lowercase()) else {
            return Err(HttpError::new(415, format!("the body should be {wanted}, and has no Content-Type")));
        };
        match is_right(&media) {
            true => Ok(()),
            false => Err(HttpError::new(415, format!("the body should be {wanted}"))),
        }
    }
}

impl Deref for Request {
    type Target = http::Request;

    fn deref(&self) -> &http::Request {
        &self.inner
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method(), self.target())
    }
}

/// Returns a media type without its parameters.
fn essence(value: &str) -> &str {
    value.split(';').next().unwrap_or_default().trim()
}

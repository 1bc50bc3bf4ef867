//! The values that a handler may return, and the answers made of them.

use std::fs::File;
use std::io;
use std::rc::Rc;

use serde::Serialize;

use super::error::HttpError;
use super::slot::Slot;
use crate::error::Exception;
use crate::filter::http::Response;

/// How the service answers a request. [`IntoAnswer`] makes one of the value that a handler returns.
#[must_use = "answers nothing until a handler returns it"]
#[derive(Debug)]
pub struct Answer(pub(super) Kind);

#[derive(Debug)]
pub(super) enum Kind {
    Now(Response),
    /// The handler failed. The exception goes to the log.
    Failed(Response, Option<Exception>),
    Pending(Rc<Slot>),
    /// The head of a streamed response, whose body comes from the slot.
    Stream(Rc<Slot>, Response),
    /// The head of a streamed response, and the file that is its body.
    File(Response, io::Take<File>),
}

/// The values that a handler may return.
///
/// | value | response |
/// | --- | --- |
/// | `&str`, `String` | 200, `text/plain` in UTF-8 |
/// | `Vec<u8>` | 200, `application/octet-stream` |
/// | [`Json`] | 200, `application/json` |
/// | `()` | 204 |
/// | `(u16, value)` | what the value becomes, with this status (an error, a stream and a file keep their own) |
/// | [`Response`] | itself. It need not come from [`Request::reply`](crate::filter::http::Request::reply). |
/// | `Option` | what the value becomes, or 404 |
/// | `Result<value, E>` | what the value becomes, or the response of the [`HttpError`] that `E` becomes |
/// | [`Pending`](super::Pending) | comes later, or in pieces |
/// | [`Answer`] | for a handler with several ways to answer: the answer that it made of another value |
///
/// POE: the `HTTP::Response` that SimpleHTTP gives a handler to fill in.
#[diagnostic::on_unimplemented(
    message = "a handler can't return `{Self}`",
    note = "a handler returns a text, a `Json`, a `Response`, a status beside one of these, or a `http::Result` of any of them"
)]
pub trait IntoAnswer {
    /// Makes an answer of the value.
    fn into_answer(self) -> Answer;
}

/// A value that is sent as JSON.
///
/// ```
/// use lenore::component::http::{Json, Service};
///
/// let service = Service::new().get("/numbers", |_, _| Json([1, 2, 3]));
/// # let _ = service;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Json<T>(pub T);

impl Answer {
    pub(super) fn page(status: u16, detail: &str) -> Answer {
        Answer(Kind::Failed(Response::new(status).page(detail), None))
    }
}

impl IntoAnswer for Answer {
    fn into_answer(self) -> Answer {
        self
    }
}

impl IntoAnswer for Response {
    fn into_answer(self) -> Answer {
        Answer(Kind::Now(self))
    }
}

impl IntoAnswer for String {
    fn into_answer(self) -> Answer {
        Response::new(200).header("Content-Type", TEXT).body(self).into_answer()
    }
}

impl IntoAnswer for &str {
    fn into_answer(self) -> Answer {
        Response::new(200).header("Content-Type", TEXT).body(self).into_answer()
    }
}

impl IntoAnswer for Vec<u8> {
    fn into_answer(self) -> Answer {
        Response::new(200).header("Content-Type", "application/octet-stream").body(self).into_answer()
    }
}

impl IntoAnswer for () {
    fn into_answer(self) -> Answer {
        Response::new(204).into_answer()
    }
}

impl<T: Serialize> IntoAnswer for Json<T> {
    fn into_answer(self) -> Answer {
        match serde_json::to_vec(&self.0) {
            Ok(body) => Response::new(200).header("Content-Type", "application/json").body(body).into_answer(),
            Err(error) => HttpError::from(error).into_answer(),
        }
    }
}

impl<T: IntoAnswer> IntoAnswer for (u16, T) {
    fn into_answer(self) -> Answer {
        let (status, value) = self;
        match value.into_answer().0 {
            Kind::Now(response) => Answer(Kind::Now(response.with_status(status))),
            // The handler's status is not for a failure, nor for an answer that comes later.
            kind => Answer(kind),
        }
    }
}

impl<T: IntoAnswer> IntoAnswer for Option<T> {
    fn into_answer(self) -> Answer {
        self.map_or_else(|| Answer::page(404, NOTHING), IntoAnswer::into_answer)
    }
}

impl IntoAnswer for HttpError {
    fn into_answer(self) -> Answer {
        let (response, cause) = self.into_parts();
        Answer(Kind::Failed(response, cause))
    }
}

impl<T: IntoAnswer, E: Into<HttpError>> IntoAnswer for Result<T, E> {
    fn into_answer(self) -> Answer {
        match self {
            Ok(value) => value.into_answer(),
            Err(error) => error.into().into_answer(),
        }
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

/// The text on the page of a 404.
pub(super) const NOTHING: &str = "nothing has this name";

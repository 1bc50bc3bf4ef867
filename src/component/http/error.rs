//! The errors that a handler may return.

use std::borrow::Cow;
use std::fmt;

use crate::error::Exception;
use crate::filter::http::Response;

/// What a handler returns if it may fail. Its [`HttpError`] becomes a response as well.
pub type Result<T = (), E = HttpError> = std::result::Result<T, E>;

/// Why a request fails. It has the status and the text for the client, and may have a cause for the log.
///
/// `?` makes one of any error. The client then gets status 500 without the reason, and the service logs the reason.
///
/// ```
/// use lenore::component::http::{HttpError, Request, Result, Service};
///
/// fn read(request: &Request) -> Result<String> {
///     let name: String = request.param("name")?; //             400
///     if name.starts_with('.') || name.contains('/') {
///         return Err(HttpError::new(403, "not for everybody")); // 403
///     }
///     Ok(std::fs::read_to_string(name)?) //                     500, and the reason in the log
/// }
///
/// let service = Service::new().get("/files/{name}", |_, request| read(&request));
/// # let _ = service;
/// ```
///
/// POE: nothing like it.
pub struct HttpError {
    response: ErrorResponse,
    /// For the log.
    cause: Option<Exception>,
}

enum ErrorResponse {
    Page { status: u16, detail: Cow<'static, str> },
    Own(Box<Response>),
}

impl HttpError {
    /// Makes an error whose response has `status`, 400 to 599, and a small page with `detail`. It is not logged.
    pub fn new(status: u16, detail: impl Into<Cow<'static, str>>) -> HttpError {
        HttpError { response: ErrorResponse::Page { status, detail: detail.into() }, cause: None }
    }

    /// Makes an error with the program's own response, such as one in JSON. It is not logged.
    pub fn with_response(response: Response) -> HttpError {
        HttpError { response: ErrorResponse::Own(Box::new(response)), cause: None }
    }

    /// Adds a cause, which the service logs: as an error if the status is 500 or more, else at level info.
    #[must_use]
    pub fn caused_by(self, cause: impl Into<Exception>) -> HttpError {
        HttpError { cause: Some(cause.into()), ..self }
    }

    /// Returns the status of the response.
    pub fn status(&self) -> u16 {
        match &self.response {
            ErrorResponse::Page { status, .. } => *status,
            ErrorResponse::Own(response) => response.status(),
        }
    }

    pub(super) fn internal(cause: impl Into<String>) -> HttpError {
        HttpError::from(Exception::new(cause))
    }

    /// Splits it into the client's response and the cause for the log.
    pub(super) fn into_parts(self) -> (Response, Option<Exception>) {
        let response = match self.response {
            ErrorResponse::Page { status, detail } => Response::new(status).page(&detail),
            ErrorResponse::Own(response) => *response,
        };
        (response, self.cause)
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for HttpError {
    fn from(error: E) -> HttpError {
        HttpError::from(Exception::from(error))
    }
}

impl From<Exception> for HttpError {
    fn from(cause: Exception) -> HttpError {
        HttpError { cause: Some(cause), ..HttpError::new(500, "the server has failed") }
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}", self.status())?;
        if let ErrorResponse::Page { detail, .. } = &self.response {
            write!(f, ": {detail}")?;
        }
        self.cause.as_ref().map_or(Ok(()), |cause| write!(f, ": {cause}"))
    }
}

impl fmt::Debug for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

//! `Service`: routes and settings, which become a protocol.

use std::cell::{RefCell, RefMut};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use super::access_log::AccessLog;
use super::answer::{Answer, IntoAnswer};
use super::conversation::{self, Conversation, Cx};
use super::files::Files;
use super::request::Request;
use super::routes::{Handler, Methods, Routes};
use crate::component::Protocol;
use crate::error::{Exception, Result};
use crate::filter::http::{self, Httpd, Response};

/// A service over HTTP/1.1, with routes and a handler for each. A [`Server`](crate::component::Server) or a
/// [`TcpServer`](crate::component::TcpServer) takes it like any [`Protocol`].
///
/// ```no_run
/// use lenore::Kernel;
/// use lenore::component::Server;
/// use lenore::component::http::{Json, Service};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let service = Service::new()
///     .get("/hello", |_, _| "hello\n")
///     .get("/hello/{name}", |_, request| request.param("name").map(|name: String| format!("hello, {name}\n")))
///     .get("/numbers", |_, _| Json([1, 2, 3]));
/// let mut kernel = Kernel::new()?;
/// Server::tcp("127.0.0.1:8080", service).spawn(&mut kernel)?;
/// kernel.run()?;
/// # Ok(())
/// # }
/// ```
///
/// A handler gets the [`Request`] and the context of the connection. The connection is a session with a
/// [`Connection`](crate::component::Connection) as its heap. The handler returns anything that is [`IntoAnswer`]. It
/// must not put anything into the connection itself.
///
/// While a handler runs, the process does nothing else. If a handler blocks, use a pool of children, or have another
/// session answer with a [`Later`](super::Later).
///
/// # Resources
///
/// A handler may need something that is made once in each process, such as a connection to a database. The closure
/// given to [`with`](Service::with) makes it, in each process that serves, before the first request. Every handler
/// reaches it as [`cx.heap().resource()`](Conversation::resource):
///
/// ```
/// use std::collections::HashMap;
/// use lenore::component::http::{Cx, HttpError, Request, Result, Service};
///
/// struct Database { names: HashMap<u32, String> }
///
/// impl Database {
///     fn open() -> std::io::Result<Database> {
///         Ok(Database { names: HashMap::new() })
///     }
/// }
///
/// fn name(cx: &mut Cx<'_, Database>, request: Request) -> Result<String> {
///     let id: u32 = request.param("id")?;
///     cx.heap().resource().names.get(&id).cloned().ok_or(HttpError::new(404, "nobody has this number"))
/// }
///
/// let service = Service::with(Database::open).get("/names/{id}", name);
/// # let _ = service;
/// ```
///
/// # Routes
///
/// A pattern is a path. Its parts may be parameters, `/users/{id}/posts/{post}`, and its end may be a parameter for all
/// the rest, `/files/{*path}`. A literal part is preferred to a parameter, and a parameter to the rest.
///
/// - Paths are compared decoded. A slash that the client has encoded is part of a parameter.
/// - `.` and `..` are names like any other. A handler must not use a parameter as a path of the file system.
/// - A handler for `GET` also answers `HEAD`, unless there is a handler for `HEAD`. The service leaves the body out.
/// - For a path whose handlers are all for other methods, the client gets 405 with `Allow`. For a path without a
///   handler, it gets 404.
///
/// # Failures
///
/// If a handler panics, or passes an error on with `?`, the client gets 500, and the service logs the reason with the
/// target `lenore::http`. An error made by [`HttpError::new`](super::HttpError::new) has its own status and is not
/// logged. This connection and all others of the process go on.
///
/// # Bodies
///
/// The service calls a handler when the whole body has come. If a body is larger than [`max_body`](Service::max_body),
/// the client gets 413 before the service reads it.
///
/// # Timeouts
///
/// The service closes a connection that has no request in hand when the client sends nothing for 30 s. A client whose
/// request does not come whole within 60 s gets 408. The service looks for half requests every 30 s, so the 408 can
/// take up to 90 s. A client that falls silent in the middle of a request gets 408 after 30 s to 60 s. To set other
/// limits, call [`protocol`](Service::protocol), and its [`idle_timeout`](Protocol::idle_timeout) and
/// [`arrival_timeout`](Protocol::arrival_timeout).
///
/// The protocol's [`request_timeout`](Protocol::request_timeout) limits how long an answer may take. If an answer takes
/// longer, the client gets 504. If a streamed response or a download of [`Files`](super::Files) takes longer, the
/// service cuts it. Default: no limit.
///
/// # The end
///
/// When the process of a [`Server`](crate::component::Server) ends, the server closes connections that have no request
/// in hand. On every other connection, the last response has `Connection: close`. A client that has connected and sent
/// nothing yet has 1 s for its first request. If a client has begun to send a request, the server waits for the rest,
/// until the client is silent for 5 s.
///
/// POE: POE::Component::Server::SimpleHTTP, whose `HANDLERS` are patterns of paths, with events.
#[must_use = "does nothing until a server is made of it"]
#[doc(alias = "HANDLERS")]
pub struct Service<R: 'static = ()> {
    routes: Routes<R>,
    make: Make<R>,
    max_body: usize,
    access_log: Option<AccessLog>,
    errors: Option<Errors>,
}

type Make<R> = Box<dyn Fn() -> Result<R>>;

/// Makes the response of an error from its status and its detail.
type Errors = Box<dyn Fn(u16, &str) -> Response>;

/// What all connections of a service share.
pub(super) struct Shared<R: 'static> {
    pub(super) routes: Routes<R>,
    pub(super) access_log: Option<AccessLog>,
    make: Make<R>,
    errors: Option<Errors>,
    /// `None` until it is made.
    resource: RefCell<Option<R>>,
}

impl<R> fmt::Debug for Service<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("max_body", &self.max_body).finish_non_exhaustive()
    }
}

impl Service {
    /// Makes a service without resources.
    ///
    /// POE: `new`.
    pub fn new() -> Service {
        Service::with(|| Ok::<(), Exception>(()))
    }
}

impl Default for Service {
    fn default() -> Self {
        Self::new()
    }
}

impl<R: 'static> Service<R> {
    /// Makes a service with a resource for its handlers. `make` runs once in each process that serves. If it fails, the
    /// process fails as well: a child ends, and the error is logged.
    pub fn with<E: Into<Exception>>(make: impl Fn() -> Result<R, E> + 'static) -> Service<R> {
        Service {
            routes: Routes::new(),
            make: Box::new(move || make().map_err(Into::into)),
            max_body: 1024 * 1024,
            access_log: None,
            errors: None,
        }
    }

    /// Adds a handler for `GET`. It also answers `HEAD`, unless there is a handler for `HEAD`.
    ///
    /// # Panics
    ///
    /// As [`route`](Service::route). The methods for `POST`, `PUT`, `PATCH` and `DELETE` panic in the same way.
    #[track_caller]
    pub fn get<A: IntoAnswer>(self, pattern: &str, handler: impl Fn(&mut Cx<'_, R>, Request) -> A + 'static) -> Self {
        self.route("GET", pattern, handler)
    }

    /// Adds a handler for `POST`.
    #[track_caller]
    pub fn post<A: IntoAnswer>(self, pattern: &str, handler: impl Fn(&mut Cx<'_, R>, Request) -> A + 'static) -> Self {
        self.route("POST", pattern, handler)
    }

    /// Adds a handler for `PUT`.
    #[track_caller]
    pub fn put<A: IntoAnswer>(self, pattern: &str, handler: impl Fn(&mut Cx<'_, R>, Request) -> A + 'static) -> Self {
        self.route("PUT", pattern, handler)
    }

    /// Adds a handler for `PATCH`.
    #[track_caller]
    pub fn patch<A: IntoAnswer>(self, pattern: &str, handler: impl Fn(&mut Cx<'_, R>, Request) -> A + 'static) -> Self {
        self.route("PATCH", pattern, handler)
    }

    /// Adds a handler for `DELETE`.
    #[track_caller]
    pub fn delete<A: IntoAnswer>(
        self,
        pattern: &str,
        handler: impl Fn(&mut Cx<'_, R>, Request) -> A + 'static,
    ) -> Self {
        self.route("DELETE", pattern, handler)
    }

    /// Adds a handler for requests with this method and a path that matches `pattern`. The method is case-sensitive.
    /// The handler replaces an earlier one for the same method and pattern.
    ///
    /// # Panics
    ///
    /// If `pattern` does not begin with a slash, is not valid, or conflicts with another pattern, as `/{id}` with
    /// `/{name}`.
    #[track_caller]
    pub fn route<A: IntoAnswer>(
        mut self,
        method: &str,
        pattern: &str,
        handler: impl Fn(&mut Cx<'_, R>, Request) -> A + 'static,
    ) -> Self {
        self.routes.add(Methods::One(method.to_owned()), pattern, boxed(handler));
        self
    }

    /// Adds a handler for requests with any method, for `path` and all paths below it. The [parameter](Request::param)
    /// `rest` is the part of the path after `path` and a slash.
    ///
    /// # Panics
    ///
    /// As [`route`](Service::route).
    #[track_caller]
    pub fn prefix<A: IntoAnswer>(
        mut self,
        path: &str,
        handler: impl Fn(&mut Cx<'_, R>, Request) -> A + 'static,
    ) -> Self {
        let path = path.trim_end_matches('/');
        let handler = Rc::new(handler);
        // The rest is not empty.
        for pattern in [path.to_owned(), format!("{path}/"), format!("{path}/{{*{REST}}}")] {
            let handler = Rc::clone(&handler);
            let handler: Handler<R> = Box::new(move |cx, request| handler(cx, request).into_answer());
            if !pattern.is_empty() {
                self.routes.add(Methods::Any, &pattern, handler);
            }
        }
        self
    }

    /// Serves the files of a directory below `path`, for `GET` and `HEAD`.
    ///
    /// # Panics
    ///
    /// As [`route`](Service::route).
    #[track_caller]
    pub fn files(self, path: &str, files: Files) -> Self {
        self.prefix(path, move |_, request| files.answer_rest(&request))
    }

    /// Sets the handler for requests whose path has no handler.
    ///
    /// POE: the handler with `DIR` `.*`.
    pub fn fallback<A: IntoAnswer>(mut self, handler: impl Fn(&mut Cx<'_, R>, Request) -> A + 'static) -> Self {
        self.routes.set_fallback(boxed(handler));
        self
    }

    /// Sets how the service shows an error. `make` gets the status and the text for the client, and returns the
    /// response. Default: a small HTML page.
    ///
    /// This covers the service's own errors, such as 400, 404, 405, 413, 415 and 500, those of
    /// [`HttpError::new`](super::HttpError::new), and each [`Response::page`] with a status from 400 to 599. Fields
    /// that `make` does not set come from the page, such as `Allow` of a 405. If `make` panics, or returns a response
    /// that can't be sent, the client gets the page, and the service logs the error.
    ///
    /// ```
    /// use lenore::component::http::Service;
    /// use lenore::filter::http::Response;
    ///
    /// let service = Service::new().get("/users/{id}", |_, request| request.param::<u32>("id").map(|id| format!("user {id}"))).errors(
    ///     |status, detail| {
    ///         let body = serde_json::json!({ "status": status, "error": detail });
    ///         Response::new(status).header("Content-Type", "application/json").body(body.to_string())
    ///     },
    /// );
    /// # let _ = service;
    /// ```
    ///
    /// POE: nothing like it.
    pub fn errors(mut self, make: impl Fn(u16, &str) -> Response + 'static) -> Self {
        self.errors = Some(Box::new(make));
        self
    }

    /// Sets the largest body of a request, in bytes after decoding. With 0 no request may have a body. Default: 1 MiB.
    pub fn max_body(mut self, octets: usize) -> Self {
        self.max_body = octets;
        self
    }

    /// Logs a line for each request, at level `info` with the target `lenore::access`. Default: no access log.
    ///
    /// POE: `LOG2HANDLER`.
    #[doc(alias = "LOG2HANDLER")]
    pub fn access_log(mut self, form: AccessLog) -> Self {
        self.access_log = Some(form);
        self
    }

    /// Makes the protocol of the service, for settings that the service itself does not have. A callback that you set
    /// on the protocol replaces the service's own. The service uses all callbacks except `pre_connect`, `on_high` and
    /// `on_refused`.
    pub fn protocol(self) -> Protocol<Httpd, Conversation<R>> {
        let Service { routes, make, max_body, access_log, errors } = self;
        let shared = Rc::new(Shared { routes, access_log, make, errors, resource: RefCell::new(None) });
        conversation::protocol(Httpd::new().max_content(max_body), shared)
    }
}

impl<R: 'static> From<Service<R>> for Protocol<Httpd, Conversation<R>> {
    fn from(service: Service<R>) -> Self {
        service.protocol()
    }
}

impl<R: 'static> Shared<R> {
    /// Makes the resource, unless this process has it already.
    pub(super) fn prepare(&self) -> Result {
        if self.resource.borrow().is_none() {
            // Nothing is borrowed while the program's code runs.
            let made = (self.make)()?;
            self.resource.replace(Some(made));
        }
        Ok(())
    }

    pub(super) fn resource(&self) -> RefMut<'_, R> {
        RefMut::map(self.resource.borrow_mut(), |resource| {
            resource.as_mut().expect("it is made before a connection has a handler run")
        })
    }

    /// Makes the program's own response for an error, given its page. Returns `None` if the page stays.
    pub(super) fn shape(&self, page: &Response) -> Option<Result<Response>> {
        let (errors, detail) = (self.errors.as_ref()?, page.error_detail()?);
        let made = catch_unwind(AssertUnwindSafe(|| errors(page.status(), detail)));
        Some(made.map_err(Exception::from_panic).and_then(|response| match response.check() {
            Ok(()) if response.status() < 200 || response.is_streamed() => Err(Exception::new("not a whole response")),
            Ok(()) => Ok(response.in_place_of(page)),
            Err(reason) => Err(Exception::new(reason)),
        }))
    }

    pub(super) fn answer(&self, cx: &mut Cx<'_, R>, request: http::Request) -> Answer {
        self.routes.answer(cx, request)
    }
}

fn boxed<R, A: IntoAnswer>(handler: impl Fn(&mut Cx<'_, R>, Request) -> A + 'static) -> Handler<R> {
    Box::new(move |cx, request| handler(cx, request).into_answer())
}

/// The name of a prefix's parameter.
pub(super) const REST: &str = "rest";

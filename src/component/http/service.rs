//! `Service`: routes and settings, of which a protocol is made.

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

/// A service over HTTP/1.1: routes, and a handler for each. A [`Server`](crate::component::Server) or a
/// [`TcpServer`](crate::component::TcpServer) is made of it as of any [`Protocol`].
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
/// A handler gets the context of the connection, which is a session with a [`Connection`](crate::component::Connection) for its
/// heap, and the [`Request`]. It returns anything that is [`IntoAnswer`]. It must not put anything into the connection itself. While
/// it runs, the process does nothing else: what blocks belongs into a pool of children, or into a session that answers by a
/// [`Later`](super::Later).
///
/// # Resources
///
/// What a process needs for its handlers, such as a connection to a database, is made by the closure given to
/// [`with`](Service::with), once in each process that serves, before its first request. Each handler has it as
/// [`cx.heap().resource()`](Conversation::resource):
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
/// A pattern is a path whose parts may be parameters, `/users/{id}/posts/{post}`, and whose end may be all the rest,
/// `/files/{*path}`. A literal part goes before a parameter, and that before the rest. Paths are compared decoded; a slash that
/// the client has encoded is part of a parameter. Nothing is done about `.` and `..`: they are names like others, which a handler
/// must not use as a path. A handler for `GET` answers `HEAD`, too, unless there is one for that; the body is left away. A path
/// with handlers for other methods than the request's is answered with 405 and `Allow`, one without any with 404.
///
/// # Failures
///
/// A handler that panics or returns an error is answered with 500, and logged with the target `lenore::http`. This and all other
/// connections of the process go on.
///
/// # Bodies
///
/// The service closes a connection that has no request in hand when the client sends nothing for 30 s. A client whose request does not come
/// whole within 60 s gets 408. The service looks for half requests every 30 s, so the 408 can take up to 90 s. A client that falls silent
/// in the middle of a request gets 408 after 30 s to 60 s. For other limits take the [`protocol`](Service::protocol), and set its
/// [`idle_timeout`](Protocol::idle_timeout) and [`arrival_timeout`](Protocol::arrival_timeout).
///
/// The protocol's [`request_timeout`](Protocol::request_timeout) limits how long an answer may take. Default: none. If an answer takes
/// longer, the client gets 504. If a streamed response or a download of [`Files`](super::Files) takes longer, the service cuts it.
///
/// A request is handled when its body has come whole. One that is larger than [`max_body`](Service::max_body) is refused with 413
/// before it is read.
///
/// # The end
///
/// While the process of a [`Server`](crate::component::Server) ends, the server closes connections that have no request in hand. The last
/// response of each other connection has `Connection: close`. A client that has connected and sent nothing yet has a second for its
/// first request. A request that has begun to come is waited for, unless the client is silent for 5 s.
///
/// POE: POE::Component::Server::SimpleHTTP, whose `HANDLERS` are patterns of paths and events.
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

/// Makes the response of an error from its status and what was wrong.
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
    /// Begins a service without resources.
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
    /// Begins a service whose handlers have what `make` makes, once in each process that serves. If that fails, so does the
    /// process: a child ends, and the log has the error.
    pub fn with<E: Into<Exception>>(make: impl Fn() -> Result<R, E> + 'static) -> Service<R> {
        Service {
            routes: Routes::new(),
            make: Box::new(move || make().map_err(Into::into)),
            max_body: 1024 * 1024,
            access_log: None,
            errors: None,
        }
    }

    /// Adds a handler for `GET`, and for `HEAD` unless there is one.
    ///
    /// # Panics
    ///
    /// As [`route`](Service::route), as do those for the other methods.
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

    /// Adds a handler for requests with `method`, which is case-sensitive, and a path as `pattern` says. A later handler for both
    /// takes the place of an earlier one.
    ///
    /// # Panics
    ///
    /// When `pattern` is not valid, or could not be told from another one: `/{id}` and `/{name}`.
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

    /// Adds a handler for requests with any method for `path` and whatever is below. The
    /// [parameter](Request::param) `rest` is what follows the slash behind `path`.
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

    /// Serves the files of a directory below `path`, to `GET` and `HEAD`.
    ///
    /// # Panics
    ///
    /// As [`route`](Service::route).
    #[track_caller]
    pub fn files(self, path: &str, files: Files) -> Self {
        self.prefix(path, move |_, request| files.answer_rest(&request))
    }

    /// Sets the handler for requests whose path has none.
    ///
    /// POE: the handler with `DIR` `.*`.
    pub fn fallback<A: IntoAnswer>(mut self, handler: impl Fn(&mut Cx<'_, R>, Request) -> A + 'static) -> Self {
        self.routes.set_fallback(boxed(handler));
        self
    }

    /// Sets how an error looks that is a small HTML page otherwise: those of the service itself, such as 400, 404, 405, 413, 415 and
    /// 500, those that [`HttpError::new`](super::HttpError::new) makes, and each [`Response::page`] with a status from 400 to 599.
    ///
    /// `make` gets the status and the words for the client. A field that it does not set is taken over from the page, such as `Allow`
    /// of a 405. When `make` panics, or makes what can't be sent, the client gets the page and the log has the error. Default: the
    /// page.
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

    /// Sets the largest body of a request, in bytes after decoding; with 0 no request may have one. Default: 1 MiB.
    pub fn max_body(mut self, octets: usize) -> Self {
        self.max_body = octets;
        self
    }

    /// Has a line logged for each request, at level info with the target `lenore::access`. Default: none.
    ///
    /// POE: `LOG2HANDLER`.
    #[doc(alias = "LOG2HANDLER")]
    pub fn access_log(mut self, form: AccessLog) -> Self {
        self.access_log = Some(form);
        self
    }

    /// Makes a protocol of it, for what the service itself has no setting for. Callbacks that are set on it take the place of the
    /// service's own, which are all but `pre_connect`, `on_high` and `on_refused`.
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
    /// Makes what the handlers need, unless this process has it.
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

    /// Makes the program's own response of the page of an error. `None` if there is nothing to make.
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

/// The parameter that a prefix has.
pub(super) const REST: &str = "rest";

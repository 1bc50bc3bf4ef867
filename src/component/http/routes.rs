//! Finds the handler for a method and a path.

use std::collections::HashMap;

use super::answer::{Answer, IntoAnswer, Kind, NOTHING};
use super::conversation::Cx;
use super::params::Params;
use super::path;
use super::request::Request;
use crate::filter::http;
use crate::filter::http::Response;

pub(super) type Handler<R> = Box<dyn Fn(&mut Cx<'_, R>, Request) -> Answer>;

/// The routes of a service.
pub(super) struct Routes<R: 'static> {
    /// Maps each pattern to the number of its place.
    paths: matchit::Router<usize>,
    places: Vec<Place<R>>,
    by_pattern: HashMap<String, usize>,
    fallback: Option<Handler<R>>,
}

/// The handlers of one pattern.
pub(super) struct Place<R: 'static> {
    handlers: Vec<(Methods, Handler<R>)>,
}

/// The methods of a handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Methods {
    One(String),
    Any,
}

/// The result of looking a request up.
pub(super) enum Found<'a, R: 'static> {
    Handler(&'a Handler<R>, Params),
    /// The pattern has handlers, but none for this method.
    WrongMethod(&'a Place<R>),
    Nothing,
    /// The path can't be decoded.
    BadPath,
}

impl<R: 'static> Routes<R> {
    pub(super) fn new() -> Routes<R> {
        Routes { paths: matchit::Router::new(), places: Vec::new(), by_pattern: HashMap::new(), fallback: None }
    }

    /// Adds a handler. It replaces an earlier one for the same method and pattern.
    ///
    /// # Panics
    ///
    /// If the pattern is not valid, or conflicts with another one.
    #[track_caller]
    pub(super) fn add(&mut self, methods: Methods, pattern: &str, handler: Handler<R>) {
        let place = match self.by_pattern.get(pattern) {
            Some(place) => *place,
            None => {
                assert!(pattern.starts_with('/'), "the route {pattern:?} does not begin with a slash");
                if let Err(error) = self.paths.insert(pattern, self.places.len()) {
                    panic!("the route {pattern:?} can't be added: {error}");
                }
                self.by_pattern.insert(pattern.to_owned(), self.places.len());
                self.places.push(Place { handlers: Vec::new() });
                self.places.len() - 1
            }
        };
        let handlers = &mut self.places[place].handlers;
        handlers.retain(|(other, _)| *other != methods);
        handlers.push((methods, handler));
    }

    pub(super) fn set_fallback(&mut self, handler: Handler<R>) {
        self.fallback = Some(handler);
    }

    /// Tells whether a handler will get a request. Only its head has come.
    pub(super) fn has_handler(&self, request: &http::Request) -> bool {
        match self.find(request) {
            Found::Handler(..) => true,
            Found::Nothing => self.fallback.is_some(),
            Found::WrongMethod(_) | Found::BadPath => false,
        }
    }

    /// Calls the handler of a request, or answers that there is none.
    pub(super) fn answer(&self, cx: &mut Cx<'_, R>, request: http::Request) -> Answer {
        // CONNECT has no path, and after the response the connection would no longer be HTTP.
        if request.method() == "CONNECT" {
            return Answer::page(501, "no tunnels here");
        }
        match self.find(&request) {
            Found::Handler(handler, params) => handler(cx, Request::new(request, params)),
            Found::Nothing if request.target() == "*" => ().into_answer(),
            Found::Nothing => match &self.fallback {
                Some(handler) => handler(cx, Request::new(request, Params::default())),
                None => Answer::page(404, NOTHING),
            },
            Found::WrongMethod(place) => {
                let allow = place.allow();
                let response = Response::new(405).header("Allow", &allow);
                Answer(Kind::Now(response.page("the method is not for this path")))
            }
            Found::BadPath => Answer::page(400, "malformed path"),
        }
    }

    fn find(&self, request: &http::Request) -> Found<'_, R> {
        let Some(path) = path::decode(request.path()) else { return Found::BadPath };
        let Ok(found) = self.paths.at(&path) else { return Found::Nothing };
        let place = &self.places[*found.value];
        match place.handler(request.method()) {
            Some(handler) => Found::Handler(handler, found.params.iter().collect()),
            None => Found::WrongMethod(place),
        }
    }
}

impl<R: 'static> Place<R> {
    fn handler(&self, method: &str) -> Option<&Handler<R>> {
        let of = |wanted: &str| {
            let is_wanted = |(methods, _): &&(Methods, _)| matches!(methods, Methods::One(one) if one == wanted);
            self.handlers.iter().find(is_wanted)
        };
        let head = || if method == "HEAD" { of("GET") } else { None };
        let any = || self.handlers.iter().find(|(methods, _)| *methods == Methods::Any);
        of(method).or_else(head).or_else(any).map(|(_, handler)| handler)
    }

    /// Returns the methods of the pattern, for `Allow`.
    fn allow(&self) -> String {
        let mut allowed = Vec::new();
        for (methods, _) in &self.handlers {
            let Methods::One(method) = methods else { continue };
            allowed.push(method.as_str());
            if method == "GET" && !self.handlers.iter().any(|(other, _)| *other == Methods::One("HEAD".into())) {
                allowed.push("HEAD");
            }
        }
        allowed.join(", ")
    }
}

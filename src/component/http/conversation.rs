//! A connection of a service: one request after the other, each answered before the next is looked at.

use std::cell::RefMut;
use std::fmt;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use super::access_log::Entry;
use super::answer::{Answer, IntoAnswer, Kind};
use super::error::HttpError;
use super::files::read_piece;
use super::service::Shared;
use super::slot::{Piece, Slot, Word};
use super::{HIGH, LOW};
use crate::args::Args;
use crate::component::{Connection, Failure, Protocol};
use crate::error::{Exception, Result};
use crate::filter::http::{Client, Httpd, Incoming, Outgoing, Request, Response};
use crate::kernel::Context;
use crate::wheel::{Put, ReadWrite};

/// The context in which a handler of a [`Service`](super::Service) runs: that of the session of the connection.
pub type Cx<'a, R = ()> = Context<'a, Connection<Httpd, Conversation<R>>>;

/// What a service keeps of each connection; the [`Connection`] derefs to it.
///
/// POE: the connection object of SimpleHTTP.
pub struct Conversation<R: 'static = ()> {
    service: Rc<Shared<R>>,
    /// The request that is being answered.
    current: Option<Current>,
    /// What has come behind it. There is never more, as no input is read meanwhile.
    next: Option<Incoming>,
    /// The wheel was told to read nothing.
    is_paused: bool,
    /// Lines for the log of responses that the system has not taken yet.
    unwritten: Vec<Box<Entry>>,
    has_answered: bool,
    /// The client sends no more, or what it sends behind this request is not wanted.
    is_last: bool,
    /// The process comes to its end.
    is_ending: bool,
    /// The response that was put last is the connection's last.
    closes: bool,
    /// Nothing more is answered.
    is_done: bool,
}

/// A request that is being answered.
struct Current {
    client: Client,
    work: Work,
    /// Where the answer comes from, if a token was made.
    slot: Option<Rc<Slot>>,
    entry: Option<Box<Entry>>,
    /// Method and path, for the log.
    what: String,
}

/// What the next step of an answer is.
enum Work {
    /// A handler runs, or a [`Later`](super::Later) is out.
    Answer,
    Stream,
    File(io::Take<File>),
}

impl Drop for Current {
    /// Whatever comes of a token from here on, it comes too late.
    fn drop(&mut self) {
        self.slot.iter().for_each(|slot| slot.close());
    }
}

impl<R> fmt::Debug for Conversation<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conversation")
            .field("is_answering", &self.current.is_some())
            .field("is_ending", &self.is_ending)
            .finish_non_exhaustive()
    }
}

impl<R: 'static> Conversation<R> {
    fn new(service: Rc<Shared<R>>) -> Conversation<R> {
        Conversation {
            service,
            current: None,
            next: None,
            is_paused: false,
            unwritten: Vec::new(),
            has_answered: false,
            is_last: false,
            is_ending: false,
            closes: false,
            is_done: false,
        }
    }

    /// Borrows what [`Service::with`](super::Service::with) has made in this process.
    ///
    /// The borrow has to end before the context is used again, which the compiler sees to; beside it there is what
    /// [`cx.split()`](Context::split) returns.
    ///
    /// # Panics
    ///
    /// When it is borrowed a second time: the first borrow must be dropped before.
    #[track_caller]
    pub fn resource(&self) -> RefMut<'_, R> {
        self.service.resource()
    }

    /// Tells whether the process comes to its end, so that the response to the current request is the connection's last.
    pub fn is_ending(&self) -> bool {
        self.is_ending
    }

    /// Makes the place for an answer to the current request that does not come at once.
    pub(super) fn new_slot(&mut self) -> Rc<Slot> {
        let slot = Rc::new(Slot::default());
        match &mut self.current {
            Some(current) => {
                // There is one answer. An earlier token has nothing more to say.
                current.slot.replace(Rc::clone(&slot)).iter().for_each(|slot| slot.close());
            }
            None => slot.close(),
        }
        slot
    }

    fn is_idle(&self) -> bool {
        self.current.is_none() && self.next.is_none()
    }
}

/// Says what is done with each connection of a service.
pub(super) fn protocol<R: 'static>(filter: Httpd, service: Rc<Shared<R>>) -> Protocol<Httpd, Conversation<R>> {
    let has_log = service.access_log.is_some();
    let shared = Rc::clone(&service);
    let protocol = Protocol::with_heap(filter, move || Conversation::new(Rc::clone(&shared)))
        .on_connect(connected)
        .on_input(received)
        .on_error(failed)
        .on_low(drained)
        .on_disconnect(gone)
        // A client that sends and does not read has its next requests wait.
        .marks(LOW, HIGH)
        .auto_pause()
        // One that has sent its request and closed its side is still answered.
        .keep_on_error()
        .state(WORD, heard)
        .state(ENDING, ending)
        .state(FRESH, close_if_idle);
    // An event after each response.
    let protocol = if has_log { protocol.on_flushed(flushed) } else { protocol };
    protocol.prepare(move || service.prepare())
}

fn connected<R: 'static>(cx: &mut Cx<'_, R>) -> Result {
    let service = Rc::clone(&cx.heap().own.service);
    service.prepare()?;
    cx.sig("daemon_shutdown", ENDING);
    cx.sig("daemon_pause", ENDING);
    Ok(())
}

/// A request, or what is none. It waits if another one is being answered.
fn received<R: 'static>(cx: &mut Cx<'_, R>, incoming: Incoming) -> Result {
    let connection = cx.heap();
    if connection.own.is_done {
        return Ok(());
    }
    if connection.own.current.is_some() {
        connection.own.next = Some(incoming);
        connection.own.is_paused = true;
        connection.wheel().into_iter().for_each(|wheel| wheel.pause_input());
        return Ok(());
    }
    begin(cx, incoming)?;
    if cx.heap().own.is_paused { go_on(cx) } else { Ok(()) }
}

/// Looks at what has come behind a request that is answered now.
fn go_on<R: 'static>(cx: &mut Cx<'_, R>) -> Result {
    loop {
        let connection = cx.heap();
        if connection.own.current.is_some() || connection.own.is_done {
            return Ok(());
        }
        let Some(incoming) = connection.own.next.take() else { break };
        begin(cx, incoming)?;
    }
    let connection = cx.heap();
    if std::mem::take(&mut connection.own.is_paused) {
        connection.wheel().into_iter().for_each(|wheel| wheel.resume_input());
    }
    if connection.own.is_last || connection.own.is_ending {
        return close_if_idle(cx);
    }
    Ok(())
}

fn begin<R: 'static>(cx: &mut Cx<'_, R>, incoming: Incoming) -> Result {
    match incoming {
        Incoming::Request(request) => answer(cx, request),
        Incoming::Expects(request) if cx.heap().own.service.routes.has_handler(&request) => {
            cx.heap().put(Outgoing::Response(Response::proceed()));
            Ok(())
        }
        // The body won't be wanted. Some clients send it all the same.
        Incoming::Expects(request) => {
            cx.heap().own.is_last = true;
            answer(cx, request)
        }
        Incoming::Refused(refusal) => {
            let client = refusal.request().map(Client::of);
            start(cx, client.unwrap_or_else(Client::unknown), refusal.request());
            finish_with(cx, refusal.response())
        }
        Incoming::Piece(_) | Incoming::End(_) => Ok(()),
    }
}

/// Notes that a request is being answered.
fn start<R: 'static>(cx: &mut Cx<'_, R>, client: Client, request: Option<&Request>) {
    let form = cx.heap().own.service.access_log;
    let entry = form.and_then(|form| {
        let now = cx.now();
        Entry::begin(form, cx.heap().remote_ip(), now, request)
    });
    let mut what = String::new();
    if let Some(request) = request {
        what.reserve(request.method().len() + 1 + request.path().len());
        what.push_str(request.method());
        what.push(' ');
        what.push_str(request.path());
    }
    cx.heap().own.current = Some(Current { client, work: Work::Answer, slot: None, entry, what });
}

fn answer<R: 'static>(cx: &mut Cx<'_, R>, request: Request) -> Result {
    start(cx, Client::of(&request), Some(&request));
    let service = Rc::clone(&cx.heap().own.service);
    let answer = catch_unwind(AssertUnwindSafe(|| service.answer(cx, request)))
        .unwrap_or_else(|payload| HttpError::from(Exception::from_panic(payload)).into_answer());
    take_up(cx, answer)
}

/// Does the first step of an answer.
fn take_up<R: 'static>(cx: &mut Cx<'_, R>, answer: Answer) -> Result {
    // The connection may have ended while the handler ran.
    let Some(current) = &mut cx.heap().own.current else { return Ok(()) };
    match answer.0 {
        Kind::Now(response) => finish_with(cx, response),
        Kind::Failed(response, cause) => {
            current.complain(&cause);
            finish_with(cx, response)
        }
        Kind::Pending(slot) if current.has(&slot) => Ok(()),
        Kind::Stream(slot, response) if current.has(&slot) => {
            current.work = Work::Stream;
            if send_head(cx, response.streamed(), Body::Streamed) { stream(cx) } else { end(cx) }
        }
        Kind::Pending(_) | Kind::Stream(..) => {
            current.complain(&Exception::new("the handler returned what is pending for another request"));
            finish_with(cx, failure())
        }
        Kind::File(response, file) => {
            current.work = Work::File(file);
            if send_head(cx, response.streamed(), Body::Streamed) { send_file(cx) } else { end(cx) }
        }
    }
}

/// Sends a whole response.
fn finish_with<R: 'static>(cx: &mut Cx<'_, R>, response: Response) -> Result {
    send_head(cx, response, Body::Whole);
    end(cx)
}

/// How the body of a response comes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Body {
    Whole,
    Streamed,
}

/// Puts a response, or the head of a streamed one. Tells whether a body is to follow: not if the client has asked for the head
/// alone, nor if the response can't be sent, and one with status 500 was in its place.
fn send_head<R: 'static>(cx: &mut Cx<'_, R>, response: Response, body: Body) -> bool {
    let connection = cx.heap();
    let closes = connection.own.is_last || connection.own.is_ending;
    let Some(current) = &mut connection.own.current else { return false };
    let mut response = response.suit(current.client);
    let wrong = match response.check() {
        Err(reason) => Some(reason),
        Ok(()) if response.status() < 200 => Some(format!("status {} is no end of a request", response.status())),
        Ok(()) if body == Body::Whole && response.is_streamed() => Some("a streamed response without a stream".into()),
        Ok(()) => None,
    };
    let follows = wrong.is_none() && body == Body::Streamed && !current.client.wants_head_only();
    if let Some(reason) = wrong {
        current.complain(&Exception::new(reason));
        response = failure().suit(current.client);
    }
    if closes {
        response = response.close();
    }
    if let Some(entry) = &mut current.entry {
        entry.status = response.status();
        entry.octets = response.sent_octets();
    }
    connection.own.closes = response.closes();
    connection.put(Outgoing::Response(response));
    follows
}

/// Puts what has come of a streamed body.
fn stream<R: 'static>(cx: &mut Cx<'_, R>) -> Result {
    let connection = cx.heap();
    let Some(current) = &connection.own.current else { return Ok(()) };
    let Some(slot) = current.slot.clone().filter(|_| matches!(current.work, Work::Stream)) else { return Ok(()) };
    let (mut put, mut octets) = (Put::Accepted, 0);
    for piece in slot.take_pieces() {
        match piece {
            Piece::Octets(piece) => {
                octets += piece.len() as u64;
                put = connection.put(Outgoing::Piece(piece));
            }
            Piece::End => {
                connection.own.count(octets);
                connection.put(Outgoing::End);
                return end(cx);
            }
            Piece::Cut => {
                connection.own.count(octets);
                return cut(cx, &Exception::new("the stream was dropped before its end"));
            }
        }
    }
    connection.own.count(octets);
    match put {
        Put::High => slot.set_high(),
        Put::Accepted if !connection.wheel().is_some_and(|wheel| wheel.is_high()) => slot.low(),
        Put::Accepted | Put::Closed => {}
    }
    Ok(())
}

/// Puts some more of a file, as much as the client takes for now.
fn send_file<R: 'static>(cx: &mut Cx<'_, R>) -> Result {
    loop {
        let connection = cx.heap();
        let Some(Current { work: Work::File(file), .. }) = &mut connection.own.current else { return Ok(()) };
        if file.limit() == 0 {
            connection.put(Outgoing::End);
            return end(cx);
        }
        let piece = match read_piece(file) {
            Ok(piece) if piece.is_empty() => return cut(cx, &Exception::new("the file has become shorter")),
            Ok(piece) => piece,
            Err(error) => return cut(cx, &error.into()),
        };
        connection.own.count(piece.len() as u64);
        if !connection.put(Outgoing::Piece(piece)).takes_more() {
            return Ok(());
        }
    }
}

/// The response is complete, as far as this side is concerned.
fn end<R: 'static>(cx: &mut Cx<'_, R>) -> Result {
    let connection = cx.heap();
    let conversation = &mut connection.own;
    conversation.unwritten.extend(conversation.current.take().and_then(|mut current| current.entry.take()));
    conversation.has_answered = true;
    if conversation.closes {
        conversation.is_done = true;
        cx.yield_("shutdown", ());
    }
    Ok(())
}

/// Closes the connection in the middle of a response: only that tells the client that it is not whole.
fn cut<R: 'static>(cx: &mut Cx<'_, R>, cause: &Exception) -> Result {
    let conversation = &mut cx.heap().own;
    conversation.current.iter().for_each(|current| current.complain(cause));
    // It stays, with its line for the log, until the connection is closed.
    conversation.current.iter_mut().for_each(|current| current.work = Work::Answer);
    conversation.is_done = true;
    cx.yield_("shutdown", ());
    Ok(())
}

/// A token has something to say.
fn heard<R: 'static>(cx: &mut Cx<'_, R>) -> Result {
    let mut args = cx.take::<Args>(1)?;
    let (slot, word) = (args.take::<Rc<Slot>>(0)?, args.take::<Word>(1)?);
    let connection = cx.heap();
    // In a forked process the request is the parent's.
    if !connection.is_connected() || connection.own.is_done {
        return Ok(());
    }
    let Some(current) = connection.own.current.as_ref().filter(|current| current.has(&slot)) else { return Ok(()) };
    match word {
        Word::Answer(answer) => take_up(cx, answer)?,
        Word::Pieces => stream(cx)?,
        Word::Dropped => {
            current.complain(&Exception::new("the token for a later answer was dropped"));
            finish_with(cx, failure())?;
        }
    }
    go_on(cx)
}

/// The client has taken most of what was put.
fn drained<R: 'static>(cx: &mut Cx<'_, R>) -> Result {
    let connection = cx.heap();
    // At once means at once: what was not put by then is not.
    if connection.is_shutting_down() {
        return Ok(());
    }
    match &connection.own.current {
        Some(Current { work: Work::File(_), .. }) => {
            send_file(cx)?;
            go_on(cx)
        }
        Some(Current { work: Work::Stream, slot: Some(slot), .. }) => {
            slot.low();
            Ok(())
        }
        _ => Ok(()),
    }
}

/// All that was put is with the system.
fn flushed<R: 'static>(cx: &mut Cx<'_, R>) -> Result {
    let now = cx.now();
    cx.heap().own.unwritten.drain(..).for_each(|entry| entry.write(now, true));
    Ok(())
}

/// The client sends no more, or the connection is broken.
fn failed<R: 'static>(cx: &mut Cx<'_, R>, failure: &Failure) -> Result {
    let is_idle = cx.heap().own.is_idle();
    if failure.is_end_of_input() && !is_idle {
        cx.heap().own.is_last = true;
        return Ok(());
    }
    if failure.operation == "filter" {
        // More of a streamed body, or less, than was promised.
        return cut(cx, &Exception::new(failure.text.clone()));
    }
    if !failure.is_end_of_input() {
        log::debug!(target: TARGET, "a connection has failed: {failure} peer={}", cx.heap().remote_ip());
    }
    cx.heap().own.is_done = true;
    cx.yield_("shutdown", ());
    Ok(())
}

/// The connection ends.
fn gone<R: 'static>(cx: &mut Cx<'_, R>) -> Result {
    let now = cx.now();
    cx.delay_clear(FRESH);
    let left = cx.heap().wheel().map_or(0, |wheel| wheel.driver_out_octets()) as u64;
    let conversation = &mut cx.heap().own;
    let mut entries = std::mem::take(&mut conversation.unwritten);
    let is_whole = left == 0;
    entries.iter().for_each(|entry| entry.write(now, is_whole));
    entries.clear();
    if let Some(mut entry) = conversation.current.take().and_then(|mut current| current.entry.take()) {
        entry.octets = entry.octets.saturating_sub(left);
        entry.write(now, false);
    }
    Ok(())
}

/// The process comes to its end. What is in hand is still answered.
fn ending<R: 'static>(cx: &mut Cx<'_, R>) -> Result {
    cx.heap().own.is_ending = true;
    if cx.heap().own.has_answered {
        return close_if_idle(cx);
    }
    // Its first request may be on its way.
    cx.delay(FRESH, FIRST_REQUEST, ());
    Ok(())
}

/// Closes a connection that has nothing in hand.
fn close_if_idle<R: 'static>(cx: &mut Cx<'_, R>) -> Result {
    let connection = cx.heap();
    let is_between = |wheel: &ReadWrite<Httpd>| wheel.input_filter(|filter| filter.is_between_requests());
    let has_begun = !connection.own.is_last && connection.wheel().is_some_and(|wheel| !is_between(wheel));
    if connection.own.is_idle() && !connection.own.is_done && !has_begun {
        connection.own.is_done = true;
        cx.yield_("shutdown", ());
    }
    Ok(())
}

impl<R: 'static> Conversation<R> {
    /// Adds to what the log says of the body.
    fn count(&mut self, octets: u64) {
        let entry = self.current.as_mut().and_then(|current| current.entry.as_mut());
        entry.into_iter().for_each(|entry| entry.octets += octets);
    }
}

impl Current {
    fn has(&self, slot: &Rc<Slot>) -> bool {
        self.slot.as_ref().is_some_and(|own| Rc::ptr_eq(own, slot))
    }

    fn complain(&self, cause: &Exception) {
        log::error!(target: TARGET, "request failed: {cause} request={:?}", self.what);
    }
}

fn failure() -> Response {
    HttpError::internal("").into_parts().0
}

/// The names of the events.
pub(super) const WORD: &str = "http_word";
const ENDING: &str = "http_ending";
const FRESH: &str = "http_fresh";

/// How long a new client has for its first request while the process comes to its end.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

const TARGET: &str = "lenore::http";

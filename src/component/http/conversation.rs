//! A connection of a service. It answers each request before it looks at the next.

use std::cell::RefMut;
use std::fmt;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use super::access_log::Entry;
use super::answer::IntoAnswer;
use super::error::HttpError;
use super::respond::{cut, failure, finish_with, send_file, stream, take_up};
use super::service::Shared;
use super::slot::{Slot, Word};
use super::{HIGH, LOW};
use crate::args::Args;
use crate::component::{Connection, Failure, Protocol};
use crate::error::{Exception, Result};
use crate::filter::http::{Client, Httpd, Incoming, Outgoing, Request, Response};
use crate::kernel::{Context, core_of};

/// The context in which a handler of a [`Service`](super::Service) runs. Its session is the one of the connection.
pub type Cx<'a, R = ()> = Context<'a, Connection<Httpd, Conversation<R>>>;

/// What a service keeps of each connection. The [`Connection`] derefs to it.
///
/// POE: the connection object of SimpleHTTP.
pub struct Conversation<R: 'static = ()> {
    pub(super) service: Rc<Shared<R>>,
    /// The request that is being answered.
    pub(super) current: Option<Current>,
    /// The next request or refusal. There is never more than one, because the wheel reads no input meanwhile.
    next: Option<Incoming>,
    /// The wheel's input is paused.
    is_paused: bool,
    /// Method and path of the request that is being answered, for the log.
    pub(super) what: String,
    /// Log lines of responses that the system has not taken yet.
    #[allow(clippy::vec_box, reason = "an entry keeps its box when it comes here")]
    pub(super) unwritten: Vec<Box<Entry>>,
    /// The client sends no more, or the service ignores what it sends after this request.
    pub(super) is_last: bool,
    /// The last response that was put closes the connection.
    pub(super) closes: bool,
    /// The service answers nothing more.
    pub(super) is_done: bool,
}

/// A request that is being answered.
pub(super) struct Current {
    pub(super) client: Client,
    pub(super) work: Work,
    /// Where the answer comes from, if the handler has made a token.
    pub(super) slot: Option<Rc<Slot>>,
    pub(super) entry: Option<Box<Entry>>,
}

/// What the service does next for an answer.
pub(super) enum Work {
    /// A handler runs, or a [`Later`](super::Later) has not answered yet.
    Answer,
    Stream,
    File(io::Take<File>),
}

impl Drop for Current {
    /// A token that answers from here on is too late.
    fn drop(&mut self) {
        self.slot.iter().for_each(|slot| slot.close());
    }
}

impl<R> fmt::Debug for Conversation<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conversation").field("is_answering", &self.current.is_some()).finish_non_exhaustive()
    }
}

impl<R: 'static> Conversation<R> {
    fn new(service: Rc<Shared<R>>) -> Conversation<R> {
        Conversation {
            service,
            current: None,
            next: None,
            is_paused: false,
            what: String::new(),
            unwritten: Vec::new(),
            is_last: false,
            closes: false,
            is_done: false,
        }
    }

    /// Borrows the value that the closure of [`Service::with`](super::Service::with) has made in this process.
    ///
    /// The compiler makes sure that the borrow ends before the handler uses the context again. To use both at once,
    /// call [`cx.split()`](Context::split).
    ///
    /// # Panics
    ///
    /// If the handler borrows it a second time before it drops the first borrow.
    #[track_caller]
    pub fn resource(&self) -> RefMut<'_, R> {
        self.service.resource()
    }

    /// Makes the slot for an answer to the current request that comes later.
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

/// Makes the protocol of a service.
pub(super) fn protocol<R: 'static>(filter: Httpd, service: Rc<Shared<R>>) -> Protocol<Httpd, Conversation<R>> {
    let has_log = service.access_log.is_some();
    let shared = Rc::clone(&service);
    let protocol = Protocol::with_heap(filter, move || Conversation::new(Rc::clone(&shared)))
        .on_connect(connected)
        .on_input(received)
        .on_error(failed)
        .on_low(drained)
        .on_disconnect(gone)
        // The next requests of a client that sends and does not read wait.
        .watermarks(LOW, HIGH)
        .auto_pause()
        // A client that has sent its request and closed its side still gets the answer.
        .keep_on_error()
        // Part of a request must not occupy a child forever.
        .idle_timeout(IDLE_TIMEOUT)
        .arrival_timeout(ARRIVAL_TIMEOUT)
        .on_request_timeout(too_late)
        .state(WORD, heard);
    // For the access log, after each response.
    let protocol = if has_log { protocol.on_flushed(flushed) } else { protocol };
    protocol.prepare(move || service.prepare())
}

/// A time limit has passed for a client that has sent part of a request, or whose request is being answered.
fn too_late<R: 'static>(cx: &mut Cx<'_, R>) -> Result {
    let conversation = &mut cx.heap().own;
    if conversation.is_done {
        return Ok(());
    }
    match &conversation.current {
        None => {
            conversation.is_done = true;
            cx.heap().put(Outgoing::Response(Response::timed_out()));
            Ok(())
        }
        Some(Current { work: Work::Answer, .. }) => {
            conversation.complain(&Exception::new("timed out waiting for the answer"));
            finish_with(cx, Response::new(504).page("the answer has taken too long").close())
        }
        // A response that has begun can only be cut.
        Some(_) => {
            conversation.is_done = true;
            Ok(())
        }
    }
}

fn connected<R: 'static>(cx: &mut Cx<'_, R>) -> Result {
    let connection = cx.heap();
    // An interim response is not the end of a request.
    connection.requests.count_explicitly();
    let service = Rc::clone(&connection.own.service);
    service.prepare()
}

/// Handles a request, or a refusal by the filter. It waits while another request is being answered.
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

/// Handles the input that came while a request was being answered.
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
    if connection.own.is_last && !connection.own.is_done {
        connection.own.is_done = true;
        cx.yield_("shutdown", ());
    }
    Ok(())
}

fn begin<R: 'static>(cx: &mut Cx<'_, R>, incoming: Incoming) -> Result {
    match incoming {
        Incoming::Request(request) => answer(cx, request),
        Incoming::Expects(request) if cx.heap().own.service.routes.has_handler(&request) => {
            // The request counts from when its body has come. Until then the limits for half requests hold.
            cx.heap().put(Outgoing::Response(Response::proceed()));
            Ok(())
        }
        // No handler wants the body. Some clients send it all the same.
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

/// Reads the clock, because a handler may have blocked since the kernel read it.
fn precise_now<R: 'static>(cx: &mut Cx<'_, R>) -> SystemTime {
    core_of(cx).clock.advance();
    cx.now()
}

/// Notes that a request is being answered.
fn start<R: 'static>(cx: &mut Cx<'_, R>, client: Client, request: Option<&Request>) {
    let form = cx.heap().own.service.access_log;
    let entry = form.and_then(|form| {
        let now = precise_now(cx);
        Entry::begin(form, cx.heap().remote_ip(), now, request)
    });
    let connection = cx.heap();
    connection.request_begins();
    connection.own.current = Some(Current { client, work: Work::Answer, slot: None, entry });
    let what = &mut connection.own.what;
    what.clear();
    for part in request.map(|request| [request.method(), " ", request.path()]).into_iter().flatten() {
        what.push_str(part);
    }
}

fn answer<R: 'static>(cx: &mut Cx<'_, R>, request: Request) -> Result {
    start(cx, Client::of(&request), Some(&request));
    let service = Rc::clone(&cx.heap().own.service);
    let answer = catch_unwind(AssertUnwindSafe(|| service.answer(cx, request)))
        .unwrap_or_else(|payload| HttpError::from(Exception::from_panic(payload)).into_answer());
    take_up(cx, answer)
}

/// A token has answered, has a piece of a body, or was dropped.
fn heard<R: 'static>(cx: &mut Cx<'_, R>) -> Result {
    let mut args = cx.take::<Args>(1)?;
    let (slot, word) = (args.take::<Rc<Slot>>(0)?, args.take::<Word>(1)?);
    let connection = cx.heap();
    // In a forked process the request belongs to the parent.
    if !connection.is_connected() || connection.own.is_done {
        return Ok(());
    }
    if !connection.own.current.as_ref().is_some_and(|current| current.has(&slot)) {
        return Ok(());
    }
    match word {
        Word::Answer(answer) => take_up(cx, answer)?,
        Word::Pieces => stream(cx)?,
        Word::Dropped => {
            connection.own.complain(&Exception::new("the token for a later answer was dropped"));
            finish_with(cx, failure())?;
        }
    }
    go_on(cx)
}

/// The client has taken most of what was put.
fn drained<R: 'static>(cx: &mut Cx<'_, R>) -> Result {
    let connection = cx.heap();
    // A shutdown at once discards what was not put before.
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

/// The system has taken everything that was put.
fn flushed<R: 'static>(cx: &mut Cx<'_, R>) -> Result {
    let now = precise_now(cx);
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
        // A streamed body is longer than promised. Each further piece fails in this way, but only the first is
        // reported.
        let is_news = !cx.heap().own.is_done;
        return if is_news { cut(cx, &Exception::new(failure.text.clone())) } else { Ok(()) };
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
    // Its token learns that the client is gone.
    let current = cx.heap().own.current.take();
    if cx.heap().own.service.access_log.is_none() {
        return Ok(());
    }
    let now = precise_now(cx);
    let connection = cx.heap();
    let (left, put) = connection.wheel().map_or((0, 0), |wheel| (wheel.pending_output(), wheel.output_octets()));
    let conversation = &mut connection.own;
    for mut entry in conversation.unwritten.drain(..) {
        let behind = put.wrapping_sub(entry.end);
        let lost = left.saturating_sub(behind);
        entry.octets = entry.octets.saturating_sub(lost as u64);
        entry.write(now, lost == 0);
    }
    if let Some(mut entry) = current.and_then(|mut current| current.entry.take()) {
        entry.octets = entry.octets.saturating_sub(left as u64);
        entry.write(now, false);
    }
    Ok(())
}

impl<R: 'static> Conversation<R> {
    /// Adds to the bytes of the body in the log line.
    pub(super) fn count(&mut self, octets: u64) {
        let entry = self.current.as_mut().and_then(|current| current.entry.as_mut());
        entry.into_iter().for_each(|entry| entry.octets += octets);
    }

    pub(super) fn complain(&self, cause: &Exception) {
        complain(&self.what, cause);
    }

    /// Logs the cause of an error that the handler has returned. A status below 500 says that the client is at fault.
    pub(super) fn explain(&self, status: u16, cause: &Exception) {
        if status < 500 {
            log::info!(target: TARGET, "request refused: {cause} status={status} request={:?}", self.what);
        } else {
            self.complain(cause);
        }
    }
}

/// Logs why a request has failed. `what` is its method and its path.
pub(super) fn complain(what: &str, cause: &Exception) {
    log::error!(target: TARGET, "request failed: {cause} request={what:?}");
}

impl Current {
    pub(super) fn has(&self, slot: &Rc<Slot>) -> bool {
        self.slot.as_ref().is_some_and(|own| Rc::ptr_eq(own, slot))
    }
}

/// The names of the events.
pub(super) const WORD: &str = "http_word";

/// Default for the idle timeout.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Default for the arrival timeout.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(60);

const TARGET: &str = "lenore::http";

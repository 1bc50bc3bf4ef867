//! The status by HTTP: the page, JSON, metrics, and whether the Daemon lives and is ready. It changes nothing.
//!
//! The parent serves it in its loop, one request of each client a turn. Clients that ask in the same turn share a snapshot, so that
//! they can't keep the parent from its children. Nothing of it keeps the Daemon or the program alive: all is closed when no child is
//! left, or without children when nothing else is. Connected clients hold up the end for a moment: the system resets a connection that
//! the parent closes before it has read the request.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::daemon::heap::Cx;
use crate::daemon::parent::consumption::Detail;
use crate::daemon::parent::visitors::{Client, Stage, Visitors};
use crate::daemon::parent::{glance, manager, picture};
use crate::daemon::view::metrics::Format;
use crate::daemon::view::{json, metrics, page};
use crate::error::{Error, Result};
use crate::filter::http::{Httpd, Incoming, Outgoing, Request, Response};
use crate::name::Name;
use crate::wheel::{Failure, ListenAccept, ReadWrite, WheelId};

fn visitors<'a>(cx: &'a mut Cx<'_>) -> Option<&'a mut Visitors> {
    cx.heap().role.parent_mut()?.visitors.as_deref_mut()
}

/// Begins to listen if there is a listener. Not in a process that does not serve yet: who asks would ask the wrong one.
pub(in crate::daemon) fn begin(cx: &mut Cx<'_>) -> Result {
    let Some(visitors) = visitors(cx) else { return Ok(()) };
    if let Some(Ok(address)) = visitors.listener.as_ref().map(TcpListener::local_addr) {
        log::info!(target: "lenore::daemon", "status is served at http://{address}/");
    }
    let waits = cx.heap().role.parent().is_some_and(|parent| parent.upgrade.waits());
    if waits { Ok(()) } else { open_door(cx) }
}

/// Lets clients in.
pub(super) fn open_door(cx: &mut Cx<'_>) -> Result {
    let Some(visitors) = visitors(cx).filter(|visitors| visitors.door.is_none()) else { return Ok(()) };
    let Some(listener) = &visitors.listener else { return Ok(()) };
    let listener = listener.try_clone().map_err(|error| Error::os("dup", "the status listener", error))?;
    let door = ListenAccept::listener(listener).on_accept("status_accept").start(cx)?;
    let me = cx.session();
    let core = cx.core_mut();
    core.weaken_sources_of(me);
    core.let_alarms_pass(me, Name::new(TICK));
    if let Some(visitors) = self::visitors(cx) {
        visitors.door = Some(door);
        visitors.leave_by = None;
    }
    cx.delay_clear(LEAVE);
    arm(cx);
    Ok(())
}

/// Accepts no more clients. The other process accepts those that wait in the listener's queue. The next answer to a connected client says
/// that it is the last one, and the client connects again.
pub(super) fn close_door(cx: &mut Cx<'_>) {
    let now = cx.now();
    if let Some(visitors) = visitors(cx) {
        visitors.dismiss(now + TO_LEAVE);
    }
    arm(cx);
}

/// Closes the listener, as nothing is left that could be looked at. Clients that are about to ask, or to read an answer, hold up the end
/// for a moment.
pub(super) fn end(cx: &mut Cx<'_>) {
    let now = cx.now();
    let was_open = visitors(cx).is_some_and(|visitors| visitors.leave_by.is_none());
    if was_open && let Err(error) = let_in_the_queue(cx) {
        log::warn!(target: "lenore::daemon", "status listener: clients in its queue are refused: {error}");
    }
    let Some(visitors) = visitors(cx) else { return };
    visitors.listener = None;
    visitors.dismiss(now + TO_LEAVE_AT_THE_END);
    cx.delay_clear(TICK);
    arm(cx);
    if was_open {
        // Behind the requests that have come already.
        cx.yield_("status_idle", ());
    }
}

/// Accepts the clients that wait in the listener's queue. The system resets the clients in the queue of a listener that is closed.
fn let_in_the_queue(cx: &mut Cx<'_>) -> Result {
    while let Some(visitors) = visitors(cx).filter(|visitors| visitors.door.is_some() && !visitors.is_full())
        && let Some(Ok((socket, _))) = visitors.listener.as_ref().map(TcpListener::accept)
    {
        let_in(cx, socket)?;
    }
    Ok(())
}

/// Closes the connections of clients that have no request in hand. They may not have another one for long.
pub(in crate::daemon) fn close_idle(cx: &mut Cx<'_>) {
    if let Some(visitors) = visitors(cx) {
        visitors.dismiss_idle();
    }
    settle(cx);
}

/// Closes everything: the session stops.
pub(in crate::daemon) fn close(cx: &mut Cx<'_>) {
    if let Some(parent) = cx.heap().role.parent_mut() {
        drop(parent.visitors.take());
    }
}

/// The time for clients to leave is up.
pub(in crate::daemon) fn leave(cx: &mut Cx<'_>) {
    if let Some(visitors) = visitors(cx) {
        visitors.turn_out();
    }
}

/// A client has come.
pub(in crate::daemon) fn accept(cx: &mut Cx<'_>) -> Result {
    let socket: TcpStream = cx.take(0)?;
    let_in(cx, socket)
}

fn let_in(cx: &mut Cx<'_>, socket: TcpStream) -> Result {
    let now = cx.now();
    let Some(visitors) = visitors(cx) else { return Ok(()) };
    visitors.make_room(now);
    if visitors.is_full() {
        // Which closes the socket.
        return Ok(());
    }
    let wheel = ReadWrite::stream(socket, Httpd::new().max_head(MAX_HEAD)?.max_content(0))
        .on_input("status_request")
        .on_error("status_gone")
        .on_flushed("status_flushed")
        .start(cx)?;
    let me = cx.session();
    cx.core_mut().weaken_sources_of(me);
    let Some(visitors) = self::visitors(cx) else { return Ok(()) };
    visitors.clients.push(Client::new(wheel, now));
    // A timer that runs is left alone: moved by each that comes, it would not come due while they do.
    if visitors.clients.len() == 1 {
        arm(cx);
    }
    Ok(())
}

/// A client asks.
pub(in crate::daemon) fn request(cx: &mut Cx<'_>) -> Result {
    let (incoming, id) = (cx.take::<Incoming>(0)?, *cx.arg::<WheelId>(1)?);
    let response = match incoming {
        Incoming::Request(request) => answer(cx, &request),
        Incoming::Refused(refusal) => refusal.response(),
        // What it would send is not wanted.
        Incoming::Expects(request) => request.reply(417).close(),
        Incoming::Piece(_) | Incoming::End(_) => return Ok(()),
    };
    let now = cx.now();
    let Some(visitors) = visitors(cx) else { return Ok(()) };
    let response = if visitors.leave_by.is_some() { response.close() } else { response };
    if let Some(client) = visitors.client(id) {
        client.is_last = response.closes();
        client.wheel.put(Outgoing::Response(response));
        // What it asks next comes in another turn.
        client.wheel.pause_input();
        client.reach(Stage::Answered, now);
    }
    Ok(())
}

/// A client has all of its answer.
pub(in crate::daemon) fn flushed(cx: &mut Cx<'_>) -> Result {
    let (id, now) = (*cx.arg::<WheelId>(0)?, cx.now());
    let Some(client) = visitors(cx).and_then(|visitors| visitors.client(id)) else { return Ok(()) };
    if client.is_last {
        let_go(cx, id);
    } else {
        client.wheel.resume_input();
        client.reach(Stage::Idle, now);
    }
    Ok(())
}

/// A client has closed its side, or is lost.
pub(in crate::daemon) fn gone(cx: &mut Cx<'_>) -> Result {
    let failure: Failure = cx.take(0)?;
    if let Some(id) = failure.wheel {
        let_go(cx, id);
    }
    Ok(())
}

/// Closes the connection of a client, when what there is for it is written.
fn let_go(cx: &mut Cx<'_>, id: WheelId) {
    let Some(visitors) = visitors(cx) else { return };
    if let Some(client) = visitors.remove(id) {
        client.wheel.close_after_flush();
    }
    settle(cx);
}

/// Does not wait for clients if none are left.
fn settle(cx: &mut Cx<'_>) {
    if visitors(cx).is_some_and(|visitors| visitors.clients.is_empty()) {
        cx.delay_clear(LEAVE);
    }
}

/// Closes clients whose time is up.
pub(in crate::daemon) fn tick(cx: &mut Cx<'_>) {
    let now = cx.now();
    if let Some(visitors) = visitors(cx) {
        visitors.close_late(now);
    }
    arm(cx);
}

/// Looks at the clients again in a while, if there are any. Also after all timers of the Daemon were stopped.
///
/// The alarm for clients that have to leave keeps the session alive until they have left. The other alarm keeps nothing alive.
pub(super) fn arm(cx: &mut Cx<'_>) {
    let now = cx.now();
    let Some(visitors) = visitors(cx).filter(|visitors| !visitors.clients.is_empty()) else { return };
    match visitors.leave_by {
        Some(leave_by) => cx.delay(LEAVE, leave_by.duration_since(now).unwrap_or_default(), ()),
        None => cx.delay(TICK, LOOK, ()),
    }
}

fn answer(cx: &mut Cx<'_>, request: &Request) -> Response {
    let path = request.path();
    if request.has_more_slashes() || !matches!(path, "/" | "/status" | "/metrics" | "/live" | "/ready") {
        return plain(request, 404, "not found: there are /, /status, /metrics, /live and /ready");
    }
    if !matches!(request.method(), "GET" | "HEAD") {
        return plain(request, 405, "only GET and HEAD").header("Allow", "GET, HEAD");
    }
    let response = match path {
        "/live" => match manager::health(cx) {
            Ok(()) => plain(request, 200, "alive"),
            Err(ill) => plain(request, 503, &ill.to_string()),
        },
        "/ready" => match picture::unready(cx) {
            None => plain(request, 200, "ready"),
            Some(why) => plain(request, 503, why),
        },
        "/metrics" => {
            let accept = request.headers().get_all("Accept").collect::<Vec<_>>().join(&b","[..]);
            let format = metrics::negotiate(&String::from_utf8_lossy(&accept));
            let body = metrics(cx, format);
            request.reply(200).header("Content-Type", format.content_type()).header("Vary", "Accept").body(body)
        }
        "/status" => request.reply(200).header("Content-Type", "application/json").body(status(cx)),
        _ => serve_page(cx, request),
    };
    response.header("Cache-Control", "no-store").header("X-Content-Type-Options", "nosniff")
}

fn plain(request: &Request, status: u16, line: &str) -> Response {
    request.reply(status).header("Content-Type", "text/plain; charset=utf-8").body(format!("{line}\n"))
}

fn metrics(cx: &mut Cx<'_>, format: Format) -> String {
    let snapshot = glance::look(cx, Some(Detail::Brief));
    let prefix = cx.heap().metrics.prefix();
    snapshot.map(|snapshot| metrics::text(&snapshot, format, prefix)).unwrap_or_default()
}

fn status(cx: &mut Cx<'_>) -> String {
    glance::look(cx, None).map(|snapshot| json::text(&*snapshot)).unwrap_or_default()
}

/// The page, whose script and style alone may run in it.
fn serve_page(cx: &mut Cx<'_>, request: &Request) -> Response {
    let nonce = format!("{:016x}{:016x}", random(), random());
    let body = glance::look(cx, None).map(|snapshot| page::html(&snapshot, &nonce)).unwrap_or_default();
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    request
        .reply(200)
        .header("Content-Type", "text/html; charset=utf-8")
        .header("Content-Security-Policy", policy)
        .header("Referrer-Policy", "no-referrer")
        .body(body)
}

/// A number that nobody can guess: the keys of hash maps are seeded by the system.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// How often it is looked whether clients are late.
const LOOK: Duration = Duration::from_secs(1);

/// The longest head of a request, in bytes.
const MAX_HEAD: usize = 8 * 1024;

/// How long clients that were let in have for one more request after the service has gone to another process.
const TO_LEAVE: Duration = Duration::from_secs(1);

/// The same at the end of the Daemon, which waits for them.
const TO_LEAVE_AT_THE_END: Duration = Duration::from_millis(250);

const TICK: &str = "status_tick";

const LEAVE: &str = "status_leave";

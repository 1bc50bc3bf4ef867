//! The status by HTTP: the page, JSON, metrics, and whether the Daemon lives and is ready. It changes nothing.
//!
//! The parent serves it in its loop, one request of each client a turn. Clients that ask in the same turn share a snapshot, so that
//! they can't keep the parent from its children. Nothing of it keeps the Daemon or the program alive: all is closed when no child is
//! left, or without children when nothing else is.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::TcpStream;
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
    if let Ok(address) = visitors.listener.local_addr() {
        log::info!(target: "lenore::daemon", "status is served at http://{address}/");
    }
    let waits = cx.heap().role.parent().is_some_and(|parent| parent.upgrade.waits());
    if waits { Ok(()) } else { open_door(cx) }
}

/// Lets clients in.
pub(super) fn open_door(cx: &mut Cx<'_>) -> Result {
    let Some(visitors) = visitors(cx).filter(|visitors| visitors.door.is_none()) else { return Ok(()) };
    let listener = visitors.listener.try_clone().map_err(|error| Error::os("dup", "the status listener", error))?;
    let door = ListenAccept::listener(listener).on_accept("status_accept").start(cx)?;
    let me = cx.session();
    let core = cx.core_mut();
    core.weaken_sources_of(me);
    core.let_alarms_pass(me, Name::new(TICK));
    if let Some(visitors) = self::visitors(cx) {
        visitors.door = Some(door);
    }
    Ok(())
}

/// Lets nobody in: another process does. Clients that are in hear it by the end of their connection, and come again.
pub(super) fn close_door(cx: &mut Cx<'_>) {
    if let Some(visitors) = visitors(cx) {
        visitors.door = None;
        visitors.clients.clear();
    }
}

/// Closes everything: nothing is left that could be looked at.
pub(in crate::daemon) fn end(cx: &mut Cx<'_>) {
    if let Some(parent) = cx.heap().role.parent_mut() {
        drop(parent.visitors.take());
    }
    cx.delay_clear(TICK);
}

/// A client has come.
pub(in crate::daemon) fn accept(cx: &mut Cx<'_>) -> Result {
    let socket: TcpStream = cx.take(0)?;
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
    let (now, closes) = (cx.now(), response.closes());
    let Some(visitors) = visitors(cx) else { return Ok(()) };
    if closes {
        if let Some(Client { wheel, .. }) = visitors.remove(id) {
            wheel.put(Outgoing::Response(response));
            wheel.close_after_flush();
        }
    } else if let Some(client) = visitors.client(id) {
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
    if let Some(client) = visitors(cx).and_then(|visitors| visitors.client(id)) {
        client.wheel.resume_input();
        client.reach(Stage::Idle, now);
    }
    Ok(())
}

/// A client has closed its side, or is lost.
pub(in crate::daemon) fn gone(cx: &mut Cx<'_>) -> Result {
    let failure: Failure = cx.take(0)?;
    if let Some(id) = failure.wheel
        && let Some(Client { wheel, .. }) = visitors(cx).and_then(|visitors| visitors.remove(id))
    {
        wheel.close_after_flush();
    }
    Ok(())
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
pub(super) fn arm(cx: &mut Cx<'_>) {
    if visitors(cx).is_some_and(|visitors| !visitors.clients.is_empty()) {
        cx.delay(TICK, LOOK, ());
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

const TICK: &str = "status_tick";

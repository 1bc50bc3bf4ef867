//! Clients that take too long with their requests, and handlers that take too long with their answers.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use lenore::component::http::{Later, Response, Result, Service, Stream};
use lenore::wheel::Put;

use util::component::{Peer, collect_warnings, spin, warnings};
use util::{DEADLINE, wait_until};

use super::{Host, Page};

const SHORT: Duration = Duration::from_millis(60);
const LONG: Duration = Duration::from_secs(3600);

/// What handlers keep for the test.
type Kept<T> = Rc<RefCell<Vec<T>>>;

fn service() -> Service {
    Service::new().get("/", |_, _| "hello").post("/", |_, request| request.into_body())
}

/// Sends `octet` again and again, until the service has closed the connection.
fn trickle(host: &mut Host, peer: &mut Peer, octet: &str) -> String {
    wait_until("the end", DEADLINE, || {
        spin(&mut host.kernel);
        peer.look();
        // What is sent behind the end would reset the connection.
        if peer.received.is_empty() && !peer.is_at_end {
            peer.send(octet);
        }
        peer.is_at_end.then_some(())
    });
    peer.text()
}

#[test]
fn head_that_comes_by_bytes_gets_408_after_the_arrival_timeout() {
    let mut host = Host::of(service().protocol().arrival_timeout(SHORT).idle_timeout(LONG));
    let mut peer = Peer::connect(host.address);
    peer.send("GET / HTTP/1.1\r\nHost: a.test\r\nX: ");
    let page = Page::read(trickle(&mut host, &mut peer, "x"));
    assert_eq!((page.status, page.header("Connection")), (408, Some("close")));
}

#[test]
fn body_that_comes_by_bytes_gets_408_after_the_arrival_timeout() {
    let mut host = Host::of(service().protocol().arrival_timeout(SHORT).idle_timeout(LONG));
    let mut peer = Peer::connect(host.address);
    peer.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000\r\n\r\n");
    assert_eq!(Page::read(trickle(&mut host, &mut peer, "x")).status, 408);
}

#[test]
fn body_that_was_asked_for_and_does_not_come_gets_408() {
    let mut host = Host::of(service().protocol().arrival_timeout(SHORT).idle_timeout(LONG));
    let mut peer = Peer::connect(host.address);
    peer.send("POST / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    let text = peer.run_to_end(&mut host.kernel);
    assert!(text.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 408 Request Timeout\r\n"), "{text}");
}

#[test]
fn request_that_stops_in_the_middle_gets_408_after_the_idle_timeout() {
    let mut host = Host::of(service().protocol().arrival_timeout(LONG).idle_timeout(SHORT));
    let mut peer = Peer::connect(host.address);
    peer.send("GET / HTTP/1.1\r\nHo");
    assert_eq!(Page::read(peer.run_to_end(&mut host.kernel)).status, 408);
}

#[test]
fn upload_that_goes_on_is_not_cut_by_the_idle_timeout() {
    let mut host = Host::of(service().protocol().idle_timeout(8 * SHORT));
    let mut peer = Peer::connect(host.address);
    let (count, begun) = (50, std::time::Instant::now());
    peer.send(&format!("POST / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nContent-Length: {count}\r\n\r\n"));
    let mut sent = 0;
    wait_until("all to be sent", DEADLINE, || {
        spin(&mut host.kernel);
        // One each 20 ms: the idle timeout is over twice before the last.
        if begun.elapsed() >= sent * SHORT / 3 {
            peer.send("x");
            sent += 1;
        }
        (sent == count).then_some(())
    });
    let page = Page::read(peer.run_to_end(&mut host.kernel));
    assert_eq!((page.status, page.body), (200, "x".repeat(count as usize)));
}

#[test]
fn answer_that_comes_too_late_is_a_504_in_the_log() {
    collect_warnings();
    let kept: Kept<Later> = Kept::default();
    let laters = Rc::clone(&kept);
    let service = Service::new().get("/later", move |cx, _| -> Result<_> {
        let (later, pending) = Later::new(cx)?;
        laters.borrow_mut().push(later);
        Ok(pending)
    });
    let mut host = Host::of(service.protocol().request_timeout(SHORT));
    let mut peer = Peer::connect(host.address);
    peer.send("GET /later HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let page = Page::read(peer.run_to_end(&mut host.kernel));
    assert_eq!((page.status, page.header("Connection")), (504, Some("close")), "{page:?}");
    assert_eq!(warnings(), ["request failed: timed out waiting for the answer request=\"GET /later\""]);
    assert!(!kept.borrow_mut().remove(0).answer("too late"));
}

#[test]
fn stream_that_takes_too_long_is_cut() {
    let kept: Kept<Stream> = Kept::default();
    let streams = Rc::clone(&kept);
    let service = Service::new().get("/stream", move |cx, _| -> Result<_> {
        let (stream, pending) = Stream::new(cx, Response::new(200))?;
        stream.put("a");
        streams.borrow_mut().push(stream);
        Ok(pending)
    });
    let mut host = Host::of(service.protocol().request_timeout(SHORT));
    let mut peer = Peer::connect(host.address);
    peer.send("GET /stream HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let text = peer.run_to_end(&mut host.kernel);
    assert!(
        text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\n1\r\na\r\n"),
        "no end of the body: {text}"
    );
    assert_eq!(kept.borrow()[0].put("more"), Put::Closed);
}

//! Answers that come later, and bodies that come in pieces.

use std::cell::RefCell;
use std::net::Shutdown;
use std::rc::Rc;

use lenore::component::http::{Later, Response, Result, Service, Stream};
use lenore::wheel::Put;
use lenore::{Kernel, Session};

use util::component::{Peer, collect_warnings, spin, warnings};
use util::in_process::Log;
use util::lab::LONG;
use util::{DEADLINE, wait_until};

use super::Host;

/// Tokens of requests that wait, for a test to take.
type Laters = Rc<RefCell<Vec<Later>>>;

fn later_service(laters: &Laters) -> Service {
    let laters = Rc::clone(laters);
    Service::new().get("/now", |_, _| "now").get("/later", move |cx, _| -> Result<_> {
        let (later, pending) = Later::new(cx)?;
        laters.borrow_mut().push(later);
        Ok(pending)
    })
}

const LATER: &str = "GET /later HTTP/1.1\r\nHost: a.test\r\n\r\n";
const NOW: &str = "GET /now HTTP/1.1\r\nHost: a.test\r\n\r\n";

#[track_caller]
fn wait_for(host: &mut Host, what: &str, mut done: impl FnMut() -> bool) {
    wait_until(what, DEADLINE, || {
        spin(&mut host.kernel);
        done().then_some(())
    });
}

#[track_caller]
fn wait_for_text(host: &mut Host, peer: &mut Peer, end: &str) -> String {
    wait_for(host, end, || peer.text().ends_with(end));
    std::mem::take(&mut peer.received);
    end.to_owned()
}

#[test]
fn later_answers_in_order_while_other_connections_go_on() {
    let laters = Laters::default();
    let mut host = Host::new(later_service(&laters));
    let (mut first, mut second) = (Peer::connect(host.address), Peer::connect(host.address));
    first.send(&[LATER, NOW, LATER, NOW].concat());
    wait_for(&mut host, "the token", || laters.borrow().len() == 1);
    second.send(NOW);
    wait_for_text(&mut host, &mut second, "\r\n\r\nnow");
    assert_eq!(first.text(), "", "the pipelined request waits");
    let answer = |laters: &Laters, text: &str| laters.borrow_mut().remove(0).answer((202, text));
    assert!(answer(&laters, "one"));
    wait_for(&mut host, "the next token", || laters.borrow().len() == 1);
    assert!(answer(&laters, "two"));
    wait_for(&mut host, "all", || first.text().matches("HTTP/1.1 ").count() == 4 && first.text().ends_with("now"));
    let text = first.text();
    let bodies: Vec<&str> = text.split("\r\n\r\n").skip(1).map(|part| part.split("HTTP/").next().unwrap()).collect();
    assert_eq!(bodies, ["one", "now", "two", "now"]);
}

#[test]
fn later_can_be_answered_by_another_session() {
    let mut kernel = util::in_process::kernel();
    Session::new(())
        .state("_start", |cx| Ok(cx.alias_set("worker")?))
        .state("work", |cx| {
            let later = cx.take::<Later>(0)?;
            assert!(!later.is_gone());
            later.answer("worked");
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    let service = Service::new().get("/", |cx, _| -> Result<_> {
        let (later, pending) = Later::new(cx)?;
        cx.post("worker", "work", (later,))?;
        Ok(pending)
    });
    let address = util::component::serve(&mut kernel, lenore::component::TcpServer::new("127.0.0.1:0", service));
    let mut host = Host { kernel, address };
    assert_eq!(host.get("/").body, "worked");
}

#[test]
fn later_that_is_dropped_is_a_500_in_the_log() {
    collect_warnings();
    let laters = Laters::default();
    let mut host = Host::new(later_service(&laters));
    let mut peer = Peer::connect(host.address);
    peer.send(LATER);
    wait_for(&mut host, "the token", || !laters.borrow().is_empty());
    laters.borrow_mut().clear();
    wait_for(&mut host, "the answer", || peer.text().contains("500 Internal Server Error"));
    assert_eq!(warnings(), ["request failed: the token for a later answer was dropped request=\"GET /later\""]);
    peer.received.clear();
    peer.send(NOW);
    wait_for_text(&mut host, &mut peer, "\r\n\r\nnow");
}

#[test]
fn later_of_a_client_that_is_gone_says_so_and_keeps_nothing_alive() {
    let laters = Laters::default();
    let mut host = Host::new(later_service(&laters));
    let peer = Peer::connect(host.address);
    let mut peer = peer;
    peer.send(LATER);
    wait_for(&mut host, "the token", || !laters.borrow().is_empty());
    let later = laters.borrow_mut().remove(0);
    assert!(!later.is_gone());
    peer.reset();
    wait_for(&mut host, "the end of the client", || later.is_gone());
    assert!(!later.answer("nobody hears"));
    host.kernel.post("server", "shutdown", ()).unwrap();
    util::in_process::run(&mut host.kernel);
}

#[test]
fn half_closed_client_is_still_answered() {
    let laters = Laters::default();
    let mut host = Host::new(later_service(&laters));
    let mut peer = Peer::connect(host.address);
    peer.send(LATER);
    peer.stream.shutdown(Shutdown::Write).unwrap();
    wait_for(&mut host, "the token", || !laters.borrow().is_empty());
    spin(&mut host.kernel);
    assert!(laters.borrow_mut().remove(0).answer("still"));
    let text = peer.run_to_end(&mut host.kernel);
    assert!(text.contains("Connection: close\r\n") && text.ends_with("\r\n\r\nstill"), "{text}");
}

#[test]
fn answer_in_place_of_the_token_wins() {
    let kept = Laters::default();
    let laters = Rc::clone(&kept);
    let mut host = Host::new(Service::new().get("/", move |cx, _| -> Result<_> {
        let (later, _) = Later::new(cx)?;
        laters.borrow_mut().push(later);
        Ok("at once")
    }));
    assert_eq!(host.get("/").body, "at once");
    assert!(!kept.borrow_mut().remove(0).answer("too late"));
}

fn streams(kept: &Rc<RefCell<Vec<Stream>>>) -> Service {
    let kept = Rc::clone(kept);
    Service::new().get("/now", |_, _| "now").get("/later", move |cx, _| -> Result<_> {
        let (stream, pending) = Stream::new(cx, Response::new(200))?;
        stream.put("a");
        kept.borrow_mut().push(stream);
        Ok(pending)
    })
}

#[test]
fn stream_sends_pieces_as_they_come_and_the_connection_goes_on() {
    let kept = Rc::default();
    let mut host = Host::new(streams(&kept));
    let mut peer = Peer::connect(host.address);
    peer.send(&[LATER, NOW].concat());
    wait_for(&mut host, "the first piece", || peer.text().ends_with("\r\n\r\n1\r\na\r\n"));
    assert!(peer.text().contains("Transfer-Encoding: chunked"));
    peer.received.clear();
    let stream: Stream = kept.borrow_mut().remove(0);
    assert_eq!((stream.put("bc"), stream.put("")), (Put::Accepted, Put::Accepted));
    peer.run_to(&mut host.kernel, "2\r\nbc\r\n");
    peer.received.clear();
    assert!(stream.end());
    wait_for(&mut host, "the next answer", || peer.text().ends_with("\r\n\r\nnow"));
    assert!(peer.text().starts_with("0\r\n\r\nHTTP/1.1 200 OK"), "{}", peer.text());
}

#[test]
fn stream_for_http_1_0_ends_with_the_connection() {
    let kept: Rc<RefCell<Vec<Stream>>> = Rc::default();
    let mut host = Host::new(streams(&kept));
    let mut peer = Peer::connect(host.address);
    peer.send("GET /later HTTP/1.0\r\n\r\n");
    wait_for(&mut host, "the token", || !kept.borrow().is_empty());
    kept.borrow_mut().remove(0).end();
    let text = peer.run_to_end(&mut host.kernel);
    assert!(text.ends_with("\r\n\r\na") && !text.contains("chunked"), "{text}");
}

#[test]
fn stream_for_head_has_no_body_and_is_closed() {
    let kept: Rc<RefCell<Vec<Stream>>> = Rc::default();
    let mut host = Host::new(streams(&kept));
    let page = host.ask_with("HEAD", "/later", "", "");
    assert_eq!((page.status, page.body.as_str()), (200, ""));
    assert_eq!(kept.borrow()[0].put("more"), Put::Closed);
}

#[test]
fn stream_for_head_leaves_the_connection_to_the_next_request() {
    let mut host = Host::new(streams(&Rc::default()));
    let mut peer = Peer::connect(host.address);
    peer.send(&["HEAD /later HTTP/1.1\r\nHost: a.test\r\n\r\n", NOW].concat());
    wait_for(&mut host, "the next answer", || peer.text().ends_with("\r\n\r\nnow"));
    let statuses: Vec<String> = peer.text().split("HTTP/1.1 ").skip(1).map(|part| part[..3].to_owned()).collect();
    assert_eq!(statuses, ["200", "200"], "{}", peer.text());
}

#[test]
fn stream_of_another_length_than_it_said_cuts_the_connection() {
    for (pieces, sent) in [(&["ab", "c"][..], "abc"), (&["abc", "def"], "abc"), (&[], "")] {
        collect_warnings();
        let service = Service::new().get("/now", |_, _| "now").get("/later", move |cx, _| -> Result<_> {
            let (stream, pending) = Stream::new(cx, Response::new(200).header("Content-Length", "5"))?;
            pieces.iter().for_each(|piece| _ = stream.put(*piece));
            stream.end();
            Ok(pending)
        });
        let mut host = Host::new(service);
        let mut peer = Peer::connect(host.address);
        peer.send(&[LATER, NOW].concat());
        let text = peer.run_to_end(&mut host.kernel);
        assert!(text.ends_with(&format!("Content-Length: 5\r\n\r\n{sent}")), "and no other response: {text:?}");
        let told = "request failed: the stream is not as long as its Content-Length request=\"GET /later\"";
        assert_eq!(warnings(), [told], "{pieces:?}");
    }
}

#[test]
fn stream_that_is_dropped_cuts_the_connection() {
    collect_warnings();
    let kept: Rc<RefCell<Vec<Stream>>> = Rc::default();
    let mut host = Host::new(streams(&kept));
    let mut peer = Peer::connect(host.address);
    peer.send(&[LATER, NOW].concat());
    wait_for(&mut host, "the token", || !kept.borrow().is_empty());
    kept.borrow_mut().clear();
    let text = peer.run_to_end(&mut host.kernel);
    assert!(text.ends_with("\r\n\r\n1\r\na\r\n"), "neither an end of the body nor another response: {text:?}");
    assert_eq!(warnings(), ["request failed: the stream was dropped before its end request=\"GET /later\""]);
}

/// Puts as much as the client takes.
fn pour(log: &Log) -> (Service, impl Fn(&mut Kernel)) {
    let seen = log.clone();
    let source = Session::new((None::<Stream>, 0))
        .state("_start", |cx| Ok(cx.alias_set("source")?))
        .state("begin", |cx| {
            let stream = cx.take::<Stream>(0)?;
            stream.on_low(cx.postback("more", ())?);
            cx.heap().0 = Some(stream);
            cx.yield_("more", ());
            Ok(())
        })
        .state("more", move |cx| {
            let (stream, count) = cx.heap();
            while *count < PIECES {
                *count += 1;
                match stream.as_ref().map_or(Put::Closed, |stream| stream.put(vec![b'x'; PIECE])) {
                    Put::Accepted => {}
                    Put::High => return seen.push("high"),
                    Put::Closed => {
                        *stream = None;
                        return seen.push("closed");
                    }
                }
            }
            if let Some(stream) = stream.take() {
                stream.end();
            }
        });
    let source = RefCell::new(Some(source));
    let service = Service::new().get("/later", |cx, _| -> Result<_> {
        let (stream, pending) = Stream::new(cx, Response::new(200))?;
        cx.post("source", "begin", (stream,))?;
        Ok(pending)
    });
    (service, move |kernel: &mut Kernel| {
        source.borrow_mut().take().map(|source| source.spawn(kernel));
    })
}

const PIECE: usize = 32 * 1024;
/// More than sockets hold, and not so much that a busy machine takes long for it.
const PIECES: usize = 300;

#[test]
fn stream_holds_no_more_than_the_client_takes() {
    let log = Log::default();
    let (service, spawn) = pour(&log);
    let mut host = Host::new(service);
    spawn(&mut host.kernel);
    let mut peer = Peer::connect(host.address);
    peer.send("GET /later HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
    wait_for(&mut host, "the client to be full", || log.count("high") > 0);
    let mut rest = 0;
    wait_until("the whole body", LONG, || {
        spin(&mut host.kernel);
        rest += peer.look().iter().filter(|octet| **octet == b'x').count();
        peer.received.clear();
        peer.is_at_end.then_some(())
    });
    assert_eq!(rest, PIECE * PIECES);
    assert!(log.count("high") > 1, "{}", log.text());
}

#[test]
fn stream_learns_that_its_client_is_gone_while_it_waits() {
    let log = Log::default();
    let (service, spawn) = pour(&log);
    let mut host = Host::new(service);
    spawn(&mut host.kernel);
    let mut peer = Peer::connect(host.address);
    peer.send(LATER);
    wait_for(&mut host, "the client to be full", || log.count("high") > 0);
    peer.reset();
    wait_for(&mut host, "the source to hear", || log.count("closed") > 0);
}

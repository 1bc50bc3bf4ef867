//! What goes out.

use lenore::filter::http::{Httpd, Outgoing, Request, Response};
use lenore::filter::{Filter, FilterError};

use crate::{put, request};

const DATE: &str = "Date: Thu, 01 Jan 2026 00:00:00 GMT\r\n";

fn get(method: &str, version: &str) -> Request {
    request(format!("{method} / HTTP/{version}\r\nHost: a\r\n\r\n"))
}

fn keep_alive_1_0() -> Request {
    request("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
}

#[track_caller]
fn sent(response: Response) -> String {
    put([Outgoing::Response(response)]).expect("it can be sent")
}

/// Head and body of a response that is streamed in two pieces and an empty one.
#[track_caller]
fn streamed(response: Response) -> String {
    let pieces = ["ab", "", "cdefghijklmnopqr"].map(|piece| Outgoing::Piece(piece.into()));
    let records = [Outgoing::Response(response.streamed())].into_iter().chain(pieces).chain([Outgoing::End]);
    put(records).expect("it can be sent").replace(DATE, "")
}

#[track_caller]
fn refused(records: impl IntoIterator<Item = Outgoing>, reason: &str) {
    assert_eq!(put(records), Err(FilterError::Malformed { reason: reason.to_owned().into() }));
}

#[test] // K-FH-16: the version is HTTP/1.1, as chunks and persistent connections are
fn a_status_line_has_the_standard_reason() {
    for (status, line) in [
        (200, "HTTP/1.1 200 OK"),
        (404, "HTTP/1.1 404 Not Found"),
        (599, "HTTP/1.1 599 (Unknown Error)"),
        (999, "HTTP/1.1 999 (Unknown Error)"),
    ] {
        assert_eq!(sent(Response::new(status)).lines().next(), Some(line));
    }
}

#[test] // K-FH-16: words of one's own follow the standard ones, which are in parentheses then, unless they are the same
fn own_words_follow_the_standard_ones() {
    for (status, own, line) in [
        (200, "", "200 (OK)"),
        (404, "Nope", "404 (Not Found) Nope"),
        (599, "Mine", "599 (Unknown Error) Mine"),
        (200, "a\r\nb: c", "200 (OK) a  b: c"),
        (200, "OK", "200 OK"),
        (200, "ok", "200 (OK) ok"),
        (200, "OK ", "200 (OK) OK "),
        (404, "Not Found", "404 Not Found"),
        (413, "Content Too Large", "413 Content Too Large"),
        (599, "Unknown Error", "599 Unknown Error"),
    ] {
        let response = sent(Response::new(status).reason(own));
        assert_eq!(response.split("\r\n").next(), Some(format!("HTTP/1.1 {line}").as_str()));
    }
}

#[test] // K-FH-17: fields in their order, an empty line, the content; Content-Length and Date are added
fn a_response_has_all_its_parts() {
    let response = Response::new(200).header("A", "b").header("a", [0xc3, 0xa9]).body("x\ny");
    assert_eq!((response.status(), response.content(), response.headers().len()), (200, &b"x\ny"[..], 2));
    assert_eq!(sent(response), format!("HTTP/1.1 200 OK\r\nA: b\r\na: é\r\n{DATE}Content-Length: 3\r\n\r\nx\ny"));
    assert!(sent(Response::new(200)).ends_with("\r\nContent-Length: 0\r\n\r\n"));
    assert!(!sent(Response::new(200).header("date", "today")).contains(DATE));
}

#[test] // K-FH-17: a newline in a value becomes a blank: no client's words end a line
fn no_value_ends_its_line() {
    let response = sent(Response::new(302).header("Location", "/\r\nSet-Cookie: a=b\n\n\0x"));
    assert!(response.contains("\r\nLocation: /  Set-Cookie: a=b   x\r\n"), "{response:?}");
}

#[test]
fn what_cannot_be_sent_is_an_error_and_leaves_nothing() {
    let one = |response| [Outgoing::Response(response)];
    for name in ["", "a b", "a:", "a\r\n", "é"] {
        refused(one(Response::new(200).header(name, "x")), &format!("a response can't have header name {name:?}"));
    }
    for status in [0, 99, 1000] {
        refused(one(Response::new(status)), &format!("a response can't have status {status}"));
    }
    for length in ["x", "", "-1"] {
        let reason = format!("a response can't have Content-Length {length:?}");
        refused(one(Response::new(200).header("Content-Length", length)), &reason);
    }
    let twice = Response::new(200).header("Content-Length", "1").header("Content-Length", "2");
    refused(one(twice), "a response can't have Content-Length \"2\"");
    let chunked = Response::new(200).header("Transfer-Encoding", "chunked");
    refused(one(chunked), "a response can't have Transfer-Encoding, which is the filter's to set");
    let short = Response::new(200).header("content-length", "2").body("x");
    refused(one(short), "Content-Length is 2, and the body has 1 bytes");
}

#[test]
fn some_responses_have_no_body() {
    let head = get("HEAD", "1.1");
    let start = format!("HTTP/1.1 200 OK\r\n{DATE}");
    assert_eq!(sent(head.reply(200).body("hello")), format!("{start}Content-Length: 5\r\n\r\n"));
    assert_eq!(sent(head.reply(200)), format!("{start}\r\n"), "the length is not known");
    assert_eq!(sent(head.reply(200).header("Content-Length", "77")), format!("{start}Content-Length: 77\r\n\r\n"));
    let any = get("GET", "1.1");
    assert_eq!(sent(any.reply(204).body("x")), format!("HTTP/1.1 204 No Content\r\n{DATE}\r\n"));
    let not_modified = format!("HTTP/1.1 304 Not Modified\r\n{DATE}");
    assert_eq!(sent(any.reply(304).body("x")), format!("{not_modified}\r\n"));
    assert_eq!(sent(any.reply(304).header("Content-Length", "7")), format!("{not_modified}Content-Length: 7\r\n\r\n"));
    assert_eq!(sent(Response::proceed()), "HTTP/1.1 100 Continue\r\n\r\n");
    let switch = any.reply(101).header("Connection", "upgrade").header("Upgrade", "x");
    assert_eq!(sent(switch), "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
}

/// What may be in a head only now and then.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Framed<'a> {
    length: Option<&'a str>,
    chunked: bool,
    body: &'a str,
}

/// The parts of `text`, a response or nothing.
fn framed(text: &str) -> Option<Framed<'_>> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let value = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
    Some(Framed { length: value("Content-Length: "), chunked: value("Transfer-Encoding: ") == Some("chunked"), body })
}

#[test] // K-FH-21: each MUST NOT of RFC 9110 and RFC 9112 on how a server frames a response, whatever the session asks for
fn what_is_forbidden_is_not_sent() {
    let connect = |version: &str| request(format!("CONNECT a.test:443 HTTP/{version}\r\nHost: a.test:443\r\n\r\n"));
    let head_only = Framed { length: None, chunked: false, body: "" };
    // Every way to ask for a body, and what a response without these limits is then.
    type Ask = fn(Response) -> Response;
    let bodies: [(Ask, &str); 4] = [
        (|response| response.body("hello"), "hello"),
        (|response| response.header("Content-Length", "5").body("hello"), "hello"),
        (|response| response.streamed(), "5\r\nhello\r\n0\r\n\r\n"),
        (|response| response.header("Content-Length", "5").streamed(), "hello"),
    ];
    for (ask, whole) in bodies {
        let all = |response: Response| {
            let response = ask(response);
            let is_streamed = response.content().is_empty();
            let rest = [Outgoing::Piece(b"hello".to_vec()), Outgoing::End].into_iter().filter(|_| is_streamed);
            put([Outgoing::Response(response)].into_iter().chain(rest)).expect("it can be sent")
        };
        assert!(all(get("GET", "1.1").reply(200)).ends_with(whole), "or this shows nothing");
        // RFC 9110 8.6, 15.2; RFC 9112 6.1, 6.3: no length, no coding, no body in 1xx.
        for status in [100, 101, 102, 103, 199] {
            assert_eq!(framed(&all(get("GET", "1.1").reply(status))), Some(head_only), "{status}");
            assert_eq!(framed(&all(get("HEAD", "1.1").reply(status))), Some(head_only), "{status}");
        }
        // RFC 9110 8.6, 15.3.5; RFC 9112 6.1, 6.3: nor in 204.
        for method in ["GET", "HEAD", "POST"] {
            assert_eq!(framed(&all(get(method, "1.1").reply(204))), Some(head_only), "{method}");
        }
        // RFC 9110 8.6, 9.3.6; RFC 9112 6.1, 6.3: nor in any 2xx to CONNECT.
        for status in [200, 201, 204, 205, 206, 299] {
            for version in ["1.0", "1.1"] {
                let text = all(connect(version).reply(status));
                assert_eq!(framed(&text), Some(head_only), "{status}");
                assert!(!text.contains("Connection:"), "a tunnel is no connection of HTTP: {text}");
            }
        }
        // Other responses to CONNECT are like any.
        for status in [301, 407, 502] {
            assert!(all(connect("1.1").reply(status)).ends_with(whole), "{status}");
        }
        // RFC 9110 15.3.6: no content in 205; as it does not end with its head, a length of 0 ends it.
        for (method, version) in [("GET", "1.1"), ("POST", "1.1"), ("GET", "1.0")] {
            let empty = Framed { length: Some("0"), ..head_only };
            assert_eq!(framed(&all(get(method, version).reply(205))), Some(empty), "{method} {version}");
        }
        // RFC 9110 9.3.2, 15.4.5; RFC 9112 6.3: no content to HEAD and in 304, but the length that there would be.
        for (method, status) in [("HEAD", 200), ("HEAD", 404), ("GET", 304), ("HEAD", 304)] {
            let text = all(get(method, "1.1").reply(status));
            let framed = framed(&text).expect("a response");
            assert_eq!((framed.body, framed.length.unwrap_or("5")), ("", "5"), "{method} {status}");
        }
        // RFC 9110 15.2: no 1xx to HTTP/1.0. What comes behind one is the response.
        for status in [100, 102, 103, 199] {
            for request in [get("GET", "1.0"), keep_alive_1_0()] {
                assert_eq!(all(request.reply(status)), "", "{status}");
            }
        }
        // RFC 9112 6.1: no coding to HTTP/1.0.
        for status in [200, 206, 304, 404, 599] {
            for request in [get("GET", "1.0"), get("HEAD", "1.0"), keep_alive_1_0()] {
                assert!(!all(request.reply(status)).contains("Transfer-Encoding"), "{status}");
            }
        }
        // RFC 9112 6.2: no length beside a coding.
        for status in 200..600 {
            for request in [get("GET", "1.1"), get("HEAD", "1.1"), connect("1.1")] {
                let text = all(request.reply(status));
                let framed = framed(&text).expect("a response");
                assert!(!framed.chunked || framed.length.is_none(), "{status} {text}");
            }
        }
    }
}

#[test] // RFC 9110 15.2, 15.3.7.2, 8.6: what leaves nothing to send is refused
fn a_response_that_contradicts_itself_is_refused() {
    let one = |response| [Outgoing::Response(response)];
    let switch = get("GET", "1.0").reply(101).header("Upgrade", "x");
    refused(one(switch), "a response can't have status 101 for a client of HTTP/1.0");
    let head = get("HEAD", "1.1").reply(200).header("Content-Length", "4").body("hello");
    refused(one(head), "Content-Length is 4, and the body has 5 bytes");
    let ask = |ranges: &str| request(format!("GET / HTTP/1.1\r\nHost: a\r\nRange: bytes={ranges}\r\n\r\n"));
    let parts = |request: Request| request.reply(206).header("Content-Type", "Multipart/Byteranges; boundary=x");
    let beside = "a response can't have Content-Range beside multipart/byteranges";
    refused(one(parts(ask("0-1,4-5")).header("content-range", "bytes 0-1/9")), beside);
    refused(one(parts(ask("0-1"))), "a response can't have multipart/byteranges for a single range");
    assert!(sent(parts(ask("0-1, 4-5"))).starts_with("HTTP/1.1 206 Partial Content\r\n"));
    let single = ask("0-1").reply(206).header("Content-Range", "bytes 0-1/9").header("Content-Type", "text/plain");
    assert!(sent(single.body("ab")).ends_with("\r\n\r\nab"));
}

#[test]
fn an_interim_response_ends_no_connection() {
    let last = request("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(!last.reply(103).closes() && !last.reply(101).closes() && last.reply(200).closes());
    let hint = last.reply(103).header("Link", "</a.css>");
    let both = put([hint, last.reply(200)].map(Outgoing::Response)).expect("in order");
    assert_eq!(both.matches("Connection: close").count(), 1, "{both}");
    assert!(both.starts_with("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\n"), "{both}");
    let tunnel = request("CONNECT a:1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(!tunnel.reply(200).closes() && tunnel.reply(200).close().closes() && tunnel.reply(403).closes());
}

#[test] // K-FH-19: a client's version changes what Connection says, not the version of the response
fn connection_says_what_the_version_does_not() {
    let connection = |response: Response| {
        let closes = response.closes();
        let text = sent(response);
        assert!(text.starts_with("HTTP/1.1 "), "{text}");
        assert_eq!(text.contains("\r\nConnection: close\r\n"), closes, "{text}");
        (closes, text.contains("\r\nConnection: keep-alive\r\n"))
    };
    assert_eq!(connection(get("GET", "1.1").reply(200)), (false, false));
    assert_eq!(connection(get("GET", "1.0").reply(200)), (true, false));
    assert_eq!(connection(keep_alive_1_0().reply(200)), (false, true));
    assert_eq!(connection(keep_alive_1_0().reply(200).close()), (true, false));
    assert_eq!(connection(Response::new(200)), (false, false));
    assert_eq!(connection(Response::new(200).header("connection", "x, Close")), (true, false));
    assert_eq!(connection(Response::timed_out()), (true, false));
    let last = request("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(connection(last.reply(200)), (true, false));
}

#[test]
fn a_streamed_body_goes_out_in_chunks() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunks = "2\r\nab\r\n10\r\ncdefghijklmnopqr\r\n0\r\n\r\n";
    assert_eq!(streamed(get("GET", "1.1").reply(200)), format!("{head}{chunks}"));
    assert_eq!(streamed(get("HEAD", "1.1").reply(200)), head);
    assert_eq!(streamed(get("GET", "1.1").reply(204)), "HTTP/1.1 204 No Content\r\n\r\n");
}

#[test]
fn a_streamed_body_with_a_length_is_counted() {
    let streamed_18 = |request: Request| streamed(request.reply(200).header("Content-Length", "18"));
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n";
    assert_eq!(streamed_18(get("GET", "1.1")), format!("{head}abcdefghijklmnopqr"));
    assert_eq!(streamed_18(get("HEAD", "1.1")), head);
    let response = || Outgoing::Response(Response::new(200).header("Content-Length", "2").streamed());
    let piece = |text: &str| Outgoing::Piece(text.into());
    refused([response(), piece("abc")], "more body than Content-Length says");
    refused([response(), piece("a"), Outgoing::End], "less body than Content-Length says");
}

#[test]
fn a_streamed_body_for_http_1_0_ends_with_the_connection() {
    let response = keep_alive_1_0().reply(200).streamed();
    assert!(response.closes());
    assert_eq!(streamed(response), "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabcdefghijklmnopqr");
    let counted = keep_alive_1_0().reply(200).header("Content-Length", "18").streamed();
    assert!(!counted.closes());
}

#[test]
fn records_out_of_order_are_refused() {
    let without = "a piece or an end without a streamed response";
    refused([Outgoing::Piece(b"x".to_vec())], without);
    refused([Outgoing::End], without);
    let streamed = || Outgoing::Response(Response::new(200).streamed());
    refused([streamed(), Outgoing::End, Outgoing::End], without);
    let whole = Outgoing::Response(Response::new(200));
    refused([streamed(), whole.clone()], "the response before this one has no end yet");
    let two = put([streamed(), Outgoing::End, whole]).expect("in order");
    assert_eq!(two.matches("HTTP/1.1 200 OK").count(), 2);
}

#[test]
fn a_page_escapes_its_detail() {
    let response = Response::new(404).page("<script> & co");
    let text = String::from_utf8_lossy(response.content()).into_owned();
    assert!(text.contains("<p>&lt;script&gt; &amp; co</p>"), "{text}");
}

#[test] // K-RW-42, for this filter: a clock is the program's own
fn a_response_that_panics_leaves_nothing() {
    let mut httpd = Httpd::new().clock(|| panic!("on purpose"));
    let mut out = b"before".to_vec();
    let put = std::panic::AssertUnwindSafe(|| httpd.put(&Outgoing::Response(Response::new(200)), &mut out));
    assert!(std::panic::catch_unwind(put).is_err());
    assert_eq!(out, b"before");
}

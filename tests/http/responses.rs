//! What goes out.

use lenore::filter::FilterError;
use lenore::filter::http::{Outgoing, Request, Response};

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
    assert_eq!(put(records), Err(FilterError::Malformed { reason: reason.into() }));
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

#[test] // K-FH-16: words of one's own follow the standard ones, which are in parentheses then
fn own_words_follow_the_standard_ones() {
    for (status, own, line) in [
        (200, "", "200 (OK)"),
        (404, "Nope", "404 (Not Found) Nope"),
        (599, "Mine", "599 (Unknown Error) Mine"),
        (200, "a\r\nb: c", "200 (OK) a  b: c"),
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
    refused(one(short), "Content-Length is 2, and the body has 1 octets");
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

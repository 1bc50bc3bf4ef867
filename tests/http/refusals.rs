//! What is no request, and what could be taken for several.

use lenore::filter::http::{Httpd, Incoming, Outgoing};
use lenore::filter::{Filter, FilterError};

use crate::{put, records, records_of, refusal};

/// A request with these header lines, `\n` standing for CR LF, and another behind it.
fn smuggled(fields: &str, body: &str) -> String {
    let fields = fields.replace('\n', "\r\n");
    format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{body}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
}

#[track_caller]
fn refused(fields: &str, body: &str, status: u16, detail: &str) {
    let refusal = refusal(smuggled(fields, body));
    assert_eq!((refusal.status(), refusal.detail()), (status, detail), "{fields:?} {body:?}");
}

#[test] // K-FH-06, K-RE-28: a bad request line is a 400 without a request; nothing behind it is a request any more
fn nothing_comes_after_a_refusal() -> Result<(), FilterError> {
    let mut httpd = Httpd::new();
    let all = httpd.get(b"nonsense\r\n\r\nGET / HTTP/1.0\r\n\r\n")?;
    let [Incoming::Refused(refusal)] = &all[..] else { panic!("{all:?}") };
    assert_eq!((refusal.status(), refusal.request()), (400, None));
    assert_eq!(refusal.to_string(), "400 Bad Request: malformed request line");
    for _ in 0..2 {
        assert!(httpd.get(b"GET / HTTP/1.0\r\n\r\n")?.is_empty());
        assert_eq!(httpd.get_pending(), b"");
    }
    // The output goes on: the response to the refusal.
    httpd.put(&Outgoing::Response(refusal.response()), &mut Vec::new())
}

#[test] // K-FH-07: a malformed line, or one that continues the line before, ends the request
fn malformed_fields_are_refused() {
    for line in [
        "A : b",
        "A b",
        ": b",
        " A: b",
        "A: b\n folded",
        "A: b\n\tfolded",
        "A\0: b",
        "A: b\0",
        "A: b\rc",
        "A: \x01",
        "A: \x7f",
        "(A): b",
        "A: b\r\r\n",
        "\u{e9}: b",
    ] {
        let refusal = refusal(smuggled(line, ""));
        assert_eq!((refusal.status(), refusal.request()), (400, None), "{line:?}");
    }
    assert_eq!(refusal("GET /\0 HTTP/1.0\r\n\r\n").status(), 400);
    assert_eq!(refusal("GET / HTTP/1.0\rX\n\r\n").status(), 400);
}

#[test] // K-FH-09: Content-Length is a number
fn a_content_length_is_digits() {
    for value in ["", "x", "-1", "+1", "1 2", "0x1", "1,1", "1, 1", "1.0", "\u{b2}"] {
        refused(&format!("Content-Length: {value}"), "", 400, "the Content-Length is not a number");
    }
    for value in ["18446744073709551616", "99999999999999999999999"] {
        refused(&format!("Content-Length: {value}"), "", 413, "the Content-Length is beyond all bounds");
    }
}

#[test] // K-FH-09: 413 above MaxContent, but not when streaming
fn a_large_body_is_refused_before_it_comes() {
    for value in ["6", "18446744073709551615"] {
        let all = records_of(Httpd::new().max_content(5), smuggled(&format!("Content-Length: {value}"), ""));
        let [Incoming::Refused(refusal)] = &all[..] else { panic!("{all:?}") };
        assert_eq!((refusal.status(), refusal.request().map(|request| request.target())), (413, Some("/")));
        let all =
            records_of(Httpd::new().max_content(5).streaming(), smuggled(&format!("Content-Length: {value}"), ""));
        assert!(matches!(&all[..2], [Incoming::Request(_), Incoming::Piece(_)]), "{all:?}");
    }
    let chunked = "Transfer-Encoding: chunked";
    let all = records_of(Httpd::new().max_content(5), smuggled(chunked, "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"));
    assert_eq!(all.len(), 2, "5 octets are allowed: {all:?}");
    let all = records_of(
        Httpd::new().max_content(5),
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\n",
    );
    assert!(matches!(&all[..], [Incoming::Refused(refusal)] if refusal.status() == 413), "{all:?}");
}

#[test] // K-FH-10 as RFC 9112 6.3 wants it: what says nothing of its length has none
fn an_encoding_is_no_body() {
    for head in [
        "GET /1 HTTP/1.0\r\nConnection: keep-alive\r\nContent-Encoding: gzip\r\n\r\n",
        "GET /1 HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\n\r\n",
        "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Encoding: br\r\nContent-Type: a/b\r\n\r\n",
    ] {
        let all = records(format!("{head}GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"));
        let [Incoming::Request(first), Incoming::Request(second)] = &all[..] else { panic!("{head:?}: {all:?}") };
        assert_eq!((first.body(), second.target()), (&b""[..], "/2"));
    }
    for (fields, body) in [("Transfer-Encoding: chunked", "2\r\nab\r\n0\r\n\r\n"), ("Content-Length: 2", "ab")] {
        let all = records(smuggled(&format!("Content-Encoding: gzip\n{fields}"), body));
        let [Incoming::Request(first), Incoming::Request(_)] = &all[..] else { panic!("{fields:?}: {all:?}") };
        assert_eq!(first.body(), b"ab");
    }
}

#[test]
fn a_body_with_two_ends_is_refused() {
    let both = "both Content-Length and Transfer-Encoding";
    refused("Content-Length: 5\nTransfer-Encoding: chunked", "0\r\n\r\n", 400, both);
    refused("Transfer-Encoding: chunked\nContent-Length: 5", "0\r\n\r\n", 400, both);
    refused("Transfer-Encoding: gzip\nContent-Length: 5", "abcde", 400, both);
    refused("Content-Length: 0\nTransfer-Encoding: chunked", "0\r\n\r\n", 400, both);
    let several = "several values of Content-Length";
    refused("Content-Length: 5\nContent-Length: 6", "abcdef", 400, several);
    refused("content-length: 5\nCONTENT-LENGTH: 05", "abcde", 400, several);
    // The same twice is no contradiction.
    assert_eq!(records(smuggled("Content-Length: 2\nContent-Length: 2", "ab")).len(), 2);
}

#[test]
fn only_chunked_is_known() {
    for value in ["gzip", "identity", "gzip, chunked", "xchunked", "chunked;q=1", "\"chunked\""] {
        refused(&format!("Transfer-Encoding: {value}"), "0\r\n\r\n", 501, "unknown Transfer-Encoding");
    }
    refused("Transfer-Encoding: gzip\nTransfer-Encoding: chunked", "", 501, "unknown Transfer-Encoding");
    let twice = "chunked is not the last Transfer-Encoding, or is there twice";
    for value in ["chunked, gzip", "chunked, chunked", "chunked, identity"] {
        refused(&format!("Transfer-Encoding: {value}"), "0\r\n\r\n", 400, twice);
    }
    refused("Transfer-Encoding: ", "", 400, "an empty Transfer-Encoding");
    refused("Transfer-Encoding: ,", "", 400, "an empty Transfer-Encoding");
    let old = refusal("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    assert_eq!((old.status(), old.detail()), (400, "HTTP/1.0 has no Transfer-Encoding"));
}

#[test] // an octet a kilobyte: what says nothing is bounded as well, if not for each chunk then for all of them
fn extensions_of_chunks_are_limited_in_sum() {
    let body = |chunks: usize| format!("1;{}\r\nx\r\n", "e".repeat(999)).repeat(chunks) + "0\r\n\r\n";
    let httpd = || Httpd::new().max_head(10_000).unwrap();
    let all = records_of(httpd(), smuggled("Transfer-Encoding: chunked", &body(10)));
    assert_eq!(all.len(), 2, "{all:?}");
    let twice = smuggled("Transfer-Encoding: chunked", &body(10));
    let mut again = httpd();
    for _ in 0..2 {
        assert_eq!(again.get(twice.split_inclusive("0\r\n\r\n").next().unwrap().as_bytes()).unwrap().len(), 1);
    }
    for httpd in [httpd(), httpd().streaming()] {
        let all = records_of(httpd, smuggled("Transfer-Encoding: chunked", &body(11)));
        let Some(Incoming::Refused(refusal)) = all.last() else { panic!("{all:?}") };
        assert_eq!((refusal.status(), refusal.detail()), (400, "too many extensions of chunks"));
    }
}

#[test]
fn malformed_chunks_are_refused() {
    let size = "malformed size of a chunk";
    for (body, detail) in [
        ("\r\n", size),
        (";x\r\n", size),
        ("x\r\n", size),
        ("-1\r\n", size),
        ("0x1\r\n", size),
        (" 1\r\n", size),
        ("1 \r\n", size),
        ("1\n", size),
        ("1\rx", size),
        ("1;a\nb\r\n", size),
        ("1;a\0\r\n", size),
        ("1 x\r\n", size),
        ("00000000000000001\r\n", size),
        ("1\r\nabc", "no CR LF behind a chunk"),
        ("1\r\na\n", "no CR LF behind a chunk"),
        ("1\r\na\r0", "no CR LF behind a chunk"),
        ("0\r\n\n", "a line of the trailer ends with LF alone"),
        ("0\r\nA: b\n\r\n", "a line of the trailer ends with LF alone"),
        ("0\r\nA b\r\n\r\n", "malformed name of a header field"),
        ("0\r\nA: b\r\n folded\r\n\r\n", "malformed name of a header field"),
    ] {
        refused("Transfer-Encoding: chunked", body, 400, detail);
    }
    let long = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(2000));
    refused("Transfer-Encoding: chunked", &long, 400, "too long a line with the size of a chunk");
    let long = format!("0\r\nA: {}\r\n\r\n", "x".repeat(20_000));
    refused("Transfer-Encoding: chunked", &long, 431, "the trailer is too long");
    let many = format!("0\r\n{}\r\n", "A: b\r\n".repeat(101));
    refused("Transfer-Encoding: chunked", &many, 431, "too many header fields");
}

#[test]
fn a_chunk_of_sixteen_digits_overflows_nothing() {
    let all = records(smuggled("Transfer-Encoding: chunked", "1\r\nx\r\nffffffffffffffff\r\nabc"));
    assert!(matches!(&all[..], [Incoming::Refused(refusal)] if refusal.status() == 413), "{all:?}");
    let streaming = Httpd::new().streaming();
    let all = records_of(streaming, smuggled("Transfer-Encoding: chunked", "ffffffffffffffff\r\nabc"));
    assert!(matches!(&all[..], [Incoming::Request(_), Incoming::Piece(_)]), "{all:?}");
}

#[test]
fn http_1_1_needs_one_host() {
    let refused = |fields: &str, version: &str| {
        let refusal = refusal(format!("GET / HTTP/{version}\r\n{fields}\r\n"));
        assert_eq!(refusal.status(), 400);
        refusal.detail().to_owned()
    };
    assert_eq!(refused("", "1.1"), "HTTP/1.1 needs a Host");
    assert_eq!(refused("Host: a\r\nhost: a\r\n", "1.1"), "more than one Host");
    assert_eq!(refused("Host: a\r\nhost: b\r\n", "1.0"), "more than one Host");
    for host in ["a b", "a/b", "a,b", "user@a", "a?b", "\u{e9}"] {
        assert_eq!(refused(&format!("Host: {host}\r\n"), "1.1"), "the Host is not valid", "{host}");
    }
}

#[test]
fn too_much_of_a_head_is_refused() {
    let refused = |head: String| {
        let all = records_of(Httpd::new().max_head(200).expect("it has sense"), head);
        let [Incoming::Refused(refusal)] = &all[..] else { panic!("{all:?}") };
        refusal.status()
    };
    assert_eq!(refused(format!("GET /{} HTTP/1.0\r\n\r\n", "x".repeat(300))), 414);
    assert_eq!(refused(format!("GET / HTTP/1.0\r\nA: {}\r\n\r\n", "x".repeat(300))), 431);
    assert_eq!(refused(format!("GET / HTTP/1.0\r\nA: {}", "x".repeat(300))), 431, "before its end");
    assert_eq!(refused(format!("{}GET / HTTP/1.0\r\nA: {}", "\r\n".repeat(300), "x".repeat(200))), 431);
    let many = |count: usize| format!("GET / HTTP/1.0\r\n{}\r\n", "A: b\r\n".repeat(count));
    assert!(matches!(&records(many(100))[..], [Incoming::Request(_)]));
    assert_eq!(refusal(many(101)).status(), 431);
}

#[test]
fn other_versions_are_not_spoken() {
    for version in ["HTTP/2.0", "HTTP/2.1", "HTTP/0.9", "HTTP/3.0"] {
        let refusal = refusal(format!("GET / {version}\r\n\r\n"));
        assert_eq!((refusal.status(), refusal.detail()), (505, "neither HTTP/1.0 nor HTTP/1.1"));
    }
    assert_eq!(refusal("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").status(), 505);
    assert_eq!(refusal("GET / HTTP/11\r\n\r\n").status(), 400);
}

#[test]
fn only_100_continue_can_be_expected() {
    refused("Content-Length: 1\nExpect: 200-ok", "x", 417, "Expect has another value than 100-continue");
}

#[test] // K-FH-15, K-FH-01: a page that names code, reason and detail, with the request attached
fn a_refusal_has_a_response() -> Result<(), FilterError> {
    let refusal = refusal("GET /x HTTP/1.1\r\n\r\n");
    assert_eq!(refusal.request().map(|request| request.target()), Some("/x"));
    let page = "<html><head><title>Error 400: Bad Request</title></head>\n\
                <body><h1>Error 400: Bad Request</h1>\n<p>HTTP/1.1 needs a Host</p></body></html>\n";
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/html; charset=utf-8\r\n\
         Date: Thu, 01 Jan 2026 00:00:00 GMT\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        page.len()
    );
    assert_eq!(put([Outgoing::Response(refusal.response())])?, format!("{head}{page}"));
    Ok(())
}

#[test] // K-FH-15: also a refusal of HEAD has no body
fn a_refused_head_request_gets_no_body() -> Result<(), FilterError> {
    let response = put([Outgoing::Response(refusal("HEAD / HTTP/1.1\r\n\r\n").response())])?;
    assert!(response.ends_with("\r\n\r\n") && response.contains("\r\nContent-Length: 138\r\n"), "{response}");
    Ok(())
}

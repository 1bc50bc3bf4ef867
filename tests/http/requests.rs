//! What is a request, and what of it a session gets.

use std::mem::size_of;

use lenore::filter::http::{Httpd, Incoming, Response, Version, format_date, parse_date};
use lenore::filter::{Filter, FilterError};

use crate::{records, records_of, refusal, request, requests};

#[test] // K-FH-01: octets become requests
fn a_request_has_all_its_parts() {
    let request = request("PUT /a/b?c=d&e HTTP/1.1\r\nHost: a.test:81\r\nX-Y:  z \t\r\nContent-Length: 3\r\n\r\nxyz");
    assert_eq!((request.method(), request.target(), request.version()), ("PUT", "/a/b?c=d&e", Version::Http11));
    assert_eq!((request.path(), request.query()), ("/a/b", Some("c=d&e")));
    assert_eq!((request.host(), request.header("x-y")), (Some("a.test:81"), Some("z")));
    assert_eq!((request.headers().len(), request.headers().is_empty()), (3, false));
    assert_eq!(request.headers().iter().next(), Some(("Host", &b"a.test:81"[..])));
    assert!(request.keeps_alive() && !request.expects_continue() && request.trailers().is_empty());
    assert_eq!(request.into_body(), b"xyz");
}

#[test] // K-FH-02: MaxContent is 1 MiB; MaxBuffer has become the limit of the head
fn limits_have_defaults_and_sense() {
    let body = |octets: usize| format!("POST / HTTP/1.0\r\nContent-Length: {octets}\r\n\r\n{}", "x".repeat(octets));
    assert_eq!(request(body(1 << 20)).body().len(), 1 << 20);
    assert_eq!(refusal(body((1 << 20) + 1)).status(), 413);

    let head = |octets: usize| format!("GET / HTTP/1.0\r\nA: {}\r\n\r\n", "x".repeat(octets - 23));
    assert_eq!(head(100).len(), 100);
    assert_eq!(request(head(16 << 10)).headers().len(), 1);
    assert_eq!(refusal(head((16 << 10) + 1)).status(), 431);

    for (octets, reason) in [(0, "must not be zero"), (1 << 31, "must be less than 2 GiB")] {
        let error = Httpd::new().max_head(octets).expect_err("no sense");
        assert_eq!(error, FilterError::invalid_setting("max_head", reason));
    }
}

#[test] // K-FH-02: half of an empty line is no head, however short heads have to be
fn an_empty_line_counts_for_nothing_wherever_it_is_cut() -> Result<(), FilterError> {
    let status = |records: Vec<Incoming>| match &records[..] {
        [Incoming::Refused(refusal)] => refusal.status(),
        other => panic!("{other:?}"),
    };
    let mut httpd = Httpd::new().max_head(1)?;
    assert!(httpd.get(b"\r")?.is_empty());
    let cut = status(httpd.get(b"\n?\0\n")?);
    assert_eq!(cut, status(Httpd::new().max_head(1)?.get(b"\r\n?\0\n")?));
    Ok(())
}

#[test] // K-FI-07, for this filter: a clone has the settings and no input
fn a_clone_has_the_settings_and_no_input() -> Result<(), FilterError> {
    let mut httpd = Httpd::new().max_content(2).max_head(40)?.streaming();
    httpd.get_one_start(b"GET / HTT")?;
    let mut clone = httpd.clone_config();
    assert_eq!((httpd.get_pending(), clone.get_pending()), (&b"GET / HTT"[..], &b""[..]));
    let records = clone.get(b"POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc")?;
    assert_eq!(records.len(), 3, "streaming: {records:?}");
    let records = clone.clone_config().get(&[b'x'; 50])?;
    assert!(matches!(&records[..], [Incoming::Refused(refusal)] if refusal.status() == 414), "{records:?}");
    Ok(())
}

#[test] // K-FH-03: the empty line that ends the head may be CR LF, LF or a mixture; empty lines in front are skipped
fn newlines_may_be_mixed() {
    for head in
        ["GET / HTTP/1.0\n\n", "GET / HTTP/1.0\r\n\n", "GET / HTTP/1.0\n\r\n", "\r\n\n\r\nGET / HTTP/1.0\r\nA: b\n\n"]
    {
        assert_eq!(request(head).target(), "/", "{head:?}");
    }
}

#[test] // K-FH-03: other white space in front of a request line is not skipped, nor a CR alone
fn blanks_in_front_of_a_request_line_are_refused() {
    for head in [" GET / HTTP/1.0\r\n\r\n", "\tGET / HTTP/1.0\r\n\r\n", "\rGET / HTTP/1.0\r\n\r\n"] {
        assert_eq!(refusal(head).status(), 400, "{head:?}");
    }
}

#[test] // K-FH-04: any word is a method, in its own case
fn any_token_is_a_method() {
    for method in ["GET", "get", "M-SEARCH", "BREW", "x"] {
        assert_eq!(request(format!("{method} / HTTP/1.0\r\n\r\n")).method(), method);
    }
}

#[test] // K-FH-04: one blank each, and a version. What has none is not taken for HTTP/0.9
fn a_request_line_is_exact() {
    for line in [
        "GET /",
        "GET / 1.0",
        "GET  / HTTP/1.0",
        "GET\t/ HTTP/1.0",
        "GET /  HTTP/1.0",
        "GET / HTTP/1.0 ",
        "GET / http/1.0",
        "GET / HTTP/1",
        "GET /a b HTTP/1.0",
        "GET HTTP/1.0",
        "G@T / HTTP/1.0",
        " ",
    ] {
        assert_eq!(refusal(format!("{line}\r\n\r\n")).status(), 400, "{line:?}");
    }
}

#[test] // K-FH-05
fn leading_slashes_become_one() {
    for (target, wanted) in [("//a//b", "/a//b"), ("///", "/"), ("/a//", "/a//"), ("/", "/")] {
        assert_eq!(request(format!("GET {target} HTTP/1.0\r\n\r\n")).target(), wanted);
    }
}

#[test]
fn a_target_has_one_of_four_forms() {
    let get = |method: &str, target: &str| format!("{method} {target} HTTP/1.1\r\nHost: b.test\r\n\r\n");
    for (target, path, query, host) in [
        ("http://a.test/x?y", "/x", Some("y"), "a.test"),
        ("http://a.test:8080", "/", None, "a.test:8080"),
        ("https://a.test?/y", "/", Some("/y"), "a.test"),
        ("/http://a.test/", "/http://a.test/", None, "b.test"),
        ("/?a=http://c.test/", "/", Some("a=http://c.test/"), "b.test"),
    ] {
        let request = request(get("GET", target));
        assert_eq!((request.path(), request.query(), request.host()), (path, query, Some(host)), "{target}");
    }
    assert_eq!(request(get("OPTIONS", "*")).path(), "*");
    assert_eq!(request(get("CONNECT", "a.test:443")).target(), "a.test:443");
    for (method, target) in [
        ("GET", "*"),
        ("GET", "a.test"),
        ("GET", "../x"),
        ("CONNECT", "/"),
        ("CONNECT", "a"),
        ("GET", "://a"),
        ("GET", "a://"),
    ] {
        assert_eq!(
            refusal(get(method, target)).detail(),
            "the target is neither a path nor a URI",
            "{method} {target}"
        );
    }
}

#[test] // K-FH-07: names in any case, repeated ones accumulate; values are any octets
fn header_fields_accumulate() {
    let request = request(b"GET / HTTP/1.0\r\nA: 1\r\nb:\r\na:2, 3\r\nC~_-: \xff\xe9\r\n\r\n");
    assert_eq!(request.headers().get_all("a").collect::<Vec<_>>(), [&b"1"[..], b"2, 3"]);
    assert_eq!((request.header("A"), request.header("B"), request.header("d")), (Some("1"), Some(""), None));
    assert_eq!(request.header("c~_-"), None, "not text");
    assert_eq!(request.headers().get_all("c~_-").next(), Some(&b"\xff\xe9"[..]));
    assert_eq!(format!("{:?}", request.headers()), r#"{"A": "1", "b": "", "a": "2, 3", "C~_-": "��"}"#);
}

#[test] // K-FH-08, K-RE-32: without Content-Length there is no body, and what follows is the next request
fn requests_follow_each_other() {
    let input = "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nxyGET /3 HTTP/1.1\r\nHost: a\r\n\r\n";
    let all: Vec<_> =
        requests(input).iter().map(|request| (request.target().to_owned(), request.body().to_vec())).collect();
    assert_eq!(all, [("/1".into(), vec![]), ("/2".into(), b"xy".to_vec()), ("/3".into(), vec![])]);
}

#[test] // K-FH-11 as K-RE-32 wants it: a request with Content-Length 0 costs no other
fn an_empty_body_keeps_what_is_behind_it() {
    let all = requests("POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(all.iter().map(|request| request.target()).collect::<Vec<_>>(), ["/1", "/2"]);
}

#[test] // K-FH-12 as K-RE-32 wants it: a chunked body is a body
fn chunks_are_joined() {
    let chunked = "POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n\
                   3\r\nabc\r\n00A;x=\"y\tz\"\r\n0123456789\r\n1 ;e\r\n\n\r\n0\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n";
    let all = requests(chunked);
    assert_eq!(all[0].body(), b"abc0123456789\n");
    assert_eq!((all.len(), all[1].target()), (2, "/2"));
}

#[test]
fn trailers_stay_apart_from_the_header() {
    let request = request(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0;last\r\nA: b\r\nHost: evil\r\n\r\n",
    );
    assert_eq!((request.body(), request.trailers().get("a"), request.header("A")), (&b"x"[..], Some("b"), None));
    assert_eq!((request.host(), request.trailers().len()), (Some("a"), 2));
}

#[test] // K-FH-13: any method may have a body; an empty line behind it is skipped
fn a_body_goes_with_any_method() {
    for method in ["GET", "HEAD", "DELETE", "BREW"] {
        let all = requests(format!(
            "{method} /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n"
        ));
        assert_eq!((all.len(), all[0].body(), all[1].target()), (2, &b"ab"[..], "/2"), "{method}");
    }
}

#[test] // K-FH-14: the head comes first, then pieces as they arrive, then the end; then the next request
fn a_streamed_request_comes_in_parts() -> Result<(), FilterError> {
    let mut httpd = Httpd::new().streaming().max_content(1);
    let mut shown = Vec::new();
    for chunk in [
        &b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"[..],
        b"ab",
        b"",
        b"cdeGET /2 HTTP/1.1\r\nHost: a\r\n\r\nPOST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nf",
        b"g\r\n0\r\nT: u\r\n",
        b"\r\n",
    ] {
        for record in httpd.get(chunk)? {
            shown.push(match record {
                Incoming::Request(request) => {
                    assert!(request.body().is_empty());
                    request.target().to_owned()
                }
                Incoming::Piece(piece) => format!("+{}", String::from_utf8_lossy(&piece)),
                Incoming::End(trailers) => format!("end {}", trailers.len()),
                other => panic!("{other:?}"),
            });
        }
        shown.push("|".into());
    }
    assert_eq!(shown.join(" "), "/1 | +ab | | +cde end 0 /2 end 0 /3 +f | +g | end 1 |");
    Ok(())
}

#[test] // K-FH-18: while a body is being collected nothing of it is pending; K-FI-06: what follows it is
fn what_is_pending_was_not_looked_at() -> Result<(), FilterError> {
    let mut httpd = Httpd::new();
    assert!(httpd.get(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Le")?.is_empty());
    assert_eq!(httpd.get_pending(), b"POST / HTTP/1.1\r\nHost: a\r\nContent-Le");
    assert!(httpd.get(b"ngth: 3\r\n\r\nab")?.is_empty());
    assert_eq!(httpd.get_pending(), b"");
    httpd.get_one_start(b"c\x16\x03\x01")?;
    assert!(matches!(httpd.get_one()?, Some(Incoming::Request(request)) if request.body() == b"abc"));
    assert_eq!(httpd.get_pending(), b"\x16\x03\x01", "for the filter that takes over");
    Ok(())
}

#[test]
fn a_client_that_waits_is_told_of() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-Continue\r\n\r\n";
    let all = records(format!("{head}xy"));
    let [Incoming::Expects(first), Incoming::Request(whole)] = &all[..] else { panic!("{all:?}") };
    assert!(first.expects_continue() && first.body().is_empty());
    assert_eq!((whole.body(), Response::proceed().status()), (&b"xy"[..], 100));
    // At once, and not with the body.
    assert!(matches!(&records(head)[..], [Incoming::Expects(_)]));
    // Who is refused anyway need not wait.
    let all = records_of(Httpd::new().max_content(1), head);
    assert!(matches!(&all[..], [Incoming::Refused(refusal)] if refusal.status() == 413), "{all:?}");
    // Streaming, the request says it.
    let all = records_of(Httpd::new().streaming(), head);
    assert!(matches!(&all[..], [Incoming::Request(request)] if request.expects_continue()), "{all:?}");
}

#[test]
fn nobody_waits_without_a_body_or_in_http_1_0() {
    for head in [
        "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
        "POST / HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\nx",
        "GET / HTTP/1.0\r\nExpect: miracles\r\n\r\n",
    ] {
        assert!(!request(head).expects_continue(), "{head:?}");
    }
}

#[test]
fn the_last_request_of_a_connection_is_the_last() -> Result<(), FilterError> {
    for (head, keeps) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n", true),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: foo, CLOSE\r\n", false),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: close\r\n", false),
        ("GET / HTTP/1.0\r\n", false),
        ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n", true),
        ("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n", false),
        ("POST / HTTP/1.0\r\nContent-Length: 0\r\n", false),
    ] {
        let mut httpd = Httpd::new();
        let all = httpd.get(format!("{head}\r\nGET /2 HTTP/1.0\r\n\r\n").as_bytes())?;
        let Incoming::Request(first) = &all[0] else { panic!("{all:?}") };
        assert_eq!((first.keeps_alive(), all.len()), (keeps, 1 + usize::from(keeps)), "{head:?}");
        httpd.get_one_start(b"more")?;
        assert_eq!(httpd.get_one()?, None);
        assert_eq!(httpd.get_pending(), b"", "discarded");
    }
    Ok(())
}

#[test]
fn http_1_0_needs_no_host() {
    assert_eq!(request("GET / HTTP/1.0\r\n\r\n").host(), None);
    assert_eq!(request("GET / HTTP/1.0\r\nHost: a\r\n\r\n").host(), Some("a"));
    assert_eq!(request("GET / HTTP/1.1\r\nHost:\r\n\r\n").host(), Some(""), "as RFC 9112 allows");
}

#[test]
fn requests_compare_by_what_they_say() {
    let a = request("GET / HTTP/1.0\r\nA: b\r\n\r\n");
    assert_eq!(a, request("GET / HTTP/1.0\na:  b \r\n\r\n"));
    for other in
        ["HEAD / HTTP/1.0\r\nA: b\r\n\r\n", "GET /x HTTP/1.0\r\nA: b\r\n\r\n", "GET / HTTP/1.0\r\nA: c\r\n\r\n"]
    {
        assert_ne!(a, request(other));
    }
    assert!(size_of::<Incoming>() <= 256, "records are moved: {}", size_of::<Incoming>());
}

#[test]
fn dates_are_read_in_all_three_forms() {
    let wanted = parse_date("Sun, 06 Nov 1994 08:49:37 GMT").expect("a date");
    assert_eq!(parse_date("Sunday, 06-Nov-94 08:49:37 GMT"), Some(wanted));
    assert_eq!(parse_date("Sun Nov  6 08:49:37 1994"), Some(wanted));
    assert_eq!(format_date(wanted), "Sun, 06 Nov 1994 08:49:37 GMT");
    assert_eq!(parse_date("yesterday"), None);
}

#[test] // K-RW-62, for this filter: what a client sends behind the last request is another filter's, if there is one at once
fn what_follows_a_request_is_handed_over() -> Result<(), FilterError> {
    for head in ["CONNECT a.test:1 HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nHost: a.test\r\nUpgrade: x\r\n\r\n"] {
        let mut httpd = Httpd::new();
        httpd.get_one_start(format!("{head}\x16\x03").as_bytes())?;
        assert!(matches!(httpd.get_one()?, Some(Incoming::Request(_))));
        assert_eq!(httpd.hand_over()?, b"\x16\x03", "{head:?}");
    }
    let mut httpd = Httpd::new();
    assert_eq!(httpd.get(b"GET / HTTP/1.0\r\n\r\nx")?.len(), 1);
    assert_eq!(httpd.hand_over()?, b"", "the next record was asked for");
    httpd.get_one_start(b"more")?;
    assert_eq!(httpd.hand_over()?, b"");
    Ok(())
}

#[test] // K-RE-31, for this filter: a request that has come in part can't be said as octets
fn no_filter_takes_over_in_the_middle_of_a_request() -> Result<(), FilterError> {
    let mut httpd = Httpd::new();
    assert!(httpd.get(b"POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\n")?.is_empty());
    assert_eq!(httpd.hand_over(), Err(FilterError::CannotSwitch { held: 1 }));
    assert!(httpd.get(b"abc")?.is_empty());
    assert_eq!(httpd.hand_over(), Err(FilterError::CannotSwitch { held: 3 }));
    assert_eq!(httpd.get(b"de")?.len(), 1);
    assert_eq!(httpd.hand_over()?, b"");
    let mut streaming = Httpd::new().streaming();
    assert_eq!(streaming.get(b"POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\nabc")?.len(), 2);
    assert_eq!(streaming.hand_over()?, b"", "what was taken was delivered");
    Ok(())
}

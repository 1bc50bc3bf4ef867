//! The filter in a wheel.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use lenore::Session;
use lenore::filter::http::{Httpd, Incoming, Outgoing, Request, Response};
use lenore::wheel::{Failure, ReadWrite};

use util::DEADLINE;
use util::in_process::{Log, kernel, run, run_until};

/// A session that serves one connection, logs what comes, and is named by what it serves.
struct Server {
    log: Log,
    wheel: Option<ReadWrite<Httpd>>,
}

fn serve(httpd: Httpd, log: &Log, ours: UnixStream) -> Session<Server> {
    Session::new(Server { log: log.clone(), wheel: None })
        .args((ours, httpd))
        .state("_start", |cx| {
            let (ours, httpd) = (cx.take::<UnixStream>(0)?, cx.take::<Httpd>(1)?);
            let wheel = ReadWrite::stream(ours, httpd).on_input("input").on_error("error").start(cx)?;
            cx.heap().wheel = Some(wheel);
            Ok(())
        })
        .state("input", |cx| {
            let record = cx.take::<Incoming>(0)?;
            let server = cx.heap();
            let Some(wheel) = server.wheel.take() else { return Ok(()) };
            let is_last = answer(&server.log, &wheel, record);
            match is_last {
                true => wheel.close_after_flush(),
                false => server.wheel = Some(wheel),
            }
            Ok(())
        })
        .state("error", |cx| {
            let Failure { operation, text, .. } = cx.take(0)?;
            cx.heap().log.push(format!("{operation}: {text}"));
            cx.heap().wheel = None;
            Ok(())
        })
}

fn answer(log: &Log, wheel: &ReadWrite<Httpd>, record: Incoming) -> bool {
    let response = match record {
        Incoming::Request(request) => {
            log.push(format!("{} {}", request.method(), request.target()));
            respond(&request)
        }
        Incoming::Expects(_) => Response::proceed(),
        Incoming::Refused(refusal) => {
            log.push(&refusal);
            refusal.response()
        }
        other => panic!("{other:?}"),
    };
    let is_last = response.closes();
    let is_streamed = response.headers().get("X-Streamed").is_some();
    wheel.put(Outgoing::Response(response));
    if is_streamed {
        wheel.put(Outgoing::Piece(b"in two ".to_vec()));
        wheel.put(Outgoing::Piece(b"pieces".to_vec()));
        wheel.put(Outgoing::End);
    }
    is_last
}

fn respond(request: &Request) -> Response {
    match request.path() {
        "/streamed" => request.reply(200).header("X-Streamed", "yes").streamed(),
        "/wrong" => request.reply(200).header("a b", "c"),
        "/echo" => request.reply(200).body(request.body()),
        _ => request.reply(404),
    }
}

fn pair() -> (UnixStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a pair can be made");
    theirs.set_read_timeout(Some(DEADLINE)).expect("the deadline is not zero");
    (ours, theirs)
}

/// Sends `input`, all at once, and returns what was logged and what came back until the server closed.
fn exchange(input: &str) -> (String, String) {
    let (log, (ours, mut theirs)) = (Log::default(), pair());
    let mut kernel = kernel();
    serve(Httpd::new(), &log, ours).spawn(&mut kernel).expect("it starts");
    theirs.write_all(input.as_bytes()).expect("it fits");
    // Nor does it keep its side open: the wheel would wait for its end, up to two seconds.
    theirs.shutdown(Shutdown::Write).expect("it is open");
    run(&mut kernel);
    let mut output = String::new();
    theirs.read_to_string(&mut output).expect("the server closes in order");
    (log.text(), output)
}

#[test] // K-FH-01: a wheel with it delivers requests and takes responses, pipelined ones in order
fn a_wheel_serves_requests() {
    let (log, output) = exchange(
        "PUT /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
         GET /streamed HTTP/1.1\r\nHost: a\r\n\r\n\
         GET /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n\
         GET /late HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    assert_eq!(log, "PUT /echo GET /streamed GET /none");
    let mut responses = output.split("HTTP/1.1 ").skip(1);
    assert!(responses.next().is_some_and(|text| text.starts_with("200 OK") && text.ends_with("\r\n\r\nabc")));
    assert!(responses.next().is_some_and(|text| text.ends_with("\r\n7\r\nin two \r\n6\r\npieces\r\n0\r\n\r\n")));
    assert!(responses.next().is_some_and(|text| text.starts_with("404") && text.contains("\r\nConnection: close\r\n")));
    assert_eq!(responses.next(), None);
}

#[test] // K-FH-06: the session gets a record, sends its response, and closes
fn a_wheel_delivers_refusals() {
    let (log, output) = exchange("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\nGET / HTTP/1.0\r\n\r\n");
    assert_eq!(log, "400 Bad Request: more than one Host");
    assert_eq!(output.matches("HTTP/1.1 ").count(), 1);
    assert!(output.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{output}");
}

#[test]
fn a_response_that_cannot_be_sent_is_an_error_event() {
    let (log, output) = exchange("GET /wrong HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(log, "GET /wrong filter: malformed record: a response can't have header name \"a b\"");
    assert_eq!(output, "");
}

#[test]
fn a_client_that_waits_for_100_gets_it() {
    let (log, (ours, mut theirs)) = (Log::default(), pair());
    let mut kernel = kernel();
    serve(Httpd::new(), &log, ours).spawn(&mut kernel).expect("it starts");
    let head =
        "PUT /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
    theirs.write_all(head.as_bytes()).expect("it fits");
    theirs.set_read_timeout(Some(Duration::from_millis(1))).expect("not zero");
    let mut proceed = Vec::new();
    run_until(&mut kernel, || {
        let mut some = [0; 100];
        let count = theirs.read(&mut some).unwrap_or(0);
        proceed.extend_from_slice(&some[..count]);
        proceed.ends_with(b"\r\n\r\n")
    });
    assert_eq!(String::from_utf8_lossy(&proceed), "HTTP/1.1 100 Continue\r\n\r\n");
    theirs.set_read_timeout(Some(DEADLINE)).expect("not zero");
    theirs.write_all(b"ok").expect("it fits");
    theirs.shutdown(Shutdown::Write).expect("it is open");
    run(&mut kernel);
    let mut output = String::new();
    theirs.read_to_string(&mut output).expect("the server closes in order");
    assert!(output.starts_with("HTTP/1.1 200 OK\r\n") && output.ends_with("\r\n\r\nok"), "{output}");
}

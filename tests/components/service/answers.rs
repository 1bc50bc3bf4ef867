//! What handlers get and return, and what becomes of failures.

use std::cell::Cell;
use std::rc::Rc;

use lenore::Exception;
use lenore::component::http::{Cx, HttpError, Json, Request, Response, Result, Service};
use serde::{Deserialize, Serialize};

use util::component::{Peer, collect_warnings, infos, warnings};

use super::Host;

#[derive(Debug, Deserialize, Serialize, PartialEq)]
struct Note {
    text: String,
    #[serde(default)]
    stars: u8,
}

fn echo(request: &Request) -> Result<Json<Note>> {
    Ok(Json(request.json()?))
}

fn service() -> Service {
    Service::new()
        .post("/json", |_, request| echo(&request))
        .post("/form", |_, request| request.form::<Note>().map(Json))
        .get("/query", |_, request| request.query_as::<Note>().map(Json))
        .post("/body", |_, request| request.into_body())
}

#[test]
fn json_forms_and_queries_become_values() {
    let mut host = Host::new(service());
    let expected = r#"{"text":"a & b","stars":3}"#;
    let json = "Content-Type: Application/JSON; charset=utf-8\r\n";
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let page = host.ask_with("POST", "/json", json, r#"{"text":"a & b","stars":3}"#);
    assert_eq!((page.header("Content-Type"), page.body.as_str()), (Some("application/json"), expected));
    assert_eq!(host.ask_with("POST", "/form", form, "text=a+%26+b&stars=3").body, expected);
    assert_eq!(host.get("/query?stars=3&text=a+%26%20b").body, expected);
}

#[test]
fn values_that_are_wrong_are_refused_with_a_reason() {
    let mut host = Host::new(service());
    let json = "Content-Type: application/json\r\n";
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    for (method, path, fields, body, status, reason) in [
        ("POST", "/json", json, "{", 400, "the JSON is wrong"),
        ("POST", "/json", json, "{\"text\":\"\",\"stars\":256}", 400, "the JSON is wrong"),
        ("POST", "/json", "", "{\"text\":\"\"}", 415, "the body should be JSON"),
        ("POST", "/json", "Content-Type: text/plain\r\n", "{\"text\":\"\"}", 415, "the body should be JSON"),
        ("POST", "/form", form, "stars=1", 400, "missing field `text`"),
        ("POST", "/form", json, "text=", 415, "the body should be a form"),
        ("GET", "/query", "", "", 400, "missing field `text`"),
    ] {
        let page = host.ask_with(method, path, fields, body);
        assert_eq!(page.status, status, "{page:?}");
        assert!(page.body.contains(reason), "{page:?}");
    }
}

#[test]
fn body_over_the_limit_is_refused_before_it_is_read() {
    let mut host = Host::new(service().max_body(10));
    assert_eq!(host.ask_with("POST", "/body", "", "0123456789").body, "0123456789");
    // None of the body is sent, and the answer comes all the same.
    let page = |host: &mut Host, fields| {
        let request = format!("POST /body HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n");
        super::Page::read(host.send(&request))
    };
    for fields in ["Content-Length: 11\r\n", "Content-Length: 11\r\nExpect: 100-continue\r\n"] {
        let page = page(&mut host, fields);
        assert_eq!((page.status, page.header("Connection")), (413, Some("close")), "{fields}");
    }
    let page = super::Page::read(
        host.send("POST /body HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n012345\r\n5\r\n"),
    );
    assert_eq!(page.status, 413);
}

#[test]
fn client_that_waits_for_leave_gets_it_where_there_is_a_handler() {
    let mut host = Host::new(service());
    let mut peer = Peer::connect(host.address);
    peer.send("POST /body HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    peer.run_to(&mut host.kernel, "HTTP/1.1 100 Continue\r\n\r\n");
    peer.received.clear();
    peer.send("ok");
    util::wait_until("an answer", util::DEADLINE, || {
        util::component::spin(&mut host.kernel);
        peer.text().ends_with("\r\n\r\nok").then_some(())
    });
    let page = super::Page::read(
        host.send("POST /nowhere HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"),
    );
    assert_eq!((page.status, page.header("Connection")), (404, Some("close")));
}

#[test]
fn failing_handler_is_a_500_in_the_log_and_spares_other_connections() {
    collect_warnings();
    let service = Service::new()
        .get("/panic", |_, _| -> &'static str { panic!("on purpose") })
        .get("/error", |_, _| -> Result<String> { Ok(std::fs::read_to_string("/nonexistent/secret")?) })
        .get("/told", |_, _| -> Result { Err(HttpError::new(409, "not <twice>")) })
        .get("/caused", |_, _| -> Result {
            Err(HttpError::new(404, "no such note").caused_by(Exception::new("row 7 is gone")))
        })
        .get("/made", |_, _| (201, Result::<&str>::Err(HttpError::new(409, "there is one"))))
        .get("/none", |_, _| (201, None::<&str>))
        .get("/own", |_, _| -> Result { Err(HttpError::with_response(Response::new(418).body("{}"))) })
        .get("/header", |_, _| Response::new(200).header("a b", "c"))
        .get("/early", |_, _| Response::new(101))
        .get("/streamed", |_, _| Response::new(200).streamed())
        .get("/good", |_, _| "good");
    let mut host = Host::new(service);
    let mut other = Peer::connect(host.address);
    other.send("GET /good HTTP/1.1\r\nHost: a.test\r\n");
    for (path, reason) in [
        ("/panic", "panicked: on purpose"),
        ("/error", "No such file or directory"),
        ("/header", "a response can't have header name"),
        ("/early", "status 101 is no end of a request"),
        ("/streamed", "a streamed response without a stream"),
    ] {
        let page = host.get(path);
        assert_eq!((page.status, page.body.contains("the server has failed")), (500, true), "{path}: {page:?}");
        assert!(!page.body.contains("No such file"), "{page:?}");
        let warnings = warnings();
        assert!(
            matches!(&warnings[..], [line] if line.contains(reason) && line.ends_with(&format!("request=\"GET {path}\""))),
            "{warnings:?}"
        );
    }
    // The connection of a handler that failed goes on as well.
    let text = host.send(
        "GET /panic HTTP/1.1\r\nHost: a.test\r\n\r\nGET /good HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n",
    );
    assert!(text.contains("500 Internal Server Error") && text.ends_with("\r\n\r\ngood"), "{text}");
    warnings();
    let page = host.get("/told");
    assert_eq!((page.status, page.body.contains("not &lt;twice&gt;")), (409, true));
    assert_eq!(host.get("/own").status, 418);
    assert_eq!((host.get("/made").status, host.get("/none").status), (409, 404), "the status of an error stays");
    infos();
    assert_eq!(host.get("/caused").status, 404);
    assert!(infos().iter().any(|line| line == "request refused: row 7 is gone status=404 request=\"GET /caused\""));
    assert_eq!(warnings(), [""; 0], "errors that the program made for the client are no failures of it");
    other.send("\r\n");
    util::wait_until("the other client's answer", util::DEADLINE, || {
        util::component::spin(&mut host.kernel);
        other.text().ends_with("\r\n\r\ngood").then_some(())
    });
    infos();
}

#[test]
fn resource_is_made_once_and_lent_to_each_handler() {
    let made = Rc::new(Cell::new(0));
    let count = Rc::clone(&made);
    fn add(cx: &mut Cx<'_, Vec<u32>>, request: Request) -> Result<Json<Vec<u32>>> {
        cx.heap().resource().push(request.param("number")?);
        let (client, mut calls) = cx.split();
        let mut list = client.resource();
        calls.yield_("nobody", ());
        list.dedup();
        Ok(Json(list.clone()))
    }
    let service = Service::with(move || {
        count.set(count.get() + 1);
        Ok::<_, std::io::Error>(Vec::new())
    });
    let mut host = Host::new(service.post("/{number}", add));
    assert_eq!(made.get(), 0);
    for (number, list) in [("1", "[1]"), ("2", "[1,2]"), ("2", "[1,2]")] {
        assert_eq!(host.ask_with("POST", &format!("/{number}"), "", "").body, list);
    }
    assert_eq!(made.get(), 1);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let mut host = Host::new(Service::new().get("/{n}", |_, request| request.param::<String>("n")));
    let mut text = String::new();
    for n in 0..50 {
        text.push_str(&format!("GET /n{n} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
    }
    text.push_str("GET /last HTTP/1.0\r\n\r\n");
    let text = host.send(&text);
    let bodies: Vec<&str> = text.split("\r\n\r\n").skip(1).map(|part| part.split("HTTP/").next().unwrap()).collect();
    let expected: Vec<String> = (0..50).map(|n| format!("n{n}")).chain([String::from("last")]).collect();
    assert_eq!(bodies, expected);
}

#[test]
fn request_that_makes_no_sense_is_refused_and_the_connection_closed() {
    let mut host = Host::new(service());
    let text = host.send("GET /query?text=x HTTP/1.1\r\nHost: a.test\r\n\r\nnonsense\r\n\r\nGET / HTTP/1.1\r\n");
    let statuses: Vec<&str> = text.split("HTTP/1.1 ").skip(1).map(|response| &response[..3]).collect();
    assert_eq!(statuses, ["200", "400"], "{text}");
}

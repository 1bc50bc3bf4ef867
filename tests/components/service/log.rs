//! The access log.

use std::time::Duration;

use lenore::component::http::{AccessLog, Response, Service, Stream};
use serde_json::Value;

use util::component::{MUCH, Peer, collect_warnings, infos, spin, warnings};
use util::{DEADLINE, wait_until};

use super::Host;

fn service(form: AccessLog) -> Service {
    Service::new()
        .access_log(form)
        .get("/six", |_, _| "hello\n")
        .get("/slow", |_, _| {
            std::thread::sleep(SLOW);
            "slow"
        })
        .get("/stream", |cx, _| -> lenore::component::http::Result<_> {
            let (stream, pending) = Stream::new(cx, Response::new(200))?;
            stream.put("12345");
            stream.put("67890");
            stream.end();
            Ok(pending)
        })
        .get("/much", |_, _| vec![b'x'; MUCH])
}

/// For how long a handler blocks.
const SLOW: Duration = Duration::from_millis(250);

/// The lines of the log, once there are as many as that.
#[track_caller]
fn lines(host: &mut Host, count: usize) -> Vec<String> {
    let mut lines = Vec::new();
    wait_until("lines", DEADLINE, || {
        spin(&mut host.kernel);
        lines.extend(infos());
        (lines.len() >= count).then_some(())
    });
    lines
}

#[test]
fn combined_log_has_a_line_for_each_request() {
    collect_warnings();
    let mut host = Host::new(service(AccessLog::Combined));
    let hostile = "User-Agent: a\" 200 \\ \u{e9}\u{202e}\r\nReferer: http://b.test/\r\n";
    host.ask_with("GET", "/six?a=b", hostile, "");
    host.ask_with("GET", "/stream", "", "");
    host.ask_with("HEAD", "/six", "", "");
    host.send("nonsense\r\n\r\n");
    let lines = lines(&mut host, 4);
    let parts: Vec<(&str, &str)> = lines.iter().map(|line| line.split_once("] ").expect("a time")).collect();
    for (begin, _) in &parts {
        assert!(begin.starts_with("127.0.0.1 - - [") && begin.ends_with(" +0000"), "{begin}");
        assert_eq!(begin.len(), "127.0.0.1 - - [29/Nov/2026:15:04:05 +0000".len(), "{begin}");
    }
    let ends = [
        r#""GET /six?a=b HTTP/1.1" 200 6 "http://b.test/" "a\x22 200 \x5c \xc3\xa9\xe2\x80\xae" 0."#,
        r#""GET /stream HTTP/1.1" 200 10 "-" "-" 0."#,
        r#""HEAD /six HTTP/1.1" 200 0 "-" "-" 0."#,
        r#""-" 400 "#,
    ];
    for ((_, line), expected) in parts.iter().zip(ends) {
        assert!(line.starts_with(expected), "{line}\n{expected}");
        assert!(!line.ends_with('!'), "{line}");
    }
    assert_eq!(lines.len(), 4);
    warnings();
}

#[test]
fn json_log_is_json_whatever_a_client_sends() {
    collect_warnings();
    let mut host = Host::new(service(AccessLog::Json));
    host.ask_with("GET", "/six", "User-Agent: a\", \"status\": 999\u{9b}31m\u{202e}\r\n", "");
    let lines = lines(&mut host, 1);
    let line: Value = serde_json::from_str(&lines[0]).expect("JSON");
    assert_eq!(line["status"], 200);
    assert_eq!((&line["method"], &line["target"], &line["octets"]), (&"GET".into(), &"/six".into(), &6.into()));
    assert_eq!(line["user_agent"], "a\", \"status\": 999\u{9b}31m\u{202e}");
    assert_eq!((&line["referer"], &line["complete"], &line["peer"]), (&Value::Null, &true.into(), &"127.0.0.1".into()));
    assert!(lines[0].is_ascii(), "{}", lines[0]);
}

#[test]
fn request_whose_client_goes_away_is_logged_as_incomplete() {
    collect_warnings();
    let mut host = Host::new(service(AccessLog::Json));
    let mut peer = Peer::connect(host.address);
    peer.send("GET /much HTTP/1.1\r\nHost: a.test\r\n\r\n");
    wait_until("the beginning of the answer", DEADLINE, || {
        spin(&mut host.kernel);
        (!peer.look().is_empty()).then_some(())
    });
    assert_eq!(infos(), [""; 0], "the response is not written yet");
    peer.reset();
    let lines = lines(&mut host, 1);
    let line: Value = serde_json::from_str(&lines[0]).expect("JSON");
    assert_eq!((&line["complete"], &line["status"]), (&false.into(), &200.into()));
}

#[test]
fn pipelined_request_behind_a_handler_that_blocks_is_logged_with_its_own_time() {
    collect_warnings();
    let mut host = Host::new(service(AccessLog::Json));
    let request = |path| format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n");
    host.send(&[request("/slow"), "GET /six HTTP/1.0\r\n\r\n".to_owned()].concat());
    let lines = lines(&mut host, 2);
    let took = lines.iter().map(|line| {
        let line: Value = serde_json::from_str(line).expect("JSON");
        Duration::from_micros(line["duration_us"].as_u64().expect("a number"))
    });
    let took: Vec<Duration> = took.collect();
    assert!(matches!(took[..], [first, second] if first >= SLOW && second < SLOW), "{took:?}");
}

#[test]
fn response_that_was_written_whole_is_logged_as_complete_when_another_was_not() {
    collect_warnings();
    let mut host = Host::new(service(AccessLog::Json));
    let mut peer = Peer::connect(host.address);
    // Both are put before anything is written.
    peer.send("GET /six HTTP/1.1\r\nHost: a.test\r\n\r\nGET /much HTTP/1.1\r\nHost: a.test\r\n\r\n");
    wait_until("the beginning of the second answer", DEADLINE, || {
        spin(&mut host.kernel);
        (peer.look().len() > 1000).then_some(())
    });
    assert_eq!(infos(), [""; 0], "the system has not taken all of it");
    peer.reset();
    let lines = lines(&mut host, 2);
    let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((&lines[0]["complete"], &lines[0]["octets"]), (&true.into(), &6.into()), "{lines:?}");
    assert_eq!(lines[1]["complete"], false, "{lines:?}");
    assert!(lines[1]["octets"].as_u64().is_some_and(|octets| octets < MUCH as u64), "{lines:?}");
}

#[test]
fn service_without_an_access_log_logs_no_request() {
    collect_warnings();
    let mut host = Host::new(Service::new().get("/", |_, _| ""));
    host.get("/");
    assert_eq!((infos(), warnings()), (Vec::new(), Vec::new()));
}

//! Servers and clients over TLS, in the process of the test.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use lenore::component::{Listen, Listening, Protocol, TcpClient, TcpServer};
use lenore::filter::Line;
use lenore::{Kernel, Session, tls};
use util::DEADLINE;
use util::in_process::{Log, kernel, run};

use crate::certificates::Authority;
use crate::peer::connect;

/// Echoes lines, and logs what happens. The line `stop` ends the server as well.
fn echo(log: &Log) -> Protocol<Line> {
    let [connected, disconnected, failed, read] = [0; 4].map(|_| log.clone());
    Protocol::new(Line::new())
        .on_connect(move |cx| {
            let tls = cx.heap().tls().expect("the handshake is done");
            connected.push(format!("connected:{}", tls.server_name.as_deref().unwrap_or("nobody")));
        })
        .on_input(move |cx, line: String| {
            read.push(&line);
            cx.heap().put(line);
        })
        .on_error(move |_, failure| failed.push(format!("error:{}:{}", failure.operation, failure.errno)))
        .on_disconnect(move |_| disconnected.push("disconnected"))
}

fn serve(authority: &Authority, kernel: &mut Kernel, protocol: Protocol<Line>) -> Listening {
    let tls = authority.server().alpn(["lines"]).build().unwrap();
    TcpServer::on(Listen::tcp("127.0.0.1:0").tls(tls), protocol).concurrency(1).spawn(kernel).unwrap()
}

/// Ends the server when the thread has ended.
fn beside<T: Send + 'static>(kernel: &mut Kernel, server: Listening, peer: impl FnOnce() -> T + Send + 'static) -> T {
    let peer = Rc::new(thread::spawn(peer));
    let looked = Rc::clone(&peer);
    Session::new(())
        .state("_start", |cx| cx.yield_("look", ()))
        .state("look", move |cx| {
            if looked.is_finished() {
                return Ok(cx.post(server, "shutdown", ())?);
            }
            cx.delay("look", Duration::from_millis(5), ());
            Ok(())
        })
        .spawn(kernel)
        .unwrap();
    run(kernel);
    Rc::into_inner(peer).expect("the session has stopped").join().unwrap()
}

fn dial(server: Listening) -> TcpStream {
    let socket = TcpStream::connect(server.local_addr()).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
}

#[test]
fn on_connect_comes_with_the_handshake_and_on_disconnect_at_the_end() {
    let (authority, log, mut kernel) = (Authority::new(), Log::default(), kernel());
    let server = serve(&authority, &mut kernel, echo(&log));
    let (config, socket) = (Arc::new(authority.client()), dial(server));
    let seen = beside(&mut kernel, server, move || {
        let mut peer = connect(&config, socket);
        peer.write_all(b"one\ntwo\n").unwrap();
        peer.conn.send_close_notify();
        peer.flush().unwrap();
        peer.sock.shutdown(Shutdown::Write).unwrap();
        let mut seen = String::new();
        peer.read_to_string(&mut seen).unwrap();
        seen
    });
    assert_eq!(seen, "one\r\ntwo\r\n");
    assert_eq!(log.text(), "connected:localhost one two error:read:0 disconnected");
}

#[test]
fn client_that_speaks_no_tls_gets_an_alert_and_no_callback_runs() {
    let (authority, log, mut kernel) = (Authority::new(), Log::default(), kernel());
    let server = serve(&authority, &mut kernel, echo(&log));
    let (plain, config, good) = (dial(server), Arc::new(authority.client()), dial(server));
    let alert = beside(&mut kernel, server, move || {
        let mut plain = plain;
        plain.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let mut alert = Vec::new();
        plain.read_to_end(&mut alert).unwrap();
        // The server has room for one connection: it must not count the other.
        let mut peer = connect(&config, good);
        peer.write_all(b"hello\n").unwrap();
        peer.read_exact(&mut [0; 7]).unwrap();
        peer.conn.send_close_notify();
        peer.flush().unwrap();
        alert
    });
    assert_eq!((alert[0], alert[5], alert.len()), (21, 2, 7), "{alert:?}");
    assert_eq!(log.text(), "connected:localhost hello error:read:0 disconnected");
}

#[test]
fn client_that_does_not_shake_hands_is_closed_after_its_time() {
    let (authority, log, mut kernel) = (Authority::new(), Log::default(), kernel());
    let protocol = echo(&log).handshake_timeout(Duration::from_millis(20));
    let server = serve(&authority, &mut kernel, protocol);
    let mut silent = dial(server);
    let seen = beside(&mut kernel, server, move || silent.read(&mut [0]).unwrap());
    assert_eq!((seen, log.text().as_str()), (0, ""));
}

#[test]
fn shutdown_of_a_server_ends_a_handshake() {
    let (authority, log, mut kernel) = (Authority::new(), Log::default(), kernel());
    let told = log.clone();
    let protocol = echo(&log).pre_connect(move |cx, socket| {
        told.push("pre_connect");
        cx.yield_("shutdown", ());
        Ok(Some(socket))
    });
    let server = serve(&authority, &mut kernel, protocol);
    let mut silent = dial(server);
    let alert = beside(&mut kernel, server, move || {
        let mut alert = Vec::new();
        silent.read_to_end(&mut alert).unwrap();
        alert
    });
    // A warning that says close_notify.
    assert_eq!((alert[0], &alert[5..]), (21, &[1, 0][..]), "{alert:?}");
    assert_eq!(log.text(), "pre_connect");
}

/// Has a `TcpClient` connect with the server of `authority`, send a line, and end both when it comes back. Returns what happens.
fn client_log(authority: &Authority, trusted: &Authority, name: Option<&str>) -> Vec<String> {
    let (log, mut kernel) = (Log::default(), kernel());
    let server =
        serve(authority, &mut kernel, Protocol::new(Line::new()).on_input(|cx, line: String| cx.heap().put(line)));
    let [connected, read, gone, refused] = [0; 4].map(|_| log.clone());
    let protocol = Protocol::new(Line::new())
        .on_connect(move |cx| {
            let tls = cx.heap().tls().expect("the handshake is done");
            connected.push(format!("connected:{}", String::from_utf8_lossy(tls.alpn.as_deref().unwrap_or_default())));
            assert_eq!(tls.peer_certificates.len(), 1);
            cx.heap().put("hello");
        })
        .on_input(move |cx, line: String| {
            read.push(line);
            cx.yield_("shutdown", ());
        })
        .on_disconnect(move |cx| {
            gone.push("disconnected");
            Ok(cx.post(server, "shutdown", ())?)
        });
    let tls = tls::Client::trusting(trusted.ca()).alpn(["lines"]).build().unwrap();
    let client = TcpClient::new(format!("localhost:{}", server.local_addr().port()), protocol);
    let client = match name {
        Some(name) => client.tls_with_name(tls, name).unwrap(),
        None => client.tls(tls),
    };
    let client = client.on_connect_error(move |cx, failure| {
        refused.push(failure);
        Ok(cx.post(server, "shutdown", ())?)
    });
    client.spawn(&mut kernel).unwrap();
    run(&mut kernel);
    log.take()
}

#[test]
fn tcp_client_speaks_tls_with_the_host_of_its_target() {
    let authority = Authority::new();
    assert_eq!(client_log(&authority, &authority, None), ["connected:lines", "hello", "disconnected"]);
}

#[test]
fn handshake_that_fails_is_an_attempt_to_connect_that_has_failed() {
    let (authority, others) = (Authority::new(), Authority::new());
    let unknown = "handshake: invalid peer certificate: UnknownIssuer";
    assert_eq!(client_log(&authority, &others, None), [unknown]);
    let seen = client_log(&authority, &authority, Some("other.test"));
    assert_eq!(seen.len(), 1);
    assert!(seen[0].starts_with("handshake: invalid peer certificate: "), "{seen:?}");
}

#[test]
fn target_without_a_name_for_a_certificate_is_refused() {
    let (authority, log, mut kernel) = (Authority::new(), Log::default(), kernel());
    let tls = tls::Client::trusting(authority.ca()).build().unwrap();
    let protocol = || Protocol::new(Line::new()).on_connect(|_| -> () { panic!("it has no name") });
    assert!(TcpClient::unix("/nonexistent/socket", protocol()).tls_with_name(tls.clone(), "no name").is_err());
    let refused = log.clone();
    let client = TcpClient::unix("/nonexistent/socket", protocol()).tls(tls);
    client.on_connect_error(move |_, failure| refused.push(failure)).spawn(&mut kernel).unwrap();
    run(&mut kernel);
    assert_eq!(log.len(), 1);
    assert!(
        log.text().contains("/nonexistent/socket") && log.text().contains("no certificate can be for it"),
        "{}",
        log.text()
    );
}

//! Servers and clients over TLS, in the process of the test.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use lenore::component::http::Service;
use lenore::component::{Listen, Listening, Processes, Protocol, Server, TcpClient, TcpServer};
use lenore::filter::Line;
use lenore::tls::rustls::ClientConfig;
use lenore::{Context, Kernel, Result, Session, tls};
use util::component::{Peer, collect_warnings, infos, spin, warnings};
use util::in_process::{Log, kernel, run};
use util::{DEADLINE, wait_until};

use crate::certificates::Authority;
use crate::peer::{Dripping, connect};

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
    beside_until(kernel, peer, move |cx| Ok(cx.post(server, "shutdown", ())?))
}

/// Calls `end` when the thread has ended.
fn beside_until<T: Send + 'static>(
    kernel: &mut Kernel,
    peer: impl FnOnce() -> T + Send + 'static,
    end: impl Fn(&mut Context<'_, ()>) -> Result + 'static,
) -> T {
    let peer = Rc::new(thread::spawn(peer));
    let looked = Rc::clone(&peer);
    Session::new(())
        .state("_start", |cx| cx.yield_("look", ()))
        .state("look", move |cx| {
            if looked.is_finished() {
                return end(cx);
            }
            cx.delay("look", Duration::from_millis(5), ());
            Ok(())
        })
        .spawn(kernel)
        .unwrap();
    run(kernel);
    Rc::into_inner(peer).expect("the session has stopped").join().unwrap()
}

/// Answers each line with the client's address and the proxy's, and what the handshake has agreed on.
fn telling() -> Protocol<Line> {
    Protocol::new(Line::new()).on_input(|cx, line: String| {
        let connection = cx.heap();
        let [client, proxy] = [connection.remote_addr(), connection.proxy_addr()].map(|address| match address {
            Some(address) => address.to_string(),
            None => String::from("none"),
        });
        let name = connection.tls().and_then(|tls| tls.server_name.as_deref()).unwrap_or("nobody");
        connection.put(format!("{line} {client} {proxy} {name}"));
    })
}

/// Sends `line` over TLS, says goodbye, and returns all that comes.
fn say<S: Read + Write>(config: &Arc<ClientConfig>, socket: S, line: &str) -> String {
    let mut peer = connect(config, socket);
    peer.write_all(line.as_bytes()).unwrap();
    peer.conn.send_close_notify();
    peer.flush().unwrap();
    let mut seen = String::new();
    peer.read_to_string(&mut seen).unwrap();
    seen
}

const HEADER: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n";

#[test]
fn tls_begins_behind_the_header_of_the_proxy_protocol() {
    let (authority, mut kernel) = (Authority::new(), kernel());
    let listen = Listen::tcp("127.0.0.1:0").tls(authority.server().build().unwrap()).proxy_protocol();
    let server = TcpServer::on(listen, telling()).spawn(&mut kernel).unwrap();
    let (config, sockets) = (Arc::new(authority.client()), [dial(server), dial(server), dial(server)]);
    let proxies = sockets.each_ref().map(|socket| socket.local_addr().unwrap());
    let seen = beside(&mut kernel, server, move || {
        let [mut apart, together, mut bytes] = sockets;
        apart.write_all(HEADER).unwrap();
        let apart = say(&config, apart, "x\n");
        let together = say(&config, Headed(together, HEADER.to_vec()), "x\n");
        HEADER.iter().for_each(|byte| bytes.write_all(&[*byte]).unwrap());
        let bytes = say(&config, Dripping(bytes), "x\n");
        [apart, together, bytes]
    });
    assert_eq!(seen, proxies.map(|proxy| format!("x 192.0.2.1:56324 {proxy} localhost\r\n")));
}

/// Sends what is in front of the first write together with that.
struct Headed(TcpStream, Vec<u8>);

impl Read for Headed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Headed {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let header = std::mem::take(&mut self.1);
        self.0.write_all(&[&header, octets].concat())?;
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[test]
fn tls_in_front_of_the_header_of_the_proxy_protocol_is_refused() {
    let (authority, mut kernel) = (Authority::new(), kernel());
    let listen = Listen::tcp("127.0.0.1:0").tls(authority.server().build().unwrap()).proxy_protocol();
    let refusing = telling().on_connect(|_| -> () { panic!("it has no header") });
    let server = TcpServer::on(listen, refusing).spawn(&mut kernel).unwrap();
    let (config, socket) = (Arc::new(authority.client()), dial(server));
    let refused = beside(&mut kernel, server, move || connect(&config, socket).write_all(b"x\n").unwrap_err());
    let is_closed =
        [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&refused.kind());
    assert!(is_closed, "{refused}");
}

#[test]
fn tls_is_spoken_on_a_unix_socket() {
    let (authority, mut kernel, dir) = (Authority::new(), kernel(), tempfile::tempdir().unwrap());
    let path = dir.path().join("socket");
    let listen = Listen::unix(&path).tls(authority.server().build().unwrap());
    let server = TcpServer::on(listen, telling()).spawn(&mut kernel).unwrap();
    let (config, socket) = (Arc::new(authority.client()), UnixStream::connect(&path).unwrap());
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let seen = beside(&mut kernel, server, move || say(&config, socket, "x\n"));
    assert_eq!(seen, "x none none localhost\r\n");
}

#[test]
fn service_is_served_over_tls_behind_a_proxy_and_on_a_unix_socket() {
    let (authority, mut kernel, dir) = (Authority::new(), kernel(), tempfile::tempdir().unwrap());
    let path = dir.path().join("socket");
    let service = Service::new().get("/", |cx, _| {
        let connection = cx.heap();
        let version = connection.tls().map(|tls| tls.version);
        format!("{:?} {:?} {version:?}", connection.remote_addr(), connection.listener_name())
    });
    let tls = authority.server().alpn(["http/1.1"]).build().unwrap();
    let server = Server::on(Listen::tcp("127.0.0.1:0").name("public").proxy_protocol().tls(tls.clone()), service)
        .listen(Listen::unix(&path).name("local").tls(tls))
        .processes(Processes::Single)
        .spawn(&mut kernel)
        .unwrap();
    let (config, daemon) = (Arc::new(authority.client()), server.daemon());
    let tcp = TcpStream::connect(server.local_addr()).unwrap();
    let unix = UnixStream::connect(&path).unwrap();
    tcp.set_read_timeout(Some(DEADLINE)).unwrap();
    unix.set_read_timeout(Some(DEADLINE)).unwrap();
    let peer = move || {
        let request = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        [say(&config, Headed(tcp, HEADER.to_vec()), request), say(&config, unix, request)]
    };
    let answers = beside_until(&mut kernel, peer, move |cx| Ok(daemon.shutdown(cx)?));
    let bodies = answers.map(|text| text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()));
    let version = "Some(Tls13)";
    let expected =
        [format!("Some(192.0.2.1:56324) Some(\"public\") {version}"), format!("None Some(\"local\") {version}")];
    assert_eq!(bodies, expected.map(Some));
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
fn client_whose_handshakes_fail_warns_once_and_is_not_connected_in_between() {
    collect_warnings();
    let (authority, mut kernel) = (Authority::new(), kernel());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let target = format!("localhost:{}", listener.local_addr().unwrap().port());
    let tls = tls::Client::trusting(authority.ca()).build().unwrap();
    TcpClient::new(target.as_str(), Protocol::new(Line::new())).tls(tls).alias("client").spawn(&mut kernel).unwrap();
    let mut told = Vec::new();
    for _ in 0..3 {
        // The host reads the first message of the handshake, and hangs up.
        let mut peer = wait_until("a connection", DEADLINE, || {
            spin(&mut kernel);
            listener.accept().ok().map(|(socket, _)| Peer::new(socket))
        });
        wait_until("a handshake", DEADLINE, || {
            spin(&mut kernel);
            (!peer.look().is_empty()).then_some(())
        });
        drop(peer);
        wait_until("the end of the try", DEADLINE, || {
            spin(&mut kernel);
            (!kernel.peek().to_string().contains("ReadWrite")).then_some(())
        });
        told.extend(warnings());
        kernel.post("client", "reconnect", ()).unwrap();
    }
    assert!(told.len() == 1 && told[0].contains(&format!("can't connect to {target}: ")), "{told:?}");
    assert_eq!(infos(), [""; 0]);
    kernel.post("client", "shutdown", ()).unwrap();
    run(&mut kernel);
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
        log.text().contains("/nonexistent/socket") && log.text().contains("a certificate can't have this name"),
        "{}",
        log.text()
    );
}

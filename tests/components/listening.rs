//! Where servers listen, and what a connection knows of it: K-CS, and the PROXY protocol.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use lenore::Kernel;
use lenore::component::{Listen, ListenAddr, Processes, Protocol, Server, TcpClient, TcpServer};
use lenore::filter::Line;

use util::component::{Peer, collect_warnings, serve, spin, warnings};
use util::in_process::{Log, kernel, run};
use util::{DEADLINE, wait_until};

/// Answers each line with who has sent it, through which listener and which proxy.
fn telling() -> Protocol<Line> {
    Protocol::new(Line::new()).on_input(|cx, line: String| {
        let connection = cx.heap();
        let [peer, proxy] = [connection.remote_addr(), connection.proxy_addr()].map(|address| match address {
            Some(address) => address.to_string(),
            None => String::from("none"),
        });
        let listener = connection.listener_name().unwrap_or("unnamed");
        let answer = format!("{line} {peer} ip={} {listener} {proxy}", connection.remote_ip());
        connection.put(answer);
    })
}

/// Asks over a UNIX socket while the kernel runs on this thread.
fn ask(kernel: &mut Kernel, client: &mut UnixStream, line: &str) -> String {
    client.write_all(format!("{line}\r\n").as_bytes()).unwrap();
    client.set_nonblocking(true).unwrap();
    let mut received = Vec::new();
    wait_until("an answer", DEADLINE, || {
        spin(kernel);
        let mut buffer = [0; 1000];
        match client.read(&mut buffer) {
            Ok(count) => received.extend_from_slice(&buffer[..count]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        received.ends_with(b"\r\n").then_some(())
    });
    String::from_utf8(received).unwrap().trim_end().to_owned()
}

#[test]
fn spawn_tells_the_address_and_takes_events() {
    let mut kernel = kernel();
    let server = TcpServer::new("127.0.0.1:0", telling()).spawn(&mut kernel).unwrap();
    let mut peer = Peer::connect(server.local_addr());
    let own = peer.stream.local_addr().unwrap();
    peer.send("hello\r\n");
    peer.run_to(&mut kernel, &format!("hello {own} ip=127.0.0.1 unnamed none\r\n"));
    assert!(kernel.peek().sessions.iter().any(|session| session.id == server.session()));
    kernel.post(server, "shutdown", ()).unwrap();
    drop(peer);
    run(&mut kernel);
}

#[test]
fn unix_client_talks_with_unix_server_and_the_path_goes_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket").display().to_string();
    let mut kernel = kernel();
    let log = Log::default();
    let (looked, answered) = (log.clone(), log.clone());
    let (me, seen) = (std::process::id(), log.clone());
    let protocol = telling()
        .pre_connect_unix(move |_, socket| {
            looked.push("looked");
            Ok(Some(socket))
        })
        .on_connect(move |cx| {
            let peer = cx.heap().peer_credentials()?;
            assert_eq!((peer.uid, peer.pid), (nix::unistd::geteuid().as_raw(), Some(me)));
            seen.push("seen");
            lenore::Result::Ok(())
        });
    let server = TcpServer::on(Listen::unix(&path).name("local"), protocol).spawn(&mut kernel).unwrap();
    assert!(std::fs::exists(&path).unwrap());
    let asking =
        Protocol::new(Line::new()).on_connect(|cx| cx.heap().put("who")).on_input(move |cx, answer: String| {
            answered.push(format_args!("[{answer}]"));
            cx.yield_("shutdown", ());
            Ok(cx.post(server, "shutdown", ())?)
        });
    TcpClient::unix(&path, asking).spawn(&mut kernel).unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "looked seen [who none ip= local none]");
    assert!(!std::fs::exists(&path).unwrap());
}

#[test]
fn unix_socket_that_pre_connect_unix_refuses_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let mut kernel = kernel();
    let refusing = telling().pre_connect_unix(|_, _| Ok(None)).on_connect(|_| -> () { panic!("it was refused") });
    let server = TcpServer::on(Listen::unix(&path), refusing).spawn(&mut kernel).unwrap();
    let mut client = UnixStream::connect(&path).unwrap();
    client.set_nonblocking(true).unwrap();
    wait_until("the end", DEADLINE, || {
        spin(&mut kernel);
        matches!(client.read(&mut [0]), Ok(0)).then_some(())
    });
    kernel.post(server, "shutdown", ()).unwrap();
    run(&mut kernel);
}

#[test]
fn server_listens_at_several_places_and_tells_them_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (path, other) = (dir.path().join("one"), dir.path().join("two"));
    let given = UnixListener::bind(&other).unwrap();
    let mut kernel = kernel();
    let server = Server::on(Listen::unix(&path).name("local"), telling())
        .listen(Listen::tcp("127.0.0.1:0").name("public"))
        .listen(Listen::descriptor(given))
        .listen(Listen::tcp("127.0.0.1:0"))
        .processes(Processes::Single)
        .spawn(&mut kernel)
        .unwrap();
    let addresses = server.local_addrs();
    let tcp: Vec<_> = addresses.iter().filter_map(ListenAddr::tcp).collect();
    assert_eq!((tcp.len(), tcp[0]), (2, server.local_addr()));
    assert_eq!((&addresses[0], &addresses[2]), (&ListenAddr::Unix(path.clone()), &ListenAddr::Unix(other.clone())));
    assert_eq!(addresses[0].to_string(), path.display().to_string());

    for (path, name) in [(&path, "local"), (&other, "unnamed")] {
        let mut client = UnixStream::connect(path).unwrap();
        assert_eq!(ask(&mut kernel, &mut client, "x"), format!("x none ip= {name} none"));
    }
    for (address, name) in [(tcp[0], "public"), (tcp[1], "unnamed")] {
        let mut peer = Peer::connect(address);
        let own = peer.stream.local_addr().unwrap();
        peer.send("x\r\n");
        peer.run_to(&mut kernel, &format!("x {own} ip=127.0.0.1 {name} none\r\n"));
    }
    server.daemon().shutdown(&mut kernel).unwrap();
    run(&mut kernel);
    assert!(!std::fs::exists(&path).unwrap() && std::fs::exists(&other).unwrap(), "what was given stays");
}

#[test]
fn place_that_cannot_be_had_leaves_nothing_of_the_others() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let mut kernel = kernel();
    let server = Server::on(Listen::unix(&path), telling()).listen(Listen::tcp(taken.local_addr().unwrap()));
    let error = server.spawn(&mut kernel).unwrap_err().to_string();
    assert!(error.contains("can't listen"), "{error}");
    assert!(!std::fs::exists(&path).unwrap());
    assert_eq!(kernel.peek().sources.len(), 0);
}

#[test]
#[should_panic(expected = "ServerHandle::local_addrs")]
fn local_addr_panics_without_an_address_of_tcp() {
    let dir = tempfile::tempdir().unwrap();
    let mut kernel = kernel();
    let server = Server::on(Listen::unix(dir.path().join("socket")), telling()).spawn(&mut kernel).unwrap();
    server.local_addr();
}

/// A header of version 2 for 192.0.2.1:56324, with an extension.
const BINARY: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x10\xc0\x00\x02\x01\xc6\x33\x64\x07\xdc\x04\x01\xbb\x04\x00\x01\x00";

#[test]
fn proxy_header_tells_the_client_however_it_is_cut() {
    let mut kernel = kernel();
    let address = serve(&mut kernel, TcpServer::on(Listen::tcp("127.0.0.1:0").proxy_protocol(), telling()));
    let text: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n";
    for header in [text, BINARY] {
        for cut in [0, 1, 7, 15, 20, header.len()] {
            let mut peer = Peer::connect(address);
            let own = peer.stream.local_addr().unwrap();
            let whole = [header, b"hello\r\n"].concat();
            peer.stream.write_all(&whole[..cut]).unwrap();
            spin(&mut kernel);
            assert_eq!(peer.text(), "");
            peer.stream.write_all(&whole[cut..]).unwrap();
            peer.run_to(&mut kernel, &format!("hello 192.0.2.1:56324 ip=192.0.2.1 unnamed {own}\r\n"));
        }
    }
    kernel.post("server", "shutdown", ()).unwrap();
    run(&mut kernel);
}

#[test]
fn proxy_that_speaks_for_itself_is_the_peer() {
    let mut kernel = kernel();
    let address = serve(&mut kernel, TcpServer::on(Listen::tcp("127.0.0.1:0").proxy_protocol(), telling()));
    for header in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00"] {
        let mut peer = Peer::connect(address);
        let own = peer.stream.local_addr().unwrap();
        peer.stream.write_all(&[header, b"x\r\n"].concat()).unwrap();
        peer.run_to(&mut kernel, &format!("x {own} ip=127.0.0.1 unnamed none\r\n"));
    }
    kernel.post("server", "shutdown", ()).unwrap();
    run(&mut kernel);
}

#[test]
fn connections_without_a_proxy_header_are_closed_with_one_line_in_the_log() {
    collect_warnings();
    let mut kernel = kernel();
    let never = telling().on_connect(|_| -> () { panic!("it has no header") });
    let address = serve(&mut kernel, TcpServer::on(Listen::tcp("127.0.0.1:0").proxy_protocol(), never));
    for _ in 0..3 {
        let mut peer = Peer::connect(address);
        peer.send("GET / HTTP/1.1\r\n\r\n");
        wait_until("the end", DEADLINE, || {
            spin(&mut kernel);
            // What it has sent is unread, so the end may be a reset.
            match peer.stream.read(&mut [0]) {
                Ok(0) => Some(()),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => Some(()),
                _ => None,
            }
        });
    }
    let told = warnings();
    assert!(told.len() == 1 && told[0].contains("PROXY"), "{told:?}");
    // A look whether anybody listens is none.
    drop(Peer::connect(address));
    kernel.post("server", "shutdown", ()).unwrap();
    run(&mut kernel);
    assert_eq!(warnings(), [""; 0]);
}

#[test]
fn proxy_header_that_takes_too_long_ends_the_connection() {
    collect_warnings();
    let mut kernel = kernel();
    let listen = Listen::tcp("127.0.0.1:0").proxy_timeout(Duration::from_millis(30));
    let address = serve(&mut kernel, TcpServer::on(listen, telling()));
    let mut peer = Peer::connect(address);
    peer.send("PROXY TCP4 ");
    wait_until("the end", DEADLINE, || {
        spin(&mut kernel);
        peer.look();
        peer.is_at_end.then_some(())
    });
    let told = warnings();
    assert!(told.len() == 1 && told[0].contains("in time"), "{told:?}");
    kernel.post("server", "shutdown", ()).unwrap();
    run(&mut kernel);
}

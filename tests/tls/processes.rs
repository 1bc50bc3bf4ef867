//! Servers of several processes, and clients that are programs.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lenore::tls::rustls::{ClientConfig, ClientConnection, StreamOwned, version};
use nix::sys::signal::Signal;
use util::{DEADLINE, Program, Running, wait_until};

use crate::certificates::Authority;
use crate::peer::connect;

const CHILDREN: usize = 8;

/// A server that runs, and where it listens.
struct Server {
    running: Running,
    addr: SocketAddr,
}

fn start(authority: &Authority, processes: &str, flags: &[&str]) -> Server {
    let (cert, key) = authority.issue("server", &["localhost", "127.0.0.1"]);
    write_config(authority, &cert, &key);
    let program = Program::new(env!("CARGO_BIN_EXE_tls_server")).args(["--processes", processes]).args(flags);
    let running = program.arg("--config").arg(config(authority)).start();
    Server { addr: running.listening_addr(), running }
}

fn config(authority: &Authority) -> PathBuf {
    authority.path("tls.conf")
}

fn write_config(authority: &Authority, cert: &std::path::Path, key: &std::path::Path) {
    fs::write(config(authority), format!("{}\n{}\n", cert.display(), key.display())).unwrap();
}

type Client = BufReader<StreamOwned<ClientConnection, TcpStream>>;

fn client(config: &Arc<ClientConfig>, server: SocketAddr) -> Client {
    let socket = TcpStream::connect(server).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    BufReader::new(connect(config, socket))
}

/// Sends a line. Returns which process has answered, and whether it has resumed a session.
fn ask(client: &mut Client) -> (i32, bool) {
    client.get_mut().write_all(b"hello\n").unwrap();
    let mut answer = String::new();
    client.read_line(&mut answer).unwrap();
    let words: Vec<&str> = answer.split_whitespace().collect();
    assert_eq!(words[2], "hello");
    (words[0].parse().unwrap(), words[1] == "resumed")
}

#[test]
fn client_resumes_with_every_child() {
    for tls in [&version::TLS13, &version::TLS12] {
        let authority = Authority::new();
        let server = start(&authority, &format!("prefork:{CHILDREN}"), &[]);
        let config = Arc::new(authority.client_of(tls));
        // Each child has one connection at a time, and keeps it.
        let mut clients = Vec::new();
        let mut first = client(&config, server.addr);
        let (pid, is_resumed) = ask(&mut first);
        assert!(!is_resumed);
        let mut pids = HashSet::from([pid]);
        clients.push(first);
        let mut resumed = 0;
        while pids.len() < CHILDREN {
            let mut next = client(&config, server.addr);
            let (pid, is_resumed) = ask(&mut next);
            assert!(pids.insert(pid), "{pid} has one connection");
            resumed += usize::from(is_resumed);
            clients.push(next);
        }
        // And with the one that has begun.
        clients.clear();
        let (_, is_resumed) = ask(&mut client(&config, server.addr));
        resumed += usize::from(is_resumed);
        println!("resumption over {CHILDREN} children: {resumed} of {CHILDREN}");
        assert_eq!(resumed, CHILDREN);
    }
}

/// Ends the server gently, and returns once it has closed an idle connection.
fn end_and_wait(server: &Server, idle: &mut Client) {
    server.running.signal(Signal::SIGTERM);
    assert_eq!(idle.read_line(&mut String::new()).unwrap(), 0);
}

#[test]
fn request_whose_record_has_come_in_part_is_answered_at_the_end() {
    let authority = Authority::new();
    let mut server = start(&authority, "single", &[]);
    let config = Arc::new(authority.client());
    let [mut asking, mut idle] = [(); 2].map(|()| client(&config, server.addr));
    ask(&mut asking);
    let StreamOwned { conn, sock } = asking.get_mut();
    conn.writer().write_all(b"hello\n").unwrap();
    let mut record = Vec::new();
    while conn.wants_write() {
        conn.write_tls(&mut record).unwrap();
    }
    let (part, rest) = record.split_at(record.len() - 3);
    sock.write_all(part).unwrap();
    // The one process has read that part when it answers this one.
    ask(&mut idle);
    end_and_wait(&server, &mut idle);
    asking.get_mut().sock.write_all(rest).unwrap();
    let mut answer = String::new();
    asking.read_line(&mut answer).unwrap();
    assert!(answer.ends_with(" hello\r\n"), "{answer:?}");
    drop(asking);
    assert!(server.running.wait_exit(DEADLINE).success());
}

#[test]
fn client_that_does_not_shake_hands_holds_the_end_for_a_moment_only() {
    let authority = Authority::new();
    let mut server = start(&authority, "single", &[]);
    let _silent = TcpStream::connect(server.addr).unwrap();
    // It was accepted before this one.
    let mut idle = client(&Arc::new(authority.client()), server.addr);
    ask(&mut idle);
    let begun = Instant::now();
    end_and_wait(&server, &mut idle);
    assert!(server.running.wait_exit(DEADLINE).success());
    // Its handshake has ten seconds.
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[test]
fn client_behind_a_proxy_that_does_not_shake_hands_holds_the_end_for_a_moment_only() {
    let authority = Authority::new();
    let mut server = start(&authority, "single", &["--proxy"]);
    let mut silent = TcpStream::connect(server.addr).unwrap();
    // Accepted after that one, and answered: the one process has seen both.
    let mut asking = TcpStream::connect(server.addr).unwrap();
    asking.write_all(b"PROXY UNKNOWN\r\n").unwrap();
    asking.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut idle = BufReader::new(connect(&Arc::new(authority.client()), asking));
    ask(&mut idle);
    let begun = Instant::now();
    server.running.signal(Signal::SIGTERM);
    // Its header comes when nobody else may begin.
    assert_eq!(idle.read_line(&mut String::new()).unwrap(), 0);
    silent.write_all(b"PROXY UNKNOWN\r\n").unwrap();
    assert!(server.running.wait_exit(DEADLINE).success());
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[test] // ring draws from the system: a fork copies no state of a generator
fn children_draw_different_random_numbers() {
    let authority = Authority::new();
    let server = start(&authority, &format!("prefork:{CHILDREN}"), &[]);
    let config = Arc::new(authority.client());
    let mut held = Vec::new();
    let randoms: HashSet<Vec<u8>> = (0..CHILDREN)
        .map(|_| {
            let mut peer = client(&config, server.addr);
            let mut socket = peer.get_ref().sock.try_clone().unwrap();
            peer.get_mut().conn.write_tls(&mut socket).unwrap();
            // The record's head has 5 bytes, the message's 4, and the version 2.
            let mut hello = [0; 43];
            socket.read_exact(&mut hello).unwrap();
            assert_eq!((hello[0], hello[5]), (22, 2), "ServerHello");
            held.push(peer);
            hello[11..].to_vec()
        })
        .collect();
    assert_eq!(randoms.len(), CHILDREN);
}

fn serves(config: &ClientConfig, server: &Server) -> Vec<u8> {
    let mut peer = client(&Arc::new(config.clone()), server.addr);
    ask(&mut peer);
    let certificate = peer.get_ref().conn.peer_certificates().unwrap()[0].to_vec();
    peer.get_mut().conn.send_close_notify();
    peer.get_mut().flush().unwrap();
    certificate
}

#[test]
fn reload_gives_children_the_new_certificate_and_refuses_a_bad_one() {
    for processes in ["prefork:2", "single", "fork:5"] {
        let authority = Authority::new();
        let server = start(&authority, processes, &[]);
        // Without resumption: a resumed session shows no certificate.
        let config = authority.client();
        let old = serves(&config, &server);
        let (cert, key) = authority.issue("new", &["localhost"]);
        let bad = authority.path("bad.pem");
        fs::write(&bad, "no PEM").unwrap();
        write_config(&authority, &bad, &key);
        server.running.signal(Signal::SIGHUP);
        server.running.wait_for_stderr(&format!("no certificate in {}", bad.display()), DEADLINE);
        assert_eq!(serves(&authority.client(), &server), old, "{processes}");
        write_config(&authority, &cert, &key);
        server.running.signal(Signal::SIGHUP);
        wait_until("the new certificate", DEADLINE, || (serves(&authority.client(), &server) != old).then_some(()));
    }
}

#[test]
fn curl_gets_a_page() {
    let authority = Authority::new();
    let server = start(&authority, "prefork:2", &["--http"]);
    let url = format!("https://localhost:{}/", server.addr.port());
    for (version, text) in [("--tls-max", "1.2"), ("--tlsv1.3", "1.3")] {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail", "--http1.1", "--cacert"]).arg(authority.ca()).arg(version);
        if version == "--tls-max" {
            curl.arg(text);
        }
        let output = curl.arg("--resolve").arg(format!("localhost:{}:127.0.0.1", server.addr.port())).arg(&url);
        let output = output.output().expect("curl is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("over TLS {text}\n"));
    }
}

#[test]
fn openssl_resumes_and_chooses_a_protocol() {
    let authority = Authority::new();
    let server = start(&authority, "prefork:4", &[]);
    let session = authority.path("session");
    for (flag, expected) in [("-sess_out", "New, TLSv1.3"), ("-sess_in", "Reused, TLSv1.3")] {
        let mut openssl = Command::new("openssl")
            .args(["s_client", "-alpn", "imap,lines", "-servername", "localhost", "-verify_return_error", "-CAfile"])
            .arg(authority.ca())
            .arg("-connect")
            .arg(server.addr.to_string())
            .arg(flag)
            .arg(&session)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl is installed");
        openssl.stdin.as_mut().unwrap().write_all(b"hello\n").unwrap();
        let mut seen = String::new();
        let mut lines = BufReader::new(openssl.stdout.take().unwrap());
        while !seen.ends_with(" hello\r\n") {
            assert_ne!(lines.read_line(&mut seen).unwrap(), 0, "{seen}");
        }
        drop(openssl.stdin.take());
        openssl.wait().unwrap();
        assert!(seen.contains(expected) && seen.contains("ALPN protocol: lines"), "{seen}");
    }
}

#[test]
fn plain_client_is_logged() {
    let authority = Authority::new();
    let server = start(&authority, "prefork:1", &[]);
    let mut plain = TcpStream::connect(server.addr).unwrap();
    plain.set_read_timeout(Some(DEADLINE)).unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut alert = Vec::new();
    plain.read_to_end(&mut alert).unwrap();
    assert_eq!(alert[0], 21);
    let line = server.running.wait_for_stderr("the peer does not speak TLS", DEADLINE);
    assert!(line.contains("lenore::component: TLS handshake failed: the peer does not speak TLS"), "{line}");
    assert!(line.contains(&format!(" peer={} ", plain.local_addr().unwrap())), "{line}");
}

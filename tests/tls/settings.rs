//! `tls::Server` and `tls::Client`: what they say of themselves, and what is refused.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use lenore::filter::Line;
use lenore::tls::rustls::pki_types::CertificateDer;
use lenore::tls::rustls::pki_types::pem::PemObject;
use lenore::tls::rustls::{ClientConfig, Error, HandshakeKind};
use lenore::tls::{self, Agreed};
use lenore::wheel::{Failure, ReadWrite};
use lenore::{Kernel, Session};
use util::DEADLINE;
use util::in_process::{Watchdog, kernel};

use crate::certificates::Authority;
use crate::peer::connect_to;

/// What a client has seen of a handshake.
#[derive(Debug, PartialEq)]
struct Seen {
    certificate: Vec<u8>,
    alpn: Option<Vec<u8>>,
    is_resumed: bool,
}

/// Has a client ask for `name`, and read and write one line. Returns what the server and the client say of it.
fn meet(
    server: &tls::Server,
    client: &Arc<ClientConfig>,
    name: &'static str,
) -> (Result<Agreed, String>, Result<Seen, String>) {
    let mut kernel = kernel();
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_read_timeout(Some(DEADLINE)).unwrap();
    let stream = server.accept(ours).unwrap();
    let handshake = stream.handshake();
    let failure = serve_one(&mut kernel, stream);
    let client = Arc::clone(client);
    let peer = thread::spawn(move || {
        let mut peer = connect_to(&client, theirs, name);
        let met = peer.write_all(b"hello\n").and_then(|()| peer.read_exact(&mut [0; 7]));
        peer.conn.send_close_notify();
        let _ = peer.flush();
        met.map_err(|error| error.to_string())?;
        Ok(Seen {
            certificate: peer.conn.peer_certificates().unwrap()[0].to_vec(),
            alpn: peer.conn.alpn_protocol().map(<[u8]>::to_vec),
            is_resumed: peer.conn.handshake_kind() == Some(HandshakeKind::Resumed),
        })
    });
    let _watchdog = Watchdog::start();
    kernel.run().unwrap();
    let agreed = handshake.agreed().cloned().ok_or_else(|| failure.try_recv().unwrap_or_default());
    (agreed, peer.join().unwrap())
}

/// Has a session echo lines. An error ends it, and is sent to the receiver.
fn serve_one(kernel: &mut Kernel, stream: tls::Stream) -> std::sync::mpsc::Receiver<String> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let wheel = ReadWrite::transport(stream, Line::new()).on_input("input").on_error("error");
    Session::new(None::<ReadWrite<Line>>)
        .args((wheel,))
        .state("_start", |cx| {
            let wheel = cx.take::<lenore::wheel::ReadWriteBuilder<Line>>(0)?.start(cx)?;
            *cx.heap() = Some(wheel);
            Ok(())
        })
        .state("input", |cx| {
            let line = cx.take::<String>(0)?;
            cx.heap().iter().for_each(|wheel| _ = wheel.put(line.as_str()));
            Ok(())
        })
        .state("error", move |cx| {
            let failure = cx.take::<Failure>(0)?;
            let _ = sender.send(failure.to_string());
            cx.heap().take().into_iter().for_each(ReadWrite::close_after_flush);
            Ok(())
        })
        .spawn(kernel)
        .unwrap();
    receiver
}

fn der(path: &std::path::Path) -> Vec<u8> {
    CertificateDer::from_pem_file(path).unwrap().to_vec()
}

#[test]
fn client_gets_the_certificate_of_the_name_that_it_asks_for() {
    let authority = Authority::new();
    let (first, key) = authority.issue("first", &["localhost", "other.test"]);
    let named = authority.issue("named", &["named.test"]);
    let wild = authority.issue("wild", &["*.wild.test"]);
    let server = tls::Server::pem(&first, key)
        .certificate("Named.Test", &named.0, &named.1)
        .certificate("*.wild.test", &wild.0, &wild.1)
        .build()
        .unwrap();
    let client = Arc::new(authority.client());
    for (name, file) in [
        ("localhost", &first),
        ("other.test", &first),
        ("named.test", &named.0),
        ("NAMED.test", &named.0),
        ("a.wild.test", &wild.0),
    ] {
        let (agreed, seen) = meet(&server, &client, name);
        assert_eq!(seen.unwrap().certificate, der(file), "{name}");
        assert_eq!(agreed.unwrap().server_name.unwrap().to_ascii_lowercase(), name.to_ascii_lowercase());
    }
}

#[test]
fn certificate_for_another_name_is_refused_with_its_path() {
    let authority = Authority::new();
    let named = authority.issue("named", &["named.test"]);
    for name in ["other.test", "*.named.test"] {
        let error = authority.server().certificate(name, &named.0, &named.1).build().unwrap_err().to_string();
        assert!(error.starts_with(&format!("certificate {} for {name}: ", named.0.display())), "{error}");
    }
    let error = authority.server().certificate("no name", &named.0, &named.1).build().unwrap_err();
    assert!(matches!(error, tls::Error::InvalidName(_)), "{error}");
}

#[test]
fn alpn_chooses_what_the_server_likes_best() {
    let authority = Authority::new();
    let server = authority.server().alpn(["h2", "http/1.1"]).build().unwrap();
    for (offered, chosen) in [(&["http/1.1", "h2"][..], Some("h2")), (&["http/1.1"], Some("http/1.1")), (&[], None)] {
        let mut client = authority.client();
        client.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        let (agreed, seen) = meet(&server, &Arc::new(client), "localhost");
        let chosen = chosen.map(|name: &str| name.as_bytes().to_vec());
        assert_eq!((agreed.unwrap().alpn, seen.unwrap().alpn), (chosen.clone(), chosen));
    }
    let mut client = authority.client();
    client.alpn_protocols = vec![b"imap".to_vec()];
    let (agreed, seen) = meet(&server, &Arc::new(client), "localhost");
    assert!(agreed.unwrap_err().starts_with("handshake: "));
    assert!(seen.unwrap_err().contains("NoApplicationProtocol"));
}

#[test]
fn client_without_a_certificate_is_refused_if_one_is_required() {
    let (authority, others) = (Authority::new(), Authority::new());
    let known = authority.client_with(authority.issue("client", &["client.test"]));
    let strange = authority.client_with(others.issue("client", &["client.test"]));
    let required = authority.server().require_client_certificates(authority.ca()).build().unwrap();
    let accepted = authority.server().accept_client_certificates(authority.ca()).build().unwrap();
    let certificate = der(&authority.path("client.pem"));
    for server in [&required, &accepted] {
        let (agreed, _) = meet(server, &Arc::new(known.clone()), "localhost");
        assert_eq!(agreed.unwrap().peer_certificates, std::slice::from_ref(&certificate));
        let (agreed, seen) = meet(server, &Arc::new(strange.clone()), "localhost");
        assert!(agreed.unwrap_err().starts_with("handshake: invalid peer certificate"));
        assert!(seen.is_err());
    }
    let anonymous = Arc::new(authority.client());
    assert!(meet(&required, &anonymous, "localhost").0.unwrap_err().starts_with("handshake: "));
    assert_eq!(meet(&accepted, &anonymous, "localhost").0.unwrap().peer_certificates, Vec::<Vec<u8>>::new());
}

#[test]
fn session_is_resumed_by_a_ticket_and_keeps_the_peers_certificate() {
    let authority = Authority::new();
    let server = authority.server().require_client_certificates(authority.ca()).build().unwrap();
    let client = Arc::new(authority.client_with(authority.issue("client", &["client.test"])));
    let resumed: Vec<bool> = (0..3)
        .map(|_| {
            let (agreed, seen) = meet(&server, &client, "localhost");
            let agreed = agreed.unwrap();
            assert_eq!(agreed.peer_certificates, [der(&authority.path("client.pem"))]);
            assert_eq!(agreed.is_resumed, seen.unwrap().is_resumed);
            agreed.is_resumed
        })
        .collect();
    assert_eq!(resumed, [false, true, true]);
}

#[test]
fn tickets_are_good_for_every_server_with_the_same_secret() {
    let authority = Authority::new();
    let with = |secret: &[u8]| authority.server().ticket_secret(secret).build().unwrap();
    let (one, two, other) = (with(&[7; 32]), with(&[7; 32]), with(&[8; 32]));
    let client = Arc::new(authority.client());
    let resumed = [&one, &two, &other].map(|server| meet(server, &client, "localhost").0.unwrap().is_resumed);
    assert_eq!(resumed, [false, true, false]);
}

#[test]
fn reload_changes_the_certificate_and_keeps_tickets_good() {
    let authority = Authority::new();
    let server = authority.server().build().unwrap();
    let client = Arc::new(authority.client());
    let before = meet(&server, &client, "localhost").1.unwrap();
    authority.issue("server", &["localhost"]);
    let clone = server.clone();
    clone.reload().unwrap();
    // The client has a ticket.
    assert!(meet(&server, &client, "localhost").0.unwrap().is_resumed);
    let after = meet(&server, &Arc::new(authority.client()), "localhost").1.unwrap();
    assert_ne!(before.certificate, after.certificate);
    assert_eq!(after.certificate, der(&authority.path("server.pem")));
}

#[test]
fn reload_of_a_bad_certificate_names_the_file_and_changes_nothing() {
    let authority = Authority::new();
    let server = authority.server().build().unwrap();
    let (cert, key) = (authority.path("server.pem"), authority.path("server.key"));
    let good = (der(&cert), fs::read(&cert).unwrap(), fs::read(&key).unwrap());
    let other = authority.issue("other", &["localhost"]);
    let cases: [(&str, &dyn Fn()); 5] = [
        ("no certificate in", &|| fs::write(&cert, "no PEM").unwrap()),
        ("no certificate in", &|| fs::write(&cert, &good.1[..good.1.len() / 2]).unwrap()),
        ("no certificate in", &|| fs::remove_file(&cert).unwrap()),
        ("no private key in", &|| fs::write(&key, "").unwrap()),
        ("certificate", &|| _ = fs::copy(&other.1, &key).unwrap()),
    ];
    for (text, spoil) in cases {
        fs::write(&cert, &good.1).unwrap();
        fs::write(&key, &good.2).unwrap();
        spoil();
        let error = server.reload().unwrap_err().to_string();
        assert!(error.starts_with(text) && error.contains(&authority.path("server").display().to_string()), "{error}");
        let seen = meet(&server, &Arc::new(authority.client()), "localhost").1.unwrap();
        assert_eq!(seen.certificate, good.0, "after {error}");
    }
}

#[test]
fn follow_takes_over_a_configuration_that_was_given_as_it_is() {
    let (authority, others) = (Authority::new(), Authority::new());
    let (server, other) = (authority.server().build().unwrap(), authority.server().build().unwrap());
    let given = others.server().build().unwrap().config();
    other.set_config(Arc::clone(&given));
    server.follow(&other);
    assert!(Arc::ptr_eq(&server.config(), &given), "its tickets are its own");
    let client = Arc::new(others.client());
    let resumed = [(); 2].map(|()| meet(&server, &client, "localhost").0.unwrap().is_resumed);
    assert_eq!(resumed, [false, true]);
    // What comes of files has tickets of this server's secret again.
    server.reload().unwrap();
    let client = Arc::new(authority.client());
    meet(&server, &client, "localhost").0.unwrap();
    let next = authority.server().build().unwrap();
    server.follow(&next);
    assert!(meet(&server, &client, "localhost").0.unwrap().is_resumed);
}

#[test] // a resumed client is not verified again
fn reload_with_other_authorities_makes_tickets_worthless() {
    let (authority, others) = (Authority::new(), Authority::new());
    let clients = authority.path("clients.pem");
    fs::copy(authority.ca(), &clients).unwrap();
    let server = authority.server().require_client_certificates(&clients).build().unwrap();
    let client = Arc::new(authority.client_with(authority.issue("client", &["client.test"])));
    meet(&server, &client, "localhost").0.unwrap();
    fs::copy(others.ca(), &clients).unwrap();
    server.reload().unwrap();
    assert!(meet(&server, &client, "localhost").0.is_err());
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let authority = Authority::new();
    for span in [Duration::ZERO, Duration::from_secs(59), Duration::from_secs(8 * 24 * 3600)] {
        let error = authority.server().ticket_rotation(span).build().unwrap_err();
        assert_eq!(error.to_string(), "ticket_rotation: must be from a minute to 7 days");
    }
    let given = tls::Server::from_config(authority.server().build().unwrap().config());
    assert!(matches!(given.reload(), Err(tls::Error::NotFromFiles)));
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let client = tls::Client::trusting(authority.ca()).build().unwrap();
    assert!(matches!(client.connect(ours, "no name"), Err(tls::Error::InvalidName(_))));
}

#[test]
fn client_refuses_a_server_that_it_does_not_trust() {
    let (authority, others) = (Authority::new(), Authority::new());
    let server = authority.server().build().unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut kernel = kernel();
    let at_server = serve_one(&mut kernel, server.accept(ours).unwrap());
    let client = tls::Client::trusting(others.ca()).build().unwrap();
    let at_client = serve_one(&mut kernel, client.connect(theirs, "localhost").unwrap());
    let _watchdog = Watchdog::start();
    kernel.run().unwrap();
    let unknown = Error::InvalidCertificate(tls::rustls::CertificateError::UnknownIssuer);
    assert_eq!(at_client.recv().unwrap(), format!("handshake: {unknown}"));
    assert_eq!(at_server.recv().unwrap(), "handshake: received fatal alert: UnknownCA");
}

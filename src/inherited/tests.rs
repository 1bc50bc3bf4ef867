use std::fs;
use std::net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::*;
use crate::handover::Passed;
use crate::testing::{TempDir, check};

fn examined(name: &str, fd: impl Into<OwnedFd>) -> Socket {
    Socket::examine(name, fd.into()).unwrap()
}

fn tcp(name: &str) -> Socket {
    examined(name, TcpListener::bind("127.0.0.1:0").unwrap())
}

fn ip(text: &str) -> Place {
    Place::Ip(text.parse().unwrap())
}

fn path(path: impl Into<PathBuf>) -> Place {
    Place::Path(path.into())
}

#[test] // O-SD-05, O-SD-13
fn socket_is_known_for_what_it_is() {
    let dir = TempDir::new();
    let at = dir.path().join("s");
    let stream = examined("a", UnixListener::bind(&at).unwrap());
    assert!(matches!((&stream.kind, &stream.place), (Kind::Stream, Place::Path(path)) if *path == at), "{stream}");
    let datagram = examined("b", UdpSocket::bind("127.0.0.1:0").unwrap());
    assert!(matches!((&datagram.kind, &datagram.place), (Kind::Datagram, Place::Ip(_))), "{datagram}");
    let text = tcp("http").to_string();
    assert!(text.starts_with("name=\"http\" type=\"tcp\" address=127.0.0.1:"), "{text}");
    assert!(fcntl(stream.fd.as_fd(), FcntlArg::F_GETFL).unwrap() & OFlag::O_NONBLOCK.bits() != 0);
}

#[test] // O-SD-05
fn descriptor_that_is_no_listening_socket_is_told_what_it_is() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let refused = |fd: OwnedFd| Socket::examine("x", fd).unwrap_err();
    assert_eq!(refused(fs::File::open("/dev/null").unwrap().into()), "not a socket");
    let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    assert_eq!(refused(connected.into()), "a stream socket that does not listen");
    assert_eq!(refused(UnixStream::pair().unwrap().0.into()), "a stream socket that does not listen");
}

#[test] // O-SD-13: 0.0.0.0:80 is not [::]:80
fn addresses_are_one_only_if_all_of_them_is() {
    assert!(ip("0.0.0.0:80").is(&ip("0.0.0.0:80")));
    assert!(ip("[::1]:80").is(&ip("[::1]:80")));
    for (one, other) in [
        ("0.0.0.0:80", "[::]:80"),
        ("127.0.0.1:80", "0.0.0.0:80"),
        ("127.0.0.1:80", "127.0.0.1:81"),
        ("127.0.0.1:80", "[::ffff:127.0.0.1]:80"),
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("[::1]:0", "[::1]:0"),
    ] {
        assert!(!ip(one).is(&ip(other)) && !ip(other).is(&ip(one)), "{one} {other}");
    }
    let scoped = |scope| Place::Ip(std::net::SocketAddrV6::new(Ipv6Addr::LOCALHOST, 80, 0, scope).into());
    assert!(scoped(1).is(&scoped(1)) && !scoped(1).is(&scoped(2)));
}

#[test] // O-SD-13: by path, resolved
fn paths_are_one_if_they_lead_to_one_file() {
    let dir = TempDir::new();
    let real = dir.path().join("real");
    fs::create_dir(&real).unwrap();
    symlink(&real, dir.path().join("link")).unwrap();
    let at = real.join("s");
    let _listener = UnixListener::bind(&at).unwrap();
    assert!(path(&at).is(&path(dir.path().join("link/s"))));
    assert!(path(&at).is(&path(real.join("../real/s"))));
    assert!(!path(&at).is(&path(real.join("other"))));
    assert!(!path("").is(&path("")));
    assert!(path(&at).is_file() && !path("\0name").is_file() && !path("").is_file() && !ip("0.0.0.0:80").is_file());
    assert!(path("\0name").is(&path("\0name")) && !path("\0name").is(&path("name")));
}

#[test] // O-SD-13, O-UP-10
fn name_comes_before_address_and_order_counts_for_nothing() {
    let mut sockets = vec![tcp("admin"), tcp("http"), tcp("http")];
    let places: Vec<Place> = sockets.iter().map(|socket| socket.place.clone()).collect();
    let claim = |sockets: &mut Vec<Socket>, name, places| {
        take(sockets, &Wanted { name, kind: Kind::Stream, family: Family::Ip, places })
    };
    // By its name, though the first socket is at the address.
    let claimed = claim(&mut sockets, Some("http"), &places[..1]).unwrap().unwrap();
    assert!(claimed.place.is(&places[1]));
    assert!(claim(&mut sockets, Some("http"), &[]).unwrap().unwrap().place.is(&places[2]));
    // Without another one of the name: what is at the address.
    assert!(claim(&mut sockets, Some("http"), &places[..1]).unwrap().unwrap().place.is(&places[0]));
    assert!(claim(&mut sockets, Some("http"), &places).unwrap().is_none());
    // The only one there is belongs to nobody who has not named it.
    sockets.push(tcp("unknown"));
    assert!(claim(&mut sockets, Some("http"), &places).unwrap().is_none());
    assert!(claim(&mut sockets, None, &places).unwrap().is_none());
}

#[test] // O-SD-13: each is checked
fn socket_of_the_name_and_of_another_type_is_an_error() {
    let dir = TempDir::new();
    let at = dir.path().join("s");
    let unix = UnixDatagram::bind(&at).unwrap();
    let mut sockets = vec![examined("http", unix), examined("dns", UdpSocket::bind("127.0.0.1:0").unwrap())];
    let mut claim = |name, kind, family| take(&mut sockets, &Wanted { name: Some(name), kind, family, places: &[] });
    let error = claim("http", Kind::Stream, Family::Ip).unwrap_err().to_string();
    assert!(error.contains("\"http\"") && error.contains("unix datagram"), "{error}");
    claim("http", Kind::Datagram, Family::Ip).unwrap_err();
    claim("dns", Kind::Datagram, Family::Unix).unwrap_err();
    assert!(claim("dns", Kind::Datagram, Family::Ip).unwrap().is_some());
    assert!(claim("http", Kind::Datagram, Family::Any).unwrap().is_some());
}

/// A socket of the model: name, kind, port.
type Plain = (&'static str, Kind, u16);

#[test] // O-SD-13, O-UP-10
fn sockets_are_given_as_the_model_gives_them() {
    const NAMES: [&str; 4] = ["a", "b", "unknown", ""];
    const KINDS: [Kind; 2] = [Kind::Stream, Kind::Datagram];
    check(|dice| {
        let mut model: Vec<Plain> =
            dice.list(5, |dice| (dice.pick(&NAMES), dice.pick(&KINDS), dice.number(0..4) as u16));
        let socket = |(name, kind, port): &Plain| Socket {
            name: (*name).to_owned(),
            fd: fs::File::open("/dev/null").unwrap().into(),
            kind: *kind,
            place: Place::Ip(([127, 0, 0, 1], *port).into()),
            passed: Passed::default(),
            prepared_for: None,
            is_own: false,
            is_quiet: None,
        };
        let mut sockets: Vec<Socket> = model.iter().map(socket).collect();
        for _ in 0..6 {
            let (name, kind) = (dice.maybe(|dice| dice.pick(&NAMES)), dice.pick(&KINDS));
            let ports = dice.list(2, |dice| dice.number(0..4) as u16);
            let places: Vec<Place> = ports.iter().map(|port| Place::Ip(([127, 0, 0, 1], *port).into())).collect();
            let wanted = Wanted { name, kind, family: Family::Ip, places: &places };
            let got = take(&mut sockets, &wanted).map(|claimed| claimed.map(|claimed| claimed.place.to_string()));

            let named: Vec<Plain> = model.iter().filter(|plain| Some(plain.0) == name).copied().collect();
            let of_kind = named.iter().find(|plain| plain.1 == kind).copied();
            let at_address = || {
                let mut hits: Vec<&Plain> = Vec::new();
                for port in ports.iter().filter(|port| **port != 0) {
                    hits.extend(model.iter().filter(|plain| (plain.1, plain.2) == (kind, *port)));
                }
                hits.first().map(|plain| **plain)
            };
            let expected = if named.is_empty() { at_address() } else { of_kind };
            if expected.is_none() && !named.is_empty() {
                assert!(got.is_err(), "{wanted:?}", wanted = (name, kind, &ports));
                continue;
            }
            assert_eq!(got.unwrap(), expected.map(|plain| format!("127.0.0.1:{}", plain.2)));
            if let Some(expected) = expected {
                model.remove(model.iter().position(|plain| *plain == expected).unwrap());
            }
            assert_eq!(sockets.len(), model.len());
        }
    });
}

#[test] // O-SD-05: one that the program has opened itself can't have been passed
fn descriptor_is_adopted_only_if_it_has_come_through_an_exec() {
    let own = fs::File::open("/dev/null").unwrap();
    assert_eq!(adopt(own.as_raw_fd()).unwrap_err(), Errno::EEXIST);
    assert_eq!(adopt(1_000_000).unwrap_err(), Errno::EBADF);
}

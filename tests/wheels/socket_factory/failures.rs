//! What goes wrong, and how it is said.

use std::net::TcpListener;

use lenore::wheel::{Domain, SocketFactory, SocketFactoryBuilder};
use lenore::{Context, Error, Result, Session};
use nix::errno::Errno;

use super::{Maker, failed, maker};
use util::in_process::{Log, kernel, run};

/// Begins a wheel of some kind with this address.
type Begin = fn(&str) -> SocketFactoryBuilder;

/// Runs `start` in a session of its own, and returns what was logged.
fn logged(start: impl Fn(&mut Context<'_, Maker>) -> Result + 'static) -> Vec<String> {
    let mut kernel = kernel();
    let log = Log::default();
    maker(&log, start).spawn(&mut kernel).unwrap();
    run(&mut kernel);
    log.take()
}

#[test]
fn a_wheel_belongs_to_a_session() {
    let mut kernel = kernel();
    let stopped = Session::new(()).state("_start", |cx| {
        cx.stop();
        let listening = SocketFactory::tcp("127.0.0.1:0").listen(cx).map(drop);
        assert!(matches!(listening, Err(Error::NoActiveSession)));
        let binding = SocketFactory::udp("127.0.0.1:0").bind(cx).map(drop);
        assert!(matches!(binding, Err(Error::NoActiveSession)));
        let connecting = SocketFactory::tcp("127.0.0.1:1").connect(cx).map(drop);
        assert!(matches!(connecting, Err(Error::NoActiveSession)));
    });
    stopped.spawn(&mut kernel).unwrap();
}

#[test] // K-SF-05, K-SF-01: no success event; nothing to connect to; what a kind of socket can't do
fn a_wrong_call_is_an_error_that_says_what_is_wrong() {
    #[track_caller]
    fn check(made: std::result::Result<SocketFactory, Error>, why: &str) {
        let error = made.unwrap_err();
        assert!(matches!(error, Error::InvalidSetting { .. } | Error::InvalidAddress { .. }), "{error:?}");
        assert_eq!(error.to_string(), format!("invalid {why}"));
    }
    let log = logged(|cx| {
        let tcp = |address: &str| SocketFactory::tcp(address).on_connect("made").on_error("failed");
        check(SocketFactory::tcp("127.0.0.1:0").on_error("failed").listen(cx), "on_accept: is required");
        check(SocketFactory::tcp("127.0.0.1:1").on_error("failed").connect(cx), "on_connect: is required");
        check(SocketFactory::udp("127.0.0.1:0").on_error("failed").bind(cx), "on_bind: is required");
        let posting = SocketFactory::tcp("127.0.0.1:0").on_accept("made").post_failures();
        check(posting.listen(cx), "post_failures: needs on_error");
        check(tcp("127.0.0.1").connect(cx), "address \"127.0.0.1\": there is no port to connect to");
        check(tcp(":80").connect(cx), "address \":80\": there is no host to connect to");
        check(tcp("127.0.0.1:65536").connect(cx), "address \"127.0.0.1:65536\": there is no such port");
        let brackets = "address \"::1:http\": IPv6 with a port needs brackets, as in [::1]:80";
        check(tcp("127.0.0.1:80").bind_address("::1:http").connect(cx), brackets);
        check(tcp("127.0.0.1:0").accepts_per_turn(0).listen(cx), "accepts_per_turn: it is 0");
        check(tcp("127.0.0.1:0").bind(cx), "bind: a stream socket has to listen or to connect");
        for datagram in [SocketFactory::udp("127.0.0.1:0"), SocketFactory::unix_datagram("x")] {
            check(datagram.on_bind("made").listen(cx), "listen: a datagram socket can't; bind it");
        }
        check(SocketFactory::unix("").on_accept("made").listen(cx), "address \"\": a UNIX socket needs a path");
        let no_path = SocketFactory::unix(("127.0.0.1", 80)).on_connect("made").connect(cx);
        check(no_path, "address \"127.0.0.1:80\": it is no path of a UNIX socket");
        let path = SocketFactory::tcp(std::path::Path::new("/tmp/x")).on_connect("made").connect(cx);
        check(path, "address \"/tmp/x\": it is the path of a UNIX socket");
        Ok(())
    });
    assert_eq!(log, ["_stop"], "and no event");
}

#[test] // K-SF-15: bind. K-SF-06: listen and bind return it, where POE sends an event
fn a_busy_port_is_an_error_that_names_the_address() {
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap().to_string();
    let mut kernel = kernel();
    Session::new(address)
        .state("_start", |cx| {
            let address = cx.heap().clone();
            let error = SocketFactory::tcp(&address).on_accept("accept").listen(cx).map(drop).unwrap_err();
            let Error::Os { call, subject, source } = &error else { panic!("{error}") };
            assert_eq!((*call, subject), ("bind", &address));
            assert_eq!(source.raw_os_error(), Some(Errno::EADDRINUSE as i32));
            assert!(error.to_string().contains(&address), "{error}");
        })
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
}

#[test] // K-SF-06, K-SF-20: as in POE, if the wheel is told so: it is there, and inert, and the event is posted
fn failures_to_listen_or_to_bind_are_posted_on_request() {
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let (tcp_address, udp_address) = (busy.local_addr().unwrap(), udp.local_addr().unwrap());
    let log = logged(move |cx| {
        let tcp = SocketFactory::tcp(tcp_address).on_accept("made").on_error("failed").post_failures().listen(cx)?;
        let udp = SocketFactory::udp(udp_address).on_bind("made").on_error("failed").post_failures().bind(cx)?;
        assert!(tcp.local_addr().is_err());
        tcp.pause_accept();
        // One of the two has gone when its event comes.
        drop(udp);
        let heap = cx.heap();
        heap.wheels.push(tcp);
        heap.log.push("_start");
        Ok(())
    });
    let busy = failed("bind", Errno::EADDRINUSE);
    assert_eq!(log, ["_start".to_owned(), busy.clone(), busy, "_stop".to_owned()]);
}

#[test] // K-SF-15, K-SF-20: names; a failure inside the constructor is posted, and arrives though the wheel has gone
fn names_that_are_not_found_are_error_events() {
    let log = logged(|cx| {
        let wheel = |address: &str| SocketFactory::tcp(address).on_connect("made").on_error("failed");
        let _ = wheel("no such host:80").connect(cx)?;
        let _ = wheel("[::1]:80").domain(Domain::Ipv4).connect(cx)?;
        let _ = wheel("127.0.0.1:no-such-service").connect(cx)?;
        cx.heap().log.push("_start");
        Ok(())
    });
    let [host, service] = ["getaddrinfo", "getservbyname"].map(|name| failed(name, Errno::EADDRNOTAVAIL));
    assert_eq!(log, ["_start", &host, &host, &service, "_stop"]);
}

#[test] // K-SF-15: to listen they are returned, and name what was looked for
fn names_that_are_not_found_are_errors_to_a_listener() {
    let kinds: [(Begin, &str); 2] =
        [(|text| SocketFactory::tcp(text), "tcp"), (|text| SocketFactory::udp(text), "udp")];
    let log = logged(move |cx| {
        for (begin, protocol) in kinds {
            let begin = |address| begin(address).on_accept("made");
            let make = |wheel: SocketFactoryBuilder, cx: &mut Context<'_, Maker>| {
                if protocol == "tcp" { wheel.listen(cx) } else { wheel.bind(cx) }.unwrap_err()
            };
            let error = make(begin("127.0.0.1:no-such-service"), cx).to_string();
            assert!(error.starts_with("getservbyname 127.0.0.1:no-such-service: "), "{error}");
            assert!(error.contains(&format!("no service no-such-service for {protocol}")), "{error}");
            let error = make(begin("[::1]:0").domain(Domain::Ipv4), cx).to_string();
            assert_eq!(error, "getaddrinfo [::1]:0: there is no IPv4 address");
        }
        Ok(())
    });
    assert_eq!(log, ["_stop"]);
}

#[test] // K-SF-15: pack_sockaddr_un
fn a_path_that_is_too_long_is_a_failure() {
    let path = format!("/tmp/{}", "x".repeat(200));
    let log = logged(move |cx| {
        let _ = SocketFactory::unix(path.as_str()).on_connect("made").on_error("failed").connect(cx)?;
        let _ = SocketFactory::unix(path.as_str()).on_accept("made").on_error("failed").post_failures().listen(cx)?;
        Ok(())
    });
    let failed = failed("pack_sockaddr_un", Errno::ENAMETOOLONG);
    assert_eq!(log, [&failed, &failed, "_stop"]);
}

//! What a wheel can be told.

use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};

use lenore::wheel::{Domain, Failure, SocketEvent, SocketFactory};
use lenore::{Error, Switch};
use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};

use super::{address, maker, refusing_address, server};
use util::in_process::{Log, kernel, run, run_slices, run_until};

/// An address that nobody listens at, but that an old connection still uses.
fn lately_used_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    // Who closes first keeps the address for a while.
    accepted.shutdown(Shutdown::Write).unwrap();
    assert_eq!(std::io::Read::read(&mut client, &mut [0]).unwrap(), 0);
    drop(client);
    address
}

#[test] // K-SF-03
fn an_address_is_used_again_unless_it_is_told_not_to() {
    let mut kernel = kernel();
    let log = Log::default();
    maker(&log, |cx| {
        let address = lately_used_address();
        let listen = |reuse| SocketFactory::tcp(address).on_accept("accepted").reuse(reuse);
        let error = listen(Switch::Off).listen(cx).unwrap_err();
        let Error::Os { call: "bind", source, .. } = &error else { panic!("{error}") };
        assert_eq!(source.raw_os_error(), Some(Errno::EADDRINUSE as i32));
        // As POE spells it.
        let _ = listen("Yes".parse()?).listen(cx)?;
        let address = lately_used_address();
        let _ = SocketFactory::tcp(address).on_accept("accepted").listen(cx)?;
        Ok(())
    })
    .spawn(&mut kernel)
    .unwrap();
    run(&mut kernel);
}

#[test] // K-SF-03: off for sockets that don't listen, unless they are told
fn a_datagram_socket_keeps_its_address_for_itself() {
    let mut kernel = kernel();
    let log = Log::default();
    maker(&log, |cx| {
        let _ = SocketFactory::udp("127.0.0.1:0").on_bind("bound").bind(cx)?;
        let _ = SocketFactory::udp("127.0.0.1:0").on_bind("bound").reuse("on".parse()?).bind(cx)?;
        Ok(())
    })
    .state("bound", |cx| {
        let reuse = getsockopt(&cx.take::<UdpSocket>(0)?, sockopt::ReuseAddr)?;
        cx.heap().log.push(reuse);
        Ok(())
    })
    .spawn(&mut kernel)
    .unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "false true _stop");
}

#[test] // K-SF-04, K-SF-01: IPv4 unless told otherwise
fn what_is_not_said_of_an_address_is_any() {
    let mut kernel = kernel();
    let log = Log::default();
    maker(&log, |cx| {
        let listen = |text: &str| SocketFactory::tcp(text).on_accept("accepted");
        for (address, bound) in [("", "0.0.0.0"), (":0", "0.0.0.0"), ("127.0.0.1", "127.0.0.1"), ("::1", "::1")] {
            let local = listen(address).listen(cx)?.local_addr()?;
            assert_eq!(local.ip().to_string(), bound, "{address:?}");
            assert_ne!(local.port(), 0);
        }
        let local = listen(":0").domain(Domain::Ipv6).listen(cx)?.local_addr()?;
        assert_eq!(local.ip().to_string(), "::");
        assert!(listen("localhost:0").domain(Domain::Ipv4).listen(cx)?.local_addr()?.is_ipv4());
        Ok(())
    })
    .spawn(&mut kernel)
    .unwrap();
    run(&mut kernel);
}

#[test] // K-SF-08: whether one IPv6 listener is enough is for the program to say
fn an_ipv6_listener_takes_ipv4_or_leaves_it() {
    let mut kernel = kernel();
    let log = Log::default();
    maker(&log, |cx| {
        let listen = |only| SocketFactory::tcp("[::]:0").v6_only(only).on_accept("accepted");
        let beside = |port| SocketFactory::tcp(("0.0.0.0", port)).on_accept("accepted");
        let both = listen(Switch::Off).listen(cx)?;
        let port = both.local_addr()?.port();
        beside(port).listen(cx).unwrap_err();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        cx.heap().wheels.push(both);
        // Something else may have the port of one for IPv4, but hardly of all.
        let has_room = (0..20).any(|_| {
            let one = listen(Switch::On).listen(cx).unwrap();
            beside(one.local_addr().unwrap().port()).listen(cx).is_ok()
        });
        assert!(has_room);
        Ok(())
    })
    .state("accepted", |cx| {
        let peer = *cx.arg::<std::net::IpAddr>(1)?;
        assert_eq!(peer, std::net::IpAddr::from(Ipv4Addr::LOCALHOST.to_ipv6_mapped()));
        cx.heap().log.push("accepted");
        cx.heap().wheels.clear();
        Ok(())
    })
    .spawn(&mut kernel)
    .unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "accepted _stop");
}

#[test] // K-SF-11, T10: ten clients that came before; no other announces them, and no alarm is involved
fn a_listener_that_accepts_one_client_a_turn_serves_those_that_wait() {
    let mut kernel = kernel();
    let log = Log::default();
    server(&log)
        .state("_start", |cx| {
            let listener = SocketFactory::tcp("127.0.0.1:0").on_accept("accept").accepts_per_turn(1).listen(cx)?;
            cx.heap().listener = Some(listener);
            Ok(cx.alias_set("server")?)
        })
        .spawn(&mut kernel)
        .unwrap();
    let address = address(&mut kernel);
    let clients: Vec<TcpStream> = (0..10).map(|_| TcpStream::connect(address).unwrap()).collect();
    for _ in &clients {
        kernel.post("server", "pass", ()).unwrap();
        run_slices(&mut kernel, 1);
        assert_eq!(kernel.next_event_time(), None, "no alarm");
    }
    assert_eq!(log.text(), ["accept pass"; 10].join(" "), "posts in between are served");
    kernel.call("server", "end", ()).unwrap();
    run(&mut kernel);
}

#[test] // K-SF-24, K-WH-08: from the next one on; in the middle of a batch, too
fn the_events_of_a_wheel_can_be_changed() {
    let mut kernel = kernel();
    let log = Log::default();
    server(&log)
        .state("accept", |cx| {
            let heap = cx.heap();
            heap.log.push("accept");
            heap.listener.as_ref().expect("it listens").event(SocketEvent::Success, "second");
        })
        .state("second", |cx| cx.heap().log.push("second"))
        .spawn(&mut kernel)
        .unwrap();
    let address = address(&mut kernel);
    let _clients: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
    run_until(&mut kernel, || log.len() == 3);
    assert_eq!(log.text(), "accept second second");
    kernel.call("server", "end", ()).unwrap();
    run(&mut kernel);
}

#[test] // K-SF-24, K-SF-23: of a wheel that connects; it has no accepting to pause
fn the_events_of_a_connecting_wheel_can_be_changed() {
    let (refusing, _kept) = refusing_address();
    let mut kernel = kernel();
    let log = Log::default();
    maker(&log, move |cx| {
        let wheel = SocketFactory::tcp(refusing).on_connect("connected").connect(cx)?;
        wheel.event(SocketEvent::Error, "changed");
        wheel.pause_accept();
        wheel.resume_accept();
        cx.heap().wheels.push(wheel);
        Ok(())
    })
    .state("changed", |cx| {
        let id = cx.heap().wheels[0].id();
        assert_eq!(cx.take::<Failure>(0)?.wheel, Some(id));
        cx.heap().log.push("changed");
        Ok(())
    })
    .spawn(&mut kernel)
    .unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "changed _stop");
}

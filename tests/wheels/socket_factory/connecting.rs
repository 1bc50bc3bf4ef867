//! Connecting.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant, SystemTime};

use lenore::wheel::{Domain, Failure, SocketFactory, SocketFactoryBuilder};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket};

use super::{client, failed, maker, refusing_address};
use util::addresses::free_addresses;
use util::in_process::{Log, kernel, run, run_slices};

#[test] // K-SF-13: the wheel is kept, and holds nothing
fn connecting_ends_in_one_event_and_an_inert_wheel() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut kernel = kernel();
    let log = Log::default();
    client(&log, listener.local_addr().unwrap().to_string()).spawn(&mut kernel).unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "connected _stop");
    listener.accept().unwrap();
}

#[test] // K-SF-14, K-WH-10
fn a_refused_connection_is_an_error_event() {
    let (address, _kept) = refusing_address();
    let mut kernel = kernel();
    let log = Log::default();
    client(&log, address.to_string()).spawn(&mut kernel).unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), format!("connect:{}:false _stop", Errno::ECONNREFUSED as i32));
}

#[test] // K-WH-05: no event of a wheel that has gone
fn a_wheel_dropped_while_it_connects_says_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut kernel = kernel();
    let log = Log::default();
    let address = listener.local_addr().unwrap().to_string();
    client(&log, address.clone())
        .state("_start", move |cx| {
            drop(SocketFactory::tcp(&*address).on_connect("connected").on_error("failed").connect(cx)?);
            cx.delay("later", Duration::from_millis(20), ());
            Ok(())
        })
        .state("later", |_| ())
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "_stop");
}

/// An address where connections are neither made nor refused, as long as what comes with it is kept: the queue of its
/// listener is full, so the system drops what comes.
fn silent_address() -> (SocketAddr, impl Sized) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // Listening again shortens the queue.
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let stuffing: Vec<_> = (0..8)
        .map(|_| {
            let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_NONBLOCK, None).unwrap();
            assert_eq!(connect(fd.as_raw_fd(), &SockaddrStorage::from(address)), Err(Errno::EINPROGRESS));
            fd
        })
        .collect();
    (address, (listener, stuffing))
}

#[test] // K-SF-14 has no timeout in POE's wheel; here there is one
fn a_connection_that_takes_too_long_is_given_up() {
    let (address, _kept) = silent_address();
    let mut kernel = kernel();
    let log = Log::default();
    maker(&log, move |cx| {
        let wheel = SocketFactory::tcp(address).on_connect("connected").on_error("failed");
        let wheel = wheel.connect_timeout(Duration::from_millis(30)).connect(cx)?;
        assert!(wheel.local_addr()?.ip().is_loopback(), "while it connects it has a socket");
        cx.heap().wheels.push(wheel);
        Ok(())
    })
    .spawn(&mut kernel)
    .unwrap();
    run(&mut kernel);
    // The wheel is kept, inert, and holds nothing (K-SF-13).
    assert_eq!(log.text(), failed("connect", Errno::ETIMEDOUT) + " _stop");
}

#[test] // K-SF-13: once it has connected, nothing of the timeout is left
fn a_timeout_that_is_not_needed_leaves_nothing_behind() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut kernel = kernel();
    let log = Log::default();
    maker(&log, move |cx| {
        let wheel = SocketFactory::tcp(address).on_connect("connected").on_error("failed");
        let wheel = wheel.connect_timeout(Duration::from_secs(3600)).connect(cx)?;
        cx.heap().wheels.push(wheel);
        Ok(())
    })
    .state("connected", |cx| {
        let soon = SystemTime::now() + Duration::from_secs(1800);
        assert!(cx.next_event_time().is_none_or(|due| due < soon));
        cx.heap().log.push("connected");
        Ok(())
    })
    .spawn(&mut kernel)
    .unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "connected _stop");
}

#[test] // K-WH-05
fn a_timeout_ends_with_its_wheel() {
    let (address, _kept) = silent_address();
    let mut kernel = kernel();
    let log = Log::default();
    maker(&log, move |cx| {
        let wheel = SocketFactory::tcp(address).on_connect("connected").on_error("failed");
        let wheel = wheel.connect_timeout(Duration::from_secs(3600)).connect(cx)?;
        cx.heap().wheels.push(wheel);
        Ok(cx.alias_set("maker")?)
    })
    .state("drop", |cx| {
        cx.heap().wheels.clear();
        Ok(cx.alias_remove("maker")?)
    })
    .spawn(&mut kernel)
    .unwrap();
    run_slices(&mut kernel, 1);
    assert!(kernel.next_event_time().is_some());
    kernel.call("maker", "drop", ()).unwrap();
    run(&mut kernel);
    assert_eq!(kernel.next_event_time(), None);
    assert_eq!(log.text(), "_stop");
}

#[test] // K-SF-14: of several addresses, as a name may have, all must have failed
fn addresses_are_tried_one_after_the_other() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let open = listener.local_addr().unwrap();
    let [(first, _kept), (second, _also_kept)] = [(); 2].map(|()| refusing_address());
    let refused = [first, second];
    let mut kernel = kernel();
    let log = Log::default();
    maker(&log, move |cx| {
        for addresses in [vec![refused[0], refused[1], open], refused.to_vec()] {
            // The port that they are to be bound to is free again for each of them.
            let [local] = free_addresses(Ipv4Addr::new(127, 0, 0, 2));
            let wheel = SocketFactory::tcp(addresses).bind_address(local).on_connect("connected").on_error("failed");
            let wheel = wheel.connect(cx)?;
            cx.heap().wheels.push(wheel);
        }
        Ok(())
    })
    .state("connected", move |cx| {
        assert_eq!(cx.take::<TcpStream>(0)?.peer_addr()?, open);
        cx.heap().log.push("connected");
        Ok(())
    })
    .spawn(&mut kernel)
    .unwrap();
    run(&mut kernel);
    let mut log = log.take();
    log.sort_unstable();
    assert_eq!(log, ["_stop".to_owned(), failed("connect", Errno::ECONNREFUSED), "connected".to_owned()]);
}

/// Connects to `addresses`, and logs what comes of it: the address, or the failure with its text.
fn race(
    addresses: Vec<SocketAddr>,
    settings: impl Fn(SocketFactoryBuilder) -> SocketFactoryBuilder + 'static,
) -> (Vec<String>, Duration) {
    let mut kernel = kernel();
    let log = Log::default();
    maker(&log, move |cx| {
        let wheel = settings(SocketFactory::tcp(addresses.clone()).on_connect("connected").on_error("failed"));
        let wheel = wheel.connect(cx)?;
        cx.heap().wheels.push(wheel);
        Ok(())
    })
    .state("connected", |cx| {
        let peer = cx.take::<TcpStream>(0)?.peer_addr()?;
        assert!(cx.peek().sources.is_empty(), "the others are closed");
        cx.heap().log.push(peer);
        Ok(())
    })
    .state("failed", |cx| {
        let Failure { operation, errno, text, .. } = cx.take(0)?;
        let entry = format!("{operation} {errno}: {text}");
        assert!(cx.peek().sources.is_empty(), "all are closed");
        cx.heap().log.push(entry);
        Ok(())
    })
    .spawn(&mut kernel)
    .unwrap();
    let begun = Instant::now();
    run(&mut kernel);
    let mut log = log.take();
    assert_eq!(log.pop().as_deref(), Some("_stop"));
    (log, begun.elapsed())
}

#[test] // K-SF-28
fn an_address_that_does_not_answer_holds_up_the_next_for_a_moment_alone() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let open = listener.local_addr().unwrap();
    let (silent, _kept) = silent_address();
    let (other, _also_kept) = silent_address();
    let (log, took) = race(vec![silent, other, open], |builder| builder);
    assert_eq!(log, [open.to_string()]);
    assert!(took >= Duration::from_millis(500), "each before it had its time: {took:?}");
}

#[test] // K-SF-28: a timeout in which not every address could begin after the usual delay
fn every_address_has_a_share_of_a_short_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let open = listener.local_addr().unwrap();
    let (silent, _kept) = silent_address();
    let mut addresses = vec![silent; 16];
    addresses[6] = open;
    let (log, _) = race(addresses, |builder| builder.connect_timeout(Duration::from_millis(1500)));
    assert_eq!(log, [open.to_string()]);
}

#[test] // K-SF-28: two sockets can't be bound to one port
fn addresses_share_the_timeout_if_a_port_is_given() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let open = listener.local_addr().unwrap();
    let (silent, _kept) = silent_address();
    let (log, took) = race(vec![silent, open], |builder| {
        let [local] = free_addresses(Ipv4Addr::new(127, 0, 0, 2));
        builder.bind_address(local).connect_timeout(Duration::from_secs(2))
    });
    assert_eq!(log, [open.to_string()]);
    assert!(took >= Duration::from_secs(1), "half of the time: {took:?}");
}

#[test] // K-SF-28, K-SF-14
fn the_failure_of_several_addresses_names_each_of_them() {
    let (refusing, _kept) = refusing_address();
    let (silent, _also_kept) = silent_address();
    let (log, _) = race(vec![refusing, silent], |builder| builder.connect_timeout(Duration::from_millis(100)));
    let texts = [Errno::ECONNREFUSED, Errno::ETIMEDOUT].map(std::io::Error::from);
    let expected = format!("connect {}: {refusing}: {}; {silent}: {}", Errno::ETIMEDOUT as i32, texts[0], texts[1]);
    assert_eq!(log, [expected]);
}

#[test] // K-SF-02, K-SF-04: a bind address beside the remote one
fn a_connecting_socket_is_bound_first_if_it_is_told_to() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Any address, of the family of the remote one; and of a port that is free again as soon as it is closed.
    for local in ["127.0.0.2:0", "127.0.0.2", ":0", ""] {
        let mut kernel = kernel();
        let log = Log::default();
        maker(&log, move |cx| {
            let wheel = SocketFactory::tcp(address).bind_address(local).on_connect("connected").on_error("failed");
            let wheel = wheel.connect(cx)?;
            cx.heap().wheels.push(wheel);
            Ok(())
        })
        .state("connected", |_| ())
        .spawn(&mut kernel)
        .unwrap();
        run(&mut kernel);
        assert_eq!(log.text(), "_stop");
        let (_, peer) = listener.accept().unwrap();
        let expected = if local.starts_with("127.0.0.2") { [127, 0, 0, 2] } else { [127, 0, 0, 1] };
        assert_eq!(peer.ip(), std::net::IpAddr::from(expected), "{local:?}");
    }
}

#[test] // K-SF-15: bind
fn a_bind_address_that_can_not_be_had_is_an_error_event() {
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap();
    let mut kernel = kernel();
    let log = Log::default();
    maker(&log, move |cx| {
        let wheel = |local| SocketFactory::tcp(address).bind_address(local).on_connect("connected").on_error("failed");
        let _ = wheel(address.to_string()).connect(cx)?;
        // Of another family than what it is to connect to.
        let _ = wheel("[::1]:0".to_owned()).connect(cx)?;
        Ok(())
    })
    .spawn(&mut kernel)
    .unwrap();
    run(&mut kernel);
    let expected = [failed("bind", Errno::EADDRINUSE), failed("bind", Errno::EAFNOSUPPORT), "_stop".to_owned()];
    assert_eq!(log.take(), expected);
}

#[test] // K-SF-08: IPv6, both ways
fn ipv6_is_as_good_as_ipv4() {
    let mut kernel = kernel();
    let log = Log::default();
    maker(&log, |cx| {
        let listener = SocketFactory::tcp("[::1]:0").on_accept("made").on_error("failed").listen(cx)?;
        let address = listener.local_addr()?;
        let client =
            SocketFactory::tcp(address).domain(Domain::Ipv6).on_connect("made").on_error("failed").connect(cx)?;
        cx.heap().wheels.extend([listener, client]);
        Ok(())
    })
    .state("made", |cx| {
        let peer = cx.take::<TcpStream>(0)?.peer_addr()?;
        assert_eq!(*cx.arg::<std::net::IpAddr>(1)?, std::net::IpAddr::from(Ipv6Addr::LOCALHOST));
        assert_eq!(*cx.arg::<u16>(2)?, peer.port());
        cx.heap().log.push("made");
        if cx.heap().log.count("made") == 2 {
            cx.heap().wheels.clear();
        }
        Ok(())
    })
    .spawn(&mut kernel)
    .unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "made made _stop");
}

//! Datagram sockets.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use lenore::wheel::{SocketFactory, WheelId};
use nix::errno::Errno;

use super::{failed, maker};
use util::in_process::{Log, kernel, run};
use util::{DEADLINE, wait_until};

#[test] // K-SF-02, K-SF-10, K-SF-20 to 22: posted, though the wheel has gone; not blocking; its port can be asked for
fn a_bound_udp_socket_is_posted_without_a_peer() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let mut kernel = kernel();
        let log = Log::default();
        let [ours, theirs] = [(); 2].map(|()| std::rc::Rc::new(std::cell::Cell::new(None::<(SocketAddr, WheelId)>)));
        let (told, got) = (ours.clone(), theirs.clone());
        maker(&log, move |cx| {
            let wheel = SocketFactory::udp(address).on_bind("bound").on_error("failed").bind(cx)?;
            told.set(Some((wheel.local_addr()?, wheel.id())));
            cx.heap().log.push("_start");
            Ok(())
        })
        .state("bound", move |cx| {
            assert_eq!(cx.args().len(), 4);
            let socket: UdpSocket = cx.take(0)?;
            cx.arg::<()>(1)?;
            cx.arg::<()>(2)?;
            got.set(Some((socket.local_addr()?, cx.take(3)?)));
            assert_eq!(socket.recv(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
            cx.heap().log.push("bound");
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
        run(&mut kernel);
        assert_eq!(log.text(), "_start bound _stop");
        assert_eq!(ours.get(), theirs.get());
        let (address, _) = ours.get().unwrap();
        assert_ne!(address.port(), 0);
        // K-SF-26: nobody kept the socket, so the port is free.
        wait_until("the port to be free", DEADLINE, || UdpSocket::bind(address).ok());
    }
}

#[test] // K-SF-02: with a remote address it connects
fn a_connected_udp_socket_comes_with_its_peer() {
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = peer.local_addr().unwrap();
    let mut kernel = kernel();
    let log = Log::default();
    maker(&log, move |cx| {
        let wheel = SocketFactory::udp(address).bind_address("127.0.0.2").on_connect("connected").on_error("failed");
        let wheel = wheel.connect(cx)?;
        cx.heap().wheels.push(wheel);
        Ok(())
    })
    .state("connected", move |cx| {
        let socket: UdpSocket = cx.take(0)?;
        assert_eq!((*cx.arg::<IpAddr>(1)?, *cx.arg::<u16>(2)?), (address.ip(), address.port()));
        let wheel = &cx.heap().wheels[0];
        assert_eq!(wheel.local_addr()?, socket.local_addr()?);
        socket.send(b"nevermore")?;
        cx.heap().log.push("connected");
        Ok(())
    })
    .spawn(&mut kernel)
    .unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "connected _stop");
    let mut octets = [0; 100];
    let (length, from) = peer.recv_from(&mut octets).unwrap();
    assert_eq!((&octets[..length], from.ip()), (&b"nevermore"[..], IpAddr::from([127, 0, 0, 2])));
}

#[test] // K-SF-06: the rule of listeners
fn a_port_in_use_is_an_error_of_bind() {
    let busy = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap();
    let mut kernel = kernel();
    let log = Log::default();
    maker(&log, move |cx| {
        let error = SocketFactory::udp(address).on_bind("bound").on_error("failed").bind(cx).unwrap_err();
        cx.heap().log.push(error);
        Ok(())
    })
    .spawn(&mut kernel)
    .unwrap();
    run(&mut kernel);
    let in_use = std::io::Error::from(Errno::EADDRINUSE);
    assert_eq!(log.take(), [format!("bind {address}: {in_use}"), "_stop".to_owned()]);
}

#[test] // K-SF-02, K-SF-09, K-SF-10, K-SF-20: UNIX datagrams, both ways
fn unix_datagram_sockets_are_bound_and_connected() {
    let dir = tempfile::tempdir().unwrap();
    let [server, client] = ["server", "client"].map(|name| dir.path().join(name));
    let mut kernel = kernel();
    let log = Log::default();
    let (server_path, client_path) = (server.clone(), client.clone());
    maker(&log, move |cx| {
        let bound = SocketFactory::unix_datagram(server.clone()).on_bind("bound").on_error("failed").bind(cx)?;
        assert_eq!(bound.local_path()?, server);
        assert!(bound.local_addr().is_err());
        let connected = SocketFactory::unix_datagram(server.clone()).bind_address(client.clone());
        let connected = connected.on_connect("connected").on_error("failed").connect(cx)?;
        cx.heap().wheels.extend([bound, connected]);
        // Nobody is there.
        let _ = SocketFactory::unix_datagram(server.with_extension("gone"))
            .on_connect("made")
            .on_error("failed")
            .connect(cx)?;
        Ok(())
    })
    .state("bound", |cx| {
        let socket: UnixDatagram = cx.take(0)?;
        cx.arg::<()>(1)?;
        cx.arg::<()>(2)?;
        cx.arg::<WheelId>(3)?;
        assert_eq!(socket.recv(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        cx.yield_("server", (socket,));
        Ok(())
    })
    .state("connected", move |cx| {
        let socket: UnixDatagram = cx.take(0)?;
        assert_eq!(*cx.arg::<PathBuf>(1)?, server_path);
        cx.arg::<()>(2)?;
        cx.arg::<WheelId>(3)?;
        socket.send(b"nevermore")?;
        Ok(())
    })
    .state("server", move |cx| {
        let mut octets = [0; 100];
        let (length, from) = cx.take::<UnixDatagram>(0)?.recv_from(&mut octets)?;
        assert_eq!((&octets[..length], from.as_pathname()), (&b"nevermore"[..], Some(&*client_path)));
        cx.heap().log.push("received");
        Ok(())
    })
    .spawn(&mut kernel)
    .unwrap();
    run(&mut kernel);
    assert_eq!(log.take(), [failed("connect", Errno::ENOENT), "received".to_owned(), "_stop".to_owned()]);
}

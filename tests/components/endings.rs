//! How a connection of a server ends: K-CS-13 to K-CS-16.

use std::net::Shutdown;

use lenore::component::{Protocol, TcpServer};
use lenore::filter::{Line, Stream};

use util::component::{MUCH, Peer, collect_warnings, serve, spin, warnings};
use util::in_process::{Log, kernel, run_until};

use super::tcp_server::{end, only_connection, witness};

#[test] // K-CS-13, K-CS-16, K-CS-17
fn the_end_of_the_input_is_an_error_and_ends_the_connection() {
    let mut kernel = kernel();
    let log = Log::default();
    let address = serve(&mut kernel, TcpServer::new("127.0.0.1:0", witness(&log)).concurrency(1));
    let mut peer = Peer::connect(address);
    peer.send("x\r\n");
    peer.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(peer.run_to_end(&mut kernel), "x\r\n");
    assert_eq!(log.take().join(" "), "looked connected input:x flushed read:0 disconnected");
    // It is counted off, and the next one may come.
    let mut next = Peer::connect(address);
    next.send("y\r\n");
    next.run_to(&mut kernel, "y\r\n");
    drop(next);
    end(&mut kernel);
}

#[test] // K-CS-13: at once, whatever waits to be written; which reaches a peer that goes on reading all the same
fn output_does_not_keep_a_connection_that_has_ended() {
    let mut kernel = kernel();
    let log = Log::default();
    let lots = Protocol::new(Stream::new()).on_connect(|cx| cx.heap().put(vec![b'x'; MUCH]));
    let (error, disconnected) = (log.clone(), log.clone());
    let lots = lots
        .on_error(move |cx, _| {
            assert!(cx.heap().wheel().unwrap().pending_output() > 0);
            error.push("error");
        })
        .on_disconnect(move |_| disconnected.push("disconnected"));
    let address = serve(&mut kernel, TcpServer::new("127.0.0.1:0", lots));
    let mut peer = Peer::connect(address);
    peer.stream.shutdown(Shutdown::Write).unwrap();
    run_until(&mut kernel, || log.text() == "error disconnected");
    assert_eq!(peer.run_to_end(&mut kernel).len(), MUCH);
    end(&mut kernel);
}

#[test] // K-CS-13
fn nothing_is_logged_of_clients_that_go() {
    collect_warnings();
    let mut kernel = kernel();
    let log = Log::default();
    let disconnected = log.clone();
    let echo = Protocol::new(Line::new())
        .on_input(|cx, line: String| cx.heap().put(line))
        .on_disconnect(move |_| disconnected.push("disconnected"));
    let address = serve(&mut kernel, TcpServer::new("127.0.0.1:0", echo));
    let mut reset = Peer::connect(address);
    reset.send("x\r\n");
    reset.run_to(&mut kernel, "x\r\n");
    reset.reset();
    drop(Peer::connect(address));
    run_until(&mut kernel, || log.count("disconnected") == 2);
    assert_eq!(warnings(), [""; 0]);
    end(&mut kernel);
}

#[test] // K-CS-14
fn a_connection_kept_on_error_ends_when_it_is_told_to() {
    let mut kernel = kernel();
    let log = Log::default();
    let address = serve(&mut kernel, TcpServer::new("127.0.0.1:0", witness(&log).keep_on_error()));
    let mut peer = Peer::connect(address);
    peer.stream.shutdown(Shutdown::Write).unwrap();
    run_until(&mut kernel, || log.text() == "looked connected read:0");
    spin(&mut kernel);
    peer.look();
    assert!(!peer.is_at_end && log.count("disconnected") == 0);
    let session = only_connection(&kernel);
    kernel.post(session, "shutdown", ()).unwrap();
    peer.run_to_end(&mut kernel);
    assert_eq!(log.text(), "looked connected read:0 disconnected");
    end(&mut kernel);
}

#[test] // K-CS-12, K-CS-15, K-CS-16
fn a_shutdown_waits_for_the_output_and_takes_no_more_input() {
    let mut kernel = kernel();
    let log = Log::default();
    let connected = log.clone();
    let protocol = witness(&log).on_connect(move |cx| {
        connected.push("connected");
        cx.heap().put("x".repeat(MUCH));
        for _ in 0..2 {
            cx.call(cx.session(), "shutdown", ())?;
        }
        assert!(cx.heap().is_shutting_down() && cx.heap().is_connected());
        lenore::Result::Ok(())
    });
    let address = serve(&mut kernel, TcpServer::new("127.0.0.1:0", protocol));
    let mut peer = Peer::connect(address);
    peer.send("too late\r\n");
    run_until(&mut kernel, || log.count("connected") == 1);
    spin(&mut kernel);
    assert_eq!(log.text(), "looked connected", "there is output left");
    assert_eq!(peer.run_to_end(&mut kernel).len(), MUCH + 2);
    assert_eq!(log.text(), "looked connected flushed disconnected");
    end(&mut kernel);
}

#[test] // K-CS-15: a post waits behind the records that have been read, a call does not
fn records_behind_a_called_shutdown_are_not_delivered() {
    for (is_called, answer) in [(true, "OK\r\n"), (false, "OK\r\nPONG\r\n")] {
        let mut kernel = kernel();
        let protocol = Protocol::new(Line::new()).on_input(move |cx, line: String| {
            cx.heap().put(if line == "QUIT" { "OK" } else { "PONG" });
            match line == "QUIT" {
                true if is_called => drop(cx.call(cx.session(), "shutdown", ())?),
                true => cx.yield_("shutdown", ()),
                false => {}
            }
            lenore::Result::Ok(())
        });
        let address = serve(&mut kernel, TcpServer::new("127.0.0.1:0", protocol));
        let mut peer = Peer::connect(address);
        peer.send("QUIT\r\nPING\r\n");
        assert_eq!(peer.run_to_end(&mut kernel), answer);
        end(&mut kernel);
    }
}

#[test] // K-CS-15: without output it is immediate
fn a_shutdown_without_output_is_immediate() {
    let mut kernel = kernel();
    let log = Log::default();
    let connected = log.clone();
    let protocol = witness(&log).on_connect(move |cx| {
        cx.call(cx.session(), "shutdown", ())?;
        connected.push(format_args!("connected:{}", cx.heap().is_connected()));
        lenore::Result::Ok(())
    });
    let address = serve(&mut kernel, TcpServer::new("127.0.0.1:0", protocol));
    Peer::connect(address).run_to_end(&mut kernel);
    assert_eq!(log.text(), "looked disconnected connected:false");
    end(&mut kernel);
}

#[test] // K-CS-16: once, even if the callback asks for more
fn a_disconnect_callback_that_shuts_down_is_not_called_again() {
    let mut kernel = kernel();
    let log = Log::default();
    let disconnected = log.clone();
    let protocol = witness(&log).on_disconnect(move |cx| {
        disconnected.push("disconnected");
        cx.yield_("shutdown", ());
        cx.call(cx.session(), "shutdown", ()).map(drop).map_err(lenore::Exception::from)
    });
    let address = serve(&mut kernel, TcpServer::new("127.0.0.1:0", protocol));
    let mut peer = Peer::connect(address);
    peer.stream.shutdown(Shutdown::Write).unwrap();
    peer.run_to_end(&mut kernel);
    end(&mut kernel);
    assert_eq!(log.count("disconnected"), 1);
}

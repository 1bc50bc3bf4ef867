//! Peers that take their time with the last of the output, or take nothing.

use std::cell::Cell;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use lenore::component::{Connection, Protocol, TcpClient, TcpServer};
use lenore::filter::Line;

use util::component::{MUCH, Peer, serve, spin};
use util::in_process::{Log, kernel, run, run_until};
use util::{DEADLINE, wait_until};

const LINE: usize = 64 * 1024;
const LINES: usize = MUCH / LINE;

/// What a peer that does not read can not take at once.
fn put_much<H>(connection: &Connection<Line, H>) {
    let line = "x".repeat(LINE);
    for _ in 0..LINES {
        connection.put(line.as_str());
    }
}

#[test] // K-RE-33: the output is waited for, but not for ever
fn a_peer_that_never_reads_does_not_hold_up_the_end() {
    let (mut kernel, log) = (kernel(), Log::default());
    let ended = log.clone();
    let protocol = Protocol::new(Line::new())
        .write_timeout(Duration::from_millis(50))
        .on_connect(|cx| {
            put_much(cx.heap());
            cx.yield_("shutdown", ());
        })
        .on_disconnect(move |_| ended.push("disconnected"));
    let address = serve(&mut kernel, TcpServer::new("127.0.0.1:0", protocol).alias("server"));
    let _peer = Peer::connect(address);
    run_until(&mut kernel, || log.len() == 1);
    kernel.post("server", "shutdown", ()).unwrap();
    run(&mut kernel);
    assert_eq!((log.text().as_str(), kernel.event_count()), ("disconnected", 0));
}

#[test] // K-RE-33: one that reads slowly gets all of it
fn a_peer_that_goes_on_reading_is_waited_for() {
    let protocol = Protocol::new(Line::new());
    assert_eq!(read_slowly(protocol), LINES * (LINE + 2));
}

#[test] // K-RE-33, K-CS-15: what a callback puts when all is written has a patience of its own
fn output_that_is_put_at_the_last_moment_is_waited_for() {
    let left = Cell::new(2);
    let protocol = Protocol::new(Line::new()).on_flushed(move |cx| {
        left.set(left.get() - 1);
        if left.get() >= 0 {
            put_much(cx.heap());
        }
    });
    assert_eq!(read_slowly(protocol), 3 * LINES * (LINE + 2));
}

/// Has a connection put much and shut down, and returns how many bytes a peer gets that takes longer than the patience.
fn read_slowly(protocol: Protocol<Line>) -> usize {
    let mut kernel = kernel();
    let protocol = protocol.write_timeout(Duration::from_millis(300)).on_connect(|cx| {
        put_much(cx.heap());
        cx.yield_("shutdown", ());
    });
    let address = serve(&mut kernel, TcpServer::new("127.0.0.1:0", protocol).alias("server"));
    let mut peer = TcpStream::connect(address).unwrap();
    let reader = std::thread::spawn(move || {
        let (mut count, mut piece) = (0, vec![0; 256 * 1024]);
        loop {
            match peer.read(&mut piece).expect("no reset") {
                0 => return count,
                read => count += read,
            }
            // Longer than its patience, all in all.
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    wait_until("all to be read", DEADLINE, || {
        spin(&mut kernel);
        reader.is_finished().then_some(())
    });
    kernel.post("server", "shutdown", ()).unwrap();
    run(&mut kernel);
    reader.join().unwrap()
}

#[test] // K-RE-33, for a client
fn a_server_that_never_reads_does_not_hold_up_the_end() {
    let (mut kernel, log) = (kernel(), Log::default());
    let ended = log.clone();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let protocol = Protocol::new(Line::new())
        .write_timeout(Duration::from_millis(50))
        .on_connect(|cx| {
            put_much(cx.heap());
            cx.yield_("shutdown", ());
        })
        .on_disconnect(move |_| ended.push("disconnected"));
    TcpClient::new(listener.local_addr().unwrap().to_string(), protocol).spawn(&mut kernel).unwrap();
    run(&mut kernel);
    assert_eq!((log.text().as_str(), kernel.event_count()), ("disconnected", 0));
}

#[test] // K-RE-35: and no connection inherits the impatience with the one before
fn a_reconnect_begins_with_fresh_patience() {
    let mut kernel = kernel();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let protocol = Protocol::with_heap(Line::new(), || 0)
        .write_timeout(Duration::from_millis(100))
        // The peer closes when the kernel has come to its end.
        .close_timeout(Duration::from_millis(50))
        .on_connect(|cx| {
            **cx.heap() += 1;
            if **cx.heap() == 1 {
                put_much(cx.heap());
                cx.yield_("shutdown", ());
                cx.yield_("reconnect", ());
            } else {
                // Past the patience of the first one.
                cx.delay("much_later", Duration::from_millis(400), ());
            }
        })
        .state("much_later", |cx| {
            assert!(cx.heap().is_connected());
            cx.heap().put("there");
            cx.yield_("shutdown", ());
        });
    let address = listener.local_addr().unwrap().to_string();
    let client = TcpClient::new(address.as_str(), protocol)
        .on_started(move |cx| assert_eq!(cx.heap().target(), address))
        .spawn(&mut kernel);
    client.unwrap();
    run(&mut kernel);
    let _first = listener.accept().unwrap();
    let mut text = String::new();
    listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
    assert_eq!(text, "there\r\n");
}

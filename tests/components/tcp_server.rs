//! The server: K-CS.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::rc::Rc;

use lenore::component::{Failure, Protocol, TcpServer};
use lenore::filter::{Block, Filter, Line, Stream};
use lenore::wheel::WheelId;
use lenore::{Error, Kernel, SessionId};

use util::addresses::{free_addresses, wait_free};
use util::component::{MUCH, Peer, collect_warnings, serve, spin, warnings};
use util::in_process::{Log, kernel, run, run_slices, run_until, wait_refused};
use util::{DEADLINE, wait_until};

/// A protocol that writes down each of its callbacks, and echoes.
pub fn witness(log: &Log) -> Protocol<Line> {
    let [looked, connected, input, flushed, failed, disconnected] = std::array::from_fn(|_| log.clone());
    Protocol::new(Line::new())
        .pre_connect(move |_, socket| {
            looked.push("looked");
            Ok(Some(socket))
        })
        .on_connect(move |_| connected.push("connected"))
        .on_input(move |cx, line: String| {
            input.push(format_args!("input:{line}"));
            cx.heap().put(line);
        })
        .on_flushed(move |_| flushed.push("flushed"))
        .on_error(move |_, failure: &Failure| failed.push(format_args!("{}:{}", failure.operation, failure.errno)))
        .on_disconnect(move |cx| {
            assert!(cx.heap().is_connected()); // K-CS-16
            disconnected.push("disconnected");
        })
}

pub fn end(kernel: &mut Kernel) {
    kernel.post("server", "shutdown", ()).unwrap();
    run(kernel);
}

#[test] // K-CS-01, K-CS-02, K-CS-05
fn the_session_that_listens_has_its_id_alias_and_heap() {
    let mut kernel = kernel();
    let log = Log::default();
    let (started, stopped) = (log.clone(), log.clone());
    let id = TcpServer::new("127.0.0.1:0", witness(&log))
        .alias("mine")
        .concurrency(7)
        .on_started(move |cx| {
            assert_ne!(cx.heap().local_addr().unwrap().port(), 0);
            assert_eq!((cx.heap().connections(), cx.heap().concurrency()), (0, Some(7)));
            assert_eq!(cx.alias_list(cx.session()).unwrap().len(), 1);
            started.push(format_args!("started:{}", cx.state_name()));
        })
        .on_stopped(move |cx| stopped.push(cx.state_name()))
        .spawn(&mut kernel)
        .unwrap();
    assert_eq!(kernel.alias_resolve("mine").unwrap(), id.session());
    assert_eq!(log.text(), "started:_start");
    kernel.post(id, "shutdown", ()).unwrap();
    run(&mut kernel);
    // K-CS-07
    assert_eq!(log.text(), "started:_start _stop");
}

#[test] // K-CS-05: with address reuse
fn a_server_takes_the_address_of_one_that_has_just_ended() {
    let log = Log::default();
    let address = {
        let mut kernel = kernel();
        let address = serve(&mut kernel, TcpServer::new("127.0.0.1:0", witness(&log)));
        let mut peer = Peer::connect(address);
        run_until(&mut kernel, || log.count("connected") == 1);
        // The server closes first, and keeps the address in TIME_WAIT.
        kernel.post("server", "shutdown", ()).unwrap();
        let session = only_connection(&kernel);
        kernel.post(session, "shutdown", ()).unwrap();
        peer.run_to_end(&mut kernel);
        run(&mut kernel);
        address
    };
    let mut kernel = kernel();
    serve(&mut kernel, TcpServer::new(address.to_string(), witness(&log)));
    end(&mut kernel);
}

/// The one session that is a child of the server.
pub fn only_connection(kernel: &Kernel) -> SessionId {
    let server = kernel.alias_resolve("server").unwrap();
    let sessions = kernel.peek().sessions;
    let mut children = sessions.iter().filter(|session| session.parent == server);
    let found = children.next().expect("there is a connection").id;
    assert!(children.next().is_none());
    found
}

#[test] // K-CS-03, K-CS-09, K-CS-12
fn a_connection_is_a_session_of_its_own_with_the_states_that_were_added() {
    let mut kernel = kernel();
    let log = Log::default();
    let [connected, input, shouting] = std::array::from_fn(|_| log.clone());
    let protocol = Protocol::with_heap(Line::new(), || 40)
        .on_connect(move |cx| {
            assert_eq!(cx.state_name(), "_start");
            connected.push(format_args!("connected:{}", cx.heap().is_shutting_down()));
        })
        .on_input(move |cx, line: String| {
            assert_eq!(Some(*cx.arg::<WheelId>(1)?), cx.heap().id());
            **cx.heap() += 1;
            input.push(format_args!("{line}:{}", **cx.heap()));
            cx.yield_("shout", (line,));
            lenore::Result::Ok(())
        })
        .state("shout", move |cx| {
            let line: String = cx.take(0)?;
            shouting.push(line.to_uppercase());
            cx.heap().put(line.to_uppercase());
            lenore::Result::Ok(())
        });
    let address = serve(&mut kernel, TcpServer::new("127.0.0.1:0", protocol));
    let mut one = Peer::connect(address);
    one.send("a\r\nb\r\n");
    one.run_to(&mut kernel, "A\r\nB\r\n");
    assert_eq!(log.take().join(" "), "connected:false a:41 b:42 A B");
    only_connection(&kernel);
    let mut other = Peer::connect(address);
    other.send("c\r\n");
    other.run_to(&mut kernel, "C\r\n");
    assert_eq!(log.text(), "connected:false c:41 C", "each connection has a heap of its own");
    drop((one, other));
    end(&mut kernel);
}

#[test] // K-CS-09, K-RE-41
fn the_peers_address_is_text_for_either_family() {
    for host in ["127.0.0.1", "[::1]"] {
        let mut kernel = kernel();
        let found = Rc::new(RefCell::new(None));
        let note = Rc::clone(&found);
        let protocol = Protocol::new(Line::new()).pre_connect(move |cx, socket| {
            let heap = cx.heap();
            let port = heap.remote_addr().map(|peer| peer.port());
            assert_eq!(port, Some(heap.remote_port()));
            *note.borrow_mut() = Some((heap.remote_ip().to_owned(), heap.remote_port()));
            Ok(Some(socket))
        });
        let address = serve(&mut kernel, TcpServer::new(format!("{host}:0"), protocol));
        let peer = Peer::connect(address);
        run_until(&mut kernel, || found.borrow().is_some());
        let expected = (host.trim_matches(['[', ']']).to_owned(), peer.stream.local_addr().unwrap().port());
        assert_eq!(found.take(), Some(expected));
        drop(peer);
        end(&mut kernel);
    }
}

#[test] // K-CS-10
fn a_socket_that_pre_connect_does_not_return_is_closed_in_silence() {
    let mut kernel = kernel();
    let log = Log::default();
    let looked = log.clone();
    let protocol = witness(&log).pre_connect(move |cx, socket: TcpStream| {
        assert_eq!(socket.peer_addr()?, cx.heap().remote_addr().unwrap());
        assert!(!cx.heap().is_connected());
        looked.push("refused");
        Ok(None)
    });
    let address = serve(&mut kernel, TcpServer::new("127.0.0.1:0", protocol).concurrency(1));
    for round in 1..=2 {
        let mut peer = Peer::connect(address);
        assert_eq!(peer.run_to_end(&mut kernel), "");
        assert_eq!(log.count("refused"), round, "it does not count as a connection for long");
    }
    end(&mut kernel);
    assert_eq!(log.text(), "refused refused");
}

/// A filter of which it can be seen who has made it.
struct Numbered {
    line: Line,
    made: Rc<Cell<u32>>,
}

impl Filter for Numbered {
    type Input = String;
    type Output = str;

    fn get_one_start(&mut self, chunk: &[u8]) -> Result<(), lenore::filter::FilterError> {
        self.line.get_one_start(chunk)
    }
    fn get_one(&mut self) -> Result<Option<String>, lenore::filter::FilterError> {
        self.line.get_one()
    }
    fn put(&mut self, record: &str, out: &mut Vec<u8>) -> Result<(), lenore::filter::FilterError> {
        self.line.put(record, out)
    }
    fn get_pending(&self) -> &[u8] {
        self.line.get_pending()
    }
    fn clone_config(&self) -> Numbered {
        self.made.set(self.made.get() + 1);
        Numbered { line: self.line.clone_config(), made: Rc::clone(&self.made) }
    }
}

#[test] // K-CS-11
fn each_connection_has_a_filter_of_its_own_made_after_the_pattern() {
    let mut kernel = kernel();
    let made = Rc::new(Cell::new(0));
    let pattern = Numbered { line: Line::literal("!").unwrap(), made: Rc::clone(&made) };
    let protocol = Protocol::new(pattern).on_input(|cx, line: String| cx.heap().put(line.as_str()));
    let address = serve(&mut kernel, TcpServer::new("127.0.0.1:0", protocol));
    assert_eq!(made.get(), 0);
    let (mut one, mut other) = (Peer::connect(address), Peer::connect(address));
    one.send("on");
    other.send("other!");
    other.run_to(&mut kernel, "other!");
    one.send("e!");
    one.run_to(&mut kernel, "one!");
    assert!(made.get() >= 2);
    drop((one, other));
    end(&mut kernel);
}

#[test] // K-CS-05, K-CS-06: an error of the call, and nothing was created or told
fn a_server_that_cannot_listen_is_not_created() {
    collect_warnings();
    let mut kernel = kernel();
    let log = Log::default();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let [started, failed, stopped] = std::array::from_fn(|_| log.clone());
    let server = TcpServer::new(address.as_str(), witness(&log))
        .alias("server")
        .on_started(move |_| started.push("started"))
        .on_error(move |_, _| failed.push("failed"))
        .on_stopped(move |_| stopped.push("stopped"));
    let error = server.spawn(&mut kernel).unwrap_err();
    assert!(
        matches!(&error, Error::Os { call: "bind", source, .. } if source.kind() == ErrorKind::AddrInUse),
        "{error}"
    );
    assert!(error.to_string().contains(&address), "{error}");
    let acceptor = TcpServer::acceptor("no such address:", |_, _, _| ()).spawn(&mut kernel);
    assert!(acceptor.is_err());
    assert!(matches!(kernel.alias_resolve("server"), Err(Error::NoSuchSession(_))));
    assert_eq!((kernel.peek().sessions.len(), kernel.peek().sources.len()), (0, 0));
    run(&mut kernel);
    assert_eq!((log.text().as_str(), warnings()), ("", vec![]));
}

#[test] // K-CS-06: the address is free again when the server could not be created for another reason
fn a_server_with_a_taken_alias_lets_go_of_its_address() {
    let mut kernel = kernel();
    let log = Log::default();
    serve(&mut kernel, TcpServer::new("127.0.0.1:0", witness(&log)));
    let [free] = free_addresses(Ipv4Addr::LOCALHOST);
    let again = TcpServer::new(free.to_string(), witness(&log)).alias("server").spawn(&mut kernel);
    assert!(matches!(again, Err(Error::AliasTaken { .. })));
    wait_free(free);
    end(&mut kernel);
}

#[test] // K-CS-08, K-CS-18
fn an_acceptor_gets_the_sockets_and_reports_their_end() {
    let mut kernel = kernel();
    let sockets = Rc::new(RefCell::new(Vec::new()));
    let taken = Rc::clone(&sockets);
    let server = TcpServer::acceptor("127.0.0.1:0", move |cx, socket: TcpStream, peer: SocketAddr| {
        assert_eq!(socket.peer_addr()?, peer);
        assert_eq!(cx.session(), cx.alias_resolve("server")?);
        taken.borrow_mut().push(socket);
        lenore::Result::Ok(())
    });
    let address = serve(&mut kernel, server.concurrency(2));
    let _peers: Vec<Peer> = (0..3).map(|_| Peer::connect(address)).collect();
    run_until(&mut kernel, || sockets.borrow().len() == 2);
    spin(&mut kernel);
    assert_eq!(sockets.borrow().len(), 2, "no more than the concurrency");
    sockets.borrow_mut().pop();
    kernel.post("server", "disconnected", ()).unwrap();
    run_until(&mut kernel, || sockets.borrow().len() == 2);
    end(&mut kernel);
}

#[test] // K-CS-18
fn more_ends_than_beginnings_are_warned_of() {
    collect_warnings();
    let mut kernel = kernel();
    let log = Log::default();
    let address = serve(&mut kernel, TcpServer::new("127.0.0.1:0", witness(&log)).concurrency(1));
    kernel.post("server", "disconnected", ()).unwrap();
    run_slices(&mut kernel, 1);
    assert_eq!(warnings().len(), 1);
    kernel.post("server", "disconnected", ()).unwrap();
    run_slices(&mut kernel, 1);
    assert_eq!(warnings(), [""; 0], "once is enough");
    // The count is 0 and not less: one connection and no more is let in.
    let peers = [Peer::connect(address), Peer::connect(address)];
    run_until(&mut kernel, || log.count("connected") == 1);
    spin(&mut kernel);
    assert_eq!(log.count("connected"), 1);
    drop(peers);
    end(&mut kernel);
}

#[test] // K-CS-03: marks, and what needs them
fn output_that_piles_up_reaches_the_high_mark_and_drains_to_the_low_one() {
    let mut kernel = kernel();
    let log = Log::default();
    let [connected, high, low] = std::array::from_fn(|_| log.clone());
    let protocol = Protocol::new(Stream::new())
        .watermarks(1000, 2000)
        .on_connect(move |cx| {
            let mut put = |octets| cx.heap().put(vec![b'x'; octets]).is_high();
            connected.push(format_args!("{} {}", put(1999), put(MUCH)));
        })
        .on_high(move |_| high.push("high"))
        .on_low(move |cx| {
            assert!(cx.heap().wheel().unwrap().pending_output() <= 1000);
            low.push("low");
            cx.yield_("shutdown", ());
        });
    let address = serve(&mut kernel, TcpServer::new("127.0.0.1:0", protocol));
    let mut peer = Peer::connect(address);
    run_until(&mut kernel, || log.text() == "false true high");
    assert_eq!(peer.run_to_end(&mut kernel).len(), 1999 + MUCH);
    assert_eq!(log.text(), "false true high low");
    drop(peer);
    end(&mut kernel);
}

#[test] // K-CS-03
fn one_that_sends_and_does_not_read_is_not_read_from() {
    send_without_reading(Protocol::new(Stream::new()).watermarks(1000, 2000).auto_pause(), 2000);
    send_without_reading(Protocol::new(Stream::new()).auto_pause().watermarks(1000, 2000), 2000);
}

#[test] // K-CS-03
fn auto_pause_without_marks_has_marks_of_its_own() {
    send_without_reading(Protocol::new(Stream::new()).auto_pause(), 64 * 1024);
}

/// Echoes to a client that sends until nothing goes any more, and reads all of it then. No input comes while `high` bytes wait.
fn send_without_reading(protocol: Protocol<Stream>, high: usize) {
    let mut kernel = kernel();
    let echoed = Rc::new(Cell::new(0));
    let count = Rc::clone(&echoed);
    let protocol = protocol.on_input(move |cx, chunk: Vec<u8>| {
        count.set(count.get() + chunk.len());
        assert!(cx.heap().wheel().unwrap().pending_output() < high);
        cx.heap().put(chunk);
    });
    let address = serve(&mut kernel, TcpServer::new("127.0.0.1:0", protocol));
    let mut peer = Peer::connect(address);
    let chunk = vec![b'x'; 64 * 1024];
    let mut sent = 0;
    // Until nothing goes any more: all buffers in between are full, and the server's is not among them.
    let mut refused = 0;
    while refused < 20 {
        spin(&mut kernel);
        match peer.stream.write(&chunk) {
            Ok(count) => (sent, refused) = (sent + count, 0),
            Err(_) => refused += 1,
        }
    }
    assert!(echoed.get() < sent);
    wait_until("the echo", DEADLINE, || {
        spin(&mut kernel);
        (peer.look().len() == sent).then_some(())
    });
    drop(peer);
    end(&mut kernel);
}

#[test] // K-CS-24
fn a_record_that_the_filter_refuses_is_logged_once_and_the_connection_goes_on() {
    collect_warnings();
    let mut kernel = kernel();
    let echo = Protocol::new(Line::new()).on_input(|cx, line: String| cx.heap().put(line));
    let address = serve(&mut kernel, TcpServer::new("127.0.0.1:0", echo));
    let mut peer = Peer::connect(address);
    peer.stream.write_all(b"caf\xe9\nok\n\xff\nfine\n").unwrap();
    peer.run_to(&mut kernel, "ok\r\nfine\r\n");
    let [warning] = &warnings()[..] else { panic!("one warning for each connection") };
    assert!(warning.contains("not UTF-8 at byte 3") && warning.ends_with(" untold=0"), "{warning}");
    assert!(warning.contains(&format!("peer={} ", peer.stream.local_addr().unwrap())), "{warning}");
    drop(peer);
    // A log that has a warning for each client can be filled from outside.
    for _ in 0..3 {
        let mut peer = Peer::connect(address);
        peer.stream.write_all(b"\xff\nfine\n").unwrap();
        peer.run_to(&mut kernel, "fine\r\n");
    }
    assert_eq!(warnings(), [""; 0]);
    end(&mut kernel);
}

#[test] // A log that has a warning for each client can be filled from outside.
fn clients_whose_input_fails_are_one_warning() {
    collect_warnings();
    let mut kernel = kernel();
    let blocks = Protocol::new(Block::new()).on_input(|_, block: Vec<u8>| assert!(block.is_empty()));
    let address = serve(&mut kernel, TcpServer::new("127.0.0.1:0", blocks));
    for _ in 0..3 {
        let mut peer = Peer::connect(address);
        peer.stream.write_all(b"no length\0").unwrap();
        wait_until("the end", DEADLINE, || {
            spin(&mut kernel);
            peer.look();
            peer.is_at_end.then_some(())
        });
    }
    let told = warnings();
    assert!(
        told.len() == 1 && told[0].starts_with("connection failed: ") && told[0].contains(" peer=127."),
        "{told:?}"
    );
    end(&mut kernel);
}

#[test] // K-CS-24
fn a_protocol_may_answer_a_record_that_the_filter_refuses_or_end_the_connection() {
    let mut kernel = kernel();
    let log = Log::default();
    let refused = log.clone();
    let echo = Protocol::new(Line::new())
        .on_input(|cx, line: String| cx.heap().put(line))
        .on_error(|_, failure| assert!(failure.is_end_of_input(), "{failure}"))
        .on_refused(move |cx, error| {
            refused.push(error);
            cx.heap().put("what?");
            if log.len() == 2 {
                cx.yield_("shutdown", ());
            }
        });
    let address = serve(&mut kernel, TcpServer::new("127.0.0.1:0", echo));
    let mut peer = Peer::connect(address);
    std::io::Write::write_all(&mut peer.stream, b"caf\xe9\nok\n\xff\n").unwrap();
    peer.run_to(&mut kernel, "what?\r\nok\r\nwhat?\r\n");
    peer.run_to_end(&mut kernel);
    end(&mut kernel);
}

#[test] // K-CS-19
fn a_listener_that_is_shut_down_leaves_its_connections() {
    let mut kernel = kernel();
    let log = Log::default();
    let stopped = log.clone();
    let server = TcpServer::new("127.0.0.1:0", witness(&log)).on_stopped(move |_| stopped.push("stopped"));
    let address = serve(&mut kernel, server);
    let mut peer = Peer::connect(address);
    run_until(&mut kernel, || log.count("connected") == 1);
    let id = kernel.alias_resolve("server").unwrap();
    for _ in 0..2 {
        kernel.post(id, "shutdown", ()).unwrap();
        run_slices(&mut kernel, 1);
    }
    assert!(kernel.alias_resolve("server").is_err());
    wait_refused(address);
    peer.send("still here\r\n");
    peer.run_to(&mut kernel, "still here\r\n");
    assert_eq!(log.count("stopped"), 0);
    drop(peer);
    run(&mut kernel);
    assert!(log.text().ends_with("disconnected stopped"), "{}", log.text());
}

#[test]
fn names_that_the_component_uses_and_aliases_that_are_taken_are_errors() {
    let mut kernel = kernel();
    for name in ["_start", "_stop", "shutdown", "tcp_got_input"] {
        let protocol = Protocol::new(Line::new()).state(name, |_| ());
        match TcpServer::new("127.0.0.1:0", protocol).spawn(&mut kernel) {
            Err(Error::ReservedState(found)) => assert_eq!(found, name),
            other => panic!("{name}: {other:?}"),
        }
    }
    let plain = || Protocol::new(Line::new());
    for (protocol, told) in [
        (plain().watermarks(0, 1), "invalid marks: the low mark is not between 0 and the high one"),
        (plain().watermarks(5, 5), "invalid marks: the low mark is not between 0 and the high one"),
        (plain().on_high(|_| ()), "invalid on_high: needs watermarks(low, high)"),
        (plain().on_low(|_| ()), "invalid on_low: needs watermarks(low, high)"),
    ] {
        let error = TcpServer::new("127.0.0.1:0", protocol).spawn(&mut kernel).unwrap_err();
        assert!(error.to_string().ends_with(told), "{error}");
    }
    let first = TcpServer::new("127.0.0.1:0", Protocol::new(Line::new())).alias("a").spawn(&mut kernel).unwrap();
    match TcpServer::new("127.0.0.1:0", Protocol::new(Line::new())).alias("a").spawn(&mut kernel) {
        Err(Error::AliasTaken { owner, .. }) => assert_eq!(owner, first.session()),
        other => panic!("{other:?}"),
    }
    kernel.post(first, "shutdown", ()).unwrap();
    run(&mut kernel);
}

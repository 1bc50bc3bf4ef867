//! `SocketFactory`: section 15 of the behaviour specification.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::time::Duration;

use lenore::wheel::{SocketFactory, WheelId};
use lenore::{Context, Error, Kernel, Result, Session};
use nix::errno::Errno;

use crate::util::in_process::{Log, kernel, run, run_slices, run_until};
use crate::util::{Client, DEADLINE, Program, example};

/// A session that listens on a free port, and what it knows.
#[derive(Default)]
struct Server {
    log: Log,
    listener: Option<SocketFactory>,
    sockets: Vec<TcpStream>,
}

/// A server that keeps what it accepts.
fn server(log: &Log) -> Session<Server> {
    Session::new(Server { log: log.clone(), ..Server::default() })
        .state("_start", |cx| {
            let listener = SocketFactory::tcp("127.0.0.1:0").on_accept("accept").on_error("failed").listen(cx)?;
            let port = listener.local_addr()?.port();
            cx.heap().listener = Some(listener);
            cx.alias_set("server")?;
            cx.post("server", "port", (port,))?;
            Ok(())
        })
        .state("port", |_| ())
        .state("local_port", |cx| {
            let listener = cx.heap().listener.as_ref().expect("it listens");
            Ok(i32::from(listener.local_addr()?.port()))
        })
        .state("accept", accept)
        .state("pause", |cx| cx.heap().listener.as_ref().expect("it listens").pause_accept())
        .state("resume", |cx| cx.heap().listener.as_ref().expect("it listens").resume_accept())
        .state("pass", |cx| cx.heap().log.push("pass"))
        .state("end", |cx| {
            cx.heap().listener = None;
            cx.alias_remove("server").map_err(lenore::Exception::from)
        })
}

fn accept(cx: &mut Context<'_, Server>) -> Result {
    let socket = cx.take::<TcpStream>(0)?;
    cx.heap().sockets.push(socket);
    cx.heap().log.push("accept");
    Ok(())
}

/// The address at which the server of this kernel listens.
fn address(kernel: &mut Kernel) -> (IpAddr, u16) {
    let port = kernel.call("server", "local_port", ()).unwrap().take::<i32>().unwrap();
    (IpAddr::from([127, 0, 0, 1]), u16::try_from(port).unwrap())
}

#[test] // K-SF-07, K-SF-08, K-SF-21, K-WH-02, K-WH-03
fn the_accept_event_has_the_socket_and_its_peer() {
    let mut kernel = kernel();
    let log = Log::default();
    server(&log)
        .state("accept", |cx| {
            assert_eq!(cx.args().len(), 4);
            let mut socket = cx.take::<TcpStream>(0)?;
            let peer = socket.peer_addr()?;
            assert_eq!(*cx.arg::<IpAddr>(1)?, peer.ip());
            assert_eq!(*cx.arg::<u16>(2)?, peer.port());
            let id = cx.heap().listener.as_ref().map(SocketFactory::id);
            assert_eq!(Some(*cx.arg::<WheelId>(3)?), id);
            assert_eq!(cx.sender(), cx.session());
            assert_eq!(cx.caller_state().map(|state| state.as_str()), Some("SocketFactory"));
            assert_eq!(socket.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
            cx.heap().log.push("accept");
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    let mut client = TcpStream::connect(address(&mut kernel)).unwrap();
    run_until(&mut kernel, || log.text() == "accept");
    // K-SF-26: nobody kept the socket.
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    kernel.call("server", "end", ()).unwrap();
    run(&mut kernel);
}

#[test] // K-SF-11, as the port does it
fn one_slice_accepts_several_clients_but_not_without_end() {
    let mut kernel = kernel();
    let log = Log::default();
    server(&log).spawn(&mut kernel).unwrap();
    let address = address(&mut kernel);
    let clients: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(address).unwrap()).collect();
    kernel.post("server", "pass", ()).unwrap();
    run_slices(&mut kernel, 1);
    let accepted = log.count("accept");
    assert!((2..40).contains(&accepted), "{accepted} of 40 in one slice");
    assert_eq!(log.count("pass"), 1, "posted events are served in between");
    run_until(&mut kernel, || log.count("accept") == clients.len());
    kernel.call("server", "end", ()).unwrap();
    run(&mut kernel);
}

#[test] // design: a pool child takes one connection and leaves the rest to the others
fn none_is_accepted_after_a_pause_in_the_accept_event() {
    let mut kernel = kernel();
    let log = Log::default();
    server(&log)
        .state("accept", |cx| {
            accept(cx)?;
            if cx.heap().sockets.len() == 2 {
                cx.call("server", "pause", ())?;
            }
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    let address = address(&mut kernel);
    let _clients: Vec<TcpStream> = (0..5).map(|_| TcpStream::connect(address).unwrap()).collect();
    for _ in 0..4 {
        kernel.post("server", "pass", ()).unwrap();
        run_slices(&mut kernel, 1);
    }
    assert_eq!(log.count("accept"), 2);
    kernel.call("server", "resume", ()).unwrap();
    run_until(&mut kernel, || log.count("accept") == 5);
    kernel.call("server", "end", ()).unwrap();
    run(&mut kernel);
}

#[test] // T10: a worker that takes one client at a time, with no new client to announce the old ones
fn clients_that_wait_are_accepted_one_by_one_when_each_pauses_the_listener() {
    let mut kernel = kernel();
    let log = Log::default();
    server(&log)
        .state("accept", |cx| {
            accept(cx)?;
            cx.call("server", "pause", ())?;
            cx.yield_("resume", ());
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    let address = address(&mut kernel);
    let _clients: Vec<TcpStream> = (0..10).map(|_| TcpStream::connect(address).unwrap()).collect();
    run_until(&mut kernel, || log.count("accept") == 10);
    kernel.call("server", "end", ()).unwrap();
    run(&mut kernel);
}

#[test] // K-SF-23, K-IO-17
fn a_paused_listener_leaves_clients_in_the_backlog_and_keeps_its_session() {
    let mut kernel = kernel();
    let log = Log::default();
    server(&log).spawn(&mut kernel).unwrap();
    kernel.call("server", "pause", ()).unwrap();
    let _client = TcpStream::connect(address(&mut kernel)).expect("the backlog takes it");
    for _ in 0..3 {
        kernel.post("server", "pass", ()).unwrap();
        run_slices(&mut kernel, 1);
    }
    assert_eq!(log.text(), "pass pass pass");
    assert!(kernel.peek().sources.iter().all(|source| !source.is_watched), "{:?}", kernel.peek().sources);
    kernel.call("server", "resume", ()).unwrap();
    run_until(&mut kernel, || log.count("accept") == 1);
    kernel.call("server", "end", ()).unwrap();
    run(&mut kernel);
}

#[test] // K-SF-25, K-WH-05, K-WH-06
fn a_listener_dropped_inside_its_own_event_accepts_no_more_and_is_closed() {
    let mut kernel = kernel();
    let log = Log::default();
    server(&log)
        .state("accept", |cx| {
            accept(cx)?;
            cx.call("server", "end", ())?;
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    let address = address(&mut kernel);
    let _clients: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
    run(&mut kernel);
    assert_eq!(log.text(), "accept");
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test] // K-EX-01
fn an_exception_in_the_accept_event_keeps_nobody_from_being_accepted() {
    let mut kernel = kernel();
    let log = Log::default();
    server(&log)
        .state("accept", |cx| {
            accept(cx)?;
            cx.sig("DIE", "die");
            Err::<(), _>(std::io::Error::other("on purpose").into())
        })
        .state("die", |cx| cx.sig_handled())
        .spawn(&mut kernel)
        .unwrap();
    let address = address(&mut kernel);
    let _clients: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
    run_until(&mut kernel, || log.count("accept") == 3);
    kernel.call("server", "end", ()).unwrap();
    run(&mut kernel);
}

#[test] // K-SF-15: bind; the port raises where POE sends an event
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

#[test]
fn a_wheel_belongs_to_a_session() {
    let mut kernel = kernel();
    let listening = SocketFactory::tcp("127.0.0.1:0").listen(&mut kernel).map(drop);
    assert!(matches!(listening, Err(Error::NoActiveSession)));
    let connecting = SocketFactory::tcp("127.0.0.1:1").connect(&mut kernel).map(drop);
    assert!(matches!(connecting, Err(Error::NoActiveSession)));
}

/// A session that connects to `address`, logs what comes of it, and has nothing else to live for.
fn client(log: &Log, address: String) -> Session<(Log, Option<SocketFactory>)> {
    Session::new((log.clone(), None))
        .state("_start", move |cx| {
            let wheel = SocketFactory::tcp(&*address).on_connect("connected").on_error("failed").connect(cx)?;
            cx.heap().1 = Some(wheel);
            Ok(())
        })
        .state("connected", |cx| {
            let socket = cx.take::<TcpStream>(0)?;
            let peer = socket.peer_addr()?;
            assert_eq!((*cx.arg::<IpAddr>(1)?, *cx.arg::<u16>(2)?), (peer.ip(), peer.port()));
            let wheel = cx.heap().1.as_ref().expect("it is kept");
            assert!(wheel.local_addr().is_err(), "the wheel is inert");
            let id = wheel.id();
            assert_eq!(*cx.arg::<WheelId>(3)?, id);
            cx.heap().0.push("connected");
            Ok(())
        })
        .state("failed", |cx| {
            assert_eq!(cx.args().len(), 4);
            let entry = format!("{}:{}:{}", cx.arg::<&str>(0)?, cx.arg::<i32>(1)?, cx.arg::<String>(2)?.is_empty());
            cx.arg::<WheelId>(3)?;
            cx.heap().0.push(entry);
            Ok(())
        })
        .state("_stop", |cx| cx.heap().0.push("_stop"))
}

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
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let mut kernel = kernel();
    let log = Log::default();
    client(&log, address).spawn(&mut kernel).unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), format!("connect:{}:false _stop", Errno::ECONNREFUSED as i32));
}

#[test] // K-SF-20: a failure inside the constructor is posted, and arrives though the wheel has gone
fn an_address_that_makes_no_sense_is_an_error_event() {
    let mut kernel = kernel();
    let log = Log::default();
    client(&log, "no port".to_owned())
        .state("_start", |cx| {
            drop(SocketFactory::tcp("no port").on_connect("connected").on_error("failed").connect(cx)?);
            cx.heap().0.push("_start");
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "_start getaddrinfo:0:false _stop");
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

#[test] // K-SF-12: a listener that ran out of descriptors rests, and comes back by itself
fn a_shortage_of_descriptors_does_not_make_a_listener_deaf() {
    let program = Program::new(example("short_of_descriptors")).start();
    let address = program.listening_addr();
    let first = Client::connect(address);
    assert_eq!(program.next_line(DEADLINE), format!("accept failed: {}", Errno::EMFILE as i32));
    // The program frees descriptors now; the client that waited is served, and so are those that come after.
    assert_eq!(program.next_line(DEADLINE), "accepted");
    let second = Client::connect(address);
    assert_eq!(program.next_line(DEADLINE), "accepted");
    drop((first, second));
}

//! `ListenAccept`: section 15 of the behaviour specification.

use std::io::{self, ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use lenore::wheel::{ListenAccept, SocketEvent, WheelId};
use lenore::{Context, Error, Kernel, Result, Session};
use nix::errno::Errno;
use nix::sys::signal::Signal;

use util::in_process::{Log, kernel, run, run_slices, run_until, wait_refused};
use util::{Client, DEADLINE, Program, stays, test_program};

/// A session that accepts on a listener that it was given.
struct Server {
    log: Log,
    wheel: Option<ListenAccept>,
}

fn server(log: &Log, listener: impl Into<OwnedFd>) -> Session<Server> {
    Session::new(Server { log: log.clone(), wheel: None })
        .args((listener.into(),))
        .state("_start", |cx| {
            let listener: OwnedFd = cx.take(0)?;
            cx.heap().wheel = Some(ListenAccept::listener(listener).on_accept("accept").on_error("failed").start(cx)?);
            Ok(cx.alias_set("server")?)
        })
        .state("accept", |cx| cx.heap().log.push("accept"))
        .state("pass", |cx| cx.heap().log.push("pass"))
        .state("pause", |cx| cx.heap().wheel.iter().for_each(ListenAccept::pause_accept))
        .state("resume", |cx| cx.heap().wheel.iter().for_each(ListenAccept::resume_accept))
        .state("end", end)
}

fn end(cx: &mut Context<'_, Server>) -> Result {
    cx.heap().wheel = None;
    Ok(cx.alias_remove("server")?)
}

#[test] // K-LA-01, K-LA-02
fn the_accept_event_has_the_socket_and_the_address_of_its_peer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut kernel = kernel();
    let log = Log::default();
    server(&log, listener)
        .state("accept", |cx| {
            assert_eq!(cx.args().len(), 3);
            let mut socket = cx.take::<TcpStream>(0)?;
            assert_eq!(*cx.arg::<SocketAddr>(1)?, socket.peer_addr()?);
            let id = cx.heap().wheel.as_ref().map(ListenAccept::id);
            assert_eq!(Some(*cx.arg::<WheelId>(2)?), id);
            assert_eq!(cx.caller_state().map(|state| state.as_str()), Some("ListenAccept"));
            assert_eq!(socket.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
            end(cx)
        })
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "nobody kept the socket");
}

#[test] // K-LA-01, K-LA-02: UNIX
fn a_unix_listener_is_as_good() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let _client = UnixStream::connect(&path).unwrap();
    let mut kernel = kernel();
    let log = Log::default();
    server(&log, listener)
        .state("accept", |cx| {
            cx.take::<UnixStream>(0)?;
            assert!(cx.arg::<std::os::unix::net::SocketAddr>(1)?.is_unnamed());
            cx.arg::<WheelId>(2)?;
            end(cx)
        })
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    assert!(path.exists(), "it was not the wheel that bound it");
}

#[test] // K-LA-01: what is required, and what is no listener
fn a_wrong_call_is_an_error_that_says_what_is_wrong() {
    fn start(cx: &mut Context<'_, ()>, fd: impl Into<OwnedFd>) -> Error {
        ListenAccept::listener(fd).on_accept("accept").start(cx).unwrap_err()
    }
    let mut kernel = kernel();
    let listener = || TcpListener::bind("127.0.0.1:0").unwrap();
    let stopped = Session::new(()).state("_start", move |cx| {
        cx.stop();
        assert!(matches!(start(cx, listener()), Error::NoActiveSession));
    });
    stopped.spawn(&mut kernel).unwrap();
    Session::new(())
        .state("_start", move |cx| {
            let lost = listener();
            let address = lost.local_addr()?;
            let error = ListenAccept::listener(lost).start(cx).unwrap_err();
            assert_eq!(error.to_string(), "invalid on_accept: is required");
            let connected = TcpStream::connect(address);
            assert_eq!(connected.unwrap_err().kind(), ErrorKind::ConnectionRefused, "the listener was closed");
            let error = start(cx, UdpSocket::bind("127.0.0.1:0")?);
            assert!(matches!(error, Error::InvalidSetting { setting: "listener", .. }), "{error:?}");
            assert!(error.to_string().ends_with("does not listen"), "{error}");
            let error = start(cx, io::pipe()?.0);
            let Error::Os { call: "getsockopt", source, .. } = &error else { panic!("{error}") };
            assert_eq!(source.raw_os_error(), Some(Errno::ENOTSOCK as i32));
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
}

/// Lets clients come to a server, and runs until it has logged as many entries.
fn come(kernel: &mut Kernel, address: SocketAddr, log: &Log, clients: usize) -> Vec<TcpStream> {
    let before = log.len();
    let clients: Vec<TcpStream> = (0..clients).map(|_| TcpStream::connect(address).unwrap()).collect();
    run_until(kernel, || log.len() == before + clients.len());
    clients
}

#[test] // K-LA-04
fn its_events_can_be_changed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut kernel = kernel();
    let log = Log::default();
    server(&log, listener)
        .state("accept", |cx| {
            let heap = cx.heap();
            heap.log.push("accept");
            let wheel = heap.wheel.as_ref().expect("it is kept");
            wheel.event(SocketEvent::Success, "second");
            wheel.event(SocketEvent::Error, "third");
        })
        .state("second", |cx| cx.heap().log.push("second"))
        .spawn(&mut kernel)
        .unwrap();
    let _clients = come(&mut kernel, address, &log, 2);
    assert_eq!(log.text(), "accept second");
    kernel.call("server", "end", ()).unwrap();
    run(&mut kernel);
}

#[test] // T10: clients wait in the backlog while it is paused, and need no other to announce them
fn it_can_be_paused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut kernel = kernel();
    let log = Log::default();
    server(&log, listener).spawn(&mut kernel).unwrap();
    let mut clients = come(&mut kernel, address, &log, 1);
    kernel.call("server", "pause", ()).unwrap();
    clients.extend((0..3).map(|_| TcpStream::connect(address).unwrap()));
    for _ in 0..3 {
        kernel.post("server", "pass", ()).unwrap();
        run_slices(&mut kernel, 1);
    }
    assert_eq!(log.text(), "accept pass pass pass");
    kernel.call("server", "resume", ()).unwrap();
    run_until(&mut kernel, || log.count("accept") == 4);
    kernel.call("server", "end", ()).unwrap();
    run(&mut kernel);
    wait_refused(address);
}

#[test] // K-LA-03: a shortage is reported, not lost, and tried again by itself
fn a_shortage_of_descriptors_does_not_make_it_deaf() {
    let program = Program::new(test_program("short_of_descriptors")).arg("listen_accept").start();
    let address = program.listening_addr();
    assert_eq!(program.next_line(DEADLINE), format!("socket failed: {}", Errno::EMFILE as i32));
    let first = Client::connect(address);
    for _ in 0..3 {
        assert_eq!(program.next_line(DEADLINE), format!("accept failed: {}", Errno::EMFILE as i32));
    }
    assert_eq!(program.next_line(DEADLINE), "it has rested in between");
    assert_eq!(program.next_line(DEADLINE), "accepted");
    let second = Client::connect(address);
    assert_eq!(program.next_line(DEADLINE), "accepted");
    drop((first, second));
}

#[test] // K-SF-29
fn shortage_without_an_error_event_is_logged_when_it_begins_and_ends() {
    let program = Program::new(test_program("short_of_descriptors")).arg("silent").start();
    let address = program.listening_addr();
    assert_eq!(program.next_line(DEADLINE), format!("socket failed: {}", Errno::EMFILE as i32));
    let _client = Client::connect(address);
    let begin = program.wait_for_stderr("can't accept for now", DEADLINE);
    assert!(begin.contains(&format!("address={address} errno=EMFILE ")), "{begin}");
    // Some four tries.
    stays("one line", Duration::from_millis(400), || program.stderr_text().matches("accept").count() == 2);
    program.signal(Signal::SIGUSR1);
    assert_eq!(program.next_line(DEADLINE), "accepted");
    let end = program.wait_for_stderr("listener accepts again", DEADLINE);
    assert!(end.contains(&format!("address={address} failed=")), "{end}");
    assert_eq!(program.stderr_text().matches("accept").count(), 3);
}

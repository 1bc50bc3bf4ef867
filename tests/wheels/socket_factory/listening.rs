//! Listening and accepting.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, TcpStream};
use std::time::Duration;

use lenore::wheel::{SocketFactory, WheelId};
use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::{accept, address, server};
use util::in_process::{Log, kernel, run, run_slices, run_until, wait_refused};
use util::{Client, DEADLINE, Program, test_program};

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
    wait_refused(address);
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

#[test] // K-SF-12: a listener that ran out of descriptors rests instead of spinning, and loses nobody
fn a_shortage_of_descriptors_does_not_make_a_listener_deaf() {
    let program = Program::new(test_program("short_of_descriptors")).start();
    let address = program.listening_addr();
    // K-SF-15: nor can it make a socket of its own.
    assert_eq!(program.next_line(DEADLINE), format!("socket failed: {}", Errno::EMFILE as i32));
    let first = Client::connect(address);
    for _ in 0..3 {
        assert_eq!(program.next_line(DEADLINE), format!("accept failed: {}", Errno::EMFILE as i32));
    }
    assert_eq!(program.next_line(DEADLINE), "it has rested in between");
    // The program frees descriptors now; the client that waited is served, and so are those that come after.
    assert_eq!(program.next_line(DEADLINE), "accepted");
    let second = Client::connect(address);
    assert_eq!(program.next_line(DEADLINE), "accepted");
    drop((first, second));
}

#[test] // K-SF-12: the system takes a descriptor before it looks whether a client waits
fn listener_with_the_last_descriptor_in_use_fails_only_when_a_client_waits() {
    let program = Program::new(test_program("short_of_descriptors")).arg("one_left").start();
    let address = program.listening_addr();
    assert_eq!(program.next_line(DEADLINE), format!("socket failed: {}", Errno::EMFILE as i32));
    let first = Client::connect(address);
    assert_eq!(program.next_line(DEADLINE), "accepted");
    // Long enough for three tries, if there were any.
    assert_eq!(program.try_next_line(Duration::from_millis(300)), None);
    let second = Client::connect(address);
    for _ in 0..3 {
        assert_eq!(program.next_line(DEADLINE), format!("accept failed: {}", Errno::EMFILE as i32));
    }
    assert_eq!(program.next_line(DEADLINE), "it has rested in between");
    assert_eq!(program.next_line(DEADLINE), "accepted");
    drop((first, second));
}

#[test] // T9: clients that come while one of two processes has paused the listener that both watch
fn a_paused_listener_swallows_no_wake_up_of_another_process() {
    let program = Program::new(test_program("shared_listeners")).arg("paused").start();
    let address = program.listening_addr();
    // Both processes wait in their pollers by now, one of them without the listener. The clients come one at a time,
    // each when the one before is served, so that each needs a wake-up of its own.
    assert_eq!(program.next_line(DEADLINE), "parent: paused");
    for _ in 0..20 {
        let _client = Client::connect(address);
        assert_eq!(program.next_line(DEADLINE), "child: accepted");
    }
    program.signal(Signal::SIGUSR1);
    assert_eq!(program.next_line(DEADLINE), "parent: resumed");
    let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(address)).collect();
    for _ in &clients {
        let line = program.next_line(DEADLINE);
        assert!(line.ends_with(": accepted"), "{line}");
    }
    clients.clear();
}

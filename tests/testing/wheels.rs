//! Wheels on a kernel whose clock a test moves.

use std::cell::Cell;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use lenore::Session;
use lenore::filter::Line;
use lenore::testing::{Sequence, TestKernel, pair};
use lenore::wheel::{Failure, FollowTail, ListenAccept, ReadWrite, SocketFactory};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, connect, listen, socket};

fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn stream_that_closes_gives_its_peer_up_when_the_clock_says_so() {
    let mut kernel = TestKernel::new();
    let (stream, mut peer) = pair();
    Session::new(())
        .args((stream,))
        .state("_start", |cx| {
            let stream: UnixStream = cx.take(0)?;
            let wheel = ReadWrite::stream(stream, Line::new()).close_timeout(secs(2)).start(cx)?;
            wheel.put("bye");
            wheel.close_after_flush();
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    kernel.settle();
    peer.expect("bye\r\n");
    kernel.advance(Duration::from_millis(1999));
    assert!(kernel.has_sessions());
    kernel.advance(Duration::from_millis(1));
    assert!(!kernel.has_sessions());
}

#[test]
fn file_is_looked_at_as_often_as_the_clock_says() {
    let (log, mut kernel) = (Sequence::new(), TestKernel::new());
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_owned();
    Session::new((log.clone(), None))
        .state("_start", move |cx| {
            let wheel = FollowTail::path(&path, Line::new()).poll_interval(secs(60)).on_input("line").start(cx)?;
            cx.heap().1 = Some(wheel);
            Ok(())
        })
        .state("line", |cx| {
            let line: String = cx.take(0)?;
            cx.heap().0.note(line);
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    kernel.advance(secs(60));
    file.as_file().write_all(b"first\nsecond\n").unwrap();
    kernel.advance(secs(59));
    if !cfg!(feature = "inotify") {
        log.expect_nothing();
    }
    kernel.advance(secs(1));
    log.expect(["first", "second"]);
}

#[test]
fn connection_from_elsewhere_is_waited_for() {
    let (log, mut kernel) = (Sequence::new(), TestKernel::new());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let accepted = Rc::new(Cell::new(false));
    let tell = Rc::clone(&accepted);
    Session::new((log.clone(), None))
        .args((listener,))
        .state("_start", |cx| {
            let listener: TcpListener = cx.take(0)?;
            cx.heap().1 = Some(ListenAccept::listener(listener).on_accept("accept").start(cx)?);
            Ok(())
        })
        .state("accept", move |cx| {
            tell.set(true);
            cx.heap().0.note("accept");
        })
        .spawn(&mut kernel)
        .unwrap();
    kernel.settle();
    log.expect_nothing();
    let client = thread::spawn(move || TcpStream::connect(addr).unwrap());
    kernel.wait_for("a client", || accepted.get());
    client.join().unwrap();
    log.expect(["accept"]);
    assert_eq!(kernel.elapsed(), Duration::ZERO);
}

#[test]
fn connect_times_out_when_the_clock_says_so() {
    let (log, mut kernel) = (Sequence::new(), TestKernel::new());
    // The queue of the listener is full, so the system drops what comes.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listen(&listener, Backlog::new(0).unwrap()).unwrap();
    let addr = listener.local_addr().unwrap();
    let stuffing = || {
        let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_NONBLOCK, None).unwrap();
        assert_eq!(connect(fd.as_raw_fd(), &SockaddrStorage::from(addr)), Err(Errno::EINPROGRESS));
        fd
    };
    let _stuffing: Vec<_> = (0..8).map(|_| stuffing()).collect();
    Session::new((log.clone(), None))
        .state("_start", move |cx| {
            let wheel = SocketFactory::tcp(addr).on_connect("up").on_error("down").connect_timeout(secs(30));
            cx.heap().1 = Some(wheel.connect(cx)?);
            Ok(())
        })
        .state("up", |cx| cx.heap().0.note("up"))
        .state("down", |cx| {
            let failure: Failure = cx.take(0)?;
            cx.heap().0.note(failure.errno);
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    kernel.advance(secs(29));
    log.expect_nothing();
    kernel.advance(secs(1));
    log.expect([(Errno::ETIMEDOUT as i32).to_string()]);
}

//! `select` and `select_expedite`: all modes of one handle.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use lenore::{Handle, Kernel, Readiness, Session};
use nix::sys::socket::{MsgFlags, send};

use util::in_process::{Log, run};

/// Two ends of a TCP connection.
fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let near = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
    (near, listener.accept().expect("the other end").0)
}

#[cfg(target_os = "linux")]
#[test] // K-IO-01, K-IO-02, K-IO-11, K-IO-23: one event for all modes: reading, writing, expedited, in this order
fn urgent_data_is_the_third_mode() {
    let (near, far) = connection();
    let log = Log::default();
    let told = log.clone();
    let mut kernel = Kernel::new().expect("a kernel");
    Session::new((Handle::new(near), far))
        .state("_start", |cx| {
            let (near, far) = (cx.heap().0.clone(), &mut cx.heap().1);
            far.write_all(b"n")?;
            send(far.as_raw_fd(), b"u", MsgFlags::MSG_OOB)?;
            // Both bytes have arrived when the urgent one has.
            let mut urgent = nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&near), nix::poll::PollFlags::POLLPRI);
            assert_eq!(nix::poll::poll(std::slice::from_mut(&mut urgent), 5000_u16)?, 1);
            cx.select(&near, "ready", "ready", "ready", ("extra",))?;
            Ok(())
        })
        .state("ready", move |cx| {
            let readiness = *cx.arg::<Readiness>(1)?;
            told.push(format!("{readiness:?} {}", cx.arg::<&str>(2)?));
            let near = cx.heap().0.clone();
            if readiness == Readiness::Expedite {
                cx.select(&near, None, None, None, ())?;
            }
            Ok(())
        })
        .spawn(&mut kernel)
        .expect("a session");
    run(&mut kernel);
    assert_eq!(log.take(), ["Read extra", "Write extra", "Expedite extra"]);
}

#[cfg(target_os = "linux")]
#[test] // K-IO-10: a read of urgent data alone would wait
fn urgent_data_alone_is_nothing_to_read() {
    let (near, far) = connection();
    let log = Log::default();
    let told = log.clone();
    let mut kernel = Kernel::new().expect("a kernel");
    Session::new((Handle::new(near), far))
        .state("_start", |cx| {
            let near = cx.heap().0.clone();
            cx.select(&near, "ready", None, "urgent", ())?;
            send(cx.heap().1.as_raw_fd(), b"u", MsgFlags::MSG_OOB)?;
            Ok(())
        })
        .state("urgent", move |cx| {
            told.push("urgent");
            let near = cx.heap().0.clone();
            cx.select_expedite_clear(&near);
            cx.delay("more", std::time::Duration::from_millis(50), ());
        })
        .state("more", |cx| Ok(cx.heap().1.write_all(b"n")?))
        .state("ready", {
            let log = log.clone();
            move |cx| {
                let mut near = cx.heap().0.clone();
                log.push(format!("read {}", near.read(&mut [0; 8])?));
                cx.select_read_clear(&near);
                Ok(())
            }
        })
        .spawn(&mut kernel)
        .expect("a session");
    run(&mut kernel);
    assert_eq!(log.take(), ["urgent", "read 1"]);
}

#[test] // K-IO-02: a readiness for which no event is given is not watched any more
fn select_ends_the_modes_that_it_does_not_name() {
    let (near, mut far) = connection();
    far.write_all(b"x").expect("room for an octet");
    let log = Log::default();
    let (wrote, read) = (log.clone(), log.clone());
    let mut kernel = Kernel::new().expect("a kernel");
    Session::new(Handle::new(near))
        .state("_start", |cx| {
            let near = cx.heap().clone();
            cx.select_read(&near, "read", ())?;
            cx.select(&near, None, "write", None, ())?;
            Ok(())
        })
        .state("write", move |cx| {
            wrote.push("write");
            let near = cx.heap().clone();
            cx.select(&near, "read", None, None, ())?;
            Ok(())
        })
        .state("read", move |cx| {
            read.push("read");
            let mut near = cx.heap().clone();
            assert_eq!(near.read(&mut [0; 8])?, 1);
            cx.select_read_clear(&near);
            Ok(())
        })
        .spawn(&mut kernel)
        .expect("a session");
    run(&mut kernel);
    assert_eq!(log.take(), ["write", "read"]);
}

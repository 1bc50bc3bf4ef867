//! What is watched: descriptors of all kinds, from the first watcher to the last.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};

use lenore::{Handle, Kernel, Reason, Session};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::{clear, read_one, readable_pipe, ready_socket, writable_pipe};
use util::in_process::{Log, kernel, run, run_slices, run_until};

#[test] // K-IO-05
fn a_watched_descriptor_is_made_non_blocking_and_stays_so() {
    let mut kernel = kernel();
    let (handle, _writer) = readable_pipe("");
    let is_nonblocking = |handle: &Handle| {
        let flags = OFlag::from_bits_retain(fcntl(handle.as_fd(), FcntlArg::F_GETFL).unwrap());
        flags.contains(OFlag::O_NONBLOCK)
    };
    assert!(!is_nonblocking(&handle));
    Session::new(handle.clone())
        .state("_start", |cx| {
            let mut handle = cx.heap().clone();
            cx.select_read(&handle, "ready", ())?;
            assert_eq!(handle.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
            cx.select_read_clear(&handle);
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    assert!(is_nonblocking(&handle));
}

#[test] // K-IO-18: one unit for each descriptor that the session watches, in whatever modes
fn the_last_watcher_on_a_descriptor_lets_the_session_go() {
    let mut kernel = kernel();
    let log = Log::default();
    let (handle, _peer) = ready_socket("");
    let fd = handle.as_raw_fd();
    let session = Session::new(handle)
        .state("_start", |cx| {
            let handle = cx.heap().clone();
            cx.select_read(&handle, "never", ())?;
            cx.select_read(&handle, "never", ())?;
            cx.select_write(&handle, "never", ())?;
            cx.select_pause_write(&handle);
            Ok(())
        })
        .state("clear_read", |cx| {
            let handle = cx.heap().clone();
            cx.select_read_clear(&handle);
        })
        .state("clear_write", |cx| {
            let handle = cx.heap().clone();
            cx.select_write_clear(&handle);
        })
        .state("_stop", {
            let log = log.clone();
            move |_| log.push("_stop")
        })
        .spawn(&mut kernel)
        .unwrap();
    let handles = |kernel: &Kernel| {
        let snapshot = kernel.peek();
        let reasons = snapshot.sessions.iter().find(|peeked| peeked.id == session).map(|peeked| &peeked.reasons);
        let is_handle = |reason: &&Reason| matches!(reason, Reason::Handle { fd: watched, .. } if *watched == fd);
        reasons.map_or(0, |reasons| reasons.iter().filter(is_handle).count())
    };
    assert_eq!(handles(&kernel), 1);
    kernel.call(session, "clear_read", ()).unwrap();
    assert_eq!(handles(&kernel), 1);
    assert_eq!(log.text(), "");
    kernel.call(session, "clear_write", ()).unwrap();
    assert_eq!(handles(&kernel), 0);
    run(&mut kernel);
    assert_eq!(log.text(), "_stop");
}

#[test] // K-IO-19
fn a_stopping_session_lets_go_of_what_it_watches() {
    let mut kernel = kernel();
    let (handle, mut peer) = ready_socket("");
    let session = Session::new(())
        .state("_start", move |cx| Ok(cx.select_read(&handle, "never", ())?))
        .spawn(&mut kernel)
        .unwrap();
    kernel.signal_now(session, "KILL", ()).unwrap();
    assert!(kernel.peek().sources.is_empty());
    // The state that held the handle went with the session: nobody has the socket open any more.
    assert_eq!(peer.read(&mut [0]).unwrap(), 0);
    run(&mut kernel);
}

#[test] // K-IO-21, K-LP-06: the poller knows nothing of regular files
fn a_regular_file_is_always_ready_and_starves_nobody() {
    let mut kernel = kernel();
    let log = Log::default();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"").unwrap();
    let handle = Handle::new(file);
    let session = Session::new((log.clone(), handle))
        .state("_start", |cx| {
            let handle = cx.heap().1.clone();
            cx.select_read(&handle, "read", ())?;
            cx.select_write(&handle, "write", ())?;
            cx.yield_("posted", ());
            Ok(())
        })
        .state("read", |cx| {
            assert_eq!(read_one(cx)?, None, "the file is empty");
            cx.heap().0.push("r");
            Ok(())
        })
        .state("write", |cx| cx.heap().0.push("w"))
        .state("posted", |cx| {
            cx.heap().0.push("p");
            cx.yield_("posted", ());
        })
        .state("pause", |cx| {
            let handle = cx.heap().1.clone();
            assert!(cx.select_pause_read(&handle));
        })
        .state("resume", |cx| {
            let handle = cx.heap().1.clone();
            assert!(cx.select_resume_read(&handle));
        })
        .spawn(&mut kernel)
        .unwrap();
    run_slices(&mut kernel, 3);
    assert_eq!(log.take().join(" "), "r w p r w p r w p");
    kernel.call(session, "pause", ()).unwrap();
    run_slices(&mut kernel, 2);
    assert_eq!(log.take().join(" "), "w p w p");
    kernel.call(session, "resume", ()).unwrap();
    run_slices(&mut kernel, 2);
    assert_eq!(log.take().join(" "), "r w p r w p");
    kernel.stop();
}

#[test] // K-IO-21: other things that epoll refuses
fn a_device_that_the_poller_refuses_is_always_ready() {
    let mut kernel = kernel();
    let log = Log::default();
    Session::new(log.clone())
        .state("_start", |cx| {
            let null = Handle::new(File::options().write(true).open("/dev/null")?);
            Ok(cx.select_write(&null, "ready", ())?)
        })
        .state("ready", |cx| {
            cx.heap().push("ready");
            if cx.heap().len() == 3 { clear(cx) } else { Ok(()) }
        })
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    assert_eq!(log.len(), 3);
}

#[test] // K-IO-22
fn the_end_of_file_is_readiness_for_reading() {
    let mut kernel = kernel();
    let log = Log::default();
    let (handle, writer) = readable_pipe("");
    drop(writer);
    Session::new(log.clone())
        .state("_start", move |cx| Ok(cx.select_read(&handle, "ready", ())?))
        .state("ready", |cx| {
            assert_eq!(read_one(cx)?, None);
            cx.heap().push("end");
            // It recurs like any other readiness.
            if cx.heap().len() == 3 { clear(cx) } else { Ok(()) }
        })
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "end end end");
}

#[test] // K-IO-22: and with a write to it as an error, not a signal
fn a_reader_that_has_gone_is_readiness_for_writing() {
    let mut kernel = kernel();
    let (reader, handle) = writable_pipe();
    drop(reader);
    Session::new(())
        .state("_start", move |cx| Ok(cx.select_write(&handle, "ready", ())?))
        .state("ready", |cx| {
            let mut handle = cx.arg::<Handle>(0)?.clone();
            assert_eq!(handle.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
            clear(cx)
        })
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
}

#[test] // K-IO-24, K-IO-25 with K-RE-02: the program can't close it behind the kernel's back
fn a_watched_descriptor_stays_open_and_its_number_is_not_reused() {
    let mut kernel = kernel();
    let log = Log::default();
    let (handle, mut writer) = readable_pipe("");
    let fd = handle.as_raw_fd();
    Session::new(log.clone())
        .state("_start", move |cx| {
            let handle = cx.take::<Handle>(0)?;
            cx.select_read(&handle, "ready", ())?;
            Ok(()) // and this was the program's last handle
        })
        .state("ready", |cx| {
            let octet = read_one(cx)?.expect("there is something to read");
            cx.heap().push(octet);
            clear(cx)
        })
        .args((handle,))
        .spawn(&mut kernel)
        .unwrap();
    run_slices(&mut kernel, 1);
    assert!(kernel.peek().sources.iter().any(|source| source.fd == fd));
    writer.write_all(b"a").unwrap();
    run_until(&mut kernel, || log.text() == "a");
    // Now it is closed, away from the poller, and the next descriptor of that number starts afresh.
    assert!(kernel.peek().sources.is_empty());
    run(&mut kernel);
    assert!(writer.write_all(b"b").is_err(), "nobody reads from the pipe any more");
}

#[test] // the ready list holds keys: one whose source went in the same slice must not stand for the source that came
fn a_descriptor_number_reused_in_a_state_does_not_inherit_the_old_readiness() {
    let mut kernel = kernel();
    let log = Log::default();
    let ((one, _writer), (other, _other_writer)) = (readable_pipe("x"), readable_pipe("x"));
    // The lower descriptor's turn comes first.
    let (first, second) = if one.as_raw_fd() < other.as_raw_fd() { (one, other) } else { (other, one) };
    Session::new((log.clone(), Some(second)))
        .state("_start", move |cx| {
            let first = cx.take::<Handle>(0)?;
            cx.select_read(&first, "first", ())?;
            let second = cx.heap().1.clone().expect("it is there");
            cx.select_read(&second, "second", ())?;
            Ok(())
        })
        .state("first", |cx| {
            clear(cx)?;
            let second = cx.heap().1.take().expect("it is there");
            let number = second.as_raw_fd();
            cx.select_read_clear(&second);
            drop(second);
            let (reader, writer) = io::pipe()?;
            let kept = [Handle::new(reader), Handle::new(writer)];
            if kept.iter().any(|handle| handle.as_raw_fd() == number) {
                cx.heap().0.push("reused");
            }
            cx.select_read(&kept[0], "stale", ())?;
            cx.delay("end", std::time::Duration::from_millis(1), (kept,));
            Ok(())
        })
        .state("second", |cx| cx.heap().0.push("second"))
        .state("stale", |cx| cx.heap().0.push("stale"))
        .state("end", |cx| {
            let kept = cx.take::<[Handle; 2]>(0)?;
            cx.select_read_clear(&kept[0]);
            Ok(())
        })
        .args((first,))
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    let text = log.text();
    assert!(text.is_empty() || text == "reused", "{text}");
}

//! `select_read` and `select_write`: section 11 of the behaviour specification.

mod util;

use std::fs::File;
use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;

use lenore::{Context, Error, Handle, Kernel, Mode, Reason, Result, Session};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use util::in_process::{Log, kernel, run, run_slices, run_until};

/// A pipe with its reading end as a handle.
fn readable_pipe(text: &str) -> (Handle, PipeWriter) {
    let (reader, mut writer) = io::pipe().expect("a pipe can be made");
    writer.write_all(text.as_bytes()).expect("it fits");
    (Handle::new(reader), writer)
}

/// A pipe with its writing end as a handle, always ready for writing.
fn writable_pipe() -> (PipeReader, Handle) {
    let (reader, writer) = io::pipe().expect("a pipe can be made");
    (reader, Handle::new(writer))
}

/// A socket that can be read and written, and its peer.
fn ready_socket(text: &str) -> (Handle, UnixStream) {
    let (ours, mut theirs) = UnixStream::pair().expect("a pair can be made");
    theirs.write_all(text.as_bytes()).expect("it fits");
    (Handle::new(ours), theirs)
}

/// Reads one octet.
fn read_one<H: 'static>(cx: &Context<'_, H>) -> Result<Option<char>> {
    let mut octet = [0];
    let mut handle = cx.arg::<Handle>(0)?.clone();
    Ok((handle.read(&mut octet)? == 1).then(|| char::from(octet[0])))
}

/// Ends the running session's watching of ARG0 in both modes.
fn clear<H: 'static>(cx: &mut Context<'_, H>) -> Result {
    let handle = cx.arg::<Handle>(0)?.clone();
    cx.select_read_clear(&handle);
    cx.select_write_clear(&handle);
    Ok(())
}

#[test] // K-IO-03, K-IO-10
fn the_state_gets_handle_mode_and_extra_arguments_from_its_own_session() {
    let mut kernel = kernel();
    let (handle, _writer) = readable_pipe("x");
    let fd = handle.as_raw_fd();
    Session::new(Log::default())
        .state("_start", move |cx| Ok(cx.select_read(&handle, "ready", ("extra", 7_u8))?))
        .state("ready", move |cx| {
            assert_eq!(cx.args().len(), 4);
            assert_eq!(cx.arg::<Handle>(0)?.as_raw_fd(), fd);
            assert_eq!(*cx.arg::<Mode>(1)?, Mode::Read);
            assert_eq!(*cx.arg::<&str>(2)?, "extra");
            assert_eq!(*cx.arg::<u8>(3)?, 7);
            assert_eq!(cx.sender(), cx.session());
            assert_eq!(cx.caller_state(), None);
            clear(cx)
        })
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
}

#[test]
fn outside_of_any_state_nothing_can_be_watched() {
    let mut kernel = kernel();
    let (handle, _writer) = readable_pipe("");
    assert!(matches!(kernel.select_read(&handle, "ready", ()), Err(Error::NoActiveSession)));
}

#[test] // K-IO-04: three octets, one taken at a time, no new ones: the poller alone would tell once
fn the_event_recurs_in_each_slice_while_there_is_something_to_read() {
    let mut kernel = kernel();
    let log = Log::default();
    let (handle, _writer) = readable_pipe("abc");
    Session::new(log.clone())
        .state("_start", move |cx| Ok(cx.select_read(&handle, "ready", ())?))
        .state("ready", |cx| {
            let octet = read_one(cx)?.expect("there is something to read");
            cx.heap().push(octet);
            if octet == 'c' { clear(cx) } else { Ok(()) }
        })
        .spawn(&mut kernel)
        .unwrap();
    for seen in ["a", "a b", "a b c"] {
        run_slices(&mut kernel, 1);
        assert_eq!(log.text(), seen, "one event a slice");
    }
    run(&mut kernel);
}

#[test] // K-IO-04
fn the_event_recurs_in_each_slice_while_the_handle_can_be_written() {
    let mut kernel = kernel();
    let log = Log::default();
    let (_reader, handle) = writable_pipe();
    Session::new(log.clone())
        .state("_start", move |cx| Ok(cx.select_write(&handle, "ready", ())?))
        .state("ready", |cx| {
            assert_eq!(*cx.arg::<Mode>(1)?, Mode::Write);
            cx.heap().push("w");
            if cx.heap().len() == 5 { clear(cx) } else { Ok(()) }
        })
        .spawn(&mut kernel)
        .unwrap();
    run_slices(&mut kernel, 3);
    assert_eq!(log.count("w"), 3);
    run(&mut kernel);
    assert_eq!(log.count("w"), 5);
}

#[test] // K-IO-15, K-IO-17: the pause outlasts new data, keeps the session, and ends with what had come meanwhile
fn a_paused_watcher_is_silent_and_keeps_its_session() {
    let mut kernel = kernel();
    let log = Log::default();
    let (handle, mut writer) = readable_pipe("a");
    let idle = log.clone();
    let session = Session::new((log.clone(), handle))
        .state("_start", move |cx| {
            let handle = cx.heap().1.clone();
            cx.sig("IDLE", "idle");
            Ok(cx.select_read(&handle, "ready", ())?)
        })
        .state("ready", |cx| {
            let octet = read_one(cx)?.map_or_else(|| "end".to_owned(), String::from);
            cx.heap().0.push(octet);
            let handle = cx.heap().1.clone();
            assert!(cx.select_pause_read(&handle));
            Ok(())
        })
        .state("resume", |cx| {
            let handle = cx.heap().1.clone();
            cx.select_resume_read(&handle)
        })
        .state("pass", |_| ())
        .state("clear", |cx| {
            let handle = cx.heap().1.clone();
            cx.select_read_clear(&handle);
        })
        .state("idle", move |_| idle.push("IDLE"))
        .spawn(&mut kernel)
        .unwrap();
    run_until(&mut kernel, || log.text() == "a");
    writer.write_all(b"b").unwrap();
    for _ in 0..3 {
        // Something to do in each slice, or the poller would wait for ever.
        kernel.post(session, "pass", ()).unwrap();
        run_slices(&mut kernel, 1);
    }
    assert_eq!(log.text(), "a", "neither data nor IDLE gets through a pause");
    assert!(kernel.call(session, "resume", ()).unwrap().take::<bool>().unwrap());
    run_until(&mut kernel, || log.text() == "a b");
    drop(writer);
    kernel.call(session, "resume", ()).unwrap();
    run_until(&mut kernel, || log.text() == "a b end");
    kernel.call(session, "clear", ()).unwrap();
    assert!(!kernel.call(session, "resume", ()).unwrap().take::<bool>().unwrap(), "nobody watches any more");
    run(&mut kernel);
}

#[test] // K-IO-15, K-IO-16
fn a_pause_acts_on_the_descriptor_and_mode_of_everybody() {
    let mut kernel = kernel();
    let log = Log::default();
    let (handle, _peer) = ready_socket("x");
    for name in ["first", "second"] {
        let handle = handle.clone();
        Session::new(log.clone())
            .state("_start", move |cx| {
                assert!(!cx.select_pause_write(&handle) && !cx.select_resume_write(&handle) || name == "second");
                cx.select_read(&handle, "read", ())?;
                cx.select_write(&handle, "write", ())?;
                Ok(())
            })
            .state("read", move |cx| {
                cx.heap().push(format!("{name}:read"));
                let handle = cx.arg::<Handle>(0)?.clone();
                assert!(cx.select_pause_read(&handle));
                Ok(())
            })
            .state("write", move |cx| {
                cx.heap().push(format!("{name}:write"));
                if name == "second" && cx.heap().count("second:write") == 2 {
                    cx.stop();
                }
            })
            .spawn(&mut kernel)
            .unwrap();
    }
    run(&mut kernel);
    let expected = "first:read first:write second:write first:write second:write";
    assert_eq!(log.text(), expected, "the first pauses reading, for both; writing goes on, for both");
}

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

#[test] // K-IO-07 with K-RE-03
fn watching_again_replaces_event_and_arguments_and_resumes() {
    let mut kernel = kernel();
    let log = Log::default();
    let (handle, _writer) = readable_pipe("x");
    Session::new(log.clone())
        .state("_start", move |cx| {
            cx.select_read(&handle, "old", ("old",))?;
            cx.select_pause_read(&handle);
            cx.select_read(&handle, "new", (1_u8,))?;
            Ok(())
        })
        .state("old", |cx| cx.heap().push("old"))
        .state("new", |cx| {
            assert_eq!(cx.args().len(), 3);
            assert_eq!(*cx.arg::<u8>(2)?, 1);
            cx.heap().push("new");
            clear(cx)
        })
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "new");
}

#[test] // K-IO-07 with K-RE-03: also when another session's handler has it changed in the same slice
fn a_replaced_event_counts_from_the_next_handler_on() {
    let mut kernel = kernel();
    let log = Log::default();
    let (handle, _writer) = readable_pipe("x");
    let session = |kernel: &mut Kernel, is_first: bool| {
        let handle = handle.clone();
        Session::new(log.clone())
            .state("_start", move |cx| {
                cx.alias_set(if is_first { "first" } else { "second" })?;
                Ok(cx.select_read(&handle, "old", ())?)
            })
            .state("old", move |cx| {
                cx.heap().push(if is_first { "first:old" } else { "second:old" });
                let handle = cx.arg::<Handle>(0)?.clone();
                cx.call("second", "change", (handle,))?;
                Ok(())
            })
            .state("change", |cx| {
                let handle = cx.take::<Handle>(0)?;
                Ok(cx.select_read(&handle, "new", ())?)
            })
            .state("new", |cx| {
                cx.heap().push("second:new");
                cx.stop();
            })
            .spawn(kernel)
            .unwrap();
    };
    session(&mut kernel, true);
    session(&mut kernel, false);
    run(&mut kernel);
    assert_eq!(log.text(), "first:old second:new");
}

#[test] // K-IO-08
fn one_event_may_serve_both_modes_and_several_handles() {
    let mut kernel = kernel();
    let log = Log::default();
    let (socket, _peer) = ready_socket("x");
    let (pipe, _writer) = readable_pipe("x");
    let (first, second) = (socket.as_raw_fd(), pipe.as_raw_fd());
    Session::new(log.clone())
        .state("_start", move |cx| {
            cx.select_read(&socket, "ready", ())?;
            cx.select_write(&socket, "ready", ())?;
            cx.select_read(&pipe, "ready", ())?;
            Ok(())
        })
        .state("ready", |cx| {
            let entry = format!("{}{:?}", cx.arg::<Handle>(0)?.as_raw_fd(), cx.arg::<Mode>(1)?);
            cx.heap().push(entry);
            let (handle, mode) = (cx.arg::<Handle>(0)?.clone(), *cx.arg::<Mode>(1)?);
            match mode {
                Mode::Read => cx.select_read_clear(&handle),
                Mode::Write => cx.select_write_clear(&handle),
            }
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    let (low, high) = (first.min(second), first.max(second));
    assert_eq!(log.text(), format!("{low}Read {high}Read {first}Write"));
}

#[test] // K-IO-09: in order of registration, which is the reverse of the order of creation here
fn every_session_that_watches_a_descriptor_gets_its_event() {
    let mut kernel = kernel();
    let log = Log::default();
    let (handle, _writer) = readable_pipe("x");
    let mut ids = Vec::new();
    for name in ["a", "b", "c"] {
        let handle = handle.clone();
        let id = Session::new(log.clone())
            .state("_start", move |cx| cx.alias_set(name).map_err(Into::into))
            .state("watch", move |cx| Ok(cx.select_read(&handle, "ready", ())?))
            .state("ready", move |cx| {
                cx.heap().push(name);
                if cx.heap().len() == 6 {
                    cx.stop();
                }
            })
            .spawn(&mut kernel)
            .unwrap();
        ids.push(id);
    }
    for id in ids.into_iter().rev() {
        kernel.call(id, "watch", ()).unwrap();
    }
    run(&mut kernel);
    assert_eq!(log.text(), "c b a c b a");
}

#[test] // K-IO-10, K-LP-03: the poll step comes before the queue, and what it posts is dispatched in the same slice
fn states_run_in_the_poll_step_and_not_through_the_queue() {
    let mut kernel = kernel();
    let log = Log::default();
    let (handle, _writer) = readable_pipe("x");
    Session::new(log.clone())
        .state("_start", move |cx| {
            cx.yield_("posted", ("before",));
            Ok(cx.select_read(&handle, "ready", ())?)
        })
        .state("ready", |cx| {
            cx.heap().push("ready");
            cx.yield_("posted", ("by it",));
            clear(cx)
        })
        .state("posted", |cx| {
            let text = *cx.arg::<&str>(0)?;
            cx.heap().push(text);
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    run_slices(&mut kernel, 1);
    assert_eq!(log.text(), "ready before by it");
    run(&mut kernel);
}

#[test] // K-IO-11, K-IO-14, K-LP-02: all that can be read, then all that can be written, each by ascending descriptor
fn readers_precede_writers_and_low_descriptors_precede_high_ones() {
    let mut kernel = kernel();
    let log = Log::default();
    let sockets: Vec<(Handle, UnixStream)> = (0..5).map(|_| ready_socket("x")).collect();
    let mut fds: Vec<i32> = sockets.iter().map(|(handle, _)| handle.as_raw_fd()).collect();
    fds.sort_unstable();
    let handles: Vec<Handle> = sockets.iter().map(|(handle, _)| handle.clone()).collect();
    Session::new(log.clone())
        .state("_start", move |cx| {
            for handle in [3, 1, 4, 0, 2].map(|place: usize| &handles[place]) {
                cx.select_write(handle, "ready", ())?;
                cx.select_read(handle, "ready", ())?;
            }
            Ok(())
        })
        .state("ready", |cx| {
            let entry = format!("{:?}{}", cx.arg::<Mode>(1)?, cx.arg::<Handle>(0)?.as_raw_fd());
            cx.heap().push(entry);
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    let order = |mode: &str| fds.iter().map(|fd| format!("{mode}{fd}")).collect::<Vec<_>>().join(" ");
    for _ in 0..3 {
        run_slices(&mut kernel, 1);
        assert_eq!(log.take().join(" "), format!("{} {}", order("Read"), order("Write")));
    }
    kernel.stop();
}

#[test] // K-IO-12
fn a_watcher_removed_by_an_earlier_state_of_the_slice_does_not_fire() {
    let mut kernel = kernel();
    let log = Log::default();
    let (first, _peer) = ready_socket("x");
    let (second, _writer) = readable_pipe("x");
    Session::new((log.clone(), [first, second]))
        .state("_start", |cx| {
            let [first, second] = cx.heap().1.clone();
            cx.select_read(&first, "ready", ())?;
            cx.select_write(&first, "ready", ())?;
            cx.select_read(&second, "ready", ())?;
            Ok(())
        })
        .state("ready", |cx| {
            let entry = format!("{:?}", cx.arg::<Mode>(1)?);
            cx.heap().0.push(entry);
            // Another mode of the same handle, and another handle.
            for handle in cx.heap().1.clone() {
                cx.select_read_clear(&handle);
                cx.select_write_clear(&handle);
            }
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "Read");
}

#[test] // K-IO-13 with K-RE-04: be it the watcher or the whole session that went
fn a_watcher_removed_by_another_sessions_state_never_fires() {
    for how in ["clear", "stop"] {
        let mut kernel = kernel();
        let log = Log::default();
        let (handle, _writer) = readable_pipe("x");
        for name in ["first", "second"] {
            let handle = handle.clone();
            Session::new(log.clone())
                .state("_start", move |cx| {
                    cx.alias_set(name)?;
                    Ok(cx.select_read(&handle, "ready", ())?)
                })
                .state("ready", move |cx| {
                    cx.heap().push(name);
                    let handle = cx.arg::<Handle>(0)?.clone();
                    match how {
                        "clear" => drop(cx.call("second", "clear", (handle,))?),
                        _ => cx.signal_now("second", "KILL", ())?,
                    }
                    clear(cx)
                })
                .state("clear", |cx| {
                    cx.alias_remove("second")?;
                    clear(cx)
                })
                .spawn(&mut kernel)
                .unwrap();
        }
        run(&mut kernel);
        assert_eq!(log.text(), "first", "{how}");
    }
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
        let is_handle = |reason: &&Reason| **reason == Reason::Handle(fd);
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

#[test] // K-IO-20
fn to_stop_watching_what_nobody_watches_does_nothing() {
    let mut kernel = kernel();
    let (handle, _writer) = readable_pipe("x");
    Session::new(handle)
        .state("_start", |cx| {
            let handle = cx.heap().clone();
            cx.select_read_clear(&handle);
            cx.select_read(&handle, "ready", ())?;
            cx.select_write_clear(&handle);
            Ok(())
        })
        .state("ready", |cx| {
            clear(cx)?;
            clear(cx)
        })
        .spawn(&mut kernel)
        .unwrap();
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

#[test] // K-IO-26
fn the_last_of_several_starts_and_stops_in_one_state_counts() {
    let mut kernel = kernel();
    let log = Log::default();
    let (handle, _writer) = readable_pipe("xyz");
    Session::new(log.clone())
        .state("_start", move |cx| Ok(cx.select_read(&handle, "a", ())?))
        .state("a", |cx| {
            cx.heap().push("a");
            let handle = cx.arg::<Handle>(0)?.clone();
            for event in ["a", "b", "c", "b"] {
                cx.select_read_clear(&handle);
                cx.select_read(&handle, event, ())?;
            }
            Ok(())
        })
        .state("b", |cx| {
            cx.heap().push("b");
            let handle = cx.arg::<Handle>(0)?.clone();
            cx.select_read(&handle, "c", ())?;
            cx.select_read_clear(&handle);
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "a b");
}

#[test] // K-EX-01: what fails is that session's affair; the event recurs, as the handle is still ready
fn an_exception_in_one_state_keeps_no_other_watcher_from_firing() {
    let mut kernel = kernel();
    let log = Log::default();
    let (handle, _writer) = readable_pipe("x");
    for name in ["fails", "works"] {
        let handle = handle.clone();
        Session::new(log.clone())
            .state("_start", move |cx| {
                cx.sig("DIE", "die");
                Ok(cx.select_read(&handle, "ready", ())?)
            })
            .state("ready", move |cx| {
                cx.heap().push(name);
                match (name, cx.heap().count("works")) {
                    ("fails", 0) => Err(io::Error::other("on purpose").into()),
                    _ => clear(cx),
                }
            })
            .state("die", |cx| cx.sig_handled())
            .spawn(&mut kernel)
            .unwrap();
    }
    run(&mut kernel);
    assert_eq!(log.text(), "fails works fails");
}

#[test]
fn a_weak_watcher_fires_but_keeps_nothing_alive() {
    let mut kernel = kernel();
    let log = Log::default();
    let (handle, _writer) = readable_pipe("xx");
    Session::new(log.clone())
        .state("_start", move |cx| {
            cx.yield_("other", ());
            Ok(cx.select_read_weak(&handle, "ready", ())?)
        })
        .state("ready", |cx| {
            read_one(cx)?;
            cx.heap().push("ready");
            Ok(())
        })
        .state("other", |cx| cx.heap().push("other"))
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "ready other");
    assert!(kernel.peek().sources.is_empty());
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

//! Which events come, in which order, and until when.

use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use lenore::{Error, Handle, Kernel, Readiness, Session};

use crate::{clear, read_one, readable_pipe, ready_socket, writable_pipe};
use util::in_process::{Log, kernel, run, run_slices, run_until};

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
            assert_eq!(*cx.arg::<Readiness>(1)?, Readiness::Read);
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

#[test] // on a kernel these calls do not compile
fn a_session_that_has_stopped_can_not_watch_anything() {
    let mut kernel = kernel();
    let (handle, _writer) = readable_pipe("");
    let stopped = Session::new(()).state("_start", move |cx| {
        cx.stop();
        let refused = [
            cx.select_read(&handle, "ready", ()),
            cx.select_read_weak(&handle, "ready", ()),
            cx.select_write(&handle, "ready", ()),
            cx.select_expedite(&handle, "ready", ()),
            cx.select(&handle, None, None, None, ()),
        ];
        assert!(refused.iter().all(|result| matches!(result, Err(Error::NoActiveSession))), "{refused:?}");
        cx.select_read_clear(&handle);
        assert!(!cx.select_pause_read(&handle));
        assert!(cx.peek().sources.is_empty());
    });
    stopped.spawn(&mut kernel).unwrap();
    run(&mut kernel);
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
            assert_eq!(*cx.arg::<Readiness>(1)?, Readiness::Write);
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

#[test] // K-IO-06
fn a_watcher_is_known_by_its_session_its_descriptor_and_its_mode() {
    let mut kernel = kernel();
    let log = Log::default();
    let (handle, _peer) = ready_socket("x");
    let copy = Handle::duplicate(&handle).unwrap();
    for name in ["first", "second"] {
        let (handle, copy) = (handle.clone(), copy.clone());
        Session::new(log.clone())
            .state("_start", move |cx| {
                cx.alias_set(name)?;
                cx.select_read(&handle, "gone", ())?;
                // The same descriptor, whichever handle stands for it: this is the same watcher.
                cx.select_read(&handle.clone(), "ready", ("read",))?;
                cx.select_write(&handle, "ready", ("written",))?;
                // Another descriptor, though of the same socket.
                cx.select_read(&copy, "ready", ("copy",))?;
                Ok(())
            })
            .state("ready", move |cx| {
                let entry = format!("{name}:{}", cx.arg::<&str>(2)?);
                cx.heap().push(entry);
                Ok(())
            })
            .state("clear", |cx| {
                let (handle, readiness) = (cx.take::<Handle>(0)?, cx.take::<Readiness>(1)?);
                match readiness {
                    Readiness::Read => cx.select_read_clear(&handle),
                    _ => cx.select_write_clear(&handle),
                }
                Ok(())
            })
            .spawn(&mut kernel)
            .unwrap();
    }
    let mut expect = |expected: &[&str], clear: Option<(&'static str, &Handle, Readiness)>| {
        if let Some((session, handle, readiness)) = clear {
            kernel.call(session, "clear", (handle.clone(), readiness)).unwrap();
        }
        run_slices(&mut kernel, 1);
        let mut seen = log.take();
        seen.sort();
        assert_eq!(seen, expected);
    };
    let all = ["first:copy", "first:read", "first:written", "second:copy", "second:read", "second:written"];
    expect(&all, None);
    expect(&[&all[..1], &all[2..]].concat(), Some(("first", &handle, Readiness::Read)));
    expect(&[&all[..1], &all[2..5]].concat(), Some(("second", &handle.clone(), Readiness::Write)));
    expect(&[&all[2..5]].concat(), Some(("first", &copy, Readiness::Read)));
    kernel.stop();
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
            let entry = format!("{}{:?}", cx.arg::<Handle>(0)?.as_raw_fd(), cx.arg::<Readiness>(1)?);
            cx.heap().push(entry);
            let (handle, readiness) = (cx.arg::<Handle>(0)?.clone(), *cx.arg::<Readiness>(1)?);
            match readiness {
                Readiness::Read => cx.select_read_clear(&handle),
                Readiness::Write => cx.select_write_clear(&handle),
                Readiness::Expedite => unreachable!("nobody asked for it"),
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
            let entry = format!("{:?}{}", cx.arg::<Readiness>(1)?, cx.arg::<Handle>(0)?.as_raw_fd());
            cx.heap().push(entry);
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    let order = |readiness: &str| fds.iter().map(|fd| format!("{readiness}{fd}")).collect::<Vec<_>>().join(" ");
    for _ in 0..3 {
        run_slices(&mut kernel, 1);
        assert_eq!(log.take().join(" "), format!("{} {}", order("Read"), order("Write")));
    }
    kernel.stop();
}

#[test] // K-LP-02, K-GC-03
fn each_group_of_handles_is_followed_by_a_sweep_of_its_own() {
    let mut kernel = kernel();
    let log = Log::default();
    let (readable, mut writer) = readable_pipe("");
    let (_reader, writable) = writable_pipe();
    let [_, second] = [("reader", readable), ("writer", writable)].map(|(name, handle)| {
        let session = Session::new((log.clone(), handle))
            .state("_start", |cx| {
                let handle = cx.heap().1.clone();
                cx.select_read(&handle, "ready", ())?;
                cx.select_write(&handle, "ready", ())?;
                cx.select_pause_write(&handle);
                Ok(())
            })
            .state("resume", |cx| {
                let handle = cx.heap().1.clone();
                cx.select_resume_write(&handle)
            })
            .state("ready", move |cx| {
                cx.heap().0.push(name);
                clear(cx)
            })
            .state("_stop", move |cx| cx.heap().0.push(format!("{name}:_stop")));
        session.spawn(&mut kernel).unwrap()
    });
    // The start-up events, which would keep the sessions beyond the poll step.
    run_slices(&mut kernel, 1);
    writer.write_all(b"x").unwrap();
    kernel.call(second, "resume", ()).unwrap();
    run_slices(&mut kernel, 1);
    assert_eq!(log.text(), "reader reader:_stop writer writer:_stop");
    run(&mut kernel);
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
            let entry = format!("{:?}", cx.arg::<Readiness>(1)?);
            cx.heap().0.push(entry);
            // Another readiness of the same handle, and another handle.
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

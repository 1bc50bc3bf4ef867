//! Shutting down either side, and closing without a loss.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use lenore::filter::Line;
use lenore::wheel::{Put, ReadWrite, ReadWriteBuilder, StreamEvent};

use super::{MEGABYTES, Owner, lines, log_input, narrow_pair, owner, owner_of, pair, read_all, tcp_pair};
use util::in_process::{Log, kernel, run, run_slices, run_until};

/// Longer than any test may take.
const FOR_EVER: Duration = Duration::from_secs(3600);

#[test] // K-RE-33: a TCP socket that is closed is reset when more comes, which would cost the peer what is on its way
fn close_after_flush_delivers_to_a_peer_that_goes_on_sending() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, mut theirs) = tcp_pair();
    theirs.write_all(b"go\n").unwrap();
    owner_of(&log, lines(ours).close_timeout(FOR_EVER))
        .state("input", |cx| {
            log_input(cx)?;
            let wheel = cx.heap().wheel.take().expect("it has a wheel");
            wheel.put("x".repeat(MEGABYTES));
            wheel.close_after_flush();
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    let reader = thread::spawn(move || {
        let (mut chunk, mut seen) = (vec![0; 64 * 1024], 0);
        loop {
            // Whatever it reads, it has something to say.
            theirs.write_all(b"more, and nobody listens\n").expect("the wheel has not closed yet");
            match theirs.read(&mut chunk).expect("no reset") {
                0 => return seen,
                count => seen += count,
            }
        }
    });
    // It ends long before the wheel is tired of waiting: the peer has closed.
    run(&mut kernel);
    assert_eq!(reader.join().unwrap(), MEGABYTES + 2);
    assert_eq!(log.text(), "go");
}

#[test] // K-RE-33: bounded
fn a_peer_that_never_closes_is_left_when_its_time_is_up() {
    for talks in [false, true] {
        let (mut kernel, log) = (kernel(), Log::default());
        let (ours, mut theirs) = tcp_pair();
        let span = Duration::from_millis(60);
        owner_of(&log, lines(ours).close_timeout(span))
            .state("started", |cx| {
                let wheel = cx.heap().wheel.take().expect("it has a wheel");
                wheel.put("the end");
                wheel.close_after_flush();
            })
            .state("_stop", |cx| cx.heap().log.push("_stop"))
            .spawn(&mut kernel)
            .unwrap();
        let mut mouth = theirs.try_clone().unwrap();
        let talker = thread::spawn(move || while talks && mouth.write_all(&[b'x'; 1000]).is_ok() {});
        let begun = Instant::now();
        run(&mut kernel);
        assert!(begun.elapsed() >= span, "it has closed too early");
        assert_eq!(log.text(), "_stop", "the session lives as long as its wheel");
        talker.join().unwrap();
        if !talks {
            let mut text = String::new();
            theirs.read_to_string(&mut text).unwrap();
            assert_eq!(text, "the end\r\n");
        }
    }
}

#[test] // K-RE-33: the default; tests of anything else don't wait for it
fn a_peer_that_never_closes_is_left_after_two_seconds_by_default() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, _theirs) = tcp_pair();
    owner_of(&log, lines(ours))
        .state("started", |cx| cx.heap().wheel.take().into_iter().for_each(ReadWrite::close_after_flush))
        .spawn(&mut kernel)
        .unwrap();
    let begun = Instant::now();
    run(&mut kernel);
    assert!(begun.elapsed() >= Duration::from_secs(2), "it has closed after {:?}", begun.elapsed());
}

#[test] // K-RE-33: bounded in front of that too
fn a_peer_that_takes_nothing_is_given_up() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, mut theirs) = narrow_pair();
    owner_of(&log, lines(ours).close_timeout(FOR_EVER).write_timeout(Duration::from_millis(60)))
        .state("started", |cx| {
            let wheel = cx.heap().wheel.take().expect("it has a wheel");
            wheel.put("x".repeat(100_000));
            wheel.close_after_flush();
        })
        .state("_stop", |cx| cx.heap().log.push("_stop"))
        .spawn(&mut kernel)
        .unwrap();
    let begun = Instant::now();
    run(&mut kernel);
    assert!(begun.elapsed() >= Duration::from_millis(60), "it has closed too early");
    assert_eq!(log.text(), "_stop", "nobody hears of it");
    let mut text = Vec::new();
    theirs.read_to_end(&mut text).unwrap();
    assert!(!text.is_empty() && text.len() < 100_000, "{} octets", text.len());
}

#[test] // K-RE-33: slow is not the same as gone
fn a_slow_peer_gets_everything() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, mut theirs) = narrow_pair();
    let patience = Duration::from_secs(1);
    owner_of(&log, lines(ours).close_timeout(FOR_EVER).write_timeout(patience))
        .state("started", |cx| {
            let wheel = cx.heap().wheel.take().expect("it has a wheel");
            wheel.put("x".repeat(100_000));
            wheel.close_after_flush();
        })
        .spawn(&mut kernel)
        .unwrap();
    let begun = Instant::now();
    let reader = thread::spawn(move || {
        let (mut chunk, mut seen) = ([0; 2000], 0);
        loop {
            match theirs.read(&mut chunk).expect("no reset") {
                0 => return seen,
                count => seen += count,
            }
            thread::sleep(Duration::from_millis(60));
        }
    });
    run(&mut kernel);
    assert_eq!(reader.join().unwrap(), 100_002);
    assert!(begun.elapsed() > 2 * patience, "it was not slow");
}

#[test] // K-RE-33: what a wheel waits for ends with its session
fn a_session_that_is_killed_leaves_nothing_to_wait_for() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, mut theirs) = tcp_pair();
    let session = owner_of(&log, lines(ours).close_timeout(FOR_EVER))
        .state("started", |cx| cx.heap().wheel.take().expect("it has a wheel").close_after_flush())
        .spawn(&mut kernel)
        .unwrap();
    run_slices(&mut kernel, 1);
    assert_eq!(theirs.read(&mut [0]).unwrap(), 0, "it waits for the peer");
    kernel.signal_now(session, "KILL", ()).unwrap();
    run(&mut kernel);
}

#[test] // K-RE-33
fn the_peer_sees_the_end_before_the_wheel_is_closed() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, mut theirs) = pair();
    owner_of(&log, lines(ours).close_timeout(FOR_EVER))
        .state("started", |cx| cx.heap().wheel.take().expect("it has a wheel").close_after_flush())
        .spawn(&mut kernel)
        .unwrap();
    run_slices(&mut kernel, 1);
    assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
    theirs.write_all(b"still there\n").expect("the wheel waits");
    drop(theirs);
    run(&mut kernel);
    assert_eq!(log.text(), "", "and nobody hears of it");
}

#[test] // K-RE-33: a peer that has closed is not waited for, nor is what can't close one side
fn close_after_flush_waits_for_nobody_who_has_gone() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ended, theirs) = pair();
    theirs.shutdown(Shutdown::Write).unwrap();
    let (reader, pipe) = std::io::pipe().unwrap();
    let (at_once, peer) = pair();
    owner_of(&log, lines(ended).close_timeout(FOR_EVER))
        .state("error", |cx| {
            let wheel = cx.heap().wheel.take().expect("it has a wheel");
            wheel.put("bye");
            wheel.close_after_flush();
        })
        .spawn(&mut kernel)
        .unwrap();
    let closing = |cx: &mut lenore::Context<'_, super::Owner>| {
        let wheel = cx.heap().wheel.take().expect("it has a wheel");
        wheel.put("bye");
        wheel.close_after_flush();
    };
    owner_of(&log, ReadWrite::stream(pipe, Line::new()).close_timeout(FOR_EVER))
        .state("started", closing)
        .spawn(&mut kernel)
        .unwrap();
    owner_of(&log, lines(at_once).close_timeout(Duration::ZERO)).state("started", closing).spawn(&mut kernel).unwrap();
    run(&mut kernel);
    assert_eq!(read_all(theirs), "bye\r\n");
    assert_eq!(read_all(reader), "bye\r\n");
    assert_eq!(read_all(peer), "bye\r\n");
}

#[test] // K-RE-33: of two descriptors the input's goes at once, the output's after its output
fn close_after_flush_of_two_pipes_writes_first() {
    let (mut kernel, log) = (kernel(), Log::default());
    let ((input, mut to_it), (mut from_it, output)) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
    owner_of(&log, ReadWrite::streams(input, output, Line::new()).on_input("input").close_timeout(FOR_EVER))
        .state("started", |cx| {
            let wheel = cx.heap().wheel.take().expect("it has a wheel");
            wheel.put("x".repeat(MEGABYTES));
            wheel.close_after_flush();
        })
        .spawn(&mut kernel)
        .unwrap();
    run_slices(&mut kernel, 1);
    assert_eq!(to_it.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    let reader = thread::spawn(move || {
        let mut all = Vec::new();
        from_it.read_to_end(&mut all).unwrap();
        all.len()
    });
    run(&mut kernel);
    assert_eq!(reader.join().unwrap(), MEGABYTES + 2);
}

#[test] // K-RW-18, K-RE-20
fn shutdown_input_ends_reading_without_an_event_and_writing_goes_on() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, mut theirs) = pair();
    theirs.write_all(b"1\n2\n").unwrap();
    let session = owner(&log, ours)
        .state("input", |cx| {
            log_input(cx)?;
            cx.heap().wheel().shutdown_input();
            cx.heap().wheel().put("after");
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    run_slices(&mut kernel, 1);
    assert_eq!(theirs.write(b"3\n").unwrap_err().kind(), ErrorKind::BrokenPipe, "a Unix socket tells the peer");
    kernel.call(session, "resume", ()).unwrap();
    for _ in 0..3 {
        kernel.post(session, "nothing", ()).unwrap();
        run_slices(&mut kernel, 1);
    }
    assert_eq!(log.text(), "1 flushed", "not even a resume brings the rest");
    kernel.call(session, "drop", ()).unwrap();
    run(&mut kernel);
    assert_eq!(read_all(theirs), "after\r\n");
}

#[test] // K-RW-38
fn shutdown_output_waits_for_nothing_and_later_puts_only_add_up() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, mut theirs) = narrow_pair();
    let session = owner(&log, ours)
        .state("started", |cx| cx.heap().wheel().put("x".repeat(100_000)))
        .state("end", |cx| {
            let wheel = cx.heap().wheel();
            wheel.put("same state");
            wheel.shutdown_output();
            let left = wheel.pending_output();
            assert_eq!(wheel.put("later"), Put::Closed);
            assert_eq!(wheel.pending_output(), left + 7);
            assert_eq!(wheel.flush(), left + 7);
        })
        .spawn(&mut kernel)
        .unwrap();
    run_slices(&mut kernel, 1);
    kernel.call(session, "end", ()).unwrap();
    let mut text = String::new();
    theirs.read_to_string(&mut text).unwrap();
    assert!(text.len() < 100_000 && text.bytes().all(|octet| octet == b'x'), "{} octets", text.len());
    theirs.write_all(b"heard\n").unwrap();
    run_until(&mut kernel, || log.text() == "heard");
    drop(theirs);
    run(&mut kernel);
    assert_eq!(log.text(), "heard error:read:0", "neither flushed nor an error");
}

#[test] // K-RW-38 with K-RE-33
fn shutdown_output_after_flush_writes_first_and_input_goes_on() {
    for has_output in [true, false] {
        let (mut kernel, log) = (kernel(), Log::default());
        let (ours, mut theirs) = tcp_pair();
        let length = if has_output { MEGABYTES } else { 0 };
        owner(&log, ours)
            .state("started", move |cx| {
                if has_output {
                    cx.heap().wheel().put("x".repeat(length - 2));
                }
                cx.heap().wheel().shutdown_output_after_flush();
            })
            .spawn(&mut kernel)
            .unwrap();
        let peer = thread::spawn(move || {
            let mut all = Vec::new();
            theirs.read_to_end(&mut all).unwrap();
            theirs.write_all(format!("{}\n", all.len()).as_bytes()).unwrap();
        });
        run(&mut kernel);
        peer.join().unwrap();
        let flushed = if has_output { "flushed " } else { "" };
        assert_eq!(log.text(), format!("{flushed}{length} error:read:0"));
    }
}

#[test] // K-RW-16, K-RW-38: separate pipes
fn shutdown_output_closes_an_output_pipe_and_the_session_ends_with_the_last_descriptor() {
    let (mut kernel, log) = (kernel(), Log::default());
    let ((input, to_it), (mut from_it, output)) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
    let wheel = ReadWrite::streams(input, output, Line::new()).on_input("input").on_error("error");
    let session = owner_of(&log, wheel)
        .state("error", super::log_error)
        .state("end", |cx| cx.heap().wheel().shutdown_output())
        .state("_stop", |cx| {
            assert!(cx.heap().wheel.is_some());
            cx.heap().log.push("_stop");
        })
        .spawn(&mut kernel)
        .unwrap();
    drop(to_it);
    run_until(&mut kernel, || log.text() == "error:read:0");
    for _ in 0..3 {
        kernel.post(session, "nothing", ()).unwrap();
        run_slices(&mut kernel, 1);
    }
    assert_eq!(log.text(), "error:read:0", "the output keeps it");
    kernel.call(session, "end", ()).unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "error:read:0 _stop");
    assert_eq!(from_it.read(&mut [0]).unwrap(), 0);
}

#[test] // K-RW-61 with K-RE-19: each wheel has a descriptor of its own, even of the same socket
fn a_wheel_that_replaces_another_on_the_same_socket_works() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, mut theirs) = tcp_pair();
    let same: TcpStream = ours.try_clone().unwrap();
    let session = owner(&log, ours)
        .state("replace", |cx| {
            let same = cx.take::<TcpStream>(0)?;
            // The new one is made first, and the old one goes when it is overwritten.
            let wheel = lines(same).start(cx)?;
            cx.heap().wheel = Some(wheel);
            cx.heap().wheel().put("hello");
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    theirs
        .write_all(
            b"first
",
        )
        .unwrap();
    run_until(&mut kernel, || log.text() == "first");
    kernel.call(session, "replace", (same,)).unwrap();
    run_slices(&mut kernel, 1);
    theirs
        .write_all(
            b"second
",
        )
        .unwrap();
    run_until(&mut kernel, || log.text() == "first flushed second");
    theirs.shutdown(Shutdown::Write).unwrap();
    run(&mut kernel);
    assert_eq!(read_all(theirs), "hello\r\n");
    assert_eq!(log.text(), "first flushed second error:read:0");
}

/// A wheel of each kind, the peer's end of its input, and of its output.
fn wheels() -> Vec<(&'static str, ReadWriteBuilder<Line>, OwnedFd, OwnedFd)> {
    let two = |(one, theirs): (OwnedFd, OwnedFd)| (one, theirs.try_clone().unwrap(), theirs);
    let (socket, to_socket, from_socket) = two(narrow_pair_of_descriptors());
    let (tcp, to_tcp, from_tcp) = two({
        let (ours, theirs) = tcp_pair();
        (ours.into(), theirs.into())
    });
    let ((input, to_input), (from_output, output)) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
    let ((input_socket, to_input_socket), (output_socket, from_output_socket)) =
        (narrow_pair_of_descriptors(), narrow_pair_of_descriptors());
    vec![
        ("a socket", ReadWrite::stream(socket, Line::new()), to_socket, from_socket),
        ("a TCP socket", ReadWrite::stream(tcp, Line::new()), to_tcp, from_tcp),
        ("two pipes", ReadWrite::streams(input, output, Line::new()), to_input.into(), from_output.into()),
        (
            "two sockets",
            ReadWrite::streams(input_socket, output_socket, Line::new()),
            to_input_socket,
            from_output_socket,
        ),
    ]
}

fn narrow_pair_of_descriptors() -> (OwnedFd, OwnedFd) {
    let (ours, theirs) = narrow_pair();
    (ours.into(), theirs.into())
}

fn shut(wheel: &ReadWrite<Line>, what: &str) {
    match what {
        "input" => wheel.shutdown_input(),
        "output" => wheel.shutdown_output(),
        _ => wheel.shutdown_output_after_flush(),
    }
}

#[test] // K-RW-05, K-RW-18, K-RW-38, K-RW-40
fn a_session_ends_when_both_directions_are_shut_whatever_the_order() {
    for (first, second) in [("input", "output"), ("output", "input"), ("input", "flush"), ("flush", "input")] {
        for (has_output, at_once) in [(false, false), (false, true), (true, false), (true, true)] {
            for (kind, wheel, to_it, from_it) in wheels() {
                let (mut kernel, log) = (kernel(), Log::default());
                let reader = thread::spawn(move || std::fs::File::from(from_it).read_to_end(&mut Vec::new()));
                owner_of(&log, wheel.on_input("input").on_error("error"))
                    .state("started", move |cx| {
                        if has_output {
                            cx.heap().wheel().put("x".repeat(100_000));
                        }
                        shut(cx.heap().wheel(), first);
                        if at_once {
                            shut(cx.heap().wheel(), second);
                        } else {
                            cx.yield_("second", ());
                        }
                    })
                    .state("second", move |cx| shut(cx.heap().wheel(), second))
                    .state("_stop", |cx| {
                        assert!(cx.heap().wheel.is_some());
                        cx.heap().log.push("_stop");
                    })
                    .spawn(&mut kernel)
                    .unwrap();
                run(&mut kernel);
                assert_eq!(log.text(), "_stop", "{kind}: {first}, then {second}");
                drop(to_it);
                reader.join().unwrap().unwrap();
            }
        }
    }
}

#[test] // K-RW-05, K-RW-40: nothing is read that could bring anything
fn a_session_without_an_input_event_ends_when_its_output_is_shut() {
    for what in ["output", "flush"] {
        for (kind, wheel, to_it, from_it) in wheels() {
            let (mut kernel, log) = (kernel(), Log::default());
            let reader = thread::spawn(move || std::fs::File::from(from_it).read_to_end(&mut Vec::new()));
            owner_of(&log, wheel.on_error("error"))
                .state("started", move |cx| {
                    cx.heap().wheel().put("x".repeat(100_000));
                    shut(cx.heap().wheel(), what);
                })
                .state("_stop", |cx| cx.heap().log.push("_stop"))
                .spawn(&mut kernel)
                .unwrap();
            run(&mut kernel);
            assert_eq!(log.text(), "_stop", "{kind}: {what}");
            drop(to_it);
            reader.join().unwrap().unwrap();
        }
    }
}

#[test] // K-RW-13, K-RW-40: what does not keep the session is there all the same
fn an_input_event_that_comes_after_the_output_was_shut_brings_the_input() {
    for later in [false, true] {
        for (kind, wheel, to_it, from_it) in wheels() {
            let (mut kernel, log) = (kernel(), Log::default());
            let mut peer = std::fs::File::from(to_it);
            let wheel = if later { wheel.on_input("input") } else { wheel };
            owner_of(&log, wheel.on_error("error"))
                .state("started", |cx| {
                    cx.heap().wheel().event_clear(StreamEvent::Input);
                    cx.heap().wheel().shutdown_output();
                    // The alarm is all that keeps the session.
                    cx.delay("listen", Duration::from_millis(1), ());
                })
                .state("listen", |cx: &mut lenore::Context<'_, Owner>| {
                    assert!(!format!("{:#}", cx.peek()).contains("stays alive: descriptor"));
                    cx.heap().wheel().event(StreamEvent::Input, "input");
                })
                .state("_stop", |cx| cx.heap().log.push("_stop"))
                .spawn(&mut kernel)
                .unwrap();
            peer.write_all(b"heard\n").unwrap();
            drop((peer, from_it));
            run(&mut kernel);
            assert_eq!(log.text(), "heard error:read:0 _stop", "{kind}");
        }
    }
}

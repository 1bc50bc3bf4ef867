//! Writing: flushes, slow readers, errors, and closing after the last of it.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use lenore::filter::{Line, Stream};
use lenore::wheel::{Failure, ReadWrite};
use lenore::{Context, Session};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, setsockopt, socketpair, sockopt};

use super::{MEGABYTES, Owner, log_error, log_input, owner, owner_of, pair, read_all, tcp_pair};
use util::in_process::{Log, kernel, run, run_slices, run_until};
use util::{DEADLINE, wait_until};

#[test] // K-RW-30, K-RW-32: each write to this kind of socket is a packet of its own
fn many_puts_make_one_write_and_one_flushed_event() {
    let mut kernel = kernel();
    let log = Log::default();
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_NONBLOCK).unwrap();
    let packet = move |theirs: &OwnedFd| {
        let mut buffer = [0; 100];
        let received = recv(theirs.as_raw_fd(), &mut buffer, MsgFlags::empty());
        received.map(|count| String::from_utf8_lossy(&buffer[..count]).into_owned())
    };
    let theirs = std::rc::Rc::new(theirs);
    let seen_by_peer = theirs.clone();
    owner(&log, ours)
        .state("started", move |cx| {
            for line in ["one", "two", "three"] {
                cx.heap().wheel().put(line);
            }
            assert_eq!(cx.heap().wheel().pending_output(), "one\r\ntwo\r\nthree\r\n".len());
            assert_eq!(packet(&seen_by_peer), Err(Errno::EAGAIN), "nothing is written inside put");
        })
        .spawn(&mut kernel)
        .unwrap();
    run_slices(&mut kernel, 1);
    assert_eq!(packet(&theirs).as_deref(), Ok("one\r\ntwo\r\nthree\r\n"));
    assert_eq!(packet(&theirs), Err(Errno::EAGAIN));
    assert_eq!(log.text(), "flushed");
    kernel.stop();
}

#[test] // K-RW-33, K-DR-03
fn a_put_of_nothing_is_never_flushed() {
    let mut kernel = kernel();
    let log = Log::default();
    let (ours, theirs) = pair();
    Session::new((log.clone(), None::<ReadWrite<Stream>>))
        .args((ours,))
        .state("_start", |cx| {
            let stream = cx.take::<UnixStream>(0)?;
            let wheel = ReadWrite::stream(stream, Stream::new()).on_flushed("flushed").start(cx)?;
            wheel.put(&b""[..]);
            cx.heap().1 = Some(wheel);
            cx.yield_("more", ());
            Ok(())
        })
        .state("more", |cx| {
            let wheel = cx.heap().1.as_ref().expect("it is kept");
            wheel.put(&b""[..]);
            cx.heap().0.push("more");
            cx.yield_("end", ());
        })
        .state("end", |cx| cx.heap().1 = None)
        .state("flushed", |cx| cx.heap().0.push("flushed"))
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "more");
    drop(theirs);
}

#[test] // K-RW-32: once per transition; and a session that puts in its flushed event stalls nobody
fn each_put_in_a_flushed_event_is_flushed_in_turn() {
    let mut kernel = kernel();
    let log = Log::default();
    let (ours, theirs) = pair();
    owner(&log, ours)
        .state("started", |cx| cx.heap().wheel().put("0"))
        .state("flushed", |cx| {
            cx.heap().log.push("flushed");
            let count = cx.heap().log.len();
            if count == 1000 {
                cx.heap().wheel = None;
            } else {
                cx.heap().wheel().put(count.to_string());
            }
        })
        .spawn(&mut kernel)
        .unwrap();
    let reader = thread::spawn(move || read_all(theirs));
    run(&mut kernel);
    let expected: String = (0..1000).map(|number| format!("{number}\r\n")).collect();
    assert_eq!(reader.join().unwrap(), expected);
}

#[test] // K-RW-15, K-RW-16 with K-RE-36: the peer may have closed only its own half
fn after_the_end_of_the_input_output_goes_on() {
    let mut kernel = kernel();
    let log = Log::default();
    let (ours, theirs) = tcp_pair();
    theirs.shutdown(Shutdown::Write).unwrap();
    owner(&log, ours)
        .state("error", |cx| {
            log_error(cx)?;
            // As far as anybody knows the session has nothing to do now; the wheel keeps it.
            cx.delay("later", Duration::from_millis(5), ());
            Ok(())
        })
        .state("later", |cx| cx.heap().wheel().put("late"))
        .state("flushed", |cx| cx.heap().wheel = None)
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    assert_eq!(read_all(theirs), "late\r\n");
}

#[test] // printf 'hi\n' | nc: the request, the end of the input and the reply to it meet in one turn
fn a_reply_put_before_the_end_of_file_goes_out_though_the_wheel_is_dropped_on_it() {
    for (ours, theirs) in [pair_of_owned(pair()), pair_of_owned(tcp_pair())] {
        let mut kernel = kernel();
        let log = Log::default();
        let mut theirs = TcpOrUnix(theirs.into());
        theirs.write_all(b"hi\n").unwrap();
        theirs.shutdown_write();
        owner(&log, ours)
            .state("input", |cx| {
                let line = cx.take::<String>(0)?;
                cx.heap().wheel().put(line);
                Ok(())
            })
            .spawn(&mut kernel)
            .unwrap();
        run(&mut kernel);
        assert_eq!(log.text(), "flushed error:read:0");
        assert_eq!(read_all(theirs), "hi\r\n");
    }
}

#[test] // K-RW-37 with K-RE-33
fn close_after_flush_writes_megabytes_to_a_slow_reader_first() {
    let mut kernel = kernel();
    let log = Log::default();
    let (ours, mut theirs) = tcp_pair();
    theirs.write_all(b"go\n").unwrap();
    let line = "0123456789abcdef".repeat(MEGABYTES / 16);
    let expected = line.len() + 2;
    owner(&log, ours)
        .state("input", move |cx| {
            log_input(cx)?;
            let wheel = cx.heap().wheel.take().expect("it has a wheel");
            wheel.put(&*line);
            wheel.close_after_flush();
            Ok(())
        })
        .state("_stop", |cx| cx.heap().log.push("_stop"))
        .spawn(&mut kernel)
        .unwrap();
    // The reader does not begin before the writer is stuck.
    run_until(&mut kernel, || log.text() == "go");
    let reader = thread::spawn(move || {
        let mut chunk = [0; 16 * 1024];
        let mut seen = 0;
        loop {
            match theirs.read(&mut chunk).expect("the peer closes in order") {
                0 => return seen,
                count => {
                    for (offset, octet) in chunk[..count].iter().enumerate() {
                        let place = seen + offset;
                        let wanted = if place < MEGABYTES { b"0123456789abcdef"[place % 16] } else { *octet };
                        assert_eq!(*octet, wanted, "octet {place}");
                    }
                    seen += count;
                }
            }
        }
    });
    run(&mut kernel);
    assert_eq!(log.text(), "go _stop", "the session lives until all is written, and hears nothing of it");
    assert_eq!(reader.join().unwrap(), expected);
}

#[test] // K-RE-33: a TCP socket that is closed with unread input is reset, which would cost the peer what is on its way
fn close_after_flush_delivers_to_a_peer_that_has_sent_more_than_was_read() {
    for deferred in [false, true] {
        let mut kernel = kernel();
        let log = Log::default();
        let (ours, mut theirs) = tcp_pair();
        setsockopt(&ours, sockopt::RcvBuf, &(1 << 20)).unwrap();
        // More than one read takes, and all of it there.
        theirs.write_all(b"go\n").unwrap();
        theirs.write_all(&[b'x'; 129_997]).unwrap();
        wait_until("all that was sent", DEADLINE, || (ours.peek(&mut [0; 130_000]).unwrap() == 130_000).then_some(()));
        owner(&log, ours)
            .state("input", move |cx| {
                log_input(cx)?;
                cx.heap().wheel().pause_input();
                cx.heap().wheel().put("0123456789abcdef".repeat(MEGABYTES / 16));
                if !deferred {
                    cx.heap().wheel.take().expect("it has a wheel").close_after_flush();
                }
                Ok(())
            })
            .state("flushed", |cx| cx.heap().wheel.take().expect("it has a wheel").close_after_flush())
            .spawn(&mut kernel)
            .unwrap();
        run_until(&mut kernel, || log.text() == "go");
        let reader = thread::spawn(move || {
            // A little at a time, so that much is still on its way when the writer closes.
            let (mut chunk, mut seen) = ([0; 1024], 0);
            loop {
                match theirs.read(&mut chunk).expect("the peer closes in order") {
                    0 => return seen,
                    count => seen += count,
                }
            }
        });
        run(&mut kernel);
        assert_eq!(reader.join().unwrap(), MEGABYTES + 2);
    }
}

#[test] // K-RE-33: what can't be written any more keeps nobody alive
fn close_after_flush_gives_up_when_the_peer_has_gone() {
    for fail_first in [false, true] {
        let mut kernel = kernel();
        let log = Log::default();
        let (ours, theirs) = pair();
        drop(theirs);
        Session::new((log.clone(), None::<ReadWrite<Line>>))
            .args((ours,))
            .state("_start", move |cx| {
                let stream = cx.take::<UnixStream>(0)?;
                let wheel = ReadWrite::stream(stream, Line::new()).on_error("error").start(cx)?;
                wheel.put("lost");
                if fail_first {
                    cx.heap().1 = Some(wheel);
                } else {
                    wheel.close_after_flush();
                }
                Ok(())
            })
            .state("error", |cx| {
                let operation = cx.arg::<Failure>(0)?.operation;
                cx.heap().0.push(operation);
                cx.heap().1.take().expect("it is kept").close_after_flush();
                Ok(())
            })
            .spawn(&mut kernel)
            .unwrap();
        run(&mut kernel);
        assert_eq!(log.text(), if fail_first { "write" } else { "" });
    }
}

#[test] // K-RW-32, K-DR-04
fn blocked_output_waits_for_a_slow_reader_while_input_goes_on() {
    let mut kernel = kernel();
    let log = Log::default();
    let (ours, mut theirs) = pair();
    let session = owner(&log, ours)
        .state("started", |cx| cx.heap().wheel().put("x".repeat(MEGABYTES)))
        .state("octets", |cx| cx.heap().wheel().pending_output())
        .spawn(&mut kernel)
        .unwrap();
    run_slices(&mut kernel, 1);
    let left = kernel.call(session, "octets", ()).unwrap().take::<usize>().unwrap();
    assert!((1..MEGABYTES).contains(&left), "{left} octets left");
    theirs.write_all(b"input\n").unwrap();
    run_until(&mut kernel, || log.text() == "input");
    let reader = thread::spawn(move || {
        let mut all = vec![0; MEGABYTES + 2];
        theirs.read_exact(&mut all).unwrap();
        assert!(all.starts_with(b"xxx") && all.ends_with(b"x\r\n"));
        theirs
    });
    run_until(&mut kernel, || log.text() == "input flushed");
    let octets = kernel.call(session, "octets", ()).unwrap().take::<usize>().unwrap();
    assert_eq!(octets, 0);
    drop(reader.join().unwrap());
    run(&mut kernel);
    assert_eq!(log.text(), "input flushed error:read:0");
}

#[test] // K-RW-34, K-DR-04, K-WH-07: the session lives for its alias alone, and ends with it
fn a_write_error_comes_once_and_later_puts_only_add_up() {
    let mut kernel = kernel();
    let log = Log::default();
    let (ours, theirs) = pair();
    drop(theirs);
    let wheel = ReadWrite::stream(ours, Line::new()).on_flushed("flushed").on_error("error");
    let session = owner_of(&log, wheel)
        .state("started", |cx| {
            cx.heap().wheel().put("1");
            cx.alias_set("kept").map_err(lenore::Exception::from)
        })
        .state("put", |cx| {
            assert!(cx.heap().wheel().put("2").is_closed());
            cx.heap().wheel().pending_output()
        })
        .state("error", log_error)
        .state("end", |cx| cx.alias_remove("kept").map_err(lenore::Exception::from))
        .state("_stop", |cx| assert!(cx.heap().wheel.is_some()))
        .spawn(&mut kernel)
        .unwrap();
    run_until(&mut kernel, || log.len() == 1);
    for octets in [6, 9] {
        assert_eq!(kernel.call(session, "put", ()).unwrap().take::<usize>().unwrap(), octets);
        kernel.post(session, "nothing", ()).unwrap();
        run_slices(&mut kernel, 1);
    }
    kernel.call(session, "end", ()).unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), format!("error:write:{}", Errno::EPIPE as i32));
}

#[test] // K-RW-05, K-RW-06: it keeps the session all the same
fn without_an_input_event_nothing_is_read_and_the_end_goes_unnoticed() {
    let mut kernel = kernel();
    let log = Log::default();
    let (ours, mut theirs) = pair();
    theirs.write_all(b"unread\n").unwrap();
    let session = Session::new(Owner { log: log.clone(), wheel: None })
        .args((ours,))
        .state("_start", |cx| {
            let stream = cx.take::<UnixStream>(0)?;
            let wheel = ReadWrite::stream(stream, Line::new()).on_flushed("flushed").on_error("error").start(cx)?;
            // More than the socket takes, so that the poller is asked about it.
            wheel.put("x".repeat(MEGABYTES));
            cx.heap().wheel = Some(wheel);
            Ok(())
        })
        .state("flushed", |cx| cx.heap().log.push("flushed"))
        .state("error", log_error)
        .state("pass", |_| ())
        .spawn(&mut kernel)
        .unwrap();
    run_slices(&mut kernel, 1);
    theirs.shutdown(Shutdown::Write).unwrap();
    for _ in 0..3 {
        kernel.post(session, "pass", ()).unwrap();
        run_slices(&mut kernel, 1);
    }
    assert_eq!(log.text(), "");
    let reader = thread::spawn(move || {
        let mut all = vec![0; MEGABYTES + 2];
        theirs.read_exact(&mut all).unwrap();
        theirs
    });
    run_until(&mut kernel, || log.text() == "flushed");
    drop(reader.join().unwrap());
    for _ in 0..3 {
        kernel.post(session, "pass", ()).unwrap();
        run_slices(&mut kernel, 1);
    }
    assert_eq!(log.text(), "flushed");
    kernel.stop();
}

#[test] // K-RW-37
fn dropping_a_wheel_discards_what_was_not_written() {
    let mut kernel = kernel();
    let log = Log::default();
    let (ours, theirs) = pair();
    owner(&log, ours)
        .state("started", |cx| {
            cx.heap().wheel().put("lost");
            cx.heap().wheel = None;
        })
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    assert_eq!(read_all(theirs), "");
    assert_eq!(log.text(), "");
}

/// The peer's end of either kind of pair.
struct TcpOrUnix(std::fs::File);

impl TcpOrUnix {
    fn shutdown_write(&self) {
        use std::os::fd::AsRawFd;
        nix::sys::socket::shutdown(self.0.as_raw_fd(), nix::sys::socket::Shutdown::Write).unwrap();
    }
}

impl Read for TcpOrUnix {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for TcpOrUnix {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn pair_of_owned<S: Into<OwnedFd>>((ours, theirs): (S, S)) -> (OwnedFd, OwnedFd) {
    (ours.into(), theirs.into())
}

#[test] // one busy loop full of others' turns keeps no answer waiting
fn answers_leave_while_others_still_have_their_turn() {
    let mut kernel = kernel();
    let (mut peers, mut ends) = (Vec::new(), Vec::new());
    for number in 0..CROWD {
        let (ours, mut theirs) = pair();
        writeln!(theirs, "{number}").unwrap();
        theirs.set_nonblocking(true).unwrap();
        ends.push(ours);
        peers.push(theirs);
    }
    let has_answer = |peer: &UnixStream| recv(peer.as_raw_fd(), &mut [0; 8], MsgFlags::MSG_PEEK).is_ok();
    let waiting = Log::default();
    let log = waiting.clone();
    Session::new((Vec::<ReadWrite<Line>>::new(), peers, Vec::new()))
        .args((ends,))
        .state("_start", |cx| {
            for end in cx.take::<Vec<UnixStream>>(0)? {
                let wheel = ReadWrite::stream(end, Line::new()).on_input("input").start(cx)?;
                cx.heap().0.push(wheel);
            }
            Ok(())
        })
        .state("input", move |cx| {
            let id = cx.take(1)?;
            let (wheels, peers, answered) = cx.heap();
            let waiting = answered.iter().filter(|number| !has_answer(&peers[**number])).count();
            log.push(waiting);
            let number = wheels.iter().position(|wheel| wheel.id() == id).expect("one of them");
            wheels[number].put("answer");
            answered.push(number);
            if answered.len() == CROWD {
                wheels.clear();
            }
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    let waiting: Vec<usize> = waiting.text().split(' ').map(|count| count.parse().unwrap()).collect();
    assert_eq!(waiting.len(), CROWD);
    assert!(waiting.iter().all(|count| *count < 4), "{waiting:?}");
}

/// How many wheels are ready at once.
const CROWD: usize = 40;

#[test] // K-LP-25: an answer is given, though a session whose turn comes next stops everything
fn what_was_put_before_a_stop_is_written() {
    let mut kernel = kernel();
    let log = Log::default();
    let mut peers = Vec::new();
    // Turns go by descriptor, and other tests of this process open and close descriptors, too.
    let mut pairs = [pair(), pair(), pair()];
    pairs.sort_by_key(|(ours, _)| ours.as_raw_fd());
    for (number, (ours, mut theirs)) in pairs.into_iter().enumerate() {
        theirs.write_all(b"question\n").unwrap();
        let answer = move |cx: &mut Context<'_, Owner>| {
            cx.heap().wheel().put(format!("answer {number}"));
            if number == 2 {
                cx.stop();
            }
        };
        owner(&log, ours).state("input", answer).spawn(&mut kernel).unwrap();
        peers.push(theirs);
    }
    run(&mut kernel);
    let answers: Vec<String> = peers.into_iter().map(read_all).collect();
    assert_eq!(answers, ["answer 0\r\n", "answer 1\r\n", "answer 2\r\n"]);
}

/// Drops the peer, and puts what can't be written any more.
fn put_to_nobody(cx: &mut Context<'_, Owner>, peer: &RefCell<Option<OwnedFd>>, how: &str) {
    if peer.take().is_some() {
        cx.heap().wheel().put("to nobody");
        if how == "flush" {
            cx.heap().wheel().flush();
        }
    }
}

#[test] // K-RW-34, K-RW-35, K-RW-36, K-RW-41: in each of the wheel's own events, however it is written
fn what_fails_in_one_of_the_wheels_own_events_is_told() {
    for how in ["put", "flush", "auto_flush"] {
        for event in ["input", "error", "flushed", "high", "low", "started"] {
            for has_two in [false, true] {
                let (mut kernel, log) = (kernel(), Log::default());
                let (ours, mut theirs) = pair();
                theirs.write_all(b"in\n").unwrap();
                theirs.shutdown(Shutdown::Write).unwrap();
                let peer = Rc::new(RefCell::new(None));
                let wheel = if has_two {
                    let (from_it, output) = std::io::pipe().unwrap();
                    // The input's peer stays.
                    peer.replace(Some(from_it.into()));
                    ReadWrite::streams(ours, output, Line::new())
                } else {
                    peer.replace(Some(theirs.try_clone().unwrap().into()));
                    drop(theirs);
                    ReadWrite::stream(ours, Line::new())
                };
                let wheel = wheel.on_input("input").on_error("error").on_flushed("flushed");
                let wheel = wheel.watermarks(1, 5).on_high("high").on_low("low");
                let wheel = if how == "auto_flush" { wheel.auto_flush() } else { wheel };
                let mut session = owner_of(&log, wheel)
                    .state("started", |cx| cx.heap().wheel().put("a record"))
                    .state("input", |_| ())
                    .state("flushed", |_| ())
                    .state("high", |_| ())
                    .state("low", |_| ());
                let to = peer.clone();
                session = match event {
                    "error" => session.state("error", move |cx| {
                        log_error(cx)?;
                        put_to_nobody(cx, &to, how);
                        Ok(())
                    }),
                    _ => session.state("error", log_error).state(event, move |cx| put_to_nobody(cx, &to, how)),
                };
                session.state("_stop", |cx| cx.heap().log.push("_stop")).spawn(&mut kernel).unwrap();
                run(&mut kernel);
                let story = log.text();
                let failure = format!("error:write:{}", Errno::EPIPE as i32);
                assert_eq!(log.count(&failure), 1, "{how} in {event}, two descriptors: {has_two}: {story}");
                assert!(story.ends_with("_stop") && story.contains("error:read:"), "{how} in {event}: {story}");
                assert_eq!(log.len(), 3, "{how} in {event}: {story}");
            }
        }
    }
}

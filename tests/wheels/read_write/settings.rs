//! What a wheel can be told: descriptors, filters, events, block size, flushing at once.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{Shutdown, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};

use lenore::filter::{Line, Stream};
use lenore::nfa::Nfa;
use lenore::wheel::{Put, ReadWrite, SocketFactory, StreamEvent};
use lenore::{Session, SessionId};

use super::{Owner, lines, log_input, narrow_pair, owner, owner_of, pair, read_all, tcp_pair};
use util::in_process::{Log, kernel, run, run_slices, run_until};
use util::{DEADLINE, wait_until};

#[test] // K-RW-01: two handles, each with its own half of the work
fn a_wheel_reads_from_one_descriptor_and_writes_to_another() {
    let (mut kernel, log) = (kernel(), Log::default());
    let ((input, mut to_it), (from_it, output)) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
    let wheel = ReadWrite::streams(input, output, Line::new()).on_input("input").on_flushed("flushed");
    owner_of(&log, wheel.on_error("error"))
        .state("input", |cx| {
            let line = cx.take::<String>(0)?;
            let shout = line.to_uppercase();
            cx.heap().wheel().put(shout);
            cx.heap().log.push(line);
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    to_it.write_all(b"one\ntw").unwrap();
    run_until(&mut kernel, || log.text() == "one flushed");
    to_it.write_all(b"o\n").unwrap();
    drop(to_it);
    run(&mut kernel);
    assert_eq!(log.text(), "one flushed two flushed error:read:0");
    assert_eq!(read_all(from_it), "ONE\r\nTWO\r\n");
}

#[test] // K-RW-01: a message is no part of a stream
fn a_datagram_socket_is_refused_and_closed() {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = udp.local_addr().unwrap();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let (stream, mut other) = UnixStream::pair().unwrap();
    let builders = RefCell::new(Some([
        ReadWrite::stream(udp, Line::new()),
        ReadWrite::stream(ours, Line::new()),
        ReadWrite::streams(stream, theirs, Line::new()),
    ]));
    let (mut kernel, log) = (kernel(), Log::default());
    let text = log.clone();
    Session::new(())
        .state("_start", move |cx| {
            for builder in builders.take().expect("it starts once") {
                let error = builder.on_input("input").on_error("error").start(cx).expect_err("it is refused");
                text.push(error);
            }
            assert!(cx.peek().sources.is_empty());
        })
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    let refusal = "invalid handle: it is a datagram socket: watch it with select_read, and receive until WouldBlock";
    assert_eq!(log.take(), [refusal; 3]);
    wait_until("the address to be free", DEADLINE, || UdpSocket::bind(address).ok());
    assert_eq!(other.read(&mut [0; 8]).unwrap(), 0);
}

#[test] // K-RW-01, K-RW-17, K-RW-32: pauses, and a reader of the output that is slow
fn two_pipes_wait_each_for_its_own() {
    let (mut kernel, log) = (kernel(), Log::default());
    let ((input, mut to_it), (mut from_it, output)) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
    let wheel = ReadWrite::streams(input, output, Line::new()).on_input("input").on_flushed("flushed");
    let session = owner_of(&log, wheel.on_error("error"))
        .state("started", |cx| cx.heap().wheel().put("x".repeat(1 << 20)))
        .spawn(&mut kernel)
        .unwrap();
    run_slices(&mut kernel, 1);
    to_it.write_all(b"1\n").unwrap();
    run_until(&mut kernel, || log.text() == "1");
    kernel.call(session, "pause", ()).unwrap();
    to_it.write_all(b"2\n").unwrap();
    let reader = std::thread::spawn(move || {
        from_it.read_exact(&mut vec![0; (1 << 20) + 2]).unwrap();
        from_it
    });
    run_until(&mut kernel, || log.text() == "1 flushed");
    let _reading_end = reader.join().unwrap();
    kernel.call(session, "resume", ()).unwrap();
    run_until(&mut kernel, || log.text() == "1 flushed 2");
    kernel.stop();
}

#[test] // K-RW-02
fn each_direction_may_have_its_own_filter() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, mut theirs) = pair();
    theirs.write_all(b"a\nb").unwrap();
    theirs.shutdown(Shutdown::Write).unwrap();
    Session::new((log.clone(), None::<ReadWrite<Stream, Line>>))
        .args((ours,))
        .state("_start", |cx| {
            let stream = cx.take::<UnixStream>(0)?;
            let output = Line::literal("!")?;
            let wheel =
                ReadWrite::stream(stream, Stream::new()).output_filter(output).on_input("input").on_error("gone");
            cx.heap().1 = Some(wheel.start(cx)?);
            Ok(())
        })
        .state("input", |cx| {
            assert_eq!(cx.take::<Vec<u8>>(0)?, b"a\nb");
            cx.heap().1.as_ref().expect("it is kept").put("c");
            Ok(())
        })
        .state("gone", |cx| cx.heap().1 = None)
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    assert_eq!(read_all(theirs), "c!");
}

#[test] // K-RW-03: without any event it still writes
fn everything_but_the_stream_and_its_filter_may_be_left_out() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, theirs) = pair();
    owner_of(&log, ReadWrite::stream(ours, Line::new()))
        .state("started", |cx| {
            let wheel = cx.heap().wheel.take().expect("it has a wheel");
            assert_eq!(wheel.put("x"), Put::Accepted);
            wheel.flush();
        })
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    assert_eq!(read_all(theirs), "x\r\n");
    assert_eq!(log.text(), "");
}

#[test] // K-RW-13, K-WH-08
fn a_new_input_event_holds_from_the_next_record() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, mut theirs) = pair();
    theirs.write_all(b"1\n2\n3\n").unwrap();
    drop(theirs);
    owner(&log, ours)
        .state("input", |cx| {
            log_input(cx)?;
            cx.heap().wheel().event(StreamEvent::Input, "other");
            Ok(())
        })
        .state("other", |cx| {
            let line = cx.take::<String>(0)?;
            cx.heap().log.push(format!("other:{line}"));
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "1 other:2 other:3 error:read:0");
}

#[test] // K-RW-13: nothing is lost here: without an event the records wait for one
fn without_an_input_event_records_wait_until_there_is_one_again() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, mut theirs) = pair();
    theirs.write_all(b"1\n2\n").unwrap();
    let session = owner(&log, ours)
        .state("input", |cx| {
            log_input(cx)?;
            cx.heap().wheel().event_clear(StreamEvent::Input);
            Ok(())
        })
        .state("again", |cx| cx.heap().wheel().event(StreamEvent::Input, "input"))
        .spawn(&mut kernel)
        .unwrap();
    run_slices(&mut kernel, 1);
    theirs.write_all(b"3\n").unwrap();
    theirs.shutdown(Shutdown::Write).unwrap();
    for expected in ["1", "1 2", "1 2 3"] {
        for _ in 0..3 {
            kernel.post(session, "nothing", ()).unwrap();
            run_slices(&mut kernel, 1);
        }
        assert_eq!(log.text(), expected);
        kernel.call(session, "again", ()).unwrap();
    }
    run(&mut kernel);
    assert_eq!(log.text(), "1 2 3 error:read:0");
}

#[test] // K-WH-08, K-RW-15: the same wheel, with other events than it began with
fn every_event_can_be_given_changed_and_taken_away() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, mut theirs) = pair();
    let session = owner_of(&log, lines(ours).watermarks(1, 10).on_low("low"))
        .state("given", |cx| {
            let wheel = cx.heap().wheel();
            wheel.event(StreamEvent::High, "high");
            wheel.event(StreamEvent::Low, "less");
            wheel.event(StreamEvent::Flushed, "empty");
        })
        .state("cleared", |cx| {
            let wheel = cx.heap().wheel();
            for event in [StreamEvent::High, StreamEvent::Low, StreamEvent::Flushed, StreamEvent::Error] {
                wheel.event_clear(event);
            }
        })
        .state("less", |cx| cx.heap().log.push("less"))
        .state("empty", |cx| cx.heap().log.push("empty"))
        .spawn(&mut kernel)
        .unwrap();
    for state in ["nothing", "given", "cleared"] {
        kernel.call(session, state, ()).unwrap();
        kernel.call(session, "put", ("123456789".to_string(),)).unwrap();
        kernel.post(session, "pass", ()).unwrap();
        run_slices(&mut kernel, 1);
    }
    theirs.shutdown(Shutdown::Write).unwrap();
    for _ in 0..3 {
        kernel.post(session, "nothing", ()).unwrap();
        run_slices(&mut kernel, 1);
    }
    assert_eq!(log.text(), "low flushed pass high less empty pass pass");
    theirs.read_exact(&mut [0; 33]).unwrap();
    kernel.stop();
}

#[test] // K-DR-01, K-DR-02, K-RW-10
fn a_block_is_the_most_that_one_turn_reads() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, mut theirs) = pair();
    theirs.write_all(b"1\n2\n3\n4\n5\n").unwrap();
    let session = owner_of(&log, lines(ours).block_size(4)).spawn(&mut kernel).unwrap();
    for expected in ["1 2", "1 2 3 4", "1 2 3 4 5", "1 2 3 4 5"] {
        run_slices(&mut kernel, 1);
        assert_eq!(log.text(), expected);
        kernel.post(session, "nothing", ()).unwrap();
    }
    kernel.stop();
}

#[test] // K-DR-01: larger than what the kernel reads by itself
fn a_large_block_is_one_turn() {
    let (mut kernel, log) = (kernel(), Log::default());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "x\n".repeat(100_000)).unwrap();
    owner_of(&log, lines(file.reopen().unwrap()).block_size(1 << 20)).spawn(&mut kernel).unwrap();
    run_slices(&mut kernel, 1);
    assert_eq!(log.count("x"), 100_000);
    kernel.stop();
}

#[test] // K-RW-39, K-DR-03, K-DR-05
fn octets_and_messages_that_wait_are_counted() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, mut theirs) = narrow_pair();
    let counts = |cx: &mut lenore::Context<'_, Owner>| {
        let wheel = cx.heap().wheel();
        vec![wheel.pending_output(), wheel.driver_out_messages()]
    };
    let session = owner(&log, ours)
        .state("started", move |cx| {
            assert_eq!(counts(cx), [0, 0]);
            for number in 1..=100 {
                cx.heap().wheel().put("x".repeat(998));
                assert_eq!(counts(cx), [number * 1000, number]);
            }
        })
        .state("counts", counts)
        .spawn(&mut kernel)
        .unwrap();
    run_slices(&mut kernel, 1);
    let mut seen = 0;
    let mut buffer = [0; 700];
    loop {
        let counts: Vec<usize> = kernel.call(session, "counts", ()).unwrap().take().unwrap();
        assert_eq!(counts[1], counts[0].div_ceil(1000), "one that is written in part counts");
        assert!(seen < 100_000 || counts == [0, 0]);
        if seen == 100_000 {
            break;
        }
        seen += theirs.read(&mut buffer).unwrap();
        kernel.post(session, "nothing", ()).unwrap();
        run_slices(&mut kernel, 1);
    }
    assert_eq!(log.text(), "flushed");
    kernel.stop();
}

#[test] // K-RW-36, K-DR-04
fn flush_writes_at_once_and_its_events_follow() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, mut theirs) = narrow_pair();
    let peer = theirs.try_clone().unwrap();
    owner(&log, ours)
        .state("started", move |cx| {
            assert_eq!(cx.heap().wheel().flush(), 0, "nothing to write is nothing left");
            cx.heap().wheel().put("at once");
            assert_eq!(cx.heap().wheel().flush(), 0);
            (&peer).read_exact(&mut [0; 9]).unwrap();
            assert_eq!(cx.heap().log.text(), "", "no event inside flush");
            cx.heap().wheel().put("x".repeat(100_000));
            let left = cx.heap().wheel().flush();
            assert!(left > 0 && left < 100_002, "{left} octets left");
            assert_eq!(cx.heap().wheel().flush(), left, "it takes no more");
            assert_eq!(cx.heap().wheel().pending_output(), left);
        })
        .spawn(&mut kernel)
        .unwrap();
    run_slices(&mut kernel, 1);
    assert_eq!(log.text(), "", "not empty any more");
    let reader = std::thread::spawn(move || {
        theirs.read_exact(&mut vec![0; 100_002]).unwrap();
        theirs
    });
    run_until(&mut kernel, || log.text() == "flushed");
    drop(reader.join().unwrap());
    kernel.stop();
}

#[test] // K-RW-36, K-DR-04: an error of writing leaves what was to be written
fn a_flush_that_fails_tells_what_is_left() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, theirs) = pair();
    drop(theirs);
    owner_of(&log, ReadWrite::stream(ours, Line::new()).on_error("error"))
        .state("started", |cx| {
            cx.heap().wheel().put("lost");
            assert_eq!(cx.heap().wheel().flush(), 6);
        })
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), format!("error:write:{}", nix::errno::Errno::EPIPE as i32));
}

#[test] // K-RW-35
fn auto_flush_writes_inside_a_put_into_an_empty_buffer() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, mut theirs) = pair();
    let peer = theirs.try_clone().unwrap();
    owner_of(&log, lines(ours).auto_flush())
        .state("started", move |cx| {
            for line in ["one", "two"] {
                cx.heap().wheel().put(line);
                assert_eq!(cx.heap().wheel().pending_output(), 0);
                (&peer).read_exact(&mut [0; 5]).unwrap();
            }
            assert_eq!(cx.heap().log.text(), "", "no event inside put");
        })
        .spawn(&mut kernel)
        .unwrap();
    run_slices(&mut kernel, 1);
    assert_eq!(log.text(), "flushed");
    theirs.write_all(b"x\n").unwrap();
    run_until(&mut kernel, || log.text() == "flushed x");
    kernel.stop();
}

#[test] // K-WH-01, K-WH-02, K-WH-07: the wheel is the maker's wherever its handle is, and keeps that session by what it does
fn a_wheel_belongs_to_its_maker_and_ids_go_up() {
    let (mut kernel, log) = (kernel(), Log::default());
    let ((first, first_peer), (second, second_peer)) = (pair(), pair());
    let kept = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    for stream in [first, second] {
        let keeper = kept.clone();
        owner(&log, stream)
            .state("started", move |cx| keeper.borrow_mut().extend(cx.heap().wheel.take()))
            .state("_stop", |cx| cx.heap().log.push("_stop"))
            .state("input", |cx| cx.heap().log.push("input"))
            .state("error", |cx| cx.heap().log.push("error"))
            .spawn(&mut kernel)
            .unwrap();
    }
    run_slices(&mut kernel, 1);
    let ids: Vec<_> = kept.borrow().iter().map(ReadWrite::id).collect();
    assert!(ids[0] < ids[1] && ids[0].to_string().starts_with("wheel "));
    (&first_peer).write_all(b"x\n").unwrap();
    run_until(&mut kernel, || log.text() == "input");
    // The first session loses its only descriptor, the other one's is of use no more.
    let _ = kept.borrow_mut().remove(0);
    kernel.post(SessionId::KERNEL, "nothing", ()).unwrap();
    run_slices(&mut kernel, 1);
    assert_eq!(log.text(), "input _stop");
    drop(second_peer);
    run_until(&mut kernel, || log.text() == "input _stop error");
    kept.borrow()[0].put("to nobody");
    run(&mut kernel);
    assert_eq!(log.text(), "input _stop error error _stop", "alive, and of no use: K-RW-34");
    drop(first_peer);
}

#[test] // K-WH-04
fn what_fails_inside_a_constructor_is_posted() {
    let (mut kernel, log) = (kernel(), Log::default());
    let logged = log.clone();
    Session::new(log.clone())
        .state("_start", |cx| {
            // Port 0 can't be connected to; the address is no host's.
            drop(SocketFactory::tcp("256.0.0.1:0").on_connect("connected").on_error("failed").connect(cx)?);
            cx.heap().push("made");
            cx.yield_("posted", ());
            Ok(())
        })
        .state("failed", move |cx| {
            assert_eq!(cx.args().len(), 1);
            logged.push("failed");
        })
        .state("posted", |cx| cx.heap().push("posted"))
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "made failed posted", "after the constructor, in its turn, though the wheel has gone");
}

#[test] // K-WH-12
fn a_machine_may_have_wheels() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, mut theirs) = tcp_pair();
    theirs.write_all(b"one\ntwo\n").unwrap();
    theirs.shutdown(Shutdown::Write).unwrap();
    let machine = Nfa::new((log.clone(), None::<ReadWrite<Line>>))
        .state("first", "begin", |cx| {
            let stream = cx.take::<std::net::TcpStream>(0)?;
            let wheel = ReadWrite::stream(stream, Line::new()).on_input("input").on_error("gone").start(cx)?;
            cx.runstate().1 = Some(wheel);
            Ok(())
        })
        .state("first", "input", |cx| {
            let line = cx.take::<String>(0)?;
            cx.runstate().0.push(format!("first:{line}"));
            cx.goto_state("second", None, ())
        })
        .state("second", "input", |cx| {
            let line = cx.take::<String>(0)?;
            cx.runstate().0.push(format!("second:{line}"));
            Ok(())
        })
        .state("second", "gone", |cx| {
            let wheel = cx.runstate().1.take().expect("it has a wheel");
            wheel.put("bye");
            wheel.close_after_flush();
        })
        .transitions(lenore::nfa::Transitions::Immediate)
        .spawn(&mut kernel)
        .unwrap();
    machine.goto_state(&mut kernel, "first", "begin", (ours,)).unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "first:one second:two");
    assert_eq!(read_all(theirs), "bye\r\n");
}

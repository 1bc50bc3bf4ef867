//! A transport of the program's own between the wheel and its descriptor.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use lenore::Context;
use lenore::filter::Line;
use lenore::testing::TestKernel;
use lenore::wheel::{ReadWrite, ReadWriteBuilder, Transport};
use nix::errno::Errno;

use super::{MEGABYTES, Owner, log_input, narrow_pair, owner_of, pair};
use util::in_process::{Log, kernel, run, run_until};

/// The first byte that each side sends. Nothing is read or written before.
const HELLO: u8 = b'!';

/// The last one.
const BYE: u8 = b'.';

/// How many bytes one read returns, whatever is inside.
const SIP: usize = 3;

/// Greets, flips every byte, keeps what it has read and written inside, and says when it goes.
struct Flipping {
    socket: UnixStream,
    input: VecDeque<u8>,
    output: VecDeque<u8>,
    has_met: bool,
    is_over: bool,
}

impl Flipping {
    fn new(socket: UnixStream) -> Flipping {
        Flipping { socket, input: VecDeque::new(), output: VecDeque::from([HELLO]), has_met: false, is_over: false }
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut chunk = [0; 1000];
        let count = self.socket.read(&mut chunk)?;
        self.is_over = count == 0;
        for octet in &chunk[..count] {
            match *octet {
                HELLO => self.has_met = true,
                BYE => self.is_over = true,
                octet => self.input.push_back(octet ^ 0x80),
            }
        }
        Ok(())
    }
}

impl AsFd for Flipping {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Transport for Flipping {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.input.is_empty() && !self.is_over {
            self.fill()?;
        }
        let count = self.input.len().min(buffer.len()).min(SIP);
        self.input.drain(..count).zip(buffer).for_each(|(octet, place)| *place = octet);
        Ok(count)
    }

    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        // As a handshake that is not over: nothing can be written before something was read.
        if !self.has_met || self.output.len() > 10_000 {
            let _ = self.advance();
            return Err(ErrorKind::WouldBlock.into());
        }
        let taken = octets.len().min(5000);
        self.output.extend(octets[..taken].iter().map(|octet| octet ^ 0x80));
        Ok(taken)
    }

    fn advance(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            let count = self.socket.write(self.output.make_contiguous())?;
            self.output.drain(..count);
        }
        while self.wants_read() {
            self.fill()?;
        }
        Ok(())
    }

    fn wants_read(&self) -> bool {
        !self.has_met && !self.is_over
    }

    fn has_input(&self) -> bool {
        !self.input.is_empty() || self.is_over
    }

    fn wants_write(&self) -> bool {
        !self.output.is_empty()
    }

    fn shut_down(&mut self) -> io::Result<()> {
        self.output.push_back(BYE);
        let _ = self.advance();
        Ok(())
    }
}

fn over(transport: impl Transport) -> ReadWriteBuilder<Line> {
    ReadWrite::transport(transport, Line::new())
        .on_input("input")
        .on_flushed("flushed")
        .on_error("error")
        .on_refused("refused")
}

fn flipped(text: &str) -> Vec<u8> {
    text.bytes().map(|octet| octet ^ 0x80).collect()
}

#[test] // K-RW-43: what is put waits for the handshake, and what is inside comes without the descriptor's having any
fn records_pass_through_a_transport_that_greets_and_keeps_octets_inside() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, mut theirs) = pair();
    let session = owner_of(&log, over(Flipping::new(ours)));
    let session = session.state("started", |cx| _ = cx.heap().wheel().put("early")).spawn(&mut kernel).unwrap();
    let mut hello = [0];
    theirs.set_nonblocking(true).unwrap();
    run_until(&mut kernel, || theirs.read(&mut hello).is_ok_and(|count| count == 1));
    theirs.set_nonblocking(false).unwrap();
    assert_eq!((hello, log.text().as_str()), ([HELLO], ""), "the greeting alone");
    theirs.write_all(&[&[HELLO][..], &flipped("one\nthe second line\nthree\n")].concat()).unwrap();
    run_until(&mut kernel, || log.count("three") == 1 && log.count("flushed") == 1);
    kernel.post(session, "put", (String::from("late"),)).unwrap();
    run_until(&mut kernel, || log.count("flushed") == 2);
    theirs.write_all(&[BYE]).unwrap();
    run(&mut kernel);
    let lines: Vec<String> = log.take().into_iter().filter(|entry| entry != "flushed").collect();
    assert_eq!(lines, ["one", "the second line", "three", "error:read:0"]);
    let mut seen = Vec::new();
    theirs.read_to_end(&mut seen).unwrap();
    assert_eq!(seen, flipped("early\r\nlate\r\n"));
}

#[test] // K-RW-43, K-RE-33: the wheel closes when all is out, the transport's last words as well
fn close_after_flush_waits_for_what_a_transport_holds() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, mut theirs) = narrow_pair();
    theirs.write_all(&[HELLO]).unwrap();
    owner_of(&log, over(Flipping::new(ours)))
        .state("started", |cx| {
            let wheel = cx.heap().wheel.take().expect("it has a wheel");
            wheel.put("x".repeat(MEGABYTES));
            wheel.close_after_flush();
        })
        .spawn(&mut kernel)
        .unwrap();
    let reader = thread::spawn(move || {
        let mut seen = Vec::new();
        let mut chunk = [0; 16 * 1024];
        while seen.last() != Some(&BYE) {
            let count = theirs.read(&mut chunk).expect("no reset");
            assert!(count > 0, "closed after {} octets", seen.len());
            seen.extend_from_slice(&chunk[..count]);
        }
        seen.len()
    });
    run(&mut kernel);
    assert_eq!(reader.join().unwrap(), 1 + MEGABYTES + 2 + 1);
}

/// Reads what `Flipping` sends up to its last word, and then closes. Returns how many bytes and how many last words came.
fn read_to_bye(mut theirs: UnixStream) -> (usize, usize) {
    let (mut octets, mut byes, mut chunk) = (0, 0, [0; 16 * 1024]);
    loop {
        let count = theirs.read(&mut chunk).expect("no reset");
        if count == 0 {
            return (octets, byes);
        }
        let new = chunk[..count].iter().filter(|octet| **octet == BYE).count();
        octets += count - new;
        byes += new;
        if new > 0 {
            // It may have closed already.
            let _ = theirs.shutdown(Shutdown::Write);
        }
    }
}

type Step = fn(&mut Context<'_, Owner>);

fn take(cx: &mut Context<'_, Owner>) -> ReadWrite<Line> {
    cx.heap().wheel.take().expect("it has a wheel")
}

/// Puts megabytes does `end` at once, and `flushed` when they are written. Returns what the peer has got.
fn put_and_end(end: Step, flushed: Step, linger: Duration, has_ended: bool) -> (usize, usize) {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, mut theirs) = narrow_pair();
    theirs.write_all(&[HELLO]).unwrap();
    if has_ended {
        theirs.shutdown(Shutdown::Write).unwrap();
    }
    let begin = move |cx: &mut Context<'_, Owner>| {
        cx.heap().log.push("begun");
        cx.heap().wheel().put("x".repeat(MEGABYTES));
        end(cx);
    };
    let session = owner_of(&log, over(Flipping::new(ours)).close_timeout(linger)).state("flushed", flushed);
    let session = session
        .state("started", move |cx| {
            if !has_ended {
                begin(cx)
            }
        })
        .state("error", move |cx| if cx.heap().log.is_empty() { begin(cx) } else { cx.heap().wheel = None });
    session.spawn(&mut kernel).unwrap();
    let reader = thread::spawn(move || read_to_bye(theirs));
    run(&mut kernel);
    drop(kernel);
    reader.join().unwrap()
}

#[test] // K-RW-43: whether the wheel stays or closes by itself, and whether or not the peer has ended its own side
fn what_a_transport_holds_and_its_last_word_are_out_before_the_wheel_closes() {
    let ends: [(&str, Step, Step); 4] = [
        ("shutdown_output_after_flush", |cx| cx.heap().wheel().shutdown_output_after_flush(), |_| ()),
        ("close_after_flush", |cx| take(cx).close_after_flush(), |_| ()),
        ("close_after_flush in the flushed event", |_| (), |cx| take(cx).close_after_flush()),
        ("both", |cx| cx.heap().wheel().shutdown_output_after_flush(), |cx| take(cx).close_after_flush()),
    ];
    for (name, end, flushed) in ends {
        for (linger, has_ended) in [(0, false), (0, true), (10, false), (10, true)] {
            let seen = put_and_end(end, flushed, Duration::from_secs(linger), has_ended);
            assert_eq!(seen, (1 + MEGABYTES + 2, 1), "{name}, linger {linger} s, peer has ended: {has_ended}");
        }
    }
}

#[test] // K-RW-43: dropping the wheel in its flushed event is POE's way to close
fn flushed_event_waits_for_what_a_transport_holds() {
    let seen = put_and_end(|_| (), |cx| cx.heap().wheel = None, Duration::ZERO, false);
    assert_eq!(seen, (1 + MEGABYTES + 2, 0));
}

#[test] // K-RW-43
fn handshake_begins_without_an_input_event() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, mut theirs) = pair();
    owner_of(&log, ReadWrite::transport(Flipping::new(ours), Line::new())).spawn(&mut kernel).unwrap();
    theirs.set_nonblocking(true).unwrap();
    let mut hello = [0];
    run_until(&mut kernel, || theirs.read(&mut hello).is_ok_and(|count| count == 1));
    assert_eq!(hello, [HELLO]);
}

#[test] // K-RW-43, K-RW-34: the end of the input is not the end of a handshake, for which the output waits
fn handshake_goes_on_after_shutdown_input() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, mut theirs) = pair();
    let session = owner_of(&log, over(Flipping::new(ours))).state("started", |cx| {
        cx.heap().wheel().put("text");
        cx.heap().wheel().shutdown_input();
        cx.yield_("input is shut down", ());
    });
    let session = session.state("input is shut down", |cx| cx.heap().log.push("shut"));
    session.state("flushed", |cx| cx.heap().wheel = None).spawn(&mut kernel).unwrap();
    run_until(&mut kernel, || log.count("shut") == 1);
    theirs.write_all(&[HELLO]).unwrap();
    run(&mut kernel);
    let mut seen = Vec::new();
    theirs.read_to_end(&mut seen).unwrap();
    assert_eq!(seen, [&[HELLO][..], &flipped("text\r\n")].concat());
}

/// Fails in one of its calls.
struct Failing {
    socket: UnixStream,
    fault: Fault,
}

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    Read,
    Write,
    Advance,
    WriteNothing,
    PanicInRead,
    PanicInWrite,
}

impl AsFd for Failing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Transport for Failing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.fault {
            Fault::Read => Err(io::Error::other("bad certificate")),
            Fault::PanicInRead => panic!("bad certificate"),
            _ => self.socket.read(buffer),
        }
    }

    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self.fault {
            Fault::Write => Err(io::Error::other("bad certificate")),
            Fault::WriteNothing => Ok(0),
            Fault::PanicInWrite => panic!("bad certificate"),
            _ => self.socket.write(octets),
        }
    }

    fn advance(&mut self) -> io::Result<()> {
        if self.fault == Fault::Advance { Err(Errno::EPROTO.into()) } else { Ok(()) }
    }

    fn shut_down(&mut self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }
}

#[test] // K-RW-43: an error without an errno is EIO, as 0 would be the end of file; a panic ends no kernel
fn what_goes_wrong_in_a_transport_is_an_error_event() {
    let io = Errno::EIO as i32;
    for (fault, expected) in [
        (Fault::Read, format!("error:read:{io}")),
        (Fault::Write, format!("error:write:{io}")),
        (Fault::Advance, format!("error:write:{}", Errno::EPROTO as i32)),
        (Fault::WriteNothing, format!("error:write:{io}")),
        (Fault::PanicInRead, format!("error:read:{io}")),
        (Fault::PanicInWrite, format!("error:write:{io}")),
    ] {
        let (mut kernel, log) = (kernel(), Log::default());
        let (ours, mut theirs) = pair();
        theirs.write_all(b"line\n").unwrap();
        let session = owner_of(&log, over(Failing { socket: ours, fault }));
        let session = session.state("input", log_input).state("started", |cx| _ = cx.heap().wheel().put("text"));
        session.spawn(&mut kernel).unwrap();
        run(&mut kernel);
        assert_eq!(log.take().last(), Some(&expected));
    }
}

/// A transport that is ready once the first byte was read.
struct Slow {
    socket: UnixStream,
    is_ready: bool,
}

impl AsFd for Slow {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Transport for Slow {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.advance()?;
        self.socket.read(buffer)
    }

    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.advance()?;
        self.socket.write(octets)
    }

    fn advance(&mut self) -> io::Result<()> {
        if !self.is_ready {
            self.socket.read_exact(&mut [0])?;
            self.is_ready = true;
        }
        Ok(())
    }

    fn wants_read(&self) -> bool {
        !self.is_ready
    }

    fn is_ready(&self) -> bool {
        self.is_ready
    }

    fn shut_down(&mut self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }
}

fn slow(socket: UnixStream) -> ReadWriteBuilder<Line> {
    over(Slow { socket, is_ready: false }).on_ready("ready")
}

#[test] // the time to write is longer, and bounds something else
fn handshake_timeout_ends_a_wheel_that_closes_after_flush() {
    let (mut kernel, log) = (TestKernel::new(), Log::default());
    let (ours, mut theirs) = pair();
    theirs.set_nonblocking(true).unwrap();
    let [short, long] = [5, 60].map(Duration::from_secs);
    owner_of(&log, slow(ours).handshake_timeout(short).write_timeout(long))
        .state("started", |cx| {
            let wheel = take(cx);
            wheel.put("text");
            wheel.close_after_flush();
        })
        .spawn(&mut kernel)
        .unwrap();
    kernel.advance(short - Duration::from_millis(1));
    assert_eq!(theirs.read(&mut [0]).map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
    kernel.advance(Duration::from_millis(1));
    assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
    assert!(!kernel.has_sessions());
}

#[test]
fn write_timeout_bounds_a_wheel_that_closes_after_flush_behind_its_handshake() {
    let (mut kernel, log) = (TestKernel::new(), Log::default());
    let (ours, mut theirs) = narrow_pair();
    theirs.set_nonblocking(true).unwrap();
    let [short, long] = [5, 60].map(Duration::from_secs);
    owner_of(&log, slow(ours).handshake_timeout(short).write_timeout(long))
        .state("started", |cx| {
            let wheel = take(cx);
            wheel.put("x".repeat(MEGABYTES));
            wheel.close_after_flush();
        })
        .spawn(&mut kernel)
        .unwrap();
    kernel.advance(Duration::from_secs(1));
    theirs.write_all(b"!").unwrap();
    // The first look, after a minute, finds that something was written. The second one finds that nothing was.
    kernel.advance(Duration::from_secs(118));
    assert!(kernel.has_sessions());
    kernel.advance(Duration::from_secs(1));
    assert!(!kernel.has_sessions(), "the peer takes nothing");
}

#[test]
fn records_come_behind_the_die_signal_of_a_ready_event_that_fails() {
    let (mut kernel, log) = (kernel(), Log::default());
    let (ours, mut theirs) = pair();
    let session =
        owner_of(&log, slow(ours)).state("ready", |_| -> lenore::Result { Err(io::Error::other("no").into()) });
    let session = session.state("die", |cx| {
        cx.sig_handled();
        cx.heap().log.push("died");
    });
    session.state("started", |cx| cx.heap().log.push("started")).spawn(&mut kernel).unwrap();
    run_until(&mut kernel, || log.count("started") == 1);
    log.take();
    theirs.write_all(b"!line\n").unwrap();
    run_until(&mut kernel, || log.count("line") == 1);
    assert_eq!(log.text(), "died line");
}

//! A stream between the program and the test.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

/// Makes two connected streams: one for the program, and one that the test writes and reads.
///
/// The program's end is a non-blocking UNIX socket, which [`ReadWrite::stream`](crate::wheel::ReadWrite::stream) takes. What is
/// written at one end can be read at the other at once. So after [`TestKernel::settle`](super::TestKernel::settle) the test has the
/// program's answer. No network is involved.
///
/// ```
/// use std::os::unix::net::UnixStream;
/// use lenore::Session;
/// use lenore::filter::Line;
/// use lenore::testing::{TestKernel, pair};
/// use lenore::wheel::ReadWrite;
///
/// let (stream, mut peer) = pair();
/// let mut kernel = TestKernel::new();
/// Session::new(None)
///     .args((stream,))
///     .state("_start", |cx| {
///         let stream: UnixStream = cx.take(0)?;
///         let wheel = ReadWrite::stream(stream, Line::new()).on_input("line").start(cx)?;
///         *cx.heap() = Some(wheel);
///         Ok(())
///     })
///     .state("line", |cx| {
///         let line: String = cx.take(0)?;
///         cx.heap().as_ref().unwrap().put(line.to_uppercase());
///         Ok(())
///     })
///     .spawn(&mut kernel)
///     .unwrap();
///
/// peer.write("hello\n");
/// kernel.settle();
/// peer.expect("HELLO\r\n");
/// ```
///
/// # Panics
///
/// When the system refuses a pair of sockets, usually because the process has run out of file descriptors.
#[track_caller]
pub fn pair() -> (UnixStream, Peer) {
    let made = UnixStream::pair().and_then(|(program, test)| {
        program.set_nonblocking(true)?;
        Ok((program, Peer::new(test)?))
    });
    match made {
        Ok(pair) => pair,
        Err(error) => panic!("the test can't have a pair of sockets: {error}"),
    }
}

/// The test's end of a stream, whose other end the program has. Dropping it closes the stream.
///
/// If the test drops a peer before it has read everything that the program wrote, the program's next read fails with
/// `ECONNRESET`, as it does with any UNIX socket. If the program should find the end of its input instead, read first,
/// or use [`close_write`](Peer::close_write).
///
/// No method waits. If a method does not succeed at once, the test fails, with a text that says what the program has
/// written or not read. [`pair`] makes a peer, and [`new`](Peer::new) makes one from any UNIX socket. So a test that
/// has no program yet can write and read at both ends.
///
/// ```
/// use lenore::testing::{Peer, pair};
///
/// let (program, mut peer) = pair();
/// let mut program = Peer::new(program).unwrap();
/// program.write("220 ready\r\n");
/// peer.expect("220 ready\r\n");
/// drop(program);
/// peer.expect_end();
/// ```
///
/// POE: nothing like it.
#[derive(Debug)]
pub struct Peer {
    stream: UnixStream,
    has_ended: bool,
}

impl Peer {
    /// Takes over a connected stream, which is made non-blocking.
    ///
    /// # Errors
    ///
    /// When the system refuses that.
    pub fn new(stream: UnixStream) -> io::Result<Peer> {
        stream.set_nonblocking(true)?;
        Ok(Peer { stream, has_ended: false })
    }

    /// Sends all of `bytes` to the program, which reads them when its kernel runs next.
    ///
    /// # Panics
    ///
    /// When the program has closed its end, or has not read what was sent before and the stream holds no more: some 200 KB.
    #[track_caller]
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        match self.try_write(bytes) {
            Ok(count) if count == bytes.len() => {}
            Ok(count) => panic!(
                "the stream is full: it has taken {count} of {} bytes, and the program does not read",
                bytes.len()
            ),
            Err(error) => panic!("can't write {}: {error}", shown(bytes)),
        }
    }

    /// Sends as many of `bytes` as the stream takes now, and returns their number; for tests of programs that don't read.
    ///
    /// # Panics
    ///
    /// When the program has closed its end.
    #[track_caller]
    pub fn write_some(&mut self, bytes: impl AsRef<[u8]>) -> usize {
        match self.try_write(bytes.as_ref()) {
            Ok(count) => count,
            Err(error) => panic!("can't write {}: {error}", shown(bytes.as_ref())),
        }
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut count = 0;
        while count < bytes.len() {
            match self.stream.write(&bytes[count..]) {
                Ok(0) => break,
                Ok(written) => count += written,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    }

    /// Returns all that the program has written since the last time; empty if it has written nothing.
    ///
    /// # Panics
    ///
    /// When the stream can't be read. If the program has closed its end, this returns what it wrote before that.
    #[track_caller]
    pub fn read(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        // This comes to an end: the program does not run meanwhile, so it writes no more.
        match self.stream.read_to_end(&mut all) {
            Ok(_) => self.has_ended = true,
            // The program has closed its end without reading all that was sent to it. That is an end as well.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => self.has_ended = true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("can't read what the program has written: {error}"),
        }
        all
    }

    /// Compares all that the program has written since the last time with what the test expects.
    ///
    /// # Panics
    ///
    /// When the two differ. The text shows both.
    #[track_caller]
    pub fn expect(&mut self, expected: impl AsRef<[u8]>) {
        let (expected, got) = (expected.as_ref(), self.read());
        if got != expected {
            let end = if self.has_ended { ", and closed the stream" } else { "" };
            panic!(
                "the program has written other bytes{end}\n  expected {}\n       got {}",
                shown(expected),
                shown(&got)
            );
        }
    }

    /// Does what [`expect`](Peer::expect) does when the program should have written nothing, and not have closed the stream.
    ///
    /// # Panics
    ///
    /// When it has done either.
    #[track_caller]
    pub fn expect_nothing(&mut self) {
        self.expect("");
        assert!(!self.has_ended, "the program has closed the stream");
    }

    /// Checks that the program has closed the stream or its writing half, and has written nothing that the test has not
    /// read.
    ///
    /// It waits for the end for up to a second: another test of the same process may be starting a program, which has a copy of the
    /// stream until it is executed.
    ///
    /// # Panics
    ///
    /// When the program has not closed the stream, or has written more.
    #[track_caller]
    pub fn expect_end(&mut self) {
        let begun = Instant::now();
        let mut rest = self.read();
        while rest.is_empty() && !self.has_ended && begun.elapsed() < END_DEADLINE {
            thread::sleep(Duration::from_millis(1));
            rest = self.read();
        }
        assert!(rest.is_empty(), "the program has written more: {}", shown(&rest));
        assert!(self.has_ended, "the program has not closed the stream");
    }

    /// Closes the writing half: the program reads the end of its input, and can still write.
    ///
    /// # Panics
    ///
    /// When the system refuses that.
    #[track_caller]
    pub fn close_write(&mut self) {
        match self.stream.shutdown(Shutdown::Write) {
            // The program has closed its end.
            Err(error) if error.kind() == ErrorKind::NotConnected => {}
            Err(error) => panic!("can't close the stream for writing: {error}"),
            Ok(()) => {}
        }
    }
}

/// Shows bytes as text, with escapes for those that are none, and the middle of many left out.
fn shown(bytes: &[u8]) -> String {
    let part = |bytes: &[u8]| bytes.escape_ascii().to_string();
    match bytes.len() {
        ..=SHOWN => format!("\"{}\"", part(bytes)),
        length => {
            let (begin, end) = (&bytes[..SHOWN / 2], &bytes[length - SHOWN / 2..]);
            format!("\"{}\" ... \"{}\" ({length} bytes)", part(begin), part(end))
        }
    }
}

/// How many bytes are shown at most.
const SHOWN: usize = 400;

/// How long the end of a stream is waited for that the program has closed.
const END_DEADLINE: Duration = Duration::from_secs(1);

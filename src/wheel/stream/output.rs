//! The bytes that wait to be written to one descriptor.

use std::collections::VecDeque;
use std::io;

use super::Stream;

/// Bytes to be written, from `start` on.
#[derive(Default)]
pub(crate) struct Output {
    pub(crate) bytes: Vec<u8>,
    start: usize,
    /// Where in `bytes` each message ends that is not completely written.
    ends: VecDeque<usize>,
    /// Set once nothing can be written any more: how many bytes and messages were put and not written. They are not
    /// kept.
    lost: Option<(usize, usize)>,
    /// How many bytes were written in all; it may wrap.
    written: usize,
}

impl Output {
    /// Returns how many bytes wait.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.start + self.lost.map_or(0, |(octets, _)| octets)
    }

    /// Returns how many bytes were written in all. The number changes when the peer takes any.
    pub(crate) fn written(&self) -> usize {
        self.written
    }

    /// Returns how many messages wait, one of which may be written in part.
    pub(crate) fn messages(&self) -> usize {
        self.ends.len() + self.lost.map_or(0, |(_, messages)| messages)
    }

    /// Discards all bytes, and only counts from now on.
    #[cold]
    pub(crate) fn give_up(&mut self) {
        let lost = (self.len(), self.messages());
        *self = Output { lost: Some(lost), written: self.written, ..Output::default() };
    }

    /// Marks the bytes appended to `bytes` as one message, unless there are none.
    pub(crate) fn end_message(&mut self) {
        if let Some((octets, messages)) = &mut self.lost {
            *octets += self.bytes.len();
            *messages += usize::from(!self.bytes.is_empty());
            self.bytes.clear();
            return;
        }
        let end = self.bytes.len();
        if end > self.ends.back().copied().unwrap_or(self.start) {
            self.ends.push_back(end);
        }
        // If a peer reads slowly but without a pause, the buffer must not keep everything that the peer has read.
        if self.start > KEPT && self.start > self.len() {
            self.bytes.drain(..self.start);
            self.ends.iter_mut().for_each(|end| *end -= self.start);
            self.start = 0;
        }
    }

    pub(crate) fn clear(&mut self) {
        self.lost = None;
        self.bytes.clear();
        self.ends.clear();
        self.start = 0;
        // The memory for one slow peer's output is not kept forever.
        if self.bytes.capacity() > KEPT || self.ends.capacity() > KEPT_ENDS {
            self.bytes.shrink_to(KEPT);
            self.ends.shrink_to(KEPT_ENDS);
        }
    }

    /// Writes everything, or as much as `stream` takes in `calls` system calls. The rest stays. Returns the stream's
    /// error, which may be `WouldBlock`.
    pub(crate) fn write_to(&mut self, stream: &Stream, calls: usize) -> io::Result<()> {
        for _ in 0..calls {
            if self.len() == 0 {
                break;
            }
            let end = self.bytes.len().min(self.start + OCTETS_PER_WRITE);
            match stream.write(&self.bytes[self.start..end]) {
                Ok(count) => {
                    self.start += count;
                    self.written = self.written.wrapping_add(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.drop_written();
                    return Err(error);
                }
            }
        }
        if self.len() == 0 {
            self.clear()
        } else {
            self.drop_written()
        }
        Ok(())
    }

    fn drop_written(&mut self) {
        let written = self.ends.partition_point(|end| *end <= self.start);
        self.ends.drain(..written);
    }
}

/// How often a turn writes at most. Otherwise a peer that reads as fast as this process writes would keep other wheels
/// waiting.
pub(crate) const WRITES_PER_TURN: usize = 8;

/// How much one write takes at most. A larger system call could last as long as the peer goes on reading.
const OCTETS_PER_WRITE: usize = 128 * 1024;

/// How much memory an empty buffer keeps.
const KEPT: usize = 64 * 1024;

/// The same for the ends of messages, in messages.
const KEPT_ENDS: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::kernel::set_nonblocking;
    use crate::testing::TempDir;

    fn put(output: &mut Output, octets: &[u8]) {
        output.bytes.extend_from_slice(octets);
        output.end_message();
    }

    #[test] // a reader that is always a little behind: the buffer is never empty, and never more than what waits
    fn what_was_written_is_given_back_though_something_always_waits() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let ours = Stream::new(ours.into());
        let mut output = Output::default();
        let (mut sent, mut seen) = (Vec::new(), Vec::new());
        let mut chunk = vec![0; 10_000];
        for number in 0..2000_u32 {
            let message = number.to_string().repeat(2000);
            sent.extend_from_slice(message.as_bytes());
            put(&mut output, message.as_bytes());
            while output.len() > 200_000 {
                let _ = output.write_to(&ours, 1);
                let count = theirs.read(&mut chunk).unwrap();
                seen.extend_from_slice(&chunk[..count]);
            }
            assert!(output.bytes.len() < 600_000, "{} bytes for {} that wait", output.bytes.len(), output.len());
            assert_eq!(output.messages(), output.ends.len());
        }
        assert!(sent.len() > 10_000_000 && output.len() > 0);
        while seen.len() < sent.len() {
            let _ = output.write_to(&ours, 1);
            let count = theirs.read(&mut chunk).unwrap();
            seen.extend_from_slice(&chunk[..count]);
        }
        assert!(seen == sent, "in order, and all of it");
        assert_eq!((output.len(), output.messages()), (0, 0));
    }

    #[test] // a file takes whatever it is given, as a peer does that reads all the time
    fn no_write_is_given_more_than_its_share() {
        let dir = TempDir::new();
        let ours = Stream::new(File::create(dir.path().join("file")).unwrap().into());
        let mut output = Output::default();
        put(&mut output, &[0; 3 * OCTETS_PER_WRITE]);
        output.write_to(&ours, 1).unwrap();
        assert_eq!(output.len(), 2 * OCTETS_PER_WRITE);
    }

    #[test] // K-RU-44: octets and records, whatever a pipe takes at a time
    fn what_waits_is_counted_while_it_is_written() {
        let (mut theirs, ours) = std::io::pipe().unwrap();
        set_nonblocking(&ours).unwrap();
        let ours = Stream::new(ours.into());
        let mut output = Output::default();
        for number in 0..1000_usize {
            put(&mut output, &[number as u8; 997]);
        }
        put(&mut output, b"");
        let whole = output.len();
        let mut seen = Vec::new();
        while output.len() > 0 {
            let _ = output.write_to(&ours, 1);
            let mut chunk = [0; 5000];
            let count = theirs.read(&mut chunk).unwrap();
            seen.extend_from_slice(&chunk[..count]);
            let written = whole - output.len();
            assert_eq!(output.messages(), 1000 - written / 997);
        }
        drop(ours);
        theirs.read_to_end(&mut seen).unwrap();
        assert_eq!(seen.len(), whole);
        assert!(seen.chunks(997).enumerate().all(|(number, record)| record.iter().all(|octet| *octet == number as u8)));
    }

    #[test] // K-RW-34: what nobody will get is counted, and no memory is spent on it
    fn what_is_given_up_is_counted_and_not_kept() {
        let mut output = Output::default();
        put(&mut output, b"abc");
        output.give_up();
        for _ in 0..1000 {
            put(&mut output, &[0; 1000]);
        }
        put(&mut output, b"");
        assert_eq!((output.len(), output.messages()), (1_000_003, 1001));
        assert!(output.bytes.capacity() < 10_000 && output.ends.is_empty());
        output.clear();
        assert_eq!((output.len(), output.messages()), (0, 0));
    }

    #[test] // K-DR-05, K-DR-03: written in part it counts, and nothing is no message
    fn messages_are_those_not_written_whole() {
        let mut output = Output::default();
        for message in [&b"abc"[..], b"", b"de"] {
            put(&mut output, message);
        }
        assert_eq!((output.len(), output.messages()), (5, 2));
        for (written, messages) in [(2, 2), (3, 1), (4, 1)] {
            output.start = written;
            output.drop_written();
            assert_eq!(output.messages(), messages, "with {written} bytes written");
        }
    }
}

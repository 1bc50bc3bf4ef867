//! A file that grows, as far as it has been read.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::kernel::{Due, nanos, set_nonblocking};

/// The file that a wheel follows.
pub(super) enum Followed {
    /// The wheel asks it again and again for more.
    Regular(Regular),
    /// A FIFO, socket or terminal, which the poller can watch.
    Stream { fd: OwnedFd, end: StreamEnd },
}

/// What the end of a stream means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamEnd {
    /// An error: the peer of a socket has gone, or a terminal was closed.
    Error,
    /// No process writes to the FIFO for now.
    Idle,
}

impl Followed {
    /// Opens `path`; a FIFO so that it never comes to its end.
    pub(super) fn open(path: &Path) -> io::Result<Followed> {
        let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let open = |options: &mut OpenOptions| options.read(true).custom_flags(flags.bits()).open(path);
        let file = open(&mut OpenOptions::new())?;
        let is_fifo = file.metadata()?.file_type().is_fifo();
        Followed::new(if is_fifo { open(OpenOptions::new().write(true))? } else { file })
    }

    /// Takes a file over, to be read from its start.
    pub(super) fn new(file: File) -> io::Result<Followed> {
        let about = file.metadata()?;
        let kind = about.file_type();
        if kind.is_dir() {
            return Err(Errno::EISDIR.into());
        }
        if kind.is_file() {
            return Ok(Followed::Regular(Regular::new(file, &about)));
        }
        set_nonblocking(&file)?;
        let is_terminal = std::io::IsTerminal::is_terminal(&file);
        let end = if kind.is_socket() || is_terminal { StreamEnd::Error } else { StreamEnd::Idle };
        Ok(Followed::Stream { fd: file.into(), end })
    }
}

/// A regular file.
pub(super) struct Regular {
    file: File,
    identity: FileId,
    /// How far the wheel has read the file.
    offset: u64,
    /// The last bytes before `offset`, up to [`MEMORY`] of them. If they have changed, the file was rewritten, even if
    /// it has since grown past `offset`.
    before: Vec<u8>,
    /// When the file was last written to, noted while it ended at `offset`.
    written: Option<Time>,
    /// Since when the wheel has known that the file was written to without growing.
    suspected: Option<Due>,
}

/// Device and inode. No other file has the same pair while this one is open.
pub(super) type FileId = (u64, u64);

/// Seconds and nanoseconds, as the file system counts them.
type Time = (i64, i64);

/// The result of a look at a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News<'a> {
    Data(&'a [u8]),
    Nothing,
    /// The file was written to, and is as long as before. Either a write is under way, or the file was rewritten. The
    /// look after [`WRITE_TAKES`] decides.
    Suspect,
    /// It is shorter than it was, or its content has changed.
    Rewritten,
}

/// How many of the bytes read are remembered. They are enough for two lines with times of day in them.
const MEMORY: usize = 256;

/// How long a write may take between the file's new time and its new length. The file system changes the time first, and
/// may have to wait for its journal before it comes to the data.
pub(super) const WRITE_TAKES: Duration = Duration::from_secs(2);

impl Regular {
    fn new(file: File, about: &Metadata) -> Regular {
        Regular { file, identity: identity(about), offset: 0, before: Vec::new(), written: None, suspected: None }
    }

    /// Reads what is new, as much as fits. The first [`MEMORY`] bytes of `buffer` are for comparing.
    ///
    /// The read neither uses nor moves the descriptor's own offset, which other processes may share.
    pub(super) fn read<'a>(&mut self, buffer: &'a mut [u8], now: Due) -> io::Result<News<'a>> {
        // The metadata comes before the read, because the read changes the time of the last access, and so that a later
        // write has a later time.
        let about = self.file.metadata()?;
        let known = self.before.len();
        let count = self.read_at(buffer, self.offset - known as u64)?;
        if count < known {
            // The read may be short for another reason than the file's length. Then the next look decides.
            let is_shorter = self.file.metadata()?.len() < self.offset;
            return Ok(if is_shorter { News::Rewritten } else { News::Nothing });
        }
        let (before, new) = buffer[..count].split_at(known);
        if before != self.before {
            return Ok(News::Rewritten);
        }
        if new.is_empty() {
            return Ok(self.at_end(&about, now));
        }
        self.offset += new.len() as u64;
        self.note_end(&about);
        self.before.extend_from_slice(&new[new.len().saturating_sub(MEMORY)..]);
        self.before.drain(..self.before.len().saturating_sub(MEMORY));
        Ok(News::Data(new))
    }

    /// Tells whether a file that has been read to its end was rewritten with the same content.
    ///
    /// Only its times can tell. The file was written to, and is not longer. A write sets the times of the content and
    /// of the inode to the same moment, and leaves the time of the last access alone. `touch` sets all three.
    fn at_end(&mut self, about: &Metadata, now: Due) -> News<'static> {
        if about.len() != self.offset || self.offset == 0 {
            return News::Nothing;
        }
        if let Some(since) = self.suspected {
            return if now.saturating_sub(since) >= nanos(WRITE_TAKES) { News::Rewritten } else { News::Suspect };
        }
        let written = (about.mtime(), about.mtime_nsec());
        let is_other = self.written.replace(written).is_some_and(|before| before != written);
        let by_a_write = written == (about.ctime(), about.ctime_nsec());
        let touched = written == (about.atime(), about.atime_nsec());
        if is_other && by_a_write && !touched {
            self.suspected = Some(now);
            return News::Suspect;
        }
        News::Nothing
    }

    /// Remembers when the file was last written to, if its length in `about` is `offset`.
    fn note_end(&mut self, about: &Metadata) {
        self.written = (about.len() == self.offset).then(|| (about.mtime(), about.mtime_nsec()));
        self.suspected = None;
    }

    /// Reads at most `count` bytes of a file whose content the wheel has not yet delivered.
    pub(super) fn read_up_to<'a>(&mut self, count: usize, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let room = (self.before.len() + count).min(buffer.len());
        match self.read(&mut buffer[..room], 0)? {
            News::Data(data) => Ok(data),
            News::Nothing | News::Suspect | News::Rewritten => Ok(&[]),
        }
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match self.file.read_at(buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => return outcome,
            }
        }
    }

    /// Goes to a place in the file. A place outside of the file means its start or its end. `at_most` is the largest
    /// length that counts.
    pub(super) fn seek(&mut self, to: SeekFrom, at_most: u64) -> io::Result<()> {
        let about = self.file.metadata()?;
        let length = about.len().min(at_most);
        let from = |base: u64, distance: i64| base.saturating_add_signed(distance);
        let offset = match to {
            SeekFrom::Start(offset) => offset,
            SeekFrom::End(distance) => from(length, distance),
            SeekFrom::Current(distance) => from((&self.file).stream_position()?, distance),
        };
        self.go_to(offset.min(length))?;
        self.note_end(&about);
        Ok(())
    }

    /// Goes back to the start of a file that was rewritten.
    pub(super) fn rewind(&mut self) {
        self.offset = 0;
        self.before.clear();
        self.written = None;
        self.suspected = None;
    }

    /// Goes on with another descriptor of the same file, because the old one can't be read any more.
    pub(super) fn renew(&mut self, again: Regular) {
        self.file = again.file;
    }

    /// Returns how long the file is.
    pub(super) fn length(&self) -> io::Result<u64> {
        self.file.metadata().map(|about| about.len())
    }

    fn go_to(&mut self, offset: u64) -> io::Result<()> {
        let known = offset.min(MEMORY as u64);
        let mut before = vec![0; known as usize];
        let count = self.read_at(&mut before, offset - known)?;
        // The file was truncated at this moment. Nothing is remembered, and the next look notices.
        before.truncate(if count < before.len() { 0 } else { count });
        self.before = before;
        self.offset = offset;
        Ok(())
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    pub(super) fn identity(&self) -> FileId {
        self.identity
    }
}

/// Returns the identity of the file that `about` describes.
pub(super) fn identity(about: &Metadata) -> FileId {
    (about.dev(), about.ino())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;
    use crate::testing::TempDir;

    fn regular(path: &Path) -> Regular {
        match Followed::open(path).unwrap() {
            Followed::Regular(regular) => regular,
            Followed::Stream { .. } => panic!("{} is a regular file", path.display()),
        }
    }

    fn look(file: &mut Regular) -> String {
        match file.read(&mut [0; 1024], 0).unwrap() {
            News::Data(data) => String::from_utf8(data.to_vec()).unwrap(),
            other => format!("{other:?}"),
        }
    }

    #[test] // K-FT-04
    fn places_outside_of_the_file_are_its_start_and_its_end() {
        let dir = TempDir::new();
        let path = dir.path().join("log");
        fs::write(&path, "0123456789").unwrap();
        let mut file = regular(&path);
        for (to, rest) in [
            (SeekFrom::Start(0), "0123456789"),
            (SeekFrom::Start(7), "789"),
            (SeekFrom::Start(99), "Nothing"),
            (SeekFrom::End(0), "Nothing"),
            (SeekFrom::End(-2), "89"),
            (SeekFrom::End(-99), "0123456789"),
            (SeekFrom::End(5), "Nothing"),
            (SeekFrom::Current(3), "3456789"),
            (SeekFrom::Start(u64::MAX), "Nothing"),
        ] {
            file.seek(to, u64::MAX).unwrap();
            assert_eq!(look(&mut file), rest, "{to:?}");
            assert_eq!(file.offset(), 10);
        }
    }

    #[test] // K-FT-11 with K-RE-25: the octets before the offset tell
    fn a_file_that_was_written_anew_is_recognised_whatever_its_length() {
        let dir = TempDir::new();
        let path = dir.path().join("log");
        let first = "x".repeat(MEMORY * 2);
        for second in ["", "short", &"y".repeat(MEMORY * 2), &"y".repeat(MEMORY * 3)] {
            fs::write(&path, &first).unwrap();
            let mut file = regular(&path);
            assert_eq!(look(&mut file), first);
            assert_eq!(look(&mut file), "Nothing");
            fs::write(&path, second).unwrap(); // truncates and writes
            assert_eq!(look(&mut file), "Rewritten", "{} octets", second.len());
            file.rewind();
            assert_eq!(look(&mut file), if second.is_empty() { "Nothing" } else { second });
        }
    }

    #[test] // K-FT-11 with K-RE-25: a place that was sought is known as one that was read
    fn what_stands_before_the_place_sought_is_remembered() {
        let dir = TempDir::new();
        let path = dir.path().join("log");
        fs::write(&path, "old old old").unwrap();
        let mut file = regular(&path);
        file.seek(SeekFrom::End(0), u64::MAX).unwrap();
        fs::write(&path, "new new new and more").unwrap();
        assert_eq!(look(&mut file), "Rewritten");
    }

    #[test] // K-FT-06: what does not fit into one read comes with the next
    fn appended_octets_come_in_pieces_of_the_buffer() {
        let dir = TempDir::new();
        let path = dir.path().join("log");
        let text: String = (0..5000).map(|number| format!("{number} ")).collect();
        fs::write(&path, "").unwrap();
        let mut file = regular(&path);
        let mut seen = String::new();
        let mut writer = OpenOptions::new().append(true).open(&path).unwrap();
        for chunk in text.as_bytes().chunks(3000) {
            writer.write_all(chunk).unwrap();
            loop {
                match look(&mut file).as_str() {
                    "Nothing" => break,
                    data => seen += data,
                }
            }
        }
        assert_eq!(seen, text);
    }

    #[test] // K-FT-01
    fn a_directory_is_refused() {
        let error = Followed::open(&std::env::temp_dir()).err().expect("it is no file");
        assert_eq!(error.raw_os_error(), Some(Errno::EISDIR as i32));
    }
}

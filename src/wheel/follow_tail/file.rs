//! A file that grows, as far as it has been read.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::kernel::set_nonblocking;

/// What is followed.
pub(super) enum Followed {
    /// Asked again and again for more.
    Regular(Regular),
    /// A FIFO, socket or terminal, which the poller can watch.
    Stream { fd: OwnedFd, end: StreamEnd },
}

/// What the end of a stream is to its follower.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamEnd {
    /// The peer of a socket has gone, a terminal was closed.
    Error,
    /// Nobody writes for now.
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
            let identity = identity(&about);
            return Ok(Followed::Regular(Regular { file, identity, offset: 0, before: Vec::new() }));
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
    identity: (u64, u64),
    /// How far it has been read.
    offset: u64,
    /// The last octets before `offset`, up to [`MEMORY`] of them. If they are not there any more, the file was written
    /// anew, even if it has grown past `offset` since.
    before: Vec<u8>,
}

/// What a look at a file has come to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News<'a> {
    Data(&'a [u8]),
    Nothing,
    /// It is shorter than it was, or its content has changed.
    Rewritten,
}

/// How much of what was read is remembered: enough for two lines with times of day in them.
const MEMORY: usize = 256;

impl Regular {
    /// Reads what is new, as much as there is room for: [`MEMORY`] octets of `buffer` are for comparing.
    ///
    /// The descriptor's own offset, which other processes may share, is neither used nor moved.
    pub(super) fn read<'a>(&mut self, buffer: &'a mut [u8]) -> io::Result<News<'a>> {
        let known = self.before.len();
        let count = self.read_at(buffer, self.offset - known as u64)?;
        if count < known {
            // Short for another reason than the file's length, perhaps: then the next look will tell.
            let is_shorter = self.file.metadata()?.len() < self.offset;
            return Ok(if is_shorter { News::Rewritten } else { News::Nothing });
        }
        let (before, new) = buffer[..count].split_at(known);
        if before != self.before {
            return Ok(News::Rewritten);
        }
        if new.is_empty() {
            return Ok(News::Nothing);
        }
        self.offset += new.len() as u64;
        self.before.extend_from_slice(&new[new.len().saturating_sub(MEMORY)..]);
        self.before.drain(..self.before.len().saturating_sub(MEMORY));
        Ok(News::Data(new))
    }

    /// Reads at most `count` octets, of a file at whose content nobody has looked yet.
    pub(super) fn read_up_to<'a>(&mut self, count: usize, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let room = (self.before.len() + count).min(buffer.len());
        match self.read(&mut buffer[..room])? {
            News::Data(data) => Ok(data),
            News::Nothing | News::Rewritten => Ok(&[]),
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

    /// Goes to a place in the file, or to its start or end if that lies outside of it.
    pub(super) fn seek(&mut self, to: SeekFrom) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        let from = |base: u64, distance: i64| base.saturating_add_signed(distance);
        let offset = match to {
            SeekFrom::Start(offset) => offset,
            SeekFrom::End(distance) => from(length, distance),
            SeekFrom::Current(distance) => from((&self.file).stream_position()?, distance),
        };
        self.go_to(offset.min(length))
    }

    /// Goes back to the start of a file that was written anew.
    pub(super) fn rewind(&mut self) {
        self.offset = 0;
        self.before.clear();
    }

    fn go_to(&mut self, offset: u64) -> io::Result<()> {
        let known = offset.min(MEMORY as u64);
        let mut before = vec![0; known as usize];
        let count = self.read_at(&mut before, offset - known)?;
        // Truncated this very moment: nothing is known, and the next look finds out.
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

    /// Returns what the file system that it is on says of itself.
    #[cfg(all(feature = "inotify", target_os = "linux"))]
    pub(super) fn file_system(&self) -> nix::Result<nix::sys::statfs::Statfs> {
        nix::sys::statfs::fstatfs(&self.file)
    }

    /// Tells whether this is the file that `about` is about.
    pub(super) fn is(&self, about: &Metadata) -> bool {
        self.identity == identity(about)
    }
}

/// What no other file has while this one is open.
fn identity(about: &Metadata) -> (u64, u64) {
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
        match file.read(&mut [0; 1024]).unwrap() {
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
            file.seek(to).unwrap();
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
        file.seek(SeekFrom::End(0)).unwrap();
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

//! What a parent and the one that takes over from it say to each other: lines, none of which is waited for.

use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::{MsgFlags, send};

use crate::kernel::Handle;

/// This side of the channel.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) handle: Handle,
    heard: Vec<u8>,
    /// What the other side has had no room for.
    unsaid: Vec<u8>,
}

impl Channel {
    pub(super) fn new(handle: Handle) -> Channel {
        Channel { handle, heard: Vec::new(), unsaid: Vec::new() }
    }

    /// Says a line. One that does not go is said before the next.
    pub(super) fn say(&mut self, line: &str) {
        self.unsaid.extend_from_slice(line.as_bytes());
        self.unsaid.push(b'\n');
        while !self.unsaid.is_empty() {
            match send(self.handle.as_fd().as_raw_fd(), &self.unsaid, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
                Ok(count) => drop(self.unsaid.drain(..count)),
                // It is gone, which is noticed elsewhere, or does not listen.
                Err(_) => return self.unsaid.truncate(LONGEST),
            }
        }
    }

    /// Takes what the other side has said, line by line. The second value tells whether it is gone.
    pub(super) fn hear(&mut self) -> (Vec<String>, bool) {
        let mut buffer = [0; 4096];
        let mut is_over = false;
        for _ in 0..64 {
            match self.handle.read(&mut buffer) {
                Ok(0) => is_over = true,
                Ok(count) => {
                    self.heard.extend_from_slice(&buffer[..count]);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => is_over = error.kind() != ErrorKind::WouldBlock,
            }
            break;
        }
        let mut lines = Vec::new();
        while let Some(end) = self.heard.iter().position(|octet| *octet == b'\n') {
            let line: Vec<u8> = self.heard.drain(..=end).collect();
            lines.push(String::from_utf8_lossy(&line[..end]).into_owned());
        }
        // Nothing that is known is as long as that.
        if self.heard.len() > LONGEST {
            self.heard.clear();
        }
        (lines, is_over)
    }
}

/// Splits a line into its first word and the rest.
pub(super) fn word_of(line: &str) -> (&str, &str) {
    line.split_once(' ').unwrap_or((line, ""))
}

/// The longest line.
const LONGEST: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair() -> (Channel, Channel) {
        let (one, other) = UnixStream::pair().unwrap();
        for socket in [&one, &other] {
            socket.set_nonblocking(true).unwrap();
        }
        let channel = |socket: UnixStream| Channel::new(Handle::new(OwnedFd::from(socket)));
        (channel(one), channel(other))
    }

    #[test] // O-UP-04: lines arrive whole, in order, and the end is seen
    fn lines_arrive_whole_and_then_the_end() {
        let (mut one, mut other) = pair();
        one.say("ready");
        one.say("ill children die as soon as they are forked");
        assert_eq!(other.hear(), (vec!["ready".into(), "ill children die as soon as they are forked".into()], false));
        assert_eq!(other.hear(), (vec![], false));
        one.say("last");
        drop(one);
        assert_eq!(other.hear(), (vec!["last".into()], true));
        assert_eq!(word_of("ill x y"), ("ill", "x y"));
        assert_eq!(word_of("go"), ("go", ""));
    }

    #[test] // neither side waits for one that does not listen
    fn what_finds_no_room_is_said_later() {
        let (mut one, mut other) = pair();
        let long = "x".repeat(400_000);
        one.say(&long);
        let mut heard = Vec::new();
        for _ in 0..64 {
            one.say("again");
            heard.extend(other.hear().0);
        }
        assert!(heard.iter().any(|line| line.len() == 400_000));
        assert!(heard.iter().filter(|line| *line == "again").count() > 10, "{} lines", heard.len());
        assert!(heard.iter().all(|line| line.len() == 400_000 || line == "again"));
    }
}

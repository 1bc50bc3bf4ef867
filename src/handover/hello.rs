//! What a predecessor says before its successor has begun: who it is, and what the sockets are that it passes on.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::os::fd::RawFd;

use super::VERSION;

/// What is said of the sockets, by descriptor.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Hello {
    pub(crate) pid: u32,
    pub(crate) sockets: BTreeMap<RawFd, Passed>,
}

/// One socket.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Passed {
    /// The addresses that its listener has asked for, which need not be the one that it has got.
    pub(crate) asked: Vec<String>,
    /// Its path goes when it is closed.
    pub(crate) owns_path: bool,
}

impl Hello {
    /// Writes it down.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{WORD} {VERSION}\npid {}\n", self.pid);
        for (fd, passed) in &self.sockets {
            // An address is one line.
            for asked in passed.asked.iter().filter(|asked| !asked.contains('\n')) {
                let _ = writeln!(text, "asked {fd} {asked}");
            }
            if passed.owns_path {
                let _ = writeln!(text, "owned {fd}");
            }
        }
        text + &END[1..]
    }

    /// Reads it. Words that are not known are passed over.
    ///
    /// # Errors
    ///
    /// Another version, or something else.
    pub(super) fn parse(text: &str) -> Result<Hello, String> {
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        let version = first.strip_prefix(WORD).map(str::trim).ok_or_else(|| format!("not a handover: {first:?}"))?;
        if version.parse() != Ok(VERSION) {
            return Err(format!("the predecessor speaks version {version} of the handover, this program {VERSION}"));
        }
        let mut hello = Hello::default();
        for line in lines {
            let mut words = line.splitn(3, ' ');
            let (word, first) = (words.next(), words.next().unwrap_or_default());
            let fd: Option<RawFd> = first.parse().ok();
            match (word, fd, words.next()) {
                (Some("pid"), Some(_), _) => hello.pid = first.parse().unwrap_or_default(),
                (Some("asked"), Some(fd), Some(asked)) => {
                    hello.sockets.entry(fd).or_default().asked.push(asked.to_owned());
                }
                (Some("owned"), Some(fd), _) => hello.sockets.entry(fd).or_default().owns_path = true,
                _ => {}
            }
        }
        Ok(hello)
    }
}

const WORD: &str = "lenore-handover";

/// What ends it.
pub(super) const END: &str = "\nend\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // O-UP-14
    fn hello_is_read_as_it_was_written_and_what_is_not_known_is_passed_over() {
        let mut hello = Hello { pid: 4711, ..Hello::default() };
        let asked = vec!["127.0.0.1:0".to_owned(), "[::1]:0".to_owned()];
        hello.sockets.insert(3, Passed { asked, owns_path: false });
        hello.sockets.insert(5, Passed { asked: vec!["/run/a b".to_owned()], owns_path: true });
        let text = hello.text();
        assert!(text.ends_with(END), "{text}");
        assert_eq!(Hello::parse(&text).as_ref(), Ok(&hello));
        let later = text.replace("\nend", "\ncolour 3 blue\nsound\nend");
        assert_eq!(Hello::parse(&later).as_ref(), Ok(&hello));
    }

    #[test] // O-UP-14
    fn other_versions_are_refused_by_name() {
        let error = Hello::parse("lenore-handover 2\nend\n").unwrap_err();
        assert!(error.contains("version 2") && error.contains('1'), "{error}");
        for text in ["", "end\n", "GET / HTTP/1.1\n\nend\n"] {
            assert!(Hello::parse(text).unwrap_err().contains("not a handover"), "{text}");
        }
    }

    #[test] // a path with a line break can't be told, and is no line of its own
    fn address_with_a_line_break_is_left_out() {
        let passed = Passed { asked: vec!["/a\nowned 7".to_owned()], owns_path: false };
        let hello = Hello { pid: 1, sockets: BTreeMap::from([(3, passed)]) };
        assert_eq!(Hello::parse(&hello.text()), Ok(Hello { pid: 1, ..Hello::default() }));
    }
}

//! A helper: a forked process that reads questions from its standard input and writes answers to its standard output.
//! Each is a line.

use std::io::{self, stderr, stdin, stdout};
use std::net::SocketAddr;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::unistd::{dup2_stdout, read, write};

use super::cache::Outcome;
use super::{Lookup, ResolveError};
use crate::sys::descriptors::copy_above;
use crate::sys::parent_death;

/// Answers questions until the input ends. `parent` is the process that asks.
///
/// # Errors
///
/// An error if the input can't be read, if the output can't be written, or if the system refuses to end this process
/// with its parent.
pub(super) fn serve(lookup: &Lookup, parent: u32) -> io::Result<()> {
    // A lookup may take long, and the helper must not outlive the process that has asked.
    parent_death::end_with(parent as i32)?;
    // A lookup may print to standard output, so that goes elsewhere.
    let answers = copy_above(stdout(), LEAST)?;
    dup2_stdout(stderr())?;
    // Reads without the standard library's buffer, which may hold input that the parent has read for itself.
    let (mut input, mut chunk) = (Vec::new(), [0; 1024]);
    loop {
        while let Some(end) = input.iter().position(|octet| *octet == b'\n') {
            let line: Vec<u8> = input.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line[..end]);
            write_all(&answers, &answer(lookup, &line))?;
        }
        match read(stdin().as_fd(), &mut chunk) {
            Ok(0) => return Ok(()),
            Ok(count) => input.extend_from_slice(&chunk[..count]),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn write_all(answers: impl AsFd, text: &str) -> nix::Result<()> {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        match write(answers.as_fd(), rest) {
            Ok(count) => rest = &rest[count..],
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// The first descriptor after those of standard input, output and error.
const LEAST: i32 = 3;

/// Makes the line of a question.
pub(super) fn question(host: &str, port: u16) -> String {
    format!("{port} {host}")
}

fn answer(lookup: &Lookup, question: &str) -> String {
    let asked = question.split_once(' ').and_then(|(port, host)| Some((host, port.parse().ok()?)));
    let found = match asked {
        Some((host, port)) => lookup(host, port),
        None => Err(io::Error::other("the question was garbled")),
    };
    match found {
        Ok(addresses) => {
            let addresses: Vec<String> = addresses.iter().map(|address| format!(" {address}")).collect();
            format!("ok{}\n", addresses.concat())
        }
        Err(error) => {
            let text = error.to_string().replace(['\n', '\r'], " ");
            format!("no {} {text}\n", error.raw_os_error().unwrap_or(0))
        }
    }
}

/// Reads the line of an answer.
pub(super) fn outcome(host: &str, line: &str) -> Outcome {
    let failed = |errno, reason: &str| ResolveError::Failed { host: host.to_owned(), errno, reason: reason.to_owned() };
    match line.split_once(' ') {
        Some(("ok", addresses)) => {
            let addresses: Result<Vec<SocketAddr>, _> = addresses.split(' ').map(str::parse).collect();
            addresses.map_err(|_| failed(0, "the answer was garbled"))
        }
        Some(("no", failure)) => {
            let (errno, text) = failure.split_once(' ').unwrap_or((failure, ""));
            Err(failed(errno.parse().unwrap_or(0), text))
        }
        _ => Err(failed(0, "the name has no address")),
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    fn ask(host: &str, lookup: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + 'static) -> Outcome {
        let lookup: Lookup = Rc::new(lookup);
        outcome(host, answer(&lookup, &question(host, 80)).strip_suffix('\n').expect("one line"))
    }

    #[test]
    fn answer_comes_over_as_it_was() {
        let addresses: Vec<SocketAddr> = vec![([1, 2, 3, 4], 80).into(), "[fe80::1%2]:80".parse().expect("an address")];
        let found = addresses.clone();
        let looked_up = ask("a name", move |host, port| {
            assert_eq!((host, port), ("a name", 80));
            Ok(found.clone())
        });
        assert_eq!(looked_up, Ok(addresses));
    }

    #[test]
    fn failure_comes_over_with_its_number_and_its_reason() {
        let failed = |errno, reason: &str| {
            Err(ResolveError::Failed { host: "name".to_owned(), errno, reason: reason.to_owned() })
        };
        assert_eq!(ask("name", |_, _| Ok(Vec::new())), failed(0, "the name has no address"));
        assert_eq!(ask("name", |_, _| Err(io::Error::other("two\nlines"))), failed(0, "two lines"));
        let refused = io::Error::from(Errno::EACCES).to_string();
        assert_eq!(ask("name", |_, _| Err(Errno::EACCES.into())), failed(Errno::EACCES as i32, &refused));
    }
}

//! The addresses that a connecting wheel may try, in which order, and how each attempt begins.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use nix::errno::Errno;

use super::address::Target;
use super::socket::{self, Begun, CallError, Made, Options};

/// The options of the sockets, the addresses to bind, and the addresses to connect to.
pub(super) struct Attempts {
    options: Options,
    /// The addresses to which a socket of the same family is bound before it connects. Empty if it is not bound.
    locals: Vec<Target>,
    /// Addresses still to be tried, in order.
    remotes: VecDeque<Target>,
    /// The attempts that have failed.
    failures: Vec<(Target, CallError)>,
}

impl Attempts {
    /// Takes the addresses in the order in which the system or the program gave them.
    pub(super) fn new(options: Options, locals: Vec<Target>, remotes: Vec<Target>) -> Attempts {
        Attempts { options, locals, remotes: interleave(remotes).into(), failures: Vec::new() }
    }

    /// Returns how many addresses have not been tried.
    pub(super) fn left(&self) -> usize {
        self.remotes.len()
    }

    /// Tells whether one attempt must end before the next begins: two sockets can't be bound to one port.
    pub(super) fn is_one_by_one(&self) -> bool {
        self.locals.iter().any(|local| matches!(local, Target::Ip(address) if address.port() != 0))
    }

    /// Begins to connect to the next address that allows it. Returns `None` if there is no such address.
    pub(super) fn next(&mut self) -> Option<(Made, Begun, Target)> {
        while let Some(remote) = self.remotes.pop_front() {
            match self.begin(&remote) {
                Ok((made, begun)) => return Some((made, begun, remote)),
                Err(failure) => self.failed(remote, failure),
            }
        }
        None
    }

    fn begin(&self, remote: &Target) -> Result<(Made, Begun), CallError> {
        let family = remote.family();
        let local = self.locals.iter().find(|local| local.family() == family);
        if local.is_none() && !self.locals.is_empty() {
            return Err(CallError { operation: "bind", error: Errno::EAFNOSUPPORT.into() });
        }
        let made = self.options.make(family, local)?;
        let begun = socket::connect(&made.0, remote)?;
        Ok((made, begun))
    }

    /// Notes that an attempt has failed.
    pub(super) fn failed(&mut self, remote: Target, failure: CallError) {
        self.failures.push((remote, failure));
    }

    /// Returns the failure to report when all attempts have failed. It is the last one. If there were several, its text
    /// names each.
    pub(super) fn failure(&mut self) -> CallError {
        let all = std::mem::take(&mut self.failures);
        if all.len() > 1 {
            let texts: Vec<String> =
                all.iter().map(|(remote, failure)| format!("{remote}: {}", failure.error)).collect();
            let last = all.last().map(|(_, failure)| (failure.operation, failure.errno()));
            let (operation, errno) = last.expect("there are several");
            return CallError { operation, error: io::Error::other(socket::Several { errno, text: texts.join("; ") }) };
        }
        let only = all.into_iter().next().map(|(_, failure)| failure);
        only.unwrap_or_else(|| CallError { operation: "connect", error: Errno::EADDRNOTAVAIL.into() })
    }
}

/// Orders addresses as in RFC 8305: the families take turns, beginning with that of the first address.
fn interleave(remotes: Vec<Target>) -> Vec<Target> {
    let Some(first) = remotes.first().map(Target::family) else { return remotes };
    let (same, other): (Vec<Target>, Vec<Target>) = remotes.into_iter().partition(|remote| remote.family() == first);
    let (mut same, mut other) = (same.into_iter(), other.into_iter());
    let mut ordered = Vec::new();
    loop {
        match (same.next(), other.next()) {
            (None, None) => return ordered,
            (one, another) => ordered.extend(one.into_iter().chain(another)),
        }
    }
}

/// How long an attempt is alone before the next address is tried beside it: RFC 8305's Connection Attempt Delay.
pub(super) const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// The first pause before a UNIX socket asks again whether the listener's queue has room, and the longest pause. Each
/// pause is twice as long as the one before.
pub(super) const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(64));

#[cfg(test)]
mod tests {
    use super::*;

    fn order(addresses: &[&str]) -> Vec<String> {
        let targets = addresses.iter().map(|address| Target::Ip(address.parse().unwrap())).collect();
        interleave(targets).iter().map(ToString::to_string).collect()
    }

    #[test] // K-SF-28
    fn the_families_take_turns() {
        let (a, b, c, x, y) = ("[::a]:1", "[::b]:1", "[::c]:1", "1.0.0.1:1", "1.0.0.2:1");
        assert_eq!(order(&[a, b, c, x, y]), [a, x, b, y, c]);
        assert_eq!(order(&[x, y, a]), [x, a, y]);
        assert_eq!(order(&[x, y]), [x, y]);
        assert_eq!(order(&[]), [""; 0]);
    }
}

//! Tickets, by which a client resumes a session with any child of a server.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Prk, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::server::ProducesTickets;

use super::Error;

/// What all keys of tickets are derived from. An attacker who has the secret can read every ticket that was made with it.
#[derive(Clone)]
pub(super) struct Secret(Prk);

impl Secret {
    /// Draws a random secret.
    pub(super) fn random() -> Result<Secret, Error> {
        let mut octets = [0; 32];
        SystemRandom::new().fill(&mut octets).map_err(|_| Error::Refused(rustls::Error::FailedToGetRandomBytes))?;
        Ok(Secret::of(&octets))
    }

    pub(super) fn of(octets: &[u8]) -> Secret {
        Secret(Salt::new(HKDF_SHA256, b"lenore tickets").extract(octets))
    }
}

/// Encrypts tickets with a key that is derived from a secret, the time, and what the tickets are for.
///
/// RFC 5077 (section 5.5) and rustls want keys that change. Processes that share nothing but a secret from before the fork have to
/// find the same keys. So the clock says which key it is: a key is for one span of time, and a ticket names its span. A ticket is
/// good in its own span and in the next one.
///
/// The nonce is drawn by ring from the system for each ticket (`getrandom`). A forked process has no state of a generator that
/// could repeat what its parent or its brothers draw.
pub(super) struct Tickets {
    secret: Prk,
    /// What the tickets are for. A ticket for one purpose is not good for another.
    purpose: Vec<u8>,
    rotation: Duration,
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("rotation", &self.rotation).finish_non_exhaustive()
    }
}

impl Tickets {
    pub(super) fn new(secret: &Secret, purpose: Vec<u8>, rotation: Duration) -> Tickets {
        Tickets { secret: secret.0.clone(), purpose, rotation }
    }

    /// Returns the number of the present span.
    fn span(&self) -> u32 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        (since.as_secs() / self.rotation.as_secs().max(1)) as u32
    }

    fn key(&self, span: u32) -> Option<LessSafeKey> {
        // Servers that have the same secret and another rotation have other keys.
        let (span, rotation) = (span.to_be_bytes(), self.rotation.as_secs().to_be_bytes());
        let info = [&span[..], &rotation, &self.purpose];
        let key = self.secret.expand(&info, &CHACHA20_POLY1305).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(key)))
    }

    fn seal(&self, plain: &[u8], span: u32) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let mut octets = plain.to_vec();
        let aad = Aad::from(span.to_be_bytes());
        self.key(span)?.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut octets).ok()?;
        Some([&span.to_be_bytes()[..], &nonce, &octets].concat())
    }

    fn open(&self, ticket: &[u8], now: u32) -> Option<Vec<u8>> {
        let (span, rest) = ticket.split_first_chunk()?;
        let (nonce, octets) = rest.split_first_chunk()?;
        let number = u32::from_be_bytes(*span);
        if number > now || now - number > 1 {
            return None;
        }
        let mut octets = octets.to_vec();
        let aad = Aad::from(*span);
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = self.key(number)?.open_in_place(nonce, aad, &mut octets).ok()?.len();
        octets.truncate(length);
        Some(octets)
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    /// Returns for how long a ticket is good at least, in seconds.
    fn lifetime(&self) -> u32 {
        self.rotation.as_secs() as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, self.span())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(cipher, self.span())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn tickets(secret: &[u8], purpose: &[u8]) -> Tickets {
        Tickets::new(&Secret::of(secret), purpose.to_vec(), HOUR)
    }

    #[test]
    fn ticket_is_good_in_its_span_and_in_the_next() {
        // As in two children: nothing is shared but the secret.
        let (one, other) = (tickets(b"secret", b"web"), tickets(b"secret", b"web"));
        let ticket = one.seal(b"session", 100).unwrap();
        for now in [100, 101] {
            assert_eq!(other.open(&ticket, now).as_deref(), Some(&b"session"[..]), "in span {now}");
        }
        for now in [0, 99, 102, u32::MAX] {
            assert_eq!(other.open(&ticket, now), None, "in span {now}");
        }
    }

    #[test]
    fn ticket_of_another_secret_or_purpose_is_refused() {
        let ticket = tickets(b"secret", b"web").seal(b"session", 1).unwrap();
        for other in [tickets(b"another", b"web"), tickets(b"secret", b"mail")] {
            assert_eq!(other.open(&ticket, 1), None);
        }
        let slower = Tickets::new(&Secret::of(b"secret"), b"web".to_vec(), 2 * HOUR);
        assert_eq!(slower.open(&ticket, 1), None);
    }

    #[test]
    fn ticket_with_any_bit_changed_is_refused() {
        let tickets = tickets(b"secret", b"web");
        let ticket = tickets.seal(b"session", 7).unwrap();
        for bit in 0..8 * ticket.len() {
            let mut forged = ticket.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(tickets.open(&forged, 7), None, "bit {bit}");
        }
        for length in 0..ticket.len() {
            assert_eq!(tickets.open(&ticket[..length], 7), None, "{length} octets");
        }
    }

    #[test]
    fn two_tickets_of_one_session_differ() {
        let tickets = tickets(b"secret", b"web");
        assert_ne!(tickets.seal(b"session", 7), tickets.seal(b"session", 7));
    }
}

//! The header of the PROXY protocol, in text (version 1) and in binary (version 2). No byte is read here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str;

/// What the bytes at the beginning of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// The beginning of a header.
    Part,
    /// A header, and nothing else for so many bytes.
    Header {
        /// How long it is. What follows is for the protocol.
        length: usize,
        /// Who has connected to the proxy. `None` if the proxy speaks for itself or does not say.
        source: Option<SocketAddr>,
    },
    /// No header, and why.
    Wrong(&'static str),
}

/// The longest header of version 2 that is taken, with what a proxy may add to the addresses.
pub(crate) const LONGEST: usize = 4096;

/// Looks for a header in all that a connection has received so far.
pub(crate) fn find(bytes: &[u8]) -> Found {
    if begins(bytes, SIGNATURE) {
        binary(bytes)
    } else if begins(bytes, PREFIX) {
        text(bytes)
    } else {
        Found::Wrong("the connection does not begin with one")
    }
}

/// Tells whether the one begins with the other, as far as there is any of it.
fn begins(bytes: &[u8], with: &[u8]) -> bool {
    let common = bytes.len().min(with.len());
    bytes[..common] == with[..common]
}

fn text(bytes: &[u8]) -> Found {
    let within = &bytes[..bytes.len().min(LONGEST_LINE)];
    let Some(end) = within.windows(2).position(|pair| pair == b"\r\n") else {
        return if within.len() < LONGEST_LINE { Found::Part } else { Found::Wrong("its line is too long") };
    };
    let Ok(line) = str::from_utf8(&bytes[PREFIX.len()..end]) else { return Found::Wrong("its line is not text") };
    let fields: Vec<&str> = line.split(' ').collect();
    let source = match fields[..] {
        ["UNKNOWN", ..] => None,
        [family @ ("TCP4" | "TCP6"), source, destination, source_port, destination_port] => {
            let address = |text: &str| match family {
                "TCP4" => text.parse().ok().map(IpAddr::V4),
                _ => text.parse().ok().map(IpAddr::V6),
            };
            let whole = (address(source), address(destination), port(source_port), port(destination_port));
            let (Some(ip), Some(_), Some(port), Some(_)) = whole else {
                return Found::Wrong("an address or port is not valid");
            };
            Some(SocketAddr::new(ip, port))
        }
        _ => return Found::Wrong("its line has other fields than the protocol allows"),
    };
    Found::Header { length: end + 2, source }
}

fn port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain)
}

fn binary(bytes: &[u8]) -> Found {
    let Some((fixed, rest)) = bytes.split_at_checked(FIXED) else { return Found::Part };
    let (version, command) = (fixed[12] >> 4, fixed[12] & 0x0f);
    let (family, transport) = (fixed[13] >> 4, fixed[13] & 0x0f);
    if version != 2 || command > PROXY || family > UNIX || transport > DATAGRAM {
        return Found::Wrong("it is not of version 2, or has an unknown command or family");
    }
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if FIXED + length > LONGEST {
        return Found::Wrong("it is too long");
    }
    let least = match family {
        INET => 12,
        INET6 => 36,
        UNIX => 216,
        _ => 0,
    };
    if command == PROXY && length < least {
        return Found::Wrong("it is too short for its addresses");
    }
    let Some(rest) = rest.get(..length) else { return Found::Part };
    let source = if command == PROXY { source(family, rest) } else { None };
    Found::Header { length: FIXED + length, source }
}

/// Reads the client's address: both addresses come first, then both ports.
fn source(family: u8, rest: &[u8]) -> Option<SocketAddr> {
    let port = |at: usize| Some(u16::from_be_bytes(rest.get(at..at + 2)?.try_into().ok()?));
    match family {
        INET => Some(SocketAddr::from((Ipv4Addr::from(<[u8; 4]>::try_from(rest.get(..4)?).ok()?), port(8)?))),
        INET6 => Some(SocketAddr::from((Ipv6Addr::from(<[u8; 16]>::try_from(rest.get(..16)?).ok()?), port(32)?))),
        _ => None,
    }
}

/// How version 1 begins.
const PREFIX: &[u8] = b"PROXY ";

/// The longest line of version 1, with its end.
const LONGEST_LINE: usize = 107;

/// How version 2 begins.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The part of version 2 that is always there.
const FIXED: usize = 16;

/// The command of a proxy that passes a client on; 0 is that of one that speaks for itself.
const PROXY: u8 = 1;

const INET: u8 = 1;
const INET6: u8 = 2;
const UNIX: u8 = 3;
const DATAGRAM: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::check;

    fn header(length: usize, source: &str) -> Found {
        Found::Header { length, source: Some(source.parse().expect("an address")) }
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = (rest.len() as u16).to_be_bytes();
        [SIGNATURE, &[0x20 | command, family << 4 | 1], &length, rest].concat()
    }

    #[test]
    fn line_of_version_1_tells_the_client() {
        let line = b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n";
        assert_eq!(find(line), header(line.len(), "192.0.2.1:56324"));
        let line = b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\nGET /";
        assert_eq!(find(line), header(line.len() - 5, "[2001:db8::1]:1"));
        for line in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"] {
            assert_eq!(find(line.as_bytes()), Found::Header { length: line.len(), source: None });
        }
    }

    #[test]
    fn wrong_line_of_version_1_is_refused() {
        for line in [
            "GET / HTTP/1.1\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 56324\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 56324 443 9\r\n",
            "PROXY TCP4  192.0.2.1 198.51.100.7 56324 443\r\n",
            "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 056324 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 +1 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 65536 443\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.7 1 2\r\n",
            "PROXY \r\n",
        ] {
            assert!(matches!(find(line.as_bytes()), Found::Wrong(_)), "{line}");
        }
        let long = format!("PROXY UNKNOWN {}", "x".repeat(LONGEST_LINE));
        assert!(matches!(find(long.as_bytes()), Found::Wrong(_)));
    }

    #[test]
    fn block_of_version_2_tells_the_client() {
        let v4 = [192, 0, 2, 1, 198, 51, 100, 7, 0xdc, 0x04, 0x01, 0xbb];
        assert_eq!(find(&v2(1, INET, &v4)), header(28, "192.0.2.1:56324"));
        let with_more = [&v4[..], &[0x04, 0, 1, 0]].concat();
        assert_eq!(find(&v2(1, INET, &with_more)), header(32, "192.0.2.1:56324"));
        let mut v6 = [0; 36];
        (v6[15], v6[33]) = (1, 80);
        assert_eq!(find(&v2(1, INET6, &v6)), header(52, "[::1]:80"));
        assert_eq!(find(&v2(1, UNIX, &[0; 216])), Found::Header { length: 232, source: None });
        assert_eq!(find(&v2(0, INET, &v4)), Found::Header { length: 28, source: None }, "it speaks for itself");
        assert_eq!(find(&v2(1, 0, &[])), Found::Header { length: 16, source: None });
    }

    #[test]
    fn wrong_block_of_version_2_is_refused() {
        for (block, what) in [
            (v2(2, INET, &[0; 12]), "an unknown command"),
            (v2(1, 4, &[0; 12]), "an unknown family"),
            (v2(1, INET, &[0; 11]), "too short"),
            (v2(1, INET, &[0; LONGEST]), "too long"),
            ([SIGNATURE, &[0x11, 0x11, 0, 0]].concat(), "version 1"),
        ] {
            assert!(matches!(find(&block), Found::Wrong(_)), "{what}");
        }
    }

    #[test]
    fn header_is_found_however_it_is_cut_and_whatever_follows() {
        check(|dice| {
            let mut rest = vec![0; dice.number(0..40) as usize];
            rest.iter_mut().for_each(|byte| *byte = dice.below(256) as u8);
            let header = if dice.below(2) == 0 {
                b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n".to_vec()
            } else {
                v2(1, INET, &[&[1; 12][..], &rest].concat())
            };
            let whole = [&header[..], &rest].concat();
            let found = find(&whole);
            assert!(matches!(found, Found::Header { length, .. } if length == header.len()));
            for cut in 0..whole.len() {
                assert_eq!(find(&whole[..cut]), if cut < header.len() { Found::Part } else { found });
            }
        });
    }

    #[test]
    fn garbage_never_panics_and_never_is_a_header_beyond_its_end() {
        check(|dice| {
            let mut bytes = [SIGNATURE, PREFIX][dice.below(2) as usize].to_vec();
            bytes.extend((0..dice.below(300)).map(|_| dice.below(256) as u8));
            if let Found::Header { length, .. } = find(&bytes) {
                assert!(length <= bytes.len());
            }
        });
    }
}

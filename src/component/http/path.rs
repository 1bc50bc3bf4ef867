//! Percent-encoding in paths. It is removed in two steps, so that an encoded slash never becomes a separator.

use std::borrow::Cow;

/// Decodes all of a path except `%2F` and `%25`, so that routes see where its parts end. Returns `None` if a percent
/// sign is not part of an encoding, or if the path is not UTF-8.
pub(super) fn decode(path: &str) -> Option<Cow<'_, str>> {
    if !path.contains('%') {
        return Some(Cow::Borrowed(path));
    }
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(octet) = rest.next() {
        if octet != b'%' {
            decoded.push(octet);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        match (digit()? << 4 | digit()?) as u8 {
            b'/' => decoded.extend_from_slice(SLASH.as_bytes()),
            b'%' => decoded.extend_from_slice(PERCENT.as_bytes()),
            octet => decoded.push(octet),
        }
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

/// Decodes the `%2F` and `%25` that [`decode`] has left in a part of the path.
pub(super) fn decode_rest(part: &str) -> Cow<'_, str> {
    if !part.contains('%') {
        return Cow::Borrowed(part);
    }
    // Slashes first. They can't make a new encoding together with a percent sign.
    Cow::Owned(part.replace(SLASH, "/").replace(PERCENT, "%"))
}

/// Encodes a name for one part of a path in a link.
pub(super) fn encode(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for octet in name.bytes() {
        match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(octet)),
            _ => encoded.push_str(&format!("%{octet:02X}")),
        }
    }
    encoded
}

/// An encoded slash, which [`decode`] leaves as it is.
pub(super) const SLASH: &str = "%2F";

const PERCENT: &str = "%25";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decode_keeps_encoded_slashes_and_percent_signs() {
        for (path, decoded) in [
            ("/a/b", "/a/b"),
            ("/%61%2fb", "/a%2Fb"),
            ("/%252f", "/%252f"),
            ("/%252F%2F", "/%252F%2F"),
            ("/caf%C3%A9", "/café"),
            ("/%00", "/\0"),
            ("/%2e%2E/", "/../"),
        ] {
            assert_eq!(decode(path).as_deref(), Some(decoded), "{path}");
        }
        for path in ["/%", "/%4", "/%zz", "/%ff", "/%c3"] {
            assert_eq!(decode(path), None, "{path}");
        }
    }

    #[test]
    fn both_steps_decode_once() {
        for (path, whole) in [("%252F", "%2F"), ("%25252F", "%252F"), ("a%2Fb", "a/b"), ("%25", "%"), ("%2525", "%25")]
        {
            assert_eq!(decode_rest(&decode(path).unwrap()), whole, "{path}");
        }
    }

    #[test]
    fn encode_is_undone_by_decode() {
        let name = "a b/c%2F\"<é>&?#";
        assert_eq!(decode_rest(&decode(&encode(name)).unwrap()), name);
    }
}

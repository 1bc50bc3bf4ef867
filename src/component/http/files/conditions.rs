//! Evaluates the conditions of a request (RFC 9110, section 13) and its range (section 14).

use super::version::Version;
use crate::filter::http::{Request, parse_date};

/// What the service sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Send,
    Part(Range),
    NotModified,
    /// A precondition of the request does not hold.
    Failed,
    /// The range begins after the end of the file.
    Unsatisfiable,
}

/// A part of a file, of at least one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: u64,
    /// The first byte after the range.
    pub(super) end: u64,
}

/// Evaluates a GET or HEAD for a file of `length` bytes.
pub(super) fn judge(request: &Request, version: &Version, length: u64) -> Verdict {
    let time = |name| request.header(name).and_then(parse_date);
    let changed = version.changed();
    let holds = match request.header("If-Match") {
        Some(list) => version.is_strongly_among(list),
        None => time("If-Unmodified-Since").zip(changed).is_none_or(|(known, changed)| changed <= known),
    };
    if !holds {
        return Verdict::Failed;
    }
    let is_known = match request.headers().get_all("If-None-Match").next() {
        Some(_) => all_tags(request).any(|list| version.is_among(list)),
        None => time("If-Modified-Since").zip(changed).is_some_and(|(known, changed)| changed <= known),
    };
    if is_known {
        return Verdict::NotModified;
    }
    // A range is for GET alone.
    let range = request.header("Range").filter(|_| request.method() == "GET" && may_be_part(request, version));
    range.map_or(Verdict::Send, |range| part(range, length))
}

fn all_tags(request: &Request) -> impl Iterator<Item = &str> {
    request.headers().get_all("If-None-Match").filter_map(|list| str::from_utf8(list).ok())
}

/// Tells whether the part that the client has is from this version, if the client says which it has.
fn may_be_part(request: &Request, version: &Version) -> bool {
    match request.header("If-Range") {
        None => true,
        Some(tag) if tag.starts_with('"') => version.is_strongly_among(tag),
        // A time stands for a whole second, so only the very same time counts.
        Some(time) => {
            !time.starts_with("W/") && version.changed().is_some_and(|changed| parse_date(time) == Some(changed))
        }
    }
}

/// Reads a range. It ignores anything but a single range of bytes, which a server may do.
fn part(range: &str, length: u64) -> Verdict {
    let Some((unit, spec)) = range.split_once('=') else { return Verdict::Send };
    let Some((first, last)) = spec.trim().split_once('-') else { return Verdict::Send };
    if !unit.trim().eq_ignore_ascii_case("bytes") || spec.contains(',') {
        return Verdict::Send;
    }
    let number = |digits: &str| {
        let is_number = !digits.is_empty() && digits.bytes().all(|octet| octet.is_ascii_digit());
        // A number that is too large is after the end of any file.
        is_number.then(|| digits.parse().unwrap_or(u64::MAX))
    };
    let (start, end) = match (first.trim(), last.trim()) {
        ("", last) => match number(last) {
            Some(count) => (length.saturating_sub(count), length),
            None => return Verdict::Send,
        },
        (first, "") => match number(first) {
            Some(start) => (start, length),
            None => return Verdict::Send,
        },
        (first, last) => match (number(first), number(last)) {
            (Some(start), Some(last)) if start <= last => (start, last.saturating_add(1).min(length)),
            _ => return Verdict::Send,
        },
    };
    if start >= end { Verdict::Unsatisfiable } else { Verdict::Part(Range { start, end }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_reads_single_ranges_and_ignores_the_rest() {
        let range = |start, end| Verdict::Part(Range { start, end });
        for (text, verdict) in [
            ("bytes=0-0", range(0, 1)),
            ("bytes=2-4", range(2, 5)),
            ("bytes=2-", range(2, 10)),
            ("bytes=-3", range(7, 10)),
            ("bytes=-99", range(0, 10)),
            ("bytes=9-99999999999999999999", range(9, 10)),
            ("bytes=10-", Verdict::Unsatisfiable),
            ("bytes=10-12", Verdict::Unsatisfiable),
            ("bytes=-0", Verdict::Unsatisfiable),
            ("bytes=99999999999999999999-", Verdict::Unsatisfiable),
            ("bytes=4-2", Verdict::Send),
            ("bytes=0-1,3-4", Verdict::Send),
            ("bytes=-", Verdict::Send),
            ("bytes=+1-2", Verdict::Send),
            ("bytes=a-b", Verdict::Send),
            ("bytes=1", Verdict::Send),
            ("lines=1-2", Verdict::Send),
            ("", Verdict::Send),
        ] {
            assert_eq!(part(text, 10), verdict, "{text}");
        }
        assert_eq!(part("bytes=0-", 0), Verdict::Unsatisfiable);
    }
}

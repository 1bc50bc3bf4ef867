//! Hosts and request targets, by the grammar of RFC 3986.
//!
//! If a server takes `user@a.test` or `[::1` as a host, and a proxy in front of it does not, one request goes to two
//! places. So the filter refuses everything that the grammar does not allow.

use std::net::Ipv6Addr;

/// Tells whether `value` is a host with or without a port, as the `Host` field has it: `uri-host [":" port]`.
///
/// The host may be empty, and so may the port. A comma is refused although the grammar allows it. No name has one, and
/// a program that joins two `Host` lines puts one there.
pub(super) fn is_host(value: &[u8]) -> bool {
    split_port(value).is_some_and(|(host, port)| is_uri_host(host) && port.iter().all(u8::is_ascii_digit))
}

/// Finds out what is wrong with the target of a request with this method.
pub(super) fn check(method: &str, target: &str) -> Result<(), &'static str> {
    match method {
        "CONNECT" => check_authority_form(target),
        "OPTIONS" if target == "*" => Ok(()),
        _ if target.starts_with('/') => check_path_and_query(target),
        _ => check_absolute_form(target),
    }
}

/// Splits a target that is a whole URI into its scheme and the rest.
pub(super) fn absolute(target: &str) -> Option<(&str, &str)> {
    // Nearly all are a path, which need not be searched.
    if !target.starts_with(|first: char| first.is_ascii_alphabetic()) {
        return None;
    }
    let (scheme, rest) = target.split_once("://")?;
    let is_scheme = scheme.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"+-.".contains(&octet));
    is_scheme.then_some((scheme, rest))
}

/// Returns the host, with its port if there is one, from the part of a URI after its scheme.
pub(super) fn host(rest: &str) -> &str {
    let authority = split_authority(rest).0;
    authority.split_once('@').map_or(authority, |(_, host)| host)
}

/// Checks the target of a CONNECT, which must have both a host and a port.
fn check_authority_form(target: &str) -> Result<(), &'static str> {
    let (host, port) = split_port(target.as_bytes()).ok_or(BAD_HOST)?;
    if target.starts_with('/') || host.len() == target.len() {
        return Err(BAD_FORM);
    }
    let digits = str::from_utf8(port).ok().filter(|port| port.bytes().all(|octet| octet.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse::<u16>().ok()) {
        None | Some(0) => Err(BAD_PORT),
        Some(_) if host.is_empty() || !is_uri_host(host) => Err(BAD_HOST),
        Some(_) => Ok(()),
    }
}

fn check_absolute_form(target: &str) -> Result<(), &'static str> {
    let (scheme, rest) = absolute(target).filter(|(_, rest)| !rest.is_empty()).ok_or(BAD_FORM)?;
    let (authority, path_and_query) = split_authority(rest);
    let is_http = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let host = match authority.split_once('@') {
        // Clients no longer send a name and a password there. Links use them to show a false host.
        Some(_) if is_http => return Err("the target has user information"),
        Some((user, _)) if !is_made_of(USER, user.as_bytes()) => return Err(BAD_HOST),
        Some((_, host)) => host,
        None => authority,
    };
    let has_name = !host.is_empty() && !host.starts_with(':');
    if !is_host(host.as_bytes()) || is_http && !has_name {
        return Err(BAD_HOST);
    }
    check_path_and_query(path_and_query)
}

fn check_path_and_query(target: &str) -> Result<(), &'static str> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let is_good = is_made_of(PATH, path.as_bytes()) && is_made_of(QUERY, query.as_bytes());
    if is_good { Ok(()) } else { Err("the target has a character that must be percent-encoded") }
}

/// Splits the part of a URI after its scheme at the end of the authority.
fn split_authority(rest: &str) -> (&str, &str) {
    rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()))
}

/// Splits a host from its port, which may be empty. Returns `None` if an address in brackets has no closing bracket.
fn split_port(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = match value {
        [b'[', ..] => memchr::memchr(b']', value)? + 1,
        _ => memchr::memchr(b':', value).unwrap_or(value.len()),
    };
    match value.split_at(end) {
        (host, []) => Some((host, &[])),
        (host, [b':', port @ ..]) => Some((host, port)),
        _ => None,
    }
}

/// Tells whether `host` is a name, an IPv4 address, or another address in brackets.
fn is_uri_host(host: &[u8]) -> bool {
    match host {
        [b'[', b'v' | b'V', address @ .., b']'] => is_future_address(address),
        [b'[', address @ .., b']'] => str::from_utf8(address).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok()),
        _ => is_made_of(NAME, host) && is_percent_encoded(host),
    }
}

/// Accepts an address of a future kind: a version in hexadecimal digits, a full stop, and characters.
fn is_future_address(address: &[u8]) -> bool {
    let Some(stop) = memchr::memchr(b'.', address) else { return false };
    let (version, address) = (&address[..stop], &address[stop + 1..]);
    let is_character = |octet: &u8| *octet != b'%' && CLASSES[usize::from(*octet)] & USER != 0;
    let has_both = !version.is_empty() && !address.is_empty();
    has_both && version.iter().all(u8::is_ascii_hexdigit) && address.iter().all(is_character)
}

/// Tells whether two hexadecimal digits follow each percent sign.
fn is_percent_encoded(text: &[u8]) -> bool {
    memchr::memchr_iter(b'%', text)
        .all(|place| matches!(text[place + 1..], [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit()))
}

fn is_made_of(class: u8, text: &[u8]) -> bool {
    text.iter().all(|octet| CLASSES[usize::from(*octet)] & class != 0)
}

/// Bytes that a registered name may have, percent signs among them.
const NAME: u8 = 1;

/// Bytes that a user name and a password in front of a host may have.
const USER: u8 = 2;

const PATH: u8 = 4;

const QUERY: u8 = 8;

/// Which of the classes each byte belongs to.
static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    add(&mut classes, b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", NAME | USER | PATH | QUERY);
    add(&mut classes, b"0123456789-._~!$&'()*+;=%", NAME | USER | PATH | QUERY);
    add(&mut classes, b",:", USER | PATH | QUERY);
    add(&mut classes, b"/@", PATH | QUERY);
    // RFC 3986 wants the rest encoded, but browsers send these as they are, by the URL Standard. Links such as `?a[]=1` are
    // common, and no program takes their end to be elsewhere. The same goes for a percent sign that encodes nothing.
    add(&mut classes, b"[]|^", PATH | QUERY);
    add(&mut classes, b"?\\`{}", QUERY);
    classes
};

const fn add(classes: &mut [u8; 256], octets: &[u8], class: u8) {
    let mut place = 0;
    while place < octets.len() {
        classes[octets[place] as usize] |= class;
        place += 1;
    }
}

const BAD_FORM: &str = "the target is neither a path nor a URI";
const BAD_HOST: &str = "the target's host is not valid";
const BAD_PORT: &str = "the target's port is not valid";

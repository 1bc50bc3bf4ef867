//! Hosts and request targets, which go by RFC 3986.

use std::net::Ipv6Addr;

use lenore::filter::http::Version;
use proptest::prelude::*;

use crate::{refusal, request};

/// Hosts, with and without a port, by the grammar.
const GOOD_HOSTS: &[&str] = &[
    "",
    "a",
    "a.test",
    "A.Test:80",
    "a.test:",
    ":80",
    "a_b.test",
    "xn--mnchen-3ya.test:00443",
    "127.0.0.1",
    "127.0.0.1:8080",
    "999.1.1.1",
    "a%20b%C3%a9",
    "-._~!$&'()*+;=",
    "[::]",
    "[::1]:80",
    "[2001:DB8::7]",
    "[1:2:3:4:5:6:7:8]",
    "[::ffff:127.0.0.1]:",
    "[v1.a:b]",
    "[VF0.~!$&'()*+,;=]:1",
];

/// What is no host, though each byte may be somewhere in a URI.
const BAD_HOSTS: &[&str] = &[
    "[::1",
    "::1",
    "::1]",
    "[]",
    "[::1]80",
    "[::1]x:80",
    "[:::1]",
    "[1:2:3]",
    "[1:2:3:4:5:6:7:8:9]",
    "[::127.0.0.256]",
    "[::1%25eth0]",
    "[a.test]",
    "[127.0.0.1]",
    "[v1]",
    "[v.a]",
    "[v1.]",
    "[vg.a]",
    "[v1.a%20]",
    "[[::1]]",
    "a[::1]",
    "a:80:80",
    "a:http",
    "a:-1",
    "a: 1",
    "a b",
    "a,b",
    "user@a.test",
    "user:word@a.test",
    "@a.test",
    "a%",
    "a%2",
    "a%zz",
    "a%2%30",
    "a/b",
    "a?b",
    "a#b",
    "a\\b",
    "a\"b",
    "<a>",
    "a^b",
    "a`b",
    "a|b",
    "{a}",
    "http://a.test",
    "caf\u{e9}.test",
];

fn with_host(host: &str, version: &str) -> String {
    format!("GET / HTTP/{version}\r\nHost: {host}\r\n\r\n")
}

fn with_target(method: &str, target: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: b.test\r\n\r\n")
}

#[track_caller]
fn refused(request: &str, detail: &str) {
    let refusal = refusal(request);
    assert_eq!((refusal.status(), refusal.detail()), (400, detail), "{request:?}");
}

#[test] // K-FH-20, RFC 9112 3.2: 400 for an invalid Host, whatever the version
fn a_host_field_is_a_host() {
    for &host in GOOD_HOSTS {
        for version in ["1.0", "1.1"] {
            assert_eq!(request(with_host(host, version)).host(), Some(host));
        }
    }
    for host in BAD_HOSTS {
        for version in ["1.0", "1.1"] {
            refused(&with_host(host, version), "the Host is not valid");
        }
    }
}

#[test] // RFC 9112 3.2: a Host that is missing or there twice, also when nobody looks at it
fn a_whole_uri_does_not_replace_the_host_field() {
    let get = |fields: &str| format!("GET http://a.test/ HTTP/1.1\r\n{fields}\r\n");
    refused(&get(""), "HTTP/1.1 needs a Host");
    refused(&get("Host: a.test\r\nHost: a.test\r\n"), "more than one Host");
    refused(&get("Host: user@a.test\r\n"), "the Host is not valid");
    // RFC 9112 3.2.2: the target's counts, and the field, if it is one at all, is ignored.
    assert_eq!(request(get("Host: b.test:80\r\n")).host(), Some("a.test"));
    assert_eq!(request(get("Host:\r\n")).host(), Some("a.test"));
}

#[test] // K-FH-20, RFC 9110 4.2.1, 4.2.4: no http URI without a host, or with user information
fn the_host_of_a_uri_is_a_host() {
    for scheme in ["http", "HTTPS", "ftp"] {
        for &host in GOOD_HOSTS {
            let has_name = !host.is_empty() && !host.starts_with(':');
            for path in ["", "/", "/x?y", "?y"] {
                let get = with_target("GET", &format!("{scheme}://{host}{path}"));
                match (scheme, host, path) {
                    ("ftp", "", "") => refused(&get, "the target is neither a path nor a URI"),
                    _ if scheme == "ftp" || has_name => assert_eq!(request(get).host(), Some(host)),
                    _ => {
                        let refusal = refusal(get);
                        assert_eq!(refusal.status(), 400);
                    }
                }
            }
        }
        // These end the host, or the target.
        let is_within = |host: &&&str| !host.contains(['/', '?', '@', ' ', '#', '\u{e9}']);
        for host in BAD_HOSTS.iter().filter(is_within) {
            refused(&with_target("GET", &format!("{scheme}://{host}/")), "the target's host is not valid");
        }
    }
    for target in ["http://user@a.test/", "https://user:word@a.test", "http://user@a.test,\"<b>/", "http://@/"] {
        refused(&with_target("GET", target), "the target has user information");
    }
    // It has a meaning elsewhere, but is no part of the host.
    assert_eq!(request(with_target("GET", "ftp://user:w%20d@a.test:21/x")).host(), Some("a.test:21"));
    refused(&with_target("GET", "ftp://us[er@a.test/"), "the target's host is not valid");
    refused(&with_target("GET", "ftp://user@user@a.test/"), "the target's host is not valid");
}

#[test] // K-FH-20, RFC 9110 9.3.6: CONNECT has a host and a port, and none of them is empty or out of range; RFC 9112 3.3: they are the request's, not the field's
fn connect_has_a_host_and_a_port() {
    for target in ["a.test:443", "[::1]:1", "127.0.0.1:65535", "a:00080"] {
        let request = request(with_target("CONNECT", target));
        assert_eq!((request.target(), request.host()), (target, Some(target)));
    }
    for target in ["a:", "a:0", "a:65536", "a:99999999999999999999", "a:+80", "a:http", "a:80:80", "[::1]:"] {
        refused(&with_target("CONNECT", target), "the target's port is not valid");
    }
    for target in [":443", "user@a:443", "[::1:443", "[a]:443", "a%2:443", "a/b:443"] {
        refused(&with_target("CONNECT", target), "the target's host is not valid");
    }
    for target in ["a.test", "[::1]", "/", "/a:80"] {
        refused(&with_target("CONNECT", target), "the target is neither a path nor a URI");
    }
}

#[test] // K-FH-04: what must be percent-encoded is refused, as RFC 9112 3.2 advises
fn a_target_has_the_characters_of_a_uri() {
    for prefix in ["", "http://a.test"] {
        let path = "/azAZ09-._~!$&'()*+,;=:@%41//";
        let target = format!("{prefix}{path}?{path}?");
        assert_eq!(request(with_target("GET", &target)).target(), target);
        // Browsers send these, by the URL Standard.
        for tail in ["/[a]|^", "/?a[]=1&{b}=`c`|^\\", "/100%", "/?100%&%zz"] {
            let target = format!("{prefix}{tail}");
            assert_eq!(request(with_target("GET", &target)).target(), target);
        }
        for tail in ["/caf\u{e9}", "/?\u{20ac}", "/#a", "/?#", "/\"", "/?\"", "/<a>", "/?<", "/\\", "/{a}", "/`"] {
            let get = with_target("GET", &format!("{prefix}{tail}"));
            refused(&get, "the target has a character that must be percent-encoded");
        }
        for octets in [&b"/\xe9"[..], b"/\x80", b"/?\xff", b"/\x7f", b"/\x01"] {
            let get = [b"GET ", prefix.as_bytes(), octets, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
            assert_eq!(refusal(get).status(), 400, "{octets:?}");
        }
    }
}

#[test] // K-FH-04, RFC 9110 2.5: a later minor version is served as the latest that is known
fn a_later_minor_version_is_http_1_1() {
    for minor in 2..=9 {
        let all = crate::requests(format!(
            "PUT /1 HTTP/1.{minor}\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n\
             GET /2 HTTP/1.{minor}\nHost: a\nConnection: close\n\n"
        ));
        assert_eq!((all.len(), all[0].body(), all[1].target()), (2, &b"x"[..], "/2"));
        assert_eq!((all[0].version(), all[0].keeps_alive()), (Version::Http11, true));
        assert_eq!((all[1].version(), all[1].keeps_alive()), (Version::Http11, false));
        // By its rules, too.
        refused(&format!("GET / HTTP/1.{minor}\r\n\r\n"), "HTTP/1.1 needs a Host");
    }
    for line in ["GET / HTTP/1.10", "GET / HTTP/1.", "GET / HTTP/01.1", "GET / HTTP/1.2 ", "GET / x HTTP/1.2"] {
        refused(&format!("{line}\r\nHost: a\r\n\r\n"), "malformed request line");
    }
}

/// A host by the grammar, made from its rules.
fn host() -> impl Strategy<Value = String> {
    let name = "([a-zA-Z0-9._~!$&'()*+;=-]|%[0-9a-fA-F]{2}){0,12}";
    let address = any::<u128>().prop_map(|bits| format!("[{}]", Ipv6Addr::from_bits(bits)));
    let future = r"\[v[0-9A-F]{1,3}\.[a-z0-9:;,~]{1,9}\]";
    let host = prop_oneof![name, address, future];
    (host, "(:[0-9]{0,7})?").prop_map(|(host, port)| host + &port)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_host_comes_as_it_was_sent(host in host(), path in "(/[a-z0-9%@:]{0,3}){0,3}", query in "(\\?[a-z=/?]{0,5})?") {
        let by_field = request(with_host(&host, "1.1"));
        prop_assert_eq!(by_field.host(), Some(&*host));
        let target = format!("http://{host}{path}{query}");
        let get = with_target("GET", &target);
        if host.is_empty() || host.starts_with(':') {
            prop_assert_eq!(refusal(get).status(), 400);
        } else {
            let by_target = request(get);
            prop_assert_eq!((by_target.host(), by_target.target()), (Some(&*host), &*target));
            prop_assert_eq!(by_target.query(), query.strip_prefix('?'));
        }
    }

    #[test]
    fn what_is_taken_for_a_host_splits_in_one_way(host in "[a\\[\\]:@%.,/?#1v-]{0,8}") {
        let records = crate::records(with_host(&host, "1.1"));
        if let [lenore::filter::http::Incoming::Request(request)] = &records[..] {
            let taken = request.host().expect("HTTP/1.1 has one");
            prop_assert_eq!(taken, &*host);
            prop_assert!(!taken.contains(['@', '/', '?', '#', ',']));
            let port = taken.rsplit_once(']').map_or(taken, |(_, port)| port);
            prop_assert!(port.matches(':').count() <= 1);
            prop_assert_eq!(taken.contains('['), taken.starts_with('[') && taken.contains(']'));
        }
    }
}

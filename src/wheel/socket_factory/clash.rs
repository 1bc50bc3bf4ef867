//! Addresses at which one program can't listen at the same time.

use std::net::{IpAddr, SocketAddr};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, socket, sockopt};

/// Tells whether a socket that listens at `first` keeps another one from `second`, where both have the options of a
/// [`SocketFactory`](super::SocketFactory) for TCP. The system says so only when the first one listens.
pub(crate) fn clash(first: SocketAddr, second: SocketAddr) -> bool {
    // An address of one link is not that of another link.
    let is_on_other_link = first.ip() == second.ip() && first != second;
    first.port() == second.port() && !is_on_other_link && hosts_clash(first.ip(), second.ip(), is_for_both_families)
}

fn hosts_clash(first: IpAddr, second: IpAddr, is_for_both: impl Fn() -> bool) -> bool {
    let is_any = |host: IpAddr| host.is_unspecified();
    // `::ffff:127.0.0.1` is an address of IPv4.
    let (first, second) = (first.to_canonical(), second.to_canonical());
    if first.is_ipv4() == second.is_ipv4() {
        return first == second || is_any(first) || is_any(second);
    }
    let of_v6 = if first.is_ipv6() { first } else { second };
    is_any(of_v6) && is_for_both()
}

/// Tells whether a socket at `::` also serves IPv4, unless an option of it says otherwise.
fn is_for_both_families() -> bool {
    let probe = socket(AddressFamily::Inet6, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
    probe.and_then(|probe| getsockopt(&probe, sockopt::Ipv6V6Only)).is_ok_and(|v6_only| !v6_only)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::TcpListener;

    use super::*;

    #[test] // O-RL-17
    fn addresses_clash_that_the_system_refuses_to_listen_on_at_once() {
        let hosts: [IpAddr; 6] = ["127.0.0.1", "127.0.0.2", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1"]
            .map(|host| host.parse().expect("a host"));
        for (first, second) in hosts.iter().flat_map(|first| hosts.map(|second| (*first, second))) {
            // A machine may have no IPv6.
            if TcpListener::bind((first, 0)).is_err() || TcpListener::bind((second, 0)).is_err() {
                continue;
            }
            let is_refused = || {
                let listener = TcpListener::bind((first, 0)).expect("a listener");
                let port = listener.local_addr().expect("bound").port();
                TcpListener::bind((second, port)).is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
            };
            // Another process may have the port at the second host.
            let is_refused = (0..5).all(|_| is_refused());
            assert_eq!(clash((first, 1).into(), (second, 1).into()), is_refused, "{first} {second}");
        }
    }

    #[test] // O-RL-17
    fn other_ports_and_other_links_never_clash() {
        let at = |text: &str| text.parse().expect("an address");
        assert!(!clash(at("0.0.0.0:1"), at("0.0.0.0:2")));
        assert!(!clash(at("[fe80::1%1]:1"), at("[fe80::1%2]:1")));
        assert!(clash(at("[fe80::1%1]:1"), at("[fe80::1%1]:1")));
        assert!(clash(at("0.0.0.0:1"), at("127.0.0.1:1")));
    }

    #[test] // O-RL-17: as `net.ipv6.bindv6only` says
    fn any_address_of_v6_clashes_with_v4_if_it_serves_both() {
        let at = |text: &str| text.parse().expect("a host");
        for (first, second) in [("::", "127.0.0.1"), ("0.0.0.0", "::"), ("::ffff:10.0.0.1", "::")] {
            assert!(hosts_clash(at(first), at(second), || true));
            assert!(!hosts_clash(at(first), at(second), || false));
        }
        assert!(!hosts_clash(at("::1"), at("0.0.0.0"), || true));
        assert!(hosts_clash(at("::ffff:10.0.0.1"), at("10.0.0.1"), || false));
    }
}

//! Addresses: how a program names them, and how they are resolved.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage, UnixAddr};

use super::socket::CallError;
use crate::error::Error;
use crate::inherited::Place;
pub(super) use crate::inherited::path_of;

/// Where a socket is bound, or what it connects to. A program makes one from a text, one or several socket addresses, a
/// host and a port, or a path.
///
/// A text is `host:port`. The host is a name, an IPv4 address or an IPv6 address. An IPv6 address needs brackets if a
/// port follows: `[::1]:80`. The port is a number, or the name of a service in `/etc/services`. A text for binding may
/// leave out the host, which then stands for every address of this machine, and the port, which is then 0 for any free
/// port. For a UNIX socket the text is its path.
///
/// **Looking up a name blocks the whole program**, as in POE. No session runs until the answer comes, which takes
/// seconds with a slow name server. For connecting, a [`Resolver`](crate::component::Resolver) looks names up in other
/// processes: [`SocketFactoryBuilder::resolver`](super::SocketFactoryBuilder::resolver).
///
/// ```
/// use lenore::wheel::Address;
///
/// assert_eq!(Address::from("[::1]:80").to_string(), "[::1]:80");
/// assert_eq!(Address::from(("localhost", 80)).to_string(), "localhost:80");
/// assert_eq!(Address::from(std::path::Path::new("/run/lenore")).to_string(), "/run/lenore");
/// ```
///
/// POE: `BindAddress` and `BindPort`, `RemoteAddress` and `RemotePort`.
#[derive(Debug, Clone)]
pub struct Address(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Text(String),
    Host(String, u16),
    Known(Vec<SocketAddr>),
    Path(PathBuf),
}

impl From<&str> for Address {
    fn from(text: &str) -> Address {
        Address(Kind::Text(text.to_owned()))
    }
}

impl From<String> for Address {
    fn from(text: String) -> Address {
        Address(Kind::Text(text))
    }
}

impl From<&String> for Address {
    fn from(text: &String) -> Address {
        text.as_str().into()
    }
}

impl From<(&str, u16)> for Address {
    fn from((host, port): (&str, u16)) -> Address {
        Address(Kind::Host(host.to_owned(), port))
    }
}

impl From<(String, u16)> for Address {
    fn from((host, port): (String, u16)) -> Address {
        Address(Kind::Host(host, port))
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        vec![address].into()
    }
}

impl From<(IpAddr, u16)> for Address {
    fn from(address: (IpAddr, u16)) -> Address {
        SocketAddr::from(address).into()
    }
}

/// All the addresses of a name that the program has looked up itself.
impl From<Vec<SocketAddr>> for Address {
    fn from(addresses: Vec<SocketAddr>) -> Address {
        Address(Kind::Known(addresses))
    }
}

impl From<&Path> for Address {
    fn from(path: &Path) -> Address {
        Address(Kind::Path(path.to_owned()))
    }
}

impl From<&PathBuf> for Address {
    fn from(path: &PathBuf) -> Address {
        path.as_path().into()
    }
}

impl From<PathBuf> for Address {
    fn from(path: PathBuf) -> Address {
        Address(Kind::Path(path))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Text(text) => f.write_str(text),
            Kind::Host(host, port) => write!(f, "{host}:{port}"),
            Kind::Known(addresses) => {
                let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                f.write_str(&addresses.join(", "))
            }
            // Paths are shown as they are. In an abstract name the zero byte is shown as `@`.
            Kind::Path(path) => f.write_str(&path.to_string_lossy().replace('\0', "@")),
        }
    }
}

/// The family to which the addresses of a name are limited.
///
/// POE: `SocketDomain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Domain {
    /// IPv4: POE's `AF_INET`.
    Ipv4,
    /// IPv6: POE's `AF_INET6`.
    Ipv6,
}

impl Domain {
    fn has(self, address: &SocketAddr) -> bool {
        address.is_ipv4() == (self == Domain::Ipv4)
    }

    fn any(self) -> IpAddr {
        match self {
            Domain::Ipv4 => Ipv4Addr::UNSPECIFIED.into(),
            Domain::Ipv6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }
}

/// An internet address split into its parts, with its names not looked up yet.
#[derive(Debug, PartialEq)]
pub(super) enum Endpoint {
    Known(Vec<SocketAddr>),
    /// Without a host: any address. Without a port: any port.
    Named {
        host: Option<String>,
        port: Option<Port>,
    },
}

#[derive(Debug, PartialEq)]
pub(super) enum Port {
    Number(u16),
    Service(String),
}

impl Address {
    /// Splits an internet address into its parts.
    pub(super) fn endpoint(&self) -> Result<Endpoint, Error> {
        let endpoint = match &self.0 {
            Kind::Known(addresses) if addresses.is_empty() => Err("the list is empty"),
            Kind::Known(addresses) => Ok(Endpoint::Known(addresses.clone())),
            Kind::Host(host, port) => Ok(named(host, Some(Port::Number(*port)))),
            Kind::Text(text) => parse(text),
            Kind::Path(_) => Err("it is the path of a UNIX socket"),
        };
        endpoint.map_err(|reason| self.invalid(reason))
    }

    /// As [`endpoint`](Address::endpoint), but fails for an address that can't be connected to.
    pub(super) fn remote_endpoint(&self) -> Result<Endpoint, Error> {
        match self.endpoint()? {
            Endpoint::Named { host: None, .. } => Err(self.invalid("there is no host to connect to")),
            Endpoint::Named { port: None, .. } => Err(self.invalid("there is no port to connect to")),
            endpoint => Ok(endpoint),
        }
    }

    /// Returns the path of a UNIX socket.
    pub(super) fn path(&self) -> Result<PathBuf, Error> {
        match &self.0 {
            Kind::Path(path) if !path.as_os_str().is_empty() => Ok(path.clone()),
            Kind::Text(text) if !text.is_empty() => Ok(text.into()),
            Kind::Path(_) | Kind::Text(_) => Err(self.invalid("a UNIX socket needs a path")),
            Kind::Host(..) | Kind::Known(_) => Err(self.invalid("it is no path of a UNIX socket")),
        }
    }

    fn invalid(&self, reason: &'static str) -> Error {
        Error::InvalidAddress { address: self.to_string(), reason }
    }
}

fn parse(text: &str) -> Result<Endpoint, &'static str> {
    if let Ok(address) = text.parse() {
        return Ok(Endpoint::Known(vec![address]));
    }
    if text.parse::<IpAddr>().is_ok() {
        return Ok(named(text, None));
    }
    let (host, port) = match text.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((host, ""))) => (host, ""),
        Some(Some((host, rest))) if rest.starts_with(':') => (host, &rest[1..]),
        Some(_) => return Err("its brackets don't match"),
        None => text.rsplit_once(':').unwrap_or((text, "")),
    };
    if host.contains(':') && !text.starts_with('[') {
        return Err("IPv6 with a port needs brackets, as in [::1]:80");
    }
    let port = match port {
        "" => None,
        digits if digits.bytes().all(|digit| digit.is_ascii_digit()) => {
            Some(Port::Number(digits.parse().map_err(|_| "there is no such port")?))
        }
        name => Some(Port::Service(name.to_owned())),
    };
    Ok(named(host, port))
}

fn named(host: &str, port: Option<Port>) -> Endpoint {
    Endpoint::Named { host: (!host.is_empty()).then(|| host.to_owned()), port }
}

impl Endpoint {
    /// Tells whether it stands for any address of this machine.
    pub(super) fn is_any(&self) -> bool {
        matches!(self, Endpoint::Named { host: None, .. })
    }

    /// If the host is a name, returns it with its port. This looks up the name of the port.
    pub(super) fn name(&self, protocol: &'static str) -> Result<Option<(String, u16)>, CallError> {
        let Endpoint::Named { host: Some(host), port } = self else { return Ok(None) };
        if host.parse::<IpAddr>().is_ok() {
            return Ok(None);
        }
        Ok(Some((host.clone(), number(port.as_ref(), protocol)?)))
    }

    /// Looks up the names in the address. The result has at least one address.
    pub(super) fn resolve(&self, domain: Option<Domain>, protocol: &'static str) -> Result<Vec<SocketAddr>, CallError> {
        let (host, port) = match self {
            Endpoint::Known(addresses) => return only(domain, addresses.clone()),
            Endpoint::Named { host, port } => (host, port),
        };
        let port = number(port.as_ref(), protocol)?;
        match host {
            None => Ok(vec![(domain.unwrap_or(Domain::Ipv4).any(), port).into()]),
            Some(host) => match (host.as_str(), port).to_socket_addrs() {
                Ok(found) => only(domain, found.collect()),
                Err(error) => Err(CallError { operation: "getaddrinfo", error }),
            },
        }
    }
}

fn number(port: Option<&Port>, protocol: &'static str) -> Result<u16, CallError> {
    match port {
        None => Ok(0),
        Some(Port::Number(number)) => Ok(*number),
        Some(Port::Service(name)) => service_port(name, protocol),
    }
}

/// Keeps the addresses of one family. The result has at least one address.
pub(super) fn only(domain: Option<Domain>, mut addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, CallError> {
    addresses.retain(|address| domain.is_none_or(|domain| domain.has(address)));
    if addresses.is_empty() {
        let family = if domain == Some(Domain::Ipv6) { "IPv6" } else { "IPv4" };
        let error = io::Error::new(io::ErrorKind::AddrNotAvailable, format!("there is no {family} address"));
        return Err(CallError { operation: "getaddrinfo", error });
    }
    Ok(addresses)
}

/// Looks a service up in `/etc/services`. It does not ask other sources, such as an LDAP directory.
fn service_port(name: &str, protocol: &'static str) -> Result<u16, CallError> {
    let services = std::fs::read("/etc/services").unwrap_or_default();
    find_service(&String::from_utf8_lossy(&services), name, protocol).ok_or_else(|| {
        let text = format!("there is no service {name} for {protocol} in /etc/services");
        CallError { operation: "getservbyname", error: io::Error::new(io::ErrorKind::AddrNotAvailable, text) }
    })
}

/// Finds the line `name port/protocol alias...` with this name or alias.
fn find_service(services: &str, wanted: &str, protocol: &str) -> Option<u16> {
    services.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let name = words.next()?;
        let (port, of) = words.next()?.split_once('/')?;
        let is_it = of == protocol && (name == wanted || words.any(|alias| alias == wanted));
        is_it.then(|| port.parse().ok())?
    })
}

/// An address that the system takes as it is.
#[derive(Debug, Clone)]
pub(super) enum Target {
    Ip(SocketAddr),
    Unix(PathBuf, UnixAddr),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Ip(address) => address.fmt(f),
            Target::Unix(path, _) => Address::from(path.as_path()).fmt(f),
        }
    }
}

impl Target {
    /// Packs a path; one that begins with a zero byte is a name in Linux's abstract namespace.
    pub(super) fn unix(path: PathBuf) -> Result<Target, CallError> {
        match pack(&path) {
            Ok(packed) => Ok(Target::Unix(path, packed)),
            Err(errno) => Err(CallError { operation: "pack_sockaddr_un", error: errno.into() }),
        }
    }

    /// Returns where a socket is that is bound to this address.
    pub(super) fn place(&self) -> Place {
        match self {
            Target::Ip(address) => Place::Ip(*address),
            Target::Unix(path, _) => Place::Path(path.clone()),
        }
    }

    pub(super) fn family(&self) -> AddressFamily {
        match self {
            Target::Ip(SocketAddr::V4(_)) => AddressFamily::Inet,
            Target::Ip(SocketAddr::V6(_)) => AddressFamily::Inet6,
            Target::Unix(..) => AddressFamily::Unix,
        }
    }

    /// Calls `system` with the address in the system's form.
    pub(super) fn with(&self, system: impl FnOnce(&dyn SockaddrLike) -> nix::Result<()>) -> nix::Result<()> {
        match self {
            Target::Ip(address) => system(&SockaddrStorage::from(*address)),
            Target::Unix(_, packed) => system(packed),
        }
    }
}

#[cfg(target_os = "linux")]
fn pack(path: &Path) -> nix::Result<UnixAddr> {
    use std::os::unix::ffi::OsStrExt;
    match path.as_os_str().as_bytes().split_first() {
        Some((0, name)) => UnixAddr::new_abstract(name),
        _ => UnixAddr::new(path),
    }
}

#[cfg(not(target_os = "linux"))]
fn pack(path: &Path) -> nix::Result<UnixAddr> {
    UnixAddr::new(path)
}

/// The errno of a name that is not found.
pub(super) const NOT_FOUND: Errno = Errno::EADDRNOTAVAIL;

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> Endpoint {
        Address::from(text).endpoint().unwrap()
    }

    fn named(host: &str, port: Option<Port>) -> Endpoint {
        super::named(host, port)
    }

    #[test] // K-SF-04: a missing address, a missing port, names and services
    fn a_text_is_taken_apart() {
        assert_eq!(endpoint("127.0.0.1:80"), Endpoint::Known(vec![([127, 0, 0, 1], 80).into()]));
        assert_eq!(endpoint("[::1]:80"), Endpoint::Known(vec![(Ipv6Addr::LOCALHOST, 80).into()]));
        assert_eq!(endpoint("127.0.0.1"), named("127.0.0.1", None));
        assert_eq!(endpoint("::1"), named("::1", None));
        assert_eq!(endpoint("[::1]"), named("::1", None));
        assert_eq!(endpoint("[fe80::1%lo]:7"), named("fe80::1%lo", Some(Port::Number(7))));
        assert_eq!(endpoint("raven:7"), named("raven", Some(Port::Number(7))));
        assert_eq!(endpoint("raven:http"), named("raven", Some(Port::Service("http".to_owned()))));
        assert_eq!(endpoint("raven"), named("raven", None));
        assert_eq!(endpoint("raven:"), named("raven", None));
        assert_eq!(endpoint(":7"), named("", Some(Port::Number(7))));
        assert_eq!(endpoint(""), Endpoint::Named { host: None, port: None });
    }

    #[test]
    fn a_text_that_is_no_address_is_told_why() {
        for (text, why) in
            [("::1:http", "brackets"), ("[::1", "brackets"), ("[::1]80", "brackets"), ("raven:65536", "no such port")]
        {
            let problem = Address::from(text).endpoint().unwrap_err().to_string();
            assert!(problem.contains(text) && problem.contains(why), "{problem}");
        }
        assert!(Address::from(Path::new("/run/x")).endpoint().is_err());
        assert!(Address::from(("raven", 7)).path().is_err());
        assert!(Address::from("").path().is_err());
        assert!(Address::from(Vec::new()).endpoint().is_err());
    }

    #[test] // K-SF-04: missing address means any, missing port means 0
    fn what_is_missing_is_any() {
        let any = |text, domain| endpoint(text).resolve(domain, "tcp").unwrap();
        assert_eq!(any(":7", None), [(Ipv4Addr::UNSPECIFIED, 7).into()]);
        assert_eq!(any(":7", Some(Domain::Ipv6)), [(Ipv6Addr::UNSPECIFIED, 7).into()]);
        assert_eq!(any("127.0.0.1", None), [(Ipv4Addr::LOCALHOST, 0).into()]);
        assert_eq!(endpoint("::1").resolve(Some(Domain::Ipv4), "tcp").unwrap_err().operation, "getaddrinfo");
    }

    #[test] // K-SF-04: ports may be service names
    fn services_are_found_by_name_and_alias() {
        let services =
            "# comment\n\nhttp\t80/tcp  www # the web\nhttps 443/tcp\ndomain 53/udp\ndomain 53/tcp\nbroken\n";
        assert_eq!(find_service(services, "http", "tcp"), Some(80));
        assert_eq!(find_service(services, "www", "tcp"), Some(80));
        assert_eq!(find_service(services, "domain", "udp"), Some(53));
        assert_eq!(find_service(services, "https", "udp"), None);
        assert_eq!(find_service(services, "the", "tcp"), None);
        assert_eq!(find_service(services, "broken", "tcp"), None);
    }
}

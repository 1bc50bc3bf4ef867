//! A network of several hosts on one machine: a network namespace for each if the tests may make them, and loopback addresses of
//! the same numbers elsewhere.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::sched::{CloneFlags, setns};

use super::{DEADLINE, Program};

/// The hosts, which are known by the last number of their address. It is gone when this drops.
#[derive(Debug)]
pub struct Network {
    hosts: Vec<u8>,
    /// What the names of the namespaces begin with; `None` without namespaces.
    namespaces: Option<String>,
    /// The first three numbers of all addresses.
    prefix: [u8; 3],
}

impl Network {
    /// Connects `hosts`. The first has a bridge, to which the others are connected.
    ///
    /// # Panics
    ///
    /// When namespaces can be made, but not be connected.
    #[track_caller]
    pub fn new(hosts: &[u8]) -> Network {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (own, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let name = format!("lenore-{own}-{count}");
        let network = Network { hosts: hosts.to_vec(), namespaces: Some(name), prefix: [10, 0, 0] };
        if !try_ip(&format!("netns add {}", network.namespace(hosts[0]))) {
            // Another network has other addresses. All of 127.0.0.0/8 is this machine.
            let [.., high, low] = (own * 8 + count).to_be_bytes();
            return Network { hosts: hosts.to_vec(), namespaces: None, prefix: [127, high | 1, low] };
        }
        let bridge = network.namespace(hosts[0]);
        ip(&format!("-n {bridge} link set lo up"));
        ip(&format!("-n {bridge} link add name bridge type bridge"));
        ip(&format!("-n {bridge} addr add {}/24 dev bridge", network.address(hosts[0])));
        ip(&format!("-n {bridge} link set bridge up"));
        for host in &hosts[1..] {
            let node = network.namespace(*host);
            ip(&format!("netns add {node}"));
            ip(&format!("-n {bridge} link add port{host} type veth peer name eth0 netns {node}"));
            ip(&format!("-n {bridge} link set port{host} master bridge up"));
            ip(&format!("-n {node} addr add {}/24 dev eth0", network.address(*host)));
            ip(&format!("-n {node} link set lo up"));
            ip(&format!("-n {node} link set eth0 up"));
        }
        network
    }

    /// Tells whether each host has a namespace, so that all ports are free on it.
    pub fn has_namespaces(&self) -> bool {
        self.namespaces.is_some()
    }

    /// The first three numbers of all addresses, each with the dot behind it.
    pub fn prefix(&self) -> String {
        self.prefix.map(|number| format!("{number}.")).concat()
    }

    /// The address of a host.
    pub fn address(&self, host: u8) -> IpAddr {
        let [a, b, c] = self.prefix;
        Ipv4Addr::new(a, b, c, host).into()
    }

    /// A program that runs on a host.
    pub fn program(&self, host: u8, path: impl AsRef<Path>) -> Program {
        match self.path(host) {
            Some(namespace) => Program::new("nsenter").arg(format!("--net={}", namespace.display())).arg(path.as_ref()),
            None => Program::new(path),
        }
    }

    /// Moves the calling thread to a host: its sockets are there from now on.
    ///
    /// # Panics
    ///
    /// When there is no such host.
    pub fn enter(&self, host: u8) {
        if let Some(path) = self.path(host) {
            let namespace = File::open(&path).expect("it was made");
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("who has made it may enter it");
        }
    }

    /// Connects to an address from a host.
    ///
    /// # Errors
    ///
    /// What connect(2) says.
    pub fn connect(&self, host: u8, address: SocketAddr) -> io::Result<TcpStream> {
        let connect = || {
            self.enter(host);
            let stream = TcpStream::connect_timeout(&address, DEADLINE)?;
            stream.set_read_timeout(Some(DEADLINE))?;
            stream.set_write_timeout(Some(DEADLINE))?;
            Ok(stream)
        };
        // A socket stays where it was made. The calling thread is not to be moved: it may run other tests.
        thread::scope(|scope| scope.spawn(connect).join().expect("it does not panic"))
    }

    fn path(&self, host: u8) -> Option<PathBuf> {
        self.namespaces.is_some().then(|| Path::new("/run/netns").join(self.namespace(host)))
    }

    fn namespace(&self, host: u8) -> String {
        format!("{}-{host}", self.namespaces.as_deref().unwrap_or_default())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in &self.hosts {
            if self.path(*host).is_some_and(|path| fs::exists(path).unwrap_or_default()) {
                try_ip(&format!("netns del {}", self.namespace(*host)));
            }
        }
    }
}

fn try_ip(args: &str) -> bool {
    Command::new("ip").args(args.split_whitespace()).output().is_ok_and(|output| output.status.success())
}

#[track_caller]
fn ip(args: &str) {
    let output = Command::new("ip").args(args.split_whitespace()).output().expect("it has been started before");
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
}

//! Three nodes of `http_prefork` behind HAProxy with the `haproxy.cfg` of `examples/deploy`. Each has a network namespace of its own
//! where the tests may make them, and an address of the loopback elsewhere.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Uid;
use tempfile::TempDir;
use util::http::{get, status_address};
use util::network::Network;
use util::{DEADLINE, Over, Program, Running, example, kill, wait_until};

/// The host of HAProxy and of the clients.
const FRONT: u8 = 1;

/// The hosts of the nodes, as the configuration has them.
const NODES: [u8; 3] = [11, 12, 13];

/// How long a node that is told to end serves before it closes anything. HAProxy takes a tenth of that, on a machine that does nothing
/// else.
const LAME_DUCK_MS: u64 = 6000;

/// Held by a test that has a cluster: two at once are slow, as their clients never pause.
static ALONE: Mutex<()> = Mutex::new(());

/// As large as to fill what is buffered between a node and a client several times.
const LARGE: usize = 48 << 20;

/// The nodes, the balancer, and what connects them.
struct Cluster {
    nodes: Vec<Running>,
    _haproxy: Running,
    network: Network,
    dir: TempDir,
    front: SocketAddr,
    _alone: MutexGuard<'static, ()>,
}

impl Cluster {
    /// Starts all of it and waits until each node takes requests; `None` if there is no HAProxy.
    #[track_caller]
    fn start() -> Option<Cluster> {
        if Command::new("haproxy").arg("-v").output().is_err() {
            assert!(std::env::var_os("LENORE_CI").is_none(), "there is no haproxy");
            eprintln!("skipped: there is no haproxy");
            return None;
        }
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("large"), vec![b'x'; LARGE]).expect("a file");
        let network = Network::new(&[FRONT, NODES[0], NODES[1], NODES[2]]);
        let nodes = NODES.map(|host| start_node(&network, &dir, host)).into();
        let port = if network.has_namespaces() { 80 } else { 7800 };
        let front = SocketAddr::new(network.address(FRONT), port);
        let config = dir.path().join("haproxy.cfg");
        fs::write(&config, configuration(&network, &dir, front)).expect("a file");
        let haproxy = network.program(FRONT, "haproxy").arg("-db").arg("-f").arg(config).start();
        let cluster = Cluster { nodes, _haproxy: haproxy, network, dir, front, _alone: alone };
        for number in 1..=3 {
            cluster.wait_server(number, "is up", |server| server["status"] == "UP" && server["check_status"] == "L7OK");
        }
        Some(cluster)
    }

    /// What HAProxy knows of node 1, 2 or 3.
    fn server(&self, number: usize) -> Option<BTreeMap<String, String>> {
        let mut stream = UnixStream::connect(self.dir.path().join("admin.sock")).ok()?;
        stream.write_all(b"show stat\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, lines) = text.trim_start_matches("# ").split_once('\n')?;
        let line = lines.lines().find(|line| line.starts_with(&format!("nodes,node{number},")))?;
        Some(head.split(',').zip(line.split(',')).map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// A number that HAProxy counts of a node.
    #[track_caller]
    fn count(&self, number: usize, name: &str) -> usize {
        self.server(number).expect("HAProxy runs")[name].parse().unwrap_or_default()
    }

    /// Asserts that HAProxy had no connection refused or cut by a node, and had to send nothing again.
    #[track_caller]
    fn assert_nothing_failed(&self, number: usize) {
        for failures in ["econ", "eresp", "wretr", "wredis"] {
            assert_eq!(self.count(number, failures), 0, "{failures} of node {number}");
        }
    }

    #[track_caller]
    fn wait_server(&self, number: usize, what: &str, fits: impl Fn(&BTreeMap<String, String>) -> bool) {
        wait_until(&format!("node {number} {what}"), DEADLINE, || self.server(number).filter(&fits).map(|_| ()));
    }

    /// Begins to fetch the large file at each node, one client for each.
    #[track_caller]
    fn downloads(&self) -> Vec<BufReader<TcpStream>> {
        let begin = |_| {
            let stream = self.network.connect(FRONT, self.front).expect("HAProxy listens");
            let mut stream = BufReader::new(stream);
            ask(&mut stream, "GET", "/large").expect("a request is sent");
            assert_eq!(read_head(&mut stream).expect("a response begins"), (200, LARGE));
            stream
        };
        let downloads = (0..3).map(begin).collect();
        // Each goes to the node that has the fewest.
        (1..=3).for_each(|number| self.wait_server(number, "has a download", |server| server["scur"] == "1"));
        downloads
    }
}

#[track_caller]
fn start_node(network: &Network, dir: &TempDir, host: u8) -> Running {
    let address = network.address(host);
    let program = network.program(host, example("http_prefork")).arg("--root").arg(dir.path());
    let program = program.args(["--listen", &format!("{address}:7780"), "--status", &format!("{address}:9180")]);
    let program = program.args(["--start-children", "3", "--max-children", "12", "--keep-alive", "60"]);
    let node = program.args(["--lame-duck-ms", &LAME_DUCK_MS.to_string()]).start();
    node.listening_addr();
    node
}

/// The shipped configuration, with the addresses of here.
fn configuration(network: &Network, dir: &TempDir, front: SocketAddr) -> String {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/deploy/haproxy.cfg");
    let mut text = fs::read_to_string(shipped).expect("it is shipped");
    let socket = dir.path().join("admin.sock");
    for (from, to) in [
        ("bind :80", format!("bind {front}")),
        ("/run/haproxy/admin.sock", socket.display().to_string()),
        (" 10.0.0.", format!(" {}", network.prefix())),
    ] {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, &to);
    }
    if !Uid::effective().is_root() {
        text = text.replace("    user haproxy\n", "").replace("    group haproxy\n", "");
    }
    text
}

fn ask(stream: &mut BufReader<TcpStream>, method: &str, path: &str) -> io::Result<()> {
    let body = if method == "POST" { "Content-Length: 5\r\n\r\nhello" } else { "\r\n" };
    stream.get_mut().write_all(format!("{method} {path} HTTP/1.1\r\nHost: lenore\r\n{body}").as_bytes())
}

/// Reads the head of a response: the status, and how long the body is.
fn read_head(stream: &mut BufReader<TcpStream>) -> io::Result<(u16, usize)> {
    let (mut status, mut length) = (None, None);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end().to_ascii_lowercase();
        match line.split_once(' ') {
            Some((name, value)) if name.starts_with("http/1") => {
                status = value.split(' ').next().and_then(|code| code.parse().ok())
            }
            Some(("content-length:", value)) => length = value.parse().ok(),
            _ if line.is_empty() => break,
            _ => {}
        }
    }
    status.zip(length).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{status:?}, {length:?}")))
}

/// Reads a whole response, and returns its status.
fn read_response(stream: &mut BufReader<TcpStream>) -> io::Result<u16> {
    let (status, length) = read_head(stream)?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(status)
}

/// What clients see that ask without a pause.
#[derive(Default)]
struct Load {
    is_over: AtomicBool,
    answered: AtomicUsize,
    lost: Mutex<Vec<String>>,
}

/// A method, what the answer to it is, and whether the client keeps its connection with HAProxy.
const CLIENTS: [(&str, u16, bool); 4] =
    [("GET", 200, true), ("GET", 200, false), ("POST", 405, true), ("POST", 405, false)];

impl Load {
    /// Runs the clients as long as `test`.
    fn during<T>(&self, cluster: &Cluster, test: impl FnOnce() -> T) -> T {
        thread::scope(|scope| {
            let _over = Over(&self.is_over);
            let (network, front) = (&cluster.network, cluster.front);
            for client in CLIENTS {
                scope.spawn(move || self.work(network, front, client));
            }
            self.wait_for_more(200);
            test()
        })
    }

    fn work(&self, network: &Network, front: SocketAddr, (method, expected, keeps): (&str, u16, bool)) {
        network.enter(FRONT);
        let connect = || -> io::Result<BufReader<TcpStream>> {
            let stream = TcpStream::connect_timeout(&front, DEADLINE)?;
            stream.set_read_timeout(Some(DEADLINE))?;
            Ok(BufReader::new(stream))
        };
        let mut kept = None;
        while !self.is_over.load(Ordering::Acquire) {
            let asked = kept.take().map_or_else(connect, Ok).and_then(|mut stream| {
                ask(&mut stream, method, "/hello")?;
                Ok((read_response(&mut stream)?, stream))
            });
            match asked {
                Ok((status, stream)) if status == expected => {
                    kept = keeps.then_some(stream);
                    self.answered.fetch_add(1, Ordering::Relaxed);
                }
                other => self.lost.lock().expect("nobody panics").push(format!("{method}: {other:?}")),
            }
        }
    }

    /// Waits until so many more requests were answered.
    #[track_caller]
    fn wait_for_more(&self, requests: usize) {
        let enough = self.answered.load(Ordering::Relaxed) + requests;
        let what = format!("{requests} more answers");
        wait_until(&what, DEADLINE, || (self.answered.load(Ordering::Relaxed) >= enough).then_some(()));
    }

    fn lost(&self) -> Vec<String> {
        self.lost.lock().expect("nobody panics").clone()
    }
}

/// Reads the rest of a download, and tells whether all of it has come.
fn is_whole(stream: &mut BufReader<TcpStream>) -> bool {
    io::copy(&mut stream.take(LARGE as u64), &mut io::sink()).is_ok_and(|length| length == LARGE as u64)
}

#[test] // O-SD-17
fn term_of_one_node_of_three_loses_no_request_and_the_node_is_taken_back() {
    let Some(mut cluster) = Cluster::start() else { return };
    let load = Load::default();
    let mut downloads = cluster.downloads();
    let mut node = cluster.nodes.remove(0);
    load.during(&cluster, || {
        assert!(cluster.count(1, "stot") > 0);
        let begin = Instant::now();
        node.signal(Signal::SIGTERM);
        cluster.wait_server(1, "is down", |server| server["status"] == "DOWN");
        assert!(begin.elapsed() < Duration::from_millis(LAME_DUCK_MS), "{:?}", begin.elapsed());
        // HAProxy knows of it while the node still serves, and has met no refusal. So a balancer that can't retry loses nothing either.
        let direct = SocketAddr::new(cluster.network.address(NODES[0]), 7780);
        let mut direct = BufReader::new(cluster.network.connect(FRONT, direct).expect("it still listens"));
        ask(&mut direct, "GET", "/hello").expect("it still serves");
        assert_eq!(read_response(&mut direct).expect("it still serves"), 200);
        cluster.assert_nothing_failed(1);
        // What it has in hand goes on, up to shutdown_timeout.
        assert!(downloads.iter_mut().all(is_whole));
        assert_eq!(node.wait_exit(DEADLINE).code(), Some(0), "{}", node.stderr_text());
        load.wait_for_more(200);
        cluster.assert_nothing_failed(1);
        let before = cluster.count(1, "stot");
        node = start_node(&cluster.network, &cluster.dir, NODES[0]);
        cluster.wait_server(1, "is up", |server| server["status"] == "UP");
        cluster.wait_server(1, "gets requests", |server| {
            server["stot"].parse::<usize>().is_ok_and(|now| now > before + 20)
        });
        load.wait_for_more(200);
    });
    let (lost, answered) = (load.lost(), load.answered.into_inner());
    assert!(lost.is_empty(), "{} lost, {answered} answered: {lost:?}", lost.len());
}

#[test] // a balancer can't make good what the node has in its hands
fn kill_of_a_whole_node_loses_what_was_in_its_hands_and_no_more() {
    let Some(cluster) = Cluster::start() else { return };
    let load = Load::default();
    let mut downloads = cluster.downloads();
    load.during(&cluster, || {
        let node = &cluster.nodes[2];
        let all = node.descendants_alive();
        assert!(all.len() >= 3, "{all:?}");
        // The parent first: it would replace its children.
        [node.pid()].into_iter().chain(all).for_each(|pid| _ = kill(pid, Signal::SIGKILL));
        wait_until("the end of all processes", DEADLINE, || {
            let left = node.descendants_alive();
            left.iter().for_each(|pid| _ = kill(*pid, Signal::SIGKILL));
            left.is_empty().then_some(())
        });
        cluster.wait_server(3, "is down", |server| server["status"] == "DOWN");
        load.wait_for_more(200);
    });
    let whole = downloads.iter_mut().map(is_whole).filter(|whole| *whole).count();
    assert_eq!(whole, 2, "the node had one download");
    let (lost, answered) = (load.lost(), load.answered.into_inner());
    let failed: Vec<_> = (1..=3).map(|number| cluster.count(number, "eresp")).collect();
    eprintln!("{} lost, {answered} answered, failed at the nodes: {failed:?}", lost.len());
    // A GET that got no answer is sent to another node. A POST is not, and each client has one at a time.
    assert!(lost.iter().all(|request| request.starts_with("POST: ")), "{lost:?}");
    assert!(lost.len() <= failed[2] && lost.len() <= 2, "{failed:?}, {lost:?}");
    assert_eq!(failed[..2], [0, 0]);
}

#[test] // O-SD-17
fn readiness_is_false_before_a_listener_is_closed() {
    let program = Program::new(example("http_prefork")).args(["--listen", "127.0.0.1:0", "--status", "127.0.0.1:0"]);
    let mut running = program.args(["--start-children", "2", "--lame-duck-ms", "1000"]).start();
    let (address, status) = (running.listening_addr(), status_address(&running));
    wait_until("readiness", DEADLINE, || (get(status, "/ready").status == 200).then_some(()));
    let fetch = |address: SocketAddr, path: &str| -> io::Result<u16> {
        let stream = TcpStream::connect_timeout(&address, DEADLINE)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let mut stream = BufReader::new(stream);
        ask(&mut stream, "GET", path)?;
        read_response(&mut stream)
    };
    assert_eq!(fetch(address, "/hello").expect("it serves"), 200);
    running.signal(Signal::SIGTERM);
    let begin = Instant::now();
    wait_until("an end of readiness", DEADLINE, || (get(status, "/ready").status == 503).then_some(()));
    let not_ready = begin.elapsed();
    assert!(not_ready < Duration::from_millis(900), "{not_ready:?}");
    let mut served = 0;
    let closed = loop {
        // Asked for before the listener is: this answer is older than what comes of that.
        let ready = fetch(status, "/ready");
        assert!(!matches!(ready, Ok(200)), "ready again after {:?}", begin.elapsed());
        match fetch(address, "/hello") {
            Ok(200) => served += 1,
            _ => break begin.elapsed(),
        }
        assert!(begin.elapsed() < DEADLINE, "it does not end");
    };
    assert!(closed >= Duration::from_millis(1000), "closed after {closed:?}");
    assert!(served > 0);
    assert_eq!(running.wait_exit(DEADLINE).code(), Some(0), "{}", running.stderr_text());
    assert!(TcpStream::connect(address).is_err());
}

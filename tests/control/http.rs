//! The status listener, as its clients see it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lenore::daemon::view::Phase;
use nix::sys::signal::Signal;
use util::http::{Answer, connect, find_status_address, get, get_with, send, status, status_address, wait_status};
use util::{Client, DEADLINE, Program, Running, kill, proc, test_program, wait_until};

/// A program with a status listener.
pub(crate) struct Watched {
    pub(crate) running: Running,
    /// Where it serves.
    pub(crate) serves: SocketAddr,
    /// Where its status is.
    pub(crate) status: SocketAddr,
}

impl Watched {
    #[track_caller]
    pub(crate) fn start(args: &str) -> Watched {
        let program = Program::new(test_program("daemon_control")).args(["--status", "127.0.0.1:0"]);
        let running = program.args(args.split_whitespace()).start();
        let (serves, status) = (running.listening_addr(), status_address(&running));
        Watched { running, serves, status }
    }

    /// With a pool of so many children that all wait.
    #[track_caller]
    pub(crate) fn pool(children: u32) -> Watched {
        let size = format!("--max {children} --min-spare {children} --max-spare {children}");
        let watched = Watched::start(&format!("--mode prefork:{children} {size}"));
        wait_status(watched.status, "a pool that waits", |status| (status.pool.states.idle == children).then_some(()));
        watched
    }

    #[track_caller]
    pub(crate) fn children(&self) -> Vec<i32> {
        status(self.status).children.iter().filter_map(|child| child.pid).collect()
    }

    pub(crate) fn pid(&self) -> i32 {
        self.running.pid()
    }
}

#[test] // O-ST-01, O-ST-13
fn each_path_answers_and_there_is_no_other() {
    let watched = Watched::pool(2);
    let kinds = [
        ("/", "text/html; charset=utf-8"),
        ("/status", "application/json"),
        ("/status?x=1", "application/json"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
        ("/live", "text/plain; charset=utf-8"),
        ("/ready", "text/plain; charset=utf-8"),
    ];
    for (path, kind) in kinds {
        let answer = get(watched.status, path);
        assert_eq!((answer.status, answer.header("Content-Type")), (200, kind), "{path}");
        assert_eq!(answer.header("Cache-Control"), "no-store");
        let head = send(watched.status, format!("HEAD {path} HTTP/1.0\r\n\r\n"));
        assert_eq!((head.status, head.header("Content-Type"), head.body.as_str()), (200, kind, ""), "{path}");
        assert!(head.header("Content-Length").parse::<usize>().unwrap() > 4, "{path}");
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"] {
            let refused = send(watched.status, format!("{method} {path} HTTP/1.0\r\n\r\n"));
            assert_eq!((refused.status, refused.header("Allow")), (405, "GET, HEAD"), "{method} {path}");
        }
    }
    // A client of a proxy names the whole address, and a server has to understand it.
    for request in [
        "GET http://host/live HTTP/1.1\r\nHost: host\r\nConnection: close\r\n\r\n",
        "GET http://host/live?x=1 HTTP/1.0\r\n\r\n",
    ] {
        assert_eq!(send(watched.status, request).body, "alive\n", "{request}");
    }
    let others = ["/nothing", "/status/", "/live/", "/%6cive", "/live/x", "/..", "//status/x", "/%73tatus"];
    for path in others.into_iter().chain(["//live", "///status", "//", "http://test//live", "http://test//"]) {
        assert_eq!(get(watched.status, path).status, 404, "{path}");
    }
    let status = status(watched.status);
    assert_eq!((status.schema, status.pool.total, status.service.pid), (1, 2, watched.pid() as u32));
    assert_eq!(get(watched.status, "/ready").body, "ready\n");
    let open_metrics = get_with(watched.status, "/metrics", "Accept: application/openmetrics-text;version=1.0.0\r\n");
    assert_eq!(open_metrics.header("Content-Type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(open_metrics.body.ends_with("# EOF\n") && open_metrics.header("Vary") == "Accept");
}

#[test] // a browser runs nothing that is not of the page itself
fn page_is_sent_with_a_policy_of_its_own() {
    let watched = Watched::pool(1);
    let [one, other] = [0, 1].map(|_| get(watched.status, "/"));
    let policy = |answer: &Answer| answer.header("Content-Security-Policy").to_owned();
    assert!(policy(&one).starts_with("default-src 'none'; script-src 'nonce-"), "{}", policy(&one));
    assert_ne!(policy(&one), policy(&other), "nobody can guess it");
    let nonce = policy(&one).split('\'').find_map(|part| part.strip_prefix("nonce-")).unwrap().to_owned();
    assert_eq!(one.body.matches(&format!("nonce=\"{nonce}\"")).count(), 2);
    assert!(one.body.contains("<td>0:1</td>") && one.body.contains(">1<small> / 1</small>"), "{}", one.body);
}

#[test] // one connection has one request after the other, also if they are sent together
fn connection_is_kept_and_requests_are_answered_in_turn() {
    let watched = Watched::pool(1);
    let mut stream = connect(watched.status);
    let request = "GET /live HTTP/1.1\r\nHost: a\r\n\r\n";
    let last = "GET /live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    stream.write_all(format!("{}{last}", request.repeat(20)).as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!((text.matches("200 OK").count(), text.matches("\r\n\r\nalive\n").count()), (21, 21));
}

#[test] // what is not a request, or has a body, is refused
fn nonsense_is_refused() {
    let watched = Watched::pool(1);
    for (request, code) in [
        ("nonsense\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 413),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", 413),
        (&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(9000)), 414),
        (&format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(9000)), 431),
    ] {
        assert_eq!(send(watched.status, request).status, code, "{request:.60}");
    }
    assert_eq!(get(watched.status, "/live").status, 200);
}

#[test] // a port that is taken is an error of the start that names it
fn taken_address_is_a_start_up_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut running =
        Program::new(test_program("daemon_control")).args(["--mode", "prefork:1", "--status", &address]).start();
    assert!(!running.wait_exit(DEADLINE).success());
    let said = running.stderr_to_end(DEADLINE);
    assert!(said.contains("opening the status listener") && said.contains(&address), "{said}");
}

#[test] // O-ST-01: also when nothing but the parent runs
fn status_answers_although_all_children_are_stuck() {
    let watched = Watched::pool(3);
    let gate = tempfile::NamedTempFile::new().unwrap();
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(watched.serves)).collect();
    clients.iter_mut().for_each(|client| client.send(format!("gate {}\n", gate.path().display())));
    wait_status(watched.status, "three busy children", |status| (status.pool.states.busy == 3).then_some(()));
    let children = watched.children();
    children.iter().for_each(|pid| kill(*pid, Signal::SIGSTOP).unwrap());
    let waiting: Vec<TcpStream> = (0..4).map(|_| TcpStream::connect(watched.serves).unwrap()).collect();
    let queue = wait_status(watched.status, "four in the queue", |status| {
        let queue = status.listeners[0].queue?;
        (queue.waiting == 4).then_some(queue)
    });
    assert!(queue.limit >= 100, "O-ST-04, O-ST-07: {queue:?}");
    for path in ["/", "/status", "/metrics", "/live", "/ready"] {
        let begin = Instant::now();
        assert_eq!(get(watched.status, path).status, 200, "{path}");
        assert!(begin.elapsed() < Duration::from_secs(1), "{path}: {:?}", begin.elapsed());
    }
    let status = status(watched.status);
    assert_eq!((status.pool.states.busy, status.pool.total, status.pool.limit), (3, 3, 3));
    assert!(status.oldest_request.is_some_and(|age| age > 0.0));
    wait_status(watched.status, "a saturated pool", |status| status.pool.saturated.clone());
    wait_until("saturated seconds", DEADLINE, || {
        (get(watched.status, "/metrics").samples()["lenore_saturated_seconds_total"] > 0.0).then_some(())
    });
    children.iter().for_each(|pid| kill(*pid, Signal::SIGCONT).unwrap());
    drop(waiting);
}

#[test] // O-SD-18: it says why it is not ready, and a client of the status keeps nothing alive
fn ready_says_why_not_and_clients_keep_no_daemon_alive() {
    let mut watched = Watched::pool(2);
    let gate = tempfile::NamedTempFile::new().unwrap();
    let mut client = Client::connect(watched.serves);
    client.send(format!("gate {}\n", gate.path().display()));
    wait_status(watched.status, "a busy child", |status| (status.pool.states.busy == 1).then_some(()));
    let mut silent = connect(watched.status);
    kill(watched.pid(), Signal::SIGQUIT).unwrap();
    let answer = wait_until("a Daemon that is not ready", DEADLINE, || {
        let answer = get(watched.status, "/ready");
        (answer.status == 503).then_some(answer)
    });
    assert!(answer.body.starts_with("draining: "), "{}", answer.body);
    assert_eq!(get(watched.status, "/live").body, "alive\n");
    wait_status(watched.status, "the end", |status| (status.service.phase == Phase::Draining).then_some(()));
    drop(gate);
    client.read_line();
    drop(client);
    assert!(watched.running.wait_exit(DEADLINE).success());
    let mut rest = Vec::new();
    assert_eq!(silent.read_to_end(&mut rest).unwrap_or(0), 0);
}

#[test] // O-SD-18: there is a child, but it is not ready for clients yet
fn ready_tells_that_no_child_is_ready() {
    let dir = tempfile::tempdir().unwrap();
    let held = dir.path().join("held");
    let program = Program::new(test_program("daemon_control"))
        .args(["--mode", "prefork:1", "--max", "1", "--status", "127.0.0.1:0"])
        .env("LENORE_INJECT", format!("daemon.child.ready=hold:{}", held.display()));
    let running = program.start();
    let address = status_address(&running);
    wait_until("a child on its way", DEADLINE, || held.exists().then_some(()));
    wait_status(address, "a running pool", |status| (status.service.phase == Phase::Ready).then_some(()));
    let answer = get(address, "/ready");
    assert_eq!((answer.status, answer.body.as_str()), (503, "no child is ready\n"));
    std::fs::remove_file(&held).unwrap();
    wait_until("a child that is ready", DEADLINE, || (get(address, "/ready").status == 200).then_some(()));
}

#[test] // O-CT-04: the listener and the connections are the parent's alone
fn children_have_nothing_of_the_status_listener() {
    let watched = Watched::pool(1);
    let held = connect(watched.status);
    wait_status(watched.status, "the connection", |_| Some(()));
    let sockets = |pid: i32| {
        let links = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let links = links.filter_map(|link| std::fs::read_link(link.unwrap().path()).ok());
        links.map(|link| link.display().to_string()).filter(|link| link.starts_with("socket:")).collect::<Vec<_>>()
    };
    // Forked while a client is connected.
    kill(watched.children()[0], Signal::SIGKILL).unwrap();
    let child = wait_status(watched.status, "another child", |status| {
        let child = status.children.iter().find(|child| child.generation > 1 && child.state == 'w')?;
        child.pid
    });
    let ports = [watched.status.port()];
    let inodes = tcp_inodes(watched.pid(), &ports);
    assert!(inodes.len() >= 2, "the listener and a connection: {inodes:?}");
    let (parents, childs) = (sockets(watched.pid()), sockets(child));
    assert!(inodes.iter().any(|inode| parents.contains(inode)), "{inodes:?} {parents:?}");
    assert!(inodes.iter().all(|inode| !childs.contains(inode)), "{inodes:?} {childs:?}");
    drop(held);
}

/// The sockets of this network namespace that have one of these local ports, as `/proc/PID/fd` shows them.
fn tcp_inodes(pid: i32, ports: &[u16]) -> Vec<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap();
    let fields = text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let is_meant = |fields: &Vec<&str>| {
        let port = fields[1].rsplit_once(':').and_then(|(_, port)| u16::from_str_radix(port, 16).ok());
        port.is_some_and(|port| ports.contains(&port))
    };
    fields.filter(is_meant).map(|fields| format!("socket:[{}]", fields[9])).collect()
}

#[test] // no more than so many at a time, and a place is free when its client is gone
fn clients_are_limited() {
    let watched = Watched::pool(1);
    let ask = |stream: &mut TcpStream| {
        let mut answer = [0; 12];
        let asked =
            stream.write_all(b"GET /live HTTP/1.1\r\nHost: a\r\n\r\n").and_then(|()| stream.read_exact(&mut answer));
        asked.is_ok() && answer == *b"HTTP/1.1 200"
    };
    let fill = || {
        // Each has sent a part of its request. One may have had to give way before that was read.
        let mut clients = Vec::new();
        wait_until("no free place", 3 * DEADLINE, || {
            let mut client = connect(watched.status);
            client.write_all(b"GET /live HTTP/1.1\r\nHost:").unwrap();
            clients.push(client);
            (clients.len() >= 64 && (0..5).all(|_| !ask(&mut connect(watched.status)))).then_some(())
        });
        clients
    };
    // A client that is late with its request loses its place. That happens here only if the machine is slow, and then it is done again.
    let (tries, in_time) = (5, Duration::from_secs(9));
    let clients = (0..tries).find_map(|_| {
        let begin = Instant::now();
        let clients = fill();
        for _ in 0..200 {
            let is_answered = ask(&mut connect(watched.status));
            assert!(!is_answered || begin.elapsed() > in_time, "one more than there may be");
        }
        (begin.elapsed() < in_time).then_some(clients)
    });
    let clients = clients.expect("a machine that is fast enough");
    clients.iter().for_each(|client| drop(client.shutdown(Shutdown::Both)));
    wait_until("a free place", DEADLINE, || ask(&mut connect(watched.status)).then_some(()));
    assert!(Client::connect(watched.serves).line("hello").ends_with("hello"), "and the pool serves");
}

#[test] // O-ST-01: who has nothing in hand makes room for a probe
fn idle_and_silent_clients_keep_nobody_out() {
    let watched = Watched::pool(1);
    let mut idle: Vec<TcpStream> = (0..64).map(|_| connect(watched.status)).collect();
    for client in &mut idle {
        let mut answer = [0; 12];
        client.write_all(b"GET /live HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        client.read_exact(&mut answer).unwrap();
    }
    for _ in 0..5 {
        assert_eq!(get(watched.status, "/live").status, 200);
    }
    let _silent: Vec<TcpStream> = (0..200).map(|_| connect(watched.status)).collect();
    let mut probe = || {
        let mut stream = connect(watched.status);
        let mut answer = [0; 12];
        let asked =
            stream.write_all(b"GET /live HTTP/1.1\r\nHost: a\r\n\r\n").and_then(|()| stream.read_exact(&mut answer));
        asked.is_ok().then_some(())
    };
    // Before the silent ones have had all of their time.
    wait_until("an answer", Duration::from_secs(5), &mut probe);
}

#[test] // a client that does not ask is let go, whoever else comes meanwhile
fn silent_clients_are_closed_after_ten_seconds() {
    let watched = Watched::pool(1);
    let begin = Instant::now();
    let (mut silent, mut half) = (connect(watched.status), connect(watched.status));
    half.write_all(b"GET /live HTTP/1.1\r\n").unwrap();
    let (is_over, address) = (Arc::new(AtomicBool::new(false)), watched.status);
    let others = thread::spawn({
        let is_over = Arc::clone(&is_over);
        move || {
            while !is_over.load(Ordering::Relaxed) {
                assert_eq!(get(address, "/live").status, 200);
            }
        }
    });
    for stream in [&mut silent, &mut half] {
        stream.set_read_timeout(Some(DEADLINE * 2)).unwrap();
        assert_eq!(stream.read(&mut [0; 100]).unwrap_or(0), 0);
    }
    let waited = begin.elapsed();
    is_over.store(true, Ordering::Relaxed);
    others.join().unwrap();
    assert!((Duration::from_secs(9)..Duration::from_secs(15)).contains(&waited), "{waited:?}");
}

#[test] // what detaches serves its status from the process that goes on
fn detached_daemon_serves_its_status() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["--mode", "prefork:1", "--status", "127.0.0.1:0", "--detach", "--dir"];
    let mut running = Program::new(test_program("daemon_control")).args(args).arg(dir.path()).start();
    assert!(running.wait_exit(DEADLINE).success());
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    let address = find_status_address(&log).unwrap_or_else(|| panic!("{log}"));
    let pid: u32 = std::fs::read_to_string(dir.path().join("pid")).unwrap().trim().parse().unwrap();
    assert_eq!(status(address).service.pid, pid);
    kill(pid as i32, Signal::SIGTERM).unwrap();
    wait_until("the end", DEADLINE, || (!proc::is_alive(pid as i32)).then_some(()));
    assert!(TcpStream::connect(address).is_err());
}

#[test] // a server without children has a status as well
fn server_without_children_has_a_status() {
    let mut watched = Watched::start("--mode single");
    let shown = status(watched.status);
    assert_eq!((shown.pool.total, shown.board.as_str()), (0, ""));
    assert_eq!(get(watched.status, "/ready").status, 200);
    assert!(get(watched.status, "/").body.contains("one process"));
    kill(watched.pid(), Signal::SIGTERM).unwrap();
    assert!(watched.running.wait_exit(DEADLINE).success());
}

#[test] // a pool that forks for each request
fn post_forking_server_has_a_status() {
    let watched = Watched::start("--mode fork:5");
    let mut client = Client::connect(watched.serves);
    client.line("hello");
    let shown =
        wait_status(watched.status, "a busy child", |status| (status.pool.states.busy == 1).then(|| status.clone()));
    assert_eq!((shown.pool.limit, shown.children[0].peer.as_str()), (5, "127.0.0.1"));
    assert_eq!(shown.listeners.len(), 1, "the parent accepts: {:?}", shown.listeners);
    drop(client);
    let shown = wait_status(watched.status, "a death", |status| (status.deaths.len() == 1).then(|| status.clone()));
    assert!(shown.deaths[0].in_order && shown.counters.forks == 1, "{:?}", shown.deaths);
}

#[test] // O-ST-01: a looser bound than the one that is measured with a thousand children
fn status_is_answered_at_once_with_many_busy_children() {
    let watched = Watched::pool(100);
    let mut clients: Vec<Client> = (0..100).map(|_| Client::connect(watched.serves)).collect();
    clients.iter_mut().for_each(|client| drop(client.line("hello")));
    let mut times: Vec<Duration> = (0..100)
        .map(|_| {
            let begin = Instant::now();
            assert_eq!(status(watched.status).pool.states.busy, 100);
            begin.elapsed()
        })
        .collect();
    times.sort_unstable();
    assert!(times[98] < Duration::from_secs(1), "{:?}", &times[90..]);
}

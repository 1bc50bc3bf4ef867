//! The example `http_prefork` as its clients see it.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use tempfile::TempDir;

use util::{DEADLINE, Program, Running, example, wait_until};

/// Longer than a file fits into the buffers of a socket.
const BIG: usize = 20 << 20;

/// A site in a directory of its own, with a secret beside it.
fn site() -> TempDir {
    let dir = TempDir::new().expect("a directory can be made");
    let write = |path: &str, text: &[u8]| fs::write(dir.path().join(path), text).expect("a file can be written");
    fs::create_dir_all(dir.path().join("root/sub/deep")).expect("directories can be made");
    write("secret.txt", b"secret");
    write("root/index.html", b"<p>front</p>");
    write("root/sub/index.html", b"<p>sub</p>");
    write("root/a b.TXT", b"text");
    write("root/empty", b"");
    for (name, extension) in [("style", "css"), ("code", "js"), ("picture", "png"), ("data", "json"), ("any", "xyz")] {
        write(&format!("root/{name}.{extension}"), b"x");
    }
    let big: Vec<u8> = (0..BIG).map(|place| (place / 7) as u8).collect();
    write("root/big.bin", &big);
    let link =
        |target: &Path, name: &str| symlink(target, dir.path().join("root").join(name)).expect("it can be linked");
    link(&dir.path().join("secret.txt"), "secret");
    link(Path::new("../secret.txt"), "relative");
    link(dir.path(), "out");
    link(Path::new("sub/index.html"), "inside");
    link(Path::new("loop"), "loop");
    fs::create_dir(dir.path().join("root/.git")).expect("a directory can be made");
    write("root/.git/config", b"secret");
    write("root/.htpasswd", b"secret");
    link(Path::new(".htpasswd"), "visible");
    link(Path::new(".git"), "repository");
    link(Path::new("index.html"), ".inside");
    fs::create_dir(dir.path().join("root/trap")).expect("a directory can be made");
    link(&dir.path().join("secret.txt"), "trap/index.html");
    nix::unistd::mkfifo(&dir.path().join("root/pipe"), Mode::S_IRWXU).expect("a pipe can be made");
    dir
}

pub fn start(site: Option<&TempDir>, args: &[&str]) -> (Running, SocketAddr) {
    let mut program = Program::new(example("http_prefork")).args(["--listen", "127.0.0.1:0"]).args(args);
    if let Some(site) = site {
        program = program.arg("--root").arg(site.path().join("root"));
    }
    let running = program.start();
    let addr = running.listening_addr();
    (running, addr)
}

/// One connection.
pub struct Browser(pub BufReader<TcpStream>);

pub struct Page {
    pub status: u16,
    head: String,
    pub body: Vec<u8>,
}

impl Page {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

impl Browser {
    pub fn new(addr: SocketAddr) -> Browser {
        let stream = TcpStream::connect(addr).expect("the server listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("not zero");
        stream.set_write_timeout(Some(DEADLINE)).expect("not zero");
        Browser(BufReader::new(stream))
    }

    pub fn send(&mut self, text: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(text.as_ref()).expect("the server takes it");
    }

    /// Sends a request without a body. `fields` are whole lines.
    pub fn ask(&mut self, line: &str, fields: &str) {
        self.send(format!("{line} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n"));
    }

    /// Reads the response to a request that was no HEAD.
    #[track_caller]
    pub fn page(&mut self) -> Page {
        let mut page = self.head();
        let length = page.header("Content-Length").map_or(0, |length| length.parse().expect("a number"));
        page.body.resize(if page.status == 304 { 0 } else { length }, 0);
        self.0.read_exact(&mut page.body).expect("as many as announced");
        page
    }

    #[track_caller]
    fn head(&mut self) -> Page {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read = self.0.read_line(&mut head).expect("a response in time");
            assert_ne!(read, 0, "the server closed: {head:?}");
        }
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|head| head[..3].parse().ok());
        Page { status: status.expect("a status line"), head, body: Vec::new() }
    }

    pub fn get(&mut self, target: &str) -> Page {
        self.ask(&format!("GET {target}"), "");
        self.page()
    }

    /// Waits for the end, and closes this side as well: the server waits for that, up to two seconds.
    #[track_caller]
    pub fn expect_eof(&mut self) {
        self.expect_eof_and_stay();
        let _ = self.0.get_ref().shutdown(Shutdown::Write);
    }

    /// The same of a client that does not close its side.
    #[track_caller]
    pub fn expect_eof_and_stay(&mut self) {
        assert_eq!(self.0.fill_buf().expect("an end in order"), b"");
    }
}

pub fn end(running: &mut Running) {
    running.signal(Signal::SIGTERM);
    let status = running.wait_exit(DEADLINE);
    assert_eq!(status.code(), Some(0), "{status}; {}", running.stderr_text());
    assert_eq!(running.descendants_alive(), [0; 0]);
}

#[test]
fn many_requests_share_a_connection() {
    let (mut running, addr) = start(None, &[]);
    let mut browser = Browser::new(addr);
    for _ in 0..100 {
        let page = browser.get("/hello");
        assert_eq!((page.status, &page.body[..], page.header("Connection")), (200, &b"hello\n"[..], None));
        assert_eq!((page.header("Content-Type"), page.header("Date").map(str::len)), (Some("text/plain"), Some(29)));
    }
    // In one go, and in pieces of one byte.
    let three = "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3);
    browser.send(&three);
    assert_eq!([(); 3].map(|()| browser.page().status), [200; 3]);
    for octet in three.bytes() {
        browser.send([octet]);
    }
    assert_eq!([(); 3].map(|()| browser.page().status), [200; 3]);
    browser.ask("GET /hello", "Connection: close\r\n");
    assert_eq!(browser.page().header("Connection"), Some("close"));
    browser.expect_eof();
    drop(browser); // the server waits for that, up to two seconds
    end(&mut running);
}

#[test]
fn many_clients_are_served_at_a_time() {
    let (mut running, addr) = start(None, &["--start-children", "2", "--min-spare", "2", "--max-children", "12"]);
    let mut browsers: Vec<Browser> = (0..12).map(|_| Browser::new(addr)).collect();
    for _ in 0..3 {
        browsers.iter_mut().for_each(|browser| browser.ask("GET /hello", ""));
        assert!(browsers.iter_mut().all(|browser| browser.page().body == b"hello\n"));
    }
    drop(browsers);
    end(&mut running);
}

#[test]
fn old_clients_get_what_they_understand() {
    let (_running, addr) = start(None, &[]);
    let mut browser = Browser::new(addr);
    browser.send("GET /hello HTTP/1.0\r\n\r\n");
    assert_eq!(browser.page().header("Connection"), Some("close"));
    browser.expect_eof();
    // As ab -k asks.
    let mut browser = Browser::new(addr);
    for _ in 0..3 {
        browser.send("GET /hello HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
        assert_eq!(browser.page().header("Connection"), Some("keep-alive"));
    }
}

#[test]
fn files_are_sent_with_type_and_time() {
    let (site, mut types) = (site(), Vec::new());
    let (_running, addr) = start(Some(&site), &[]);
    let mut browser = Browser::new(addr);
    for path in ["/", "/a%20b.TXT", "/style.css", "/code.js", "/picture.png", "/data.json", "/any.xyz"] {
        let page = browser.get(path);
        assert_eq!(page.status, 200, "{path}");
        types.push(page.header("Content-Type").expect("it has a type").split(';').next().map(str::to_owned));
        assert!(page.header("Last-Modified").is_some_and(|time| time.ends_with(" GMT")));
    }
    let wanted = "text/html text/plain text/css text/javascript image/png application/json application/octet-stream";
    assert_eq!(types.into_iter().flatten().collect::<Vec<_>>().join(" "), wanted);
    assert_eq!(browser.get("/index.html?a=/../b").body, b"<p>front</p>");
    assert_eq!(browser.get("/empty").body, b"");
    assert_eq!(browser.get("//a%20b.TXT").body, b"text");
    assert_eq!(browser.get("http://a.test/sub/").body, b"<p>sub</p>");
}

#[test]
fn head_is_get_without_the_body() {
    let site = site();
    let (_running, addr) = start(Some(&site), &[]);
    let mut browser = Browser::new(addr);
    for path in ["/hello", "/index.html", "/big.bin", "/none"] {
        browser.ask(&format!("HEAD {path}"), "");
        let head = browser.head();
        // A body would stand where the next response is expected.
        let page = browser.get(path);
        assert_eq!(
            (head.status, head.header("Content-Length")),
            (page.status, page.header("Content-Length")),
            "{path}"
        );
        assert_eq!(page.header("Content-Length"), Some(page.body.len().to_string().as_str()), "{path}");
    }
}

#[test]
fn what_the_client_has_is_not_sent_again() {
    let site = site();
    let (_running, addr) = start(Some(&site), &[]);
    let mut browser = Browser::new(addr);
    let changed = browser.get("/").header("Last-Modified").expect("it has a time").to_owned();
    let mut ask = |since: &str| {
        browser.ask("GET /", &format!("If-Modified-Since: {since}\r\n"));
        let page = browser.page();
        assert_eq!(page.header("Last-Modified"), Some(changed.as_str()));
        (page.status, page.body.len())
    };
    assert_eq!(ask(&changed), (304, 0));
    assert_eq!(ask("Fri, 31 Dec 9999 23:59:59 GMT"), (304, 0));
    assert_eq!(ask("Sun, 06 Nov 1994 08:49:37 GMT"), (200, 12));
    assert_eq!(ask("some day"), (200, 12));
    // A tag is more exact than a time, and the server has none.
    browser.ask("GET /", &format!("If-Modified-Since: {changed}\r\nIf-None-Match: \"tag\"\r\n"));
    assert_eq!(browser.page().status, 200);
}

#[test]
fn directories_have_an_index_and_a_slash() {
    let site = site();
    let (_running, addr) = start(Some(&site), &[]);
    let mut browser = Browser::new(addr);
    assert_eq!(browser.get("/sub/").body, b"<p>sub</p>");
    assert_eq!(browser.get("/sub/.//").body, b"<p>sub</p>");
    let moved = browser.get("/sub?x=y");
    assert_eq!((moved.status, moved.header("Location")), (301, Some("/sub/?x=y")));
    let moved = browser.get("http://a.test//sub");
    assert_eq!(moved.header("Location"), Some("/sub/"), "and not another host");
    assert_eq!(browser.get("/sub/deep/").status, 404, "no listing");
    assert_eq!(browser.get("/index.html/").status, 404);
}

#[test]
fn nothing_outside_of_the_root_is_served() {
    let site = site();
    let (mut running, addr) = start(Some(&site), &[]);
    let mut browser = Browser::new(addr);
    let absolute = format!("/{}", site.path().join("secret.txt").display());
    for path in [
        "/../secret.txt",
        "/sub/../../secret.txt",
        "/..%2fsecret.txt",
        "/%2e%2e/secret.txt",
        "/%2E./secret.txt",
        "/.%2e%2Fsecret.txt",
        "/sub/%2e%2e/index.html",
        "/secret",
        "/relative",
        "/out/secret.txt",
        "/trap/",
        "/loop",
        "/pipe",
        "/index.html%00",
        "/%00",
        "/none",
        "/.htpasswd",
        "/%2ehtpasswd",
        "/.git/config",
        "/.git/",
        "/visible",
        "/repository/config",
        "/.inside",
        "/..",
        "/...",
        "/%252e%252e/secret.txt",
        &absolute,
        &absolute.replace('/', "%2f").replacen("%2f", "/", 1),
    ] {
        let page = browser.get(path);
        assert_eq!(page.status, 404, "{path}");
        assert!(!page.body.windows(6).any(|word| word == b"secret"), "{path}");
    }
    for path in ["/%", "/%2", "/%zz", "/%+1", "/%ff"] {
        assert_eq!(browser.get(path).status, 400, "{path}");
    }
    // A link that stays inside is nothing to fear.
    assert_eq!(browser.get("/inside").body, b"<p>sub</p>");
    drop(browser);
    end(&mut running);
}

#[test]
fn a_file_that_can_not_be_opened_is_no_missing_one() {
    let site = site();
    let one = ["--start-children", "1", "--min-spare", "1", "--max-spare", "1", "--max-children", "1"];
    let (running, addr) = start(Some(&site), &one);
    let mut browser = Browser::new(addr);
    assert_eq!(browser.get("/index.html").status, 200);
    let children = running.descendants_alive();
    assert_eq!(children.len(), 1);
    let limit = |files: &str| {
        let mut prlimit = Command::new("prlimit");
        prlimit.args(["--pid", &children[0].to_string(), &format!("--nofile={files}:")]);
        assert!(prlimit.status().expect("prlimit can be run").success());
    };
    limit("3");
    assert_eq!(browser.get("/index.html").status, 503);
    assert_eq!(browser.get("/none").status, 404, "it is known that there is none");
    assert_eq!(browser.get("/hello").status, 200);
    limit("100");
    assert_eq!(browser.get("/index.html").status, 200);
    fs::set_permissions(site.path().join("root/empty"), fs::Permissions::from_mode(0o000)).expect("it is ours");
    // Nothing is forbidden to root.
    assert_eq!(browser.get("/empty").status, if nix::unistd::geteuid().is_root() { 200 } else { 403 });
}

#[test]
fn other_methods_are_not_allowed() {
    let (_running, addr) = start(None, &[]);
    let mut browser = Browser::new(addr);
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "get"] {
        browser.send(format!("{method} /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"));
        let page = browser.page();
        assert_eq!((page.status, page.header("Allow")), (405, Some("GET, HEAD")), "{method}");
    }
    // Who asks first is spared the trouble.
    browser.ask("POST /hello", "Content-Length: 3\r\nExpect: 100-continue\r\n");
    assert_eq!(browser.page().status, 405);
    browser.expect_eof();
}

#[test]
fn bad_requests_are_answered_and_end_the_connection() {
    let (mut running, addr) = start(None, &[]);
    let long = "x".repeat(20_000);
    for (request, status) in [
        ("nonsense\r\n\r\n", 400),
        ("GET /hello HTTP/1.1\r\n\r\n", 400),
        ("GET /hello HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n", 400),
        ("GET /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("PUT /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n", 413),
        ("PUT /hello HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        ("GET /hello HTTP/2.0\r\n\r\n", 505),
        ("GET /hello HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
        ("GET http://user@a.test,\"<b>/hello HTTP/1.1\r\nHost: a.test\r\n\r\n", 400),
        ("CONNECT a.test: HTTP/1.1\r\nHost: a.test\r\n\r\n", 400),
        ("GET /caf\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /hello#here HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (&format!("GET /{long} HTTP/1.1\r\n"), 414),
        (&format!("GET / HTTP/1.1\r\nA: {long}\r\n"), 431),
    ] {
        let mut browser = Browser::new(addr);
        browser.send(request);
        let page = browser.page();
        assert_eq!((page.status, page.header("Connection")), (status, Some("close")), "{request:.60}");
        browser.expect_eof();
    }
    let mut browser = Browser::new(addr);
    for request in ["GET /hello HTTP/1.2\r\nHost: [::1]:80", "GET /hello HTTP/1.1\r\nHost: a\r\nContent-Encoding: br"] {
        browser.send(format!("{request}\r\n\r\n"));
        assert_eq!(browser.page().status, 200, "{request}, and nobody else's");
    }
    drop(browser);
    end(&mut running);
}

#[test]
fn a_client_that_sends_nothing_is_let_go() {
    let (_running, addr) = start(None, &["--keep-alive", "0.2"]);
    // Without a request, and with half of one.
    for start in ["", "GET /hel"] {
        let mut browser = Browser::new(addr);
        browser.send(start);
        let page = browser.page();
        assert_eq!((page.status, page.header("Connection")), (408, Some("close")));
        browser.expect_eof();
    }
    // After a response there is nothing more to say.
    let mut browser = Browser::new(addr);
    assert_eq!(browser.get("/hello").status, 200);
    browser.expect_eof();
}

#[test]
fn a_large_file_comes_whole_and_the_next_request_waits_for_it() {
    let site = site();
    let (_running, addr) = start(Some(&site), &[]);
    let mut browser = Browser::new(addr);
    browser.ask("GET /big.bin", "");
    browser.ask("GET /hello", "");
    let page = browser.page();
    assert_eq!(page.body.len(), BIG);
    assert!(page.body.iter().enumerate().all(|(place, &octet)| octet == (place / 7) as u8));
    assert_eq!(browser.page().body, b"hello\n");
}

#[test]
fn a_client_that_does_not_read_is_let_go() {
    let site = site();
    let one = ["--start-children", "1", "--min-spare", "1", "--max-spare", "1", "--max-children", "1"];
    let (_running, addr) = start(Some(&site), &[&one[..], &["--keep-alive", "0.2"]].concat());
    let mut browser = Browser::new(addr);
    browser.ask("GET /big.bin", "");
    assert_eq!(browser.head().status, 200);
    // The only child is free for others.
    assert_eq!(Browser::new(addr).get("/hello").status, 200);
    let mut rest = Vec::new();
    match browser.0.read_to_end(&mut rest) {
        Ok(_) => assert!(rest.len() < BIG),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

#[test] // its responses must not pile up in the server
fn a_client_that_only_asks_is_kept_waiting() {
    let (_running, addr) = start(None, &["--keep-alive", "60"]);
    let mut browser = Browser::new(addr);
    nix::sys::socket::setsockopt(browser.0.get_ref(), nix::sys::socket::sockopt::RcvBuf, &4096).expect("it can be set");
    browser.0.get_ref().set_write_timeout(Some(Duration::from_secs(1))).expect("not zero");
    let requests = "GET /hello HTTP/1.1\r\nHost: a.test\r\n\r\n".repeat(1000);
    let (mut sent, most) = (0, 48 << 20);
    while sent < most {
        match browser.0.get_mut().write(requests.as_bytes()) {
            Ok(count) => sent += count,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                break;
            }
        }
    }
    assert!(sent < most, "{sent} octets of requests were taken");
    // It was not forgotten.
    assert_eq!([(); 3].map(|()| browser.page().status), [200; 3]);
}

#[test]
fn usr2_dumps_every_session() {
    let (running, addr) = start(None, &["--start-children", "2"]);
    let mut browser = Browser::new(addr);
    assert_eq!(browser.get("/hello").status, 200);
    running.signal(Signal::SIGUSR2);
    running.wait_for_stderr(" (Daemon), refcount ", DEADLINE);
    running.wait_for_stderr("-> accept, paused", DEADLINE);
    running.wait_for_stderr(" slots free", DEADLINE);
}

#[test]
fn term_waits_for_a_response_but_not_for_a_request() {
    let site = site();
    let (mut running, addr) = start(Some(&site), &["--keep-alive", "60"]);
    let mut idle = Browser::new(addr);
    assert_eq!(idle.get("/hello").status, 200);
    let mut busy = Browser::new(addr);
    busy.ask("GET /big.bin", "");
    assert_eq!(busy.0.fill_buf().expect("the response begins")[..4], *b"HTTP");
    running.signal(Signal::SIGTERM);
    idle.expect_eof();
    wait_until("the listener's end", DEADLINE, || TcpStream::connect(addr).err());
    assert_eq!(busy.page().body.len(), BIG);
    busy.expect_eof();
    drop((idle, busy));
    assert_eq!(running.wait_exit(DEADLINE).code(), Some(0));
}

#[test]
fn a_child_that_is_killed_is_replaced() {
    let (mut running, addr) = start(None, &["--start-children", "2"]);
    let mut browser = Browser::new(addr);
    assert_eq!(browser.get("/hello").status, 200);
    for pid in running.children() {
        util::kill(pid, Signal::SIGKILL).expect("a child is ours to kill");
    }
    assert!(browser.0.fill_buf().is_ok_and(<[u8]>::is_empty));
    assert_eq!(Browser::new(addr).get("/hello").status, 200);
    end(&mut running);
}

#[test]
fn root_that_is_not_there_is_one_line_and_exit_1() {
    let args = ["--root", "/nonexistent"];
    let output = Command::new(example("http_prefork")).args(args).output().expect("the example runs");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");
    assert!(stderr.contains("/nonexistent: "), "{stderr}");
}

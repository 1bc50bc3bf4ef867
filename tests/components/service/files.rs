//! Files.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, SystemTime};

use lenore::component::http::{Files, Service};
use tempfile::TempDir;

use util::component::{Peer, spin};
use util::{DEADLINE, wait_until};

use super::{Host, Page};

/// A directory of files, with a secret beside it.
struct Site {
    dir: TempDir,
}

impl Site {
    fn new() -> Site {
        let site = Site { dir: TempDir::new().expect("a directory can be made") };
        fs::create_dir_all(site.path("sub/deep")).unwrap();
        fs::create_dir(site.path(".git")).unwrap();
        for (name, text) in [
            ("../secret.txt", "secret"),
            (".git/config", "secret"),
            (".htpasswd", "secret"),
            ("a b.txt", "0123456789"),
            ("style.css", "css"),
            ("sub/index.html", "index"),
            ("sub/deep/x", "deep"),
        ] {
            site.write(name, text);
        }
        let link = |target: &Path, name: &str| symlink(target, site.path(name)).unwrap();
        link(&site.path("../secret.txt"), "outside");
        link(site.dir.path(), "up");
        link(Path::new("loop"), "loop");
        link(Path::new(".htpasswd"), "hidden");
        link(Path::new("sub/deep"), "inside");
        nix::unistd::mkfifo(&site.path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        site
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join("root").join(name)
    }

    /// Writes a file whose last change is long ago.
    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        self.age(name, Duration::from_secs(1000));
    }

    fn age(&self, name: &str, age: Duration) {
        let file = fs::File::options().write(true).open(self.path(name)).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    }

    fn files(&self) -> Files {
        Files::new(self.path("")).unwrap()
    }

    fn host(&self) -> Host {
        Host::new(Service::new().files("/f", self.files()))
    }
}

#[test]
fn files_are_served_with_type_and_length() {
    let site = Site::new();
    let mut host = site.host();
    for (path, status, media, body) in [
        ("/f/a%20b.txt", 200, "text/plain; charset=utf-8", "0123456789"),
        ("/f/style.css", 200, "text/css; charset=utf-8", "css"),
        ("/f/sub/", 200, "text/html; charset=utf-8", "index"),
        ("/f/sub/deep/x", 200, "application/octet-stream", "deep"),
        ("/f/sub/./deep//x", 200, "application/octet-stream", "deep"),
        ("/f/inside/x", 200, "application/octet-stream", "deep"),
    ] {
        let page = host.get(path);
        assert_eq!((page.status, page.header("Content-Type"), &*page.body), (status, Some(media), body), "{path}");
        assert_eq!(page.header("Content-Length"), Some(&*body.len().to_string()));
        let head = host.ask_with("HEAD", path, "", "");
        assert_eq!((head.head, head.body.as_str()), (page.head, ""));
    }
    let page = host.get("/f/sub?a=b");
    assert_eq!((page.status, page.header("Location")), (301, Some("/f/sub/?a=b")));
    let page = host.ask_with("POST", "/f/style.css", "", "");
    assert_eq!((page.status, page.header("Allow")), (405, Some("GET, HEAD")));
}

#[test]
fn what_is_not_below_the_directory_does_not_exist() {
    let site = Site::new();
    let mut host = site.host();
    for path in [
        "/f/../secret.txt",
        "/f/%2e%2e/secret.txt",
        "/f/..%2fsecret.txt",
        "/f/..%2Fsecret.txt",
        "/f/sub/../../secret.txt",
        "/f/sub/%2E./%2e%2e/secret.txt",
        "/f/%2fetc/passwd",
        "/f//etc/passwd",
        "/f/..%5csecret.txt",
        "/f/..%252fsecret.txt",
        "/f/sub%2findex.html",
        "/f/style.css%00",
        "/f/style.css%00.txt",
        "/f/%00",
        "/f/outside",
        "/f/up/secret.txt",
        "/f/up/root/style.css/",
        "/f/loop",
        "/f/hidden",
        "/f/.git/config",
        "/f/.git/",
        "/f/%2egit/config",
        "/f/.htpasswd",
        "/f/pipe",
        "/f/style.css/",
        "/f/style.css/x",
        "/f/",
        "/f/sub/deep/",
        "/f/nothing",
        "/fstyle.css",
    ] {
        let page = host.get(path);
        assert_eq!(page.status, 404, "{path}: {page:?}");
        assert!(!page.body.contains("secret"), "{page:?}");
    }
    assert_eq!(host.get(&format!("/f/{}", "x".repeat(5000))).status, 404);
    assert_eq!(host.get("/f/%ff").status, 400);
    let raw = host.send("GET /f/a\\..\\b HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(Page::read(raw).status, 400);
}

#[test]
fn directory_is_listed_only_when_asked_for() {
    let site = Site::new();
    site.write("sub/deep/<b>\"&.txt", "x");
    assert_eq!(site.host().get("/f/sub/deep/").status, 404);
    let mut host = Host::new(Service::new().files("/f", site.files().list_directories()));
    let page = host.get("/f/sub/deep/");
    assert!(page.body.contains("<a href=\"./x\">x</a>"), "{page:?}");
    assert!(page.body.contains("<a href=\"./%3Cb%3E%22%26.txt\">&lt;b&gt;&quot;&amp;.txt</a>"), "{page:?}");
    assert_eq!(host.get("/f/sub/deep/%3Cb%3E%22%26.txt").body, "x");
    let page = host.get("/f/");
    assert!(page.body.contains("./sub/") && !page.body.contains(".git") && !page.body.contains("htpasswd"), "{page:?}");
    assert_eq!(host.get("/f/sub/").body, "index");
}

#[test]
fn page_of_a_directory_names_only_what_is_served() {
    let site = Site::new();
    let mut host = Host::new(Service::new().files("/f", site.files().list_directories()));
    let page = host.get("/f/");
    let links: Vec<&str> =
        page.body.split("href=\"./").skip(1).filter_map(|rest| Some(rest.split_once('"')?.0)).collect();
    assert_eq!(links, ["a%20b.txt", "inside/", "style.css", "sub/"]);
    for link in links {
        assert_eq!(host.get(&format!("/f/{link}")).status, 200, "{link}");
    }
}

#[test]
fn file_that_a_handler_chooses_is_answered_whatever_the_path_of_the_request() {
    let site = Site::new();
    let (start, page, directory) = (site.files(), site.files(), site.files());
    let service = Service::new()
        .get("/", move |_, request| start.answer(&request, "style.css"))
        .get("/page/{name}/", move |_, request| page.answer(&request, "/sub/deep/x"))
        .get("/directory", move |_, request| directory.answer(&request, "/sub"));
    let mut host = Host::new(service);
    for (path, body) in [("/", "css"), ("/page/one/", "deep"), ("/directory", "index")] {
        let page = host.get(path);
        assert_eq!((page.status, &*page.body), (200, body), "{path}");
    }
}

#[test]
fn directory_is_never_redirected_to_another_host() {
    let site = Site::new();
    let mut host = Host::new(Service::new().files("/", site.files()));
    for target in ["//sub", "///sub", "http://a.test//sub", "/.//sub", "/%2e//sub"] {
        let page = host.get(target);
        assert_eq!(page.status, 301, "{target}: {page:?}");
        let location = page.header("Location").unwrap();
        assert!(location.starts_with('/') && !location.starts_with("//"), "{target}: {location}");
    }
}

#[test]
fn conditions_spare_what_the_client_has() {
    let site = Site::new();
    let mut host = site.host();
    let path = "/f/style.css";
    let page = host.get(path);
    let (tag, changed) = (page.header("ETag").unwrap().to_owned(), page.header("Last-Modified").unwrap().to_owned());
    assert!(tag.starts_with('"'), "a strong tag: {tag}");
    let old = "Sun, 06 Nov 1994 08:49:37 GMT";
    for (fields, status) in [
        (format!("If-None-Match: {tag}\r\n"), 304),
        (format!("If-None-Match: W/{tag}\r\n"), 304),
        (format!("If-None-Match: \"x\", {tag}\r\n"), 304),
        (format!("If-None-Match: \"x\"\r\nIf-None-Match: {tag}\r\n"), 304),
        ("If-None-Match: *\r\n".into(), 304),
        ("If-None-Match: \"x\"\r\n".into(), 200),
        (format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {changed}\r\n"), 200),
        (format!("If-Modified-Since: {changed}\r\n"), 304),
        (format!("If-Modified-Since: {old}\r\n"), 200),
        ("If-Modified-Since: yesterday\r\n".into(), 200),
        (format!("If-Match: {tag}\r\n"), 200),
        ("If-Match: *\r\n".into(), 200),
        (format!("If-Match: W/{tag}\r\n"), 412),
        ("If-Match: \"x\"\r\n".into(), 412),
        (format!("If-Unmodified-Since: {changed}\r\n"), 200),
        (format!("If-Unmodified-Since: {old}\r\n"), 412),
    ] {
        let page = host.ask_with("GET", path, &fields, "");
        assert_eq!(page.status, status, "{fields}");
        if status == 304 {
            assert_eq!((page.header("ETag"), &*page.body), (Some(&*tag), ""), "{fields}");
        }
    }
    site.write("style.css", "CSS");
    site.age("style.css", Duration::from_secs(500));
    assert_ne!(host.get(path).header("ETag"), Some(&*tag));
    // It may change again in the same instant.
    site.age("style.css", Duration::ZERO);
    assert!(host.get(path).header("ETag").unwrap().starts_with("W/\""));
}

#[test]
fn single_range_is_sent_alone() {
    let site = Site::new();
    let mut host = site.host();
    let path = "/f/a%20b.txt";
    let page = host.get(path);
    let (tag, changed) = (page.header("ETag").unwrap().to_owned(), page.header("Last-Modified").unwrap().to_owned());
    assert_eq!(page.header("Accept-Ranges"), Some("bytes"));
    for (fields, status, range, body) in [
        ("Range: bytes=2-4\r\n".into(), 206, "bytes 2-4/10", "234"),
        ("Range: bytes=7-\r\n".into(), 206, "bytes 7-9/10", "789"),
        ("Range: bytes=-2\r\n".into(), 206, "bytes 8-9/10", "89"),
        (format!("Range: bytes=0-0\r\nIf-Range: {tag}\r\n"), 206, "bytes 0-0/10", "0"),
        (format!("Range: bytes=0-0\r\nIf-Range: {changed}\r\n"), 206, "bytes 0-0/10", "0"),
        (format!("Range: bytes=0-0\r\nIf-Range: W/{tag}\r\n"), 200, "", "0123456789"),
        ("Range: bytes=0-0\r\nIf-Range: \"x\"\r\n".into(), 200, "", "0123456789"),
        ("Range: bytes=0-0,2-3\r\n".into(), 200, "", "0123456789"),
    ] {
        let page = host.ask_with("GET", path, &fields, "");
        assert_eq!(
            (page.status, page.header("Content-Range").unwrap_or_default(), &*page.body),
            (status, range, body),
            "{fields}"
        );
    }
    let page = host.ask_with("GET", path, "Range: bytes=10-\r\n", "");
    assert_eq!((page.status, page.header("Content-Range")), (416, Some("bytes */10")));
    assert_eq!(host.ask_with("HEAD", path, "Range: bytes=2-4\r\n", "").status, 200);
}

#[test]
fn compressed_form_is_sent_to_clients_that_take_it() {
    let site = Site::new();
    site.write("style.css.gz", "gzipped");
    site.write("app.js", "script");
    site.write("app.js.br", "brotli");
    symlink(site.path("../secret.txt"), site.path("app.js.gz")).unwrap();
    let mut host = Host::new(Service::new().files("/f", site.files().precompressed()));
    for (path, accept, coding, body) in [
        ("/f/style.css", "gzip, br", Some("gzip"), "gzipped"),
        ("/f/style.css", "gzip;q=0, br", None, "css"),
        ("/f/style.css", "", None, "css"),
        ("/f/app.js", "gzip, br", Some("br"), "brotli"),
        ("/f/app.js", "gzip", None, "script"),
    ] {
        let page = host.ask_with("GET", path, &format!("Accept-Encoding: {accept}\r\n"), "");
        assert_eq!((page.header("Content-Encoding"), &*page.body), (coding, body), "{path} {accept}");
        assert_eq!(page.header("Vary"), Some("Accept-Encoding"));
        let media = if path.ends_with("js") { "text/javascript; charset=utf-8" } else { "text/css; charset=utf-8" };
        assert_eq!(page.header("Content-Type"), Some(media));
    }
    let tag = |host: &mut Host, accept| {
        let page = host.ask_with("GET", "/f/style.css", accept, "");
        page.header("ETag").unwrap().to_owned()
    };
    assert_ne!(tag(&mut host, ""), tag(&mut host, "Accept-Encoding: gzip\r\n"));
    // Without the setting it is a file like any other.
    assert_eq!(site.host().ask_with("GET", "/f/style.css", "Accept-Encoding: gzip\r\n", "").body, "css");
}

/// How many bytes wait to be written to the client.
fn waiting(host: &Host) -> usize {
    let waiting = |source: &lenore::PeekedSource| {
        let (before, _) = source.description.split_once(" bytes to write")?;
        before.rsplit(' ').next()?.parse::<usize>().ok()
    };
    host.kernel.peek().sources.iter().filter_map(waiting).sum()
}

#[test]
fn large_file_is_read_as_the_client_takes_it() {
    let site = Site::new();
    let big: String = (0..1 << 20).map(|place| format!("{place:015}\n")).collect();
    site.write("big.txt", &big);
    let mut host = site.host();
    let mut peer = Peer::connect(host.address);
    peer.send("GET /f/big.txt HTTP/1.1\r\nHost: a.test\r\n\r\nGET /f/style.css HTTP/1.0\r\n\r\n");
    wait_until("some of it", DEADLINE, || {
        spin(&mut host.kernel);
        (!peer.look().is_empty()).then_some(())
    });
    // The client takes nothing for a while. The service holds some pieces of the file, and no more.
    for _ in 0..50 {
        spin(&mut host.kernel);
        let held = waiting(&host);
        assert!((1..1 << 20).contains(&held), "{held} octets");
    }
    wait_until("all of it", DEADLINE, || {
        spin(&mut host.kernel);
        peer.look();
        peer.is_at_end.then_some(())
    });
    let text = peer.text();
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(body.starts_with(&big), "{} octets", body.len());
    assert!(body[big.len()..].starts_with("HTTP/1.1 200 OK") && body.ends_with("\r\n\r\ncss"));
}

#[test]
fn file_that_becomes_shorter_cuts_the_connection() {
    let site = Site::new();
    site.write("big.txt", &"x".repeat(16 << 20));
    let mut host = site.host();
    let mut peer = Peer::connect(host.address);
    peer.send("GET /f/big.txt HTTP/1.1\r\nHost: a.test\r\n\r\n");
    wait_until("some of it", DEADLINE, || {
        spin(&mut host.kernel);
        (!peer.look().is_empty()).then_some(())
    });
    fs::File::options().write(true).open(site.path("big.txt")).unwrap().set_len(1000).unwrap();
    let text = peer.run_to_end(&mut host.kernel);
    assert!(text.contains("Content-Length: 16777216\r\n") && text.len() < 16 << 20, "{}", text.len());
}

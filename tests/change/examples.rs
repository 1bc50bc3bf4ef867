//! The examples with `--config`.

use std::fs;

use nix::sys::signal::Signal;
use util::control::Control;
use util::{Client, DEADLINE, Program, example, wait_until};

use super::changing::lenorectl;

#[test] // the settings' names are the keys, and the http server has a root
fn http_prefork_serves_another_root_after_a_reload() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    for name in ["a", "b"] {
        fs::create_dir(path(name)).expect("a directory");
        fs::write(path(name).join("page"), format!("from {name}\n")).expect("a file");
    }
    let configure = |text: &str| fs::write(path("conf"), text).expect("a file");
    configure(&format!("max_children = 3\nroot = {:?}\n", path("a")));
    let running = Program::new(example("http_prefork"))
        .args(["--listen", "127.0.0.1:0", "--start-children", "2", "--config"])
        .arg(path("conf"))
        .arg("--control")
        .arg(path("socket"))
        .start();
    let addr = running.listening_addr();
    let get = || {
        let mut client = Client::connect(addr);
        client.send("GET /page HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let mut last = String::new();
        while let Some(line) = client.try_read_line().expect("a response") {
            last = line;
        }
        last
    };
    wait_until("the file", DEADLINE, || (get() == "from a").then_some(()));
    configure(&format!("max_children = 5\nroot = {:?}\n", path("b")));
    let out = lenorectl(&path("socket"), "reload");
    assert_eq!((out.code, out.out.as_str()), (0, "applied: edition 2\n"), "{out:?}");
    assert_eq!(get(), "from b");
    assert_eq!(Control::of(&running, &path("socket")).status().pool.limit, 5);
    for (wrong, cause) in [
        ("max_childern = 5\n", "max_childern"),
        ("root = \"/not/there\"\n", "root: /not/there: No such file"),
        ("max_children = 1\n", "start_children (2) is more than max_children (1)"),
    ] {
        configure(wrong);
        let out = lenorectl(&path("socket"), "check");
        assert!(out.code == 1 && out.err.contains(cause), "{out:?}");
        assert_eq!(lenorectl(&path("socket"), "reload").code, 1);
    }
    assert_eq!(get(), "from b");
    running.signal(Signal::SIGTERM);
}

#[test]
fn echo_prefork_reloads_on_hup() {
    let dir = tempfile::tempdir().expect("a directory");
    let (conf, log) = (dir.path().join("conf"), dir.path().join("log"));
    fs::write(&conf, "max_children = 3\nmin_spare = 1\nmax_spare = 2\n").expect("a file");
    let running = Program::new(example("echo_prefork"))
        .args(["--listen", "127.0.0.1:0", "--start-children", "1", "--config"])
        .arg(&conf)
        .arg("--logfile")
        .arg(&log)
        .start();
    running.listening_addr();
    wait_until("a child", DEADLINE, || (running.children().len() == 1).then_some(()));
    fs::write(&conf, "max_children = 4\nmin_spare = 3\nmax_spare = 3\n").expect("a file");
    running.signal(Signal::SIGHUP);
    wait_until("three children", DEADLINE, || (running.children().len() == 3).then_some(()));
    let log = fs::read_to_string(&log).expect("a log");
    assert!(log.contains("reload is applied: edition=2"), "{log}");
}

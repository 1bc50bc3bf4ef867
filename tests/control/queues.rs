//! What the system tells of queues and processes, and what it does not tell.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;

use lenore::daemon::view::{ProcessView, Snapshot};
use nix::sys::signal::Signal;
use util::control::{Control, Steered};
use util::{Client, DEADLINE, Program, kill, proc, test_program, wait_until};

use super::asks::open_no_more;

/// The clients that wait at a listener and the most that may, as each format shows them: JSON, text and the metrics.
#[track_caller]
fn shown(control: &mut Control, name: &str) -> [Option<(u32, u32)>; 3] {
    let status = control.status();
    let listener = status.listeners.iter().find(|listener| listener.name == name).expect("the listener");
    let text = control.ask("status").ok();
    let line = text.lines().find(|line| line.ends_with(&format!(" clients wait at {name}")));
    let line = line.and_then(|line| line.split_whitespace().find_map(|word| word.split_once('/')));
    let metrics = control.ask("metrics").ok();
    let sample = |what: &str| {
        let line =
            metrics.lines().find_map(|line| line.strip_prefix(&format!("lenore_{what}{{listener=\"{name}\"}} ")));
        line.map(|number| number.parse().expect("a number"))
    };
    [
        listener.queue.map(|queue| (queue.waiting, queue.limit)),
        line.map(|(waiting, limit)| (waiting.parse().expect("a number"), limit.parse().expect("a number"))),
        sample("listen_queue").zip(sample("listen_queue_limit")),
    ]
}

#[test] // O-ST-04, O-ST-07: IPv4, IPv6 and UNIX; and what can't be known is left out, with the reason
fn depth_of_each_kind_of_queue_is_right_in_every_format() {
    let dir = tempfile::tempdir().expect("a directory");
    let [unix, socket] = ["deaf.sock", "control.sock"].map(|name| dir.path().join(name));
    let unix = unix.to_str().expect("UTF-8");
    let program = Program::new(test_program("daemon_change")).arg("--control").arg(&socket);
    let running = program.args(["--none", "--deaf", &format!("127.0.0.1:0,[::1]:0,{unix}")]).start();
    let own = running.listening_addr().to_string();
    let mut control = Control::of(&running, &socket);
    let names = |status: &Snapshot| status.listeners.iter().map(|listener| listener.name.clone()).collect::<Vec<_>>();
    let names = names(&control.status());
    assert_eq!(names.len(), 4, "{names:?}");
    let tcp = |start: &str| {
        let name = names.iter().find(|name| name.starts_with(start) && **name != own).expect("a listener");
        (name.as_str(), name.parse::<SocketAddr>().expect("an address"))
    };
    let [(v4, to_v4), (v6, to_v6)] = ["127.0.0.1:", "[::1]:"].map(tcp);
    let connect = |to| TcpStream::connect(to).expect("it listens");
    let _clients = [to_v4, to_v4, to_v4, to_v6, to_v6].map(connect);
    let _locals: Vec<UnixStream> = (0..4).map(|_| UnixStream::connect(unix).expect("it listens")).collect();
    let cases = [(v4, 3), (v6, 2), (unix, 4), (&own, 0)];
    for (name, waiting) in cases {
        control.wait_status("the clients in the queue", |status| {
            let listener = status.listeners.iter().find(|listener| listener.name == name)?;
            (listener.queue?.waiting == waiting).then_some(())
        });
        let seen = shown(&mut control, name);
        let limit = seen[0].expect("it is known").1;
        assert!(limit >= 100, "{name}: {seen:?}");
        assert_eq!(seen, [Some((waiting, limit)); 3], "{name}");
    }
    // The system tells of a UNIX socket by another one, for which there is no descriptor any more.
    open_no_more(running.pid());
    for (name, waiting) in cases {
        let seen = shown(&mut control, name);
        let is_known = name != unix;
        assert_eq!(seen.map(|seen| seen.map(|(waiting, _)| waiting)), [is_known.then_some(waiting); 3], "{name}");
    }
    let status = control.status();
    let listener = status.listeners.iter().find(|listener| listener.name == unix).expect("the listener");
    assert!(listener.unknown.as_ref().is_some_and(|why| why.contains("EMFILE")), "{listener:?}");
    let text = control.ask("status").ok();
    let why = text.lines().find(|line| line.ends_with(&format!(" at {unix}"))).expect("a line of it");
    assert!(why.contains("unknown: the system does not tell: EMFILE"), "{why}");
    assert!(!control.ask("metrics").ok().contains(unix), "no series, and never 0");
}

#[test] // O-ST-12: what can't be read is absent, and never 0
fn usage_that_cannot_be_read_is_left_out() {
    let series = ["lenore_child_resident_memory_bytes{slot=\"0\"}", "process_resident_memory_bytes", "process_max_fds"];
    for can_open in [true, false] {
        let steered = Steered::pool(2, "");
        let mut control = steered.control();
        control.ask("hello").ok();
        if !can_open {
            open_no_more(steered.pid());
        }
        let answer = control.ask_json(r#"{"command":"children"}"#);
        let children = answer["data"]["children"].as_array().expect("children");
        assert_eq!(children.len(), 2, "{answer}");
        for child in children {
            let usage: ProcessView = serde_json::from_value(child["usage"].clone()).expect("usage");
            // The system tells of processor time without a file.
            assert!(usage.cpu.is_some() && usage.proportional.is_none(), "{usage:?}");
            let known = [usage.resident.is_some(), usage.oom_score.is_some(), usage.descriptors_limit.is_some()];
            assert_eq!(known, [can_open; 3], "{usage:?}");
            assert!(!can_open || usage.resident > Some(100_000) && usage.descriptors >= Some(3), "{usage:?}");
        }
        let metrics = control.ask("metrics").ok();
        for name in series {
            assert_eq!(metrics.contains(&format!("\n{name}")), can_open, "{name}: {metrics}");
        }
        let status = control.status();
        assert_eq!((status.pool.states.idle, status.process.resident.is_some()), (2, can_open));
    }
}

/// How many bytes a process has read so far, from files above all; `None` where the system does not count.
fn bytes_read(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("rchar: "))?.parse().ok()
}

#[test] // O-ST-12: the parent does not look at processes for the pool's sake
fn usage_is_read_only_when_a_reader_asks() {
    let steered = Steered::pool(2, "--babysit-ms 60000");
    let mut control = steered.control();
    control.ask("hello").ok();
    let Some(before) = bytes_read(steered.pid()) else {
        return eprintln!("the system does not count what processes read");
    };
    const DEATHS: u64 = 5;
    for _ in 0..DEATHS {
        assert!(Client::connect(steered.addr).line("hello").ends_with(" hello"));
        let victim = steered.running.children()[0];
        kill(victim, Signal::SIGKILL).expect("a child");
        wait_until("another child", DEADLINE, || {
            let children = proc::children(steered.pid());
            (children.len() == 2 && !children.contains_key(&victim)).then_some(())
        });
    }
    let of_pool = bytes_read(steered.pid()).expect("it lives") - before;
    control.ask("children").ok();
    let of_reader = bytes_read(steered.pid()).expect("it lives") - before - of_pool;
    assert!(of_pool < 100 * DEATHS, "{of_pool} bytes for {DEATHS} deaths and forks");
    assert!(of_reader > 1000, "{of_reader} bytes for a reader");
}

//! What clients of the control socket can't do to the Daemon.

use std::io::Write;
use std::net::{Shutdown, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use util::control::{Control, Steered};
use util::http::{self, get, status_address};
use util::{Client, DEADLINE, Over, Program, proc, test_program, wait_until};

const CLIENTS: usize = 32;

#[test] // O-CT-09
fn client_too_many_is_told_so_and_a_slot_is_free_at_once() {
    let steered = Steered::pool(1, "");
    // Each asks at once: one that is silent for 10 s is let go, and a slow machine may need as long for all of them.
    let connect_all = || -> Vec<Control> {
        let mut clients: Vec<Control> = (0..CLIENTS)
            .map(|_| {
                let mut client = steered.control();
                client.send("hello\n");
                client
            })
            .collect();
        clients.iter_mut().for_each(|client| drop(client.read_answer().ok()));
        clients
    };
    let mut clients = connect_all();
    let mut refused = steered.control();
    assert_eq!(refused.read_answer().code(), "busy");
    assert_eq!(refused.read_line(), None);
    // Whatever they have sent before they hang up. Closing alone may come late: a program that another test is starting has all
    // descriptors of this process for a moment.
    for (number, client) in clients.iter_mut().enumerate() {
        match number % 3 {
            0 => client.send("hel"),
            1 => client.send("hello\nhello\n"),
            _ => {}
        }
        client.stream().shutdown(Shutdown::Both).unwrap();
    }
    clients.clear();
    connect_all();
}

#[test] // O-CT-09
fn line_that_is_too_long_is_refused() {
    let steered = Steered::pool(1, "");
    let fits = format!("hello{}", " ".repeat(64 * 1024 - 20));
    steered.control().ask(&fits).ok();
    for start in ["hello ", "{\"command\":\""] {
        let mut control = steered.control();
        let _ = std::io::Write::write_all(&mut control.stream(), format!("{start}{}", "x".repeat(70_000)).as_bytes());
        let line = control.read_line().unwrap();
        assert!(line.contains("too_long"), "{line}");
        assert_eq!(line.starts_with('{'), start.starts_with('{'), "{line}");
        assert_eq!(control.read_line(), None);
    }
}

#[test] // O-CT-09
fn client_that_says_nothing_is_let_go_and_one_that_has_asked_stays() {
    let steered = Steered::pool(1, "");
    let begin = Instant::now();
    let (mut silent, mut half, mut asking) = (steered.control(), steered.control(), steered.control());
    half.send("hel");
    asking.ask("hello").ok();
    silent.stream().set_read_timeout(Some(DEADLINE * 2)).unwrap();
    let in_time = |waited| (Duration::from_secs(9)..Duration::from_secs(15)).contains(&waited);
    let slow = steered.control();
    thread::scope(|scope| {
        let slow = scope.spawn(|| {
            // A byte now and then, and never the end of the line.
            while slow.stream().write_all(b" ").is_ok() && begin.elapsed() < DEADLINE * 2 {
                thread::sleep(Duration::from_millis(200));
            }
            begin.elapsed()
        });
        assert_eq!((silent.read_line(), half.read_line()), (None, None));
        let waited = begin.elapsed();
        assert!(in_time(waited), "{waited:?}");
        let waited = slow.join().expect("it only writes");
        assert!(in_time(waited), "{waited:?} for one that sends a byte now and then");
    });
    asking.ask("hello").ok();
}

#[test] // O-CT-08: `printf 'hello' | nc -U`
fn client_that_has_closed_its_side_is_still_answered() {
    let steered = Steered::pool(1, "");
    let mut control = steered.control();
    control.send("hello\nhello");
    control.stream().shutdown(Shutdown::Write).unwrap();
    control.read_answer().ok();
    control.read_answer().ok();
    assert_eq!(control.read_line(), None);
}

#[test] // O-CT-09
fn client_that_does_not_read_holds_nothing_up() {
    let steered = Steered::pool(4, "");
    let mut greedy: Vec<Control> = (0..8).map(|_| steered.control()).collect();
    let asked = "status\n".repeat(2000);
    for client in &mut greedy {
        client.stream().set_nonblocking(true).unwrap();
        // As much as the system takes.
        let _ = std::io::Write::write(&mut client.stream(), asked.as_bytes());
    }
    let mut control = steered.control();
    for _ in 0..100 {
        control.ask("hello").ok();
    }
    let before = proc::rss_kib(steered.pid()).unwrap();
    assert!(before < 200_000, "{before} KiB");
    drop(greedy);
    wait_until("their slots", DEADLINE, || {
        let mut clients: Vec<Control> = (0..CLIENTS - 1).map(|_| steered.control()).collect();
        // One that is sent away may have been by the time that it asks.
        let is_let_in = |client: &mut Control| {
            std::io::Write::write_all(&mut client.stream(), b"hello\n").is_ok()
                && client.read_answer().last.starts_with("OK")
        };
        clients.iter_mut().all(is_let_in).then_some(())
    });
}

#[test] // O-CT-04
fn order_behind_questions_of_a_client_that_hangs_up_is_carried_out() {
    let mut steered = Steered::pool(1, "");
    let mut client = UnixStream::connect(&steered.path).unwrap();
    client.write_all(("peek\nstatus\n".repeat(200) + "stop\n").as_bytes()).unwrap();
    drop(client);
    assert!(steered.running.wait_exit(DEADLINE).success());
    let told = steered.running.stderr_to_end(DEADLINE);
    let line = told.lines().find(|line| line.contains("command=\"stop\"")).expect("an audit line");
    let comm = std::fs::read_to_string("/proc/self/comm").unwrap();
    let of_this = format!("pid={} comm={:?}", std::process::id(), comm.trim_end());
    assert!(line.contains(&of_this), "{line}");
}

/// Connects and does one of the things that clients should not, until nothing is wanted any more. Returns how often.
fn molest(path: &Path, kind: usize, go_on: impl Fn(usize) -> bool) -> usize {
    let mut kept: Vec<UnixStream> = Vec::new();
    let mut count = 0;
    while go_on(count) {
        count += 1;
        let Ok(mut stream) = UnixStream::connect(path) else { continue };
        let _ = stream.set_nonblocking(true);
        let _ = match (kind + count) % 4 {
            0 => Ok(0),
            1 => stream.write(&[0xff; 3000]),
            2 => stream.write("status\nstatus\n{\"command\":\"peek\"}\n".as_bytes()),
            _ => stream.write(b"{\"command\":\"stat"),
        };
        // Some are silent for a while, most hang up at once.
        if count % 20 == 0 {
            kept.push(stream);
        }
        if kept.len() > 20 {
            kept.clear();
        }
    }
    count
}

/// How many lines a second are echoed to a few clients.
fn throughput(addr: SocketAddr, span: Duration) -> f64 {
    let lines = AtomicUsize::new(0);
    let begin = Instant::now();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut client = Client::connect(addr);
                while begin.elapsed() < span {
                    client.line("hello");
                    lines.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    lines.load(Ordering::Relaxed) as f64 / begin.elapsed().as_secs_f64()
}

#[test] // O-CT-04, O-CT-09
fn ten_thousand_connects_cost_the_server_little_and_leave_nothing_behind() {
    let steered = Steered::pool(2, "");
    let descriptors = || proc::fds(steered.pid()).len();
    let before = descriptors();
    let second = Duration::from_secs(1);
    throughput(steered.addr, second / 4);
    let (mut calm, mut molested, mut connects) = (0.0, 0.0, 0);
    // In turn: what else the machine does should hit both.
    for round in 0..4 {
        calm += throughput(steered.addr, second);
        let is_over = AtomicBool::new(false);
        let (rate, count) = thread::scope(|scope| {
            // A thousand a second.
            let (begin, is_over, path) = (Instant::now(), &is_over, &steered.path);
            let in_time = move |count: usize| {
                thread::sleep(Duration::from_millis(count as u64).saturating_sub(begin.elapsed()));
                !is_over.load(Ordering::Relaxed)
            };
            let molester = scope.spawn(move || molest(path, round, in_time));
            let rate = throughput(steered.addr, second);
            is_over.store(true, Ordering::Relaxed);
            (rate, molester.join().expect("it only connects"))
        });
        molested += rate;
        connects += count;
    }
    let ratio = molested / calm;
    println!("{connects} connects in 4 s: echo throughput {ratio:.3} of what it was ({:.0} a second)", calm / 4.0);
    // Where other tests run at the same time it says little.
    assert!(ratio > 0.3, "{ratio}");
    molest(&steered.path, 0, |count| count + connects < 10_000);
    wait_until("the descriptors", DEADLINE * 2, || (descriptors() <= before).then_some(()));
    steered.control().ask("hello").ok();
}

#[test] // O-CT-04, O-CT-10
fn flood_of_clients_keeps_no_operator_out_and_is_one_warning() {
    let steered = Steered::pool(1, "");
    let is_over = AtomicBool::new(false);
    let count = thread::scope(|scope| {
        let molester = scope.spawn(|| molest(&steered.path, 0, |_| !is_over.load(Ordering::Relaxed)));
        let over = Over(&is_over);
        steered.running.wait_for_stderr("more than 500 clients a second connect", DEADLINE);
        for _ in 0..10 {
            let begin = Instant::now();
            steered.control().ask("hello").ok();
            // The listener's queue has room for 64: they are let in within a fraction of a second.
            assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
        }
        drop(over);
        molester.join().expect("it only connects")
    });
    assert!(count > 64, "{count}");
    let told = steered.running.stderr_text();
    assert_eq!(told.matches("more than 500 clients a second").count(), 1, "{told}");
}

#[test] // O-CT-04: the parent itself accepts the clients of the service and forks for each
fn strangers_do_not_delay_what_the_parent_does_for_the_service() {
    let steered = Steered::start("--mode fork:8");
    let (asked, begin, is_over) = ("status\n".repeat(2000), Instant::now(), AtomicBool::new(false));
    let slow: Vec<UnixStream> = (0..8).map(|_| UnixStream::connect(&steered.path).unwrap()).collect();
    for mut stream in &slow {
        stream.set_nonblocking(true).unwrap();
        // As much as the system takes, and nothing is read.
        let _ = stream.write(asked.as_bytes());
    }
    let times = thread::scope(|scope| {
        // A thousand a second.
        let (is_over, path) = (&is_over, &steered.path);
        let in_time = move |count: usize| {
            thread::sleep(Duration::from_millis(count as u64).saturating_sub(begin.elapsed()));
            !is_over.load(Ordering::Relaxed)
        };
        let molester = scope.spawn(move || molest(path, 0, in_time));
        let over = Over(is_over);
        let answer = |_| {
            let begin = Instant::now();
            assert!(Client::connect(steered.addr).line("hello").ends_with(" hello"));
            begin.elapsed()
        };
        let mut times: Vec<Duration> = (0..50).map(answer).collect();
        drop(over);
        assert!(molester.join().expect("it only connects") > 20);
        times.sort_unstable();
        times
    });
    // The machine does other things meanwhile.
    assert!(times[25] < Duration::from_millis(250), "{times:?}");
}

#[test] // O-CT-04, O-CT-10: answers that take long are written one a turn
fn many_clients_that_ask_for_children_at_once_are_all_answered() {
    let steered = Steered::pool(8, "");
    let mut clients: Vec<Control> = (0..CLIENTS - 4).map(|_| steered.control()).collect();
    let json = "{\"command\":\"children\"}\n{\"command\":\"hello\"}\n";
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(if number % 2 == 0 { "children\nhello\n" } else { json });
        client.stream().shutdown(Shutdown::Write).unwrap();
    }
    steered.control().ask("status").ok();
    for (number, client) in clients.iter_mut().enumerate() {
        if number % 2 == 0 {
            let text = client.read_answer().ok();
            assert_eq!(text.lines().count(), 9, "{text}");
            assert!(!text.lines().nth(1).unwrap().contains("  -  -  "), "usage is told: {text}");
            client.read_answer().ok();
        } else {
            let answer: serde_json::Value = serde_json::from_str(&client.read_line().unwrap()).unwrap();
            let children = answer["data"]["children"].as_array().unwrap();
            assert_eq!(children.len(), 8);
            assert!(children.iter().all(|child| child["usage"]["resident"].as_u64() > Some(0)), "{answer}");
            assert!(client.read_line().unwrap().contains("\"protocol\":1"));
        }
        assert_eq!(client.read_line(), None);
    }
}

#[test] // O-CT-05
fn parent_has_one_thread_whatever_is_asked() {
    let steered = Steered::pool(2, "--board DIR/board --status 127.0.0.1:0 --babysit-ms 50");
    let status = status_address(&steered.running);
    let (pid, is_over) = (steered.pid(), AtomicBool::new(false));
    let tasks = |pid: i32| std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut most = 0;
            while !is_over.load(Ordering::Relaxed) {
                most = most.max(tasks(pid));
            }
            most
        });
        let over = Over(&is_over);
        let mut clients: Vec<Control> = (0..10).map(|_| steered.control()).collect();
        clients[0].send("watch\n");
        for _ in 0..3 {
            for command in COMMANDS {
                clients.iter_mut().skip(1).for_each(|client| client.send(format!("{command}\n")));
                clients.iter_mut().skip(1).for_each(|client| drop(client.read_answer()));
            }
            for path in ["/", "/status", "/metrics", "/live", "/ready"] {
                assert_eq!(get(status, path).status, 200);
            }
        }
        for child in steered.running.children() {
            assert_eq!(tasks(child), 1);
        }
        drop(over);
        assert_eq!(watcher.join().expect("it only looks"), 1);
    });
}

const COMMANDS: [&str; 9] = [
    "hello",
    "status",
    "children",
    "peek",
    "peek 0",
    "metrics openmetrics",
    "log-level debug for=50ms",
    "reopen",
    "resize max_children=3",
];

#[test] // O-CT-04: few descriptors are for the service first
fn clients_leave_descriptors_to_the_service() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("sock");
    let program = Program::new(Path::new("/bin/sh"))
        .args(["-c", "ulimit -n 64; exec \"$0\" \"$@\""])
        .args([test_program("daemon_control").to_str().unwrap(), "--mode", "fork:4", "--status", "127.0.0.1:0"])
        .args(["--control", socket.to_str().unwrap()]);
    let running = program.start();
    let (serves, status) = (running.listening_addr(), status_address(&running));
    let mut held: Vec<UnixStream> = Vec::new();
    let mut held_by_http = Vec::new();
    for _ in 0..70 {
        let mut client = UnixStream::connect(&socket).unwrap();
        let _ = client.write_all(b"hello\n");
        held.push(client);
        let mut client = http::connect(status);
        // In the middle of a request, so that it does not give way.
        let _ = client.write_all(b"GET /live HTTP/1.1\r\nHost:");
        held_by_http.push(client);
    }
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(serves)).collect();
    for client in &mut clients {
        assert!(client.line("hello").ends_with(" hello"));
    }
    let descriptors = proc::fds(running.pid()).len();
    assert!(descriptors < 48, "{descriptors} of 64");
}

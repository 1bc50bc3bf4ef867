//! `connection_echo`: what does a connection cost that is made for one line?
//!
//! Connect, send a line, read the reply, close. Each server is a program of its own, with as many children:
//! `echo_prefork` against children that block in `accept(2)`, and `echo_fork` against a loop that forks for each
//! connection; `prefork_once_echo` is a pool of which each child is replaced after one connection, against the same loop. And `held_burst_60`: 60 clients arrive at once, and stay, at a pool of two idle children with default settings.
//! The parent counts the clients that wait, and forks as many children as they need.
//!
//! The servers are examples, of lenore and of this package. Build them first:
//! `cargo build --release --workspace --examples`.

use std::net::SocketAddr;
use std::time::Duration;

use criterion::Bencher;

mod peers;
mod ratios;
use peers::installed::start;
use peers::load::{connection_echo, held_burst};
use ratios::{Budget, Rounds};
use util::Running;

/// How many children serve, and how many clients call at a time.
const CHILDREN: &str = "4";
const CLIENTS: usize = 4;

/// How many clients come at once and stay.
const HELD: usize = 60;

fn main() {
    prefork();
    prefork_once();
    postfork();
    held();
}

fn prefork() {
    let lenore = echo_prefork(CHILDREN, CHILDREN, CHILDREN);
    let bare = start("accept_echo", &["--children", CHILDREN]);
    wait_for_children(&bare, CHILDREN);
    let idle = lenore.children().into_iter().filter_map(util::proc::rss_kib).max();
    let bare_idle = bare.children().into_iter().filter_map(util::proc::rss_kib).max();
    let mut servers = [lenore.listening_addr(), bare.listening_addr()];
    Rounds::measure(
        "prefork_echo",
        1,
        &mut servers,
        &[
            ("lenore", |[lenore, _], bencher| connections(*lenore, bencher)),
            ("accept", |[_, accept], bencher| connections(*accept, bencher)),
        ],
    )
    .throughput("lenore", "accept", Budget::AtLeast(0.9))
    .print();
    if let (Some(idle), Some(bare_idle)) = (idle, bare_idle) {
        println!("bytes idle_child resident set {idle} KiB (of a child in accept: {bare_idle} KiB)");
    }
}

/// A child for each connection that waited for it: the pool forks as often as a post-forking server, but not while the client
/// waits.
fn prefork_once() {
    let lenore = start(
        "echo_prefork",
        &[
            "--listen",
            "127.0.0.1:0",
            "--requests",
            "1",
            "--start-children",
            "8",
            "--min-spare",
            "4",
            "--max-children",
            "16",
        ],
    );
    wait_for_children(&lenore, "8");
    let bare = start("fork_echo", &[]);
    let mut servers = [lenore.listening_addr(), bare.listening_addr()];
    Rounds::measure(
        "prefork_once_echo",
        1,
        &mut servers,
        &[
            ("lenore", |[lenore, _], bencher| connections(*lenore, bencher)),
            ("fork", |[_, fork], bencher| connections(*fork, bencher)),
        ],
    )
    .throughput("lenore", "fork", Budget::None)
    .print();
}

fn postfork() {
    let lenore = start("echo_fork", &["--listen", "127.0.0.1:0", "--max-children", "100"]);
    let bare = start("fork_echo", &[]);
    let mut servers = [lenore.listening_addr(), bare.listening_addr()];
    Rounds::measure(
        "postfork_echo",
        1,
        &mut servers,
        &[
            ("lenore", |[lenore, _], bencher| connections(*lenore, bencher)),
            ("fork", |[_, fork], bencher| connections(*fork, bencher)),
        ],
    )
    .throughput("lenore", "fork", Budget::AtLeast(0.85))
    .print();
}

fn held() {
    Rounds::measure(
        "held_burst_60",
        HELD as u64,
        &mut (),
        &[
            ("lenore", |_, bencher| bursts(bencher, || echo_prefork("2", "2", "64"))),
            ("fork", |_, bencher| bursts(bencher, || start("fork_echo", &["--hold"]))),
        ],
    )
    .times("lenore", "fork", Budget::AtMost(2.5))
    .print();
}

fn connections(addr: SocketAddr, bencher: &mut Bencher<'_>) {
    bencher.iter_custom(|n| connection_echo(addr, n, CLIENTS).expect("a server that echoes"));
}

/// Each burst meets a fresh server: one that has grown for the last would have an easy time with the next.
fn bursts(bencher: &mut Bencher<'_>, server: impl Fn() -> Running) {
    bencher.iter_custom(|n| {
        let burst = |_| {
            let server = server();
            held_burst(server.listening_addr(), HELD).expect("a server that answers them all")
        };
        (0..n).map(burst).sum::<Duration>()
    });
}

fn echo_prefork(start_children: &str, min_spare: &str, max_children: &str) -> Running {
    let mut args = vec!["--listen", "127.0.0.1:0", "--requests", "0", "--start-children", start_children];
    args.extend(["--min-spare", min_spare, "--max-spare", max_children, "--max-children", max_children]);
    let server = start("echo_prefork", &args);
    wait_for_children(&server, start_children);
    server
}

fn wait_for_children(server: &Running, count: &str) {
    let count: usize = count.parse().expect("a number");
    util::wait_until("the first children", util::DEADLINE, || (server.children().len() == count).then_some(()));
}

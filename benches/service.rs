//! `http_service_4` and `http_service_64`: how many requests a second does a service answer that says hello, with so many clients
//! that stay?
//!
//! The service is the example `http_service` in one process. The peer is the same service by axum, on one thread of tokio.
//! The clients are one thread of a third process. Build the two first:
//! `cargo build --release --workspace --examples --features service,logging`.

use std::io;
use std::time::Duration;

#[path = "peers/http_load.rs"]
mod http_load;
#[path = "peers/installed.rs"]
mod installed;
mod ratios;
use http_load::HttpLoad;
use installed::start;
use ratios::{Budget, Rounds};

fn main() -> io::Result<()> {
    let lenore = start("http_service", &["127.0.0.1:0"]);
    let axum = start("axum_service", &[]);
    let addrs = [lenore.listening_addr(), axum.listening_addr()];
    for connections in [4, 64] {
        let mut loads = [HttpLoad::connect(addrs[0], connections)?, HttpLoad::connect(addrs[1], connections)?];
        Rounds::measure(
            &format!("http_service_{connections}"),
            connections as u64,
            &mut loads,
            &[
                ("lenore", |[lenore, _], bencher| bencher.iter_custom(|n| round_trips(lenore, n))),
                ("axum", |[_, axum], bencher| bencher.iter_custom(|n| round_trips(axum, n))),
            ],
        )
        .throughput("lenore", "axum", Budget::AtLeast(1.0))
        .nanos("lenore", Budget::None)
        .nanos("axum", Budget::None)
        .print();
    }
    Ok(())
}

/// As many on each connection as Criterion asks for.
fn round_trips(load: &mut HttpLoad, rounds: u64) -> Duration {
    load.round_trips(rounds).expect("a server that answers")
}

//! How many connections a server has at a time: K-CS-20 to K-CS-22.

use std::time::{Duration, Instant};

use lenore::Kernel;
use lenore::component::{Protocol, TcpServer};
use lenore::filter::Line;

use util::component::{Peer, serve, spin};
use util::in_process::{Log, kernel, run_until};

use super::tcp_server::{end, witness};

#[test] // K-CS-20
fn no_more_connections_than_the_concurrency_and_all_are_served() {
    let mut kernel = kernel();
    let log = Log::default();
    let address = serve(&mut kernel, TcpServer::new("127.0.0.1:0", witness(&log)).concurrency(2));
    let mut waiting: Vec<Peer> = (0..4).map(|_| Peer::connect(address)).collect();
    waiting.iter_mut().for_each(|peer| peer.send("x\r\n"));
    let mut served = 0;
    while !waiting.is_empty() {
        run_until(&mut kernel, || waiting.iter_mut().any(|peer| peer.look() == b"x\r\n"));
        let (connected, ended) = (log.count("connected"), log.count("disconnected"));
        assert!(connected - ended <= 2, "{}", log.text());
        waiting.retain_mut(|peer| peer.look() != b"x\r\n");
        served += 1;
        assert!(served <= 4);
    }
    end(&mut kernel);
    assert_eq!(log.count("disconnected"), 4);
}

/// Runs the kernel a while, and returns how many were let in by then.
fn let_in(kernel: &mut Kernel, log: &Log) -> usize {
    spin(kernel);
    log.count("connected")
}

#[test] // K-CS-21, K-CS-22, K-RE-34
fn accepts_exactly_while_there_are_fewer_than_the_limit() {
    let mut kernel = kernel();
    let log = Log::default();
    let address = serve(&mut kernel, TcpServer::new("127.0.0.1:0", witness(&log)).concurrency(0));
    let peers: Vec<Peer> = (0..8).map(|_| Peer::connect(address)).collect();
    assert_eq!(let_in(&mut kernel, &log), 0, "none with 0");
    kernel.post("server", "set_concurrency", (1_u32,)).unwrap();
    assert_eq!(let_in(&mut kernel, &log), 1);
    kernel.post("server", "set_concurrency", (Some(3_u32),)).unwrap();
    assert_eq!(let_in(&mut kernel, &log), 3);
    kernel.post("server", "set_concurrency", (2,)).unwrap();
    assert_eq!(let_in(&mut kernel, &log), 3, "those that are there stay");
    kernel.post("server", "set_concurrency", (-1,)).unwrap();
    assert_eq!(let_in(&mut kernel, &log), 8, "any number, also after a pause");
    kernel.post("server", "set_concurrency", (0,)).unwrap();
    spin(&mut kernel);
    let late = Peer::connect(address);
    assert_eq!(let_in(&mut kernel, &log), 8);
    kernel.post("server", "set_concurrency", (None::<u32>,)).unwrap();
    assert_eq!(let_in(&mut kernel, &log), 9);
    drop((peers, late));
    end(&mut kernel);
}

#[test] // K-CS-20: a connection counts from the moment at which it was accepted
fn a_connection_whose_callback_runs_slices_counts_meanwhile() {
    let mut kernel = kernel();
    let log = Log::default();
    let connected = log.clone();
    let protocol = Protocol::new(Line::new()).on_connect(move |cx| {
        connected.push("connected");
        let deadline = Instant::now() + Duration::from_millis(200);
        cx.delay("wait_no_longer", Duration::from_millis(200), ());
        cx.run_while(|| Instant::now() < deadline)?;
        connected.push("ready");
        lenore::Result::Ok(())
    });
    let address = serve(&mut kernel, TcpServer::new("127.0.0.1:0", protocol).concurrency(1));
    let peers = [Peer::connect(address), Peer::connect(address)];
    run_until(&mut kernel, || log.count("ready") > 0);
    assert_eq!(log.text(), "connected ready", "the other one waits");
    drop(peers);
    run_until(&mut kernel, || log.count("ready") == 2);
    end(&mut kernel);
    assert_eq!(log.text(), "connected ready connected ready");
}

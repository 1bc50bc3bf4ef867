//! Connections that change their protocol.

use std::cell::Cell;
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use lenore::component::{NextProtocol, Protocol, TcpClient, TcpServer};
use lenore::filter::{Block, Line, Stream};
use lenore::{Error, Kernel, SessionId};

use util::component::{MUCH, Peer, serve, spin};
use util::in_process::{Log, kernel, run, run_until};

/// What the second protocol keeps.
struct Guest {
    name: String,
    blocks: usize,
}

/// Blocks, which are counted and echoed.
fn blocks(log: &Log) -> Protocol<Block, Guest> {
    let [connected, disconnected, flushed] = std::array::from_fn(|_| log.clone());
    Protocol::with_heap(Block::new(), || Guest { name: String::new(), blocks: 0 })
        .on_connect(move |cx| {
            let session = cx.session();
            connected.push(format_args!("hello {} {session}", cx.heap().name));
        })
        .on_input(|cx, block: Vec<u8>| {
            cx.heap().blocks += 1;
            cx.heap().put(block);
        })
        .on_flushed(move |_| flushed.push("flushed"))
        .on_disconnect(move |cx| disconnected.push(format_args!("{} blocks", cx.heap().blocks)))
}

/// Lines, which are echoed; `blocks NAME` changes to blocks.
fn lines(log: &Log) -> Protocol<Line> {
    let next = NextProtocol::new(blocks(log)).unwrap();
    let (log, gone) = (log.clone(), log.clone());
    Protocol::new(Line::new())
        .on_input(move |cx, line: String| {
            let Some(name) = line.strip_prefix("blocks ") else {
                cx.heap().put(line);
                return Ok(());
            };
            log.push(cx.session());
            next.take_over(cx, Guest { name: name.into(), blocks: 0 })?;
            // Until the state returns all is as before.
            cx.heap().put("from here on");
            Ok(())
        })
        .on_disconnect(move |_| gone.push("lines gone"))
}

fn end(kernel: &mut Kernel) {
    kernel.post("server", "shutdown", ()).unwrap();
    run(kernel);
}

#[test]
fn next_protocol_gets_the_rest_of_the_input_wherever_it_is_cut() {
    let input = "one\nblocks you\n3\0a\nc2\0de";
    for cut in 0..=input.len() {
        let (mut kernel, log) = (kernel(), Log::default());
        let address = serve(&mut kernel, TcpServer::new("127.0.0.1:0", lines(&log)));
        let mut peer = Peer::connect(address);
        peer.send(&input[..cut]);
        spin(&mut kernel);
        peer.send(&input[cut..]);
        peer.run_to(&mut kernel, "one\r\nfrom here on\r\n3\0a\nc2\0de");
        drop(peer);
        end(&mut kernel);
        let log = log.take();
        assert_eq!(log[1], format!("hello you {}", log[0]), "the session is the same");
        assert!(log[2..log.len() - 1].iter().all(|entry| entry == "flushed"), "{log:?}");
        assert_eq!(log.last().map(String::as_str), Some("2 blocks"), "cut at {cut}: {log:?}");
    }
}

#[test]
fn next_protocol_ends_with_its_own_callbacks() {
    let (mut kernel, log) = (kernel(), Log::default());
    let address = serve(&mut kernel, TcpServer::new("127.0.0.1:0", lines(&log)));
    let mut peer = Peer::connect(address);
    peer.send("blocks you\n1\0x");
    peer.run_to(&mut kernel, "from here on\r\n1\0x");
    assert!(!log.take().iter().any(|entry| entry.contains("gone")));
    peer.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(peer.run_to_end(&mut kernel), "from here on\r\n1\0x");
    // The server waits for its connections, and knows that this one has ended.
    end(&mut kernel);
    assert!(log.take().iter().filter(|entry| *entry != "flushed").eq(["1 blocks"]));
}

#[test]
fn next_protocol_waits_for_states_below_a_nested_slice() {
    let (mut kernel, log) = (kernel(), Log::default());
    let told = log.clone();
    let next = NextProtocol::new(Protocol::with_heap(Stream::new(), || 0_u8).on_connect(move |cx| {
        let heap = **cx.heap();
        told.push(format_args!("next {heap}"));
    }));
    let (next, told) = (next.unwrap(), log.clone());
    let protocol = Protocol::with_heap(Line::new(), || 1_u32).on_input(move |cx, _: String| {
        next.take_over(cx, 2)?;
        for _ in 0..3 {
            // With something to do, or the slice would wait.
            cx.post(SessionId::KERNEL, "nothing", ())?;
            cx.run_one_timeslice()?;
        }
        let heap = **cx.heap();
        told.push(format_args!("first {heap}"));
        Ok(())
    });
    let address = serve(&mut kernel, TcpServer::new("127.0.0.1:0", protocol));
    let mut peer = Peer::connect(address);
    peer.send("go\n");
    while log.len() < 2 {
        spin(&mut kernel);
    }
    assert_eq!(log.take(), ["first 1", "next 2"]);
    drop(peer);
    end(&mut kernel);
}

#[test]
fn next_protocol_begins_after_a_state_of_the_program_that_panics() {
    let (mut kernel, log) = (kernel(), Log::default());
    let told = log.clone();
    // The signal comes behind the change.
    let next = Protocol::new(Stream::new()).on_connect(move |_| told.push("next")).state("died", |cx| cx.sig_handled());
    let next = NextProtocol::new(next).unwrap();
    let protocol = Protocol::new(Line::new())
        .on_connect(|cx| cx.sig("DIE", "died"))
        .on_input(|cx, _: String| cx.yield_("own", ()))
        .state("own", move |cx| {
            next.take_over(cx, ())?;
            for _ in 0..3 {
                cx.post(SessionId::KERNEL, "nothing", ())?;
                cx.run_one_timeslice()?;
            }
            assert!(cx.heap().is_connected() && cx.session() == SessionId::KERNEL, "it panics here");
            Ok(())
        });
    let address = serve(&mut kernel, TcpServer::new("127.0.0.1:0", protocol));
    let mut peer = Peer::connect(address);
    peer.send("go\n");
    run_until(&mut kernel, || log.len() == 1);
    drop(peer);
    end(&mut kernel);
}

#[test]
fn next_protocol_costs_nothing_while_it_waits_for_a_nested_slice() {
    let (mut kernel, log) = (kernel(), Log::default());
    let told = log.clone();
    let next = NextProtocol::new(Protocol::new(Stream::new()).on_connect(move |_| told.push("next"))).unwrap();
    let (told, count) = (log.clone(), log.clone());
    let protocol = Protocol::new(Line::new())
        .on_input(move |cx, _: String| {
            next.take_over(cx, ())?;
            cx.delay("enough", Duration::from_millis(100), ());
            let mut slices = 0;
            while log.is_empty() {
                slices += 1;
                cx.run_one_timeslice()?;
            }
            assert!(slices < 50, "{slices} slices in which nothing happened");
            Ok(())
        })
        .state("enough", move |_| told.push("enough"));
    let address = serve(&mut kernel, TcpServer::new("127.0.0.1:0", protocol));
    let mut peer = Peer::connect(address);
    peer.send("go\n");
    run_until(&mut kernel, || count.len() == 2);
    assert_eq!(count.take(), ["enough", "next"]);
    drop(peer);
    end(&mut kernel);
}

#[test]
fn next_protocol_does_not_begin_on_a_connection_that_ends() {
    let (mut kernel, log) = (kernel(), Log::default());
    let next = NextProtocol::new(blocks(&log)).unwrap();
    let protocol = Protocol::new(Line::new()).on_input(move |cx, _: String| {
        cx.heap().put("x".repeat(MUCH)); // so that the end has to wait
        next.take_over(cx, Guest { name: "nobody".into(), blocks: 0 })?;
        cx.call(cx.session(), "shutdown", ())?;
        assert!(cx.heap().is_connected());
        Ok(())
    });
    let address = serve(&mut kernel, TcpServer::new("127.0.0.1:0", protocol));
    let mut peer = Peer::connect(address);
    peer.send("go\n1\0x");
    assert_eq!(peer.run_to_end(&mut kernel).len(), MUCH + 2);
    end(&mut kernel);
    assert!(log.is_empty(), "{:?}", log.take());
}

#[test]
fn next_protocol_counts_requests_by_itself_after_one_that_says_so() {
    let (mut kernel, log) = (kernel(), Log::default());
    let counts = log.clone();
    let echo = Protocol::new(Line::new()).on_input(move |cx, line: String| {
        let before = cx.heap().requests_in_hand();
        cx.heap().put(line);
        counts.push(format_args!("{before} {}", cx.heap().requests_in_hand()));
    });
    let next = NextProtocol::new(echo).unwrap();
    let explicit = Protocol::new(Line::new()).on_input(move |cx, line: String| {
        cx.heap().request_begins();
        cx.heap().put(line);
        cx.heap().request_ends();
        Ok(next.take_over(cx, ())?)
    });
    let address = serve(&mut kernel, TcpServer::new("127.0.0.1:0", explicit));
    let mut peer = Peer::connect(address);
    peer.send("one\ntwo\n");
    peer.run_to(&mut kernel, "one\r\ntwo\r\n");
    assert_eq!(log.take(), ["1 0"]);
    drop(peer);
    end(&mut kernel);
}

#[test] // a client connects again, and that with its own protocol
fn next_protocol_is_refused_to_a_client() {
    let (mut kernel, log) = (kernel(), Log::default());
    let address = serve(&mut kernel, TcpServer::new("127.0.0.1:0", lines(&log)));
    let next = NextProtocol::new(blocks(&log)).unwrap();
    let is_refused = Rc::new(Cell::new(false));
    let told = Rc::clone(&is_refused);
    let client = Protocol::new(Line::new()).on_connect(move |cx| {
        let refused = next.take_over(cx, Guest { name: String::new(), blocks: 0 });
        told.set(matches!(refused, Err(Error::InvalidSetting { setting: "take_over", .. })));
        cx.yield_("shutdown", ());
    });
    TcpClient::new(address.to_string(), client).spawn(&mut kernel).unwrap();
    while !is_refused.get() {
        kernel.run_one_timeslice().unwrap();
    }
    end(&mut kernel);
}

/// Panics when it is dropped.
struct Fragile;

impl Drop for Fragile {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

#[test]
fn old_heap_that_panics_when_it_is_dropped_does_not_end_the_connection() {
    let (mut kernel, log) = (kernel(), Log::default());
    let next = NextProtocol::new(blocks(&log)).unwrap();
    let protocol = Protocol::with_heap(Line::new(), || Fragile)
        .on_input(move |cx, name: String| Ok(next.take_over(cx, Guest { name, blocks: 0 })?));
    let address = serve(&mut kernel, TcpServer::new("127.0.0.1:0", protocol));
    let mut peer = Peer::connect(address);
    peer.send("you\n1\0a");
    peer.run_to(&mut kernel, "1\0a");
    let heaps: Vec<&str> = kernel.peek().sessions.iter().map(|session| session.heap).collect();
    assert!(heaps.iter().any(|heap| heap.contains("Guest")) && !heaps.iter().any(|heap| heap.contains("Fragile")));
    drop(peer);
    end(&mut kernel);
}

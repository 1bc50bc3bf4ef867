//! The client: K-CC.

use std::cell::RefCell;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use lenore::component::{Failure, Protocol, TcpClient};
use lenore::filter::{Line, Stream};
use lenore::wheel::{Put, WheelId};
use lenore::{Kernel, Session};
use nix::errno::Errno;
use nix::sys::socket::Backlog;

use util::addresses::free_addresses;
use util::component::{MUCH, Peer, collect_warnings, infos, spin, warnings};
use util::in_process::{Log, kernel, run, run_until};
use util::{DEADLINE, wait_until};

/// A server in the test itself.
struct Host {
    listener: TcpListener,
    address: SocketAddr,
}

impl Host {
    fn new() -> Host {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        Host { listener, address }
    }

    /// The next client, which has connected already.
    fn accept(&self) -> Peer {
        Peer::new(self.listener.accept().unwrap().0)
    }
}

/// A protocol that writes down each of its callbacks.
fn witness(log: &Log) -> Protocol<Line> {
    let [looked, connected, input, flushed, failed, disconnected] = std::array::from_fn(|_| log.clone());
    Protocol::new(Line::new())
        .pre_connect(move |cx, socket: TcpStream| {
            assert!(!cx.heap().is_connected());
            looked.push("looked");
            Ok(Some(socket))
        })
        .on_connect(move |cx| {
            assert!(cx.heap().is_connected());
            connected.push("connected");
        })
        .on_input(move |cx, line: String| {
            assert_eq!(Some(*cx.arg::<WheelId>(1)?), cx.heap().id());
            input.push(format_args!("input:{line}"));
            lenore::Result::Ok(())
        })
        .on_flushed(move |_| flushed.push("flushed"))
        .on_error(move |_, failure: &Failure| failed.push(format_args!("{}:{}", failure.operation, failure.errno)))
        .on_disconnect(move |cx| {
            assert!(!cx.heap().is_connected()); // K-CC-15
            disconnected.push("disconnected");
        })
}

/// A client of `host` that writes down everything, under the alias `client`.
fn client(host: &Host, log: &Log) -> TcpClient<Line> {
    with_errors(TcpClient::new(host.address.to_string(), witness(log)), log)
}

fn with_errors(client: TcpClient<Line>, log: &Log) -> TcpClient<Line> {
    let failed = log.clone();
    client.alias("client").on_connect_error(move |cx, failure| {
        let name = Errno::from_raw(failure.errno);
        failed.push(format_args!("{}:{name:?}:{}", failure.operation, cx.heap().is_connected()));
    })
}

/// An address at which nobody listens.
fn nobody() -> SocketAddr {
    let [address] = free_addresses(Ipv4Addr::LOCALHOST);
    address
}

/// Runs until the log reads so, and not a bit longer.
#[track_caller]
fn run_to(kernel: &mut Kernel, log: &Log, text: &str) {
    run_until(kernel, || log.text() == text);
}

#[test] // K-CC-01, K-CC-02, K-CC-03, K-CC-04
fn it_starts_before_it_connects() {
    let mut kernel = kernel();
    let (log, host) = (Log::default(), Host::new());
    let started = log.clone();
    let id = client(&host, &log)
        .connect_timeout(Duration::from_secs(5))
        .on_started(move |cx| {
            let heap = cx.heap();
            assert!(!heap.is_connected() && !heap.is_shutting_down() && heap.remote_addr().is_none());
            assert_eq!((heap.remote_ip(), heap.put("nobody is there")), ("", Put::Closed));
            started.push(format_args!("started:{}", cx.state_name()));
        })
        .spawn(&mut kernel)
        .unwrap();
    assert_eq!(kernel.alias_resolve("client").unwrap(), id);
    assert_eq!(log.text(), "started:_start");
    run_to(&mut kernel, &log, "started:_start looked connected");
    drop(host.accept());
    kernel.post(id, "shutdown", ()).unwrap();
    run(&mut kernel);
}

#[test] // K-CC-02: marks
fn output_that_piles_up_reaches_the_high_mark_and_drains_to_the_low_one() {
    let mut kernel = kernel();
    let (log, host) = (Log::default(), Host::new());
    let [connected, high, low] = std::array::from_fn(|_| log.clone());
    let protocol = Protocol::new(Stream::new())
        .watermarks(1000, 2000)
        .on_connect(move |cx| connected.push(cx.heap().put(vec![b'x'; MUCH]).is_high()))
        .on_high(move |_| high.push("high"))
        .on_low(move |cx| {
            low.push("low");
            cx.yield_("shutdown", ());
        });
    TcpClient::new(host.address.to_string(), protocol).spawn(&mut kernel).unwrap();
    run_until(&mut kernel, || log.text() == "true high");
    assert_eq!(host.accept().run_to_end(&mut kernel).len(), MUCH);
    run(&mut kernel);
    assert_eq!(log.text(), "true high low");
}

#[test] // K-CC-02, K-CC-07, K-CC-12, K-CC-13
fn it_talks() {
    let mut kernel = kernel();
    let (log, host) = (Log::default(), Host::new());
    let (connected, input) = (log.clone(), log.clone());
    let address = host.address;
    let protocol = Protocol::with_heap(Line::new(), || 0)
        .on_connect(move |cx| {
            let heap = cx.heap();
            assert_eq!((heap.remote_addr(), heap.remote_ip()), (Some(address), "127.0.0.1"));
            connected.push("connected");
            heap.put("hello");
        })
        .on_input(move |cx, line: String| {
            **cx.heap() += 1;
            input.push(format_args!("{line}:{}", **cx.heap()));
            cx.yield_("more", (line,));
        })
        .state("more", |cx| {
            let line: String = cx.take(0)?;
            cx.heap().put(format!("again {line}"));
            lenore::Result::Ok(())
        });
    let id = TcpClient::new(address.to_string(), protocol).spawn(&mut kernel).unwrap();
    run_until(&mut kernel, || log.text() == "connected");
    let mut peer = host.accept();
    peer.run_to(&mut kernel, "hello\r\n");
    peer.send("one\r\ntwo\r\n");
    peer.run_to(&mut kernel, "hello\r\nagain one\r\nagain two\r\n");
    assert_eq!(log.text(), "connected one:1 two:2");
    kernel.post(id, "shutdown", ()).unwrap();
    drop(peer);
    run(&mut kernel);
}

#[test] // K-CC-02
fn it_connects_from_the_address_that_it_is_told() {
    let mut kernel = kernel();
    let (log, host) = (Log::default(), Host::new());
    let id = client(&host, &log).bind_address("127.0.0.2:0").spawn(&mut kernel).unwrap();
    run_to(&mut kernel, &log, "looked connected");
    assert_eq!(host.accept().stream.peer_addr().unwrap().ip().to_string(), "127.0.0.2");
    kernel.post(id, "shutdown", ()).unwrap();
    run(&mut kernel);
}

#[test] // K-CC-05
fn reconnect_drops_the_connection_and_what_was_put() {
    let mut kernel = kernel();
    let (log, host) = (Log::default(), Host::new());
    let id = client(&host, &log).spawn(&mut kernel).unwrap();
    run_to(&mut kernel, &log, "looked connected");
    let mut first = host.accept();
    for _ in 0..2 {
        // With an alias that is there already, and once in the middle of connecting.
        kernel.post(id, "reconnect", ()).unwrap();
    }
    run_to(&mut kernel, &log, "looked connected looked connected");
    assert_eq!(first.run_to_end(&mut kernel), "");
    kernel.post("client", "shutdown", ()).unwrap();
    drop(host.accept()); // the one between the two
    drop(host.accept());
    run(&mut kernel);
    assert_eq!(log.count("disconnected"), 1, "only at the end");
}

#[test] // K-CC-05: buffered data is lost
fn what_waits_to_be_written_is_not_for_the_next_connection() {
    let mut kernel = kernel();
    let (log, host) = (Log::default(), Host::new());
    let note = log.clone();
    let protocol = Protocol::with_heap(Stream::new(), || 0).on_connect(move |cx| {
        **cx.heap() += 1;
        note.push("connected");
        if **cx.heap() == 1 {
            cx.heap().put(vec![b'x'; MUCH]);
        }
    });
    let id = TcpClient::new(host.address.to_string(), protocol).spawn(&mut kernel).unwrap();
    run_until(&mut kernel, || log.len() == 1);
    kernel.post(id, "reconnect", ()).unwrap();
    run_until(&mut kernel, || log.len() == 2);
    let (_, mut second) = (host.accept(), host.accept());
    kernel.post(id, "shutdown", ()).unwrap();
    assert_eq!(second.run_to_end(&mut kernel), "");
    run(&mut kernel);
}

#[test] // K-CC-06
fn connect_takes_another_address_and_remembers_it() {
    let mut kernel = kernel();
    let (log, one, other) = (Log::default(), Host::new(), Host::new());
    let id = client(&one, &log).spawn(&mut kernel).unwrap();
    run_to(&mut kernel, &log, "looked connected");
    let first = one.accept();
    kernel.post(id, "connect", ("localhost", other.address.port())).unwrap();
    run_until(&mut kernel, || log.count("connected") == 2);
    other.accept();
    kernel.post(id, "reconnect", ()).unwrap();
    run_until(&mut kernel, || log.count("connected") == 3);
    other.accept();
    kernel.post(id, "connect", (one.address.to_string(),)).unwrap();
    run_until(&mut kernel, || log.count("connected") == 4);
    one.accept();
    kernel.post(id, "connect", ()).unwrap();
    run_until(&mut kernel, || log.count("connected") == 5);
    one.accept();
    drop(first);
    kernel.post(id, "shutdown", ()).unwrap();
    run(&mut kernel);
}

#[test] // K-CC-08
fn a_socket_that_pre_connect_does_not_return_ends_it_in_silence() {
    let mut kernel = kernel();
    let (log, host) = (Log::default(), Host::new());
    let looked = log.clone();
    let protocol = witness(&log).pre_connect(move |_, _| {
        looked.push("refused");
        Ok(None)
    });
    let client = TcpClient::new(host.address.to_string(), protocol);
    let failed = log.clone();
    client.on_connect_error(move |_, _| failed.push("failed")).spawn(&mut kernel).unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "refused");
}

#[test] // K-CC-09
fn a_connection_that_is_refused_is_an_error_and_the_end() {
    let mut kernel = kernel();
    let log = Log::default();
    let failed = log.clone();
    let client = TcpClient::new(nobody().to_string(), witness(&log)).on_connect_error(move |_, failure| {
        assert!(failure.wheel.is_some());
        assert_eq!(failure.text, std::io::Error::from_raw_os_error(failure.errno).to_string());
        failed.push(format_args!("{}:{:?}", failure.operation, Errno::from_raw(failure.errno)));
    });
    client.spawn(&mut kernel).unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "connect:ECONNREFUSED");

    // A failure that the constructor of the wheel has found already.
    let failed = log.clone();
    let client = TcpClient::new("no port", witness(&log)).on_connect_error(move |_, failure| {
        assert!(failure.text.contains("no port"), "{failure}");
        failed.push(format_args!("{}:{:?}", failure.operation, Errno::from_raw(failure.errno)));
    });
    client.spawn(&mut kernel).unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "connect:ECONNREFUSED connect:EINVAL");
}

#[test] // K-CC-09, K-CC-12
fn without_callbacks_errors_are_logged() {
    collect_warnings();
    let mut kernel = kernel();
    let target = nobody().to_string();
    TcpClient::new(target.as_str(), Protocol::new(Line::new())).spawn(&mut kernel).unwrap();
    run(&mut kernel);
    let [warning] = &warnings()[..] else { panic!("one warning") };
    assert!(warning.contains(&target), "{warning}");

    // The end of the input too: a client did not expect it.
    let host = Host::new();
    let connected = Log::default();
    let note = connected.clone();
    let protocol = Protocol::new(Line::new()).on_connect(move |_| note.push("connected"));
    TcpClient::new(host.address.to_string(), protocol).spawn(&mut kernel).unwrap();
    run_until(&mut kernel, || connected.len() == 1);
    drop(host.accept());
    run(&mut kernel);
    let [warning] = &warnings()[..] else { panic!("one warning") };
    assert!(warning.contains("end of input"), "{warning}");
}

#[test] // K-CC-09
fn failed_tries_to_connect_are_one_warning_until_one_succeeds() {
    collect_warnings();
    let mut kernel = kernel();
    let target = nobody();
    let protocol = Protocol::new(Line::new()).on_disconnect(|_| ());
    TcpClient::new(target.to_string(), protocol).alias("client").spawn(&mut kernel).unwrap();
    let mut told = Vec::new();
    // Until it is known what came of it.
    let try_for = |kernel: &mut Kernel, event: &'static str, args: Option<String>| {
        match args {
            Some(target) => kernel.post("client", event, (target,)).unwrap(),
            None => kernel.post("client", event, ()).unwrap(),
        }
        wait_until("the outcome of a try", DEADLINE, || {
            spin(kernel);
            (!kernel.peek().to_string().contains("SocketFactory")).then_some(())
        });
        warnings()
    };
    for _ in 0..5 {
        told.extend(try_for(&mut kernel, "reconnect", None));
    }
    assert!(told.len() == 1 && told[0].contains(&format!("can't connect to {target}: ")), "{told:?}");
    // With whom is news.
    let other = nobody().to_string();
    told = try_for(&mut kernel, "connect", Some(other.clone()));
    told.extend(try_for(&mut kernel, "reconnect", None));
    assert!(told.len() == 1 && told[0].contains(&other), "{told:?}");
    assert_eq!(infos(), [""; 0]);
    let host = Host::new();
    let address = host.address.to_string();
    assert_eq!(try_for(&mut kernel, "connect", Some(address.clone())), [""; 0]);
    let ended = infos();
    assert!(ended.len() == 1 && ended[0].contains(&format!("is connected to {address}: failed=")), "{ended:?}");
    // And so is one that fails after that.
    told = try_for(&mut kernel, "connect", Some(other.clone()));
    assert!(told.len() == 1 && told[0].contains(&other), "{told:?}");
    kernel.post("client", "shutdown", ()).unwrap();
    run(&mut kernel);
}

/// A listener whose backlog is full, so that connecting to it takes for ever.
fn full() -> (TcpListener, Vec<TcpStream>, SocketAddr) {
    let Host { listener, address } = Host::new();
    nix::sys::socket::listen(&listener, Backlog::new(0).unwrap()).unwrap();
    let mut filling = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        filling.push(stream);
    }
    (listener, filling, address)
}

#[test] // K-CC-10
fn an_attempt_that_takes_too_long_is_given_up() {
    let mut kernel = kernel();
    let log = Log::default();
    let (_listener, _filling, address) = full();
    let failed = log.clone();
    let begun = Instant::now();
    let client = TcpClient::new(address.to_string(), witness(&log)).connect_timeout(Duration::from_millis(50));
    let client = client.on_connect_error(move |_, failure| {
        assert!(failure.wheel.is_none() && !failure.text.is_empty());
        failed.push(format_args!("{}:{:?}", failure.operation, Errno::from_raw(failure.errno)));
    });
    client.spawn(&mut kernel).unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "connect:ETIMEDOUT");
    assert!(begun.elapsed() >= Duration::from_millis(50));
}

#[test] // K-CC-10: counts for the attempt alone
fn a_connection_outlasts_the_timeout() {
    let mut kernel = kernel();
    let (log, host) = (Log::default(), Host::new());
    let id = client(&host, &log).connect_timeout(Duration::from_millis(30)).spawn(&mut kernel).unwrap();
    run_to(&mut kernel, &log, "looked connected");
    let until = Instant::now() + Duration::from_millis(60);
    while Instant::now() < until {
        spin(&mut kernel);
    }
    assert_eq!(log.text(), "looked connected");
    kernel.post(id, "shutdown", ()).unwrap();
    drop(host.accept());
    run(&mut kernel);
}

#[test] // K-CC-11
fn a_delayed_reconnect_is_another_try() {
    let mut kernel = kernel();
    let log = Log::default();
    let again = |tries: Rc<RefCell<u32>>, log: Log, word: &'static str| {
        move |mut calls: lenore::Calls<'_>| {
            log.push(word);
            *tries.borrow_mut() += 1;
            if *tries.borrow() < 3 {
                calls.delay("reconnect", Duration::from_millis(1), ());
            }
        }
    };
    let (failed, ended) = (again(Rc::default(), log.clone(), "failed"), again(Rc::default(), log.clone(), "ended"));
    TcpClient::new(nobody().to_string(), Protocol::new(Line::new()))
        .on_connect_error(move |cx, _| failed(cx.split().1))
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    assert_eq!(log.take().join(" "), "failed failed failed");

    let host = Host::new();
    let protocol = Protocol::new(Line::new()).on_error(|_, _| ()).on_disconnect(move |cx| ended(cx.split().1));
    TcpClient::new(host.address.to_string(), protocol).spawn(&mut kernel).unwrap();
    for round in 0..3 {
        let mut pending = None;
        host.listener.set_nonblocking(true).unwrap();
        run_until(&mut kernel, || {
            pending = host.listener.accept().ok();
            pending.is_some()
        });
        assert_eq!(log.count("ended"), round);
    }
    run(&mut kernel);
    assert_eq!(log.text(), "ended ended ended");
}

#[test] // K-CC-12, K-CC-14, K-CC-15
fn the_end_of_the_input_is_an_error_and_the_end() {
    let mut kernel = kernel();
    let (log, host) = (Log::default(), Host::new());
    client(&host, &log).spawn(&mut kernel).unwrap();
    run_to(&mut kernel, &log, "looked connected");
    let mut peer = host.accept();
    peer.send("last\r\n");
    drop(peer);
    run(&mut kernel);
    assert_eq!(log.text(), "looked connected input:last read:0 disconnected");
}

#[test] // K-CC-12: no input after the shutdown flag
fn a_shutdown_takes_no_more_input_and_waits_for_the_output() {
    let mut kernel = kernel();
    let (log, host) = (Log::default(), Host::new());
    let connected = log.clone();
    let protocol = witness(&log).on_connect(move |cx| {
        connected.push("connected");
        cx.heap().put("x".repeat(MUCH));
        cx.call(cx.session(), "shutdown", ())?;
        assert!(cx.heap().is_shutting_down() && cx.heap().is_connected());
        lenore::Result::Ok(())
    });
    with_errors(TcpClient::new(host.address.to_string(), protocol), &log).spawn(&mut kernel).unwrap();
    run_until(&mut kernel, || log.count("connected") == 1);
    // K-CC-14: in all cases, and at once
    assert!(kernel.alias_resolve("client").is_err());
    let mut peer = host.accept();
    peer.send("too late\r\n");
    spin(&mut kernel);
    assert_eq!(log.text(), "looked connected", "there is output left");
    assert_eq!(peer.run_to_end(&mut kernel).len(), MUCH + 2);
    // K-CC-14, K-CC-13
    run(&mut kernel);
    assert_eq!(log.text(), "looked connected flushed disconnected");
}

#[test] // K-CC-14
fn a_shutdown_while_connecting_is_not_a_disconnection() {
    let mut kernel = kernel();
    let log = Log::default();
    let (_listener, _filling, address) = full();
    let client = TcpClient::new(address.to_string(), witness(&log)).connect_timeout(Duration::from_secs(3600));
    let id = with_errors(client, &log).spawn(&mut kernel).unwrap();
    spin(&mut kernel);
    assert_eq!(kernel.peek().sources.len(), 1);
    kernel.post(id, "shutdown", ()).unwrap();
    // Without the timeout's hour.
    run(&mut kernel);
    assert_eq!(log.text(), "");
}

#[test] // K-CC-14: after an error the output is not waited for
fn a_shutdown_of_a_broken_connection_waits_for_nothing() {
    let mut kernel = kernel();
    let (log, host) = (Log::default(), Host::new());
    let [connected, failed, disconnected] = std::array::from_fn(|_| log.clone());
    let protocol = Protocol::new(Stream::new())
        .on_connect(move |cx| {
            connected.push("connected");
            cx.heap().put(vec![b'x'; MUCH]);
        })
        .on_error(move |_, failure| failed.push(format_args!("{:?}", Errno::from_raw(failure.errno))))
        .on_disconnect(move |_| disconnected.push("disconnected"));
    TcpClient::new(host.address.to_string(), protocol).spawn(&mut kernel).unwrap();
    run_until(&mut kernel, || log.count("connected") == 1);
    host.accept().reset();
    run(&mut kernel);
    assert_eq!(log.text(), "connected ECONNRESET disconnected");
}

#[test] // K-RE-35: a clean state for each connection
fn an_error_is_forgotten_when_it_connects_again() {
    let mut kernel = kernel();
    let (log, host) = (Log::default(), Host::new());
    let note = log.clone();
    let protocol = Protocol::with_heap(Stream::new(), || 0)
        .on_connect(move |cx| {
            **cx.heap() += 1;
            note.push("connected");
            if **cx.heap() == 2 {
                assert!(!cx.heap().is_shutting_down());
                cx.heap().put(vec![b'x'; MUCH]);
                cx.yield_("shutdown", ());
            }
        })
        .on_error(|_, _| ())
        .on_disconnect(|cx| {
            if **cx.heap() == 1 {
                cx.yield_("reconnect", ());
            }
        });
    TcpClient::new(host.address.to_string(), protocol).spawn(&mut kernel).unwrap();
    run_until(&mut kernel, || log.len() == 1);
    host.accept().reset();
    run_until(&mut kernel, || log.len() == 2);
    let mut second = host.accept();
    assert_eq!(second.run_to_end(&mut kernel).len(), MUCH);
    run(&mut kernel);
}

#[test] // K-CC-16, K-RE-35
fn one_with_an_alias_can_be_found_after_a_failure_and_stays_until_idle() {
    let mut kernel = kernel();
    let (log, host) = (Log::default(), Host::new());
    // Something else goes on, so that the program is not idle.
    let busy = Session::new(())
        .state("_start", |cx| cx.delay("never", Duration::from_secs(3600), ()))
        .state("end", |cx| drop(cx.alarm_remove_all()))
        .spawn(&mut kernel)
        .unwrap();
    let client = TcpClient::new(nobody().to_string(), witness(&log));
    let id = with_errors(client, &log).spawn(&mut kernel).unwrap();
    run_to(&mut kernel, &log, "connect:ECONNREFUSED:false");
    spin(&mut kernel);
    assert_eq!(kernel.alias_resolve("client").unwrap(), id);
    kernel.post("client", "connect", (host.address.to_string(),)).unwrap();
    run_until(&mut kernel, || log.count("connected") == 1);
    drop(host.accept());
    run_until(&mut kernel, || log.text().ends_with("read:0 disconnected"));
    spin(&mut kernel);
    assert!(kernel.alias_resolve("client").is_err(), "the end of a connection takes the alias away");

    let client = TcpClient::new(nobody().to_string(), witness(&log));
    with_errors(client, &log).spawn(&mut kernel).unwrap();
    run_until(&mut kernel, || log.text().ends_with("connect:ECONNREFUSED:false"));
    kernel.post(busy, "end", ()).unwrap();
    // By nothing but IDLE.
    run(&mut kernel);
    assert!(kernel.alias_resolve("client").is_err());
}

#[test]
fn a_peer_that_is_gone_is_not_written_to() {
    let mut kernel = kernel();
    let (log, host) = (Log::default(), Host::new());
    let id = client(&host, &log).spawn(&mut kernel).unwrap();
    run_to(&mut kernel, &log, "looked connected");
    let mut peer = host.accept();
    peer.stream.write_all(b"x\r\n").unwrap();
    run_until(&mut kernel, || log.count("input:x") == 1);
    kernel.post(id, "shutdown", ()).unwrap();
    peer.run_to_end(&mut kernel);
    run(&mut kernel);
}

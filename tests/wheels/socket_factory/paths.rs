//! UNIX stream sockets, and the paths that they leave behind.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lenore::wheel::{SocketFactory, SocketFactoryBuilder, WheelId};
use lenore::{Context, Error, Session};
use nix::errno::Errno;

use super::{Maker, failed, maker};
use util::addresses::leave_socket;
use util::in_process::{Log, kernel, run, run_until};
use util::{DEADLINE, Program, test_program, wait_until};

/// A listener at `path`, and a client of it that is bound to `local` if that says something. Returns what the two were
/// told of each other.
fn peers(path: &Path, local: &Path) -> Vec<String> {
    let mut kernel = kernel();
    let log = Log::default();
    let (path, local) = (path.to_owned(), local.to_owned());
    maker(&log, move |cx| {
        let listener = SocketFactory::unix(path.clone()).on_accept("accepted").on_error("failed").listen(cx)?;
        assert_eq!(listener.local_path()?, path);
        assert!(listener.local_addr().is_err());
        let mut client = SocketFactory::unix(path.clone()).on_connect("connected").on_error("failed");
        if local != Path::new("") {
            client = client.bind_address(local.clone());
        }
        let client = client.connect(cx)?;
        cx.heap().wheels.extend([listener, client]);
        Ok(())
    })
    .state("accepted", |cx| told(cx, "accepted"))
    .state("connected", |cx| told(cx, "connected"))
    .spawn(&mut kernel)
    .unwrap();
    run(&mut kernel);
    let mut told = log.take();
    told.sort_unstable();
    told
}

fn told(cx: &mut Context<'_, Maker>, how: &str) -> lenore::Result {
    assert_eq!(cx.args().len(), 4);
    let socket: UnixStream = cx.take(0)?;
    cx.arg::<()>(2)?;
    cx.arg::<WheelId>(3)?;
    assert_eq!(std::io::Read::read(&mut &socket, &mut [0]).map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
    let peer = cx.take::<PathBuf>(1)?;
    let heap = cx.heap();
    heap.log.push(format!("{how} {}", peer.display().to_string().replace('\0', "@")));
    // Not dropped at once, lest the other end sees it.
    std::mem::forget(socket);
    if heap.log.len() == 2 {
        heap.wheels.clear();
    }
    Ok(())
}

#[test] // K-SF-09, K-SF-02, K-SF-21, K-SF-22
fn the_peer_of_a_unix_socket_is_its_path_or_empty() {
    let dir = tempfile::tempdir().unwrap();
    let [server, client] = ["server", "client"].map(|name| dir.path().join(name));
    let connected = format!("connected {}", server.display());
    assert_eq!(peers(&server, Path::new("")), ["_stop", "accepted ", &connected]);
    fs::remove_file(&server).unwrap();
    assert_eq!(peers(&server, &client), ["_stop", &format!("accepted {}", client.display()), &connected]);
}

#[cfg(target_os = "linux")]
#[test] // K-SF-09, for names that are no files
fn abstract_names_begin_with_a_zero_octet() {
    let name = format!("lenore-test-{}", std::process::id());
    let told = peers(Path::new(&format!("\0{name}")), Path::new(&format!("\0{name}-client")));
    assert_eq!(told, ["_stop", &format!("accepted @{name}-client"), &format!("connected @{name}")]);
}

#[test] // K-SF-20: found inside the constructor, posted, and delivered though the wheel has gone
fn a_unix_socket_that_can_not_connect_says_so_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let stale = dir.path().join("stale");
    leave_socket(&stale);
    let missing = dir.path().join("missing");
    let mut kernel = kernel();
    let log = Log::default();
    maker(&log, move |cx| {
        for path in [&stale, &missing] {
            let _ = SocketFactory::unix(path.as_path()).on_connect("connected").on_error("failed").connect(cx)?;
        }
        cx.heap().log.push("_start");
        Ok(())
    })
    .spawn(&mut kernel)
    .unwrap();
    run(&mut kernel);
    let expected = [failed("connect", Errno::ECONNREFUSED), failed("connect", Errno::ENOENT)];
    assert_eq!(log.take(), ["_start", &expected[0], &expected[1], "_stop"]);
}

/// A session with a paused listener at `path`, whose queue is full after four clients, and a client more than that.
fn crowded(log: &Log, path: &Path, timeout: Option<Duration>) -> Session<Maker> {
    let path = path.to_owned();
    maker(log, move |cx| {
        let listener = SocketFactory::unix(&path).on_accept("accepted").listen_queue(3).listen(cx)?;
        listener.pause_accept();
        cx.heap().wheels.push(listener);
        for _ in 0..5 {
            let client = SocketFactory::unix(&path).on_connect("connected").on_error("failed");
            let client = timeout.into_iter().fold(client, SocketFactoryBuilder::connect_timeout).connect(cx)?;
            cx.heap().wheels.push(client);
        }
        Ok(cx.alias_set("maker")?)
    })
    .state("connected", |cx| {
        assert_eq!(cx.take::<UnixStream>(0)?.peer_addr()?.as_pathname(), Some(&*cx.take::<PathBuf>(1)?));
        cx.heap().log.push("connected");
        Ok(())
    })
    .state("resume", |cx| cx.heap().wheels[0].resume_accept())
    .state("accepted", |cx| cx.heap().log.push("accepted"))
    .state("end", |cx| {
        cx.heap().wheels.clear();
        Ok(cx.alias_remove("maker")?)
    })
}

#[test] // K-SF-27, K-SF-01: ListenQueue. As with a connect that blocks
fn a_unix_client_waits_for_room_in_the_queue() {
    for timeout in [None, Some(Duration::from_secs(3600))] {
        let dir = tempfile::tempdir().unwrap();
        let mut kernel = kernel();
        let log = Log::default();
        crowded(&log, &dir.path().join("socket"), timeout).spawn(&mut kernel).unwrap();
        // Each slice waits until something is due: a wheel that spins takes thousands in that time.
        let (begun, mut slices) = (Instant::now(), 0);
        run_until(&mut kernel, || {
            slices += 1;
            log.count("connected") == 4 && begun.elapsed() > Duration::from_millis(300)
        });
        assert!(slices < 60, "{slices} slices");
        let text = format!("{:#}", kernel.peek());
        assert!(text.contains("connecting to ") && text.contains("whose queue is full"), "{text}");
        assert_eq!(log.take(), ["connected"; 4]);
        kernel.call("maker", "resume", ()).unwrap();
        run_until(&mut kernel, || log.count("connected") == 1 && log.count("accepted") == 5);
        kernel.call("maker", "end", ()).unwrap();
        run(&mut kernel);
        assert!(log.text().ends_with(" _stop"));
    }
}

#[test] // K-SF-27
fn a_unix_client_gives_up_when_its_time_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut kernel = kernel();
    let log = Log::default();
    crowded(&log, &dir.path().join("socket"), Some(Duration::from_millis(50))).spawn(&mut kernel).unwrap();
    let expected = failed("connect", Errno::ETIMEDOUT);
    run_until(&mut kernel, || log.count(&expected) == 1);
    assert_eq!(log.count("connected"), 4);
    kernel.call("maker", "end", ()).unwrap();
    run(&mut kernel);
    assert_eq!(log.len(), 6, "{}", log.text());
}

#[test] // K-SF-27, K-WH-05
fn a_unix_client_that_waits_ends_with_its_wheel() {
    let dir = tempfile::tempdir().unwrap();
    let mut kernel = kernel();
    let log = Log::default();
    crowded(&log, &dir.path().join("socket"), None).spawn(&mut kernel).unwrap();
    run_until(&mut kernel, || log.count("connected") == 4);
    kernel.call("maker", "end", ()).unwrap();
    run(&mut kernel);
    assert_eq!((kernel.next_event_time(), log.len()), (None, 5), "{}", log.text());
}

#[test] // K-SF-27: a path where nobody listens any more is no full queue
fn a_unix_client_does_not_wait_where_nobody_listens() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    leave_socket(&path);
    for (path, errno) in [(path, Errno::ECONNREFUSED), (dir.path().join("other"), Errno::ENOENT)] {
        let mut kernel = kernel();
        let log = Log::default();
        maker(&log, move |cx| {
            let wheel = SocketFactory::unix(&path).on_connect("connected").on_error("failed").connect(cx)?;
            cx.heap().wheels.push(wheel);
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
        run(&mut kernel);
        assert_eq!(log.text(), failed("connect", errno) + " _stop");
    }
}

/// Lets a session listen or bind at `path`, `made` does; logs the error, or what is there while the wheel lives.
fn bind_once(path: &Path, make: impl Fn(&mut Context<'_, Maker>) -> Result<SocketFactory, Error> + 'static) -> String {
    let mut kernel = kernel();
    let log = Log::default();
    let path = path.to_owned();
    maker(&log, move |cx| {
        let entry = match make(cx) {
            Ok(wheel) => {
                cx.heap().wheels.push(wheel);
                if path.exists() { "bound".to_owned() } else { "nowhere".to_owned() }
            }
            Err(Error::Os { call, source, .. }) => format!("{call}:{}", source.raw_os_error().unwrap_or(0)),
            Err(error) => error.to_string(),
        };
        cx.heap().log.push(entry);
        cx.yield_("drop", ());
        Ok(())
    })
    .state("drop", |cx| cx.heap().wheels.clear())
    .state("made", |_| ())
    .spawn(&mut kernel)
    .unwrap();
    run(&mut kernel);
    log.take().swap_remove(0)
}

#[test] // K-SF-25: neither at bind nor at destruction; an existing path is in use
fn the_path_of_a_listener_stays_and_can_not_be_bound_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listen = {
        let path = path.clone();
        move |cx: &mut Context<'_, Maker>| SocketFactory::unix(path.clone()).on_accept("made").listen(cx)
    };
    assert_eq!(bind_once(&path, listen.clone()), "bound");
    assert!(path.exists());
    assert_eq!(bind_once(&path, listen), failed("bind", Errno::EADDRINUSE));
    assert!(path.exists());
    let refused = UnixStream::connect(&path).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "the socket itself is closed");
}

/// A listener or a datagram socket whose path comes and goes with it.
fn unlinking(path: &Path, is_stream: bool) -> impl Fn(&mut Context<'_, Maker>) -> Result<SocketFactory, Error> + use<> {
    let path = path.to_owned();
    move |cx| match is_stream {
        true => SocketFactory::unix(path.clone()).unlink_path().on_accept("made").listen(cx),
        false => SocketFactory::unix_datagram(path.clone()).unlink_path().on_bind("made").bind(cx),
    }
}

#[test]
fn a_path_that_goes_with_the_wheel_is_removed_when_it_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    for is_stream in [true, false] {
        assert_eq!(bind_once(&path, unlinking(&path, is_stream)), "bound");
        assert!(!path.exists());
    }
}

#[test]
fn a_stale_path_is_removed_before_binding_and_a_living_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    for is_stream in [true, false] {
        leave_socket(&path);
        assert_eq!(bind_once(&path, unlinking(&path, is_stream)), "bound");
        drop(UnixDatagram::bind(&path).unwrap());
        // What another test has just forked may have it still.
        let is_refused = || UnixDatagram::unbound().and_then(|peer| peer.connect(&path)).is_err().then_some(());
        wait_until("nobody to have the socket", DEADLINE, is_refused);
        assert_eq!(bind_once(&path, unlinking(&path, is_stream)), "bound");
        let in_use = failed("bind", Errno::EADDRINUSE);
        {
            let _living = UnixListener::bind(&path).unwrap();
            assert_eq!(bind_once(&path, unlinking(&path, is_stream)), in_use);
        }
        fs::remove_file(&path).unwrap();
        {
            let _living = UnixDatagram::bind(&path).unwrap();
            assert_eq!(bind_once(&path, unlinking(&path, is_stream)), in_use);
        }
        fs::remove_file(&path).unwrap();
        fs::write(&path, "no socket").unwrap();
        assert_eq!(bind_once(&path, unlinking(&path, is_stream)), in_use);
        assert_eq!(fs::read_to_string(&path).unwrap(), "no socket");
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_path_that_somebody_has_replaced_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listen = unlinking(&path, true);
    let replaced = path.clone();
    let made = bind_once(&path, move |cx| {
        let wheel = listen(cx)?;
        // Beside the old one, which must not be free for the new one to take its number.
        fs::rename(&replaced, replaced.with_extension("old")).unwrap();
        fs::write(&replaced, "another's").unwrap();
        Ok(wheel)
    });
    assert_eq!(made, "bound");
    assert_eq!(fs::read_to_string(&path).unwrap(), "another's");
}

#[test] // the path belongs to the process that bound it
fn a_forked_child_that_drops_its_copy_leaves_the_path() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let program = Program::new(test_program("shared_listeners")).arg("path").arg(&path).start();
    assert_eq!(program.next_line(DEADLINE), "child: dropped, the path is there");
    assert_eq!(program.next_line(DEADLINE), "parent: after the child, the path is there");
    assert_eq!(program.next_line(DEADLINE), "parent: dropped, the path is gone");
    assert!(!path.exists());
}

//! `SocketFactory`: section 15 of the behaviour specification.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;

use lenore::wheel::{Failure, SocketFactory, WheelId};
use lenore::{Context, Kernel, Result, Session};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, socket};

use util::in_process::Log;

mod connecting;
mod datagram;
mod failures;
mod listening;
mod paths;
mod settings;

/// A session that listens on a free port, and what it knows.
#[derive(Default)]
struct Server {
    log: Log,
    listener: Option<SocketFactory>,
    sockets: Vec<TcpStream>,
}

/// A server that keeps what it accepts.
fn server(log: &Log) -> Session<Server> {
    Session::new(Server { log: log.clone(), ..Server::default() })
        .state("_start", |cx| {
            let listener = SocketFactory::tcp("127.0.0.1:0").on_accept("accept").on_error("failed").listen(cx)?;
            let port = listener.local_addr()?.port();
            cx.heap().listener = Some(listener);
            cx.alias_set("server")?;
            cx.post("server", "port", (port,))?;
            Ok(())
        })
        .state("port", |_| ())
        .state("local_port", |cx| {
            let listener = cx.heap().listener.as_ref().expect("it listens");
            Ok(i32::from(listener.local_addr()?.port()))
        })
        .state("accept", accept)
        .state("pause", |cx| cx.heap().listener.as_ref().expect("it listens").pause_accept())
        .state("resume", |cx| cx.heap().listener.as_ref().expect("it listens").resume_accept())
        .state("pass", |cx| cx.heap().log.push("pass"))
        .state("end", |cx| {
            cx.heap().listener = None;
            cx.alias_remove("server").map_err(lenore::Exception::from)
        })
}

fn accept(cx: &mut Context<'_, Server>) -> Result {
    let socket = cx.take::<TcpStream>(0)?;
    cx.heap().sockets.push(socket);
    cx.heap().log.push("accept");
    Ok(())
}

/// The address at which the server of this kernel listens.
fn address(kernel: &mut Kernel) -> (IpAddr, u16) {
    let port = kernel.call("server", "local_port", ()).unwrap().take::<i32>().unwrap();
    (IpAddr::from([127, 0, 0, 1]), u16::try_from(port).unwrap())
}

/// A session that does nothing but what `start` says, and keeps what that makes.
struct Maker {
    log: Log,
    wheels: Vec<SocketFactory>,
}

/// A session that begins with `start`, logs failures as `operation:errno`, and its end.
fn maker(log: &Log, start: impl Fn(&mut Context<'_, Maker>) -> Result + 'static) -> Session<Maker> {
    Session::new(Maker { log: log.clone(), wheels: Vec::new() })
        .state("_start", start)
        .state("failed", |cx| {
            assert_eq!(cx.args().len(), 1);
            let Failure { operation, errno, text, wheel, .. } = cx.take(0)?;
            assert!(!text.is_empty() && wheel.is_some());
            cx.heap().log.push(format!("{operation}:{errno}"));
            Ok(())
        })
        .state("_stop", |cx| cx.heap().log.push("_stop"))
}

/// An address that refuses connections, as long as what comes with it is kept: it is bound, and nobody listens.
fn refusing_address() -> (SocketAddr, impl Sized) {
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
    // Not that it listens, but it can be asked.
    let bound = std::net::TcpListener::from(fd);
    (bound.local_addr().unwrap(), bound)
}

/// How a failure is logged.
fn failed(operation: &str, errno: Errno) -> String {
    format!("{operation}:{}", errno as i32)
}

/// A session that connects to `address`, logs what comes of it, and has nothing else to live for.
fn client(log: &Log, address: String) -> Session<(Log, Option<SocketFactory>)> {
    Session::new((log.clone(), None))
        .state("_start", move |cx| {
            let wheel = SocketFactory::tcp(&*address).on_connect("connected").on_error("failed").connect(cx)?;
            cx.heap().1 = Some(wheel);
            Ok(())
        })
        .state("connected", |cx| {
            let socket = cx.take::<TcpStream>(0)?;
            let peer = socket.peer_addr()?;
            assert_eq!((*cx.arg::<IpAddr>(1)?, *cx.arg::<u16>(2)?), (peer.ip(), peer.port()));
            let wheel = cx.heap().1.as_ref().expect("it is kept");
            assert!(wheel.local_addr().is_err(), "the wheel is inert");
            let id = wheel.id();
            assert_eq!(*cx.arg::<WheelId>(3)?, id);
            cx.heap().0.push("connected");
            Ok(())
        })
        .state("failed", |cx| {
            assert_eq!(cx.args().len(), 1);
            let Failure { operation, errno, text, wheel, .. } = cx.take(0)?;
            assert!(wheel.is_some());
            cx.heap().0.push(format!("{operation}:{errno}:{}", text.is_empty()));
            Ok(())
        })
        .state("_stop", |cx| cx.heap().0.push("_stop"))
}

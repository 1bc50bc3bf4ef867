//! A server that has no descriptor left when its first client comes, and finds some a little later.
//!
//! ```text
//! short_of_descriptors [listen_accept|one_left|silent]
//! listening on 127.0.0.1:40123
//! socket failed: 24
//! accept failed: 24
//! accept failed: 24
//! accept failed: 24
//! it has rested in between
//! accepted
//! ```
//!
//! With `one_left` the first client gets the last descriptor. With `silent` a `ListenAccept` has no error event, and descriptors are
//! found at USR1.

use std::env;
use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use lenore::wheel::{Failure, ListenAccept, SocketFactory};
use lenore::{Context, Kernel, Result, Session};

/// What the program knows: the ballast is what takes up the descriptors.
#[derive(Default)]
struct Server {
    wheel: Option<Wheel>,
    ballast: Vec<File>,
    clients: Vec<TcpStream>,
    failures: Vec<Instant>,
}

#[expect(dead_code, reason = "they are kept, and no more")]
enum Wheel {
    Factory(SocketFactory),
    ListenAccept(ListenAccept),
}

/// How long at least the listener must have rested between three failures: it does for a tenth of a second each time.
const RESTS: Duration = Duration::from_millis(150);

fn main() -> std::result::Result<(), lenore::Error> {
    util::daemon_program::log_to_stderr();
    let mut kernel = Kernel::new()?;
    Session::new(Server::default())
        .state("_start", start)
        .state("accept", |cx| {
            let client = cx.take(0)?;
            cx.heap().clients.push(client);
            println!("accepted");
            Ok(())
        })
        .state("find", |cx| {
            cx.sig_handled();
            cx.heap().ballast.clear();
        })
        .state("not_connected", |cx| {
            let Failure { operation, errno, .. } = cx.take(0)?;
            println!("{operation} failed: {errno}");
            Ok(())
        })
        .state("failed", |cx| {
            let Failure { operation, errno, .. } = cx.take(0)?;
            println!("{operation} failed: {errno}");
            let server = cx.heap();
            server.failures.push(Instant::now());
            if server.failures.len() == 3 {
                if server.failures[2] - server.failures[0] >= RESTS {
                    println!("it has rested in between");
                }
                server.ballast.clear();
            }
            Ok(())
        })
        .spawn(&mut kernel)?;
    kernel.run()
}

fn start(cx: &mut Context<'_, Server>) -> Result {
    let what = env::args().nth(1);
    let (wheel, address) = if let Some("listen_accept" | "silent") = what.as_deref() {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let mut wheel = ListenAccept::listener(listener).on_accept("accept");
        if what.as_deref() == Some("silent") {
            cx.sig("USR1", "find");
        } else {
            wheel = wheel.on_error("failed");
        }
        (Wheel::ListenAccept(wheel.start(cx)?), address)
    } else {
        let wheel = SocketFactory::tcp("127.0.0.1:0").on_accept("accept").on_error("failed").listen(cx)?;
        let address = wheel.local_addr()?;
        (Wheel::Factory(wheel), address)
    };
    let server = cx.heap();
    server.wheel = Some(wheel);
    while let Ok(file) = File::open("/dev/null") {
        server.ballast.push(file);
    }
    println!("listening on {address}");
    let _ = SocketFactory::tcp(address).on_connect("connected").on_error("not_connected").connect(cx)?;
    if what.as_deref() == Some("one_left") {
        cx.heap().ballast.pop();
    }
    Ok(())
}

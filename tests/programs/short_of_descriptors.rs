//! A server that has no descriptor left when its first client comes, and finds some a little later.
//!
//! ```text
//! short_of_descriptors
//! listening on 127.0.0.1:40123
//! accept failed: 24
//! accepted
//! ```

use std::fs::File;
use std::net::TcpStream;

use lenore::wheel::SocketFactory;
use lenore::{Kernel, Session};

/// What the program knows: the ballast is what takes up the descriptors.
#[derive(Default)]
struct Server {
    listener: Option<SocketFactory>,
    ballast: Vec<File>,
    clients: Vec<TcpStream>,
}

fn main() -> Result<(), lenore::Error> {
    let mut kernel = Kernel::new()?;
    Session::new(Server::default())
        .state("_start", |cx| {
            let listener = SocketFactory::tcp("127.0.0.1:0").on_accept("accept").on_error("failed").listen(cx)?;
            while let Ok(file) = File::open("/dev/null") {
                cx.heap().ballast.push(file);
            }
            println!("listening on {}", listener.local_addr()?);
            cx.heap().listener = Some(listener);
            Ok(())
        })
        .state("accept", |cx| {
            let client = cx.take(0)?;
            cx.heap().clients.push(client);
            println!("accepted");
            Ok(())
        })
        .state("failed", |cx| {
            println!("{} failed: {}", cx.arg::<&str>(0)?, cx.arg::<i32>(1)?);
            cx.heap().ballast.clear();
            Ok(())
        })
        .spawn(&mut kernel)?;
    kernel.run()
}

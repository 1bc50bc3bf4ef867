//! A `component::Server` over TLS, for `tests/tls/processes.rs`: `--config FILE`, whose two lines are the paths of the certificate and
//! the key, and `--processes MODE`. `--http`: it answers requests in place of lines. `--proxy`: connections begin with a header of the
//! PROXY protocol.
//!
//! Each line is answered with `PID resumed|full LINE`.

use std::error::Error;

use lenore::component::{Listen, Processes, Protocol, Server};
use lenore::filter::Line;
use lenore::filter::http::{Httpd, Incoming, Outgoing, Response};
use lenore::{Daemon, Kernel, tls};
use util::daemon_program::{Flags, log_to_stderr};

fn load(bytes: &[u8]) -> Result<tls::Server, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let (cert, key) = text.trim().split_once('\n').ok_or("there are no two lines")?;
    tls::Server::pem(cert, key).alpn(["http/1.1", "lines"]).build().map_err(|error| error.to_string())
}

fn main() -> Result<(), Box<dyn Error>> {
    log_to_stderr();
    let flags = Flags::read();
    let config = flags.text("--config").expect("there is a configuration");
    let processes: Processes = flags.text("--processes").expect("there is a mode").parse()?;
    let listen = Listen::tcp("127.0.0.1:0").tls(load(&std::fs::read(config)?)?);
    let listen = if flags.has("--proxy") { listen.proxy_protocol() } else { listen };
    let server = if flags.has("--http") { Server::on(listen, http()) } else { Server::on(listen, lines()) };
    let mut kernel = Kernel::new()?;
    let serving = server
        .processes(processes)
        .daemon(Daemon::builder().requests(0).config(config, load))
        .tls_of(|config: &tls::Server| config.clone())
        .spawn(&mut kernel)?;
    println!("listening on {}", serving.local_addr());
    Ok(kernel.run()?)
}

fn lines() -> Protocol<Line> {
    Protocol::new(Line::new()).on_input(|cx, line: String| {
        let how = if cx.heap().tls().is_some_and(|tls| tls.is_resumed) { "resumed" } else { "full" };
        cx.heap().put(format!("{} {how} {line}", std::process::id()));
    })
}

fn http() -> Protocol<Httpd> {
    Protocol::new(Httpd::new()).on_input(|cx, request| {
        if let Incoming::Request(_) = request {
            let version = cx.heap().tls().map(|tls| tls.version.to_string()).unwrap_or_default();
            cx.heap().put(Outgoing::Response(Response::new(200).body(format!("over {version}\n"))));
        }
    })
}

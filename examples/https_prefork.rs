//! An HTTPS service with a pool of children: clients resume their sessions with any child, and HUP loads new certificates.
//!
//! ```text
//! openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=localhost \
//!     -addext subjectAltName=DNS:localhost -keyout /tmp/key.pem -out /tmp/cert.pem
//! printf '/tmp/cert.pem\n/tmp/key.pem\n' > /tmp/tls.conf
//! cargo run --release --features logging,service,tls --example https_prefork -- /tmp/tls.conf 127.0.0.1:8443 prefork:4
//! curl --cacert /tmp/cert.pem https://localhost:8443/     # child 4711: TLS 1.3, TLS13_AES_256_GCM_SHA384, a new session
//! kill -HUP PID                                           # after the files have changed; PID as printed
//! ```
//!
//! The first argument is a file with two lines, the paths of the certificate and of its key. Ctrl-C ends the service.

use std::error::Error;
use std::{env, fs, process};

use lenore::component::http::Service;
use lenore::component::{Listen, Server};
use lenore::{Daemon, Kernel, tls};

/// Reads the certificate and the key that the configuration names. A reload that fails here leaves everything as it was.
fn load(config: &[u8]) -> Result<tls::Server, String> {
    let text = std::str::from_utf8(config).map_err(|error| error.to_string())?;
    let (cert, key) = text.trim().split_once('\n').ok_or("the configuration needs two lines, with two paths")?;
    tls::Server::pem(cert, key).alpn(["http/1.1"]).build().map_err(|error| error.to_string())
}

fn main() -> Result<(), Box<dyn Error>> {
    let _ = lenore::logging::Logger::new().install();
    let args: Vec<String> = env::args().skip(1).collect();
    let config = args.first().ok_or("the first argument is the configuration")?;
    let address = args.get(1).map_or("127.0.0.1:8443", String::as_str);
    let processes = args.get(2).map_or("prefork:4", String::as_str).parse()?;
    let service = Service::new().get("/", |cx, _| {
        let Some(tls) = cx.heap().tls() else { return String::from("no TLS\n") };
        let session = if tls.is_resumed { "a resumed session" } else { "a new session" };
        format!("child {}: {}, {}, {session}\n", process::id(), tls.version, tls.cipher_suite)
    });
    let mut kernel = Kernel::new()?;
    // Before the fork: all children have the same certificate, and the same keys of tickets.
    let serving = Server::on(Listen::tcp(address).tls(load(&fs::read(config)?)?), service)
        .processes(processes)
        .daemon(Daemon::builder().config(config, load))
        .tls_of(|config: &tls::Server| config.clone())
        .spawn(&mut kernel)?;
    println!("listening on {}, pid {}", serving.local_addr(), process::id());
    Ok(kernel.run()?)
}

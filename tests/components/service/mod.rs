//! `http::Service`: a kernel in the test, and clients that never block beside it.

use std::net::SocketAddr;

use lenore::Kernel;
use lenore::component::http::{Conversation, Service};
use lenore::component::{Protocol, TcpServer};
use lenore::filter::http::Httpd;

use util::component::{Peer, serve};
use util::in_process::kernel;

mod answers;
mod files;
mod limits;
mod log;
mod processes;
mod routes;
mod tokens;

/// A service in a kernel.
pub struct Host {
    pub kernel: Kernel,
    pub address: SocketAddr,
}

impl Host {
    pub fn new<R: 'static>(service: Service<R>) -> Host {
        Host::of(service.protocol())
    }

    pub fn of<R: 'static>(protocol: Protocol<Httpd, Conversation<R>>) -> Host {
        let mut kernel = kernel();
        let address = serve(&mut kernel, TcpServer::new("127.0.0.1:0", protocol));
        Host { kernel, address }
    }

    /// Sends a request as it is, and returns all that comes until the connection ends.
    #[track_caller]
    pub fn send(&mut self, request: &str) -> String {
        let mut peer = Peer::connect(self.address);
        peer.send(request);
        let text = peer.run_to_end(&mut self.kernel);
        // The date is not what is tested.
        text.lines_with_ends().filter(|line| !line.starts_with("Date: ")).collect()
    }

    /// Asks once, with more header fields, each with its line end.
    #[track_caller]
    pub fn ask_with(&mut self, method: &str, path: &str, fields: &str, body: &str) -> Page {
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        Page::read(self.send(&format!(
            "{method} {path} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n{fields}{length}\r\n{body}"
        )))
    }

    #[track_caller]
    pub fn get(&mut self, path: &str) -> Page {
        self.ask_with("GET", path, "", "")
    }
}

trait Lines {
    fn lines_with_ends(&self) -> impl Iterator<Item = &str>;
}

impl Lines for String {
    fn lines_with_ends(&self) -> impl Iterator<Item = &str> {
        self.split_inclusive('\n')
    }
}

/// A response.
#[derive(Debug)]
pub struct Page {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Page {
    #[track_caller]
    pub fn read(text: String) -> Page {
        let Some((head, body)) = text.split_once("\r\n\r\n") else { panic!("no response: {text:?}") };
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
        Page { status, head: head.to_owned(), body: body.to_owned() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

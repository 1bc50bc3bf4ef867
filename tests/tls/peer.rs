//! A client that blocks, on nothing but rustls, in a thread beside the kernel under test.

use std::io::{Read, Write};
use std::sync::Arc;

use lenore::tls::rustls::{ClientConfig, ClientConnection, StreamOwned};

/// Begins TLS on a socket, with a server called `localhost`.
pub fn connect<S: Read + Write>(config: &Arc<ClientConfig>, socket: S) -> StreamOwned<ClientConnection, S> {
    connect_to(config, socket, "localhost")
}

pub fn connect_to<S: Read + Write>(
    config: &Arc<ClientConfig>,
    socket: S,
    name: &'static str,
) -> StreamOwned<ClientConnection, S> {
    let connection = ClientConnection::new(Arc::clone(config), name.try_into().unwrap()).unwrap();
    StreamOwned::new(connection, socket)
}

/// Gives the other end one byte at a time, and takes as little.
#[derive(Debug)]
pub struct Dripping<S>(pub S);

impl<S: Read> Read for Dripping<S> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = buffer.len().min(1);
        self.0.read(&mut buffer[..most])
    }
}

impl<S: Write> Write for Dripping<S> {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0.write(&octets[..octets.len().min(1)])
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

//! The client's settings.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::ClientConnection;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, Connection};

use super::files::{Authorities, Pair};
use super::{Error, Stream};

/// The TLS settings of a client: the authorities that it trusts, its certificate, and its protocols.
///
/// A client resumes the sessions that its process has had with a server of the same name.
///
/// ```
/// use lenore::tls;
///
/// // The authorities that Debian trusts. Other systems have them elsewhere.
/// let tls = tls::Client::trusting("/nonexistent/ca-certificates.crt").alpn(["http/1.1"]).build();
/// assert!(tls.unwrap_err().to_string().starts_with("no certificate in /nonexistent/ca-certificates.crt: "));
/// ```
///
/// POE: `Client_SSLify` of `POE::Component::SSLify`.
#[derive(Clone)]
pub struct Client(Arc<ClientConfig>);

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// Starts the settings of a client that trusts servers for which an authority in the PEM file `authorities`
    /// vouches.
    pub fn trusting(authorities: impl Into<PathBuf>) -> ClientBuilder {
        ClientBuilder { authorities: authorities.into(), pair: None, alpn: Vec::new() }
    }

    /// Makes the settings from a configuration of rustls.
    pub fn from_config(config: Arc<ClientConfig>) -> Client {
        Client(config)
    }

    /// Returns the configuration.
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0)
    }

    /// Begins TLS with the server `name` on a connected socket.
    ///
    /// `name` is the name of a host or an IP address. The server's certificate must be for it. The handshake happens
    /// when the stream is read and written.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`]; [`Error::Refused`] for a configuration that can't be used.
    pub fn connect(&self, socket: impl Into<OwnedFd>, name: &str) -> Result<Stream, Error> {
        let server = ServerName::try_from(name.to_owned()).map_err(|_| Error::InvalidName(name.to_owned()))?;
        let connection = ClientConnection::new(self.config(), server).map_err(Error::Refused)?;
        Ok(Stream::new(socket.into(), Connection::Client(connection), Some(name.to_owned())))
    }
}

/// Builds the settings of a [`Client`]; made by [`Client::trusting`].
#[derive(Debug, Clone)]
#[must_use = "does nothing until it is built"]
pub struct ClientBuilder {
    authorities: PathBuf,
    pair: Option<Pair>,
    alpn: Vec<Vec<u8>>,
}

impl ClientBuilder {
    /// Sets the certificate, and its private key, that the client shows to a server that asks for one; PEM files. Default: none.
    pub fn certificate(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> ClientBuilder {
        self.pair = Some(Pair { cert: cert.into(), key: key.into() });
        self
    }

    /// Sets the protocols that the client speaks (ALPN). Default: none, and the client names no protocol.
    pub fn alpn<P: Into<Vec<u8>>>(mut self, protocols: impl IntoIterator<Item = P>) -> ClientBuilder {
        self.alpn = protocols.into_iter().map(Into::into).collect();
        self
    }

    /// Reads the files and makes the settings.
    ///
    /// # Errors
    ///
    /// [`Error::File`], [`Error::Certificate`] and [`Error::Authorities`], with the paths.
    pub fn build(self) -> Result<Client, Error> {
        let provider = Arc::new(default_provider());
        let roots = Authorities::load(&self.authorities)?.roots;
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().map_err(Error::Refused)?;
        let builder = builder.with_root_certificates(roots);
        let mut config = match self.pair {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let loaded = pair.load(&provider)?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::unwrap_or_clone(loaded))))
            }
        };
        config.alpn_protocols = self.alpn;
        Ok(Client(Arc::new(config)))
    }
}

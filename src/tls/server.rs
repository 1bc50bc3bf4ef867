//! The server's settings.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ring::digest::{SHA256, digest};
use rustls::crypto::{CryptoProvider, ring::default_provider};
use rustls::server::{NoServerSessionStorage, ServerConnection, WebPkiClientVerifier};
use rustls::{Connection, ServerConfig};

use super::files::{Authorities, Pair};
use super::names::Certificates;
use super::tickets::{Secret, Tickets};
use super::{Error, Stream};

/// The TLS settings of a server: its certificates, its protocols, and the clients that it accepts.
///
/// Make them once, before the program forks. All processes then have the same certificates and the same ticket keys. So
/// a client that comes back can resume its session with any child, without a table that the children share. The
/// handshake is done in the process that has the connection.
///
/// Clones share their settings within a process. A [`reload`](Server::reload) changes the settings of connections that
/// begin later, in this process and in the processes that it forks later.
///
/// ```
/// use std::time::Duration;
/// use lenore::tls;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = std::path::Path::new("/nonexistent");
/// let tls = tls::Server::pem(dir.join("cert.pem"), dir.join("key.pem"))
///     .alpn(["http/1.1"])
///     .ticket_rotation(Duration::from_secs(3 * 3600))
///     .build();
/// assert_eq!(tls.unwrap_err().to_string(), "no certificate in /nonexistent/cert.pem: No such file or directory (os error 2)");
/// # Ok(())
/// # }
/// ```
///
/// POE: `SSLify_Options` of `POE::Component::SSLify`.
#[derive(Clone)]
pub struct Server(Arc<Shared>);

struct Shared {
    /// How the settings are read again. `None` for settings made by `from_config`.
    source: Option<ServerBuilder>,
    present: Mutex<Present>,
}

/// What connections begin with.
#[derive(Clone)]
struct Present {
    config: Arc<ServerConfig>,
    /// What its tickets are for. `None` for a configuration that the program has made, which has tickets of its own.
    purpose: Option<Vec<u8>>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("source", &self.0.source).finish_non_exhaustive()
    }
}

impl Server {
    /// Starts the settings of a server with a certificate and a private key from PEM files.
    ///
    /// `cert` has the server's certificate, and after it the certificates that vouch for it. `key` has the private key.
    pub fn pem(cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> ServerBuilder {
        ServerBuilder {
            pair: Pair { cert: cert.into(), key: key.into() },
            names: Vec::new(),
            alpn: Vec::new(),
            clients: Clients::Anonymous,
            rotation: TICKET_ROTATION,
            secret: None,
        }
    }

    /// Makes the settings from a configuration of rustls, which decides about everything, including tickets.
    ///
    /// If each child is to accept the tickets of the others, make the configuration's `ticketer` before the fork. It
    /// must not draw new keys at random, as the ticketer of rustls does. Each process has a `session_storage` of its
    /// own.
    pub fn from_config(config: Arc<ServerConfig>) -> Server {
        Server(Arc::new(Shared { source: None, present: Mutex::new(Present { config, purpose: None }) }))
    }

    /// Returns the present configuration.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.present().config
    }

    /// Replaces the configuration, in this process and in the processes that it forks from now on.
    ///
    /// Connections that have begun keep the old configuration.
    pub fn set_config(&self, config: Arc<ServerConfig>) {
        self.replace(Present { config, purpose: None });
    }

    fn present(&self) -> Present {
        self.0.present.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, present: Present) {
        *self.0.present.lock().unwrap_or_else(PoisonError::into_inner) = present;
    }

    /// Reads the files again, and replaces the configuration, as [`set_config`](Server::set_config) does.
    ///
    /// Tickets stay good, unless the authorities for clients have changed.
    ///
    /// # Errors
    ///
    /// The errors of [`build`](ServerBuilder::build). The old configuration then stays. [`Error::NotFromFiles`] for
    /// settings made by [`from_config`](Server::from_config).
    pub fn reload(&self) -> Result<(), Error> {
        let source = self.0.source.as_ref().ok_or(Error::NotFromFiles)?;
        self.replace(source.load()?);
        Ok(())
    }

    /// Takes over the configuration of another server, as [`set_config`](Server::set_config) does.
    ///
    /// Use it for settings that are part of a [configuration](crate::daemon::DaemonBuilder::config), which each reload
    /// loads anew.
    ///
    /// Tickets that were made before stay good if both servers were made from files, with the same authorities for
    /// clients, because this server keeps its own secret. A configuration that was set by
    /// [`set_config`](Server::set_config) is taken over as it is, with its own tickets.
    pub fn follow(&self, other: &Server) {
        let (own, theirs) = (self.0.source.as_ref(), other.0.source.as_ref());
        let mut present = other.present();
        if let (Some(secret), Some(source), Some(purpose)) =
            (own.and_then(|own| own.secret.as_ref()), theirs, &present.purpose)
        {
            let mut config = ServerConfig::clone(&present.config);
            config.ticketer = Arc::new(Tickets::new(secret, purpose.clone(), source.rotation));
            present.config = Arc::new(config);
        }
        self.replace(present);
    }

    /// Begins TLS on a connected socket that a client has opened.
    ///
    /// The handshake happens when the stream is read and written.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] for a configuration that can't be used.
    pub fn accept(&self, socket: impl Into<OwnedFd>) -> Result<Stream, Error> {
        let connection = ServerConnection::new(self.config()).map_err(Error::Refused)?;
        Ok(Stream::new(socket.into(), Connection::Server(connection), None))
    }
}

/// Builds the settings of a [`Server`]; made by [`Server::pem`].
#[derive(Clone)]
#[must_use = "does nothing until it is built"]
pub struct ServerBuilder {
    pair: Pair,
    names: Vec<(String, Pair)>,
    alpn: Vec<Vec<u8>>,
    clients: Clients,
    rotation: Duration,
    secret: Option<Secret>,
}

/// Which clients are welcome.
#[derive(Debug, Clone)]
enum Clients {
    /// Clients are not asked for a certificate.
    Anonymous,
    /// A client may show a certificate, which one of these authorities must vouch for.
    Asked(PathBuf),
    /// Each client must show such a certificate.
    Known(PathBuf),
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder").field("pair", &self.pair).field("names", &self.names).finish_non_exhaustive()
    }
}

impl ServerBuilder {
    /// Adds a certificate for clients that ask for the server by `name` (SNI).
    ///
    /// `name` is the name of a host, or `*.` and a domain for all names one label below that domain. Clients that ask
    /// for no such name get the certificate that was given first.
    pub fn certificate(
        mut self,
        name: impl Into<String>,
        cert: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> ServerBuilder {
        self.names.push((name.into(), Pair { cert: cert.into(), key: key.into() }));
        self
    }

    /// Sets the protocols that the server speaks (ALPN), such as `http/1.1`, the preferred one first.
    ///
    /// A client that names only other protocols is refused. Default: none, and no client is refused.
    pub fn alpn<P: Into<Vec<u8>>>(mut self, protocols: impl IntoIterator<Item = P>) -> ServerBuilder {
        self.alpn = protocols.into_iter().map(Into::into).collect();
        self
    }

    /// Requires a certificate from each client, for which one of the authorities in the PEM file `authorities` vouches.
    ///
    /// A client without such a certificate is refused. [`Agreed::peer_certificates`](super::Agreed::peer_certificates)
    /// has the certificate.
    pub fn require_client_certificates(mut self, authorities: impl Into<PathBuf>) -> ServerBuilder {
        self.clients = Clients::Known(authorities.into());
        self
    }

    /// Does what [`require_client_certificates`](ServerBuilder::require_client_certificates) does, but a client need
    /// not show a certificate.
    pub fn accept_client_certificates(mut self, authorities: impl Into<PathBuf>) -> ServerBuilder {
        self.clients = Clients::Asked(authorities.into());
        self
    }

    /// Sets how often the key of tickets changes, in whole seconds. Default: 6 h. Range: 1 min to 7 days.
    ///
    /// A ticket is good for at least this span, and for at most twice as long.
    ///
    /// All keys are derived from the clock and from a secret, which [`build`](ServerBuilder::build) makes or
    /// [`ticket_secret`](ServerBuilder::ticket_secret) sets. So all children
    /// change keys together. The secret stays in memory as long as the program runs. An attacker who can read
    /// the memory of one of its processes can read all tickets that the program has sent. With TLS 1.3 that does not
    /// reveal what a resumed connection has carried, because the connection agrees on a new key. With TLS 1.2 it does.
    pub fn ticket_rotation(mut self, span: Duration) -> ServerBuilder {
        self.rotation = span;
        self
    }

    /// Sets the secret from which the keys of tickets are derived: at least 32 bytes that can't be guessed.
    ///
    /// Set it if several hosts serve behind one address, or if clients should be able to resume sessions after the
    /// program was started again. Default: a random secret, which only this program knows.
    ///
    /// # Panics
    ///
    /// If there are fewer than 32 bytes.
    #[track_caller]
    pub fn ticket_secret(mut self, secret: &[u8]) -> ServerBuilder {
        assert!(secret.len() >= 32, "the secret of tickets has {} bytes, and less than 32", secret.len());
        self.secret = Some(Secret::of(secret));
        self
    }

    /// Reads the files and makes the settings.
    ///
    /// # Errors
    ///
    /// [`Error::File`] for a file that can't be read; [`Error::Certificate`] for a key that does not belong to the
    /// certificate; [`Error::Name`] and [`Error::InvalidName`] for a certificate that is not for its name;
    /// [`Error::Authorities`] for a file of authorities that can't be used; [`Error::InvalidSetting`] for a rotation
    /// out of its range. Errors about files name the paths.
    pub fn build(mut self) -> Result<Server, Error> {
        let range = Duration::from_secs(60)..=Duration::from_secs(7 * 24 * 3600);
        if !range.contains(&self.rotation) {
            let reason = "must be from a minute to 7 days";
            return Err(Error::InvalidSetting { setting: "ticket_rotation", reason });
        }
        // Reloads keep the secret.
        if self.secret.is_none() {
            self.secret = Some(Secret::random()?);
        }
        let present = Mutex::new(self.load()?);
        Ok(Server(Arc::new(Shared { source: Some(self), present })))
    }

    fn load(&self) -> Result<Present, Error> {
        let provider = Arc::new(default_provider());
        let certificates = Certificates::load(&self.pair, &self.names, &provider)?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().map_err(Error::Refused)?;
        // A resumed client is not verified again. So a ticket is good only for the authorities under which it was made.
        let (builder, purpose) = match &self.clients {
            Clients::Anonymous => (builder.with_no_client_auth(), Vec::new()),
            Clients::Asked(path) | Clients::Known(path) => {
                let Authorities { roots, octets } = Authorities::load(path)?;
                let is_optional = matches!(self.clients, Clients::Asked(_));
                let verifier = verifier(roots, is_optional, &provider)
                    .map_err(|reason| Error::Authorities { path: path.clone(), reason })?;
                let mut purpose = digest(&SHA256, &octets).as_ref().to_vec();
                purpose.push(u8::from(is_optional));
                (builder.with_client_cert_verifier(verifier), purpose)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(certificates));
        config.alpn_protocols.clone_from(&self.alpn);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        if let Some(secret) = &self.secret {
            config.ticketer = Arc::new(Tickets::new(secret, purpose.clone(), self.rotation));
        }
        Ok(Present { config: Arc::new(config), purpose: Some(purpose) })
    }
}

fn verifier(
    roots: rustls::RootCertStore,
    is_optional: bool,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, String> {
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = if is_optional { builder.allow_unauthenticated() } else { builder };
    builder.build().map_err(|error| error.to_string())
}

/// After how long the key of tickets changes, unless the program says something else.
const TICKET_ROTATION: Duration = Duration::from_secs(6 * 3600);

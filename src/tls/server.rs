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

/// What a server says of itself in a handshake: certificates, protocols, and which clients it wants.
///
/// It is made once, before processes are forked. All of them then have the same certificates, and the same keys of tickets: a client
/// that comes back resumes its session with any child, and without a table that the children would have to share. The handshake is
/// done in the process that has the connection.
///
/// Clones are handles of the same settings, in one process. A [`reload`](Server::reload) changes them for all connections that begin
/// after it in this process, and in those that it forks from then on.
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
    /// How the settings are read again. `None` for those that were given as a value.
    source: Option<ServerBuilder>,
    present: Mutex<Present>,
}

/// What connections begin with.
#[derive(Clone)]
struct Present {
    config: Arc<ServerConfig>,
    /// What its tickets are for. `None` for a configuration that was given, and has tickets of its own.
    purpose: Option<Vec<u8>>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("source", &self.0.source).finish_non_exhaustive()
    }
}

impl Server {
    /// Begins the settings of a server whose certificate is in the PEM file `cert`, with those that vouch for it after it, and whose
    /// private key is in the PEM file `key`.
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

    /// Makes the settings of a configuration of rustls, which decides about everything, tickets as well.
    ///
    /// For tickets that all children know, its `ticketer` must be made before the fork, and must not change its keys by chance: the
    /// one of rustls does. Its `session_storage` is each process's own.
    pub fn from_config(config: Arc<ServerConfig>) -> Server {
        Server(Arc::new(Shared { source: None, present: Mutex::new(Present { config, purpose: None }) }))
    }

    /// Returns the present configuration.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.present().config
    }

    /// Replaces the configuration, in this process and in those that it forks from now on. Connections that have begun keep theirs.
    pub fn set_config(&self, config: Arc<ServerConfig>) {
        self.replace(Present { config, purpose: None });
    }

    fn present(&self) -> Present {
        self.0.present.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, present: Present) {
        *self.0.present.lock().unwrap_or_else(PoisonError::into_inner) = present;
    }

    /// Reads the files again, and replaces the configuration, as [`set_config`](Server::set_config) does. Tickets stay good, unless
    /// the authorities for clients have changed.
    ///
    /// # Errors
    ///
    /// Whatever [`build`](ServerBuilder::build) returns, with the path. Then everything stays as it was.
    /// [`Error::NotFromFiles`] for settings that were given as a value.
    pub fn reload(&self) -> Result<(), Error> {
        let source = self.0.source.as_ref().ok_or(Error::NotFromFiles)?;
        self.replace(source.load()?);
        Ok(())
    }

    /// Takes over the configuration of another server, as [`set_config`](Server::set_config) does. Tickets that were made before stay
    /// good if both were made of files, with the same authorities for clients: this server keeps the secret that their keys are
    /// derived from. A configuration that was given by [`set_config`](Server::set_config) is taken over as it is, with its own tickets.
    ///
    /// For settings that a [configuration](crate::daemon::DaemonBuilder::config) has, which is loaded anew by each reload.
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

    /// Begins TLS on a connected socket that a client has opened. The handshake is done when the stream is read and written.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] for a configuration that can't be used.
    pub fn accept(&self, socket: impl Into<OwnedFd>) -> Result<Stream, Error> {
        let connection = ServerConnection::new(self.config()).map_err(Error::Refused)?;
        Ok(Stream::new(socket.into(), Connection::Server(connection), None))
    }
}

/// Settings of a [`Server`] to be; made by [`Server::pem`].
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
    /// One that shows a certificate needs one of these authorities.
    Asked(PathBuf),
    /// All need one.
    Known(PathBuf),
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder").field("pair", &self.pair).field("names", &self.names).finish_non_exhaustive()
    }
}

impl ServerBuilder {
    /// Adds a certificate for clients that ask for the server by `name` (SNI): the name of a host, or `*.` and a domain for all names
    /// one label below it. All others get the certificate that was given first.
    pub fn certificate(
        mut self,
        name: impl Into<String>,
        cert: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> ServerBuilder {
        self.names.push((name.into(), Pair { cert: cert.into(), key: key.into() }));
        self
    }

    /// Sets the protocols that the server speaks, the one that it likes best first (ALPN): `http/1.1`. A client that names protocols,
    /// and none of these, is refused. Default: none, and any client is welcome.
    pub fn alpn<P: Into<Vec<u8>>>(mut self, protocols: impl IntoIterator<Item = P>) -> ServerBuilder {
        self.alpn = protocols.into_iter().map(Into::into).collect();
        self
    }

    /// Wants a certificate of each client that one of the authorities in the PEM file `authorities` vouches for. A client without one
    /// is refused. [`Agreed::peer_certificates`](super::Agreed::peer_certificates) tells which it is.
    pub fn require_client_certificates(mut self, authorities: impl Into<PathBuf>) -> ServerBuilder {
        self.clients = Clients::Known(authorities.into());
        self
    }

    /// As [`require_client_certificates`](ServerBuilder::require_client_certificates), but a client need not show a certificate.
    pub fn accept_client_certificates(mut self, authorities: impl Into<PathBuf>) -> ServerBuilder {
        self.clients = Clients::Asked(authorities.into());
        self
    }

    /// Sets after how long the key of tickets changes. A ticket is good for as long at least, and for twice as long at most. Whole
    /// seconds, from a minute to 7 days. Default: 6 h.
    ///
    /// All keys are derived from a secret that is made by [`build`](ServerBuilder::build), and from the clock, so that all children
    /// change keys together. The secret stays in memory as long as the program runs: an attacker who can read the memory of one of
    /// its processes can read all tickets that it has sent. With TLS 1.3 that does not uncover what a resumed connection has carried, as
    /// it agrees on a key anew. With TLS 1.2 it does.
    pub fn ticket_rotation(mut self, span: Duration) -> ServerBuilder {
        self.rotation = span;
        self
    }

    /// Sets the secret that the keys of tickets are derived from: at least 32 bytes that can't be guessed. For several hosts behind
    /// one address, or for clients that are to resume after the program was started again. Default: made by chance, and known to
    /// this program alone.
    ///
    /// # Panics
    ///
    /// If there are less than 32 bytes.
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
    /// [`Error::File`] and [`Error::Certificate`] with the paths, for files that can't be read, and for a key that is not the
    /// certificate's; [`Error::Name`] and [`Error::InvalidName`] for a certificate that is not for its name; [`Error::Authorities`];
    /// [`Error::InvalidSetting`] for a rotation out of its range.
    pub fn build(mut self) -> Result<Server, Error> {
        let range = Duration::from_secs(60)..=Duration::from_secs(7 * 24 * 3600);
        if !range.contains(&self.rotation) {
            let reason = "must be from a minute to 7 days";
            return Err(Error::InvalidSetting { setting: "ticket_rotation", reason });
        }
        // Reloads keep it.
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
        // A resumed client is not verified again. So a ticket is good for the authorities alone that it was made under.
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

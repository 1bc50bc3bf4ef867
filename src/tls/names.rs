//! Which certificate a client gets.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{DnsName, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::Error;
use super::files::Pair;

/// The certificates of a server.
pub(super) struct Certificates {
    first: Arc<CertifiedKey>,
    /// By name in small letters; `*` stands for one label.
    by_name: HashMap<String, Arc<CertifiedKey>>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_name.keys()).finish()
    }
}

impl Certificates {
    pub(super) fn load(first: &Pair, names: &[(String, Pair)], provider: &CryptoProvider) -> Result<Self, Error> {
        let mut by_name = HashMap::new();
        let first = first.load(provider)?;
        for (name, pair) in names {
            let loaded = pair.load(provider)?;
            check(name, pair, &loaded)?;
            by_name.insert(name.to_ascii_lowercase(), loaded);
        }
        Ok(Certificates { first, by_name })
    }

    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        self.by_name.get(&name).or_else(|| {
            let (_, domain) = name.split_once('.')?;
            self.by_name.get(&format!("*.{domain}"))
        })
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| self.find(name));
        Some(Arc::clone(named.unwrap_or(&self.first)))
    }
}

/// Refuses a certificate whose clients would refuse it.
fn check(name: &str, pair: &Pair, loaded: &CertifiedKey) -> Result<(), Error> {
    // Any label can stand in place of the star.
    let example = name.strip_prefix("*.").map_or_else(|| name.to_owned(), |domain| format!("any.{domain}"));
    let invalid = |_| Error::InvalidName(name.to_owned());
    let example = ServerName::DnsName(DnsName::try_from(example).map_err(invalid)?);
    loaded
        .end_entity_cert()
        .and_then(ParsedCertificate::try_from)
        .and_then(|certificate| verify_server_name(&certificate, &example))
        .map_err(|source| Error::Name { name: name.to_owned(), path: pair.cert.clone(), source })
}

//! Certificates and keys out of PEM files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::Error;

/// Where a certificate and its key are.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
}

impl Pair {
    /// Reads both, and makes sure that they belong together.
    pub(super) fn load(&self, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, Error> {
        let chain = certificates(&self.cert)?;
        let wanted = "private key";
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|source| Error::File {
            path: self.key.clone(),
            wanted,
            source,
        })?;
        let pair = CertifiedKey::from_der(chain, key, provider).map_err(|source| Error::Certificate {
            path: self.cert.clone(),
            key: self.key.clone(),
            source,
        })?;
        Ok(Arc::new(pair))
    }
}

/// Reads all certificates of a file, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let failed = |source| Error::File { path: path.to_owned(), wanted: "certificate", source };
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .map_err(failed)?;
    if chain.is_empty() { Err(failed(pem::Error::NoItemsFound)) } else { Ok(chain) }
}

/// Certificates of authorities, and a text that changes when they do.
pub(super) struct Authorities {
    pub(super) roots: RootCertStore,
    pub(super) octets: Vec<u8>,
}

impl Authorities {
    pub(super) fn load(path: &Path) -> Result<Authorities, Error> {
        let (mut roots, mut octets) = (RootCertStore::empty(), Vec::new());
        for certificate in certificates(path)? {
            octets.extend_from_slice(&certificate);
            roots
                .add(certificate)
                .map_err(|error| Error::Authorities { path: path.to_owned(), reason: error.to_string() })?;
        }
        Ok(Authorities { roots, octets })
    }
}

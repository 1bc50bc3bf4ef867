//! Why a setting of TLS can't be used.

use std::error::Error as StdError;
use std::fmt;
use std::path::PathBuf;

use rustls::pki_types::pem;

/// Why a setting of TLS can't be used.
///
/// Its `Debug` form is the same text as its `Display` form, as with [`lenore::Error`](crate::Error).
#[non_exhaustive]
pub enum Error {
    /// A file can't be read, or has no PEM of the wanted kind.
    File {
        /// The file.
        path: PathBuf,
        /// What it should have.
        wanted: &'static str,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// The certificate and the key can't be used together, or one of them can't be used at all.
    Certificate {
        /// The file of the certificate.
        path: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// The certificate is not one for this name.
    Name {
        /// The name.
        name: String,
        /// The file of the certificate.
        path: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// The name is not that of a host.
    InvalidName(String),
    /// A file of certificates of authorities can't be used.
    Authorities {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A setting makes no sense.
    InvalidSetting {
        /// The name of the setting.
        setting: &'static str,
        /// What is wrong with its value.
        reason: &'static str,
    },
    /// The settings were not made from files, so they can't be read again.
    NotFromFiles,
    /// rustls has refused the settings.
    Refused(rustls::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::File { path, wanted, source } => write!(f, "no {wanted} in {}: {}", path.display(), text_of(source)),
            Error::Certificate { path, key, source } => {
                write!(f, "certificate {} with key {}: {source}", path.display(), key.display())
            }
            Error::Name { name, path, source } => write!(f, "certificate {} for {name}: {source}", path.display()),
            Error::InvalidName(name) => write!(f, "{name:?} is not the name of a host"),
            Error::Authorities { path, reason } => {
                write!(f, "certificates of authorities in {}: {reason}", path.display())
            }
            Error::InvalidSetting { setting, reason } => write!(f, "{setting}: {reason}"),
            Error::NotFromFiles => f.write_str("the settings of TLS were given as a value, and not as files"),
            Error::Refused(error) => write!(f, "the settings of TLS: {error}"),
        }
    }
}

/// Returns what the system says of a file, without a word about PEM.
fn text_of(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        error => error.to_string(),
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Error::File { source, .. } => Some(source),
            Error::Certificate { source, .. } | Error::Name { source, .. } | Error::Refused(source) => Some(source),
            _ => None,
        }
    }
}

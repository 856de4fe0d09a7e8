use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rustls::RootCertStore;

use super::{ChannelError, file};
use crate::svid::{InvalidSvid, read_certificates};

/// A platform's bundle has about 150 roots in 250 KiB.
const MAX_BYTES: u32 = 1024 * 1024;
/// Where distributions keep their bundle, in the order of how common they are.
const SYSTEM_BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Where the roots come from that the server is verified against.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RootSource {
    /// A PEM file, read again for each connection. When it cannot be read or is half-written, the
    /// last good state of it is used.
    File(PathBuf),
    /// PEM text.
    Pem(String),
    /// The platform's bundle, read again for each connection from where distributions keep it.
    System,
}

/// Reads roots and remembers the last that were good.
#[derive(Debug)]
pub(super) struct Roots {
    source: RootSource,
    last_good: Mutex<Option<Arc<RootCertStore>>>,
}

impl Roots {
    pub(super) const fn new(source: RootSource) -> Self {
        Self {
            source,
            last_good: Mutex::new(None),
        }
    }

    pub(super) async fn read(&self) -> Result<Arc<RootCertStore>, ChannelError> {
        let fresh = match &self.source {
            RootSource::File(path) => read_file(path).await,
            RootSource::Pem(text) => store(text.as_bytes(), true),
            RootSource::System => read_system().await,
        };
        match fresh {
            Ok(fresh) => {
                let fresh = Arc::new(fresh);
                *self.lock() = Some(Arc::clone(&fresh));
                Ok(fresh)
            }
            Err(error) => {
                let known = self.lock().clone().ok_or_else(|| error.clone())?;
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the roots cannot be read; the last good ones are used"
                );
                Ok(known)
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<RootCertStore>>> {
        self.last_good
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read_file(path: &Path) -> Result<RootCertStore, ChannelError> {
    let text = read_bytes(path).await?;
    store(&text, true)
}

async fn read_system() -> Result<RootCertStore, ChannelError> {
    let mut last = ChannelError::Roots {
        source: InvalidSvid::Empty,
    };
    for path in SYSTEM_BUNDLES {
        match read_bytes(Path::new(path)).await {
            // A platform's bundle may have a root that this library does not read.
            Ok(text) => return store(&text, false),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn read_bytes(path: &Path) -> Result<zeroize::Zeroizing<Vec<u8>>, ChannelError> {
    file::read(path, MAX_BYTES)
        .await
        .map_err(|source| ChannelError::RootFile {
            path: path.to_owned(),
            source: Arc::new(source),
        })
}

/// With `all`, one unreadable certificate spoils the whole: it is a file half-written.
fn store(text: &[u8], all: bool) -> Result<RootCertStore, ChannelError> {
    let invalid = |source| ChannelError::Roots { source };
    let certificates = read_certificates(text).map_err(invalid)?;
    let mut store = RootCertStore::empty();
    let (_, ignored) = store.add_parsable_certificates(certificates);
    if store.is_empty() || (all && ignored > 0) {
        return Err(invalid(InvalidSvid::NotAuthority));
    }
    Ok(store)
}

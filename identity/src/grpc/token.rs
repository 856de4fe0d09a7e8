use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::HeaderValue;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::{ChannelError, file};

/// Kubernetes' tokens are about 1 KiB.
const MAX_BYTES: u32 = 64 * 1024;
/// How long a token may be used after its file became unreadable.
const HELD: Duration = Duration::from_secs(60);

/// Where the bearer token comes from.
///
/// `Debug` never shows a token.
#[derive(Clone, Eq, PartialEq)]
#[non_exhaustive]
pub enum TokenSource {
    /// A file, read for each request, as Kubernetes replaces it before it expires. White space
    /// around the token is left out. When the file cannot be read, the last token is used for up
    /// to 60 s.
    File(PathBuf),
    /// No token is sent.
    None,
    /// This text.
    Static(String),
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::None => f.write_str("None"),
            Self::Static(_) => f.write_str("Static(..)"),
        }
    }
}

/// Makes the header of a request.
pub(super) struct Tokens {
    source: TokenSource,
    held: Mutex<Option<(Instant, HeaderValue)>>,
}

impl Tokens {
    pub(super) const fn new(source: TokenSource) -> Self {
        Self {
            source,
            held: Mutex::new(None),
        }
    }

    /// The value of the `authorization` header, marked as sensitive.
    pub(super) async fn header(&self) -> Result<Option<HeaderValue>, ChannelError> {
        let path = match &self.source {
            TokenSource::None => return Ok(None),
            TokenSource::Static(token) => return bearer(token.as_bytes()).map(Some),
            TokenSource::File(path) => path,
        };
        let fresh = match file::read(path, MAX_BYTES).await {
            Ok(text) => bearer(&text),
            Err(source) => Err(ChannelError::TokenFile {
                path: path.clone(),
                source: Arc::new(source),
            }),
        };
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match fresh {
            Ok(header) => {
                *held = Some((Instant::now(), header.clone()));
                Ok(Some(header))
            }
            Err(error) => match &*held {
                Some((since, header)) if since.elapsed() < HELD => Ok(Some(header.clone())),
                _ => {
                    *held = None;
                    Err(error)
                }
            },
        }
    }
}

fn bearer(token: &[u8]) -> Result<HeaderValue, ChannelError> {
    let token = token.trim_ascii();
    // RFC 6750 §2.1: a token is visible ASCII without spaces.
    if token.is_empty() || !token.iter().all(u8::is_ascii_graphic) {
        return Err(ChannelError::Token);
    }
    let mut text = Zeroizing::new(Vec::with_capacity(token.len().saturating_add(7)));
    text.extend_from_slice(b"Bearer ");
    text.extend_from_slice(token);
    let mut header = HeaderValue::from_bytes(&text).or(Err(ChannelError::Token))?;
    header.set_sensitive(true);
    Ok(header)
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tokens").field(&self.source).finish()
    }
}

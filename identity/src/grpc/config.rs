use std::{fmt, time::Duration};

use http::{HeaderMap, HeaderName, Uri};

use super::{RootSource, TokenSource};
use crate::tls::TlsEngine;

/// Settings of a [`Channel`](super::Channel).
///
/// `Debug` shows the names of headers and not their values, which may be keys.
#[derive(Clone)]
pub struct ChannelConfig {
    pub(super) uri: Uri,
    pub(super) roots: RootSource,
    pub(super) engine: TlsEngine,
    pub(super) token: TokenSource,
    pub(super) alternate_host: Option<String>,
    pub(super) headers: HeaderMap,
    pub(super) connect_deadline: Duration,
}

impl ChannelConfig {
    /// Dials `uri` (scheme https, a host name or address, port 443 if none is given) and verifies
    /// the server against `roots`.
    #[must_use]
    pub fn new(uri: Uri, roots: RootSource) -> Self {
        Self {
            uri,
            roots,
            engine: TlsEngine::aws_lc_rs(),
            token: TokenSource::None,
            alternate_host: None,
            headers: HeaderMap::new(),
            connect_deadline: Duration::from_secs(5),
        }
    }

    /// Sets the bearer token of each request. Default: none.
    #[must_use]
    pub fn token(mut self, token: TokenSource) -> Self {
        self.token = token;
        self
    }

    /// Accepts a server whose certificate has this name, if it does not have the URI's. Default:
    /// none.
    ///
    /// For a server that is reached by an address or alias its certificate does not have. Whoever
    /// holds a certificate with this name from these roots gets the token.
    #[must_use]
    pub fn alternate_host(mut self, name: impl Into<String>) -> Self {
        self.alternate_host = Some(name.into());
        self
    }

    /// Sets headers that every request carries in addition to its own. Default: none.
    #[must_use]
    pub fn headers(mut self, headers: HeaderMap) -> Self {
        self.headers = headers;
        self
    }

    /// Sets the time until name, TCP, TLS and HTTP/2 must be up. Default: 5 s.
    #[must_use]
    pub const fn connect_deadline(mut self, deadline: Duration) -> Self {
        self.connect_deadline = deadline;
        self
    }

    /// Sets cryptography and clock. Default: aws-lc-rs and the system's clock.
    #[must_use]
    pub fn engine(mut self, engine: TlsEngine) -> Self {
        self.engine = engine;
        self
    }
}

impl fmt::Debug for ChannelConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<_> = self.headers.keys().map(HeaderName::as_str).collect();
        f.debug_struct("ChannelConfig")
            .field("uri", &self.uri)
            .field("roots", &self.roots)
            .field("token", &self.token)
            .field("alternate_host", &self.alternate_host)
            .field("headers", &headers)
            .field("connect_deadline", &self.connect_deadline)
            .finish_non_exhaustive()
    }
}

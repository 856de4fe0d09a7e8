//! Values that may stand for a file: roots, tokens, headers.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};

/// Text that is never printed: its `Debug` form shows the length only.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(Arc<str>);

/// Certificates that a server's certificate must lead to.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Roots {
    /// A PEM file, read again for every connection.
    File(PathBuf),
    /// PEM given in the variable itself.
    Pem(Arc<str>),
    /// The machine's trust store.
    System,
}

/// What authenticates this process to a server.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Token {
    /// A file, read again for every request because the kubelet replaces it.
    File(PathBuf),
    /// Nothing: the server authenticates by other means.
    None,
    /// The token itself.
    Static(Secret),
}

/// One extra header of requests; the value is secret.
#[derive(Clone)]
#[non_exhaustive]
pub struct Header {
    /// Its name.
    pub name: HeaderName,
    /// Its value, marked sensitive.
    pub value: HeaderValue,
}

impl Secret {
    /// Wraps a text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Gives the text away: call it where the secret is used, nowhere else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Header")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

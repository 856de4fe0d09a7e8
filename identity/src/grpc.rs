//! An authenticated gRPC channel to a control plane or certificate authority.
#![allow(clippy::todo, unused_variables, reason = "signatures first")]

use std::{
    future::Future,
    path::PathBuf,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, Request, Response, Uri};
use tonic::body::Body;
use tower_service::Service;

/// Where the roots for verifying the server come from.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RootSource {
    /// A PEM file, read again for each connection.
    File(PathBuf),
    /// PEM text.
    Pem(String),
    /// The platform's store.
    System,
}

/// Where the bearer token comes from.
#[derive(Clone)]
#[non_exhaustive]
pub enum TokenSource {
    /// A file, read for each request.
    File(PathBuf),
    /// No token is sent.
    None,
    /// This text.
    Static(String),
}

impl std::fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenSource")
    }
}

/// Settings of a [`Channel`].
#[derive(Clone, Debug)]
pub struct ChannelConfig {}

impl ChannelConfig {
    /// Dials `uri` (https, host and port).
    pub fn new(uri: Uri, roots: RootSource) -> Self {
        todo!()
    }
    /// Default: none.
    #[must_use]
    pub fn token(self, token: TokenSource) -> Self {
        todo!()
    }
    /// A second name the server's certificate may have.
    #[must_use]
    pub fn alternate_host(self, name: impl Into<String>) -> Self {
        todo!()
    }
    /// Headers sent with every request.
    #[must_use]
    pub fn headers(self, headers: HeaderMap) -> Self {
        todo!()
    }
    /// Default: 5 s until TLS and HTTP/2 are up.
    #[must_use]
    pub fn connect_deadline(self, deadline: Duration) -> Self {
        todo!()
    }
}

/// An HTTP/2 channel that connects when needed. Cheap to clone; clones share the connection.
#[derive(Clone, Debug)]
pub struct Channel {}

impl Channel {
    /// Checks the settings; nothing is dialed yet.
    ///
    /// # Errors
    ///
    /// Returns what in the settings cannot work.
    pub fn new(config: ChannelConfig) -> Result<Self, ChannelError> {
        todo!()
    }
}

/// A request did not get an answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[error("the channel failed")]
pub struct ChannelError {}

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = ChannelError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, ChannelError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ChannelError>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, request: Request<Body>) -> Self::Future {
        todo!()
    }
}

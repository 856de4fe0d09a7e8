//! Rotation of many identities from one issuer.
#![allow(clippy::todo, unused_variables, reason = "signatures first")]

mod issuer;

use std::sync::Arc;

use crate::{
    Fault, SpiffeId,
    svid::Svid,
    tls::{Member, TlsEngine},
};

pub use issuer::{IssueError, IssueErrorKind, Issuer};

/// Settings of a [`Rotator`].
#[derive(Clone, Debug)]
pub struct RotatorConfig {}

impl RotatorConfig {
    /// Defaults over this engine.
    pub fn new(engine: TlsEngine) -> Self {
        todo!()
    }
}

/// What a rotator reports.
pub trait Events: Send + Sync + 'static {}

impl Events for () {}

/// Keeps the certificates of many identities fresh. Dropping it ends the work.
#[derive(Debug)]
pub struct Rotator {}

impl Rotator {
    /// Starts the task on the current runtime.
    pub fn start<I: Issuer>(issuer: I, config: RotatorConfig, events: Arc<dyn Events>) -> Self {
        todo!()
    }
    /// A handle for asking.
    pub fn identities(&self) -> Identities {
        todo!()
    }
}

/// Asks a [`Rotator`] for credentials. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Identities {}

impl Identities {
    /// Returns live credentials of `id`, waiting at most 10 s for the first certificate.
    ///
    /// # Errors
    ///
    /// Returns why there are none.
    pub async fn get(&self, id: &SpiffeId) -> Result<Member, Unavailable> {
        todo!()
    }
    /// Asks for a certificate ahead of need.
    ///
    /// # Errors
    ///
    /// Returns why the wish was not taken.
    pub fn prefetch(&self, id: &SpiffeId) -> Result<(), Unavailable> {
        todo!()
    }
    /// Stops keeping `id` fresh and drops its credentials.
    pub fn forget(&self, id: &SpiffeId) {
        todo!()
    }
    /// Every identity with its state, ordered by identity.
    pub fn statuses(&self) -> Vec<IdentityStatus> {
        todo!()
    }
}

/// No usable credentials.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
#[error("no certificate for {id}")]
pub struct Unavailable {
    id: SpiffeId,
}

impl Unavailable {
    /// Whether asking again can help.
    pub fn is_safe_to_retry(&self) -> bool {
        todo!()
    }
    /// Who has to act.
    pub fn fault(&self) -> Fault {
        todo!()
    }
}

/// One identity and its state.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct IdentityStatus {
    /// Whose.
    pub id: SpiffeId,
    /// The state.
    pub state: IdentityState,
}

/// State of one identity.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum IdentityState {
    /// There is a usable certificate.
    Available(Arc<Svid>),
    /// The first certificate is being fetched.
    Initializing,
    /// There is none; the text says why.
    Unavailable(Arc<str>),
}

//! The pool as a tower service.

use crate::{
    error::ConnectError,
    pool::{Dial, Pool, Target},
    tunnel::Tunnel,
};
use meshwright_identity::Member;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};
use tower_service::Service;

/// Opens tunnels to [`Target`]s as one member of the mesh: a tower service over a [`Pool`].
///
/// Always ready: room is found, or refused, per request.
pub struct Connector<D> {
    pool: Pool<D>,
    member: Member,
}

impl<D: Dial> Connector<D> {
    /// Makes a connector that opens tunnels as `member`.
    #[must_use]
    pub fn new(pool: Pool<D>, member: Member) -> Self {
        Self { pool, member }
    }
}

impl<D: Dial> Service<Target> for Connector<D> {
    type Response = Tunnel;
    type Error = ConnectError;
    type Future = Connecting;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Target) -> Self::Future {
        let Self { pool, member } = self.clone();
        Connecting {
            tunnel: Box::pin(async move { pool.tunnel(&member, target).await }),
        }
    }
}

impl<D> Clone for Connector<D> {
    fn clone(&self) -> Self {
        Self {
            pool: self.pool.clone(),
            member: self.member.clone(),
        }
    }
}

impl<D> fmt::Debug for Connector<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("pool", &self.pool)
            .field("member", &self.member)
            .finish()
    }
}

/// The future of a [`Connector`].
#[must_use = "futures do nothing unless polled"]
pub struct Connecting {
    tunnel: Pin<Box<dyn Future<Output = Result<Tunnel, ConnectError>> + Send>>,
}

impl Future for Connecting {
    type Output = Result<Tunnel, ConnectError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.tunnel.as_mut().poll(cx)
    }
}

impl fmt::Debug for Connecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connecting").finish_non_exhaustive()
    }
}

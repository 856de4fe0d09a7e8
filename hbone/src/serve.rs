//! A whole connection served by a tower service.

use crate::{
    error::ServeError,
    server::{ConnectRequest, ServerConnection},
};
use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};
use tokio::task::JoinSet;
use tower_service::Service;

/// Serves a connection until it ends: each request is a call of `service`.
///
/// The service answers the request and moves the tunnel's bytes; its future is done when the
/// tunnel is. Each call runs on a task of its own on this runtime; all of them end with this
/// future. A service that fails has refused the request.
///
/// # Errors
///
/// Returns [`ServeError`] when the connection failed; all its tunnels are reset then.
pub async fn serve<S>(mut connection: ServerConnection, service: S) -> Result<(), ServeError>
where
    S: Service<ConnectRequest> + Clone + Send + 'static,
    S::Future: Send,
{
    let mut calls = JoinSet::new();
    poll_fn(move |cx| {
        // Finished calls make room; their number is bounded by the connection's streams.
        while let Poll::Ready(Some(_done)) = calls.poll_join_next(cx) {}
        loop {
            match connection.poll_accept(cx) {
                Poll::Ready(Some(Ok(request))) => {
                    calls.spawn(call(service.clone(), request));
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

async fn call<S>(mut service: S, request: ConnectRequest)
where
    S: Service<ConnectRequest>,
{
    // Errors are not kept: they need not be `Send`.
    let ready = poll_fn(|cx| service.poll_ready(cx).map(|ready| ready.is_ok())).await;
    if ready {
        let called = service.call(request);
        let mut called = pin!(called);
        poll_fn(|cx| called.as_mut().poll(cx).map(|_answered| ())).await;
    }
}

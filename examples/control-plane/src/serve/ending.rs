//! Ends streams that have no end of their own, so that a shutdown need not wait for them.
//!
//! A discovery stream ends when the client ends its half. At shutdown it looks to the service as
//! if every client had done so: each gets a clean end and reconnects, to the next instance.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::Request;
use http_body::Frame;
use tokio::sync::watch;
use tonic::{Status, body::Body, server::NamedService};
use tower_service::Service;

use super::stopped;

/// Ends the request bodies of the inner service when `stop` turns true.
#[derive(Clone, Debug)]
pub(super) struct EndWith<S> {
    inner: S,
    stop: watch::Receiver<bool>,
}

impl<S> EndWith<S> {
    pub(super) const fn new(inner: S, stop: watch::Receiver<bool>) -> Self {
        Self { inner, stop }
    }
}

impl<S: NamedService> NamedService for EndWith<S> {
    const NAME: &'static str = S::NAME;
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for EndWith<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        let stop = Box::pin(stopped(self.stop.clone()));
        let request = request.map(|inner| {
            Body::new(Ending {
                inner,
                stop: Some(stop),
            })
        });
        self.inner.call(request)
    }
}

/// A request body that ends early.
struct Ending {
    inner: Body,
    /// `None` once it has ended.
    stop: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl http_body::Body for Ending {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        let Some(stop) = &mut self.stop else {
            return Poll::Ready(None);
        };
        if stop.as_mut().poll(cx).is_ready() {
            self.stop = None;
            return Poll::Ready(None);
        }
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.stop.is_none() || self.inner.is_end_stream()
    }
}

//! The task around the protocol: one stream for all types, reconnecting for ever.
//!
//! [`Client::run`] decodes and applies whatever arrives where it is polled, and a first answer may
//! take hundreds of milliseconds: give it a runtime of its own, on a thread that carries no
//! traffic. Keepalive and connect deadlines are the transport's.

mod backoff;
mod config;
mod demand;
mod ending;
mod events;
mod messages;
mod node;
mod ready;
mod worker;

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http_body::Body as HttpBody;
use tokio::sync::{mpsc, watch};
use tonic::{body::Body, client::GrpcService};

pub use config::ClientConfig;
pub use demand::{Demand, DemandError};
pub use events::{
    ConnectionEnd, ConnectionEnded, Events, MessageReceived, Overdue, ResourcesRejected,
    UnknownType,
};
pub use node::{Node, NodeValue};
pub use ready::{ClientStopped, Ready};

use self::{
    demand::{Ask, QUEUE},
    worker::Worker,
};
use crate::{
    delta::{Interest, Session},
    handler::Handler,
};

/// Keeps handlers current from a control plane.
///
/// `T` is any tower gRPC service; it brings the connection, its security, and the metadata of
/// requests.
pub struct Client<T> {
    transport: T,
    session: Session,
    handlers: Vec<Box<dyn Handler>>,
    config: ClientConfig,
    events: Arc<dyn Events>,
    ready: watch::Sender<bool>,
    asks: (mpsc::Sender<Ask>, mpsc::Receiver<Ask>),
}

impl<T> Client<T> {
    /// A client over `transport`; nothing is sent before [`run`](Self::run).
    pub fn new(transport: T, node: Node, config: ClientConfig, events: Arc<dyn Events>) -> Self {
        Self {
            transport,
            session: Session::new(node.into_message(), config.session.clone()),
            handlers: Vec::new(),
            config,
            events,
            ready: watch::Sender::new(false),
            asks: mpsc::channel(QUEUE),
        }
    }

    /// Subscribes to all resources of the handler's type. Types are asked for in this order.
    ///
    /// Istio's clients ask for [`ADDRESS`](crate::proto::ADDRESS) first. There is one handler per
    /// type: a second one for a type is never called.
    #[must_use]
    pub fn subscribe(mut self, handler: impl Handler + 'static) -> Self {
        self.session.subscribe(handler.type_url(), Interest::All);
        self.handlers.push(Box::new(handler));
        self
    }

    /// Subscribes to those resources of the handler's type that are asked for through [`Demand`].
    ///
    /// A control plane may send others as well: Istio's sends what concerns the asking node.
    pub fn subscribe_on_demand(&mut self, handler: impl Handler + 'static) -> Demand {
        let type_url: Arc<str> = handler.type_url().into();
        self.session.subscribe(&type_url, Interest::Named);
        self.handlers.push(Box::new(handler));
        Demand::new(type_url, self.asks.0.clone())
    }

    /// Tells when each type subscribed as a whole was accepted completely once.
    ///
    /// It never goes back: state is kept while the control plane is away.
    pub fn ready(&self) -> Ready {
        Ready::new(self.ready.subscribe())
    }

    /// Connects, applies, acknowledges and reconnects until the future is dropped.
    ///
    /// Attempts are spaced by a random delay that doubles up to a limit, after every kind of end,
    /// an orderly one too; only a stream that brought something good and outlived its delay starts
    /// over with the shortest one. Dropping the future closes the stream; handlers are dropped.
    pub async fn run(self)
    where
        T: GrpcService<Body> + Send,
        T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
        <T::ResponseBody as HttpBody>::Error: Into<tonic::codegen::StdError> + Send,
        T::Future: Send,
    {
        let (transport, worker) = Worker::new(self);
        worker.run(transport).await;
    }
}

impl<T> fmt::Debug for Client<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("session", &self.session)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

//! The task around the protocol: one stream for all types, reconnecting for ever.
#![allow(clippy::todo, unused_variables, reason = "signatures first")]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body::Body as HttpBody;
use tonic::{body::Body, client::GrpcService};

use crate::handler::Handler;

mod events;
mod node;

pub use events::{
    ConnectionEnd, ConnectionEnded, Events, MessageReceived, Overdue, ResourcesRejected,
    UnknownType,
};
pub use node::{Node, NodeValue};

/// Settings of a [`Client`].
#[derive(Clone, Debug)]
pub struct ClientConfig {
    pub(crate) max_message: usize,
    pub(crate) first_backoff: Duration,
    pub(crate) max_backoff: Duration,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            max_message: 200 * 1024 * 1024,
            first_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(15),
        }
    }
}

/// Keeps handlers current from a control plane.
#[derive(Debug)]
pub struct Client<T> {
    transport: T,
}

impl<T> Client<T> {
    /// A client over `transport`, which authenticates both ends; nothing is sent before
    /// [`run`](Self::run).
    pub fn new(transport: T, node: Node, config: ClientConfig, events: Arc<dyn Events>) -> Self {
        todo!()
    }

    /// Subscribes to all resources of the handler's type. Types are asked for in this order.
    #[must_use]
    pub fn subscribe(self, handler: impl Handler + 'static) -> Self {
        todo!()
    }

    /// Subscribes to resources of the handler's type that are asked for through [`Demand`].
    pub fn subscribe_on_demand(&mut self, handler: impl Handler + 'static) -> Demand {
        todo!()
    }

    /// Tells when each type subscribed as a whole was accepted completely once.
    pub fn ready(&self) -> Ready {
        todo!()
    }

    /// Connects, applies, acknowledges and reconnects until the future is dropped.
    pub async fn run(self)
    where
        T: GrpcService<Body> + Send,
        T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
        T::Future: Send,
    {
        todo!()
    }
}

/// Asks for resources by name or alias.
#[derive(Clone, Debug)]
pub struct Demand {}

impl Demand {
    /// Asks for `name` and waits until the server has answered; true if it exists.
    pub async fn fetch(&self, name: &str, deadline: Duration) -> bool {
        todo!()
    }
}

/// Whether the first state is complete.
#[derive(Clone, Debug)]
pub struct Ready {}

impl Ready {
    /// Whether it is now.
    pub fn is_ready(&self) -> bool {
        todo!()
    }

    /// Waits until it is. Cancel safe.
    pub async fn ready(&mut self) {
        todo!()
    }
}

//! What a client tells about itself.

use std::{fmt, time::Duration};

use crate::handler::Rejected;

/// Receives what happens in a client; every method does nothing by default.
///
/// Called on the client's task: must not block.
pub trait Events: fmt::Debug + Send + Sync {
    /// A stream opened: the server sent the head of its answer.
    fn connected(&self) {}

    /// A stream, or the attempt to open one, ended; the next attempt follows.
    fn connection_ended(&self, event: &ConnectionEnded<'_>) {
        let _ = event;
    }

    /// A message arrived.
    fn message_received(&self, event: &MessageReceived<'_>) {
        let _ = event;
    }

    /// A type has had no answer for too long since its stream opened; once per stream.
    fn overdue(&self, event: &Overdue<'_>) {
        let _ = event;
    }

    /// Resources were refused.
    fn rejected(&self, event: &ResourcesRejected<'_>) {
        let _ = event;
    }

    /// A message of a type that nobody subscribed to was ignored, without acknowledgement.
    fn unknown_type(&self, event: &UnknownType<'_>) {
        let _ = event;
    }
}

/// Nobody listens.
impl Events for () {}

/// See [`Events::connection_ended`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ConnectionEnded<'a> {
    /// How it ended.
    pub reason: ConnectionEnd,
    /// The status' text, or that of the transport's error.
    pub message: &'a str,
    /// The wait before the next attempt.
    pub backoff: Duration,
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ConnectionEnd {
    /// The server ended it in order.
    Complete,
    /// No connection was made.
    ConnectionError,
    /// The server ended it with an error.
    Error,
    /// The connection under it went away, as servers do from time to time.
    Reconnect,
}

/// See [`Events::message_received`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct MessageReceived<'a> {
    /// The type of its resources.
    pub type_url: &'a str,
    /// Its size on the wire, without framing.
    pub bytes: usize,
    /// How many resources it carried.
    pub resources: usize,
    /// How many it removed.
    pub removed: usize,
}

/// See [`Events::overdue`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Overdue<'a> {
    /// The type that is missing.
    pub type_url: &'a str,
    /// How long it has been waited for.
    pub waited: Duration,
}

/// See [`Events::rejected`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ResourcesRejected<'a> {
    /// The type of the resources.
    pub type_url: &'a str,
    /// Names and reasons.
    pub rejected: &'a [Rejected],
}

/// See [`Events::unknown_type`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct UnknownType<'a> {
    /// The type, cut to a bounded length.
    pub type_url: &'a str,
}

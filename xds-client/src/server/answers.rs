//! What a server tells about its clients.

use std::fmt;

/// Sees what goes to clients and what they answer; every method does nothing by default.
///
/// Called while a stream is polled: must not block.
pub trait Observer: fmt::Debug + Send + Sync {
    /// A client accepted or refused what was sent.
    fn answered(&self, answer: &Answer<'_>) {
        let _ = answer;
    }

    /// A stream ended.
    fn closed(&self, node: &str) {
        let _ = node;
    }

    /// A client opened a stream and said who it is.
    fn opened(&self, node: &str) {
        let _ = node;
    }

    /// A response is on its way.
    fn sent(&self, sent: &Sent<'_>) {
        let _ = sent;
    }
}

/// Nobody listens.
impl Observer for () {}

/// See [`Observer::answered`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Answer<'a> {
    /// The client's identifier, as it claims.
    pub node: &'a str,
    /// The type of the resources.
    pub type_url: &'a str,
    /// Which response.
    pub nonce: &'a str,
    /// The refusal's text; `None` if everything was accepted.
    pub error: Option<&'a str>,
}

/// See [`Observer::sent`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Sent<'a> {
    /// The client's identifier, as it claims.
    pub node: &'a str,
    /// The type of the resources.
    pub type_url: &'a str,
    /// The response's nonce; unique among all streams of the process.
    pub nonce: &'a str,
    /// How many resources it carries.
    pub resources: usize,
    /// How many it removes.
    pub removed: usize,
}

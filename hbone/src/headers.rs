//! What a tunnel's request says besides its target: claims of the peer, never facts.
//!
//! Every value here was chosen by whoever sent it. Identity comes from the certificate; these
//! fields label telemetry and carry trace context. All are bounded on the way in, and written so
//! that no string, wherever it came from, can break the header it goes into.

mod baggage;
mod forwarded;
mod traceparent;

pub use baggage::Baggage;
pub use forwarded::Forwarded;
pub use traceparent::{InvalidTraceParent, TraceParent};

use http::{HeaderMap, HeaderName, HeaderValue, header};

pub(crate) const BAGGAGE: HeaderName = HeaderName::from_static("baggage");
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(crate) const FORWARDED_NETWORK: HeaderName = HeaderName::from_static("x-forwarded-network");

/// Longest network name that is taken from a peer.
const MAX_NETWORK: usize = 253;

/// The headers a client adds to its CONNECT request.
///
/// Values are encoded once and cheap to clone: keep one per workload and set what differs per
/// connection.
///
/// ```
/// use meshwright_hbone::{Baggage, Forwarded, TraceParent, TunnelHeaders};
///
/// let mut baggage = Baggage::default();
/// baggage.namespace = Some("default".into());
/// let headers = TunnelHeaders::new()
///     .with_baggage(baggage.to_header())
///     .with_forwarded(&Forwarded::new("10.0.0.1:4711".parse()?))
///     .with_traceparent(TraceParent::generate());
/// # let _ = headers;
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct TunnelHeaders {
    baggage: Option<HeaderValue>,
    forwarded: Option<HeaderValue>,
    traceparent: Option<TraceParent>,
    network: Option<HeaderValue>,
}

impl TunnelHeaders {
    /// Makes a set without any header.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `baggage`; [`Baggage::to_header`] encodes it.
    #[must_use]
    pub fn with_baggage(mut self, baggage: HeaderValue) -> Self {
        self.baggage = Some(baggage);
        self
    }

    /// Sets `forwarded`.
    #[must_use]
    pub fn with_forwarded(mut self, forwarded: &Forwarded) -> Self {
        self.forwarded = Some(forwarded.to_header());
        self
    }

    /// Sets `traceparent`.
    #[must_use]
    pub fn with_traceparent(mut self, traceparent: TraceParent) -> Self {
        self.traceparent = Some(traceparent);
        self
    }

    /// Sets `x-forwarded-network`, for the inner request of a tunnel through a gateway.
    ///
    /// Characters that cannot be in a header are dropped.
    #[must_use]
    pub fn with_forwarded_network(mut self, network: &str) -> Self {
        let clean: String = network.chars().filter(char::is_ascii_graphic).collect();
        self.network = HeaderValue::try_from(clean).ok();
        self
    }

    pub(crate) fn to_map(&self) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(4);
        if let Some(value) = &self.baggage {
            map.insert(BAGGAGE, value.clone());
        }
        if let Some(value) = &self.forwarded {
            map.insert(header::FORWARDED, value.clone());
        }
        if let Some(value) = &self.traceparent {
            map.insert(TRACEPARENT, value.to_header());
        }
        if let Some(value) = &self.network {
            map.insert(FORWARDED_NETWORK, value.clone());
        }
        map
    }
}

/// Reads the first `x-forwarded-network` of a request, if it is short and printable.
pub(crate) fn forwarded_network(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(FORWARDED_NETWORK)?.to_str().ok()?;
    (!value.is_empty() && value.len() <= MAX_NETWORK).then_some(value)
}

/// Returns whether a value is a label: at most `max` characters of letters, digits and `-_./:`.
fn is_label(value: &str, max: usize) -> bool {
    !value.is_empty()
        && value.len() <= max
        && value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/' | b':'))
}

/// Makes text that every parser of the header reads back as one value: visible ASCII without
/// separators, everything else replaced by `_`, at most 253 characters.
fn clean(text: &str) -> String {
    text.chars()
        .take(253)
        .map(|c| match c {
            ',' | ';' | '=' | '"' | '\\' => '_',
            c if c.is_ascii_graphic() => c,
            _ => '_',
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{TunnelHeaders, forwarded_network};
    use http::{HeaderMap, HeaderValue};
    use meshwright_testkit::trace;

    #[test]
    fn control_characters_in_a_network_name_are_dropped() {
        let _trace = trace();
        let headers = TunnelHeaders::new()
            .with_forwarded_network("net\r\nwork \u{1}2")
            .to_map();
        assert_eq!(forwarded_network(&headers), Some("network2"));
    }

    #[test]
    fn long_network_names_are_not_taken() {
        let _trace = trace();
        let mut headers = HeaderMap::new();
        let long = HeaderValue::try_from("n".repeat(254)).unwrap();
        headers.insert(super::FORWARDED_NETWORK, long);
        assert_eq!(forwarded_network(&headers), None);
    }
}

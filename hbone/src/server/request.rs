//! A peer's request for a tunnel: what it may look like, and its answer.

use crate::{
    authority::Authority,
    error::Reset,
    headers::{BAGGAGE, Baggage, Forwarded, TraceParent, forwarded_network},
    tunnel::{Lease, Tunnel},
    wire::server::Incoming,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts};
use meshwright_identity::PeerSvid;
use std::{
    fmt,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

/// Header lines of one request.
const MAX_HEADERS: usize = 100;

/// RFC 9113 §8.2.2: none of these may be in a request; `te` has no meaning in a tunnel.
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// A request for a tunnel that waits for its answer.
///
/// Nothing that the peer sends reaches anybody before [`accept`](Self::accept); what it sends
/// early waits, bounded by the stream's window. Dropping the request refuses it with 503.
pub struct ConnectRequest {
    incoming: Option<Incoming>,
    headers: HeaderMap,
    authority: Authority,
    peer: Arc<PeerSvid>,
    lease: Option<Lease>,
}

impl ConnectRequest {
    pub(super) fn new(
        mut incoming: Incoming,
        authority: Authority,
        peer: Arc<PeerSvid>,
        lease: Lease,
    ) -> Self {
        let headers = std::mem::take(&mut incoming.head.headers);
        Self {
            incoming: Some(incoming),
            headers,
            authority,
            peer,
            lease: Some(lease),
        }
    }

    /// Returns where the peer wants to go.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Returns who the peer is, from its certificate.
    #[must_use]
    pub fn peer(&self) -> &Arc<PeerSvid> {
        &self.peer
    }

    /// Reads what the peer says about the source workload. A claim, not a fact.
    #[must_use]
    pub fn baggage(&self) -> Baggage {
        Baggage::from_headers(&self.headers)
    }

    /// Reads on whose behalf the peer asks. A claim, not a fact.
    #[must_use]
    pub fn forwarded(&self) -> Forwarded {
        Forwarded::from_headers(&self.headers)
    }

    /// Reads the trace context; none when it is missing or malformed.
    #[must_use]
    pub fn traceparent(&self) -> Option<TraceParent> {
        TraceParent::from_headers(&self.headers)
    }

    /// Returns the network that the request says it came from. A claim, not a fact.
    #[must_use]
    pub fn forwarded_network(&self) -> Option<&str> {
        forwarded_network(&self.headers)
    }

    /// Answers 200 and opens the tunnel.
    ///
    /// # Errors
    ///
    /// Returns [`Reset`] when the peer has given up or its connection has ended.
    pub fn accept(mut self, headers: ResponseHeaders) -> Result<Tunnel, Reset> {
        let (Some(incoming), Some(lease)) = (self.incoming.take(), self.lease.take()) else {
            return Err(Reset::Local);
        };
        let stream = incoming.accept(headers.headers)?;
        Ok(Tunnel::new(stream, lease))
    }

    /// Answers with another status and nothing else.
    ///
    /// A success or informational status would be taken for an open tunnel; it becomes 503.
    pub fn refuse(mut self, status: StatusCode) {
        self.refuse_with(status);
    }

    /// Resolves when the peer has given up, so that a dial on its behalf can be ended.
    /// Cancel safe.
    pub async fn abandoned(&mut self) -> Reset {
        poll_fn(|cx| self.poll_abandoned(cx)).await
    }

    /// As [`abandoned`](Self::abandoned), for callers that poll.
    pub fn poll_abandoned(&mut self, cx: &mut Context<'_>) -> Poll<Reset> {
        match &mut self.incoming {
            Some(incoming) => incoming.poll_reset(cx),
            None => Poll::Pending,
        }
    }

    fn refuse_with(&mut self, status: StatusCode) {
        if let Some(incoming) = self.incoming.take() {
            let opens = status.is_informational() || status.is_success();
            incoming.refuse(if opens {
                StatusCode::SERVICE_UNAVAILABLE
            } else {
                status
            });
        }
    }
}

impl Drop for ConnectRequest {
    fn drop(&mut self) {
        self.refuse_with(StatusCode::SERVICE_UNAVAILABLE);
    }
}

impl fmt::Debug for ConnectRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectRequest")
            .field("authority", &self.authority)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// The headers of a 200 answer.
#[derive(Clone, Debug, Default)]
pub struct ResponseHeaders {
    headers: HeaderMap,
}

impl ResponseHeaders {
    /// Makes a set without any header.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `baggage`; [`Baggage::to_header`] encodes it.
    #[must_use]
    pub fn with_baggage(mut self, baggage: HeaderValue) -> Self {
        self.headers.insert(BAGGAGE, baggage);
        self
    }
}

/// Why a request was answered with an error before anybody saw it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum BadRequest {
    /// There is no authority, or it is not in canonical spelling.
    Authority,
    /// A length for a body that a tunnel does not have.
    ContentLength,
    /// A header that belongs to one hop of HTTP/1.
    HopByHop,
    /// `host` names something else than the authority.
    Host,
    /// Not CONNECT, or CONNECT for another protocol.
    Method,
    /// More than 100 header lines.
    TooManyHeaders,
}

impl BadRequest {
    /// Returns a name for a metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Authority => "authority",
            Self::ContentLength => "content_length",
            Self::HopByHop => "hop_by_hop",
            Self::Host => "host",
            Self::Method => "method",
            Self::TooManyHeaders => "too_many_headers",
        }
    }

    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::TooManyHeaders => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// Checks a request; `h2` has refused what is malformed as HTTP/2, for instance CONNECT with a
/// path (RFC 9113 §8.5).
pub(super) fn check(head: &Parts) -> Result<Authority, BadRequest> {
    if head.method != Method::CONNECT || head.uri.path_and_query().is_some() {
        return Err(BadRequest::Method);
    }
    if head.headers.len() > MAX_HEADERS {
        return Err(BadRequest::TooManyHeaders);
    }
    if HOP_BY_HOP
        .iter()
        .any(|name| head.headers.contains_key(name))
    {
        return Err(BadRequest::HopByHop);
    }
    if head.headers.contains_key(header::CONTENT_LENGTH) {
        return Err(BadRequest::ContentLength);
    }
    let authority = head.uri.authority().ok_or(BadRequest::Authority)?;
    let parsed = Authority::parse(authority.as_str()).map_err(|_invalid| BadRequest::Authority)?;
    // RFC 9113 §8.3.1: a server should treat a `host` that differs as malformed.
    let same = |host: &HeaderValue| {
        host.to_str()
            .is_ok_and(|h| Authority::parse(h) == Ok(parsed.clone()))
    };
    if !head.headers.get_all(header::HOST).iter().all(same) {
        return Err(BadRequest::Host);
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::{BadRequest, check};
    use http::{Request, request::Parts};
    use meshwright_testkit::trace;

    fn request(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut builder = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    #[test]
    fn plain_connect_is_accepted() {
        let _trace = trace();
        let head = request("CONNECT", "10.0.0.1:80", &[("host", "10.0.0.1:80")]);
        assert_eq!(check(&head).unwrap().to_string(), "10.0.0.1:80");
    }

    #[test]
    fn everything_else_is_named() {
        let _trace = trace();
        let long: Vec<_> = (0..101).map(|_| ("x", "y")).collect();
        for (head, reason) in [
            (request("GET", "10.0.0.1:80", &[]), BadRequest::Method),
            (request("connect", "10.0.0.1:80", &[]), BadRequest::Method),
            (
                request("CONNECT", "http://10.0.0.1:80/x", &[]),
                BadRequest::Method,
            ),
            (
                request("CONNECT", "010.0.0.1:80", &[]),
                BadRequest::Authority,
            ),
            (
                request("CONNECT", "user@10.0.0.1:80", &[]),
                BadRequest::Authority,
            ),
            (
                request("CONNECT", "a:80", &[("host", "b:80")]),
                BadRequest::Host,
            ),
            (
                request("CONNECT", "a:80", &[("te", "trailers")]),
                BadRequest::HopByHop,
            ),
            (
                request("CONNECT", "a:80", &[("connection", "x")]),
                BadRequest::HopByHop,
            ),
            (
                request("CONNECT", "a:80", &[("keep-alive", "1")]),
                BadRequest::HopByHop,
            ),
            (
                request("CONNECT", "a:80", &[("content-length", "0")]),
                BadRequest::ContentLength,
            ),
            (
                request("CONNECT", "a:80", &long),
                BadRequest::TooManyHeaders,
            ),
        ] {
            // RFC 9113 §8.2.2: headers of one hop. RFC 9113 §8.3.1: `host`. RFC 9113 §8.5: CONNECT.
            assert_eq!(check(&head), Err(reason), "{head:?}");
        }
    }
}

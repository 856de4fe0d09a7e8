//! On whose behalf a tunnel is opened (RFC 7239).

use super::{clean, is_label};
use http::{HeaderMap, HeaderValue, header};
use std::{net::SocketAddr, sync::Arc};

/// A header longer than this is ignored.
const MAX_LEN: usize = 1024;

/// The `forwarded` header: the client's address and, where known, the service it asked for.
///
/// As received it is a claim of the peer. Its first element is read, of the first header line.
///
/// ```
/// use meshwright_hbone::Forwarded;
///
/// let forwarded = Forwarded::new("10.0.0.1:4711".parse()?).with_host("reviews.prod.svc");
/// assert_eq!(forwarded.to_header(), "for=\"10.0.0.1:4711\";host=reviews.prod.svc");
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Forwarded {
    /// `for`: the address that the client connected from.
    pub client: Option<SocketAddr>,
    /// `host`: the host name of the service that the client asked for.
    pub host: Option<Arc<str>>,
}

impl Forwarded {
    /// Makes the header of a client without a service.
    #[must_use]
    pub fn new(client: SocketAddr) -> Self {
        Self {
            client: Some(client),
            host: None,
        }
    }

    /// Adds the host name of the service.
    #[must_use]
    pub fn with_host(mut self, host: &str) -> Self {
        self.host = Some(host.into());
        self
    }

    /// Writes the header value; characters that cannot be in a host name become `_`.
    #[must_use]
    pub fn to_header(&self) -> HeaderValue {
        let mut text = String::new();
        if let Some(client) = self.client {
            text.push_str(&format!("for=\"{client}\""));
        }
        if let Some(host) = self.host.as_deref() {
            text.push_str(if text.is_empty() { "host=" } else { ";host=" });
            text.push_str(&clean(host));
        }
        HeaderValue::try_from(text).unwrap_or_else(|_never| HeaderValue::from_static(""))
    }

    /// Reads the first `forwarded` line; what is not understood is left out.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let mut forwarded = Self::default();
        let Some(line) = headers.get(header::FORWARDED) else {
            return forwarded;
        };
        let text = line.to_str().unwrap_or_default();
        if text.len() > MAX_LEN {
            return forwarded;
        }
        let first = text.split(',').next().unwrap_or_default();
        for pair in first.split(';') {
            let Some((key, value)) = pair.trim().split_once('=') else {
                continue;
            };
            let quoted = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
            let value = quoted.unwrap_or(value);
            if key.eq_ignore_ascii_case("host") && forwarded.host.is_none() {
                forwarded.host = is_label(value, 253).then(|| value.to_ascii_lowercase().into());
            } else if key.eq_ignore_ascii_case("for") && forwarded.client.is_none() {
                forwarded.client = value.parse().ok();
            }
        }
        forwarded
    }
}

#[cfg(test)]
mod tests {
    use super::Forwarded;
    use http::{HeaderMap, HeaderValue, header};
    use meshwright_testkit::trace;
    use proptest::prelude::*;

    fn read(line: &str) -> Forwarded {
        let mut headers = HeaderMap::new();
        headers.insert(header::FORWARDED, HeaderValue::from_str(line).unwrap());
        Forwarded::from_headers(&headers)
    }

    #[test]
    fn written_form_is_read_back() {
        let _trace = trace();
        for client in ["10.0.0.1:4711", "[2001:db8::1]:4711"] {
            let forwarded = Forwarded::new(client.parse().unwrap()).with_host("a.b.svc");
            let text = format!("for=\"{client}\";host=a.b.svc");
            assert_eq!(forwarded.to_header(), text);
            assert_eq!(read(&text), forwarded);
        }
    }

    #[test]
    fn only_the_first_element_and_sane_values_count() {
        let _trace = trace();
        assert_eq!(read("host=A.B;by=x, host=c").host.as_deref(), Some("a.b"));
        assert_eq!(read("host=\"a b\"").host, None);
        assert_eq!(read("for=unknown;host=").client, None);
        assert_eq!(read(&format!("host=a;x={}", "y".repeat(1024))).host, None);
    }

    proptest! {
        #[test]
        fn writing_never_fails(host in "\\PC*|[\\x00-\\x7f]*") {
            let client = "10.0.0.1:1".parse().unwrap();
            prop_assert!(!Forwarded::new(client).with_host(&host).to_header().is_empty());
        }

        #[test]
        fn reading_never_panics(line in any::<Vec<u8>>()) {
            if let Ok(line) = HeaderValue::from_bytes(&line) {
                let mut headers = HeaderMap::new();
                headers.insert(header::FORWARDED, line);
                let _read = Forwarded::from_headers(&headers);
            }
        }
    }
}

//! Trace context (W3C Trace Context, version 00).

use super::TRACEPARENT;
use http::{HeaderMap, HeaderValue};
use std::{fmt, str::FromStr};

/// The identifiers of a trace and of one span in it.
///
/// ```
/// use meshwright_hbone::TraceParent;
///
/// let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let parent: TraceParent = text.parse()?;
/// assert_eq!(parent.to_string(), text);
/// # Ok::<(), meshwright_hbone::InvalidTraceParent>(())
/// ```
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct TraceParent {
    trace: u128,
    span: u64,
    flags: u8,
}

impl TraceParent {
    /// Makes a random, unsampled trace context, as for a connection that starts here.
    #[must_use]
    pub fn generate() -> Self {
        Self {
            trace: rand::random::<u128>().max(1),
            span: rand::random::<u64>().max(1),
            flags: 0,
        }
    }

    /// Makes the context of a new span in the same trace.
    #[must_use]
    pub fn child(self) -> Self {
        Self {
            span: rand::random::<u64>().max(1),
            ..self
        }
    }

    /// Returns the trace's identifier, never 0.
    #[must_use]
    pub fn trace_id(&self) -> u128 {
        self.trace
    }

    /// Returns the span's identifier, never 0.
    #[must_use]
    pub fn span_id(&self) -> u64 {
        self.span
    }

    /// Reads the request's context; none when it is missing, repeated or malformed.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(TRACEPARENT).iter();
        let line = lines.next()?;
        // Trace Context §3.2: more than one header is the same as none.
        let text = lines.next().is_none().then(|| line.to_str().ok())??;
        text.parse().ok()
    }

    /// Writes the header value.
    #[must_use]
    pub fn to_header(&self) -> HeaderValue {
        HeaderValue::try_from(self.to_string())
            .unwrap_or_else(|_never| HeaderValue::from_static(""))
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{:032x}-{:016x}-{:02x}",
            self.trace, self.span, self.flags
        )
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TraceParent {
    type Err = InvalidTraceParent;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('-');
        let version = parts.next().filter(|v| is_hex(v, 2));
        let trace = parts.next().filter(|v| is_hex(v, 32));
        let span = parts.next().filter(|v| is_hex(v, 16));
        let flags = parts.next().filter(|v| is_hex(v, 2));
        let (Some(version), Some(trace), Some(span), Some(flags)) = (version, trace, span, flags)
        else {
            return Err(InvalidTraceParent);
        };
        // Trace Context §2.2: ff is forbidden, a higher version may carry more parts.
        if version == "ff" || (version == "00" && parts.next().is_some()) {
            return Err(InvalidTraceParent);
        }
        let trace = u128::from_str_radix(trace, 16).unwrap_or_default();
        let span = u64::from_str_radix(span, 16).unwrap_or_default();
        let flags = u8::from_str_radix(flags, 16).unwrap_or_default();
        if trace == 0 || span == 0 {
            return Err(InvalidTraceParent);
        }
        Ok(Self { trace, span, flags })
    }
}

/// A text is not a [`TraceParent`]: use a new one.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a trace context")]
#[non_exhaustive]
pub struct InvalidTraceParent;

fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::{TRACEPARENT, TraceParent};
    use http::{HeaderMap, HeaderValue};
    use meshwright_testkit::trace;
    use proptest::prelude::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn malformed_contexts_are_refused() {
        let _trace = trace();
        let zeros = "0".repeat(55);
        let long = "a".repeat(8192);
        for text in [
            zeros.as_str(),
            &long,
            "",
            "00-",
            "----",
            "00-----",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert!(
                text.parse::<TraceParent>().is_err(),
                "{text:.60} must be refused"
            );
        }
    }

    #[test]
    fn later_versions_may_carry_more_parts() {
        let _trace = trace();
        let later = GOOD.replacen("00", "01", 1) + "-more";
        assert_eq!(later.parse::<TraceParent>().unwrap().to_string(), GOOD);
    }

    #[test]
    fn repeated_headers_are_the_same_as_none() {
        let _trace = trace();
        let mut headers = HeaderMap::new();
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert!(TraceParent::from_headers(&headers).is_some());
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert_eq!(TraceParent::from_headers(&headers), None);
    }

    #[test]
    fn generated_contexts_are_valid_and_unsampled() {
        let _trace = trace();
        let parent = TraceParent::generate();
        assert_eq!(parent.to_string().parse(), Ok(parent));
        assert!(parent.to_string().ends_with("-00"));
        assert_eq!(parent.child().trace_id(), parent.trace_id());
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC*|[0-9a-f-]{50,60}") {
            if let Ok(parent) = text.parse::<TraceParent>() {
                prop_assert_eq!(parent.to_string().parse(), Ok(parent));
            }
        }
    }
}

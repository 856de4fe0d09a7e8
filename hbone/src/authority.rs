//! The `:authority` of a CONNECT request, in one strict grammar.
//!
//! A proxy and the application behind it must never disagree about what an address means, so
//! every spelling but the canonical one is refused: no octal, hexadecimal or shortened IPv4, no
//! zone identifiers, no IPv4-mapped IPv6, no trailing dots, no signs or leading zeros in a port.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
    sync::Arc,
};

/// Longest authority that is looked at: a host name of 253 characters, a colon, five digits.
const MAX_LEN: usize = 259;

/// Names the far end of a tunnel: an address, or a host name, with a port from 1 to 65535.
///
/// `Display` writes the canonical form, which [`parse`](Self::parse) accepts again.
///
/// ```
/// use meshwright_hbone::Authority;
///
/// assert_eq!(Authority::parse("10.0.0.7:80")?, Authority::Ip("10.0.0.7:80".parse()?));
/// assert_eq!(Authority::parse("Reviews.prod.svc:9080")?.to_string(), "reviews.prod.svc:9080");
/// assert!(Authority::parse("010.0.0.7:80").is_err(), "octal is not an address");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Authority {
    /// A host name, lower case, and a port.
    #[non_exhaustive]
    Host {
        /// The name: letters, digits, `-` and `_`, at most 253 characters.
        name: Arc<str>,
        /// The port, never 0.
        port: u16,
    },
    /// A dotted quad or a bracketed IPv6 address, and a port.
    Ip(SocketAddr),
}

impl Authority {
    /// Reads an authority as a peer sent it.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidAuthority`] for everything but `a.b.c.d:port`, `[v6]:port` and
    /// `host:port` in canonical spelling (letters of a host name may be upper case).
    pub fn parse(text: &str) -> Result<Self, InvalidAuthority> {
        if text.len() > MAX_LEN {
            return Err(InvalidAuthority::TooLong);
        }
        let (host, port) = text.rsplit_once(':').ok_or(InvalidAuthority::Port)?;
        let port = parse_port(port)?;
        if let Some(inner) = host.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or(InvalidAuthority::Address)?;
            let ip = Ipv6Addr::from_str(inner).map_err(|_parse| InvalidAuthority::Address)?;
            if ip.to_ipv4_mapped().is_some() {
                return Err(InvalidAuthority::Address);
            }
            return Ok(Self::Ip(SocketAddr::new(IpAddr::V6(ip), port)));
        }
        if ends_in_number(host) {
            // RFC 3986 §3.2.2 knows dotted quads only; everything else that looks like a number
            // means different addresses to different parsers.
            let ip = Ipv4Addr::from_str(host).map_err(|_parse| InvalidAuthority::Address)?;
            return Ok(Self::Ip(SocketAddr::new(IpAddr::V4(ip), port)));
        }
        Self::host(host, port)
    }

    /// Makes an authority from a host name and a port.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidAuthority`] when the name is not a host name or the port is 0.
    pub fn host(name: &str, port: u16) -> Result<Self, InvalidAuthority> {
        if port == 0 {
            return Err(InvalidAuthority::Port);
        }
        let labels_are_good = name.split('.').all(is_label);
        if name.len() > 253 || !labels_are_good || ends_in_number(name) {
            return Err(InvalidAuthority::Host);
        }
        let name = name.to_ascii_lowercase().into();
        Ok(Self::Host { name, port })
    }

    /// Returns the port, from 1 to 65535 for every parsed value.
    #[must_use]
    pub fn port(&self) -> u16 {
        match self {
            Self::Host { port, .. } => *port,
            Self::Ip(addr) => addr.port(),
        }
    }
}

impl From<SocketAddr> for Authority {
    /// Drops scope and flow label, and writes IPv4-mapped addresses as IPv4.
    fn from(addr: SocketAddr) -> Self {
        Self::Ip(SocketAddr::new(addr.ip().to_canonical(), addr.port()))
    }
}

impl FromStr for Authority {
    type Err = InvalidAuthority;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { name, port } => write!(f, "{name}:{port}"),
            Self::Ip(addr) => write!(f, "{addr}"),
        }
    }
}

/// A text is not an [`Authority`]; the variant names the offending part.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidAuthority {
    /// It looks like an address, but is not one in canonical spelling.
    #[error("the address is not a dotted quad or a bracketed IPv6 address")]
    Address,
    /// The host part is not a host name.
    #[error("the host is not a host name")]
    Host,
    /// There is no port from 1 to 65535, or it has a sign or a leading zero.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// The text is longer than any authority.
    #[error("the authority is longer than 259 characters")]
    TooLong,
}

fn parse_port(text: &str) -> Result<u16, InvalidAuthority> {
    let canonical = !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
    if !canonical {
        return Err(InvalidAuthority::Port);
    }
    text.parse().map_err(|_parse| InvalidAuthority::Port)
}

/// Whether some parser would take the last label for a number, and so the host for an IPv4
/// address (the rule of the WHATWG URL standard).
fn ends_in_number(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    digits(last) || hex.is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn is_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::{Authority, InvalidAuthority};
    use meshwright_testkit::trace;
    use proptest::prelude::*;
    use std::net::SocketAddr;

    #[test]
    fn canonical_spellings_are_read() {
        let _trace = trace();
        for text in [
            "10.1.2.3:80",
            "[2001:db8::1]:15008",
            "[::1]:1",
            "reviews.prod.svc.cluster.local:9080",
            "a:65535",
            "my_db.ns:5432",
            "3scale.example:1",
        ] {
            let parsed = Authority::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(parsed.to_string(), text, "display is the canonical form");
        }
    }

    #[test]
    fn host_names_are_case_folded() {
        let _trace = trace();
        assert_eq!(
            Authority::parse("Reviews.PROD:80"),
            Authority::host("reviews.prod", 80)
        );
    }

    #[test]
    fn every_other_spelling_of_an_address_is_refused() {
        let _trace = trace();
        for text in [
            "010.1.1.1:80",
            "2130706433:80",
            "0x7f000001:80",
            "0x7f.1:80",
            "127.1:80",
            "1.2:80",
            "1.2.3.4.:80",
            "1.2.3:80",
            "1.2.3.4.5:80",
            "256.1.1.1:80",
            "[fe80::1%eth0]:80",
            "[fe80::1%251]:80",
            "[1.2.3.4]:80",
            "::1:80",
            "[::1:80",
            "[::ffff:10.0.0.1]:80",
            "a.0x1:80",
            "1.2.3.08:80",
            "[::1]",
        ] {
            let refused = Authority::parse(text).is_err();
            assert!(refused, "RFC 3986 §3.2.2 does not know {text}");
        }
    }

    #[test]
    fn ports_are_plain_numbers_from_one_to_65535() {
        let _trace = trace();
        for port in [
            "",
            "0",
            "+80",
            "0080",
            "65536",
            "-1",
            "80 ",
            " 80",
            "8a",
            "99999999999",
        ] {
            let text = format!("10.0.0.1:{port}");
            assert_eq!(
                Authority::parse(&text),
                Err(InvalidAuthority::Port),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_not_a_host_name_is_refused() {
        let _trace = trace();
        for text in [
            ":80",
            "a.:80",
            ".a:80",
            "a..b:80",
            "-a:80",
            "a-:80",
            "user@host:80",
            "a b:80",
            "a/b:80",
            "*.example:80",
            "h\u{f6}st:80",
            "a\0b:80",
            "a?b:80",
            "a#b:80",
            "%61:80",
        ] {
            assert!(Authority::parse(text).is_err(), "{text:?} must be refused");
        }
        let long = format!("{}:80", "a".repeat(64));
        assert_eq!(Authority::parse(&long), Err(InvalidAuthority::Host));
        let longer = format!("{}a:80", "abcdefgh.".repeat(29));
        assert_eq!(Authority::parse(&longer), Err(InvalidAuthority::TooLong));
    }

    #[test]
    fn scope_and_mapping_are_dropped_from_own_addresses() {
        let _trace = trace();
        let mapped: SocketAddr = "[::ffff:10.0.0.1]:80".parse().unwrap();
        assert_eq!(Authority::from(mapped).to_string(), "10.0.0.1:80");
        let scoped: SocketAddr = "[fe80::1%3]:80".parse().unwrap();
        assert_eq!(Authority::from(scoped).to_string(), "[fe80::1]:80");
    }

    proptest! {
        #[test]
        fn parse_of_display_is_the_same_value(text in "\\PC{0,40}|[0-9a-zA-Z.:\\[\\]x_-]{0,40}:[0-9]{0,6}") {
            if let Ok(parsed) = Authority::parse(&text) {
                prop_assert_eq!(Authority::parse(&parsed.to_string()), Ok(parsed.clone()));
                prop_assert!(parsed.port() > 0);
            }
        }

        #[test]
        fn every_socket_address_survives(ip in any::<std::net::IpAddr>(), port in 1_u16..) {
            let authority = Authority::from(SocketAddr::new(ip, port));
            prop_assert_eq!(Authority::parse(&authority.to_string()), Ok(authority));
        }
    }
}

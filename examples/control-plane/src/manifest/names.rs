//! Names that are checked while they are read, so that a fault points at the name.
//!
//! Names become parts of xDS names (`cluster//Pod/namespace/name`), SPIFFE IDs and policy keys
//! (`namespace/name`), where a slash would forge another object's name.

use std::{net::IpAddr, sync::Arc};

use serde::{Deserialize, Deserializer, de::Error};

/// RFC 1123 subdomain, the form of most object names: at most 253 of `a-z`, `0-9`, `-`, `.`.
pub(crate) fn subdomain<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<str>, D::Error> {
    checked(
        from,
        is_subdomain,
        "a lowercase DNS name (a-z, 0-9, `-`, `.`)",
    )
}

/// As [`subdomain`], and an empty or missing value is an empty name.
pub(crate) fn optional<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<str>, D::Error> {
    let text = Option::<Arc<str>>::deserialize(from)?.unwrap_or_default();
    if text.is_empty() || is_subdomain(&text) {
        Ok(text)
    } else {
        Err(D::Error::custom(format!(
            "`{}` is not a lowercase DNS name (a-z, 0-9, `-`, `.`)",
            text.escape_debug()
        )))
    }
}

/// RFC 1123 label, the form of namespaces: at most 63 of `a-z`, `0-9`, `-`.
pub(crate) fn label<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<str>, D::Error> {
    let text = Option::<Arc<str>>::deserialize(from)?.unwrap_or_default();
    if text.is_empty() {
        // kubectl puts objects without a namespace into this one.
        Ok(Arc::from("default"))
    } else if is_label(&text) {
        Ok(text)
    } else {
        Err(D::Error::custom(format!(
            "`{}` is not a namespace name (at most 63 of a-z, 0-9, `-`)",
            text.escape_debug()
        )))
    }
}

/// A host of a `ServiceEntry`: a DNS name, or one with a `*` as its first label.
pub(crate) fn hosts<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Arc<str>>, D::Error> {
    let hosts = Vec::<Arc<str>>::deserialize(from)?;
    match hosts.iter().find(|host| !is_host(host)) {
        None => Ok(hosts),
        Some(host) => Err(D::Error::custom(format!(
            "`{}` is not a host name, nor one that begins with `*.`",
            host.escape_debug()
        ))),
    }
}

/// An IP address or a host name, kept as it was written.
pub(crate) fn endpoint<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<str>, D::Error> {
    checked(from, is_endpoint, ENDPOINT)
}

/// Several of what [`endpoint`] reads.
pub(crate) fn endpoints<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Arc<str>>, D::Error> {
    let texts = Option::<Vec<Arc<str>>>::deserialize(from)?.unwrap_or_default();
    match texts.iter().find(|text| !is_endpoint(text)) {
        None => Ok(texts),
        Some(text) => Err(D::Error::custom(format!(
            "`{}` is not {ENDPOINT}",
            text.escape_debug()
        ))),
    }
}

/// A missing or null value is the default: API servers write both.
pub(crate) fn or_default<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// A port from 1 to 65535.
pub(crate) fn port<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    match u16::deserialize(from)? {
        0 => Err(D::Error::custom("0 is not a port")),
        port => Ok(port),
    }
}

const ENDPOINT: &str = "an IP address or a host name";

fn is_endpoint(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok() || is_host(text)
}

fn checked<'de, D: Deserializer<'de>>(
    from: D,
    rule: fn(&str) -> bool,
    what: &str,
) -> Result<Arc<str>, D::Error> {
    let text = Arc::<str>::deserialize(from)?;
    if rule(&text) {
        Ok(text)
    } else {
        Err(D::Error::custom(format!(
            "`{}` is not {what}",
            text.escape_debug()
        )))
    }
}

pub(crate) fn is_host(text: &str) -> bool {
    text == "*" || is_subdomain(text.strip_prefix("*.").unwrap_or(text))
}

pub(crate) fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

fn is_label(text: &str) -> bool {
    // RFC 1123 §2.1: letters, digits and hyphens, no hyphen first or last.
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    !text.is_empty()
        && text.len() <= 63
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::{is_host, is_label, is_subdomain};

    #[test]
    fn names_that_could_forge_another_name_are_refused() {
        let _trace = meshwright_testkit::trace();
        for bad in [
            "", "a/b", "..", "a..b", "../a", "A", "a_b", "-a", "a-", "a b", "a\n", "ü", "%2e",
        ] {
            assert!(!is_subdomain(bad), "`{bad}` must be refused");
            assert!(!is_label(bad), "`{bad}` must be refused");
        }
        assert!(is_subdomain("helloworld-v1-0"));
        assert!(is_subdomain("ip-10-0-0-1.example"));
        assert!(!is_label("a.b"), "a namespace has no dots");
        assert!(
            !is_subdomain(&"a".repeat(64)),
            "RFC 1123 §2.1: a label has at most 63"
        );
        assert!(!is_subdomain(&["a"; 127].join(".").repeat(2)));
    }

    #[test]
    fn hosts_may_begin_with_a_wildcard_label_only() {
        let _trace = meshwright_testkit::trace();
        assert!(is_host("db.example.com"));
        assert!(is_host("*.wild.example.com"));
        assert!(!is_host("a.*.example.com"));
        assert!(!is_host("**.example.com"));
    }
}

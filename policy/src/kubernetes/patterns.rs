//! Single values: texts with a star, addresses, ports, service accounts.

use std::{fmt, net::IpAddr};

use super::{InvalidObject, Metadata, Problem};
use crate::{
    proto::{Address, ServiceAccountMatch, StringMatch, string_match::MatchType},
    values::network,
};

/// Longest value: a SPIFFE ID has at most 2048 bytes.
const MAX_VALUE_BYTES: usize = 2048;

/// Collects faults of one object while its fields are read.
#[derive(Debug)]
pub(super) struct Faults<'a> {
    pub(super) kind: &'static str,
    pub(super) metadata: &'a Metadata,
    pub(super) found: &'a mut Vec<InvalidObject>,
}

impl Faults<'_> {
    pub(super) fn add(&mut self, path: impl fmt::Display, problem: Problem) {
        self.found.push(InvalidObject {
            kind: self.kind,
            namespace: self.metadata.namespace.clone(),
            name: self.metadata.name.clone(),
            path: path.to_string(),
            problem,
        });
    }

    /// Reads each value; those that are wrong are noted with their place.
    pub(super) fn list<T>(
        &mut self,
        path: &str,
        values: &[String],
        read: impl Fn(&str) -> Result<T, Problem>,
    ) -> Vec<T> {
        let mut list = Vec::with_capacity(values.len());
        for (place, value) in values.iter().enumerate() {
            let read = match value.len() {
                0 => Err(Problem::Empty),
                bytes if bytes > MAX_VALUE_BYTES => Err(Problem::TooLong(MAX_VALUE_BYTES)),
                _ => read(value),
            };
            match read {
                Ok(value) => list.push(value),
                Err(problem) => self.add(format_args!("{path}[{place}]"), problem),
            }
        }
        list
    }
}

/// `*`, `x*`, `*x` or `x`.
pub(super) fn text(value: &str) -> Result<StringMatch, Problem> {
    let kind = match (value.strip_prefix('*'), value.strip_suffix('*')) {
        (Some(""), _) => MatchType::Presence(()),
        (Some(suffix), None) => MatchType::Suffix(plain(value, suffix)?),
        (None, Some(prefix)) => MatchType::Prefix(plain(value, prefix)?),
        (None, None) => MatchType::Exact(plain(value, value)?),
        (Some(_), Some(_)) => return Err(Problem::Pattern(value.to_owned())),
    };
    Ok(StringMatch {
        match_type: Some(kind),
    })
}

fn plain(value: &str, part: &str) -> Result<String, Problem> {
    match part.contains('*') {
        true => Err(Problem::Pattern(value.to_owned())),
        false => Ok(part.to_owned()),
    }
}

/// A SPIFFE ID without scheme, or a part of it.
pub(super) fn principal(value: &str) -> Result<StringMatch, Problem> {
    match value.starts_with("spiffe://") {
        true => Err(Problem::Scheme(value.to_owned())),
        false => text(value),
    }
}

/// An address, or an address and the length of a prefix.
pub(super) fn address(value: &str) -> Result<Address, Problem> {
    let wrong = || Problem::Address(value.to_owned());
    let (address, length) = match value.split_once('/') {
        Some((address, length)) => (address, Some(decimal(length).ok_or_else(wrong)?)),
        None => (value, None),
    };
    let octets = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => address.octets().to_vec(),
        Ok(IpAddr::V6(address)) => address.octets().to_vec(),
        Err(_) => return Err(wrong()),
    };
    let all = u32::try_from(octets.len() * 8).unwrap_or_default();
    let length = length.unwrap_or(all);
    match network(&octets, u64::from(length)) {
        Some(_) => Ok(Address {
            address: octets.into(),
            length,
        }),
        None => Err(wrong()),
    }
}

pub(super) fn port(value: &str) -> Result<u32, Problem> {
    match decimal(value) {
        Some(port) if (1..=65535).contains(&port) => Ok(port),
        _ => Err(Problem::Port(value.to_owned())),
    }
}

/// Digits only: the standard parser would take a sign.
fn decimal(text: &str) -> Option<u32> {
    let is_decimal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_decimal { text.parse().ok() } else { None }
}

/// `NAMESPACE/NAME`, or `NAME` in the policy's own namespace.
pub(super) fn service_account(
    value: &str,
    own_namespace: &str,
) -> Result<ServiceAccountMatch, Problem> {
    let (namespace, name) = value.split_once('/').unwrap_or((own_namespace, value));
    let is_name = |text: &str| !text.is_empty() && !text.contains(['/', '*']);
    if !is_name(namespace) || !is_name(name) {
        return Err(Problem::ServiceAccount(value.to_owned()));
    }
    Ok(ServiceAccountMatch {
        namespace: namespace.to_owned(),
        service_account: name.to_owned(),
    })
}

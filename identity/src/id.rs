//! SPIFFE identities, parsed strictly in one place.
//!
//! Peers' certificates, own certificates, answers of a certificate authority and names in a
//! control plane's messages all go through [`SpiffeId::parse`]. What it refuses never becomes an
//! identity, so two spellings of one identity cannot exist and comparison is of bytes.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use crate::Fault;

/// SPIFFE-ID §2.3: an identity is at most 2048 bytes.
const MAX_ID_BYTES: usize = 2048;
/// SPIFFE-ID §2.1: a trust domain name is at most 255 bytes.
const MAX_TRUST_DOMAIN_BYTES: usize = 255;
const SCHEME: &str = "spiffe://";

/// A SPIFFE ID in its one valid spelling, such as `spiffe://cluster.local/ns/shop/sa/web`.
///
/// Cloning is cheap (a shared string). Equality, order and hash are those of the URI's bytes.
///
/// ```
/// use meshwright_identity::SpiffeId;
///
/// let id = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/web")?;
/// assert_eq!(id.trust_domain().as_str(), "cluster.local");
/// let workload = id.workload().expect("the path names a workload");
/// assert_eq!((workload.namespace, workload.service_account), ("shop", "web"));
/// assert!(SpiffeId::parse("spiffe://cluster.local/ns/%73hop/sa/web").is_err());
/// # Ok::<(), meshwright_identity::InvalidSpiffeId>(())
/// ```
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SpiffeId {
    uri: Arc<str>,
}

/// The authority of a SPIFFE ID: who vouches for the identities below it.
///
/// Cloning is cheap. Lower case only, at most 255 bytes.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TrustDomain {
    name: Arc<str>,
}

/// The parts of an identity of the form `/ns/NAMESPACE/sa/SERVICE-ACCOUNT`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct WorkloadIdentity<'a> {
    /// The Kubernetes namespace.
    pub namespace: &'a str,
    /// The Kubernetes service account.
    pub service_account: &'a str,
}

impl SpiffeId {
    /// Parses a SPIFFE ID and refuses everything that is not in the one valid spelling.
    ///
    /// No percent-encoding, query, fragment, user information, port, upper-case trust domain,
    /// empty or dot segments, trailing slash, or more than 2048 bytes. An identity without a path
    /// (the trust domain's own) is valid.
    ///
    /// # Errors
    ///
    /// Returns the first rule of the SPIFFE grammar that `uri` breaks.
    pub fn parse(uri: &str) -> Result<Self, InvalidSpiffeId> {
        if uri.len() > MAX_ID_BYTES {
            return Err(InvalidSpiffeId::TooLong { bytes: uri.len() });
        }
        let rest = uri.strip_prefix(SCHEME).ok_or(InvalidSpiffeId::Scheme)?;
        let (domain, path) = match rest.split_once('/') {
            Some((domain, path)) => (domain, Some(path)),
            None => (rest, None),
        };
        check_trust_domain(domain)?;
        path.map_or(Ok(()), |path| path.split('/').try_for_each(check_segment))?;
        Ok(Self { uri: uri.into() })
    }

    /// Builds the identity of a Kubernetes service account:
    /// `spiffe://DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT`.
    ///
    /// # Errors
    ///
    /// Returns why a name is not a single path segment, or that the whole would be too long.
    pub fn for_workload(
        trust_domain: &TrustDomain,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, InvalidSpiffeId> {
        check_segment(namespace)?;
        check_segment(service_account)?;
        Self::parse(&format!(
            "{SCHEME}{trust_domain}/ns/{namespace}/sa/{service_account}"
        ))
    }

    /// The trust domain that vouches for this identity, as a value of its own (one allocation).
    #[must_use]
    pub fn trust_domain(&self) -> TrustDomain {
        TrustDomain {
            name: self.parts().0.into(),
        }
    }

    /// The name of the trust domain, borrowed: `cluster.local`.
    #[must_use]
    pub fn trust_domain_name(&self) -> &str {
        self.parts().0
    }

    /// Whether `trust_domain` is the one that vouches for this identity.
    #[must_use]
    pub fn is_member_of(&self, trust_domain: &TrustDomain) -> bool {
        self.parts().0 == trust_domain.as_str()
    }

    /// The path with its leading slash; empty for a trust domain's own identity.
    #[must_use]
    pub fn path(&self) -> &str {
        self.parts().1
    }

    /// The whole URI.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.uri
    }

    /// Namespace and service account, if the path is exactly `/ns/x/sa/y`.
    #[must_use]
    pub fn workload(&self) -> Option<WorkloadIdentity<'_>> {
        let mut segments = self.path().strip_prefix("/ns/")?.split('/');
        let namespace = segments.next()?;
        let keyword = segments.next()?;
        let service_account = segments.next()?;
        (keyword == "sa" && segments.next().is_none()).then_some(WorkloadIdentity {
            namespace,
            service_account,
        })
    }

    /// Trust domain and path with its leading slash.
    fn parts(&self) -> (&str, &str) {
        let rest = self.uri.strip_prefix(SCHEME).unwrap_or_default();
        rest.find('/')
            .and_then(|slash| rest.split_at_checked(slash))
            .unwrap_or((rest, ""))
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidSpiffeId;

    fn from_str(uri: &str) -> Result<Self, InvalidSpiffeId> {
        Self::parse(uri)
    }
}

impl TrustDomain {
    /// Parses the name of a trust domain, such as `cluster.local`.
    ///
    /// # Errors
    ///
    /// Returns why the name is not a valid authority of a SPIFFE ID.
    pub fn parse(name: &str) -> Result<Self, InvalidSpiffeId> {
        check_trust_domain(name)?;
        Ok(Self { name: name.into() })
    }

    /// The name alone, without scheme.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

// Equality, order and hash are those of the name, so maps keyed by trust domain answer to a name.
impl Borrow<str> for TrustDomain {
    fn borrow(&self) -> &str {
        &self.name
    }
}

impl FromStr for TrustDomain {
    type Err = InvalidSpiffeId;

    fn from_str(name: &str) -> Result<Self, InvalidSpiffeId> {
        Self::parse(name)
    }
}

/// A text is not a SPIFFE ID (or not the name of a trust domain).
///
/// Never carries the text itself: it may come from a peer and be of any size.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSpiffeId {
    /// A path segment is `.` or `..`.
    #[error("the path has a dot segment")]
    DotSegment,
    /// A path segment is empty, or the path ends in a slash.
    #[error("the path has an empty segment")]
    EmptySegment,
    /// There is no trust domain.
    #[error("the trust domain is empty")]
    EmptyTrustDomain,
    /// The path has something else than ASCII letters, digits, `-`, `.` and `_`.
    #[error("byte {byte:#04x} is not allowed in the path")]
    PathByte {
        /// The first such byte.
        byte: u8,
    },
    /// The text does not begin with `spiffe://`.
    #[error("the scheme is not spiffe")]
    Scheme,
    /// The text is longer than 2048 bytes.
    #[error("the identity is {bytes} bytes long; 2048 are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The trust domain has something else than lower-case ASCII letters, digits, `-`, `.`, `_`.
    ///
    /// User information, a port and an upper-case host all end here.
    #[error("byte {byte:#04x} is not allowed in a trust domain")]
    TrustDomainByte {
        /// The first such byte.
        byte: u8,
    },
    /// The trust domain is longer than 255 bytes.
    #[error("the trust domain is {bytes} bytes long; 255 are allowed")]
    TrustDomainTooLong {
        /// Its length.
        bytes: usize,
    },
}

impl InvalidSpiffeId {
    /// Always `false`: the same text is refused again.
    #[must_use]
    pub const fn is_safe_to_retry(&self) -> bool {
        false
    }

    /// Always the caller's: whoever took the text from a peer maps it to [`Fault::Peer`].
    #[must_use]
    pub const fn fault(&self) -> Fault {
        Fault::Caller
    }
}

// SPIFFE-ID §2.1: letters (lower case), digits, dots, dashes and underscores.
fn check_trust_domain(name: &str) -> Result<(), InvalidSpiffeId> {
    if name.is_empty() {
        return Err(InvalidSpiffeId::EmptyTrustDomain);
    }
    if name.len() > MAX_TRUST_DOMAIN_BYTES {
        return Err(InvalidSpiffeId::TrustDomainTooLong { bytes: name.len() });
    }
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b);
    match name.bytes().find(|b| !allowed(*b)) {
        Some(byte) => Err(InvalidSpiffeId::TrustDomainByte { byte }),
        None => Ok(()),
    }
}

// SPIFFE-ID §2.2: no empty, `.` or `..` segments; letters, digits, dots, dashes and underscores.
fn check_segment(segment: &str) -> Result<(), InvalidSpiffeId> {
    match segment {
        "" => return Err(InvalidSpiffeId::EmptySegment),
        "." | ".." => return Err(InvalidSpiffeId::DotSegment),
        _ => {}
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    match segment.bytes().find(|b| !allowed(*b)) {
        Some(byte) => Err(InvalidSpiffeId::PathByte { byte }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;

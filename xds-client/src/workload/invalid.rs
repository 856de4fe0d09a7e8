//! Why a record is refused.

use std::fmt;

use meshwright_identity::{Fault, InvalidSpiffeId};

/// A record breaks a rule of the workload API.
///
/// The control plane must act: it is told the resource's name and this text, and an earlier
/// version of the record stays in force.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidResource {
    /// An address has neither 4 nor 16 bytes.
    #[error("`{field}` has {bytes} bytes; an address has 4 or 16")]
    Address {
        /// The field.
        field: &'static str,
        /// How many bytes it has.
        bytes: usize,
    },
    /// Trust domain, namespace and service account make no SPIFFE ID.
    #[error("namespace and service account give no identity")]
    Identity(#[source] InvalidSpiffeId),
    /// The body is not a message of this type.
    #[error("the message cannot be decoded")]
    Message(#[source] UndecodableMessage),
    /// Something that must be there is not.
    #[error("`{field}` is missing")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// A port or another number is larger than what it stands for can be.
    #[error("`{field}` is {value}; at most {limit} is possible")]
    Number {
        /// The field.
        field: &'static str,
        /// The number received.
        value: u32,
        /// The largest possible one.
        limit: u32,
    },
    /// A range of addresses stands where one address is needed.
    #[error("`{field}` is a range of addresses")]
    Range {
        /// The field.
        field: &'static str,
    },
    /// A text is too long, or has a control character or a slash where it cannot have one.
    #[error("`{field}` {fault}")]
    Text {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        fault: TextFault,
    },
    /// An enumeration has a value that this program does not know.
    #[error("`{field}` has the unknown value {value}")]
    UnknownValue {
        /// The field.
        field: &'static str,
        /// The value received.
        value: i32,
    },
    /// The workload expects the mutual TLS of sidecars, which this program does not speak.
    #[error("the tunnel protocol of sidecars is not supported")]
    UnsupportedTunnel,
}

impl InvalidResource {
    /// Always `false`: the same record is refused again.
    #[must_use]
    pub const fn is_safe_to_retry(&self) -> bool {
        false
    }

    /// The control plane's, always.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        Fault::Peer
    }
}

/// What is wrong with a text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum TextFault {
    /// It has a control character; it would end up in headers and logs.
    Control,
    /// It is empty.
    Empty,
    /// It has no slash between namespace and host name.
    NoSlash,
    /// It has a slash, which separates the parts of names.
    Slash,
    /// It is longer than 4096 bytes.
    TooLong,
}

impl fmt::Display for TextFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Control => "has a control character",
            Self::Empty => "is empty",
            Self::NoSlash => "is not a namespace, a slash and a host name",
            Self::Slash => "has a slash",
            Self::TooLong => "is longer than 4096 bytes",
        })
    }
}

/// The bytes of a message break the encoding's rules.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(transparent)]
pub struct UndecodableMessage(pub(super) prost::DecodeError);

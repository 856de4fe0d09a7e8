//! Why a resource did not become a policy.

use std::fmt;

use meshwright_identity::Fault;

/// A resource that cannot be turned into a policy without changing what it means.
///
/// A control plane gets its text in the NACK, so it names the place and the flaw and never prints
/// more than a short piece of the resource.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct InvalidPolicy {
    /// Where in the resource.
    pub place: Place,
    /// What is wrong there.
    pub flaw: Flaw,
}

/// A place inside a policy, counted from zero; `None` is the level above.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Place {
    /// The rule.
    pub rule: Option<u32>,
    /// The clause of the rule.
    pub clause: Option<u32>,
    /// The match of the clause.
    pub matching: Option<u32>,
    /// The field, as the schema names it.
    pub field: Option<&'static str>,
}

/// What is wrong with a resource.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Flaw {
    /// An address that is neither 4 nor 16 bytes long, or a prefix longer than the address.
    #[error("{bytes} bytes with prefix length {prefix} are no address range")]
    AddressRange {
        /// Length of the address.
        bytes: usize,
        /// Length of the prefix in bits.
        prefix: u64,
    },
    /// An empty text where only a comparison with something makes sense.
    ///
    /// Dropping it would remove the condition; keeping it would match callers without an identity.
    #[error("the text to compare with is empty")]
    EmptyText,
    /// A flag that is neither 0 nor 1.
    #[error("{value} is neither true nor false")]
    Flag {
        /// The value on the wire.
        value: u64,
    },
    /// Not the wire format, or a field of another type than the schema's.
    #[error("malformed protobuf message")]
    Malformed,
    /// Namespace or name of the policy is empty, too long, or contains something unprintable.
    #[error("not a name of a policy")]
    Name,
    /// The resource's name is not `NAMESPACE/NAME` of its content.
    ///
    /// A workload lists policies by the resource's name; the reason of a denial prints it.
    #[error("the resource is named differently from its content")]
    NameMismatch,
    /// A text that is not UTF-8.
    #[error("not a text")]
    NotText,
    /// A string match that does not say how to compare.
    #[error("no kind of comparison")]
    NoComparison,
    /// A port beyond 65535.
    #[error("{value} is no port")]
    Port {
        /// The value on the wire.
        value: u64,
    },
    /// A field that may stand once stands twice: decoders differ in which one they take.
    #[error("given twice")]
    Repeated,
    /// A resource, or a list in it, beyond what this implementation accepts.
    #[error("larger than the limit of {limit}")]
    TooLarge {
        /// Bytes, or elements of the policy, that are accepted.
        limit: usize,
    },
    /// An action that this version does not know.
    #[error("unknown action {value}")]
    UnknownAction {
        /// The value on the wire.
        value: u64,
    },
    /// A field that this version does not know, and that might be a condition.
    #[error("unknown field {number} of {message}")]
    UnknownField {
        /// The message, as the schema names it.
        message: &'static str,
        /// The field's number.
        number: u32,
    },
    /// A scope that this version does not know.
    #[error("unknown scope {value}")]
    UnknownScope {
        /// The value on the wire.
        value: u64,
    },
}

impl InvalidPolicy {
    /// Whether the same bytes may convert another time: never.
    #[must_use]
    pub const fn is_safe_to_retry(&self) -> bool {
        false
    }

    /// Whose fault it is: the sender's, who is the peer of the control connection.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        Fault::Peer
    }

    pub(crate) const fn at(place: Place, flaw: Flaw) -> Self {
        Self { place, flaw }
    }
}

impl From<Flaw> for InvalidPolicy {
    fn from(flaw: Flaw) -> Self {
        Self::at(Place::default(), flaw)
    }
}

impl fmt::Display for InvalidPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.place, self.flaw)
    }
}

impl std::error::Error for InvalidPolicy {}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = [
            ("rule", self.rule),
            ("clause", self.clause),
            ("match", self.matching),
        ];
        for (what, number) in numbers {
            if let Some(number) = number {
                write!(f, "{what} {number}: ")?;
            }
        }
        self.field.map_or(Ok(()), |field| write!(f, "{field}: "))
    }
}

#[cfg(test)]
mod tests {
    use super::{Flaw, InvalidPolicy, Place};

    #[test]
    fn message_names_the_place_and_the_flaw_once() {
        let _trace = meshwright_testkit::trace();
        let place = Place {
            rule: Some(2),
            clause: Some(0),
            matching: Some(1),
            field: Some("source_ips"),
        };
        let invalid = InvalidPolicy::at(
            place,
            Flaw::AddressRange {
                bytes: 3,
                prefix: 8,
            },
        );
        assert_eq!(
            invalid.to_string(),
            "rule 2: clause 0: match 1: source_ips: 3 bytes with prefix length 8 are no address range"
        );
        meshwright_testkit::assert_chain_says_each_thing_once(&invalid);
        assert!(!invalid.is_safe_to_retry());
    }
}

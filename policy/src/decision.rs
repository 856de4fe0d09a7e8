//! What was decided, and why.

use std::{fmt, sync::Arc};

use meshwright_identity::Fault;

/// The answer about one connection.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Decision {
    /// The connection may be made.
    Allow,
    /// The connection must be refused.
    Deny(Denied),
    /// The workload lists a policy that has not arrived, and no known policy denies.
    ///
    /// A program holds a *new* connection for a while (Istio sends a policy and the workloads that
    /// list it in two messages) and then refuses it; it never cuts a *live* connection for this
    /// before the hold has ended.
    Unknown {
        /// The first listed policy that is not known.
        policy: Arc<str>,
    },
}

/// A connection was refused by policy.
///
/// `Display` is the text that Istio's node proxy logs, such as
/// `explicitly denied by: default/deny-legacy`.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Denied {
    /// The policy that decided; `None` if no policy in particular did.
    pub policy: Option<Arc<str>>,
    /// Why.
    pub reason: Reason,
}

/// Why a connection was refused.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Reason {
    /// A rule of a DENY policy matched.
    Explicit {
        /// The first rule that matches, counted from zero.
        rule: u32,
    },
    /// The workload is not, or no longer, known: nobody can say which policies apply.
    Gone,
    /// ALLOW policies apply and none of them matched.
    NotAllowed,
    /// A policy that the workload lists did not arrive.
    Unknown,
    /// A DENY policy could not be read and no earlier version of it is known: it matches always.
    Unreadable,
}

impl Decision {
    /// Whether the connection may be made.
    #[must_use]
    pub const fn is_allow(&self) -> bool {
        matches!(self, Self::Allow)
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allow => f.write_str("allowed"),
            Self::Deny(denied) => write!(f, "denied: {denied}"),
            Self::Unknown { policy } => write!(f, "held: policy {policy} has not arrived"),
        }
    }
}

impl Denied {
    pub(crate) const fn new(policy: Option<Arc<str>>, reason: Reason) -> Self {
        Self { policy, reason }
    }

    /// Whether the refusal is only for want of a policy that may still arrive: a new connection is
    /// then held for a while before it is refused.
    #[must_use]
    pub const fn is_hold(&self) -> bool {
        matches!(self.reason, Reason::Unknown)
    }

    /// Whether the same connection may be tried again at once: only if a policy was missing.
    #[must_use]
    pub const fn is_safe_to_retry(&self) -> bool {
        self.is_hold()
    }

    /// Whose fault it is: the caller was not allowed, or this side lacks a policy.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self.reason {
            Reason::Explicit { .. } | Reason::NotAllowed => Fault::Peer,
            Reason::Gone | Reason::Unknown | Reason::Unreadable => Fault::Local,
        }
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let policy = self.policy.as_deref().unwrap_or("unnamed");
        match self.reason {
            Reason::Explicit { .. } => write!(f, "explicitly denied by: {policy}"),
            Reason::Gone => f.write_str("the workload is not known"),
            Reason::NotAllowed => f.write_str("allow policies exist, but none allowed"),
            Reason::Unknown => write!(f, "policy is listed but not known: {policy}"),
            Reason::Unreadable => write!(f, "explicitly denied by: {policy} (not readable)"),
        }
    }
}

impl std::error::Error for Denied {}

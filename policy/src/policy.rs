//! One policy, ready for evaluation.

use std::sync::Arc;

use prost::Message;

use crate::{InvalidPolicy, matching::Rule, proto};

/// One authorization policy, checked and arranged for fast comparison.
///
/// Comes from [`convert`](crate::convert). Costs about its size on the wire three times over.
#[derive(Clone, Debug)]
pub struct Policy {
    pub(crate) name: Arc<str>,
    /// Length of the namespace inside `name`.
    pub(crate) namespace: usize,
    pub(crate) selects: Selects,
    pub(crate) action: Action,
    pub(crate) dry_run: bool,
    pub(crate) rules: Box<[Rule]>,
    pub(crate) wire: Box<[u8]>,
    pub(crate) invalid: Option<Arc<InvalidPolicy>>,
}

/// Whom a policy selects.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Scope {
    /// Every workload of the mesh.
    Global,
    /// The workloads of the policy's namespace.
    Namespace,
    /// The workloads that list the policy's name.
    WorkloadSelector,
}

/// What a match means.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Action {
    /// A match lets the connection through, and the existence of the policy refuses the rest.
    Allow,
    /// A match refuses the connection.
    Deny,
}

/// [`Scope`], or that it could not be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Selects {
    Scope(Scope),
    Unreadable,
}

impl Policy {
    /// The resource name, `NAMESPACE/NAME`, as workloads list it.
    #[must_use]
    pub const fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The policy's namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.name.get(..self.namespace).unwrap_or_default()
    }

    /// Whom it selects; `None` if that could not be read (see [`invalid`](Self::invalid)).
    #[must_use]
    pub const fn scope(&self) -> Option<Scope> {
        match self.selects {
            Selects::Scope(scope) => Some(scope),
            Selects::Unreadable => None,
        }
    }

    /// What a match means.
    #[must_use]
    pub const fn action(&self) -> Action {
        self.action
    }

    /// Whether it is only evaluated for the log and never enforced.
    #[must_use]
    pub const fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// Number of rules; a policy without rules never matches.
    #[must_use]
    pub const fn rule_count(&self) -> usize {
        self.rules.len()
    }

    /// Why this stands in for a policy that could not be read; `None` for a real one.
    ///
    /// A stand-in fails closed: as ALLOW it never matches and still counts as an ALLOW policy, as
    /// DENY it matches always.
    #[must_use]
    pub fn invalid(&self) -> Option<&InvalidPolicy> {
        self.invalid.as_deref()
    }

    /// The policy as it was received, decoded anew for each call: for dumps.
    ///
    /// Lists are in their original order. Empty for a stand-in.
    #[must_use]
    pub fn authorization(&self) -> proto::Authorization {
        // The bytes have been read completely before; a decoder that sees less cannot fail.
        proto::Authorization::decode(&*self.wire).unwrap_or_default()
    }

    /// Whether an ordinary decision looks at it.
    pub(crate) const fn is_enforced(&self) -> bool {
        !self.dry_run
    }
}

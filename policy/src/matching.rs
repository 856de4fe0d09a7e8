//! Rules, clauses, matches and conditions, and when each of them holds.
//!
//! A policy is an "or" of rules, a rule an "and" of clauses, a clause an "or" of matches, a match an
//! "and" of conditions, a condition a list of alternatives that must contain the connection's value
//! or, negated, must not. Nothing in between is negated, so a condition that cannot be evaluated
//! may be answered where it stands: see [`Unevaluable`].

use crate::{
    connection::Facts,
    values::{Accounts, Networks, Ports, Texts},
};

/// Joined by "and"; a rule without clauses holds always.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) clauses: Box<[Clause]>,
}

/// Joined by "or".
#[derive(Clone, Debug)]
pub(crate) struct Clause {
    pub(crate) matches: Box<[Match]>,
}

/// Joined by "and".
#[derive(Clone, Debug)]
pub(crate) struct Match {
    pub(crate) conditions: Box<[Condition]>,
}

#[derive(Clone, Debug)]
pub(crate) struct Condition {
    pub(crate) negated: bool,
    pub(crate) test: Test,
}

#[derive(Clone, Debug)]
pub(crate) enum Test {
    DestinationIps(Networks),
    DestinationPorts(Ports),
    Namespaces(Texts),
    Principals(Texts),
    ServiceAccounts(Accounts),
    SourceIps(Networks),
}

/// What counts when there is nothing to evaluate: a condition on an identity that the caller does
/// not have, a match whose fields were all stripped, a clause without matches.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Unevaluable {
    /// What Istio's node proxy makes of it: an absent identity equals nothing, so negated
    /// conditions on it hold; an empty match does not hold; an empty clause holds.
    AsIstio,
    /// It is taken to hold: the strict reading of a DENY policy.
    Holds,
    /// It is taken not to hold: the strict reading of an ALLOW policy.
    Fails,
}

impl Unevaluable {
    fn or(self, as_istio: bool) -> bool {
        match self {
            Self::AsIstio => as_istio,
            Self::Holds => true,
            Self::Fails => false,
        }
    }
}

impl Rule {
    pub(crate) fn holds(&self, facts: &Facts<'_>, unevaluable: Unevaluable) -> bool {
        self.clauses
            .iter()
            .all(|clause| clause.holds(facts, unevaluable))
    }
}

impl Clause {
    pub(crate) fn holds(&self, facts: &Facts<'_>, unevaluable: Unevaluable) -> bool {
        if self.matches.is_empty() {
            return unevaluable.or(true);
        }
        self.matches
            .iter()
            .any(|matching| matching.holds(facts, unevaluable))
    }
}

impl Match {
    pub(crate) fn holds(&self, facts: &Facts<'_>, unevaluable: Unevaluable) -> bool {
        if self.conditions.is_empty() {
            return unevaluable.or(false);
        }
        self.conditions
            .iter()
            .all(|condition| condition.holds(facts, unevaluable))
    }
}

impl Condition {
    pub(crate) fn holds(&self, facts: &Facts<'_>, unevaluable: Unevaluable) -> bool {
        if unevaluable != Unevaluable::AsIstio && !self.is_evaluable(facts) {
            return unevaluable.or(false);
        }
        self.test.contains_value_of(facts) != self.negated
    }

    /// Whether the connection has a value to compare. Presence needs none: absence answers it.
    fn is_evaluable(&self, facts: &Facts<'_>) -> bool {
        match &self.test {
            Test::Principals(texts) => facts.principal.is_some() || texts.is_presence_only(),
            Test::Namespaces(texts) => facts.account.is_some() || texts.is_presence_only(),
            Test::ServiceAccounts(_) => facts.account.is_some(),
            Test::DestinationIps(_) | Test::DestinationPorts(_) | Test::SourceIps(_) => true,
        }
    }

    /// The field's name in the schema.
    pub(crate) const fn field(&self) -> &'static str {
        match (&self.test, self.negated) {
            (Test::DestinationIps(_), false) => "destination_ips",
            (Test::DestinationIps(_), true) => "not_destination_ips",
            (Test::DestinationPorts(_), false) => "destination_ports",
            (Test::DestinationPorts(_), true) => "not_destination_ports",
            (Test::Namespaces(_), false) => "namespaces",
            (Test::Namespaces(_), true) => "not_namespaces",
            (Test::Principals(_), false) => "principals",
            (Test::Principals(_), true) => "not_principals",
            (Test::ServiceAccounts(_), false) => "service_accounts",
            (Test::ServiceAccounts(_), true) => "not_service_accounts",
            (Test::SourceIps(_), false) => "source_ips",
            (Test::SourceIps(_), true) => "not_source_ips",
        }
    }
}

impl Test {
    fn contains_value_of(&self, facts: &Facts<'_>) -> bool {
        match self {
            Self::DestinationIps(networks) => networks.contains(facts.destination_ip),
            Self::DestinationPorts(ports) => ports.contains(facts.destination_port),
            Self::Namespaces(texts) => facts
                .account
                .is_some_and(|(namespace, _)| texts.contains(namespace)),
            Self::Principals(texts) => facts
                .principal
                .is_some_and(|principal| texts.contains(principal)),
            Self::ServiceAccounts(accounts) => facts
                .account
                .is_some_and(|account| accounts.contains(account)),
            Self::SourceIps(networks) => networks.contains(facts.source_ip),
        }
    }
}

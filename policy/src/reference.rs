//! The semantics once more, written to be read and compared with, not to be fast.
//!
//! It walks the decoded messages from the first policy to the last, knows nothing of indexes or of
//! arranged values, and shares no code with the engine but the types of its answer. Messages are
//! expected to convert; how the others are treated is not a matter of evaluation.

use std::{net::IpAddr, sync::Arc};

use crate::{
    Connection, Decision, Denied, Mode, Reason,
    proto::{
        Action, Address, Authorization, Clause, Match, Rule, Scope, StringMatch,
        string_match::MatchType,
    },
};

/// Decides as the engine must.
#[must_use]
pub fn decide(policies: &[Authorization], connection: &Connection<'_>, mode: Mode) -> Decision {
    let subject = connection.workload;
    let name_of = |policy: &Authorization| format!("{}/{}", policy.namespace, policy.name);
    let mut ordered: Vec<&Authorization> = policies.iter().collect();
    ordered.sort_by_key(|policy| name_of(policy));
    let mut applying: Vec<&Authorization> = Vec::new();
    applying.extend(
        ordered
            .iter()
            .filter(|policy| policy.scope() == Scope::Global),
    );
    applying.extend(ordered.iter().filter(|policy| {
        policy.scope() == Scope::Namespace && policy.namespace == subject.namespace
    }));
    let mut unknown = None;
    for listed in subject.policies {
        match ordered.iter().find(|policy| name_of(policy) == **listed) {
            Some(policy) if applying.iter().any(|known| name_of(known) == **listed) => {
                debug_assert!(!name_of(policy).is_empty());
            }
            Some(policy) => applying.push(policy),
            None => unknown = unknown.or_else(|| Some(Arc::clone(listed))),
        }
    }
    applying.retain(|policy| !policy.dry_run);
    let caller = Caller::new(connection, mode);
    for policy in applying
        .iter()
        .filter(|policy| policy.action() == Action::Deny)
    {
        if let Some(rule) = policy
            .rules
            .iter()
            .position(|rule| caller.rule(rule, Action::Deny))
        {
            let rule = u32::try_from(rule).unwrap_or(u32::MAX);
            return Decision::Deny(Denied::new(
                Some(name_of(policy).into()),
                Reason::Explicit { rule },
            ));
        }
    }
    if let Some(policy) = unknown {
        return Decision::Unknown { policy };
    }
    let mut allows = applying
        .iter()
        .filter(|policy| policy.action() == Action::Allow)
        .peekable();
    if allows.peek().is_none()
        || allows.any(|policy| {
            policy
                .rules
                .iter()
                .any(|rule| caller.rule(rule, Action::Allow))
        })
    {
        return Decision::Allow;
    }
    Decision::Deny(Denied::new(None, Reason::NotAllowed))
}

/// The connection's values and how open ends are read.
struct Caller {
    principal: Option<String>,
    namespace: Option<String>,
    account: Option<String>,
    source: IpAddr,
    destination: IpAddr,
    port: u32,
    mode: Mode,
}

impl Caller {
    fn new(connection: &Connection<'_>, mode: Mode) -> Self {
        let workload = connection.source.and_then(|id| id.workload());
        Self {
            principal: connection
                .source
                .map(|id| id.as_str().replacen("spiffe://", "", 1)),
            namespace: workload.map(|workload| workload.namespace.to_owned()),
            account: workload.map(|workload| workload.service_account.to_owned()),
            source: connection.source_ip.to_canonical(),
            destination: connection.destination.ip().to_canonical(),
            port: connection.destination.port().into(),
            mode,
        }
    }

    /// What is said where nothing can be evaluated.
    fn open(&self, as_istio: bool, action: Action) -> bool {
        match self.mode {
            Mode::IstioCompatible => as_istio,
            Mode::Strict => action == Action::Deny,
        }
    }

    fn rule(&self, rule: &Rule, action: Action) -> bool {
        rule.clauses
            .iter()
            .all(|clause| self.clause(clause, action))
    }

    fn clause(&self, clause: &Clause, action: Action) -> bool {
        if clause.matches.is_empty() {
            return self.open(true, action);
        }
        clause
            .matches
            .iter()
            .any(|matching| self.matching(matching, action))
    }

    fn matching(&self, matching: &Match, action: Action) -> bool {
        if *matching == Match::default() {
            return self.open(false, action);
        }
        let namespace = self.namespace.as_deref();
        let principal = self.principal.as_deref();
        let ports = |list: &[u32]| list.contains(&self.port);
        let accounts = |list: &[crate::proto::ServiceAccountMatch]| {
            list.iter().any(|wanted| {
                namespace == Some(&wanted.namespace)
                    && self.account.as_ref() == Some(&wanted.service_account)
            })
        };
        let account_positive = match (&self.account, matching.service_accounts.is_empty()) {
            (_, true) => true,
            (None, false) => self.open(false, action),
            (Some(_), false) => accounts(&matching.service_accounts),
        };
        let account_negative = match (&self.account, matching.not_service_accounts.is_empty()) {
            (_, true) => true,
            (None, false) => self.open(true, action),
            (Some(_), false) => !accounts(&matching.not_service_accounts),
        };
        self.texts(&matching.namespaces, namespace, false, action)
            && self.texts(&matching.not_namespaces, namespace, true, action)
            && self.texts(&matching.principals, principal, false, action)
            && self.texts(&matching.not_principals, principal, true, action)
            && (matching.source_ips.is_empty() || any_contains(&matching.source_ips, self.source))
            && !any_contains(&matching.not_source_ips, self.source)
            && (matching.destination_ips.is_empty()
                || any_contains(&matching.destination_ips, self.destination))
            && !any_contains(&matching.not_destination_ips, self.destination)
            && (matching.destination_ports.is_empty() || ports(&matching.destination_ports))
            && !ports(&matching.not_destination_ports)
            && account_positive
            && account_negative
    }

    fn texts(
        &self,
        list: &[StringMatch],
        value: Option<&str>,
        negated: bool,
        action: Action,
    ) -> bool {
        if list.is_empty() {
            return true;
        }
        let only_presence = list
            .iter()
            .all(|wanted| matches!(wanted.match_type, Some(MatchType::Presence(()))));
        match value {
            Some(value) => list.iter().any(|wanted| fits(wanted, value)) != negated,
            None if only_presence => negated,
            None => self.open(negated, action),
        }
    }
}

fn fits(wanted: &StringMatch, value: &str) -> bool {
    match &wanted.match_type {
        Some(MatchType::Exact(text)) => value == text,
        Some(MatchType::Prefix(text)) => value.starts_with(text.as_str()),
        Some(MatchType::Suffix(text)) => value.ends_with(text.as_str()),
        Some(MatchType::Presence(())) => !value.is_empty(),
        None => false,
    }
}

fn any_contains(list: &[Address], address: IpAddr) -> bool {
    list.iter().any(|range| contains(range, address))
}

/// Compares bit by bit.
fn contains(range: &Address, address: IpAddr) -> bool {
    let mut network = range.address.to_vec();
    let mut length = range.length as usize;
    if network.len() == 16 && network.starts_with(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]) {
        network.drain(..12);
        length = length.saturating_sub(96);
    }
    let address = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let bits = |bytes: &[u8]| -> Vec<bool> {
        bytes
            .iter()
            .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1))
            .collect()
    };
    network.len() == address.len()
        && bits(&network)
            .iter()
            .zip(bits(&address))
            .take(length)
            .all(|(one, other)| *one == other)
}

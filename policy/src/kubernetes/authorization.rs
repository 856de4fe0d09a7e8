//! One `AuthorizationPolicy`.

use std::collections::BTreeSet;

use super::{
    AuthorizationPolicy, Condition, From, Note, NoteKind, Operation, Problem, Rule, Source, To,
    patterns::{self, Faults},
};
use crate::{
    policy,
    proto::{self, Action, Authorization, Clause, Match, Scope},
};

/// Translates a policy; `None` if it is nothing for a node proxy.
pub(super) fn translate(
    object: &AuthorizationPolicy,
    root_namespace: &str,
    faults: &mut Faults<'_>,
    notes: &mut Vec<Note>,
) -> Option<Authorization> {
    let spec = &object.spec;
    let metadata = &object.metadata;
    let has_target = spec.target_ref.is_some() || !spec.target_refs.is_empty();
    if has_target && spec.selector.is_some() {
        faults.add("spec.selector", Problem::Exclusive("targetRefs"));
    }
    let action = action(spec.action.as_deref(), faults);
    // Faults are looked for in policies that are not sent, too.
    let mut left_out = BTreeSet::new();
    let is_allow = action == Ok(Action::Allow);
    let rules = rules(object, is_allow, faults, &mut left_out);
    let note = |kind| Note {
        policy: format!("{}/{}", metadata.namespace, metadata.name),
        kind,
    };
    if is_dry_run(object, faults) {
        notes.push(note(NoteKind::DryRun));
        return None;
    }
    if has_target {
        return None;
    }
    let action = match action {
        Ok(action) => action,
        Err(other) => {
            notes.extend(other.map(|action| note(NoteKind::Action(action))));
            return None;
        }
    };
    if !left_out.is_empty() {
        let attributes = left_out.into_iter().collect();
        let action = if is_allow {
            policy::Action::Allow
        } else {
            policy::Action::Deny
        };
        notes.push(note(NoteKind::HttpAttributes { attributes, action }));
    }
    let scope = match spec.selector {
        Some(_) => Scope::WorkloadSelector,
        None if metadata.namespace == root_namespace => Scope::Global,
        None => Scope::Namespace,
    };
    Some(Authorization {
        name: metadata.name.clone(),
        namespace: metadata.namespace.clone(),
        scope: scope.into(),
        action: action.into(),
        rules,
        dry_run: false,
    })
}

/// The action of a connection policy, or the other one (`None` if it is unknown).
fn action(action: Option<&str>, faults: &mut Faults<'_>) -> Result<Action, Option<&'static str>> {
    match action {
        None | Some("ALLOW") => Ok(Action::Allow),
        Some("DENY") => Ok(Action::Deny),
        Some("AUDIT") => Err(Some("AUDIT")),
        Some("CUSTOM") => Err(Some("CUSTOM")),
        Some(other) => {
            faults.add("spec.action", Problem::Action(other.to_owned()));
            Err(None)
        }
    }
}

fn is_dry_run(policy: &AuthorizationPolicy, faults: &mut Faults<'_>) -> bool {
    const ANNOTATION: &str = "istio.io/dry-run";
    match policy
        .metadata
        .annotations
        .get(ANNOTATION)
        .map(String::as_str)
    {
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => true,
        None | Some("" | "0" | "f" | "F" | "false" | "FALSE" | "False") => false,
        Some(other) => {
            let path = format_args!("metadata.annotations[{ANNOTATION}]");
            faults.add(path, Problem::Flag(other.to_owned()));
            false
        }
    }
}

fn rules(
    policy: &AuthorizationPolicy,
    is_allow: bool,
    faults: &mut Faults<'_>,
    left_out: &mut BTreeSet<String>,
) -> Vec<proto::Rule> {
    let mut rules = Vec::new();
    for (place, rule) in policy.spec.rules.iter().enumerate() {
        let mut http = BTreeSet::new();
        let mut reader = RuleReader {
            path: format!("spec.rules[{place}]"),
            namespace: &policy.metadata.namespace,
            faults,
            http: &mut http,
        };
        let clauses = reader.clauses(rule);
        // An ALLOW rule with a condition that is not kept must not match at all; a DENY rule
        // without it matches more, which is the safe side.
        if http.is_empty() || !is_allow {
            rules.push(proto::Rule { clauses });
        }
        left_out.append(&mut http);
    }
    rules
}

struct RuleReader<'a, 'b> {
    path: String,
    namespace: &'a str,
    faults: &'a mut Faults<'b>,
    /// Attributes that were left out.
    http: &'a mut BTreeSet<String>,
}

impl RuleReader<'_, '_> {
    /// Operations, then sources, then a clause for each condition: the order of istiod.
    fn clauses(&mut self, rule: &Rule) -> Vec<Clause> {
        let mut clauses = Vec::new();
        if let Some(to) = &rule.to {
            clauses.extend(self.operations(to));
        }
        if let Some(from) = &rule.from {
            clauses.extend(self.sources(from));
        }
        for (place, condition) in rule.when.iter().enumerate() {
            let path = format!("{}.when[{place}]", self.path);
            let matching = self.condition(&path, condition);
            clauses.push(Clause {
                matches: vec![matching],
            });
        }
        clauses
    }

    fn operations(&mut self, to: &[To]) -> Option<Clause> {
        if to.is_empty() {
            self.faults
                .add(format_args!("{}.to", self.path), Problem::Empty);
            return None;
        }
        let matches = to.iter().enumerate().map(|(place, to)| {
            let path = format!("{}.to[{place}].operation", self.path);
            self.operation(&path, &to.operation)
        });
        Some(Clause {
            matches: matches.collect(),
        })
    }

    fn operation(&mut self, path: &str, operation: &Operation) -> Match {
        if operation.is_empty() {
            self.faults.add(path, Problem::Empty);
        }
        self.leave_out(&[
            ("hosts", &operation.hosts),
            ("notHosts", &operation.not_hosts),
            ("methods", &operation.methods),
            ("notMethods", &operation.not_methods),
            ("paths", &operation.paths),
            ("notPaths", &operation.not_paths),
        ]);
        let faults = &mut *self.faults;
        Match {
            destination_ports: faults.list(
                &format!("{path}.ports"),
                &operation.ports,
                patterns::port,
            ),
            not_destination_ports: faults.list(
                &format!("{path}.notPorts"),
                &operation.not_ports,
                patterns::port,
            ),
            ..Match::default()
        }
    }

    fn sources(&mut self, from: &[From]) -> Option<Clause> {
        if from.is_empty() {
            self.faults
                .add(format_args!("{}.from", self.path), Problem::Empty);
            return None;
        }
        let matches = from.iter().enumerate().map(|(place, from)| {
            let path = format!("{}.from[{place}].source", self.path);
            self.source(&path, &from.source)
        });
        Some(Clause {
            matches: matches.collect(),
        })
    }

    fn source(&mut self, path: &str, source: &Source) -> Match {
        if source.is_empty() {
            self.faults.add(path, Problem::Empty);
        }
        let has_accounts =
            !source.service_accounts.is_empty() || !source.not_service_accounts.is_empty();
        let identity = [
            &source.principals,
            &source.not_principals,
            &source.namespaces,
            &source.not_namespaces,
        ];
        if has_accounts && identity.iter().any(|list| !list.is_empty()) {
            let path = format_args!("{path}.serviceAccounts");
            self.faults
                .add(path, Problem::Exclusive("principals or namespaces"));
        }
        self.leave_out(&[
            ("remoteIpBlocks", &source.remote_ip_blocks),
            ("notRemoteIpBlocks", &source.not_remote_ip_blocks),
            ("requestPrincipals", &source.request_principals),
            ("notRequestPrincipals", &source.not_request_principals),
            ("trustDomains", &source.trust_domains),
            ("notTrustDomains", &source.not_trust_domains),
        ]);
        let account = |value: &str| patterns::service_account(value, self.namespace);
        let faults = &mut *self.faults;
        let at = |field: &str| format!("{path}.{field}");
        Match {
            namespaces: faults.list(&at("namespaces"), &source.namespaces, patterns::text),
            not_namespaces: faults.list(
                &at("notNamespaces"),
                &source.not_namespaces,
                patterns::text,
            ),
            principals: faults.list(&at("principals"), &source.principals, patterns::principal),
            not_principals: faults.list(
                &at("notPrincipals"),
                &source.not_principals,
                patterns::principal,
            ),
            source_ips: faults.list(&at("ipBlocks"), &source.ip_blocks, patterns::address),
            not_source_ips: faults.list(
                &at("notIpBlocks"),
                &source.not_ip_blocks,
                patterns::address,
            ),
            service_accounts: faults.list(
                &at("serviceAccounts"),
                &source.service_accounts,
                account,
            ),
            not_service_accounts: faults.list(
                &at("notServiceAccounts"),
                &source.not_service_accounts,
                account,
            ),
            ..Match::default()
        }
    }

    fn condition(&mut self, path: &str, condition: &Condition) -> Match {
        let Condition {
            key,
            values,
            not_values,
        } = condition;
        if values.is_empty() && not_values.is_empty() {
            self.faults.add(path, Problem::Empty);
        }
        let faults = &mut *self.faults;
        let (yes, no) = (format!("{path}.values"), format!("{path}.notValues"));
        let mut matching = Match::default();
        match key.as_str() {
            "source.ip" => {
                matching.source_ips = faults.list(&yes, values, patterns::address);
                matching.not_source_ips = faults.list(&no, not_values, patterns::address);
            }
            "source.namespace" => {
                matching.namespaces = faults.list(&yes, values, patterns::text);
                matching.not_namespaces = faults.list(&no, not_values, patterns::text);
            }
            "source.principal" => {
                matching.principals = faults.list(&yes, values, patterns::principal);
                matching.not_principals = faults.list(&no, not_values, patterns::principal);
            }
            "destination.ip" => {
                matching.destination_ips = faults.list(&yes, values, patterns::address);
                matching.not_destination_ips = faults.list(&no, not_values, patterns::address);
            }
            "destination.port" => {
                matching.destination_ports = faults.list(&yes, values, patterns::port);
                matching.not_destination_ports = faults.list(&no, not_values, patterns::port);
            }
            other if is_attribute(other) => {
                self.http.insert(other.to_owned());
            }
            other => faults.add(
                format_args!("{path}.key"),
                Problem::Attribute(other.to_owned()),
            ),
        }
        matching
    }

    fn leave_out(&mut self, fields: &[(&str, &Vec<String>)]) {
        let given = fields.iter().filter(|(_, values)| !values.is_empty());
        self.http.extend(given.map(|&(name, _)| name.to_owned()));
    }
}

/// Attributes that exist but are not known when a connection is made.
fn is_attribute(key: &str) -> bool {
    const ATTRIBUTES: [&str; 8] = [
        "connection.sni",
        "remote.ip",
        "request.auth.audiences",
        "request.auth.presenter",
        "request.auth.principal",
        "source.serviceAccount",
        "source.trustDomain",
        "request.auth.claims",
    ];
    const FAMILIES: [&str; 3] = [
        "request.headers[",
        "request.auth.claims[",
        "experimental.envoy.filters.",
    ];
    ATTRIBUTES.contains(&key) || FAMILIES.iter().any(|family| key.starts_with(family))
}

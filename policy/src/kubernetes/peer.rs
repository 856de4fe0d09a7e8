//! `PeerAuthentication`: who may still send plaintext, as DENY policies.

use super::{PeerAuthentication, Problem, Selector, patterns::Faults};
use crate::proto::{
    Action, Authorization, Clause, Match, Rule, Scope, StringMatch, string_match::MatchType,
};

/// Name of the policy that refuses all plaintext, in the root namespace.
const STATIC_STRICT: &str = "istio_converted_static_strict";

/// Prefix of the names of policies that are made from port-level modes.
const CONVERTED: &str = "converted_peer_authentication_";

/// A mode of mutual TLS. `DISABLE` is no mode in which a node proxy can work and counts as
/// `PERMISSIVE`, but for one place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mode {
    Unset,
    Disable,
    Permissive,
    Strict,
}

impl Mode {
    const fn is_lenient(self) -> bool {
        matches!(self, Self::Disable | Self::Permissive)
    }

    /// What holds here if `self` was said here and `parent` above.
    const fn or(self, parent: Self) -> Self {
        match self {
            Self::Unset => parent,
            said => said,
        }
    }
}

/// A `PeerAuthentication` that has been read.
#[derive(Debug)]
pub(super) struct Peer<'a> {
    namespace: &'a str,
    name: &'a str,
    created: &'a str,
    /// `None` for the whole namespace, or for the mesh.
    selector: Option<&'a Selector>,
    mode: Mode,
    ports: Vec<(u32, Mode)>,
}

impl<'a> Peer<'a> {
    pub(super) fn read(object: &'a PeerAuthentication, faults: &mut Faults<'_>) -> Self {
        let spec = &object.spec;
        let selector = spec
            .selector
            .as_ref()
            .filter(|selector| !selector.match_labels.is_empty());
        if selector.is_none() && !spec.port_level_mtls.is_empty() {
            faults.add("spec.portLevelMtls", Problem::PortsWithoutSelector);
        }
        let said = spec.mtls.as_ref().and_then(|mtls| mtls.mode.as_deref());
        let mode = mode(said, "spec.mtls.mode", faults);
        let ports = spec.port_level_mtls.iter().map(|(&port, mtls)| {
            if port == 0 {
                faults.add("spec.portLevelMtls", Problem::Port(port.to_string()));
            }
            let path = format!("spec.portLevelMtls[{port}].mode");
            (
                u32::from(port),
                self::mode(mtls.mode.as_deref(), &path, faults),
            )
        });
        Self {
            namespace: &object.metadata.namespace,
            name: &object.metadata.name,
            created: object
                .metadata
                .creation_timestamp
                .as_deref()
                .unwrap_or_default(),
            selector,
            mode,
            ports: ports.collect(),
        }
    }

    fn selects(&self, label: &dyn Fn(&str) -> Option<String>) -> bool {
        let all = |selector: &Selector| {
            selector
                .match_labels
                .iter()
                .all(|(name, value)| label(name).as_deref() == Some(value))
        };
        self.selector.is_some_and(all)
    }
}

fn mode(said: Option<&str>, path: &str, faults: &mut Faults<'_>) -> Mode {
    match said {
        None | Some("UNSET") => Mode::Unset,
        Some("DISABLE") => Mode::Disable,
        Some("PERMISSIVE") => Mode::Permissive,
        Some("STRICT") => Mode::Strict,
        Some(other) => {
            faults.add(path, Problem::Mode(other.to_owned()));
            Mode::Unset
        }
    }
}

/// All peer authentications of a mesh.
#[derive(Debug)]
pub(super) struct Peers<'a> {
    root: &'a str,
    all: Vec<Peer<'a>>,
}

impl<'a> Peers<'a> {
    pub(super) const fn new(root: &'a str, all: Vec<Peer<'a>>) -> Self {
        Self { root, all }
    }

    /// The policies that follow from them.
    pub(super) fn authorizations(&self) -> Vec<Authorization> {
        let mut policies: Vec<_> = self
            .all
            .iter()
            .filter_map(|peer| self.port_level(peer))
            .collect();
        // istiod sends it as soon as there is any, whether somebody needs it or not.
        if !self.all.is_empty() {
            let refused = Rule {
                clauses: vec![without_identity()],
            };
            policies.push(deny(self.root, STATIC_STRICT.to_owned(), vec![refused]));
        }
        policies
    }

    /// The names of those that a workload lists.
    pub(super) fn listed_by(
        &self,
        namespace: &str,
        label: &dyn Fn(&str) -> Option<String>,
    ) -> Vec<String> {
        let parent = self.of_namespace(namespace);
        let strict = format!("{}/{STATIC_STRICT}", self.root);
        let own = self
            .all
            .iter()
            .filter(|peer| peer.namespace == namespace && namespace != self.root);
        let Some(peer) = own
            .filter(|peer| peer.selects(label))
            .min_by_key(|peer| peer.created)
        else {
            return if parent == Mode::Strict {
                vec![strict]
            } else {
                Vec::new()
            };
        };
        let mode = peer.mode.or(parent);
        let has = |wanted: &[Mode]| peer.ports.iter().any(|(_, mode)| wanted.contains(mode));
        let port_level = || vec![format!("{namespace}/{CONVERTED}{}", peer.name)];
        match (peer.mode, mode) {
            (Mode::Strict, _) if has(&[Mode::Permissive, Mode::Disable]) => port_level(),
            // istiod makes no exception for DISABLE here; what stays strict is safe.
            (Mode::Unset, Mode::Strict) if has(&[Mode::Permissive]) => port_level(),
            (_, Mode::Strict) => vec![strict],
            _ if has(&[Mode::Strict]) => port_level(),
            _ => Vec::new(),
        }
    }

    /// The mode of a namespace: its own, else the mesh's. The oldest object counts.
    fn of_namespace(&self, namespace: &str) -> Mode {
        let said = |namespace: &str| {
            let peers = self
                .all
                .iter()
                .filter(|peer| peer.selector.is_none() && peer.namespace == namespace);
            peers
                .min_by_key(|peer| peer.created)
                .map_or(Mode::Unset, |peer| peer.mode)
        };
        said(namespace).or(said(self.root))
    }

    /// The policy made from modes of single ports: plaintext is refused on strict ports, and, if
    /// the rest is strict, on all ports but the lenient ones.
    fn port_level(&self, peer: &Peer<'_>) -> Option<Authorization> {
        if peer.namespace == self.root || peer.selector.is_none() {
            return None;
        }
        let parent = self.of_namespace(peer.namespace);
        let is_strict = peer.mode.or(parent) == Mode::Strict;
        let mut rules = Vec::new();
        let mut exceptions = Vec::new();
        for &(port, mode) in &peer.ports {
            if mode == Mode::Strict && !is_strict {
                rules.push(Rule {
                    clauses: vec![without_identity_on(port)],
                });
            } else if mode.is_lenient() && is_strict {
                exceptions.push(clause(Match {
                    not_destination_ports: vec![port],
                    ..Match::default()
                }));
            }
        }
        if !exceptions.is_empty() {
            let mut clauses = Vec::new();
            // istiod says it once for the workload's own mode and once for the inherited one.
            clauses.extend((peer.mode == Mode::Strict).then(without_identity));
            clauses.append(&mut exceptions);
            clauses.extend((parent == Mode::Strict).then(without_identity));
            rules.push(Rule { clauses });
        }
        (!rules.is_empty())
            .then(|| deny(peer.namespace, format!("{CONVERTED}{}", peer.name), rules))
    }
}

fn deny(namespace: &str, name: String, rules: Vec<Rule>) -> Authorization {
    Authorization {
        name,
        namespace: namespace.to_owned(),
        scope: Scope::WorkloadSelector.into(),
        action: Action::Deny.into(),
        rules,
        dry_run: false,
    }
}

/// Holds for callers without an identity: for plaintext.
fn without_identity() -> Clause {
    clause(Match {
        not_principals: vec![present()],
        ..Match::default()
    })
}

fn without_identity_on(port: u32) -> Clause {
    clause(Match {
        not_principals: vec![present()],
        destination_ports: vec![port],
        ..Match::default()
    })
}

fn clause(matching: Match) -> Clause {
    Clause {
        matches: vec![matching],
    }
}

const fn present() -> StringMatch {
    StringMatch {
        match_type: Some(MatchType::Presence(())),
    }
}

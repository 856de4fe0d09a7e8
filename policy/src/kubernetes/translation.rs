//! All objects of a mesh together.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{
    InvalidObjects, Metadata, Objects, Problem, authorization,
    patterns::Faults,
    peer::{Peer, Peers},
};
use crate::{
    policy::Action,
    proto::{Authorization, Scope},
};

/// The resources for a set of objects, and who lists which.
#[derive(Debug)]
pub struct Translation<'a> {
    authorizations: Vec<Authorization>,
    notes: Vec<Note>,
    /// By resource name.
    selected: Vec<Selected<'a>>,
    peers: Peers<'a>,
    root_namespace: &'a str,
}

/// A selector policy.
#[derive(Debug)]
struct Selected<'a> {
    namespace: &'a str,
    name: String,
    labels: Option<&'a BTreeMap<String, String>>,
}

/// Something that an operator should know about a policy that is valid.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Note {
    /// `NAMESPACE/NAME` of the object.
    pub policy: String,
    /// What.
    pub kind: NoteKind,
}

/// What there is to know.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum NoteKind {
    /// Its action is nothing for a node proxy.
    Action(&'static str),
    /// It is a dry run, which a node proxy is not sent.
    DryRun,
    /// Some of its conditions are not known when a connection is made.
    HttpAttributes {
        /// The fields and attributes.
        attributes: Vec<String>,
        /// In an ALLOW policy the rules with such conditions never match; in a DENY policy the
        /// conditions are ignored.
        action: Action,
    },
}

/// Translates all objects of a mesh whose root namespace (`istio-system` usually) is given.
///
/// # Errors
///
/// Returns every field of every object that cannot be translated exactly.
pub fn translate<'a>(
    objects: &'a Objects,
    root_namespace: &'a str,
) -> Result<Translation<'a>, InvalidObjects> {
    let mut found = Vec::new();
    let mut notes = Vec::new();
    let mut authorizations = Vec::new();
    let mut selected = Vec::new();
    let mut seen = BTreeSet::new();
    for policy in &objects.authorization_policies {
        let mut faults = Faults {
            kind: "AuthorizationPolicy",
            metadata: &policy.metadata,
            found: &mut found,
        };
        check_name(&policy.metadata, &mut seen, &mut faults);
        let Some(authorization) =
            authorization::translate(policy, root_namespace, &mut faults, &mut notes)
        else {
            continue;
        };
        if authorization.scope() == Scope::WorkloadSelector {
            selected.push(Selected {
                namespace: &policy.metadata.namespace,
                name: resource_name(&authorization),
                labels: policy
                    .spec
                    .selector
                    .as_ref()
                    .map(|selector| &selector.match_labels),
            });
        }
        authorizations.push(authorization);
    }
    let mut peers = Vec::new();
    seen.clear();
    for peer in &objects.peer_authentications {
        let mut faults = Faults {
            kind: "PeerAuthentication",
            metadata: &peer.metadata,
            found: &mut found,
        };
        check_name(&peer.metadata, &mut seen, &mut faults);
        peers.push(Peer::read(peer, &mut faults));
    }
    if !found.is_empty() {
        return Err(InvalidObjects::new(found));
    }
    let peers = Peers::new(root_namespace, peers);
    authorizations.extend(peers.authorizations());
    authorizations
        .sort_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
    selected.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(Translation {
        authorizations,
        notes,
        selected,
        peers,
        root_namespace,
    })
}

fn check_name<'a>(
    metadata: &'a Metadata,
    seen: &mut BTreeSet<(&'a str, &'a str)>,
    faults: &mut Faults<'_>,
) {
    if metadata.name.is_empty() {
        faults.add("metadata.name", Problem::Empty);
    }
    if metadata.namespace.is_empty() {
        faults.add("metadata.namespace", Problem::Empty);
    }
    if !seen.insert((&metadata.namespace, &metadata.name)) {
        faults.add("metadata.name", Problem::Duplicate);
    }
}

fn resource_name(authorization: &Authorization) -> String {
    format!("{}/{}", authorization.namespace, authorization.name)
}

impl Translation<'_> {
    /// The resources, by namespace and name.
    #[must_use]
    pub fn authorizations(&self) -> &[Authorization] {
        &self.authorizations
    }

    /// What an operator should know.
    #[must_use]
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The resource names that a workload with these labels lists, in the order of istiod.
    ///
    /// Selector policies of its own and of the root namespace by name, then what follows from peer
    /// authentication. A selector without labels picks every workload of its namespace (istiod
    /// sends such a policy and lets no workload list it).
    pub fn listed_by<S: Into<String>>(
        &self,
        namespace: &str,
        label: impl Fn(&str) -> Option<S>,
    ) -> Vec<String> {
        let label = |name: &str| label(name).map(Into::into);
        let selected = self.selected.iter().filter(|policy| {
            let is_near = policy.namespace == namespace || policy.namespace == self.root_namespace;
            let all = |labels: &BTreeMap<String, String>| {
                labels
                    .iter()
                    .all(|(name, value)| label(name).as_ref() == Some(value))
            };
            is_near && policy.labels.is_none_or(all)
        });
        let mut names: Vec<String> = selected.map(|policy| policy.name.clone()).collect();
        names.extend(self.peers.listed_by(namespace, &label));
        names
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.policy, self.kind)
    }
}

impl fmt::Display for NoteKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Action(action) => write!(f, "{action} is nothing for a node proxy"),
            Self::DryRun => f.write_str("a dry run is not sent to a node proxy"),
            Self::HttpAttributes { attributes, action } => {
                let attributes = attributes.join(", ");
                match action {
                    Action::Allow => write!(
                        f,
                        "rules with {attributes} allow nothing without a waypoint"
                    ),
                    Action::Deny => write!(f, "{attributes} are not looked at without a waypoint"),
                }
            }
        }
    }
}

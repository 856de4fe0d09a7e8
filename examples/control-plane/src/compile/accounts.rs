//! Which service accounts run on which node: what a node proxy may ask certificates for.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::manifest::Objects;

/// Namespace and name of a service account.
type Account = (Arc<str>, Arc<str>);

/// Service accounts by node.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Accounts {
    nodes: BTreeMap<Arc<str>, BTreeSet<Account>>,
}

impl Accounts {
    pub(super) fn new(objects: &Objects) -> Self {
        let mut nodes: BTreeMap<_, BTreeSet<Account>> = BTreeMap::new();
        for instance in objects.instances.iter().map(|located| &located.value) {
            if !instance.ended && !instance.node.is_empty() {
                nodes
                    .entry(Arc::clone(&instance.node))
                    .or_default()
                    .insert((
                        Arc::clone(&instance.metadata.namespace),
                        Arc::clone(&instance.service_account),
                    ));
            }
        }
        Self { nodes }
    }

    /// Whether some pod of this service account runs on the node.
    #[must_use]
    pub fn runs_on(&self, node: &str, namespace: &str, service_account: &str) -> bool {
        let account = (Arc::from(namespace), Arc::from(service_account));
        self.nodes
            .get(node)
            .is_some_and(|accounts| accounts.contains(&account))
    }

    /// How many nodes have pods.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }
}

//! Who is connected, and what they accepted.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
};

use meshwright_xds_client::server::{Answer, Observer};
use serde::Serialize;

/// Nodes that are remembered; of more, one that is gone makes room, or the new one is not seen.
const MAX_NODES: usize = 1024;
/// Types that are remembered of a node.
const MAX_TYPES: usize = 16;
/// A node's words are cut to this.
const MAX_TEXT: usize = 1024;

/// All nodes that were seen.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    nodes: Mutex<HashMap<String, NodeStatus>>,
}

/// What is known of one node. Its id and its refusals are its own words.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct NodeStatus {
    pub(crate) node: String,
    /// Open streams; more than one for a moment while it reconnects.
    pub(crate) streams: usize,
    pub(crate) types: BTreeMap<String, TypeStatus>,
}

/// What a node said about the resources of one type.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TypeStatus {
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    /// Why the last refusal; empty once something was accepted after it.
    pub(crate) last_refusal: String,
}

impl Nodes {
    /// Every node, by its id.
    pub(super) fn all(&self) -> Vec<NodeStatus> {
        let mut nodes: Vec<_> = self.lock().values().cloned().collect();
        nodes.sort_by(|a, b| a.node.cmp(&b.node));
        nodes
    }

    fn with(&self, node: &str, change: impl FnOnce(&mut NodeStatus)) {
        let id = cut(node);
        let mut nodes = self.lock();
        if !nodes.contains_key(&id) && nodes.len() >= MAX_NODES {
            let gone = nodes.iter().find(|(_, status)| status.streams == 0);
            let Some(gone) = gone.map(|(id, _)| id.clone()) else {
                return;
            };
            nodes.remove(&gone);
        }
        let status = nodes.entry(id.clone()).or_default();
        status.node = id;
        change(status);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, NodeStatus>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Nodes {
    fn opened(&self, node: &str) {
        tracing::info!(node = cut(node), "a node is connected");
        self.with(node, |status| status.streams += 1);
    }

    fn answered(&self, answer: &Answer<'_>) {
        if let Some(error) = answer.error {
            tracing::warn!(
                node = cut(answer.node),
                type_url = cut(answer.type_url),
                error = cut(error),
                "a node refused resources"
            );
        }
        self.with(answer.node, |status| {
            let type_url = cut(answer.type_url);
            if status.types.len() >= MAX_TYPES && !status.types.contains_key(&type_url) {
                return;
            }
            let status = status.types.entry(type_url).or_default();
            match answer.error {
                None => {
                    status.accepted += 1;
                    status.last_refusal.clear();
                }
                Some(error) => {
                    status.refused += 1;
                    status.last_refusal = cut(error);
                }
            }
        });
    }

    fn closed(&self, node: &str) {
        if node.is_empty() {
            // It never said who it is, so it was not counted.
            return;
        }
        tracing::info!(node = cut(node), "a node is gone");
        self.with(node, |status| {
            status.streams = status.streams.saturating_sub(1);
        });
    }
}

/// The beginning of a text of a peer's, without control characters.
fn cut(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .take(MAX_TEXT)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{MAX_NODES, MAX_TEXT, Nodes, cut};
    use meshwright_xds_client::server::Observer as _;

    #[test]
    fn nodes_are_bounded_and_gone_ones_make_room() {
        let _trace = meshwright_testkit::trace();
        let nodes = Nodes::default();
        for i in 0..MAX_NODES {
            nodes.opened(&format!("n{i:04}"));
        }
        nodes.opened("late");
        assert_eq!(nodes.all().len(), MAX_NODES);
        assert!(nodes.all().iter().all(|status| status.node != "late"));
        nodes.closed("n0007");
        nodes.opened("late");
        assert_eq!(nodes.all().len(), MAX_NODES);
        assert!(nodes.all().iter().any(|status| status.node == "late"));
    }

    #[test]
    fn words_of_a_node_are_bounded_and_cannot_forge_log_lines() {
        let _trace = meshwright_testkit::trace();
        assert_eq!(cut(&"x".repeat(MAX_TEXT + 1)).len(), MAX_TEXT);
        assert!(!cut("a\nb\u{1b}[0m").contains(|c: char| c.is_control()));
    }
}

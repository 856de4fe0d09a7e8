//! The status page: one JSON object, and a readiness check, for this machine only.
//!
//! | path | answer |
//! | --- | --- |
//! | `/healthz/ready` | 200 while the ports are open (a fault in the manifests does not matter: the last good set is served) |
//! | `/status` | what is in force, who is connected and what they accepted, what is wrong |

mod nodes;
mod page;

pub(crate) use nodes::Nodes;
pub(crate) use page::serve;

use std::sync::{Arc, atomic::Ordering};

use serde::Serialize;
use tokio::sync::watch;

use crate::{
    serve::Counts,
    state::{State, Summary},
};
use nodes::NodeStatus;

/// Everything the page is made from.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    pub(crate) state: watch::Receiver<State>,
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) counts: Arc<Counts>,
    pub(crate) trust_domain: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    ready: bool,
    trust_domain: &'a str,
    /// Whether any caller gets any identity.
    development: bool,
    manifests: &'a Summary,
    /// Empty if the files are in force as they are.
    errors: &'a [String],
    nodes: Vec<NodeStatus>,
    certificates: Certificates,
}

#[derive(Serialize)]
struct Certificates {
    issued: u64,
    refused: u64,
}

impl Status {
    fn report(&self) -> String {
        let state = self.state.borrow().clone();
        let report = Report {
            ready: true,
            trust_domain: &self.trust_domain,
            development: state.callers.is_development(),
            manifests: &state.summary,
            errors: &state.errors,
            nodes: self.nodes.all(),
            certificates: Certificates {
                issued: self.counts.issued.load(Ordering::Relaxed),
                refused: self.counts.refused.load(Ordering::Relaxed),
            },
        };
        serde_json::to_string_pretty(&report).unwrap_or_else(|error| error.to_string())
    }
}

//! What is in force now. One writer (the watcher), many readers.

use std::{path::PathBuf, sync::Arc};

use meshwright_xds_client::{
    proto::{ADDRESS, AUTHORIZATION},
    server::{Resources, ServedResource},
};
use prost::Message as _;
use serde::Serialize;
use tokio::sync::watch;

use crate::{
    callers::Callers,
    compile::{Accounts, Compiled},
    manifest::Manifests,
};

/// More of these are counted, not listed.
const MAX_LISTED: usize = 100;

/// What the certificate service and the status page look at.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) callers: Arc<Callers>,
    pub(crate) summary: Summary,
    /// What is wrong with the files as they are now; the last good set is in force meanwhile.
    pub(crate) errors: Vec<String>,
}

/// What the set in force amounts to.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Summary {
    pub(crate) folder: PathBuf,
    /// Counts the sets that came into force, from 1.
    pub(crate) generation: u64,
    pub(crate) files: usize,
    pub(crate) objects: usize,
    pub(crate) addresses: usize,
    pub(crate) authorizations: usize,
    pub(crate) ignored: Vec<String>,
    pub(crate) notes: Vec<String>,
}

impl Summary {
    pub(crate) fn new(folder: PathBuf, manifests: &Manifests, compiled: &Compiled) -> Self {
        let ignored = manifests
            .ignored()
            .iter()
            .map(|i| format!("{}: {}", i.place, i.kind));
        let notes = compiled
            .notes
            .iter()
            .map(|note| format!("{}: {}", note.place, note.text));
        Self {
            folder,
            generation: 0,
            files: manifests.files(),
            objects: manifests.len(),
            addresses: compiled.addresses.len(),
            authorizations: compiled.authorizations.len(),
            ignored: ignored.take(MAX_LISTED).collect(),
            notes: notes.take(MAX_LISTED).collect(),
        }
    }
}

/// Puts a set into force.
#[derive(Debug)]
pub(crate) struct Publisher {
    resources: Resources,
    state: watch::Sender<State>,
}

impl Publisher {
    pub(crate) fn new(callers: Callers) -> Self {
        let state = State {
            accounts: Arc::default(),
            callers: Arc::new(callers),
            summary: Summary::default(),
            errors: Vec::new(),
        };
        Self {
            resources: Resources::new(),
            state: watch::Sender::new(state),
        }
    }

    pub(crate) fn resources(&self) -> Resources {
        self.resources.clone()
    }

    pub(crate) fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Puts a set into force: what identities may be asked for first, so that a workload is never
    /// seen before its certificate can be had; then all resources in one step.
    pub(crate) fn publish(&self, compiled: Compiled, mut summary: Summary) {
        self.state.send_modify(|state| {
            summary.generation = state.summary.generation + 1;
            state.accounts = Arc::new(compiled.accounts);
            state.summary = summary;
        });
        let addresses = compiled.addresses.iter().map(ServedResource::address);
        let policies = compiled.authorizations.iter();
        let policies = policies
            .map(|(name, policy)| ServedResource::new(Arc::clone(name), policy.encode_to_vec()));
        self.resources.edit(|edit| {
            edit.replace(AUTHORIZATION, policies);
            edit.replace(ADDRESS, addresses);
        });
    }

    pub(crate) fn callers(&self, callers: Callers) {
        self.state
            .send_modify(|state| state.callers = Arc::new(callers));
    }

    pub(crate) fn errors(&self, errors: Vec<String>) {
        self.state.send_modify(|state| state.errors = errors);
    }
}

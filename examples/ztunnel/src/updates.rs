//! What the control plane sends, on its way into the stores.
//!
//! Both handlers publish before they return, and the acknowledgement goes out after that: once the
//! control plane has heard it, no new connection is judged by the old state. Live connections are judged again in
//! the same step, after policies *and* after workloads: a policy that selects a workload arrives
//! in two messages, in either order.

use std::sync::Arc;

use meshwright_policy::PolicyStore;
use meshwright_xds_client::proto::AUTHORIZATION;
use meshwright_xds_client::workload::Store;
use meshwright_xds_client::{Handler, Rejected, Resource, Update};

use crate::certificates::Prefetch;
use crate::judge::Judge;

/// Workloads and services.
#[derive(Debug)]
pub(crate) struct Addresses {
    store: Store,
    judge: Arc<Judge>,
    prefetch: Prefetch,
}

/// Authorization policies.
#[derive(Debug)]
pub(crate) struct Policies {
    store: PolicyStore,
    judge: Arc<Judge>,
}

impl Addresses {
    pub(crate) const fn new(store: Store, judge: Arc<Judge>, prefetch: Prefetch) -> Self {
        Self {
            store,
            judge,
            prefetch,
        }
    }
}

impl Handler for Addresses {
    fn type_url(&self) -> &str {
        self.store.type_url()
    }

    fn apply(&mut self, update: Update<'_>) -> Vec<Rejected> {
        let rejected = self.store.apply(update);
        self.prefetch.follow(&self.store.reader().snapshot());
        match self.store.take_concerned() {
            Some(workloads) => self.judge.again_of(&workloads),
            None => self.judge.again(),
        }
        rejected
    }
}

impl Policies {
    pub(crate) const fn new(store: PolicyStore, judge: Arc<Judge>) -> Self {
        Self { store, judge }
    }
}

impl Handler for Policies {
    fn type_url(&self) -> &str {
        AUTHORIZATION
    }

    fn apply(&mut self, update: Update<'_>) -> Vec<Rejected> {
        let resources: Vec<Resource> = update.resources.collect();
        let resources = resources
            .iter()
            .map(|resource| (&*resource.name, &*resource.body));
        let rejected = self
            .store
            .apply(resources, update.removed.iter().map(|name| &**name));
        self.judge.again();
        let covered = self.store.reader().rejected();
        let report = |refused: meshwright_policy::Rejected| {
            let is_covered = covered.iter().any(|known| known.name == refused.name);
            let rejected = Rejected::new(refused.name, crate::chain(&*refused.reason));
            if is_covered {
                rejected.covered()
            } else {
                rejected
            }
        };
        rejected.into_iter().map(report).collect()
    }
}

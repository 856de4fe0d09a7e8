//! One stream without a network, for tests of the client's half.

use std::collections::BTreeMap;

use super::Subscriber;
use crate::{
    proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
    server::Resources,
};

/// The server's end of a stream.
#[derive(Debug)]
pub(crate) struct Wire {
    resources: Resources,
    subscriber: Subscriber,
}

impl Wire {
    pub(crate) fn new(resources: &Resources) -> Self {
        Self {
            resources: resources.clone(),
            subscriber: Subscriber::default(),
        }
    }

    pub(crate) fn asks(
        &mut self,
        request: DeltaDiscoveryRequest,
    ) -> Option<DeltaDiscoveryResponse> {
        let state = self.resources.lock();
        self.subscriber.on_request(&state, request).unwrap()
    }

    pub(crate) fn changes(&mut self) -> Vec<DeltaDiscoveryResponse> {
        self.subscriber.on_change(&self.resources.lock())
    }

    pub(crate) fn bodies(&self, type_url: &str) -> BTreeMap<String, Vec<u8>> {
        let state = self.resources.lock();
        let entries = state.get(type_url).into_iter().flat_map(|set| &set.entries);
        entries
            .map(|(name, entry)| (name.to_string(), entry.body.to_vec()))
            .collect()
    }
}

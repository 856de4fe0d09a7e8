//! One immutable state of the mesh.
//!
//! Records live in slabs, indexes hold their numbers. A clone is a handful of reference counts,
//! and the writer, which works on a clone of its own, copies only the shards that it changes.

mod lookup;

pub use lookup::Found;

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::Arc,
};

use super::{
    index::HashIndex,
    members::Members,
    model::{Membership, Workload},
    ranges::Ranges,
    service::Service,
    slab::Slab,
};

/// One immutable state of the mesh.
///
/// Readers keep it as long as they like. What they were given by reference lives as long as the
/// snapshot; the `Arc`s may be kept longer. A record that did not change is the same `Arc` in the
/// next snapshot, so [`Arc::ptr_eq`] tells whether it did.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub(super) hasher: RandomState,
    pub(super) generation: u64,
    pub(super) workloads: Slab<Arc<Workload>>,
    pub(super) services: Slab<Arc<Slot>>,
    pub(super) known_services: usize,
    pub(super) uids: HashIndex,
    pub(super) addresses: HashIndex,
    pub(super) workload_hosts: HashIndex,
    pub(super) pods: HashIndex,
    pub(super) accounts: HashIndex,
    pub(super) local: Members,
    pub(super) keys: HashIndex,
    pub(super) hosts: HashIndex,
    pub(super) vips: HashIndex,
    pub(super) ranges: Ranges,
}

/// A service with its endpoints, or endpoints that wait for their service.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) key: Arc<str>,
    pub(super) service: Option<Arc<Service>>,
    pub(super) members: Members,
    /// Members whose weight is not 1.
    pub(super) weighted: usize,
}

/// A workload as an endpoint of a service.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Endpoint<'a> {
    /// The workload.
    pub workload: &'a Arc<Workload>,
    /// Its own port mapping for the service.
    pub membership: &'a Membership,
}

impl Snapshot {
    /// Counts publications of the store; 0 before the first.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// All workloads, in no particular order.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.iter()
    }

    /// How many workloads there are.
    pub const fn workload_count(&self) -> usize {
        self.workloads.len()
    }

    /// All services, in no particular order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services
            .iter()
            .filter_map(|slot| slot.service.as_ref())
    }

    /// How many services there are.
    pub const fn service_count(&self) -> usize {
        self.known_services
    }

    /// Endpoints of services that are not known (yet): the service's key and each endpoint.
    pub fn staged_endpoints(&self) -> impl Iterator<Item = (&Arc<str>, Endpoint<'_>)> {
        let staged = self.services.iter().filter(|slot| slot.service.is_none());
        staged.flat_map(move |slot| {
            let members = slot.members.iter();
            members.filter_map(move |id| Some((&slot.key, self.endpoint(slot, id)?)))
        })
    }

    /// The endpoints that the service's health policy admits, in no particular order.
    ///
    /// None if the snapshot does not know the service.
    pub fn endpoints<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = Endpoint<'a>> {
        let slot = self.slot(&service.key).map(|(_, slot)| slot);
        let members = slot.into_iter().flat_map(move |slot| {
            let members = slot.members.iter();
            members.filter_map(move |id| self.endpoint(slot, id))
        });
        members.filter(|endpoint| service.admits(endpoint.workload.health))
    }

    /// The endpoints of a service by position, healthy or not, if all have weight 1.
    pub(crate) fn even_endpoints<'a>(&'a self, service: &Service) -> Option<EvenEndpoints<'a>> {
        let (_, slot) = self.slot(&service.key)?;
        (slot.weighted == 0).then_some(EvenEndpoints {
            snapshot: self,
            slot,
        })
    }

    pub(super) fn endpoint<'a>(&'a self, slot: &Slot, id: u32) -> Option<Endpoint<'a>> {
        let workload = self.workloads.get(id)?;
        let membership = workload.membership(&slot.key)?;
        Some(Endpoint {
            workload,
            membership,
        })
    }

    /// The service, or endpoints that wait for it, with its number.
    pub(super) fn slot(&self, key: &str) -> Option<(u32, &Arc<Slot>)> {
        let candidates = self.keys.candidates(self.hash_text(key));
        let mut slots = candidates.filter_map(|id| Some((id, self.services.get(id)?)));
        slots.find(|(_, slot)| *slot.key == *key)
    }

    pub(super) fn workload_id(&self, uid: &str) -> Option<u32> {
        let mut candidates = self.uids.candidates(self.hash_text(uid));
        candidates.find(|id| self.workloads.get(*id).is_some_and(|w| *w.uid == *uid))
    }

    pub(super) fn hash_text(&self, text: &str) -> u64 {
        self.hasher.hash_one(text)
    }

    pub(super) fn hash_pair(&self, first: &str, second: &str) -> u64 {
        self.hasher.hash_one((first, second))
    }

    pub(super) fn hash_address(&self, network: &str, ip: IpAddr) -> u64 {
        self.hasher.hash_one((network, ip))
    }
}

/// Endpoints of one weight, by position.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EvenEndpoints<'a> {
    snapshot: &'a Snapshot,
    slot: &'a Slot,
}

impl<'a> EvenEndpoints<'a> {
    pub(crate) fn len(self) -> usize {
        self.slot.members.len()
    }

    pub(crate) fn get(self, at: usize) -> Option<Endpoint<'a>> {
        self.snapshot
            .endpoint(self.slot, self.slot.members.get(at)?)
    }
}

//! Changes to the state: which index entries come and go with a record.

use std::{hash::BuildHasher, net::IpAddr, sync::Arc};

use super::{
    members::Members,
    model::{Membership, NetworkMode, Workload},
    service::Service,
    slab::Ids,
    snapshot::{Slot, Snapshot},
};

/// More workloads than this are not told apart: whoever asks then has to look at all.
const MAX_CONCERNED: usize = 1024;

/// The state being changed; clones of it are published.
#[derive(Debug, Default)]
pub(super) struct Writer {
    pub(super) state: Snapshot,
    workload_ids: Ids,
    service_ids: Ids,
    local_node: Option<Arc<str>>,
    conflicts: Conflicts,
    concerned: Concerned,
}

/// Workloads whose connections have to be judged again.
#[derive(Debug, Default)]
struct Concerned {
    uids: Vec<Arc<str>>,
    is_more: bool,
}

impl Concerned {
    fn add(&mut self, uid: &Arc<str>) {
        if self.uids.len() < MAX_CONCERNED {
            self.uids.push(Arc::clone(uid));
        } else {
            self.is_more = true;
        }
    }
}

/// Addresses that a second workload came to claim.
#[derive(Debug, Default)]
pub(super) struct Conflicts {
    pub(super) count: usize,
    pub(super) last: Option<(IpAddr, Arc<str>, Arc<str>)>,
}

impl Writer {
    pub(super) fn new(local_node: Option<&str>) -> Self {
        Self {
            local_node: local_node.map(Arc::from),
            ..Self::default()
        }
    }

    /// The conflicts since the last time.
    pub(super) fn take_conflicts(&mut self) -> Conflicts {
        std::mem::take(&mut self.conflicts)
    }

    /// See [`Store::take_concerned`](super::Store::take_concerned).
    pub(super) fn take_concerned(&mut self) -> Option<Vec<Arc<str>>> {
        let Concerned { uids, is_more } = std::mem::take(&mut self.concerned);
        (!is_more).then_some(uids)
    }

    /// Adds or replaces a workload; an equal one keeps its `Arc`. Tells whether anything changed.
    pub(super) fn insert_workload(&mut self, new: Workload) -> bool {
        let known = self.state.workload_id(&new.uid);
        let old = known.and_then(|id| self.state.workloads.get(id)).cloned();
        if old.as_deref() == Some(&new) {
            return false;
        }
        if let Some(old) = &old
            && (old.namespace() != new.namespace()
                || old.authorization_policies() != new.authorization_policies())
        {
            self.concerned.add(&new.uid);
        }
        let new = Arc::new(new);
        let id = known.unwrap_or_else(|| {
            let id = self.workload_ids.take();
            self.state.uids.insert(self.state.hash_text(&new.uid), id);
            id
        });
        self.reindex(id, old.as_deref(), Some(&new));
        self.state.workloads.set(id, new);
        true
    }

    /// Removes a workload by its UID; tells whether there was one.
    pub(super) fn remove_workload(&mut self, uid: &str) -> bool {
        let Some(id) = self.state.workload_id(uid) else {
            return false;
        };
        let Some(old) = self.state.workloads.take(id) else {
            return false;
        };
        self.concerned.add(&old.uid);
        self.state.uids.remove(self.state.hash_text(uid), id);
        self.reindex(id, Some(&old), None);
        self.workload_ids.give_back(id);
        true
    }

    /// Adds or replaces a service; endpoints that waited for it become its own.
    pub(super) fn insert_service(&mut self, new: Service) -> bool {
        let id = self.slot_id(&new.key);
        let Some(mut slot) = self.state.services.get(id).cloned() else {
            return false;
        };
        if slot.service.as_deref() == Some(&new) {
            return false;
        }
        if let Some(old) = &slot.service {
            self.unindex_service(id, old);
        }
        let new = Arc::new(new);
        self.index_service(id, &new);
        Arc::make_mut(&mut slot).service = Some(new);
        self.state.services.set(id, slot);
        true
    }

    /// Removes a service by its key; its endpoints wait for it to come back.
    pub(super) fn remove_service(&mut self, key: &str) -> bool {
        let Some((id, slot)) = self.state.slot(key) else {
            return false;
        };
        let Some(old) = slot.service.clone() else {
            return false;
        };
        let mut slot = Arc::clone(slot);
        Arc::make_mut(&mut slot).service = None;
        self.unindex_service(id, &old);
        self.put_slot(id, slot);
        true
    }

    /// Moves index entries from what `old` needs to what `new` needs; equal parts stay untouched.
    fn reindex(&mut self, id: u32, old: Option<&Workload>, new: Option<&Workload>) {
        let addresses = |w: &Workload| (indexed_addresses(w).to_vec(), Arc::clone(w.network()));
        if old.map(addresses) != new.map(addresses) {
            let state = &mut self.state;
            for (ip, w) in old.iter().flat_map(|w| each_address(w)) {
                let hash = state.hash_address(w.network(), ip);
                state.addresses.remove(hash, id);
            }
            for (ip, w) in new.iter().flat_map(|w| each_address(w)) {
                if let Some(owner) = state.workload_by_address(w.network(), ip) {
                    self.conflicts.count += 1;
                    let uids = (Arc::clone(&owner.uid), Arc::clone(&w.uid));
                    self.conflicts.last = Some((ip, uids.0, uids.1));
                }
                let hash = state.hash_address(w.network(), ip);
                state.addresses.insert(hash, id);
            }
        }
        if old.map(Workload::hostname) != new.map(Workload::hostname) {
            let named = |w: &&Workload| !w.hostname().is_empty();
            let state = &mut self.state;
            if let Some(w) = old.filter(named) {
                let hash = state.hash_text(w.hostname());
                state.workload_hosts.remove(hash, id);
            }
            if let Some(w) = new.filter(named) {
                let hash = state.hash_text(w.hostname());
                state.workload_hosts.insert(hash, id);
            }
        }
        self.reindex_local(id, old, new);
        self.reindex_memberships(id, old, new);
    }

    fn reindex_local(&mut self, id: u32, old: Option<&Workload>, new: Option<&Workload>) {
        let node = self.local_node.as_deref();
        let is_local = |w: &&Workload| node.is_none_or(|node| *w.node == *node);
        let (old, new) = (old.filter(is_local), new.filter(is_local));
        let is_same = |old: &Workload, new: &Workload| {
            old.name() == new.name()
                && old.namespace() == new.namespace()
                && old.service_account() == new.service_account()
        };
        if old.is_none() && new.is_none() || old.zip(new).is_some_and(|(o, n)| is_same(o, n)) {
            return;
        }
        let state = &mut self.state;
        if let Some(w) = old {
            let pod = state.hash_pair(w.namespace(), w.name());
            let account = state.hash_pair(w.namespace(), w.service_account());
            state.pods.remove(pod, id);
            state.accounts.remove(account, id);
            state.local.remove(id);
        }
        if let Some(w) = new {
            let pod = state.hash_pair(w.namespace(), w.name());
            let account = state.hash_pair(w.namespace(), w.service_account());
            state.pods.insert(pod, id);
            state.accounts.insert(account, id);
            state.local.push(id);
        }
    }

    fn reindex_memberships(&mut self, id: u32, old: Option<&Workload>, new: Option<&Workload>) {
        let weight = |w: Option<&Workload>| w.map_or(0, |w| usize::from(w.capacity != 1));
        let (was, is) = (weight(old), weight(new));
        for membership in old.map_or(&[][..], Workload::services) {
            let stays = new.is_some_and(|w| w.membership(&membership.service).is_some());
            if stays && was == is {
                continue;
            }
            self.change_slot(membership, |slot| {
                slot.weighted = slot.weighted.saturating_sub(was);
                if stays {
                    slot.weighted += is;
                } else {
                    slot.members.remove(id);
                }
            });
        }
        for membership in new.map_or(&[][..], Workload::services) {
            if old.is_some_and(|w| w.membership(&membership.service).is_some()) {
                continue;
            }
            self.change_slot(membership, |slot| {
                slot.members.push(id);
                slot.weighted += is;
            });
        }
    }

    fn change_slot(&mut self, membership: &Membership, change: impl FnOnce(&mut Slot)) {
        let id = self.slot_id(&membership.service);
        if let Some(mut slot) = self.state.services.take(id) {
            change(Arc::make_mut(&mut slot));
            self.put_slot(id, slot);
        }
    }

    /// The number of the slot with this key, which is made if there is none.
    fn slot_id(&mut self, key: &Arc<str>) -> u32 {
        if let Some((id, _)) = self.state.slot(key) {
            return id;
        }
        let id = self.service_ids.take();
        self.state.keys.insert(self.state.hash_text(key), id);
        let slot = Slot {
            key: Arc::clone(key),
            service: None,
            members: Members::default(),
            weighted: 0,
        };
        self.state.services.set(id, Arc::new(slot));
        id
    }

    /// Keeps a slot, unless nothing is left in it.
    fn put_slot(&mut self, id: u32, slot: Arc<Slot>) {
        if slot.service.is_none() && slot.members.len() == 0 {
            self.state.keys.remove(self.state.hash_text(&slot.key), id);
            self.state.services.take(id);
            self.service_ids.give_back(id);
        } else {
            self.state.services.set(id, slot);
        }
    }

    fn index_service(&mut self, id: u32, service: &Service) {
        let state = &mut self.state;
        state.known_services += 1;
        state.hosts.insert(state.hash_text(&service.hostname), id);
        for vip in &service.vips {
            let hash = state.hash_address(&vip.network, vip.ip);
            state.vips.insert(hash, id);
        }
        for range in &service.cidr_vips {
            let hash = state.hasher.hash_one((&*range.network, range.cidr));
            state.ranges.insert(hash, &range.cidr, id);
        }
    }

    fn unindex_service(&mut self, id: u32, service: &Service) {
        let state = &mut self.state;
        state.known_services -= 1;
        state.hosts.remove(state.hash_text(&service.hostname), id);
        for vip in &service.vips {
            let hash = state.hash_address(&vip.network, vip.ip);
            state.vips.remove(hash, id);
        }
        for range in &service.cidr_vips {
            let hash = state.hasher.hash_one((&*range.network, range.cidr));
            state.ranges.remove(hash, &range.cidr, id);
        }
    }
}

/// A node's address identifies none of the workloads that share it.
fn indexed_addresses(workload: &Workload) -> &[IpAddr] {
    match workload.network_mode() {
        NetworkMode::HostNetwork => &[],
        NetworkMode::Standard => workload.addresses(),
    }
}

fn each_address(workload: &Workload) -> impl Iterator<Item = (IpAddr, &Workload)> {
    let addresses = indexed_addresses(workload).iter();
    addresses.map(move |ip| (*ip, workload))
}

//! Looking things up in a snapshot.

use std::{cmp::Reverse, hash::BuildHasher, net::IpAddr, sync::Arc};

use super::{Slot, Snapshot};
use crate::workload::{index::HashIndex, model::Workload, service::Service};

/// What an address stands for.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Found<'a> {
    /// A service's virtual address.
    Service(&'a Arc<Service>),
    /// A workload's own address.
    Workload(&'a Arc<Workload>),
}

impl Snapshot {
    /// The workload with this primary key.
    pub fn workload_by_uid(&self, uid: &str) -> Option<&Arc<Workload>> {
        self.workloads.get(self.workload_id(uid)?)
    }

    /// The workload that owns an address; never one that only shares its node's.
    ///
    /// Of several the one of the highest rank: a pod in the mesh, another pod, another record in
    /// the mesh, anything else; then the one with the smallest UID.
    pub fn workload_by_address(&self, network: &str, ip: IpAddr) -> Option<&Arc<Workload>> {
        let ip = ip.to_canonical();
        let owners = self.workloads_in(&self.addresses, self.hash_address(network, ip));
        owners
            .filter(|w| **w.network() == *network && w.addresses().contains(&ip))
            .max_by(|a, b| a.rank().cmp(&b.rank()).then_with(|| b.uid.cmp(&a.uid)))
    }

    /// The workload with this host name in a namespace; the smallest UID of several.
    pub fn workload_by_hostname(&self, namespace: &str, hostname: &str) -> Option<&Arc<Workload>> {
        if hostname.is_empty() {
            return None;
        }
        let owners = self.workloads_in(&self.workload_hosts, self.hash_text(hostname));
        owners
            .filter(|w| **w.hostname() == *hostname && **w.namespace() == *namespace)
            .min_by(|a, b| a.uid.cmp(&b.uid))
    }

    /// A workload of this node by what the node agent knows about its pod.
    ///
    /// Of several (one is being replaced) the one of the highest rank, then the smallest UID.
    pub fn workload_of_pod(
        &self,
        namespace: &str,
        name: &str,
        service_account: &str,
    ) -> Option<&Arc<Workload>> {
        let pods = self.workloads_in(&self.pods, self.hash_pair(namespace, name));
        pods.filter(|w| {
            *w.name() == *name
                && **w.namespace() == *namespace
                && **w.service_account() == *service_account
        })
        .max_by(|a, b| a.rank().cmp(&b.rank()).then_with(|| b.uid.cmp(&a.uid)))
    }

    /// The workloads of this node, in no particular order.
    pub fn local_workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.local.iter().filter_map(|id| self.workloads.get(id))
    }

    /// The workloads of this node that run as a service account.
    pub fn local_workloads_of(
        &self,
        namespace: &str,
        service_account: &str,
    ) -> impl Iterator<Item = &Arc<Workload>> {
        let hash = self.hash_pair(namespace, service_account);
        self.workloads_in(&self.accounts, hash).filter(move |w| {
            **w.namespace() == *namespace && **w.service_account() == *service_account
        })
    }

    /// The service with this primary key, `namespace/hostname`.
    pub fn service(&self, key: &str) -> Option<&Arc<Service>> {
        self.slot(key)?.1.service.as_ref()
    }

    /// The service of this name in one namespace, visible or not.
    pub fn service_in(&self, namespace: &str, hostname: &str) -> Option<&Arc<Service>> {
        let services = self.services_in(&self.hosts, self.hash_text(hostname));
        let mut services = services.filter(|s| *s.hostname == *hostname);
        services.find(|s| *s.namespace == *namespace)
    }

    /// The best service of this name for a client in a namespace.
    ///
    /// It must be visible to the client; the client's own namespace goes first, then a canonical
    /// service, then the smallest key. Without a namespace everything is visible.
    pub fn service_by_hostname(
        &self,
        hostname: &str,
        client_namespace: Option<&str>,
    ) -> Option<&Arc<Service>> {
        let services = self.services_in(&self.hosts, self.hash_text(hostname));
        best(
            services.filter(|s| *s.hostname == *hostname),
            client_namespace,
        )
    }

    /// The best service with this virtual address for a client in a namespace.
    ///
    /// Ties are settled as in [`service_by_hostname`](Self::service_by_hostname), exact host names
    /// before wildcards. Ranges count only if no service has the very address: the client's own
    /// namespace first, then the longest prefix, then a canonical service.
    pub fn service_by_vip(
        &self,
        network: &str,
        ip: IpAddr,
        client_namespace: Option<&str>,
    ) -> Option<&Arc<Service>> {
        let ip = ip.to_canonical();
        let services = self.services_in(&self.vips, self.hash_address(network, ip));
        let exact = services.filter(|s| has_vip(s, network, ip));
        best(exact, client_namespace).or_else(|| self.by_range(network, ip, client_namespace))
    }

    /// What an address stands for to a client: a workload first, then a service.
    pub fn find(&self, network: &str, ip: IpAddr, client_namespace: &str) -> Option<Found<'_>> {
        if let Some(workload) = self.workload_by_address(network, ip) {
            return Some(Found::Workload(workload));
        }
        self.service_by_vip(network, ip, Some(client_namespace))
            .map(Found::Service)
    }

    fn by_range(
        &self,
        network: &str,
        ip: IpAddr,
        client_namespace: Option<&str>,
    ) -> Option<&Arc<Service>> {
        let lengths = self.ranges.containing(ip);
        let found = lengths.flat_map(|cidr| {
            let hash = self.hasher.hash_one((network, cidr));
            let services = self.services_in(self.ranges.index(), hash);
            services
                .filter(move |s| {
                    let mut ranges = s.cidr_vips.iter();
                    ranges.any(|r| *r.network == *network && r.cidr == cidr)
                })
                .map(move |s| (s, cidr.prefix_len()))
        });
        found
            .filter(|(s, _)| client_namespace.is_none_or(|ns| s.is_visible_to(ns)))
            .min_by_key(|(s, length)| {
                let own = client_namespace.is_some_and(|ns| *s.namespace == *ns);
                (!own, Reverse(*length), !s.canonical, wildcard(s), &s.key)
            })
            .map(|(s, _)| s)
    }

    fn workloads_in(&self, index: &HashIndex, hash: u64) -> impl Iterator<Item = &Arc<Workload>> {
        index
            .candidates(hash)
            .filter_map(|id| self.workloads.get(id))
    }

    fn services_in(&self, index: &HashIndex, hash: u64) -> impl Iterator<Item = &Arc<Service>> {
        let slots = index
            .candidates(hash)
            .filter_map(|id| self.services.get(id));
        slots.filter_map(|slot: &Arc<Slot>| slot.service.as_ref())
    }
}

/// The first service a client should get: no two have one key, so the choice is the same always.
fn best<'a>(
    services: impl Iterator<Item = &'a Arc<Service>>,
    client_namespace: Option<&str>,
) -> Option<&'a Arc<Service>> {
    services
        .filter(|s| client_namespace.is_none_or(|ns| s.is_visible_to(ns)))
        .min_by_key(|s| {
            let own = client_namespace.is_some_and(|ns| *s.namespace == *ns);
            (!own, !s.canonical, wildcard(s), &s.key)
        })
}

fn wildcard(service: &Service) -> bool {
    service.hostname.starts_with('*')
}

fn has_vip(service: &Service, network: &str, ip: IpAddr) -> bool {
    let mut vips = service.vips.iter();
    vips.any(|vip| *vip.network == *network && vip.ip == ip)
}

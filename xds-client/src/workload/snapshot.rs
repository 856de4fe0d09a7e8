//! One immutable state of the mesh.
#![allow(clippy::todo, unused_variables, reason = "signatures first")]

use std::{net::IpAddr, sync::Arc};

use super::{Membership, Service, Workload};

/// One immutable state of the mesh; readers keep it as long as they like.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {}

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
    /// The workload with this primary key.
    pub fn workload_by_uid(&self, uid: &str) -> Option<&Arc<Workload>> {
        todo!()
    }

    /// The workload that owns an address; never one that only shares its node's.
    pub fn workload_by_address(&self, network: &str, ip: IpAddr) -> Option<&Arc<Workload>> {
        todo!()
    }

    /// A workload of this node by what the node agent knows about its pod.
    pub fn workload_of_pod(&self, namespace: &str, name: &str, service_account: &str) -> Option<&Arc<Workload>> {
        todo!()
    }

    /// The workloads of this node, in no particular order.
    pub fn local_workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        std::iter::empty()
    }

    /// The workloads of this node that run as a service account.
    pub fn local_workloads_of(&self, namespace: &str, service_account: &str) -> impl Iterator<Item = &Arc<Workload>> {
        std::iter::empty()
    }

    /// The service with this primary key, `namespace/hostname`.
    pub fn service(&self, key: &str) -> Option<&Arc<Service>> {
        todo!()
    }

    /// The best service of this name for a client: visible, in its namespace, canonical, first by namespace.
    pub fn service_by_hostname(&self, hostname: &str, client_namespace: Option<&str>) -> Option<&Arc<Service>> {
        todo!()
    }

    /// The best service with this virtual address for a client; ranges count if no address matches.
    pub fn service_by_vip(&self, network: &str, ip: IpAddr, client_namespace: Option<&str>) -> Option<&Arc<Service>> {
        todo!()
    }

    /// The endpoints that the service's health policy admits.
    pub fn endpoints<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = Endpoint<'a>> {
        std::iter::empty()
    }

    /// All workloads, in no particular order.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        std::iter::empty()
    }

    /// All services, in no particular order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        std::iter::empty()
    }

    /// Endpoints of services that are not known (yet): the service's key and each endpoint.
    pub fn staged_endpoints(&self) -> impl Iterator<Item = (&Arc<str>, Endpoint<'_>)> {
        std::iter::empty()
    }

    /// How many workloads there are.
    pub fn workload_count(&self) -> usize {
        0
    }

    /// How many services there are.
    pub fn service_count(&self) -> usize {
        0
    }
}

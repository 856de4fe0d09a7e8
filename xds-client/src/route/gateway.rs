//! Finding the waypoint that a connection must pass.

use std::{net::IpAddr, sync::Arc};

use rand::Rng;

use super::{
    Source,
    balance::{Balance, Pick, PortRule},
    error::NoRoute,
};
use crate::workload::{
    GatewayAddress, GatewayDestination, IpFamilies, Service, Snapshot, Workload,
};

/// A waypoint's endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waypoint<'a> {
    pub(super) pick: Pick<'a>,
    pub(super) service: Option<&'a Arc<Service>>,
    /// The address whose family is preferred: the reference's own, or what the client called.
    pub(super) called: IpAddr,
}

/// What a reference names.
enum Referent<'a> {
    Service(&'a Arc<Service>),
    Workload(&'a Arc<Workload>),
}

/// The waypoint that this connection to a service must pass, if any: one of the weighted ones,
/// or the only one if no weight is above zero.
pub(super) fn of_service<'a>(
    service: &'a Service,
    rng: &mut impl Rng,
) -> Option<&'a GatewayAddress> {
    let weighted = service.weighted_waypoints();
    let total: u64 = weighted.iter().map(|w| u64::from(w.weight)).sum();
    if total == 0 {
        return service.waypoint();
    }
    let mut left = rng.random_range(0..total);
    let drawn = weighted.iter().find(|w| {
        let weight = u64::from(w.weight);
        let drawn = left < weight;
        left = left.saturating_sub(weight);
        drawn
    });
    drawn.map(|w| &w.destination)
}

/// Chooses an endpoint of the waypoint.
pub(super) fn resolve<'a>(
    snapshot: &'a Snapshot,
    source: &'a Source<'_>,
    (waypoint, called): (&GatewayAddress, IpAddr),
    rng: &mut impl Rng,
) -> Result<Waypoint<'a>, NoRoute> {
    let name = || waypoint.destination.to_string();
    let referent = referent(snapshot, waypoint)
        .ok_or_else(|| NoRoute::UnknownWaypoint { waypoint: name() })?;
    // A host name serves both families; an address was chosen by whoever wrote it down.
    let called = match &waypoint.destination {
        GatewayDestination::Address(address) => address.ip,
        GatewayDestination::Hostname { .. } => called,
    };
    let port = waypoint.hbone_mtls_port;
    let (pick, service) = match referent {
        Referent::Workload(workload) => (Some(Pick { workload, port }), None),
        Referent::Service(service) => {
            let balance = Balance {
                snapshot,
                source,
                service,
                port,
                rule: PortRule::Tunnelled,
            };
            (balance.pick(rng), Some(service))
        }
    };
    let pick = pick.ok_or_else(|| NoRoute::WaypointUnavailable { waypoint: name() })?;
    Ok(Waypoint {
        pick,
        service,
        called,
    })
}

/// Whether a workload at one of these addresses is the waypoint, or one of its endpoints.
///
/// Identity and address must both match: an identity alone may be shared with other pods.
pub(super) fn is_waypoint(
    snapshot: &Snapshot,
    waypoint: &GatewayAddress,
    who: &Workload,
    address: IpAddr,
) -> bool {
    let same = |workload: &Arc<Workload>| {
        workload.identity() == who.identity() && workload.addresses().contains(&address)
    };
    match referent(snapshot, waypoint) {
        None => false,
        Some(Referent::Workload(workload)) => same(workload),
        Some(Referent::Service(service)) => {
            let mut endpoints = snapshot.endpoints(service);
            endpoints.any(|endpoint| same(endpoint.workload))
        }
    }
}

fn referent<'a>(snapshot: &'a Snapshot, waypoint: &GatewayAddress) -> Option<Referent<'a>> {
    let (service, workload) = match &waypoint.destination {
        GatewayDestination::Address(address) => (
            snapshot.service_by_vip(&address.network, address.ip, None),
            snapshot.workload_by_address(&address.network, address.ip),
        ),
        GatewayDestination::Hostname {
            namespace,
            hostname,
        } => (
            snapshot.service_in(namespace, hostname),
            snapshot.workload_by_hostname(namespace, hostname),
        ),
    };
    let workload = workload.map(Referent::Workload);
    service.map(Referent::Service).or(workload)
}

/// The address of a workload to use for a client that called `called`.
///
/// The very address if the workload has it, else one of the same family, else any that the
/// service allows.
pub(super) fn address(
    workload: &Workload,
    service: Option<&Arc<Service>>,
    called: IpAddr,
) -> Result<IpAddr, NoRoute> {
    let families = service.map_or(IpFamilies::Automatic, |service| service.ip_families());
    let allowed = |ip: &&IpAddr| match families {
        IpFamilies::Automatic | IpFamilies::Dual => true,
        IpFamilies::V4Only => ip.is_ipv4(),
        IpFamilies::V6Only => ip.is_ipv6(),
    };
    let addresses = workload.addresses();
    if addresses.contains(&called) {
        return Ok(called);
    }
    let mut allowed = addresses.iter().filter(allowed);
    let first = allowed.clone().next();
    let preferred = allowed.find(|ip| ip.is_ipv4() == called.is_ipv4());
    if let Some(ip) = preferred.or(first) {
        return Ok(*ip);
    }
    if addresses.is_empty() && !workload.hostname().is_empty() {
        return Err(NoRoute::Unresolved {
            hostname: Arc::clone(workload.hostname()),
        });
    }
    Err(NoRoute::NoAddress {
        workload: Arc::clone(workload.uid()),
    })
}

//! A tunnel that a workload accepts.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{Authority, error::NoRoute, gateway};
use crate::workload::{Service, Snapshot, Workload};

/// Where an accepted tunnel ends.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct InboundTarget {
    /// Where to connect to.
    pub address: SocketAddr,
    /// The destination that policy judges: before an application tunnel replaces the port.
    pub destination: SocketAddr,
    /// The service named in the authority, if that was a host name.
    pub service: Option<Arc<Service>>,
}

/// Decides where a tunnel to `own` ends whose connection was accepted on `local`.
///
/// The target is always the address of the connection itself; the authority contributes the port.
/// An authority with another address is legal only if that address is a service or workload whose
/// waypoint is `own`, or if `own` has an application tunnel and so is a proxy itself.
/// `illegal_ports` are the ports of this proxy.
///
/// # Errors
///
/// Returns why the authority is not a target of this workload; [`NoRoute::status`] is the answer
/// to the peer.
pub fn inbound(
    snapshot: &Snapshot,
    own: &Workload,
    local: SocketAddr,
    authority: &Authority,
    illegal_ports: &[u16],
) -> Result<InboundTarget, NoRoute> {
    let local = local.ip().to_canonical();
    let (port, service) = match authority {
        Authority::Host { name, port } => {
            let (service, port) = service_port(snapshot, own, name, *port)?;
            (port, Some(service))
        }
        Authority::Ip(target) => {
            let ip = target.ip().to_canonical();
            if !is_legal(snapshot, own, local, ip) {
                return Err(NoRoute::AddressMismatch { address: ip });
            }
            (target.port(), None)
        }
    };
    if illegal_ports.contains(&port) {
        return Err(NoRoute::IllegalPort { port });
    }
    let tunnelled = own.application_tunnel().and_then(|tunnel| tunnel.port);
    Ok(InboundTarget {
        address: SocketAddr::new(local, tunnelled.unwrap_or(port)),
        destination: SocketAddr::new(local, port),
        service,
    })
}

/// The best service of this name that the workload may see, and its port here.
fn service_port(
    snapshot: &Snapshot,
    own: &Workload,
    name: &Arc<str>,
    port: u16,
) -> Result<(Arc<Service>, u16), NoRoute> {
    let service = snapshot
        .service_by_hostname(name, Some(own.namespace()))
        .ok_or_else(|| NoRoute::UnknownService {
            hostname: Arc::clone(name),
        })?;
    let membership = own.membership(service.key());
    let target = membership
        .and_then(|membership| membership.target_port(port))
        .or_else(|| service.target_port(port))
        .ok_or_else(|| NoRoute::NoPort {
            service: Arc::clone(service.key()),
            port,
        })?;
    Ok((Arc::clone(service), target))
}

fn is_legal(snapshot: &Snapshot, own: &Workload, local: IpAddr, asked: IpAddr) -> bool {
    if asked == local || own.application_tunnel().is_some() {
        return true;
    }
    if let Some(workload) = snapshot.workload_by_address(own.network(), asked) {
        let mut waypoint = workload.waypoint().into_iter();
        return waypoint.any(|w| gateway::is_waypoint(snapshot, w, own, local));
    }
    // Who forwards for a service need not be in a namespace that may call it.
    let service = snapshot.service_by_vip(own.network(), asked, None);
    service.is_some_and(|service| {
        let weighted = service.weighted_waypoints().iter().map(|w| &w.destination);
        let mut waypoints = weighted.chain(service.waypoint());
        waypoints.any(|w| gateway::is_waypoint(snapshot, w, own, local))
    })
}

#[cfg(test)]
mod tests;

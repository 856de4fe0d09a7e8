//! A connection that a workload opens.

use std::{net::SocketAddr, sync::Arc};

use meshwright_identity::SpiffeId;
use rand::Rng;

use super::{
    Authority, HBONE_PORT, Route, RouteKind, Source,
    balance::{Balance, Pick, PortRule},
    error::NoRoute,
    gateway,
};
use crate::workload::{
    Found, GatewayAddress, LoadBalancingMode, Protocol, Service, Snapshot, Workload,
};

/// Decides where a connection of `source` to `destination` goes.
///
/// The same snapshot, arguments and random numbers give the same answer.
///
/// # Errors
///
/// Returns why there is no way; never falls back to one that avoids a waypoint or a tunnel.
pub fn outbound(
    snapshot: &Snapshot,
    source: &Source<'_>,
    destination: SocketAddr,
    rng: &mut impl Rng,
) -> Result<Route, NoRoute> {
    let destination = SocketAddr::new(destination.ip().to_canonical(), destination.port());
    let ip = destination.ip();
    if ip.is_loopback() && source.illegal_ports.contains(&destination.port()) {
        return Err(NoRoute::Recursive);
    }
    let namespace = source.workload.namespace();
    let found = snapshot.find(source.network, ip, namespace);
    let call = Call {
        snapshot,
        source,
        destination,
    };
    if let Some(Found::Service(service)) = found
        && let Some(waypoint) = gateway::of_service(service, rng)
    {
        return call.to_waypoint(waypoint, Some(service), rng);
    }
    // An address may be both: it is then balanced as a service, unless that leaves it alone.
    match snapshot.service_by_vip(source.network, ip, Some(namespace)) {
        Some(service) if !is_passthrough(service) => call.to_service(service, rng),
        _ => match found {
            Some(Found::Workload(workload)) => call.to_workload(workload, rng),
            Some(Found::Service(_)) | None => Ok(call.passthrough()),
        },
    }
}

/// One decision.
#[derive(Clone, Copy)]
struct Call<'a> {
    snapshot: &'a Snapshot,
    source: &'a Source<'a>,
    destination: SocketAddr,
}

impl Call<'_> {
    fn to_service(self, service: &Arc<Service>, rng: &mut impl Rng) -> Result<Route, NoRoute> {
        let balance = Balance {
            snapshot: self.snapshot,
            source: self.source,
            service,
            port: self.destination.port(),
            rule: PortRule::Listed,
        };
        let none = || NoRoute::NoHealthyUpstream {
            service: Arc::clone(service.key()),
        };
        let pick = balance.pick(rng).ok_or_else(none)?;
        self.direct(pick, Some(service))
    }

    fn to_workload(self, workload: &Arc<Workload>, rng: &mut impl Rng) -> Result<Route, NoRoute> {
        let Source {
            workload: who,
            address,
            ..
        } = *self.source;
        if let Some(waypoint) = workload.waypoint()
            && !gateway::is_waypoint(self.snapshot, waypoint, who, address)
        {
            return self.to_waypoint(waypoint, None, rng);
        }
        let port = self.destination.port();
        self.direct(Pick { workload, port }, None)
    }

    /// The waypoint is told what was called, and does the rest.
    fn to_waypoint(
        self,
        waypoint: &GatewayAddress,
        service: Option<&Arc<Service>>,
        rng: &mut impl Rng,
    ) -> Result<Route, NoRoute> {
        let reference = (waypoint, self.destination.ip());
        let waypoint = gateway::resolve(self.snapshot, self.source, reference, rng)?;
        let Pick { workload, port } = waypoint.pick;
        self.on_our_network(workload)?;
        let ip = gateway::address(workload, waypoint.service, waypoint.called)?;
        Ok(Route {
            kind: RouteKind::Hbone {
                address: SocketAddr::new(ip, port),
                authority: Authority::Ip(self.destination),
                accepted: accepted(waypoint.service, workload),
            },
            workload: Some(Arc::clone(workload)),
            service: service.map(Arc::clone),
            via_waypoint: true,
        })
    }

    fn direct(&self, pick: Pick<'_>, service: Option<&Arc<Service>>) -> Result<Route, NoRoute> {
        let Pick { workload, port } = pick;
        self.on_our_network(workload)?;
        let ip = gateway::address(workload, service, self.destination.ip())?;
        let kind = match workload.protocol() {
            Protocol::Hbone => RouteKind::Hbone {
                address: SocketAddr::new(ip, HBONE_PORT),
                authority: Authority::Ip(SocketAddr::new(ip, port)),
                accepted: accepted(service, workload),
            },
            Protocol::Tcp => RouteKind::Tcp(SocketAddr::new(ip, port)),
        };
        Ok(Route {
            kind,
            workload: Some(Arc::clone(workload)),
            service: service.map(Arc::clone),
            via_waypoint: false,
        })
    }

    const fn passthrough(&self) -> Route {
        Route {
            kind: RouteKind::Passthrough(self.destination),
            workload: None,
            service: None,
            via_waypoint: false,
        }
    }

    fn on_our_network(&self, workload: &Workload) -> Result<(), NoRoute> {
        if **workload.network() == *self.source.network {
            return Ok(());
        }
        Err(NoRoute::CrossNetwork {
            network: Arc::clone(workload.network()),
        })
    }
}

fn is_passthrough(service: &Service) -> bool {
    service.load_balancing().mode == LoadBalancingMode::Passthrough
}

/// The workload's own identity, and those the service names.
fn accepted(service: Option<&Arc<Service>>, workload: &Workload) -> Arc<[SpiffeId]> {
    let own = workload.identity();
    let others = service.map_or(&[][..], |service| service.accepted_identities());
    let others = others.iter().filter(|other| **other != own).cloned();
    others.chain([own.clone()]).collect()
}

#[cfg(test)]
mod tests;

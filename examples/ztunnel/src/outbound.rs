//! A pod's own connections: what is this address, and how is it reached.

use std::net::SocketAddr;
use std::sync::Arc;

use meshwright_hbone::{Authority, Forwarded, Leg, Origin, Target, TraceParent, TunnelHeaders};
use meshwright_identity::AcceptedPeers;
use meshwright_xds_client::route::{self, Route, RouteKind, Source};
use meshwright_xds_client::workload::Workload;
use tokio::net::TcpStream;

use crate::baggage;
use crate::ending::Ending;
use crate::traffic::Traffic;
use crate::worker::Station;

/// Serves one captured connection to its end.
pub(crate) async fn serve(
    station: &Station,
    stream: TcpStream,
    from: SocketAddr,
    destination: SocketAddr,
) {
    let mut traffic = Traffic::outbound(station, from, destination);
    // Dropped before its end, the leg resets the application's connection.
    let client = station.pod.mesh.leg(stream);
    // Boxed: connecting needs more room than moving bytes, which may go on for days. It is not given up with the
    // application: requests that are taken back before their answer look like an attack to the peer.
    let connected = Box::pin(connect(station, from, destination, &mut traffic)).await;
    let ending = match connected {
        Ok(server) => Ending::Relayed(traffic.carry(client, server).await),
        Err(ending) => ending,
    };
    traffic.end(&ending);
}

/// Decides where the connection goes and opens the other leg of it.
async fn connect(
    station: &Station,
    from: SocketAddr,
    destination: SocketAddr,
    traffic: &mut Traffic,
) -> Result<Box<dyn Leg>, Ending> {
    let pod = &station.pod;
    let mesh = &pod.mesh;
    let workload = mesh.workload(&pod.name).await?;
    traffic.note_source(&workload);
    let snapshot = mesh.snapshot();
    let source = Source::new(&workload, &mesh.config.node.network, from.ip())
        .with_illegal_ports(mesh.illegal_ports());
    let route = route::outbound(&snapshot, &source, destination, &mut rand::rng())
        .map_err(Ending::NoRoute)?;
    traffic.note_route(&route);
    match &route.kind {
        RouteKind::Passthrough(to) | RouteKind::Tcp(to) => {
            let stream = station
                .dialer
                .dial(*to)
                .await
                .map_err(Ending::Destination)?;
            Ok(Box::new(mesh.leg(stream)))
        }
        RouteKind::Hbone {
            address,
            authority,
            accepted,
        } => {
            let member = mesh.member(&workload).await?;
            let accepted = AcceptedPeers::new(accepted.iter().cloned());
            let uid = route.workload.as_ref().map(|to| Arc::clone(to.uid()));
            let target = Target::new(*address, to_hbone(authority)?, accepted.clone())
                // A tunnel connection is never shared between pods, whatever identity they share.
                .with_origin(Origin::new(Arc::clone(&pod.uid)))
                .with_destination(
                    Arc::clone(&mesh.config.node.network),
                    uid.unwrap_or_default(),
                )
                .with_headers(headers(&workload, from, &route));
            let tunnel = station.pool.tunnel(&member, target).await;
            if tunnel.as_ref().err().is_none_or(Ending::was_mutual_tls) {
                traffic.note_mutual_tls(&workload, &accepted);
            }
            Ok(Box::new(tunnel.map_err(Ending::Connect)?))
        }
        _ => Err(Ending::NotUnderstood),
    }
}

fn headers(workload: &Workload, from: SocketAddr, route: &Route) -> TunnelHeaders {
    let mut forwarded = Forwarded::new(from);
    if let Some(service) = &route.service {
        forwarded = forwarded.with_host(service.hostname());
    }
    TunnelHeaders::new()
        .with_baggage(baggage::of(workload).to_header())
        .with_forwarded(&forwarded)
        .with_traceparent(TraceParent::generate())
}

fn to_hbone(authority: &route::Authority) -> Result<Authority, Ending> {
    match authority {
        route::Authority::Ip(address) => Ok(Authority::Ip(*address)),
        route::Authority::Host { name, port } => {
            Authority::host(name, *port).map_err(|_invalid| Ending::NotUnderstood)
        }
        _ => Err(Ending::NotUnderstood),
    }
}

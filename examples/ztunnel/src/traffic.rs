//! One connection as log and metrics see it: filled in as more is learnt, reported once at its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use meshwright_hbone::{Authority, Baggage, ConnectRequest, Leg, Relay, RelayConfig, relay};
use meshwright_identity::{AcceptedPeers, PeerSvid, SpiffeId};
use meshwright_istio_surface::access_log::AccessRecord;
use meshwright_istio_surface::config_dump::ConnectionProtocol;
use meshwright_istio_surface::end::EndReason as Reason;
use meshwright_istio_surface::metrics::{
    Label, OpenConnection, Party, Reporter, SecurityPolicy, SocketGuard, TrafficLabels,
};
use meshwright_xds_client::route::{InboundTarget, Route, RouteKind};
use meshwright_xds_client::workload::{PortMapping, Service, Snapshot, Workload};

use crate::ending::Ending;
use crate::pod::Pod;
use crate::served::{Listed, Outgoing, OutgoingConnection};
use crate::worker::{Kind, Station};

/// One connection, from accept to its end.
#[derive(Debug)]
pub(crate) struct Traffic {
    pod: Arc<Pod>,
    record: AccessRecord,
    count: Count,
    begun: Instant,
    listed: Option<Listed>,
    /// Whether more than addresses is known of both ends.
    is_described: bool,
    is_reported: bool,
    _socket: SocketGuard,
}

/// How a connection is counted.
#[derive(Debug)]
enum Count {
    /// Not yet: its labels are filled in. They are large, and go when it is counted.
    Labels(Box<TrafficLabels>),
    /// As opened, under its labels.
    Open(Arc<OpenConnection>),
}

impl Count {
    /// Fills in labels.
    fn label(&mut self, fill: impl FnOnce(&mut TrafficLabels)) {
        if let Self::Labels(labels) = self {
            fill(labels);
        }
    }
}

impl Traffic {
    /// A pod's own connection.
    pub(crate) fn outbound(station: &Station, from: SocketAddr, destination: SocketAddr) -> Self {
        Self::new(&station.pod, Reporter::Source, from, destination)
    }

    /// Plaintext to a pod.
    pub(crate) fn plain(station: &Station, from: SocketAddr, destination: SocketAddr) -> Self {
        Self::new(&station.pod, Reporter::Destination, from, destination)
    }

    /// A tunnel to a pod.
    pub(crate) fn tunnelled(
        station: &Station,
        from: SocketAddr,
        local: SocketAddr,
        request: &ConnectRequest,
    ) -> Self {
        let mut traffic = Self::new(&station.pod, Reporter::Destination, from, local);
        traffic
            .count
            .label(|labels| labels.security = SecurityPolicy::MutualTls);
        if let Authority::Ip(address) = request.authority() {
            traffic.record.dst_hbone_addr = Some(*address);
        }
        traffic.note_peer(request);
        traffic
    }

    /// Reports a connection that never got as far as to ask for anything.
    pub(crate) fn refused(
        pod: &Arc<Pod>,
        kind: Kind,
        from: SocketAddr,
        to: SocketAddr,
        ending: &Ending,
    ) {
        if let Ending::Crowded(limit) = ending {
            pod.mesh.telemetry.metrics.limit_reached(limit.as_str());
        }
        let reporter = match kind {
            Kind::Hbone | Kind::Plain => Reporter::Destination,
            Kind::Outbound => Reporter::Source,
        };
        Self::new(pod, reporter, from, to).end(ending);
    }

    fn new(pod: &Arc<Pod>, reporter: Reporter, from: SocketAddr, to: SocketAddr) -> Self {
        Self {
            record: AccessRecord::new(reporter, from, to),
            count: Count::Labels(Box::new(TrafficLabels::new(reporter))),
            begun: Instant::now(),
            listed: None,
            is_described: false,
            is_reported: false,
            _socket: pod.mesh.telemetry.metrics.socket_opened(reporter),
            pod: Arc::clone(pod),
        }
    }

    /// The client is the pod itself.
    pub(crate) fn note_source(&mut self, workload: &Workload) {
        self.record.source(workload);
        self.count.label(|labels| labels.source = party(workload));
    }

    /// The client is whoever owns the address, as far as the control plane knows.
    pub(crate) fn note_plain_client(&mut self, snapshot: &Snapshot, own: &Workload) {
        let network = &self.pod.mesh.config.node.network;
        let from = self.record.src_addr.ip();
        if let Some(client) = snapshot.workload_by_address(network, from) {
            let client = Arc::clone(client);
            self.note_source(&client);
        }
        self.note_destination(own);
        self.is_described = true;
    }

    /// The client has proved an identity. Its workload is looked up by address; where that cannot
    /// be, or names another identity, what the certificate says counts, then what the peer claims.
    ///
    /// That it came through a gateway is a claim too, which must not hide what is known: behind a
    /// gateway's address is another identity than the gateway's.
    fn note_peer(&mut self, request: &ConnectRequest) {
        let peer: &PeerSvid = request.peer();
        let network = &self.pod.mesh.config.node.network;
        let snapshot = self.pod.mesh.snapshot();
        let from = self.record.src_addr.ip();
        let known = snapshot
            .workload_by_address(network, from)
            .filter(|workload| workload.identity() == peer.id);
        match known {
            Some(workload) => {
                let workload = Arc::clone(workload);
                self.note_source(&workload);
            }
            None => self.note_stranger(&peer.id, &request.baggage()),
        }
        let identity: Arc<str> = peer.id.as_str().into();
        self.count
            .label(|labels| labels.source.principal = Label::known(&identity));
        self.record.src_identity = Some(identity);
    }

    /// The client is known by its identity and by what it claims, which can be switched off.
    fn note_stranger(&mut self, id: &SpiffeId, claims: &Baggage) {
        // The namespace is part of what the certificate proves.
        if let Some(workload) = id.workload() {
            self.count
                .label(|labels| labels.source.namespace = workload.namespace.into());
            self.record.src_namespace = Some(workload.namespace.into());
        }
        if !self.pod.mesh.config.telemetry.baggage {
            return;
        }
        let claimed =
            |value: &Option<Arc<str>>| value.as_deref().map_or_else(Label::default, Label::claimed);
        self.count.label(|TrafficLabels { source, .. }| {
            source.workload = claimed(&claims.workload_name);
            source.canonical_service = claimed(&claims.service_name);
            source.canonical_revision = claimed(&claims.service_version);
            source.cluster = claimed(&claims.cluster);
            source.region = claimed(&claims.region);
            source.zone = claimed(&claims.zone);
            source.known = claims.workload_name.is_some();
        });
    }

    /// The server is the pod.
    fn note_destination(&mut self, workload: &Workload) {
        self.record.destination(workload);
        self.count
            .label(|labels| labels.destination = party(workload));
    }

    /// The server is the pod, asked for through a tunnel.
    pub(crate) fn note_target(
        &mut self,
        snapshot: &Snapshot,
        own: &Workload,
        target: &InboundTarget,
        asked_for: Option<&str>,
    ) {
        self.note_destination(own);
        self.record.dst_hbone_addr = Some(target.destination);
        self.show_identities(own);
        let service = target
            .service
            .clone()
            .or_else(|| served_service(snapshot, own, asked_for, target.destination.port()));
        if let Some(service) = service {
            self.note_service(&service);
        }
        self.is_described = true;
    }

    /// Where the pod's own connection goes.
    pub(crate) fn note_route(&mut self, route: &Route) {
        if let Some(service) = &route.service {
            self.note_service(service);
        }
        if let Some(workload) = &route.workload {
            self.note_destination(workload);
        }
        let (actual, protocol) = match &route.kind {
            RouteKind::Hbone {
                address, authority, ..
            } => {
                if let meshwright_xds_client::route::Authority::Ip(target) = authority {
                    self.record.dst_hbone_addr = Some(*target);
                }
                (*address, ConnectionProtocol::Hbone)
            }
            RouteKind::Tcp(address) | RouteKind::Passthrough(address) => {
                (*address, ConnectionProtocol::Tcp)
            }
            _ => return,
        };
        let connection = OutgoingConnection {
            original: self.record.dst_addr,
            actual,
            protocol,
        };
        self.record.dst_addr = actual;
        self.is_described = true;
        self.listed = Some(Outgoing::list(&self.pod, self.record.src_addr, connection));
    }

    /// Both ends of the tunnel's connection have proved who they are.
    ///
    /// Of a peer that may have one of several identities, nothing is said.
    pub(crate) fn note_mutual_tls(&mut self, own: &Workload, accepted: &AcceptedPeers) {
        let own: Arc<str> = own.identity().as_str().into();
        self.count.label(|labels| {
            labels.security = SecurityPolicy::MutualTls;
            labels.source.principal = Label::known(&own);
        });
        self.record.src_identity = Some(own);
        let mut accepted = accepted.iter();
        if let (Some(peer), None) = (accepted.next(), accepted.next()) {
            let peer: Arc<str> = peer.as_str().into();
            self.count
                .label(|labels| labels.destination.principal = Label::known(&peer));
            self.record.dst_identity = Some(peer);
        }
    }

    fn show_identities(&mut self, own: &Workload) {
        let own: Arc<str> = own.identity().as_str().into();
        self.count
            .label(|labels| labels.destination.principal = Label::known(&own));
        self.record.dst_identity = Some(own);
    }

    fn note_service(&mut self, service: &Service) {
        self.record.dst_service = Some(Arc::clone(service.hostname()));
        self.count.label(|labels| {
            labels.service.host = Label::known(service.hostname());
            labels.service.namespace = Label::known(service.namespace());
            labels.service.name = Label::known(service.name());
        });
    }

    /// Counts the connection as opened and moves its bytes; the client's leg comes first.
    pub(crate) fn carry<A: Leg, B: Leg>(
        &mut self,
        client: A,
        server: B,
    ) -> Relay<A, B, Arc<OpenConnection>> {
        self.record.opened();
        let open = self.count_open();
        relay(client, server, &RelayConfig::default(), open)
    }

    fn count_open(&mut self) -> Arc<OpenConnection> {
        let traffic = self.pod.mesh.telemetry.metrics.traffic();
        let open = match &self.count {
            Count::Labels(labels) => Arc::new(traffic.series(labels).open()),
            Count::Open(open) => return Arc::clone(open),
        };
        self.count = Count::Open(Arc::clone(&open));
        open
    }

    /// Reports the end: the access-log line and the counters.
    pub(crate) fn end(mut self, ending: &Ending) {
        self.report(ending.reason(), ending.error());
    }

    fn report(&mut self, reason: Reason, error: Option<String>) {
        self.is_reported = true;
        let open = self.count_open();
        open.finish(reason.flag(), reason.establishment());
        let (sent, received) = open.sent_and_received();
        self.record.bytes_sent = sent;
        self.record.bytes_recv = received;
        self.record.duration = self.begun.elapsed();
        self.record.error = error;
        let access = &self.pod.mesh.telemetry.access;
        let now = Instant::now();
        if self.is_described {
            access.complete(&self.record, reason, now);
        } else {
            access.failed(&self.record, reason, now);
        }
    }
}

/// Cut off with its task: at the end of a drain, with its pod, or by a panic.
impl Drop for Traffic {
    fn drop(&mut self) {
        if self.is_reported {
            return;
        }
        let reason = if thread::panicking() {
            Reason::Internal
        } else {
            Reason::Drained
        };
        self.report(reason, reason.text("the connection's task panicked"));
    }
}

fn party(workload: &Workload) -> Party {
    let mut party = Party::default();
    party.workload = Label::known(workload.workload_name());
    party.canonical_service = Label::known(workload.canonical_name());
    party.canonical_revision = Label::known(workload.canonical_revision());
    party.namespace = Label::known(workload.namespace());
    party.cluster = Label::known(workload.cluster_id());
    party.region = Label::known(&workload.locality().region);
    party.zone = Label::known(&workload.locality().zone);
    party.known = true;
    party
}

/// The service that a tunnel to a pod is for: what the client says, if the pod backs that service;
/// else the first that leads to the port.
fn served_service(
    snapshot: &Snapshot,
    own: &Workload,
    asked_for: Option<&str>,
    port: u16,
) -> Option<Arc<Service>> {
    let leads_to = |ports: &[PortMapping]| ports.iter().any(|mapping| mapping.target == port);
    let mut by_port = None;
    for member in own.services() {
        let Some(service) = snapshot.service(&member.service) else {
            continue;
        };
        if asked_for == Some(&**service.hostname()) {
            return Some(Arc::clone(service));
        }
        if by_port.is_none() && (leads_to(&member.ports) || leads_to(service.ports())) {
            by_port = Some(Arc::clone(service));
        }
    }
    by_port
}

#[cfg(test)]
mod tests;

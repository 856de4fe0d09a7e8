//! Plaintext to a pod's application: judged without an identity, then passed on.
//!
//! Whoever connects is outside the mesh, or is the kubelet's neighbour; a STRICT policy refuses it because it has no
//! identity.

use std::net::SocketAddr;

use meshwright_hbone::TcpLeg;
use meshwright_policy::ConnectionFacts;
use tokio::net::TcpStream;

use crate::ending::Ending;
use crate::traffic::Traffic;
use crate::worker::Station;

/// Serves one captured connection to its end.
///
/// A connection that is not carried to its end is reset, so that no client takes a refusal or a cut for a complete
/// answer: that is what dropping its leg does.
pub(crate) async fn serve(
    station: &Station,
    stream: TcpStream,
    from: SocketAddr,
    destination: SocketAddr,
) {
    let mut traffic = Traffic::plain(station, from, destination);
    let ending = carry(
        station,
        TcpLeg::new(stream),
        from,
        destination,
        &mut traffic,
    )
    .await;
    traffic.end(&ending);
}

async fn carry(
    station: &Station,
    client: TcpLeg,
    from: SocketAddr,
    destination: SocketAddr,
    traffic: &mut Traffic,
) -> Ending {
    let pod = &station.pod;
    let mesh = &pod.mesh;
    if mesh.config.ports.illegal.contains(&destination.port()) {
        return Ending::OwnPort(destination);
    }
    let workload = match mesh.workload(&pod.name).await {
        Ok(workload) => workload,
        Err(ending) => return ending,
    };
    traffic.note_plain_client(&mesh.snapshot(), &workload);
    let facts = ConnectionFacts::new(None, from, destination, workload.uid().clone());
    let admission = match mesh.admit(facts).await {
        Ok(admission) => admission,
        Err(denied) => return Ending::Denied(denied),
    };
    let server = match station.dial_application(from.ip(), destination).await {
        Ok(stream) => TcpLeg::new(stream),
        Err(error) => return Ending::Application(error),
    };
    tokio::select! {
        end = traffic.carry(client, server) => Ending::Relayed(end),
        revoked = admission.revoked() => Ending::Revoked(revoked),
    }
}

//! Plaintext to a pod's application: judged without an identity, then passed on.
//!
//! Whoever connects is outside the mesh, or is the kubelet's neighbour; a STRICT policy refuses it because it has no
//! identity.

use std::net::SocketAddr;

use meshwright_hbone::TcpLeg;
use meshwright_policy::{Admission, ConnectionFacts};
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
    let client = station.pod.mesh.leg(stream);
    // Boxed: connecting needs more room than moving bytes, which may go on for days.
    let connected = Box::pin(connect(station, from, destination, &mut traffic)).await;
    let ending = match connected {
        Ok((admission, server)) => tokio::select! {
            end = traffic.carry(client, server) => Ending::Relayed(end),
            revoked = admission.revoked() => Ending::Revoked(revoked),
        },
        Err(ending) => ending,
    };
    traffic.end(&ending);
}

/// Judges the connection and opens the other leg of it.
async fn connect(
    station: &Station,
    from: SocketAddr,
    destination: SocketAddr,
    traffic: &mut Traffic,
) -> Result<(Admission, TcpLeg), Ending> {
    let pod = &station.pod;
    let mesh = &pod.mesh;
    if mesh.config.ports.illegal.contains(&destination.port()) {
        return Err(Ending::OwnPort(destination));
    }
    let workload = mesh.workload(&pod.name).await?;
    traffic.note_plain_client(&mesh.snapshot(), &workload);
    let facts = ConnectionFacts::new(None, from, destination, workload.uid().clone());
    let admission = mesh.admit(facts).await.map_err(Ending::Denied)?;
    let stream = station
        .dial_application(from.ip(), destination)
        .await
        .map_err(Ending::Application)?;
    Ok((admission, mesh.leg(stream)))
}

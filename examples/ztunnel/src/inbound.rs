//! Tunnels from other proxies: who are you, is this yours to ask for, may you, deliver.

use std::net::SocketAddr;
use std::sync::Arc;

use meshwright_hbone::{
    Authority, ConnectRequest, ResponseHeaders, ServerConnection, TcpLeg, Tunnel, accept_tls,
};
use meshwright_identity::PeerSvid;
use meshwright_policy::{Admission, ConnectionFacts};
use meshwright_xds_client::route;
use meshwright_xds_client::workload::{ApplicationProtocol, Workload};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::baggage;
use crate::ending::Ending;
use crate::limits::Crowded;
use crate::traffic::Traffic;
use crate::worker::{Kind, Station};

/// Serves one connection of a peer, and every tunnel in it.
pub(crate) async fn serve(
    station: &Arc<Station>,
    stream: TcpStream,
    from: SocketAddr,
    local: SocketAddr,
) {
    let established = {
        let mut turn = station.half_open.enter();
        tokio::select! {
            // A handshake needs more room than what follows it for hours.
            established = Box::pin(handshake(station, stream)) => established,
            () = turn.pushed_out() => Err(Ending::Crowded(Crowded::Handshakes)),
        }
    };
    let (workload, connection) = match established {
        Ok(established) => established,
        Err(ending) => return Traffic::refused(&station.pod, Kind::Hbone, from, local, &ending),
    };
    let caller = Caller {
        station: Arc::clone(station),
        workload,
        from,
        local,
    };
    tunnels(Arc::new(caller), connection).await;
}

/// One peer's connection.
#[derive(Debug)]
struct Caller {
    station: Arc<Station>,
    /// The pod's record when the connection was made; it is looked up again for each tunnel.
    workload: Arc<Workload>,
    from: SocketAddr,
    local: SocketAddr,
}

async fn handshake(
    station: &Station,
    stream: TcpStream,
) -> Result<(Arc<Workload>, ServerConnection), Ending> {
    let pod = &station.pod;
    let workload = pod.mesh.workload(&pod.name).await?;
    let member = pod.mesh.member(&workload).await?;
    let connection = accept_tls(stream, &member, &station.server)
        .await
        .map_err(Ending::Accept)?;
    Ok((workload, connection))
}

/// Takes requests until the connection ends; each tunnel is a task of its own on this thread.
async fn tunnels(caller: Arc<Caller>, mut connection: ServerConnection) {
    let mut tunnels = JoinSet::new();
    loop {
        tokio::select! {
            request = connection.accept() => match request {
                Some(Ok(request)) => {
                    tunnels.spawn(tunnel(Arc::clone(&caller), Box::new(request)));
                }
                Some(Err(error)) => {
                    tracing::debug!(from = %caller.from, error = %crate::chain(&error), "a peer's connection failed");
                    break;
                }
                None => break,
            },
            Some(ended) = tunnels.join_next() => note(&ended),
        }
    }
    // What the peer has not seen the end of ends now: the connection below it is gone.
    drop(connection);
    while let Some(ended) = tunnels.join_next().await {
        note(&ended);
    }
}

fn note(ended: &Result<(), tokio::task::JoinError>) {
    if ended.as_ref().is_err_and(tokio::task::JoinError::is_panic) {
        tracing::error!("a tunnel's task panicked; the others go on");
    }
}

async fn tunnel(caller: Arc<Caller>, request: Box<ConnectRequest>) {
    let mut traffic = Traffic::tunnelled(&caller.station, caller.from, caller.local, &request);
    // Boxed: opening a tunnel needs more room than moving bytes, which may go on for days.
    let ending = match Box::pin(open(&caller, request, &mut traffic)).await {
        Ok(Open {
            admission,
            client,
            server,
        }) => tokio::select! {
            end = traffic.carry(client, server) => Ending::Relayed(end),
            revoked = admission.revoked() => Ending::Revoked(revoked),
        },
        Err(ending) => ending,
    };
    traffic.end(&ending);
}

/// What moves bytes, once it is allowed to.
struct Open {
    admission: Admission,
    client: Tunnel,
    server: TcpLeg,
}

/// Answers a request: 200 says that the application has accepted.
async fn open(
    caller: &Caller,
    mut request: Box<ConnectRequest>,
    traffic: &mut Traffic,
) -> Result<Open, Ending> {
    let asked = Asked {
        authority: request.authority().clone(),
        peer: Arc::clone(request.peer()),
        host: request.forwarded().host,
    };
    let established = tokio::select! {
        established = establish(caller, &asked, traffic) => established,
        reset = request.abandoned() => return Err(Ending::Abandoned(reset)),
    };
    match established {
        Ok((admission, server, headers)) => Ok(Open {
            admission,
            client: request.accept(headers).map_err(Ending::Abandoned)?,
            server,
        }),
        Err(ending) => {
            request.refuse(ending.status());
            Err(ending)
        }
    }
}

/// What a peer asks for.
struct Asked {
    authority: Authority,
    peer: Arc<PeerSvid>,
    /// The service that the client asked for, by its own account: only for labels and dumps.
    host: Option<Arc<str>>,
}

type Established = (Admission, TcpLeg, ResponseHeaders);

async fn establish(
    caller: &Caller,
    asked: &Asked,
    traffic: &mut Traffic,
) -> Result<Established, Ending> {
    let pod = &caller.station.pod;
    let mesh = &pod.mesh;
    let workload = mesh.workload(&pod.name).await?;
    if workload.identity() != caller.workload.identity() {
        return Err(Ending::IdentityChanged);
    }
    let tunnel = workload.application_tunnel();
    if tunnel.is_some_and(|tunnel| tunnel.protocol == ApplicationProtocol::Proxy) {
        return Err(Ending::ProxyProtocol);
    }
    let snapshot = mesh.snapshot();
    let illegal = mesh.illegal_ports();
    let authority = to_route(&asked.authority)?;
    let target = route::inbound(&snapshot, &workload, caller.local, &authority, illegal)
        .map_err(Ending::NoRoute)?;
    traffic.note_target(&snapshot, &workload, &target, asked.host.as_deref());
    let facts = ConnectionFacts::new(
        Some(asked.peer.id.clone()),
        caller.from,
        target.destination,
        workload.uid().clone(),
    );
    let facts = match &asked.host {
        Some(host) => facts.with_requested(Arc::clone(host)),
        None => facts,
    };
    let admission = mesh.admit(facts).await.map_err(Ending::Denied)?;
    let stream = caller
        .station
        .dial_application(caller.from.ip(), target.address)
        .await
        .map_err(Ending::Application)?;
    let mut headers = ResponseHeaders::new();
    if mesh.config.telemetry.baggage {
        headers = headers.with_baggage(baggage::of(&workload).to_header());
    }
    Ok((admission, mesh.leg(stream), headers))
}

fn to_route(authority: &Authority) -> Result<route::Authority, Ending> {
    match authority {
        Authority::Ip(address) => Ok(route::Authority::Ip(*address)),
        Authority::Host { name, port, .. } => Ok(route::Authority::Host {
            name: name.clone(),
            port: *port,
        }),
        _ => Err(Ending::NotUnderstood),
    }
}

//! Our HBONE server, in front of an app.

use std::{net::SocketAddr, sync::Arc};

use http::StatusCode;
use meshwright_hbone::{
    ConnectRequest, EndReason, RelayConfig, ResponseHeaders, ServerConfig, TcpLeg, accept_tls,
    relay,
};
use meshwright_identity::{Member, SpiffeId};
use meshwright_testbed::{Step, WorldError};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
};

/// Where every request is let in.
pub(crate) const ADMITTED: &str = "10.0.0.7:8080";
/// Where every request is refused with 401.
pub(crate) const DENIED: &str = "10.0.0.7:8081";

/// What happened and was not asked for yet.
const REMEMBERED: usize = 64;

/// What peers came with.
#[derive(Debug)]
pub(crate) enum Seen {
    /// A connection did not become one.
    NotAccepted(String),
    /// A request.
    Request(SpiffeId, String),
}

/// A running server. It stops when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    addr: SocketAddr,
    seen: mpsc::Receiver<Seen>,
    ends: mpsc::Receiver<EndReason>,
    _tasks: JoinSet<()>,
}

impl Server {
    /// Listens and relays to the app.
    pub(crate) async fn start(member: Member, app: SocketAddr) -> Result<Self, WorldError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.step("listen")?;
        let addr = listener.local_addr().step("read an address")?;
        let (seen_by, seen) = mpsc::channel(REMEMBERED);
        let (ended, ends) = mpsc::channel(REMEMBERED);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _peer)) = listener.accept().await {
                connections.spawn(connection(
                    socket,
                    member.clone(),
                    app,
                    (seen_by.clone(), ended.clone()),
                ));
            }
        });
        Ok(Self {
            addr,
            seen,
            ends,
            _tasks: tasks,
        })
    }

    pub(crate) const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Waits for who comes next.
    pub(crate) async fn seen(&mut self) -> Result<Seen, WorldError> {
        let seen = self.seen.recv().await;
        seen.ok_or_else(|| WorldError::new("ask the server"))
    }

    /// Waits for a request of this peer for this authority, and nothing else.
    pub(crate) async fn sees(&mut self, peer: &SpiffeId, to: &str) -> Result<(), WorldError> {
        match self.seen().await? {
            Seen::Request(from, authority) => {
                assert_eq!((&from, authority.as_str()), (peer, to), "who asks for what");
                Ok(())
            }
            other => Err(WorldError::new(format!("see a request: {other:?}"))),
        }
    }

    /// Waits for the next end of a tunnel, which must be in order.
    pub(crate) async fn finishes(&mut self) -> Result<(), WorldError> {
        match self.ends.recv().await {
            Some(EndReason::Finished) => Ok(()),
            other => Err(WorldError::new(format!("see a tunnel finish: {other:?}"))),
        }
    }
}

async fn connection(
    socket: TcpStream,
    member: Member,
    app: SocketAddr,
    (seen, ended): (mpsc::Sender<Seen>, mpsc::Sender<EndReason>),
) {
    let config = ServerConfig::new(Arc::new(()));
    let mut connection = match accept_tls(socket, &member, &config).await {
        Ok(connection) => connection,
        Err(error) => {
            let chain = WorldError::caused("accept", error).chain();
            seen.send(Seen::NotAccepted(chain))
                .await
                .unwrap_or_default();
            return;
        }
    };
    let mut tunnels = JoinSet::new();
    while let Some(Ok(request)) = connection.accept().await {
        let (peer, authority) = (request.peer().id.clone(), request.authority().to_string());
        let denied = authority == DENIED;
        seen.send(Seen::Request(peer, authority))
            .await
            .unwrap_or_default();
        if denied {
            request.refuse(StatusCode::UNAUTHORIZED);
        } else {
            tunnels.spawn(tunnel(request, app, ended.clone()));
        }
    }
    // Their last words are for the report.
    while tunnels.join_next().await.is_some() {}
}

async fn tunnel(request: ConnectRequest, app: SocketAddr, ended: mpsc::Sender<EndReason>) {
    let Ok(stream) = TcpStream::connect(app).await else {
        return request.refuse(StatusCode::SERVICE_UNAVAILABLE);
    };
    let Ok(tunnel) = request.accept(ResponseHeaders::new()) else {
        return;
    };
    let config = RelayConfig::default();
    let end = relay(tunnel, TcpLeg::new(stream), &config, ()).await;
    ended.send(end.reason).await.unwrap_or_default();
}

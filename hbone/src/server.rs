//! Accepts connections from peers and yields their requests for tunnels.
//!
//! [`accept_tls`] turns a socket into a [`ServerConnection`]; its [`accept`] moves the bytes of all
//! its tunnels while it waits for the next request, so it must be called until it returns `None`.
//! What breaks a rule is answered here and never surfaces.
//!
//! [`accept`]: ServerConnection::accept

mod config;
mod connection;
mod request;

pub use config::ServerConfig;
pub(crate) use config::jittered;
pub use connection::ServerConnection;
pub use request::{BadRequest, ConnectRequest, ResponseHeaders};

use crate::{
    error::AcceptError,
    events::{Limit, LimitReached, Role},
    tls::TlsStream,
    trust::Trust,
    wire,
};
use meshwright_identity::{Member, PeerSvid, svid::Purpose};
use rustls::ServerConnection as TlsServer;
use std::io;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

/// Finishes TLS and the start of HTTP/2 with a peer that connected.
///
/// Both have a deadline (5 s each by default); the peer's certificate must be valid for the mesh,
/// and its identity must have a connection left in the quota. Not cancel safe: dropping the future
/// drops the connection.
///
/// # Errors
///
/// Returns [`AcceptError`] when TLS or HTTP/2 was not established in time, when the peer is no
/// member of the mesh, when its quota is used up, and when our own certificate has expired.
pub async fn accept_tls<T>(
    io: T,
    member: &Member,
    config: &ServerConfig,
) -> Result<ServerConnection, AcceptError>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let limit_reached = |peer, limit| {
        let role = Role::Server;
        config
            .events
            .limit_reached(&LimitReached { role, peer, limit });
    };
    let rotations = member.rotations();
    let tls = accept_member(io, member, config)
        .await
        .inspect_err(|error| {
            if let AcceptError::Timeout { step } = error {
                limit_reached(None, *step);
            }
        })?;
    let peer = PeerSvid::of_connection(tls.state()).map_err(|no_peer| {
        let source = io::Error::new(io::ErrorKind::InvalidData, no_peer);
        AcceptError::Tls { source }
    })?;
    let quotas = config.quotas.as_ref();
    let slot = quotas.map(|quotas| quotas.connection(&peer.id)).transpose();
    let slot = slot.map_err(|source| {
        limit_reached(Some(&peer.id), Limit::Connections);
        AcceptError::Quota { source }
    })?;
    let preface = wire::server::start(tls, &config.wire);
    let driver = match timeout(config.settings_deadline, preface).await {
        Ok(started) => started.map_err(|source| AcceptError::Http2 { source })?,
        Err(_elapsed) => {
            let step = Limit::Settings;
            limit_reached(Some(&peer.id), step);
            return Err(AcceptError::Timeout { step });
        }
    };
    let trust = Trust::new(member, Purpose::Client, rotations);
    Ok(ServerConnection::new(driver, (peer, trust), slot, config))
}

async fn accept_member<T>(
    io: T,
    member: &Member,
    config: &ServerConfig,
) -> Result<TlsStream, AcceptError>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    if member.is_expired() {
        return Err(AcceptError::Expired);
    }
    let server = TlsServer::new(member.server_config()).map_err(|error| {
        let source = io::Error::new(io::ErrorKind::InvalidInput, error);
        AcceptError::Tls { source }
    })?;
    let mut tls = TlsStream::new(io, server.into());
    match timeout(config.tls_deadline, tls.handshake()).await {
        Ok(Ok(())) => Ok(tls),
        Ok(Err(source)) => Err(AcceptError::Tls { source }),
        Err(_elapsed) => Err(AcceptError::Timeout { step: Limit::Tls }),
    }
}

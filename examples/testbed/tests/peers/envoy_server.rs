//! Our client opens tunnels to Envoy.

use std::{fs, net::SocketAddr, path::Path, sync::Arc};

use meshwright_hbone::{
    Authority, Baggage, ConnectError, DirectDial, Pool, PoolConfig, Target, Tunnel, TunnelHeaders,
};
use meshwright_identity::{AcceptedPeers, Member, SpiffeId};
use meshwright_testbed::{Step, WorldError};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::{
    app::App,
    certificates::{Mesh, id},
    envoy::{self, Envoy},
    rig::{self, until},
    server::ADMITTED,
    traffic,
};

/// Our client before Envoy before an app.
struct Path3 {
    app: App,
    envoy: Envoy,
    address: SocketAddr,
    pool: Pool<DirectDial>,
    member: Member,
    mesh: Mesh,
}

impl Path3 {
    async fn new(program: &Path) -> Result<Self, WorldError> {
        let mesh = Mesh::new()?;
        mesh.write("envoy")?;
        let app = App::start().await?;
        let envoy = Envoy::start(program, mesh.dir(), config(&mesh, app.addr())?).await?;
        Ok(Self {
            app,
            address: envoy.listener("hbone").await?,
            envoy,
            pool: Pool::new(DirectDial::new(), PoolConfig::new(), Arc::new(())),
            member: mesh.member("client")?,
            mesh,
        })
    }

    fn target(&self, expected: SpiffeId) -> Result<Target, WorldError> {
        let authority = Authority::parse(ADMITTED).step("name the app")?;
        Ok(Target::new(
            self.address,
            authority,
            AcceptedPeers::from(expected),
        ))
    }

    async fn tunnel(&self) -> Result<Tunnel, WorldError> {
        let target = self.target(id("envoy")?)?;
        let tunnel = self.pool.tunnel(&self.member, target).await;
        tunnel.step("open a tunnel to Envoy")
    }

    async fn stat(&self, name: &str) -> Result<u64, WorldError> {
        self.envoy.stat(&format!("http.hbone.{name}")).await
    }
}

fn config(mesh: &Mesh, app: SocketAddr) -> Result<Value, WorldError> {
    let client = id("client")?;
    let tls = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": true,
        "common_tls_context": envoy::common_tls(mesh.dir(), "envoy", &[client.as_str()]),
    });
    let log = json!({ "name": "file", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": mesh.dir().join("access.log"),
        "log_format": { "text_format_source": { "inline_string":
            "%DOWNSTREAM_PEER_URI_SAN% %REQ(:METHOD)% %REQ(:AUTHORITY)% %RESPONSE_CODE% %REQ(BAGGAGE)%\n" } },
    } });
    let connect = json!([{ "upgrade_type": "CONNECT" }]);
    let route = json!({
        "match": { "connect_matcher": {} },
        "route": {
            "cluster": "app",
            "upgrade_configs": [{ "upgrade_type": "CONNECT", "connect_config": {} }],
        },
    });
    let filter = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "hbone",
        "codec_type": "HTTP2",
        "access_log": [log],
        "http2_protocol_options": { "allow_connect": true },
        "upgrade_configs": connect,
        "route_config": { "virtual_hosts": [{ "name": "any", "domains": ["*"], "routes": [route] }] },
        "http_filters": [{ "name": "router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
        } }],
    });
    let socket = json!({ "name": "tls", "typed_config": tls });
    Ok(json!({
        "static_resources": {
            "listeners": [envoy::listener("hbone", &filter, Some(socket))],
            "clusters": [envoy::cluster("app", app)],
        },
    }))
}

pub(crate) fn our_client_reaches_an_app_through_envoy(program: &Path) -> Result<(), WorldError> {
    rig::run(async {
        let path = Path3::new(program).await?;
        let mut baggage = Baggage::default();
        baggage.service_name = Some("client-1".into());
        let headers = TunnelHeaders::new().with_baggage(baggage.to_header());
        let target = path.target(id("envoy")?)?.with_headers(headers);
        let tunnel = path.pool.tunnel(&path.member, target).await;
        let mut tunnel = tunnel.step("open a tunnel to Envoy")?;
        traffic::exchange(&mut tunnel, true).await?;
        let stats = path
            .envoy
            .stats(r"listener\..*\.ssl\.(curves|versions)")
            .await?;
        for fact in ["curves.X25519MLKEM768", "versions.TLSv1.3"] {
            let seen = stats
                .iter()
                .any(|(name, n)| name.ends_with(fact) && *n == 1);
            assert!(seen, "{fact} in {stats:?}");
        }
        drop(tunnel);
        let log = path.mesh.dir().join("access.log");
        let line = until("Envoy logs the tunnel", async || {
            let text = fs::read_to_string(&log).ok()?;
            text.lines().next().map(str::to_owned)
        })
        .await?;
        let client = path.member.id();
        assert_eq!(
            line,
            format!("{client} CONNECT {ADMITTED} 200 service.name=client-1"),
            "whom and what Envoy saw"
        );
        Ok(())
    })
}

pub(crate) fn half_close_of_our_client_through_envoy_is_exact(
    program: &Path,
) -> Result<(), WorldError> {
    rig::run(async {
        let mut path = Path3::new(program).await?;
        traffic::finish_first(path.tunnel().await?, &mut path.app).await?;
        until("the tunnel is given back", async || {
            (path.pool.tunnels() == 0).then_some(())
        })
        .await?;
        assert_eq!(path.stat("downstream_rq_rx_reset").await?, 0, "no reset");
        Ok(())
    })
}

/// Envoy resets a stream as soon as the app behind it has finished, as RFC 9113 §8.1 allows.
pub(crate) fn end_that_envoy_sends_before_its_reset_is_heard(
    program: &Path,
) -> Result<(), WorldError> {
    rig::run(async {
        let path = Path3::new(program).await?;
        let mut tunnel = path.tunnel().await?;
        traffic::hear_finish(&mut tunnel).await?;
        let chunk = [0; 1 << 10];
        let refused = until("what is sent later is refused", async || {
            let outcome = tunnel.write_all(&chunk).await;
            outcome.err()
        })
        .await?;
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionReset);
        Ok(())
    })
}

pub(crate) fn two_tunnels_share_a_connection_to_envoy(program: &Path) -> Result<(), WorldError> {
    rig::run(async {
        let path = Path3::new(program).await?;
        let (mut one, mut two) = (path.tunnel().await?, path.tunnel().await?);
        for first in [true, false] {
            traffic::exchange(&mut one, first).await?;
            traffic::exchange(&mut two, first).await?;
        }
        assert_eq!((path.pool.connections(), path.pool.tunnels()), (1, 2));
        assert_eq!(
            path.stat("downstream_cx_http2_total").await?,
            1,
            "one connection"
        );
        assert_eq!(
            path.stat("downstream_rq_active").await?,
            2,
            "two requests at once"
        );
        Ok(())
    })
}

pub(crate) fn envoy_of_another_identity_gets_no_request(program: &Path) -> Result<(), WorldError> {
    rig::run(async {
        let path = Path3::new(program).await?;
        let target = path.target(id("somebody-else")?)?;
        let outcome = path.pool.tunnel(&path.member, target).await;
        assert!(
            matches!(outcome, Err(ConnectError::Tls { .. })),
            "refused while TLS is established: {outcome:?}"
        );
        let mut tunnel = path.tunnel().await?;
        traffic::exchange(&mut tunnel, true).await?;
        assert_eq!(
            path.stat("downstream_rq_total").await?,
            1,
            "only the right one"
        );
        Ok(())
    })
}

//! Envoy opens tunnels to our server.

use std::{net::SocketAddr, path::Path};

use meshwright_identity::SpiffeId;
use meshwright_testbed::{Step, WorldError};
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::{
    app::App,
    certificates::{Mesh, id},
    envoy::{self, Envoy},
    rig::{self, until},
    server::{ADMITTED, DENIED, Seen, Server},
    traffic,
};

/// Envoy before our server before an app.
struct Path3 {
    app: App,
    server: Server,
    envoy: Envoy,
    client: SpiffeId,
    _mesh: Mesh,
}

impl Path3 {
    async fn new(program: &Path) -> Result<Self, WorldError> {
        let mesh = Mesh::new()?;
        let client = mesh.write("envoy")?;
        let app = App::start().await?;
        let server = Server::start(mesh.member("server")?, app.addr()).await?;
        let config = config(&mesh, server.addr())?;
        let envoy = Envoy::start(program, mesh.dir(), config).await?;
        Ok(Self {
            app,
            server,
            envoy,
            client,
            _mesh: mesh,
        })
    }

    async fn connect(&self, listener: &str) -> Result<TcpStream, WorldError> {
        let address = self.envoy.listener(listener).await?;
        TcpStream::connect(address).await.step("connect to Envoy")
    }
}

fn config(mesh: &Mesh, server: SocketAddr) -> Result<Value, WorldError> {
    let tunneling = |cluster: &str, authority: &str| {
        json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": cluster,
            "cluster": cluster,
            "tunneling_config": { "hostname": authority },
        })
    };
    let cluster = |name: &str, expected: &SpiffeId| {
        let mut cluster = envoy::with_http2(envoy::cluster(name, server));
        let tls = json!({
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": envoy::common_tls(mesh.dir(), "envoy", &[expected.as_str()]),
        });
        if let Some(cluster) = cluster.as_object_mut() {
            let socket = json!({ "name": "tls", "typed_config": tls });
            cluster.insert("transport_socket".to_owned(), socket);
        }
        cluster
    };
    Ok(json!({ "static_resources": {
        "listeners": [
            envoy::listener("admitted", &tunneling("hbone", ADMITTED), None),
            envoy::listener("denied", &tunneling("hbone", DENIED), None),
            envoy::listener("misled", &tunneling("misled", ADMITTED), None),
        ],
        "clusters": [
            cluster("hbone", &id("server")?),
            cluster("misled", &id("somebody-else")?),
        ],
    } }))
}

pub(crate) fn envoy_reaches_an_app_through_our_server(program: &Path) -> Result<(), WorldError> {
    rig::run(async {
        let mut path = Path3::new(program).await?;
        let mut stream = path.connect("admitted").await?;
        traffic::exchange(&mut stream, true).await?;
        path.server.sees(&path.client, ADMITTED).await?;
        let curves = path
            .envoy
            .stats(r"cluster\.hbone\.ssl\.(curves|versions)")
            .await?;
        for fact in ["curves.X25519MLKEM768", "versions.TLSv1.3"] {
            let name = format!("cluster.hbone.ssl.{fact}");
            assert_eq!(curves.get(&name), Some(&1), "{name} in {curves:?}");
        }
        traffic::exchange(&mut stream, false).await?;
        drop(stream);
        path.server.finishes().await
    })
}

pub(crate) fn half_close_through_envoy_and_our_server_is_exact(
    program: &Path,
) -> Result<(), WorldError> {
    rig::run(async {
        let mut path = Path3::new(program).await?;
        traffic::finish_first(path.connect("admitted").await?, &mut path.app).await?;
        path.server.sees(&path.client, ADMITTED).await?;
        path.server.finishes().await?;
        traffic::finish_last(path.connect("admitted").await?, &mut path.app).await?;
        path.server.sees(&path.client, ADMITTED).await?;
        path.server.finishes().await
    })
}

pub(crate) fn refusal_closes_what_envoy_accepted(program: &Path) -> Result<(), WorldError> {
    rig::run(async {
        let mut path = Path3::new(program).await?;
        let mut stream = path.connect("denied").await?;
        let heard = stream.read(&mut [0; 16]).await;
        assert!(!matches!(heard, Ok(1..)), "nothing but an end: {heard:?}");
        path.server.sees(&path.client, DENIED).await?;
        until("Envoy closed both directions", async || {
            let open = path.envoy.stat("tcp.hbone.downstream_cx_active").await;
            open.is_ok_and(|open| open == 0).then_some(())
        })
        .await
    })
}

pub(crate) fn envoy_does_not_send_a_request_to_another_identity(
    program: &Path,
) -> Result<(), WorldError> {
    rig::run(async {
        let mut path = Path3::new(program).await?;
        let mut stream = path.connect("misled").await?;
        let heard = stream.read(&mut [0; 16]).await;
        assert!(!matches!(heard, Ok(1..)), "nothing but an end: {heard:?}");
        let seen = path.server.seen().await?;
        let refused = matches!(&seen, Seen::NotAccepted(why) if why.contains("could not establish mutual TLS"));
        assert!(refused, "the handshake fails, no request arrives: {seen:?}");
        let failed = path
            .envoy
            .stat("cluster.misled.ssl.fail_verify_san")
            .await?;
        assert!(failed > 0, "Envoy compared our identity");
        Ok(())
    })
}

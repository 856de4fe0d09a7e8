use std::sync::Arc;

use meshwright_redirect::Netns;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::PodProxy;
use crate::mesh::PodName;
use crate::shards::Shards;
use crate::testing;

#[tokio::test]
async fn a_call_to_the_proxys_own_port_is_reset_and_counted() {
    let _trace = meshwright_testkit::trace();
    let (mesh, _rotator) = testing::mesh();
    let ports = mesh.config.ports.clone();
    let shards = Shards::start("ztunnel", 1).unwrap();
    let netns = Netns::current().unwrap();
    let name = PodName::new("default", "a", "sa");
    let pod = PodProxy::start("uid".into(), name, netns, Arc::clone(&mesh), &shards).unwrap();
    for (port, reporter) in [
        (ports.outbound, "source"),
        (ports.inbound_plaintext, "destination"),
    ] {
        // Where the threads are quick, the reset is there before the connection.
        let end = match TcpStream::connect(port).await {
            Ok(mut stream) => stream.read(&mut [0]).await,
            Err(reset) => Err(reset),
        };
        assert!(end.is_err(), "{reporter}: a reset, not {end:?}");
        let text = mesh.telemetry.metrics.encode();
        let failed = text.lines().find(|line| {
            line.starts_with("istio_tcp_connections_failed_total")
                && line.contains(&format!("reporter=\"{reporter}\""))
        });
        let failed = failed.unwrap_or_else(|| panic!("{reporter} is not counted: {text}"));
        assert!(failed.contains("response_flags=\"CONNECT\""), "{failed}");
    }
    pod.deleted().await;
}

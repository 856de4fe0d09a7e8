use std::sync::Arc;

use meshwright_istio_surface::server::Readiness;
use meshwright_redirect::Netns;
use meshwright_redirect::zds::PodInfo;
use tokio::net::TcpStream;

use super::Pods;
use crate::shards::Shards;
use crate::testing;

#[tokio::test]
async fn a_pod_whose_proxy_has_broken_down_is_served_again() {
    let _trace = meshwright_testkit::trace();
    let (mesh, _rotator) = testing::mesh();
    let port = mesh.config.ports.outbound;
    let shards = Arc::new(Shards::start("ztunnel", 1).unwrap());
    let readiness = Readiness::new();
    let blocker = readiness.block(crate::POD_MANAGER);
    let mut pods = Pods::new(Arc::clone(&mesh), shards, readiness.clone(), blocker);
    let info = PodInfo::new("a", "default", "sa");
    pods.add("uid", &info, &Netns::current().unwrap()).unwrap();
    pods.retry();
    assert_eq!(pods.leaving.len(), 0, "a proxy that runs is left alone");
    pods.running
        .values_mut()
        .for_each(super::PodProxy::break_down);
    while pods.leaving.is_empty() {
        pods.retry();
        tokio::task::yield_now().await;
    }
    assert!(pods.pending.is_empty() && pods.running.len() == 1);
    // Calls to the proxy's own port are refused, and counted by whoever serves it.
    let refused = "istio_tcp_connections_failed_total{reporter=\"source\"";
    while !mesh.telemetry.metrics.encode().contains(refused) {
        let _reset = TcpStream::connect(port).await;
        tokio::task::yield_now().await;
    }
    pods.is_synced = true;
    pods.publish();
    assert!(readiness.is_ready());
}

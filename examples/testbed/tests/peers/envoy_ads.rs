//! Envoy is a client of our ADS server.

use std::{net::SocketAddr, path::Path};

use meshwright_testbed::WorldError;
use meshwright_xds_client::server::ServedResource;
use serde_json::{Value, json};

use crate::{
    ads::Ads,
    certificates::Mesh,
    envoy::{self, Envoy},
    rig::{self, until},
};

const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";

fn config(ads: SocketAddr) -> Value {
    json!({
        "node": { "id": "envoy", "cluster": "peers" },
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{ "envoy_grpc": { "cluster_name": "ads" } }],
            },
            "cds_config": { "ads": {}, "resource_api_version": "V3" },
        },
        "static_resources": { "clusters": [envoy::with_http2(envoy::cluster("ads", ads))] },
    })
}

/// A cluster without endpoints: its name is field 1 of the message.
fn cluster(name: &str) -> ServedResource {
    let mut body = vec![0x0a, u8::try_from(name.len()).unwrap_or_default()];
    body.extend(name.bytes());
    ServedResource::new(name.to_owned(), body)
}

pub(crate) fn envoy_accepts_and_refuses_what_our_server_sends(
    program: &Path,
) -> Result<(), WorldError> {
    rig::run(async {
        let (mesh, ads) = (Mesh::new()?, Ads::start().await?);
        ads.resources.set(CLUSTER, cluster("first"));
        let envoy = Envoy::start(program, mesh.dir(), config(ads.addr())).await?;
        assert_eq!(ads.answer(CLUSTER).await?, None, "accepted");
        let has = async |name: &str| {
            let text = envoy.get("/clusters").await.ok()?;
            Some(text.contains(&format!("\n{name}::")))
        };
        until("Envoy has the cluster", async || {
            has("first").await?.then_some(())
        })
        .await?;

        ads.resources.set(CLUSTER, cluster("second"));
        assert_eq!(ads.answer(CLUSTER).await?, None, "accepted");
        assert_eq!(has("second").await, Some(true), "applied before the answer");
        ads.resources.remove(CLUSTER, "first");
        assert_eq!(ads.answer(CLUSTER).await?, None, "accepted");
        assert_eq!(has("first").await, Some(false), "removed before the answer");

        let broken = ServedResource::new("broken", vec![0xff]);
        ads.resources.set(CLUSTER, broken);
        let refusal = ads.answer(CLUSTER).await?;
        assert!(refusal.is_some(), "what cannot be read is refused");
        assert_eq!(has("second").await, Some(true), "and changes nothing");
        Ok(())
    })
}

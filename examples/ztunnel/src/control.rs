//! Where the picture of the mesh comes from: a control plane, a file, or both.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use meshwright_identity::grpc::{Channel, ChannelConfig};
use meshwright_xds_client::client::{Client, ClientConfig, Node, NodeValue, Ready};
use meshwright_xds_client::{Handler, Resource, Update};
use tokio::task::JoinSet;

use crate::certificates::{header_map, root_source, token_source};
use crate::config::{self, ControlPlane};
use crate::judge::Holds;
use crate::local::LocalMesh;
use crate::mesh::Mesh;
use crate::program::RunError;
use crate::shards::Shards;
use crate::updates::{Addresses, Policies};

const CLUSTER_ID: HeaderName = HeaderName::from_static("clusterid");

/// The running source; dropping it ends its tasks.
#[derive(Debug)]
pub(crate) struct Source {
    ready: Option<Ready>,
    tasks: JoinSet<()>,
}

/// Fills the stores: from the file at once, from the control plane for as long as the source is kept.
///
/// # Errors
///
/// Returns [`RunError`] if there is no source, or one cannot be used.
pub(crate) fn connect(
    mesh: &Arc<Mesh>,
    mut addresses: Addresses,
    mut policies: Policies,
    holds: Holds,
    thread: &Shards,
) -> Result<Source, RunError> {
    let mut tasks = JoinSet::new();
    tasks.spawn_on(holds.run(), &thread.handle(0));
    let config = &mesh.config;
    if let Some(local) = &config.local {
        let local = LocalMesh::load(local).map_err(RunError::Local)?;
        apply(&mut addresses, &local.addresses)?;
        apply(&mut policies, &local.policies)?;
    }
    let Some(control_plane) = &config.control_plane else {
        let Some(_) = &config.local else {
            return Err(RunError::NoSource);
        };
        // The handlers are kept: with them goes the judge that ends holds.
        tasks.spawn_on(keep((addresses, policies)), &thread.handle(0));
        return Ok(Source { ready: None, tasks });
    };
    let client = Client::new(
        channel(control_plane, &config.node.cluster_id)?,
        node(config),
        ClientConfig::default(),
        Arc::clone(&mesh.telemetry) as Arc<_>,
    )
    .subscribe(addresses)
    .subscribe(policies);
    let ready = Some(client.ready());
    tasks.spawn_on(client.run(), &thread.handle(0));
    Ok(Source { ready, tasks })
}

impl Source {
    /// Waits until the first state is complete. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`RunError::Source`] if it never will be.
    pub(crate) async fn ready(&mut self) -> Result<(), RunError> {
        match &mut self.ready {
            Some(ready) => ready.ready().await.map_err(|_gone| RunError::Source),
            None => Ok(()),
        }
    }

    /// Waits until one of its tasks ends, which only a panic does. Cancel safe.
    pub(crate) async fn broken(&mut self) -> RunError {
        let _panicked = self.tasks.join_next().await;
        RunError::Source
    }
}

async fn keep<T: Send>(kept: T) {
    std::future::pending::<()>().await;
    drop(kept);
}

/// Gives entries of the file to the handler that would get them from a control plane.
fn apply<M: prost::Message>(
    handler: &mut impl Handler,
    entries: &[(String, M)],
) -> Result<(), RunError> {
    let resources: Vec<_> = entries
        .iter()
        .map(|(name, message)| Resource::new(name.as_str(), message.encode_to_vec()))
        .collect();
    let rejected = handler.apply(Update::new(&resources, &[]));
    if rejected.is_empty() {
        return Ok(());
    }
    let reasons: Vec<_> = rejected.iter().map(ToString::to_string).collect();
    Err(RunError::Refused {
        reason: reasons.join("; "),
    })
}

fn channel(control_plane: &ControlPlane, cluster: &str) -> Result<Channel, RunError> {
    let settings = ChannelConfig::new(control_plane.uri.clone(), root_source(&control_plane.roots))
        .token(token_source(&control_plane.token))
        .headers(headers(control_plane, cluster)?);
    let settings = match &control_plane.alternate_host {
        Some(host) => settings.alternate_host(host.clone()),
        None => settings,
    };
    Channel::new(settings).map_err(|source| RunError::Channel {
        to: "the control plane",
        source,
    })
}

/// What every request carries: istiod asks the named cluster whether the token is good.
fn headers(control_plane: &ControlPlane, cluster: &str) -> Result<HeaderMap, RunError> {
    let mut headers = header_map(&control_plane.headers);
    if !headers.contains_key(CLUSTER_ID) {
        let cluster = HeaderValue::try_from(cluster).map_err(RunError::ClusterId)?;
        headers.insert(CLUSTER_ID, cluster);
    }
    Ok(headers)
}

/// What the proxy tells the control plane about itself, as Istio's does.
fn node(config: &config::Config) -> Node {
    let own = &config.node;
    let text = |name: &Option<Arc<str>>| name.as_deref().unwrap_or_default().to_owned();
    let mut node = Node::ztunnel(
        &own.instance_ip.to_string(),
        &text(&own.pod_name),
        &text(&own.pod_namespace),
        &text(&own.name),
    );
    for (key, value) in &own.metadata {
        node = node.metadata(key, value.as_str());
    }
    for (key, value) in &own.metadata_json {
        node = node.metadata(key, json(value));
    }
    node
}

fn json(value: &serde_json::Value) -> NodeValue {
    use serde_json::Value;
    match value {
        Value::Null => NodeValue::Null,
        Value::Bool(value) => NodeValue::Bool(*value),
        Value::Number(value) => NodeValue::Number(value.as_f64().unwrap_or_default()),
        Value::String(value) => NodeValue::Text(value.clone()),
        Value::Array(values) => NodeValue::List(values.iter().map(json).collect()),
        Value::Object(fields) => {
            NodeValue::Map(fields.iter().map(|(k, v)| (k.clone(), json(v))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::headers;
    use crate::testing::mesh_with;

    #[tokio::test]
    async fn every_request_names_the_cluster() {
        let _trace = meshwright_testkit::trace();
        let (mesh, _rotator) = mesh_with(&[
            ("XDS_ADDRESS", "https://istiod:15012"),
            ("XDS_ROOT_CA", "SYSTEM"),
            ("CLUSTER_ID", "remote"),
            ("XDS_HEADER_x-revision", "canary"),
        ]);
        let control_plane = mesh.config.control_plane.as_ref().unwrap();
        let headers = headers(control_plane, &mesh.config.node.cluster_id).unwrap();
        assert_eq!(headers["clusterid"], "remote");
        assert_eq!(headers["x-revision"], "canary");
    }
}

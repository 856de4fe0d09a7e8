//! Pods that are served, with their open connections.

use std::net::SocketAddr;

use serde::Serialize;

/// One pod.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct PodState {
    state: ProxyState,
    #[serde(skip_serializing_if = "Option::is_none")]
    connections: Option<Connections>,
    info: PodInfo,
}

/// Whether a pod's proxy runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub enum ProxyState {
    /// It could not be started yet.
    Pending,
    /// It runs.
    Up,
}

/// One open connection.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ConnectionState {
    /// The client.
    pub src: SocketAddr,
    /// What was asked for: outbound an address, inbound the host name that was forwarded.
    pub original_dst: Option<String>,
    /// Where it went.
    pub actual_dst: SocketAddr,
    /// How.
    pub protocol: ConnectionProtocol,
}

/// How a connection is carried.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub enum ConnectionProtocol {
    /// In a tunnel.
    #[serde(rename = "HBONE")]
    Hbone,
    /// Plain.
    #[serde(rename = "TCP")]
    Tcp,
}

#[derive(Clone, Debug, Default, Serialize)]
struct Connections {
    inbound: Vec<ConnectionState>,
    outbound: Vec<ConnectionState>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PodInfo {
    name: String,
    namespace: String,
    service_account: String,
}

impl PodState {
    /// A pod without connections.
    #[must_use]
    pub fn new(state: ProxyState, name: &str, namespace: &str, service_account: &str) -> Self {
        Self {
            state,
            connections: (state == ProxyState::Up).then(Connections::default),
            info: PodInfo {
                name: name.to_owned(),
                namespace: namespace.to_owned(),
                service_account: service_account.to_owned(),
            },
        }
    }

    /// Adds a connection to the pod.
    pub fn inbound(&mut self, connection: ConnectionState) {
        let connections = self.connections.get_or_insert_default();
        connections.inbound.push(connection);
    }

    /// Adds a connection of the pod.
    pub fn outbound(&mut self, connection: ConnectionState) {
        let connections = self.connections.get_or_insert_default();
        connections.outbound.push(connection);
    }
}

impl ConnectionState {
    /// A connection from `src` that went to `actual_dst`.
    #[must_use]
    pub const fn new(
        src: SocketAddr,
        actual_dst: SocketAddr,
        protocol: ConnectionProtocol,
    ) -> Self {
        Self {
            src,
            original_dst: None,
            actual_dst,
            protocol,
        }
    }

    /// Adds what was asked for.
    #[must_use]
    pub fn asked_for(mut self, original_dst: impl Into<String>) -> Self {
        self.original_dst = Some(original_dst.into());
        self
    }
}

//! What a decision is about.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use meshwright_identity::SpiffeId;

/// One connection that wants to reach a workload: borrowed, cheap to build on the way.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Connection<'a> {
    /// The caller's identity from its verified certificate; `None` for plaintext.
    pub source: Option<&'a SpiffeId>,
    /// The address of the TCP peer. An IPv4-mapped IPv6 address counts as the IPv4 address.
    pub source_ip: IpAddr,
    /// Address and port of the pod, after de-tunnelling: the target port, not the service's.
    pub destination: SocketAddr,
    /// The workload that is to be reached.
    pub workload: Subject<'a>,
}

/// The workload that a decision protects.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Subject<'a> {
    /// The workload's namespace: its namespace policies apply.
    pub namespace: &'a str,
    /// Resource names (`NAMESPACE/NAME`) of the selector policies that the workload lists.
    pub policies: &'a [Arc<str>],
}

impl<'a> Connection<'a> {
    /// Describes a connection.
    #[must_use]
    pub const fn new(
        source: Option<&'a SpiffeId>,
        source_ip: IpAddr,
        destination: SocketAddr,
        workload: Subject<'a>,
    ) -> Self {
        Self {
            source,
            source_ip,
            destination,
            workload,
        }
    }
}

impl<'a> Subject<'a> {
    /// Describes a workload by its namespace and the policies it lists.
    #[must_use]
    pub const fn new(namespace: &'a str, policies: &'a [Arc<str>]) -> Self {
        Self {
            namespace,
            policies,
        }
    }
}

/// A connection taken apart once, so that conditions compare plain values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    /// The SPIFFE ID without `spiffe://`; `None` without an identity.
    pub(crate) principal: Option<&'a str>,
    /// Namespace and service account of the identity; `None` if it names no workload.
    pub(crate) account: Option<(&'a str, &'a str)>,
    pub(crate) source_ip: IpAddr,
    pub(crate) destination_ip: IpAddr,
    pub(crate) destination_port: u16,
}

impl<'a> Facts<'a> {
    pub(crate) fn new(connection: &Connection<'a>) -> Self {
        Self {
            principal: connection.source.map(principal),
            account: connection
                .source
                .and_then(SpiffeId::workload)
                .map(|workload| (workload.namespace, workload.service_account)),
            source_ip: connection.source_ip.to_canonical(),
            destination_ip: connection.destination.ip().to_canonical(),
            destination_port: connection.destination.port(),
        }
    }
}

/// Istio compares principals without the scheme.
fn principal(id: &SpiffeId) -> &str {
    id.as_str().strip_prefix("spiffe://").unwrap_or(id.as_str())
}

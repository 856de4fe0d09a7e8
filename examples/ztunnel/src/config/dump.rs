//! The settings as `/config_dump` shows them: Istio's names, secrets left out.

use std::num::NonZeroUsize;
use std::time::Duration;

use meshwright_istio_surface::env::{Header, Roots};
use serde_json::{Map, Value, json};

use super::network::{FRAME_SIZE, Localhost, MAX_STREAMS};
use super::{Config, Issuing, Keepalive, OriginalSource};

impl Config {
    /// Describes the settings with the names of Istio's ztunnel.
    ///
    /// Of a header only its name is shown, of a token only where it comes from. What this program
    /// does not have yet is shown as switched off.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut shown = Map::new();
        self.show_traffic(&mut shown);
        self.show_ports(&mut shown);
        self.show_control_plane(&mut shown);
        self.show_node(&mut shown);
        Value::Object(shown)
    }

    fn show_traffic(&self, shown: &mut Map<String, Value>) {
        let sockets = &self.sockets;
        let (stream_window, connection_window) = self.http2.windows_in_force();
        let entries = json!({
            "proxy": true,
            "windowSize": stream_window,
            "connectionWindowSize": connection_window,
            "frameSize": FRAME_SIZE,
            "poolMaxStreamsPerConn": self.pool.max_streams.map_or(MAX_STREAMS, NonZeroUsize::get),
            "poolUnusedReleaseTimeout": length(self.pool.unused_release),
            "selfTerminationDeadline": length(self.drain.deadline),
            "numWorkerThreads": self.workers,
            "requireOriginalSource": match sockets.original_source {
                OriginalSource::BestEffort => None,
                OriginalSource::Never => Some(false),
                OriginalSource::Require => Some(true),
            },
            "packetMark": sockets.mark,
            "socketConfig": socket_config(sockets.keepalive, sockets.user_timeout),
            "localhostAppTunnel": sockets.localhost_app_tunnel,
            "ipv6Enabled": sockets.ipv6,
            "inpodUds": self.handover.socket.display().to_string(),
            "inpodPortReuse": self.handover.port_reuse,
            "crlPath": null,
            "enableEnhancedBaggage": self.telemetry.baggage,
        });
        extend(shown, entries);
    }

    fn show_ports(&self, shown: &mut Map<String, Value>) {
        let ports = &self.ports;
        let entries = json!({
            "outboundAddr": ports.outbound,
            "inboundAddr": ports.inbound_hbone,
            "inboundPlaintextAddr": ports.inbound_plaintext,
            "socks5Addr": null,
            "adminAddr": localhost(ports.admin),
            "statsAddr": { "SocketAddr": ports.stats },
            "readinessAddr": { "SocketAddr": ports.readiness },
            "illegalPorts": ports.illegal,
            "dnsProxy": false,
            "dnsProxyAddr": null,
            "dnsResolverCfg": null,
            "dnsResolverOpts": null,
        });
        extend(shown, entries);
    }

    fn show_control_plane(&self, shown: &mut Map<String, Value>) {
        let xds = self.control_plane.as_ref();
        let ca = match &self.issuing {
            Issuing::IstioCa(ca) => Some(ca),
            Issuing::SelfSigned => None,
        };
        let entries = json!({
            "xdsAddress": xds.map(|xds| address(&xds.uri)),
            "xdsRootCert": xds.map(|xds| roots(&xds.roots)),
            "altXdsHostname": xds.and_then(|xds| xds.alternate_host.as_ref()),
            "xdsHeaders": xds.map_or_else(Vec::new, |xds| names(&xds.headers)),
            "xdsOnDemand": false,
            "caAddress": ca.map(|ca| address(&ca.uri)),
            "caRootCert": ca.map(|ca| roots(&ca.roots)),
            "altCaHostname": ca.and_then(|ca| ca.alternate_host.as_ref()),
            "caHeaders": ca.map_or_else(Vec::new, |ca| names(&ca.headers)),
            "fakeCa": ca.is_none(),
            "fakeSelfInbound": false,
            "secretTtl": length(self.node.secret_ttl),
        });
        extend(shown, entries);
    }

    fn show_node(&self, shown: &mut Map<String, Value>) {
        let node = &self.node;
        let own = node.own_workload();
        let entries = json!({
            "network": &*node.network,
            "localNode": node.name.as_deref(),
            "clusterId": &*node.cluster_id,
            "clusterDomain": &*node.cluster_domain,
            "proxyMode": "Shared",
            "proxyWorkloadInformation": null,
            "proxyMetadata": node.metadata,
            "proxyArgs": self.arguments,
            "preferedServiceNamespace": null,
            "ztunnelIdentity": own.as_ref().map(|own| format!(
                "spiffe://{}/ns/{}/sa/{}",
                node.trust_domain, own.namespace, own.service_account
            )),
            "ztunnelWorkload": own.map(|own| json!({
                "name": &*own.name,
                "namespace": &*own.namespace,
                "serviceAccount": &*own.service_account,
            })),
        });
        extend(shown, entries);
    }
}

fn extend(shown: &mut Map<String, Value>, entries: Value) {
    if let Value::Object(entries) = entries {
        shown.extend(entries);
    }
}

fn length(length: Duration) -> Value {
    json!({ "secs": length.as_secs(), "nanos": length.subsec_nanos() })
}

fn socket_config(keepalive: Option<Keepalive>, user_timeout: Option<Duration>) -> Value {
    json!({
        "keepaliveEnabled": keepalive.is_some(),
        "keepaliveTime": keepalive.map(|keepalive| length(keepalive.time)),
        "keepaliveInterval": keepalive.map(|keepalive| length(keepalive.interval)),
        "keepaliveRetries": keepalive.map(|keepalive| keepalive.retries),
        "userTimeoutEnabled": user_timeout.is_some(),
    })
}

fn localhost(addr: Localhost) -> Value {
    json!({ "Localhost": [addr.ipv6, addr.port] })
}

/// Without the slash that a parsed address ends with.
fn address(uri: &http::Uri) -> String {
    uri.to_string().trim_end_matches('/').to_owned()
}

fn roots(roots: &Roots) -> Value {
    match roots {
        Roots::File(path) => json!({ "File": path.display().to_string() }),
        Roots::Pem(pem) => json!({ "Static": &**pem }),
        _ => json!("Default"),
    }
}

/// Values may be secrets.
fn names(headers: &[Header]) -> Vec<[&str; 2]> {
    headers
        .iter()
        .map(|header| [header.name.as_str(), "redacted"])
        .collect()
}

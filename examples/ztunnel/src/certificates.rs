//! Certificates follow the workloads of this node.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::HeaderMap;
use meshwright_identity::ca::{CertificateAuthority, SelfSignedIssuer};
use meshwright_identity::grpc::{Channel, ChannelConfig, RootSource, TokenSource};
use meshwright_identity::istio::{IstioCa, IstioCaConfig};
use meshwright_identity::rotation::{Identities, Rotator, RotatorConfig};
use meshwright_identity::tls::TlsEngine;
use meshwright_identity::{SpiffeId, TrustDomain};
use meshwright_istio_surface::env::{Header, Roots, Token};
use meshwright_xds_client::workload::{Protocol, Snapshot};

use crate::config::{Config, Issuing};
use crate::program::RunError;
use crate::telemetry::Telemetry;

/// Starts to keep certificates, from whoever signs here.
///
/// # Errors
///
/// Returns [`RunError`] if the settings of the authority cannot work.
pub(crate) fn rotator(
    config: &Config,
    trust_domain: TrustDomain,
    telemetry: &Arc<Telemetry>,
) -> Result<Rotator, RunError> {
    let engine = TlsEngine::aws_lc_rs();
    let rotation = RotatorConfig::new(engine.clone());
    let events = Arc::clone(telemetry) as Arc<_>;
    match &config.issuing {
        Issuing::IstioCa(ca) => {
            let channel = ChannelConfig::new(ca.uri.clone(), root_source(&ca.roots))
                .token(token_source(&ca.token))
                .headers(header_map(&ca.headers));
            let channel = match &ca.alternate_host {
                Some(host) => channel.alternate_host(host.clone()),
                None => channel,
            };
            let channel = Channel::new(channel).map_err(|source| RunError::Channel {
                to: "the certificate authority",
                source,
            })?;
            let settings = IstioCaConfig::new(engine)
                .ttl(config.node.secret_ttl)
                .cluster_id(config.node.cluster_id.to_string());
            Ok(Rotator::start(
                IstioCa::new(channel, settings),
                rotation,
                events,
            ))
        }
        Issuing::SelfSigned => {
            tracing::warn!(
                "certificates are signed by an authority made in this process: for development only"
            );
            let authority = CertificateAuthority::new(trust_domain).map_err(RunError::Authority)?;
            let issuer = SelfSignedIssuer::new(authority, config.node.secret_ttl);
            Ok(Rotator::start(issuer, rotation, events))
        }
    }
}

/// Where the roots of a server come from.
pub(crate) fn root_source(roots: &Roots) -> RootSource {
    match roots {
        Roots::File(path) => RootSource::File(path.clone()),
        Roots::Pem(pem) => RootSource::Pem(pem.to_string()),
        _ => RootSource::System,
    }
}

/// Where the token comes from.
pub(crate) fn token_source(token: &Token) -> TokenSource {
    match token {
        Token::File(path) => TokenSource::File(path.clone()),
        Token::Static(secret) => TokenSource::Static(secret.expose().to_owned()),
        _ => TokenSource::None,
    }
}

/// Extra headers of every request.
pub(crate) fn header_map(headers: &[Header]) -> HeaderMap {
    headers
        .iter()
        .map(|header| (header.name.clone(), header.value.clone()))
        .collect()
}

/// Asks for certificates before the first connection needs them, and gives up those of identities
/// whose last workload has left the node.
#[derive(Debug)]
pub(crate) struct Prefetch {
    identities: Identities,
    wanted: BTreeSet<SpiffeId>,
}

impl Prefetch {
    pub(crate) const fn new(identities: Identities) -> Self {
        Self {
            identities,
            wanted: BTreeSet::new(),
        }
    }

    /// Compares what the node runs now with what it ran before.
    pub(crate) fn follow(&mut self, snapshot: &Snapshot) {
        let now: BTreeSet<SpiffeId> = snapshot
            .local_workloads()
            .filter(|workload| workload.protocol() == Protocol::Hbone || workload.native_tunnel())
            .map(|workload| workload.identity())
            .collect();
        for id in now.difference(&self.wanted) {
            if let Err(error) = self.identities.prefetch(id) {
                tracing::warn!(%id, %error, "no certificate ahead of need");
            }
        }
        for id in self.wanted.difference(&now) {
            self.identities.forget(id);
        }
        self.wanted = now;
    }
}

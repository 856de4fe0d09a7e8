//! Who is who in a service mesh: SPIFFE IDs, X.509 SVIDs, issuing, rotation, and rustls
//! configurations that follow it.
//!
//! For whoever needs certificates that rotate under a running server or client: a proxy, a
//! gateway, a tonic or hyper application. Peers are judged by one strict rule book inside the TLS
//! handshake, so a connected stream is a stream to somebody known.
//!
//! It does **not** open mesh connections (that is `meshwright-hbone`), decide who may talk to whom
//! (`meshwright-policy`), write keys to disk, or read the environment. It knows no revocation
//! lists yet.
//!
//! ```text
//!   IstioCa ─────────┐                               ┌──► server_config() ──► accept
//!   SelfSignedIssuer ─┼─► Rotator ──► Identities ──► Member ──┤
//!   your Issuer ─────┘    (task)       get(id)   (live)  └──► client_config(accepted) ──► dial
//!                           ▲                                          │
//!                           └── at 40–60 % of the lifetime             ▼
//!                                                        PeerSvid::of_connection
//! ```
//!
//! # A mesh of two
//!
//! Two members, one root, mutual TLS. The first argument of `client_config` is who may answer.
//!
#![cfg_attr(
    feature = "issuer-self-signed",
    doc = r##"
```
use std::{sync::Arc, time::Duration};
use meshwright_identity::{
    AcceptedPeers, SpiffeId, TrustDomain,
    ca::{CertificateAuthority, SelfSignedIssuer},
    rotation::{Rotator, RotatorConfig},
    tls::TlsEngine,
};

# #[tokio::main(flavor = "current_thread")]
# async fn main() -> Result<(), Box<dyn std::error::Error>> {
let ca = CertificateAuthority::new(TrustDomain::parse("cluster.local")?)?;
let issuer = SelfSignedIssuer::new(ca, Duration::from_secs(3600));
let config = RotatorConfig::new(TlsEngine::aws_lc_rs());
let rotator = Rotator::start(issuer, config, Arc::new(()));

let web = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/web")?;
let db = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/db")?;
let server = rotator.identities().get(&db).await?.server_config();
let client = rotator.identities().get(&web).await?.client_config(&AcceptedPeers::from(db));
// Both are ordinary rustls configurations; they follow every later rotation.
# drop((server, client));
# Ok(())
# }
```
"##
)]
//!
//! # Choosing
//!
//! | you need | use |
//! | --- | --- |
//! | to parse or compare identities | [`SpiffeId`], [`TrustDomain`] |
//! | one identity's certificate, key and roots | `Svid`, `TrustBundles` |
//! | TLS with a certificate you already have | `tls::Member::new`, `Member::replace` |
//! | certificates that stay fresh | `rotation::Rotator`, `rotation::Identities` |
//! | certificates from istiod | `istio::IstioCa` over `grpc::Channel` |
//! | certificates without anybody | `ca::CertificateAuthority`, `ca::SelfSignedIssuer` |
//! | an authenticated gRPC channel to a control plane | `grpc::Channel` |
//! | what an operator's tool shows of a certificate | `svid::CertificateSummary` |
//!
//! # Features
//!
//! | feature | adds | brings |
//! | --- | --- | --- |
//! | (none) | identities | nothing but `thiserror` |
//! | `svid` | SVIDs, leaf rules, chain verification | rustls-webpki, x509-parser |
//! | `tls` | members, with a crypto provider of yours | rustls |
//! | `aws-lc-rs` | `TlsEngine::aws_lc_rs` | aws-lc-rs |
//! | `rotation` | rotator, the `Issuer` trait | tokio |
//! | `issuer-self-signed` | the certificate authority in memory | rcgen |
//! | `grpc` | the channel | hyper, tonic |
//! | `issuer-istio` | Istio's certificate service | prost |
//! | `server` | the server half of that service's messages | |
//! | `full` | all of these | |
//!
//! # Specifications
//!
//! | document | status |
//! | --- | --- |
//! | SPIFFE-ID | whole grammar, strict |
//! | X509-SVID | leaf rules of sections 2 to 5; key usage must be critical |
//! | RFC 5280 | path building by rustls-webpki, at most six certificates; a root's own validity is enforced |
//! | RFC 8446 | TLS 1.3 only; no resumption, no early data |
//! | Istio `IstioCertificateService` | unary `CreateCertificate`, with and without impersonation |
#![forbid(unsafe_code)]

mod fault;
mod id;
#[cfg(any(feature = "issuer-istio", feature = "issuer-self-signed"))]
mod key;

#[cfg(feature = "issuer-self-signed")]
pub mod ca;
#[cfg(feature = "grpc")]
pub mod grpc;
#[cfg(feature = "issuer-istio")]
pub mod istio;
#[cfg(feature = "rotation")]
pub mod rotation;
#[cfg(feature = "svid")]
pub mod svid;
#[cfg(feature = "tls")]
pub mod tls;

#[cfg(feature = "svid")]
pub use crate::svid::{PeerSvid, Svid, TrustBundles};
#[cfg(feature = "tls")]
pub use crate::tls::{AcceptedPeers, Member};
pub use fault::Fault;
pub use id::{InvalidSpiffeId, SpiffeId, TrustDomain, WorkloadIdentity};

#[cfg(all(doctest, feature = "full"))]
#[doc = include_str!("../README.md")]
mod readme {}

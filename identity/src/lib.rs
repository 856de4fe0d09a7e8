//! Who is who in a mesh: SPIFFE IDs, X.509 SVIDs, issuing, rotation, and rustls configurations
//! that follow it.
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

//! rustls configurations that are built once per identity and follow its rotation.
//!
//! A [`Member`] hands out configurations whose certificate resolver and verifier read the
//! credentials in force at the moment of the handshake. Nothing is rebuilt per connection, nothing
//! has to be handed out again after a rotation, and the verdict on a peer is part of the handshake:
//! whoever holds a connected stream holds one to an accepted peer.
//!
//! Every configuration is TLS 1.3 with AES-256-GCM or AES-128-GCM, prefers the hybrid
//! post-quantum group, demands `h2` by ALPN, and has no tickets, resumption, early data, SNI or key
//! log, whatever the environment says.

mod accepted;
mod check;
mod connection;
mod engine;
mod member;
mod refused;
mod verifier;

pub use accepted::AcceptedPeers;
pub use check::UnusableSvid;
pub use connection::NoPeer;
#[cfg(feature = "issuer-self-signed")]
pub(crate) use engine::SystemClock;
#[cfg(feature = "aws-lc-rs")]
pub use engine::default_provider;
pub use engine::{TlsEngine, UnsuitableProvider};
pub use member::Member;
pub use refused::PeerRefused;

#[cfg(test)]
#[cfg(feature = "issuer-self-signed")]
mod tests;

//! An authenticated gRPC channel to a control plane or a certificate authority.
//!
//! [`Channel`] is a tower service for any generated tonic client. It connects when it is first
//! used and again whenever the connection is gone, and it keeps the order that matters: first the
//! server proves its name against roots that were read just now, then the token is read and sent.
//!
//! ```no_run
//! use meshwright_identity::grpc::{Channel, ChannelConfig, RootSource, TokenSource};
//!
//! let roots = RootSource::File("/var/run/secrets/istio/root-cert.pem".into());
//! let token = TokenSource::File("/var/run/secrets/tokens/istio-token".into());
//! let uri = "https://istiod.istio-system.svc:15012".parse()?;
//! let channel = Channel::new(ChannelConfig::new(uri, roots).token(token))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod channel;
mod config;
mod connect;
mod error;
mod file;
mod roots;
mod token;
mod verifier;

pub use channel::Channel;
pub use config::ChannelConfig;
pub use error::{ChannelError, InvalidChannel};
pub use roots::RootSource;
pub use token::TokenSource;

#[cfg(test)]
#[cfg(feature = "issuer-self-signed")]
pub(crate) mod tests;

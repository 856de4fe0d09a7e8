//! HBONE tunnels: HTTP/2 CONNECT over mutual TLS, as Istio's ambient mesh speaks it.
//!
//! A tunnel carries one TCP connection of an application to another one. Both ends prove who they
//! are with an X.509 SVID; many tunnels share one connection. This crate is both ends: a pool and
//! a tower service that open tunnels, a server that yields requests for them, and a relay that
//! moves bytes between a tunnel and a socket and ends both exactly as they ended.
//!
//! It does **not** decide: not who may talk to whom (`meshwright-policy`), not where a service is
//! (`meshwright-xds-client`), not where certificates come from (`meshwright-identity`). It does not
//! speak HTTP inside the tunnel.
//!
//! ```text
//!  Connector ─► Pool ─► connection ══ TLS 1.3, HTTP/2 ══► ServerConnection ─► ConnectRequest
//!  (tower)      │        task, PING, age, limits             accept(), limits      │
//!               ▼                                                        accept / refuse
//!            Tunnel ◄─────────────────── bytes ───────────────────────────► Tunnel
//!               │ AsyncRead + AsyncWrite, or Leg                                │
//!             relay ◄─► TcpLeg                                      TcpLeg ◄─► relay
//! ```
//!
//! # A tunnel in one process
//!
//! ```
//! use meshwright_hbone::{
//!     Authority, DirectDial, Pool, PoolConfig, ResponseHeaders, ServerConfig, Target, accept_tls,
//! };
//! use meshwright_identity::{
//!     AcceptedPeers, Member, SpiffeId, TrustDomain, ca::CertificateAuthority, tls::TlsEngine,
//! };
//! use std::{sync::Arc, time::Duration};
//! use tokio::{io::{AsyncReadExt, AsyncWriteExt}, net::TcpListener};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let authority = CertificateAuthority::new(TrustDomain::parse("cluster.local")?)?;
//! let member = |name: &str| -> Result<Member, Box<dyn std::error::Error>> {
//!     let id = SpiffeId::parse(&format!("spiffe://cluster.local/ns/demo/sa/{name}"))?;
//!     let svid = authority.issue(&id, Duration::from_secs(3600))?;
//!     Ok(Member::new(svid, &TlsEngine::aws_lc_rs())?)
//! };
//! let (sleep, reviews) = (member("sleep")?, member("reviews")?);
//!
//! let listener = TcpListener::bind("127.0.0.1:0").await?;
//! let address = listener.local_addr()?;
//! let server = async {
//!     let (socket, _) = listener.accept().await?;
//!     let config = ServerConfig::new(Arc::new(()));
//!     let mut connection = accept_tls(socket, &reviews, &config).await?;
//!     while let Some(request) = connection.accept().await {
//!         let request = request?;
//!         assert_eq!(request.peer().id.as_str(), "spiffe://cluster.local/ns/demo/sa/sleep");
//!         let mut tunnel = request.accept(ResponseHeaders::new())?;
//!         tunnel.write_all(b"hello").await?;
//!         tunnel.shutdown().await?;
//!     }
//!     Ok::<_, Box<dyn std::error::Error>>(())
//! };
//! let client = async {
//!     let pool = Pool::new(DirectDial::new(), PoolConfig::new(), Arc::new(()));
//!     let accepted = AcceptedPeers::from(reviews.id().clone());
//!     let target = Target::new(address, Authority::parse("10.0.0.7:9080")?, accepted);
//!     let mut tunnel = pool.tunnel(&sleep, target).await?;
//!     let mut greeting = String::new();
//!     tunnel.read_to_string(&mut greeting).await?;
//!     assert_eq!(greeting, "hello");
//!     Ok::<_, Box<dyn std::error::Error>>(())
//! };
//! tokio::select! { done = client => done, failed = server => failed }
//! # }
//! ```
//!
//! # Choosing
//!
//! | you have | use |
//! | --- | --- |
//! | an application that opens tunnels | [`Pool::tunnel`], or [`Connector`] where tower services are wanted |
//! | an application behind tunnels | [`accept_tls`] and [`serve`] with a tower service |
//! | a proxy | [`accept_tls`], [`ServerConnection::accept`], [`relay`] between [`Tunnel`] and [`TcpLeg`] |
//! | another byte stream to relay | [`StreamLeg`], or your own [`Leg`] |
//! | several tenants on one listener | [`Quotas`] |
//! | a shutdown | [`Drain`]: GOAWAY, running tunnels go on; then close |
//! | metrics | [`Events`] and [`Meter`] |
//!
//! # Rules that hold everywhere
//!
//! * **Ends are authentic.** `END_STREAM` is FIN; everything else is a [`Reset`], both ways, also
//!   when TLS ends without `close_notify`.
//! * **Every wait has a deadline, everything has a bound.** Defaults are with each setting;
//!   each enforcement is reported as a [`Limit`](events::Limit).
//! * **One thread.** Nothing here spawns but a pool's connections, on the runtime that uses it. On
//!   a single-threaded runtime all of a tunnel stays on one thread. All futures are `Send`.
//! * **Claims are not facts.** Headers are bounded and for telemetry; identity is from TLS.
//!
//! # Features
//!
//! `aws-lc-rs` (off by default): the crypto provider of that name through `meshwright-identity`.
//! Without it the application injects its own.
//!
//! # Specifications
//!
//! | specification | status |
//! | --- | --- |
//! | HTTP/2 (RFC 9113) with CONNECT (§8.5) | complete through `h2`; extended CONNECT refused |
//! | TLS 1.3 (RFC 8446), ALPN `h2` | complete through rustls; no resumption, no 0-RTT |
//! | W3C Trace Context 1, Baggage 1; `Forwarded` (RFC 7239) | what ambient proxies send |
//! | PROXY protocol v2, double HBONE | not yet |
#![forbid(unsafe_code)]

pub mod drain;
pub mod events;
pub mod quotas;

mod authority;
mod connector;
mod error;
mod headers;
mod leg;
mod lifetime;
mod pool;
mod relay;
mod serve;
mod server;
mod tls;
mod trust;
mod tunnel;
mod wire;

#[cfg(test)]
mod sizes;

pub use authority::{Authority, InvalidAuthority};
pub use connector::{Connecting, Connector};
pub use drain::{Drain, DrainWatch};
pub use error::{AcceptError, ConnectError, Reset, ServeError};
pub use events::Events;
pub use headers::{Baggage, Forwarded, InvalidTraceParent, TraceParent, TunnelHeaders};
pub use leg::{Chunks, Leg, ReadAhead, StreamLeg, TcpLeg};
pub use pool::{Dial, DirectDial, Origin, Pool, PoolConfig, Target};
pub use quotas::Quotas;
pub use relay::{EndReason, Meter, Relay, RelayConfig, RelayEnd, Side, relay};
pub use serve::serve;
pub use server::{
    BadRequest, ConnectRequest, ResponseHeaders, ServerConfig, ServerConnection, accept_tls,
};
pub use tunnel::Tunnel;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

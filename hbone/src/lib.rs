//! HBONE tunnels: HTTP/2 CONNECT over mutual TLS, as ambient meshes speak it.
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
mod tunnel;
mod wire;

pub use authority::{Authority, InvalidAuthority};
pub use connector::{Connecting, Connector};
pub use drain::{Drain, DrainWatch};
pub use error::{AcceptError, ConnectError, Reset, ServeError};
pub use events::Events;
pub use headers::{Baggage, Forwarded, InvalidTraceParent, TraceParent, TunnelHeaders};
pub use leg::{Chunks, Leg, StreamLeg, TcpLeg};
pub use pool::{Dial, DirectDial, Origin, Pool, PoolConfig, Target};
pub use quotas::Quotas;
pub use relay::{EndReason, Meter, Relay, RelayConfig, RelayEnd, Side, relay};
pub use serve::serve;
pub use server::{
    BadRequest, ConnectRequest, ResponseHeaders, ServerConfig, ServerConnection, accept_tls,
};
pub use tunnel::Tunnel;

//! ZDS: the protocol by which a node agent hands pods' network namespaces to the node proxy.
//!
//! ```text
//!   proxy (Client)                        agent (Server)
//!     ── hello ──────────────────────────►
//!     ◄─ add + namespace │ keep ───────── one for each pod of the node
//!     ── ack ───────────────────────────►  one for each message, strictly in turn
//!     ◄─ snapshot sent ──────────────────
//!     ◄─ add + namespace │ del ──────────  whenever a pod comes or goes
//! ```
//!
//! Compatible with Istio's CNI agent and ztunnel, both ways. What differs on purpose:
//!
//! | case | Istio's | here |
//! | --- | --- | --- |
//! | keep after the snapshot, second snapshot, add without a name | ztunnel exits | error acknowledgement, the connection goes on |
//! | packet that cannot be read | reconnects at once | error acknowledgement, reconnects with growing pauses |
//! | descriptor that is no network namespace, or the proxy's own | only logged | error acknowledgement |
//! | payload of a newer version | – | error acknowledgement, the connection goes on |
//! | no acknowledgement in time | the agent goes on, and takes a late one for the next message's | the agent closes; the proxy gets a fresh snapshot |
//! | add with several proxies connected | to the newest only | to all |

mod client;
mod generated;
mod message;
mod server;
mod session;
mod wire;

pub use client::{Client, ClientConfig, ClientEvent, Request};
pub use message::{BadMessage, Order, PodInfo};
pub use server::{Delivery, Server, ServerConfig, Unsendable};
pub use session::{AgentSession, Answer, Outgoing, ProxySession, Reaction};

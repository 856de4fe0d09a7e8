//! The three small HTTP servers of a proxy: metrics, readiness, admin.
//!
//! They share one accept loop with the same manners: a head must arrive within two seconds, a whole
//! exchange within thirty, one request a connection, and when too many connections are open the
//! oldest makes room, so that a crowd of idle ones cannot keep a probe out. They run on the
//! program's main thread, never on one that carries traffic.
//!
//! | server | port | who asks | exposed to |
//! | --- | --- | --- | --- |
//! | [`Stats`] | 15020 | Prometheus | everybody |
//! | [`Readiness`] | 15021 | the kubelet | everybody |
//! | [`Admin`] | 15000 | `istioctl` through a port forward | loopback, and no browser |

mod admin;
mod body;
mod http;
mod readiness;
mod stats;

pub use admin::{Admin, ConfigDump};
pub use body::Body;
pub use http::{BindError, Handler, HttpServer, ServerLimits, bind};
pub use readiness::{Blocker, Readiness};
pub use stats::Stats;

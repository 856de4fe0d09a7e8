//! A control plane for laptops and tests: manifests in, delta ADS and certificates out.
//!
//! It reads a folder of ordinary Kubernetes and Istio manifests and serves node proxies what
//! istiod would: workloads, services, policies and certificates, over the same protocols and the
//! same port. No proxy can tell which of the two it talks to, so a mesh fits on one machine, and a
//! test has a control plane in its own process.
//!
//! It does **not** read a Kubernetes API, allocate addresses, know other clusters or configure L7
//! proxies.
//!
//! ```text
//!   folder of manifests ──► manifest ──► compile ──► state ──┬──► delta ADS ────┐
//!        ▲                  (faults)     (pure)              ├──► certificates ─┴─► TLS :15012
//!        └── reload: polls, SIGHUP                           └──► status page ────► loopback :15014
//! ```
//!
//! # The smallest working program
//!
//! ```no_run
//! use clap::Parser;
//! use meshwright_control_plane::{Config, ControlPlane};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config::try_parse_from(["control-plane", "--manifests", "mesh/", "--development"])?;
//! let control_plane = ControlPlane::start(config).await?;
//! println!("serving at {}; trust\n{}", control_plane.address(), control_plane.root_pem());
//! control_plane.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Choosing
//!
//! | item | when |
//! | --- | --- |
//! | [`run`] | be the program: arguments, log, signals, exit code |
//! | [`ControlPlane`] | serve inside a process of your own, such as a test |
//! | [`Manifests`] | read and check a folder, without serving it |
//! | [`compile`](compile::compile) | turn manifests into the messages istiod would send |
//!
//! # What happens when
//!
//! | event | effect |
//! | --- | --- |
//! | a file changes | once the folder has settled (50 ms) it is read whole; proxies get what differs |
//! | a file has a fault | the last good set stays in force; every fault is logged and on the status page |
//! | restart with `--ca-dir` | the root is the same; versions are content hashes, so a proxy that resumes gets only what changed |
//! | restart without | the root is new: proxies must be given the new one |
//! | a year without a restart | the server's certificate expires: restart it before |
//! | SIGTERM | streams end cleanly, running calls finish within the grace period |
//!
//! # Protocols
//!
//! | protocol | status |
//! | --- | --- |
//! | `envoy.service.discovery.v3` delta ADS: wildcard, on demand by name and alias, resume | served |
//! | the same, state of the world | answered with "unimplemented" |
//! | `istio.workload.Address`, `istio.security.Authorization` | as istiod, compared with recordings |
//! | `istio.v1.auth.IstioCertificateService`, with impersonation | served |
#![forbid(unsafe_code)]

mod args;
mod ca_dir;
mod callers;
pub mod compile;
mod control_plane;
pub mod manifest;
mod reload;
mod run;
mod serve;
mod state;
mod status;

pub use args::Config;
pub use ca_dir::CaDirError;
pub use callers::TokensError;
pub use control_plane::{ControlPlane, StartError};
pub use manifest::{InvalidManifests, Manifests};
pub use run::run;

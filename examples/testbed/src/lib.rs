//! A mesh on one machine: nodes, pods, capture, proxies and a control plane in network namespaces.
//!
//! The end-to-end tests of the workspace, the `demo`, the `soak` and the `bench-nodes` programs
//! stand on it. Nothing in it is simulated: packets pass a switch, pods are captured with the rules
//! of the `redirect` crate, proxies are the real programs and get their pods, workloads, policies
//! and certificates over the same protocols as on a cluster.
//!
//! It does **not** start containers, does not talk to Kubernetes, and does not touch the machine's
//! own network: no interface, rule or name outside its namespaces.
//!
//! ```text
//!              node-1                          switch                         node-2
//!   ┌──────────┐   ┌────────────┐   ┌───────────────────────────┐   ┌────────────┐  ┌──────────┐
//!   │ pod a1   │   │ ztunnel    │   │ br0 10.77.0.1, fd77::1    │   │ ztunnel    │  │ pod b1   │
//!   │ app      │   │ 15000,     │   │ control plane :15012      │   │            │  │ app      │
//!   │ rules    │   │ 15020,     │   │ capture (AF_PACKET)       │   │            │  │ rules    │
//!   │ eth0 ────┼───┼────────────┼───┤ every frame passes here   ├───┼────────────┼──┼── eth0   │
//!   └──────────┘   └────────────┘   └───────────────────────────┘   └────────────┘  └──────────┘
//!        namespaces without names: they vanish with the last process or descriptor
//! ```
//!
//! Every process of a world is the own binary, started again with a hidden first argument
//! ([`dispatch`]), so one `cargo run` or `cargo test` has all of them. They end with their parent,
//! also after a kill -9 (`PR_SET_PDEATHSIG`); one more, the sweeper, outlives it for a moment and
//! removes the folder of logs and manifests. It runs as root, and without root where the kernel
//! allows unprivileged user namespaces ([`privilege`]).
//!
//! # The smallest world
//!
//! ```no_run
//! use std::{process::ExitCode, time::Duration};
//!
//! use meshwright_testbed::{
//!     PodSpec, World, WorldError, apps::Behaviour, client, dispatch, privilege,
//! };
//!
//! fn main() -> ExitCode {
//!     // In a process that a world started, this runs the program it was started as.
//!     if let Some(code) = dispatch() {
//!         return code;
//!     }
//!     match run() {
//!         Ok(()) => ExitCode::SUCCESS,
//!         Err(_error) => ExitCode::FAILURE,
//!     }
//! }
//!
//! fn run() -> Result<(), WorldError> {
//!     privilege::obtain()?;
//!     let world = World::builder()
//!         .node("node-1")
//!         .node("node-2")
//!         .pod(PodSpec::new("a").on("node-1").enrolled())
//!         .pod(PodSpec::new("b").on("node-2").enrolled())
//!         .build()?;
//!     let (a, b) = (world.pod("a")?, world.pod("b")?);
//!     world.settled(b, true)?;
//!     let _app = world.app(b, 8080, Behaviour::Echo)?;
//!     let wire = world.sniff("secret")?;
//!     let reach = client::echo(a.space(), b.at(8080), "a secret", Duration::from_secs(5));
//!     assert!(reach.is_answered());
//!     assert_eq!(wire.seen()?.marked, 0);
//!     Ok(())
//! }
//! ```
//!
//! # Choosing
//!
//! | you want | take |
//! | --- | --- |
//! | a mesh to try something in | [`World`] |
//! | a namespace only | [`Space`] |
//! | a server with a known behaviour, whose ends of connections you can ask for | [`apps::App`] |
//! | one call, and what became of it | [`client::echo`], [`client::http`], [`client::Reach`] |
//! | a connection that stays open meanwhile | [`client::Conversation`] |
//! | load, and what was lost | [`client::Load`] |
//! | proof of what was on the wire | [`wire::Sniffer`] |
//! | what a proxy says about itself | [`Proxy`], [`Metrics`], [`AccessLine`] |
//! | a test binary over one shared world | [`harness::main`] |
//!
//! Waiting is always by condition and with a deadline ([`wait::eventually`]), never for a time.
//!
//! # What it rests on
//!
//! | facility | used for |
//! | --- | --- |
//! | network namespaces, held by descriptor | nodes, pods, the switch |
//! | rtnetlink | links, addresses, routes; no `ip` program |
//! | nftables by netlink, through `meshwright-redirect` | capture in pods |
//! | `AF_PACKET` | the capture at the switch |
//! | user namespaces | running without root |

pub mod agent;
pub mod apps;
pub mod client;
mod control_plane;
mod error;
mod fabric;
pub mod harness;
pub mod http;
mod interrupt;
mod links;
mod manifests;
mod pod;
pub mod privilege;
mod process;
mod program;
mod proxy;
mod space;
mod sweeper;
mod telemetry;
pub mod wait;
pub mod wire;
mod world;

pub use error::{Step, WorldError};
pub use manifests::Manifests;
pub use pod::{Pod, PodSpec};
pub use process::{Launcher, Process, ProcessSpec};
pub use program::{Program, dispatch};
pub use proxy::{Proxy, ProxySpec};
pub use space::Space;
pub use telemetry::{AccessLine, Metrics};
pub use world::{Node, READY, SPREAD, World, WorldBuilder};

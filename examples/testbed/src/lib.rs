//! A mesh on one machine.

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

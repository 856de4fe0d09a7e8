//! A mesh on one machine.

pub mod apps;
pub mod client;
mod error;
pub mod http;
mod links;
pub mod privilege;
mod process;
mod program;
mod space;
pub mod wait;
pub mod wire;

pub use error::{Step, WorldError};
pub use process::{Launcher, Process, ProcessSpec};
pub use program::{Program, dispatch};
pub use space::Space;

//! `GET /config_dump`, as `istioctl ztunnel-config` reads it.
//!
//! A [`ConfigDocument`] borrows nothing and locks nothing: it holds snapshots that the program took, and
//! [writes](ConfigDocument::write) one element after another, so that a large mesh needs no large string.
//!
//! ```
//! use meshwright_istio_surface::config_dump::{BuildVersion, ConfigDocument};
//! use std::sync::Arc;
//!
//! let document = ConfigDocument::new(Arc::default(), BuildVersion::of_this_program(None));
//! let mut json = Vec::new();
//! document.write(&mut json)?;
//! let value: serde_json::Value = serde_json::from_slice(&json)?;
//! assert_eq!(value["workloads"], serde_json::json!([]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod certificates;
mod document;
mod policies;
mod services;
mod state;
mod version;
mod workloads;

pub use document::ConfigDocument;
pub use state::{ConnectionProtocol, ConnectionState, PodState, ProxyState};
pub use version::BuildVersion;

//! What still keeps a program from being ready.
//!
//! Readiness is a set of names, not a flag: a probe that fails says for what, and whoever blocks
//! holds a value whose drop cannot be forgotten. [`Readiness`] is also the probe's handler.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use http::request::Parts;
use http::{Method, Response, StatusCode};

use super::body::{Body, text, wrong_method};
use super::http::Handler;

/// Named reasons for not being ready; clones share them. Answers the kubelet's probe.
///
/// ```
/// use meshwright_istio_surface::server::Readiness;
///
/// let readiness = Readiness::new();
/// let proxy = readiness.block("proxy");
/// let state = readiness.block("state manager");
/// assert_eq!(readiness.pending(), ["proxy", "state manager"]);
/// drop((proxy, state));
/// assert!(readiness.is_ready());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    blockers: Arc<Mutex<BTreeMap<String, usize>>>,
}

/// Keeps the program unready until it is dropped.
#[derive(Debug)]
#[must_use = "dropping it makes the program ready"]
pub struct Blocker {
    readiness: Readiness,
    name: String,
}

impl Readiness {
    /// Ready until something blocks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Names one more reason for not being ready. A program that was ready may become unready.
    pub fn block(&self, name: impl Into<String>) -> Blocker {
        let name = name.into();
        self.with(|blockers| *blockers.entry(name.clone()).or_insert(0) += 1);
        Blocker {
            readiness: self.clone(),
            name,
        }
    }

    /// The reasons, sorted.
    #[must_use]
    pub fn pending(&self) -> Vec<String> {
        self.with(|blockers| blockers.keys().cloned().collect())
    }

    /// Whether nothing blocks.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.with(|blockers| blockers.is_empty())
    }

    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<String, usize>) -> T) -> T {
        act(&mut self.blockers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Blocker {
    fn drop(&mut self) {
        self.readiness.with(|blockers| {
            if let Some(count) = blockers.get_mut(&self.name) {
                *count -= 1;
                if *count == 0 {
                    blockers.remove(&self.name);
                }
            }
        });
    }
}

impl Handler for Readiness {
    async fn handle(&self, request: Parts) -> Response<Body> {
        if request.uri.path() != "/healthz/ready" {
            return text(StatusCode::NOT_FOUND, "not found\n");
        }
        if request.method != Method::GET {
            return wrong_method("GET");
        }
        let pending = self.pending();
        if pending.is_empty() {
            return text(StatusCode::OK, "ready\n");
        }
        let reason = format!("not ready, pending: {}\n", pending.join(", "));
        text(StatusCode::INTERNAL_SERVER_ERROR, reason)
    }
}

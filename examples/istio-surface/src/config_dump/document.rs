//! The document and its order.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use meshwright_identity::rotation::IdentityStatus;
use meshwright_policy::Policy;
use meshwright_xds_client::workload::Snapshot;
use serde::Serialize;
use serde_json::Value;

use super::certificates::Certificates;
use super::policies::PolicyJson;
use super::services::{ServiceJson, staged};
use super::state::PodState;
use super::version::BuildVersion;
use super::workloads::WorkloadJson;

/// Everything that a proxy knows, at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConfigDocument {
    /// Workloads and services.
    pub snapshot: Arc<Snapshot>,
    /// Policies.
    pub policies: Vec<Arc<Policy>>,
    /// Identities with their certificates.
    pub certificates: Vec<IdentityStatus>,
    /// Pods that are served, by the UID that the node agent gave them.
    pub workload_state: BTreeMap<String, PodState>,
    /// The settings, secrets left out.
    pub config: Value,
    /// What this program is.
    pub version: BuildVersion,
}

impl ConfigDocument {
    /// A document of workloads and services only; the other fields are set afterwards.
    #[must_use]
    pub fn new(snapshot: Arc<Snapshot>, version: BuildVersion) -> Self {
        Self {
            snapshot,
            policies: Vec::new(),
            certificates: Vec::new(),
            workload_state: BTreeMap::new(),
            config: Value::Object(serde_json::Map::new()),
            version,
        }
    }

    /// Writes the document as JSON.
    ///
    /// Sorts references and otherwise keeps only one element in memory. Takes long for a large
    /// mesh: call it on a thread that may block.
    ///
    /// # Errors
    ///
    /// What `out` failed with.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut workloads: Vec<_> = self.snapshot.workloads().collect();
        workloads.sort_unstable_by(|a, b| a.uid().cmp(b.uid()));
        let mut services: Vec<_> = self.snapshot.services().collect();
        services.sort_unstable_by(|a, b| {
            (a.hostname(), a.namespace()).cmp(&(b.hostname(), b.namespace()))
        });
        let mut policies: Vec<_> = self.policies.iter().collect();
        policies.sort_unstable_by(|a, b| a.name().cmp(b.name()));

        let mut object = Object::begin(out)?;
        object.list(
            "workloads",
            workloads.into_iter().map(|w| WorkloadJson::of(w)),
        )?;
        let services = services.into_iter();
        object.list(
            "services",
            services.map(|s| ServiceJson::of(&self.snapshot, s)),
        )?;
        object.list("policies", policies.into_iter().map(|p| PolicyJson::of(p)))?;
        object.value("stagedServices", &staged(&self.snapshot))?;
        object.value("staticConfig", &StaticConfig::default())?;
        object.value("version", &self.version)?;
        object.value("config", &self.config)?;
        let certificates = self.certificates.iter();
        object.list("certificates", certificates.map(Certificates::of))?;
        object.value("workloadState", &self.workload_state)?;
        object.end()
    }
}

/// What a static source gave; it is merged into the other lists, so nothing is told apart.
#[derive(Debug, Default, Serialize)]
struct StaticConfig {
    workloads: [(); 0],
    policies: [(); 0],
    services: [(); 0],
}

/// A JSON object that is written member by member.
struct Object<'a> {
    out: &'a mut dyn Write,
    separator: &'static str,
}

impl<'a> Object<'a> {
    fn begin(out: &'a mut dyn Write) -> io::Result<Self> {
        out.write_all(b"{")?;
        Ok(Self {
            out,
            separator: "\n",
        })
    }

    fn key(&mut self, key: &str) -> io::Result<()> {
        write!(self.out, "{}\"{key}\":", self.separator)?;
        self.separator = ",\n";
        Ok(())
    }

    fn value(&mut self, key: &str, value: &impl Serialize) -> io::Result<()> {
        self.key(key)?;
        serde_json::to_writer(&mut *self.out, value).map_err(io::Error::from)
    }

    fn list(&mut self, key: &str, items: impl Iterator<Item = impl Serialize>) -> io::Result<()> {
        self.key(key)?;
        let mut before: &[u8] = b"[\n";
        for item in items {
            self.out.write_all(before)?;
            serde_json::to_writer(&mut *self.out, &item).map_err(io::Error::from)?;
            before = b",\n";
        }
        let end: &[u8] = if before == b"[\n" { b"[]" } else { b"\n]" };
        self.out.write_all(end)
    }

    fn end(self) -> io::Result<()> {
        self.out.write_all(b"\n}\n")
    }
}

#[cfg(test)]
mod tests;

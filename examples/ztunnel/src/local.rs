//! A static picture of the mesh from a YAML file, in the shape of Istio's `LOCAL_XDS_PATH`.
//!
//! The file holds `workloads`, `services` and `policies` with the field names of `/config_dump`. Everything is
//! turned into the messages that a control plane would send and goes through the same stores, so
//! that a mistake is refused by the same rules.

mod policy;
mod service;
mod workload;

use std::fmt;
use std::path::PathBuf;

use meshwright_policy::proto::Authorization;
use meshwright_xds_client::proto::workload::Address;
use serde::Deserialize;

use crate::config::LocalSource;

/// Largest file that is read.
const MAX_BYTES: u64 = 64 << 20;

/// What the file says, as the messages of the control plane.
#[derive(Debug, Default)]
pub(crate) struct LocalMesh {
    /// Workloads and services by resource name.
    pub(crate) addresses: Vec<(String, Address)>,
    /// Policies by resource name.
    pub(crate) policies: Vec<(String, Authorization)>,
}

/// The file could not be used; nothing of it is applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LocalError {
    /// The file could not be read, or is larger than 64 MiB.
    #[error("could not read the local source {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The text is not YAML of the expected shape; the source names line and column.
    #[error("the local source is not what it should be")]
    Shape(#[source] serde_saphyr::Error),
    /// Entries that no control plane would send: all of them, one a line.
    #[error("the local source has entries that cannot be used: {}", Lines(entries))]
    Entries {
        /// Place and reason.
        entries: Vec<InvalidEntry>,
    },
}

/// One value of the file that cannot be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct InvalidEntry {
    /// Where, for instance `workloads[3].workloadIps`.
    place: String,
    /// The value.
    value: String,
    /// What it should have been.
    wanted: &'static str,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RawMesh {
    workloads: Vec<workload::RawWorkload>,
    services: Vec<service::RawService>,
    policies: Vec<policy::RawPolicy>,
}

/// Collects faults with the place they were met at, so that all are reported at once.
#[derive(Debug, Default)]
struct Faults {
    entries: Vec<InvalidEntry>,
}

impl LocalMesh {
    /// Reads the source.
    ///
    /// # Errors
    ///
    /// Returns [`LocalError`]: unreadable, not of the expected shape, or with entries that cannot
    /// be used.
    pub(crate) fn load(source: &LocalSource) -> Result<Self, LocalError> {
        match source {
            LocalSource::Inline(text) => Self::parse(text),
            LocalSource::Path(path) => {
                let text = read_bounded(path).map_err(|source| LocalError::Read {
                    path: path.clone(),
                    source,
                })?;
                Self::parse(&text)
            }
        }
    }

    fn parse(text: &str) -> Result<Self, LocalError> {
        let mut raw: RawMesh = serde_saphyr::from_str(text).map_err(LocalError::Shape)?;
        let mut faults = Faults::default();
        let mut mesh = Self::default();
        let mut members = service::Members::new();
        for service in &mut raw.services {
            service.take_endpoints(&mut members);
        }
        for workload in &mut raw.workloads {
            workload.join(&mut members);
        }
        for uid in members.into_keys() {
            faults.add(
                "services.endpoints".into(),
                uid,
                "a workload of this source",
            );
        }
        for (index, raw) in raw.workloads.into_iter().enumerate() {
            let place = format!("workloads[{index}]");
            mesh.addresses.push(raw.into_address(&place, &mut faults));
        }
        for (index, raw) in raw.services.into_iter().enumerate() {
            let place = format!("services[{index}]");
            mesh.addresses.push(raw.into_address(&place, &mut faults));
        }
        for (index, raw) in raw.policies.into_iter().enumerate() {
            let place = format!("policies[{index}]");
            mesh.policies.push(raw.into_policy(&place, &mut faults));
        }
        if faults.entries.is_empty() {
            Ok(mesh)
        } else {
            Err(LocalError::Entries {
                entries: faults.entries,
            })
        }
    }
}

impl Faults {
    fn add(&mut self, place: String, value: impl Into<String>, wanted: &'static str) {
        self.entries.push(InvalidEntry {
            place,
            value: value.into(),
            wanted,
        });
    }
}

struct Lines<'a>(&'a [InvalidEntry]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, entry) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(
                f,
                "{}: {:?} is not {}",
                entry.place, entry.value, entry.wanted
            )?;
        }
        Ok(())
    }
}

fn read_bounded(path: &std::path::Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(MAX_BYTES + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(std::io::Error::from(std::io::ErrorKind::FileTooLarge));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;

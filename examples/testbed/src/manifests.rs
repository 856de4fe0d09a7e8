//! The folder of manifests that the control plane of a world reads.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use crate::{PodSpec, Step, WorldError};

/// A folder of manifests. Files appear and change whole.
#[derive(Clone, Debug)]
pub struct Manifests {
    dir: PathBuf,
    draft: PathBuf,
}

impl Manifests {
    pub(crate) fn create(parent: &Path) -> Result<Self, WorldError> {
        let manifests = Self {
            dir: parent.join("manifests"),
            draft: parent.join("draft.yaml"),
        };
        fs::create_dir(&manifests.dir).step("make the folder of manifests")?;
        Ok(manifests)
    }

    /// Returns the folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes or replaces a file, `<name>.yaml`.
    ///
    /// # Errors
    ///
    /// Fails when the disk is full.
    pub fn put(&self, name: &str, text: &str) -> Result<(), WorldError> {
        let step = || format!("write the manifest {name}");
        fs::write(&self.draft, text).step(step())?;
        fs::rename(&self.draft, self.file(name)).step(step())
    }

    /// Removes a file; one that is not there is not missed.
    ///
    /// # Errors
    ///
    /// Fails when the folder is gone.
    pub fn remove(&self, name: &str) -> Result<(), WorldError> {
        match fs::remove_file(self.file(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).step(format!("remove the manifest {name}"))
            }
            _ => Ok(()),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.yaml"))
    }
}

/// Writes a pod as the API server would show it.
pub(crate) fn pod(spec: &PodSpec, ips: &[std::net::IpAddr], enrolled: bool) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {}\n  namespace: {}\n  uid: {}\n  labels:\n",
        spec.name(),
        spec.namespace(),
        spec.uid(),
    );
    let mut line = |line: String| {
        // Writing to a string cannot fail.
        if writeln!(text, "{line}").is_err() {
            tracing::error!("a string refused a line");
        }
    };
    for (label, value) in spec.labels() {
        line(format!("    {label}: {value}"));
    }
    if enrolled {
        line("  annotations:\n    ambient.istio.io/redirection: enabled".into());
    }
    line(format!(
        "spec:\n  serviceAccountName: {}\n  nodeName: {}\n  containers:\n  - name: app\n    image: app",
        spec.service_account(),
        spec.node().unwrap_or("elsewhere"),
    ));
    line("status:\n  phase: Running".into());
    line("  conditions:\n  - type: Ready\n    status: \"True\"".into());
    if let Some(first) = ips.first() {
        line(format!("  podIP: {first}\n  podIPs:"));
    }
    for ip in ips {
        line(format!("  - ip: {ip}"));
    }
    text
}

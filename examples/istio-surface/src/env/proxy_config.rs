//! The part of Istio's mesh configuration that a node proxy reads.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::Deserialize;

use super::checker::Checker;
use super::fault::InvalidValue;

/// Largest mesh configuration that is read; Kubernetes allows 1 MiB in a `ConfigMap`.
const LARGEST: u64 = 1 << 20;

/// `ProxyConfig`, as far as a node proxy understands it; unknown fields are Istio's business.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct ProxyConfig {
    /// Address of the control plane.
    pub discovery_address: Option<String>,
    /// Port of the admin server.
    pub proxy_admin_port: Option<u16>,
    /// Port of the metrics server.
    pub stats_port: Option<u16>,
    /// Worker threads; 0 is all CPUs.
    pub concurrency: Option<u16>,
    /// Metadata for the control plane; a leading `ISTIO_META_` of a key is removed.
    pub proxy_metadata: BTreeMap<String, String>,
}

/// The mesh configuration; everything but the defaults of proxies is ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MeshConfig {
    default_config: ProxyConfig,
}

impl ProxyConfig {
    /// Combines, from low to high: the mesh configuration `file`, `PROXY_CONFIG`, and
    /// `ISTIO_META_*` over its metadata.
    ///
    /// A missing file is fine. One that cannot be read, or is malformed, is a fault.
    pub fn load(checker: &mut Checker<'_>, file: &Path) -> Self {
        let mesh = read_mesh(checker, file).default_config.normal();
        let own: Self = checker
            .text("PROXY_CONFIG")
            .map_or_else(Self::default, |text| {
                serde_saphyr::from_str(text).unwrap_or_else(|error| {
                    let cause = cause(&error);
                    checker.fault("PROXY_CONFIG", None, InvalidValue::Unreadable { cause });
                    Self::default()
                })
            });
        let mut merged = mesh.overridden_by(own.normal());
        for (name, value) in checker.with_prefix("ISTIO_META_") {
            let key = name.strip_prefix("ISTIO_META_").unwrap_or(name);
            merged.proxy_metadata.insert(key.into(), value.into());
        }
        merged
    }

    fn normal(mut self) -> Self {
        self.proxy_metadata = self
            .proxy_metadata
            .into_iter()
            .map(|(key, value)| match key.strip_prefix("ISTIO_META_") {
                Some(short) => (short.to_owned(), value),
                None => (key, value),
            })
            .collect();
        self
    }

    fn overridden_by(mut self, other: Self) -> Self {
        self.proxy_metadata.extend(other.proxy_metadata);
        Self {
            discovery_address: other.discovery_address.or(self.discovery_address),
            proxy_admin_port: other.proxy_admin_port.or(self.proxy_admin_port),
            stats_port: other.stats_port.or(self.stats_port),
            concurrency: other.concurrency.or(self.concurrency),
            proxy_metadata: self.proxy_metadata,
        }
    }
}

fn read_mesh(checker: &mut Checker<'_>, file: &Path) -> MeshConfig {
    let cause = match read_bounded(file) {
        Ok(None) => return MeshConfig::default(),
        Ok(Some(text)) if text.trim().is_empty() => return MeshConfig::default(),
        Ok(Some(text)) => match serde_saphyr::from_str(&text) {
            Ok(mesh) => return mesh,
            Err(error) => cause(&error),
        },
        Err(error) => error.to_string(),
    };
    let name = file.display().to_string();
    checker.fault(&name, None, InvalidValue::Unreadable { cause });
    MeshConfig::default()
}

/// What is wrong and where, without the lines around it: they may hold secrets.
fn cause(error: &serde_saphyr::Error) -> String {
    error.without_snippet().to_string()
}

fn read_bounded(file: &Path) -> io::Result<Option<String>> {
    use io::Read;
    let opened = match std::fs::File::open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut text = String::new();
    opened.take(LARGEST + 1).read_to_string(&mut text)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > LARGEST {
        return Err(io::Error::other("larger than 1 MiB"));
    }
    Ok(Some(text))
}

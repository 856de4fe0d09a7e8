//! Node proxies: the process, and the doors through which an operator would look at it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    AccessLine, Launcher, Metrics, Process, ProcessSpec, Program, Space, Step, WorldError, http,
    wait::eventually,
};

const ADMIN: u16 = 15000;
const STATS: u16 = 15020;
const READINESS: u16 = 15021;

/// Settings of one node proxy, as the Helm chart would give them in its environment.
#[derive(Clone, Debug)]
pub struct ProxySpec {
    process: ProcessSpec,
}

impl ProxySpec {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            process: ProcessSpec::new(Program::Ztunnel, name).args(["proxy", "ztunnel"]),
        }
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            process: self.process.env(name, value),
        }
    }

    /// Removes a variable.
    #[must_use]
    pub fn without_env(self, name: &str) -> Self {
        Self {
            process: self.process.without_env(name),
        }
    }

    pub(crate) fn start(
        &self,
        launcher: &Launcher,
        space: &Space,
        dir: &std::path::Path,
    ) -> Result<Proxy, WorldError> {
        Process::start(launcher, space, dir, &self.process).map(|process| Proxy { process })
    }
}

/// A running node proxy.
#[derive(Debug)]
pub struct Proxy {
    process: Process,
}

impl Proxy {
    /// Returns the process.
    pub const fn process(&self) -> &Process {
        &self.process
    }

    /// Waits until the proxy serves every pod of its node, and tells how long that took.
    ///
    /// # Errors
    ///
    /// Fails when it ends first or the deadline passes.
    pub fn ready(&self, deadline: Duration) -> Result<Duration, WorldError> {
        self.process
            .ready(local(READINESS), "/healthz/ready", deadline)
    }

    /// Returns the answer of the readiness port now.
    ///
    /// # Errors
    ///
    /// Fails when nobody answers.
    pub fn readiness(&self) -> Result<http::Answer, WorldError> {
        http::get(self.process.space(), local(READINESS), "/healthz/ready")
    }

    /// Returns its metrics.
    ///
    /// # Errors
    ///
    /// Fails when the port does not answer.
    pub fn metrics(&self) -> Result<Metrics, WorldError> {
        let answer = http::get(self.process.space(), local(STATS), "/metrics")?;
        Ok(Metrics::new(answer.body))
    }

    /// Returns everything it knows.
    ///
    /// # Errors
    ///
    /// Fails when the port does not answer with JSON.
    pub fn config_dump(&self) -> Result<Value, WorldError> {
        let answer = http::get(self.process.space(), local(ADMIN), "/config_dump")?;
        serde_json::from_str(&answer.body).step("read a config dump")
    }

    /// Sends a POST request to the admin port.
    ///
    /// # Errors
    ///
    /// Fails when the port does not answer.
    pub fn admin_post(&self, path: &str) -> Result<http::Answer, WorldError> {
        http::post(self.process.space(), local(ADMIN), path)
    }

    /// Waits until a dump shows what is looked for.
    ///
    /// # Errors
    ///
    /// Fails when the deadline passes first.
    pub fn shows(
        &self,
        what: &str,
        deadline: Duration,
        look: impl Fn(&Value) -> bool,
    ) -> Result<(), WorldError> {
        let name = self.process.name();
        eventually(&format!("{name} knowing {what}"), deadline, || {
            let dump = self.config_dump().ok()?;
            look(&dump).then_some(())
        })
    }

    /// Returns the serial number and the not-after time of an identity's certificate.
    ///
    /// # Errors
    ///
    /// Fails when there is none.
    pub fn certificate(&self, identity: &str) -> Result<(String, String), WorldError> {
        let dump = self.config_dump()?;
        let field = |name: &str| {
            let certificates = dump.get("certificates")?.as_array()?;
            let of = certificates
                .iter()
                .find(|entry| entry.get("identity").and_then(Value::as_str) == Some(identity))?;
            let leaf = of.get("certChain")?.as_array()?.first()?;
            Some(leaf.get(name)?.as_str()?.to_owned())
        };
        match (field("serialNumber"), field("expirationTime")) {
            (Some(serial), Some(expires)) => Ok((serial, expires)),
            _ => Err(WorldError::new(format!(
                "find a certificate of {identity} in {}",
                self.process.name()
            ))),
        }
    }

    /// Waits for an access line after a mark of the log that satisfies a condition.
    ///
    /// # Errors
    ///
    /// Fails when the deadline passes first; the error has the access lines that were there.
    pub fn access_line(
        &self,
        since: u64,
        deadline: Duration,
        wanted: impl Fn(&AccessLine) -> bool,
    ) -> Result<AccessLine, WorldError> {
        let begin = Instant::now();
        let what = format!("an access line of {}", self.process.name());
        eventually(&what, deadline, || {
            self.access_lines(since).ok()?.into_iter().find(&wanted)
        })
        .map_err(|error| {
            let lines = self.access_lines(since).unwrap_or_default();
            tracing::debug!(waited = ?begin.elapsed(), "no access line");
            WorldError::caused(format!("find an access line among {lines:?}"), error)
        })
    }

    /// Returns the access lines after a mark of the log.
    ///
    /// # Errors
    ///
    /// Fails when the log cannot be read.
    pub fn access_lines(&self, since: u64) -> Result<Vec<AccessLine>, WorldError> {
        let text = self.process.printed_since(since)?;
        Ok(text.lines().filter_map(AccessLine::parse).collect())
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

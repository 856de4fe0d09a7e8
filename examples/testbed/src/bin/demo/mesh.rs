//! The mesh of the demo: who is in it, and how they call one another.

use std::{net::SocketAddr, path::PathBuf, process::Command, time::Duration};

use meshwright_testbed::{
    Pod, PodSpec, Process, World, WorldError,
    client::{self, Reach},
    wait::eventually,
};

/// Port of the helloworld service and of its pods.
pub(crate) const PORT: u16 = 5000;
/// Address of the helloworld service.
pub(crate) const SERVICE: &str = "10.96.0.10:5000";
/// Lifetime of certificates: short, so that a rotation can be watched.
pub(crate) const TTL: &str = "20s";
/// Longest wait for one call.
const CALL: Duration = Duration::from_secs(5);

const BASE: &str = "\
apiVersion: v1
kind: Namespace
metadata:
  name: default
---
apiVersion: v1
kind: Service
metadata:
  name: helloworld
  namespace: default
spec:
  clusterIP: 10.96.0.10
  selector:
    app: helloworld
  ports:
  - name: http
    port: 5000
    targetPort: 5000
";

/// The running mesh.
#[derive(Debug)]
pub(crate) struct Mesh {
    // The apps end before the world they run in.
    pub(crate) apps: Vec<Process>,
    pub(crate) world: World,
    pub(crate) caller: Caller,
}

impl Mesh {
    pub(crate) fn build(keep_files: bool) -> Result<Self, WorldError> {
        let hello = |name: &str, version: &str, node: &str| {
            PodSpec::new(name)
                .as_account("helloworld")
                .label("app", "helloworld")
                .label("version", version)
                .on(node)
        };
        let builder = World::builder()
            .node("node-1")
            .node("node-2")
            .pod(PodSpec::new("sleep").on("node-1"))
            .pod(PodSpec::new("notsleep").on("node-1"))
            .pod(hello("helloworld-v1", "v1", "node-2"))
            .pod(hello("helloworld-v2", "v2", "node-1"))
            .manifest("base", BASE)
            .proxy_env("SECRET_TTL", TTL);
        let world = if keep_files {
            builder.keep_files().build()?
        } else {
            builder.build()?
        };
        let mut mesh = Self {
            apps: Vec::new(),
            world,
            caller: Caller::find(),
        };
        mesh.start_apps()?;
        Ok(mesh)
    }

    fn start_apps(&mut self) -> Result<(), WorldError> {
        let listen = format!("[::]:{PORT}");
        for name in ["sleep", "notsleep", "helloworld-v1", "helloworld-v2"] {
            let pod = self.world.pod(name)?;
            let process = match name.strip_prefix("helloworld-") {
                Some(version) => self
                    .world
                    .app_process(pod, &["hello", &listen, version, name])?,
                None => self.world.app_process(pod, &["idle"])?,
            };
            self.apps.push(process);
        }
        let backends = [self.hello("v1")?.at(PORT), self.hello("v2")?.at(PORT)];
        self.world.stand_in(service()?, &backends)?;
        for backend in backends {
            eventually("the first answer of helloworld", CALL, || {
                let space = self.world.switch();
                client::http(space, backend, "/hello", CALL)
                    .is_answered()
                    .then_some(())
            })?;
        }
        Ok(())
    }

    pub(crate) fn sleep(&self) -> Result<&Pod, WorldError> {
        self.world.pod("sleep")
    }

    pub(crate) fn notsleep(&self) -> Result<&Pod, WorldError> {
        self.world.pod("notsleep")
    }

    pub(crate) fn hello(&self, version: &str) -> Result<&Pod, WorldError> {
        self.world.pod(&format!("helloworld-{version}"))
    }

    /// Returns the process ids of the apps, by pod.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.apps
            .iter()
            .filter(|app| app.ended().is_none())
            .map(Process::pid)
            .collect()
    }

    /// Calls helloworld from a pod, by the service's address.
    pub(crate) fn call(&self, from: &Pod, path: &str) -> Result<Reach, WorldError> {
        self.caller.call(&self.world, from, service()?, path)
    }
}

pub(crate) fn service() -> Result<SocketAddr, WorldError> {
    SERVICE
        .parse()
        .map_err(|error| WorldError::caused("read the service's address", error))
}

/// The program that calls: a real one if there is one.
#[derive(Debug)]
pub(crate) enum Caller {
    Curl(PathBuf),
    Own,
}

impl Caller {
    fn find() -> Self {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&paths)
            .map(|dir| dir.join("curl"))
            .find(|path| path.is_file())
            .map_or(Self::Own, Self::Curl)
    }

    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Curl(_) => "curl",
            Self::Own => "a small client of our own (curl is not installed)",
        }
    }

    fn call(
        &self,
        world: &World,
        from: &Pod,
        addr: SocketAddr,
        path: &str,
    ) -> Result<Reach, WorldError> {
        let Self::Curl(program) = self else {
            return Ok(client::http(from.space(), addr, path, CALL));
        };
        let mut command = Command::new(program);
        command
            .args(["--silent", "--fail", "--noproxy", "*", "--max-time", "5"])
            .arg(format!("http://{addr}{path}"));
        let output = world.launcher().output(from.space(), command)?;
        Ok(match output.status.code() {
            Some(0) => Reach::Answered(String::from_utf8_lossy(&output.stdout).into_owned()),
            Some(28) => Reach::TimedOut,
            _ => Reach::Refused,
        })
    }
}

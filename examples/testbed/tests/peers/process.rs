//! Processes of peers: they end with their handle, and with this process however it ends.

use std::{
    ffi::OsStr,
    fs::File,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
};

use meshwright_testbed::{Step, WorldError};
use nix::{
    sys::{prctl, signal::Signal},
    unistd::getppid,
};
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

/// First argument of a process that is about to become a peer.
const BECOME: &str = "@meshwright-peer";

/// In a process that [`Process::start`] made, becomes the peer and does not return.
///
/// Asking the kernel to end this process with its parent survives the change of programs.
pub(crate) fn become_peer() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    if args.next()? != BECOME {
        return None;
    }
    let (parent, program) = (args.next()?, args.next()?);
    let with_parent = prctl::set_pdeathsig(Signal::SIGKILL).is_ok();
    if with_parent && parent == *getppid().to_string() {
        let error = std::process::Command::new(program).args(args).exec();
        tracing::error!(%error, "the peer did not start");
    }
    Some(ExitCode::FAILURE)
}

/// A running peer. What it says on stderr is in its log; stdout is read by lines.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
    log: PathBuf,
}

impl Process {
    /// Starts a program with nothing of the environment but the path. Its log is `<name>.log` in
    /// the folder.
    pub(crate) fn start<S: AsRef<OsStr>>(
        program: &Path,
        args: impl IntoIterator<Item = S>,
        (dir, name): (&Path, &str),
    ) -> Result<Self, WorldError> {
        let log = dir.join(format!("{name}.log"));
        let mut child = Command::new("/proc/self/exe")
            .args([BECOME, &std::process::id().to_string()])
            .arg(program)
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).step("make a log")?)
            .kill_on_drop(true)
            .spawn()
            .step(format!("start {name}"))?;
        let output = child
            .stdout
            .take()
            .ok_or_else(|| WorldError::new("read from a peer"))?;
        Ok(Self {
            input: child.stdin.take(),
            output: BufReader::new(output).lines(),
            child,
            log,
        })
    }

    /// Reads the next line of stdout.
    pub(crate) async fn line(&mut self) -> Result<String, WorldError> {
        let line = self.output.next_line().await.step("hear a peer")?;
        line.ok_or_else(|| WorldError::new(format!("hear a peer, which said: {}", self.said())))
    }

    /// Reads the next line of stdout as JSON.
    pub(crate) async fn json<T: DeserializeOwned>(&mut self) -> Result<T, WorldError> {
        let line = self.line().await?;
        serde_json::from_str(&line).step(format!("understand `{line}`"))
    }

    /// Writes a line to stdin.
    pub(crate) async fn tell(&mut self, line: &str) -> Result<(), WorldError> {
        let input = self.input.as_mut();
        let input = input.ok_or_else(|| WorldError::new("tell a peer"))?;
        input
            .write_all(format!("{line}\n").as_bytes())
            .await
            .step(format!("tell a peer `{line}`"))
    }

    /// Returns whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Returns what it said on stderr.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

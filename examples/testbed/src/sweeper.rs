//! A process of its own that owns a world's folder and removes it, whatever ends the world.
//!
//! Namespaces and processes end by themselves with the process that made them, also after a
//! kill -9. A folder does not, so somebody must outlive that process: the sweeper makes the folder,
//! holds the reading end of a pipe, and removes the folder once the pipe is closed.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::PermissionsExt as _,
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitCode, Stdio},
    thread,
    time::Duration,
};

use nix::sys::signal::SigSet;

use crate::{Step, WorldError, program::HIDDEN};

/// The role that [`dispatch`](crate::dispatch) knows a sweeper by.
pub(crate) const ROLE: &str = "sweeper";

/// Processes of a killed world take a moment to end, and may still write.
const LOOK: Duration = Duration::from_millis(20);
/// The folder is gone for good when so many looks in a row did not find it.
const LOOKS: usize = 3;
/// A folder that comes back or cannot be removed is given up after so many looks.
const MAX_LOOKS: usize = 250;

/// The folder of a world. Removed when this is dropped, and when this process is killed.
#[derive(Debug)]
pub(crate) struct Sweeper {
    process: Child,
    /// `None` once it was told to sweep.
    orders: Option<ChildStdin>,
    folder: PathBuf,
}

impl Sweeper {
    /// Starts the process and waits for its folder.
    pub(crate) fn start() -> Result<Self, WorldError> {
        let step = || "make a folder for the world";
        let mut process = Command::new("/proc/self/exe")
            .args([HIDDEN, ROLE, &std::process::id().to_string()])
            // Ctrl-C at a terminal reaches the whole group.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .step(step())?;
        let orders = process.stdin.take();
        let output = process.stdout.take();
        let output = output.ok_or_else(|| WorldError::new(step()))?;
        let mut line = Vec::new();
        BufReader::new(output)
            .read_until(b'\n', &mut line)
            .step(step())?;
        if line.pop() != Some(b'\n') {
            // It has said why on stderr.
            return Err(WorldError::new(step()));
        }
        Ok(Self {
            process,
            orders,
            folder: PathBuf::from(OsString::from_vec(line)),
        })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Leaves the folder behind.
    pub(crate) fn keep(&self) {
        let kept = self
            .orders
            .as_ref()
            .map(|mut orders| orders.write_all(b"k"));
        if let Some(Err(error)) = kept {
            tracing::debug!(%error, "the folder was to be kept already");
        }
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Err(error) = self.process.wait() {
            tracing::debug!(%error, "the sweeper was not seen to end");
        }
    }
}

/// Runs a sweeper until its world has ended.
pub(crate) fn main() -> Result<ExitCode, WorldError> {
    // It ends when its work is done, not when somebody signals everything in sight.
    SigSet::all().thread_block().step("block signals")?;
    // Tokens are in it.
    let folder = tempfile::Builder::new()
        .prefix("meshwright-")
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir()
        .step("make a folder for the world")?
        .keep();
    // Processes of the world work in it, and name it.
    let folder = std::path::absolute(folder).step("make a folder for the world")?;
    let line = [folder.as_os_str().as_bytes(), b"\n"].concat();
    let told = std::io::stdout().write_all(&line);
    let is_kept = told.is_ok() && matches!(std::io::stdin().read(&mut [0]), Ok(1));
    if !is_kept {
        remove(&folder);
    }
    Ok(ExitCode::SUCCESS)
}

fn remove(folder: &Path) {
    let mut gone = 0;
    for _ in 0..MAX_LOOKS {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => gone += 1,
            _ => gone = 0,
        }
        if gone == LOOKS {
            return;
        }
        thread::sleep(LOOK);
    }
}

//! What a process uses of the machine, from `/proc`.

use std::{fs, path::PathBuf, time::Duration};

use super::Process;
use crate::{Step, WorldError};

impl Process {
    /// Returns the CPU time used so far, in user and kernel mode.
    ///
    /// # Errors
    ///
    /// Fails when the process has ended.
    pub fn cpu(&self) -> Result<Duration, WorldError> {
        let path = format!("/proc/{}/schedstat", self.pid);
        let total = threads(self.pid)?
            .iter()
            .filter_map(|thread| fs::read_to_string(thread.join("schedstat")).ok())
            .filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok())
            .sum();
        fs::metadata(&path).step(format!("read {path}"))?;
        Ok(Duration::from_nanos(total))
    }

    /// Returns the number of open descriptors.
    ///
    /// # Errors
    ///
    /// Fails when the process has ended.
    pub fn descriptors(&self) -> Result<usize, WorldError> {
        let path = format!("/proc/{}/fd", self.pid);
        Ok(fs::read_dir(&path).step(format!("read {path}"))?.count())
    }

    /// Returns the proportional set size in bytes.
    ///
    /// # Errors
    ///
    /// Fails when the process has ended.
    pub fn memory(&self) -> Result<u64, WorldError> {
        let path = format!("/proc/{}/smaps_rollup", self.pid);
        let text = fs::read_to_string(&path).step(format!("read {path}"))?;
        text.lines()
            .find_map(|line| line.strip_prefix("Pss:"))
            .and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok())
            .map(|kib| kib * 1024)
            .ok_or_else(|| WorldError::new(format!("find Pss in {path}")))
    }
}

fn threads(pid: u32) -> Result<Vec<PathBuf>, WorldError> {
    let path = format!("/proc/{pid}/task");
    Ok(fs::read_dir(&path)
        .step(format!("read {path}"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect())
}

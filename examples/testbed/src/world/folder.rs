//! The folder of a world.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use crate::{Step, WorldError, interrupt};

/// The world's folder; removed with the world, unless it is to be kept or a thread panicked.
#[derive(Debug)]
pub(super) struct WorkDir {
    dir: Option<tempfile::TempDir>,
    path: PathBuf,
    is_kept: AtomicBool,
}

impl WorkDir {
    pub(super) fn create(is_kept: bool) -> Result<Self, WorldError> {
        let dir = tempfile::Builder::new()
            .prefix("meshwright-")
            .tempdir()
            .step("make a folder for the world")?;
        interrupt::remove_at_interrupt(dir.path());
        Ok(Self {
            path: dir.path().to_owned(),
            dir: Some(dir),
            is_kept: AtomicBool::new(is_kept),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the folder behind when the world ends.
    pub(super) fn keep(&self) {
        self.is_kept.store(true, Ordering::Relaxed);
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if let Some(dir) = self.dir.take()
            && (self.is_kept.load(Ordering::Relaxed) || std::thread::panicking())
        {
            let folder = dir.keep();
            tracing::info!(folder = %folder.display(), "kept");
        }
    }
}

//! The folder of a world.

use std::path::Path;

use crate::{WorldError, interrupt, sweeper::Sweeper};

/// The world's folder; removed with the world, unless it is to be kept or a thread panicked.
#[derive(Debug)]
pub(super) struct WorkDir {
    sweeper: Sweeper,
}

impl WorkDir {
    pub(super) fn create(is_kept: bool) -> Result<Self, WorldError> {
        let dir = Self {
            sweeper: Sweeper::start()?,
        };
        if is_kept {
            dir.keep();
        } else {
            interrupt::remove_at_interrupt(dir.path());
        }
        Ok(dir)
    }

    pub(super) fn path(&self) -> &Path {
        self.sweeper.folder()
    }

    /// Leaves the folder behind when the world ends.
    pub(super) fn keep(&self) {
        interrupt::keep_at_interrupt(self.path());
        self.sweeper.keep();
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep();
            tracing::info!(folder = %self.path().display(), "kept");
        }
    }
}

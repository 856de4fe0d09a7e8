//! Ctrl-C: nothing is left behind when the prompt is back.
//!
//! The sweeper removes folders a moment after this process has ended, however that was; here that
//! is done before, where the process is asked to end.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, Once, PoisonError},
    thread,
};

use tokio::signal::unix::{SignalKind, signal};

/// Status of a program that was interrupted, as shells report it.
const INTERRUPTED: i32 = 130;

static FOLDERS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
static WATCH: Once = Once::new();

/// Removes a folder when the process is interrupted.
pub(crate) fn remove_at_interrupt(folder: &Path) {
    WATCH.call_once(|| {
        let started = thread::Builder::new().name("interrupt".into()).spawn(watch);
        if let Err(error) = started {
            tracing::warn!(%error, "an interrupt will leave a folder behind");
        }
    });
    folders().push(folder.to_owned());
}

/// Keeps a folder after all.
pub(crate) fn keep_at_interrupt(folder: &Path) {
    folders().retain(|known| known != folder);
}

fn watch() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let Ok(runtime) = runtime else {
        return;
    };
    let interrupted = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
            _ = terminate.recv() => {}
        }
        std::io::Result::Ok(())
    });
    if interrupted.is_ok() {
        for folder in folders().drain(..) {
            if let Err(error) = fs::remove_dir_all(&folder) {
                tracing::debug!(%error, "a folder was removed already");
            }
        }
        std::process::exit(INTERRUPTED);
    }
}

fn folders() -> MutexGuard<'static, Vec<PathBuf>> {
    FOLDERS.lock().unwrap_or_else(PoisonError::into_inner)
}

//! The program: arguments, log, signals, exit code.

use std::{error::Error, ffi::OsString, io, process::ExitCode};

use tokio::{
    runtime::Builder,
    signal::unix::{Signal, SignalKind, signal},
};
use tracing_subscriber::EnvFilter;

use crate::{Config, ControlPlane, StartError};

/// Enough for a few hundred nodes; reading manifests has threads of its own.
const WORKERS: usize = 2;

/// Runs the program with these arguments, the first of which is the program's name, until SIGTERM
/// or SIGINT; SIGHUP reads the files again.
///
/// Settings are read from the arguments and from `MESHWRIGHT_CP_*` variables. An error is printed
/// with its causes; the exit code says whether there was one (2: the arguments are wrong).
pub fn run<I>(args: I) -> ExitCode
where
    I: IntoIterator<Item = OsString>,
{
    let config = match Config::parse_args(args) {
        Ok(config) => config,
        Err(error) => {
            // Help and version go to stdout and are no error. A closed pipe is the reader's wish.
            drop(error.print());
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    log_to_stderr(&config.log);
    let ended = Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .map_err(RunError::Runtime)
        .and_then(|runtime| runtime.block_on(until_signal(config)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

async fn until_signal(config: Config) -> Result<(), RunError> {
    let mut terminate = on(SignalKind::terminate())?;
    let mut interrupt = on(SignalKind::interrupt())?;
    let mut hangup = on(SignalKind::hangup())?;
    let control_plane = ControlPlane::start(config).await.map_err(RunError::Start)?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => control_plane.reload(),
        }
    }
    tracing::info!("stopping");
    control_plane.shutdown().await;
    Ok(())
}

fn on(kind: SignalKind) -> Result<Signal, RunError> {
    signal(kind).map_err(RunError::Signal)
}

/// In a process that already logs (a test), its log is kept.
fn log_to_stderr(filter: &str) {
    let filter = EnvFilter::builder().parse_lossy(filter);
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    if log.try_init().is_err() {
        tracing::debug!("the process has a log already");
    }
}

/// Prints an error and its causes, each once.
#[expect(
    clippy::print_stderr,
    reason = "the last word of a program that could not run"
)]
fn report(error: &dyn Error) {
    eprint!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprint!(": {error}");
        cause = error.source();
    }
    eprintln!();
}

#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error("the threads could not be started")]
    Runtime(#[source] io::Error),
    #[error("signals cannot be received")]
    Signal(#[source] io::Error),
    #[error("the control plane did not start")]
    Start(#[source] StartError),
}

//! Spans and events of a test, printed only when it fails.

use tracing::subscriber::DefaultGuard;
use tracing_subscriber::{EnvFilter, fmt::TestWriter};

/// Keeps the subscriber of one test in place; see [`trace`].
#[derive(Debug)]
#[must_use = "tracing stops when the guard is dropped"]
pub struct TraceGuard {
    _default: DefaultGuard,
}

/// Sends this thread's spans and events to the test's captured output.
///
/// The test harness prints that output only for tests that fail. `RUST_LOG` narrows or widens it;
/// the default is `debug`.
pub fn trace() -> TraceGuard {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("debug,h2=info,hyper=info"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(TestWriter::new())
        .with_ansi(false)
        .finish();
    TraceGuard {
        _default: tracing::subscriber::set_default(subscriber),
    }
}

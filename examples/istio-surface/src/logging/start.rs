//! Putting the subscriber in place.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use thiserror::Error;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

use super::filter::{Filter, InvalidFilter};
use super::layer::{Clock, LogLayer};
use super::writer::LineSender;

/// Shape of log lines.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Fields separated by tabs.
    #[default]
    Plain,
}

/// Logging of a process, before it is started.
#[derive(Clone, Debug, Default)]
#[must_use = "nothing is logged before it is started"]
pub struct Logging {
    filter: Filter,
    format: LogFormat,
}

/// Changes and observes logging while it runs; clones are equal.
#[derive(Clone, Debug)]
pub struct Control {
    reload: reload::Handle<EnvFilter, Registry>,
    filters: Arc<Filters>,
    lines: LineSender,
}

#[derive(Debug)]
struct Filters {
    initial: Filter,
    current: Mutex<Filter>,
}

/// Logging could not be started.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoggingError {
    /// Another subscriber is already in place: the program starts logging twice.
    #[error("logging is already started")]
    AlreadyStarted,
    /// The thread that writes lines could not be made; look at the limits of the process.
    #[error("could not start the log thread")]
    Thread(#[source] io::Error),
}

/// The sink did not take all lines in time.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("the log sink did not take all lines in time")]
#[non_exhaustive]
pub struct SinkClosed;

impl Logging {
    /// Plain or JSON lines of the events that pass `filter`.
    pub fn new(filter: Filter, format: LogFormat) -> Self {
        Self { filter, format }
    }

    /// Makes this the logging of the whole process, written to standard output.
    ///
    /// # Errors
    ///
    /// [`LoggingError`] if the process already logs, or the log thread cannot be made.
    pub fn start(self) -> Result<Control, LoggingError> {
        let (subscriber, control) = self.build(io::stdout())?;
        tracing::subscriber::set_global_default(subscriber)
            .map_err(|_other| LoggingError::AlreadyStarted)?;
        Ok(control)
    }

    /// Makes a subscriber that writes to `sink`, for tests and for programs with their own layers.
    ///
    /// # Errors
    ///
    /// [`LoggingError::Thread`] if the log thread cannot be made.
    pub fn build(
        self,
        sink: impl Write + Send + 'static,
    ) -> Result<(impl tracing::Subscriber + Send + Sync, Control), LoggingError> {
        #[expect(clippy::disallowed_methods, reason = "the clock of log lines")]
        let clock: Clock = SystemTime::now;
        let lines = LineSender::start(sink).map_err(LoggingError::Thread)?;
        let (filter, reload) = reload::Layer::new(self.filter.to_env_filter());
        let layer = LogLayer::new(self.format, lines.clone(), clock);
        let subscriber = Registry::default().with(filter).with(layer);
        let current = Mutex::new(self.filter.clone());
        let initial = self.filter;
        let control = Control {
            reload,
            filters: Arc::new(Filters { initial, current }),
            lines,
        };
        Ok((subscriber, control))
    }
}

impl Control {
    /// The filter in force.
    #[must_use]
    pub fn filter(&self) -> Filter {
        let current = self.filters.current.lock();
        current.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds `directives` to the filter, after going back to the first one if `reset`.
    ///
    /// # Errors
    ///
    /// [`InvalidFilter`], and the filter stays as it was.
    pub fn change(&self, directives: Option<&str>, reset: bool) -> Result<Filter, InvalidFilter> {
        let current = self.filters.current.lock();
        let mut current = current.unwrap_or_else(PoisonError::into_inner);
        let base = if reset {
            &self.filters.initial
        } else {
            &*current
        };
        let new = match directives {
            Some(directives) => base.with(directives)?,
            None => base.clone(),
        };
        if self.reload.reload(new.to_env_filter()).is_ok() {
            *current = new;
        }
        Ok(current.clone())
    }

    /// Lines that were dropped because the sink was slower than the program.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.lines.dropped()
    }

    /// Blocks this thread until the lines so far are written, at most `limit`; for the end of a
    /// program.
    ///
    /// # Errors
    ///
    /// [`SinkClosed`] if the sink did not take them in time.
    pub fn flush(&self, limit: Duration) -> Result<(), SinkClosed> {
        if self.lines.flush(limit) {
            Ok(())
        } else {
            Err(SinkClosed)
        }
    }
}

#[cfg(test)]
#[path = "start/tests.rs"]
mod tests;

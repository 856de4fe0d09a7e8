//! What ends the process.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Waits for SIGTERM, SIGINT or a request on the admin port.
#[derive(Debug)]
pub(crate) struct Shutdown {
    terminate: Signal,
    interrupt: Signal,
    asked: watch::Sender<bool>,
}

impl Shutdown {
    /// Takes over the process's signals.
    ///
    /// # Errors
    ///
    /// Returns the operating system's answer.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            asked: watch::Sender::new(false),
        })
    }

    /// Returns what asks for the end from inside the process.
    pub(crate) fn ask(&self) -> impl Fn() + Send + Sync + 'static {
        let asked = self.asked.clone();
        move || {
            asked.send_replace(true);
        }
    }

    /// Waits for SIGINT: a person at a terminal does not want to wait for the drain. Cancel safe.
    pub(crate) async fn insisted(&mut self) {
        if self.interrupt.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        tracing::info!("SIGINT: not waiting for connections");
    }

    /// Waits until the end is asked for. Cancel safe.
    pub(crate) async fn requested(&mut self) {
        let mut asked = self.asked.subscribe();
        tokio::select! {
            _ = self.terminate.recv() => tracing::info!("SIGTERM"),
            _ = self.interrupt.recv() => tracing::info!("SIGINT"),
            _ = asked.wait_for(|asked| *asked) => tracing::info!("asked to quit"),
        }
    }
}

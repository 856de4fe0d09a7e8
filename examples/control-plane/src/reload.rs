//! Reads the files at start and again whenever they change.
//!
//! Changes are found by polling, which works on every file system and for every way to replace a
//! file. A folder that changes is read once it has looked the same twice, [`SETTLE`] apart: several
//! files written together come into force together, and a file is seldom read half-written. If it
//! is, the fault heals with the next look. Because the look comes before the reading and clocks of
//! file systems tick faster than `SETTLE`, a write that the reading missed always changes the next
//! look.

use std::{error::Error, path::PathBuf, sync::Arc, time::Duration};

use tokio::{sync::Notify, task, time};

use crate::{
    Config,
    callers::{Callers, TokensError},
    compile::{Compiled, Mesh, compile},
    manifest::{Fingerprint, InvalidManifests, Manifests, Texts, fingerprint},
    state::{Publisher, Summary},
};

const SETTLE: Duration = Duration::from_millis(50);
/// A folder that never settles is read all the same after so many looks.
const MAX_LOOKS: usize = 20;

/// What is read.
#[derive(Debug)]
pub(crate) struct Sources {
    folder: PathBuf,
    tokens: Option<PathBuf>,
    mesh: Mesh,
}

/// What the files look like from outside.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Look {
    manifests: Fingerprint,
    tokens: Option<Fingerprint>,
}

/// By which a later reading tells whether anything changed.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    /// Taken before the reading, see the module's page.
    look: Look,
    digest: u64,
}

/// One reading of all files.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) mark: Mark,
    /// `None` if they are the same as before.
    pub(crate) manifests: Option<Result<(Compiled, Summary), InvalidManifests>>,
    pub(crate) callers: Result<Callers, TokensError>,
}

impl Sources {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            folder: config.manifests.clone(),
            tokens: config.tokens.clone(),
            mesh: Mesh {
                cluster_id: config.cluster_id.clone(),
                cluster_domain: config.cluster_domain.clone(),
                network: config.network.clone(),
                root_namespace: config.root_namespace.clone(),
                trust_domain: config.trust_domain.clone(),
            },
        }
    }

    fn look(&self) -> Look {
        Look {
            manifests: fingerprint(&self.folder),
            tokens: self.tokens.as_deref().map(Fingerprint::of_file),
        }
    }

    /// Reads everything. Manifests whose texts have the digest `known` are not compiled. Blocks.
    pub(crate) fn read(&self, known: Option<u64>) -> Reading {
        let look = self.look();
        let texts = Texts::read(&self.folder);
        let digest = texts.digest();
        Reading {
            mark: Mark { look, digest },
            manifests: (known != Some(digest)).then(|| self.compile(texts)),
            callers: match &self.tokens {
                Some(path) => Callers::load(path, &self.mesh.trust_domain),
                None => Ok(Callers::Any),
            },
        }
    }

    fn compile(&self, texts: Texts) -> Result<(Compiled, Summary), InvalidManifests> {
        let manifests = Manifests::from_texts(texts)?;
        let compiled = compile(&manifests, &self.mesh)?;
        let summary = Summary::new(self.folder.clone(), &manifests, &compiled);
        Ok((compiled, summary))
    }
}

/// Keeps what is in force like the files.
#[derive(Debug)]
pub(crate) struct Watcher {
    sources: Arc<Sources>,
    publisher: Publisher,
    mark: Mark,
    manifest_errors: Vec<String>,
}

impl Watcher {
    /// Goes on after a first reading, which the caller has published.
    pub(crate) fn new(sources: Arc<Sources>, publisher: Publisher, mark: Mark) -> Self {
        Self {
            sources,
            publisher,
            mark,
            manifest_errors: Vec::new(),
        }
    }

    /// Looks every `poll`, and reads at once when nudged. Runs until it is dropped.
    pub(crate) async fn run(mut self, poll: Duration, nudge: Arc<Notify>) {
        let mut ticks = time::interval(poll);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            let nudged = tokio::select! {
                _ = ticks.tick() => false,
                () = nudge.notified() => true,
            };
            if nudged || self.look().await != self.mark.look {
                self.settle().await;
                self.reload().await;
            }
        }
    }

    async fn look(&self) -> Look {
        let sources = Arc::clone(&self.sources);
        let look = task::spawn_blocking(move || sources.look()).await;
        look.unwrap_or_else(|_| self.mark.look.clone())
    }

    async fn settle(&self) {
        let mut last = self.look().await;
        for _ in 0..MAX_LOOKS {
            time::sleep(SETTLE).await;
            let next = self.look().await;
            if next == last {
                return;
            }
            last = next;
        }
    }

    async fn reload(&mut self) {
        let sources = Arc::clone(&self.sources);
        let known = self.mark.digest;
        let Ok(reading) = task::spawn_blocking(move || sources.read(Some(known))).await else {
            tracing::error!(
                "the reading of the manifests was cut off; the last set stays in force"
            );
            return;
        };
        self.mark = reading.mark;
        match reading.manifests {
            None => {}
            Some(Ok((compiled, summary))) => {
                log_set(&summary);
                self.publisher.publish(compiled, summary);
                self.manifest_errors.clear();
            }
            Some(Err(invalid)) => {
                self.manifest_errors = invalid.faults().iter().map(ToString::to_string).collect();
                tracing::error!("{invalid}\nthe last good set stays in force");
            }
        }
        let mut errors = self.manifest_errors.clone();
        match reading.callers {
            Ok(callers) => self.publisher.callers(callers),
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn Error,
                    "the last good tokens stay in force"
                );
                errors.push(format!("tokens: {error}"));
            }
        }
        self.publisher.errors(errors);
    }
}

/// Says what came into force, and what has no effect.
pub(crate) fn log_set(summary: &Summary) {
    for ignored in &summary.ignored {
        tracing::warn!("{ignored}: this kind is ignored");
    }
    for note in &summary.notes {
        tracing::warn!("{note}");
    }
    tracing::info!(
        files = summary.files,
        objects = summary.objects,
        addresses = summary.addresses,
        authorizations = summary.authorizations,
        "manifests are in force"
    );
}

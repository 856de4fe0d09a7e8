//! Around the program: arguments, settings, limits of the process, and how its end is told.

use std::error::Error;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use meshwright_identity::InvalidSpiffeId;
use meshwright_identity::grpc::InvalidChannel;
use meshwright_istio_surface::config_dump::BuildVersion;
use meshwright_istio_surface::env::Variables;
use meshwright_istio_surface::logging::{Control as Logging, Logging as LogSetup};
use meshwright_istio_surface::server::BindError;
use meshwright_policy::Mode;
use meshwright_redirect::Netns;
use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::runtime::Builder;

use crate::config::{Command, Config, Machine, PolicyMode};
use crate::local::LocalError;
use crate::mesh::{Mesh, PodName};
use crate::pod::PodProxy;
use crate::shards::Shards;

/// How long the last log lines may take.
const FLUSH: Duration = Duration::from_secs(1);

const HELP: &str = "usage: ztunnel [proxy | version | help]\n\n\
    proxy     serves the pods of this node (the default); settings are variables, see the README\n\
    version   prints the version\n\
    help      prints this text\n";

/// The program could not start, or could not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// A task of the control plane's client has ended: what it knows would grow old unnoticed.
    #[error("the control plane's client has ended")]
    Source,
    /// A port of the process is taken.
    #[error("could not serve the process's own ports")]
    Bind(#[source] BindError),
    /// The certificate authority made in this process failed.
    #[error("could not make a certificate authority")]
    Authority(#[source] meshwright_identity::ca::CaError),
    /// The cluster's name cannot be sent.
    #[error("CLUSTER_ID cannot be sent as a header")]
    ClusterId(#[source] http::header::InvalidHeaderValue),
    /// The settings of a channel to the control plane or authority cannot work.
    #[error("could not prepare the channel to {to}")]
    Channel {
        /// `the control plane` or `the certificate authority`.
        to: &'static str,
        /// Why.
        source: InvalidChannel,
    },
    /// The local source could not be used.
    #[error("could not use the local source")]
    Local(#[source] LocalError),
    /// Neither a control plane nor a local source is configured.
    #[error("there is no source of workloads: set XDS_ADDRESS or LOCAL_XDS_PATH")]
    NoSource,
    /// Entries of the local source were refused by the rules for a control plane's.
    #[error("the local source was refused: {reason}")]
    Refused {
        /// Names and reasons.
        reason: String,
    },
    /// The process cannot receive signals.
    #[error("could not listen for signals")]
    Signals(#[source] io::Error),
    /// A thread could not be made.
    #[error("could not start the worker threads")]
    Threads(#[source] io::Error),
    /// `TRUST_DOMAIN` is not one.
    #[error("TRUST_DOMAIN is not a trust domain")]
    TrustDomain(#[source] InvalidSpiffeId),
}

/// Reads arguments and settings, starts the log, and runs `program` to its end.
pub(crate) fn start<I, P, F>(arguments: I, program: P) -> ExitCode
where
    I: IntoIterator<Item = OsString>,
    P: FnOnce(Config, Logging) -> F,
    F: Future<Output = Result<(), RunError>>,
{
    let arguments: Vec<String> = arguments
        .into_iter()
        .skip(1)
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    match Command::parse(&arguments) {
        Ok(Command::Help) => say(HELP),
        Ok(Command::Version) => say(&format!("{}\n", BuildVersion::of_this_program(None))),
        Ok(_) => match proxy(&arguments, program) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => complain(&*error),
        },
        Err(unknown) => complain(&unknown),
    }
}

fn proxy<P, F>(arguments: &[String], program: P) -> Result<(), Box<dyn Error>>
where
    P: FnOnce(Config, Logging) -> F,
    F: Future<Output = Result<(), RunError>>,
{
    let config = Config::load(&Variables::of_process(), arguments, Machine::probe())?;
    let telemetry = &config.telemetry;
    let logging = LogSetup::new(telemetry.filter.clone(), telemetry.format).start()?;
    let version = BuildVersion::of_this_program(telemetry.istio_version.as_deref());
    tracing::info!(%version, workers = config.workers, mode = ?config.policy_mode, "starting");
    for note in &config.notes {
        tracing::warn!("{note}");
    }
    keep_memory_private();
    raise_descriptor_limit();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(program(config, logging.clone()));
    runtime.shutdown_timeout(FLUSH);
    match &outcome {
        Ok(()) => tracing::info!("shutdown complete"),
        Err(error) => tracing::error!(error = %chain(error), "could not go on"),
    }
    if let Err(closed) = logging.flush(FLUSH) {
        complain(&closed);
    }
    Ok(outcome?)
}

/// Keys and tokens are in this memory: it goes into no core dump, and no other process of the same
/// user may read it.
fn keep_memory_private() {
    let private = set_dumpable(false).and_then(|()| setrlimit(Resource::RLIMIT_CORE, 0, 0));
    if let Err(error) = private {
        tracing::warn!(%error, "could not keep the memory out of core dumps");
    }
}

/// Every connection is two descriptors: the soft limit of a shell is no measure for a node.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_soft, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "could not raise the limit of open files");
    }
}

/// Returns the tag of the build metric.
pub(crate) fn tag(config: &Config) -> &str {
    let version = config.telemetry.istio_version.as_deref();
    version.unwrap_or("unknown")
}

/// Serves the proxy's own pod, if the settings name it.
///
/// Without it only its metrics cannot be read through the mesh: a failure is logged, not more.
pub(crate) fn own_pod(mesh: &Arc<Mesh>, shards: &Shards) -> Option<PodProxy> {
    let own = mesh.config.node.own_workload()?;
    let name = PodName::new(&own.namespace, &own.name, &own.service_account);
    let started = Netns::current()
        .map_err(|error| chain(&error))
        .and_then(|netns| {
            PodProxy::start_own(name, netns, Arc::clone(mesh), shards)
                .map_err(|error| chain(&error))
        });
    match started {
        Ok(proxy) => Some(proxy),
        Err(reason) => {
            tracing::warn!(%reason, "the proxy's own pod is not served");
            None
        }
    }
}

pub(crate) const fn mode(config: &Config) -> Mode {
    match config.policy_mode {
        PolicyMode::Strict => Mode::Strict,
        PolicyMode::IstioCompatible => Mode::IstioCompatible,
    }
}

/// Writes an error and its causes in one line.
pub(crate) fn chain(error: &(dyn Error + '_)) -> String {
    let mut text = error.to_string();
    let mut link = error.source();
    while let Some(source) = link {
        // Writing to a string cannot fail.
        let _infallible = write!(text, ": {source}");
        link = source.source();
    }
    text
}

fn say(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_closed) => ExitCode::FAILURE,
    }
}

fn complain(error: &dyn Error) -> ExitCode {
    // Nobody is left to tell if standard error is closed.
    let _closed = writeln!(io::stderr(), "ztunnel: {}", chain(error));
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::{Resource, getrlimit, keep_memory_private};
    use nix::sys::prctl::get_dumpable;

    #[test]
    fn memory_goes_into_no_core_dump() {
        let _trace = meshwright_testkit::trace();
        keep_memory_private();
        assert!(!get_dumpable().unwrap());
        assert_eq!(getrlimit(Resource::RLIMIT_CORE).unwrap(), (0, 0));
    }
}

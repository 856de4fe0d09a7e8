//! The L4 node proxy: a drop-in for Istio's ztunnel.
//!
//! [`run`] reads as the architecture. A connection's way through the program is `pod` (accept) →
//! `worker` (one task on one thread) → `outbound`, `inbound` or `passthrough`; each asks `mesh` who
//! it is, what exists and who may talk to whom, and tells `traffic` what became of it.
#![forbid(unsafe_code)]

mod baggage;
mod certificates;
pub mod config;
mod control;
mod dialer;
mod dump;
mod ending;
mod inbound;
mod judge;
mod limits;
mod local;
mod mesh;
mod outbound;
mod passthrough;
mod pod;
mod pods;
mod program;
mod served;
mod servers;
mod shards;
mod shutdown;
mod telemetry;
#[cfg(test)]
mod testing;
mod traffic;
mod updates;
mod worker;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use meshwright_identity::TrustDomain;
use meshwright_istio_surface::logging::Control as Logging;
use meshwright_istio_surface::metrics::Metrics;
use meshwright_istio_surface::server::Readiness;
use meshwright_policy::{Live, PolicyStore};
use meshwright_xds_client::workload::Store;

use crate::certificates::Prefetch;
use crate::config::Config;
use crate::mesh::Mesh;
use crate::pods::Pods;
use crate::program::RunError;
use crate::shards::Shards;
use crate::shutdown::Shutdown;
use crate::telemetry::Telemetry;

pub(crate) use crate::program::chain;

/// Runs the proxy with these arguments (the first is the program's name) until SIGTERM, SIGINT or
/// `POST /quitquitquit`.
///
/// Settings come from the process's environment. Errors are printed to standard error as a chain,
/// and the exit code says whether there was one.
pub fn run<I>(arguments: I) -> ExitCode
where
    I: IntoIterator<Item = OsString>,
{
    program::start(arguments, serve)
}

/// The program, from its settings to its end.
async fn serve(config: Config, logging: Logging) -> Result<(), RunError> {
    let mut shutdown = Shutdown::listen().map_err(RunError::Signals)?;
    let metrics = Arc::new(Metrics::new("ztunnel", program::tag(&config)));
    let telemetry = Arc::new(Telemetry::new(Arc::clone(&metrics)));
    let readiness = Readiness::new();

    // Threads: traffic has its own, and so has the control plane, whose first answer may be large.
    let shards =
        Arc::new(Shards::start("ztunnel", config.workers.get()).map_err(RunError::Threads)?);
    let control_thread = Shards::start("control", 1).map_err(RunError::Threads)?;
    metrics.expose_workers(shards.iter().map(|(shard, _)| shard.clone()).collect());

    // Who we are: a certificate for each identity on this node, renewed before it expires.
    let trust_domain =
        TrustDomain::parse(&config.node.trust_domain).map_err(RunError::TrustDomain)?;
    let rotator = certificates::rotator(&config, trust_domain, &telemetry)?;

    // What exists, and who may talk to whom. Live connections are judged again after every change.
    let (addresses, workloads) = Store::new(config.node.name.as_deref());
    let (policies, policy_reader) = PolicyStore::new(program::mode(&config));
    let live = Live::new(policy_reader.clone(), judge::subjects(workloads.clone()));
    let (judge, holds) = judge::judge(live.clone());
    let judge = Arc::new(judge);
    let addresses = updates::Addresses::new(
        addresses,
        Arc::clone(&judge),
        Prefetch::new(rotator.identities()),
    );
    let policies = updates::Policies::new(policies, judge);

    let mesh = Arc::new(Mesh::new(
        config,
        workloads,
        live,
        rotator.identities(),
        telemetry,
    ));
    // Not ready from the first answer on.
    let synced = readiness.block("state manager");
    let handed_over = readiness.block(POD_MANAGER);
    let servers = servers::start(&mesh, policy_reader, &readiness, logging, &shutdown).await?;
    let mut source = control::connect(&mesh, addresses, policies, holds, &control_thread)?;

    // Nothing listens in a pod before the first state is complete: there would be nothing to judge by.
    tokio::select! {
        ready = source.ready() => ready?,
        () = shutdown.requested() => return Ok(()),
    }

    drop(synced);
    let own = program::own_pod(&mesh, &shards);

    // Which pods we serve: handed over by the node agent, one proxy each.
    let mut agent = pods::agent(&mesh);
    let mut pods = Pods::new(Arc::clone(&mesh), shards, readiness, handed_over);
    let outcome = tokio::select! {
        () = pods.follow(&mut agent) => Ok(()),
        () = shutdown.requested() => Ok(()),
        error = source.broken() => Err(error),
    };
    drop(agent);
    tracing::info!(deadline = ?mesh.config.drain.deadline, "draining");
    tokio::select! {
        () = pods.drained(own, mesh.config.drain.deadline) => {}
        () = shutdown.insisted() => {}
    }
    drop((servers, source, rotator));
    outcome
}

/// What readiness calls the set of pods.
const POD_MANAGER: &str = "workload proxy manager";

//! The ports of the process itself: readiness, metrics, admin.

use std::sync::Arc;

use meshwright_istio_surface::logging::Control as Logging;
use meshwright_istio_surface::server::{Admin, HttpServer, Readiness, ServerLimits, Stats, bind};
use meshwright_policy::PolicyReader;

use crate::dump::Dump;
use crate::mesh::Mesh;
use crate::program::RunError;
use crate::shutdown::Shutdown;

/// The running servers; dropping them closes their ports.
#[derive(Debug)]
pub(crate) struct Servers {
    _servers: [HttpServer; 3],
}

/// Opens 15020, 15021 and 15000.
///
/// # Errors
///
/// Returns [`RunError::Bind`] if a port is taken.
pub(crate) async fn start(
    mesh: &Arc<Mesh>,
    policies: PolicyReader,
    readiness: &Readiness,
    logging: Logging,
    shutdown: &Shutdown,
) -> Result<Servers, RunError> {
    let ports = &mesh.config.ports;
    let readiness_port = bind(ports.readiness).await.map_err(RunError::Bind)?;
    let stats_port = bind(ports.stats).await.map_err(RunError::Bind)?;
    let mut admin_ports = Vec::new();
    for address in ports.admin.addresses() {
        admin_ports.push(bind(address).await.map_err(RunError::Bind)?);
    }
    let limits = ServerLimits::default();
    let stats = Stats::new(Arc::clone(&mesh.telemetry.metrics)).with_logging(logging.clone());
    let dump = Arc::new(Dump::new(Arc::clone(mesh), policies));
    let admin = Admin::new(dump, logging, shutdown.ask());
    Ok(Servers {
        _servers: [
            HttpServer::start(vec![readiness_port], readiness.clone(), limits),
            HttpServer::start(vec![stats_port], stats, limits),
            HttpServer::start(admin_ports, admin, limits),
        ],
    })
}

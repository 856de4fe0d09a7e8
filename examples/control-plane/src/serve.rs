//! The TLS port: delta ADS and certificates, for callers with a token.

mod certificates;
mod connection;
mod ending;

pub(crate) use certificates::{Certificates, Counts};

use std::{sync::Arc, time::Duration};

use meshwright_identity::istio::proto::istio_certificate_service_server::IstioCertificateServiceServer;
use meshwright_xds_client::server::AdsService;
use rustls::ServerConfig;
use tokio::{net::TcpListener, sync::watch};
use tonic::{Request, Status, service::interceptor::InterceptedService, transport::Server};

use crate::{callers::Caller, state::State};
use connection::accept;
use ending::EndWith;

/// A signing request is about 500 bytes, one of RSA-4096 below 3 KiB.
const MAX_CERTIFICATE_REQUEST: usize = 64 * 1024;
const MAX_STREAMS: u32 = 64;
const MAX_HEADERS: u32 = 16 * 1024;

/// What is served on the port.
#[derive(Debug)]
pub(crate) struct Services {
    pub(crate) ads: AdsService,
    pub(crate) certificates: Certificates,
    pub(crate) state: watch::Receiver<State>,
}

/// Serves until `stop` turns true: streams are then ended, running calls finished, and connections
/// closed. Dropping `cut`'s sender, or setting it, closes what is left.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    services: Services,
    stop: watch::Receiver<bool>,
    cut: watch::Receiver<bool>,
) {
    let ads = EndWith::new(services.ads.into_server(), stop.clone());
    let state = services.state;
    let ads = InterceptedService::new(ads, move |request: Request<()>| {
        caller(&state.borrow(), request.metadata())?;
        Ok(request)
    });
    let certificates = IstioCertificateServiceServer::new(services.certificates)
        .max_decoding_message_size(MAX_CERTIFICATE_REQUEST);
    let (accepting, connections) = accept(listener, tls, cut);
    let server = Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .max_concurrent_streams(Some(MAX_STREAMS))
        .http2_max_header_list_size(Some(MAX_HEADERS))
        .add_service(ads)
        .add_service(certificates)
        .serve_with_incoming_shutdown(connections, stopped(stop));
    tokio::select! {
        () = accepting => {}
        ended = server => {
            if let Err(error) = ended {
                tracing::error!(error = &error as &dyn std::error::Error, "the server ended");
            }
        }
    }
}

pub(crate) async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that the owner is gone, which is a stop too.
    drop(stop.wait_for(|stop| *stop).await);
}

/// Who is calling, by the token of the request.
fn caller(state: &State, metadata: &tonic::metadata::MetadataMap) -> Result<Caller, Status> {
    let header = metadata
        .get("authorization")
        .and_then(|value| value.to_str().ok());
    state
        .callers
        .caller(header)
        .ok_or_else(|| Status::unauthenticated("no known bearer token"))
}

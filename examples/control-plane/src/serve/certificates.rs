//! Signs certificates for callers that may have them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use meshwright_identity::{
    Fault, SpiffeId,
    ca::{CaError, CertificateAuthority},
    istio::proto::{
        IstioCertificateRequest, IstioCertificateResponse,
        istio_certificate_service_server::IstioCertificateService,
    },
};
use prost_types::{Struct, value::Kind};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::caller;
use crate::state::State;

/// The metadata field by which a node proxy names the identity it wants.
const IMPERSONATED: &str = "ImpersonatedIdentity";

/// The certificate service.
#[derive(Clone, Debug)]
pub(crate) struct Certificates {
    authority: CertificateAuthority,
    max_ttl: Duration,
    state: watch::Receiver<State>,
    counts: Arc<Counts>,
}

/// How many certificates were asked for.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) issued: AtomicU64,
    pub(crate) refused: AtomicU64,
}

impl Certificates {
    pub(crate) fn new(
        authority: CertificateAuthority,
        max_ttl: Duration,
        state: watch::Receiver<State>,
    ) -> Self {
        Self {
            authority,
            max_ttl,
            state,
            counts: Arc::default(),
        }
    }

    pub(crate) fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// Signs one request, or says why not. What is refused is logged with the reason.
    fn create(
        &self,
        request: &Request<IstioCertificateRequest>,
    ) -> Result<IstioCertificateResponse, Status> {
        let answer = self.sign(request);
        match &answer {
            Ok((id, _)) => {
                self.counts.issued.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(%id, "signed a certificate");
            }
            Err(status) => {
                self.counts.refused.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(code = ?status.code(), reason = status.message(), "refused a certificate");
            }
        }
        answer.map(|(_, cert_chain)| IstioCertificateResponse { cert_chain })
    }

    fn sign(
        &self,
        request: &Request<IstioCertificateRequest>,
    ) -> Result<(SpiffeId, Vec<String>), Status> {
        let message = request.get_ref();
        let id = {
            let state = self.state.borrow();
            let caller = caller(&state, request.metadata())?;
            let wanted = impersonated(message.metadata.as_ref())?;
            caller
                .identity(wanted, &state.accounts)
                .map_err(|refused| Status::permission_denied(refused.to_string()))?
        };
        let chain = self
            .authority
            .sign_csr(&message.csr, &id, self.validity(message.validity_duration))
            .map_err(|error| status(&error))?;
        Ok((id, chain))
    }

    /// A wish of zero or less is no wish.
    fn validity(&self, seconds: i64) -> Duration {
        match u64::try_from(seconds) {
            Ok(0) | Err(_) => self.max_ttl,
            Ok(seconds) => Duration::from_secs(seconds).min(self.max_ttl),
        }
    }
}

#[tonic::async_trait]
impl IstioCertificateService for Certificates {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        self.create(&request).map(Response::new)
    }
}

/// The identity that the request names, if it names one.
fn impersonated(metadata: Option<&Struct>) -> Result<Option<SpiffeId>, Status> {
    let Some(value) = metadata.and_then(|metadata| metadata.fields.get(IMPERSONATED)) else {
        return Ok(None);
    };
    let Some(Kind::StringValue(text)) = &value.kind else {
        return Err(Status::invalid_argument(
            "ImpersonatedIdentity is not a text",
        ));
    };
    match SpiffeId::parse(text) {
        Ok(id) => Ok(Some(id)),
        Err(error) => Err(Status::invalid_argument(format!(
            "ImpersonatedIdentity: {error}"
        ))),
    }
}

fn status(error: &CaError) -> Status {
    match error.fault() {
        Fault::Caller => Status::invalid_argument(error.to_string()),
        _ => {
            tracing::error!(error = error as &dyn std::error::Error, "could not sign");
            Status::internal("could not sign")
        }
    }
}

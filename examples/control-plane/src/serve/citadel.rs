//! `istio.v1.auth.IstioCertificateService` on the wire: two messages and one method.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use prost_types::Struct;
use tonic::{
    Status,
    body::Body,
    server::{Grpc, NamedService, UnaryService},
};
use tonic_prost::ProstCodec;
use tower_service::Service;

use super::certificates::Certificates;

const METHOD: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
const MAX_REQUEST: usize = 64 * 1024;

/// Asks for a certificate.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct IstioCertificateRequest {
    /// PEM.
    #[prost(string, tag = "1")]
    pub(crate) csr: String,
    #[prost(int64, tag = "3")]
    pub(crate) validity_seconds: i64,
    #[prost(message, optional, tag = "4")]
    pub(crate) metadata: Option<Struct>,
}

/// PEM texts: the leaf first, the root last.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(crate) struct IstioCertificateResponse {
    #[prost(string, repeated, tag = "1")]
    pub(crate) cert_chain: Vec<String>,
}

/// The service as tonic's router takes it.
#[derive(Clone, Debug)]
pub(super) struct CertificateServer {
    certificates: Certificates,
}

impl CertificateServer {
    pub(super) const fn new(certificates: Certificates) -> Self {
        Self { certificates }
    }
}

impl NamedService for CertificateServer {
    const NAME: &'static str = "istio.v1.auth.IstioCertificateService";
}

impl Service<Request<Body>> for CertificateServer {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.uri().path() != METHOD {
            return Box::pin(async { Ok(Status::unimplemented("no such method").into_http()) });
        }
        let service = self.clone();
        Box::pin(async move {
            let codec = ProstCodec::<IstioCertificateResponse, IstioCertificateRequest>::default();
            let mut grpc = Grpc::new(codec).max_decoding_message_size(MAX_REQUEST);
            Ok(grpc.unary(service, request).await)
        })
    }
}

impl UnaryService<IstioCertificateRequest> for CertificateServer {
    type Response = IstioCertificateResponse;
    type Future = std::future::Ready<Result<tonic::Response<Self::Response>, Status>>;

    fn call(&mut self, request: tonic::Request<IstioCertificateRequest>) -> Self::Future {
        std::future::ready(self.certificates.create(&request).map(tonic::Response::new))
    }
}

use std::{collections::BTreeMap, error::Error, fmt};

use prost_types::{Struct, Value, value::Kind};
use rcgen::{CertificateParams, DistinguishedName, SanType};
use tokio::time::timeout;
use tonic::{Code, Request, Status, metadata::AsciiMetadataValue};

use super::{
    IstioCaConfig, ServiceError, answer,
    proto::{
        IstioCertificateRequest, istio_certificate_service_client::IstioCertificateServiceClient,
    },
};
use crate::{
    SpiffeId,
    grpc::{Channel, ChannelError},
    key::Key,
    rotation::{IssueError, IssueErrorKind, Issuer},
    svid::Svid,
};

/// Answers are a few KiB; a bundle of many roots stays below.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// The service's words go to logs and to an operator's tool.
const MAX_MESSAGE_CHARS: usize = 256;
/// Name of the metadata field by which a node proxy asks for another identity than its own.
const IMPERSONATED: &str = "ImpersonatedIdentity";

/// Asks Istio's `IstioCertificateService` for certificates.
///
/// Cheap to clone. The channel brings the token and verifies the server.
#[derive(Clone)]
pub struct IstioCa {
    client: IstioCertificateServiceClient<Channel>,
    config: IstioCaConfig,
}

impl IstioCa {
    /// Asks over `channel`.
    #[must_use]
    pub fn new(channel: Channel, config: IstioCaConfig) -> Self {
        let client =
            IstioCertificateServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        Self { client, config }
    }

    async fn ask(&self, id: &SpiffeId) -> Result<Svid, IssueError> {
        let local = |error| IssueError::new(IssueErrorKind::Local, error);
        let key = Key::fresh().map_err(local)?;
        let csr = signing_request(id, &key).map_err(local)?;
        let mut request = Request::new(IstioCertificateRequest {
            csr,
            validity_duration: i64::try_from(self.config.ttl.as_secs()).unwrap_or(i64::MAX),
            metadata: self.config.impersonate.then(|| impersonation(id)),
        });
        let cluster = AsciiMetadataValue::try_from(self.config.cluster_id.as_str())
            .map_err(|error| IssueError::new(IssueErrorKind::Local, error))?;
        request.metadata_mut().insert("clusterid", cluster);
        let mut client = self.client.clone();
        let answer = timeout(self.config.deadline, client.create_certificate(request))
            .await
            .or(Err(IssueError::timed_out()))?
            .map_err(|status| issue_error(&status))?
            .into_inner();
        let invalid = |error| IssueError::new(IssueErrorKind::Invalid, error);
        let svid = answer::read(&answer.cert_chain, id, &key, &self.config).map_err(invalid)?;
        self.config
            .engine
            .check(&svid)
            .map_err(|error| IssueError::new(IssueErrorKind::Invalid, error))?;
        Ok(svid)
    }
}

impl Issuer for IstioCa {
    fn issue(&self, id: &SpiffeId) -> impl Future<Output = Result<Svid, IssueError>> + Send {
        self.ask(id)
    }
}

impl fmt::Debug for IstioCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IstioCa")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// RFC 2986: an empty subject and, as the only extension, a critical alternative name with the
/// identity.
fn signing_request(id: &SpiffeId, key: &Key) -> Result<String, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(id.as_str().try_into()?)];
    params.serialize_request(key)?.pem()
}

fn impersonation(id: &SpiffeId) -> Struct {
    let value = Value {
        kind: Some(Kind::StringValue(id.to_string())),
    };
    Struct {
        fields: BTreeMap::from([(IMPERSONATED.to_owned(), value)]),
    }
}

fn issue_error(status: &Status) -> IssueError {
    if let Some(error) = channel_error(status) {
        let kind = match error {
            ChannelError::RootFile { .. }
            | ChannelError::Roots { .. }
            | ChannelError::Token
            | ChannelError::TokenFile { .. } => IssueErrorKind::Local,
            _ => IssueErrorKind::Unreachable,
        };
        return IssueError::new(kind, error.clone());
    }
    let kind = match status.code() {
        Code::PermissionDenied
        | Code::Unauthenticated
        | Code::InvalidArgument
        | Code::NotFound
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented => IssueErrorKind::Denied,
        Code::DeadlineExceeded => IssueErrorKind::TimedOut,
        _ => IssueErrorKind::Unreachable,
    };
    let message = status.message().chars().take(MAX_MESSAGE_CHARS).collect();
    let code = status.code();
    IssueError::new(kind, ServiceError { code, message })
}

fn channel_error(status: &Status) -> Option<&ChannelError> {
    let mut link = status.source();
    while let Some(error) = link {
        if let Some(error) = error.downcast_ref() {
            return Some(error);
        }
        link = error.source();
    }
    None
}

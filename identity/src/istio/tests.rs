use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use prost_types::value::Kind;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    ExtendedKeyUsagePurpose, IsCa, Issuer as Signer, KeyPair, KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;
use tonic::{Request, Response, Status};
use tower_service::Service as _;
use x509_parser::prelude::FromDer as _;

use super::{
    IstioCa, IstioCaConfig,
    proto::{
        IstioCertificateRequest, IstioCertificateResponse,
        istio_certificate_service_server::{
            IstioCertificateService, IstioCertificateServiceServer,
        },
    },
};
use crate::{
    SpiffeId,
    ca::CertificateAuthority,
    grpc::{
        Channel, ChannelConfig, RootSource, TokenSource,
        tests::{Double, authority, tls_for},
    },
    rotation::{IssueError, IssueErrorKind, Issuer as _},
    tls::{Member, TlsEngine},
};

const WEB: &str = "spiffe://td/ns/shop/sa/web";
const DAY: Duration = Duration::from_secs(86_400);

fn web() -> SpiffeId {
    SpiffeId::parse(WEB).unwrap()
}

type Answer = dyn Fn(&IstioCertificateRequest) -> Result<Vec<String>, Status> + Send + Sync;

/// A certificate service that answers what the test says.
#[derive(Clone)]
struct Scripted {
    answer: Arc<Answer>,
    seen: Arc<Mutex<Vec<IstioCertificateRequest>>>,
}

#[tonic::async_trait]
impl IstioCertificateService for Scripted {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let request = request.into_inner();
        self.seen.lock().unwrap().push(request.clone());
        let cert_chain = (self.answer)(&request)?;
        if cert_chain == ["never"] {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(IstioCertificateResponse { cert_chain }))
    }
}

struct World {
    double: Double,
    channel: Channel,
    seen: Arc<Mutex<Vec<IstioCertificateRequest>>>,
}

impl World {
    async fn new(
        answer: impl Fn(&IstioCertificateRequest) -> Result<Vec<String>, Status> + Send + Sync + 'static,
    ) -> Self {
        let server = authority();
        let seen: Arc<Mutex<Vec<_>>> = Arc::default();
        let service = IstioCertificateServiceServer::new(Scripted {
            answer: Arc::new(answer),
            seen: Arc::clone(&seen),
        });
        let handler: crate::grpc::tests::Handler = Arc::new(move |request| {
            let mut service = service.clone();
            Box::pin(async move { service.call(request).await.unwrap() })
        });
        let double = Double::start(tls_for(&server, &["localhost"]), handler).await;
        let uri = format!("https://localhost:{}", double.address.port());
        let roots = RootSource::Pem(server.root_pem().to_owned());
        let config = ChannelConfig::new(uri.parse().unwrap(), roots)
            .token(TokenSource::Static("token".into()));
        Self {
            channel: Channel::new(config).unwrap(),
            double,
            seen,
        }
    }

    fn ca(&self, config: IstioCaConfig) -> IstioCa {
        IstioCa::new(self.channel.clone(), config)
    }
}

fn config() -> IstioCaConfig {
    IstioCaConfig::new(TlsEngine::aws_lc_rs())
}

/// Asks with and without impersonation; both must end the same way.
async fn refused(
    answer: impl Fn(&IstioCertificateRequest) -> Result<Vec<String>, Status> + Send + Sync + 'static,
) -> IssueError {
    let world = World::new(answer).await;
    let mut errors = Vec::new();
    for impersonate in [true, false] {
        let ca = world.ca(config().impersonate(impersonate));
        let error = ca
            .issue(&web())
            .await
            .expect_err("the answer must be refused");
        meshwright_testkit::assert_chain_says_each_thing_once(&error);
        errors.push(error);
    }
    assert_eq!(
        errors[0].kind(),
        errors[1].kind(),
        "a mode makes no difference"
    );
    errors.remove(0)
}

#[track_caller]
fn assert_says(error: &IssueError, kind: IssueErrorKind, text: &str) {
    let chain = format!("{error:?}");
    assert_eq!(error.kind(), kind, "{chain}");
    assert!(chain.contains(text), "{chain} does not say {text}");
}

#[tokio::test]
async fn certificate_of_the_own_key_is_issued_and_usable() {
    let _trace = meshwright_testkit::trace();
    let ca = authority();
    let world =
        World::new(move |request| Ok(ca.sign_csr(&request.csr, &web(), DAY).unwrap())).await;
    let istio = world.ca(config().cluster_id("east").ttl(Duration::from_secs(3600)));
    let svid = istio.issue(&web()).await.unwrap();
    Member::new(svid, &TlsEngine::aws_lc_rs()).unwrap();
    let headers = &world.double.seen()[0];
    assert_eq!(headers["authorization"], "Bearer token");
    assert_eq!(headers["clusterid"], "east");
    let request = world.seen.lock().unwrap()[0].clone();
    assert_eq!(request.validity_duration, 3600);
    let fields = request.metadata.unwrap().fields;
    assert_eq!(fields.len(), 1);
    assert_eq!(
        fields["ImpersonatedIdentity"].kind,
        Some(Kind::StringValue(WEB.into()))
    );
}

#[tokio::test]
async fn identity_is_left_to_the_token_without_impersonation() {
    let _trace = meshwright_testkit::trace();
    let ca = authority();
    let world =
        World::new(move |request| Ok(ca.sign_csr(&request.csr, &web(), DAY).unwrap())).await;
    world
        .ca(config().impersonate(false))
        .issue(&web())
        .await
        .unwrap();
    assert_eq!(world.seen.lock().unwrap()[0].metadata, None);
}

// RFC 2986, and what Istio's service expects of a request.
#[tokio::test]
async fn request_has_a_fresh_p256_key_an_empty_subject_and_a_critical_uri() {
    let _trace = meshwright_testkit::trace();
    let ca = authority();
    let world =
        World::new(move |request| Ok(ca.sign_csr(&request.csr, &web(), DAY).unwrap())).await;
    let istio = world.ca(config());
    istio.issue(&web()).await.unwrap();
    istio.issue(&web()).await.unwrap();
    let requests = world.seen.lock().unwrap().clone();
    let keys: Vec<_> = requests
        .iter()
        .map(|request| {
            let (_, pem) = x509_parser::pem::parse_x509_pem(request.csr.as_bytes()).unwrap();
            assert_eq!(pem.label, "CERTIFICATE REQUEST");
            let parsed = x509_parser::certification_request::X509CertificationRequest::from_der(
                &pem.contents,
            );
            let (_, csr) = parsed.unwrap();
            csr.verify_signature().unwrap();
            let info = &csr.certification_request_info;
            assert_eq!(info.subject.iter().count(), 0);
            let attributes = info.attributes();
            assert_eq!(attributes.len(), 1);
            let extensions: Vec<_> = csr.requested_extensions().unwrap().collect();
            assert_eq!(extensions.len(), 1, "the name is the only extension");
            let wire = &pem.contents;
            // SEQUENCE { OID subjectAltName, BOOLEAN TRUE, ...
            let critical = [0x06, 0x03, 0x55, 0x1d, 0x11, 0x01, 0x01, 0xff];
            assert!(
                wire.windows(8).any(|part| part == critical),
                "the name is not critical"
            );
            let names = CertificateSigningRequestParams::from_pem(&request.csr).unwrap();
            let uri = SanType::URI(WEB.try_into().unwrap());
            assert_eq!(names.params.subject_alt_names, [uri]);
            assert_eq!(info.subject_pki.raw.len(), 91, "an uncompressed P-256 key");
            info.subject_pki.raw.to_vec()
        })
        .collect();
    assert_ne!(keys[0], keys[1], "each request has its own key");
}

#[tokio::test]
async fn certificate_of_another_identity_is_refused() {
    let _trace = meshwright_testkit::trace();
    let ca = authority();
    let error = refused(move |request| {
        let other = SpiffeId::parse("spiffe://td/ns/shop/sa/db").unwrap();
        Ok(ca.sign_csr(&request.csr, &other, DAY).unwrap())
    });
    assert_says(&error.await, IssueErrorKind::Invalid, "OtherIdentity");
}

#[tokio::test]
async fn certificate_of_another_key_is_refused() {
    let _trace = meshwright_testkit::trace();
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_RSA_SHA256] {
        let ca = authority();
        let error = refused(move |_| {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let csr = CertificateParams::default()
                .serialize_request(&key)
                .unwrap();
            Ok(ca.sign_csr(&csr.pem().unwrap(), &web(), DAY).unwrap())
        });
        assert_says(&error.await, IssueErrorKind::Invalid, "OtherKey");
    }
}

/// An authority that signs what a real one would not.
struct Odd {
    root: String,
    issuer: Signer<'static, KeyPair>,
}

impl Odd {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Signer::new(params, key),
            root,
        }
    }

    fn sign(&self, csr: &str, change: impl FnOnce(&mut CertificateParams)) -> Vec<String> {
        let request = CertificateSigningRequestParams::from_pem(csr).unwrap();
        let now = OffsetDateTime::now_utc();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(WEB.try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.not_before = now - Duration::from_secs(120);
        params.not_after = now + DAY;
        change(&mut params);
        let leaf = params.signed_by(&request.public_key, &self.issuer).unwrap();
        vec![leaf.pem(), self.root.clone()]
    }
}

async fn odd(change: impl Fn(&mut CertificateParams) + Send + Sync + 'static) -> IssueError {
    let odd = Odd::new();
    refused(move |request| Ok(odd.sign(&request.csr, &change))).await
}

#[tokio::test]
async fn unchanged_odd_authority_is_accepted() {
    let _trace = meshwright_testkit::trace();
    let odd = Odd::new();
    let world = World::new(move |request| Ok(odd.sign(&request.csr, |_| ()))).await;
    world.ca(config()).issue(&web()).await.unwrap();
}

#[tokio::test]
async fn certificate_with_two_uris_or_none_is_refused() {
    let _trace = meshwright_testkit::trace();
    let two = odd(|params| {
        let other = SanType::URI("spiffe://td/ns/shop/sa/db".try_into().unwrap());
        params.subject_alt_names.push(other);
    });
    assert_says(&two.await, IssueErrorKind::Invalid, "UriCount { count: 2 }");
    let none = odd(|params| params.subject_alt_names.clear());
    assert_says(
        &none.await,
        IssueErrorKind::Invalid,
        "UriCount { count: 0 }",
    );
}

#[tokio::test]
async fn certificate_that_is_not_valid_now_is_refused() {
    let _trace = meshwright_testkit::trace();
    let past = odd(|params| params.not_after = OffsetDateTime::now_utc() - Duration::from_secs(5));
    assert_says(&past.await, IssueErrorKind::Invalid, "Expired");
    let future =
        odd(|params| params.not_before = OffsetDateTime::now_utc() + Duration::from_secs(3600));
    assert_says(&future.await, IssueErrorKind::Invalid, "NotYetValid");
}

#[tokio::test]
async fn certificate_of_an_authority_is_refused() {
    let _trace = meshwright_testkit::trace();
    let error = odd(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    assert_says(&error.await, IssueErrorKind::Invalid, "IsAuthority");
}

#[tokio::test]
async fn chain_must_lead_to_the_roots_of_the_answer() {
    let _trace = meshwright_testkit::trace();
    let (ca, other) = (Odd::new(), authority());
    let error = refused(move |request| {
        let leaf = ca.sign(&request.csr, |_| ()).remove(0);
        Ok(vec![leaf, other.root_pem().to_owned()])
    });
    assert_says(&error.await, IssueErrorKind::Invalid, "UnknownIssuer");
    let ca = authority();
    let error = refused(move |request| {
        let leaf = ca.sign_csr(&request.csr, &web(), DAY).unwrap().remove(0);
        Ok(vec![leaf.clone(), leaf])
    });
    assert_says(&error.await, IssueErrorKind::Invalid, "NotAuthority");
}

#[tokio::test]
async fn answers_without_leaf_or_root_are_refused() {
    let _trace = meshwright_testkit::trace();
    assert_says(
        &refused(|_| Ok(vec![])).await,
        IssueErrorKind::Invalid,
        "Parts { parts: 0 }",
    );
    let ca = authority();
    let error = refused(move |request| {
        Ok(vec![
            ca.sign_csr(&request.csr, &web(), DAY).unwrap().remove(0),
        ])
    });
    assert_says(&error.await, IssueErrorKind::Invalid, "Parts { parts: 1 }");
    let ca = authority();
    let error = refused(move |request| {
        let mut chain = ca.sign_csr(&request.csr, &web(), DAY).unwrap();
        chain[1].clear();
        Ok(chain)
    });
    assert_says(&error.await, IssueErrorKind::Invalid, "Empty");
    let error = refused(|_| Ok(vec!["x".into(); 100]));
    assert_says(
        &error.await,
        IssueErrorKind::Invalid,
        "Parts { parts: 100 }",
    );
}

#[tokio::test]
async fn garbage_and_extra_blocks_are_refused() {
    let _trace = meshwright_testkit::trace();
    let error = refused(|_| Ok(vec!["garbage".into(), "more".into()]));
    assert_says(&error.await, IssueErrorKind::Invalid, "Empty");
    let ca = authority();
    let error = refused(move |request| {
        let mut chain = ca.sign_csr(&request.csr, &web(), DAY).unwrap();
        chain[0].push_str(&KeyPair::generate().unwrap().serialize_pem());
        Ok(chain)
    });
    assert_says(&error.await, IssueErrorKind::Invalid, "Pem");
    // Larger than any answer: the message is refused before it is read.
    let error = refused(|_| Ok(vec!["x".repeat(10 << 20)]));
    let error = error.await;
    assert!(
        matches!(
            error.kind(),
            IssueErrorKind::Denied | IssueErrorKind::Unreachable
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn several_roots_in_the_last_part_are_all_trusted() {
    let _trace = meshwright_testkit::trace();
    let (ca, other) = (authority(), authority());
    let world = World::new(move |request| {
        let mut chain = ca.sign_csr(&request.csr, &web(), DAY).unwrap();
        chain[1] = format!("# bundle\r\n{}{}", other.root_pem(), chain[1].trim_end());
        Ok(chain)
    })
    .await;
    let svid = world.ca(config()).issue(&web()).await.unwrap();
    assert_eq!(svid.roots().len(), 2);
    let alias = crate::TrustDomain::parse("alias").unwrap();
    let svid = world
        .ca(config().also_trusts([alias]))
        .issue(&web())
        .await
        .unwrap();
    let foreign = SpiffeId::parse("spiffe://alias/ns/a/sa/b").unwrap();
    assert_eq!(svid.bundles().roots_of(&foreign).len(), 2);
}

#[tokio::test]
async fn refusal_is_told_with_the_services_words() {
    let _trace = meshwright_testkit::trace();
    let error = refused(|_| Err(Status::permission_denied("not\nyours".repeat(1000)))).await;
    assert_says(&error, IssueErrorKind::Denied, "PermissionDenied");
    let text = std::error::Error::source(&error).unwrap().to_string();
    assert!(text.len() < 400 && !text.contains('\n'), "{text}");
    let error = refused(|_| Err(Status::unauthenticated("token"))).await;
    assert_eq!(error.kind(), IssueErrorKind::Denied);
    let error = refused(|_| Err(Status::resource_exhausted("later"))).await;
    assert_eq!(error.kind(), IssueErrorKind::Unreachable);
}

#[tokio::test]
async fn mute_service_costs_one_deadline() {
    let _trace = meshwright_testkit::trace();
    let world = World::new(|_| Ok(vec!["never".into()])).await;
    let config = config().deadline(Duration::from_millis(200));
    let begin = tokio::time::Instant::now();
    let error = world.ca(config).issue(&web()).await.unwrap_err();
    assert_eq!(error.kind(), IssueErrorKind::TimedOut);
    assert!(begin.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn unreachable_service_and_missing_token_are_told_apart() {
    let _trace = meshwright_testkit::trace();
    let ca: CertificateAuthority = authority();
    let roots = RootSource::Pem(ca.root_pem().to_owned());
    let config_of = |uri: String| ChannelConfig::new(uri.parse().unwrap(), roots.clone());
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let channel = Channel::new(config_of(format!("https://{closed}"))).unwrap();
    let error = IstioCa::new(channel, config())
        .issue(&web())
        .await
        .unwrap_err();
    assert_says(&error, IssueErrorKind::Unreachable, "Connect");
    meshwright_testkit::assert_chain_says_each_thing_once(&error);

    let double = Double::start(
        tls_for(&ca, &["localhost"]),
        Arc::new(|_| Box::pin(async { http::Response::default() })),
    )
    .await;
    let config_of = config_of(format!("https://localhost:{}", double.address.port()));
    let token = TokenSource::File("/nonexistent/token".into());
    let channel = Channel::new(config_of.token(token)).unwrap();
    let error = IstioCa::new(channel, config())
        .issue(&web())
        .await
        .unwrap_err();
    assert_says(&error, IssueErrorKind::Local, "TokenFile");
    assert!(double.seen().is_empty());
}

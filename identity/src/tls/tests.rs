//! Real handshakes in memory, with leaves made to be refused.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, ServerConfig, ServerConnection,
    time_provider::TimeProvider,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::{AcceptedPeers, Member, NoPeer, PeerRefused, TlsEngine, UnusableSvid};
use crate::{
    SpiffeId, TrustDomain,
    ca::CertificateAuthority,
    svid::{CertificateSummary, InvalidSvid, PeerSvid, Purpose, Svid, TrustBundles},
};

/// 2026-01-01T00:00:00Z
const START: u64 = 1_767_225_600;
const HOUR: Duration = Duration::from_secs(3600);
const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const DB: &str = "spiffe://cluster.local/ns/shop/sa/db";

#[derive(Debug)]
struct Clock(AtomicU64);

impl Clock {
    fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(START)))
    }

    fn set(&self, seconds: u64) {
        self.0.store(seconds, Ordering::Relaxed);
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = self.0.load(Ordering::Relaxed);
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

/// A trust domain with a hand-driven clock, and a second authority for odd certificates.
struct World {
    clock: Arc<Clock>,
    engine: TlsEngine,
    ca: CertificateAuthority,
    root: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl World {
    fn new() -> Self {
        let clock = Clock::new();
        let domain = TrustDomain::parse("cluster.local").unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = name("odd root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.not_before = at(START - 86_400);
        params.not_after = at(START + 86_400 * 36_500);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().der().clone();
        Self {
            engine: TlsEngine::with_clock(Arc::clone(&clock) as Arc<dyn TimeProvider>),
            ca: CertificateAuthority::with_clock(domain, Arc::clone(&clock) as _).unwrap(),
            issuer: Issuer::from_ca_cert_der(&root, key).unwrap(),
            root,
            clock,
        }
    }

    /// A member that trusts both authorities.
    fn member(&self, uri: &str) -> Member {
        let svid = self.ca.issue(&id(uri), HOUR).unwrap();
        let mut roots = svid.roots().to_vec();
        roots.push(self.root.clone());
        let domain = svid.id().trust_domain();
        let bundles = TrustBundles::from_der(domain, roots).unwrap();
        Member::new(svid.with_bundles(bundles), &self.engine).unwrap()
    }

    /// A leaf that keeps every rule, for changing one thing.
    fn leaf(&self, uri: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.not_before = at(START - 60);
        params.not_after = at(START + 3600);
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        params
    }

    /// Dials `member` as a client that presents this leaf and checks nothing.
    fn dial_with(&self, params: &CertificateParams, member: &Member) -> Outcome {
        self.dial_with_key(params, member, &KeyPair::generate().unwrap())
    }

    fn dial_with_key(&self, params: &CertificateParams, member: &Member, key: &KeyPair) -> Outcome {
        let leaf = params.signed_by(key, &self.issuer).unwrap().der().clone();
        self.dial_with_chain(vec![leaf], key, member)
    }

    fn dial_with_chain(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: &KeyPair,
        member: &Member,
    ) -> Outcome {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let client = careless_client().with_client_auth_cert(chain, key).unwrap();
        handshake(client, &member.server_config())
    }
}

/// A client that takes any server and offers every algorithm of the library.
fn careless_client() -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    ClientConfig::builder_with_provider(Arc::new(super::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer))
}

#[derive(Debug)]
struct AnyServer;

impl rustls::client::danger::ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        super::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Both ends after as much of the handshake as happened.
struct Outcome {
    client: ClientConnection,
    server: ServerConnection,
    client_error: Option<rustls::Error>,
    server_error: Option<rustls::Error>,
    /// Bytes of application data that the server read.
    received: usize,
}

impl Outcome {
    #[track_caller]
    fn server_refusal(&self) -> PeerRefused {
        let error = self.server_error.as_ref().expect("the server must refuse");
        PeerRefused::of(error).unwrap_or_else(|| panic!("refused for another reason: {error:?}"))
    }

    #[track_caller]
    fn rule(&self) -> InvalidSvid {
        match self.server_refusal() {
            PeerRefused::Certificate { source } => source,
            other => panic!("refused for another reason: {other:?}"),
        }
    }

    #[track_caller]
    fn client_refusal(&self) -> PeerRefused {
        let error = self.client_error.as_ref().expect("the client must refuse");
        PeerRefused::of(error).unwrap_or_else(|| panic!("refused for another reason: {error:?}"))
    }

    #[track_caller]
    fn succeeded(&self) {
        assert_eq!((&self.client_error, &self.server_error), (&None, &None));
        assert!(!self.client.is_handshaking() && !self.server.is_handshaking());
    }
}

fn handshake(mut client: ClientConfig, server: &Arc<ServerConfig>) -> Outcome {
    if client.alpn_protocols.is_empty() {
        client.alpn_protocols = vec![b"h2".to_vec()];
    }
    run(Arc::new(client), server)
}

fn run(client: Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Outcome {
    let name = ServerName::try_from("10.0.0.1").unwrap();
    let mut outcome = Outcome {
        client: ClientConnection::new(client, name).unwrap(),
        server: ServerConnection::new(Arc::clone(server)).unwrap(),
        client_error: None,
        server_error: None,
        received: 0,
    };
    use std::io::{Read as _, Write as _};
    // What a caller wants to send is queued; it must leave only after the server was verified.
    outcome.client.writer().write_all(b"secret").unwrap();
    for _ in 0..8 {
        let mut wire = Vec::new();
        while outcome.client.wants_write() {
            outcome.client.write_tls(&mut wire).unwrap();
        }
        feed(
            &mut (&mut outcome.server).into(),
            &wire,
            &mut outcome.server_error,
        );
        let mut plain = Vec::new();
        // Ends with an error when there is no more for now.
        drop(outcome.server.reader().read_to_end(&mut plain));
        outcome.received += plain.len();
        let mut wire = Vec::new();
        while outcome.server.wants_write() {
            outcome.server.write_tls(&mut wire).unwrap();
        }
        feed(
            &mut (&mut outcome.client).into(),
            &wire,
            &mut outcome.client_error,
        );
    }
    outcome
}

enum End<'a> {
    Client(&'a mut ClientConnection),
    Server(&'a mut ServerConnection),
}

impl<'a> From<&'a mut ClientConnection> for End<'a> {
    fn from(end: &'a mut ClientConnection) -> Self {
        End::Client(end)
    }
}

impl<'a> From<&'a mut ServerConnection> for End<'a> {
    fn from(end: &'a mut ServerConnection) -> Self {
        End::Server(end)
    }
}

fn feed(end: &mut End<'_>, mut wire: &[u8], error: &mut Option<rustls::Error>) {
    while !wire.is_empty() {
        let result = match end {
            End::Client(client) => {
                client.read_tls(&mut wire).unwrap();
                client.process_new_packets()
            }
            End::Server(server) => {
                server.read_tls(&mut wire).unwrap();
                server.process_new_packets()
            }
        };
        if let Err(found) = result {
            error.get_or_insert(found);
            return;
        }
    }
}

fn id(uri: &str) -> SpiffeId {
    SpiffeId::parse(uri).unwrap()
}

fn name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

fn at(seconds: u64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(seconds.try_into().unwrap()).unwrap()
}

fn accept(uri: &str) -> AcceptedPeers {
    AcceptedPeers::from(id(uri))
}

mod chains;
mod leaves;
mod members;

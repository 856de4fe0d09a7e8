use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use rustls::{
    ClientConfig, CommonState, ServerConfig, SignatureScheme,
    client::{ResolvesClientCert, Resumption},
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
    version::TLS13,
};
use rustls_pki_types::UnixTime;

use super::{
    AcceptedPeers, TlsEngine, UnusableSvid,
    verifier::{DialedPeer, DialingPeers},
};
use crate::{
    SpiffeId,
    svid::{InvalidSvid, Purpose, Svid},
};

pub(super) const ALPN_H2: &[u8] = b"h2";

/// One identity's live credentials and the TLS configurations made of them.
///
/// Cheap to clone; clones share the credentials, so that a rotation reaches every listener and
/// pool that holds one. A handshake uses what is in force when it happens; connections that exist
/// are their owner's to end, see [`still_trusts`](Self::still_trusts).
///
/// Once the own certificate has expired, handshakes fail: nothing is sent with it.
#[derive(Clone)]
pub struct Member {
    inner: Arc<Inner>,
}

struct Inner {
    id: SpiffeId,
    credentials: Arc<Credentials>,
    server: Arc<ServerConfig>,
    /// Complete but for the verifier: it accepts nobody.
    client: ClientConfig,
}

/// What resolvers and verifiers share.
pub(super) struct Credentials {
    engine: TlsEngine,
    current: ArcSwap<Current>,
    /// How often `current` was replaced.
    rotations: AtomicU64,
}

struct Current {
    svid: Arc<Svid>,
    certified: Arc<CertifiedKey>,
}

impl Member {
    /// Starts with `svid`, after the checks that peers will make: its chain must lead to the roots
    /// it came with, it must be valid now, usable as client and server, and the key must be its own.
    ///
    /// # Errors
    ///
    /// Returns why the SVID cannot be used.
    pub fn new(svid: Svid, engine: &TlsEngine) -> Result<Self, UnusableSvid> {
        let id = svid.id().clone();
        let credentials = Arc::new(Credentials {
            current: ArcSwap::from_pointee(Current::new(svid, engine)?),
            engine: engine.clone(),
            rotations: AtomicU64::new(0),
        });
        let inner = Inner {
            id,
            server: Arc::new(server_config(&credentials)?),
            client: client_config(&credentials)?,
            credentials,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Puts another SVID of the same identity in force, from the next handshake on.
    ///
    /// # Errors
    ///
    /// Returns why the SVID cannot be used; the old one stays.
    pub fn replace(&self, svid: Svid) -> Result<(), UnusableSvid> {
        let current = Current::new(svid, &self.inner.credentials.engine)?;
        if self.id() != current.svid.id() {
            let source = InvalidSvid::OtherIdentity {
                expected: self.id().clone(),
                found: current.svid.id().clone(),
            };
            return Err(UnusableSvid::Invalid { source });
        }
        self.inner.credentials.put(Arc::new(current));
        Ok(())
    }

    /// Takes over the credentials of another member of the same identity.
    #[cfg(feature = "rotation")]
    pub(crate) fn adopt(&self, other: &Self) {
        if self.id() == other.id() {
            let current = other.inner.credentials.current.load_full();
            self.inner.credentials.put(current);
        }
    }

    /// Whose credentials these are.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.inner.id
    }

    /// The SVID in force now.
    #[must_use]
    pub fn svid(&self) -> Arc<Svid> {
        self.inner.credentials.svid()
    }

    /// How often another SVID was put in force.
    ///
    /// Whoever keeps connections looks at [`still_trusts`](Self::still_trusts) when it changes.
    #[must_use]
    pub fn rotations(&self) -> u64 {
        self.inner.credentials.rotations.load(Ordering::Acquire)
    }

    /// The time of the clock that validity is judged by, if it has one.
    #[must_use]
    pub fn now(&self) -> Option<UnixTime> {
        self.inner.credentials.engine.now()
    }

    /// Whether the roots in force now vouch for the peer of a connection that was set up at
    /// `since` by one of this member's configurations; `purpose` is what the peer's certificate was
    /// used for.
    ///
    /// False when the peer's root was taken away since. The end of a certificate's validity alone
    /// does not make it false.
    #[must_use]
    pub fn still_trusts(
        &self,
        connection: &CommonState,
        since: UnixTime,
        purpose: Purpose,
    ) -> bool {
        let Some([leaf, rest @ ..]) = connection.peer_certificates() else {
            return false;
        };
        let verdict = self.inner.credentials.verify(leaf, rest, (since, purpose));
        verdict.is_ok()
    }

    /// Whether the SVID in force has expired, or there is no time to tell.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.inner.credentials.usable().is_none()
    }

    /// The configuration for accepting peers; the same one for the life of the member.
    ///
    /// A finished handshake means a peer with the identity of a workload, vouched for by the roots
    /// of its own trust domain; [`PeerSvid::of_connection`](crate::PeerSvid::of_connection) tells
    /// who it is.
    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.inner.server)
    }

    /// A configuration for dialing a peer that must be one of `accepted`.
    ///
    /// Any other peer is refused within the handshake, before a byte of the caller's is sent. The
    /// server name given to rustls is not looked at. Costs one small allocation and no
    /// cryptography.
    #[must_use]
    pub fn client_config(&self, accepted: &AcceptedPeers) -> Arc<ClientConfig> {
        let mut config = self.inner.client.clone();
        config
            .dangerous()
            .set_certificate_verifier(Arc::new(DialedPeer {
                credentials: Arc::clone(&self.inner.credentials),
                accepted: accepted.clone(),
            }));
        Arc::new(config)
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("svid", &self.svid())
            .finish_non_exhaustive()
    }
}

fn server_config(credentials: &Arc<Credentials>) -> Result<ServerConfig, UnusableSvid> {
    let engine = &credentials.engine;
    let mut config = ServerConfig::builder_with_details(engine.provider(), engine.clock())
        .with_protocol_versions(&[&TLS13])
        .map_err(|source| UnusableSvid::Tls { source })?
        .with_client_cert_verifier(Arc::new(DialingPeers {
            credentials: Arc::clone(credentials),
        }))
        .with_cert_resolver(Arc::new(Resolver {
            credentials: Arc::clone(credentials),
        }));
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.send_tls13_tickets = 0;
    config.max_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    config.key_log = Arc::new(rustls::NoKeyLog {});
    Ok(config)
}

fn client_config(credentials: &Arc<Credentials>) -> Result<ClientConfig, UnusableSvid> {
    let engine = &credentials.engine;
    let mut config = ClientConfig::builder_with_details(engine.provider(), engine.clock())
        .with_protocol_versions(&[&TLS13])
        .map_err(|source| UnusableSvid::Tls { source })?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(DialedPeer {
            credentials: Arc::clone(credentials),
            accepted: AcceptedPeers::new([]),
        }))
        .with_client_cert_resolver(Arc::new(Resolver {
            credentials: Arc::clone(credentials),
        }));
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    config.key_log = Arc::new(rustls::NoKeyLog {});
    Ok(config)
}

impl Credentials {
    pub(super) fn svid(&self) -> Arc<Svid> {
        Arc::clone(&self.current.load().svid)
    }

    fn put(&self, current: Arc<Current>) {
        self.current.store(current);
        self.rotations.fetch_add(1, Ordering::Release);
    }

    pub(super) fn engine(&self) -> &TlsEngine {
        &self.engine
    }

    /// Certificate and key, unless they have expired.
    fn usable(&self) -> Option<Arc<CertifiedKey>> {
        let now = self.engine.now()?;
        let current = self.current.load();
        (!current.svid.is_expired_at(now)).then(|| Arc::clone(&current.certified))
    }
}

impl Current {
    fn new(svid: Svid, engine: &TlsEngine) -> Result<Self, UnusableSvid> {
        let certified = engine.certified(&svid)?;
        Ok(Self {
            svid: Arc::new(svid),
            certified: Arc::new(certified),
        })
    }
}

/// Gives out the certificate in force at the moment of the handshake.
struct Resolver {
    credentials: Arc<Credentials>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // A client that offers other protocols is refused by rustls with the alert for it; one
        // that offers none would be let through.
        let _offered = hello.alpn()?;
        self.credentials.usable()
    }
}

impl ResolvesClientCert for Resolver {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.credentials.usable()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

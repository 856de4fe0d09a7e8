//! One trust domain: members for these crates, PEM files for everybody else.

use std::{fs, path::Path, time::Duration};

use meshwright_identity::{
    Member, SpiffeId, Svid, TrustDomain, ca::CertificateAuthority, tls::TlsEngine,
};
use meshwright_testbed::{Step, WorldError};
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

const VALIDITY: Duration = Duration::from_secs(3600);

/// An authority and a folder that goes with it.
#[derive(Debug)]
pub(crate) struct Mesh {
    authority: CertificateAuthority,
    dir: TempDir,
}

impl Mesh {
    pub(crate) fn new() -> Result<Self, WorldError> {
        let domain = TrustDomain::parse("cluster.local").step("name a trust domain")?;
        let authority = CertificateAuthority::new(domain).step("make an authority")?;
        let dir = tempfile::tempdir().step("make a folder")?;
        fs::write(dir.path().join("root.pem"), authority.root_pem()).step("write the root")?;
        Ok(Self { authority, dir })
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A member of this mesh for our own end.
    pub(crate) fn member(&self, account: &str) -> Result<Member, WorldError> {
        let id = id(account)?;
        let svid = self.authority.issue(&id, VALIDITY).step("issue an SVID")?;
        Member::new(svid, &TlsEngine::aws_lc_rs()).step("make a member")
    }

    /// Writes `<account>.pem` and `<account>.key` for a peer.
    pub(crate) fn write(&self, account: &str) -> Result<SpiffeId, WorldError> {
        let id = id(account)?;
        let key = KeyPair::generate().step("make a key")?;
        let request = CertificateParams::default()
            .serialize_request(&key)
            .and_then(|request| request.pem())
            .step("make a signing request")?;
        let chain = self.authority.sign_csr(&request, &id, VALIDITY);
        let chain = chain.step("sign a request")?.concat();
        let key = key.serialize_pem();
        let root = self.authority.root_pem();
        Svid::from_pem(&id, chain.as_bytes(), key.as_bytes(), root.as_bytes())
            .step("read the own files")?;
        let path = |end: &str| self.dir().join(format!("{account}.{end}"));
        fs::write(path("pem"), chain).step("write a chain")?;
        fs::write(path("key"), key).step("write a key")?;
        Ok(id)
    }
}

/// The identity of a service account in the namespace of these tests.
pub(crate) fn id(account: &str) -> Result<SpiffeId, WorldError> {
    SpiffeId::parse(&format!("spiffe://cluster.local/ns/peers/sa/{account}"))
        .step("name an identity")
}

use std::time::Duration;

use rcgen::{CertificateParams, DnType, IsCa, KeyPair, SanType};
use rustls_pki_types::ServerName;
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    oid_registry::{OID_KEY_TYPE_EC_PUBLIC_KEY, OID_X509_EXT_SUBJECT_ALT_NAME},
    prelude::FromDer as _,
};

use super::{CaError, CertificateAuthority, SelfSignedIssuer};
use crate::{
    SpiffeId, TrustDomain,
    rotation::{IssueErrorKind, Issuer as _},
    tls::{Member, TlsEngine},
};

const DAY: Duration = Duration::from_secs(86_400);
const WEB: &str = "spiffe://td/ns/shop/sa/web";

fn td() -> TrustDomain {
    TrustDomain::parse("td").unwrap()
}

fn web() -> SpiffeId {
    SpiffeId::parse(WEB).unwrap()
}

fn request(key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> String {
    let mut params = CertificateParams::default();
    change(&mut params);
    params.serialize_request(key).unwrap().pem().unwrap()
}

#[test]
fn leaf_keeps_the_rules_of_an_svid() {
    let _trace = meshwright_testkit::trace();
    let ca = CertificateAuthority::new(td()).unwrap();
    let svid = ca.issue(&web(), DAY).unwrap();
    Member::new(ca.issue(&web(), DAY).unwrap(), &TlsEngine::aws_lc_rs()).unwrap();
    let der = &svid.chain()[0];
    let (_, leaf) = X509Certificate::from_der(der).unwrap();
    assert_eq!(leaf.subject().iter().count(), 0);
    let names = leaf
        .get_extension_unique(&OID_X509_EXT_SUBJECT_ALT_NAME)
        .unwrap()
        .unwrap();
    assert!(
        names.critical,
        "RFC 5280 §4.2.1.6: critical with an empty subject"
    );
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert_eq!(names.value.general_names, [GeneralName::URI(WEB)]);
    let usage = leaf.key_usage().unwrap().unwrap();
    assert!(
        usage.critical && usage.value.flags == 1,
        "digitalSignature alone"
    );
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && usage.server_auth && !usage.any);
    assert_eq!(
        leaf.public_key().algorithm.algorithm,
        OID_KEY_TYPE_EC_PUBLIC_KEY
    );
    let lifetime = svid.not_after().duration_since(svid.not_before()).unwrap();
    assert_eq!(lifetime, DAY + Duration::from_secs(60));
    // RFC 5280 §4.1.2.2: unique.
    assert_ne!(svid.serial(), ca.issue(&web(), DAY).unwrap().serial());
}

/// Stock proxies rotate at half of the lifetime: a leaf must not be born past it.
#[test]
fn short_leaf_is_put_back_by_a_tenth_only() {
    let _trace = meshwright_testkit::trace();
    let ca = CertificateAuthority::new(td()).unwrap();
    let svid = ca.issue(&web(), Duration::from_secs(20)).unwrap();
    let lifetime = svid.not_after().duration_since(svid.not_before()).unwrap();
    assert_eq!(lifetime, Duration::from_secs(22));
}

#[test]
fn only_the_key_is_taken_from_a_request() {
    let _trace = meshwright_testkit::trace();
    let ca = CertificateAuthority::new(td()).unwrap();
    let key = KeyPair::generate().unwrap();
    let csr = request(&key, |params| {
        params.distinguished_name.push(DnType::CommonName, "admin");
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let other = SanType::URI("spiffe://td/ns/kube-system/sa/admin".try_into().unwrap());
        params.subject_alt_names.push(other);
    });
    let chain = ca.sign_csr(&csr, &web(), DAY).unwrap();
    assert_eq!(chain.len(), 2);
    assert_eq!(chain[1], ca.root_pem());
    let key = key.serialize_pem();
    let svid = crate::Svid::from_pem(
        &web(),
        chain[0].as_bytes(),
        key.as_bytes(),
        chain[1].as_bytes(),
    );
    Member::new(svid.unwrap(), &TlsEngine::aws_lc_rs()).unwrap();
}

#[test]
fn requests_that_prove_nothing_are_refused() {
    let _trace = meshwright_testkit::trace();
    let ca = CertificateAuthority::new(td()).unwrap();
    let good = request(&KeyPair::generate().unwrap(), |_| ());
    let sign = |csr: &str| ca.sign_csr(csr, &web(), DAY);
    sign(&good).unwrap();
    let mut forged = good.into_bytes();
    let at = forged.len() - 60;
    forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).unwrap();
    let certificate = ca.root_pem().to_owned();
    for bad in ["", "garbage", &forged, &certificate, &"x".repeat(1 << 20)] {
        assert!(matches!(sign(bad), Err(CaError::Request)), "{bad:.40}");
    }
    let odd = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
    assert!(sign(&request(&odd, |_| ())).is_err());
    for good in [
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
    ] {
        sign(&request(&KeyPair::generate_for(good).unwrap(), |_| ())).unwrap();
    }
}

#[test]
fn identities_outside_its_authority_are_refused() {
    let _trace = meshwright_testkit::trace();
    let ca = CertificateAuthority::new(td()).unwrap();
    let issue = |uri: &str| ca.issue(&SpiffeId::parse(uri).unwrap(), DAY);
    assert!(matches!(
        issue("spiffe://other/ns/a/sa/b"),
        Err(CaError::ForeignTrustDomain { .. })
    ));
    assert!(matches!(
        issue("spiffe://td"),
        Err(CaError::NotWorkload { .. })
    ));
    assert!(matches!(
        ca.issue(&web(), Duration::ZERO),
        Err(CaError::Validity)
    ));
    assert!(matches!(
        ca.issue(&web(), Duration::MAX),
        Err(CaError::Validity)
    ));
}

#[test]
fn kept_root_vouches_for_what_was_signed_before() {
    let _trace = meshwright_testkit::trace();
    let before = CertificateAuthority::new(td()).unwrap();
    let text = before.to_pem();
    let after = CertificateAuthority::from_pem(td(), &text).unwrap();
    assert_eq!(before.root_pem(), after.root_pem());
    assert_eq!(&**text, &**after.to_pem());
    let engine = TlsEngine::aws_lc_rs();
    let old = before.issue(&web(), DAY).unwrap();
    let new = after.issue(&web(), DAY).unwrap();
    Member::new(new, &engine).unwrap().replace(old).unwrap();
}

#[test]
fn broken_kept_roots_are_refused() {
    let _trace = meshwright_testkit::trace();
    let (one, two) = (
        CertificateAuthority::new(td()).unwrap(),
        CertificateAuthority::new(td()).unwrap(),
    );
    let key_of = |text: &str| {
        let at = text.find("-----BEGIN PRIVATE").unwrap();
        text.split_at(at).1.to_owned()
    };
    let (one_pem, two_pem) = (one.to_pem(), two.to_pem());
    let mixed = format!("{}{}", one.root_pem(), key_of(&two_pem));
    let twice = format!("{}{}", one.root_pem(), &**one_pem);
    let leaf = KeyPair::generate().unwrap();
    let own = CertificateParams::default()
        .self_signed(&leaf)
        .unwrap()
        .pem();
    let no_authority = format!("{own}{}", leaf.serialize_pem());
    let huge = "x".repeat(1 << 20);
    for bad in [
        "",
        one.root_pem(),
        &key_of(&one_pem),
        &mixed,
        &twice,
        &no_authority,
        &huge,
    ] {
        assert!(
            CertificateAuthority::from_pem(td(), bad).is_err(),
            "{bad:.60}"
        );
    }
}

#[test]
fn server_certificate_is_for_its_names_and_no_member_of_the_mesh() {
    let _trace = meshwright_testkit::trace();
    let ca = CertificateAuthority::new(td()).unwrap();
    let address = "127.0.0.1".parse().unwrap();
    let credentials = ca
        .server_certificate(&["istiod.istio-system.svc"], &[address])
        .unwrap();
    let leaf = webpki::EndEntityCert::try_from(&credentials.chain()[0]).unwrap();
    for (name, good) in [
        ("istiod.istio-system.svc", true),
        ("127.0.0.1", true),
        ("other.svc", false),
    ] {
        let name = ServerName::try_from(name).unwrap();
        assert_eq!(leaf.verify_is_valid_for_subject_name(&name).is_ok(), good);
    }
    assert_eq!(credentials.chain().len(), 2);
    credentials.server_config(&TlsEngine::aws_lc_rs()).unwrap();
    assert!(matches!(
        ca.server_certificate(&[], &[]),
        Err(CaError::Name)
    ));
    assert!(matches!(
        ca.server_certificate(&["no name"], &[]),
        Err(CaError::Name)
    ));
    assert!(!format!("{credentials:?} {ca:?}").contains("PRIVATE"));
}

#[tokio::test]
async fn issuer_gives_certificates_of_its_validity() {
    let _trace = meshwright_testkit::trace();
    let ca = CertificateAuthority::new(td()).unwrap();
    let issuer = SelfSignedIssuer::new(ca, DAY);
    assert_eq!(*issuer.issue(&web()).await.unwrap().id(), web());
    let foreign = SpiffeId::parse("spiffe://other/ns/a/sa/b").unwrap();
    let error = issuer.issue(&foreign).await.unwrap_err();
    assert_eq!(error.kind(), IssueErrorKind::Denied);
    meshwright_testkit::assert_chain_says_each_thing_once(&error);
}

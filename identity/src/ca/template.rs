//! What the certificates look like, and how a kept root is read.

use std::{net::IpAddr, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
    PublicKey, PublicKeyData, SanType, SerialNumber, string::Ia5String,
};
use rustls_pki_types::{
    CertificateDer, PrivatePkcs8KeyDer,
    pem::{PemObject, SectionKind},
};
use time::OffsetDateTime;

use super::CaError;
use crate::{SpiffeId, TrustDomain, key::Key};

const DAY: u64 = 24 * 3600;
const ROOT_SECONDS: u64 = 3650 * DAY;
const SERVER_SECONDS: u64 = 365 * DAY;
/// How far the beginning of validity is put back for clocks that are behind.
const BACKDATE_SECONDS: u64 = 60;
/// A kept root is about 1 KiB.
const MAX_PEM_BYTES: usize = 64 * 1024;

pub(super) fn new_key() -> Result<Key, CaError> {
    Key::fresh().map_err(|source| CaError::Crypto { source })
}

/// P-256, P-384, Ed25519, or RSA of at least 2048 bits.
pub(super) fn check_key(key: &PublicKey) -> Result<(), CaError> {
    let elliptic = [
        &PKCS_ECDSA_P256_SHA256,
        &PKCS_ECDSA_P384_SHA384,
        &PKCS_ED25519,
    ];
    // RFC 8017 A.1.1: the modulus alone of a 2048-bit key has 256 bytes.
    let is_rsa = PublicKeyData::algorithm(key) == &rcgen::PKCS_RSA_SHA256;
    let is_strong_rsa = is_rsa && key.der_bytes().len() > 256;
    if is_strong_rsa || elliptic.contains(&PublicKeyData::algorithm(key)) {
        Ok(())
    } else {
        Err(CaError::Key)
    }
}

pub(super) fn root(trust_domain: &TrustDomain, now: u64) -> Result<CertificateParams, CaError> {
    let mut params = empty(
        now.saturating_sub(BACKDATE_SECONDS),
        now.saturating_add(ROOT_SECONDS),
    )?;
    params
        .distinguished_name
        .push(DnType::OrganizationName, trust_domain.as_str());
    params
        .distinguished_name
        .push(DnType::CommonName, "meshwright root");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// Whether `key` is the private key of `root`.
pub(super) fn check_root_key(root: &CertificateDer<'_>, key: &KeyPair) -> Result<(), CaError> {
    let (_, root) = x509_parser::parse_x509_certificate(root).or(Err(CaError::Pem))?;
    if root.public_key().subject_public_key.data == key.public_key_raw() {
        Ok(())
    } else {
        Err(CaError::Pem)
    }
}

pub(super) fn leaf(
    id: &SpiffeId,
    now: u64,
    validity: Duration,
) -> Result<CertificateParams, CaError> {
    let seconds = validity.as_secs();
    if seconds == 0 {
        return Err(CaError::Validity);
    }
    let begin = now.saturating_sub(BACKDATE_SECONDS.min(seconds / 10));
    let mut params = empty(begin, now.saturating_add(seconds))?;
    let uri = Ia5String::try_from(id.as_str()).map_err(|source| CaError::Crypto { source })?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

pub(super) fn server(
    dns_names: &[&str],
    addresses: &[IpAddr],
    now: u64,
) -> Result<CertificateParams, CaError> {
    let mut params = empty(
        now.saturating_sub(BACKDATE_SECONDS),
        now.saturating_add(SERVER_SECONDS),
    )?;
    for name in dns_names {
        rustls_pki_types::DnsName::try_from(*name).or(Err(CaError::Name))?;
        let name = Ia5String::try_from(*name).or(Err(CaError::Name))?;
        params.subject_alt_names.push(SanType::DnsName(name));
    }
    let addresses = addresses.iter().copied().map(SanType::IpAddress);
    params.subject_alt_names.extend(addresses);
    if params.subject_alt_names.is_empty() {
        return Err(CaError::Name);
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// Parameters with an empty subject, which makes the alternative name critical (RFC 5280
/// §4.2.1.6).
fn empty(begin: u64, end: u64) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = time(begin)?;
    params.not_after = time(end)?;
    // RFC 5280 §4.1.2.2: positive and unique; 127 random bits.
    let mut serial = rand::random::<[u8; 16]>();
    if let Some(first) = serial.first_mut() {
        *first &= 0x7f;
    }
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

fn time(seconds: u64) -> Result<OffsetDateTime, CaError> {
    let seconds = i64::try_from(seconds).or(Err(CaError::Validity))?;
    OffsetDateTime::from_unix_timestamp(seconds).or(Err(CaError::Validity))
}

/// The one certificate and the one key of a kept root.
pub(super) fn split_pem(pem: &str) -> Result<(CertificateDer<'static>, KeyPair), CaError> {
    if pem.len() > MAX_PEM_BYTES {
        return Err(CaError::Pem);
    }
    let mut root = None;
    let mut key = None;
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem.as_bytes()) {
        match section.or(Err(CaError::Pem))? {
            (SectionKind::Certificate, der) if root.is_none() => {
                root = Some(CertificateDer::from(der));
            }
            (SectionKind::PrivateKey, der) if key.is_none() => {
                let der = PrivatePkcs8KeyDer::from(der);
                let pair = KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256);
                key = Some(pair.or(Err(CaError::Pem))?);
            }
            _ => return Err(CaError::Pem),
        }
    }
    root.zip(key).ok_or(CaError::Pem)
}

//! Certificates; the private key is not reachable from here.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use meshwright_identity::SpiffeId;
use meshwright_identity::rotation::{IdentityState, IdentityStatus};
use rustls_pki_types::CertificateDer;
use serde::Serialize;
use time::format_description::well_known::Rfc3339;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

/// Characters in a line of the PEM that the incumbent shows; parsers take any.
const LINE: usize = 60;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Certificates {
    identity: String,
    state: String,
    cert_chain: Vec<CertificateJson>,
    root_certs: Vec<CertificateJson>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CertificateJson {
    pem: String,
    serial_number: String,
    valid_from: String,
    expiration_time: String,
}

impl Certificates {
    pub(super) fn of(status: &IdentityStatus) -> Self {
        Self::new(&status.id, &status.state)
    }

    pub(super) fn new(id: &SpiffeId, state: &IdentityState) -> Self {
        let (state, chain, roots) = match state {
            IdentityState::Available(svid) => (
                "Available".to_owned(),
                list(svid.chain()),
                list(svid.roots()),
            ),
            IdentityState::Unavailable(reason) => {
                (format!("Unavailable: {reason}"), Vec::new(), Vec::new())
            }
            _ => ("Initializing".to_owned(), Vec::new(), Vec::new()),
        };
        Self {
            identity: id.as_str().to_owned(),
            state,
            cert_chain: chain,
            root_certs: roots,
        }
    }
}

fn list(certificates: &[CertificateDer<'_>]) -> Vec<CertificateJson> {
    certificates
        .iter()
        .filter_map(CertificateJson::of)
        .collect()
}

impl CertificateJson {
    pub(super) fn of(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let validity = certificate.validity();
        Some(Self {
            pem: STANDARD.encode(pem(der)),
            serial_number: certificate.tbs_certificate.serial.to_string(),
            valid_from: rfc3339(validity.not_before)?,
            expiration_time: rfc3339(validity.not_after)?,
        })
    }
}

fn pem(der: &[u8]) -> String {
    let encoded = STANDARD.encode(der);
    let mut pem = String::with_capacity(encoded.len() + encoded.len() / LINE + 64);
    pem.push_str("-----BEGIN CERTIFICATE-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        // Base64 is ASCII: every index is a boundary.
        let (line, after) = rest.split_at(rest.len().min(LINE));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

fn rfc3339(time: ASN1Time) -> Option<String> {
    time.to_datetime().format(&Rfc3339).ok()
}

use std::time::SystemTime;

use rustls_pki_types::CertificateDer;

use super::{InvalidSvid, leaf};

/// What an operator's tool shows of one certificate.
///
/// For inspection only: no rule but well-formedness was checked.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct CertificateSummary {
    /// The serial number in decimal.
    pub serial: String,
    /// First second of validity.
    pub not_before: SystemTime,
    /// Last second of validity.
    pub not_after: SystemTime,
    /// The certificate as PEM, lines of 64 characters, with a final newline.
    pub pem: String,
}

impl CertificateSummary {
    /// Reads one certificate, of an [`Svid`](super::Svid)'s chain or roots.
    ///
    /// # Errors
    ///
    /// Returns why it cannot be read.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, InvalidSvid> {
        let parsed = leaf::read_certificate(certificate)?;
        let (not_before, not_after) = leaf::validity(&parsed)?;
        Ok(Self {
            serial: leaf::serial(&parsed)?,
            not_before: leaf::time(not_before),
            not_after: leaf::time(not_after),
            pem: pem_text(certificate),
        })
    }
}

fn pem_text(der: &[u8]) -> String {
    let body = base64(der);
    let mut text = String::with_capacity(body.len().saturating_add(80));
    text.push_str("-----BEGIN CERTIFICATE-----\n");
    for (index, character) in body.chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text.push_str("\n-----END CERTIFICATE-----\n");
    text
}

/// RFC 4648 §4, with padding. Twenty lines are less than a dependency.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let symbol = |bits: u32| {
        ALPHABET
            .get((bits & 63) as usize)
            .map_or('=', |b| char::from(*b))
    };
    let mut text = String::with_capacity(bytes.len().div_ceil(3).saturating_mul(4));
    for chunk in bytes.chunks(3) {
        let octet = |at: usize| chunk.get(at).map_or(0, |byte| u32::from(*byte));
        let group = (octet(0) << 16) | (octet(1) << 8) | octet(2);
        text.push(symbol(group >> 18));
        text.push(symbol(group >> 12));
        text.push(if chunk.len() > 1 {
            symbol(group >> 6)
        } else {
            '='
        });
        text.push(if chunk.len() > 2 { symbol(group) } else { '=' });
    }
    text
}

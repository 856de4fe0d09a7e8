//! The rules of a leaf, beyond what chain building checks.

use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, X509Extension},
    oid_registry::{
        OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_EXTENDED_KEY_USAGE, OID_X509_EXT_KEY_USAGE,
        OID_X509_EXT_SUBJECT_ALT_NAME, Oid,
    },
    prelude::FromDer,
};

use super::{InvalidSvid, chain::Purpose};
use crate::SpiffeId;

/// RFC 5280 §4.1.2.2: serial numbers have at most 20 octets; one more for a sign byte.
const MAX_SERIAL_BYTES: usize = 21;
/// Context-specific tag of `uniformResourceIdentifier` in a general name.
const URI_TAG: u32 = 6;

/// What a leaf says about itself, after its rules were checked.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    pub(crate) id: SpiffeId,
    /// First and last second, since the epoch.
    pub(crate) validity: (u64, u64),
    pub(crate) serial: String,
    #[cfg_attr(
        not(feature = "issuer-istio"),
        expect(dead_code, reason = "compared with a request's key")
    )]
    pub(crate) public_key_info: Vec<u8>,
    allowed: Allowed,
}

/// Uses that the extended key usage leaves.
#[derive(Clone, Copy, Debug)]
struct Allowed {
    client: bool,
    server: bool,
}

impl Leaf {
    /// Reads a leaf and checks every rule that needs neither clock nor issuer.
    pub(crate) fn read(der: &CertificateDer<'_>) -> Result<Self, InvalidSvid> {
        let certificate = read_certificate(der)?;
        let extensions = Extensions {
            certificate: &certificate,
        };
        extensions.check_not_authority()?;
        extensions.check_key_usage()?;
        Ok(Self {
            id: extensions.identity()?,
            validity: validity(&certificate)?,
            serial: serial(&certificate)?,
            public_key_info: certificate.public_key().raw.to_vec(),
            allowed: extensions.allowed()?,
        })
    }

    /// RFC 5280 §4.2.1.12: an extended key usage that is present limits the use.
    pub(crate) fn check_usable_for(&self, purpose: Purpose) -> Result<(), InvalidSvid> {
        let allowed = match purpose {
            Purpose::Client => self.allowed.client,
            Purpose::Server => self.allowed.server,
        };
        if allowed {
            Ok(())
        } else {
            Err(InvalidSvid::ExtendedKeyUsage)
        }
    }

    pub(crate) fn not_before(&self) -> SystemTime {
        time(self.validity.0)
    }

    pub(crate) fn not_after(&self) -> SystemTime {
        time(self.validity.1)
    }
}

/// Reads one certificate; nothing may follow it.
pub(super) fn read_certificate<'a>(
    der: &'a CertificateDer<'_>,
) -> Result<X509Certificate<'a>, InvalidSvid> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(encoding("bytes after its end")),
        Err(_) => Err(encoding("its structure")),
    }
}

/// First and last second of validity; times before 1970 count as 1970.
pub(super) fn validity(certificate: &X509Certificate<'_>) -> Result<(u64, u64), InvalidSvid> {
    let validity = certificate.validity();
    let not_before = u64::try_from(validity.not_before.timestamp()).unwrap_or(0);
    let not_after = u64::try_from(validity.not_after.timestamp()).unwrap_or(0);
    if not_after < not_before {
        return Err(encoding("its validity ends before it begins"));
    }
    Ok((not_before, not_after))
}

/// The serial number in decimal.
pub(super) fn serial(certificate: &X509Certificate<'_>) -> Result<String, InvalidSvid> {
    if certificate.raw_serial().len() > MAX_SERIAL_BYTES {
        return Err(InvalidSvid::TooLarge {
            what: "the serial number",
        });
    }
    Ok(certificate.tbs_certificate.serial.to_string())
}

/// Whether a certificate may sign others, for roots and intermediates.
pub(super) fn is_authority(certificate: &X509Certificate<'_>) -> Result<bool, InvalidSvid> {
    let constraints = certificate.basic_constraints();
    let usage = certificate.key_usage();
    let constraints = constraints.map_err(|_source| encoding("its basic constraints"))?;
    let usage = usage.map_err(|_source| encoding("its key usage"))?;
    Ok(constraints.is_some_and(|c| c.value.ca) && usage.is_none_or(|u| u.value.key_cert_sign()))
}

pub(super) fn time(seconds: u64) -> SystemTime {
    // ASN.1 times end with the year 9999, far inside what the type holds.
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_secs(seconds))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

const fn encoding(part: &'static str) -> InvalidSvid {
    InvalidSvid::Encoding { part }
}

/// The extensions of a leaf, each at most once and without bytes after its end.
struct Extensions<'a> {
    certificate: &'a X509Certificate<'a>,
}

impl<'a> Extensions<'a> {
    fn unique(
        &self,
        oid: &Oid<'_>,
        part: &'static str,
    ) -> Result<Option<&'a X509Extension<'a>>, InvalidSvid> {
        let extension = self
            .certificate
            .get_extension_unique(oid)
            .map_err(|_source| encoding(part))?;
        match extension {
            Some(extension) if !is_one_value(extension.value) => Err(encoding(part)),
            extension => Ok(extension),
        }
    }

    // X509-SVID §4.1: a leaf's `cA` field is false.
    fn check_not_authority(&self) -> Result<(), InvalidSvid> {
        let part = "its basic constraints";
        self.unique(&OID_X509_EXT_BASIC_CONSTRAINTS, part)?;
        let constraints = self.certificate.basic_constraints();
        match constraints.map_err(|_source| encoding(part))? {
            Some(constraints) if constraints.value.ca => Err(InvalidSvid::IsAuthority),
            _ => Ok(()),
        }
    }

    // X509-SVID §4.3: key usage is set and critical; a leaf has digitalSignature and neither
    // keyCertSign nor cRLSign.
    fn check_key_usage(&self) -> Result<(), InvalidSvid> {
        let part = "its key usage";
        let broken = |rule| Err(InvalidSvid::KeyUsage { rule });
        self.unique(&OID_X509_EXT_KEY_USAGE, part)?;
        let Some(usage) = self
            .certificate
            .key_usage()
            .map_err(|_source| encoding(part))?
        else {
            return broken("it is missing");
        };
        if !usage.critical {
            return broken("it is not critical");
        }
        if !usage.value.digital_signature() {
            return broken("digitalSignature is not set");
        }
        if usage.value.key_cert_sign() || usage.value.crl_sign() {
            return broken("keyCertSign or cRLSign is set");
        }
        Ok(())
    }

    // X509-SVID §4.4: an extended key usage is optional; when present it has the role.
    fn allowed(&self) -> Result<Allowed, InvalidSvid> {
        let part = "its extended key usage";
        self.unique(&OID_X509_EXT_EXTENDED_KEY_USAGE, part)?;
        let usage = self.certificate.extended_key_usage();
        let usage = usage.map_err(|_source| encoding(part))?;
        Ok(usage.map_or(
            Allowed {
                client: true,
                server: true,
            },
            |usage| Allowed {
                client: usage.value.client_auth,
                server: usage.value.server_auth,
            },
        ))
    }

    // X509-SVID §2: exactly one URI subject alternative name, and it is a SPIFFE ID.
    fn identity(&self) -> Result<SpiffeId, InvalidSvid> {
        let part = "its subject alternative names";
        self.unique(&OID_X509_EXT_SUBJECT_ALT_NAME, part)?;
        let names = self.certificate.subject_alternative_name();
        let names = names.map_err(|_source| encoding(part))?;
        let names = names.map_or(&[][..], |names| names.value.general_names.as_slice());
        let mut uris = names.iter().filter(|name| is_uri(name));
        match (uris.next(), uris.count()) {
            (Some(GeneralName::URI(uri)), 0) => {
                SpiffeId::parse(uri).map_err(|source| InvalidSvid::Id { source })
            }
            (Some(_), 0) => Err(encoding(part)),
            (first, more) => Err(InvalidSvid::UriCount {
                count: usize::from(first.is_some()).saturating_add(more),
            }),
        }
    }
}

/// Counts an unreadable URI too: a name that one reader skips and another takes is an attack.
fn is_uri(name: &GeneralName<'_>) -> bool {
    match name {
        GeneralName::URI(_) => true,
        GeneralName::Invalid(tag, _) => tag.0 == URI_TAG,
        _ => false,
    }
}

/// Whether `value` is exactly one DER value with a definite length and nothing after it.
fn is_one_value(value: &[u8]) -> bool {
    let Some((&first, rest)) = value
        .split_first()
        .and_then(|(_tag, rest)| rest.split_first())
    else {
        return false;
    };
    if first < 0x80 {
        return usize::from(first) == rest.len();
    }
    let octets = usize::from(first & 0x7f);
    let Some((length, content)) = rest.split_at_checked(octets) else {
        return false;
    };
    (1..=4).contains(&octets)
        && length
            .iter()
            .fold(0_usize, |sum, octet| (sum << 8) | usize::from(*octet))
            == content.len()
}

//! PEM texts that hold exactly what they must.

use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{PemObject, SectionKind},
};
use zeroize::Zeroizing;

use super::InvalidSvid;

/// Far above a bundle of 64 roots; bounds the work on a text from elsewhere.
const MAX_TEXT_BYTES: usize = 1024 * 1024;

/// The certificates of a text that holds nothing else, in order.
pub(crate) fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, InvalidSvid> {
    let all = sections(text)?
        .into_iter()
        .map(|(kind, mut der)| match kind {
            SectionKind::Certificate => Ok(CertificateDer::from(std::mem::take(&mut *der))),
            _ => Err(InvalidSvid::Pem),
        })
        .collect::<Result<Vec<_>, _>>()?;
    if all.is_empty() {
        return Err(InvalidSvid::Empty);
    }
    Ok(all)
}

/// The one private key of a text that holds nothing else.
pub(crate) fn key(text: &[u8]) -> Result<Zeroizing<PrivateKeyDer<'static>>, InvalidSvid> {
    let mut all = sections(text)?.into_iter();
    let (Some((kind, mut der)), None) = (all.next(), all.next()) else {
        return Err(InvalidSvid::Key);
    };
    let key = PrivateKeyDer::from_pem(kind, std::mem::take(&mut *der));
    key.map(Zeroizing::new).ok_or(InvalidSvid::Key)
}

type Section = (SectionKind, Zeroizing<Vec<u8>>);

fn sections(text: &[u8]) -> Result<Vec<Section>, InvalidSvid> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(InvalidSvid::TooLarge { what: "a PEM text" });
    }
    let sections = <(SectionKind, Vec<u8>)>::pem_slice_iter(text)
        .map(|section| section.map(|(kind, der)| (kind, Zeroizing::new(der))))
        .collect::<Result<Vec<_>, _>>()
        .or(Err(InvalidSvid::Pem))?;
    // The reader skips blocks of unknown kinds; nothing that looks like one may be skipped.
    let begins = text
        .split(|byte| *byte == b'\n')
        .filter(|line| line.trim_ascii_start().starts_with(b"-----BEGIN"))
        .count();
    if begins == sections.len() {
        Ok(sections)
    } else {
        Err(InvalidSvid::Pem)
    }
}

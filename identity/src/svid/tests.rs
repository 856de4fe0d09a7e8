//! Certificates that a real istiod issued, as a node proxy of Istio's showed them.

use std::time::Duration;

use rustls_pki_types::UnixTime;

use super::{
    CertificateSummary, InvalidSvid, Purpose, TrustBundles, Verification, allowed_algorithms,
    read_certificates,
};
use crate::{TrustDomain, tls::default_provider};

const LEAF: &[u8] = include_bytes!("recorded/istiod-leaf.pem");
const ROOT: &[u8] = include_bytes!("recorded/istiod-root.pem");
/// 2026-11-21T15:33:29Z: the leaf's first second plus the two minutes that istiod puts it back.
const ISSUED: u64 = 1_795_275_209;

fn seconds(time: std::time::SystemTime) -> u64 {
    time.duration_since(std::time::SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

#[test]
fn certificates_of_a_real_istiod_are_accepted() {
    let _trace = meshwright_testkit::trace();
    let domain = TrustDomain::parse("cluster.local").unwrap();
    let bundles = TrustBundles::from_pem(domain, ROOT).unwrap();
    let leaf = read_certificates(LEAF).unwrap().remove(0);
    let algorithms = allowed_algorithms(default_provider().signature_verification_algorithms.all);
    let verify = |at: u64, purpose| {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(at));
        let how = Verification::new(&algorithms, now, purpose);
        bundles.verify(&leaf, &[], &how)
    };
    for purpose in [Purpose::Client, Purpose::Server] {
        let peer = verify(ISSUED, purpose).unwrap();
        assert_eq!(
            peer.id.as_str(),
            "spiffe://cluster.local/ns/default/sa/sa-a"
        );
        assert_eq!(&*peer.serial, "157521932455521108954656180029816555578");
        assert_eq!(seconds(peer.not_after), ISSUED + 86_400);
        verify(ISSUED + 86_400, purpose).unwrap();
        let late = verify(ISSUED + 86_401, purpose);
        assert!(matches!(late, Err(InvalidSvid::Expired)));
    }
}

#[test]
fn summary_shows_what_a_node_proxy_of_istio_shows() {
    let _trace = meshwright_testkit::trace();
    let leaf = read_certificates(LEAF).unwrap().remove(0);
    let summary = CertificateSummary::of(&leaf).unwrap();
    assert_eq!(summary.serial, "157521932455521108954656180029816555578");
    let validity = (seconds(summary.not_before), seconds(summary.not_after));
    assert_eq!(validity, (ISSUED - 120, ISSUED + 86_400));
    // RFC 4648 §4: another decoder reads what was encoded.
    let again = read_certificates(summary.pem.as_bytes()).unwrap();
    assert_eq!(again, [leaf]);
}

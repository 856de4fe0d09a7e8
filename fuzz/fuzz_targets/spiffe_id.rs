//! The one SPIFFE ID parser: accepts exactly what a second, plain reading of the grammar accepts,
//! and prints what it parsed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use meshwright_identity::{SpiffeId, TrustDomain};

fuzz_target!(|text: &str| {
    let expected = reference(text);
    match SpiffeId::parse(text) {
        Ok(id) => {
            assert!(expected, "accepted against the grammar: {text:?}");
            assert_eq!(id.to_string(), text, "what is printed is what was parsed");
            let domain =
                TrustDomain::parse(id.trust_domain_name()).expect("its trust domain parses");
            assert!(id.is_member_of(&domain));
            if let Some(workload) = id.workload() {
                let again =
                    SpiffeId::for_workload(&domain, workload.namespace, workload.service_account);
                assert_eq!(again.expect("its parts make an ID"), id);
            }
        }
        Err(_) => assert!(!expected, "refused although the grammar accepts: {text:?}"),
    }
});

/// SPIFFE-ID section 2, read once more: `spiffe://` domain, then segments; at most 2048 bytes.
fn reference(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("spiffe://") else {
        return false;
    };
    let (domain, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let domain_is_good = !domain.is_empty()
        && domain.len() <= 255
        && domain
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_'));
    let path_is_good = path.split('/').skip(1).all(|segment| {
        !segment.is_empty()
            && segment != "."
            && segment != ".."
            && segment
                .bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_'))
    });
    text.len() <= 2048 && domain_is_good && path_is_good
}

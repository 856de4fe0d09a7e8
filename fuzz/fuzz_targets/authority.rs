//! The target of a tunnel: what is accepted has one spelling.
#![no_main]

use libfuzzer_sys::fuzz_target;
use meshwright_hbone::Authority;

fuzz_target!(|text: &str| {
    let Ok(authority) = Authority::parse(text) else {
        return;
    };
    let printed = authority.to_string();
    let again = Authority::parse(&printed).expect("what is printed is accepted");
    assert_eq!(again, authority, "printing and parsing is a fixed point");
    assert_eq!(again.to_string(), printed);
    assert_ne!(authority.port(), 0);
    match &authority {
        // A name keeps its spelling but for case; an address has no other name.
        Authority::Host { name, .. } => {
            assert!(printed.eq_ignore_ascii_case(text));
            assert!(
                name.parse::<std::net::IpAddr>().is_err(),
                "an address passed as a name"
            );
            assert!(
                name.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'*'))
            );
        }
        Authority::Ip(address) => {
            assert_eq!(
                text.parse().ok(),
                Some(*address),
                "another reading of the same address"
            );
            assert_eq!(
                address.ip(),
                address.ip().to_canonical(),
                "two spellings of one address"
            );
        }
        _ => {}
    }
});

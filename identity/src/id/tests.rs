use super::{InvalidSpiffeId, SpiffeId, TrustDomain};
use proptest::prelude::{Strategy, prop_assert, prop_assert_eq, proptest};

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

fn refusal(uri: &str) -> InvalidSpiffeId {
    SpiffeId::parse(uri).expect_err("a text outside the grammar was taken as an identity")
}

#[test]
fn identity_gives_back_its_parts() {
    let _trace = meshwright_testkit::trace();
    let id = SpiffeId::parse(WEB).unwrap();
    assert_eq!(id.as_str(), WEB);
    assert_eq!(id.to_string(), WEB);
    assert_eq!(id.path(), "/ns/shop/sa/web");
    assert_eq!(id.trust_domain().as_str(), "cluster.local");
    assert!(id.is_member_of(&TrustDomain::parse("cluster.local").unwrap()));
    assert!(!id.is_member_of(&TrustDomain::parse("cluster.loca").unwrap()));
}

#[test]
fn only_the_exact_workload_form_names_a_workload() {
    let _trace = meshwright_testkit::trace();
    let workload = |path: &str| {
        let id = SpiffeId::parse(&format!("spiffe://td{path}")).unwrap();
        id.workload()
            .map(|w| (w.namespace.to_owned(), w.service_account.to_owned()))
    };
    assert_eq!(workload("/ns/a/sa/b"), Some(("a".into(), "b".into())));
    for other in [
        "",
        "/ns",
        "/ns/a",
        "/ns/a/sa",
        "/ns/a/sa/b/c",
        "/NS/a/sa/b",
        "/ns/a/SA/b",
        "/x/ns/a/sa/b",
    ] {
        assert_eq!(workload(other), None, "`{other}` was taken as a workload");
    }
}

// SPIFFE-ID §2: the classes of texts that are not identities.
#[test]
fn texts_outside_the_grammar_are_refused() {
    let _trace = meshwright_testkit::trace();
    use InvalidSpiffeId::{
        DotSegment, EmptySegment, EmptyTrustDomain, PathByte, Scheme, TrustDomainByte,
    };
    for (uri, rule) in [
        ("", Scheme),
        ("https://td/ns/a/sa/b", Scheme),
        ("SPIFFE://td/ns/a/sa/b", Scheme),
        ("spiffe:/td/ns/a/sa/b", Scheme),
        (" spiffe://td/x", Scheme),
        ("spiffe://", EmptyTrustDomain),
        ("spiffe:///ns/a/sa/b", EmptyTrustDomain),
        ("spiffe://td/", EmptySegment),
        ("spiffe://td//a", EmptySegment),
        ("spiffe://td/ns/a/sa/b/", EmptySegment),
        ("spiffe://td/ns//sa/b", EmptySegment),
        ("spiffe://td/./a", DotSegment),
        ("spiffe://td/a/..", DotSegment),
        ("spiffe://td/ns/%61/sa/b", PathByte { byte: b'%' }),
        ("spiffe://td/a?b", PathByte { byte: b'?' }),
        ("spiffe://td/a#b", PathByte { byte: b'#' }),
        ("spiffe://td/a b", PathByte { byte: b' ' }),
        ("spiffe://td/a\r\nb", PathByte { byte: b'\r' }),
        ("spiffe://td/a\0", PathByte { byte: 0 }),
        ("spiffe://td/é", PathByte { byte: 0xc3 }),
        ("spiffe://td/a@b", PathByte { byte: b'@' }),
        ("spiffe://td/a\\b", PathByte { byte: b'\\' }),
        ("spiffe://user@td/a", TrustDomainByte { byte: b'@' }),
        ("spiffe://td:8080/a", TrustDomainByte { byte: b':' }),
        ("spiffe://Td/a", TrustDomainByte { byte: b'T' }),
        ("spiffe://t%64/a", TrustDomainByte { byte: b'%' }),
        ("spiffe://td?x", TrustDomainByte { byte: b'?' }),
        ("spiffe://td#x", TrustDomainByte { byte: b'#' }),
        ("spiffe://[::1]/a", TrustDomainByte { byte: b'[' }),
        ("spiffe://tä/a", TrustDomainByte { byte: 0xc3 }),
    ] {
        assert_eq!(refusal(uri), rule, "{uri:?}");
    }
}

#[test]
fn lengths_are_limited_to_the_byte() {
    let _trace = meshwright_testkit::trace();
    let of = |bytes: usize| format!("spiffe://td/{}", "a".repeat(bytes - 12));
    assert!(SpiffeId::parse(&of(2048)).is_ok());
    assert_eq!(refusal(&of(2049)), InvalidSpiffeId::TooLong { bytes: 2049 });
    assert!(TrustDomain::parse(&"a".repeat(255)).is_ok());
    assert_eq!(
        TrustDomain::parse(&"a".repeat(256)),
        Err(InvalidSpiffeId::TrustDomainTooLong { bytes: 256 })
    );
}

#[test]
fn workload_identity_cannot_be_smuggled_through_a_name() {
    let _trace = meshwright_testkit::trace();
    let td = TrustDomain::parse("cluster.local").unwrap();
    assert_eq!(
        SpiffeId::for_workload(&td, "shop", "web").unwrap().as_str(),
        WEB
    );
    for name in ["", ".", "..", "a/sa/b", "a/b", "a%2fb"] {
        assert!(
            SpiffeId::for_workload(&td, name, "web").is_err(),
            "{name:?}"
        );
        assert!(
            SpiffeId::for_workload(&td, "shop", name).is_err(),
            "{name:?}"
        );
    }
}

fn segment() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9._-]{1,20}".prop_filter("not a dot segment", |s| s != "." && s != "..")
}

proptest! {
    #[test]
    fn displayed_identity_parses_to_itself(
        td in "[a-z0-9._-]{1,40}",
        path in proptest::collection::vec(segment(), 0..6),
    ) {
        let uri = path.iter().fold(format!("spiffe://{td}"), |uri, s| format!("{uri}/{s}"));
        let id = SpiffeId::parse(&uri).unwrap();
        let trust_domain = id.trust_domain();
        prop_assert_eq!(trust_domain.as_str(), td);
        prop_assert!(uri.ends_with(id.path()));
        prop_assert_eq!(SpiffeId::parse(&id.to_string()).unwrap(), id);
    }

    #[test]
    fn any_accepted_text_is_displayed_unchanged(text in "(spiffe://)?[ -~éß]{0,60}") {
        if let Ok(id) = SpiffeId::parse(&text) {
            prop_assert_eq!(id.as_str(), text.as_str());
            prop_assert!(!text.contains(['%', '?', '#', '@', ':']) || text.matches(':').count() == 1);
        }
    }
}

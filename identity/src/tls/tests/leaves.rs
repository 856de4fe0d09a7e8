//! Leaves that break one rule each, presented by a client in a real handshake.

use super::*;

/// Changes one thing in a good leaf and returns the rule that the server refused it by.
#[track_caller]
fn refused(change: impl FnOnce(&mut CertificateParams)) -> InvalidSvid {
    let world = World::new();
    let mut params = world.leaf(DB);
    change(&mut params);
    let outcome = world.dial_with(&params, &world.member(WEB));
    assert_eq!(outcome.received, 0, "payload of a refused peer was read");
    outcome.rule()
}

#[test]
fn unchanged_leaf_is_accepted() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let outcome = world.dial_with(&world.leaf(DB), &world.member(WEB));
    outcome.succeeded();
    assert_eq!(PeerSvid::of_connection(&outcome.server).unwrap().id, id(DB));
}

// X509-SVID §2: exactly one URI name.
#[test]
fn leaf_with_two_uri_names_is_refused() {
    let _trace = meshwright_testkit::trace();
    let rule = refused(|params| {
        let other = SanType::URI(WEB.try_into().unwrap());
        params.subject_alt_names.push(other);
    });
    assert!(matches!(rule, InvalidSvid::UriCount { count: 2 }));
    let rule = refused(|params| {
        let other = SanType::URI("https://example.com".try_into().unwrap());
        params.subject_alt_names.insert(0, other);
    });
    assert!(matches!(rule, InvalidSvid::UriCount { count: 2 }));
}

#[test]
fn leaf_without_uri_name_is_refused() {
    let _trace = meshwright_testkit::trace();
    let rule = refused(|params| params.subject_alt_names.clear());
    assert!(matches!(rule, InvalidSvid::UriCount { count: 0 }));
    let rule = refused(|params| {
        params.subject_alt_names = vec![SanType::DnsName(DB.try_into().unwrap())];
        params.distinguished_name = name(DB);
    });
    assert!(matches!(rule, InvalidSvid::UriCount { count: 0 }));
}

#[test]
fn leaf_with_names_of_other_kinds_beside_the_uri_is_accepted() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let mut params = world.leaf(DB);
    let dns = SanType::DnsName("db.shop.svc".try_into().unwrap());
    params.subject_alt_names.push(dns);
    world.dial_with(&params, &world.member(WEB)).succeeded();
}

#[test]
fn uri_outside_the_spiffe_grammar_is_refused() {
    let _trace = meshwright_testkit::trace();
    for uri in [
        "spiffe://cluster.local/ns/%73hop/sa/db",
        "spiffe://cluster.local:1/ns/shop/sa/db",
        "spiffe://Cluster.local/ns/shop/sa/db",
        "spiffe://cluster.local/ns/shop/sa/db/",
        "spiffe://cluster.local/ns/../sa/db",
        "https://cluster.local/ns/shop/sa/db",
    ] {
        let rule = refused(|params| {
            params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        });
        assert!(matches!(rule, InvalidSvid::Id { .. }), "{uri}: {rule:?}");
        meshwright_testkit::assert_chain_says_each_thing_once(&rule);
    }
    let long = format!("spiffe://cluster.local/ns/shop/sa/{}", "x".repeat(2048));
    let rule = refused(|params| {
        params.subject_alt_names = vec![SanType::URI(long.as_str().try_into().unwrap())];
    });
    assert!(matches!(rule, InvalidSvid::Id { .. }));
}

#[test]
fn identity_that_is_not_a_workload_is_refused() {
    let _trace = meshwright_testkit::trace();
    for uri in [
        "spiffe://cluster.local",
        "spiffe://cluster.local/x",
        "spiffe://cluster.local/ns/a/sa/b/c",
    ] {
        let rule = refused(|params| {
            params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        });
        assert!(
            matches!(rule, InvalidSvid::NotWorkload { .. }),
            "{uri}: {rule:?}"
        );
    }
}

// X509-SVID §4.1 and §4.3.
#[test]
fn certificate_of_an_authority_is_refused() {
    let _trace = meshwright_testkit::trace();
    let rule = refused(|params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    });
    assert!(matches!(rule, InvalidSvid::IsAuthority));
    for usage in [KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign] {
        let rule = refused(|params| params.key_usages.push(usage));
        assert!(matches!(rule, InvalidSvid::KeyUsage { .. }), "{rule:?}");
    }
}

#[test]
fn key_usage_must_be_there_critical_and_for_signatures() {
    let _trace = meshwright_testkit::trace();
    let rule = refused(|params| params.key_usages.clear());
    assert!(matches!(
        rule,
        InvalidSvid::KeyUsage {
            rule: "it is missing"
        }
    ));
    let rule = refused(|params| params.key_usages = vec![KeyUsagePurpose::KeyEncipherment]);
    assert!(matches!(
        rule,
        InvalidSvid::KeyUsage {
            rule: "digitalSignature is not set"
        }
    ));
    let rule = refused(|params| {
        params.key_usages.clear();
        // keyUsage, not critical, digitalSignature
        let content = vec![0x03, 0x02, 0x07, 0x80];
        let usage = rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 15], content);
        params.custom_extensions.push(usage);
    });
    assert!(matches!(
        rule,
        InvalidSvid::KeyUsage {
            rule: "it is not critical"
        }
    ));
}

#[test]
fn bytes_after_an_extension_are_refused() {
    let _trace = meshwright_testkit::trace();
    let rule = refused(|params| {
        params.key_usages.clear();
        let content = vec![0x03, 0x02, 0x07, 0x80, 0x00];
        let mut usage = rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 15], content);
        usage.set_criticality(true);
        params.custom_extensions.push(usage);
    });
    assert!(
        matches!(
            rule,
            InvalidSvid::Encoding { .. } | InvalidSvid::KeyUsage { .. }
        ),
        "{rule:?}"
    );
}

/// RFC 5280 §4.2.1.12.
#[test]
fn extended_key_usage_limits_the_role() {
    let _trace = meshwright_testkit::trace();
    let rule = refused(|params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    assert!(matches!(rule, InvalidSvid::ExtendedKeyUsage));
    let world = World::new();
    let mut params = world.leaf(DB);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    world.dial_with(&params, &world.member(WEB)).succeeded();
    params.extended_key_usages.clear();
    world.dial_with(&params, &world.member(WEB)).succeeded();

    // As a server, a client's certificate is refused.
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, &world.issuer).unwrap().der().clone();
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let server = ServerConfig::builder_with_provider(Arc::new(crate::tls::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf], der)
        .unwrap();
    let outcome = run(
        world.member(WEB).client_config(&accept(DB)),
        &Arc::new(server),
    );
    assert!(matches!(
        outcome.client_refusal(),
        PeerRefused::Certificate {
            source: InvalidSvid::ExtendedKeyUsage
        }
    ));
}

#[test]
fn validity_is_strict_at_its_end_and_lenient_by_a_minute_at_its_beginning() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let web = world.member(WEB);
    let dial = |begin: u64, end: u64| {
        let mut params = world.leaf(DB);
        params.not_before = at(begin);
        params.not_after = at(end);
        world.dial_with(&params, &web)
    };
    dial(START - 10, START).succeeded();
    let outcome = dial(START - 10, START - 1);
    assert!(matches!(outcome.rule(), InvalidSvid::Expired));
    let alert = rustls::Error::AlertReceived(AlertDescription::CertificateExpired);
    assert_eq!(outcome.client_error, Some(alert));
    dial(START + 60, START + 80).succeeded();
    assert!(matches!(
        dial(START + 61, START + 80).rule(),
        InvalidSvid::NotYetValid
    ));
    assert!(matches!(
        dial(START + 20, START + 10).rule(),
        InvalidSvid::Encoding { .. }
    ));
}

// RFC 5280 §4.1.2.5: two-digit years end with 2049.
#[test]
fn years_around_2050_and_the_last_one_are_read_right() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let ends = [
        2_524_607_999_u64,
        2_524_608_000,
        4_102_444_800,
        253_402_300_799,
    ];
    for end in ends {
        let web = world.member(WEB);
        let mut params = world.leaf(DB);
        params.not_after = at(end);
        let outcome = world.dial_with(&params, &web);
        outcome.succeeded();
        let peer = PeerSvid::of_connection(&outcome.server).unwrap();
        assert_eq!(
            peer.not_after,
            SystemTime::UNIX_EPOCH + Duration::from_secs(end)
        );
    }
    let rule = refused(|params| {
        params.not_before = at(2_524_608_000);
        params.not_after = at(2_524_608_100);
    });
    assert!(matches!(rule, InvalidSvid::NotYetValid));
    let rule = refused(|params| {
        // 1950, the first year of the two-digit form
        params.not_before = OffsetDateTime::from_unix_timestamp(-631_152_000).unwrap();
        params.not_after = OffsetDateTime::from_unix_timestamp(-631_151_000).unwrap();
    });
    assert!(matches!(rule, InvalidSvid::Expired), "{rule:?}");
}

#[test]
fn only_listed_key_kinds_prove_an_identity() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let web = world.member(WEB);
    for good in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
    ] {
        let key = KeyPair::generate_for(good).unwrap();
        world.dial_with_key(&world.leaf(DB), &web, &key).succeeded();
    }
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
    let outcome = world.dial_with_key(&world.leaf(DB), &web, &key);
    assert!(
        outcome.server_error.is_some() || outcome.client_error.is_some(),
        "P-521 was accepted"
    );
    assert!(outcome.server.is_handshaking() || outcome.server_error.is_some());
}

#[test]
fn client_without_certificate_is_refused() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let outcome = handshake(
        careless_client().with_no_client_auth(),
        &world.member(WEB).server_config(),
    );
    assert_eq!(
        outcome.server_error,
        Some(rustls::Error::NoCertificatesPresented)
    );
    assert_eq!(outcome.received, 0);
}

#[test]
fn client_with_somebody_elses_certificate_is_refused() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let member = world.member(WEB);
    let own = KeyPair::generate().unwrap();
    let stolen = world
        .leaf(DB)
        .signed_by(&own, &world.issuer)
        .unwrap()
        .der()
        .clone();
    let key = KeyPair::generate().unwrap();
    // rustls checks that key and certificate match; an attacker does not.
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let key = crate::tls::default_provider()
        .key_provider
        .load_private_key(der)
        .unwrap();
    let certified = rustls::sign::CertifiedKey::new(vec![stolen], key);
    let resolver = rustls::sign::SingleCertAndKey::from(certified);
    let client = careless_client().with_client_cert_resolver(Arc::new(resolver));
    let outcome = handshake(client, &member.server_config());
    assert!(
        outcome.server_error.is_some(),
        "a wrong CertificateVerify was accepted"
    );
    assert_eq!(outcome.received, 0);
}

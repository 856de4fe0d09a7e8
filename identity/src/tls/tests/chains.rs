//! Chains: what path building and our limits let through.

use super::*;

/// An intermediate below `above`, allowed to have `below` more beneath it.
fn intermediate(
    above: &Issuer<'_, KeyPair>,
    text: &str,
    constraint: BasicConstraints,
) -> (CertificateDer<'static>, Issuer<'static, KeyPair>) {
    intermediate_with(above, text, |params| params.is_ca = IsCa::Ca(constraint))
}

fn intermediate_with(
    above: &Issuer<'_, KeyPair>,
    text: &str,
    change: impl FnOnce(&mut CertificateParams),
) -> (CertificateDer<'static>, Issuer<'static, KeyPair>) {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(text);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = at(START - 60);
    params.not_after = at(START + 3600);
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let der = params.signed_by(&key, above).unwrap().der().clone();
    let issuer = Issuer::from_ca_cert_der(&der, key).unwrap();
    (der, issuer)
}

/// Intermediates from the top down, and the lowest as issuer.
fn ladder(world: &World, rungs: usize) -> (Vec<CertificateDer<'static>>, Issuer<'static, KeyPair>) {
    let (first, mut issuer) =
        intermediate(&world.issuer, "rung 0", BasicConstraints::Unconstrained);
    let mut chain = vec![first];
    for rung in 1..rungs {
        let (der, below) = intermediate(
            &issuer,
            &format!("rung {rung}"),
            BasicConstraints::Unconstrained,
        );
        chain.push(der);
        issuer = below;
    }
    (chain, issuer)
}

fn leaf_below(world: &World, issuer: &Issuer<'_, KeyPair>) -> (CertificateDer<'static>, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let leaf = world
        .leaf(DB)
        .signed_by(&key, issuer)
        .unwrap()
        .der()
        .clone();
    (leaf, key)
}

#[test]
fn intermediates_may_come_in_any_order_with_duplicates_and_root() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let web = world.member(WEB);
    let (rungs, issuer) = ladder(&world, 2);
    let (leaf, key) = leaf_below(&world, &issuer);
    let chains = [
        vec![leaf.clone(), rungs[1].clone(), rungs[0].clone()],
        vec![leaf.clone(), rungs[0].clone(), rungs[1].clone()],
        vec![
            leaf.clone(),
            rungs[1].clone(),
            rungs[1].clone(),
            rungs[0].clone(),
        ],
        vec![
            leaf.clone(),
            rungs[1].clone(),
            rungs[0].clone(),
            world.root.clone(),
        ],
    ];
    for chain in chains {
        world.dial_with_chain(chain, &key, &web).succeeded();
    }
    let missing = world.dial_with_chain(vec![leaf, rungs[0].clone()], &key, &web);
    assert!(matches!(missing.rule(), InvalidSvid::UnknownIssuer));
}

#[test]
fn path_of_six_is_accepted_and_of_seven_refused() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let web = world.member(WEB);
    for (rungs, accepted) in [(4, true), (5, false), (6, false), (99, false)] {
        let (mut chain, issuer) = ladder(&world, rungs);
        let (leaf, key) = leaf_below(&world, &issuer);
        chain.push(leaf);
        chain.reverse();
        let outcome = world.dial_with_chain(chain, &key, &web);
        if accepted {
            outcome.succeeded();
        } else {
            assert!(
                outcome.server_error.is_some(),
                "{rungs} intermediates were accepted"
            );
            assert_eq!(outcome.received, 0);
        }
    }
}

#[test]
fn large_certificate_is_refused_before_it_is_parsed() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let mut params = world.leaf(DB);
    let content = vec![0; 20_000];
    let large = rcgen::CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], content);
    params.custom_extensions.push(large);
    let outcome = world.dial_with(&params, &world.member(WEB));
    assert!(matches!(outcome.rule(), InvalidSvid::TooLarge { .. }));
}

#[test]
fn path_length_constraint_is_kept() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let web = world.member(WEB);
    let (top, issuer) = intermediate(&world.issuer, "top", BasicConstraints::Constrained(0));
    let (leaf, key) = leaf_below(&world, &issuer);
    world
        .dial_with_chain(vec![leaf, top.clone()], &key, &web)
        .succeeded();
    let (below, issuer) = intermediate(&issuer, "below", BasicConstraints::Unconstrained);
    let (leaf, key) = leaf_below(&world, &issuer);
    let outcome = world.dial_with_chain(vec![leaf, below, top], &key, &web);
    assert!(
        matches!(outcome.rule(), InvalidSvid::Chain { .. }),
        "{:?}",
        outcome.rule()
    );
    meshwright_testkit::assert_chain_says_each_thing_once(&outcome.server_refusal());
}

/// RFC 5280 §4.2.1.3, RFC 5280 §6.1.4: without keyCertSign the key must not be used for signing certificates.
#[test]
fn intermediate_whose_key_usage_forbids_signing_vouches_for_nobody() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let member = world.member(WEB);
    for (usages, accepted) in [
        (vec![KeyUsagePurpose::KeyCertSign], true),
        (vec![], true),
        (vec![KeyUsagePurpose::DigitalSignature], false),
        (vec![KeyUsagePurpose::CrlSign], false),
    ] {
        let (middle, below) = intermediate_with(&world.issuer, "middle", |params| {
            params.key_usages.clone_from(&usages);
        });
        let (leaf, key) = leaf_below(&world, &below);
        let outcome = world.dial_with_chain(vec![leaf, middle], &key, &member);
        assert_eq!(outcome.server_error.is_none(), accepted, "{usages:?}");
    }
}

#[test]
fn leaf_cannot_sign_another_leaf() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let web = world.member(WEB);
    let (fake, issuer) = intermediate_with(&world.issuer, "no authority", |params| {
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    });
    // rcgen refuses to sign with such an issuer only if its usages are known; make them unknown.
    let issuer = Issuer::new(
        {
            let mut params = CertificateParams::default();
            params.distinguished_name = name("no authority");
            params
        },
        KeyPair::from_pem(&issuer.key().serialize_pem()).unwrap(),
    );
    let (leaf, key) = leaf_below(&world, &issuer);
    let outcome = world.dial_with_chain(vec![leaf, fake], &key, &web);
    assert!(
        outcome.server_error.is_some(),
        "a leaf signed for another identity"
    );
}

#[test]
fn cross_signed_loop_ends() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let web = world.member(WEB);
    // Two authorities outside our roots that vouch for each other.
    let (_, a) = intermediate(&World::new().issuer, "a", BasicConstraints::Unconstrained);
    let (b_by_a, b) = intermediate(&a, "b", BasicConstraints::Unconstrained);
    let mut params = CertificateParams::default();
    params.distinguished_name = name("a");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = at(START - 60);
    params.not_after = at(START + 3600);
    let a_by_b = params.signed_by(a.key(), &b).unwrap().der().clone();
    let (leaf, key) = leaf_below(&world, &a);
    let outcome = world.dial_with_chain(vec![leaf, a_by_b, b_by_a], &key, &web);
    assert!(outcome.server_error.is_some());
}

/// RUSTSEC-2026-0098 was a chain builder that took every URI under a URI constraint.
#[test]
fn name_constraints_for_uris_fail_closed() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let web = world.member(WEB);
    // nameConstraints ::= { permittedSubtrees [0] { { [6] "other.example" } } }
    let host = b"other.example";
    let len = u8::try_from(host.len()).unwrap();
    let mut content = vec![0x30, len + 6, 0xa0, len + 4, 0x30, len + 2, 0x86, len];
    content.extend_from_slice(host);
    let (limited, issuer) = intermediate_with(&world.issuer, "limited", |params| {
        let mut extension = rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 30], content);
        extension.set_criticality(true);
        params.custom_extensions.push(extension);
    });
    let (leaf, key) = leaf_below(&world, &issuer);
    let outcome = world.dial_with_chain(vec![leaf, limited], &key, &web);
    assert!(
        outcome.server_error.is_some(),
        "a URI outside the constraint was accepted"
    );
}

/// RFC 5280 §6.2 leaves this to the relying party.
#[test]
fn expired_root_vouches_for_nobody() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let web = world.member(WEB);
    let mut params = CertificateParams::default();
    params.distinguished_name = name("old root");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = at(START - 7200);
    params.not_after = at(START + 10);
    let key = KeyPair::generate().unwrap();
    let root = params.self_signed(&key).unwrap().der().clone();
    let issuer = Issuer::from_ca_cert_der(&root, key).unwrap();
    let svid = world.ca.issue(&id(WEB), HOUR).unwrap();
    let mut roots = svid.roots().to_vec();
    roots.push(root);
    let bundles = TrustBundles::from_der(svid.id().trust_domain(), roots).unwrap();
    web.replace(svid.with_bundles(bundles)).unwrap();
    let (leaf, key) = leaf_below(&world, &issuer);
    world
        .dial_with_chain(vec![leaf.clone()], &key, &web)
        .succeeded();
    world.clock.set(START + 11);
    let outcome = world.dial_with_chain(vec![leaf], &key, &web);
    assert!(matches!(outcome.rule(), InvalidSvid::UnknownIssuer));
}

#[test]
fn leaf_as_its_own_root_is_refused() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let key = KeyPair::generate().unwrap();
    let leaf = world.leaf(DB).self_signed(&key).unwrap().der().clone();
    let domain = TrustDomain::parse("cluster.local").unwrap();
    let bundles = TrustBundles::from_der(domain, vec![leaf.clone()]);
    assert!(matches!(bundles, Err(InvalidSvid::NotAuthority)));
    let outcome = world.dial_with_chain(vec![leaf], &key, &world.member(WEB));
    assert!(outcome.server_error.is_some());
}

#[test]
fn any_bytes_as_certificates_end_in_an_error() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let good = world.ca.issue(&id(WEB), HOUR).unwrap().chain()[0].clone();
    let mut cases = vec![
        vec![],
        vec![0x30],
        vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
        vec![0; 300],
    ];
    cases.extend((0..good.len()).map(|end| good[..end].to_vec()));
    cases.push([&good[..], &[0]].concat());
    for case in cases {
        assert!(CertificateSummary::of(&CertificateDer::from(case)).is_err());
    }
    // A flipped byte never verifies as another certificate.
    let svid = world.ca.issue(&id(WEB), HOUR).unwrap();
    let how = crate::svid::Verification::new(
        world.engine.chain_algorithms(),
        world.engine.now().unwrap(),
        Purpose::Client,
    );
    for at in 0..svid.chain()[0].len() {
        let mut bytes = svid.chain()[0].to_vec();
        bytes[at] ^= 0x01;
        let changed = CertificateDer::from(bytes);
        assert!(
            svid.bundles().verify(&changed, &[], &how).is_err(),
            "byte {at} is not protected"
        );
    }
}

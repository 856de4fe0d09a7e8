//! What members do among themselves.

use super::*;
use rustls::NamedGroup::{X25519, X25519MLKEM768, secp256r1};

#[test]
fn two_members_learn_each_others_identity() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let (web, db) = (world.member(WEB), world.member(DB));
    let outcome = run(web.client_config(&accept(DB)), &db.server_config());
    outcome.succeeded();
    assert_eq!(outcome.received, 6);
    let client = PeerSvid::of_connection(&outcome.server).unwrap();
    let server = PeerSvid::of_connection(&outcome.client).unwrap();
    assert_eq!((&client.id, &server.id), (web.id(), db.id()));
    assert_eq!(client.not_after, web.svid().not_after());
    assert_eq!(&*client.serial, web.svid().serial());
}

#[test]
fn connection_uses_the_hybrid_group_and_aes_256() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let web = world.member(WEB);
    let outcome = run(web.client_config(&accept(WEB)), &web.server_config());
    outcome.succeeded();
    let group = outcome.client.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), X25519MLKEM768);
    let suite = outcome.client.negotiated_cipher_suite().unwrap();
    assert_eq!(suite.suite(), rustls::CipherSuite::TLS13_AES_256_GCM_SHA384);
    assert_eq!(
        outcome.client.protocol_version(),
        Some(rustls::ProtocolVersion::TLSv1_3)
    );
    let groups: Vec<_> = world
        .engine
        .provider()
        .kx_groups
        .iter()
        .map(|g| g.name())
        .collect();
    assert_eq!(groups, [X25519MLKEM768, X25519, secp256r1]);
}

/// RFC 8446 §4.4.2: the refusal happens within the handshake, so the caller's first bytes stay.
#[test]
fn unexpected_server_is_refused_before_a_byte_is_sent() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let (web, db) = (world.member(WEB), world.member(DB));
    let outcome = run(web.client_config(&accept(WEB)), &db.server_config());
    let refused = outcome.client_refusal();
    assert!(
        matches!(&refused, PeerRefused::NotAccepted { peer } if peer == db.id()),
        "{refused:?}"
    );
    assert_eq!(
        outcome.received, 0,
        "payload reached a peer that was refused"
    );
    assert!(matches!(
        outcome.server_error,
        Some(rustls::Error::AlertReceived(_))
    ));
}

#[test]
fn empty_set_accepts_nobody() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let web = world.member(WEB);
    let outcome = run(
        web.client_config(&AcceptedPeers::new([])),
        &web.server_config(),
    );
    assert!(matches!(
        outcome.client_refusal(),
        PeerRefused::NotAccepted { .. }
    ));
}

#[test]
fn accepted_set_ignores_order_and_repetition() {
    let _trace = meshwright_testkit::trace();
    let one = AcceptedPeers::new([id(WEB), id(DB), id(WEB)]);
    let other = AcceptedPeers::new([id(DB), id(WEB)]);
    assert_eq!(one, other);
    assert_eq!(one.len(), 2);
    assert!(one.contains(&id(DB)) && !one.contains(&id("spiffe://cluster.local/ns/shop/sa/x")));
}

#[test]
fn rotation_reaches_configurations_handed_out_before() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let (web, db) = (world.member(WEB), world.member(DB));
    let (client, server) = (web.client_config(&accept(DB)), db.server_config());
    let before = run(Arc::clone(&client), &server);
    let fresh = world.ca.issue(&id(DB), HOUR).unwrap();
    let serial = fresh.serial().to_owned();
    db.replace(fresh).unwrap();
    let after = run(client, &server);
    after.succeeded();
    assert!(
        Arc::ptr_eq(&server, &db.server_config()),
        "one configuration for life"
    );
    assert_eq!(
        &*PeerSvid::of_connection(&after.client).unwrap().serial,
        serial
    );
    assert_ne!(
        &*PeerSvid::of_connection(&before.client).unwrap().serial,
        serial
    );
}

#[test]
fn live_peer_is_trusted_until_its_root_is_taken_away() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let (web, db) = (world.member(WEB), world.member(DB));
    let since = db.now().unwrap();
    let outcome = run(web.client_config(&accept(DB)), &db.server_config());
    outcome.succeeded();
    let trusts_client = || db.still_trusts(&outcome.server, since, Purpose::Client);
    let trusts_server = || web.still_trusts(&outcome.client, since, Purpose::Server);
    assert!(trusts_client() && trusts_server());

    // Certificates that end are another matter than roots that go.
    world.clock.set(START + 7200);
    assert!(trusts_client(), "an end of validity takes no trust away");
    world.clock.set(START);

    assert_eq!(db.rotations(), 0);
    let same_roots = world.member(DB).svid().bundles().clone();
    let fresh = world.ca.issue(&id(DB), HOUR).unwrap();
    db.replace(fresh.with_bundles(same_roots)).unwrap();
    assert_eq!(db.rotations(), 1);
    assert!(trusts_client(), "a rotation alone changes nothing");

    let domain = TrustDomain::parse("cluster.local").unwrap();
    let other = CertificateAuthority::with_clock(domain, Arc::clone(&world.clock) as _).unwrap();
    db.replace(other.issue(&id(DB), HOUR).unwrap()).unwrap();
    assert!(!trusts_client(), "nobody vouches for the old root");
    assert!(trusts_server(), "the other side still has it");
}

#[test]
fn member_does_not_become_somebody_else() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let web = world.member(WEB);
    let serial = web.svid().serial().to_owned();
    let error = web
        .replace(world.ca.issue(&id(DB), HOUR).unwrap())
        .unwrap_err();
    assert!(matches!(
        &error,
        UnusableSvid::Invalid {
            source: InvalidSvid::OtherIdentity { .. }
        }
    ));
    meshwright_testkit::assert_chain_says_each_thing_once(&error);
    assert_eq!(web.svid().serial(), serial, "the old certificate stays");
}

#[test]
fn peers_of_another_root_are_refused_both_ways() {
    let _trace = meshwright_testkit::trace();
    let (ours, theirs) = (World::new(), World::new());
    let (web, db) = (ours.member(WEB), theirs.member(DB));
    let outcome = run(web.client_config(&accept(DB)), &db.server_config());
    assert!(matches!(
        outcome.client_refusal(),
        PeerRefused::Certificate {
            source: InvalidSvid::UnknownIssuer
        }
    ));
    let alert = rustls::Error::AlertReceived(AlertDescription::UnknownCA);
    assert_eq!(outcome.server_error, Some(alert));
    let outcome = ours.dial_with(&ours.leaf(WEB), &db);
    assert!(matches!(outcome.rule(), InvalidSvid::UnknownIssuer));
}

#[test]
fn root_of_one_trust_domain_cannot_vouch_for_another() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let web = world.member(WEB);
    let outcome = world.dial_with(&world.leaf("spiffe://other.example/ns/a/sa/b"), &web);
    assert!(matches!(
        outcome.rule(),
        InvalidSvid::UnknownTrustDomain { .. }
    ));
    let svid = world.ca.issue(&id(WEB), HOUR).unwrap();
    let other = TrustDomain::parse("other.example").unwrap();
    let bundles = TrustBundles::from_der(other, vec![world.root.clone()]).unwrap();
    web.replace(svid.with_bundles(bundles)).unwrap();
    let outcome = world.dial_with(&world.leaf("spiffe://other.example/ns/a/sa/b"), &web);
    outcome.succeeded();
    let outcome = world.dial_with(&world.leaf(WEB), &web);
    assert!(
        matches!(outcome.rule(), InvalidSvid::UnknownIssuer),
        "a foreign root vouched for us"
    );
}

#[test]
fn roots_can_be_shared_with_an_alias_of_the_trust_domain() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let domain = TrustDomain::parse("cluster.local").unwrap();
    let old = TrustDomain::parse("old.local").unwrap();
    let mut bundles = TrustBundles::from_der(domain.clone(), vec![world.root.clone()]).unwrap();
    assert!(bundles.share(&old, domain.clone()).is_err());
    bundles.share(&domain, old).unwrap();
    assert_eq!(
        bundles.roots_of(&id("spiffe://old.local/ns/a/sa/b")).len(),
        1
    );
}

/// A client that kept a session must not come back without a full handshake.
#[test]
fn no_session_is_ever_resumed() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let web = world.member(WEB);
    let key = KeyPair::generate().unwrap();
    let leaf = world
        .leaf(DB)
        .signed_by(&key, &world.issuer)
        .unwrap()
        .der()
        .clone();
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut client = careless_client()
        .with_client_auth_cert(vec![leaf], der)
        .unwrap();
    client.alpn_protocols = vec![b"h2".to_vec()];
    client.enable_early_data = true;
    let client = Arc::new(client);
    for _ in 0..3 {
        let outcome = run(Arc::clone(&client), &web.server_config());
        outcome.succeeded();
        assert_eq!(
            outcome.client.handshake_kind(),
            Some(rustls::HandshakeKind::Full)
        );
        assert_eq!(outcome.client.tls13_tickets_received(), 0);
        assert!(!outcome.client.is_early_data_accepted());
    }
    assert_eq!(web.server_config().max_early_data_size, 0);
}

#[test]
fn client_hello_names_no_server_and_offers_no_resumption() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let config = world.member(WEB).client_config(&accept(DB));
    assert!(!config.enable_sni && !config.enable_early_data && !config.enable_secret_extraction);
    let name = ServerName::try_from("db.shop.svc").unwrap();
    let mut client = ClientConnection::new(config, name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    assert!(
        !hello.windows(7).any(|part| part == b"db.shop"),
        "a name went over the wire"
    );
}

#[test]
fn http_2_must_be_agreed_on() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let web = world.member(WEB);
    let with = |protocols: Vec<Vec<u8>>| {
        let mut config = (*web.client_config(&accept(WEB))).clone();
        config.alpn_protocols = protocols;
        run(Arc::new(config), &web.server_config())
    };
    let other = with(vec![b"http/1.1".to_vec()]);
    assert_eq!(
        other.server_error,
        Some(rustls::Error::NoApplicationProtocol)
    );
    assert!(
        with(vec![]).server_error.is_some(),
        "a client without ALPN got through"
    );
    assert!(
        with(vec![b"http/1.1".to_vec(), b"h2".to_vec()])
            .server_error
            .is_none()
    );

    let mut plain = (*web.server_config()).clone();
    plain.alpn_protocols.clear();
    let outcome = run(web.client_config(&accept(WEB)), &Arc::new(plain));
    assert_eq!(
        PeerSvid::of_connection(&outcome.client),
        Err(NoPeer::Protocol)
    );
}

#[test]
fn unfinished_handshake_has_no_peer() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let web = world.member(WEB);
    let server = ServerConnection::new(web.server_config()).unwrap();
    assert_eq!(PeerSvid::of_connection(&server), Err(NoPeer::Unverified));
}

#[test]
fn expired_member_neither_dials_nor_accepts() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let web = world.member(WEB);
    world.clock.set(START + 3600);
    run(web.client_config(&accept(WEB)), &web.server_config()).succeeded();
    assert!(!web.is_expired());
    world.clock.set(START + 3601);
    assert!(web.is_expired());
    let outcome = run(web.client_config(&accept(WEB)), &web.server_config());
    assert!(outcome.client_error.is_some() && outcome.server_error.is_some());
    let mut other = world.member(DB);
    let outcome = run(web.client_config(&accept(DB)), &other.server_config());
    assert!(
        outcome.server_error.is_some(),
        "an expired client was let in"
    );
    other = world.member(DB);
    let outcome = run(other.client_config(&accept(WEB)), &web.server_config());
    assert!(outcome.client_error.is_some(), "an expired server was used");
}

#[test]
fn key_must_be_that_of_the_certificate() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let svid = world.ca.issue(&id(WEB), HOUR).unwrap();
    let other = KeyPair::generate().unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(other.serialize_der()));
    let chain = svid.chain().to_vec();
    let odd = Svid::from_der(&id(WEB), chain, Zeroizing::new(key), svid.bundles().clone());
    let error = Member::new(odd.unwrap(), &world.engine).unwrap_err();
    assert!(matches!(
        error,
        UnusableSvid::Invalid {
            source: InvalidSvid::KeyMismatch
        }
    ));
}

#[test]
fn debug_output_and_errors_show_no_key() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let svid = world.ca.issue(&id(WEB), HOUR).unwrap();
    let text = format!(
        "{svid:?} {:?}",
        Member::new(world.ca.issue(&id(WEB), HOUR).unwrap(), &world.engine)
    );
    assert!(text.contains(WEB) && text.len() < 400, "{text}");
}

/// A leaf, its key and the root, as PEM.
fn pem_parts(world: &World) -> (String, String, String) {
    let key = KeyPair::generate().unwrap();
    let mut csr = CertificateParams::default();
    csr.distinguished_name = DistinguishedName::new();
    let csr = csr.serialize_request(&key).unwrap().pem().unwrap();
    let mut chain = world.ca.sign_csr(&csr, &id(WEB), HOUR).unwrap();
    (chain.remove(0), key.serialize_pem(), chain.remove(0))
}

fn from_pem(leaf: &str, key: &str, roots: &str) -> Result<Svid, InvalidSvid> {
    Svid::from_pem(&id(WEB), leaf.as_bytes(), key.as_bytes(), roots.as_bytes())
}

#[test]
fn pem_round_trip_gives_the_same_svid() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let (leaf, key, root) = pem_parts(&world);
    let svid = from_pem(&leaf, &key, &root).unwrap();
    let summary = CertificateSummary::of(&svid.chain()[0]).unwrap();
    assert_eq!(summary.pem, leaf);
    assert_eq!(summary.serial, svid.serial());
    let validity = (summary.not_before, summary.not_after);
    assert_eq!(validity, (svid.not_before(), svid.not_after()));
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(START + 3600);
    assert_eq!(svid.not_after(), end);
    let member = Member::new(svid, &world.engine).unwrap();
    run(member.client_config(&accept(WEB)), &member.server_config()).succeeded();
    let odd = format!("# a comment\r\n{}", leaf.replace('\n', "\r\n").trim_end());
    from_pem(&odd, &key, &root).expect("comments, CRLF and no final newline are fine");
}

#[test]
fn pem_texts_hold_what_they_must_and_nothing_else() {
    let _trace = meshwright_testkit::trace();
    let (leaf, key, root) = pem_parts(&World::new());
    let with_key = format!("{leaf}{key}");
    assert!(matches!(
        from_pem(&with_key, &key, &root),
        Err(InvalidSvid::Pem)
    ));
    let unknown = format!("{leaf}-----BEGIN WHATEVER-----\nAAAA\n-----END WHATEVER-----\n");
    assert!(matches!(
        from_pem(&unknown, &key, &root),
        Err(InvalidSvid::Pem)
    ));
    assert!(matches!(
        from_pem(&leaf, &format!("{key}{key}"), &root),
        Err(InvalidSvid::Key)
    ));
    assert!(matches!(
        from_pem(&leaf, &leaf, &root),
        Err(InvalidSvid::Key)
    ));
    assert!(matches!(from_pem("", &key, &root), Err(InvalidSvid::Empty)));
    assert!(matches!(from_pem(&leaf, &key, ""), Err(InvalidSvid::Empty)));
    assert!(matches!(
        from_pem(&leaf, &key, &leaf),
        Err(InvalidSvid::NotAuthority)
    ));
    let huge = "x".repeat(2 << 20);
    assert!(matches!(
        from_pem(&huge, &key, &root),
        Err(InvalidSvid::TooLarge { .. })
    ));
    let db = Svid::from_pem(&id(DB), leaf.as_bytes(), key.as_bytes(), root.as_bytes());
    assert!(matches!(db, Err(InvalidSvid::OtherIdentity { .. })));
}

/// A TLS 1.2 `ClientHello` as old stacks send it: no `supported_versions`.
#[test]
fn tls_1_2_is_refused_with_the_alert_for_it() {
    let _trace = meshwright_testkit::trace();
    let mut body = vec![0x03, 0x03];
    body.extend([7; 32]);
    body.extend([0, 0, 4, 0xc0, 0x2b, 0x13, 0x01, 1, 0]);
    // signature_algorithms and supported_groups, as every client has them
    body.extend([0, 16, 0, 13, 0, 4, 0, 2, 4, 3, 0, 10, 0, 4, 0, 2, 0, 29]);
    let mut hello = vec![1, 0, 0, u8::try_from(body.len()).unwrap()];
    hello.extend(body);
    let mut record = vec![0x16, 0x03, 0x01, 0, u8::try_from(hello.len()).unwrap()];
    record.extend(hello);
    let member = World::new().member(WEB);
    let mut server = ServerConnection::new(member.server_config()).unwrap();
    server.read_tls(&mut record.as_slice()).unwrap();
    let error = server.process_new_packets().unwrap_err();
    assert!(
        matches!(error, rustls::Error::PeerIncompatible(_)),
        "{error:?}"
    );
    let mut alert = Vec::new();
    server.write_tls(&mut alert).unwrap();
    assert_eq!(alert, [0x15, 3, 3, 0, 2, 2, 70], "fatal protocol_version");
}

#[test]
fn groups_and_suites_outside_the_list_are_not_agreed_on() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let web = world.member(WEB);
    let dial = |change: fn(&mut rustls::crypto::CryptoProvider)| {
        let mut provider = crate::tls::default_provider();
        change(&mut provider);
        let client = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer))
            .with_no_client_auth();
        handshake(client, &web.server_config())
            .server_error
            .unwrap()
    };
    let agreed = rustls::Error::NoCertificatesPresented;
    let groups = dial(|p| {
        let p384 = rustls::NamedGroup::secp384r1;
        p.kx_groups.retain(|g| g.name() == p384);
    });
    assert_ne!(groups, agreed, "P-384 was agreed on");
    let suites = dial(|p| {
        let chacha = rustls::CipherSuite::TLS13_CHACHA20_POLY1305_SHA256;
        p.cipher_suites.retain(|s| s.suite() == chacha);
    });
    assert_ne!(suites, agreed, "ChaCha20 was agreed on");
    // Another first choice of the client's costs a round trip and works.
    assert_eq!(
        dial(|p| p.kx_groups.retain(|g| g.name() == secp256r1)),
        agreed
    );
    assert_eq!(dial(|p| p.kx_groups.retain(|g| g.name() == X25519)), agreed);
}

/// Six certificates of the slowest kind must not cost more than the handshake itself.
#[test]
fn longest_chain_is_judged_within_the_cpu_budget() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let svid = world.ca.issue(&id(WEB), HOUR).unwrap();
    let how = crate::svid::Verification::new(
        world.engine.chain_algorithms(),
        world.engine.now().unwrap(),
        Purpose::Client,
    );
    let decoys = vec![world.root.clone(); 5];
    let begin = std::time::Instant::now();
    for _ in 0..20 {
        svid.bundles()
            .verify(&svid.chain()[0], &decoys, &how)
            .unwrap();
    }
    let each = begin.elapsed() / 20;
    assert!(each < Duration::from_millis(50), "{each:?} for one chain");
}

use prost::Message;

use super::{MAX_ELEMENTS, MAX_RESOURCE_BYTES, convert, stand_in};
use crate::{
    Action, Flaw, InvalidPolicy, Scope,
    policy::Selects,
    proto::{self, Authorization, string_match::MatchType},
};

/// One length-delimited field.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut wire = vec![number << 3 | 2];
    prost::encoding::encode_varint(content.len() as u64, &mut wire);
    wire.extend(content);
    wire
}

fn number(field: u8, value: u64) -> Vec<u8> {
    let mut wire = vec![field << 3];
    prost::encoding::encode_varint(value, &mut wire);
    wire
}

/// A resource `a/p` with these further bytes.
fn resource(more: &[u8]) -> Vec<u8> {
    [field(1, b"p"), field(2, b"a"), more.to_vec()].concat()
}

/// A resource `a/p` with one match of this content.
fn with_match(content: &[u8]) -> Vec<u8> {
    resource(&field(5, &field(1, &field(2, content))))
}

fn flaw(resource: &[u8]) -> Flaw {
    convert("a/p", resource).expect_err("must be refused").flaw
}

#[test]
fn unknown_fields_are_refused_in_every_message() {
    let _trace = meshwright_testkit::trace();
    for (message, wire) in [
        ("Authorization", resource(&number(8, 1))),
        ("Authorization", resource(&field(15, b""))),
        ("Rule", resource(&field(5, &field(2, b"")))),
        ("Clause", resource(&field(5, &field(1, &field(1, b""))))),
        ("Match", with_match(&number(14, 0))),
        (
            "StringMatch",
            with_match(&field(3, &[field(1, b"x"), number(5, 0)].concat())),
        ),
        (
            "Address",
            with_match(&field(5, &[field(1, &[1, 2, 3, 4]), number(3, 0)].concat())),
        ),
        (
            "ServiceAccountMatch",
            with_match(&field(
                11,
                &[field(1, b"n"), field(2, b"s"), field(3, b"")].concat(),
            )),
        ),
        ("Empty", with_match(&field(4, &field(4, &number(1, 1))))),
    ] {
        match flaw(&wire) {
            Flaw::UnknownField { message: named, .. } => assert_eq!(named, message),
            other => panic!("{message}: {other:?}"),
        }
    }
}

#[test]
fn extensions_are_known_and_ignored() {
    let _trace = meshwright_testkit::trace();
    let extension = field(1, b"anything");
    let wire = [
        with_match(&[field(13, &extension), number(9, 80)].concat()),
        field(7, &extension),
    ]
    .concat();
    let policy = convert("a/p", &wire).unwrap();
    assert_eq!(policy.rule_count(), 1);
    assert_eq!(
        flaw(&resource(&number(7, 1))),
        Flaw::Malformed,
        "but they are messages"
    );
}

#[test]
fn unknown_values_of_enumerations_are_refused() {
    let _trace = meshwright_testkit::trace();
    assert_eq!(
        flaw(&resource(&number(3, 3))),
        Flaw::UnknownScope { value: 3 }
    );
    assert_eq!(
        flaw(&resource(&number(4, 2))),
        Flaw::UnknownAction { value: 2 }
    );
    let wide = 1 << 32 | 1;
    assert_eq!(
        flaw(&resource(&number(3, wide))),
        Flaw::UnknownScope { value: wide },
        "not cut to 32 bits"
    );
    assert_eq!(flaw(&resource(&number(6, 2))), Flaw::Flag { value: 2 });
}

#[test]
fn ranges_that_are_none_are_refused() {
    let _trace = meshwright_testkit::trace();
    for (address, prefix) in [
        (&[10, 0, 0][..], 8),
        (&[10, 0, 0, 0], 33),
        (&[], 0),
        (&[0; 16], 129),
        (&[0; 5], 0),
        (&[10, 0, 0, 0], 256),
    ] {
        let range = [field(1, address), number(2, prefix)].concat();
        for list in [5, 6, 7, 8] {
            let expected = Flaw::AddressRange {
                bytes: address.len(),
                prefix,
            };
            assert_eq!(
                flaw(&with_match(&field(list, &range))),
                expected,
                "field {list}"
            );
        }
    }
}

#[test]
fn texts_that_compare_with_nothing_are_refused() {
    let _trace = meshwright_testkit::trace();
    for list in [1, 2, 3, 4] {
        assert_eq!(
            flaw(&with_match(&field(list, b""))),
            Flaw::NoComparison,
            "field {list}"
        );
        for kind in [1, 2, 3] {
            assert_eq!(
                flaw(&with_match(&field(list, &field(kind, b"")))),
                Flaw::EmptyText,
                "field {list}, kind {kind}"
            );
        }
        assert_eq!(
            flaw(&with_match(&field(list, &field(1, &[0xff])))),
            Flaw::NotText
        );
        assert!(matches!(
            flaw(&with_match(&field(list, &field(1, &[b'x'; 2049])))),
            Flaw::TooLarge { .. }
        ));
    }
    for list in [11, 12] {
        assert_eq!(
            flaw(&with_match(&field(list, &field(1, b"n")))),
            Flaw::EmptyText
        );
        assert_eq!(
            flaw(&with_match(&field(list, &field(2, b"s")))),
            Flaw::EmptyText
        );
    }
}

#[test]
fn ports_beyond_sixteen_bits_are_refused() {
    let _trace = meshwright_testkit::trace();
    for value in [65_536, 65_536 + 80, 1 << 32 | 80] {
        assert_eq!(flaw(&with_match(&number(9, value))), Flaw::Port { value });
        let mut packed = Vec::new();
        prost::encoding::encode_varint(value, &mut packed);
        assert_eq!(
            flaw(&with_match(&field(10, &packed))),
            Flaw::Port { value },
            "packed"
        );
    }
}

#[test]
fn fields_that_stand_twice_are_refused() {
    let _trace = meshwright_testkit::trace();
    for wire in [
        resource(&field(1, b"p")),
        resource(&[number(4, 1), number(4, 0)].concat()),
        resource(&[number(6, 0), number(6, 1)].concat()),
        with_match(&field(3, &[field(1, b"x"), field(2, b"y")].concat())),
        with_match(&field(
            5,
            &[number(2, 32), field(1, &[1, 2, 3, 4]), number(2, 0)].concat(),
        )),
    ] {
        assert_eq!(flaw(&wire), Flaw::Repeated);
    }
}

#[test]
fn resource_must_be_named_like_its_content() {
    let _trace = meshwright_testkit::trace();
    let wire = resource(&[]);
    assert!(convert("a/p", &wire).is_ok());
    for name in ["a/q", "b/p", "p", "", "a/p/", "/p", "a//p"] {
        assert_eq!(
            convert(name, &wire).unwrap_err().flaw,
            Flaw::NameMismatch,
            "{name}"
        );
    }
    for (namespace, name) in [
        (&b"a"[..], &b""[..]),
        (b"", b"p"),
        (b"a/b", b"p"),
        (b"a", b"p\n"),
        (b"a", &[b'x'; 600]),
    ] {
        let wire = [field(1, name), field(2, namespace)].concat();
        assert_eq!(convert("a/p", &wire).unwrap_err().flaw, Flaw::Name);
    }
}

#[test]
fn size_is_bounded() {
    let _trace = meshwright_testkit::trace();
    assert!(matches!(
        flaw(&vec![0; MAX_RESOURCE_BYTES + 1]),
        Flaw::TooLarge { .. }
    ));
    let rules = field(5, b"").repeat(MAX_ELEMENTS + 1);
    assert!(matches!(
        flaw(&resource(&rules)),
        Flaw::TooLarge {
            limit: MAX_ELEMENTS
        }
    ));
    let ports = with_match(&field(9, &[80; MAX_ELEMENTS]));
    assert!(
        matches!(flaw(&ports), Flaw::TooLarge { .. }),
        "packed values count"
    );
}

#[test]
fn place_of_the_flaw_is_named() {
    let _trace = meshwright_testkit::trace();
    let good = field(1, &field(2, &number(9, 80)));
    let bad = field(
        1,
        &[field(2, &number(9, 80)), field(2, &number(10, 70_000))].concat(),
    );
    let wire = resource(&[field(5, &good), field(5, &[good.clone(), bad].concat())].concat());
    let invalid = convert("a/p", &wire).unwrap_err();
    assert_eq!(
        invalid.to_string(),
        "rule 1: clause 1: match 1: not_destination_ports: 70000 is no port"
    );
}

#[test]
fn what_was_sent_comes_back_for_dumps() {
    let _trace = meshwright_testkit::trace();
    let text = |kind| proto::StringMatch {
        match_type: Some(kind),
    };
    let matching = proto::Match {
        principals: vec![
            text(MatchType::Suffix("/z".into())),
            text(MatchType::Exact("b".into())),
            text(MatchType::Presence(())),
        ],
        destination_ports: vec![9, 1],
        ..Default::default()
    };
    let sent = Authorization {
        name: "p".into(),
        namespace: "a".into(),
        scope: proto::Scope::WorkloadSelector.into(),
        action: proto::Action::Deny.into(),
        rules: vec![proto::Rule {
            clauses: vec![proto::Clause {
                matches: vec![matching],
            }],
        }],
        dry_run: true,
    };
    let policy = convert("a/p", &sent.encode_to_vec()).unwrap();
    assert_eq!(policy.authorization(), sent, "in the original order");
    assert_eq!(
        (policy.scope(), policy.action(), policy.is_dry_run()),
        (Some(Scope::WorkloadSelector), Action::Deny, true)
    );
    assert_eq!((&**policy.name(), policy.namespace()), ("a/p", "a"));
}

#[test]
fn stand_in_fails_closed_for_what_can_still_be_read() {
    let _trace = meshwright_testkit::trace();
    let invalid = || InvalidPolicy::from(Flaw::Malformed);
    let unknown = number(9, 1);
    for (wire, selects, action) in [
        (
            [number(3, 1), unknown.clone()].concat(),
            Selects::Scope(Scope::Namespace),
            Action::Allow,
        ),
        (
            [number(4, 1), unknown].concat(),
            Selects::Scope(Scope::Global),
            Action::Deny,
        ),
        (
            [number(3, 2), number(4, 7)].concat(),
            Selects::Scope(Scope::WorkloadSelector),
            Action::Deny,
        ),
        (number(3, 9), Selects::Unreadable, Action::Allow),
        (vec![0xff], Selects::Unreadable, Action::Deny),
        (
            [number(3, 2), vec![0x0a, 0x50]].concat(),
            Selects::Unreadable,
            Action::Deny,
        ),
    ] {
        let policy = stand_in("a/p", &wire, invalid()).unwrap();
        assert_eq!(
            (policy.selects, policy.action),
            (selects, action),
            "{wire:x?}"
        );
        assert_eq!(
            policy.rule_count(),
            usize::from(action == Action::Deny),
            "DENY matches always, ALLOW never"
        );
        assert!(policy.invalid().is_some());
    }
    assert!(
        stand_in("a/p", &number(6, 1), invalid())
            .unwrap()
            .is_dry_run(),
        "a dry run is never enforced"
    );
    for name in ["nameless", "/p", "a/", "a/b/c"] {
        assert!(
            stand_in(name, &[], invalid()).is_none(),
            "{name} selects nobody"
        );
    }
}

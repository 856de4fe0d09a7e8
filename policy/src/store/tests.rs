use std::sync::Arc;

use meshwright_identity::SpiffeId;
use prost::Message;

use super::{FULL, MAX_POLICIES, PolicyReader, PolicyStore};
use crate::{
    Connection, Decision, Mode, Reason, Subject,
    proto::{Action, Authorization, Rule, Scope},
};

fn policy(name: &str, scope: Scope, action: Action) -> Vec<u8> {
    let (namespace, name) = name.split_once('/').unwrap();
    Authorization {
        name: name.into(),
        namespace: namespace.into(),
        scope: scope.into(),
        action: action.into(),
        rules: vec![Rule::default()],
        dry_run: false,
    }
    .encode_to_vec()
}

/// The same policy with a field that nobody knows.
fn broken(name: &str, scope: Scope, action: Action) -> Vec<u8> {
    [policy(name, scope, action), vec![0x48, 0x01]].concat()
}

fn decide(reader: &PolicyReader, namespace: &str, listed: &[&str]) -> Decision {
    let id = SpiffeId::parse("spiffe://td/ns/a/sa/x").unwrap();
    let listed: Vec<Arc<str>> = listed.iter().copied().map(Arc::from).collect();
    let subject = Subject::new(namespace, &listed);
    reader.decide(&Connection::new(
        Some(&id),
        [10, 0, 0, 1].into(),
        "10.0.0.2:80".parse().unwrap(),
        subject,
    ))
}

fn reason(decision: Decision) -> Option<Reason> {
    match decision {
        Decision::Deny(denied) => Some(denied.reason),
        Decision::Allow | Decision::Unknown { .. } => None,
    }
}

#[test]
fn change_is_in_force_when_apply_returns() {
    let _trace = meshwright_testkit::trace();
    let (mut store, reader) = PolicyStore::new(Mode::IstioCompatible);
    let deny = policy("a/p", Scope::Namespace, Action::Deny);
    assert!(store.apply([("a/p", &*deny)], []).is_empty());
    assert_eq!(
        reason(decide(&reader, "a", &[])),
        Some(Reason::Explicit { rule: 0 })
    );
    assert!(decide(&reader, "b", &[]).is_allow());
    assert!(store.apply([], ["a/p"]).is_empty());
    assert!(decide(&reader, "a", &[]).is_allow());
    assert_eq!(reader.version(), 2);
}

#[test]
fn policy_that_changes_scope_or_action_leaves_nothing_behind() {
    let _trace = meshwright_testkit::trace();
    let (mut store, reader) = PolicyStore::new(Mode::IstioCompatible);
    for scope in [
        Scope::Global,
        Scope::Namespace,
        Scope::WorkloadSelector,
        Scope::Namespace,
        Scope::Global,
    ] {
        for action in [Action::Deny, Action::Allow] {
            store.apply([("a/p", &*policy("a/p", scope, action))], []);
            assert_eq!(reader.set().len(), 1);
            let denies =
                |namespace, listed: &[&str]| !decide(&reader, namespace, listed).is_allow();
            let is_deny = action == Action::Deny;
            assert_eq!(denies("a", &["a/p"]), is_deny);
            assert_eq!(
                denies("a", &[]),
                is_deny && scope != Scope::WorkloadSelector
            );
            assert_eq!(denies("b", &[]), is_deny && scope == Scope::Global);
        }
    }
    store.apply([], ["a/p"]);
    assert!(reader.set().is_empty() && decide(&reader, "a", &[]).is_allow());
}

#[test]
fn good_resources_of_a_message_take_effect_beside_bad_ones() {
    let _trace = meshwright_testkit::trace();
    let (mut store, reader) = PolicyStore::new(Mode::IstioCompatible);
    let good = policy("a/good", Scope::Namespace, Action::Deny);
    let bad = broken("b/bad", Scope::WorkloadSelector, Action::Allow);
    let rejected = store.apply([("a/good", &*good), ("b/bad", &*bad)], []);
    assert_eq!(
        rejected
            .iter()
            .map(|rejected| &*rejected.name)
            .collect::<Vec<_>>(),
        ["b/bad"]
    );
    assert_eq!(
        rejected[0].to_string(),
        "b/bad: unknown field 9 of Authorization"
    );
    assert_eq!(
        reason(decide(&reader, "a", &[])),
        Some(Reason::Explicit { rule: 0 })
    );
}

#[test]
fn last_good_version_stays_in_force_and_is_flagged() {
    let _trace = meshwright_testkit::trace();
    let (mut store, reader) = PolicyStore::new(Mode::IstioCompatible);
    store.apply(
        [("a/p", &*policy("a/p", Scope::Namespace, Action::Allow))],
        [],
    );
    let rejected = store.apply(
        [("a/p", &*broken("a/p", Scope::Namespace, Action::Deny))],
        [],
    );
    assert_eq!(rejected.len(), 1);
    assert!(
        decide(&reader, "a", &[]).is_allow(),
        "the earlier version allows"
    );
    assert_eq!(reader.rejected().len(), 1, "flagged");
    store.apply(
        [("a/p", &*policy("a/p", Scope::Namespace, Action::Deny))],
        [],
    );
    assert!(
        reader.rejected().is_empty(),
        "a good version clears the flag"
    );
    assert!(!decide(&reader, "a", &[]).is_allow());
}

#[test]
fn first_version_that_is_bad_fails_closed_for_whom_it_selects() {
    let _trace = meshwright_testkit::trace();
    let (mut store, reader) = PolicyStore::new(Mode::IstioCompatible);
    store.apply(
        [("a/p", &*broken("a/p", Scope::Namespace, Action::Allow))],
        [],
    );
    assert_eq!(
        reason(decide(&reader, "a", &[])),
        Some(Reason::NotAllowed),
        "an ALLOW that never matches"
    );
    assert!(decide(&reader, "b", &[]).is_allow());
    store.apply(
        [(
            "a/p",
            &*broken("a/p", Scope::WorkloadSelector, Action::Deny),
        )],
        [],
    );
    assert!(
        decide(&reader, "a", &[]).is_allow(),
        "a later bad version replaces the stand-in"
    );
    let denied = decide(&reader, "b", &["a/p"]);
    assert_eq!(reason(denied.clone()), Some(Reason::Unreadable));
    assert_eq!(
        denied.to_string(),
        "denied: explicitly denied by: a/p (not readable)"
    );
    store.apply([], ["a/p"]);
    assert!(
        reader.rejected().is_empty() && reader.set().is_empty(),
        "removal ends it"
    );
}

#[test]
fn unreadable_scope_closes_the_namespace_and_is_unknown_elsewhere() {
    let _trace = meshwright_testkit::trace();
    let (mut store, reader) = PolicyStore::new(Mode::IstioCompatible);
    let cut = policy("a/p", Scope::Namespace, Action::Allow);
    assert_eq!(store.apply([("a/p", &cut[..cut.len() - 1])], []).len(), 1);
    assert_eq!(reason(decide(&reader, "a", &[])), Some(Reason::Unreadable));
    assert!(decide(&reader, "b", &[]).is_allow());
    assert_eq!(
        decide(&reader, "b", &["a/p"]),
        Decision::Unknown {
            policy: "a/p".into()
        }
    );
}

#[test]
fn resource_without_a_namespace_in_its_name_is_refused_and_selects_nobody() {
    let _trace = meshwright_testkit::trace();
    let (mut store, reader) = PolicyStore::new(Mode::IstioCompatible);
    let long = "x".repeat(1 << 20);
    for name in ["", "nameless", "a\0b", "\n", &long] {
        let rejected = store.apply([(name, &[][..])], []);
        assert_eq!(rejected.len(), 1);
        assert!(
            rejected[0].name.len() <= 1100 && !rejected[0].name.contains('\n'),
            "fit for a log"
        );
    }
    assert!(reader.set().is_empty());
    assert!(
        store.apply([], ["never/sent", ""]).is_empty(),
        "removing what is not there is harmless"
    );
}

#[test]
fn last_resource_of_a_name_counts_and_its_removal_beats_them_all() {
    let _trace = meshwright_testkit::trace();
    let (mut store, reader) = PolicyStore::new(Mode::IstioCompatible);
    let (allow, deny) = (
        policy("a/p", Scope::Namespace, Action::Allow),
        policy("a/p", Scope::Namespace, Action::Deny),
    );
    store.apply([("a/p", &*allow), ("a/p", &*deny)], []);
    assert!(!decide(&reader, "a", &[]).is_allow());
    let bad = broken("a/p", Scope::Namespace, Action::Allow);
    for resource in [&deny, &bad] {
        store.apply([("a/p", &**resource)], ["a/p"]);
        assert!(reader.set().is_empty() && reader.rejected().is_empty());
    }
}

#[test]
fn store_without_room_denies_everything() {
    let _trace = meshwright_testkit::trace();
    let (mut store, reader) = PolicyStore::new(Mode::IstioCompatible);
    let names: Vec<String> = (0..=MAX_POLICIES)
        .map(|number| format!("a/p{number}"))
        .collect();
    let resources: Vec<_> = names
        .iter()
        .map(|name| policy(name, Scope::WorkloadSelector, Action::Allow))
        .collect();
    let all = names
        .iter()
        .map(String::as_str)
        .zip(resources.iter().map(Vec::as_slice));
    assert_eq!(store.apply(all.clone().take(MAX_POLICIES), []).len(), 0);
    assert!(decide(&reader, "a", &[]).is_allow());
    assert_eq!(store.apply(all.clone().skip(MAX_POLICIES), []).len(), 1);
    assert_eq!(reason(decide(&reader, "b", &[])), Some(Reason::Unreadable));
    store.apply([], [FULL]);
    assert!(decide(&reader, "b", &[]).is_allow());
    let one = all.clone().skip(MAX_POLICIES);
    assert!(
        store.apply(one, ["a/p0"]).is_empty(),
        "what goes makes room for what comes"
    );
}

//! Deciding allocates nothing, whatever the answer.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::sync::Arc;

use allocation_counter::measure;
use meshwright_identity::SpiffeId;
use meshwright_policy::{
    Concerned, Connection, ConnectionFacts, Decision, Live, Mode, PolicyStore, Subject,
    proto::{
        Action, Authorization, Clause, Match, Rule, Scope, StringMatch, string_match::MatchType,
    },
};
use prost::Message;

/// Two thousand policies: every tenth denies one principal, the others allow beginnings of some.
fn store() -> (PolicyStore, meshwright_policy::PolicyReader) {
    let (mut store, reader) = PolicyStore::new(Mode::Strict);
    let policies: Vec<_> = (0..2000)
        .map(|number| {
            let id = format!("td/ns/n/sa/{number}");
            let (action, kind) = match number % 10 {
                0 => (Action::Deny, MatchType::Exact(id)),
                _ => (Action::Allow, MatchType::Prefix(id)),
            };
            let matching = Match {
                principals: vec![StringMatch {
                    match_type: Some(kind),
                }],
                ..Match::default()
            };
            let policy = Authorization {
                name: number.to_string(),
                namespace: "n".into(),
                scope: [Scope::Global, Scope::Namespace, Scope::WorkloadSelector][number % 3]
                    .into(),
                action: action.into(),
                rules: vec![Rule {
                    clauses: vec![Clause {
                        matches: vec![matching],
                    }],
                }],
                dry_run: false,
            };
            (format!("n/{number}"), policy.encode_to_vec())
        })
        .collect();
    let rejected = store.apply(
        policies
            .iter()
            .map(|(name, bytes)| (name.as_str(), bytes.as_slice())),
        [],
    );
    assert!(rejected.is_empty());
    (store, reader)
}

#[test]
fn no_decision_allocates() {
    let _trace = meshwright_testkit::trace();
    let (_store, reader) = store();
    let set = reader.set();
    let listed: Vec<Arc<str>> = ["n/2", "n/5", "n/20"].map(Arc::from).to_vec();
    let missing: Vec<Arc<str>> = ["n/2", "n/late"].map(Arc::from).to_vec();
    let mut answers = Vec::new();
    for (account, listed) in [
        ("7", &listed),
        ("30", &listed),
        ("20", &listed),
        ("x", &listed),
        ("7", &missing),
    ] {
        let id = SpiffeId::parse(&format!("spiffe://td/ns/n/sa/{account}")).unwrap();
        let destination = "10.0.0.2:80".parse().unwrap();
        let connection = Connection::new(
            Some(&id),
            [10, 0, 0, 1].into(),
            destination,
            Subject::new("n", listed),
        );
        // The first decision of a thread makes room for the reader's bookkeeping.
        drop(reader.decide(&connection));
        let mut decisions = [const { None }; 2];
        let counted = measure(|| {
            decisions = [
                Some(set.decide(&connection)),
                Some(reader.decide(&connection)),
            ];
        });
        assert_eq!(counted.count_total, 0, "account {account}");
        let [Some(decision), Some(same)] = decisions else {
            unreachable!()
        };
        assert_eq!(decision, same);
        answers.push(decision.to_string());
    }
    assert_eq!(
        answers,
        [
            "allowed",
            "denied: explicitly denied by: n/30",
            "denied: explicitly denied by: n/20",
            "denied: allow policies exist, but none allowed",
            "held: policy n/late has not arrived",
        ]
    );
    assert!(matches!(
        set.decide(&connection_without_identity()),
        Decision::Deny(_)
    ));
}

fn connection_without_identity() -> Connection<'static> {
    Connection::new(
        None,
        [10, 0, 0, 1].into(),
        ([10, 0, 0, 2], 80).into(),
        Subject::new("n", &[]),
    )
}

#[test]
fn judging_a_live_connection_again_allocates_for_the_list_only() {
    let _trace = meshwright_testkit::trace();
    let (_store, reader) = store();
    let live = Live::new(reader, |_uid: &str, judge: &mut dyn FnMut(Subject<'_>)| {
        judge(Subject::new("n", &[]));
    });
    let id = SpiffeId::parse("spiffe://td/ns/n/sa/7").unwrap();
    let admit = || {
        let facts = ConnectionFacts::new(
            Some(id.clone()),
            ([10, 0, 0, 1], 1).into(),
            ([10, 0, 0, 2], 80).into(),
            "w".into(),
        );
        live.admit(facts).unwrap()
    };
    let _kept: Vec<_> = (0..100).map(|_| admit()).collect();
    let counted = measure(|| assert_eq!(live.judge_again(Concerned::All).judged, 100));
    assert!(counted.count_total <= 4, "one list for all: {counted:?}");
}

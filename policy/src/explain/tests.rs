use std::sync::Arc;

use meshwright_identity::SpiffeId;
use prost::Message;

use crate::{
    Action, Connection, Explanation, Mode, PolicyStore, Subject,
    proto::{
        self, Authorization, Clause, Match, Rule, Scope, StringMatch, string_match::MatchType,
    },
};

fn principal(value: &str) -> Match {
    Match {
        principals: vec![StringMatch {
            match_type: Some(MatchType::Exact(value.into())),
        }],
        ..Match::default()
    }
}

fn ports(ports: &[u32]) -> Match {
    Match {
        destination_ports: ports.to_vec(),
        ..Match::default()
    }
}

fn rule(clauses: Vec<Match>) -> Rule {
    Rule {
        clauses: clauses
            .into_iter()
            .map(|matching| Clause {
                matches: vec![matching],
            })
            .collect(),
    }
}

fn policy(name: &str, action: proto::Action, rules: Vec<Rule>) -> Authorization {
    Authorization {
        name: name.into(),
        namespace: "n".into(),
        scope: Scope::Namespace.into(),
        action: action.into(),
        rules,
        dry_run: false,
    }
}

fn explain(policies: &[Authorization], caller: &str, port: u16) -> Explanation {
    let (mut store, reader) = PolicyStore::new(Mode::IstioCompatible);
    for policy in policies {
        let name = format!("{}/{}", policy.namespace, policy.name);
        store.apply([(name.as_str(), &*policy.encode_to_vec())], []);
    }
    let id = SpiffeId::parse(&format!("spiffe://{caller}")).unwrap();
    let listed: [Arc<str>; 0] = [];
    let destination = (std::net::Ipv4Addr::new(10, 0, 0, 2), port).into();
    reader.explain(&Connection::new(
        Some(&id),
        [10, 0, 0, 1].into(),
        destination,
        Subject::new("n", &listed),
    ))
}

#[test]
fn refusal_for_want_of_an_allow_names_the_nearest_rule_and_what_it_wanted() {
    let _trace = meshwright_testkit::trace();
    let far = rule(vec![ports(&[1]), principal("td/ns/n/sa/nobody")]);
    let near = rule(vec![ports(&[5000, 80]), principal("td/ns/n/sa/sleep")]);
    let explanation = explain(
        &[policy("hello", proto::Action::Allow, vec![far, near])],
        "td/ns/n/sa/notsleep",
        5000,
    );
    let miss = explanation.nearest_miss.as_ref().unwrap();
    assert_eq!(
        (&*miss.policy, miss.action, miss.rule, miss.failed.len()),
        ("n/hello", Action::Allow, 1, 1)
    );
    assert_eq!(
        (miss.failed[0].clause, miss.failed[0].field),
        (1, Some("principals"))
    );
    assert_eq!(
        explanation.to_string(),
        "denied: allow policies exist, but none allowed\n  \
         connection: td/ns/n/sa/notsleep at 10.0.0.1 to 10.0.0.2:5000\n  \
         applies: n/hello (ALLOW)\n  \
         nearest miss: n/hello (ALLOW), rule 1\n    \
         clause 1, match 0: principals td/ns/n/sa/sleep, but it is td/ns/n/sa/notsleep"
    );
}

#[test]
fn denial_names_policy_rule_and_what_matched() {
    let _trace = meshwright_testkit::trace();
    let rules = vec![
        rule(vec![ports(&[1])]),
        rule(vec![ports(&[80]), principal("td/ns/n/sa/x")]),
    ];
    let explanation = explain(
        &[policy("no", proto::Action::Deny, rules)],
        "td/ns/n/sa/x",
        80,
    );
    let by = explanation.by.as_ref().unwrap();
    assert_eq!(
        (&*by.policy, by.action, by.rule, &by.matches[..]),
        ("n/no", Action::Deny, 1, &[Some(0), Some(0)][..])
    );
    assert!(
        explanation
            .to_string()
            .contains("decided by: n/no (DENY), rule 1, clause 0 by match 0, clause 1 by match 0")
    );
}

#[test]
fn permission_names_the_rule_and_the_deny_that_nearly_matched() {
    let _trace = meshwright_testkit::trace();
    let allow = policy("yes", proto::Action::Allow, vec![Rule::default()]);
    let deny = policy(
        "no",
        proto::Action::Deny,
        vec![rule(vec![ports(&[81]), principal("td/ns/n/sa/x")])],
    );
    let mut dry = policy("dry", proto::Action::Deny, vec![Rule::default()]);
    dry.dry_run = true;
    let explanation = explain(&[allow, deny, dry], "td/ns/n/sa/x", 80);
    assert!(explanation.decision.is_allow());
    assert_eq!(&*explanation.by.as_ref().unwrap().policy, "n/yes");
    assert_eq!(
        explanation.nearest_miss.as_ref().unwrap().failed[0].field,
        Some("destination_ports")
    );
    assert_eq!(&*explanation.dry_run[0].policy, "n/dry");
    assert_eq!(explanation.applying.len(), 3);
}

#[test]
fn long_lists_of_alternatives_are_cut() {
    let _trace = meshwright_testkit::trace();
    let many: Vec<u32> = (1..100).collect();
    let explanation = explain(
        &[policy(
            "p",
            proto::Action::Allow,
            vec![rule(vec![ports(&many)])],
        )],
        "td/ns/n/sa/x",
        200,
    );
    assert_eq!(
        explanation.nearest_miss.unwrap().failed[0].wanted,
        "1, 2, 3, 4, 95 more"
    );
}

#[test]
fn stand_in_is_called_not_readable() {
    let _trace = meshwright_testkit::trace();
    let (mut store, reader) = PolicyStore::new(Mode::IstioCompatible);
    store.apply([("n/p", &[0xff][..])], []);
    let connection = Connection::new(
        None,
        [10, 0, 0, 1].into(),
        "10.0.0.2:80".parse().unwrap(),
        Subject::new("n", &[]),
    );
    let text = reader.explain(&connection).to_string();
    assert!(text.contains("applies: n/p (DENY, not readable)"), "{text}");
}

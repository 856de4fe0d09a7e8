#![allow(clippy::too_many_lines, reason = "tables of cases")]

use std::sync::Arc;

use meshwright_identity::SpiffeId;
use prost::Message;

use super::{Mode, PolicySet};
use crate::{
    Connection, Decision, Policy, Reason, Subject, convert,
    proto::{
        Action, Address, Authorization, Clause, Match, Rule, Scope, ServiceAccountMatch,
        StringMatch, string_match::MatchType,
    },
};

const SLEEP: &str = "spiffe://td/ns/n/sa/sleep";
const NO_WORKLOAD: &str = "spiffe://td/vm/7";

fn text(kind: MatchType) -> StringMatch {
    StringMatch {
        match_type: Some(kind),
    }
}

fn exact(value: &str) -> Vec<StringMatch> {
    vec![text(MatchType::Exact(value.into()))]
}

fn present() -> Vec<StringMatch> {
    vec![text(MatchType::Presence(()))]
}

fn clause(matches: Vec<Match>) -> Clause {
    Clause { matches }
}

/// A rule with one clause with one match.
fn rule(matching: Match) -> Rule {
    Rule {
        clauses: vec![clause(vec![matching])],
    }
}

fn on_port(port: u32) -> Match {
    Match {
        destination_ports: vec![port],
        ..Match::default()
    }
}

fn policy(name: &str, action: Action, rules: Vec<Rule>) -> Authorization {
    Authorization {
        name: name.into(),
        namespace: "n".into(),
        scope: Scope::Namespace.into(),
        action: action.into(),
        rules,
        dry_run: false,
    }
}

fn scoped(scope: Scope, mut policy: Authorization) -> Authorization {
    policy.scope = scope.into();
    policy
}

fn compiled(policy: &Authorization) -> Policy {
    convert(
        &format!("{}/{}", policy.namespace, policy.name),
        &policy.encode_to_vec(),
    )
    .unwrap()
}

fn set(mode: Mode, policies: &[Authorization]) -> PolicySet {
    PolicySet::new(mode, policies.iter().map(compiled))
}

/// Decides about a caller on port 80 of a workload in namespace `n`.
fn decide(set: &PolicySet, caller: Option<&str>, listed: &[&str]) -> Decision {
    let id = caller.map(|caller| SpiffeId::parse(caller).unwrap());
    let listed: Vec<Arc<str>> = listed.iter().copied().map(Arc::from).collect();
    let destination = "10.0.0.2:80".parse().unwrap();
    set.decide(&Connection::new(
        id.as_ref(),
        [10, 0, 0, 1].into(),
        destination,
        Subject::new("n", &listed),
    ))
}

fn text_of(decision: &Decision) -> String {
    decision.to_string()
}

const NOT_ALLOWED: &str = "denied: allow policies exist, but none allowed";

#[test]
fn deny_beats_allow_and_any_allow_refuses_the_rest() {
    let _trace = meshwright_testkit::trace();
    let everything = vec![Rule::default()];
    let allow = policy("allow", Action::Allow, everything);
    let deny = policy("deny", Action::Deny, vec![rule(on_port(80))]);
    let other_port = policy("other", Action::Allow, vec![rule(on_port(81))]);
    for mode in [Mode::IstioCompatible, Mode::Strict] {
        let decide =
            |policies: &[Authorization]| text_of(&decide(&set(mode, policies), Some(SLEEP), &[]));
        assert_eq!(decide(&[]), "allowed", "no policy applies");
        assert_eq!(decide(std::slice::from_ref(&allow)), "allowed");
        assert_eq!(
            decide(&[allow.clone(), deny.clone()]),
            "denied: explicitly denied by: n/deny"
        );
        assert_eq!(decide(std::slice::from_ref(&other_port)), NOT_ALLOWED);
        assert_eq!(
            decide(&[other_port.clone(), allow.clone()]),
            "allowed",
            "any ALLOW is enough"
        );
    }
}

#[test]
fn empties_mean_what_the_truth_table_says() {
    let _trace = meshwright_testkit::trace();
    let no_rules = Vec::new;
    let empty_rule = || vec![Rule::default()];
    let empty_clause = || {
        vec![Rule {
            clauses: vec![clause(Vec::new())],
        }]
    };
    let empty_match = || vec![rule(Match::default())];
    for (what, rules, istio, strict) in [
        // What it is, its rules, whether ALLOW allows and DENY denies; in both modes.
        ("no rules", no_rules(), (false, false), (false, false)),
        (
            "rule without clauses",
            empty_rule(),
            (true, true),
            (true, true),
        ),
        (
            "clause without matches",
            empty_clause(),
            (true, true),
            (false, true),
        ),
        (
            "match without conditions",
            empty_match(),
            (false, false),
            (false, true),
        ),
    ] {
        for (mode, (allows, denies)) in [(Mode::IstioCompatible, istio), (Mode::Strict, strict)] {
            let allow = set(mode, &[policy("p", Action::Allow, rules.clone())]);
            assert_eq!(
                decide(&allow, Some(SLEEP), &[]).is_allow(),
                allows,
                "ALLOW, {what}, {mode:?}"
            );
            let deny = set(mode, &[policy("p", Action::Deny, rules.clone())]);
            assert_eq!(
                !decide(&deny, Some(SLEEP), &[]).is_allow(),
                denies,
                "DENY, {what}, {mode:?}"
            );
        }
    }
}

#[test]
fn stripped_match_beside_another_leaves_the_other() {
    let _trace = meshwright_testkit::trace();
    let rules = |port| {
        vec![Rule {
            clauses: vec![clause(vec![Match::default(), on_port(port)])],
        }]
    };
    for (port, allowed) in [(80, false), (81, true)] {
        let set = set(
            Mode::IstioCompatible,
            &[policy("p", Action::Deny, rules(port))],
        );
        assert_eq!(decide(&set, Some(SLEEP), &[]).is_allow(), allowed);
    }
    // `from` is known, `to` was stripped: strict applies the part that is left.
    let half = Rule {
        clauses: vec![
            clause(vec![Match::default()]),
            clause(vec![Match {
                principals: exact("td/ns/n/sa/sleep"),
                ..Match::default()
            }]),
        ],
    };
    let deny = [policy("p", Action::Deny, vec![half])];
    assert!(decide(&set(Mode::IstioCompatible, &deny), Some(SLEEP), &[]).is_allow());
    assert!(!decide(&set(Mode::Strict, &deny), Some(SLEEP), &[]).is_allow());
    assert!(
        decide(
            &set(Mode::Strict, &deny),
            Some("spiffe://td/ns/n/sa/other"),
            &[]
        )
        .is_allow()
    );
}

#[test]
fn absent_identity_matches_negatives_and_never_positives() {
    let _trace = meshwright_testkit::trace();
    let account = || {
        vec![ServiceAccountMatch {
            namespace: "n".into(),
            service_account: "sleep".into(),
        }]
    };
    let positives = [
        Match {
            principals: exact("td/ns/n/sa/sleep"),
            ..Match::default()
        },
        Match {
            namespaces: exact("n"),
            ..Match::default()
        },
        Match {
            service_accounts: account(),
            ..Match::default()
        },
        Match {
            principals: vec![text(MatchType::Prefix("td/".into()))],
            ..Match::default()
        },
        Match {
            namespaces: vec![text(MatchType::Suffix("n".into()))],
            ..Match::default()
        },
    ];
    let negatives = [
        Match {
            not_principals: exact("x"),
            ..Match::default()
        },
        Match {
            not_namespaces: exact("x"),
            ..Match::default()
        },
        Match {
            not_service_accounts: account(),
            ..Match::default()
        },
    ];
    for (matching, matches) in positives
        .iter()
        .map(|m| (m, false))
        .chain(negatives.iter().map(|m| (m, true)))
    {
        let deny = [policy("p", Action::Deny, vec![rule(matching.clone())])];
        let allow = [policy("p", Action::Allow, vec![rule(matching.clone())])];
        let istio = |policies| set(Mode::IstioCompatible, policies);
        assert_eq!(
            decide(&istio(&allow), None, &[]).is_allow(),
            matches,
            "{matching:?}"
        );
        assert_eq!(
            decide(&istio(&deny), None, &[]).is_allow(),
            !matches,
            "{matching:?}"
        );
        let strict = |policies| set(Mode::Strict, policies);
        assert!(
            !decide(&strict(&allow), None, &[]).is_allow(),
            "strict: nothing is allowed by {matching:?}"
        );
        assert!(
            !decide(&strict(&deny), None, &[]).is_allow(),
            "strict: {matching:?} denies"
        );
    }
}

#[test]
fn presence_is_decided_by_the_identity_alone() {
    let _trace = meshwright_testkit::trace();
    let strict_mtls = Match {
        not_principals: present(),
        ..Match::default()
    };
    let mtls_only = Match {
        principals: present(),
        ..Match::default()
    };
    let workloads_only = Match {
        namespaces: present(),
        ..Match::default()
    };
    for mode in [Mode::IstioCompatible, Mode::Strict] {
        let deny = set(
            mode,
            &[policy("p", Action::Deny, vec![rule(strict_mtls.clone())])],
        );
        assert!(!decide(&deny, None, &[]).is_allow(), "plaintext");
        assert!(decide(&deny, Some(SLEEP), &[]).is_allow());
        assert!(
            decide(&deny, Some(NO_WORKLOAD), &[]).is_allow(),
            "mutual TLS without a workload's name"
        );
        let allow = set(
            mode,
            &[policy("p", Action::Allow, vec![rule(mtls_only.clone())])],
        );
        assert_eq!(
            [None, Some(SLEEP), Some(NO_WORKLOAD)].map(|id| decide(&allow, id, &[]).is_allow()),
            [false, true, true]
        );
        let allow = set(
            mode,
            &[policy(
                "p",
                Action::Allow,
                vec![rule(workloads_only.clone())],
            )],
        );
        assert_eq!(
            [None, Some(SLEEP), Some(NO_WORKLOAD)].map(|id| decide(&allow, id, &[]).is_allow()),
            [false, true, false]
        );
    }
}

#[test]
fn principals_compare_without_scheme() {
    let _trace = meshwright_testkit::trace();
    for (principal, allowed) in [
        ("td/ns/n/sa/sleep", true),
        ("spiffe://td/ns/n/sa/sleep", false),
        ("td/ns/n/sa/sleep/", false),
        ("TD/ns/n/sa/sleep", false),
        ("other/ns/n/sa/sleep", false),
    ] {
        let allow = Match {
            principals: exact(principal),
            ..Match::default()
        };
        let set = set(
            Mode::IstioCompatible,
            &[policy("p", Action::Allow, vec![rule(allow)])],
        );
        assert_eq!(
            decide(&set, Some(SLEEP), &[]).is_allow(),
            allowed,
            "{principal}"
        );
    }
}

#[test]
fn service_accounts_compare_in_every_trust_domain() {
    let _trace = meshwright_testkit::trace();
    let accounts = vec![ServiceAccountMatch {
        namespace: "n".into(),
        service_account: "sleep".into(),
    }];
    let allow = Match {
        service_accounts: accounts,
        ..Match::default()
    };
    let set = set(
        Mode::IstioCompatible,
        &[policy("p", Action::Allow, vec![rule(allow)])],
    );
    for (caller, allowed) in [
        (SLEEP, true),
        ("spiffe://other/ns/n/sa/sleep", true),
        ("spiffe://td/ns/m/sa/sleep", false),
        (NO_WORKLOAD, false),
    ] {
        assert_eq!(
            decide(&set, Some(caller), &[]).is_allow(),
            allowed,
            "{caller}"
        );
    }
}

#[test]
fn scope_says_where_a_policy_applies() {
    let _trace = meshwright_testkit::trace();
    let deny = |name, scope| scoped(scope, policy(name, Action::Deny, vec![Rule::default()]));
    let selector = set(Mode::IstioCompatible, &[deny("p", Scope::WorkloadSelector)]);
    assert!(decide(&selector, Some(SLEEP), &[]).is_allow(), "not listed");
    assert!(
        !decide(&selector, Some(SLEEP), &["n/p"]).is_allow(),
        "listed"
    );
    let mut elsewhere = deny("p", Scope::Namespace);
    elsewhere.namespace = "m".into();
    let namespace = set(Mode::IstioCompatible, std::slice::from_ref(&elsewhere));
    assert!(
        decide(&namespace, Some(SLEEP), &[]).is_allow(),
        "another namespace"
    );
    assert!(
        !decide(&namespace, Some(SLEEP), &["m/p"]).is_allow(),
        "another namespace's, but listed"
    );
    elsewhere.scope = Scope::Global.into();
    assert!(!decide(&set(Mode::IstioCompatible, &[elsewhere]), Some(SLEEP), &[]).is_allow());
}

#[test]
fn listed_policy_that_is_not_known_decides_nothing_unless_a_deny_does() {
    let _trace = meshwright_testkit::trace();
    let allow = scoped(
        Scope::WorkloadSelector,
        policy("allow", Action::Allow, vec![Rule::default()]),
    );
    let deny = policy("deny", Action::Deny, vec![Rule::default()]);
    let with = set(Mode::IstioCompatible, std::slice::from_ref(&allow));
    let listed = ["n/allow", "n/late", "n/later"];
    assert_eq!(
        decide(&with, Some(SLEEP), &listed),
        Decision::Unknown {
            policy: "n/late".into()
        }
    );
    let with = set(Mode::IstioCompatible, &[allow, deny]);
    assert_eq!(
        text_of(&decide(&with, Some(SLEEP), &listed)),
        "denied: explicitly denied by: n/deny"
    );
}

#[test]
fn dry_run_is_never_enforced() {
    let _trace = meshwright_testkit::trace();
    for (action, rules) in [
        (Action::Deny, vec![Rule::default()]),
        (Action::Allow, Vec::new()),
    ] {
        for scope in [Scope::Global, Scope::Namespace, Scope::WorkloadSelector] {
            let mut dry = scoped(scope, policy("dry", action, rules.clone()));
            dry.dry_run = true;
            let set = set(Mode::Strict, &[dry]);
            assert!(
                decide(&set, Some(SLEEP), &["n/dry"]).is_allow(),
                "{action:?} {scope:?}"
            );
            assert_eq!(set.len(), 1, "but it is known: listing it holds nothing");
        }
    }
}

#[test]
fn reason_is_the_first_in_order_whatever_the_order_of_arrival() {
    let _trace = meshwright_testkit::trace();
    let named = |name: &str, scope| {
        let rules = vec![rule(on_port(81)), rule(on_port(80)), Rule::default()];
        scoped(scope, policy(name, Action::Deny, rules))
    };
    let mut policies = vec![
        named("z", Scope::Global),
        named("y", Scope::Global),
        named("a", Scope::Namespace),
        named("b", Scope::WorkloadSelector),
    ];
    for _ in 0..policies.len() {
        policies.rotate_left(1);
        let decision = decide(
            &set(Mode::IstioCompatible, &policies),
            Some(SLEEP),
            &["n/b"],
        );
        let Decision::Deny(denied) = decision else {
            panic!("{decision}")
        };
        assert_eq!(
            (denied.policy.as_deref(), denied.reason),
            (Some("n/y"), Reason::Explicit { rule: 1 })
        );
    }
}

#[test]
fn address_families_are_compared_apart() {
    let _trace = meshwright_testkit::trace();
    let range = |address: &[u8], length| Address {
        address: address.to_vec().into(),
        length,
    };
    let everything_v6 = Match {
        source_ips: vec![range(&[0; 16], 0)],
        ..Match::default()
    };
    let set = set(
        Mode::IstioCompatible,
        &[policy("p", Action::Deny, vec![rule(everything_v6)])],
    );
    let from = |source: &str| {
        let destination = "10.0.0.2:80".parse().unwrap();
        set.decide(&Connection::new(
            None,
            source.parse().unwrap(),
            destination,
            Subject::new("n", &[]),
        ))
        .is_allow()
    };
    assert!(from("10.0.0.1"), "`::/0` is no IPv4 address");
    assert!(from("::ffff:10.0.0.1"), "nor a mapped one");
    assert!(!from("2001:db8::1"));
}

/// A hundred rules each in two lists of a thousand networks and texts: a connection that matches
/// none of them is refused after a few lookups, and compiling is quick.
#[test]
fn long_lists_are_searched_and_not_walked() {
    let _trace = meshwright_testkit::trace();
    let rules = |policy: u8| {
        (0..100_u8).map(move |number| {
            let principals =
                (0..1000).map(|n| text(MatchType::Prefix(format!("td/ns/{policy}-{number}-{n}/"))));
            let ips = (0..1000_u32).map(|n| Address {
                address: (n << 8 | 11 << 24).to_be_bytes().to_vec().into(),
                length: 24,
            });
            rule(Match {
                principals: principals.collect(),
                source_ips: ips.collect(),
                ..Match::default()
            })
        })
    };
    let policies: Vec<_> = (0..2)
        .map(|number| {
            policy(
                &format!("p{number}"),
                Action::Deny,
                rules(number).take(20).collect(),
            )
        })
        .collect();
    let set = set(Mode::IstioCompatible, &policies);
    assert!(
        decide(&set, Some("spiffe://td/ns/0-50-500/sa/x"), &[]).is_allow(),
        "the address fits nowhere"
    );
}

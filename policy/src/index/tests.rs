use std::sync::Arc;

use meshwright_identity::SpiffeId;
use prost::Message;

use super::{Search, Segment};
use crate::{
    Connection, Policy, Subject,
    connection::Facts,
    convert,
    matching::Unevaluable,
    proto::{Authorization, Clause, Match, Rule, StringMatch, string_match::MatchType},
};

fn principal(value: String) -> Vec<StringMatch> {
    vec![StringMatch {
        match_type: Some(MatchType::Exact(value)),
    }]
}

fn policies(matches: impl IntoIterator<Item = Match>) -> Box<[Arc<Policy>]> {
    let compile = |(number, matching): (usize, Match)| {
        let policy = Authorization {
            name: format!("{number:05}"),
            namespace: "n".into(),
            rules: vec![Rule {
                clauses: vec![Clause {
                    matches: vec![matching],
                }],
            }],
            ..Authorization::default()
        };
        Arc::new(convert(&format!("n/{number:05}"), &policy.encode_to_vec()).unwrap())
    };
    matches.into_iter().enumerate().map(compile).collect()
}

/// How many rules a connection shares a key with: those are evaluated.
fn candidates(segment: &Segment, caller: &str, port: u16) -> usize {
    let id = SpiffeId::parse(caller).unwrap();
    let destination = (std::net::Ipv4Addr::new(10, 0, 0, 2), port).into();
    let facts = Facts::new(&Connection::new(
        Some(&id),
        [10, 0, 0, 1].into(),
        destination,
        Subject::new("n", &[]),
    ));
    let mut count = 0;
    segment.probes.each_hash(&facts, &mut |hash| {
        count += segment.table.get(hash).len();
        true
    });
    count
}

#[test]
fn rules_are_filed_under_what_they_do_not_share() {
    let _trace = meshwright_testkit::trace();
    let by_principal = (0..1000).map(|number| Match {
        principals: principal(format!("td/ns/n/sa/{number}")),
        destination_ports: vec![80],
        ..Match::default()
    });
    let segment = Segment::new(policies(by_principal), Unevaluable::AsIstio);
    assert_eq!(
        candidates(&segment, "spiffe://td/ns/n/sa/7", 80),
        1,
        "not under the port of all"
    );
    let by_port = (0..1000).map(|number| Match {
        principals: principal("td/ns/n/sa/same".into()),
        destination_ports: vec![number],
        ..Match::default()
    });
    let segment = Segment::new(policies(by_port), Unevaluable::AsIstio);
    assert_eq!(
        candidates(&segment, "spiffe://td/ns/n/sa/same", 7),
        1,
        "not under the principal of all"
    );
}

#[test]
fn strict_mtls_costs_a_caller_with_an_identity_nothing() {
    let _trace = meshwright_testkit::trace();
    let present = StringMatch {
        match_type: Some(MatchType::Presence(())),
    };
    let strict = Match {
        not_principals: vec![present],
        ..Match::default()
    };
    let segment = Segment::new(policies(vec![strict; 100]), Unevaluable::Holds);
    assert_eq!(candidates(&segment, "spiffe://td/ns/n/sa/x", 80), 0);
}

#[test]
fn match_that_can_never_hold_is_not_filed() {
    let _trace = meshwright_testkit::trace();
    let segment = Segment::new(policies(vec![Match::default(); 10]), Unevaluable::AsIstio);
    assert_eq!(candidates(&segment, "spiffe://td/ns/n/sa/x", 80), 0);
    let segment = Segment::new(policies(vec![Match::default(); 10]), Unevaluable::Holds);
    assert_eq!(
        candidates(&segment, "spiffe://td/ns/n/sa/x", 80),
        10,
        "unless it is read strictly"
    );
}

#[test]
fn first_match_in_order_is_found_among_several_keys() {
    let _trace = meshwright_testkit::trace();
    let matches = [
        Match {
            destination_ports: vec![81],
            ..Match::default()
        },
        Match {
            destination_ports: vec![80],
            ..Match::default()
        },
        Match {
            principals: principal("td/ns/n/sa/x".into()),
            ..Match::default()
        },
    ];
    let segment = Segment::new(policies(matches), Unevaluable::AsIstio);
    let id = SpiffeId::parse("spiffe://td/ns/n/sa/x").unwrap();
    let destination = "10.0.0.2:80".parse().unwrap();
    let facts = Facts::new(&Connection::new(
        Some(&id),
        [10, 0, 0, 1].into(),
        destination,
        Subject::new("n", &[]),
    ));
    let search = Search {
        facts: &facts,
        unevaluable: Unevaluable::AsIstio,
        in_order: true,
    };
    let found = |is_live: &dyn Fn(u32) -> bool| {
        segment
            .find(&search, is_live)
            .map(|found| found.policy.name.to_string())
    };
    assert_eq!(found(&|_| true).as_deref(), Some("n/00001"));
    assert_eq!(
        found(&|position| position != 1).as_deref(),
        Some("n/00002"),
        "what is dead is skipped"
    );
}

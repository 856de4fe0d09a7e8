//! Policies and callers from a small world, so that conditions are met often.

use std::net::{IpAddr, SocketAddr};

use meshwright_identity::SpiffeId;
use meshwright_policy::proto::{
    Address, Authorization, Clause, Match, Rule, ServiceAccountMatch, StringMatch,
    string_match::MatchType,
};
use proptest::{collection::vec, option, prelude::*, sample::select};

#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) identity: Option<SpiffeId>,
    pub(crate) source: IpAddr,
    pub(crate) destination: SocketAddr,
    /// The workload's.
    pub(crate) namespace: String,
    /// Lengths of the names of policies that the workload lists.
    pub(crate) lists: Vec<usize>,
    pub(crate) lists_missing: bool,
}

const IDENTITIES: [&str; 7] = [
    "spiffe://td/ns/a/sa/x",
    "spiffe://td/ns/a/sa/y",
    "spiffe://td/ns/ab/sa/x",
    "spiffe://other/ns/b/sa/x",
    "spiffe://td/ns/b/sa/xx",
    "spiffe://td/vm/7",
    "spiffe://td",
];

const TEXTS: [&str; 12] = [
    "td/ns/a/sa/x",
    "td/ns/b/sa/xx",
    "td",
    "td/",
    "td/ns/a",
    "/sa/x",
    "x",
    "a",
    "b",
    "ab",
    "7",
    "spiffe://td/ns/a/sa/x",
];

const ADDRESSES: [&str; 8] = [
    "10.0.0.1",
    "10.0.1.1",
    "10.1.0.1",
    "192.0.2.9",
    "0.0.0.0",
    "2001:db8::1",
    "2001:db8:1::1",
    "::",
];

const PORTS: [u16; 4] = [80, 8080, 443, 0];

pub(crate) fn caller() -> impl Strategy<Value = Caller> {
    let address = || select(&ADDRESSES[..]).prop_map(|address| address.parse::<IpAddr>().unwrap());
    (
        option::weighted(0.8, select(&IDENTITIES[..])),
        address(),
        address(),
        select(&PORTS[..]),
        select(&["a", "b"][..]),
        vec(1..10_usize, 0..5),
        prop::bool::weighted(0.1),
    )
        .prop_map(
            |(identity, source, destination, port, namespace, lists, lists_missing)| Caller {
                identity: identity.map(|id| SpiffeId::parse(id).unwrap()),
                source,
                destination: SocketAddr::new(destination, port),
                namespace: namespace.to_owned(),
                lists,
                lists_missing,
            },
        )
}

/// Policies with different names.
pub(crate) fn policies(most: usize) -> impl Strategy<Value = Vec<Authorization>> {
    vec(authorization(), 0..most).prop_map(|mut policies| {
        for (number, policy) in policies.iter_mut().enumerate() {
            policy.name.push_str(&format!("{number:x}"));
        }
        policies
    })
}

pub(crate) fn authorization() -> impl Strategy<Value = Authorization> {
    // Few rules mostly, sometimes enough for an index of their own.
    let rules = prop_oneof![8 => vec(rule(), 0..4), 1 => vec(rule(), 17..40)];
    (
        select(&["p", "pp", "ppp"][..]),
        select(&["a", "b"][..]),
        0..3_i32,
        0..2_i32,
        rules,
        prop::bool::weighted(0.1),
    )
        .prop_map(
            |(name, namespace, scope, action, rules, dry_run)| Authorization {
                name: name.to_owned(),
                namespace: namespace.to_owned(),
                scope,
                action,
                rules,
                dry_run,
            },
        )
}

fn rule() -> impl Strategy<Value = Rule> {
    prop_oneof![1 => Just(Vec::new()), 12 => vec(clause(), 1..4)]
        .prop_map(|clauses| Rule { clauses })
}

fn clause() -> impl Strategy<Value = Clause> {
    prop_oneof![1 => Just(Vec::new()), 12 => vec(matching(), 1..4)]
        .prop_map(|matches| Clause { matches })
}

fn rarely<T: std::fmt::Debug + Clone>(
    value: impl Strategy<Value = T>,
) -> impl Strategy<Value = Vec<T>> {
    (vec(value, 1..4), prop::bool::weighted(0.15))
        .prop_map(|(list, given)| if given { list } else { Vec::new() })
}

fn matching() -> impl Strategy<Value = Match> {
    let texts = (
        rarely(text()),
        rarely(text()),
        rarely(text()),
        rarely(text()),
    );
    let addresses = (
        rarely(address()),
        rarely(address()),
        rarely(address()),
        rarely(address()),
    );
    let port = || select(&PORTS[..]).prop_map(u32::from);
    let rest = (
        rarely(port()),
        rarely(port()),
        rarely(account()),
        rarely(account()),
    );
    (texts, addresses, rest).prop_map(|(texts, addresses, rest)| Match {
        namespaces: texts.0,
        not_namespaces: texts.1,
        principals: texts.2,
        not_principals: texts.3,
        source_ips: addresses.0,
        not_source_ips: addresses.1,
        destination_ips: addresses.2,
        not_destination_ips: addresses.3,
        destination_ports: rest.0,
        not_destination_ports: rest.1,
        service_accounts: rest.2,
        not_service_accounts: rest.3,
    })
}

fn text() -> impl Strategy<Value = StringMatch> {
    let kind = prop_oneof![
        select(&TEXTS[..]).prop_map(|text| MatchType::Exact(text.to_owned())),
        select(&TEXTS[..]).prop_map(|text| MatchType::Prefix(text.to_owned())),
        select(&TEXTS[..]).prop_map(|text| MatchType::Suffix(text.to_owned())),
        Just(MatchType::Presence(())),
    ];
    kind.prop_map(|kind| StringMatch {
        match_type: Some(kind),
    })
}

fn address() -> impl Strategy<Value = Address> {
    (
        select(&ADDRESSES[..]),
        any::<prop::sample::Index>(),
        prop::bool::weighted(0.2),
    )
        .prop_map(
            |(address, length, maps)| match address.parse::<IpAddr>().unwrap() {
                IpAddr::V4(address) if maps => Address {
                    address: address.to_ipv6_mapped().octets().to_vec().into(),
                    length: 96 + length.index(33) as u32,
                },
                IpAddr::V4(address) => Address {
                    address: address.octets().to_vec().into(),
                    length: length.index(33) as u32,
                },
                IpAddr::V6(address) => Address {
                    address: address.octets().to_vec().into(),
                    length: length.index(129) as u32,
                },
            },
        )
}

fn account() -> impl Strategy<Value = ServiceAccountMatch> {
    (select(&["a", "b", "ab"][..]), select(&["x", "y", "xx"][..])).prop_map(|(namespace, name)| {
        ServiceAccountMatch {
            namespace: namespace.to_owned(),
            service_account: name.to_owned(),
        }
    })
}

//! One decision among 1, 100 and 10 000 policies, and one change of one policy.
//!
//! `cargo bench -p meshwright-policy --bench decide`; with `-- --test` each runs once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    reason = "a benchmark"
)]

use std::{hint::black_box, sync::Arc};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use meshwright_identity::SpiffeId;
use meshwright_policy::{Connection, Mode, PolicySet, PolicyStore, Subject, convert, proto};
use prost::Message;

const SIZES: [usize; 3] = [1, 100, 10_000];

fn principal(number: usize) -> String {
    format!("cluster.local/ns/shop/sa/client-{number}")
}

fn text(text: String) -> proto::StringMatch {
    proto::StringMatch {
        match_type: Some(proto::string_match::MatchType::Exact(text)),
    }
}

/// What the policies of a benchmark differ in.
#[derive(Clone, Copy)]
enum Shape {
    /// Each lets in one principal on one port.
    Principals,
    /// Each lets in one network, of different sizes.
    Networks,
    /// Each lets in everything below a beginning of a principal.
    Prefixes,
}

fn policy(shape: Shape, number: usize) -> (String, Vec<u8>) {
    let mut matching = proto::Match::default();
    match shape {
        Shape::Principals => {
            matching.principals = vec![text(principal(number))];
            matching.destination_ports = vec![8080];
        }
        Shape::Networks => {
            let [_, a, b, c] = (number as u32).to_be_bytes();
            let address = vec![10, b, c, a];
            let length = 24 + number as u32 % 9;
            matching.source_ips = vec![proto::Address {
                address: address.into(),
                length,
            }];
        }
        Shape::Prefixes => {
            let prefix = proto::string_match::MatchType::Prefix(principal(number));
            matching.principals = vec![proto::StringMatch {
                match_type: Some(prefix),
            }];
        }
    }
    let policy = proto::Authorization {
        name: format!("policy-{number}"),
        namespace: "shop".to_owned(),
        scope: proto::Scope::Namespace.into(),
        rules: vec![proto::Rule {
            clauses: vec![proto::Clause {
                matches: vec![matching],
            }],
        }],
        ..proto::Authorization::default()
    };
    (format!("shop/policy-{number}"), policy.encode_to_vec())
}

fn set(shape: Shape, size: usize) -> PolicySet {
    let policies = (0..size).map(|number| {
        let (name, bytes) = policy(shape, number);
        convert(&name, &bytes).unwrap()
    });
    PolicySet::new(Mode::IstioCompatible, policies)
}

fn decide(criterion: &mut Criterion) {
    let shapes = [
        ("principals", Shape::Principals),
        ("networks", Shape::Networks),
        ("prefixes", Shape::Prefixes),
    ];
    for (name, shape) in shapes {
        let mut group = criterion.benchmark_group(format!("decide/{name}"));
        for size in SIZES {
            let set = set(shape, size);
            let id = |number| SpiffeId::parse(&format!("spiffe://{}", principal(number))).unwrap();
            let destination = "10.0.0.9:8080".parse().unwrap();
            let subject = Subject::new("shop", &[]);
            let (known, stranger) = (id(size / 2), id(size + 1_000_000));
            let source = |last: u8| std::net::IpAddr::from([10, 0, last, 0]);
            let allowed = Connection::new(Some(&known), source(0), destination, subject);
            let denied = Connection::new(
                Some(&stranger),
                [172, 16, 0, 1].into(),
                destination,
                subject,
            );
            group.bench_function(BenchmarkId::new("allowed", size), |bencher| {
                bencher.iter(|| black_box(set.decide(black_box(&allowed))));
            });
            group.bench_function(BenchmarkId::new("denied", size), |bencher| {
                bencher.iter(|| black_box(set.decide(black_box(&denied))));
            });
        }
        group.finish();
    }
}

/// A workload that lists a few of ten thousand selector policies.
fn listed(criterion: &mut Criterion) {
    let policies = (0..10_000).map(|number| {
        let (name, bytes) = policy(Shape::Principals, number);
        let mut policy = proto::Authorization::decode(&*bytes).unwrap();
        policy.scope = proto::Scope::WorkloadSelector.into();
        convert(&name, &policy.encode_to_vec()).unwrap()
    });
    let set = PolicySet::new(Mode::IstioCompatible, policies);
    let listed: Vec<Arc<str>> = (0..4)
        .map(|number| format!("shop/policy-{}", number * 2000).into())
        .collect();
    let id = SpiffeId::parse(&format!("spiffe://{}", principal(6000))).unwrap();
    let destination = "10.0.0.9:8080".parse().unwrap();
    let connection = Connection::new(
        Some(&id),
        [10, 0, 0, 1].into(),
        destination,
        Subject::new("shop", &listed),
    );
    criterion.bench_function("decide/four listed of 10000", |bencher| {
        bencher.iter(|| black_box(set.decide(black_box(&connection))));
    });
}

fn change(criterion: &mut Criterion) {
    let all: Vec<_> = (0..10_000)
        .map(|number| policy(Shape::Principals, number))
        .collect();
    criterion.bench_function("apply/first 10000", |bencher| {
        bencher.iter(|| {
            let (mut store, _reader) = PolicyStore::new(Mode::IstioCompatible);
            store.apply(
                all.iter()
                    .map(|(name, bytes)| (name.as_str(), bytes.as_slice())),
                [],
            )
        });
    });
    let (mut store, _reader) = PolicyStore::new(Mode::IstioCompatible);
    store.apply(
        all.iter()
            .map(|(name, bytes)| (name.as_str(), bytes.as_slice())),
        [],
    );
    let mut number = 0;
    criterion.bench_function("apply/one of 10000", |bencher| {
        bencher.iter(|| {
            number = (number + 7919) % all.len();
            all.get(number)
                .map(|(name, bytes)| store.apply([(name.as_str(), bytes.as_slice())], []))
        });
    });
}

criterion_group!(benches, decide, listed, change);
criterion_main!(benches);

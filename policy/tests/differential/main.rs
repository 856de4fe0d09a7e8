//! The engine decides like the reference, whatever the policies.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod generate;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use generate::{Caller, authorization, caller, policies};
use meshwright_policy::{
    Connection, Decision, Mode, Policy, PolicySet, PolicyStore, Subject, convert, proto, reference,
};
use proptest::prelude::*;
use prost::Message;

const MODES: [Mode; 2] = [Mode::IstioCompatible, Mode::Strict];

fn compile(policies: &[proto::Authorization]) -> Vec<Policy> {
    let convert = |policy: &proto::Authorization| {
        let name = format!("{}/{}", policy.namespace, policy.name);
        convert(&name, &policy.encode_to_vec()).expect("a generated policy converts")
    };
    policies.iter().map(convert).collect()
}

fn connection<'a>(caller: &'a Caller, listed: &'a [Arc<str>]) -> Connection<'a> {
    let subject = Subject::new(&caller.namespace, listed);
    Connection::new(
        caller.identity.as_ref(),
        caller.source,
        caller.destination,
        subject,
    )
}

fn listed(caller: &Caller, policies: &[proto::Authorization]) -> Vec<Arc<str>> {
    let names = policies
        .iter()
        .filter(|policy| caller.lists.contains(&policy.name.len()));
    let names = names.map(|policy| format!("{}/{}", policy.namespace, policy.name));
    let missing = caller.lists_missing.then(|| "a/missing".to_owned());
    names.rev().chain(missing).map(Arc::from).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(160) })]

    #[test]
    fn engine_decides_like_the_reference(policies in policies(12), callers in prop::collection::vec(caller(), 1..6)) {
        let _trace = meshwright_testkit::trace();
        for mode in MODES {
            let set = PolicySet::new(mode, compile(&policies));
            for caller in &callers {
                let listed = listed(caller, &policies);
                let connection = connection(caller, &listed);
                let expected = reference::decide(&policies, &connection, mode);
                prop_assert_eq!(set.decide(&connection), expected.clone(), "{:?} for {:?}", mode, caller);
                let explanation = set.explain(&connection);
                prop_assert_eq!(&explanation.decision, &expected, "explain says the same");
                let names_a_rule = matches!(expected, Decision::Deny(ref denied) if denied.policy.is_some());
                prop_assert!(!names_a_rule || explanation.by.is_some(), "a denial by a rule names it");
                prop_assert!(!explanation.to_string().is_empty());
            }
        }
    }

    #[test]
    fn further_deny_policy_never_allows_more(policies in policies(8), mut extra in authorization(), caller in caller()) {
        let _trace = meshwright_testkit::trace();
        extra.action = proto::Action::Deny.into();
        extra.name = "extra".to_owned();
        let mut more = policies.clone();
        more.push(extra);
        let listed = listed(&caller, &more);
        let connection = connection(&caller, &listed);
        for mode in MODES {
            let with = PolicySet::new(mode, compile(&more)).decide(&connection);
            if with.is_allow() {
                // Without it, the workload cannot list it either.
                let listed: Vec<_> = listed.iter().filter(|name| !name.ends_with("/extra")).cloned().collect();
                let subject = Subject::new(&caller.namespace, &listed);
                let mut connection = connection;
                connection.workload = subject;
                prop_assert!(PolicySet::new(mode, compile(&policies)).decide(&connection).is_allow());
            }
        }
    }

    #[test]
    fn strict_never_allows_more_than_istio_compatible(policies in policies(8), caller in caller()) {
        let _trace = meshwright_testkit::trace();
        let listed = listed(&caller, &policies);
        let connection = connection(&caller, &listed);
        if PolicySet::new(Mode::Strict, compile(&policies)).decide(&connection).is_allow() {
            prop_assert!(PolicySet::new(Mode::IstioCompatible, compile(&policies)).decide(&connection).is_allow());
        }
    }

    #[test]
    fn mapped_address_is_the_address(policies in policies(8), mut caller in caller()) {
        let _trace = meshwright_testkit::trace();
        let set = PolicySet::new(Mode::IstioCompatible, compile(&policies));
        let listed = listed(&caller, &policies);
        let plain = set.decide(&connection(&caller, &listed));
        let mapped = |address: IpAddr| match address {
            IpAddr::V4(address) => IpAddr::V6(address.to_ipv6_mapped()),
            address => address,
        };
        caller.source = mapped(caller.source);
        caller.destination.set_ip(mapped(caller.destination.ip()));
        prop_assert_eq!(set.decide(&connection(&caller, &listed)), plain);
    }

    /// However the policies came in, one by one, replaced and removed: what counts is what is there.
    #[test]
    fn history_does_not_matter(
        steps in prop::collection::vec((authorization(), any::<bool>(), 1..4_usize), 1..120),
        callers in prop::collection::vec(caller(), 1..4),
    ) {
        let _trace = meshwright_testkit::trace();
        let (mut store, reader) = PolicyStore::new(Mode::Strict);
        let mut now: BTreeMap<String, proto::Authorization> = BTreeMap::new();
        for (policy, removes, batch) in &steps {
            let name = format!("{}/{}", policy.namespace, policy.name);
            if *removes {
                now.remove(&name);
                store.apply([], [name.as_str()]);
                continue;
            }
            let copies: Vec<_> = (0..*batch).map(|number| {
                let mut copy = policy.clone();
                copy.name.push_str(&"-".repeat(number));
                copy
            }).collect();
            let bytes: Vec<_> = copies.iter().map(|copy| (format!("{}/{}", copy.namespace, copy.name), copy.encode_to_vec())).collect();
            let rejected = store.apply(bytes.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())), []);
            prop_assert!(rejected.is_empty());
            now.extend(copies.into_iter().map(|copy| (format!("{}/{}", copy.namespace, copy.name), copy)));
        }
        let policies: Vec<_> = now.into_values().collect();
        prop_assert_eq!(reader.set().len(), policies.len());
        for caller in &callers {
            let listed = listed(caller, &policies);
            let connection = connection(caller, &listed);
            prop_assert_eq!(reader.decide(&connection), reference::decide(&policies, &connection, Mode::Strict));
        }
    }

    #[test]
    fn bytes_that_convert_mean_what_a_decoder_reads(mut bytes in authorization().prop_map(|policy| policy.encode_to_vec()), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), caller in caller()) {
        let _trace = meshwright_testkit::trace();
        for (index, value) in flips {
            if !bytes.is_empty() {
                let place = index.index(bytes.len());
                bytes[place] = value;
            }
        }
        let Ok(decoded) = proto::Authorization::decode(&*bytes) else {
            prop_assert!(convert("a/p", &bytes).is_err(), "what does not decode does not convert");
            return Ok(());
        };
        let name = format!("{}/{}", decoded.namespace, decoded.name);
        if let Ok(policy) = convert(&name, &bytes) {
            let connection = connection(&caller, &[]);
            let expected = reference::decide(&[decoded], &connection, Mode::IstioCompatible);
            prop_assert_eq!(PolicySet::new(Mode::IstioCompatible, [policy]).decide(&connection), expected);
        }
    }
}

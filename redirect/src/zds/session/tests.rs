//! The protocol against recordings of Istio's agent, and what breaks it.

use super::{AgentSession, ProxySession, Reaction};
use crate::netns::Netns;
use crate::zds::message::{BadMessage, Order, PodInfo};
use meshwright_testkit::assert_chain_says_each_thing_once;
use proptest::prelude::{any, prop, proptest};
use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::OwnedFd;

fn recorded(name: &str) -> Vec<Json> {
    let path = format!("{}/tests/data/zds/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn bytes(line: &Json) -> Vec<u8> {
    let hex = line["hex"].as_str().unwrap();
    let pairs = hex.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn own_namespace() -> OwnedFd {
    File::open("/proc/self/ns/net").unwrap().into()
}

fn add(uid: &str, info: PodInfo) -> Order {
    Order::Add {
        uid: uid.to_owned(),
        info,
        netns: Netns::current().unwrap(),
    }
}

/// What a recorded line of the agent says, as our own value.
fn order_of(line: &Json) -> Order {
    let field = |name: &str| line["fields"][name].as_str().unwrap_or_default().to_owned();
    let uid = field("uid");
    match line["kind"].as_str().unwrap() {
        "Add" => add(
            &uid,
            PodInfo::new(field("name"), field("namespace"), field("service_account")),
        ),
        "Del" => Order::Del { uid },
        "KeepIfExists" => Order::Keep { uid },
        "SnapshotSent" => Order::SnapshotSent,
        other => panic!("{other}"),
    }
}

#[test]
fn recorded_agent_is_understood_by_our_proxy_and_spoken_by_our_agent() {
    let _trace = meshwright_testkit::trace();
    for file in ["conversation.jsonl", "reboot.jsonl"] {
        let lines = recorded(file);
        let proxies: BTreeSet<_> = lines.iter().filter_map(|l| l["proxy"].as_str()).collect();
        for proxy in proxies {
            let mut session = ProxySession::new(Vec::new());
            let from_agent = lines
                .iter()
                .filter(|l| l["proxy"] == proxy && l["direction"] == "from agent");
            for line in from_agent {
                let fds = usize::try_from(line["fds"].as_u64().unwrap()).unwrap();
                let descriptors = (0..fds).map(|_| own_namespace()).collect();
                let wanted = order_of(line);
                match session.receive(&bytes(line), descriptors, false) {
                    Reaction::Deliver(order) => assert_eq!(order, wanted),
                    Reaction::Refuse(bad) => panic!("{line}: {bad}"),
                }
                // Our agent's bytes are Istio's, bit for bit.
                let mut agent = AgentSession::default();
                agent.push(wanted, ());
                let outgoing = agent.next_packet().unwrap();
                assert_eq!(outgoing.bytes, bytes(line), "{line}");
                assert_eq!(usize::from(outgoing.netns.is_some()), fds);
            }
        }
    }
}

#[test]
fn recorded_proxy_is_understood_by_our_agent_and_spoken_by_our_proxy() {
    let _trace = meshwright_testkit::trace();
    let lines = recorded("conversation.jsonl");
    for line in lines.iter().filter(|l| l["direction"] == "to agent") {
        match line["kind"].as_str().unwrap() {
            "Hello" => {
                // Version 2 is served like version 1. One proxy was made to say nonsense.
                let bytes = bytes(line);
                let is_hello = bytes.first() == Some(&0x08);
                let greeted = AgentSession::<()>::greeted(&bytes, &[], false);
                assert_eq!(greeted.is_ok(), is_hello, "{line}");
            }
            "Ack" => {
                assert_eq!(ProxySession::answer(Ok(())), bytes(line));
                let mut agent = AgentSession::default();
                agent.push(Order::SnapshotSent, 7);
                assert!(agent.next_packet().is_some());
                let answer = agent.received(&bytes(line), &[], false).unwrap();
                assert_eq!((answer.ticket, answer.outcome), (7, Ok(())));
            }
            "Ack with error" => {
                let text = "could not start the proxy";
                assert_eq!(ProxySession::answer(Err(text)), bytes(line));
                let mut agent = AgentSession::default();
                agent.push(Order::SnapshotSent, ());
                assert!(agent.next_packet().is_some());
                let answer = agent.received(&bytes(line), &[], false).unwrap();
                assert_eq!(answer.outcome, Err(text.to_owned()));
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!(ProxySession::hello(), [0x08, 0x01]);
}

fn refused(session: &mut ProxySession, bytes: &[u8], fds: Vec<OwnedFd>) -> BadMessage {
    match session.receive(bytes, fds, false) {
        Reaction::Refuse(bad) => bad,
        Reaction::Deliver(order) => panic!("{order:?} was delivered"),
    }
}

fn packet(order: Order) -> Vec<u8> {
    let mut agent = AgentSession::default();
    agent.push(order, ());
    agent.next_packet().unwrap().bytes
}

#[test]
fn keep_and_del_are_fine_before_the_snapshot_and_keep_is_not_after() {
    let _trace = meshwright_testkit::trace();
    let uid = || "u".to_owned();
    let keep = packet(Order::Keep { uid: uid() });
    let del = packet(Order::Del { uid: uid() });
    let end = packet(Order::SnapshotSent);
    let mut session = ProxySession::new(Vec::new());
    for bytes in [&keep, &del, &end, &del] {
        let reaction = session.receive(bytes, Vec::new(), false);
        assert!(matches!(reaction, Reaction::Deliver(_)));
    }
    let second = refused(&mut session, &end, Vec::new());
    assert!(matches!(second, BadMessage::SecondSnapshot));
    let late = refused(&mut session, &keep, Vec::new());
    assert!(matches!(late, BadMessage::KeepAfterSnapshot));
    assert!(!second.ends_connection() && !late.ends_connection());
}

#[test]
fn add_carries_exactly_one_descriptor_and_nothing_else_carries_any() {
    let _trace = meshwright_testkit::trace();
    let mut session = ProxySession::new(Vec::new());
    let add = packet(add("u", PodInfo::new("p", "n", "s")));
    for (count, bytes) in [(0, &add), (2, &add), (1, &packet(Order::SnapshotSent))] {
        let fds = (0..count).map(|_| own_namespace()).collect();
        let bad = refused(&mut session, bytes, fds);
        assert!(matches!(bad, BadMessage::WrongDescriptors { got, .. } if got == count));
        assert!(!bad.ends_connection(), "packets keep their borders");
    }
}

#[test]
fn descriptor_must_be_a_network_namespace_and_not_our_own() {
    let _trace = meshwright_testkit::trace();
    let own = Netns::current().unwrap();
    let mut session = ProxySession::new(vec![own.id()]);
    let bytes = packet(add("u", PodInfo::new("p", "n", "s")));
    let file = File::open("/dev/null").unwrap().into();
    let bad = refused(&mut session, &bytes, vec![file]);
    assert!(matches!(bad, BadMessage::Namespace { .. }));
    let bad = refused(&mut session, &bytes, vec![own_namespace()]);
    assert!(matches!(bad, BadMessage::OwnNamespace));
}

#[test]
fn incomplete_and_unknown_messages_are_refused_without_ending_the_connection() {
    let _trace = meshwright_testkit::trace();
    let mut session = ProxySession::new(Vec::new());
    // add { uid: "u" } without workload info; add with empty uid; payload 9 of a newer version.
    let no_info = [0x0a, 3, 0x0a, 1, b'u'];
    let bad = refused(&mut session, &no_info, vec![own_namespace()]);
    assert!(matches!(bad, BadMessage::MissingInfo));
    let no_uid = packet(add("", PodInfo::new("p", "n", "s")));
    let bad = refused(&mut session, &no_uid, vec![own_namespace()]);
    assert!(matches!(bad, BadMessage::MissingUid));
    let newer = [0x4a, 0];
    let bad = refused(&mut session, &newer, vec![own_namespace()]);
    assert!(matches!(bad, BadMessage::UnknownPayload));
    assert!(!bad.ends_connection());
}

#[test]
fn truncated_and_unreadable_packets_end_the_connection() {
    let _trace = meshwright_testkit::trace();
    let mut session = ProxySession::new(Vec::new());
    let bytes = packet(Order::SnapshotSent);
    let Reaction::Refuse(bad) = session.receive(&bytes, Vec::new(), true) else {
        panic!("a truncated packet is refused");
    };
    assert!(bad.ends_connection());
    assert!(refused(&mut session, &[0xff, 0xff], Vec::new()).ends_connection());
    let reaction = session.receive(&bytes, Vec::new(), false);
    assert!(
        matches!(reaction, Reaction::Deliver(_)),
        "the snapshot was not counted"
    );
}

#[test]
fn agent_has_one_message_outstanding_and_answers_keep_their_order() {
    let _trace = meshwright_testkit::trace();
    let mut agent = AgentSession::default();
    let del = |uid: &str| Order::Del {
        uid: uid.to_owned(),
    };
    agent.push(del("a"), 1);
    agent.push(del("b"), 2);
    assert!(agent.next_packet().is_some());
    assert!(agent.next_packet().is_none(), "the first is unanswered");
    let ack = ProxySession::answer(Ok(()));
    assert_eq!(agent.received(&ack, &[], false).unwrap().ticket, 1);
    assert!(agent.next_packet().is_some());
    let refusal = ProxySession::answer(Err(""));
    let answer = agent.received(&refusal, &[], false).unwrap();
    assert_eq!((answer.ticket, answer.outcome.is_err()), (2, true));
    assert!(
        agent.received(&ack, &[], false).is_err(),
        "nothing was asked"
    );
}

#[test]
fn long_refusals_fit_into_a_packet_of_istio() {
    let _trace = meshwright_testkit::trace();
    let text = "ü".repeat(2000);
    assert!(ProxySession::answer(Err(&text)).len() <= 1024);
}

#[test]
fn error_chains_say_each_thing_once() {
    let _trace = meshwright_testkit::trace();
    let mut session = ProxySession::new(Vec::new());
    assert_chain_says_each_thing_once(&refused(&mut session, &[0xff], Vec::new()));
    let file = File::open("/dev/null").unwrap().into();
    let bytes = packet(add("u", PodInfo::new("p", "n", "s")));
    assert_chain_says_each_thing_once(&refused(&mut session, &bytes, vec![file]));
}

proptest! {
    #[test]
    fn no_bytes_make_either_end_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut proxy = ProxySession::new(Vec::new());
        let _reaction = proxy.receive(&bytes, Vec::new(), false);
        if let Ok(mut agent) = AgentSession::greeted(&bytes, &[], false) {
            agent.push(Order::SnapshotSent, ());
            let _answer = agent.received(&bytes, &[], false);
        }
    }
}

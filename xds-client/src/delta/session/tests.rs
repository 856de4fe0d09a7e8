use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{Interest, Notice, Received, Session, SessionConfig, Verdict, Want};
use crate::{
    handler::{Rejected, Update},
    proto::discovery::{
        Any, DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Resource as WireResource,
    },
};

#[cfg(feature = "server")]
mod replay;

const TYPE: &str = "type.example.com/a";
const BAD: &[u8] = b"bad";
const COVERED: &[u8] = b"covered";

/// A client's end: the session, and what its handler has applied.
struct End {
    session: Session,
    applied: BTreeMap<String, Vec<u8>>,
    updates: usize,
}

impl End {
    fn new(interest: Interest, config: SessionConfig) -> Self {
        let node = Node {
            id: "me".to_owned(),
            ..Node::default()
        };
        let mut session = Session::new(node, config);
        session.subscribe(TYPE, interest);
        Self {
            session,
            applied: BTreeMap::new(),
            updates: 0,
        }
    }

    fn all() -> Self {
        Self::new(Interest::All, SessionConfig::default())
    }

    fn opens(&mut self, now: u64) -> DeltaDiscoveryRequest {
        self.session.open(Duration::from_secs(now)).remove(0)
    }

    fn gets(&mut self, response: DeltaDiscoveryResponse, now: u64) -> Received {
        let (applied, updates) = (&mut self.applied, &mut self.updates);
        let mut apply = |_: &str, update: Update<'_>| apply(applied, updates, update);
        self.session
            .receive(response, Duration::from_secs(now), &mut apply)
    }

    fn ticks(&mut self, now: u64) -> Vec<Notice> {
        let (applied, updates) = (&mut self.applied, &mut self.updates);
        let mut apply = |_: &str, update: Update<'_>| apply(applied, updates, update);
        self.session.tick(Duration::from_secs(now), &mut apply)
    }

    fn has(&self) -> Vec<&str> {
        self.applied.keys().map(String::as_str).collect()
    }
}

fn apply(
    applied: &mut BTreeMap<String, Vec<u8>>,
    updates: &mut usize,
    update: Update<'_>,
) -> Vec<Rejected> {
    *updates += 1;
    let mut rejected = Vec::new();
    for resource in update.resources {
        if resource.body == BAD {
            rejected.push(Rejected::new(Arc::clone(&resource.name), "it is bad"));
        } else if resource.body == COVERED {
            rejected.push(Rejected::new(Arc::clone(&resource.name), "it is bad").covered());
        } else {
            applied.insert(resource.name.to_string(), resource.body.to_vec());
        }
    }
    for name in update.removed {
        applied.remove(&**name);
    }
    rejected
}

fn resource(name: &str, version: &str, body: &[u8]) -> WireResource {
    WireResource {
        name: name.to_owned(),
        version: version.to_owned(),
        resource: Some(Any {
            type_url: TYPE.to_owned(),
            value: body.to_vec().into(),
        }),
        ..WireResource::default()
    }
}

fn response(resources: Vec<WireResource>, removed: &[&str]) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        resources,
        type_url: TYPE.to_owned(),
        nonce: "n1".to_owned(),
        removed_resources: removed.iter().map(ToString::to_string).collect(),
        ..DeltaDiscoveryResponse::default()
    }
}

fn good(names: &[&str]) -> DeltaDiscoveryResponse {
    let resources = names.iter().map(|name| resource(name, "1", b"x"));
    response(resources.collect(), &[])
}

fn refusal(received: &Received) -> String {
    let reply = received.reply.as_ref().unwrap();
    reply
        .error_detail
        .as_ref()
        .map(|e| e.message.clone())
        .unwrap()
}

#[test]
fn first_request_subscribes_to_everything_and_carries_the_node() {
    let _trace = meshwright_testkit::trace();
    let first = End::all().opens(0);
    assert_eq!(first.node.unwrap().id, "me");
    assert_eq!(
        (first.type_url.as_str(), first.response_nonce.as_str()),
        (TYPE, "")
    );
    assert!(first.resource_names_subscribe.is_empty());
    assert!(first.initial_resource_versions.is_empty());
}

#[test]
fn good_response_is_accepted_under_its_nonce_without_the_node() {
    let _trace = meshwright_testkit::trace();
    let mut end = End::all();
    end.opens(0);
    let received = end.gets(good(&["a", "b"]), 1);
    assert_eq!(received.verdict, Verdict::Accepted);
    let reply = received.reply.unwrap();
    assert_eq!((reply.response_nonce.as_str(), reply.node), ("n1", None));
    assert_eq!(reply.error_detail, None);
    assert!(reply.resource_names_subscribe.is_empty());
    assert_eq!(end.has(), ["a", "b"]);
    assert!(end.session.is_complete());
}

#[test]
fn refusal_names_exactly_the_bad_ones_and_the_good_ones_apply() {
    let _trace = meshwright_testkit::trace();
    let mut end = End::all();
    end.opens(0);
    let mut other = resource("other", "1", b"x");
    other.resource.as_mut().unwrap().type_url = "type.example.com/z".to_owned();
    let mut empty = resource("empty", "1", b"x");
    empty.resource = None;
    let resources = vec![
        resource("a", "1", b"x"),
        resource("b", "1", BAD),
        other,
        empty,
        resource("", "1", b"x"),
        resource(&"n".repeat(5000), "1", b"x"),
    ];
    let received = end.gets(response(resources, &[]), 1);
    let message = refusal(&received);
    assert!(!message.contains("a: "), "{message}");
    for part in [
        "b: it is bad",
        "other: its type is `type.example.com/z`",
        "empty: a resource without a body",
        ": a resource without a name",
        "nnn…: its name is longer than 4096 bytes",
    ] {
        assert!(message.contains(part), "{part} in {message}");
    }
    assert_eq!(end.has(), ["a"]);
    assert!(
        !end.session.is_complete(),
        "the first state is not complete"
    );
    let again = end.gets(good(&["b"]), 2);
    assert_eq!(again.verdict, Verdict::Accepted);
    assert!(end.session.is_complete());
}

#[test]
fn rejected_resource_that_is_covered_does_not_keep_a_first_state_from_being_complete() {
    let _trace = meshwright_testkit::trace();
    let mut end = End::all();
    end.opens(0);
    let resources = vec![resource("a", "1", b"x"), resource("b", "1", COVERED)];
    let received = end.gets(response(resources, &[]), 1);
    assert_eq!(
        refusal(&received),
        "b: it is bad",
        "it is refused all the same"
    );
    assert!(end.session.is_complete());
}

#[test]
fn unknown_type_is_neither_applied_nor_acknowledged() {
    let _trace = meshwright_testkit::trace();
    let mut end = End::all();
    end.opens(0);
    let mut unknown = good(&["a"]);
    unknown.type_url = "type.example.com/unknown".to_owned();
    let received = end.gets(unknown, 1);
    assert_eq!(received.verdict, Verdict::UnknownType);
    assert_eq!(received.reply, None);
    assert_eq!(end.updates, 0);
}

#[test]
fn response_without_nonce_is_applied_and_not_answered() {
    let _trace = meshwright_testkit::trace();
    let mut end = End::all();
    end.opens(0);
    let mut odd = good(&["a"]);
    odd.nonce.clear();
    let received = end.gets(odd, 1);
    assert_eq!(
        (received.verdict, received.reply),
        (Verdict::Accepted, None)
    );
    assert_eq!(end.has(), ["a"]);
}

#[test]
fn repeated_nonce_changes_nothing_twice() {
    let _trace = meshwright_testkit::trace();
    let mut end = End::all();
    end.opens(0);
    end.gets(good(&["a"]), 1);
    let again = end.gets(good(&["a"]), 1);
    assert_eq!(again.reply.unwrap().response_nonce, "n1");
    assert_eq!(end.has(), ["a"]);
}

#[test]
fn new_stream_tells_what_is_known_but_not_what_was_refused() {
    let _trace = meshwright_testkit::trace();
    let mut end = End::all();
    end.opens(0);
    let first = vec![
        resource("a", "1", b"x"),
        resource("b", "1", b"x"),
        resource("c", "1", BAD),
        resource("d", "", b"x"),
    ];
    end.gets(response(first, &[]), 1);
    end.gets(response(vec![resource("b", "2", BAD)], &[]), 2);
    end.session.close();
    let told = end.opens(3).initial_resource_versions;
    let told: Vec<(&str, &str)> = told.iter().map(|(n, v)| (&**n, &**v)).collect();
    assert_eq!(told, [("a", "1"), ("d", "")]);
    assert_eq!(
        end.has(),
        ["a", "b", "d"],
        "state is kept while disconnected"
    );
}

#[test]
fn what_the_server_lists_as_removed_after_a_break_goes_and_the_rest_stays() {
    let _trace = meshwright_testkit::trace();
    let mut end = End::all();
    end.opens(0);
    end.gets(good(&["a", "b", "c"]), 1);
    end.session.close();
    end.opens(2);
    end.gets(response(vec![resource("c", "2", b"y")], &["b"]), 3);
    assert_eq!(end.has(), ["a", "c"], "a was confirmed by silence");
    assert_eq!(end.ticks(1000), []);
    assert_eq!(end.has(), ["a", "c"]);
}

#[test]
fn resource_that_was_not_told_and_not_sent_again_goes_after_a_quiet_while() {
    let _trace = meshwright_testkit::trace();
    let mut end = End::all();
    end.opens(0);
    end.gets(good(&["a", "b", "c"]), 1);
    let refused = ["b", "c"].map(|name| resource(name, "2", BAD));
    end.gets(response(refused.to_vec(), &[]), 1);
    end.session.close();
    end.opens(10);
    assert_eq!(end.ticks(12), [], "no answer yet: nothing is stale");
    end.gets(response(vec![resource("c", "2", BAD)], &[]), 12);
    assert_eq!(end.session.deadline(), Some(Duration::from_secs(17)));
    end.ticks(16);
    assert_eq!(
        end.has(),
        ["a", "b", "c"],
        "a first state may come in several messages"
    );
    end.ticks(17);
    assert_eq!(
        end.has(),
        ["a", "c"],
        "c was sent, though refused: its last good version stays"
    );
    assert_eq!(end.session.deadline(), None);
}

/// A handler may have put something in the place of a first version that it refused.
#[test]
fn refused_first_version_goes_when_the_server_lost_it_during_a_break() {
    let _trace = meshwright_testkit::trace();
    let mut end = End::all();
    end.opens(0);
    end.gets(response(vec![resource("a", "1", BAD)], &[]), 1);
    end.applied.insert("a".to_owned(), b"stands in".to_vec());
    end.session.close();
    assert!(end.opens(2).initial_resource_versions.is_empty());
    end.gets(response(Vec::new(), &[]), 3);
    end.ticks(7);
    assert_eq!(end.has(), ["a"], "the server may still send it");
    end.ticks(8);
    assert_eq!(end.has(), [""; 0]);
}

#[test]
fn server_that_is_never_quiet_does_not_keep_what_is_gone_for_ever() {
    let _trace = meshwright_testkit::trace();
    let mut end = End::all();
    end.opens(0);
    end.gets(good(&["a", "b"]), 1);
    end.gets(response(vec![resource("b", "2", BAD)], &[]), 1);
    end.session.close();
    end.opens(10);
    for now in 10..70 {
        end.gets(good(&["a"]), now);
        end.ticks(now);
        assert_eq!(
            end.has(),
            ["a", "b"],
            "at {now} s the state may still be arriving"
        );
    }
    end.gets(good(&["a"]), 70);
    end.ticks(70);
    assert_eq!(end.has(), ["a"]);
}

#[test]
fn malformed_resource_is_refused_and_the_others_apply() {
    let _trace = meshwright_testkit::trace();
    let mut end = End::all();
    end.opens(0);
    let mut bytes = vec![0x12, 1, 0xff];
    bytes.extend(prost::Message::encode_to_vec(&good(&["a"])));
    let message = super::Response::decode([bytes.into()]).unwrap();
    let mut apply = |_: &str, update: Update<'_>| {
        assert!(update.resources.map(|r| r.name).eq(["a".into()]));
        Vec::new()
    };
    let received = end
        .session
        .receive(message, Duration::from_secs(1), &mut apply);
    assert!(refusal(&received).contains("a malformed resource"));
    assert!(!end.session.is_complete());
}

#[test]
fn first_request_of_a_large_mesh_stays_below_its_limit_and_the_rest_is_reconciled() {
    let _trace = meshwright_testkit::trace();
    let config = SessionConfig {
        max_request_bytes: 1000,
        ..SessionConfig::default()
    };
    let mut end = End::new(Interest::All, config);
    end.opens(0);
    let names: Vec<String> = (0..200).map(|n| format!("resource-{n:03}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    end.gets(good(&names), 1);
    end.session.close();
    let request = end.opens(2);
    assert!(prost::Message::encoded_len(&request) < 1100);
    let told = request.initial_resource_versions;
    let untold = names.iter().filter(|name| !told.contains_key(**name));
    // The server sends all it was not told of, but one that is gone.
    let sent: Vec<&str> = untold.copied().skip(1).collect();
    end.gets(good(&sent), 3);
    end.ticks(8);
    assert_eq!(end.applied.len(), 199);
}

#[test]
fn update_and_removal_of_one_name_in_one_message_ends_removed() {
    let _trace = meshwright_testkit::trace();
    let mut end = End::all();
    end.opens(0);
    end.gets(response(vec![resource("a", "1", b"x")], &["a"]), 1);
    assert_eq!(end.has(), [""; 0]);
    end.session.close();
    assert!(end.opens(2).initial_resource_versions.is_empty());
}

#[test]
fn odd_removals_are_harmless() {
    let _trace = meshwright_testkit::trace();
    let mut end = End::all();
    end.opens(0);
    let long = "x".repeat(1 << 20);
    let received = end.gets(
        response(Vec::new(), &["never", "", "a\0b", "///", &long]),
        1,
    );
    assert_eq!(received.verdict, Verdict::Accepted);
}

#[test]
fn number_of_resources_is_bounded_and_the_excess_is_named() {
    let _trace = meshwright_testkit::trace();
    let config = SessionConfig {
        max_resources: 2,
        ..SessionConfig::default()
    };
    let mut end = End::new(Interest::All, config);
    end.opens(0);
    let received = end.gets(good(&["a", "b", "c"]), 1);
    assert_eq!(refusal(&received), "c: more than 2 resources of this type");
    assert_eq!(
        end.gets(good(&["a"]), 2).verdict,
        Verdict::Accepted,
        "known ones may change"
    );
    end.gets(response(Vec::new(), &["a"]), 3);
    assert_eq!(end.gets(good(&["c"]), 4).verdict, Verdict::Accepted);
}

#[test]
fn resource_ends_with_its_time_to_live_unless_it_is_prolonged() {
    let _trace = meshwright_testkit::trace();
    let mut end = End::all();
    end.opens(0);
    let ttl = |mut r: WireResource, seconds| {
        r.ttl = Some(prost_types::Duration { seconds, nanos: 0 });
        r
    };
    let mortal = ["a", "b", "c"].map(|name| ttl(resource(name, "1", b"x"), 10));
    end.gets(response(mortal.to_vec(), &[]), 0);
    let mut heartbeat = ttl(resource("a", "1", b""), 10);
    heartbeat.resource = None;
    assert_eq!(
        end.gets(response(vec![heartbeat], &[]), 5).verdict,
        Verdict::Accepted
    );
    end.gets(response(vec![resource("b", "2", b"x")], &[]), 5);
    assert_eq!(end.session.deadline(), Some(Duration::from_secs(10)));
    end.ticks(10);
    assert_eq!(end.has(), ["a", "b"], "b became immortal");
    end.ticks(15);
    assert_eq!(end.has(), ["b"]);
    let mut stray = ttl(resource("b", "1", b""), 10);
    stray.resource = None;
    let received = end.gets(response(vec![stray], &[]), 16);
    assert_eq!(refusal(&received), "b: a resource without a body");
}

#[test]
fn type_without_an_answer_is_told_once_per_stream() {
    let _trace = meshwright_testkit::trace();
    let mut end = End::all();
    end.opens(100);
    assert_eq!(end.session.deadline(), Some(Duration::from_secs(115)));
    assert_eq!(end.ticks(114), []);
    let overdue = |waited| {
        vec![Notice::Overdue {
            type_url: TYPE.into(),
            waited: Duration::from_secs(waited),
        }]
    };
    assert_eq!(end.ticks(115), overdue(15));
    assert_eq!(end.ticks(200), []);
    end.session.close();
    end.opens(200);
    assert_eq!(end.ticks(216), overdue(16));
    end.session.close();
    end.opens(300);
    end.gets(good(&[]), 301);
    assert_eq!(end.ticks(400), []);
}

#[test]
fn name_is_answered_by_primary_name_or_alias_or_as_missing() {
    let _trace = meshwright_testkit::trace();
    let mut end = End::new(Interest::Named, SessionConfig::default());
    let first = end.opens(0);
    assert_eq!(first.resource_names_subscribe, ["*"]);
    assert_eq!(first.resource_names_unsubscribe, ["*"]);
    assert!(end.session.is_complete(), "nothing is wanted as a whole");
    for name in ["a", "net/10.0.0.1", "none"] {
        let Want::Ask(Some(request)) = end.session.want(TYPE, name) else {
            panic!("{name} is not asked for");
        };
        assert_eq!(request.resource_names_subscribe, [name]);
        assert_eq!(end.session.want(TYPE, name), Want::Waiting);
    }
    let mut aliased = resource("b", "1", b"x");
    aliased.aliases = vec!["net/10.0.0.1".to_owned()];
    let received = end.gets(
        response(vec![resource("a", "1", b"x"), aliased], &["none"]),
        1,
    );
    let answered: Vec<(&str, bool)> = received.answered.iter().map(|(n, e)| (&**n, *e)).collect();
    assert_eq!(
        answered,
        [("a", true), ("net/10.0.0.1", true), ("none", false)]
    );
    assert_eq!(end.session.want(TYPE, "net/10.0.0.1"), Want::Known(true));
    end.gets(response(Vec::new(), &["b"]), 2);
    assert_eq!(end.session.want(TYPE, "net/10.0.0.1"), Want::Known(false));
    end.gets(good(&["none"]), 3);
    assert_eq!(end.session.want(TYPE, "none"), Want::Known(true));
}

#[test]
fn names_are_asked_for_again_on_a_new_stream() {
    let _trace = meshwright_testkit::trace();
    let mut end = End::new(Interest::Named, SessionConfig::default());
    assert_eq!(
        end.session.want(TYPE, "a"),
        Want::Ask(None),
        "there is no stream yet"
    );
    assert_eq!(end.opens(0).resource_names_subscribe, ["*", "a"]);
    end.gets(good(&["a"]), 1);
    end.session.close();
    let again = end.opens(2);
    assert_eq!(again.resource_names_subscribe, ["*", "a"]);
    assert_eq!(again.initial_resource_versions.len(), 1);
}

#[test]
fn names_asked_for_are_bounded() {
    let _trace = meshwright_testkit::trace();
    let config = SessionConfig {
        max_wanted: 1,
        ..SessionConfig::default()
    };
    let mut end = End::new(Interest::Named, config);
    assert_eq!(end.session.want(TYPE, &"x".repeat(5000)), Want::Refused);
    assert_eq!(end.session.want(TYPE, "a"), Want::Ask(None));
    assert_eq!(end.session.want(TYPE, "b"), Want::Refused);
    assert_eq!(end.session.want("type.example.com/z", "a"), Want::Refused);
    assert_eq!(End::all().session.want(TYPE, "a"), Want::Refused);
}

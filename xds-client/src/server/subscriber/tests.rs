use std::collections::BTreeMap;

use super::Subscriber;
use crate::{
    proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
    server::{Resources, ServedResource},
};

const TYPE: &str = "type.example.com/a";
const OTHER: &str = "type.example.com/b";

fn resources(names: &[&str]) -> Resources {
    let resources = Resources::new();
    for name in names {
        put(&resources, name, "1");
    }
    resources
}

fn put(resources: &Resources, name: &str, body: &str) {
    let alias = format!("alias-of-{name}");
    let resource = ServedResource::new(name, body.to_owned()).alias(alias);
    resources.set(TYPE, resource);
}

fn request(subscribe: &[&str], unsubscribe: &[&str]) -> DeltaDiscoveryRequest {
    let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    DeltaDiscoveryRequest {
        type_url: TYPE.to_owned(),
        resource_names_subscribe: owned(subscribe),
        resource_names_unsubscribe: owned(unsubscribe),
        ..DeltaDiscoveryRequest::default()
    }
}

fn resuming(versions: &[(&str, &str)]) -> DeltaDiscoveryRequest {
    let versions = versions.iter().map(|(n, v)| (n.to_string(), v.to_string()));
    DeltaDiscoveryRequest {
        initial_resource_versions: versions.collect::<BTreeMap<_, _>>(),
        ..request(&[], &[])
    }
}

/// A client's end of a stream.
struct Stream {
    resources: Resources,
    subscriber: Subscriber,
}

impl Stream {
    fn new(resources: &Resources) -> Self {
        Self {
            resources: resources.clone(),
            subscriber: Subscriber::default(),
        }
    }

    fn asks(&mut self, request: DeltaDiscoveryRequest) -> Option<(Vec<String>, Vec<String>)> {
        let state = self.resources.lock();
        let response = self.subscriber.on_request(&state, request).unwrap();
        response.map(summary)
    }

    fn sees(&mut self) -> Vec<(Vec<String>, Vec<String>)> {
        let state = self.resources.lock();
        let responses = self.subscriber.on_change(&state);
        responses.into_iter().map(summary).collect()
    }
}

fn summary(response: DeltaDiscoveryResponse) -> (Vec<String>, Vec<String>) {
    assert!(!response.nonce.is_empty());
    let bodies = response
        .resources
        .iter()
        .map(|r| r.resource.as_ref().unwrap());
    assert!(
        bodies
            .clone()
            .all(|body| body.type_url == response.type_url)
    );
    let names = response.resources.into_iter().map(|r| r.name);
    (names.collect(), response.removed_resources)
}

fn just(names: &[&str]) -> (Vec<String>, Vec<String>) {
    both(names, &[])
}

fn both(names: &[&str], removed: &[&str]) -> (Vec<String>, Vec<String>) {
    let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    (owned(names), owned(removed))
}

#[test]
fn wildcard_gets_everything_then_only_differences() {
    let _trace = meshwright_testkit::trace();
    let set = resources(&["a", "b"]);
    let mut stream = Stream::new(&set);
    assert_eq!(stream.asks(request(&[], &[])), Some(just(&["a", "b"])));
    assert_eq!(stream.sees(), []);
    put(&set, "a", "1");
    assert_eq!(stream.sees(), [], "an equal resource is no change");
    put(&set, "a", "2");
    set.remove(TYPE, "b");
    put(&set, "c", "1");
    assert_eq!(stream.sees(), [both(&["a", "c"], &["b"])]);
    put(&set, "d", "1");
    set.remove(TYPE, "d");
    assert_eq!(stream.sees(), [], "what came and went was never seen");
}

#[test]
fn first_request_is_answered_even_with_nothing() {
    let _trace = meshwright_testkit::trace();
    let set = Resources::new();
    assert_eq!(Stream::new(&set).asks(request(&[], &[])), Some(just(&[])));
    let on_demand = request(&["*"], &["*"]);
    assert_eq!(Stream::new(&set).asks(on_demand), Some(just(&[])));
}

#[test]
fn returning_client_gets_what_it_lacks_and_hears_what_is_gone() {
    let _trace = meshwright_testkit::trace();
    let set = resources(&["a", "b"]);
    let version = ServedResource::new("a", "1").alias("alias-of-a").version();
    let mut stream = Stream::new(&set);
    let known = resuming(&[("a", &version), ("b", "old"), ("gone", "x")]);
    assert_eq!(stream.asks(known), Some(both(&["b"], &["gone"])));
}

#[test]
fn type_without_versions_is_sent_again_in_full() {
    let _trace = meshwright_testkit::trace();
    let set = resources(&["a"]);
    set.unversioned(TYPE);
    let known = resuming(&[("a", ""), ("gone", "")]);
    let mut stream = Stream::new(&set);
    let response = stream
        .subscriber
        .on_request(&set.lock(), known)
        .unwrap()
        .unwrap();
    assert_eq!(response.resources[0].version, "");
    assert_eq!(summary(response), both(&["a"], &["gone"]));
}

#[test]
fn on_demand_client_gets_names_and_aliases_it_asks_for_and_nothing_else() {
    let _trace = meshwright_testkit::trace();
    let set = resources(&["a", "b", "c"]);
    let mut stream = Stream::new(&set);
    assert_eq!(stream.asks(request(&["*"], &["*"])), Some(just(&[])));
    assert_eq!(
        stream.asks(request(&["alias-of-a"], &[])),
        Some(just(&["a"]))
    );
    assert_eq!(
        stream.asks(request(&["none"], &[])),
        Some(both(&[], &["none"]))
    );
    put(&set, "b", "2");
    assert_eq!(stream.sees(), [], "nobody asked for it");
    put(&set, "a", "2");
    put(&set, "none", "1");
    assert_eq!(
        stream.sees(),
        [just(&["a", "none"])],
        "both names stay subscribed"
    );
    set.remove(TYPE, "a");
    assert_eq!(stream.sees(), [both(&[], &["a"])], "by its primary name");
    assert_eq!(stream.asks(request(&[], &["none"])), None);
    put(&set, "none", "2");
    assert_eq!(stream.sees(), []);
}

#[test]
fn name_asked_for_again_is_sent_again() {
    let _trace = meshwright_testkit::trace();
    let set = resources(&["a"]);
    let mut stream = Stream::new(&set);
    assert_eq!(stream.asks(request(&["a"], &[])), Some(just(&["a"])));
    assert_eq!(stream.asks(request(&["a"], &[])), Some(just(&["a"])));
}

#[test]
fn acknowledgement_calls_for_nothing() {
    let _trace = meshwright_testkit::trace();
    let set = resources(&["a"]);
    let mut stream = Stream::new(&set);
    stream.asks(request(&[], &[]));
    let ack = DeltaDiscoveryRequest {
        response_nonce: "1".to_owned(),
        ..request(&[], &[])
    };
    assert_eq!(stream.asks(ack), None);
}

#[test]
fn stream_far_behind_compares_everything() {
    let _trace = meshwright_testkit::trace();
    let set = resources(&["a", "b"]);
    let mut stream = Stream::new(&set);
    stream.asks(request(&[], &[]));
    set.remove(TYPE, "b");
    for n in 0..20_000 {
        set.set(OTHER, ServedResource::new("x", n.to_string()));
    }
    assert_eq!(stream.sees(), [both(&[], &["b"])]);
}

#[test]
fn replaced_set_is_one_change() {
    let _trace = meshwright_testkit::trace();
    let set = resources(&["a", "b"]);
    let mut stream = Stream::new(&set);
    stream.asks(request(&[], &[]));
    let next = ["b", "c"].map(|n| ServedResource::new(n, "1").alias(format!("alias-of-{n}")));
    set.replace(TYPE, next);
    assert_eq!(stream.sees(), [both(&["c"], &["a"])]);
    assert_eq!(set.names(TYPE).len(), 2);
}

#[test]
fn client_that_wants_too_many_types_is_refused() {
    let _trace = meshwright_testkit::trace();
    let set = Resources::new();
    let mut subscriber = Subscriber::default();
    let state = set.lock();
    let mut ask = |n: usize| {
        let type_url = n.to_string();
        subscriber.on_request(
            &state,
            DeltaDiscoveryRequest {
                type_url,
                ..request(&[], &[])
            },
        )
    };
    assert!((0..64).all(|n| ask(n).is_ok()));
    assert!(ask(64).is_err());
}

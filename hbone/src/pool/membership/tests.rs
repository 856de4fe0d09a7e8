use super::{Bounds, Checkout, Id, Membership};
use meshwright_testkit::trace;
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};

fn membership(streams: usize, connections: usize, per_key: usize) -> Membership<&'static str> {
    Membership::new(Bounds {
        streams,
        connections,
        per_key,
    })
}

fn dial(membership: &mut Membership<&'static str>, key: &'static str) -> Id {
    match membership.checkout(&key, false) {
        Checkout::Dial(id) => id,
        other => panic!("expected a dial, got {other:?}"),
    }
}

#[test]
fn requests_join_a_dial_under_way() {
    let _trace = trace();
    let mut pool = membership(10, 9, 9);
    let id = dial(&mut pool, "a");
    assert_eq!(pool.checkout(&"a", false), Checkout::Join(id));
    assert_eq!(pool.established(id, 10), 2, "both get a stream");
    assert_eq!(pool.checkout(&"a", false), Checkout::Use(id));
    assert_eq!(pool.streams(), 3);
}

#[test]
fn another_connection_is_dialed_when_the_dial_cannot_carry_more() {
    let _trace = trace();
    let mut pool = membership(2, 9, 9);
    let first = dial(&mut pool, "a");
    assert_eq!(pool.checkout(&"a", false), Checkout::Join(first));
    let second = dial(&mut pool, "a");
    assert_ne!(first, second);
}

#[test]
fn waiting_requests_beyond_the_peers_limit_ask_again() {
    let _trace = trace();
    let mut pool = membership(10, 9, 9);
    let id = dial(&mut pool, "a");
    for _ in 0..4 {
        pool.checkout(&"a", false);
    }
    assert_eq!(pool.established(id, 3), 3, "the peer takes three");
    assert!(matches!(pool.checkout(&"a", false), Checkout::Dial(_)));
}

#[test]
fn saturated_connection_is_used_again_when_a_stream_has_ended() {
    let _trace = trace();
    let mut pool = membership(1, 9, 9);
    let id = dial(&mut pool, "a");
    pool.established(id, 1);
    let second = dial(&mut pool, "a");
    pool.established(second, 1);
    pool.stream_ended(id);
    assert_eq!(pool.checkout(&"a", false), Checkout::Use(id));
}

#[test]
fn fullest_connection_is_used_so_that_others_run_empty() {
    let _trace = trace();
    let mut pool = membership(3, 9, 9);
    let first = dial(&mut pool, "a");
    pool.established(first, 1);
    let second = dial(&mut pool, "a");
    pool.established(second, 3);
    pool.checkout(&"a", false);
    pool.stream_ended(first);
    assert_eq!(pool.checkout(&"a", false), Checkout::Use(second));
}

#[test]
fn connection_that_refused_a_stream_takes_as_many_as_it_had() {
    let _trace = trace();
    let mut pool = membership(10, 9, 9);
    let id = dial(&mut pool, "a");
    pool.established(id, 10);
    pool.checkout(&"a", false);
    assert!(!pool.refused(id), "it still has a stream");
    pool.stream_ended(id);
    let second = dial(&mut pool, "a");
    pool.established(second, 10);
    pool.stream_ended(id);
    pool.remove(second);
    assert_eq!(pool.checkout(&"a", false), Checkout::Use(id));
    assert!(pool.refused(id), "one that takes none at all is of no use");
    assert!(matches!(pool.checkout(&"a", false), Checkout::Dial(_)));
}

#[test]
fn removed_connection_gets_no_more_requests() {
    let _trace = trace();
    let mut pool = membership(10, 9, 9);
    let id = dial(&mut pool, "a");
    pool.established(id, 10);
    pool.remove(id);
    assert_eq!((pool.len(), pool.streams()), (0, 0));
    pool.stream_ended(id);
    assert!(matches!(pool.checkout(&"a", false), Checkout::Dial(_)));
}

#[test]
fn least_recently_used_idle_connection_makes_room() {
    let _trace = trace();
    let mut pool = membership(10, 2, 2);
    let (a, b) = (dial(&mut pool, "a"), dial(&mut pool, "b"));
    pool.established(a, 10);
    pool.established(b, 10);
    assert_eq!(
        pool.checkout(&"c", false),
        Checkout::Full,
        "both are in use"
    );
    pool.stream_ended(b);
    pool.stream_ended(a);
    pool.checkout(&"a", false);
    pool.stream_ended(a);
    match pool.checkout(&"c", false) {
        Checkout::DialInsteadOf { idle, .. } => assert_eq!(idle, b),
        other => panic!("expected room to be made, got {other:?}"),
    }
    assert_eq!(pool.len(), 2);
}

#[test]
fn one_key_cannot_take_more_than_its_share() {
    let _trace = trace();
    let mut pool = membership(1, 9, 2);
    dial(&mut pool, "a");
    dial(&mut pool, "a");
    assert_eq!(pool.checkout(&"a", false), Checkout::Full);
    dial(&mut pool, "b");
}

#[test]
fn refusal_is_forgotten_when_the_peers_limit_is_looked_at_again() {
    let _trace = trace();
    let mut pool = membership(10, 9, 9);
    let id = dial(&mut pool, "a");
    pool.established(id, 10);
    assert_eq!(pool.checkout(&"a", false), Checkout::Use(id));
    assert!(!pool.refused(id));
    pool.stream_ended(id);
    assert!(matches!(pool.checkout(&"a", false), Checkout::Dial(_)));
    pool.limit(id, 2);
    assert_eq!(pool.checkout(&"a", false), Checkout::Use(id));
    assert!(matches!(pool.checkout(&"a", false), Checkout::Join(_)));
}

#[test]
fn new_connection_is_dialed_beside_one_with_room_as_long_as_there_is_space() {
    let _trace = trace();
    let mut pool = membership(9, 9, 2);
    let old = dial(&mut pool, "a");
    pool.established(old, 9);
    let new = match pool.checkout(&"a", true) {
        Checkout::Dial(id) => id,
        other => panic!("expected a dial, got {other:?}"),
    };
    assert_eq!(pool.checkout(&"a", true), Checkout::Join(new));
    pool.established(new, 9);
    assert!(matches!(pool.checkout(&"a", true), Checkout::Use(_)));
}

#[derive(Clone, Debug)]
enum Event {
    Request(u8),
    Established(usize, usize),
    StreamEnded(usize),
    Remove(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0_u8..6).prop_map(Event::Request),
        2 => (0_usize..20, 1_usize..5).prop_map(|(n, cap)| Event::Established(n, cap)),
        2 => (0_usize..20).prop_map(Event::StreamEnded),
        1 => (0_usize..20).prop_map(Event::Remove),
    ]
}

proptest! {
    /// Whatever happens, a connection serves the key it was dialed for and no other, no bound is
    /// exceeded, and the counts are those of a naive model.
    #[test]
    fn connections_are_never_shared_across_keys(events in prop::collection::vec(event(), 0..300)) {
        let bounds = Bounds { streams: 4, connections: 6, per_key: 3 };
        let mut pool: Membership<u8> = Membership::new(bounds);
        let mut keys: HashMap<Id, u8> = HashMap::new();
        let mut open: HashMap<Id, (usize, usize)> = HashMap::new();
        let mut waiting: HashMap<Id, usize> = HashMap::new();
        let mut gone: HashSet<Id> = HashSet::new();
        let mut ids: Vec<Id> = Vec::new();
        for event in events {
            let pick = |n: usize| (!ids.is_empty()).then(|| ids[n % ids.len()]);
            match event {
                Event::Request(key) => match pool.checkout(&key, false) {
                    Checkout::Use(id) => {
                        prop_assert_eq!(keys[&id], key, "shared across keys");
                        prop_assert!(!gone.contains(&id));
                        let (streams, cap) = open.get_mut(&id).unwrap();
                        *streams += 1;
                        prop_assert!(*streams <= *cap, "over its cap");
                    }
                    Checkout::Join(id) => {
                        prop_assert_eq!(keys[&id], key, "joined across keys");
                        *waiting.get_mut(&id).unwrap() += 1;
                    }
                    Checkout::Dial(id) => {
                        keys.insert(id, key);
                        waiting.insert(id, 1);
                        ids.push(id);
                    }
                    Checkout::DialInsteadOf { dial, idle } => {
                        prop_assert_eq!(open.remove(&idle).map(|(streams, _)| streams), Some(0));
                        gone.insert(idle);
                        keys.insert(dial, key);
                        waiting.insert(dial, 1);
                        ids.push(dial);
                    }
                    Checkout::Full => {}
                },
                Event::Established(n, cap) => if let Some(id) = pick(n) {
                    let served = pool.established(id, cap);
                    if let Some(count) = waiting.remove(&id) {
                        prop_assert_eq!(served, count.min(cap));
                        open.insert(id, (served, cap));
                    } else {
                        prop_assert_eq!(served, 0);
                    }
                },
                Event::StreamEnded(n) => if let Some(id) = pick(n) {
                    pool.stream_ended(id);
                    if let Some((streams, _)) = open.get_mut(&id) {
                        *streams = streams.saturating_sub(1);
                    }
                },
                Event::Remove(n) => if let Some(id) = pick(n) {
                    pool.remove(id);
                    open.remove(&id);
                    waiting.remove(&id);
                    gone.insert(id);
                },
            }
            prop_assert!(pool.len() <= bounds.connections);
            prop_assert_eq!(pool.len(), open.len() + waiting.len());
            prop_assert_eq!(pool.streams(), open.values().map(|(streams, _)| streams).sum::<usize>());
        }
    }
}

//! The session against the server half, through random histories.

use std::collections::BTreeMap;

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop, prop_oneof, proptest};

use super::{BAD, End, TYPE};
use crate::{
    delta::{Interest, SessionConfig, Want},
    server::{Resources, ServedResource, Wire},
};

#[derive(Clone, Debug)]
enum Step {
    Set { name: u8, body: u8 },
    SetBad { name: u8 },
    Remove { name: u8 },
    Deliver,
    Break,
    Want { name: u8 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = 0..6_u8;
    let step = prop_oneof![
        4 => (name.clone(), any::<u8>()).prop_map(|(name, body)| Step::Set { name, body }),
        1 => name.clone().prop_map(|name| Step::SetBad { name }),
        2 => name.clone().prop_map(|name| Step::Remove { name }),
        3 => Just(Step::Deliver),
        1 => Just(Step::Break),
        1 => name.prop_map(|name| Step::Want { name }),
    ];
    prop::collection::vec(step, 0..60)
}

/// Both ends and the wire between them.
struct World {
    resources: Resources,
    wire: Wire,
    end: End,
    now: u64,
}

impl World {
    fn new(interest: Interest, versioned: bool, max_request_bytes: usize) -> Self {
        let resources = Resources::new();
        if !versioned {
            resources.unversioned(TYPE);
        }
        let config = SessionConfig {
            max_request_bytes,
            ..SessionConfig::default()
        };
        let mut world = Self {
            wire: Wire::new(&resources),
            end: End::new(interest, config),
            resources,
            now: 0,
        };
        world.connect();
        world
    }

    fn connect(&mut self) {
        self.end.session.close();
        self.wire = Wire::new(&self.resources);
        let first = self.end.opens(self.now);
        self.request(first);
    }

    fn request(&mut self, request: crate::proto::discovery::DeltaDiscoveryRequest) {
        let mut next = Some(request);
        while let Some(request) = next.take() {
            if let Some(response) = self.wire.asks(request) {
                next = self.end.gets(response, self.now).reply;
            }
        }
    }

    fn deliver(&mut self) {
        for response in self.wire.changes() {
            if let Some(reply) = self.end.gets(response, self.now).reply {
                self.request(reply);
            }
        }
    }

    fn play(&mut self, step: &Step) {
        self.now += 1;
        let name = |n: &u8| format!("name-{n}");
        match step {
            Step::Set { name: n, body } => {
                let body = format!("body-{body}");
                let resource = ServedResource::new(name(n), body).alias(format!("alias-{n}"));
                self.resources.set(TYPE, resource);
            }
            Step::SetBad { name: n } => {
                self.resources.set(TYPE, ServedResource::new(name(n), BAD));
            }
            Step::Remove { name: n } => self.resources.remove(TYPE, &name(n)),
            Step::Deliver => self.deliver(),
            Step::Break => self.connect(),
            Step::Want { name: n } => {
                let wanted = self.end.session.want(TYPE, &format!("alias-{n}"));
                if let Want::Ask(Some(request)) = wanted {
                    self.request(*request);
                }
            }
        }
        self.end.ticks(self.now);
    }

    /// Lets everything arrive; then a quiet while passes.
    fn settle(&mut self) {
        self.deliver();
        self.connect();
        self.now += 100;
        self.end.ticks(self.now);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// After any history, what is applied is what the server has: exactly, but for resources
    /// whose newest version is bad, of which any good version, or none, may be in force.
    #[test]
    fn any_history_converges_to_the_servers_state(
        steps in steps(),
        versioned in any::<bool>(),
        budget in prop_oneof![Just(40_usize), Just(1_000_000)],
    ) {
        let _trace = meshwright_testkit::trace();
        let mut world = World::new(Interest::All, versioned, budget);
        for step in &steps {
            world.play(step);
        }
        world.settle();
        let served: BTreeMap<String, Vec<u8>> = world.wire.bodies(TYPE);
        let is_good = |(_, body): &(&String, &Vec<u8>)| body.as_slice() != BAD;
        for (name, body) in served.iter().filter(is_good) {
            assert_eq!(world.end.applied.get(name), Some(body), "{name} is current");
        }
        for name in world.end.applied.keys() {
            assert!(served.contains_key(name), "{name} is stale");
        }
    }

    /// On demand, every name asked for is answered, and truly.
    #[test]
    fn every_name_asked_for_is_answered_truly(steps in steps()) {
        let _trace = meshwright_testkit::trace();
        let mut world = World::new(Interest::Named, true, 1_000_000);
        for step in &steps {
            world.play(step);
        }
        world.settle();
        let served = world.wire.bodies(TYPE);
        for n in 0..6 {
            let good = served.get(&format!("name-{n}")).filter(|body| body.as_slice() != BAD);
            match world.end.session.want(TYPE, &format!("alias-{n}")) {
                Want::Known(exists) => assert_eq!(exists, good.is_some()),
                Want::Ask(_) => {}
                other => panic!("alias-{n}: {other:?}"),
            }
        }
    }
}

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use meshwright_identity::SpiffeId;
use prost::Message;
use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok, task};

use super::{Concerned, ConnectionFacts, Live};
use crate::{
    Denied, Mode, PolicyStore, Reason, Subject,
    proto::{Action, Authorization, Clause, Match, Rule, Scope},
};

/// What the program knows of its workloads, and the store that feeds the policies.
struct World {
    store: PolicyStore,
    workloads: Arc<Mutex<HashMap<String, Vec<Arc<str>>>>>,
    live: Live,
}

impl World {
    /// Workloads `w0` to `w3` in namespace `n`, without policies.
    fn new() -> Self {
        let (store, reader) = PolicyStore::new(Mode::IstioCompatible);
        let workloads: HashMap<_, _> = (0..4)
            .map(|number| (format!("w{number}"), Vec::new()))
            .collect();
        let workloads = Arc::new(Mutex::new(workloads));
        let view = Arc::clone(&workloads);
        let live = Live::new(
            reader,
            move |uid: &str, judge: &mut dyn FnMut(Subject<'_>)| {
                let listed = view.lock().unwrap().get(uid).cloned();
                if let Some(listed) = listed {
                    judge(Subject::new("n", &listed));
                }
            },
        );
        Self {
            store,
            workloads,
            live,
        }
    }

    fn list(&self, workload: &str, policies: &[&str]) {
        let policies = policies.iter().copied().map(Arc::from).collect();
        self.workloads
            .lock()
            .unwrap()
            .insert(workload.into(), policies);
    }

    /// A DENY policy for one port.
    fn deny(&mut self, name: &str, scope: Scope, port: u32) {
        let clause = Clause {
            matches: vec![Match {
                destination_ports: vec![port],
                ..Match::default()
            }],
        };
        let policy = Authorization {
            name: name.into(),
            namespace: "n".into(),
            scope: scope.into(),
            action: Action::Deny.into(),
            rules: vec![Rule {
                clauses: vec![clause],
            }],
            dry_run: false,
        };
        let name = format!("n/{name}");
        assert!(
            self.store
                .apply([(name.as_str(), &*policy.encode_to_vec())], [])
                .is_empty()
        );
    }
}

fn facts(workload: &str, port: u16) -> ConnectionFacts {
    let id = SpiffeId::parse("spiffe://td/ns/n/sa/x").unwrap();
    let destination = (std::net::Ipv4Addr::new(10, 0, 0, 2), port).into();
    ConnectionFacts::new(
        Some(id),
        "10.0.0.1:4000".parse().unwrap(),
        destination,
        workload.into(),
    )
}

fn reason(result: Result<super::Admission, Denied>) -> Option<Reason> {
    result.err().map(|denied| denied.reason)
}

#[test]
fn connection_is_registered_until_its_admission_is_dropped() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let one = world.live.admit(facts("w0", 80)).unwrap();
    let two = world
        .live
        .admit(facts("w1", 80).with_requested("web.n:80".into()))
        .unwrap();
    assert_eq!(
        (
            world.live.len(),
            world.live.len_of("w0"),
            world.live.len_of("w2")
        ),
        (2, 1, 0)
    );
    let mut seen = Vec::new();
    world
        .live
        .for_each(|facts| seen.push((facts.workload.to_string(), facts.requested.clone())));
    seen.sort();
    assert_eq!(
        seen,
        [("w0".into(), None), ("w1".into(), Some("web.n:80".into()))]
    );
    drop(one);
    assert_eq!((world.live.len(), two.facts().destination.port()), (1, 80));
    drop(two);
    assert!(world.live.is_empty());
}

#[test]
fn refused_connection_is_not_registered() {
    let _trace = meshwright_testkit::trace();
    let mut world = World::new();
    world.deny("p", Scope::Namespace, 80);
    assert_eq!(
        reason(world.live.admit(facts("w0", 80))),
        Some(Reason::Explicit { rule: 0 })
    );
    assert_eq!(
        reason(world.live.admit(facts("nobody", 81))),
        Some(Reason::Gone)
    );
    assert!(world.live.is_empty());
}

#[test]
fn new_deny_policy_revokes_exactly_the_connections_it_matches() {
    let _trace = meshwright_testkit::trace();
    let mut world = World::new();
    let allowed = world.live.admit(facts("w0", 81)).unwrap();
    let denied = world.live.admit(facts("w0", 80)).unwrap();
    let mut waiting = task::spawn(denied.revoked());
    assert_pending!(waiting.poll());
    world.deny("p", Scope::Namespace, 80);
    let judged = world.live.judge_again(Concerned::All);
    assert_eq!((judged.judged, judged.revoked, judged.held), (2, 1, 0));
    assert!(waiting.is_woken());
    let revoked = assert_ready!(waiting.poll());
    assert_eq!(
        revoked.to_string(),
        "connection closed due to policy change: explicitly denied by: n/p"
    );
    assert_eq!(denied.revocation(), Some(revoked));
    assert!(allowed.revocation().is_none());
    assert_eq!(
        world.live.judge_again(Concerned::All).revoked,
        0,
        "nothing is revoked twice"
    );
}

#[test]
fn change_of_a_workloads_list_alone_revokes() {
    let _trace = meshwright_testkit::trace();
    let mut world = World::new();
    world.deny("p", Scope::WorkloadSelector, 80);
    let on_first = world.live.admit(facts("w0", 80)).unwrap();
    let on_second = world.live.admit(facts("w1", 80)).unwrap();
    world.list("w0", &["n/p"]);
    world.list("w1", &["n/p"]);
    let judged = world.live.judge_again(Concerned::Workload("w0"));
    assert_eq!((judged.judged, judged.revoked), (1, 1));
    assert!(on_first.revocation().is_some());
    assert!(
        on_second.revocation().is_none(),
        "its record was not reported as changed"
    );
}

#[test]
fn connections_of_a_workload_that_is_gone_are_revoked() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let admission = world.live.admit(facts("w0", 80)).unwrap();
    world.workloads.lock().unwrap().remove("w0");
    world.live.judge_again(Concerned::Workload("w0"));
    assert_eq!(admission.revocation().unwrap().reason, Reason::Gone);
}

#[test]
fn listed_policy_that_is_not_known_holds_and_does_not_cut() {
    let _trace = meshwright_testkit::trace();
    let mut world = World::new();
    let admission = world.live.admit(facts("w0", 80)).unwrap();
    let other = world.live.admit(facts("w0", 81)).unwrap();
    // The workload's record comes first, the policy later.
    world.list("w0", &["n/p"]);
    let judged = world.live.judge_again(Concerned::Workload("w0"));
    assert_eq!((judged.revoked, judged.held), (0, 2));
    assert!(
        world.live.admit(facts("w0", 80)).unwrap_err().is_hold(),
        "a new one is not admitted"
    );
    world.deny("p", Scope::WorkloadSelector, 80);
    assert_eq!(world.live.judge_again(Concerned::All).revoked, 1);
    assert_eq!(
        world.live.end_hold(judged.hold).judged,
        0,
        "nothing is held any more"
    );
    assert!(admission.revocation().is_some() && other.revocation().is_none());
}

#[test]
fn end_of_the_hold_revokes_what_is_still_held_since_then() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let early = world.live.admit(facts("w0", 80)).unwrap();
    let late = world.live.admit(facts("w1", 80)).unwrap();
    world.list("w0", &["n/p"]);
    let first = world.live.judge_again(Concerned::Workload("w0"));
    world.list("w1", &["n/p"]);
    let second = world.live.judge_again(Concerned::All);
    assert_eq!((first.held, second.held), (1, 2));
    let ended = world.live.end_hold(first.hold);
    assert_eq!((ended.revoked, ended.held), (1, 0));
    assert_eq!(early.revocation().unwrap().reason, Reason::Unknown);
    assert!(late.revocation().is_none(), "its hold began later");
    world.list("w1", &[]);
    assert_eq!(
        world.live.end_hold(second.hold).revoked,
        0,
        "judged by what is listed now"
    );
    assert!(late.revocation().is_none());
}

#[test]
fn held_admission_goes_on_when_the_policy_arrives() {
    let _trace = meshwright_testkit::trace();
    let mut world = World::new();
    world.list("w0", &["n/p"]);
    let live = world.live.clone();
    let mut allowed = task::spawn(live.admit_or_hold(facts("w0", 81), std::future::pending()));
    let mut denied = task::spawn(live.admit_or_hold(facts("w0", 80), std::future::pending()));
    assert_pending!(allowed.poll());
    assert_pending!(denied.poll());
    world.deny("p", Scope::WorkloadSelector, 80);
    world.live.judge_again(Concerned::All);
    assert!(allowed.is_woken() && denied.is_woken());
    let admission = assert_ready_ok!(allowed.poll());
    assert_eq!(
        assert_ready_err!(denied.poll()).reason,
        Reason::Explicit { rule: 0 }
    );
    drop((denied, admission, allowed));
    assert!(live.is_empty());
}

#[test]
fn held_admission_is_refused_at_the_deadline_and_forgotten_when_dropped() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    world.list("w0", &["n/p"]);
    let mut late = task::spawn(
        world
            .live
            .admit_or_hold(facts("w0", 80), std::future::ready(())),
    );
    let denied = assert_ready_err!(late.poll());
    assert_eq!(denied.to_string(), "policy is listed but not known: n/p");
    drop(late);
    let mut cancelled = task::spawn(
        world
            .live
            .admit_or_hold(facts("w0", 80), std::future::pending()),
    );
    assert_pending!(cancelled.poll());
    assert_eq!(world.live.len(), 1);
    drop(cancelled);
    assert!(world.live.is_empty());
}

#[test]
fn revocation_outside_of_policy_takes_a_reason() {
    let _trace = meshwright_testkit::trace();
    let world = World::new();
    let one = world.live.admit(facts("w0", 80)).unwrap();
    let two = world.live.admit(facts("w0", 81)).unwrap();
    let why = Denied::new(None, Reason::Gone);
    assert_eq!(
        world
            .live
            .revoke_where(&why, |facts| facts.destination.port() == 80),
        1
    );
    assert!(one.revocation().is_some() && two.revocation().is_none());
}

/// Whatever the interleaving of admissions with a policy and a change of a workload's list: once
/// both changes have been reported, no denied connection is admitted or lives on.
#[test]
fn no_revocation_is_missed_while_connections_come_and_go() {
    let _trace = meshwright_testkit::trace();
    for round in 0..60 {
        let mut world = World::new();
        let is_over = Arc::new(AtomicBool::new(false));
        let admitted = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..3_usize)
            .map(|number| {
                let (live, is_over, admitted) = (
                    world.live.clone(),
                    Arc::clone(&is_over),
                    Arc::clone(&admitted),
                );
                thread::spawn(move || {
                    let mut kept = Vec::new();
                    while !is_over.load(Ordering::SeqCst) && kept.len() < 20_000 {
                        for port in [80, 81] {
                            if let Ok(admission) = live.admit(facts(&format!("w{number}"), port)) {
                                kept.push(admission);
                                admitted.fetch_add(1, Ordering::SeqCst);
                            }
                        }
                        if kept.len() > 50 {
                            drop(kept.swap_remove(7));
                        }
                    }
                    kept
                })
            })
            .collect();
        while admitted.load(Ordering::SeqCst) < 20 {
            thread::yield_now();
        }
        // Even rounds: the list changes after the policy; odd rounds: a namespace policy.
        if round % 2 == 0 {
            world.deny("p", Scope::WorkloadSelector, 80);
            world.live.judge_again(Concerned::All);
            for workload in ["w0", "w1", "w2"] {
                world.list(workload, &["n/p"]);
                world.live.judge_again(Concerned::Workload(workload));
            }
        } else {
            world.deny("p", Scope::Namespace, 80);
            world.live.judge_again(Concerned::All);
        }
        assert_eq!(
            reason(world.live.admit(facts("w0", 80))),
            Some(Reason::Explicit { rule: 0 })
        );
        is_over.store(true, Ordering::SeqCst);
        for thread in threads {
            for admission in thread.join().unwrap() {
                let is_denied = admission.facts().destination.port() == 80;
                assert_eq!(admission.revocation().is_some(), is_denied, "{admission:?}");
            }
        }
        assert!(world.live.is_empty());
    }
}

/// INV4 asks for one second at ten thousand; this leaves a factor for a loaded machine.
#[test]
fn ten_thousand_connections_of_one_workload_are_judged_in_well_under_a_second() {
    let _trace = meshwright_testkit::trace();
    let mut world = World::new();
    let kept: Vec<_> = (0..10_000)
        .map(|_| world.live.admit(facts("w0", 80)).unwrap())
        .collect();
    world.deny("p", Scope::Namespace, 80);
    let start = Instant::now();
    assert_eq!(world.live.judge_again(Concerned::All).revoked, kept.len());
    assert!(
        start.elapsed() < Duration::from_millis(500),
        "took {:?}",
        start.elapsed()
    );
}

#[test]
fn entries_stay_small() {
    let _trace = meshwright_testkit::trace();
    assert!(
        size_of::<super::entry::Entry>() <= 256,
        "{} bytes",
        size_of::<super::entry::Entry>()
    );
}

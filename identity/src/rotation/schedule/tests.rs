use super::{Demanded, Ended, Fetch, Limits, Priority, Schedule};
use crate::SpiffeId;
use std::{collections::HashMap, time::Duration};

const LIMITS: Limits = Limits {
    in_flight: 8,
    identities: 600,
    backoff_start: Duration::from_millis(100),
    backoff_end: Duration::from_secs(150),
    backoff_wanted: Duration::from_secs(8),
    distance: Duration::from_secs(1),
};

fn id(n: usize) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://td/ns/n/sa/s{n}")).unwrap()
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn schedule() -> Schedule {
    Schedule::new(LIMITS, 7)
}

fn issued(seconds: u64) -> Ended {
    Ended::Issued {
        remaining: secs(seconds),
    }
}

const OUTAGE: Ended = Ended::Failed { outage: true };
const DENIED: Ended = Ended::Failed { outage: false };

/// The one request that is due.
#[track_caller]
fn only(schedule: &mut Schedule, now: Duration) -> Fetch {
    let (mut fetches, _) = schedule.poll(now);
    assert_eq!(fetches.len(), 1, "exactly one request is due at {now:?}");
    fetches.remove(0)
}

/// Brings the schedule to its next action.
#[track_caller]
fn next(schedule: &mut Schedule, now: Duration) -> Duration {
    let (fetches, next) = schedule.poll(now);
    assert!(fetches.is_empty(), "nothing is due at {now:?}");
    next.expect("something is planned")
}

#[test]
fn callers_of_one_identity_share_a_request() {
    let _trace = meshwright_testkit::trace();
    let mut schedule = schedule();
    for _ in 0..5 {
        assert_eq!(
            schedule.demand(&id(1), Priority::RealTime, secs(0)),
            Demanded::Coming
        );
    }
    let fetch = only(&mut schedule, secs(0));
    assert_eq!(
        schedule.demand(&id(1), Priority::RealTime, secs(1)),
        Demanded::Coming
    );
    assert!(schedule.poll(secs(1)).0.is_empty());
    assert!(schedule.ended(&fetch, issued(3600), secs(2)));
    assert_eq!(
        schedule.demand(&id(1), Priority::RealTime, secs(3)),
        Demanded::Held
    );
}

#[test]
fn connections_go_before_workloads_and_those_before_rotations() {
    let _trace = meshwright_testkit::trace();
    let mut schedule = Schedule::new(
        Limits {
            in_flight: 1,
            ..LIMITS
        },
        7,
    );
    schedule.demand(&id(1), Priority::Warmup, secs(0));
    let first = only(&mut schedule, secs(0));
    schedule.ended(&first, issued(100), secs(0));
    schedule.demand(&id(2), Priority::Warmup, secs(70));
    schedule.demand(&id(3), Priority::Warmup, secs(70));
    schedule.demand(&id(4), Priority::RealTime, secs(71));
    schedule.demand(&id(3), Priority::RealTime, secs(72));
    let mut order = Vec::new();
    for _ in 0..4 {
        let fetch = only(&mut schedule, secs(72));
        order.push(fetch.id.clone());
        schedule.ended(&fetch, issued(3600), secs(72));
    }
    assert_eq!(
        order,
        [id(3), id(4), id(2), id(1)],
        "raised, real time, warm-up, rotation"
    );
}

#[test]
fn at_most_eight_requests_are_under_way() {
    let _trace = meshwright_testkit::trace();
    let mut schedule = schedule();
    for n in 0..500 {
        schedule.demand(&id(n), Priority::Warmup, secs(0));
    }
    schedule.demand(&id(500), Priority::RealTime, secs(1));
    let mut rounds = 0;
    let mut under_way = schedule.poll(secs(1)).0;
    assert_eq!(
        under_way[0].id,
        id(500),
        "the waiting connection goes first"
    );
    while !under_way.is_empty() {
        assert!(under_way.len() <= 8);
        rounds += 1;
        for fetch in std::mem::take(&mut under_way) {
            assert!(schedule.ended(&fetch, issued(3600), secs(1)));
        }
        under_way = schedule.poll(secs(1)).0;
    }
    assert_eq!(rounds, 63, "501 identities, eight at a time");
}

#[test]
fn rotation_comes_at_40_to_60_percent_and_is_spread() {
    let _trace = meshwright_testkit::trace();
    let mut schedule = schedule();
    let mut seen = Vec::new();
    for n in 0..200 {
        schedule.demand(&id(n), Priority::Warmup, secs(0));
        let fetch = only(&mut schedule, secs(0));
        schedule.ended(&fetch, issued(1000), secs(0));
    }
    let mut now = secs(0);
    while seen.len() < 200 {
        now = schedule.poll(now).1.unwrap();
        for fetch in schedule.poll(now).0 {
            seen.push(now);
            schedule.ended(&fetch, issued(100_000), now);
        }
    }
    assert!(
        seen.iter().all(|at| (secs(400)..=secs(600)).contains(at)),
        "{seen:?}"
    );
    let early = seen.iter().filter(|at| **at < secs(500)).count();
    assert!(
        (60..140).contains(&early),
        "jitter spreads the rotations: {early} of 200 are early"
    );
}

#[test]
fn certificates_of_20_seconds_are_replaced_without_a_gap() {
    let _trace = meshwright_testkit::trace();
    let mut schedule = schedule();
    schedule.demand(&id(1), Priority::RealTime, secs(0));
    let mut fetch = only(&mut schedule, secs(0));
    let mut now = secs(0);
    for round in 0..500 {
        assert!(schedule.ended(&fetch, issued(20), now));
        let next = next(&mut schedule, now);
        assert!(
            next >= now + secs(1),
            "requests are at least a second apart"
        );
        assert!(
            schedule.holds(&id(1), next),
            "round {round}: the old one is good when the new is asked"
        );
        now = next;
        fetch = only(&mut schedule, now);
        now += Duration::from_millis(20);
    }
    assert!((secs(500 * 8)..secs(500 * 13)).contains(&now), "{now:?}");
}

/// A certificate whose life is nearly over made the incumbent ask back to back.
#[test]
fn certificates_that_are_nearly_over_do_not_cause_a_storm() {
    let _trace = meshwright_testkit::trace();
    let mut schedule = schedule();
    schedule.demand(&id(1), Priority::RealTime, secs(0));
    let fetch = only(&mut schedule, secs(0));
    schedule.ended(
        &fetch,
        Ended::Issued {
            remaining: Duration::ZERO,
        },
        secs(0),
    );
    assert!(next(&mut schedule, secs(0)) >= secs(1));
}

#[test]
fn rests_after_failures_grow_with_full_jitter_to_150_seconds() {
    let _trace = meshwright_testkit::trace();
    let mut schedule = schedule();
    schedule.demand(&id(1), Priority::Warmup, secs(0));
    let mut now = secs(0);
    let mut rests = Vec::new();
    for _ in 0..60 {
        let fetch = only(&mut schedule, now);
        schedule.ended(&fetch, DENIED, now);
        let at = next(&mut schedule, now);
        rests.push(at - now);
        now = at;
    }
    for (failure, rest) in rests.iter().enumerate() {
        let longest = Duration::from_millis(100 << failure.min(20)).min(secs(150));
        assert!(*rest <= longest, "failure {failure}: {rest:?}");
        assert!(*rest >= Duration::from_millis(50), "no rest at all");
    }
    assert!(
        rests[20..].iter().any(|rest| *rest > secs(75)),
        "the rests never grew"
    );
}

#[test]
fn caller_is_told_at_once_while_the_identity_rests_after_a_failure() {
    let _trace = meshwright_testkit::trace();
    let mut schedule = schedule();
    schedule.demand(&id(1), Priority::RealTime, secs(0));
    let fetch = only(&mut schedule, secs(0));
    schedule.ended(&fetch, OUTAGE, secs(0));
    assert_eq!(
        schedule.demand(&id(1), Priority::RealTime, secs(0)),
        Demanded::Resting
    );
}

#[test]
fn asking_keeps_the_rests_short() {
    let _trace = meshwright_testkit::trace();
    let mut schedule = schedule();
    let mut now = secs(0);
    schedule.demand(&id(1), Priority::Warmup, now);
    for _ in 0..30 {
        let fetch = only(&mut schedule, now);
        schedule.ended(&fetch, OUTAGE, now);
        now = next(&mut schedule, now);
    }
    // Nobody asked: the rest is long. Somebody asks: the next attempt is within 8 s, always.
    let fetch = only(&mut schedule, now);
    schedule.ended(&fetch, OUTAGE, now);
    for _ in 0..100 {
        assert_eq!(
            schedule.demand(&id(1), Priority::RealTime, now),
            Demanded::Resting
        );
        let at = next(&mut schedule, now);
        assert!(
            at <= now + secs(8),
            "somebody waits and the next attempt is in {:?}",
            at - now
        );
        now = at;
        let fetch = only(&mut schedule, now);
        schedule.ended(&fetch, OUTAGE, now);
    }
}

#[test]
fn expired_identity_is_retried_within_8_seconds_though_nobody_asks() {
    let _trace = meshwright_testkit::trace();
    let mut schedule = schedule();
    schedule.demand(&id(1), Priority::RealTime, secs(0));
    let fetch = only(&mut schedule, secs(0));
    schedule.ended(&fetch, issued(3600), secs(0));
    let mut now = next(&mut schedule, secs(0));
    while now < secs(7200) {
        let fetch = only(&mut schedule, now);
        schedule.ended(&fetch, OUTAGE, now);
        let at = next(&mut schedule, now);
        if !schedule.holds(&id(1), now) {
            assert!(at - now <= secs(8));
        }
        now = at;
    }
    assert!(!schedule.holds(&id(1), now));
}

#[test]
fn first_success_after_an_outage_brings_everybody_back_soon() {
    let _trace = meshwright_testkit::trace();
    let mut schedule = schedule();
    let mut now = secs(0);
    for n in 0..300 {
        schedule.demand(&id(n), Priority::Warmup, now);
    }
    // Two hours without an issuer.
    while now < secs(7200) {
        let (fetches, next) = schedule.poll(now);
        if fetches.is_empty() {
            now = next.unwrap();
        }
        for fetch in fetches {
            schedule.ended(&fetch, OUTAGE, now);
        }
    }
    let back = now;
    let mut served = HashMap::new();
    while served.len() < 300 {
        let (fetches, next) = schedule.poll(now);
        if fetches.is_empty() {
            now = next.unwrap();
        }
        for fetch in fetches {
            assert!(schedule.ended(&fetch, issued(86_400), now));
            served.insert(fetch.id.clone(), now);
        }
    }
    assert!(
        now - back < secs(10),
        "all 300 were served after {:?}",
        now - back
    );
}

#[test]
fn refused_identity_does_not_delay_others() {
    let _trace = meshwright_testkit::trace();
    let mut schedule = Schedule::new(
        Limits {
            in_flight: 1,
            ..LIMITS
        },
        7,
    );
    schedule.demand(&id(1), Priority::RealTime, secs(0));
    let fetch = only(&mut schedule, secs(0));
    schedule.ended(&fetch, DENIED, secs(0));
    schedule.demand(&id(2), Priority::RealTime, secs(0));
    assert_eq!(only(&mut schedule, secs(0)).id, id(2));
}

#[test]
fn what_is_fetched_for_a_forgotten_identity_is_thrown_away() {
    let _trace = meshwright_testkit::trace();
    let mut schedule = schedule();
    schedule.demand(&id(1), Priority::RealTime, secs(0));
    let old = only(&mut schedule, secs(0));
    schedule.forget(&id(1));
    schedule.demand(&id(1), Priority::RealTime, secs(1));
    let new = only(&mut schedule, secs(1));
    assert_ne!(old, new);
    assert!(
        !schedule.ended(&old, issued(3600), secs(2)),
        "an old key came back"
    );
    assert!(!schedule.holds(&id(1), secs(2)));
    assert!(schedule.ended(&new, issued(3600), secs(2)));
    schedule.forget(&id(1));
    assert_eq!(
        schedule.poll(secs(9000)),
        (vec![], None),
        "a forgotten identity is renewed"
    );
}

#[test]
fn more_identities_than_allowed_are_refused() {
    let _trace = meshwright_testkit::trace();
    let mut schedule = Schedule::new(
        Limits {
            identities: 2,
            ..LIMITS
        },
        7,
    );
    schedule.demand(&id(1), Priority::Warmup, secs(0));
    schedule.demand(&id(2), Priority::Warmup, secs(0));
    assert_eq!(
        schedule.demand(&id(3), Priority::RealTime, secs(0)),
        Demanded::Full
    );
    schedule.forget(&id(1));
    assert_eq!(
        schedule.demand(&id(3), Priority::RealTime, secs(0)),
        Demanded::Coming
    );
}

#[test]
fn moved_clock_changes_the_plan() {
    let _trace = meshwright_testkit::trace();
    let mut schedule = schedule();
    schedule.demand(&id(1), Priority::RealTime, secs(0));
    let fetch = only(&mut schedule, secs(0));
    schedule.ended(&fetch, issued(3600), secs(0));
    schedule.revalidate(&id(1), secs(10), secs(5));
    let at = next(&mut schedule, secs(5));
    assert!((secs(9)..=secs(11)).contains(&at), "{at:?}");
    schedule.revalidate(&id(1), secs(0), secs(5));
    assert!(!schedule.holds(&id(1), secs(5)));
    assert_eq!(
        schedule.demand(&id(1), Priority::RealTime, secs(5)),
        Demanded::Coming
    );
    only(&mut schedule, secs(5));
}

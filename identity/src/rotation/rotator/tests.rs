use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use meshwright_testkit::Recorder;
use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;
use tokio::time::{Instant, advance, sleep};

use crate::{
    Fault, SpiffeId, TrustDomain,
    ca::CertificateAuthority,
    rotation::{
        Events, Identities, IdentityState, IssueError, IssueErrorKind, IssueFailed, Issuer,
        Rotator, RotatorConfig, SvidIssued, Unavailable,
    },
    svid::Svid,
    tls::TlsEngine,
};

/// Wall clock that follows tokio's (paused) time, and can be moved.
#[derive(Debug)]
struct Clock {
    base: Instant,
    moved: AtomicI64,
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let elapsed = i64::try_from(self.base.elapsed().as_secs()).unwrap();
        let seconds = 1_767_225_600 + elapsed + self.moved.load(Ordering::Relaxed);
        let seconds = u64::try_from(seconds).unwrap();
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Behaviour {
    Deny,
    Issue { validity: Duration, after: Duration },
    Mute,
    Other,
    Panic,
    Unreachable,
}

/// An issuer that does what the test says.
#[derive(Clone)]
struct Scripted {
    ca: CertificateAuthority,
    behaviour: Arc<Mutex<Behaviour>>,
    requests: Arc<Mutex<HashMap<SpiffeId, Vec<Duration>>>>,
    under_way: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    base: Instant,
}

impl Issuer for Scripted {
    async fn issue(&self, id: &SpiffeId) -> Result<Svid, IssueError> {
        let at = self.base.elapsed();
        self.requests
            .lock()
            .unwrap()
            .entry(id.clone())
            .or_default()
            .push(at);
        let now = self.under_way.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
        let _guard = Leaving(&self.under_way);
        let behaviour = *self.behaviour.lock().unwrap();
        let failed = |kind| Err(IssueError::new(kind, std::io::Error::other("scripted")));
        match behaviour {
            Behaviour::Deny => failed(IssueErrorKind::Denied),
            Behaviour::Unreachable => failed(IssueErrorKind::Unreachable),
            Behaviour::Mute => std::future::pending().await,
            Behaviour::Panic => panic!("scripted"),
            Behaviour::Other => Ok(self.ca.issue(&id_of("other"), HOUR).unwrap()),
            Behaviour::Issue { validity, after } => {
                sleep(after).await;
                Ok(self.ca.issue(id, validity).unwrap())
            }
        }
    }
}

struct Leaving<'a>(&'a AtomicUsize);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Event {
    Failed(IssueFailed),
    Issued(SvidIssued),
    Rotated(SvidIssued),
}

#[derive(Clone)]
struct Recorded(Recorder<Event>);

impl Events for Recorded {
    fn svid_issued(&self, event: &SvidIssued) {
        self.0.record(Event::Issued(event.clone()));
    }

    fn svid_rotated(&self, event: &SvidIssued) {
        self.0.record(Event::Rotated(event.clone()));
    }

    fn issue_failed(&self, event: &IssueFailed) {
        self.0.record(Event::Failed(event.clone()));
    }
}

const HOUR: Duration = Duration::from_secs(3600);

struct World {
    clock: Arc<Clock>,
    issuer: Scripted,
    rotator: Rotator,
    identities: Identities,
    events: Recorder<Event>,
}

impl World {
    /// Needs paused time.
    fn new(behaviour: Behaviour) -> Self {
        let base = Instant::now();
        let clock = Arc::new(Clock {
            base,
            moved: AtomicI64::new(0),
        });
        let domain = TrustDomain::parse("td").unwrap();
        let issuer = Scripted {
            ca: CertificateAuthority::with_clock(domain, Arc::clone(&clock) as _).unwrap(),
            behaviour: Arc::new(Mutex::new(behaviour)),
            requests: Arc::default(),
            under_way: Arc::default(),
            most: Arc::default(),
            base,
        };
        let events = Recorder::new();
        let engine = TlsEngine::with_clock(Arc::clone(&clock) as _);
        let config = RotatorConfig::new(engine);
        let rotator = Rotator::start(issuer.clone(), config, Arc::new(Recorded(events.clone())));
        Self {
            clock,
            issuer,
            identities: rotator.identities(),
            rotator,
            events,
        }
    }

    fn behave(&self, behaviour: Behaviour) {
        *self.issuer.behaviour.lock().unwrap() = behaviour;
    }

    fn requests(&self, name: &str) -> usize {
        let requests = self.issuer.requests.lock().unwrap();
        requests.get(&id_of(name)).map_or(0, Vec::len)
    }

    fn state(&self, name: &str) -> Option<IdentityState> {
        let all = self.identities.statuses();
        all.into_iter()
            .find(|s| s.id == id_of(name))
            .map(|s| s.state)
    }
}

fn id_of(name: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://td/ns/n/sa/{name}")).unwrap()
}

const fn good(validity: Duration) -> Behaviour {
    Behaviour::Issue {
        validity,
        after: Duration::from_millis(20),
    }
}

/// Lets time pass in steps, so that every timer of every task runs.
async fn pass(time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        sleep(Duration::from_millis(250).min(end - Instant::now())).await;
    }
}

#[tokio::test(start_paused = true)]
async fn callers_share_one_request_and_get_the_same_member() {
    let _trace = meshwright_testkit::trace();
    let world = World::new(good(HOUR));
    let web = id_of("web");
    let (a, b) = tokio::join!(world.identities.get(&web), world.identities.get(&web));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert!(Arc::ptr_eq(&a.server_config(), &b.server_config()));
    assert_eq!(world.requests("web"), 1);
    world.identities.get(&web).await.unwrap();
    assert_eq!(world.requests("web"), 1);
    assert!(matches!(&world.events.take()[..], [Event::Issued(e)] if e.id == web));
    assert!(
        matches!(world.state("web"), Some(IdentityState::Available(svid)) if *svid.id() == web)
    );
}

#[tokio::test(start_paused = true)]
async fn certificates_of_20_seconds_never_leave_a_gap() {
    let _trace = meshwright_testkit::trace();
    let world = World::new(good(Duration::from_secs(20)));
    let member = world.identities.get(&id_of("web")).await.unwrap();
    let config = member.server_config();
    for _ in 0..240 {
        pass(Duration::from_millis(500)).await;
        assert!(!member.is_expired(), "a handshake would fail now");
        assert!(world.identities.current(&id_of("web")).is_some());
    }
    assert!(Arc::ptr_eq(&config, &member.server_config()));
    let rotations = world.events.count(|e| matches!(e, Event::Rotated(_)));
    assert!(
        (9..=16).contains(&rotations),
        "{rotations} rotations in two minutes"
    );
    assert_eq!(world.events.count(|e| matches!(e, Event::Issued(_))), 1);
}

#[tokio::test(start_paused = true)]
async fn five_hundred_identities_are_ready_within_10_seconds() {
    let _trace = meshwright_testkit::trace();
    let world = World::new(good(HOUR));
    for n in 0..500 {
        world.identities.prefetch(&id_of(&format!("s{n}"))).unwrap();
    }
    let begin = Instant::now();
    world.identities.get(&id_of("urgent")).await.unwrap();
    assert!(
        begin.elapsed() < Duration::from_millis(100),
        "the connection waited for the others"
    );
    pass(Duration::from_secs(9)).await;
    let statuses = world.identities.statuses();
    assert_eq!(statuses.len(), 501);
    assert!(
        statuses
            .iter()
            .all(|s| matches!(s.state, IdentityState::Available(_)))
    );
    assert!(statuses.is_sorted_by(|a, b| a.id < b.id));
    assert_eq!(world.issuer.most.load(Ordering::Relaxed), 8);
}

#[tokio::test(start_paused = true)]
async fn failure_reaches_the_waiting_caller_at_once() {
    let _trace = meshwright_testkit::trace();
    let world = World::new(Behaviour::Deny);
    let begin = Instant::now();
    let error = world.identities.get(&id_of("web")).await.unwrap_err();
    assert!(begin.elapsed() < Duration::from_millis(50));
    assert!(
        matches!(&error, Unavailable::Failed { source, .. } if source.kind() == IssueErrorKind::Denied)
    );
    assert!(error.is_safe_to_retry());
    assert_eq!(error.fault(), Fault::Peer);
    meshwright_testkit::assert_chain_says_each_thing_once(&error);
    assert!(
        matches!(world.state("web"), Some(IdentityState::Unavailable(text)) if text.contains("scripted"))
    );
    assert!(matches!(&world.events.take()[..], [Event::Failed(e)] if !e.still_valid));
}

#[tokio::test(start_paused = true)]
async fn mute_issuer_costs_a_caller_10_seconds_and_no_more() {
    let _trace = meshwright_testkit::trace();
    let world = World::new(Behaviour::Mute);
    let begin = Instant::now();
    let error = world.identities.get(&id_of("web")).await.unwrap_err();
    assert!(begin.elapsed() <= Duration::from_secs(10));
    assert!(
        matches!(
            error,
            Unavailable::TimedOut { .. } | Unavailable::Failed { .. }
        ),
        "{error:?}"
    );
    world.behave(good(HOUR));
    pass(Duration::from_secs(1)).await;
    world.identities.get(&id_of("web")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn last_good_certificate_is_used_until_it_expires_and_not_longer() {
    let _trace = meshwright_testkit::trace();
    let world = World::new(good(HOUR));
    let member = world.identities.get(&id_of("web")).await.unwrap();
    world.behave(Behaviour::Unreachable);
    pass(HOUR - Duration::from_secs(2)).await;
    world
        .identities
        .get(&id_of("web"))
        .await
        .expect("the old one is still good");
    assert!(
        world
            .events
            .count(|e| matches!(e, Event::Failed(f) if f.still_valid))
            > 0
    );
    pass(Duration::from_secs(4)).await;
    assert!(member.is_expired());
    let error = world.identities.get(&id_of("web")).await.unwrap_err();
    assert!(matches!(error, Unavailable::Failed { .. }), "{error:?}");
    assert!(
        matches!(world.state("web"), Some(IdentityState::Unavailable(t)) if t.contains("expired"))
    );
    pass(HOUR).await;
    world.behave(good(HOUR));
    pass(Duration::from_secs(10)).await;
    assert!(
        !member.is_expired(),
        "the member that was handed out lives again"
    );
    world.identities.get(&id_of("web")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn answer_for_somebody_else_is_refused() {
    let _trace = meshwright_testkit::trace();
    let world = World::new(Behaviour::Other);
    let error = world.identities.get(&id_of("web")).await.unwrap_err();
    assert!(
        matches!(&error, Unavailable::Failed { source, .. } if source.kind() == IssueErrorKind::Invalid)
    );
    meshwright_testkit::assert_chain_says_each_thing_once(&error);
}

#[tokio::test(start_paused = true)]
async fn absurd_validity_is_refused_and_the_old_certificate_kept() {
    let _trace = meshwright_testkit::trace();
    let world = World::new(good(HOUR));
    let member = world.identities.get(&id_of("web")).await.unwrap();
    let serial = member.svid().serial().to_owned();
    world.behave(good(Duration::from_secs(100 * 365 * 86_400)));
    pass(Duration::from_secs(2400)).await;
    assert_eq!(member.svid().serial(), serial);
    assert!(world.requests("web") > 1);
    for odd in [Duration::from_secs(1), Duration::from_secs(401 * 86_400)] {
        world.behave(good(odd));
        let name = format!("odd{}", odd.as_secs());
        assert!(
            world.identities.get(&id_of(&name)).await.is_err(),
            "{odd:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn clock_ahead_or_behind_refuses_what_is_not_valid_now() {
    let _trace = meshwright_testkit::trace();
    let world = World::new(Behaviour::Issue {
        validity: HOUR,
        after: Duration::ZERO,
    });
    // The authority's clock is the same one, so a moved clock shows between issue and check only
    // when it moves in that moment; a rotator with its own clock sees every skew.
    let behind = Arc::new(Clock {
        base: world.clock.base,
        moved: AtomicI64::new(-300),
    });
    let config = RotatorConfig::new(TlsEngine::with_clock(Arc::clone(&behind) as _));
    let rotator = Rotator::start(world.issuer.clone(), config, Arc::new(()));
    let error = rotator.identities().get(&id_of("web")).await.unwrap_err();
    assert!(
        matches!(&error, Unavailable::Failed { source, .. } if source.kind() == IssueErrorKind::Invalid)
    );
    // N04: a beginning two seconds ahead is no outage.
    behind.moved.store(-62, Ordering::Relaxed);
    pass(Duration::from_secs(10)).await;
    rotator.identities().get(&id_of("web")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn jump_of_the_wall_clock_is_noticed() {
    let _trace = meshwright_testkit::trace();
    let world = World::new(good(HOUR));
    let member = world.identities.get(&id_of("web")).await.unwrap();
    world.clock.moved.store(7200, Ordering::Relaxed);
    assert!(member.is_expired());
    let again = world.identities.get(&id_of("web")).await.unwrap();
    assert!(!again.is_expired() && !member.is_expired());
    let asked = world.requests("web");
    world.clock.moved.store(-7200, Ordering::Relaxed);
    pass(Duration::from_secs(60)).await;
    assert!(
        world.requests("web") <= asked + 1,
        "a clock that stepped back caused a storm"
    );
}

#[tokio::test(start_paused = true)]
async fn forgotten_identity_is_gone_and_its_waiters_are_told() {
    let _trace = meshwright_testkit::trace();
    let world = World::new(Behaviour::Mute);
    let web = id_of("web");
    let (result, ()) = tokio::join!(world.identities.get(&web), async {
        sleep(Duration::from_secs(1)).await;
        world.identities.forget(&web);
    });
    assert!(matches!(result, Err(Unavailable::Forgotten { .. })));
    world.behave(good(HOUR));
    pass(Duration::from_secs(30)).await;
    assert!(world.state("web").is_none());
    world.identities.get(&web).await.unwrap();
    world.identities.forget(&web);
    pass(Duration::from_secs(1)).await;
    assert!(world.identities.current(&web).is_none());
    let asked = world.requests("web");
    pass(HOUR).await;
    assert_eq!(
        world.requests("web"),
        asked,
        "a forgotten identity is renewed"
    );
}

#[tokio::test(start_paused = true)]
async fn forget_and_prefetch_in_one_breath_start_anew() {
    let _trace = meshwright_testkit::trace();
    let world = World::new(good(HOUR));
    let first = world.identities.get(&id_of("web")).await.unwrap();
    world.identities.forget(&id_of("web"));
    world.identities.prefetch(&id_of("web")).unwrap();
    pass(Duration::from_secs(1)).await;
    let second = world.identities.get(&id_of("web")).await.unwrap();
    assert!(!Arc::ptr_eq(
        &first.server_config(),
        &second.server_config()
    ));
    assert_ne!(first.svid().serial(), second.svid().serial());
}

#[tokio::test(start_paused = true)]
async fn issuer_that_panics_is_a_failure_of_that_request() {
    let _trace = meshwright_testkit::trace();
    let world = World::new(Behaviour::Panic);
    let error = world.identities.get(&id_of("web")).await.unwrap_err();
    assert_eq!(error.fault(), Fault::Local);
    world.behave(good(HOUR));
    pass(Duration::from_secs(1)).await;
    world.identities.get(&id_of("web")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn dropped_rotator_tells_everybody() {
    let _trace = meshwright_testkit::trace();
    let world = World::new(Behaviour::Mute);
    let identities = world.identities.clone();
    let web = id_of("web");
    let (result, ()) = tokio::join!(identities.get(&web), async {
        advance(Duration::from_secs(1)).await;
        drop(world.rotator);
    });
    assert!(matches!(result, Err(Unavailable::Stopped)), "{result:?}");
    assert!(matches!(
        identities.get(&web).await,
        Err(Unavailable::Stopped)
    ));
    assert!(matches!(
        identities.prefetch(&web),
        Err(Unavailable::Stopped)
    ));
    identities.forget(&web);
}

use std::{collections::HashMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{
    task::{Id, JoinError, JoinSet},
    time::{Instant, sleep_until, timeout},
};
use tracing::{Instrument as _, debug, debug_span, warn};

use super::{
    Events, Identities, IssueError, IssueErrorKind, IssueFailed, Issuer, RotatorConfig, SvidIssued,
    Unavailable,
    identities::{Shared, Slot},
    inbox::{Inbox, Waiter, Wish},
    schedule::{Demanded, Ended, Fetch, Schedule},
};
use crate::{
    SpiffeId,
    svid::{InvalidSvid, Svid},
    tls::{Member, UnusableSvid},
};

/// How often the wall clock is compared with the monotonic one.
const CLOCK_CHECK: Duration = Duration::from_secs(30);
/// Drift of the two clocks that makes every validity be computed anew.
const CLOCK_TOLERANCE: u64 = 2;

/// Keeps the certificates of many identities fresh.
///
/// Owns the task that does it: dropping the value ends the task and drops every key it holds.
/// [`Member`]s handed out before keep what they have.
#[derive(Debug)]
pub struct Rotator {
    identities: Identities,
    _task: JoinSet<()>,
}

impl Rotator {
    /// Starts the task on the current tokio runtime. No certificate is fetched before one is asked
    /// for.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime.
    pub fn start<I: Issuer>(issuer: I, config: RotatorConfig, events: Arc<dyn Events>) -> Self {
        let shared = Arc::new(Shared {
            inbox: Inbox::new(config.limits.identities),
            table: ArcSwap::from_pointee(HashMap::new()),
            wait_deadline: config.wait_deadline,
        });
        let worker = Worker {
            shared: Arc::clone(&shared),
            schedule: Schedule::new(config.limits, rand::random()),
            config,
            issuer: Arc::new(issuer),
            events,
            started: Instant::now(),
            offset: None,
            fetches: JoinSet::new(),
            fetching: HashMap::new(),
            slots: HashMap::new(),
            waiters: HashMap::new(),
            dirty: false,
        };
        let mut task = JoinSet::new();
        task.spawn(worker.run().instrument(debug_span!("rotation")));
        Self {
            identities: Identities { shared },
            _task: task,
        }
    }

    /// A handle for asking.
    #[must_use]
    pub fn identities(&self) -> Identities {
        self.identities.clone()
    }
}

struct Worker<I> {
    shared: Arc<Shared>,
    schedule: Schedule,
    config: RotatorConfig,
    issuer: Arc<I>,
    events: Arc<dyn Events>,
    started: Instant,
    /// Wall clock less monotonic time, in seconds, when last compared.
    offset: Option<u64>,
    fetches: JoinSet<Result<Svid, IssueError>>,
    fetching: HashMap<Id, Fetch>,
    slots: HashMap<SpiffeId, Slot>,
    waiters: HashMap<SpiffeId, Vec<Waiter>>,
    /// The table changed since it was published.
    dirty: bool,
}

impl<I: Issuer> Worker<I> {
    async fn run(mut self) {
        loop {
            self.check_clock();
            for (id, wish) in self.shared.inbox.take() {
                self.wish(id, wish);
            }
            let (fetches, next) = self.schedule.poll(self.elapsed());
            for fetch in fetches {
                self.start(fetch);
            }
            self.publish();
            let tick = self.elapsed().saturating_add(CLOCK_CHECK);
            let until = next.map_or(tick, |next| next.min(tick));
            tokio::select! {
                () = self.shared.inbox.changed() => {}
                Some(ended) = self.fetches.join_next_with_id() => self.ended(ended),
                () = sleep_until(self.started + until) => {}
            }
        }
    }

    fn wish(&mut self, id: SpiffeId, wish: Wish) {
        if wish.forget {
            self.schedule.forget(&id);
            self.dirty |= self.slots.remove(&id).is_some();
            self.tell(&id, &Err(Unavailable::Forgotten { id: id.clone() }));
        }
        let Some(priority) = wish.demand else {
            return;
        };
        let demanded = self.schedule.demand(&id, priority, self.elapsed());
        let waiters = self.waiters.entry(id.clone()).or_default();
        waiters.retain(|waiter| !waiter.is_closed());
        waiters.extend(wish.waiters);
        match (demanded, self.slots.get(&id)) {
            (Demanded::Coming, slot) => {
                if slot.is_none() {
                    self.slots.insert(id, Slot::Initializing);
                    self.dirty = true;
                }
            }
            (Demanded::Full, _) => self.tell(&id, &Err(Unavailable::Full { id: id.clone() })),
            (Demanded::Held, Some(Slot::Available { member, .. })) => {
                let member = member.clone();
                self.tell(&id, &Ok(member));
            }
            (Demanded::Held | Demanded::Resting, slot) => {
                let expired = || IssueError::from(InvalidSvid::Expired);
                let source = slot.and_then(Slot::failure).unwrap_or_else(expired);
                let id = id.clone();
                self.tell(&id.clone(), &Err(Unavailable::Failed { id, source }));
            }
        }
    }

    fn start(&mut self, fetch: Fetch) {
        let issuer = Arc::clone(&self.issuer);
        let deadline = self.config.issue_deadline;
        let id = fetch.id.clone();
        let span = debug_span!("issue", identity = %id);
        let request = async move {
            timeout(deadline, issuer.issue(&id))
                .await
                .unwrap_or_else(|_elapsed| Err(IssueError::timed_out()))
        };
        let task = self.fetches.spawn(request.instrument(span)).id();
        self.fetching.insert(task, fetch);
    }

    fn ended(&mut self, ended: Result<(Id, Result<Svid, IssueError>), JoinError>) {
        let (task, result) = match ended {
            Ok(ended) => ended,
            // An issuer that panics is treated as one that fails.
            Err(error) => (
                error.id(),
                Err(IssueError::new(IssueErrorKind::Local, error)),
            ),
        };
        let Some(fetch) = self.fetching.remove(&task) else {
            return;
        };
        let now = self.elapsed();
        match result.and_then(|svid| self.accept(&fetch.id, svid)) {
            Ok((member, remaining)) => {
                if self
                    .schedule
                    .ended(&fetch, Ended::Issued { remaining }, now)
                {
                    self.issued(&fetch.id, member);
                }
            }
            Err(error) => {
                let outage = matches!(
                    error.kind(),
                    IssueErrorKind::TimedOut | IssueErrorKind::Unreachable
                );
                if self.schedule.ended(&fetch, Ended::Failed { outage }, now) {
                    self.failed(&fetch.id, error);
                }
            }
        }
    }

    /// Checks an answer before anything of it is used; the rules are those of any issuer.
    fn accept(&self, id: &SpiffeId, svid: Svid) -> Result<(Member, Duration), IssueError> {
        let unusable = |error: UnusableSvid| IssueError::new(IssueErrorKind::Invalid, error);
        if svid.id() != id {
            let (expected, found) = (id.clone(), svid.id().clone());
            return Err(InvalidSvid::OtherIdentity { expected, found }.into());
        }
        let engine = &self.config.engine;
        let now = engine.now().ok_or_else(|| unusable(UnusableSvid::NoTime))?;
        let remaining = svid.remaining_at(now);
        if remaining < self.config.shortest_validity || remaining > self.config.longest_validity {
            return Err(IssueError::new(
                IssueErrorKind::Invalid,
                OddValidity { remaining },
            ));
        }
        let fresh = Member::new(svid, engine).map_err(unusable)?;
        Ok((fresh, remaining))
    }

    fn issued(&mut self, id: &SpiffeId, fresh: Member) {
        let svid = fresh.svid();
        let event = SvidIssued {
            id: id.clone(),
            serial: svid.serial().into(),
            not_after: svid.not_after(),
        };
        debug!(identity = %id, serial = %event.serial, "certificate in force");
        let held = match self.slots.get(id) {
            Some(Slot::Available { member, .. }) => Some(member.clone()),
            _ => None,
        };
        if held.as_ref().is_some_and(|member| !member.is_expired()) {
            self.events.svid_rotated(&event);
        } else {
            self.events.svid_issued(&event);
        }
        let member = held.unwrap_or_else(|| fresh.clone());
        member.adopt(&fresh);
        let slot = Slot::Available {
            member: member.clone(),
            failure: None,
        };
        self.slots.insert(id.clone(), slot);
        self.dirty = true;
        self.publish();
        self.tell(id, &Ok(member));
    }

    fn failed(&mut self, id: &SpiffeId, error: IssueError) {
        let still_valid = self.schedule.holds(id, self.elapsed());
        self.events.issue_failed(&IssueFailed {
            id: id.clone(),
            kind: error.kind(),
            still_valid,
        });
        let error_chain = &error as &dyn std::error::Error;
        debug!(identity = %id, still_valid, error = error_chain, "no certificate");
        let slot = match self.slots.get(id) {
            // An expired member stays: those who hold it are served again by a later success.
            Some(Slot::Available { member, .. }) => Slot::Available {
                member: member.clone(),
                failure: Some(error.clone()),
            },
            _ => Slot::Failed(error.clone()),
        };
        let answer = match &slot {
            Slot::Available { member, .. } if still_valid => Ok(member.clone()),
            _ => Err(Unavailable::Failed {
                id: id.clone(),
                source: error,
            }),
        };
        if !still_valid && self.slots.get(id).and_then(Slot::failure).is_none() {
            warn!(identity = %id, "connections of this identity are refused until it has a certificate");
        }
        self.slots.insert(id.clone(), slot);
        self.dirty = true;
        self.publish();
        self.tell(id, &answer);
    }

    fn tell(&mut self, id: &SpiffeId, result: &Result<Member, Unavailable>) {
        for waiter in self.waiters.remove(id).unwrap_or_default() {
            // The caller may have gone meanwhile.
            drop(waiter.send(result.clone()));
        }
    }

    fn publish(&mut self) {
        if std::mem::take(&mut self.dirty) {
            self.shared.table.store(Arc::new(self.slots.clone()));
        }
    }

    /// Timers run on the monotonic clock, validity on the wall clock. When one moved against the
    /// other (a step, a suspended machine), every held certificate's rest is computed anew.
    fn check_clock(&mut self) {
        let Some(wall) = self.config.engine.now() else {
            return;
        };
        let now = self.elapsed();
        let offset = wall.as_secs().wrapping_sub(now.as_secs());
        let drift = self.offset.map_or(0, |old| {
            let ahead = offset.wrapping_sub(old);
            ahead.min(old.wrapping_sub(offset))
        });
        if self.offset.is_none() {
            self.offset = Some(offset);
        }
        if drift < CLOCK_TOLERANCE {
            return;
        }
        self.offset = Some(offset);
        warn!(
            seconds = drift,
            "the wall clock moved; validity is computed anew"
        );
        for (id, slot) in &self.slots {
            if let Slot::Available { member, .. } = slot {
                let remaining = member.svid().remaining_at(wall);
                self.schedule.revalidate(id, remaining, now);
            }
        }
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

impl<I> Drop for Worker<I> {
    fn drop(&mut self) {
        self.shared.inbox.close();
    }
}

/// An answer is valid for too short or too long.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("its validity of {remaining:?} is out of bounds")]
struct OddValidity {
    remaining: Duration,
}

#[cfg(test)]
#[cfg(feature = "issuer-self-signed")]
mod tests;

//! Live connections, judged again when what they were judged by changes.

mod admission;
mod entry;
mod registry;

use std::{
    fmt,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
};

use meshwright_identity::SpiffeId;

use crate::{
    connection::{Connection, Subject},
    decision::{Decision, Denied, Reason},
    store::PolicyReader,
};
pub use admission::{Admission, Revoked, WaitRevoked};
use entry::{Entry, Outcome};
use registry::Registry;

/// Says which policies apply to a workload *now*.
///
/// A program answers from its current view of the mesh. It is asked after a connection has been
/// registered, so that a change in between is not missed; therefore it must answer from the view
/// whose changes it reports by [`Live::judge_again`], and never from a copy it took earlier.
///
/// Implemented for closures:
///
/// ```
/// use meshwright_policy::{Live, Mode, PolicyStore, Subject};
///
/// let (_store, policies) = PolicyStore::new(Mode::IstioCompatible);
/// let live = Live::new(policies, |workload: &str, judge: &mut dyn FnMut(Subject<'_>)| {
///     // Not calling `judge` says that the workload is gone.
///     if workload == "cluster//Pod/shop/web" {
///         judge(Subject::new("shop", &[]));
///     }
/// });
/// assert!(live.is_empty());
/// ```
pub trait Subjects: Send + Sync {
    /// Calls `judge` with the workload of this UID; does not call it if there is none.
    ///
    /// Runs on the way of every new connection: it must not block. No lock of [`Live`] is held.
    fn with_subject(&self, workload: &str, judge: &mut dyn FnMut(Subject<'_>));
}

impl<F> Subjects for F
where
    F: Fn(&str, &mut dyn FnMut(Subject<'_>)) + Send + Sync,
{
    fn with_subject(&self, workload: &str, judge: &mut dyn FnMut(Subject<'_>)) {
        self(workload, judge);
    }
}

/// What a connection is judged by for as long as it lives.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ConnectionFacts {
    /// The caller's identity from its verified certificate; `None` for plaintext.
    pub source: Option<SpiffeId>,
    /// Address and port of the TCP peer; the port is only for dumps.
    pub source_addr: SocketAddr,
    /// Address and port of the pod, after de-tunnelling.
    pub destination: SocketAddr,
    /// UID of the workload that is reached.
    pub workload: Arc<str>,
    /// What the caller asked for, in its words: only for dumps, never judged.
    pub requested: Option<Arc<str>>,
}

impl ConnectionFacts {
    /// Describes a connection to the workload with the UID `workload`.
    #[must_use]
    pub const fn new(
        source: Option<SpiffeId>,
        source_addr: SocketAddr,
        destination: SocketAddr,
        workload: Arc<str>,
    ) -> Self {
        Self {
            source,
            source_addr,
            destination,
            workload,
            requested: None,
        }
    }

    /// Adds what the caller asked for, to be shown in dumps.
    #[must_use]
    pub fn with_requested(mut self, requested: Arc<str>) -> Self {
        self.requested = Some(requested);
        self
    }
}

/// The registry of live connections; cheap to clone, shared by all threads.
///
/// [`admit`](Self::admit) registers a connection, *then* asks which policies apply, *then* judges.
/// [`judge_again`](Self::judge_again) is called *after* a change is visible. Either the change was
/// visible when the connection was judged, or the connection was registered when the change was
/// applied: there is no third case, so no change is missed.
///
/// Connections of one workload share a lock, which is held to add, remove or list them and never
/// while judging. Memory per connection: some 300 bytes; the number is bounded by whoever accepts
/// connections.
#[derive(Clone)]
pub struct Live {
    shared: Arc<Shared>,
}

struct Shared {
    policies: PolicyReader,
    subjects: Box<dyn Subjects>,
    registry: Registry,
    /// Number of the last judgement; holds remember in which one they began.
    round: AtomicU64,
}

/// Which connections a change concerns.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Concerned<'a> {
    /// All: policies changed.
    All,
    /// Those of the workload with this UID: its record changed.
    Workload(&'a str),
}

/// What a judgement did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Judged {
    /// Connections that were judged.
    pub judged: usize,
    /// Connections that were revoked by it.
    pub revoked: usize,
    /// Connections that stay although a policy listed by their workload is not known, new and old
    /// ones. If there are any, the program calls [`Live::end_hold`] after its hold time (Istio's
    /// messages are seconds apart at most; 10 s is the default everywhere here).
    pub held: usize,
    /// Pass this to [`Live::end_hold`].
    pub hold: Hold,
}

/// A point in time for [`Live::end_hold`]: holds that began until then.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Hold(u64);

impl Live {
    /// Creates an empty registry that judges by `policies`.
    pub fn new(policies: PolicyReader, subjects: impl Subjects + 'static) -> Self {
        let shared = Shared {
            policies,
            subjects: Box::new(subjects),
            registry: Registry::default(),
            round: AtomicU64::new(0),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Judges a new connection and registers it, in one step.
    ///
    /// The connection stays registered until the [`Admission`] is dropped.
    ///
    /// # Errors
    ///
    /// Returns why the connection must be refused. If [`Denied::is_hold`] says that only a policy
    /// is missing, hold the connection and try again when policies or the workload changed; or let
    /// [`admit_or_hold`](Self::admit_or_hold) do that.
    pub fn admit(&self, facts: ConnectionFacts) -> Result<Admission, Denied> {
        let admission = self.register(facts);
        match self.judge(admission.entry()) {
            Outcome::Allow => {}
            Outcome::Deny(denied) => return Err(denied),
            Outcome::Unknown(policy) => return Err(Denied::new(Some(policy), Reason::Unknown)),
        }
        // A judgement that ran since the registration may know better.
        match admission.entry().revoked() {
            Some(revoked) => Err(revoked.into()),
            None => Ok(admission),
        }
    }

    /// Like [`admit`](Self::admit), but while only a policy is missing it waits until policies or
    /// the workload change, at the longest until `deadline` is ready.
    ///
    /// `deadline` is the caller's timer, ten seconds by default in every program here. Changes
    /// wake this through [`judge_again`](Self::judge_again). Cancel safe: dropped, the connection
    /// is not admitted and not registered.
    ///
    /// # Errors
    ///
    /// Returns why the connection must be refused; [`Reason::Unknown`] if the deadline passed.
    pub async fn admit_or_hold(
        &self,
        facts: ConnectionFacts,
        deadline: impl Future<Output = ()> + Send,
    ) -> Result<Admission, Denied> {
        let admission = self.register(facts);
        let mut deadline = pin!(deadline);
        std::future::poll_fn(|cx| {
            loop {
                let entry = admission.entry();
                let seen = entry.wait_for_judgement(cx);
                match self.judge(entry) {
                    Outcome::Allow => {
                        return Poll::Ready(entry.revoked().map_or(Ok(()), |r| Err(r.into())));
                    }
                    Outcome::Deny(denied) => return Poll::Ready(Err(denied)),
                    Outcome::Unknown(policy) => {
                        if let Some(revoked) = entry.revoked() {
                            return Poll::Ready(Err(revoked.into()));
                        }
                        if deadline.as_mut().poll(cx).is_ready() {
                            return Poll::Ready(Err(Denied::new(Some(policy), Reason::Unknown)));
                        }
                        // A judgement since the waker was left is not waited for.
                        if entry.judgements() == seen {
                            return Poll::Pending;
                        }
                    }
                }
            }
        })
        .await?;
        Ok(admission)
    }

    /// Judges live connections by what is in force now; call it after a change is visible.
    ///
    /// Revokes those that are denied now or whose workload is gone. One whose workload lists a
    /// policy that is not known stays, and is counted as held.
    ///
    /// Costs a decision each, on the calling thread; locks are held only to list connections.
    pub fn judge_again(&self, concerned: Concerned<'_>) -> Judged {
        let round = self.shared.round.fetch_add(1, Ordering::Relaxed) + 1;
        let mut judged = Judged {
            hold: Hold(round),
            ..Judged::default()
        };
        self.shared.registry.each(concerned, |entry| {
            self.judge_live(entry, round, &mut judged);
        });
        judged
    }

    /// Ends the holds that began until `hold`: what still lists a policy that is not known is
    /// revoked, everything else that was held is judged by the policies that are known now.
    pub fn end_hold(&self, hold: Hold) -> Judged {
        let mut judged = Judged {
            hold,
            ..Judged::default()
        };
        self.shared.registry.each(Concerned::All, |entry| {
            if !entry.is_held_since(hold.0) {
                return;
            }
            self.judge_live(entry, hold.0, &mut judged);
            if let Some(policy) = entry.held_policy()
                && entry.is_held_since(hold.0)
            {
                judged.held = judged.held.saturating_sub(1);
                judged.revoked +=
                    usize::from(entry.revoke(Denied::new(Some(policy), Reason::Unknown)));
            }
        });
        judged
    }

    /// Revokes every connection that `condemned` picks, for a reason outside of policy: a revoked
    /// certificate or a removed root.
    ///
    /// A connection that is admitted at the same time may be missed: make sure that new ones are
    /// refused first. Returns how many were revoked.
    pub fn revoke_where(
        &self,
        reason: &Denied,
        condemned: impl Fn(&ConnectionFacts) -> bool,
    ) -> usize {
        let mut revoked = 0;
        self.shared.registry.each(Concerned::All, |entry| {
            if condemned(entry.facts()) {
                revoked += usize::from(entry.revoke(reason.clone()));
            }
        });
        revoked
    }

    /// Calls `visit` with every registered connection, in no particular order, without a lock.
    pub fn for_each(&self, mut visit: impl FnMut(&ConnectionFacts)) {
        self.shared
            .registry
            .each(Concerned::All, |entry| visit(entry.facts()));
    }

    /// Calls `visit` with every registered connection of one workload, without a lock.
    pub fn for_each_of(&self, workload: &str, mut visit: impl FnMut(&ConnectionFacts)) {
        self.shared
            .registry
            .each(Concerned::Workload(workload), |entry| visit(entry.facts()));
    }

    /// Number of registered connections.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.registry.len()
    }

    /// Whether no connection is registered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of registered connections of one workload.
    #[must_use]
    pub fn len_of(&self, workload: &str) -> usize {
        self.shared.registry.len_of(workload)
    }

    fn register(&self, facts: ConnectionFacts) -> Admission {
        let entry = Arc::new(Entry::new(facts));
        let key = self.shared.registry.insert(&entry);
        Admission::new(self.clone(), entry, key)
    }

    /// Judges by what is in force now.
    fn judge(&self, entry: &Entry) -> Outcome {
        let facts = entry.facts();
        let mut outcome = Outcome::Deny(Denied::new(None, Reason::Gone));
        self.shared
            .subjects
            .with_subject(&facts.workload, &mut |subject| {
                let source_ip = facts.source_addr.ip();
                let connection =
                    Connection::new(facts.source.as_ref(), source_ip, facts.destination, subject);
                outcome = match self.shared.policies.decide(&connection) {
                    Decision::Allow => Outcome::Allow,
                    Decision::Deny(denied) => Outcome::Deny(denied),
                    Decision::Unknown { policy } => Outcome::Unknown(policy),
                };
            });
        outcome
    }

    fn judge_live(&self, entry: &Entry, round: u64, judged: &mut Judged) {
        judged.judged += 1;
        match self.judge(entry) {
            Outcome::Allow => entry.release(),
            Outcome::Deny(denied) => judged.revoked += usize::from(entry.revoke(denied)),
            Outcome::Unknown(policy) => {
                entry.hold(policy, round);
                judged.held += 1;
            }
        }
        entry.judged();
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live")
            .field("connections", &self.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

//! Where policies come in and go out: one writer, many readers.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::Arc,
};

use arc_swap::ArcSwap;

use crate::{
    InvalidPolicy,
    connection::Connection,
    convert::{convert, stand_in, stand_in_for_everything},
    decision::Decision,
    explain::Explanation,
    invalid::Flaw,
    policy::Policy,
    set::{Mode, PolicySet},
};

/// Most policies that a store takes. A cluster with this many has a hundred for each of its
/// thousand namespaces.
pub const MAX_POLICIES: usize = 100_000;

/// Name of the stand-in that denies everything once a store is full.
///
/// It stays until the control plane removes a policy of this name, or the process is restarted.
const FULL: &str = "meshwright/policy-store-is-full";

/// Longest resource name that is kept or repeated in a NACK, in bytes.
const MAX_RESOURCE_NAME_BYTES: usize = 1100;

/// The writing end: takes resources as they arrive and publishes a new [`PolicySet`].
///
/// A resource that does not [`convert`] never takes effect, and never ends the effect of an earlier
/// version: that stays in force and is flagged (see [`PolicyReader::rejected`]). Without an earlier
/// version a stand-in is put in its place that fails closed for whomever it selects: as ALLOW it
/// never matches but counts as an ALLOW policy, as DENY it matches always. If even the scope cannot
/// be read, it denies everything in the namespace of its name, and workloads elsewhere that list it
/// find it unknown.
///
/// An empty store allows everything, as a mesh without policies does: a program admits nothing
/// before the first complete answer of its control plane has been applied.
///
/// Dropping the store leaves the last set in force.
#[derive(Debug)]
pub struct PolicyStore {
    shared: Arc<ArcSwap<Published>>,
    rejected: BTreeMap<Arc<str>, Arc<InvalidPolicy>>,
}

/// The reading end; cheap to clone, usable from any thread, never blocks.
#[derive(Clone)]
pub struct PolicyReader {
    shared: Arc<ArcSwap<Published>>,
}

/// A resource that was not accepted: what a NACK names.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Rejected {
    /// The resource's name, cut to a printable length.
    pub name: Arc<str>,
    /// Why.
    pub reason: Arc<InvalidPolicy>,
}

/// What readers see.
#[derive(Debug)]
struct Published {
    set: Arc<PolicySet>,
    rejected: Arc<[Rejected]>,
    version: u64,
}

impl PolicyStore {
    /// Creates an empty store and its first reader.
    #[must_use]
    pub fn new(mode: Mode) -> (Self, PolicyReader) {
        let published = Published {
            set: Arc::new(PolicySet::empty(mode)),
            rejected: Arc::default(),
            version: 0,
        };
        let shared = Arc::new(ArcSwap::from_pointee(published));
        let reader = PolicyReader {
            shared: Arc::clone(&shared),
        };
        let store = Self {
            shared,
            rejected: BTreeMap::new(),
        };
        (store, reader)
    }

    /// Another reader.
    #[must_use]
    pub fn reader(&self) -> PolicyReader {
        PolicyReader {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Takes a message of the control plane: resources, the last of one name, then removals.
    ///
    /// A name that is both sent and removed is gone, as for every keeper of xDS resources.
    ///
    /// The new set is published when this returns, all of it at once, so whoever sends the ACK
    /// afterwards keeps the promise that no connection is judged by the old policies after it. Live
    /// connections are then judged by [`Live::judge_again`](crate::Live::judge_again). Costs the
    /// size of the change, not of the store.
    ///
    /// Returns what was not accepted, for the NACK.
    pub fn apply<'a>(
        &mut self,
        resources: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        removed: impl IntoIterator<Item = &'a str>,
    ) -> Vec<Rejected> {
        let now = self.shared.load_full();
        let mut changes: BTreeMap<Arc<str>, Option<Arc<Policy>>> = BTreeMap::new();
        let removed: BTreeSet<&str> = removed.into_iter().collect();
        // What goes makes room for what comes.
        for &name in &removed {
            self.rejected.remove(name);
            if now.set.policy(name).is_some() {
                changes.insert(name.into(), None);
            }
        }
        // The last of one name counts, in the order in which the names first came.
        let mut latest: HashMap<&str, (usize, &[u8])> = HashMap::new();
        let kept = resources
            .into_iter()
            .filter(|(name, _)| !removed.contains(name));
        for (place, (name, resource)) in kept.enumerate() {
            latest.entry(name).or_insert((place, resource)).1 = resource;
        }
        let mut latest: Vec<_> = latest.into_iter().collect();
        latest.sort_unstable_by_key(|&(_, (place, _))| place);
        let mut message = Message {
            count: now.set.len().saturating_sub(changes.len()),
            now: &now.set,
            changes,
        };
        let mut rejected = Vec::new();
        for (name, (_, resource)) in latest {
            if let Err(reason) = self.take(name, resource, &mut message) {
                let name = printable(name);
                rejected.push(Rejected { name, reason });
            }
        }
        let changes = message.changes;
        self.publish(&now, changes);
        rejected
    }

    /// Turns one resource into a change.
    fn take(
        &mut self,
        name: &str,
        resource: &[u8],
        message: &mut Message<'_>,
    ) -> Result<(), Arc<InvalidPolicy>> {
        if !message.has_room_for(name) {
            let reason = InvalidPolicy::from(Flaw::TooLarge {
                limit: MAX_POLICIES,
            });
            // What is left out might be a DENY for anybody.
            message.add(stand_in_for_everything(FULL, reason.clone()));
            let reason = Arc::new(reason);
            self.rejected.insert(FULL.into(), Arc::clone(&reason));
            return Err(reason);
        }
        let invalid = match convert(name, resource) {
            Ok(policy) => {
                self.rejected.remove(name);
                message.add(policy);
                return Ok(());
            }
            Err(invalid) => invalid,
        };
        let reason = Arc::new(invalid.clone());
        if message.has_good(name) {
            self.rejected.insert(name.into(), Arc::clone(&reason));
        } else if let Some(policy) = stand_in(name, resource, invalid) {
            self.rejected.insert(name.into(), Arc::clone(&reason));
            message.add(policy);
        }
        Err(reason)
    }

    fn publish(&self, now: &Published, changes: BTreeMap<Arc<str>, Option<Arc<Policy>>>) {
        let set = match changes.is_empty() {
            true => Arc::clone(&now.set),
            false => Arc::new(now.set.with_changes(changes)),
        };
        let rejected = self.rejected.iter().map(|(name, reason)| Rejected {
            name: Arc::clone(name),
            reason: Arc::clone(reason),
        });
        self.shared.store(Arc::new(Published {
            set,
            rejected: rejected.collect(),
            version: now.version + 1,
        }));
    }
}

/// A message on its way in.
struct Message<'a> {
    now: &'a PolicySet,
    changes: BTreeMap<Arc<str>, Option<Arc<Policy>>>,
    /// Policies there will be.
    count: usize,
}

impl Message<'_> {
    fn has_room_for(&self, name: &str) -> bool {
        self.count < MAX_POLICIES || self.now.policy(name).is_some()
    }

    /// Whether a real version is in force.
    fn has_good(&self, name: &str) -> bool {
        let is_good = |policy: &Arc<Policy>| policy.invalid.is_none();
        self.now.policy(name).is_some_and(is_good)
    }

    fn add(&mut self, policy: Policy) {
        self.count += usize::from(self.now.policy(&policy.name).is_none());
        self.changes
            .insert(Arc::clone(&policy.name), Some(Arc::new(policy)));
    }
}

impl PolicyReader {
    /// The policies in force now, to keep or to decide several times by.
    #[must_use]
    pub fn set(&self) -> Arc<PolicySet> {
        Arc::clone(&self.shared.load().set)
    }

    /// Decides by the policies in force now; cheaper than through [`set`](Self::set) when many
    /// threads decide.
    #[must_use]
    pub fn decide(&self, connection: &Connection<'_>) -> Decision {
        self.shared.load().set.decide(connection)
    }

    /// Explains what [`decide`](Self::decide) would answer now.
    #[must_use]
    pub fn explain(&self, connection: &Connection<'_>) -> Explanation {
        self.shared.load().set.explain(connection)
    }

    /// Resources whose latest version was not accepted, by name: an earlier version or a stand-in
    /// is in force for each.
    #[must_use]
    pub fn rejected(&self) -> Arc<[Rejected]> {
        Arc::clone(&self.shared.load().rejected)
    }

    /// A number that grows with every message that was applied.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.shared.load().version
    }
}

impl fmt::Debug for PolicyReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let now = self.shared.load();
        f.debug_struct("PolicyReader")
            .field("policies", &now.set.len())
            .field("version", &now.version)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.reason)
    }
}

/// A name for a message: bounded, on one line.
fn printable(name: &str) -> Arc<str> {
    let shown = name
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c });
    let mut text = String::new();
    for c in shown {
        if text.len() + c.len_utf8() > MAX_RESOURCE_NAME_BYTES {
            break;
        }
        text.push(c);
    }
    text.into()
}

#[cfg(test)]
mod tests;

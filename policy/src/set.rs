//! All policies in force, compiled: the thing that decides.

mod bucket;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    connection::{Connection, Facts},
    decision::{Decision, Denied, Reason},
    hash::Sharded,
    index::{Found, Search, Segment},
    matching::Unevaluable,
    policy::{Action, Policy, Scope, Selects},
};
use bucket::Bucket;

/// How to read what a policy leaves open.
///
/// Both modes share everything else: DENY before ALLOW, "no ALLOW policy applies" allows, a listed
/// policy that is not known decides nothing, an unreadable policy fails closed, dry-run policies
/// are never enforced.
///
/// | situation | `IstioCompatible` | `Strict` |
/// | --- | --- | --- |
/// | condition on an identity part that the caller lacks (plaintext, or an ID that names no workload), other than "is present" | a positive one fails, a negated one holds | DENY: holds; ALLOW: fails |
/// | "is present", "is not present" | decided by the identity | same |
/// | match without any condition (a control plane stripped it) | does not hold | DENY: holds; ALLOW: does not |
/// | clause without any match | holds | DENY: holds; ALLOW: does not |
/// | rule without clauses (`{}` in YAML) | holds | same |
/// | policy without rules | never matches | same |
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Mode {
    /// The truth table of Istio's node proxy. The default of a drop-in replacement.
    #[default]
    IstioCompatible,
    /// What cannot be evaluated denies: a DENY takes effect, an ALLOW does not.
    Strict,
}

impl Mode {
    pub(crate) const fn unevaluable(self, action: Action) -> Unevaluable {
        match (self, action) {
            (Self::IstioCompatible, _) => Unevaluable::AsIstio,
            (Self::Strict, Action::Deny) => Unevaluable::Holds,
            (Self::Strict, Action::Allow) => Unevaluable::Fails,
        }
    }
}

/// Policies compiled for decisions; immutable, cheap to clone.
///
/// [`decide`](Self::decide) evaluates only the rules that share a key with the connection (a
/// principal, port, network and so on), so that ten thousand policies cost about a microsecond, and
/// allocates nothing. Copies that differ by a few policies share most of their memory.
///
/// ```
/// use meshwright_policy::{Connection, Mode, PolicySet, Subject, convert, proto};
/// use prost::Message;
///
/// // An ALLOW policy without rules matches nobody, so it refuses everybody.
/// let nobody = proto::Authorization {
///     name: "nobody".into(),
///     namespace: "shop".into(),
///     scope: proto::Scope::Namespace.into(),
///     ..Default::default()
/// };
/// let policy = convert("shop/nobody", &nobody.encode_to_vec())?;
/// let set = PolicySet::new(Mode::IstioCompatible, [policy]);
///
/// let source = "10.0.0.1".parse()?;
/// let to = |namespace| Connection::new(None, source, "10.0.0.2:80".parse().unwrap(), Subject::new(namespace, &[]));
/// assert_eq!(set.decide(&to("shop")).to_string(), "denied: allow policies exist, but none allowed");
/// assert!(set.decide(&to("elsewhere")).is_allow());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct PolicySet {
    mode: Mode,
    names: Sharded<Named>,
    global: Arc<Bucket>,
    namespaces: Sharded<Arc<Bucket>>,
}

/// A policy by its name, for the workloads that list it.
#[derive(Clone, Debug)]
struct Named {
    policy: Arc<Policy>,
    /// For long selector policies.
    index: Option<Arc<Segment>>,
}

/// Above this many rules a selector policy gets an index of its own.
const RULES_WITHOUT_INDEX: usize = 16;

/// What was decided and by what; [`Decision`] is its short form.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Verdict<'a> {
    /// By this rule of an ALLOW policy, or because no ALLOW policy applies.
    Allow(Option<Found<'a>>),
    Deny(Found<'a>),
    NotAllowed,
    Unknown(&'a Arc<str>),
}

/// Where a policy applies by itself.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Reach<'a> {
    Everywhere,
    Namespace(&'a str),
    /// Only for workloads that list it.
    Listed,
}

impl PolicySet {
    /// Compiles `policies`; of two with one name the later counts.
    pub fn new(mode: Mode, policies: impl IntoIterator<Item = Policy>) -> Self {
        let changes = policies
            .into_iter()
            .map(|policy| (Arc::clone(&policy.name), Some(Arc::new(policy))));
        Self::empty(mode).with_changes(changes.collect())
    }

    /// A set without policies: allows everything.
    #[must_use]
    pub fn empty(mode: Mode) -> Self {
        Self {
            mode,
            names: Sharded::new(),
            global: Arc::default(),
            namespaces: Sharded::new(),
        }
    }

    /// Decides about one connection, without allocating.
    ///
    /// In this order: DENY policies; then a listed policy that is not known; then ALLOW policies.
    /// The reason is always the same for the same policies: global policies by name, then those of
    /// the namespace by name, then those that the workload lists in its order; the first rule of
    /// the first.
    #[must_use]
    pub fn decide(&self, connection: &Connection<'_>) -> Decision {
        match self.judge(connection, &Facts::new(connection), false) {
            Verdict::Allow(_) => Decision::Allow,
            Verdict::Deny(found) => Decision::Deny(denied(found)),
            Verdict::NotAllowed => Decision::Deny(Denied::new(None, Reason::NotAllowed)),
            Verdict::Unknown(policy) => Decision::Unknown {
                policy: Arc::clone(policy),
            },
        }
    }

    /// How open ends are read.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// Number of policies, stand-ins and dry-run policies included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is no policy.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All policies, in no particular order: for dumps.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<Policy>> + '_ {
        self.names.values().map(|named| &named.policy)
    }

    /// The policy with this resource name.
    #[must_use]
    pub fn policy(&self, name: &str) -> Option<&Arc<Policy>> {
        self.names.get(name).map(|named| &named.policy)
    }

    /// The one place where the order of steps is written; `explain` wants the ALLOW `in_order` too.
    pub(crate) fn judge<'a>(
        &'a self,
        connection: &Connection<'a>,
        facts: &Facts<'_>,
        in_order: bool,
    ) -> Verdict<'a> {
        let namespace = self
            .namespaces
            .get(connection.workload.namespace)
            .map(Arc::as_ref);
        let buckets = || std::iter::once(&*self.global).chain(namespace);
        let deny = Search {
            facts,
            unevaluable: self.mode.unevaluable(Action::Deny),
            in_order: true,
        };
        if let Some(found) = buckets().find_map(|bucket| bucket.deny.find(&deny)) {
            return Verdict::Deny(found);
        }
        let allow = Search {
            unevaluable: self.mode.unevaluable(Action::Allow),
            in_order,
            ..deny
        };
        let mut allows = buckets().any(|bucket| bucket.allow.len() > 0);
        let (mut unknown, mut listed_allow) = (None, None);
        for name in connection.workload.policies {
            let Some(named) = self.listed(name, connection.workload.namespace, &mut unknown) else {
                continue;
            };
            match named.policy.action {
                Action::Deny => {
                    if let Some(found) = named.find(&deny) {
                        return Verdict::Deny(found);
                    }
                }
                Action::Allow => {
                    allows = true;
                    listed_allow = listed_allow.or_else(|| named.find(&allow));
                }
            }
        }
        if let Some(policy) = unknown {
            return Verdict::Unknown(policy);
        }
        if !allows {
            return Verdict::Allow(None);
        }
        match buckets()
            .find_map(|bucket| bucket.allow.find(&allow))
            .or(listed_allow)
        {
            Some(found) => Verdict::Allow(Some(found)),
            None => Verdict::NotAllowed,
        }
    }

    /// A listed policy that is to be enforced because it is listed; notes the first unknown one.
    fn listed<'a>(
        &'a self,
        name: &'a Arc<str>,
        namespace: &str,
        unknown: &mut Option<&'a Arc<str>>,
    ) -> Option<&'a Named> {
        let Some(named) = self.names.get(name) else {
            unknown.get_or_insert(name);
            return None;
        };
        match named.policy.selects {
            Selects::Unreadable => {
                unknown.get_or_insert(name);
                None
            }
            // These apply anyway and have had their turn.
            Selects::Scope(Scope::Global) => None,
            Selects::Scope(Scope::Namespace) if named.policy.namespace() == namespace => None,
            Selects::Scope(_) => named.policy.is_enforced().then_some(named),
        }
    }

    /// Every policy that applies to a workload, dry-run and unreadable ones included, in the order
    /// of the reasons.
    pub(crate) fn applicable<'a>(&'a self, connection: &Connection<'a>) -> Vec<&'a Arc<Policy>> {
        let namespace = self.namespaces.get(connection.workload.namespace);
        let mut policies = Vec::new();
        for bucket in std::iter::once(&self.global).chain(namespace) {
            let start = policies.len();
            policies.extend(bucket.policies());
            if let Some(new) = policies.get_mut(start..) {
                new.sort_unstable_by(|one, other| one.name.cmp(&other.name));
            }
        }
        for name in connection.workload.policies {
            if let Some(named) = self.names.get(name)
                && !policies
                    .iter()
                    .any(|policy| policy.name == named.policy.name)
            {
                policies.push(&named.policy);
            }
        }
        policies
    }

    /// A copy in which each named policy is replaced, added or (`None`) removed.
    pub(crate) fn with_changes(&self, changes: BTreeMap<Arc<str>, Option<Arc<Policy>>>) -> Self {
        let mut set = self.clone();
        let mut buckets: BTreeMap<Reach<'_>, (BTreeSet<&str>, Vec<Arc<Policy>>)> = BTreeMap::new();
        for (name, policy) in &changes {
            if let Some(old) = self.names.get(name) {
                buckets
                    .entry(Reach::of(&old.policy))
                    .or_default()
                    .0
                    .insert(name);
            }
            match policy {
                Some(policy) => {
                    let added = &mut buckets.entry(Reach::of(policy)).or_default().1;
                    added.push(Arc::clone(policy));
                    set.names
                        .insert(Arc::clone(name), Named::new(policy, self.mode));
                }
                None => set.names.remove(name),
            }
        }
        for (reach, (gone, added)) in buckets {
            match reach {
                Reach::Everywhere => {
                    set.global = Arc::new(self.global.changed(&gone, &added, self.mode));
                }
                Reach::Namespace(namespace) => {
                    let old = self.namespaces.get(namespace).cloned().unwrap_or_default();
                    let bucket = old.changed(&gone, &added, self.mode);
                    if bucket.is_empty() {
                        set.namespaces.remove(namespace);
                    } else {
                        set.namespaces.insert(namespace.into(), Arc::new(bucket));
                    }
                }
                Reach::Listed => {}
            }
        }
        set
    }
}

impl<'a> Reach<'a> {
    fn of(policy: &'a Policy) -> Self {
        match policy.selects {
            Selects::Scope(Scope::Global) => Self::Everywhere,
            Selects::Scope(Scope::Namespace) | Selects::Unreadable => {
                Self::Namespace(policy.namespace())
            }
            Selects::Scope(Scope::WorkloadSelector) => Self::Listed,
        }
    }
}

impl Named {
    fn new(policy: &Arc<Policy>, mode: Mode) -> Self {
        let needs_index =
            Reach::of(policy) == Reach::Listed && policy.rules.len() > RULES_WITHOUT_INDEX;
        let segment = || {
            Segment::new(
                Box::new([Arc::clone(policy)]),
                mode.unevaluable(policy.action),
            )
        };
        Self {
            policy: Arc::clone(policy),
            index: needs_index.then(|| Arc::new(segment())),
        }
    }

    fn find(&self, search: &Search<'_>) -> Option<Found<'_>> {
        if let Some(index) = &self.index {
            return index.find(search, |_position| true);
        }
        let mut rules = self.policy.rules.iter().zip(0_u32..);
        let (_, rule) = rules.find(|(rule, _)| rule.holds(search.facts, search.unevaluable))?;
        Some(Found {
            policy: &self.policy,
            rule,
        })
    }
}

pub(crate) fn denied(found: Found<'_>) -> Denied {
    let reason = match found.policy.invalid {
        Some(_) => Reason::Unreadable,
        None => Reason::Explicit { rule: found.rule },
    };
    Denied::new(Some(Arc::clone(&found.policy.name)), reason)
}

#[cfg(test)]
mod tests;

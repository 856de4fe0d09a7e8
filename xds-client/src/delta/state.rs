//! What is known of one type.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use super::{
    session::{Interest, SessionConfig},
    version::Version,
};
use crate::{
    handler::{Rejected, Resource},
    proto::discovery::DeltaDiscoveryRequest,
};

/// Everything, as a name.
const WILDCARD: &str = "*";

#[derive(Debug)]
pub(super) struct TypeState {
    pub(super) type_url: Arc<str>,
    pub(super) interest: Interest,
    /// Resources that were applied.
    pub(super) known: HashMap<Arc<str>, Known>,
    /// Names asked for, and whether the server has answered that they exist.
    pub(super) wanted: BTreeMap<Arc<str>, Option<bool>>,
    /// Other names of resources, kept for types that are asked for by name.
    aliases: HashMap<Arc<str>, Vec<String>>,
    /// Resources with a time to live.
    expiries: HashMap<Arc<str>, Duration>,
    expiry_order: BTreeSet<(Duration, Arc<str>)>,
    /// A response was accepted completely, on this stream or an earlier one.
    pub(super) complete: bool,
    pub(super) stream: Option<Stream>,
}

/// A resource that was applied.
#[derive(Debug)]
pub(super) struct Known {
    version: Version,
    /// False when a newer version was sent since and refused.
    current: bool,
}

/// One type on the open stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) opened: Duration,
    pub(super) answered: Option<Duration>,
    pub(super) overdue: bool,
    /// Known resources that the server was not told of, so that it must send them if they exist.
    unconfirmed: HashSet<Arc<str>>,
}

impl TypeState {
    pub(super) fn new(type_url: &str, interest: Interest) -> Self {
        Self {
            type_url: type_url.into(),
            interest,
            known: HashMap::new(),
            wanted: BTreeMap::new(),
            aliases: HashMap::new(),
            expiries: HashMap::new(),
            expiry_order: BTreeSet::new(),
            complete: false,
            stream: None,
        }
    }

    /// The first request of a stream: subscribes and tells which versions are here.
    ///
    /// What does not fit into one message, or was refused in its newest version, is left out:
    /// the server then sends it anew, or it is dropped as stale.
    pub(super) fn open(&mut self, now: Duration, config: &SessionConfig) -> DeltaDiscoveryRequest {
        let mut request = DeltaDiscoveryRequest {
            type_url: self.type_url.to_string(),
            ..DeltaDiscoveryRequest::default()
        };
        let mut unconfirmed = HashSet::new();
        let mut bytes = 0;
        for (name, known) in &self.known {
            let version = known.version.as_str();
            bytes += name.len() + version.len() + 12;
            let named = self.interest == Interest::Named;
            match (known.current && bytes <= config.max_request_bytes, named) {
                (true, _) => echo(&mut request, name, version),
                (false, true) => echo(&mut request, name, ""),
                (false, false) => drop(unconfirmed.insert(Arc::clone(name))),
            }
        }
        if self.interest == Interest::Named {
            // Subscribing and unsubscribing everything at once means: nothing but these names.
            let names = self.wanted.keys().map(|name| name.to_string());
            request.resource_names_subscribe =
                [WILDCARD.to_owned()].into_iter().chain(names).collect();
            request.resource_names_unsubscribe = vec![WILDCARD.to_owned()];
        }
        self.stream = Some(Stream {
            opened: now,
            answered: None,
            overdue: false,
            unconfirmed,
        });
        request
    }

    /// Takes note of what a handler made of a resource.
    pub(super) fn note(&mut self, resource: &Resource, is_rejected: bool) {
        let name = &resource.name;
        self.confirm(name);
        if is_rejected {
            if let Some(known) = self.known.get_mut(name) {
                known.current = false;
            }
        } else {
            let known = Known {
                version: resource.version.as_str().into(),
                current: true,
            };
            self.known.insert(Arc::clone(name), known);
        }
        if self.interest == Interest::Named {
            let aliases = self.aliases.entry(Arc::clone(name)).or_default();
            aliases.clone_from(&resource.aliases);
            self.answer(name, &resource.aliases, !is_rejected);
        }
    }

    /// Forgets a resource; it no longer exists.
    pub(super) fn forget(&mut self, name: &Arc<str>) {
        self.confirm(name);
        self.known.remove(name);
        self.set_expiry(name, None);
        let aliases = self.aliases.remove(name).unwrap_or_default();
        self.answer(name, &aliases, false);
    }

    fn answer(&mut self, name: &str, aliases: &[String], exists: bool) {
        for name in aliases.iter().map(String::as_str).chain([name]) {
            if let Some(answer) = self.wanted.get_mut(name) {
                *answer = Some(exists);
            }
        }
    }

    fn confirm(&mut self, name: &Arc<str>) {
        if let Some(stream) = &mut self.stream {
            stream.unconfirmed.remove(name);
        }
    }

    /// Names asked for and not answered.
    pub(super) fn unanswered(&self) -> Vec<Arc<str>> {
        let open = self.wanted.iter().filter(|(_, answer)| answer.is_none());
        open.map(|(name, _)| Arc::clone(name)).collect()
    }

    /// The answers to names that had none.
    pub(super) fn answers(&self, open: Vec<Arc<str>>) -> Vec<(Arc<str>, bool)> {
        let answer = |name: Arc<str>| {
            let exists = self.wanted.get(&name).copied().flatten()?;
            Some((name, exists))
        };
        open.into_iter().filter_map(answer).collect()
    }

    pub(super) fn has_expiries(&self) -> bool {
        !self.expiries.is_empty()
    }

    /// Whether a resource without a body only prolongs the life of what is known.
    pub(super) fn is_heartbeat(&self, name: &str, version: &str) -> bool {
        let known = self.known.get(name);
        known.is_some_and(|known| known.version.as_str() == version)
            && self.expiries.contains_key(name)
    }

    /// Sets or clears the moment when a resource ends by itself.
    pub(super) fn set_expiry(&mut self, name: &Arc<str>, at: Option<Duration>) {
        if let Some(before) = self.expiries.remove(name) {
            self.expiry_order.remove(&(before, Arc::clone(name)));
        }
        if let Some(at) = at {
            self.expiries.insert(Arc::clone(name), at);
            self.expiry_order.insert((at, Arc::clone(name)));
        }
    }

    /// The names that end now: their time is over, or the server did not send them again.
    pub(super) fn take_stale(&mut self, now: Duration, config: &SessionConfig) -> Vec<Arc<str>> {
        let mut stale = Vec::new();
        while let Some((at, _)) = self.expiry_order.first()
            && *at <= now
        {
            stale.extend(self.expiry_order.pop_first().map(|(_, name)| name));
        }
        if let Some(stream) = &mut self.stream
            && stream.reconcile_at(config).is_some_and(|at| at <= now)
        {
            stale.extend(stream.unconfirmed.drain());
        }
        for name in &stale {
            self.forget(name);
        }
        stale
    }

    /// When [`take_stale`](Self::take_stale) or the watchdog have something to do.
    pub(super) fn deadline(&self, config: &SessionConfig) -> Option<Duration> {
        let expiry = self.expiry_order.first().map(|(at, _)| *at);
        let stream = self.stream.as_ref();
        let reconcile = stream.and_then(|stream| stream.reconcile_at(config));
        let overdue = stream.and_then(|stream| stream.overdue_at(config));
        [expiry, reconcile, overdue].into_iter().flatten().min()
    }
}

impl Stream {
    /// A server may send its first state in several messages: wait until it is quiet.
    fn reconcile_at(&self, config: &SessionConfig) -> Option<Duration> {
        let answered = self.answered.filter(|_| !self.unconfirmed.is_empty())?;
        Some(answered + config.quiet)
    }

    pub(super) fn overdue_at(&self, config: &SessionConfig) -> Option<Duration> {
        let waiting = self.answered.is_none() && !self.overdue;
        waiting.then(|| self.opened + config.overdue)
    }
}

fn echo(request: &mut DeltaDiscoveryRequest, name: &Arc<str>, version: &str) {
    let versions = &mut request.initial_resource_versions;
    versions.insert(name.to_string(), version.to_owned());
}

/// The names in a list of refusals.
pub(super) fn names(rejected: &[Rejected]) -> HashSet<&str> {
    rejected.iter().map(|one| &*one.name).collect()
}

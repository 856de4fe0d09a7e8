//! What is known of one type.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use super::{
    known::{Known, KnownNames},
    session::{Interest, SessionConfig},
    version::Version,
};
use crate::{handler::Resource, proto::discovery::DeltaDiscoveryRequest};

/// Everything, as a name.
const WILDCARD: &str = "*";

/// After this many times the quiet while, a server that is never quiet has sent its first state.
const MOST_QUIETS: u32 = 12;

#[derive(Debug)]
pub(super) struct TypeState {
    pub(super) type_url: Arc<str>,
    pub(super) interest: Interest,
    /// Resources that were sent and not removed.
    pub(super) known: KnownNames,
    /// Names asked for, and whether the server has answered that they exist.
    pub(super) wanted: BTreeMap<Arc<str>, Option<bool>>,
    /// Other names of resources, kept for types that are asked for by name.
    aliases: HashMap<Arc<str>, Vec<String>>,
    /// Resources with a time to live.
    expiries: HashMap<Arc<str>, Duration>,
    expiry_order: BTreeSet<(Duration, Arc<str>)>,
    /// A response was safe to use as a whole, on this stream or an earlier one.
    pub(super) complete: bool,
    pub(super) stream: Option<Stream>,
}

/// One type on the open stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) opened: Duration,
    pub(super) answered: Option<Answered>,
    pub(super) overdue: bool,
    /// Known resources that the server was not told of, so that it must send them if they exist.
    unconfirmed: HashSet<Arc<str>>,
}

/// When a type was answered on the open stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answered {
    first: Duration,
    last: Duration,
}

impl TypeState {
    pub(super) fn new(type_url: &str, interest: Interest) -> Self {
        Self {
            type_url: type_url.into(),
            interest,
            known: KnownNames::default(),
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
        for (name, known) in self.known.iter() {
            let version = known.current().map(Version::as_str);
            bytes += name.len() + version.map_or(0, str::len) + 12;
            let named = self.interest == Interest::Named;
            match version.filter(|_| bytes <= config.max_request_bytes) {
                Some(version) => echo(&mut request, name, version),
                None if named => echo(&mut request, name, ""),
                None => drop(unconfirmed.insert(Arc::clone(name))),
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

    /// Takes note of a resource on its way to the handler.
    pub(super) fn note(&mut self, resource: &Resource, expiry: Option<Duration>) {
        let name = &resource.name;
        self.confirm(name);
        let version = Known::Current(resource.version.as_str().into());
        self.known.insert(name, version);
        self.set_expiry(name, expiry);
        if self.interest == Interest::Named {
            let aliases = self.aliases.entry(Arc::clone(name)).or_default();
            aliases.clone_from(&resource.aliases);
            self.answer(name, &resource.aliases, true);
        }
    }

    /// Takes note that the handler refused a resource.
    ///
    /// An earlier version may be in force, or something that stands in for a first one: the name
    /// stays known, so that it goes when the server no longer has it.
    pub(super) fn refuse(&mut self, name: &str) {
        let Some((name, _)) = self.known.get(name) else {
            return;
        };
        let name = Arc::clone(name);
        self.set_expiry(&name, None);
        let aliases = self.aliases.get(&name).cloned().unwrap_or_default();
        self.answer(&name, &aliases, false);
        self.known.insert(&name, Known::Refused);
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

    /// Whether a resource without a body only prolongs the life of what is known.
    pub(super) fn is_heartbeat(&self, name: &str, version: &str) -> bool {
        let known = self.known.get(name).and_then(|(_, known)| known.current());
        known.is_some_and(|known| known.as_str() == version) && self.expiries.contains_key(name)
    }

    /// Sets or clears the moment when a resource ends by itself.
    pub(super) fn set_expiry(&mut self, name: &Arc<str>, at: Option<Duration>) {
        if self.expiries.is_empty() && at.is_none() {
            return;
        }
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
    pub(super) fn note_answer(&mut self, now: Duration) {
        let first = self.answered.map_or(now, |answered| answered.first);
        self.answered = Some(Answered { first, last: now });
    }

    /// A server may send its first state in several messages: wait until it is quiet, or has had
    /// time enough if it never is.
    fn reconcile_at(&self, config: &SessionConfig) -> Option<Duration> {
        let answered = self.answered.filter(|_| !self.unconfirmed.is_empty())?;
        let latest = answered.first + config.quiet * MOST_QUIETS;
        Some(latest.min(answered.last + config.quiet))
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

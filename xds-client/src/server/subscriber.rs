//! One stream as a state machine: requests and changes in, responses out.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::resources::{Changes, Entry, State, TypeSet};
use crate::proto::discovery::{Any, DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};

const WILDCARD: &str = "*";

/// Types of one stream, and names of one type; a client that wants more is refused.
const MAX_TYPES: usize = 64;
const MAX_NAMES: usize = 1_000_000;

/// Nonces are unique in the process, so that an answer on the wrong stream is recognised.
static NONCE: AtomicU64 = AtomicU64::new(1);

/// What one client has asked for and has.
#[derive(Debug, Default)]
pub(super) struct Subscriber {
    /// In the order of the first requests.
    order: Vec<Arc<str>>,
    types: BTreeMap<Arc<str>, Subscription>,
}

/// A client wants more than any client needs.
#[derive(Debug)]
pub(super) struct TooMuch;

#[derive(Debug, Default)]
struct Subscription {
    is_wildcard: bool,
    /// Names asked for, primary ones or aliases.
    names: BTreeSet<Arc<str>>,
    /// Versions by primary name of what the client has.
    sent: HashMap<Arc<str>, Arc<str>>,
    generation: u64,
}

/// A response being put together.
#[derive(Default)]
struct Draft {
    resources: Vec<Resource>,
    removed: Vec<String>,
}

impl Subscriber {
    /// Takes a subscription or an answer; returns the response it calls for.
    pub(super) fn on_request(
        &mut self,
        state: &State,
        request: DeltaDiscoveryRequest,
    ) -> Result<Option<DeltaDiscoveryResponse>, TooMuch> {
        let type_url: Arc<str> = request.type_url.as_str().into();
        let is_first = !self.types.contains_key(&type_url);
        if is_first {
            if self.types.len() >= MAX_TYPES {
                return Err(TooMuch);
            }
            self.order.push(Arc::clone(&type_url));
        }
        let subscription = self.types.entry(Arc::clone(&type_url)).or_default();
        let none = TypeSet::default();
        let set = state.get(&type_url).unwrap_or(&none);
        let draft = if is_first {
            subscription.generation = state.generation();
            Some(subscription.first(set, request))
        } else {
            subscription.change(set, &request)
        };
        if subscription.names.len() > MAX_NAMES || subscription.sent.len() > MAX_NAMES {
            return Err(TooMuch);
        }
        Ok(draft.map(|draft| draft.finish(&type_url)))
    }

    /// Brings the client up to date; one response per type with something new.
    pub(super) fn on_change(&mut self, state: &State) -> Vec<DeltaDiscoveryResponse> {
        let mut responses = Vec::new();
        let none = TypeSet::default();
        for type_url in &self.order {
            let Some(subscription) = self.types.get_mut(type_url) else {
                continue;
            };
            let changes = state.changes_since(type_url, subscription.generation);
            subscription.generation = state.generation();
            let draft = subscription.update(state.get(type_url).unwrap_or(&none), changes);
            if !draft.is_empty() {
                responses.push(draft.finish(type_url));
            }
        }
        responses
    }
}

impl Subscription {
    /// The first request of a type is always answered, also with nothing.
    fn first(&mut self, set: &TypeSet, request: DeltaDiscoveryRequest) -> Draft {
        let has = |list: &[String]| list.iter().any(|name| name == WILDCARD);
        let subscribe = &request.resource_names_subscribe;
        self.is_wildcard =
            (subscribe.is_empty() || has(subscribe)) && !has(&request.resource_names_unsubscribe);
        let known = request.initial_resource_versions.into_iter();
        self.sent = known.map(|(n, v)| (Arc::from(n), Arc::from(v))).collect();
        if self.is_wildcard {
            return self.update(set, Changes::Everything);
        }
        // What a client already has it still wants.
        let known: Vec<Arc<str>> = self.sent.keys().map(Arc::clone).collect();
        let asked = subscribe.iter().filter(|name| *name != WILDCARD);
        let wanted = known
            .into_iter()
            .chain(asked.map(|name| Arc::from(&**name)));
        let wanted: BTreeSet<Arc<str>> = wanted.collect();
        let mut draft = Draft::default();
        for name in wanted {
            self.answer(set, &name, &mut draft);
            self.names.insert(name);
        }
        draft
    }

    /// Names that come and go on an open stream; each new one is answered.
    fn change(&mut self, set: &TypeSet, request: &DeltaDiscoveryRequest) -> Option<Draft> {
        for name in &request.resource_names_unsubscribe {
            if name == WILDCARD {
                self.is_wildcard = false;
            }
            self.names.remove(&**name);
        }
        if !self.is_wildcard && !request.resource_names_unsubscribe.is_empty() {
            self.drop_unwanted(set);
        }
        if request.resource_names_subscribe.is_empty() {
            return None;
        }
        let mut draft = Draft::default();
        for name in &request.resource_names_subscribe {
            if name == WILDCARD {
                self.is_wildcard = true;
                let all = self.update(set, Changes::Everything);
                draft.resources.extend(all.resources);
                draft.removed.extend(all.removed);
                continue;
            }
            // A name that is asked for again is sent again.
            let primaries: Vec<Arc<str>> = set.resolve(name).map(|(n, _)| Arc::clone(n)).collect();
            for primary in primaries {
                self.sent.remove(&primary);
            }
            self.answer(set, name, &mut draft);
            self.names.insert(name.as_str().into());
        }
        Some(draft)
    }

    fn answer(&mut self, set: &TypeSet, name: &str, draft: &mut Draft) {
        let mut exists = false;
        for (primary, entry) in set.resolve(name) {
            exists = true;
            self.send(set, primary, entry, draft);
        }
        if !exists {
            self.sent.remove(name);
            draft.removed.push(name.to_owned());
        }
    }

    fn send(&mut self, set: &TypeSet, name: &Arc<str>, entry: &Entry, draft: &mut Draft) {
        let is_known = self.sent.get(name) == Some(&entry.version);
        if is_known {
            return;
        }
        self.sent
            .insert(Arc::clone(name), Arc::clone(&entry.version));
        let version = if set.is_unversioned {
            ""
        } else {
            &*entry.version
        };
        draft.resources.push(Resource {
            name: name.to_string(),
            version: version.to_owned(),
            // Whoever has everything asks for nothing by another name.
            aliases: if self.is_wildcard {
                Vec::new()
            } else {
                entry.aliases.iter().map(ToString::to_string).collect()
            },
            resource: Some(Any {
                type_url: String::new(),
                value: entry.body.clone(),
            }),
            ..Resource::default()
        });
    }

    fn update(&mut self, set: &TypeSet, changes: Changes) -> Draft {
        let mut draft = Draft::default();
        let names = match changes {
            Changes::Names(names) => names,
            Changes::Everything => {
                let known = self.sent.keys().map(Arc::clone);
                known.chain(set.entries.keys().map(Arc::clone)).collect()
            }
        };
        for name in names {
            match set.entries.get(&name) {
                Some(entry) if self.wants(&name, entry) => {
                    self.send(set, &name, entry, &mut draft);
                }
                _ => {
                    if self.sent.remove(&name).is_some() {
                        draft.removed.push(name.to_string());
                    }
                }
            }
        }
        draft
    }

    /// A client forgets by itself what it gives up.
    fn drop_unwanted(&mut self, set: &TypeSet) {
        let names = self.sent.keys().filter(|name| {
            let entry = set.entries.get(*name);
            !entry.is_some_and(|entry| self.wants(name, entry))
        });
        let unwanted: Vec<Arc<str>> = names.map(Arc::clone).collect();
        for name in unwanted {
            self.sent.remove(&name);
        }
    }

    fn wants(&self, name: &str, entry: &Entry) -> bool {
        let by_alias = |alias: &Arc<str>| self.names.contains(alias);
        self.is_wildcard || self.names.contains(name) || entry.aliases.iter().any(by_alias)
    }
}

impl Draft {
    const fn is_empty(&self) -> bool {
        self.resources.is_empty() && self.removed.is_empty()
    }

    fn finish(mut self, type_url: &str) -> DeltaDiscoveryResponse {
        for body in self.resources.iter_mut().flat_map(|r| &mut r.resource) {
            type_url.clone_into(&mut body.type_url);
        }
        DeltaDiscoveryResponse {
            resources: self.resources,
            type_url: type_url.to_owned(),
            nonce: format!("{:x}", NONCE.fetch_add(1, Ordering::Relaxed)),
            removed_resources: self.removed,
            ..DeltaDiscoveryResponse::default()
        }
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod wire;

#[cfg(test)]
pub(crate) use wire::Wire;

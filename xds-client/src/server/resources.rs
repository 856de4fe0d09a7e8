//! The set of resources.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::watch;

use super::served::ServedResource;

/// How many changes are remembered; a stream that is further behind compares everything.
const LOG: usize = 10_000;

/// The resources that are served. Cheap to clone; clones share the set.
#[derive(Clone, Debug)]
pub struct Resources {
    state: Arc<Mutex<State>>,
    generation: watch::Sender<u64>,
}

/// Several changes that become visible in one step; see [`Resources::edit`].
#[derive(Debug)]
pub struct Edit<'a> {
    state: &'a mut State,
}

/// All types.
#[derive(Debug, Default)]
pub(super) struct State {
    types: BTreeMap<Arc<str>, TypeSet>,
    generation: u64,
    /// Generation, type and name of recent changes.
    log: VecDeque<(u64, Arc<str>, Arc<str>)>,
}

/// The resources of one type.
#[derive(Debug, Default)]
pub(super) struct TypeSet {
    pub(super) is_unversioned: bool,
    pub(super) entries: BTreeMap<Arc<str>, Entry>,
    aliases: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) version: Arc<str>,
    pub(super) aliases: Vec<Arc<str>>,
    pub(super) body: Bytes,
}

/// What may have changed for a stream.
pub(super) enum Changes {
    /// The change log does not reach back far enough.
    Everything,
    /// These names of one type.
    Names(BTreeSet<Arc<str>>),
}

impl Default for Resources {
    fn default() -> Self {
        Self::new()
    }
}

impl Resources {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: Arc::default(),
            generation: watch::Sender::new(0),
        }
    }

    /// Makes several changes that clients get together (one message per type).
    pub fn edit(&self, change: impl FnOnce(&mut Edit<'_>)) {
        let generation = {
            let mut state = self.lock();
            let before = state.log.back().map(|(at, ..)| *at);
            state.generation += 1;
            change(&mut Edit { state: &mut state });
            if state.log.back().map(|(at, ..)| *at) == before {
                return;
            }
            state.generation
        };
        self.generation.send_replace(generation);
    }

    /// Serves resources of this type without versions, as Istio does with its policies: a client
    /// that comes back gets all of them again.
    pub fn unversioned(&self, type_url: &str) {
        self.lock().set_of(type_url).is_unversioned = true;
    }

    /// Adds or replaces one resource; clients get it at once, or nothing if it is equal.
    pub fn set(&self, type_url: &str, resource: ServedResource) {
        self.edit(|edit| edit.set(type_url, resource));
    }

    /// Removes one resource; nothing happens if there is none.
    pub fn remove(&self, type_url: &str, name: &str) {
        self.edit(|edit| edit.remove(type_url, name));
    }

    /// Replaces all resources of a type in one step; clients get what differs.
    pub fn replace(&self, type_url: &str, resources: impl IntoIterator<Item = ServedResource>) {
        self.edit(|edit| edit.replace(type_url, resources));
    }

    /// The names of a type's resources, in order.
    pub fn names(&self, type_url: &str) -> Vec<Arc<str>> {
        let state = self.lock();
        let entries = state.get(type_url).map(|set| set.entries.keys());
        entries.into_iter().flatten().map(Arc::clone).collect()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // The state is changed by whole entries: a panic in between leaves nothing half-done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }
}

impl Edit<'_> {
    /// Adds or replaces one resource.
    pub fn set(&mut self, type_url: &str, resource: ServedResource) {
        let entry = Entry {
            version: resource.version(),
            aliases: resource.aliases,
            body: resource.body,
        };
        if self.state.set_of(type_url).insert(&resource.name, entry) {
            self.state.log_change(type_url, resource.name);
        }
    }

    /// Removes one resource.
    pub fn remove(&mut self, type_url: &str, name: &str) {
        if let Some(name) = self.state.set_of(type_url).remove(name) {
            self.state.log_change(type_url, name);
        }
    }

    /// Replaces all resources of a type.
    pub fn replace(&mut self, type_url: &str, resources: impl IntoIterator<Item = ServedResource>) {
        let mut kept = HashSet::new();
        for resource in resources {
            kept.insert(Arc::clone(&resource.name));
            self.set(type_url, resource);
        }
        let names = self.state.set_of(type_url).entries.keys();
        let gone: Vec<Arc<str>> = names
            .filter(|name| !kept.contains(*name))
            .cloned()
            .collect();
        for name in gone {
            self.remove(type_url, &name);
        }
    }
}

impl State {
    pub(super) const fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn get(&self, type_url: &str) -> Option<&TypeSet> {
        self.types.get(type_url)
    }

    /// Names of a type that changed after `generation`.
    pub(super) fn changes_since(&self, type_url: &str, generation: u64) -> Changes {
        let oldest = self.log.front().map_or(self.generation, |(at, ..)| *at);
        if self.log.len() >= LOG && oldest > generation {
            return Changes::Everything;
        }
        let newest = self
            .log
            .iter()
            .rev()
            .take_while(|(at, ..)| *at > generation);
        let names = newest.filter(|(_, t, _)| **t == *type_url);
        Changes::Names(names.map(|(_, _, name)| Arc::clone(name)).collect())
    }

    fn set_of(&mut self, type_url: &str) -> &mut TypeSet {
        self.types.entry(type_url.into()).or_default()
    }

    fn log_change(&mut self, type_url: &str, name: Arc<str>) {
        let known = self.types.get_key_value(type_url);
        let type_url = known.map_or_else(|| type_url.into(), |(known, _)| Arc::clone(known));
        if self.log.len() >= LOG {
            self.log.pop_front();
        }
        self.log.push_back((self.generation, type_url, name));
    }
}

impl TypeSet {
    /// The primary names that a name stands for: its own, or those it is an alias of.
    pub(super) fn resolve(&self, name: &str) -> impl Iterator<Item = (&Arc<str>, &Entry)> {
        let own = self.entries.get_key_value(name);
        let others = self.aliases.get(name).into_iter().flatten();
        let others = others.filter_map(|primary| self.entries.get_key_value(primary));
        own.into_iter().chain(others)
    }

    fn insert(&mut self, name: &Arc<str>, entry: Entry) -> bool {
        if self
            .entries
            .get(name)
            .is_some_and(|old| old.version == entry.version)
        {
            return false;
        }
        self.remove(name);
        for alias in &entry.aliases {
            let names = self.aliases.entry(Arc::clone(alias)).or_default();
            names.insert(Arc::clone(name));
        }
        self.entries.insert(Arc::clone(name), entry);
        true
    }

    fn remove(&mut self, name: &str) -> Option<Arc<str>> {
        let (name, entry) = self.entries.remove_entry(name)?;
        for alias in &entry.aliases {
            if let Some(names) = self.aliases.get_mut(alias) {
                names.remove(&name);
                if names.is_empty() {
                    self.aliases.remove(alias);
                }
            }
        }
        Some(name)
    }
}

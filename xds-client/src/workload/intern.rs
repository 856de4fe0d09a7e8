//! One copy of each string and of what replicas have in common.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    sync::Arc,
};

use meshwright_identity::{InvalidSpiffeId, SpiffeId, TrustDomain};

use super::model::{Locality, Shared};

/// Below this many entries nothing is swept.
const SWEEP_FLOOR: usize = 1024;

/// What the writer has seen; entries that nothing else uses any more are swept now and then.
#[derive(Debug)]
pub(super) struct Interner {
    strings: HashSet<Arc<str>>,
    shared: HashSet<Arc<Shared>>,
    localities: HashSet<Arc<Locality>>,
    identities: HashMap<[Arc<str>; 3], SpiffeId>,
    sweep_at: usize,
}

impl Default for Interner {
    fn default() -> Self {
        Self {
            strings: HashSet::new(),
            shared: HashSet::new(),
            localities: HashSet::new(),
            identities: HashMap::new(),
            sweep_at: SWEEP_FLOOR,
        }
    }
}

impl Interner {
    pub(super) fn string(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.strings.get(text) {
            return Arc::clone(known);
        }
        let new: Arc<str> = text.into();
        self.strings.insert(Arc::clone(&new));
        new
    }

    pub(super) fn shared(&mut self, shared: Shared) -> Arc<Shared> {
        one_copy(&mut self.shared, shared)
    }

    pub(super) fn locality(&mut self, locality: Locality) -> Arc<Locality> {
        one_copy(&mut self.localities, locality)
    }

    pub(super) fn identity(
        &mut self,
        trust_domain: &Arc<str>,
        namespace: &Arc<str>,
        service_account: &Arc<str>,
    ) -> Result<SpiffeId, InvalidSpiffeId> {
        let key = [trust_domain, namespace, service_account].map(Arc::clone);
        if let Some(known) = self.identities.get(&key) {
            return Ok(known.clone());
        }
        let domain = TrustDomain::parse(trust_domain)?;
        let identity = SpiffeId::for_workload(&domain, namespace, service_account)?;
        self.identities.insert(key, identity.clone());
        Ok(identity)
    }

    /// Forgets what only the tables still hold, once they have doubled since the last time.
    pub(super) fn sweep(&mut self) {
        if self.len() < self.sweep_at {
            return;
        }
        retain_used(&mut self.shared);
        retain_used(&mut self.localities);
        let used: HashSet<&SpiffeId> = self.shared.iter().map(|s| &s.identity).collect();
        self.identities
            .retain(|_, identity| used.contains(identity));
        retain_used(&mut self.strings);
        self.sweep_at = (self.len() * 2).max(SWEEP_FLOOR);
    }

    fn len(&self) -> usize {
        self.strings.len() + self.shared.len() + self.localities.len() + self.identities.len()
    }
}

fn one_copy<T: Eq + Hash>(table: &mut HashSet<Arc<T>>, value: T) -> Arc<T> {
    if let Some(known) = table.get(&value) {
        return Arc::clone(known);
    }
    let new = Arc::new(value);
    table.insert(Arc::clone(&new));
    new
}

fn retain_used<T: Eq + Hash + ?Sized>(table: &mut HashSet<Arc<T>>) {
    table.retain(|entry| Arc::strong_count(entry) > 1);
    table.shrink_to_fit();
}

#[cfg(test)]
mod tests {
    use super::{Interner, SWEEP_FLOOR};
    use std::sync::Arc;

    #[test]
    fn strings_nobody_uses_are_swept_and_used_ones_stay_shared() {
        let _trace = meshwright_testkit::trace();
        let mut interner = Interner::default();
        let kept = interner.string("kept");
        (0..SWEEP_FLOOR).for_each(|n| drop(interner.string(&n.to_string())));
        interner.sweep();
        assert_eq!(interner.len(), 1);
        assert!(Arc::ptr_eq(&kept, &interner.string("kept")));
    }
}

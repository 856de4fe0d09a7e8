//! The one writer of snapshots, and their readers.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use prost::Message;
use tokio::sync::watch;

use super::{
    convert,
    intern::Interner,
    invalid::{InvalidResource, UndecodableMessage},
    snapshot::Snapshot,
    writer::Writer,
};
use crate::{
    chain::chain,
    handler::{Handler, Rejected, Resource, Update},
    proto::{
        ADDRESS,
        workload::{Address, address::Type},
    },
};

/// Keeps workloads and services: the one writer.
///
/// Give it to a [`Client`](crate::client::Client) as the handler of [`ADDRESS`], or feed it by hand from a
/// local source with [`insert`](Self::insert), [`remove`](Self::remove) and
/// [`publish`](Self::publish). Dropping it ends [`Reader::changed`]; readers keep the last state.
#[derive(Debug)]
pub struct Store {
    writer: Writer,
    interner: Interner,
    /// Primary keys of resources that were sent under another name.
    renamed: HashMap<Arc<str>, Arc<str>>,
    changed: bool,
    published: Arc<ArcSwap<Snapshot>>,
    generation: watch::Sender<u64>,
}

/// Reads what a [`Store`] published. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reader {
    published: Arc<ArcSwap<Snapshot>>,
    generation: watch::Receiver<u64>,
}

/// The store is gone: no later state can come.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the workload store is closed")]
pub struct StoreClosed(());

impl Store {
    /// An empty store for a proxy on `local_node`; with `None` every workload counts as local.
    pub fn new(local_node: Option<&str>) -> (Self, Reader) {
        let writer = Writer::new(local_node);
        let published = Arc::new(ArcSwap::from_pointee(writer.state.clone()));
        let (generation, receiver) = watch::channel(0);
        let reader = Reader {
            published: Arc::clone(&published),
            generation: receiver,
        };
        let store = Self {
            writer,
            interner: Interner::default(),
            renamed: HashMap::new(),
            changed: false,
            published,
            generation,
        };
        (store, reader)
    }

    /// Checks and adds one resource, not visible before [`publish`](Self::publish).
    ///
    /// `name` should be the workload's UID or the service's `namespace/hostname`; a different one
    /// is remembered for [`remove`](Self::remove).
    ///
    /// # Errors
    ///
    /// Returns the first rule it breaks; an earlier version stays.
    pub fn insert(&mut self, name: &Arc<str>, address: &Address) -> Result<(), InvalidResource> {
        let key = match &address.r#type {
            None => return Err(InvalidResource::Missing { field: "type" }),
            Some(Type::Workload(from)) => {
                let workload = convert::workload(&mut self.interner, name, from)?;
                let uid = Arc::clone(&workload.uid);
                self.changed |= self.writer.insert_workload(workload);
                self.changed |= self.writer.remove_service(&uid);
                uid
            }
            Some(Type::Service(from)) => {
                let service = convert::service(&mut self.interner, from)?;
                let key = Arc::clone(&service.key);
                self.changed |= self.writer.insert_service(service);
                self.changed |= self.writer.remove_workload(&key);
                key
            }
        };
        self.remember_name(name, key);
        Ok(())
    }

    /// Removes a workload or service by its name, not visible before
    /// [`publish`](Self::publish). Unknown names are harmless.
    ///
    /// A name that is not a workload's and has exactly one slash is tried as a service's.
    pub fn remove(&mut self, name: &str) {
        let renamed = self.renamed.remove(name);
        let key = renamed.as_deref().unwrap_or(name);
        if self.writer.remove_workload(key) {
            self.changed = true;
        } else if key.bytes().filter(|byte| *byte == b'/').count() == 1 {
            self.changed |= self.writer.remove_service(key);
        }
    }

    /// Makes all changes since the last time visible in one step; costs nothing without any.
    pub fn publish(&mut self) {
        if !self.changed {
            return;
        }
        self.changed = false;
        self.writer.state.generation += 1;
        self.published.store(Arc::new(self.writer.state.clone()));
        self.generation.send_replace(self.writer.state.generation);
        self.interner.sweep();
        let conflicts = self.writer.take_conflicts();
        if let Some((address, owner, other)) = conflicts.last {
            let count = conflicts.count;
            tracing::warn!(count, %address, %owner, %other, "workloads claim one address");
        }
    }

    /// The workloads whose policies may have changed since the last call, by UID: those that are
    /// gone, and those whose namespace or list of policies is another.
    ///
    /// For whoever judges live connections again when [`publish`](Self::publish) has made the
    /// changes visible. `None` if there are more than a thousand: judge all.
    pub fn take_concerned(&mut self) -> Option<Vec<Arc<str>>> {
        self.writer.take_concerned()
    }

    /// Another reader.
    pub fn reader(&self) -> Reader {
        Reader {
            published: Arc::clone(&self.published),
            generation: self.generation.subscribe(),
        }
    }

    fn take(&mut self, resource: &Resource) -> Result<(), InvalidResource> {
        let address = Address::decode(resource.body.clone())
            .map_err(|source| InvalidResource::Message(UndecodableMessage(source)))?;
        self.insert(&resource.name, &address)
    }

    /// A name that comes to mean another record leaves none of the first behind.
    fn remember_name(&mut self, name: &Arc<str>, key: Arc<str>) {
        let before = if *name == key {
            self.renamed.remove(name)
        } else {
            self.renamed.insert(Arc::clone(name), Arc::clone(&key))
        };
        if let Some(before) = before.filter(|before| *before != key) {
            self.changed |= self.writer.remove_workload(&before);
            self.changed |= self.writer.remove_service(&before);
        }
    }
}

impl Handler for Store {
    fn type_url(&self) -> &str {
        ADDRESS
    }

    fn apply(&mut self, update: Update<'_>) -> Vec<Rejected> {
        let mut rejected = Vec::new();
        for resource in update.resources {
            if let Err(error) = self.take(&resource) {
                // Who has no record is let in nowhere, and nothing is let in to it.
                let refused = Rejected::new(Arc::clone(&resource.name), chain(&error));
                rejected.push(refused.covered());
            }
        }
        for name in update.removed {
            self.remove(name);
        }
        self.publish();
        rejected
    }
}

impl Reader {
    /// The newest state. Costs one reference count.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.published.load_full()
    }

    /// Waits for a newer state than the last one waited for; changes in between are coalesced.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// Returns [`StoreClosed`] when the store is gone; [`snapshot`](Self::snapshot) still works.
    pub async fn changed(&mut self) -> Result<Arc<Snapshot>, StoreClosed> {
        self.generation.changed().await.or(Err(StoreClosed(())))?;
        Ok(self.snapshot())
    }
}

#[cfg(test)]
mod tests;

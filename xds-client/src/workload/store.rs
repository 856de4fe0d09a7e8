//! The one writer of snapshots.
#![allow(clippy::todo, unused_variables, reason = "signatures first")]

use std::sync::Arc;

use super::Snapshot;
use crate::{
    handler::{Handler, Rejected, Update},
    proto::{ADDRESS, workload::Address},
};

/// Keeps workloads and services; the one writer.
#[derive(Debug)]
pub struct Store {}

/// Reads what a [`Store`] published. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reader {}

/// A record breaks a rule of the workload API.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
#[error("invalid")]
pub enum InvalidResource {}

/// The store is gone: no later state can come.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the workload store is closed")]
pub struct StoreClosed(());

impl Store {
    /// An empty store for a proxy on `local_node`; with `None` every workload counts as local.
    pub fn new(local_node: Option<&str>) -> (Self, Reader) {
        todo!()
    }

    /// Checks and adds one resource, not visible before [`publish`](Self::publish).
    ///
    /// # Errors
    ///
    /// Returns the first rule it breaks; an earlier version stays.
    pub fn insert(&mut self, name: &Arc<str>, address: Address) -> Result<(), InvalidResource> {
        todo!()
    }

    /// Removes a workload or service by its primary name, not visible before
    /// [`publish`](Self::publish). Unknown names are harmless.
    pub fn remove(&mut self, name: &str) {
        todo!()
    }

    /// Makes all changes since the last time visible in one step.
    pub fn publish(&mut self) {
        todo!()
    }

    /// Another reader.
    pub fn reader(&self) -> Reader {
        todo!()
    }
}

impl Handler for Store {
    fn type_url(&self) -> &str {
        ADDRESS
    }

    fn apply(&mut self, update: Update<'_>) -> Vec<Rejected> {
        todo!()
    }
}

impl Reader {
    /// The newest state. Costs one reference count.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        todo!()
    }

    /// Waits for a newer state than the last one waited for; changes in between are coalesced.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// Returns [`StoreClosed`] when the store is gone; [`snapshot`](Self::snapshot) still works.
    pub async fn changed(&mut self) -> Result<Arc<Snapshot>, StoreClosed> {
        todo!()
    }
}

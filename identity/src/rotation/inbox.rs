//! Wishes on their way to the rotator's task: at most one entry per identity, none lost.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, oneshot};

use super::{Unavailable, schedule::Priority};
use crate::{SpiffeId, tls::Member};

pub(super) type Waiter = oneshot::Sender<Result<Member, Unavailable>>;

/// What is wished for one identity.
#[derive(Debug, Default)]
pub(super) struct Wish {
    /// Forget what is held; done before the demand.
    pub(super) forget: bool,
    pub(super) demand: Option<Priority>,
    pub(super) waiters: Vec<Waiter>,
}

/// Collects wishes until the task takes them. Many writers, one reader.
#[derive(Debug)]
pub(super) struct Inbox {
    /// `None` once the task is gone.
    wishes: Mutex<Option<HashMap<SpiffeId, Wish>>>,
    changed: Notify,
    limit: usize,
}

impl Inbox {
    /// Takes demands for `limit` identities at once.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            wishes: Mutex::new(Some(HashMap::new())),
            changed: Notify::new(),
            limit,
        }
    }

    pub(super) fn demand(
        &self,
        id: &SpiffeId,
        priority: Priority,
        waiter: Option<Waiter>,
    ) -> Result<(), Unavailable> {
        let mut wishes = self.lock();
        let wishes = wishes.as_mut().ok_or(Unavailable::Stopped)?;
        if wishes.len() >= self.limit && !wishes.contains_key(id) {
            return Err(Unavailable::Full { id: id.clone() });
        }
        let wish = wishes.entry(id.clone()).or_default();
        wish.demand = wish.demand.max(Some(priority));
        // Callers that gave up leave a closed end behind.
        if wish.waiters.len().is_power_of_two() {
            wish.waiters.retain(|waiter| !waiter.is_closed());
        }
        wish.waiters.extend(waiter);
        self.changed.notify_one();
        Ok(())
    }

    /// Overrides what was demanded before.
    pub(super) fn forget(&self, id: &SpiffeId) {
        if let Some(wishes) = self.lock().as_mut() {
            let wish = Wish {
                forget: true,
                ..Wish::default()
            };
            if let Some(old) = wishes.insert(id.clone(), wish) {
                for waiter in old.waiters {
                    let id = id.clone();
                    // The caller may have gone meanwhile.
                    drop(waiter.send(Err(Unavailable::Forgotten { id })));
                }
            }
            self.changed.notify_one();
        }
    }

    /// Everything wished since the last call.
    pub(super) fn take(&self) -> HashMap<SpiffeId, Wish> {
        self.lock().as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Waits until something may have been wished. Cancel safe.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Refuses everything from now on; who waits is told by the closing of the channel.
    pub(super) fn close(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<HashMap<SpiffeId, Wish>>> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

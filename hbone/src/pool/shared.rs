//! The pool's state behind its one lock, which is never held over anything that waits.

use super::{
    PoolConfig,
    key::Key,
    membership::{Bounds, Checkout, Id, Membership},
};
use crate::{
    error::ConnectError,
    events::{Events, Limit, LimitReached, Role},
    wire::client::Opener,
};
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::oneshot;

/// What a request that waited gets: a stream's place on a connection; an error; or nothing, then
/// it asks again.
pub(super) type Outcome = Result<(Opener, StreamLease), Option<ConnectError>>;

/// What a request is told.
pub(super) enum Ticket {
    Ready(Opener, StreamLease),
    Wait(oneshot::Receiver<Outcome>),
    Dial(Id, oneshot::Receiver<Outcome>),
}

pub(super) struct Shared {
    state: Mutex<State>,
    events: Arc<dyn Events>,
}

struct State {
    membership: Membership<Key>,
    openers: HashMap<Id, Opener>,
    waiting: HashMap<Id, Vec<oneshot::Sender<Outcome>>>,
    draining: bool,
}

impl Shared {
    pub(super) fn new(config: &PoolConfig, events: Arc<dyn Events>) -> Self {
        let bounds = Bounds {
            streams: config.max_streams,
            connections: config.max_connections,
            per_key: config.max_connections_per_key,
        };
        Self {
            state: Mutex::new(State {
                membership: Membership::new(bounds),
                openers: HashMap::new(),
                waiting: HashMap::new(),
                draining: false,
            }),
            events,
        }
    }

    pub(super) fn events(&self) -> &dyn Events {
        &*self.events
    }

    pub(super) fn connections(&self) -> usize {
        self.lock().membership.len()
    }

    pub(super) fn tunnels(&self) -> usize {
        self.lock().membership.streams()
    }

    pub(super) fn checkout(self: &Arc<Self>, key: &Key, new: bool) -> Result<Ticket, ConnectError> {
        let mut state = self.lock();
        if state.draining {
            return Err(ConnectError::Draining);
        }
        let (id, dial) = match state.membership.checkout(key, new) {
            Checkout::Use(id) => {
                let opener = state.openers.get(&id).cloned();
                drop(state);
                let lease = self.lease(id);
                return opener
                    .map(|opener| Ticket::Ready(opener, lease))
                    .ok_or(ConnectError::Draining);
            }
            Checkout::Join(id) => (id, false),
            Checkout::Dial(dial) => (dial, true),
            Checkout::DialInsteadOf { dial, idle } => {
                state.openers.remove(&idle);
                (dial, true)
            }
            Checkout::Full => {
                drop(state);
                let (role, peer, limit) = (Role::Client, None, Limit::Connections);
                self.events
                    .limit_reached(&LimitReached { role, peer, limit });
                return Err(ConnectError::PoolFull);
            }
        };
        let (tell, told) = oneshot::channel();
        state.waiting.entry(id).or_default().push(tell);
        Ok(if dial {
            Ticket::Dial(id, told)
        } else {
            Ticket::Wait(told)
        })
    }

    /// A dial has become a connection: whoever waits for it gets a stream, as far as they go.
    pub(super) fn established(self: &Arc<Self>, id: Id, opener: &Opener, cap: usize) {
        let mut state = self.lock();
        let places = state.membership.established(id, cap);
        let waiting = state.waiting.remove(&id).unwrap_or_default();
        if state.draining {
            state.membership.remove(id);
        } else {
            state.openers.insert(id, opener.clone());
        }
        drop(state);
        for (place, tell) in waiting.into_iter().enumerate() {
            let outcome = if place < places {
                Ok((opener.clone(), self.lease(id)))
            } else {
                Err(None)
            };
            // Whoever has given up drops the lease, and so gives the place back.
            let _given_up = tell.send(outcome);
        }
    }

    /// A dial has failed: everybody who waits for it hears why.
    pub(super) fn failed(&self, id: Id, error: &ConnectError) {
        let mut state = self.lock();
        state.membership.remove(id);
        let opener = state.openers.remove(&id);
        let waiting = state.waiting.remove(&id).unwrap_or_default();
        drop(state);
        drop(opener);
        for tell in waiting {
            let _given_up = tell.send(Err(Some(error.clone())));
        }
    }

    /// The connection gets no more streams; it ends when its last one has.
    pub(super) fn retire(&self, id: Id) {
        let mut state = self.lock();
        state.membership.remove(id);
        let opener = state.openers.remove(&id);
        drop(state);
        drop(opener);
    }

    /// The peer allows so many streams now.
    pub(super) fn limit(&self, id: Id, cap: usize) {
        self.lock().membership.limit(id, cap);
    }

    /// How much a connection is used; none once it is retired.
    pub(super) fn usage(&self, id: Id) -> Option<(usize, u64)> {
        self.lock().membership.usage(id)
    }

    pub(super) fn drain(&self) {
        let mut state = self.lock();
        state.draining = true;
        let openers = std::mem::take(&mut state.openers);
        for id in openers.keys() {
            state.membership.remove(*id);
        }
        drop(state);
        // The connections close as their last tunnels end.
        drop(openers);
    }

    fn lease(self: &Arc<Self>, id: Id) -> StreamLease {
        StreamLease {
            shared: Arc::clone(self),
            id,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream's place on a connection; dropping it gives the place back.
pub(crate) struct StreamLease {
    shared: Arc<Shared>,
    id: Id,
}

impl StreamLease {
    /// Takes the connection out of the pool: it has ended.
    pub(super) fn retire(self) {
        self.shared.retire(self.id);
    }

    /// The peer has refused this stream: it takes no more on this connection for now.
    pub(super) fn refused(self) {
        let opener = {
            let mut state = self.shared.lock();
            let gone = state.membership.refused(self.id);
            if gone {
                state.openers.remove(&self.id)
            } else {
                None
            }
        };
        drop(opener);
    }
}

impl Drop for StreamLease {
    fn drop(&mut self) {
        self.shared.lock().membership.stream_ended(self.id);
    }
}

impl fmt::Debug for StreamLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamLease")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

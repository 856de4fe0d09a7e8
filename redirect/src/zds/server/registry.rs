//! The node's pods and the proxies that are told of them: one lock, never held over an await.

use super::{Delivery, ServerConfig};
use crate::events::Events;
use crate::zds::message::Order;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};

/// A message for one proxy and where its answer goes.
pub(super) struct Command {
    pub(super) order: Order,
    pub(super) answer: Ticket,
}

/// What happens with an answer.
pub(super) enum Ticket {
    /// Somebody waits for it.
    Live(oneshot::Sender<Result<(), String>>),
    /// The pod of a snapshot: an error is only logged.
    Snapshot,
    /// The end of the snapshot.
    SnapshotEnd,
}

pub(super) struct Registry {
    config: ServerConfig,
    events: Arc<dyn Events>,
    state: Mutex<State>,
    synced: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    /// By UID: what a new proxy is told, add or keep.
    pods: BTreeMap<String, Order>,
    proxies: BTreeMap<u64, mpsc::Sender<Command>>,
    next: u64,
}

/// A proxy's place in the registry; dropping it takes the proxy out.
pub(super) struct Seat {
    registry: Arc<Registry>,
    number: u64,
    is_synced: bool,
    pub(super) commands: mpsc::Receiver<Command>,
}

impl Registry {
    pub(super) fn new(config: ServerConfig, events: Arc<dyn Events>) -> Self {
        Self {
            config,
            events,
            state: Mutex::default(),
            synced: watch::Sender::new(0),
        }
    }

    pub(super) const fn config(&self) -> &ServerConfig {
        &self.config
    }

    pub(super) const fn events(&self) -> &Arc<dyn Events> {
        &self.events
    }

    pub(super) fn synced(&self) -> usize {
        *self.synced.borrow()
    }

    pub(super) async fn synced_until(&self, mut wanted: impl FnMut(usize) -> bool + Send) {
        let mut synced = self.synced.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let reached = synced.wait_for(|count| wanted(*count)).await;
        drop(reached);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn keep(&self, uid: String) {
        let order = Order::Keep { uid: uid.clone() };
        self.lock().pods.entry(uid).or_insert(order);
    }

    /// Lists every pod and takes a seat in the same moment, so that no change falls between.
    pub(super) fn enter(self: &Arc<Self>) -> (Seat, Vec<Order>) {
        let (sender, commands) = mpsc::channel(self.config.most_waiting.max(1));
        let mut state = self.lock();
        let number = state.next;
        state.next = number.wrapping_add(1);
        state.proxies.insert(number, sender);
        let snapshot = state.pods.values().cloned().collect();
        drop(state);
        let seat = Seat {
            registry: Arc::clone(self),
            number,
            is_synced: false,
            commands,
        };
        (seat, snapshot)
    }

    /// Remembers a change and tells every proxy.
    pub(super) async fn broadcast(&self, order: Order) -> Delivery {
        let mut delivery = Delivery::default();
        let answers = self.enqueue(order, &mut delivery);
        let end = Instant::now() + self.patience();
        for answer in answers {
            match timeout_at(end, answer).await {
                Ok(Ok(Ok(()))) => delivery.acknowledged += 1,
                Ok(Ok(Err(text))) => delivery.refused.push(text),
                Ok(Err(_)) | Err(_) => delivery.lost += 1,
            }
        }
        delivery
    }

    /// Longest wait for one message: every message before it may take its deadline, but a caller
    /// that waits for minutes is not helped.
    fn patience(&self) -> Duration {
        self.config.answer_deadline.saturating_mul(6)
    }

    fn enqueue(
        &self,
        order: Order,
        delivery: &mut Delivery,
    ) -> Vec<oneshot::Receiver<Result<(), String>>> {
        let mut state = self.lock();
        match &order {
            Order::Add { uid, .. } => drop(state.pods.insert(uid.clone(), order.clone())),
            Order::Del { uid } => drop(state.pods.remove(uid)),
            Order::Keep { .. } | Order::SnapshotSent => (),
        }
        let mut answers = Vec::new();
        state.proxies.retain(|_, proxy| {
            let (sender, receiver) = oneshot::channel();
            let command = Command {
                order: order.clone(),
                answer: Ticket::Live(sender),
            };
            let is_sent = proxy.try_send(command).is_ok();
            if is_sent {
                answers.push(receiver);
            } else {
                // Its task sees the end of the queue and closes.
                delivery.lost += 1;
            }
            is_sent
        });
        answers
    }
}

impl Seat {
    /// The proxy has its whole snapshot.
    pub(super) fn synced(&mut self) {
        if !self.is_synced {
            self.is_synced = true;
            self.registry.synced.send_modify(|count| *count += 1);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.registry.lock().proxies.remove(&self.number);
        if self.is_synced {
            self.registry
                .synced
                .send_modify(|count| *count = count.saturating_sub(1));
        }
    }
}

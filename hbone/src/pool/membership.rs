//! Which connection serves a request: the rules, without connections.
//!
//! A connection is a number with a count of streams. Events go in (a request, a finished dial, an
//! ended stream, a lost connection), decisions come out. Nothing here waits, and nothing is
//! shared between keys.

use std::{collections::HashMap, hash::Hash};

/// A connection, or a dial that may become one.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Id(u64);

/// What to do with a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Checkout {
    /// Dial; the request waits for it.
    Dial(Id),
    /// The same, after this idle connection is closed to make room.
    DialInsteadOf {
        /// The new dial.
        dial: Id,
        /// The connection that goes.
        idle: Id,
    },
    /// The pool is full, and no connection is idle.
    Full,
    /// Wait for this dial.
    Join(Id),
    /// Open a stream on this connection; it is counted.
    Use(Id),
}

/// Bounds of the pool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Streams on one connection.
    pub(crate) streams: usize,
    /// Connections and dials in all.
    pub(crate) connections: usize,
    /// Connections and dials of one key.
    pub(crate) per_key: usize,
}

/// All connections of a pool.
#[derive(Debug)]
pub(crate) struct Membership<K> {
    bounds: Bounds,
    /// Oldest first; never empty.
    keys: HashMap<K, Vec<Id>>,
    members: HashMap<Id, Connection<K>>,
    next: u64,
    /// Counts checkouts: a clock for "least recently".
    turn: u64,
    streams: usize,
}

#[derive(Debug)]
struct Connection<K> {
    key: K,
    state: State,
    used: u64,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Not there yet; so many requests wait for it.
    Dialing { waiting: usize },
    /// Takes streams up to its cap.
    Open { streams: usize, cap: usize },
}

impl<K: Clone + Eq + Hash> Membership<K> {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            keys: HashMap::new(),
            members: HashMap::new(),
            next: 0,
            turn: 0,
            streams: 0,
        }
    }

    /// Connections and dials.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Streams on the connections that are still members.
    pub(crate) fn streams(&self) -> usize {
        self.streams
    }

    /// Decides about a request.
    ///
    /// The fullest connection with room is used, so that surplus ones run empty and idle out. With
    /// `new`, a dial is preferred to a connection that is there.
    pub(crate) fn checkout(&mut self, key: &K, new: bool) -> Checkout {
        match self.decide(key, new) {
            Checkout::Full if new => self.decide(key, false),
            decision => decision,
        }
    }

    fn decide(&mut self, key: &K, new: bool) -> Checkout {
        self.turn += 1;
        let ids = self.keys.get(key).map(Vec::as_slice).unwrap_or_default();
        let (mut best, mut dial) = (None, None);
        for id in ids {
            match self.members.get(id).map(|member| member.state) {
                Some(State::Open { streams, cap })
                    if !new && streams < cap && best.is_none_or(|(most, _)| streams > most) =>
                {
                    best = Some((streams, *id));
                }
                Some(State::Dialing { waiting }) if waiting < self.bounds.streams => {
                    dial = dial.or(Some(*id));
                }
                _ => {}
            }
        }
        if let Some((_, id)) = best {
            self.add_stream(id);
            return Checkout::Use(id);
        }
        if let Some(id) = dial {
            self.add_waiting(id);
            return Checkout::Join(id);
        }
        if ids.len() >= self.bounds.per_key {
            return Checkout::Full;
        }
        if self.members.len() < self.bounds.connections {
            return Checkout::Dial(self.insert(key));
        }
        match self.least_recently_used_idle() {
            Some(idle) => {
                self.remove(idle);
                let dial = self.insert(key);
                Checkout::DialInsteadOf { dial, idle }
            }
            None => Checkout::Full,
        }
    }

    /// A dial has become a connection that takes `cap` streams. Returns how many of the requests
    /// that wait for it get a stream; those are counted. The others ask again.
    pub(crate) fn established(&mut self, id: Id, cap: usize) -> usize {
        let cap = cap.min(self.bounds.streams);
        let Some(member) = self.members.get_mut(&id) else {
            return 0;
        };
        let State::Dialing { waiting } = member.state else {
            return 0;
        };
        let streams = waiting.min(cap);
        member.state = State::Open { streams, cap };
        self.streams += streams;
        streams
    }

    /// A stream has ended.
    pub(crate) fn stream_ended(&mut self, id: Id) {
        if let Some(member) = self.members.get_mut(&id)
            && let State::Open { streams, .. } = &mut member.state
            && *streams > 0
        {
            *streams -= 1;
            self.streams -= 1;
        }
    }

    /// The peer has refused a stream that is counted: until another one ends, or the
    /// [`limit`](Self::limit) is looked at again, the connection takes no more. One that takes none at all is out of the pool; says whether it is.
    pub(crate) fn refused(&mut self, id: Id) -> bool {
        let Some(member) = self.members.get_mut(&id) else {
            return true;
        };
        if let State::Open { streams, cap } = &mut member.state
            && *streams > 1
        {
            *cap = *streams - 1;
            return false;
        }
        self.remove(id);
        true
    }

    /// The peer allows `cap` streams now; what a refusal said before is forgotten.
    pub(crate) fn limit(&mut self, id: Id, cap: usize) {
        if let Some(member) = self.members.get_mut(&id)
            && let State::Open { cap: old, .. } = &mut member.state
        {
            *old = cap.min(self.bounds.streams);
        }
    }

    /// A dial has failed, or a connection takes no more streams: it is out of the pool.
    pub(crate) fn remove(&mut self, id: Id) {
        let Some(member) = self.members.remove(&id) else {
            return;
        };
        if let State::Open { streams, .. } = member.state {
            self.streams -= streams;
        }
        if let Some(ids) = self.keys.get_mut(&member.key) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.keys.remove(&member.key);
            }
        }
    }

    /// How much a connection of the pool is used: its streams, and a number that changes with
    /// every request it gets.
    pub(crate) fn usage(&self, id: Id) -> Option<(usize, u64)> {
        let member = self.members.get(&id)?;
        match member.state {
            State::Dialing { .. } => None,
            State::Open { streams, .. } => Some((streams, member.used)),
        }
    }

    fn insert(&mut self, key: &K) -> Id {
        let id = Id(self.next);
        self.next += 1;
        let state = State::Dialing { waiting: 1 };
        let (key, used) = (key.clone(), self.turn);
        self.keys.entry(key.clone()).or_default().push(id);
        self.members.insert(id, Connection { key, state, used });
        id
    }

    fn add_stream(&mut self, id: Id) {
        if let Some(member) = self.members.get_mut(&id)
            && let State::Open { streams, .. } = &mut member.state
        {
            *streams += 1;
            member.used = self.turn;
            self.streams += 1;
        }
    }

    fn add_waiting(&mut self, id: Id) {
        if let Some(member) = self.members.get_mut(&id)
            && let State::Dialing { waiting } = &mut member.state
        {
            *waiting += 1;
            member.used = self.turn;
        }
    }

    fn least_recently_used_idle(&self) -> Option<Id> {
        self.members
            .iter()
            .filter(|(_, member)| matches!(member.state, State::Open { streams: 0, .. }))
            .min_by_key(|(_, member)| member.used)
            .map(|(id, _)| *id)
    }
}

#[cfg(test)]
mod tests;

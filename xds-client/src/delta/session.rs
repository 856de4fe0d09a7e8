//! The session: one per control plane, over any number of streams.

use std::{sync::Arc, time::Duration};

use super::{
    names::{MAX_NAME_BYTES, shown},
    reply::reply,
    response::{Resources, Response},
    state::TypeState,
};
use crate::{
    handler::{Rejected, Resource, Update},
    proto::discovery::{DeltaDiscoveryRequest, Node, Resource as WireResource},
};

/// Everything that survives a stream, and what the open one still owes.
///
/// Times are durations since any fixed moment, never going back.
#[derive(Debug)]
pub struct Session {
    node: Node,
    config: SessionConfig,
    types: Vec<TypeState>,
}

/// Which resources of a type are wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Interest {
    /// Every one.
    All,
    /// Those asked for by name or alias.
    Named,
}

/// Bounds and times of a [`Session`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SessionConfig {
    /// How large a first request may become by the versions it tells. Default: 3.5 MiB; Istio's
    /// control plane takes 4 MiB. Resources beyond it are sent again by the server.
    pub max_request_bytes: usize,
    /// How many resources of one type are kept. Default: 1 000 000.
    pub max_resources: usize,
    /// How many names can be asked for. Default: 10 000.
    pub max_wanted: usize,
    /// How long a type may stay unanswered before [`Notice::Overdue`]. Default: 15 s.
    pub overdue: Duration,
    /// How long a type must be quiet after its first answer before resources that the server was
    /// not told of, and did not send, count as gone. Default: 5 s. A server that is never quiet has
    /// twelve times as long.
    pub quiet: Duration,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            max_request_bytes: 3_670_016,
            max_resources: 1_000_000,
            max_wanted: 10_000,
            overdue: Duration::from_secs(15),
            quiet: Duration::from_secs(5),
        }
    }
}

/// What became of a response.
#[derive(Debug)]
#[non_exhaustive]
pub struct Received {
    /// Accepted, refused or ignored.
    pub verdict: Verdict,
    /// What to send back, if anything.
    pub reply: Option<DeltaDiscoveryRequest>,
    /// Names asked for that were answered now: whether each exists.
    pub answered: Vec<(Arc<str>, bool)>,
}

/// What a response was worth.
#[derive(Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Verdict {
    /// Everything in it was applied.
    Accepted,
    /// These resources were not applied, the others were.
    Refused(Vec<Rejected>),
    /// Nobody subscribed to its type: it is not acknowledged.
    UnknownType,
}

/// Something that time brought about.
#[derive(Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Notice {
    /// A type has had no answer on this stream for too long; told once per stream.
    Overdue {
        /// The type.
        type_url: Arc<str>,
        /// How long it has been waited for.
        waited: Duration,
    },
}

/// What becomes of a name that is asked for.
#[derive(Debug, PartialEq)]
#[non_exhaustive]
pub enum Want {
    /// Send this; the answer comes with a response. Without a stream the name goes into its first
    /// request.
    Ask(Option<Box<DeltaDiscoveryRequest>>),
    /// The server has answered before: whether it exists.
    Known(bool),
    /// Too many names, one that is too long, or a type that is not subscribed to by name.
    Refused,
    /// Asked for before; the answer is on its way.
    Waiting,
}

impl Session {
    /// A session that introduces itself as `node`.
    #[must_use]
    pub const fn new(node: Node, config: SessionConfig) -> Self {
        Self {
            node,
            config,
            types: Vec::new(),
        }
    }

    /// Subscribes to a type from the next stream on; types are asked for in this order.
    ///
    /// A second subscription to one type is ignored.
    pub fn subscribe(&mut self, type_url: &str, interest: Interest) {
        if self.types.iter().all(|t| *t.type_url != *type_url) {
            self.types.push(TypeState::new(type_url, interest));
        }
    }

    /// Whether every type subscribed to as a whole was answered once, and what was rejected is
    /// [covered](crate::Rejected::covered).
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let mut all = self.types.iter().filter(|t| t.interest == Interest::All);
        all.all(|t| t.complete)
    }

    // === no stream → stream ===

    /// Starts a stream: returns its first requests, one per type, in order.
    pub fn open(&mut self, now: Duration) -> Vec<DeltaDiscoveryRequest> {
        let types = self.types.iter_mut();
        let requests = types.map(|t| t.open(now, &self.config));
        let with_node = |request| DeltaDiscoveryRequest {
            node: Some(self.node.clone()),
            ..request
        };
        requests.map(with_node).collect()
    }

    // === stream → no stream ===

    /// Ends the stream. What is known stays in force.
    pub fn close(&mut self) {
        for t in &mut self.types {
            t.stream = None;
        }
    }

    // === a response ===

    /// Applies a response and returns what to send back.
    ///
    /// Good resources are applied whatever is wrong with others. A response without a nonce is
    /// applied and not answered: an answer would read as a new subscription.
    pub fn receive(
        &mut self,
        response: impl Into<Response>,
        now: Duration,
        apply: &mut dyn FnMut(&str, Update<'_>) -> Vec<Rejected>,
    ) -> Received {
        let Response {
            head, resources, ..
        } = response.into();
        let mut types = self.types.iter_mut();
        let Some(t) = types.find(|t| *t.type_url == *head.type_url) else {
            return Received {
                verdict: Verdict::UnknownType,
                reply: None,
                answered: Vec::new(),
            };
        };
        if let Some(stream) = &mut t.stream {
            stream.note_answer(now);
        }
        let open: Vec<Arc<str>> = t.unanswered();
        let removed = head.removed_resources.into_iter();
        let removed: Vec<Arc<str>> = removed
            .filter(|name| name.len() <= MAX_NAME_BYTES)
            .map(Arc::from)
            .collect();
        let type_url = Arc::clone(&t.type_url);
        let mut arriving = Arriving {
            t,
            resources,
            now,
            limit: self.config.max_resources,
            rejected: Vec::new(),
        };
        let by_handler = apply(&type_url, Update::arriving(&mut arriving, &removed));
        // A handler may leave some unread; they are known all the same.
        arriving.by_ref().for_each(drop);
        let Arriving {
            t, mut rejected, ..
        } = arriving;
        for refused in &by_handler {
            t.refuse(&refused.name);
        }
        for name in &removed {
            t.forget(name);
        }
        rejected.extend(by_handler);
        t.complete |= rejected.iter().all(|refused| refused.is_covered);
        let nonce = head.nonce;
        Received {
            reply: (!nonce.is_empty()).then(|| reply(&type_url, nonce, &rejected)),
            answered: t.answers(open),
            verdict: if rejected.is_empty() {
                Verdict::Accepted
            } else {
                Verdict::Refused(rejected)
            },
        }
    }

    // === names ===

    /// Asks for a resource by name or alias.
    pub fn want(&mut self, type_url: &str, name: &str) -> Want {
        let mut types = self.types.iter_mut();
        let found = types.find(|t| t.interest == Interest::Named && *t.type_url == *type_url);
        let Some(t) = found else {
            return Want::Refused;
        };
        match t.wanted.get(name) {
            Some(Some(exists)) => return Want::Known(*exists),
            Some(None) => return Want::Waiting,
            None => {}
        }
        if name.len() > MAX_NAME_BYTES || t.wanted.len() >= self.config.max_wanted {
            return Want::Refused;
        }
        t.wanted.insert(name.into(), None);
        let request = || DeltaDiscoveryRequest {
            type_url: type_url.to_owned(),
            resource_names_subscribe: vec![name.to_owned()],
            ..DeltaDiscoveryRequest::default()
        };
        Want::Ask(t.stream.is_some().then(|| Box::new(request())))
    }

    // === time ===

    /// When [`tick`](Self::tick) has something to do, if nothing else happens before.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let deadlines = self.types.iter().map(|t| t.deadline(&self.config));
        deadlines.flatten().min()
    }

    /// Drops what has expired or turned out to be stale, and tells what is overdue.
    pub fn tick(
        &mut self,
        now: Duration,
        apply: &mut dyn FnMut(&str, Update<'_>) -> Vec<Rejected>,
    ) -> Vec<Notice> {
        let mut notices = Vec::new();
        for t in &mut self.types {
            let stale = t.take_stale(now, &self.config);
            if !stale.is_empty() {
                // Removals cannot be refused.
                drop(apply(&t.type_url, Update::new(&[], &stale)));
            }
            if let Some(stream) = &mut t.stream
                && stream.overdue_at(&self.config).is_some_and(|at| at <= now)
            {
                stream.overdue = true;
                notices.push(Notice::Overdue {
                    type_url: Arc::clone(&t.type_url),
                    waited: now.saturating_sub(stream.opened),
                });
            }
        }
        notices
    }
}

/// The usable resources of a response, noted as they go to the handler.
struct Arriving<'a> {
    t: &'a mut TypeState,
    resources: Resources,
    now: Duration,
    limit: usize,
    rejected: Vec<Rejected>,
}

impl Arriving<'_> {
    /// The resource, if there is something to hand over.
    fn take(&mut self, resource: WireResource) -> Result<Option<Resource>, Rejected> {
        let ttl = resource.ttl.and_then(|ttl| Duration::try_from(ttl).ok());
        let expiry = ttl.and_then(|ttl| self.now.checked_add(ttl));
        let (t, limit) = (&mut *self.t, self.limit);
        if resource.resource.is_none() && t.is_heartbeat(&resource.name, &resource.version) {
            t.set_expiry(&resource.name.into(), expiry);
            return Ok(None);
        }
        if t.known.len() >= limit && t.known.get(&resource.name).is_none() {
            let reason = format!("more than {limit} resources of this type");
            return Err(Rejected::new(shown(&resource.name), reason));
        }
        let resource = checked(&t.type_url, resource)?;
        t.note(&resource, expiry);
        Ok(Some(resource))
    }
}

impl Iterator for Arriving<'_> {
    type Item = Resource;

    fn next(&mut self) -> Option<Resource> {
        loop {
            let taken = match self.resources.next()? {
                Ok(resource) => self.take(resource),
                Err(error) => Err(Rejected::new("", format!("a malformed resource: {error}"))),
            };
            match taken {
                Ok(Some(resource)) => return Some(resource),
                Ok(None) => {}
                Err(rejected) => self.rejected.push(rejected),
            }
        }
    }
}

fn checked(type_url: &str, from: WireResource) -> Result<Resource, Rejected> {
    let reject = |reason: String| Err(Rejected::new(shown(&from.name), reason));
    if from.name.is_empty() {
        return reject("a resource without a name".to_owned());
    }
    if from.name.len() > MAX_NAME_BYTES {
        return reject(format!("its name is longer than {MAX_NAME_BYTES} bytes"));
    }
    let Some(body) = from.resource else {
        return reject("a resource without a body".to_owned());
    };
    if body.type_url != type_url {
        return reject(format!("its type is `{}`", shown(&body.type_url)));
    }
    Ok(Resource {
        name: from.name.into(),
        version: from.version,
        aliases: from.aliases,
        body: body.value,
    })
}

#[cfg(test)]
mod tests;

//! One accepted connection.

use super::{ConnectRequest, ServerConfig, request};
use crate::{
    drain::{DrainWatch, Phase},
    error::ServeError,
    events::{
        CloseReason, ConnectionClosed, ConnectionOpened, Events, Limit, LimitReached,
        RequestRefused, Role,
    },
    lifetime::{Action, Lifetime},
    quotas::ConnectionSlot,
    trust::Trust,
    tunnel::Lease,
    wire::server::{Driver, Incoming},
};
use meshwright_identity::PeerSvid;
use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, Sleep};

/// How long requests may come after a GOAWAY. `h2` takes them until the peer answers a PING, which
/// is the peer's to do.
const DRAIN_GRACE: Duration = Duration::from_secs(10);
/// How long a closing connection may take to send its GOAWAY.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);

/// A connection of a peer whose identity is known.
///
/// Dropping it ends the transport at once: the peer sees all its tunnels reset.
pub struct ServerConnection {
    driver: Driver,
    peer: Arc<PeerSvid>,
    trust: Trust,
    slot: Option<ConnectionSlot>,
    events: Arc<dyn Events>,
    drain: Option<Watching>,
    lifetime: Lifetime,
    started: Instant,
    /// Fires at `armed`, at the latest when the lifetime has something to do.
    timer: Pin<Box<Sleep>>,
    armed: Duration,
    busy: bool,
    /// When the peer was asked for no more requests.
    draining: Option<Instant>,
    /// Why it ends, once that is known.
    ending: Option<CloseReason>,
    closing: bool,
    over: bool,
}

/// Waits for the next phase of a drain.
struct Watching {
    watch: DrainWatch,
    next: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Watching {
    fn new(watch: DrainWatch) -> Self {
        let waiting = watch.clone();
        let next = Box::pin(async move { waiting.draining().await });
        Self { watch, next }
    }

    /// Resolves when the drain has advanced.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Phase> {
        ready!(self.next.as_mut().poll(cx));
        let waiting = self.watch.clone();
        self.next = Box::pin(async move { waiting.closing().await });
        Poll::Ready(self.watch.phase())
    }
}

impl ServerConnection {
    pub(super) fn new(
        driver: Driver,
        (peer, trust): (PeerSvid, Trust),
        slot: Option<ConnectionSlot>,
        config: &ServerConfig,
    ) -> Self {
        let lifetime = Lifetime::new(config.times(trust.rest(&peer)));
        let armed = lifetime.next();
        let (role, address) = (Role::Server, None);
        let opened = ConnectionOpened {
            role,
            peer: &peer.id,
            address,
        };
        config.events.connection_opened(&opened);
        Self {
            driver,
            peer: Arc::new(peer),
            trust,
            slot,
            events: Arc::clone(&config.events),
            drain: config.drain.clone().map(Watching::new),
            lifetime,
            started: Instant::now(),
            timer: Box::pin(tokio::time::sleep(armed)),
            armed,
            busy: false,
            draining: None,
            ending: None,
            closing: false,
            over: false,
        }
    }

    /// Returns who the peer is, from its certificate.
    #[must_use]
    pub fn peer(&self) -> &PeerSvid {
        &self.peer
    }

    /// Waits for the next request, and moves the bytes of all tunnels meanwhile.
    ///
    /// Returns `None` when the connection has ended in order: the peer closed it, or it was
    /// drained and its last tunnel has ended. Call it until then, and no more after an error.
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// Returns [`ServeError`] when the transport failed, the peer broke the protocol, overran a
    /// limit or missed a deadline. All tunnels of the connection are reset.
    pub async fn accept(&mut self) -> Option<Result<ConnectRequest, ServeError>> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// As [`accept`](Self::accept), for callers that poll.
    pub fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<ConnectRequest, ServeError>>> {
        loop {
            if self.over {
                return Poll::Ready(None);
            }
            self.poll_drain(cx);
            match self.driver.poll_accept(cx) {
                Poll::Ready(Some(Ok(incoming))) => {
                    self.set_busy(true);
                    if let Some(request) = self.check(incoming) {
                        return Poll::Ready(Some(Ok(request)));
                    }
                    continue;
                }
                Poll::Ready(Some(Err(source))) => return Poll::Ready(self.fail(source)),
                Poll::Ready(None) => return Poll::Ready(self.finish(CloseReason::Peer, None)),
                Poll::Pending => {}
            }
            if self.look() {
                // Something is to be sent.
                continue;
            }
            match self.poll_timer(cx) {
                Poll::Ready(true) => {}
                Poll::Ready(false) => return Poll::Ready(self.finish(CloseReason::Lost, None)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Asks the peer for no more tunnels (GOAWAY); running ones go on until they end.
    ///
    /// Requests that were on their way are still yielded; those that come 10 s later are refused as
    /// not looked at.
    pub fn drain(&mut self) {
        self.draining.get_or_insert_with(Instant::now);
        self.ending.get_or_insert(CloseReason::Drained);
        self.lifetime.drain();
        self.driver.drain();
    }

    /// Ends the connection: GOAWAY, then all tunnels are reset. Keep calling
    /// [`accept`](Self::accept) until it returns `None`, at most a second, so that the peer hears
    /// of it.
    pub fn close(&mut self) {
        self.close_for(CloseReason::Closed, false);
    }

    fn close_for(&mut self, reason: CloseReason, calm: bool) {
        if !self.closing {
            self.closing = true;
            self.ending = Some(reason);
            self.driver.close(calm);
            self.arm(self.started.elapsed() + CLOSE_DEADLINE);
        }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) {
        while let Some(drain) = &mut self.drain
            && let Poll::Ready(phase) = drain.poll_next(cx)
        {
            if phase == Phase::Closing {
                self.drain = None;
                self.close();
            } else {
                self.drain();
            }
        }
    }

    /// Looks at what the peer has sent; says whether the driver has something to do because of it.
    fn look(&mut self) -> bool {
        let seen = self.driver.seen();
        if seen.settings && seen.settings_ack {
            self.lifetime.settings_done();
        }
        self.set_busy(self.driver.has_streams());
        match seen.flood {
            Some(limit) if !self.closing => {
                self.limit_reached(limit);
                self.close_for(CloseReason::Limit(limit), true);
                true
            }
            _ => false,
        }
    }

    fn set_busy(&mut self, busy: bool) {
        if self.busy != busy {
            self.busy = busy;
            self.lifetime.streams(busy, self.started.elapsed());
            let next = self.lifetime.next();
            if next < self.armed && !self.closing {
                self.arm(next);
            }
        }
    }

    fn arm(&mut self, at: Duration) {
        self.armed = at;
        self.timer.as_mut().reset(self.started + at);
    }

    /// Serves the timer: `true` when there is something to send, `false` when time is over.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.driver.poll_pong(cx).is_ready() {
            self.lifetime.pong();
            if !self.closing {
                self.arm(self.lifetime.next());
            }
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            if self.closing {
                return Poll::Ready(false);
            }
            if self.trust.rotated() && !self.driver.tls(|tls| self.trust.vouches(tls)) {
                self.close_for(CloseReason::Untrusted, false);
                return Poll::Ready(true);
            }
            match self.lifetime.poll(self.started.elapsed()) {
                Some(Action::Ping) => self.driver.ping(),
                Some(Action::Drain(limit)) => {
                    self.limit_reached(limit);
                    self.drain();
                    self.ending = Some(CloseReason::Limit(limit));
                }
                Some(Action::Close(limit)) => {
                    self.limit_reached(limit);
                    self.close_for(CloseReason::Limit(limit), false);
                }
                None => {
                    self.arm(self.lifetime.next());
                    continue;
                }
            }
            return Poll::Ready(true);
        }
        Poll::Pending
    }

    /// Answers what breaks a rule or a quota; returns what is for the caller.
    fn check(&self, incoming: Incoming) -> Option<ConnectRequest> {
        if self.is_too_late() {
            incoming.reject();
            self.limit_reached(Limit::Age);
            return None;
        }
        let authority = match request::check(&incoming.head) {
            Ok(authority) => authority,
            Err(reason) => {
                incoming.refuse(reason.status());
                let peer = &self.peer.id;
                self.events
                    .request_refused(&RequestRefused { peer, reason });
                return None;
            }
        };
        match self.slot.as_ref().map(ConnectionSlot::stream).transpose() {
            Ok(slot) => {
                let (peer, lease) = (Arc::clone(&self.peer), Lease::Quota(slot));
                Some(ConnectRequest::new(incoming, authority, peer, lease))
            }
            Err(_exceeded) => {
                incoming.reject();
                self.limit_reached(Limit::Streams);
                None
            }
        }
    }

    /// Whether no request may come any more: the peer's certificate has ended, or the peer goes on
    /// as if there had been no GOAWAY.
    fn is_too_late(&self) -> bool {
        let drained = self
            .draining
            .is_some_and(|since| since.elapsed() > DRAIN_GRACE);
        drained || self.trust.has_ended(&self.peer)
    }

    fn limit_reached(&self, limit: Limit) {
        let (role, peer) = (Role::Server, Some(&self.peer.id));
        self.events
            .limit_reached(&LimitReached { role, peer, limit });
    }

    /// The connection has failed, or was left without ceremony once nothing was open.
    fn fail(&mut self, source: std::io::Error) -> Option<Result<ConnectRequest, ServeError>> {
        if source.kind() == std::io::ErrorKind::InvalidData {
            return self.finish(CloseReason::Peer, Some(source));
        }
        let announced = self.driver.seen().goaway || self.ending.is_some();
        if announced && !self.driver.has_streams() {
            return self.finish(CloseReason::Peer, None);
        }
        self.finish(CloseReason::Lost, Some(source))
    }

    fn finish(
        &mut self,
        reason: CloseReason,
        source: Option<std::io::Error>,
    ) -> Option<Result<ConnectRequest, ServeError>> {
        let ended = self.ended(reason);
        match (ended, source) {
            (CloseReason::Limit(limit), _) if self.closing => {
                Some(Err(ServeError::Limit { limit }))
            }
            (CloseReason::Closed | CloseReason::Drained, _) | (_, None) => None,
            (_, Some(source)) => Some(Err(ServeError::Connection { source })),
        }
    }

    /// Reports the end, once.
    fn ended(&mut self, reason: CloseReason) -> CloseReason {
        let reason = *self.ending.get_or_insert(reason);
        if !std::mem::replace(&mut self.over, true) {
            let (role, address) = (Role::Server, None);
            let peer = &self.peer.id;
            let closed = ConnectionClosed {
                role,
                peer,
                address,
                reason,
            };
            self.events.connection_closed(&closed);
        }
        reason
    }
}

impl Drop for ServerConnection {
    fn drop(&mut self) {
        self.ended(CloseReason::Closed);
    }
}

impl fmt::Debug for ServerConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConnection")
            .field("peer", &self.peer)
            .field("ending", &self.ending)
            .finish_non_exhaustive()
    }
}

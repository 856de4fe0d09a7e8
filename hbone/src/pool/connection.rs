//! The task of one connection: dial, handshake, then move its bytes until it ends.

use super::{Dial, PoolConfig, Target, membership::Id, shared::Shared};
use crate::{
    error::ConnectError,
    events::{CloseReason, ConnectionClosed, ConnectionOpened, Limit, LimitReached, Role},
    lifetime::{Action, Lifetime},
    tls::TlsStream,
    trust::Trust,
    wire::{
        self,
        client::{Driver, Opener},
    },
};
use meshwright_identity::{Member, PeerSvid, SpiffeId, svid::Purpose};
use rustls::{ClientConnection, pki_types::ServerName};
use std::{
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, Sleep, timeout},
};

/// What is needed to make connections; owns their tasks.
pub(super) struct Dialing<D> {
    dialer: Arc<D>,
    config: Arc<PoolConfig>,
    shared: Arc<Shared>,
    tasks: Mutex<JoinSet<()>>,
}

impl<D: Dial> Dialing<D> {
    pub(super) fn new(dialer: D, config: PoolConfig, shared: Arc<Shared>) -> Self {
        Self {
            dialer: Arc::new(dialer),
            config: Arc::new(config),
            shared,
            tasks: Mutex::default(),
        }
    }

    pub(super) fn answer_deadline(&self) -> Duration {
        self.config.answer_deadline
    }

    /// Starts the task of a new connection.
    pub(super) fn start(&self, id: Id, member: Member, target: Target) {
        let dialer = Arc::clone(&self.dialer);
        let (config, shared) = (Arc::clone(&self.config), Arc::clone(&self.shared));
        let guard = Guard {
            id,
            shared: Arc::clone(&shared),
        };
        let task = async move {
            let _guard = guard;
            let dial = establish(&*dialer, &config, &member, &target);
            match Box::pin(dial).await {
                Ok(established) => {
                    drop(target);
                    established.run(id, &shared, &config).await;
                }
                Err(error) => {
                    if let ConnectError::Timeout { step, .. } = error {
                        limit_reached(&shared, None, step);
                    }
                    shared.failed(id, &error);
                }
            }
        };
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }
}

/// Whoever waits for a connection hears of its end, also if its task is dropped or panics.
struct Guard {
    id: Id,
    shared: Arc<Shared>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shared.failed(self.id, &ConnectError::Draining);
    }
}

fn limit_reached(shared: &Shared, peer: Option<&SpiffeId>, limit: Limit) {
    let role = Role::Client;
    shared
        .events()
        .limit_reached(&LimitReached { role, peer, limit });
}

/// A connection that has its peer's SETTINGS.
struct Established {
    opener: Opener,
    driver: Driver,
    peer: PeerSvid,
    address: SocketAddr,
    trust: Trust,
}

async fn establish<D: Dial>(
    dialer: &D,
    config: &PoolConfig,
    member: &Member,
    target: &Target,
) -> Result<Established, ConnectError> {
    let peer = target.address;
    let late = |step| ConnectError::Timeout { peer, step };
    if member.is_expired() {
        return Err(ConnectError::Expired);
    }
    let stream = timeout(config.tcp_deadline, dialer.dial(peer))
        .await
        .map_err(|_elapsed| late(Limit::Tcp))?
        .map_err(|source| {
            let source = Arc::new(source);
            ConnectError::Tcp { peer, source }
        })?;
    let tls_failed = |source| {
        let source = Arc::new(source);
        ConnectError::Tls { peer, source }
    };
    let rotations = member.rotations();
    let client_config = member.client_config(&target.accepted);
    // No server name is sent, and the verifier goes by identity.
    let name = ServerName::from(peer.ip());
    let client = ClientConnection::new(client_config, name)
        .map_err(|error| tls_failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    let mut tls = TlsStream::new(stream, client.into());
    timeout(config.tls_deadline, tls.handshake())
        .await
        .map_err(|_elapsed| late(Limit::Tls))?
        .map_err(tls_failed)?;
    let svid = PeerSvid::of_connection(tls.state())
        .map_err(|error| tls_failed(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    let (opener, driver) = timeout(config.settings_deadline, start(tls, &config.wire))
        .await
        .map_err(|_elapsed| late(Limit::Settings))?
        .map_err(|source| ConnectError::Http2 { peer, source })?;
    if driver.max_streams() == 0 {
        return Err(ConnectError::Unprocessed { peer });
    }
    Ok(Established {
        opener,
        driver,
        peer: svid,
        address: peer,
        trust: Trust::new(member, Purpose::Server, rotations),
    })
}

/// Starts HTTP/2 and waits for the peer's SETTINGS, so that its limits are known.
async fn start(
    tls: TlsStream,
    settings: &wire::Settings,
) -> Result<(Opener, Driver), Arc<io::Error>> {
    let (opener, mut driver) = wire::client::start(tls, settings).await?;
    poll_fn(|cx| match driver.poll(cx) {
        Poll::Ready(Ok(())) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        Poll::Pending if driver.seen().settings => Poll::Ready(Ok(())),
        Poll::Pending => Poll::Pending,
    })
    .await
    .map_err(Arc::new)?;
    Ok((opener, driver))
}

impl Established {
    /// Serves the connection until it has ended.
    async fn run(self, id: Id, shared: &Arc<Shared>, config: &PoolConfig) {
        let Self {
            opener,
            driver,
            peer,
            address,
            trust,
        } = self;
        let (role, address) = (Role::Client, Some(address));
        let opened = ConnectionOpened {
            role,
            peer: &peer.id,
            address,
        };
        shared.events().connection_opened(&opened);
        let mut lifetime = Lifetime::new(config.times(trust.rest(&peer)));
        lifetime.settings_done();
        shared.established(id, &opener, driver.max_streams());
        // From here on the pool's handle and the streams keep the connection open.
        drop(opener);
        let started = Instant::now();
        let timer = Box::pin(tokio::time::sleep(lifetime.next()));
        let (retired, used) = (false, 0);
        let mut run = Run {
            id,
            shared,
            peer: &peer,
            trust,
            driver,
            lifetime,
            started,
            timer,
            retired,
            used,
        };
        let ended = poll_fn(|cx| run.poll(cx)).await;
        shared.retire(id);
        if let CloseReason::Limit(limit) = ended {
            limit_reached(shared, Some(&peer.id), limit);
        }
        let peer = &peer.id;
        let closed = ConnectionClosed {
            role,
            peer,
            address,
            reason: ended,
        };
        shared.events().connection_closed(&closed);
    }
}

struct Run<'a> {
    id: Id,
    shared: &'a Arc<Shared>,
    peer: &'a PeerSvid,
    trust: Trust,
    driver: Driver,
    lifetime: Lifetime,
    started: Instant,
    timer: Pin<Box<Sleep>>,
    /// It gets no more streams.
    retired: bool,
    /// What the pool said about its use last time.
    used: u64,
}

impl Run<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        loop {
            match self.driver.poll(cx) {
                Poll::Ready(Ok(())) => {
                    let ours = self.retired || self.shared.usage(self.id).is_none();
                    let reason = if ours {
                        CloseReason::Drained
                    } else {
                        CloseReason::Peer
                    };
                    return Poll::Ready(reason);
                }
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                    return Poll::Ready(CloseReason::Peer);
                }
                Poll::Ready(Err(_lost)) => return Poll::Ready(CloseReason::Lost),
                Poll::Pending => {}
            }
            let seen = self.driver.seen();
            if let Some(limit) = seen.flood {
                return Poll::Ready(CloseReason::Limit(limit));
            }
            if seen.goaway && !self.retired {
                self.retire();
                continue;
            }
            if self.driver.poll_pong(cx).is_ready() {
                self.lifetime.pong();
                self.arm();
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if let Some(reason) = self.serve_timer() {
                return Poll::Ready(reason);
            }
        }
    }

    /// Does what is due; returns why the connection ends at once, if it does.
    fn serve_timer(&mut self) -> Option<CloseReason> {
        let now = self.started.elapsed();
        if self.trust.rotated() && !self.driver.tls(|tls| self.trust.vouches(tls)) {
            return Some(CloseReason::Untrusted);
        }
        // The timers run on the monotonic clock; this one is for a wall clock that was moved.
        if !self.retired && self.trust.has_ended(self.peer) {
            limit_reached(self.shared, Some(&self.peer.id), Limit::Age);
            self.retire();
        }
        // SETTINGS may have changed, and a peer that refused a stream may take one again.
        self.shared.limit(self.id, self.driver.max_streams());
        // A retired connection is not in the pool's books; its tunnels go on.
        let (streams, used) = self.shared.usage(self.id).unwrap_or((0, self.used));
        let used_since = std::mem::replace(&mut self.used, used) != used;
        let open = streams > 0 || used_since || self.driver.has_tunnels();
        self.lifetime.streams(open, now);
        loop {
            match self.lifetime.poll(now) {
                Some(Action::Ping) => self.driver.ping(),
                Some(Action::Drain(limit)) => {
                    limit_reached(self.shared, Some(&self.peer.id), limit);
                    self.retire();
                }
                Some(Action::Close(limit)) => return Some(CloseReason::Limit(limit)),
                None => break,
            }
        }
        self.arm();
        None
    }

    fn arm(&mut self) {
        let next = self.started + self.lifetime.next();
        self.timer.as_mut().reset(next);
    }

    fn retire(&mut self) {
        self.retired = true;
        self.lifetime.drain();
        self.shared.retire(self.id);
    }
}

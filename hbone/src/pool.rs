//! Opens tunnels over shared connections.
//!
//! A connection is shared only by tunnels with the same [key](key): own identity, origin, accepted
//! peers, address, network and destination workload. Which connection serves a request is decided
//! by a pure state machine ([membership]); dials, timers and tasks are around it. No lock is held
//! over anything that waits.

mod config;
mod connection;
mod key;
mod membership;
mod shared;

pub use config::PoolConfig;
pub use key::{Origin, Target};
pub(crate) use shared::StreamLease;

use crate::{
    error::ConnectError,
    events::{Events, Limit, LimitReached, Role},
    headers::Baggage,
    tunnel::{Lease, Tunnel},
    wire::client::{OpenError, Opener},
};
use key::Key;
use meshwright_identity::Member;
use shared::{Shared, Ticket};
use std::{fmt, future::Future, io, net::SocketAddr, sync::Arc};
use tokio::{net::TcpStream, time::timeout};

/// Connects to peers; the program decides from which network namespace and with which options.
pub trait Dial: Send + Sync + 'static {
    /// Connects to `addr`. The pool sets the deadline; dropping the future ends the attempt.
    ///
    /// # Errors
    ///
    /// Resolves to what the operating system said.
    fn dial(&self, addr: SocketAddr) -> impl Future<Output = io::Result<TcpStream>> + Send;
}

/// Dials from where the process is, without options.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct DirectDial;

impl DirectDial {
    /// Makes the dialer.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Dial for DirectDial {
    async fn dial(&self, addr: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// Opens tunnels, sharing connections between those that may share one.
///
/// Clones are the same pool. It owns the tasks of its connections: when the last clone is dropped,
/// its connections end and their tunnels are reset. A pool belongs to the runtime it is used on;
/// a program with several single-threaded runtimes has one pool on each.
pub struct Pool<D> {
    shared: Arc<Shared>,
    dialing: Arc<connection::Dialing<D>>,
}

impl<D: Dial> Pool<D> {
    /// Makes an empty pool.
    #[must_use]
    pub fn new(dialer: D, config: PoolConfig, events: Arc<dyn Events>) -> Self {
        let shared = Arc::new(Shared::new(&config, events));
        let dialing = connection::Dialing::new(dialer, config, Arc::clone(&shared));
        let dialing = Arc::new(dialing);
        Self { shared, dialing }
    }

    /// Opens a tunnel to `target` as `member`.
    ///
    /// Uses a connection that has room, joins a dial under way, or dials. When the peer says that
    /// it has not looked at the request (it is draining, or its limit is reached), or ends a
    /// connection before the request, a new connection is tried, once. Cancel safe: a dial that was
    /// begun goes on for others.
    ///
    /// # Errors
    ///
    /// Returns [`ConnectError`]; [`is_safe_to_retry`](ConnectError::is_safe_to_retry) says
    /// whether the application behind the peer can have seen the request.
    pub async fn tunnel(&self, member: &Member, target: Target) -> Result<Tunnel, ConnectError> {
        self.open(member, target)
            .await
            .map(|(tunnel, _answer)| tunnel)
    }

    /// As [`tunnel`](Self::tunnel); also returns the baggage of the peer's answer, a claim.
    ///
    /// # Errors
    ///
    /// As [`tunnel`](Self::tunnel).
    pub async fn tunnel_with_baggage(
        &self,
        member: &Member,
        target: Target,
    ) -> Result<(Tunnel, Baggage), ConnectError> {
        let (tunnel, headers) = self.open(member, target).await?;
        Ok((tunnel, Baggage::from_headers(&headers)))
    }

    /// Takes no new tunnels; connections close when their last tunnel has ended.
    pub fn drain(&self) {
        self.shared.drain();
    }

    /// Returns how many connections are open or being dialed.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections()
    }

    /// Returns how many tunnels are open or being opened on connections that take more.
    #[must_use]
    pub fn tunnels(&self) -> usize {
        self.shared.tunnels()
    }

    async fn open(
        &self,
        member: &Member,
        target: Target,
    ) -> Result<(Tunnel, http::HeaderMap), ConnectError> {
        if member.is_expired() {
            return Err(ConnectError::Expired);
        }
        let key = Key::new(member.id().clone(), &target);
        let peer = target.address;
        let (mut again, mut dialed_again) = (false, false);
        loop {
            let (opener, lease) = match self.checkout(&key, member, &target, again).await {
                Ok(place) => place,
                // Whoever accepted the connection ended it before a request could be sent, as a
                // proxy does that is being replaced. Its successor answers the next dial.
                Err(error) if error.is_early_end() && !dialed_again => {
                    dialed_again = true;
                    continue;
                }
                Err(error) => return Err(error),
            };
            match self.connect(opener, &target).await {
                Ok((stream, headers)) => {
                    return Ok((Tunnel::new(stream, Lease::Pool(lease)), headers));
                }
                Err(OpenError::Closed) => lease.retire(),
                Err(OpenError::Unprocessed) => lease.refused(),
                Err(OpenError::Refused(status)) => {
                    let status = status.as_u16();
                    return Err(ConnectError::Refused { peer, status });
                }
                Err(OpenError::Reset(source)) => {
                    return Err(ConnectError::Reset { peer, source });
                }
                Err(OpenError::Late) => {
                    let step = Limit::Answer;
                    return Err(ConnectError::Timeout { peer, step });
                }
            }
            // Nobody has looked at the request. Others of the pool may be as dead or as drained as
            // this connection was: a new one decides.
            if std::mem::replace(&mut again, true) {
                return Err(ConnectError::Unprocessed { peer });
            }
        }
    }

    /// Finds or makes a connection with room; with `new`, one that is not there yet.
    async fn checkout(
        &self,
        key: &Key,
        member: &Member,
        target: &Target,
        new: bool,
    ) -> Result<(Opener, StreamLease), ConnectError> {
        loop {
            let waiting = match self.shared.checkout(key, new)? {
                Ticket::Ready(opener, lease) => return Ok((opener, lease)),
                Ticket::Wait(waiting) => waiting,
                Ticket::Dial(dial, waiting) => {
                    self.dialing.start(dial, member.clone(), target.clone());
                    waiting
                }
            };
            // The dial has its own deadlines.
            match waiting.await {
                Ok(Ok((opener, lease))) => return Ok((opener, lease)),
                Ok(Err(Some(error))) => return Err(error),
                // The connection got more waiters than it takes streams: look again.
                Ok(Err(None)) => {}
                Err(_gone) => return Err(ConnectError::Draining),
            }
        }
    }

    async fn connect(
        &self,
        opener: Opener,
        target: &Target,
    ) -> Result<(crate::wire::stream::Stream, http::HeaderMap), OpenError> {
        let answer = opener.open(&target.authority, target.headers.to_map());
        let deadline = self.dialing.answer_deadline();
        match timeout(deadline, answer).await {
            Ok(answer) => answer,
            Err(_elapsed) => {
                let (role, limit) = (Role::Client, Limit::Answer);
                let event = LimitReached {
                    role,
                    peer: None,
                    limit,
                };
                self.shared.events().limit_reached(&event);
                Err(OpenError::Late)
            }
        }
    }
}

impl<D> Clone for Pool<D> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            dialing: Arc::clone(&self.dialing),
        }
    }
}

impl<D> fmt::Debug for Pool<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("connections", &self.shared.connections())
            .field("tunnels", &self.shared.tunnels())
            .finish_non_exhaustive()
    }
}

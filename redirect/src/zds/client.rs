//! The proxy's end over a socket.

use super::message::Order;
use super::session::{ProxySession, Reaction};
use super::wire::{BUFFER, Packets};
use crate::events::{Events, ZdsDisconnected, ZdsRefused};
use crate::netns::{Netns, NetnsId};
use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Settings of a [`Client`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientConfig {
    /// Longest pause before the second try; doubles with each further one. Default: 20 ms.
    pub first_pause: Duration,
    /// Longest pause of all. Default: 15 s.
    pub longest_pause: Duration,
    /// Namespaces that are never a pod's, besides the process's own and that of process 1.
    pub forbidden: Vec<NetnsId>,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            first_pause: Duration::from_millis(20),
            longest_pause: Duration::from_secs(15),
            forbidden: Vec::new(),
        }
    }
}

/// What a [`Client`] tells.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientEvent {
    /// Connected: a snapshot follows. Pods that are served go on.
    Connected,
    /// The connection is lost; the next call connects again. Pods that are served go on.
    Disconnected,
    /// A wish of the agent that must be answered before the next call.
    Request(Request),
}

/// The proxy's end: connects to the agent's socket, for ever, and hands out what it wants.
///
/// ```no_run
/// use meshwright_redirect::zds::{Client, ClientConfig, ClientEvent, Order};
/// use std::sync::Arc;
///
/// # async fn run() -> std::io::Result<()> {
/// let mut agent = Client::new(
///     "/var/run/ztunnel/ztunnel.sock",
///     ClientConfig::default(),
///     Arc::new(()),
/// );
/// loop {
///     if let ClientEvent::Request(request) = agent.next().await {
///         if let Order::Add { uid, netns, .. } = request.order() {
///             println!("serve {uid} in {}", netns.id());
///         }
///         request.accept()?;
///     }
/// }
/// # }
/// ```
pub struct Client {
    path: PathBuf,
    config: ClientConfig,
    events: Arc<dyn Events>,
    buffer: Vec<u8>,
    connection: Option<Connection>,
    failures: u32,
    not_before: Option<Instant>,
}

struct Connection {
    packets: Arc<Packets>,
    session: ProxySession,
}

impl Client {
    /// Prepares a client; connecting happens in [`next`](Self::next).
    pub fn new(path: impl Into<PathBuf>, config: ClientConfig, events: Arc<dyn Events>) -> Self {
        let mut config = config;
        for own in ["/proc/self/ns/net", "/proc/1/ns/net"] {
            // Process 1 may be out of sight; what cannot be seen is not compared.
            if let Ok(netns) = Netns::open(own) {
                config.forbidden.push(netns.id());
            }
        }
        Self {
            path: path.into(),
            config,
            events,
            buffer: vec![0; BUFFER],
            connection: None,
            failures: 0,
            not_before: None,
        }
    }

    /// Returns the path of the agent's socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for the next event; connects and reconnects by itself.
    ///
    /// Never ends and never fails: bad packets are answered with their error and counted by
    /// [`Events::zds_refused`], lost connections are made again after a pause with full jitter
    /// that grows until a message was read well. Cancel safe.
    pub async fn next(&mut self) -> ClientEvent {
        loop {
            let Some(connection) = &mut self.connection else {
                if self.connect().await {
                    self.events.zds_connected();
                    return ClientEvent::Connected;
                }
                continue;
            };
            let received = connection.packets.receive(&mut self.buffer).await;
            let reason = match received {
                Ok(packet) if packet.length == 0 => "the agent closed the connection".to_owned(),
                Err(error) => format!("the connection broke: {error}"),
                Ok(packet) => {
                    let bytes = self.buffer.get(..packet.length).unwrap_or_default();
                    let session = &mut connection.session;
                    match session.receive(bytes, packet.descriptors, packet.truncated) {
                        Reaction::Deliver(order) => {
                            self.failures = 0;
                            return ClientEvent::Request(Request {
                                order,
                                packets: Some(Arc::clone(&connection.packets)),
                            });
                        }
                        Reaction::Refuse(bad) => {
                            let reason = chain(&bad);
                            let disconnects = bad.ends_connection();
                            answer(&connection.packets, Err(&reason));
                            self.events.zds_refused(&ZdsRefused {
                                reason: reason.clone(),
                                disconnects,
                            });
                            if !disconnects {
                                continue;
                            }
                            reason
                        }
                    }
                }
            };
            self.disconnected(reason);
            return ClientEvent::Disconnected;
        }
    }

    /// Tries once, after the pause that is due.
    async fn connect(&mut self) -> bool {
        if let Some(due) = self.not_before {
            sleep_until(due).await;
        }
        let hello = ProxySession::hello();
        let connected = Packets::connect(&self.path)
            .and_then(|packets| packets.try_send(&hello, None).map(|()| packets));
        match connected {
            Ok(packets) => {
                self.connection = Some(Connection {
                    packets: Arc::new(packets),
                    session: ProxySession::new(self.config.forbidden.clone()),
                });
                true
            }
            Err(error) => {
                self.disconnected(format!("could not connect: {error}"));
                false
            }
        }
    }

    fn disconnected(&mut self, reason: String) {
        if let Some(connection) = self.connection.take() {
            connection.packets.close();
        }
        let pause = pause(&self.config, self.failures, rand::random());
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(Instant::now() + pause);
        self.events
            .zds_disconnected(&ZdsDisconnected { reason, pause });
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("path", &self.path)
            .field("connected", &self.connection.is_some())
            .finish_non_exhaustive()
    }
}

/// Full jitter: anything up to a bound that doubles. `random` is in 0.0 to 1.0.
fn pause(config: &ClientConfig, failures: u32, random: f64) -> Duration {
    let bound = config
        .first_pause
        .saturating_mul(2_u32.saturating_pow(failures.min(31)));
    bound
        .min(config.longest_pause)
        .mul_f64(random.clamp(0.0, 1.0))
}

/// Prints an error and its causes on one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut link = error.source();
    while let Some(source) = link {
        text.push_str(": ");
        text.push_str(&source.to_string());
        link = source.source();
    }
    text
}

/// Sends an acknowledgement; ends the connection when it cannot be sent.
fn answer(packets: &Packets, outcome: Result<(), &str>) {
    if send_answer(packets, outcome).is_err() {
        tracing::debug!("the agent does not take acknowledgements");
    }
}

fn send_answer(packets: &Packets, outcome: Result<(), &str>) -> io::Result<()> {
    let sent = packets.try_send(&ProxySession::answer(outcome), None);
    if sent.is_err() {
        packets.close();
    }
    sent
}

/// A wish of the agent; dropping it without an answer refuses.
#[derive(Debug)]
#[must_use = "an agent waits for the answer"]
pub struct Request {
    order: Order,
    packets: Option<Arc<Packets>>,
}

impl Request {
    /// Returns what is wanted.
    #[must_use]
    pub const fn order(&self) -> &Order {
        &self.order
    }

    /// Acknowledges: it is done.
    ///
    /// # Errors
    ///
    /// Returns the reason when the connection is gone; the agent sends a snapshot on the next.
    pub fn accept(mut self) -> io::Result<()> {
        self.answer(Ok(()))
    }

    /// Answers with an error text: it could not be done. Texts above 1 KiB are cut.
    ///
    /// # Errors
    ///
    /// As [`accept`](Self::accept).
    pub fn refuse(mut self, reason: &str) -> io::Result<()> {
        self.answer(Err(reason))
    }

    fn answer(&mut self, outcome: Result<(), &str>) -> io::Result<()> {
        match self.packets.take() {
            Some(packets) => send_answer(&packets, outcome),
            None => Ok(()),
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if let Some(packets) = self.packets.take() {
            answer(&packets, Err("the proxy gave the request up"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ClientConfig, pause};
    use std::time::Duration;

    #[test]
    fn pauses_double_up_to_the_longest_with_full_jitter() {
        let _trace = meshwright_testkit::trace();
        let config = ClientConfig::default();
        let bounds: Vec<_> = (0..11)
            .map(|n| pause(&config, n, 1.0).as_millis())
            .collect();
        assert_eq!(
            bounds,
            [20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 10_240, 15_000]
        );
        assert_eq!(pause(&config, 3, 0.5), Duration::from_millis(80));
        assert_eq!(pause(&config, u32::MAX, 1.0), Duration::from_secs(15));
        assert_eq!(pause(&config, 5, 0.0), Duration::ZERO);
    }
}

//! Ports, sockets, HTTP/2 and the pool.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use meshwright_istio_surface::env::{Checker, InvalidValue, ProxyConfig};

use super::process::Machine;

const OUTBOUND: u16 = 15001;
const INBOUND_PLAINTEXT: u16 = 15006;
const INBOUND_HBONE: u16 = 15008;
const SOCKS5: u16 = 15080;
const ADMIN: u16 = 15000;
const STATS: u16 = 15020;
const READINESS: u16 = 15021;
/// The mark that Istio's capture rules exempt.
const PACKET_MARK: u64 = 1337;
/// Where Istio's node agent listens.
const SOCKET: &str = "/var/run/ztunnel/ztunnel.sock";
/// RFC 9113 §6.9.1: a window is at most 2^31-1 bytes.
const LARGEST_WINDOW: u64 = (1 << 31) - 1;
/// RFC 9113 §6.9.2: the connection's window begins at 65535 bytes and no setting lowers it.
const SMALLEST_CONNECTION_WINDOW: u64 = 65_535;
/// RFC 9113 §6.5.2: `SETTINGS_MAX_FRAME_SIZE` is 2^14 to 2^24-1.
const FRAME_SIZES: (u64, u64) = (1 << 14, (1 << 24) - 1);
/// The windows and the frame size of `meshwright-hbone`, for the dump.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 32 << 20;
pub(super) const FRAME_SIZE: u32 = 64 << 10;
/// Its streams on one connection.
pub(super) const MAX_STREAMS: usize = 100;
/// Linux: most seconds that `TCP_KEEPIDLE` and `TCP_KEEPINTVL` take.
const LONGEST_KEEPALIVE: u64 = 32_767;
/// Linux: most probes that `TCP_KEEPCNT` takes.
const MOST_PROBES: u64 = 127;
/// Without a variable: gone peers are noticed within two minutes, not within half an hour.
const USER_TIMEOUT: Duration = Duration::from_secs(120);

/// Listening addresses.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Ports {
    /// Captured outbound traffic, in each pod: 15001.
    pub outbound: SocketAddr,
    /// Captured inbound plaintext, in each pod: 15006.
    pub inbound_plaintext: SocketAddr,
    /// Tunnels, in each pod: 15008.
    pub inbound_hbone: SocketAddr,
    /// Admin, loopback of the proxy's own namespace: 15000.
    pub admin: Localhost,
    /// Metrics: 15020.
    pub stats: SocketAddr,
    /// Readiness: 15021.
    pub readiness: SocketAddr,
    /// Ports of the proxy that no tunnel may lead to.
    pub illegal: BTreeSet<u16>,
}

/// A port on loopback.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Localhost {
    /// The port.
    pub port: u16,
    /// Whether `::1` is listened on beside `127.0.0.1`.
    pub ipv6: bool,
}

/// Options of the sockets made in pods.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Sockets {
    /// Packet mark that exempts the proxy's own traffic from capture (`PACKET_MARK`).
    pub mark: Option<NonZeroU32>,
    /// Whether the client's address is kept towards the app (`ENABLE_ORIG_SRC`).
    pub original_source: OriginalSource,
    /// Whether IPv6 is listened on (`IPV6_ENABLED`).
    pub ipv6: bool,
    /// TCP keepalive; `None` if switched off.
    pub keepalive: Option<Keepalive>,
    /// `TCP_USER_TIMEOUT`; `None` leaves the kernel's.
    pub user_timeout: Option<Duration>,
    /// Whether apps behind the PROXY protocol are reached on loopback (`LOCALHOST_APP_TUNNEL`).
    pub localhost_app_tunnel: bool,
}

/// Whether the client's address is kept towards the app.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum OriginalSource {
    /// Kept where the kernel allows it.
    #[default]
    BestEffort,
    /// Never kept.
    Never,
    /// Kept, or the connection fails.
    Require,
}

/// TCP keepalive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Keepalive {
    /// Idle time before the first probe.
    pub time: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Unanswered probes that end the connection.
    pub retries: u32,
}

/// Limits of HTTP/2 connections; `None` leaves the choice to `meshwright-hbone`.
///
/// The size of frames is not among them: `HTTP2_FRAME_SIZE` is checked and has no effect.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Http2 {
    /// Receive window of one stream in bytes (`HTTP2_STREAM_WINDOW_SIZE`).
    pub stream_window: Option<NonZeroU32>,
    /// Receive window of a connection in bytes (`HTTP2_CONNECTION_WINDOW_SIZE`).
    pub connection_window: Option<NonZeroU32>,
}

/// Limits of the pool of tunnels.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct PoolSettings {
    /// Streams on one connection; `None` leaves the choice to `meshwright-hbone`.
    pub max_streams: Option<NonZeroUsize>,
    /// How long an unused connection is kept.
    pub unused_release: Duration,
}

/// How pods are handed over.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Handover {
    /// Socket of the node agent (`INPOD_UDS`).
    pub socket: PathBuf,
    /// Whether listeners share their port with a successor (`INPOD_PORT_REUSE`).
    pub port_reuse: bool,
}

impl Localhost {
    /// Returns the addresses to listen on, IPv4 first.
    pub fn addresses(self) -> impl Iterator<Item = SocketAddr> {
        let v4 = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let v6 = self.ipv6.then_some(IpAddr::V6(Ipv6Addr::LOCALHOST));
        [Some(v4), v6]
            .into_iter()
            .flatten()
            .map(move |ip| SocketAddr::new(ip, self.port))
    }
}

impl Ports {
    pub(super) fn read(checker: &mut Checker<'_>, proxy: &ProxyConfig, machine: Machine) -> Self {
        let v6 = checker.boolean("IPV6_ENABLED", true);
        let any = if v6 {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        } else {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        };
        let mut illegal = BTreeSet::from([INBOUND_HBONE, INBOUND_PLAINTEXT, OUTBOUND]);
        if checker.text("UNSTABLE_ENABLE_SOCKS5") == Some("true") {
            illegal.insert(SOCKS5);
        }
        let admin = proxy.proxy_admin_port.unwrap_or(ADMIN);
        let stats = proxy.stats_port.unwrap_or(STATS);
        let mut taken = illegal.clone();
        taken.extend([0, READINESS]);
        for (name, port) in [("proxyAdminPort", admin), ("statsPort", stats)] {
            if !taken.insert(port) {
                let with = "another port of this program";
                checker.fault(
                    name,
                    Some(&port.to_string()),
                    InvalidValue::Conflict { with },
                );
            }
        }
        Self {
            outbound: SocketAddr::new(any, OUTBOUND),
            inbound_plaintext: SocketAddr::new(any, INBOUND_PLAINTEXT),
            inbound_hbone: SocketAddr::new(any, INBOUND_HBONE),
            admin: Localhost {
                port: admin,
                ipv6: v6 && machine.loopback_ipv6,
            },
            stats: SocketAddr::new(any, stats),
            readiness: SocketAddr::new(any, READINESS),
            illegal,
        }
    }
}

impl Sockets {
    pub(super) fn read(checker: &mut Checker<'_>) -> Self {
        let mark = checker.number("PACKET_MARK", 1, u32::MAX.into());
        let (enabled, keepalive) = Keepalive::read(checker);
        Self {
            mark: narrow(mark.unwrap_or(PACKET_MARK)),
            original_source: match checker.optional_boolean("ENABLE_ORIG_SRC") {
                Some(true) => OriginalSource::Require,
                Some(false) => OriginalSource::Never,
                None => OriginalSource::BestEffort,
            },
            ipv6: checker.boolean("IPV6_ENABLED", true),
            keepalive: enabled.then_some(keepalive),
            user_timeout: match checker.optional_boolean("USER_TIMEOUT_ENABLED") {
                Some(true) => Some(keepalive.time + keepalive.interval * keepalive.retries),
                Some(false) => None,
                None => Some(USER_TIMEOUT),
            },
            localhost_app_tunnel: checker.boolean("LOCALHOST_APP_TUNNEL", true),
        }
    }
}

impl Keepalive {
    fn read(checker: &mut Checker<'_>) -> (bool, Self) {
        let mut length = |name, default| {
            let set = checker.duration_within(name, 1, LONGEST_KEEPALIVE);
            set.unwrap_or_else(|| Duration::from_secs(default))
        };
        let (time, interval) = (
            length("KEEPALIVE_TIME", 60),
            length("KEEPALIVE_INTERVAL", 10),
        );
        let retries = checker.number("KEEPALIVE_RETRIES", 1, MOST_PROBES);
        let retries = retries.and_then(|n| u32::try_from(n).ok()).unwrap_or(6);
        let keepalive = Self {
            time,
            interval,
            retries,
        };
        (checker.boolean("KEEPALIVE_ENABLED", true), keepalive)
    }
}

impl Http2 {
    pub(super) fn read(checker: &mut Checker<'_>) -> Self {
        let frame = checker.number("HTTP2_FRAME_SIZE", FRAME_SIZES.0, FRAME_SIZES.1);
        if frame.is_some_and(|size| size != u64::from(FRAME_SIZE)) {
            checker.note("HTTP2_FRAME_SIZE has no effect: frames of 64 KiB are sent and taken");
        }
        let mut bytes = |name, min, max| checker.number(name, min, max).and_then(narrow);
        Self {
            stream_window: bytes("HTTP2_STREAM_WINDOW_SIZE", 1, LARGEST_WINDOW),
            connection_window: bytes(
                "HTTP2_CONNECTION_WINDOW_SIZE",
                SMALLEST_CONNECTION_WINDOW,
                LARGEST_WINDOW,
            ),
        }
    }

    /// Both windows, the stream's first, if a variable sets one of them.
    #[must_use]
    pub fn windows(self) -> Option<(u32, u32)> {
        let is_set = self.stream_window.is_some() || self.connection_window.is_some();
        is_set.then(|| self.windows_in_force())
    }

    /// Both windows, the stream's first, set or not.
    pub(super) fn windows_in_force(self) -> (u32, u32) {
        let stream = self.stream_window.map_or(STREAM_WINDOW, NonZeroU32::get);
        let connection = self
            .connection_window
            .map_or(CONNECTION_WINDOW, NonZeroU32::get);
        (stream, connection)
    }
}

impl PoolSettings {
    pub(super) fn read(checker: &mut Checker<'_>) -> Self {
        let max_streams = checker.number("POOL_MAX_STREAMS_PER_CONNECTION", 1, u16::MAX.into());
        Self {
            max_streams: max_streams
                .and_then(|n| usize::try_from(n).ok())
                .and_then(NonZeroUsize::new),
            unused_release: checker
                .duration("POOL_UNUSED_RELEASE_TIMEOUT", Duration::from_secs(300)),
        }
    }
}

impl Handover {
    pub(super) fn read(checker: &mut Checker<'_>) -> Self {
        Self {
            socket: checker.path("INPOD_UDS").unwrap_or_else(|| SOCKET.into()),
            port_reuse: checker.boolean("INPOD_PORT_REUSE", true),
        }
    }
}

fn narrow(number: u64) -> Option<NonZeroU32> {
    u32::try_from(number).ok().and_then(NonZeroU32::new)
}

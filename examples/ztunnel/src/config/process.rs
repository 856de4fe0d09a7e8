//! Arguments, threads, shutdown and logs.

use std::fmt;
use std::num::NonZeroUsize;
use std::thread;
use std::time::Duration;

use meshwright_istio_surface::env::{Checker, InvalidValue, ProxyConfig, WorkerThreads};
use meshwright_istio_surface::logging::Filter;

/// Shape of log lines.
pub use meshwright_istio_surface::logging::LogFormat;

/// Drain time when nothing says how long the process may take to end.
const DRAIN: Duration = Duration::from_secs(5);
/// More seconds of grace than this are a typing error.
const LONGEST_GRACE: u64 = 7 * 24 * 3600;
/// One when the kernel switched IPv6 off on loopback.
const LOOPBACK_IPV6_OFF: &str = "/proc/sys/net/ipv6/conf/lo/disable_ipv6";

/// What the first argument asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Command {
    /// `help`: print the usage.
    Help,
    /// `proxy`, also without any argument: run.
    Proxy,
    /// `version`: print the version.
    Version,
}

/// The first argument is none of `proxy`, `version` and `help`.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct UnknownCommand {
    /// The argument.
    pub word: String,
}

/// What settings depend on beside the environment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Machine {
    /// Logical CPUs that this process may use.
    pub cpus: NonZeroUsize,
    /// Whether loopback has IPv6.
    pub loopback_ipv6: bool,
}

/// How long connections may finish at the end of the process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Drain {
    /// From the signal until what still runs is cut.
    pub deadline: Duration,
}

/// Logs and labels.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Telemetry {
    /// Filter of log lines (`RUST_LOG`), already checked.
    pub filter: Filter,
    /// Shape of log lines (`LOG_FORMAT`).
    pub format: LogFormat,
    /// Whether responses carry `baggage`, and that of requests is used for labels
    /// (`ENABLE_RESPONSE_BAGGAGE`).
    pub baggage: bool,
    /// The `tag` of the build metric (`ISTIO_META_ISTIO_VERSION`).
    pub istio_version: Option<String>,
}

impl Command {
    /// Reads the words after the program's name: only the first counts, as with Istio's.
    ///
    /// # Errors
    ///
    /// [`UnknownCommand`] if the first word is no command.
    pub fn parse(arguments: &[String]) -> Result<Self, UnknownCommand> {
        match arguments.first().map(String::as_str) {
            None | Some("proxy") => Ok(Self::Proxy),
            Some("help" | "--help" | "-h") => Ok(Self::Help),
            Some("version" | "--version") => Ok(Self::Version),
            Some(word) => Err(UnknownCommand { word: word.into() }),
        }
    }
}

impl fmt::Display for UnknownCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "unknown command {:?}: expected proxy, version or help",
            self.word
        )
    }
}

impl std::error::Error for UnknownCommand {}

impl Machine {
    /// Looks at the machine that this process runs on.
    #[must_use]
    pub fn probe() -> Self {
        let off = std::fs::read_to_string(LOOPBACK_IPV6_OFF);
        Self {
            cpus: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            loopback_ipv6: off.is_ok_and(|flag| flag.trim() != "1"),
        }
    }

    /// Describes a machine; for tests.
    #[must_use]
    pub fn new(cpus: NonZeroUsize, loopback_ipv6: bool) -> Self {
        Self {
            cpus,
            loopback_ipv6,
        }
    }
}

impl Drain {
    pub(super) fn read(checker: &mut Checker<'_>) -> Self {
        let explicit = checker.duration_within("CONNECTION_TERMINATION_DEADLINE", 0, LONGEST_GRACE);
        let grace = checker.number("TERMINATION_GRACE_PERIOD_SECONDS", 0, LONGEST_GRACE);
        Self {
            deadline: explicit
                .or_else(|| grace.map(Self::within_grace))
                .unwrap_or(DRAIN),
        }
    }

    /// Leaves time to end: five seconds of a long grace, one of a short, and never less than one.
    fn within_grace(grace: u64) -> Duration {
        let reserve = if grace > 10 { 5 } else { 1 };
        Duration::from_secs(grace.saturating_sub(reserve).max(1))
    }
}

impl Telemetry {
    pub(super) fn read(checker: &mut Checker<'_>, proxy: &ProxyConfig) -> Self {
        let filter = checker.text("RUST_LOG").unwrap_or("info");
        let filter = Filter::parse(filter).unwrap_or_else(|error| {
            let cause = error.to_string();
            checker.fault("RUST_LOG", Some(filter), InvalidValue::Unreadable { cause });
            Filter::default()
        });
        Self {
            filter,
            format: match checker.word("LOG_FORMAT", &["json", "plain"]) {
                Some("json") => LogFormat::Json,
                _ => LogFormat::Plain,
            },
            baggage: checker.boolean("ENABLE_RESPONSE_BAGGAGE", true),
            istio_version: proxy.proxy_metadata.get("ISTIO_VERSION").cloned(),
        }
    }
}

/// The number of worker threads: said outright, else from the CPUs that the pod may use.
pub(super) fn workers(
    checker: &mut Checker<'_>,
    proxy: &ProxyConfig,
    machine: Machine,
) -> NonZeroUsize {
    let limit = checker.cpu_quantity("ZTUNNEL_RESOURCE_CPU_LIMIT");
    let request = checker.cpu_quantity("ZTUNNEL_RESOURCE_CPU_REQUEST");
    let downward = checker.number("ZTUNNEL_CPU_LIMIT", 0, 1 << 20);
    let explicit = checker.worker_threads("ZTUNNEL_WORKER_THREADS");
    let (limit, request) = (limit.map(|q| q.cpus()), request.map(|q| q.cpus()));
    let downward = downward.and_then(|n| usize::try_from(n).ok());
    let cpus = limit
        .or(downward)
        .and_then(NonZeroUsize::new)
        .unwrap_or(machine.cpus);
    let of_mesh = proxy.concurrency.map(|threads| {
        NonZeroUsize::new(threads.into()).map_or(WorkerThreads::All, WorkerThreads::Count)
    });
    if let Some(threads) = explicit.or(of_mesh) {
        return threads.on(cpus);
    }
    let request = request.unwrap_or(0);
    let threads = match limit {
        Some(limit) => limit.max(request),
        None => cpus.get().div_ceil(4).max(2).max(request),
    };
    NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN)
}

//! Istio's operating surface, shared by programs that take the place of Istio's own: variables, logs,
//! metrics, readiness, admin and `config_dump`.
//!
//! An operator who replaces ztunnel keeps manifests, probes, dashboards and `istioctl`. This library
//! is the part of that promise which has nothing to do with moving bytes; every format in it is
//! tested against recordings of a real ztunnel under a real istiod.
//!
//! It does **not** carry traffic, speak to a control plane, or decide anything about connections.
//! It is not published: names and texts follow Istio's, not semantic versioning.
//!
//! ```text
//!  environment ──► env::Checker ──► the program's checked settings
//!
//!  a connection ──► metrics::TrafficSeries ──► Metrics ──► server::Stats      15020
//!        └────────► access_log::AccessRecord ─► logging ─► standard output
//!  blockers ──────────────────────────────────► server::Readiness             15021
//!  snapshots ─► config_dump::ConfigDocument ──► server::Admin                 15000, loopback
//! ```
//!
//! A program in small: settings, logs, metrics and the probe.
//!
//! ```no_run
//! use std::{net::SocketAddr, sync::Arc};
//!
//! use meshwright_istio_surface::env::Variables;
//! use meshwright_istio_surface::logging::{Filter, LogFormat, Logging};
//! use meshwright_istio_surface::metrics::Metrics;
//! use meshwright_istio_surface::server::{HttpServer, Readiness, ServerLimits, Stats, bind};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let variables = Variables::of_process();
//! let mut checker = variables.checker();
//! let ipv6 = checker.boolean("IPV6_ENABLED", true);
//! checker.finish()?;
//!
//! let logging = Logging::new(Filter::default(), LogFormat::Plain).start()?;
//! let metrics = Arc::new(Metrics::new("example", "unknown"));
//! let readiness = Readiness::new();
//! let starting = readiness.block("state manager");
//!
//! let any = if ipv6 { "[::]" } else { "0.0.0.0" };
//! let stats: SocketAddr = format!("{any}:15020").parse()?;
//! let probe: SocketAddr = format!("{any}:15021").parse()?;
//! let limits = ServerLimits::default();
//! let _stats = HttpServer::start(
//!     vec![bind(stats).await?],
//!     Stats::new(metrics).with_logging(logging),
//!     limits,
//! );
//! let _probe = HttpServer::start(vec![bind(probe).await?], readiness, limits);
//! drop(starting); // ready from here on
//! # Ok(())
//! # }
//! ```
//!
//! # Choosing
//!
//! | for | take |
//! | --- | --- |
//! | variables, all faults at once | [`env::Variables`], [`env::Checker`] |
//! | log lines in Istio's plain or JSON form | [`logging::Logging`]; [`logging::Control`] while it runs |
//! | the access line of a connection | [`access_log::AccessRecord`], written by [`access_log::AccessLog`] |
//! | why a connection ended, for log and metrics alike | [`end::EndReason`] |
//! | counters of traffic | [`metrics::TrafficSeries`], found once, then [`metrics::OpenConnection`] |
//! | all other families and the exposition | [`metrics::Metrics`] |
//! | ports 15020, 15021, 15000 | [`server::Stats`], [`server::Readiness`], [`server::Admin`] |
//! | what `istioctl ztunnel-config` reads | [`config_dump::ConfigDocument`] |
//!
//! # What is bounded
//!
//! | what | bound | beyond it |
//! | --- | --- | --- |
//! | lines that wait for a slow sink | 10,000 and 8 MiB | dropped, counted, said in the log |
//! | a line; a value in it | 4 KiB; 1 KiB | cut or left out, and marked |
//! | access lines of one kind of failure | 100 a second | counted, said with the next |
//! | traffic series | 10,000 | the series named `overflow`; idle ones go after ten minutes |
//! | connections of a server | 256 | the oldest makes room |
//! | a request's head; a whole exchange | 8 KiB and 2 s; 30 s | the connection ends |
//!
//! # What is followed
//!
//! | what | how far |
//! | --- | --- |
//! | ztunnel's variables, precedence, durations, quantities | all; see the programs for what has an effect |
//! | ztunnel's log lines, plain and JSON | byte for byte as recorded |
//! | ztunnel's metric families, labels, texts, order | as recorded; no compression of answers |
//! | ztunnel's `config_dump` | as recorded, but for the DNS resolver's settings |
//! | ztunnel's admin paths | without the profilers; reads by GET and HEAD, changes by POST only |
//! | `OpenMetrics` 1.0 text | as the format demands, `# EOF` included |
#![forbid(unsafe_code)]

pub mod access_log;
pub mod config_dump;
pub mod end;
pub mod env;
pub mod logging;
pub mod metrics;
pub mod server;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

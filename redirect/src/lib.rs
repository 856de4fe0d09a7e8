//! Network namespaces, capture rules, original destination and the agent-to-proxy handover (ZDS):
//! what a node proxy and a node agent need from the kernel to serve pods from outside.
//!
//! The crate does **not** proxy: it makes sockets, rules and the conversation between agent and
//! proxy. It knows nothing of Kubernetes, TLS or HTTP, runs no program (`nft`, `iptables` and `ip`
//! are not needed), and works on Linux only.
//!
//! ```text
//!          pod's network namespace                             node
//!  ┌──────────────────────────────────────┐     ┌───────────────────────────────┐
//!  │ app ──► rules ──► :15001 ┄┄┄┄┄┄┄┄┄┄┄┄┼┄┄┄┄►│ proxy: socket::listen, dial,  │
//!  │          ▲   ──► :15006, :15008 ┄┄┄┄┄┼┄┄┄┄►│ original_destination          │
//!  └──────────┼───────────────────────────┘     │   ▲ zds::Client               │
//!             │                                 │   │ add pod + its namespace   │
//!             └── capture::apply ◄──────────────┤   │ zds::Server               │
//!                                               │ agent                         │
//!                                               └───────────────────────────────┘
//! ```
//!
//! A socket belongs for its whole life to the namespace in which it was made. So the proxy enters
//! a pod's namespace for the system call that makes a socket, and serves it from its own threads.
//!
//! Who accepts the connections that a pod opens, and where they wanted to go:
//!
//! ```no_run
//! use meshwright_redirect::capture::{self, PROXY_MARK, Spec};
//! use meshwright_redirect::socket::{Acceptor, ListenConfig, listen, original_destination};
//! use meshwright_redirect::{Events, Netns};
//! use std::sync::Arc;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let pod = Netns::open("/var/run/netns/pod-a")?;
//! let listener = listen(&pod, &ListenConfig::wildcard(15001).mark(PROXY_MARK))?;
//! capture::apply(&pod, &Spec::ambient())?;
//!
//! let events: Arc<dyn Events> = Arc::new(());
//! let mut outbound = Acceptor::new(listener.socket, events);
//! loop {
//!     let (stream, _app) = outbound.accept().await;
//!     match original_destination(&stream)?.beyond(15001) {
//!         Some(destination) => println!("the pod called {destination}"),
//!         None => println!("somebody called the proxy itself"),
//!     }
//! }
//! # }
//! ```
//!
//! # Choosing
//!
//! | you write | use | then |
//! | --- | --- | --- |
//! | a node proxy | [`zds::Client`] | [`socket::listen`], [`socket::dial`], [`socket::original_destination`] |
//! | a node agent | [`zds::Server`] | [`capture::apply`], [`capture::verify`], [`capture::roll_back`], [`capture::begin_removal`] |
//! | a tool that shows the rules | [`capture::plan`] | [`capture::render_nft`], [`capture::dump_nft`] |
//! | a proxy that is replaced without loss | [`socket::ReusePortHandover`] | [`socket::listeners`] |
//! | anything else inside a namespace | [`Netns::run`] | |
//!
//! Presets of rules: [`capture::Spec::ambient`] captures a running pod without cutting its
//! connections; [`capture::Spec::ambient_exact`] is Istio's, rule for rule.
//!
//! # Cost
//!
//! Entering and leaving a namespace takes a few microseconds. Rules, policy rules and routes of a
//! pod take about 0.6 ms together, against 13 ms through `iptables` and 26 ms through `nft`
//! (recorded from Istio's agent). `capture` blocks the thread for that time.
//!
//! # Privileges
//!
//! `CAP_SYS_ADMIN` to enter namespaces, `CAP_NET_ADMIN` in the pod's for rules, marks and borrowed
//! addresses. Both may come from a user namespace that owns the pod's network namespace.
//!
//! # Features
//!
//! None; `full` is there because every crate of the workspace has it.
//!
//! # Specification
//!
//! | what | where | status |
//! | --- | --- | --- |
//! | Istio's in-pod rules, `inet` tables of `nf_tables` | [`capture`] | complete, with DNS, ingress bypass and virtual interfaces |
//! | the same for `iptables` | [`capture::render_iptables`] | text only |
//! | marks `0x539` and `0x111`, table 100, preference 32764 | [`capture`] | complete |
//! | `SO_ORIGINAL_DST`, `IP_TRANSPARENT` | [`socket`] | complete, IPv4 and IPv6 |
//! | ZDS version 1 | [`zds`] | both ends |
//! | the node's own rules for health probes | – | not here |
#![deny(unsafe_code)]

pub mod capture;
mod diag;
mod events;
mod fault;
mod netlink;
mod netns;
mod nft;
mod route;
pub mod socket;
mod sys;
pub mod zds;

pub use events::{AcceptFailed, Events, ZdsDisconnected, ZdsRefused};
pub use fault::Fault;
pub use netns::{EnterError, Netns, NetnsError, NetnsId};

/// The README's code is compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

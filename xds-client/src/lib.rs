//! Delta ADS, both ends, and the Istio workload API with its indexes and routes.
//!
//! With this crate a program follows a control plane (Istio's or any other that speaks delta ADS),
//! knows every workload and service of the mesh at the cost of a look-up, and decides where a
//! connection goes. Or it *is* the control plane, in a test or on a laptop.
//!
//! What it does not do: it opens no connections. TLS, tokens and keepalive belong to the transport
//! it is given (`meshwright-identity` has one for Istio), tunnels to `meshwright-hbone`, and
//! `Authorization` resources to `meshwright-policy`, which takes them as another [`Handler`].
//!
//! ```text
//!  control plane ══ gRPC ══► Client ─► delta::Session ─► Handler::apply ─► ACK / NACK
//!                            (task)    (pure)             │
//!                                                         ├─ workload::Store ─► Snapshot ─► Reader
//!                                                         └─ your policies         │
//!                                        route::outbound / route::inbound ◄────────┘  (pure)
//!
//!  server::Resources ─► server::AdsService ══ gRPC ══► any delta ADS client
//! ```
//!
//! # The smallest mesh
//!
//! The server half is a tower service, and the client takes any tower service: no socket needed.
//!
#![cfg_attr(feature = "server", doc = "```")]
#![cfg_attr(not(feature = "server"), doc = "```text")]
//! use std::sync::Arc;
//! use meshwright_xds_client::{Client, ClientConfig, Node, Store, proto, server};
//!
//! # fn main() { tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run()) }
//! # async fn run() {
//! let pod = proto::workload::Workload {
//!     uid: "cluster//Pod/shop/web".into(),
//!     namespace: "shop".into(),
//!     addresses: vec![vec![10, 0, 0, 7].into()],
//!     ..Default::default()
//! };
//! let address = proto::workload::Address { r#type: Some(proto::workload::address::Type::Workload(pod)) };
//! let resources = server::Resources::new();
//! resources.set(proto::ADDRESS, server::ServedResource::address(&address));
//! let transport = server::AdsService::new(resources).into_server();
//!
//! let (store, reader) = Store::new(None);
//! let node = Node::ztunnel("10.0.0.1", "my-proxy", "shop", "node-a");
//! let client = Client::new(transport, node, ClientConfig::default(), Arc::new(())).subscribe(store);
//! let mut ready = client.ready();
//! let mut tasks = tokio::task::JoinSet::new(); // whoever owns the set owns the client
//! tasks.spawn(client.run());
//!
//! ready.ready().await.expect("the client runs");
//! let snapshot = reader.snapshot();
//! let web = snapshot.workload_by_address("", [10, 0, 0, 7].into()).expect("it is known");
//! assert_eq!(web.identity().as_str(), "spiffe://cluster.local/ns/shop/sa/default");
//! # }
//! ```
//!
//! # Choosing
//!
//! | you want | take |
//! | --- | --- |
//! | to follow a control plane | `Client`, with one [`Handler`] per type |
//! | workloads and services | [`Store`] as the handler, [`Reader`] everywhere else |
//! | only what is asked for | `Client::subscribe_on_demand` |
//! | to feed a store from files | [`Store::insert`](workload::Store::insert) and [`publish`](workload::Store::publish) |
//! | where a connection goes | [`route::outbound`], [`route::inbound`] |
//! | the protocol in your own task | [`delta::Session`] |
//! | a control plane, or a fake one | `server::Resources` and `server::AdsService` |
//!
//! # Features
//!
//! | feature | adds | brings |
//! | --- | --- | --- |
//! | `tonic` (default) | the `client` module | tonic without transport, tokio's timers |
//! | `server` | the `server` module | tonic's router |
//! | `full` | all of them | |
//!
//! Without features: the pure session, the store and routes. No feature brings rustls.
//!
//! # Specifications
//!
//! | what | status |
//! | --- | --- |
//! | Envoy xDS, incremental (delta) ADS | subscribe, unsubscribe (server), ACK, NACK, initial versions, aliases, TTL, removed resources |
//! | Envoy xDS, state of the world | not planned |
//! | Istio `workload.proto` | every field that a proxy uses; `extensions` are ignored |
//! | Istio on-demand resources | by `network/ip`, UID and `namespace/hostname` |
//! | tunnels across networks | not yet: [`route::NoRoute::CrossNetwork`] |
//! | endpoints with only a host name | not yet: [`route::NoRoute::Unresolved`] |
#![forbid(unsafe_code)]

mod chain;
#[cfg(feature = "tonic")]
pub mod client;
pub mod delta;
pub mod handler;
pub mod proto;
pub mod route;
#[cfg(feature = "server")]
pub mod server;
pub mod workload;

#[cfg(feature = "tonic")]
pub use client::{Client, ClientConfig, Node};
pub use handler::{Handler, Rejected, Resource, Update};
pub use workload::{Reader, Snapshot, Store};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

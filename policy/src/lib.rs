//! Decides who may connect to whom, by Istio's authorization policies, and says why.
//!
//! The engine of a node proxy's L4 authorization: it takes the `Authorization` resources of Istio's
//! ambient mode (or the YAML they are made from), compiles them so that ten thousand policies cost
//! well under a microsecond, and judges live connections again when something changes. `decide` and
//! [`explain`](PolicySet::explain) are the same code.
//!
//! It does **not** evaluate HTTP conditions, verify certificates, open sockets, speak xDS, or start
//! tasks. It has no runtime and depends on none; identities come in as verified [`SpiffeId`]s.
//!
//! ```text
//!  control plane                    one writer                       many readers
//!  Authorization ──► PolicyStore ── convert ──► PolicySet ──► PolicyReader ──► decide, explain
//!  (bytes, names)        │          compile     (immutable)        │
//!      ▲                 ▼ what was refused                        ▼
//!  ACK or NACK ◄──── Vec<Rejected>                   Live ── admit ──► Admission ── revoked()
//!                                                      ▲
//!                         judge_again after a change ──┘
//! ```
//!
//! # The smallest working program
//!
//! ```
//! use meshwright_identity::SpiffeId;
//! use meshwright_policy::{Concerned, ConnectionFacts, Live, Mode, PolicyStore, Subject, proto};
//! use prost::Message;
//!
//! let (mut store, policies) = PolicyStore::new(Mode::IstioCompatible);
//! // Which namespace a workload is in and which policies it lists is the program's knowledge.
//! let live = Live::new(policies, |_workload: &str, judge: &mut dyn FnMut(Subject<'_>)| {
//!     judge(Subject::new("shop", &[]));
//! });
//!
//! let caller = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/cart")?;
//! let facts = ConnectionFacts::new(
//!     Some(caller),
//!     "10.0.0.1:40000".parse()?,
//!     "10.0.0.2:8080".parse()?,
//!     "cluster//Pod/shop/web".into(),
//! );
//! let admission = live.admit(facts)?;
//!
//! // A policy arrives that nobody can satisfy. When `apply` returns it is in force.
//! let nobody = proto::Authorization {
//!     name: "nobody".into(),
//!     namespace: "shop".into(),
//!     scope: proto::Scope::Namespace.into(),
//!     ..Default::default()
//! };
//! let rejected = store.apply([("shop/nobody", &*nobody.encode_to_vec())], []);
//! assert!(rejected.is_empty());
//! assert_eq!(live.judge_again(Concerned::All).revoked, 1);
//! let revoked = admission.revocation().expect("the connection was revoked");
//! assert_eq!(
//!     revoked.to_string(),
//!     "connection closed due to policy change: allow policies exist, but none allowed",
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Choosing
//!
//! | type | when |
//! | --- | --- |
//! | [`PolicyStore`], [`PolicyReader`] | policies come and go: one end writes, any thread reads |
//! | [`PolicySet`] | a fixed set, a test, an offline check |
//! | [`Live`], [`Admission`] | connections that must end when a policy says so |
//! | [`Explanation`] | a person asks why |
//! | [`Mode`] | how to read what a policy leaves open |
//! | [`convert`], [`proto`] | one resource, without a store |
//! | `kubernetes` | `AuthorizationPolicy` and `PeerAuthentication` objects instead of resources |
//!
//! # How it fails
//!
//! | what | consequence |
//! | --- | --- |
//! | a resource says something unknown or invalid | named in the NACK; the last good version stays in force; without one a stand-in fails closed for whom it selects |
//! | even its scope cannot be read | its namespace is closed; workloads elsewhere that list it find it unknown |
//! | a workload lists a policy that has not arrived | [`Decision::Unknown`]: new connections are held, then refused; live ones are held, then revoked |
//! | a workload is gone | its connections are revoked |
//! | more policies than [`MAX_POLICIES`] | everything is denied until the process is restarted |
//!
//! # Features
//!
//! | feature | adds |
//! | --- | --- |
//! | none (default) | the engine |
//! | `kubernetes` | objects to resources, as istiod makes them; YAML |
//!
//! # Istio behaviour
//!
//! | behaviour | status |
//! | --- | --- |
//! | DENY before ALLOW; an ALLOW policy that applies refuses what none allows | complete |
//! | truth table of empty rules, clauses and matches | complete, [`Mode`] for the strict reading |
//! | scopes global, namespace, workload selector | complete |
//! | `principals` without scheme, `namespaces`, `service_accounts` in any trust domain, addresses, ports | complete; IPv4-mapped addresses are IPv4 addresses |
//! | dry run | never enforced, shown by `explain` |
//! | unknown fields and values | refused (Istio's proxy ignores them) |
//! | a listed policy that is not known | holds (Istio's proxy lets the connection through) |
//! | a change of a workload's list of policies | live connections are judged again (Istio's proxy keeps them) |
//! | HTTP conditions | not here: without a waypoint Istio strips them |
//!
//! [`SpiffeId`]: meshwright_identity::SpiffeId
#![forbid(unsafe_code)]

mod connection;
mod convert;
mod decision;
mod explain;
mod hash;
mod index;
mod invalid;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
mod layers;
mod live;
mod matching;
mod policy;
pub mod proto;
#[cfg(feature = "_reference")]
#[doc(hidden)]
pub mod reference;
mod set;
mod store;
mod values;
mod wire;

pub use connection::{Connection, Subject};
pub use convert::{MAX_ELEMENTS, MAX_RESOURCE_BYTES, convert};
pub use decision::{Decision, Denied, Reason};
pub use explain::{Applying, Caller, Explanation, FailedCondition, Matched, NearMiss};
pub use invalid::{Flaw, InvalidPolicy, Place};
pub use live::{
    Admission, Concerned, ConnectionFacts, Hold, Judged, Live, Revoked, Subjects, WaitRevoked,
};
pub use policy::{Action, Policy, Scope};
pub use set::{Mode, PolicySet};
pub use store::{MAX_POLICIES, PolicyReader, PolicyStore, Rejected};

/// The README's program, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

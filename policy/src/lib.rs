//! Placeholder.
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

//! Certificates of many identities, kept fresh from one issuer.
//!
//! A [`Rotator`] owns one task; [`Identities`] asks it. What to ask the issuer for, when, and how
//! many at once is decided by a pure state machine (`schedule.rs`); the task around it only makes
//! the requests, checks the answers and tells who waits.
//!
//! | situation | what happens |
//! | --- | --- |
//! | first use | the caller waits, at most 10 s; callers of one identity share one request |
//! | rotation | at 40–60 % of the validity that was left, drawn anew each time; [`Member`](crate::Member)s follow by themselves |
//! | issuer fails | the last good certificate is used until it expires; attempts with growing, jittered rests |
//! | no certificate | callers get the last error at once; their asking keeps the rests below 8 s |
//! | issuer is back | the first success brings everybody back within two seconds |
//! | wall clock jumps | validity is computed anew, at the latest after 30 s |
//!
//! At most 8 requests are under way; connections that wait go before announced workloads, those
//! before rotations.

mod config;
mod events;
mod identities;
mod inbox;
mod issuer;
mod rotator;
mod schedule;
mod unavailable;

pub use config::RotatorConfig;
pub use events::{Events, IssueFailed, SvidIssued};
pub use identities::{Identities, IdentityState, IdentityStatus};
pub use issuer::{IssueError, IssueErrorKind, Issuer};
pub use rotator::Rotator;
pub use unavailable::Unavailable;

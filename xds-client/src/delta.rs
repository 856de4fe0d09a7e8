//! The delta protocol as a state machine without I/O.
//!
//! A [`Session`] outlives its streams: it knows which resources were accepted in which version, so
//! that a new stream resumes where the last one ended. The task around it (feature `tonic`: the
//! [client](crate::client)) moves messages and asks it what to send.
//!
//! ```text
//!  open() ─► first request of each type ─► server
//!  server ─► receive(response) ─► Handler::apply (published) ─► ACK, or NACK naming what is bad
//!  want(name) ─► subscription by name or alias;   tick() ─► overdue types, expired and stale ones
//! ```

mod known;
mod names;
mod reply;
mod response;
mod session;
mod state;
mod version;

pub use response::Response;
pub use session::{Interest, Notice, Received, Session, SessionConfig, Verdict, Want};

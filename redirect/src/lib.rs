//! Network namespaces, capture rules, original destination and the agent-to-proxy handover (ZDS).
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

//! Tunnels over real TLS on loopback, between our own ends and against hostile peers.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::large_futures,
    clippy::future_not_send,
    reason = "tests"
)]

mod client;
mod ends;
mod hostile;
mod mesh;
mod pool;
mod serving;
mod trust;

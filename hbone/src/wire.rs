//! HTTP/2, and the only place that knows the `h2` crate.
//!
//! The rest of the crate sees streams that carry chunks and end with `END_STREAM` or [`Reset`],
//! and two drivers that must be polled: [`client::Driver`] and [`server::Driver`]. Everything
//! that `h2` does not bound is bounded here: frames per second ([`frames`]), bytes queued per
//! connection ([`credit`]), and writes per wake-up ([`io`]).

pub(crate) mod client;
pub(crate) mod credit;
pub(crate) mod frames;
pub(crate) mod io;
pub(crate) mod server;
pub(crate) mod stream;
pub(crate) mod windows;

#[cfg(test)]
mod tests;

use crate::error::Reset;
use std::{io as stdio, sync::Arc, time::Duration};

/// Sizes and limits of one HTTP/2 connection, the same for both roles.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Streams a peer may open (announced by the server, assumed by the client).
    pub(crate) max_streams: u32,
    /// Largest frame we take.
    pub(crate) max_frame: u32,
    /// Largest header list we take.
    pub(crate) max_header_list: u32,
    /// Bytes queued for one stream before its sender waits.
    pub(crate) send_buffer: usize,
    /// Bytes queued for all streams of the connection before their senders wait.
    pub(crate) connection_send_buffer: usize,
    /// What the peer may send ahead.
    pub(crate) windows: windows::Windows,
    /// Frames per second.
    pub(crate) budgets: frames::Budgets,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_streams: 100,
            max_frame: 64 * 1024,
            max_header_list: 16 * 1024,
            send_buffer: 256 * 1024,
            connection_send_buffer: 4 * 1024 * 1024,
            windows: windows::Windows::default(),
            budgets: frames::Budgets::default(),
        }
    }
}

/// RFC 9113 §8.5: a failed TCP connection is signalled as a stream error of this type.
pub(crate) const CONNECT_ERROR: h2::Reason = h2::Reason::CONNECT_ERROR;

/// Streams reset by the peer that wait to be looked at; more end the connection.
const PENDING_ACCEPT_RESETS: usize = 20;
/// Streams that the peer made us reset; more end the connection.
const LOCAL_ERROR_RESETS: usize = 64;

/// Streams that we reset and how long they are remembered: DATA that was on its way is no error of
/// the peer then. As many as may be reset in that time by applications that do it a lot.
const REMEMBERED_RESETS: usize = 1024;
const RESETS_REMEMBERED_FOR: Duration = Duration::from_secs(10);

/// Says how a stream ended from what `h2` reports.
fn reset_of(error: &h2::Error) -> Reset {
    match error.reason() {
        Some(reason) if error.is_reset() && error.is_remote() => Reset::Stream(reason.into()),
        Some(_) if error.is_reset() => Reset::Local,
        _ => Reset::ConnectionLost,
    }
}

/// Whether the peer said that it has not looked at the stream (RFC 9113 §8.7).
fn is_unprocessed(error: &h2::Error) -> bool {
    let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    // `h2` fails those streams only with GOAWAY that are above the peer's last one.
    error.is_remote() && (refused || error.is_go_away())
}

fn io_error(error: h2::Error) -> stdio::Error {
    if error.is_io() {
        return error
            .into_io()
            .unwrap_or_else(|| stdio::Error::from(stdio::ErrorKind::BrokenPipe));
    }
    stdio::Error::new(stdio::ErrorKind::InvalidData, error)
}

fn shared_io_error(error: h2::Error) -> Arc<stdio::Error> {
    Arc::new(io_error(error))
}

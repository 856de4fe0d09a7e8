//! How much a peer may send ahead.

/// Receive windows of a connection.
///
/// The connection window must cover what all streams together may hold unread: otherwise streams
/// whose readers are stalled use it up, and every other stream of the connection starves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windows {
    /// Bytes one stream may hold unread.
    pub(crate) stream: u32,
    /// Bytes the connection may hold unread, and so the memory one peer connection can pin.
    pub(crate) connection: u32,
}

/// Smallest window of a connection: it starts with as much (RFC 9113 §6.9.2).
const MIN: u32 = 65_535;
/// Largest window (RFC 9113 §6.9.1).
const MAX: u32 = (1 << 31) - 1;

impl Windows {
    /// Makes windows that HTTP/2 can express.
    pub(crate) fn new(stream: u32, connection: u32) -> Self {
        Self {
            stream: stream.clamp(1, MAX),
            connection: connection.clamp(MIN, MAX),
        }
    }
}

impl Default for Windows {
    fn default() -> Self {
        Self {
            stream: 256 * 1024,
            connection: 32 * 1024 * 1024,
        }
    }
}

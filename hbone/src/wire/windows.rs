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

impl Default for Windows {
    fn default() -> Self {
        Self {
            stream: 256 * 1024,
            connection: 32 * 1024 * 1024,
        }
    }
}

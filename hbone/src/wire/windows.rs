//! How much a peer may send ahead.
//!
//! The connection's window must cover what all its streams together may hold unread: otherwise
//! streams whose readers are stalled use it up, and every other stream of the connection starves.
//! With room for 100 stalled streams, a single one would be slow over a path with a delay. So a
//! connection with few streams gives each of them a larger window, and takes it back before there
//! are many.

/// Smallest window of a connection: it starts with as much (RFC 9113 §6.9.2).
const MIN: u32 = 65_535;
/// Largest window (RFC 9113 §6.9).
const MAX: u32 = (1 << 31) - 1;

const KIB: u32 = 1024;
const MIB: u32 = 1024 * KIB;

/// Bytes that must have been received before the window of few streams is raised, the first time
/// and again.
const FIRST_RAISE: u64 = 256 * 1024;
const NEXT_RAISE: u64 = 64 * 1024 * 1024;

/// Receive windows of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windows {
    /// Bytes one stream may hold unread, among many.
    pub(crate) stream: u32,
    /// Bytes the connection may hold unread, and so the memory one peer connection can pin.
    pub(crate) connection: u32,
    /// Bytes one stream may hold unread, among few.
    few_stream: u32,
    /// How many streams are few.
    few: usize,
}

impl Windows {
    /// Makes windows that HTTP/2 can express and that never change.
    pub(crate) fn fixed(stream: u32, connection: u32) -> Self {
        let stream = stream.clamp(1, MAX);
        Self {
            stream,
            connection: connection.clamp(MIN, MAX),
            few_stream: stream,
            few: 0,
        }
    }

    /// Bytes of bookkeeping for small frames that wait to be read, before the peer is cut off.
    ///
    /// `h2` counts 256 bytes less its payload for each of them. One stream whose reader is stalled
    /// and whose writer sends single bytes must fit, or an honest application could end the
    /// connection for all others.
    pub(crate) fn small_frames(&self) -> usize {
        let connection = usize::try_from(self.connection).unwrap_or(usize::MAX);
        connection.saturating_add(connection / 2)
    }
}

impl Default for Windows {
    /// 16 streams of 1 MiB and 84 of 188 KiB hold 31.4 MiB, less than the connection's window.
    fn default() -> Self {
        Self {
            stream: 188 * KIB,
            connection: 32 * MIB,
            few_stream: MIB,
            few: 16,
        }
    }
}

/// Decides when the window of streams changes; without a clock.
#[derive(Debug)]
pub(crate) struct Tuner {
    windows: Windows,
    raised: bool,
    /// Bytes received when the window may be raised.
    raise_at: u64,
}

impl Tuner {
    pub(crate) fn new(windows: Windows) -> Self {
        Self {
            windows,
            raised: false,
            raise_at: FIRST_RAISE,
        }
    }

    /// The window that streams should have now, if it is another one than before.
    ///
    /// It is raised for few streams once they carry bulk, and lowered at once when there are more.
    /// Raised again only after much more data, so that it does not flap.
    ///
    /// `received` counts bytes in frames that are worth it, see `Seen::bulk`.
    pub(crate) fn wanted(&self, streams: usize, received: u64) -> Option<u32> {
        let few = (1..=self.windows.few).contains(&streams);
        match (self.raised, few) {
            (true, false) if streams > 0 => Some(self.windows.stream),
            (false, true) if received >= self.raise_at => Some(self.windows.few_stream),
            _ => None,
        }
    }

    /// The window was changed as [`wanted`](Self::wanted) said.
    pub(crate) fn changed(&mut self, received: u64) {
        self.raised = !self.raised;
        self.raise_at = received.saturating_add(NEXT_RAISE);
    }
}

#[cfg(test)]
mod tests {
    use super::{FIRST_RAISE, MIB, NEXT_RAISE, Tuner, Windows};
    use meshwright_testkit::trace;

    fn tuner() -> Tuner {
        Tuner::new(Windows::default())
    }

    #[test]
    fn stalled_streams_never_use_up_the_connections_window() {
        let _trace = trace();
        let windows = Windows::default();
        let few = windows.few as u64 * u64::from(windows.few_stream);
        let many = (100 - windows.few as u64) * u64::from(windows.stream);
        assert!(few + many <= u64::from(windows.connection));
    }

    #[test]
    fn stalled_stream_full_of_single_bytes_is_within_the_budget_for_small_frames() {
        let _trace = trace();
        let windows = Windows::default();
        let bytes = usize::try_from(windows.stream).unwrap();
        assert!(bytes * 255 <= windows.small_frames());
    }

    #[test]
    fn few_streams_get_more_once_they_carry_bulk() {
        let _trace = trace();
        let mut tuner = tuner();
        assert_eq!(tuner.wanted(1, FIRST_RAISE - 1), None);
        assert_eq!(tuner.wanted(17, FIRST_RAISE), None);
        assert_eq!(tuner.wanted(1, FIRST_RAISE), Some(MIB));
        tuner.changed(FIRST_RAISE);
        assert_eq!(tuner.wanted(16, FIRST_RAISE), None);
    }

    #[test]
    fn many_streams_lower_it_at_once_and_it_does_not_flap() {
        let _trace = trace();
        let mut tuner = tuner();
        tuner.changed(0);
        assert_eq!(tuner.wanted(17, 0), Some(Windows::default().stream));
        tuner.changed(0);
        assert_eq!(tuner.wanted(1, NEXT_RAISE - 1), None);
        assert_eq!(tuner.wanted(1, NEXT_RAISE), Some(MIB));
    }

    #[test]
    fn fixed_windows_stay() {
        let _trace = trace();
        let windows = Windows::fixed(u32::MAX, 0);
        // RFC 9113 §6.9: at most 2^31-1; the connection cannot start with less than 65 535.
        assert_eq!(
            (windows.stream, windows.connection),
            (super::MAX, super::MIN)
        );
        let tuner = Tuner::new(windows);
        assert_eq!(tuner.wanted(1, u64::MAX), None);
        assert_eq!(tuner.wanted(99, u64::MAX), None);
    }
}

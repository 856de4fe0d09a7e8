//! Watches the frames that a peer sends, by their headers only.
//!
//! `h2` bounds what it has to remember. It does not bound frames that cost time and leave nothing
//! behind: SETTINGS, PING, PRIORITY, frames of unknown types, empty DATA, and resets of streams
//! that were accepted (the "rapid reset" attack). They are counted here, before `h2` sees them.

use crate::events::Limit;
use std::time::Duration;

const HEADER_LEN: usize = 9;

/// Smallest DATA frame that counts as bulk.
const BULK_FRAME: u32 = 1024;
/// Smaller DATA frames that are read in one turn, before those who wait for them get theirs.
const SMALL_FRAMES: u32 = 1024;

// RFC 9113 §6.
const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const GOAWAY: u8 = 0x7;
const WINDOW_UPDATE: u8 = 0x8;
const CONTINUATION: u8 = 0x9;
const FLAG_ACK: u8 = 0x1;
const FLAG_END_STREAM: u8 = 0x1;

/// Frames per second and at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budgets {
    pub(crate) resets: Rate,
    pub(crate) control: Rate,
    pub(crate) empty_data: Rate,
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            resets: Rate {
                per_second: 200,
                burst: 200,
            },
            control: Rate {
                per_second: 100,
                burst: 1000,
            },
            empty_data: Rate {
                per_second: 100,
                burst: 1000,
            },
        }
    }
}

/// A sustained rate and how far it may be exceeded at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub(crate) per_second: u32,
    pub(crate) burst: u32,
}

/// Counts in whole tokens; one token is a frame.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    rate: Rate,
    tokens: u32,
    /// When `tokens` was right.
    at: Duration,
}

impl Bucket {
    fn new(rate: Rate) -> Self {
        Self {
            rate,
            tokens: rate.burst,
            at: Duration::ZERO,
        }
    }

    /// Gives one token more.
    fn earn(&mut self) {
        self.tokens = self.rate.burst.min(self.tokens.saturating_add(1));
    }

    /// Takes one token; the clock is asked only when they have run out.
    fn take(&mut self, now: impl FnOnce() -> Duration) -> bool {
        if self.tokens == 0 {
            let now = now();
            let passed = now.saturating_sub(self.at).as_micros();
            let earned = passed.saturating_mul(self.rate.per_second.into()) / 1_000_000;
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            if earned == 0 {
                return false;
            }
            self.tokens = earned.min(self.rate.burst);
            self.at = now;
        }
        self.tokens -= 1;
        true
    }
}

/// What was seen so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Seen {
    /// A SETTINGS frame that is not an acknowledgement is complete.
    pub(crate) settings: bool,
    /// Our SETTINGS were acknowledged.
    pub(crate) settings_ack: bool,
    /// The peer wants no new streams.
    pub(crate) goaway: bool,
    /// Bytes in DATA frames of 1 KiB or more.
    pub(crate) bulk: u64,
    /// The peer overran a budget; nothing more should be read.
    pub(crate) flood: Option<Limit>,
}

/// Follows the frame borders in a byte stream.
#[derive(Debug)]
pub(crate) struct FrameWatch {
    /// HEADERS are answers, not requests: the peer is a server.
    answers: bool,
    /// Bytes before the first frame: the client's preface.
    skip: u64,
    header: [u8; HEADER_LEN],
    have: usize,
    /// DATA frames smaller than [`BULK_FRAME`] in this turn.
    small: u32,
    seen: Seen,
    resets: Bucket,
    control: Bucket,
    empty_data: Bucket,
}

impl FrameWatch {
    /// Makes a watch of a stream whose first `preface` bytes are no frames; without a preface, it is
    /// a server's.
    pub(crate) fn new(preface: usize, budgets: Budgets) -> Self {
        Self {
            answers: preface == 0,
            skip: preface as u64,
            header: [0; HEADER_LEN],
            have: 0,
            small: 0,
            seen: Seen::default(),
            resets: Bucket::new(budgets.resets),
            control: Bucket::new(budgets.control),
            empty_data: Bucket::new(budgets.empty_data),
        }
    }

    pub(crate) fn seen(&self) -> Seen {
        self.seen
    }

    /// A request of the peer was answered: it may end its stream in any way it likes. Only
    /// resets of what was not answered are the "rapid reset" attack.
    pub(crate) fn answered(&mut self) {
        self.resets.earn();
    }

    /// Begins a turn of reading.
    pub(crate) fn begin_turn(&mut self) {
        self.small = 0;
    }

    /// Whether so many small frames were read that their streams should be looked at first: `h2`
    /// keeps some 160 bytes for each, and never gives that memory back.
    pub(crate) fn turn_is_over(&self) -> bool {
        self.small >= SMALL_FRAMES
    }

    /// Looks at the next bytes; `now` is the time since the connection started.
    pub(crate) fn observe(&mut self, mut bytes: &[u8], now: impl Fn() -> Duration) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let len = bytes.len() as u64;
                let skipped = self.skip.min(len);
                self.skip -= skipped;
                bytes = bytes
                    .get(usize::try_from(skipped).unwrap_or(usize::MAX)..)
                    .unwrap_or_default();
                continue;
            }
            let wanted = HEADER_LEN - self.have;
            let (part, rest) = bytes.split_at(wanted.min(bytes.len()));
            if let Some(room) = self.header.get_mut(self.have..self.have + part.len()) {
                room.copy_from_slice(part);
            }
            self.have += part.len();
            bytes = rest;
            if self.have == HEADER_LEN {
                self.have = 0;
                self.frame(&now);
            }
        }
    }

    /// A frame header is complete. RFC 9113 §4.1: length (24), type (8), flags (8), stream.
    fn frame(&mut self, now: &impl Fn() -> Duration) {
        let [l0, l1, l2, kind, flags, ..] = self.header;
        let len = u32::from_be_bytes([0, l0, l1, l2]);
        self.skip = u64::from(len);
        let within = match kind {
            DATA if len == 0 && flags & FLAG_END_STREAM == 0 => self.empty_data.take(now),
            DATA => {
                if len >= BULK_FRAME {
                    self.seen.bulk += u64::from(len);
                } else {
                    self.small = self.small.saturating_add(1);
                }
                true
            }
            WINDOW_UPDATE | CONTINUATION => true,
            HEADERS => {
                // A server resets each stream that it refuses after its answer. The client asked
                // for the answer, so this is no flood.
                if self.answers {
                    self.resets.earn();
                }
                true
            }
            RST_STREAM => self.resets.take(now),
            GOAWAY => {
                self.seen.goaway = true;
                self.control.take(now)
            }
            SETTINGS if flags & FLAG_ACK != 0 => {
                self.seen.settings_ack = true;
                self.control.take(now)
            }
            SETTINGS => {
                self.seen.settings = true;
                self.control.take(now)
            }
            _ => self.control.take(now),
        };
        if !within && self.seen.flood.is_none() {
            self.seen.flood = Some(match kind {
                DATA => Limit::EmptyData,
                RST_STREAM => Limit::StreamResets,
                _ => Limit::ControlFrames,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Budgets, FrameWatch, Rate};
    use crate::events::Limit;
    use meshwright_testkit::trace;
    use proptest::prelude::*;
    use std::time::Duration;

    /// RFC 9113 §4.1: a header of nine bytes, then the payload.
    fn frame(kind: u8, flags: u8, len: usize) -> Vec<u8> {
        let mut frame = (len as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags, 0, 0, 0, 1]);
        frame.resize(9 + len, 0xff);
        frame
    }

    fn watch() -> FrameWatch {
        let rate = Rate {
            per_second: 10,
            burst: 5,
        };
        FrameWatch::new(
            0,
            Budgets {
                resets: rate,
                control: rate,
                empty_data: rate,
            },
        )
    }

    fn feed(watch: &mut FrameWatch, frames: usize, kind: u8, len: usize, at: u64) {
        for _ in 0..frames {
            watch.observe(&frame(kind, 0, len), || Duration::from_millis(at));
        }
    }

    #[test]
    fn settings_and_their_acknowledgement_are_told_apart() {
        let _trace = trace();
        // RFC 9113 §6: type 4 is SETTINGS, its flag 1 the acknowledgement.
        let mut watch = watch();
        watch.observe(&frame(4, 1, 0), || Duration::ZERO);
        assert!(watch.seen().settings_ack && !watch.seen().settings);
        watch.observe(&frame(4, 0, 6), || Duration::ZERO);
        assert!(watch.seen().settings);
    }

    #[test]
    fn each_flood_is_named() {
        let _trace = trace();
        for (kind, len, limit) in [
            (0, 0, Limit::EmptyData),
            (3, 4, Limit::StreamResets),
            (2, 5, Limit::ControlFrames),
            (4, 6, Limit::ControlFrames),
            (6, 8, Limit::ControlFrames),
            (0xbe, 3, Limit::ControlFrames),
        ] {
            let mut watch = watch();
            feed(&mut watch, 5, kind, len, 0);
            assert_eq!(watch.seen().flood, None, "the burst is allowed");
            feed(&mut watch, 1, kind, len, 0);
            assert_eq!(watch.seen().flood, Some(limit));
        }
    }

    #[test]
    fn each_answer_allows_the_reset_that_follows_it_and_no_request_does() {
        let _trace = trace();
        let rounds = |preface: usize| {
            let mut watch = FrameWatch::new(preface, Budgets::default());
            watch.observe(&vec![0; preface], || Duration::ZERO);
            for _ in 0..1000 {
                feed(&mut watch, 1, 1, 9, 0);
                feed(&mut watch, 1, 3, 4, 0);
            }
            watch
        };
        let mut server = rounds(0);
        assert_eq!(server.seen().flood, None);
        feed(&mut server, 201, 3, 4, 0);
        assert_eq!(server.seen().flood, Some(Limit::StreamResets));
        assert_eq!(rounds(24).seen().flood, Some(Limit::StreamResets));
    }

    #[test]
    fn reset_of_what_was_answered_is_no_attack() {
        let _trace = trace();
        let mut watch = watch();
        for _ in 0..1000 {
            watch.answered();
            feed(&mut watch, 1, 3, 4, 0);
        }
        assert_eq!(watch.seen().flood, None);
        feed(&mut watch, 6, 3, 4, 0);
        assert_eq!(watch.seen().flood, Some(Limit::StreamResets));
    }

    #[test]
    fn turn_ends_after_many_small_frames_and_never_for_bulk() {
        let _trace = trace();
        let mut watch = watch();
        feed(&mut watch, 10_000, 0, 1024, 0);
        feed(&mut watch, 1023, 0, 1, 0);
        assert!(!watch.turn_is_over());
        feed(&mut watch, 1, 0, 1, 0);
        assert!(watch.turn_is_over());
        watch.begin_turn();
        assert!(!watch.turn_is_over());
    }

    #[test]
    fn sustained_rate_is_allowed_for_ever() {
        let _trace = trace();
        let mut watch = watch();
        for second in 0..100 {
            for part in 0..10 {
                feed(&mut watch, 1, 6, 8, second * 1000 + part * 100);
            }
        }
        assert_eq!(watch.seen().flood, None);
    }

    #[test]
    fn data_headers_and_window_updates_are_never_a_flood() {
        let _trace = trace();
        let mut watch = watch();
        for (kind, len) in [(0, 1), (1, 50), (8, 4), (9, 10)] {
            feed(&mut watch, 10_000, kind, len, 0);
        }
        watch.observe(&frame(0, 1, 0), || Duration::ZERO);
        assert_eq!(watch.seen().flood, None);
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(
            frames in prop::collection::vec((0_u8..12, 0_u8..2, 0_usize..40), 0..60),
            cuts in prop::collection::vec(1_usize..30, 1..50),
        ) {
            let mut bytes = b"preface".to_vec();
            for (kind, flags, len) in frames {
                bytes.extend(frame(kind, flags, len));
            }
            let rate = Rate { per_second: 1, burst: 9 };
            let budgets = Budgets { resets: rate, control: rate, empty_data: rate };
            let mut whole = FrameWatch::new(7, budgets);
            whole.observe(&bytes, || Duration::ZERO);
            let mut parts = FrameWatch::new(7, budgets);
            let mut rest = bytes.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (part, tail) = rest.split_at((*cut).min(rest.len()));
                parts.observe(part, || Duration::ZERO);
                rest = tail;
            }
            prop_assert_eq!(parts.seen(), whole.seen());
        }
    }
}

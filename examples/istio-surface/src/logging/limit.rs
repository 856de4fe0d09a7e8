//! At most so many lines a second for one reason.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Lines of one reason that pass in one second.
const PER_SECOND: u32 = 100;

/// Lets 100 lines a second pass for each of `N` reasons and counts the rest.
///
/// One peer that fails a hundred thousand times a second must not fill a disk or keep the log
/// thread from other lines. No lock: one atomic word for each reason.
#[derive(Debug)]
pub struct LineLimit<const N: usize> {
    start: Instant,
    /// Second since the start in the upper half, lines seen in that second in the lower.
    seconds: [AtomicU64; N],
    suppressed: [AtomicU64; N],
    reported: [AtomicU64; N],
}

/// Whether a line may be written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Admitted {
    /// No: counted only.
    Drop,
    /// Yes.
    Write {
        /// Lines of this reason that were dropped since this was last said; say it if not zero.
        dropped_before: u64,
    },
}

impl<const N: usize> LineLimit<N> {
    /// Starts counting at `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            start: now,
            seconds: [const { AtomicU64::new(0) }; N],
            suppressed: [const { AtomicU64::new(0) }; N],
            reported: [const { AtomicU64::new(0) }; N],
        }
    }

    /// Asks for one line of reason number `reason`; a number beyond the last is never limited.
    pub fn admit(&self, reason: usize, now: Instant) -> Admitted {
        let (Some(word), Some(suppressed)) =
            (self.seconds.get(reason), self.suppressed.get(reason))
        else {
            return Admitted::Write { dropped_before: 0 };
        };
        let second = now.saturating_duration_since(self.start).as_secs() & 0xffff_ffff;
        let count = |old: u64| {
            let lines = if old >> 32 == second {
                old & 0xffff_ffff
            } else {
                0
            };
            let lines = (lines + 1).min(u64::from(u32::MAX));
            (second << 32) | lines
        };
        let mut old = word.load(Ordering::Relaxed);
        let new = loop {
            let new = count(old);
            match word.compare_exchange_weak(old, new, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => break new,
                Err(current) => old = current,
            }
        };
        if new & 0xffff_ffff > u64::from(PER_SECOND) {
            suppressed.fetch_add(1, Ordering::Relaxed);
            return Admitted::Drop;
        }
        Admitted::Write {
            dropped_before: self.unreported(reason),
        }
    }

    /// Lines of reason number `reason` that were dropped since this was last said.
    fn unreported(&self, reason: usize) -> u64 {
        let (Some(total), Some(said)) = (self.suppressed.get(reason), self.reported.get(reason))
        else {
            return 0;
        };
        let total = total.load(Ordering::Relaxed);
        total.saturating_sub(said.swap(total, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::{Admitted, LineLimit};
    use std::time::{Duration, Instant};

    #[test]
    fn storm_of_one_reason_is_cut_and_its_size_is_told_afterwards() {
        let _trace = meshwright_testkit::trace();
        let start = Instant::now();
        let limit = LineLimit::<2>::new(start);
        let written = (0..100_000)
            .filter(|_| limit.admit(0, start) != Admitted::Drop)
            .count();
        assert_eq!(written, 100);
        assert_eq!(
            limit.admit(1, start),
            Admitted::Write { dropped_before: 0 },
            "another reason is not limited by this one"
        );
        assert_eq!(
            limit.admit(0, start + Duration::from_secs(1)),
            Admitted::Write {
                dropped_before: 99_900
            }
        );
        assert_eq!(
            limit.admit(0, start + Duration::from_secs(1)),
            Admitted::Write { dropped_before: 0 },
            "told once"
        );
    }
}

//! How long to wait before the next attempt.

use std::time::Duration;

use rand::Rng;

/// Delays with full jitter.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    limit: Duration,
}

impl Backoff {
    pub(super) const fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            limit: first,
        }
    }

    /// The delay after a stream: anything up to a limit that doubles each time.
    ///
    /// A stream that was of use and lived longer than the limit starts over; one that is of use
    /// but ends at once, again and again, does not.
    pub(super) fn after(
        &mut self,
        was_useful: bool,
        lived: Duration,
        rng: &mut impl Rng,
    ) -> Duration {
        if was_useful && lived > self.limit {
            self.limit = self.first;
        }
        let delay = self.limit.mul_f64(rng.random());
        self.limit = (self.limit * 2).min(self.longest);
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::Backoff;
    use rand::{SeedableRng, rngs::SmallRng};
    use std::time::Duration;

    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(15);

    /// How many attempts end within `span`, each living for `lived`.
    fn attempts(span: Duration, was_useful: bool, lived: Duration, seed: u64) -> usize {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut backoff = Backoff::new(FIRST, LONGEST);
        let (mut at, mut count) = (Duration::ZERO, 1);
        loop {
            at += lived + backoff.after(was_useful, lived, &mut rng);
            if at > span {
                return count;
            }
            count += 1;
        }
    }

    #[test]
    fn server_that_ends_every_stream_at_once_sees_few_attempts() {
        let _trace = meshwright_testkit::trace();
        for was_useful in [false, true] {
            let runs = 200;
            let of_run = |seed| {
                attempts(
                    Duration::from_secs(3),
                    was_useful,
                    Duration::from_millis(1),
                    seed,
                )
            };
            let total: usize = (0..runs).map(of_run).sum();
            assert!(total / 200 <= 7, "{total} attempts in 200 runs of 3 s");
            assert!((0..runs).map(of_run).max().unwrap_or(0) <= 16);
        }
    }

    #[test]
    fn delay_never_exceeds_the_longest() {
        let _trace = meshwright_testkit::trace();
        let mut rng = SmallRng::seed_from_u64(1);
        let mut backoff = Backoff::new(FIRST, LONGEST);
        for _ in 0..1000 {
            assert!(backoff.after(false, Duration::ZERO, &mut rng) <= LONGEST);
        }
    }

    #[test]
    fn useful_stream_that_lived_starts_over_and_a_useless_one_does_not() {
        let _trace = meshwright_testkit::trace();
        let mut rng = SmallRng::seed_from_u64(1);
        let mut backoff = Backoff::new(FIRST, LONGEST);
        for _ in 0..20 {
            backoff.after(false, Duration::from_secs(60), &mut rng);
        }
        assert_eq!(backoff.limit, LONGEST);
        assert!(backoff.after(true, Duration::from_secs(60), &mut rng) <= FIRST);
    }
}

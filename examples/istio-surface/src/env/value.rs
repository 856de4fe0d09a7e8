//! The grammars of single values. Pure.

use std::num::NonZeroUsize;
use std::time::Duration;

/// Longest time that any setting may ask for: what is longer is a typing error, and would overflow
/// a deadline computed from it.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Characters of a value that are repeated in a message.
const SHOWN: usize = 120;

/// A Kubernetes CPU quantity (`2`, `1.5`, `500m`), in thousandths of a CPU.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CpuQuantity {
    milli: u64,
}

/// How many threads to use (`ZTUNNEL_WORKER_THREADS`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum WorkerThreads {
    /// As many as there are CPUs (`0`).
    All,
    /// Exactly so many.
    Count(NonZeroUsize),
    /// A share of the CPUs in percent, rounded up.
    Percent(u32),
}

impl CpuQuantity {
    /// Reads a quantity; `None` if it is none, is negative, or is beyond a million CPUs.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let milli = match text.strip_suffix('m') {
            Some(number) => digits(number)?,
            None => {
                let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
                if text.ends_with('.') {
                    return None;
                }
                digits(whole)?.checked_mul(1000)? + thousandths(fraction)?
            }
        };
        (milli <= 1_000_000_000).then_some(Self { milli })
    }

    /// The number of whole CPUs, rounded up.
    #[must_use]
    pub fn cpus(self) -> usize {
        usize::try_from(self.milli.div_ceil(1000)).unwrap_or(usize::MAX)
    }
}

impl WorkerThreads {
    /// Reads `4`, `50%` or `0`; `None` if it is none of these or beyond 4096.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(percent) = text.strip_suffix('%') {
            let percent = u32::try_from(digits(percent)?).ok()?;
            return (1..=1000)
                .contains(&percent)
                .then_some(Self::Percent(percent));
        }
        let count = usize::try_from(digits(text)?).ok()?;
        if count > 4096 {
            return None;
        }
        Some(NonZeroUsize::new(count).map_or(Self::All, Self::Count))
    }

    /// The number of threads on a machine with `cpus`, at least one.
    #[must_use]
    pub fn on(self, cpus: NonZeroUsize) -> NonZeroUsize {
        match self {
            Self::All => cpus,
            Self::Count(count) => count,
            Self::Percent(percent) => {
                let share = cpus
                    .get()
                    .saturating_mul(usize::try_from(percent).unwrap_or(100));
                NonZeroUsize::new(share.div_ceil(100)).unwrap_or(NonZeroUsize::MIN)
            }
        }
    }
}

/// Reads a length of time: numbers with units (`1h30m`, `500ms`, `5 min`), a bare number is seconds.
///
/// `None` if it is none, or longer than ten years.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (number, after) = split_where(rest, |c| !c.is_ascii_digit());
        let (unit, after) = split_where(after.trim_start(), |c| !c.is_alphabetic());
        let count = digits(number)?;
        total =
            total.checked_add(nanoseconds_of(unit)?.checked_mul(u32::try_from(count).ok()?)?)?;
        if total > LONGEST {
            return None;
        }
        let after = after.trim_start();
        rest = after.strip_prefix('+').map_or(after, str::trim_start);
        if rest.is_empty() && after.starts_with('+') {
            return None;
        }
    }
    Some(total)
}

fn nanoseconds_of(unit: &str) -> Option<Duration> {
    let seconds = |s| Some(Duration::from_secs(s));
    match unit {
        "y" | "year" | "years" => seconds(365 * 24 * 3600),
        "mon" | "month" | "months" => seconds(30 * 24 * 3600),
        "w" | "week" | "weeks" => seconds(7 * 24 * 3600),
        "d" | "day" | "days" => seconds(24 * 3600),
        "h" | "hr" | "hour" | "hours" => seconds(3600),
        "m" | "min" | "minute" | "minutes" => seconds(60),
        "" | "s" | "sec" | "second" | "seconds" => seconds(1),
        "ms" | "msec" | "millisecond" | "milliseconds" => Some(Duration::from_millis(1)),
        "us" | "µs" | "usec" | "microsecond" | "microseconds" => Some(Duration::from_micros(1)),
        "ns" | "nsec" | "nanosecond" | "nanoseconds" => Some(Duration::from_nanos(1)),
        _ => None,
    }
}

/// Shortens a value for a message and escapes its control characters.
pub(super) fn shorten(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(SHOWN)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// Reads a number of ASCII digits only: no sign, no space.
pub(super) fn digits(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

fn thousandths(fraction: &str) -> Option<u64> {
    if fraction.is_empty() {
        return Some(0);
    }
    let value = digits(fraction)?;
    let places = u32::try_from(fraction.len()).ok()?;
    match places {
        1..=3 => Some(value * 10_u64.pow(3 - places)),
        4..=12 => Some(value.div_ceil(10_u64.pow(places - 3))),
        _ => None,
    }
}

fn split_where(text: &str, end: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(end).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::{CpuQuantity, WorkerThreads, parse_duration};
    use std::num::NonZeroUsize;
    use std::time::Duration;

    #[test]
    fn duration_takes_units_sums_and_bare_seconds() {
        let _trace = meshwright_testkit::trace();
        for (text, millis) in [
            ("90", 90_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("24h0m0s", 86_400_000),
            ("500ms", 500),
            ("1h 30 min", 5_400_000),
            ("1m + 30", 90_000),
            (" 2s ", 2_000),
            ("0", 0),
        ] {
            assert_eq!(
                parse_duration(text),
                Some(Duration::from_millis(millis)),
                "{text:?}"
            );
        }
    }

    #[test]
    fn duration_that_is_malformed_or_absurd_is_refused() {
        let _trace = meshwright_testkit::trace();
        for text in [
            "",
            " ",
            "-5s",
            "5x",
            "m",
            "5m+",
            "1.5.5h",
            "99999999999999999999",
            "18446744073709551615",
            "11y",
            "5m\n;",
        ] {
            assert_eq!(parse_duration(text), None, "{text:?}");
        }
    }

    #[test]
    fn cpu_quantity_rounds_up_to_whole_cpus() {
        let _trace = meshwright_testkit::trace();
        for (text, cpus) in [
            ("2", Some(2)),
            ("1.5", Some(2)),
            ("500m", Some(1)),
            ("2001m", Some(3)),
            ("0", Some(0)),
            ("0.0001", Some(1)),
            ("1.", None),
            (".5", None),
            ("-1", None),
            ("2Gi", None),
            ("", None),
            ("m", None),
            ("99999999999999999", None),
        ] {
            assert_eq!(
                CpuQuantity::parse(text).map(CpuQuantity::cpus),
                cpus,
                "{text:?}"
            );
        }
    }

    #[test]
    fn worker_threads_are_a_number_a_share_or_all() {
        let _trace = meshwright_testkit::trace();
        let on = |text, cpus| {
            WorkerThreads::parse(text).map(|t| t.on(NonZeroUsize::new(cpus).unwrap()).get())
        };
        assert_eq!(on("4", 2), Some(4));
        assert_eq!(on("0", 6), Some(6));
        assert_eq!(on("50%", 7), Some(4), "a share is rounded up");
        assert_eq!(on("1%", 2), Some(1), "at least one");
        for text in ["", "-1", "%", "0%", "x", "5000", "1.5"] {
            assert_eq!(on(text, 2), None, "{text:?}");
        }
    }
}

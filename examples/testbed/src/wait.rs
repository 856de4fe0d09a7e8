//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

use crate::WorldError;

/// Pause between two looks at a condition.
const LOOK: Duration = Duration::from_millis(5);

/// Looks at a condition until it yields a value or the deadline has passed.
///
/// The condition is looked at once more after the deadline, so a slow look is not a failure by
/// itself.
///
/// # Errors
///
/// Fails with `what` when the deadline passed first.
pub fn eventually<T>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> Result<T, WorldError> {
    let end = Instant::now() + deadline;
    loop {
        let last = Instant::now() >= end;
        if let Some(value) = look() {
            return Ok(value);
        }
        if last {
            return Err(WorldError::new(format!(
                "{what} did not happen within {deadline:?}"
            )));
        }
        std::thread::sleep(LOOK);
    }
}

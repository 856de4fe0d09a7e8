//! Runs a test on a thread of its own runtime; every wait has a deadline.

use std::{future::Future, time::Duration};

use meshwright_testbed::{Step, WorldError};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// Longest time of one test. A machine that does nothing else needs a second or two.
const TEST: Duration = Duration::from_secs(60);
/// Longest wait for one condition.
const CONDITION: Duration = Duration::from_secs(30);
/// Pause between two looks at a condition.
const LOOK: Duration = Duration::from_millis(10);

/// Runs a test to its end on this thread.
pub(crate) fn run(test: impl Future<Output = Result<(), WorldError>>) -> Result<(), WorldError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .step("make a runtime")?
        .block_on(async {
            timeout(TEST, Box::pin(test))
                .await
                .step("finish within a minute")?
        })
}

/// Looks at a condition until it yields a value.
pub(crate) async fn until<T>(
    what: &str,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> Result<T, WorldError> {
    let end = Instant::now() + CONDITION;
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Some(value) = look().await {
            return Ok(value);
        }
        if Instant::now() >= end {
            return Err(WorldError::new(format!("{what}: not within {CONDITION:?}")));
        }
    }
}

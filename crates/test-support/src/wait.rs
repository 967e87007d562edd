//! Waiting for conditions.

use std::{
    thread,
    time::{Duration, Instant},
};

/// The time after which a test gives up waiting for a condition.
pub const PATIENCE: Duration = Duration::from_secs(20);

const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Blocks until `condition` is true. Panics after [`PATIENCE`].
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "timed out waiting until {what}");
        thread::sleep(POLL_INTERVAL);
    }
}

/// Resolves when `condition` is true. Panics after [`PATIENCE`].
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < PATIENCE, "timed out waiting until {what}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

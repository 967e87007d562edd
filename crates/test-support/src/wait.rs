//! Functions that wait for a condition.

use std::{
    thread,
    time::{Duration, Instant},
};

/// The time after which waiting for a condition fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Blocks the thread until `condition` is true. Panics after [`PATIENCE`].
pub fn wait_until(description: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "timed out waiting until {description}");
        thread::sleep(POLL_INTERVAL);
    }
}

/// Waits until `condition` is true. Panics after [`PATIENCE`].
pub async fn eventually(description: &str, mut condition: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < PATIENCE, "timed out waiting until {description}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

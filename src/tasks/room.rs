//! The limit of the list: how long it may become.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::db::DbError;

/// Tasks that may be added without counting again.
const BATCH: u64 = 1000;

/// The room that is left in the list. The tasks are counted once per [`BATCH`], so the limit may be
/// exceeded by that number for each other process that adds tasks.
#[derive(Debug)]
pub(super) struct Room {
    max: u64,
    /// Tasks that may be added before they are counted again.
    left: AtomicU64,
}

impl Room {
    pub(super) fn new(max: u64) -> Self {
        Self { max, left: AtomicU64::new(0) }
    }

    pub(super) fn max(&self) -> u64 {
        self.max
    }

    /// Takes the room for one task. Returns whether there was some.
    pub(super) async fn take(
        &self,
        count: impl AsyncFnOnce() -> Result<u64, DbError>,
    ) -> Result<bool, DbError> {
        let take_one = |left: u64| left.checked_sub(1);
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take_one).is_ok() {
            return Ok(true);
        }
        let left = self.max.saturating_sub(count().await?).min(BATCH);
        self.left.store(left.saturating_sub(1), Ordering::Relaxed);
        Ok(left > 0)
    }
}

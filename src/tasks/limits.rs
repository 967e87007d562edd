//! Limits of the list: how long it may become, and how many requests render a long one at once.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::db::DbError;

/// A list with at least this number of tasks takes milliseconds to render.
const MANY: usize = 10_000;

/// Tasks that may be added without counting again.
const BATCH: u64 = 1000;

/// Lets requests read and render a long list one after the other. All at once, they would take the
/// memory and the workers from everybody else.
#[derive(Debug)]
pub(super) struct RenderQueue {
    /// The number of tasks when they were last read.
    length: AtomicUsize,
    turn: Arc<Semaphore>,
}

/// The turn of one request, until this is dropped.
pub(super) type Turn = OwnedSemaphorePermit;

impl Default for RenderQueue {
    fn default() -> Self {
        Self { length: AtomicUsize::new(usize::MAX), turn: Arc::new(Semaphore::new(1)) }
    }
}

impl RenderQueue {
    /// Waits for a turn. Returns `None` at once if the list is short.
    pub(super) async fn turn(&self) -> Option<Turn> {
        if self.length.load(Ordering::Relaxed) < MANY {
            return None;
        }
        Arc::clone(&self.turn).acquire_owned().await.ok()
    }

    /// Remembers the length of the list. Returns whether it is long.
    pub(super) fn remember(&self, length: usize) -> bool {
        self.length.store(length, Ordering::Relaxed);
        length >= MANY
    }
}

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

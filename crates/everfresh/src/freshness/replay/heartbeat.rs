//! Tells the processes that share a cache that one of them replays the ledger.
//!
//! The heartbeat is a number in the cache. A process adds one to it when it has just confirmed all rows that
//! are left in the ledger. While others see the number change, they need not read the ledger: any row that
//! was left before has been replayed. When the number stands still, or cannot be read, each replays by
//! itself; the last that has added to the number goes on alone.

use std::time::{Duration, Instant};

use crate::{
    backend::types::{Delta, NewNumber},
    cache::Cache,
};

/// The time after which a number that has not changed is out of date: longer than the pause between two
/// replays, with which it usually changes.
const PATIENCE: Duration = Duration::from_millis(350);

/// The key of the number. No other key begins like this: elsewhere `%` is always followed by two digits, or
/// by `group`.
const KEY: &str = "%replay";

/// The heartbeat as one process sees it.
pub(super) struct Heartbeat {
    key: String,
    /// The number that this process has seen last, and since when.
    seen: Option<(u64, Instant)>,
    /// The number after the last beat of this process.
    own: Option<u64>,
}

impl Heartbeat {
    pub(super) fn new(cache: &Cache) -> Self {
        Self { key: cache.full_key(KEY), seen: None, own: None }
    }

    /// Returns whether another process has given a sign of life within [`PATIENCE`].
    pub(super) async fn is_anothers(&mut self, cache: &Cache) -> bool {
        // Adding zero reads the number, and is not counted as a lookup by the servers.
        let Some(number) = self.add(cache, 0).await else { return false };
        let since = match self.seen {
            Some((seen, since)) if seen == number => since,
            _ => Instant::now(),
        };
        self.seen = Some((number, since));
        self.own != Some(number) && since.elapsed() < PATIENCE
    }

    /// Gives a sign of life.
    pub(super) async fn beat(&mut self, cache: &Cache) {
        self.own = self.add(cache, 1).await;
    }

    async fn add(&self, cache: &Cache, number: u64) -> Option<u64> {
        let new = NewNumber { value: number, lifetime: None };
        cache.entries().count_number(&self.key, Delta::Up(number), new).await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_process_that_was_last_to_beat_goes_on_and_the_other_waits() {
        let cache = Cache::memory(1 << 20).build();
        let (mut one, mut other) = (Heartbeat::new(&cache), Heartbeat::new(&cache));
        one.beat(&cache).await;
        assert!(!one.is_anothers(&cache).await);
        assert!(other.is_anothers(&cache).await);
        other.beat(&cache).await;
        assert!(one.is_anothers(&cache).await);
        assert!(!other.is_anothers(&cache).await);
    }

    #[tokio::test]
    async fn a_number_that_stands_still_or_cannot_be_read_is_no_heartbeat() {
        let cache = Cache::memory(1 << 20).build();
        let mut heartbeat = Heartbeat::new(&cache);
        Heartbeat::new(&cache).beat(&cache).await;
        assert!(heartbeat.is_anothers(&cache).await);
        let (number, since) = heartbeat.seen.unwrap();
        heartbeat.seen = Some((number, since.checked_sub(PATIENCE).unwrap()));
        assert!(!heartbeat.is_anothers(&cache).await);
        let unreachable = Cache::null().build();
        assert!(!Heartbeat::new(&unreachable).is_anothers(&unreachable).await);
    }
}

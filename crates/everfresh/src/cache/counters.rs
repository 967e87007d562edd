//! Numbers that are counted where they are stored.

use super::{Cache, lifetime::Lifetime};
use crate::backend::types::Delta;

/// Counters are stored apart from other values: [`Cache::get`], [`Cache::delete`] and the like do not
/// reach them.
impl Cache {
    /// Adds `delta` to a counter and returns the sum, which wraps around at 2⁶⁴. A counter that does
    /// not exist starts at 0. Returns `None` if the backend failed.
    ///
    /// ```
    /// use everfresh::Cache;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let cache = Cache::memory(1 << 20).build();
    /// assert_eq!(cache.increment("visits/2026-11-27", 1).await, Some(1));
    /// assert_eq!(cache.increment("visits/2026-11-27", 1).await, Some(2));
    /// # }
    /// ```
    pub async fn increment(&self, key: &str, delta: u64) -> Option<u64> {
        self.count_number(key, Delta::Up(delta)).await
    }

    /// Subtracts `delta` from a counter and returns the difference, which is never below 0. A counter
    /// that does not exist starts at 0. Returns `None` if the backend failed.
    ///
    /// ```
    /// use everfresh::Cache;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let cache = Cache::memory(1 << 20).build();
    /// cache.increment("seats", 3).await;
    /// assert_eq!(cache.decrement("seats", 1).await, Some(2));
    /// # }
    /// ```
    pub async fn decrement(&self, key: &str, delta: u64) -> Option<u64> {
        self.count_number(key, Delta::Down(delta)).await
    }

    async fn count_number(&self, key: &str, delta: Delta) -> Option<u64> {
        let key = self.full_key(&format!("number:{key}"));
        let lifetime = self.resolve(Lifetime::Default);
        self.entries().count_number(&key, delta, lifetime).await.ok().flatten()
    }
}

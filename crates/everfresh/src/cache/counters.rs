//! Numbers that are counted where they are stored.

use futures_util::future::join_all;

use super::{Cache, lifetime::Lifetime};
use crate::backend::types::{Delta, NewNumber};

/// A number in the cache, which servers count: no step is lost when several processes count at the same time.
///
/// Counters are stored apart from other values: [`Cache::get`], [`Cache::delete`] and the like do not reach them.
/// They are not sealed, because servers count by themselves. A cache may evict a counter, which then begins anew:
/// do not count what must not be lost.
///
/// ```
/// use std::time::Duration;
///
/// use everfresh::{Cache, Lifetime};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let cache = Cache::memory(1 << 20).build();
/// let visits = cache.counter("visits");
/// assert_eq!(visits.get().await, None);
/// assert_eq!(visits.increment(2).await, Some(2));
/// assert_eq!(visits.decrement(1).await, Some(1));
///
/// // At most 100 requests a minute: the lifetime begins with the first of them.
/// let minute = Lifetime::For(Duration::from_secs(60));
/// let requests = cache.counter("requests/192.0.2.1").lifetime(minute);
/// let is_allowed = requests.increment(1).await.is_none_or(|requests| requests <= 100);
/// assert!(is_allowed);
///
/// let seats = cache.counter("seats").initial(40);
/// assert_eq!(seats.decrement(1).await, Some(39));
/// assert!(seats.set(12).await);
/// assert_eq!(cache.read_counters(&["visits", "seats", "doors"]).await, [Some(1), Some(12), None]);
/// assert!(seats.delete().await);
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a counter is not stored until it is counted"]
pub struct Counter<'a> {
    cache: &'a Cache,
    key: String,
    initial: u64,
    lifetime: Lifetime,
}

impl Counter<'_> {
    /// Sets the number from which a counter that does not exist is counted. Default: 0.
    pub fn initial(self, initial: u64) -> Self {
        Self { initial, ..self }
    }

    /// Sets the lifetime of the number, from when it is stored first; counting does not prolong it. Default:
    /// [`Lifetime::Default`].
    pub fn lifetime(self, lifetime: Lifetime) -> Self {
        Self { lifetime, ..self }
    }

    /// Adds to the number and returns the sum, which wraps around at 2⁶⁴; `None` if the backend failed.
    pub async fn increment(&self, by: u64) -> Option<u64> {
        self.count(Delta::Up(by)).await
    }

    /// Subtracts from the number and returns the difference, which is never below 0; `None` if the backend
    /// failed.
    pub async fn decrement(&self, by: u64) -> Option<u64> {
        self.count(Delta::Down(by)).await
    }

    async fn count(&self, delta: Delta) -> Option<u64> {
        let new = self.new_number(delta.apply(self.initial));
        self.cache.entries().count_number(&self.key, delta, new).await.ok().flatten()
    }

    /// Returns the number; `None` if it does not exist, or the backend failed.
    pub async fn get(&self) -> Option<u64> {
        self.cache.entries().numbers(&[&self.key]).await.pop()?.ok()?
    }

    /// Stores a number, whether or not there is one; its lifetime begins anew. Returns whether it was stored.
    pub async fn set(&self, number: u64) -> bool {
        let entries = self.cache.entries();
        !entries.is_null() && entries.put_number(&self.key, self.new_number(number)).await.is_ok()
    }

    /// Deletes the number. Returns whether it is certain to be gone.
    pub async fn delete(&self) -> bool {
        self.cache.entries().delete_many(std::slice::from_ref(&self.key)).await[0]
    }

    fn new_number(&self, value: u64) -> NewNumber {
        NewNumber { value, lifetime: self.cache.resolve(self.lifetime).fresh }
    }
}

impl Cache {
    /// Returns the counter of this key.
    pub fn counter(&self, key: &str) -> Counter<'_> {
        let key = self.counter_key(key);
        Counter { cache: self, key, initial: 0, lifetime: Lifetime::Default }
    }

    /// Returns the numbers of counters, in the same order, in one round trip per server; `None` for one that does
    /// not exist, or if the backend failed.
    pub async fn read_counters(&self, keys: &[&str]) -> Vec<Option<u64>> {
        let keys: Vec<_> = keys.iter().map(|key| self.counter_key(key)).collect();
        let keys: Vec<_> = keys.iter().map(String::as_str).collect();
        self.entries()
            .numbers(&keys)
            .await
            .into_iter()
            .map(|number| number.ok().flatten())
            .collect()
    }

    /// Adds to counters, all at once, and returns the sums in the same order; `None` if the backend failed. Those
    /// that do not exist begin at 0 and get the lifetime.
    pub async fn increment_counters(
        &self,
        counters: &[(&str, u64)],
        lifetime: Lifetime,
    ) -> Vec<Option<u64>> {
        let increment = async |(key, by): &(&str, u64)| {
            self.counter(key).lifetime(lifetime).increment(*by).await
        };
        join_all(counters.iter().map(increment)).await
    }

    fn counter_key(&self, key: &str) -> String {
        self.full_key(&format!("number:{key}"))
    }
}

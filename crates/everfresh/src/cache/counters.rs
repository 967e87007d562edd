//! Numbers that are counted up and down where they are stored.

use bytes::Bytes;

use crate::{backend::Count, cache::Cache, cache::lifetime::Lifetime};

impl Cache {
    /// Adds to a number, and returns it. One that is not there begins at 0.
    ///
    /// Numbers are kept apart from other values: [`Cache::get`], [`Cache::delete`] and the like do
    /// not reach them.
    pub async fn increment(&self, key: &str, delta: u64) -> Option<u64> {
        self.counted(key, Count::Up(delta)).await
    }

    /// Subtracts from a number, down to 0, and returns it. One that is not there begins at 0.
    pub async fn decrement(&self, key: &str, delta: u64) -> Option<u64> {
        self.counted(key, Count::Down(delta)).await
    }

    async fn counted(&self, key: &str, by: Count) -> Option<u64> {
        let key = self.full_key(&format!("number:{key}"));
        let backend = self.backend();
        let mut counted = backend.count(&key, by).await;
        if counted == Ok(None) {
            let zero = Bytes::from_static(b"0");
            let lifetime = self.resolve(Lifetime::Default);
            counted = match backend.add(&key, &zero, lifetime).await {
                Ok(_) => backend.count(&key, by).await,
                Err(failure) => Err(failure),
            };
        }
        counted.unwrap_or_else(|failure| {
            self.failed(failure);
            None
        })
    }
}

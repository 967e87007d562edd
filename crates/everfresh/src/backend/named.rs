//! What is stored without a frame: values that are named by their digest, and numbers, which servers count.

use std::time::Duration;

use bytes::Bytes;

use super::{
    entries::Entries,
    types::{BackendError, Delta, NewNumber, StoredBytes},
};
use crate::freshness::beside::beside;

impl Entries {
    /// Stores bytes under a key that names them by a digest. They are neither stamped nor sealed: the reader
    /// checks the digest. Does not count as a fill.
    pub(crate) async fn put_named(
        &self,
        key: &str,
        bytes: Bytes,
        lifetime: Option<Duration>,
    ) -> Result<(), BackendError> {
        let entries = [(key.to_owned(), bytes)];
        let outcome = self.shared.backend.set_many(&entries, lifetime).await.pop();
        self.stored(key, outcome.unwrap_or(Err(BackendError::Refused)))
    }

    /// Reads bytes of [`put_named`](Self::put_named), which may have been changed. Counts neither a hit nor a
    /// miss.
    pub(crate) async fn get_named(&self, key: &str) -> Result<Option<Bytes>, BackendError> {
        let stored = self.checked(key, self.shared.backend.get(key, false).await)?;
        Ok(stored.map(|stored| stored.bytes))
    }

    /// Stores bytes as [`put_named`](Self::put_named) does, without waiting for it. Without them, another process
    /// computes them again.
    pub(crate) async fn put_named_beside(
        &self,
        key: String,
        bytes: Bytes,
        lifetime: Option<Duration>,
    ) {
        let entries = self.clone();
        beside(async move { entries.put_named(&key, bytes, lifetime).await }).await;
    }

    /// Changes a number that is stored as decimal digits, without a seal: servers count by
    /// themselves. If it does not exist, stores a new one. Returns the number.
    pub(crate) async fn count_number(
        &self,
        key: &str,
        delta: Delta,
        new: NewNumber,
    ) -> Result<Option<u64>, BackendError> {
        self.checked(key, self.shared.backend.count(key, delta, new).await)
    }

    /// Reads numbers in one round trip per server. `None` for one that does not exist, or that is no number.
    pub(crate) async fn numbers(&self, keys: &[&str]) -> Vec<Result<Option<u64>, BackendError>> {
        let number = |stored: StoredBytes| str::from_utf8(&stored.bytes).ok()?.parse().ok();
        let found = self.get_each(keys).await.into_iter();
        found.map(|found| Ok(found?.and_then(number))).collect()
    }

    /// Stores a number, whether or not there is one.
    pub(crate) async fn put_number(&self, key: &str, new: NewNumber) -> Result<(), BackendError> {
        self.put_named(key, new.value.to_string().into(), new.lifetime).await
    }
}

//! A backend of one's own: entries in a map behind a lock. The contract suite checks it.
//!
//! ```sh
//! cargo run -p everfresh --features testing --example custom_backend
//! ```
//!
//! It has no bound, so it is for this example only: `Cache::memory` is the in-process cache.

#![allow(clippy::print_stdout, reason = "it shows what it does")]

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use everfresh::{
    Cache, Lifetime,
    backend::{Backend, BackendError, CasToken, Delta, NewNumber, StoredBytes, SwapOutcome},
    testing::{Keeps, backend_suite},
};

#[derive(Default)]
struct Map {
    entries: Mutex<HashMap<String, Entry>>,
    /// Tokens are never used again, so that a value is not stored over a newer one.
    next_token: AtomicU64,
}

struct Entry {
    bytes: Bytes,
    token: u64,
    ends: Option<Instant>,
}

impl Map {
    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|_, entry| entry.ends.is_none_or(|end| Instant::now() < end));
        entries
    }

    fn entry(&self, bytes: &Bytes, lifetime: Option<Duration>) -> Entry {
        let token = self.next_token.fetch_add(1, Ordering::Relaxed);
        Entry { bytes: bytes.clone(), token, ends: lifetime.map(|time| Instant::now() + time) }
    }
}

fn is_in_state(entry: Option<&Entry>, token: CasToken) -> bool {
    matches!((entry, token), (Some(entry), CasToken::Number(token)) if entry.token == token)
}

impl Backend for Map {
    fn name(&self) -> &'static str {
        "map"
    }

    fn is_shared(&self) -> bool {
        false
    }

    async fn get_many(&self, keys: &[&str]) -> Vec<Result<Option<StoredBytes>, BackendError>> {
        let entries = self.entries();
        let find = |key: &&str| {
            let found = entries.get(*key).map(|entry| {
                let token = Some(CasToken::Number(entry.token));
                StoredBytes { bytes: entry.bytes.clone(), token }
            });
            Ok(found)
        };
        keys.iter().map(find).collect()
    }

    async fn set_many(
        &self,
        new: &[(String, Bytes)],
        lifetime: Option<Duration>,
    ) -> Vec<Result<(), BackendError>> {
        for (key, bytes) in new {
            self.entries().insert(key.clone(), self.entry(bytes, lifetime));
        }
        vec![Ok(()); new.len()]
    }

    async fn add(
        &self,
        key: &str,
        bytes: &Bytes,
        lifetime: Option<Duration>,
    ) -> Result<Option<CasToken>, BackendError> {
        let mut entries = self.entries();
        if entries.contains_key(key) {
            return Ok(None);
        }
        let entry = self.entry(bytes, lifetime);
        let token = CasToken::Number(entry.token);
        entries.insert(key.to_owned(), entry);
        Ok(Some(token))
    }

    async fn swap(
        &self,
        key: &str,
        bytes: &Bytes,
        lifetime: Option<Duration>,
        token: CasToken,
    ) -> Result<SwapOutcome, BackendError> {
        let mut entries = self.entries();
        if !is_in_state(entries.get(key), token) {
            return Ok(SwapOutcome::Changed);
        }
        let entry = self.entry(bytes, lifetime);
        let token = CasToken::Number(entry.token);
        entries.insert(key.to_owned(), entry);
        Ok(SwapOutcome::Stored(Some(token)))
    }

    async fn delete_if_unchanged(&self, key: &str, token: CasToken) -> Result<(), BackendError> {
        let mut entries = self.entries();
        if is_in_state(entries.get(key), token) {
            entries.remove(key);
        }
        Ok(())
    }

    async fn delete_many(&self, keys: &[String]) -> Vec<Result<(), BackendError>> {
        let mut entries = self.entries();
        for key in keys {
            entries.remove(key);
        }
        vec![Ok(()); keys.len()]
    }

    async fn count(
        &self,
        key: &str,
        delta: Delta,
        new: NewNumber,
    ) -> Result<Option<u64>, BackendError> {
        let mut entries = self.entries();
        let (number, ends) = match entries.get(key) {
            None => (new.value, new.lifetime.map(|time| Instant::now() + time)),
            Some(entry) => {
                let digits = str::from_utf8(&entry.bytes).ok();
                let number = digits.and_then(|digits| digits.parse().ok());
                (delta.apply(number.ok_or(BackendError::Refused)?), entry.ends)
            }
        };
        let entry = Entry { ends, ..self.entry(&number.to_string().into(), None) };
        entries.insert(key.to_owned(), entry);
        Ok(Some(number))
    }

    async fn clear(&self) -> Result<(), BackendError> {
        self.entries().clear();
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let cache = Cache::with_backend(Map::default()).build();
    backend_suite(&cache, Keeps::Everything).await;
    println!("the backend {} passes the contract suite", cache.backend_name());
    println!("{}", cache.get_with("k", Lifetime::Forever, async || "and is used".to_owned()).await);
}

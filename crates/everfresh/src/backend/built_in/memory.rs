//! Entries in this process, bounded by bytes.
//!
//! moka stores them and evicts the least recently used. Its default policy may refuse a new entry, and
//! a lease must not be refused. Every change of a key goes through moka's per-key lock, deletions too,
//! so that a swap and a deletion never overlap.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use moka::{
    Expiry,
    ops::compute::{CompResult, Op},
    policy::EvictionPolicy,
    sync::Cache,
};

use crate::backend::{
    contract::Backend,
    types::{BackendError, CasToken, Delta, NewNumber, StoredBytes, SwapOutcome},
};

/// The weight of an entry without its key and bytes, in bytes.
const OVERHEAD: usize = 200;

#[derive(Clone, Debug)]
struct MemoryEntry {
    bytes: Bytes,
    token: u64,
    lifetime: Option<Duration>,
    /// The number of clears before the entry was stored. moka clears by time, and a change that is
    /// under way may end after that.
    epoch: u64,
}

#[derive(Debug)]
pub(crate) struct Memory {
    entries: Cache<String, MemoryEntry>,
    next_token: AtomicU64,
    epoch: AtomicU64,
    /// The size of the largest value that is stored, in bytes.
    max_value: usize,
}

struct ByLifetime;

impl Expiry<String, MemoryEntry> for ByLifetime {
    fn expire_after_create(&self, _: &String, entry: &MemoryEntry, _: Instant) -> Option<Duration> {
        entry.lifetime
    }

    fn expire_after_update(
        &self,
        _: &String,
        entry: &MemoryEntry,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        entry.lifetime
    }
}

impl Memory {
    /// `bound` is in bytes and includes keys and overhead.
    pub(crate) fn new(bound: usize) -> Self {
        let weigh = |key: &String, entry: &MemoryEntry| {
            u32::try_from(key.len() + entry.bytes.len() + OVERHEAD).unwrap_or(u32::MAX)
        };
        let entries = Cache::builder()
            .max_capacity(bound as u64)
            .weigher(weigh)
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(ByLifetime)
            .build();
        let (next_token, epoch) = (AtomicU64::new(1), AtomicU64::new(0));
        Self { entries, next_token, epoch, max_value: bound / 4 }
    }

    fn new_entry(
        &self,
        bytes: &Bytes,
        lifetime: Option<Duration>,
    ) -> Result<MemoryEntry, BackendError> {
        if bytes.len() > self.max_value {
            return Err(BackendError::TooLarge { bytes: bytes.len(), limit: Some(self.max_value) });
        }
        let token = self.next_token.fetch_add(1, Ordering::Relaxed);
        Ok(MemoryEntry { bytes: bytes.clone(), token, lifetime, epoch: self.epoch() })
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    fn find(&self, key: &str) -> Option<StoredBytes> {
        let entry = self.entries.get(key).filter(|entry| entry.epoch == self.epoch())?;
        Some(StoredBytes { bytes: entry.bytes, token: Some(CasToken::Number(entry.token)) })
    }

    /// Replaces the present entry with the result of `change`, under the key's lock.
    fn change(
        &self,
        key: &str,
        change: impl FnOnce(Option<MemoryEntry>) -> Op<MemoryEntry>,
    ) -> CompResult<String, MemoryEntry> {
        self.entries.entry_by_ref(key).and_compute_with(|entry| {
            let present = entry.map(moka::Entry::into_value);
            change(present.filter(|entry| entry.epoch == self.epoch()))
        })
    }
}

impl Backend for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn keeps_order(&self, _: &[String]) -> bool {
        true
    }

    async fn get(&self, key: &str, _with_token: bool) -> Result<Option<StoredBytes>, BackendError> {
        Ok(self.find(key))
    }

    async fn get_many(&self, keys: &[&str]) -> Vec<Result<Option<StoredBytes>, BackendError>> {
        keys.iter().map(|key| Ok(self.find(key))).collect()
    }

    async fn set_many(
        &self,
        entries: &[(String, Bytes)],
        lifetime: Option<Duration>,
    ) -> Vec<Result<(), BackendError>> {
        let set = |(key, bytes): &(String, Bytes)| {
            let entry = self.new_entry(bytes, lifetime)?;
            self.change(key, |_| Op::Put(entry));
            Ok(())
        };
        entries.iter().map(set).collect()
    }

    async fn add(
        &self,
        key: &str,
        bytes: &Bytes,
        lifetime: Option<Duration>,
    ) -> Result<Option<CasToken>, BackendError> {
        let entry = self.new_entry(bytes, lifetime)?;
        let token = CasToken::Number(entry.token);
        let outcome = self.change(key, |present| match present {
            None => Op::Put(entry),
            Some(_) => Op::Nop,
        });
        Ok(was_stored(&outcome).then_some(token))
    }

    async fn swap(
        &self,
        key: &str,
        bytes: &Bytes,
        lifetime: Option<Duration>,
        token: CasToken,
    ) -> Result<SwapOutcome, BackendError> {
        let entry = self.new_entry(bytes, lifetime)?;
        let new_token = CasToken::Number(entry.token);
        let outcome = self.change(key, |present| match present {
            Some(present) if present.is_in_state(token) => {
                Op::Put(MemoryEntry { epoch: present.epoch, ..entry })
            }
            _ => Op::Nop,
        });
        let is_stored = was_stored(&outcome);
        Ok(if is_stored { SwapOutcome::Stored(Some(new_token)) } else { SwapOutcome::Changed })
    }

    async fn delete_if_unchanged(&self, key: &str, token: CasToken) -> Result<(), BackendError> {
        self.change(key, |present| match present {
            Some(present) if present.is_in_state(token) => Op::Remove,
            _ => Op::Nop,
        });
        Ok(())
    }

    async fn delete_many(&self, keys: &[String]) -> Vec<Result<(), BackendError>> {
        for key in keys {
            self.change(key, |_| Op::Remove);
        }
        vec![Ok(()); keys.len()]
    }

    async fn count(
        &self,
        key: &str,
        delta: Delta,
        new: NewNumber,
    ) -> Result<Option<u64>, BackendError> {
        let mut counted = Ok(None);
        let token = self.next_token.fetch_add(1, Ordering::Relaxed);
        self.change(key, |present| {
            let Some(present) = present else {
                counted = Ok(Some(new.value));
                let NewNumber { value, lifetime } = new;
                let (bytes, epoch) = (value.to_string().into(), self.epoch());
                return Op::Put(MemoryEntry { bytes, token, lifetime, epoch });
            };
            let digits = std::str::from_utf8(&present.bytes).ok();
            let Some(number) = digits.and_then(|digits| digits.parse::<u64>().ok()) else {
                counted = Err(BackendError::Refused);
                return Op::Nop;
            };
            let number = delta.apply(number);
            counted = Ok(Some(number));
            Op::Put(MemoryEntry { bytes: number.to_string().into(), token, ..present })
        });
        counted
    }

    async fn clear(&self) -> Result<(), BackendError> {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.entries.invalidate_all();
        Ok(())
    }
}

impl MemoryEntry {
    fn is_in_state(&self, token: CasToken) -> bool {
        matches!(token, CasToken::Number(number) if number == self.token)
    }
}

fn was_stored<K, V>(outcome: &CompResult<K, V>) -> bool {
    matches!(outcome, CompResult::Inserted(_) | CompResult::ReplacedWith(_))
}

//! Entries in this process, bounded by bytes.
//!
//! moka keeps them, evicting what has not been used for longest. Not by its default policy, which
//! may refuse a new entry: a lease must not be refused. Every change of a key goes through moka's
//! per-key lock, deletes too, so that a swap and a delete never overlap.

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

use super::{Count, Failure, Found, Mark, Swapped};

/// What an entry weighs beside its key and bytes.
const OVERHEAD: usize = 200;

#[derive(Clone, Debug)]
struct Stored {
    bytes: Bytes,
    mark: u64,
    lifetime: Option<Duration>,
    /// How often the cache had been cleared. moka clears by time, which a change that is under way
    /// may outlive.
    epoch: u64,
}

#[derive(Debug)]
pub(crate) struct Memory {
    entries: Cache<String, Stored>,
    next_mark: AtomicU64,
    epoch: AtomicU64,
    /// Nothing larger is kept.
    largest: usize,
}

struct Lifetimes;

impl Expiry<String, Stored> for Lifetimes {
    fn expire_after_create(&self, _: &String, stored: &Stored, _: Instant) -> Option<Duration> {
        stored.lifetime
    }

    fn expire_after_update(
        &self,
        _: &String,
        stored: &Stored,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        stored.lifetime
    }
}

impl Memory {
    /// `bound` is in bytes, keys and overhead included.
    pub(crate) fn new(bound: usize) -> Self {
        let weigh = |key: &String, stored: &Stored| {
            u32::try_from(key.len() + stored.bytes.len() + OVERHEAD).unwrap_or(u32::MAX)
        };
        let entries = Cache::builder()
            .max_capacity(bound as u64)
            .weigher(weigh)
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(Lifetimes)
            .build();
        Self { entries, next_mark: AtomicU64::new(1), epoch: AtomicU64::new(0), largest: bound / 4 }
    }

    fn stored(&self, bytes: &Bytes, lifetime: Option<Duration>) -> Result<Stored, Failure> {
        if bytes.len() > self.largest {
            return Err(Failure::TooLarge);
        }
        let mark = self.next_mark.fetch_add(1, Ordering::Relaxed);
        Ok(Stored { bytes: bytes.clone(), mark, lifetime, epoch: self.epoch() })
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    pub(crate) fn get(&self, key: &str) -> Option<Found> {
        let stored = self.entries.get(key).filter(|stored| stored.epoch == self.epoch())?;
        Some(Found { bytes: stored.bytes, mark: Some(Mark::Memory(stored.mark)) })
    }

    /// Replaces what is there by what `change` makes of it, under the key's lock.
    fn change(
        &self,
        key: &str,
        change: impl FnOnce(Option<Stored>) -> Op<Stored>,
    ) -> CompResult<String, Stored> {
        self.entries.entry_by_ref(key).and_compute_with(|entry| {
            let present = entry.map(moka::Entry::into_value);
            change(present.filter(|stored| stored.epoch == self.epoch()))
        })
    }

    pub(crate) fn set(
        &self,
        key: &str,
        bytes: &Bytes,
        lifetime: Option<Duration>,
    ) -> Result<(), Failure> {
        let stored = self.stored(bytes, lifetime)?;
        self.change(key, |_| Op::Put(stored));
        Ok(())
    }

    pub(crate) fn add(
        &self,
        key: &str,
        bytes: &Bytes,
        lifetime: Option<Duration>,
    ) -> Result<Option<Mark>, Failure> {
        let stored = self.stored(bytes, lifetime)?;
        let mark = Mark::Memory(stored.mark);
        let outcome = self.change(key, |present| match present {
            None => Op::Put(stored),
            Some(_) => Op::Nop,
        });
        Ok(is_put(&outcome).then_some(mark))
    }

    pub(crate) fn swap(
        &self,
        key: &str,
        bytes: &Bytes,
        lifetime: Option<Duration>,
        mark: Mark,
    ) -> Result<Swapped, Failure> {
        let stored = self.stored(bytes, lifetime)?;
        let new_mark = Mark::Memory(stored.mark);
        let outcome = self.change(key, |present| match present {
            Some(present) if is_of(&present, mark) => {
                Op::Put(Stored { epoch: present.epoch, ..stored })
            }
            _ => Op::Nop,
        });
        Ok(if is_put(&outcome) { Swapped::Done(Some(new_mark)) } else { Swapped::Lost })
    }

    pub(crate) fn delete(&self, key: &str) {
        self.change(key, |_| Op::Remove);
    }

    pub(crate) fn delete_if_unchanged(&self, key: &str, mark: Mark) {
        self.change(key, |present| match present {
            Some(present) if is_of(&present, mark) => Op::Remove,
            _ => Op::Nop,
        });
    }

    /// As memcached counts: up around the corner, down to zero.
    pub(crate) fn count(&self, key: &str, by: Count) -> Result<Option<u64>, Failure> {
        let mut counted = Ok(None);
        let mark = self.next_mark.fetch_add(1, Ordering::Relaxed);
        self.change(key, |present| {
            let Some(present) = present else { return Op::Nop };
            let digits = std::str::from_utf8(&present.bytes).ok().and_then(|d| d.parse().ok());
            let Some(number) = digits else {
                counted = Err(Failure::Refused);
                return Op::Nop;
            };
            let number = match by {
                Count::Up(delta) => u64::wrapping_add(number, delta),
                Count::Down(delta) => u64::saturating_sub(number, delta),
            };
            counted = Ok(Some(number));
            Op::Put(Stored { bytes: number.to_string().into(), mark, ..present })
        });
        counted
    }

    pub(crate) fn clear(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.entries.invalidate_all();
    }
}

fn is_of(stored: &Stored, mark: Mark) -> bool {
    matches!(mark, Mark::Memory(number) if number == stored.mark)
}

fn is_put<K, V>(outcome: &CompResult<K, V>) -> bool {
    matches!(outcome, CompResult::Inserted(_) | CompResult::ReplacedWith(_))
}

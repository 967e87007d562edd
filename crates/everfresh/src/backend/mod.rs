//! Where entries are kept. A closed set: each in its file.
#![cfg_attr(
    not(feature = "memcached"),
    allow(clippy::unused_async, dead_code, unused_variables, reason = "what only servers need")
)]

use std::time::Duration;

use bytes::Bytes;

pub(crate) mod frame;
#[cfg(feature = "memcached")]
mod memcached;
mod memory;

#[cfg(feature = "memcached")]
pub(crate) use memcached::Memcached;
pub(crate) use memory::Memory;

/// Why a backend did not do what it was asked. Callers of the cache see a miss.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Failure {
    /// It cannot be reached, or did not answer in time.
    Away,
    /// The value is larger than it takes.
    TooLarge,
    /// It refused, or the key is not valid.
    Refused,
}

/// One state of one entry: what a [`Backend::swap`] goes by.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mark {
    Memory(u64),
    #[cfg(feature = "memcached")]
    Memcached(memcached_client::Cas),
}

/// Bytes that were found, and their mark if it was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) bytes: Bytes,
    pub(crate) mark: Option<Mark>,
}

/// What became of a swap.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Swapped {
    /// It was stored; its mark, where the backend tells it.
    Done(Option<Mark>),
    /// The entry was not the one of the mark any more.
    Lost,
}

/// A number to be counted up or down.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Count {
    Up(u64),
    Down(u64),
}

#[derive(Debug)]
pub(crate) enum Backend {
    Memory(Memory),
    #[cfg(feature = "memcached")]
    Memcached(Memcached),
    /// Keeps nothing.
    Null,
    /// Can never be reached.
    #[cfg(feature = "testing")]
    Failing,
}

/// Runs the same method of whichever backend there is; the last two have fixed answers.
macro_rules! ask {
    ($self:ident, $null:expr, $memory:ident => $by_memory:expr, $memcached:ident => $by_memcached:expr) => {
        match $self {
            Self::Memory($memory) => $by_memory,
            #[cfg(feature = "memcached")]
            Self::Memcached($memcached) => $by_memcached,
            Self::Null => $null,
            #[cfg(feature = "testing")]
            Self::Failing => Err(Failure::Away),
        }
    };
}

impl Backend {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
            #[cfg(feature = "memcached")]
            Self::Memcached(_) => "memcached",
            Self::Null => "none",
            #[cfg(feature = "testing")]
            Self::Failing => "failing",
        }
    }

    /// Whether other processes see the same entries.
    pub(crate) fn is_shared(&self) -> bool {
        !matches!(self, Self::Memory(_) | Self::Null)
    }

    pub(crate) async fn get(&self, key: &str, with_mark: bool) -> Result<Option<Found>, Failure> {
        ask!(self, Ok(None), m => Ok(m.get(key)), m => m.get(key, with_mark).await)
    }

    pub(crate) async fn get_many(&self, keys: &[&str]) -> Vec<Result<Option<Found>, Failure>> {
        match self {
            Self::Memory(memory) => keys.iter().map(|key| Ok(memory.get(key))).collect(),
            #[cfg(feature = "memcached")]
            Self::Memcached(memcached) => memcached.get_many(keys).await,
            Self::Null => keys.iter().map(|_| Ok(None)).collect(),
            #[cfg(feature = "testing")]
            Self::Failing => keys.iter().map(|_| Err(Failure::Away)).collect(),
        }
    }

    pub(crate) async fn set_many(
        &self,
        entries: &[(String, Bytes)],
        lifetime: Option<Duration>,
    ) -> Vec<Result<(), Failure>> {
        match self {
            Self::Memory(memory) => {
                entries.iter().map(|(key, bytes)| memory.set(key, bytes, lifetime)).collect()
            }
            #[cfg(feature = "memcached")]
            Self::Memcached(memcached) => memcached.set_many(entries, lifetime).await,
            Self::Null => entries.iter().map(|_| Ok(())).collect(),
            #[cfg(feature = "testing")]
            Self::Failing => entries.iter().map(|_| Err(Failure::Away)).collect(),
        }
    }

    /// Stores if there is nothing; the mark of what was stored.
    pub(crate) async fn add(
        &self,
        key: &str,
        bytes: &Bytes,
        lifetime: Option<Duration>,
    ) -> Result<Option<Mark>, Failure> {
        ask!(self, Ok(None),
            m => m.add(key, bytes, lifetime),
            m => m.add(key, bytes, lifetime).await)
    }

    /// Stores if the entry is still the one of the mark.
    pub(crate) async fn swap(
        &self,
        key: &str,
        bytes: &Bytes,
        lifetime: Option<Duration>,
        mark: Mark,
    ) -> Result<Swapped, Failure> {
        ask!(self, Ok(Swapped::Lost),
            m => m.swap(key, bytes, lifetime, mark),
            m => m.swap(key, bytes, lifetime, mark).await)
    }

    /// Deletes if the entry is still the one of the mark.
    pub(crate) async fn delete_if_unchanged(&self, key: &str, mark: Mark) -> Result<(), Failure> {
        ask!(self, Ok(()),
            m => { m.delete_if_unchanged(key, mark); Ok(()) },
            m => m.delete_if_unchanged(key, mark).await)
    }

    /// Whether [`delete_many`](Self::delete_many) deletes these in their order.
    pub(crate) fn keeps_order(&self, keys: &[String]) -> bool {
        match self {
            #[cfg(feature = "memcached")]
            Self::Memcached(memcached) => memcached.keeps_order(keys),
            _ => true,
        }
    }

    /// Deletes; each is confirmed or failed.
    pub(crate) async fn delete_many(&self, keys: &[String]) -> Vec<Result<(), Failure>> {
        match self {
            Self::Memory(memory) => keys
                .iter()
                .map(|key| {
                    memory.delete(key);
                    Ok(())
                })
                .collect(),
            #[cfg(feature = "memcached")]
            Self::Memcached(memcached) => memcached.delete_many(keys).await,
            Self::Null => keys.iter().map(|_| Ok(())).collect(),
            #[cfg(feature = "testing")]
            Self::Failing => keys.iter().map(|_| Err(Failure::Away)).collect(),
        }
    }

    /// Counts a number that is stored as digits; `None` if there is none.
    pub(crate) async fn count(&self, key: &str, by: Count) -> Result<Option<u64>, Failure> {
        ask!(self, Ok(None), m => m.count(key, by), m => m.count(key, by).await)
    }

    pub(crate) async fn clear(&self) -> Result<(), Failure> {
        ask!(self, Ok(()), m => { m.clear(); Ok(()) }, m => m.clear().await)
    }
}

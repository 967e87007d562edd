//! The cache: one handle, whatever keeps the entries.

pub(crate) mod builder;
mod counters;
#[cfg(feature = "memcached")]
pub(crate) mod environment;
pub(crate) mod key;
pub(crate) mod lifetime;
#[cfg(feature = "memcached")]
pub(crate) mod servers;
pub(crate) mod stats;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    backend::frame::{self as codec, Frame, Secret, Stamp},
    backend::{Backend, Failure, Swapped},
    cache::lifetime::Lifetime,
    cache::stats::{Counters, Event, LayerStats, Registry},
    freshness::flight::Flights,
    freshness::lease::{Encoded, Filled, Lookup, Slot},
};

/// The layer of a cache that has not been given another.
const DEFAULT_LAYER: &str = "cache";

/// A cache. Cloning is cheap; all clones share entries and counters, over all threads.
///
/// No operation returns an error: a cache that is away is one in which nothing is found. What
/// fails is counted.
#[derive(Clone)]
pub struct Cache {
    inner: Arc<Inner>,
    counters: Arc<Counters>,
}

struct Inner {
    backend: Backend,
    prefix: String,
    secret: Secret,
    default_lifetime: Option<Duration>,
    flights: Flights,
    stats: Registry,
    has_warned_of_size: AtomicBool,
}

impl Cache {
    pub(crate) fn new(
        backend: Backend,
        prefix: String,
        secret: Secret,
        default_lifetime: Option<Duration>,
    ) -> Self {
        let stats = Registry::default();
        Self {
            counters: stats.layer(DEFAULT_LAYER),
            inner: Arc::new(Inner {
                backend,
                prefix,
                secret,
                default_lifetime,
                flights: Flights::default(),
                stats,
                has_warned_of_size: AtomicBool::new(false),
            }),
        }
    }

    /// What keeps the entries: `memory`, `memcached` or `none`.
    #[must_use]
    pub fn backend_name(&self) -> &'static str {
        self.inner.backend.name()
    }

    /// Whether other processes see the same entries: then what a write makes wrong must be
    /// remembered in a [`Ledger`](crate::Ledger).
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.inner.backend.is_shared()
    }

    /// The same cache, counting what is done through it under `name`.
    #[must_use]
    pub fn layer(&self, name: &'static str) -> Self {
        Self { inner: Arc::clone(&self.inner), counters: self.inner.stats.layer(name) }
    }

    /// What each layer has done.
    #[must_use]
    pub fn stats(&self) -> BTreeMap<&'static str, LayerStats> {
        self.inner.stats.snapshot()
    }

    /// Counts anew from here, in all layers.
    pub fn reset_stats(&self) {
        self.inner.stats.reset();
    }

    pub(crate) fn backend(&self) -> &Backend {
        &self.inner.backend
    }

    pub(crate) fn flights(&self) -> &Flights {
        &self.inner.flights
    }

    pub(crate) fn secret(&self) -> Secret {
        self.inner.secret
    }

    pub(crate) fn count(&self, event: Event) {
        self.counters.count(event);
    }

    pub(crate) fn failed(&self, failure: Failure) {
        self.count(Event::Error);
        let is_new = || !self.inner.has_warned_of_size.swap(true, Ordering::Relaxed);
        if failure == Failure::TooLarge && is_new() {
            log::warn!("a value is too large for the cache and is computed each time");
        }
    }

    pub(crate) fn full_key(&self, key: &str) -> String {
        [self.inner.prefix.as_str(), key].concat()
    }

    pub(crate) fn resolve(&self, lifetime: Lifetime) -> Option<Duration> {
        lifetime.resolve(self.inner.default_lifetime)
    }

    /// The value of `key`; `None` if there is none of this type. A field that is an `Option` and was
    /// not stored reads as `None`: when a type gets one, give keys or the cache another version.
    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        let key = self.full_key(key);
        let found = self.inner.backend.get(&key, false).await;
        self.value(&key, found.map(|found| found.map(|found| found.bytes)))
    }

    /// Likewise; `Err` if the backend could not be asked.
    #[cfg(feature = "session")]
    pub(crate) async fn try_get<T: DeserializeOwned>(
        &self,
        key: &str,
    ) -> Result<Option<T>, Failure> {
        let key = self.full_key(key);
        match self.inner.backend.get(&key, false).await {
            Err(failure) => {
                self.failed(failure);
                Err(failure)
            }
            found => Ok(self.value(&key, found.map(|found| found.map(|found| found.bytes)))),
        }
    }

    /// The values of `keys`, in their order, in one round trip per server.
    pub async fn get_many<T: DeserializeOwned>(&self, keys: &[&str]) -> Vec<Option<T>> {
        let keys: Vec<_> = keys.iter().map(|key| self.full_key(key)).collect();
        let keys: Vec<_> = keys.iter().map(String::as_str).collect();
        let found = self.inner.backend.get_many(&keys).await.into_iter();
        let found = found.map(|found| found.map(|found| found.map(|found| found.bytes)));
        keys.iter().zip(found).map(|(key, found)| self.value(key, found)).collect()
    }

    fn value<T: DeserializeOwned>(
        &self,
        key: &str,
        found: Result<Option<Bytes>, Failure>,
    ) -> Option<T> {
        let bytes = found.unwrap_or_else(|failure| {
            self.failed(failure);
            None
        });
        let body = bytes.and_then(|bytes| match self.secret().open(key, &bytes)? {
            Frame::Entry { stamp, body } if stamp == Stamp::default() => Some(body),
            _ => None,
        });
        let value = body.and_then(|body| Some((codec::deserialize(&body)?, body.len())));
        let Some((value, bytes)) = value else {
            self.count(Event::Misses(1));
            return None;
        };
        self.count(Event::Hits { hits: 1, bytes });
        Some(value)
    }

    /// Stores a value, whatever was there. Whether it did.
    pub async fn set<T: Serialize>(&self, key: &str, value: &T, lifetime: Lifetime) -> bool {
        self.set_many(&[(key, value)], lifetime).await[0]
    }

    /// Stores values, in one round trip per server. Whether each was. Where a value is not to be
    /// kept, or cannot be, what was there is deleted.
    pub async fn set_many<T: Serialize>(
        &self,
        entries: &[(&str, T)],
        lifetime: Lifetime,
    ) -> Vec<bool> {
        let lifetime = self.resolve(lifetime);
        let is_kept = lifetime != Some(Duration::ZERO);
        let frames: Vec<_> = entries
            .iter()
            .map(|(key, value)| {
                let key = self.full_key(key);
                let frame = if is_kept { self.framed(&key, value) } else { None };
                frame.map(|frame| (key, frame))
            })
            .collect();
        let good: Vec<_> = frames.iter().flatten().cloned().collect();
        let mut outcomes = self.inner.backend.set_many(&good, lifetime).await.into_iter();
        let stored: Vec<_> = frames
            .iter()
            .map(|frame| match (frame, frame.as_ref().and_then(|_| outcomes.next())) {
                (Some((_, bytes)), Some(Ok(()))) => {
                    self.count(Event::Fill { bytes: bytes.len() - codec::HEADER });
                    true
                }
                (_, Some(Err(failure))) => {
                    self.failed(failure);
                    false
                }
                _ => false,
            })
            .collect();
        let lost = entries.iter().zip(&stored).filter(|(_, stored)| !**stored);
        let lost: Vec<_> = lost.map(|((key, _), _)| *key).collect();
        if !lost.is_empty() {
            self.delete_many(&lost).await;
        }
        stored
    }

    /// The stored form of a value.
    fn framed<T: Serialize>(&self, key: &str, value: &T) -> Option<Bytes> {
        Some(self.secret().entry(key, Stamp::default(), &codec::serialize(value)?))
    }

    /// Stores a value if there is none. Whether it did.
    pub async fn add<T: Serialize>(&self, key: &str, value: &T, lifetime: Lifetime) -> bool {
        let lifetime = self.resolve(lifetime);
        let key = self.full_key(key);
        let frame = self.framed(&key, value);
        let Some(frame) = frame.filter(|_| lifetime != Some(Duration::ZERO)) else { return false };
        match self.inner.backend.add(&key, &frame, lifetime).await {
            Ok(mark) => mark.is_some(),
            Err(failure) => {
                self.failed(failure);
                false
            }
        }
    }

    /// Deletes an entry. Whether that is certain.
    pub async fn delete(&self, key: &str) -> bool {
        self.delete_each(&[key]).await[0]
    }

    /// Deletes entries, in one round trip per server. Whether it is certain of all.
    pub async fn delete_many(&self, keys: &[&str]) -> bool {
        self.delete_each(keys).await.into_iter().all(|is_certain| is_certain)
    }

    /// Likewise; whether it is certain of each.
    pub(crate) async fn delete_each(&self, keys: &[&str]) -> Vec<bool> {
        let keys: Vec<_> = keys.iter().map(|key| self.full_key(key)).collect();
        self.delete_full(&keys).await
    }

    /// Likewise of keys as the backend knows them.
    pub(crate) async fn delete_full(&self, keys: &[String]) -> Vec<bool> {
        let outcomes = self.inner.backend.delete_many(keys).await.into_iter();
        outcomes
            .map(|outcome| outcome.inspect_err(|failure| self.failed(*failure)).is_ok())
            .collect()
    }

    /// Gives an entry another lifetime. Whether there is one, and nobody has changed it meanwhile.
    ///
    /// It moves the value both ways: whether a key holds a value or is only reserved for one, no
    /// server can tell.
    pub async fn touch(&self, key: &str, lifetime: Lifetime) -> bool {
        self.rewrite(key, lifetime, |frame| Some(frame.clone())).await == Ok(true)
    }

    /// Replaces a value if there is one. Whether it did; `Err` if the backend failed.
    #[cfg(feature = "session")]
    pub(crate) async fn replace<T: Serialize>(
        &self,
        key: &str,
        value: &T,
        lifetime: Lifetime,
    ) -> Result<bool, Failure> {
        let framed = |_: &Bytes| self.framed(&self.full_key(key), value);
        self.rewrite(key, lifetime, framed).await
    }

    async fn rewrite(
        &self,
        key: &str,
        lifetime: Lifetime,
        change: impl FnOnce(&Bytes) -> Option<Bytes>,
    ) -> Result<bool, Failure> {
        let (key, lifetime) = (self.full_key(key), self.resolve(lifetime));
        let outcome = async {
            let Some(found) = self.inner.backend.get(&key, true).await? else { return Ok(false) };
            let frame = self.secret().open(&key, &found.bytes);
            let is_entry = matches!(frame, Some(Frame::Entry { .. }));
            let (Some(mark), true, Some(frame)) = (found.mark, is_entry, change(&found.bytes))
            else {
                return Ok(false);
            };
            let swapped = self.inner.backend.swap(&key, &frame, lifetime, mark).await?;
            Ok(matches!(swapped, Swapped::Done(_)))
        };
        outcome.await.inspect_err(|failure| self.failed(*failure))
    }

    /// Empties the cache; with memcached the whole of every server, other programs' entries too.
    /// Whether that is certain.
    pub async fn clear(&self) -> bool {
        let cleared = self.inner.backend.clear().await;
        cleared.inspect_err(|failure| self.failed(*failure)).is_ok()
    }

    /// The value of `key`, computed and stored if there is none.
    ///
    /// However many ask at once in this process, it is computed once; what is computed while
    /// somebody deletes the key is returned but not stored, and so is what takes longer than 10 s.
    /// `compute` must read what the value is made of when it is called, and not before; it must not
    /// ask for `key` itself.
    pub async fn get_or_compute<T, E>(
        &self,
        key: &str,
        lifetime: Lifetime,
        compute: impl AsyncFnOnce() -> Result<T, E>,
    ) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned,
    {
        self.get_or_compute_if(key, Stamp::default(), lifetime, |_| true, compute).await
    }

    /// Likewise; a value that `is_kept` does not hold for is returned but not stored.
    pub(crate) async fn get_or_compute_if<T, E>(
        &self,
        key: &str,
        stamp: Stamp,
        lifetime: Lifetime,
        is_kept: impl Fn(&T) -> bool,
        compute: impl AsyncFnOnce() -> Result<T, E>,
    ) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned,
    {
        if matches!(self.inner.backend, Backend::Null) {
            return compute().await;
        }
        let key = self.full_key(key);
        let lifetime = self.resolve(lifetime);
        let slot = Slot { key: &key, stamp };
        let found = match self.lookup(slot).await {
            Lookup::Hit(body, mark) => match codec::deserialize(&body) {
                Some(value) => {
                    self.count(Event::Hits { hits: 1, bytes: body.len() });
                    return Ok(value);
                }
                // Another type's: it is replaced like foreign bytes.
                None => Lookup::Miss(mark),
            },
            other => other,
        };
        self.count(Event::Misses(1));
        let encode = |value: &T| {
            let bytes = is_kept(value).then(|| codec::serialize(value)).flatten()?;
            Some(Encoded { size: bytes.len(), bytes, lifetime })
        };
        match self.fill(slot, found, encode, compute).await? {
            Filled::Fresh { value, .. } => Ok(value),
            Filled::Stored(body, compute) => match codec::deserialize(&body) {
                Some(value) => Ok(value),
                None => compute().await,
            },
        }
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("backend", &self.inner.backend.name())
            .field("prefix", &self.inner.prefix)
            .finish_non_exhaustive()
    }
}

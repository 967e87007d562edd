//! The cache: one handle, whatever backend stores the entries.

pub(crate) mod builder;
pub(crate) mod codec;
pub(crate) mod compute;
pub(crate) mod counters;
pub(crate) mod deletions;
#[cfg(feature = "memcached")]
pub(crate) mod environment;
pub(crate) mod events;
pub(crate) mod key;
pub(crate) mod lifetime;
mod many;
pub(crate) mod near;
#[cfg(feature = "memcached")]
pub(crate) mod servers;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};
#[cfg(debug_assertions)]
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use self::{
    codec::{deserialize, serialize},
    deletions::Deletions,
    events::{
        CacheEventKind, Events, Observer, Stopwatch,
        stats::{LayerStats, Registry},
    },
    key::full_key,
    lifetime::{Lifetime, Term},
    near::Near,
};
use crate::{
    backend::{
        AnyBackend,
        entries::{Entries, NewEntry, Slot},
        frame::{Secret, Stamp},
        types::BackendError,
    },
    freshness::{ahead::Inputs, flight::Flights, lease::Filler},
};

/// The name of the layer of a cache that was not made by [`Cache::layer`].
const DEFAULT_LAYER: &str = "cache";

/// The key of the epoch of a cache. No other key begins like this: elsewhere `%` is always followed by two
/// digits, or by another word.
const EPOCH_KEY: &str = "%epoch";

/// A cache. Cloning is cheap; all clones share entries and counters, over all threads.
///
/// No operation returns an error: a cache that cannot be reached is one without entries. Failures are
/// counted ([`LayerStats::errors`]).
///
/// ```
/// use std::time::Duration;
///
/// use everfresh::{Cache, Lifetime};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let cache = Cache::memory(1 << 20).prefix("app:").build();
/// let hour = Lifetime::For(Duration::from_secs(3600));
///
/// assert!(cache.set("colour", &"blue", hour).await);
/// assert!(!cache.add("colour", &"red", hour).await);
/// assert_eq!(cache.get("colour").await, Some("blue".to_owned()));
/// assert!(cache.touch("colour", Lifetime::Forever).await);
/// assert!(cache.replace("colour", &"green", hour).await);
/// assert!(!cache.contains("size").await);
///
/// cache.set_many(&[("a", 1), ("b", 2)], Lifetime::Default).await;
/// assert_eq!(cache.get_many(&["b", "missing"]).await, [Some(2), None]);
/// assert!(cache.delete_many(&["a", "b"]).await);
///
/// let size = async || Ok::<_, std::io::Error>(42);
/// assert_eq!(cache.get_or_compute("size", Lifetime::Forever, size).await.unwrap(), 42);
/// # }
/// ```
#[derive(Clone)]
pub struct Cache {
    inner: Arc<Inner>,
    entries: Entries,
}

struct Inner {
    prefix: String,
    default_lifetime: Option<Duration>,
    flights: Flights,
    deletions: Deletions,
    inputs: Inputs,
    stats: Registry,
    near: Near,
    /// The version and types of each memo that was used, by its name.
    #[cfg(debug_assertions)]
    memos: Mutex<HashMap<&'static str, (u64, [&'static str; 2])>>,
}

impl Cache {
    pub(crate) fn new(
        backend: AnyBackend,
        prefix: String,
        secret: Secret,
        default_lifetime: Option<Duration>,
        max_computation: Duration,
        near: Near,
        observers: Vec<Observer>,
    ) -> Self {
        let stats = Registry::default();
        let events = Events::new(stats.layer(DEFAULT_LAYER), observers.into());
        let epoch_key = full_key(&prefix, EPOCH_KEY);
        let entries = Entries::new(backend, secret, epoch_key, max_computation, events);
        let flights = Flights::default();
        let inner = Inner {
            prefix,
            default_lifetime,
            flights,
            deletions: Deletions::default(),
            inputs: Inputs::default(),
            stats,
            near,
            #[cfg(debug_assertions)]
            memos: Mutex::default(),
        };
        Self { inner: Arc::new(inner), entries }
    }

    /// Returns the name of the backend: `memory`, `memcached` or `none`.
    #[must_use]
    pub fn backend_name(&self) -> &'static str {
        self.entries.backend_name()
    }

    /// Returns whether other processes see the same entries. Then writes need a
    /// [`Ledger`](crate::Ledger).
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.entries.is_shared()
    }

    /// Returns a handle of the same cache whose operations are counted under `name`.
    #[must_use]
    pub fn layer(&self, name: &'static str) -> Self {
        let entries = self.entries.counted_by(self.inner.stats.layer(name));
        Self { inner: Arc::clone(&self.inner), entries }
    }

    /// Returns the statistics of each layer.
    #[must_use]
    pub fn stats(&self) -> BTreeMap<&'static str, LayerStats> {
        self.inner.stats.snapshot()
    }

    pub(crate) fn entries(&self) -> &Entries {
        &self.entries
    }

    /// Fills slots of this layer, one computation per key at a time.
    pub(crate) fn filler(&self) -> Filler<'_> {
        let Inner { flights, deletions, inputs, .. } = &*self.inner;
        Filler { entries: &self.entries, flights, deletions, inputs }
    }

    pub(crate) fn deletions(&self) -> &Deletions {
        &self.inner.deletions
    }

    /// Returns a key as the backend knows it.
    pub(crate) fn full_key(&self, key: &str) -> String {
        full_key(&self.inner.prefix, key)
    }

    /// Returns the prefix of all keys.
    #[cfg(feature = "tera")]
    pub(crate) fn prefix(&self) -> &str {
        &self.inner.prefix
    }

    /// Returns the values that this process keeps.
    pub(crate) fn near(&self) -> &Near {
        self.inner.near.follow(self.entries.epoch());
        &self.inner.near
    }

    /// Panics if another memo has this name and version and other types. Does so in debug builds only.
    #[cfg_attr(not(debug_assertions), expect(clippy::unused_self, reason = "see above"))]
    pub(crate) fn declare_memo(&self, name: &'static str, version: u64, types: [&'static str; 2]) {
        #[cfg(debug_assertions)]
        {
            let mut memos = self.inner.memos.lock().unwrap_or_else(PoisonError::into_inner);
            let (known_version, known) = *memos.entry(name).or_insert((version, types));
            drop(memos);
            let unordered =
                ["HashSet<", "BinaryHeap<"].iter().find(|name| types[0].contains(**name));
            assert!(
                unordered.is_none(),
                "the memo `{name}` takes {}: equal sets give different keys, so that a result cannot be \
                 forgotten; take a BTreeSet or a sorted Vec",
                types[0]
            );
            assert!(
                known == types || known_version != version,
                "two memos are named `{name}`: one takes {} and returns {}, the other takes {} and returns {}; \
                 give each a name of its own",
                known[0],
                known[1],
                types[0],
                types[1],
            );
        }
        #[cfg(not(debug_assertions))]
        let _ = (name, version, types);
    }

    /// Returns how long an entry of this lifetime is served.
    pub(crate) fn resolve(&self, lifetime: Lifetime) -> Term {
        lifetime.resolve(self.inner.default_lifetime)
    }

    /// Returns the value of `key`; `None` if there is no value of this type.
    ///
    /// A field of type `Option` that the stored value lacks is read as `None`: when a type gets such
    /// a field, change the keys or the cache's [version](crate::CacheBuilder::version).
    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        self.try_get(key).await.ok().flatten()
    }

    /// Like [`Cache::get`], but tells a missing value from a backend that failed.
    pub(crate) async fn try_get<T: DeserializeOwned>(
        &self,
        key: &str,
    ) -> Result<Option<T>, BackendError> {
        let key = self.full_key(key);
        // A failure is counted as such by `entries`, and is no miss.
        let stopwatch = self.entries.stopwatch();
        let body = self.entries.get(Slot::unstamped(&key)).await?;
        Ok(self.value(&key, body, stopwatch))
    }

    /// Returns the values of `keys`, in the same order, in one round trip per server.
    pub async fn get_many<T: DeserializeOwned>(&self, keys: &[&str]) -> Vec<Option<T>> {
        let keys: Vec<_> = keys.iter().map(|key| self.full_key(key)).collect();
        let keys: Vec<_> = keys.iter().map(String::as_str).collect();
        let stopwatch = self.entries.stopwatch();
        let found = self.entries.get_many(&keys).await.into_iter();
        let value = |(found, key): (Result<_, _>, &&str)| {
            let entry = found.ok().flatten().filter(|(stamp, _)| *stamp == Stamp::default());
            self.value(key, entry.map(|(_, body)| body), stopwatch)
        };
        found.zip(&keys).map(value).collect()
    }

    /// Deserializes a body, and counts a hit or a miss.
    fn value<T: DeserializeOwned>(
        &self,
        key: &str,
        body: Option<Bytes>,
        stopwatch: Stopwatch,
    ) -> Option<T> {
        let value = body.and_then(|body| Some((deserialize(&body)?, body.len())));
        let Some((value, bytes)) = value else {
            self.entries.note(key, CacheEventKind::Miss, stopwatch.elapsed());
            return None;
        };
        self.entries.note(key, CacheEventKind::Hit { bytes }, stopwatch.elapsed());
        Some(value)
    }

    /// Returns whether there is a value of any type under `key`. The value travels, because no server can tell an
    /// entry from a lease. Is not counted as a lookup.
    pub async fn contains(&self, key: &str) -> bool {
        let key = self.full_key(key);
        self.entries.get(Slot::unstamped(&key)).await.is_ok_and(|body| body.is_some())
    }

    /// Stores a value, whether or not there is one. Returns whether it was stored.
    pub async fn set<T: Serialize>(&self, key: &str, value: &T, lifetime: Lifetime) -> bool {
        self.set_many(&[(key, value)], lifetime).await[0]
    }

    /// Stores values in one round trip per server. Returns for each whether it was stored. If a value
    /// is not stored, because its lifetime is zero or the backend failed, the old one is deleted.
    pub async fn set_many<T: Serialize>(
        &self,
        entries: &[(&str, T)],
        lifetime: Lifetime,
    ) -> Vec<bool> {
        let term = self.resolve(lifetime);
        let mut stored = vec![false; entries.len()];
        if !term.is_zero() {
            let (mut positions, mut new) = (Vec::new(), Vec::new());
            for (position, (key, value)) in entries.iter().enumerate() {
                let Some(body) = serialize(value) else { continue };
                positions.push(position);
                let (key, body) = (self.full_key(key), body.into());
                new.push(NewEntry { key, stamp: Stamp::default(), body });
            }
            let outcomes = self.entries.put_many(new, term).await;
            for (position, outcome) in positions.into_iter().zip(outcomes) {
                stored[position] = outcome.is_ok();
            }
        }
        let lost = entries.iter().zip(&stored).filter(|(_, stored)| !**stored);
        let lost: Vec<_> = lost.map(|((key, _), _)| *key).collect();
        if !lost.is_empty() {
            self.delete_many(&lost).await;
        }
        stored
    }

    /// Stores a value if the key is free. Returns whether it was stored.
    pub async fn add<T: Serialize>(&self, key: &str, value: &T, lifetime: Lifetime) -> bool {
        let term = self.resolve(lifetime);
        let Some(body) = serialize(value).filter(|_| !term.is_zero()) else {
            return false;
        };
        let key = self.full_key(key);
        self.entries.add(Slot::unstamped(&key), &body, term).await.unwrap_or(false)
    }

    /// Deletes an entry. Returns whether it is certain to be gone.
    pub async fn delete(&self, key: &str) -> bool {
        self.delete_each(&[key]).await[0]
    }

    /// Deletes entries in one round trip per server. Returns whether all are certain to be gone.
    pub async fn delete_many(&self, keys: &[&str]) -> bool {
        self.delete_each(keys).await.into_iter().all(|confirmed| confirmed)
    }

    /// Like [`Cache::delete_many`], but returns the outcome for each key.
    pub(crate) async fn delete_each(&self, keys: &[&str]) -> Vec<bool> {
        let keys: Vec<_> = keys.iter().map(|key| self.full_key(key)).collect();
        self.entries.delete_many(&keys).await
    }

    /// Changes the lifetime of an entry. Returns whether there is one that has not been changed
    /// meanwhile. The value travels both ways, because no server can tell an entry from a lease.
    pub async fn touch(&self, key: &str, lifetime: Lifetime) -> bool {
        let (key, lifetime) = (self.full_key(key), self.resolve(lifetime));
        self.entries.rewrite(Slot::unstamped(&key), None, lifetime).await.unwrap_or(false)
    }

    /// Replaces a value if there is one. Returns whether it was replaced.
    pub async fn replace<T: Serialize>(&self, key: &str, value: &T, lifetime: Lifetime) -> bool {
        self.try_replace(key, value, lifetime).await.unwrap_or(false)
    }

    /// Like [`Cache::replace`], but tells a missing value from a backend that failed.
    pub(crate) async fn try_replace<T: Serialize>(
        &self,
        key: &str,
        value: &T,
        lifetime: Lifetime,
    ) -> Result<bool, BackendError> {
        let Some(body) = serialize(value) else { return Ok(false) };
        let (key, lifetime) = (self.full_key(key), self.resolve(lifetime));
        self.entries.rewrite(Slot::unstamped(&key), Some(&body), lifetime).await
    }

    /// Clears the cache: no entry of it is found any more, sessions included; other processes that share it follow
    /// within a few seconds. On servers, [counters](Self::counter) stay. If
    /// a server loses the number of the clear while no process runs, or it is away when a process starts, entries from before the
    /// clear can be found again; those that were deleted stay deleted. Entries of other programs, and of caches with
    /// another prefix or version, stay as they are. Returns whether that is certain.
    pub async fn clear(&self) -> bool {
        self.inner.near.clear();
        if self.is_shared() { self.entries.end_epoch().await } else { self.entries.clear().await }
    }

    /// Deletes everything that the backend stores; with memcached on every server, of other programs too.
    /// Returns whether that is certain.
    pub async fn clear_servers(&self) -> bool {
        self.inner.near.clear();
        self.entries.clear().await
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("backend", &self.backend_name())
            .field("prefix", &self.inner.prefix)
            .finish_non_exhaustive()
    }
}

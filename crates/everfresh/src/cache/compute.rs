//! Values that are computed if there is no entry.

use std::convert::Infallible;

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Cache,
    codec::{deserialize, serialize},
    events::CacheEventKind,
    lifetime::Lifetime,
};
use crate::{
    backend::{
        entries::{Lookup, Slot},
        frame::Stamp,
    },
    freshness::{
        computation::{is_within_computation, note_input, note_missing_input},
        landing::Encoded,
        lease::FillOutcome,
    },
};

/// The schema, groups and lifetime of an entry.
pub(crate) struct Stored<'a> {
    pub(crate) schema: u64,
    /// The full keys of its groups.
    pub(crate) groups: &'a [String],
    pub(crate) lifetime: Lifetime,
}

impl Cache {
    /// Returns the value of `key`; if there is none, computes and stores it.
    ///
    /// Concurrent calls in this process share one computation. A value is returned but not stored if
    /// its key is deleted during the computation, or if that takes longer than
    /// [`CacheBuilder::max_computation`](crate::CacheBuilder::max_computation). `compute` must
    /// read the value's input when it is called, and not before; it must not ask for `key` itself.
    pub async fn get_or_compute<T, E>(
        &self,
        key: &str,
        lifetime: Lifetime,
        compute: impl AsyncFnOnce() -> Result<T, E>,
    ) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned,
    {
        self.get_or_compute_if(key, 0, &[], lifetime, |_| true, compute).await
    }

    /// Like [`Cache::get_or_compute`], for a computation that cannot fail.
    ///
    /// ```
    /// use everfresh::{Cache, Lifetime};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let cache = Cache::memory(1 << 20).build();
    /// let primes = cache.get_with("primes", Lifetime::Forever, async || vec![2, 3, 5, 7]).await;
    /// assert_eq!(primes.len(), 4);
    /// # }
    /// ```
    pub async fn get_with<T: Serialize + DeserializeOwned>(
        &self,
        key: &str,
        lifetime: Lifetime,
        compute: impl AsyncFnOnce() -> T,
    ) -> T {
        let compute = async || Ok::<_, Infallible>(compute().await);
        let Ok(value) = self.get_or_compute(key, lifetime, compute).await;
        value
    }

    /// Computes and stores the value of `key`, whatever is stored. If the old value cannot be deleted first, the new
    /// one is returned but not stored.
    pub async fn renew<T, E>(
        &self,
        key: &str,
        lifetime: Lifetime,
        compute: impl AsyncFnOnce() -> Result<T, E>,
    ) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned,
    {
        if !self.delete(key).await {
            return compute().await;
        }
        self.get_or_compute(key, lifetime, compute).await
    }

    /// Like [`Cache::get_or_compute`], for an entry that belongs to groups: it is forgotten also when one
    /// of them is. Use groups where a write cannot name the keys of all entries that it makes wrong: pages
    /// of a list, searches.
    ///
    /// An entry and the groups of one server take one round trip.
    ///
    /// ```
    /// use everfresh::{Cache, Lifetime, group_key};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let cache = Cache::memory(1 << 20).build();
    /// let page = async |number: u32, text: &str| {
    ///     let compute = async || Ok::<_, ()>(text.to_owned());
    ///     let key = format!("tasks/page/{number}");
    ///     cache.get_or_compute_in(&["tasks"], &key, Lifetime::Forever, compute).await
    /// };
    /// assert_eq!(page(1, "old").await.as_deref(), Ok("old"));
    /// assert_eq!(page(1, "new").await.as_deref(), Ok("old"));
    /// // After a write, whatever pages there are:
    /// cache.delete(&group_key("tasks")).await;
    /// assert_eq!(page(1, "new").await.as_deref(), Ok("new"));
    /// # }
    /// ```
    pub async fn get_or_compute_in<T, E>(
        &self,
        groups: &[&str],
        key: &str,
        lifetime: Lifetime,
        compute: impl AsyncFnOnce() -> Result<T, E>,
    ) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned,
    {
        let groups: Vec<_> = groups.iter().map(|name| self.full_group_key(name)).collect();
        self.get_or_compute_if(key, 0, &groups, lifetime, |_| true, compute).await
    }

    /// Like [`Cache::get_or_compute`], with entries of one schema, in groups with these full keys. A value
    /// for which `is_cacheable` returns `false` is returned but not stored.
    pub(crate) async fn get_or_compute_if<T, E>(
        &self,
        key: &str,
        schema: u64,
        groups: &[String],
        lifetime: Lifetime,
        is_cacheable: impl Fn(&T) -> bool,
        compute: impl AsyncFnOnce() -> Result<T, E>,
    ) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned,
    {
        if self.entries.is_null() {
            return compute().await;
        }
        let stored = Stored { schema, groups, lifetime };
        let decode = async |body: &Bytes| deserialize(body);
        let encode = |value: &T| is_cacheable(value).then(|| serialize(value)).flatten();
        self.find_or_fill(key, stored, decode, encode, compute).await
    }

    /// Returns what `decode` makes of the entry under `key`; if there is none, or it makes nothing of it,
    /// computes a value and stores what `encode` makes of that.
    pub(super) async fn find_or_fill<T, E>(
        &self,
        key: &str,
        Stored { schema, groups, lifetime }: Stored<'_>,
        decode: impl AsyncFn(&Bytes) -> Option<T>,
        encode: impl Fn(&T) -> Option<Vec<u8>>,
        compute: impl AsyncFnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let key = self.full_key(key);
        let term = self.resolve(lifetime);
        let mut stamp = Stamp { schema, fingerprint: 0 };
        let stopwatch = self.entries.stopwatch();
        let is_first_input = note_input(&self.inner.inputs);
        let found = if groups.is_empty() {
            if is_within_computation() && !term.has_stale_time() {
                // Look up and reserve in one round trip.
                Lookup::Unknown
            } else {
                self.entries.look_up(Slot { key: &key, stamp }).await
            }
        } else {
            let (found, in_groups) = Box::pin(self.entries.look_up_in(&key, schema, groups)).await;
            let Some(in_groups) = in_groups else {
                self.entries.note(&key, CacheEventKind::Miss, None);
                return compute().await;
            };
            stamp = in_groups;
            found
        };
        let slot = Slot { key: &key, stamp };
        // A lookup that reserves the key is counted later, and its duration is not known.
        let mut looked_up = stopwatch.elapsed();
        let note = |kind, duration| self.entries.note(&key, kind, duration);
        let hit = |body: &Bytes, duration| {
            note(CacheEventKind::Hit { bytes: body.len() }, duration);
        };
        let encode = |value: &T| {
            let bytes = encode(value)?;
            Some(Encoded { size: bytes.len(), bytes, term, named: None })
        };
        let (mut found, mut compute) = (found, compute);
        loop {
            if let Lookup::Stale(body, token) = found {
                found = Lookup::Miss(token);
                if let (true, Some(value)) = (term.has_stale_time(), decode(&body).await) {
                    let refreshed = self.filler().refresh(slot, token, &encode, compute).await;
                    if let Some(computed) = refreshed {
                        note(CacheEventKind::Miss, looked_up);
                        return Ok(computed);
                    }
                    hit(&body, looked_up);
                    note(CacheEventKind::Stale, None);
                    return Ok(value);
                }
            }
            if let Lookup::Hit(body, token) = found {
                if let Some(value) = decode(&body).await {
                    hit(&body, looked_up);
                    return Ok(value);
                }
                // A value of another type is replaced like foreign bytes.
                found = Lookup::Miss(token);
            }
            let was_unknown = matches!(found, Lookup::Unknown);
            if was_unknown {
                looked_up = None;
            } else {
                note(CacheEventKind::Miss, looked_up);
            }
            match self.filler().fill(slot, found, &encode, compute).await? {
                FillOutcome::Computed { value, .. } => {
                    if was_unknown {
                        note(CacheEventKind::Miss, looked_up);
                        if is_first_input {
                            note_missing_input(slot);
                        }
                    }
                    return Ok(value);
                }
                FillOutcome::Cached(body, back) => {
                    if let Some(value) = decode(&body).await {
                        if was_unknown {
                            hit(&body, looked_up);
                        }
                        return Ok(value);
                    }
                    if !was_unknown {
                        return back().await;
                    }
                    // The bytes are replaced, which requires their token.
                    (found, compute) = (self.entries.look_up(slot).await, back);
                }
            }
        }
    }
}

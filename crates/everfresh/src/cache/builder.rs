//! Builds caches.

use std::{fmt, time::Duration};

use sha2::{Digest, Sha256};

use super::{
    Cache,
    events::{CacheEvent, Observer},
    near::{NEAR_BYTES, Near},
};
use crate::{
    backend::{
        AnyBackend, Backend,
        built_in::{memory::Memory, null::Null},
        custom::Custom,
        frame::Secret,
    },
    freshness::LEASE_LIFETIME,
};

/// Builds a [`Cache`]: start from a backend, such as [`Cache::memory`]; all other settings have
/// defaults.
pub struct CacheBuilder {
    backend: MakeBackend,
    prefix: String,
    version: Option<u64>,
    secret: Option<String>,
    previous_secret: Option<String>,
    secret_context: String,
    default_lifetime: Option<Duration>,
    max_computation: Duration,
    near_bytes: usize,
    observers: Vec<Observer>,
}

/// Makes the backend, given the prefix of all keys.
type MakeBackend = Box<dyn FnOnce(&str) -> AnyBackend + Send>;

impl CacheBuilder {
    fn new<B: Into<AnyBackend>>(backend: impl FnOnce(&str) -> B + Send + 'static) -> Self {
        Self {
            backend: Box::new(move |prefix| backend(prefix).into()),
            prefix: String::new(),
            version: None,
            secret: None,
            previous_secret: None,
            secret_context: "everfresh cache".to_owned(),
            default_lifetime: None,
            max_computation: LEASE_LIFETIME,
            near_bytes: NEAR_BYTES,
            observers: Vec::new(),
        }
    }

    /// Sets the prefix of every key, which is used as it is. Default: empty.
    #[must_use]
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..self }
    }

    /// Sets a version, which becomes part of every key. Entries of other versions are neither seen
    /// nor invalidated: while processes of two versions run, each has a cache of its own. Default: no
    /// version.
    #[must_use]
    pub fn version(self, version: u64) -> Self {
        Self { version: Some(version), ..self }
    }

    /// Sets a secret text that all processes share, such as the one that protects session cookies: entries
    /// are sealed with a MAC (SipHash-2-4) whose key is derived from it. Without the text, an attacker with
    /// write access to the servers can delete entries, restore older ones and hold up the replay, but can
    /// neither forge an entry nor move one to another key. The fingerprints of the values that fragments show (`of`) are hashed with
    /// a key that is derived from it, too. Default: no secret, and the seal is only a checksum.
    ///
    /// The text must have enough entropy (32 random characters, say), for it is hashed only once, with
    /// SHA-256. It cannot be computed back from the key.
    ///
    /// # Panics
    ///
    /// If the text is empty.
    #[must_use]
    pub fn secret(self, text: impl Into<String>) -> Self {
        let text = text.into();
        assert!(!text.is_empty(), "the secret of a cache is empty: anyone could forge its entries");
        Self { secret: Some(text), ..self }
    }

    /// Sets the secret before the last change of it: entries that were sealed with it are still read.
    /// Default: none.
    #[must_use]
    pub fn previous_secret(self, text: impl Into<String>) -> Self {
        Self { previous_secret: Some(text.into()), ..self }
    }

    /// Sets a text that separates the key from others that are derived from the same secret. Default:
    /// `everfresh cache`.
    #[must_use]
    pub fn secret_context(self, context: impl Into<String>) -> Self {
        Self { secret_context: context.into(), ..self }
    }

    /// Sets the duration of [`Lifetime::Default`](crate::Lifetime::Default). Default: for ever.
    #[must_use]
    pub fn default_lifetime(self, lifetime: Duration) -> Self {
        Self { default_lifetime: Some(lifetime), ..self }
    }

    /// Sets the longest computation that is kept; the log tells once for each layer if one takes longer. If
    /// a process dies while it computes, others do not keep that value for as long. At least a second: the
    /// servers count in seconds. Default: 10 seconds.
    #[must_use]
    pub fn max_computation(self, time: Duration) -> Self {
        Self { max_computation: time.max(Duration::from_secs(1)), ..self }
    }

    /// Sets how many bytes of values each process keeps in addition, so that it need not ask the servers for
    /// them: fragments with `of` and without a lifetime, and the results of [`Memo::at_hand`](crate::Memo::at_hand), of
    /// which each counts as ten times its serialized size. They never become wrong. 0 keeps none. Default: 32 MiB.
    #[must_use]
    pub fn near(self, bytes: usize) -> Self {
        Self { near_bytes: bytes, ..self }
    }

    /// Adds an observer, which is called for each event, by the task that uses the cache. It must not block. Can be
    /// called several times. Default: no observer, and no cost.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU32, Ordering};
    ///
    /// use everfresh::{Cache, CacheEventKind};
    ///
    /// static MISSES: AtomicU32 = AtomicU32::new(0);
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let cache = Cache::memory(1 << 20)
    ///     .observe(|event| {
    ///         if event.kind == CacheEventKind::Miss {
    ///             MISSES.fetch_add(1, Ordering::Relaxed);
    ///         }
    ///     })
    ///     .build();
    /// cache.get::<u32>("k").await;
    /// assert_eq!(MISSES.load(Ordering::Relaxed), 1);
    /// # }
    /// ```
    #[must_use]
    pub fn observe(mut self, observe: impl Fn(&CacheEvent<'_>) + Send + Sync + 'static) -> Self {
        self.observers.push(Box::new(observe));
        self
    }

    /// Builds the cache.
    #[must_use]
    pub fn build(self) -> Cache {
        let version = self.version.map(|version| format!("v{version}:")).unwrap_or_default();
        let prefix = self.prefix + &version;
        let backend = (self.backend)(&prefix);
        let key = |text: &String| derive_key(&self.secret_context, text);
        let secret = self.secret.as_ref().map_or_else(Secret::default, |text| {
            Secret::new(key(text), self.previous_secret.as_ref().map(key))
        });
        Cache::new(
            backend,
            prefix,
            secret,
            self.default_lifetime,
            self.max_computation,
            Near::new(self.near_bytes),
            self.observers,
        )
    }
}

fn derive_key(context: &str, text: &str) -> [u8; 16] {
    let digest = Sha256::new().chain_update(context).chain_update(text).finalize();
    let mut key = [0; 16];
    key.copy_from_slice(&digest[..16]);
    key
}

impl Cache {
    /// Stores entries in this process, in at most `bytes` bytes; the least recently used is evicted
    /// first. A single value may take a quarter of that.
    #[must_use]
    pub fn memory(bytes: usize) -> CacheBuilder {
        CacheBuilder::new(move |_| Memory::new(bytes))
    }

    /// Stores entries in memcached servers.
    #[cfg(feature = "memcached")]
    #[must_use]
    pub fn memcached(client: memcached_client::Client) -> CacheBuilder {
        CacheBuilder::new(move |_| crate::backend::built_in::memcached::Memcached::from(client))
    }

    /// Stores entries in memcached servers, and keeps a server that was down out of use until the
    /// invalidations that are left in the ledger have been deleted from it. Otherwise it would serve
    /// outdated entries until the next [`replay`](crate::replay()). While the ledger cannot be read,
    /// such a server stays down.
    #[cfg(feature = "memcached")]
    #[must_use]
    pub fn memcached_with_ledger(
        config: memcached_client::Config,
        ledger: impl crate::freshness::replay::Ledger + 'static,
    ) -> CacheBuilder {
        use std::sync::Arc;

        use memcached_client::Client;

        let ledger = Arc::new(ledger);
        CacheBuilder::new(move |prefix| {
            let prefix = prefix.to_owned();
            let client = Client::with_hook(config, move |client| {
                let (ledger, prefix) = (Arc::clone(&ledger), prefix.clone());
                async move { crate::freshness::replay::catch_up(&client, &prefix, &*ledger).await }
            });
            crate::backend::built_in::memcached::Memcached::from(client)
        })
    }

    /// Stores entries in a backend of yours. See [`backend`](crate::backend).
    #[must_use]
    pub fn with_backend(backend: impl Backend) -> CacheBuilder {
        CacheBuilder::new(move |_| Custom::from(backend))
    }

    /// Stores nothing: every value is computed each time.
    #[must_use]
    pub fn null() -> CacheBuilder {
        CacheBuilder::new(|_| Null)
    }

    /// Behaves as if the servers could never be reached, for tests.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn failing() -> CacheBuilder {
        CacheBuilder::new(|_| crate::backend::built_in::failing::Failing)
    }
}

impl fmt::Debug for CacheBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheBuilder")
            .field("prefix", &self.prefix)
            .field("version", &self.version)
            .field("default_lifetime", &self.default_lifetime)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derived_key_depends_on_context_and_text_alone() {
        let key = derive_key("app cache", "one");
        // Another key would lose all entries and sessions of a running app.
        let pinned = [55, 140, 245, 70, 7, 136, 252, 113, 151, 236, 141, 172, 197, 69, 48, 107];
        assert_eq!(key, pinned);
        assert_ne!(key, derive_key("app cache", "other"));
        assert_ne!(key, derive_key("other cache", "one"));
    }
}
